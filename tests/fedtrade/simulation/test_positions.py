"""Simulated positions are plausible over the recorded prices, repeatable, and say what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedtrade.learning.positions import STILL_OPEN, Positions, read_positions
from fedtrade.learning.tables import TRAIN_UNTIL_S, candles, markets
from fedtrade.simulation.positions import (
    CONSORTIUM,
    MAX_POSITIONS,
    MIN_POSITIONS,
    SIMULATED_FROM_S,
    STANDIN,
    SimulatedMember,
    csv_text,
    simulate_positions,
)

TABLES = {market: candles(*market) for market in markets()}
BOOKS = {member.name: simulate_positions(member, TABLES, 1) for member in CONSORTIUM}


def test_the_consortium() -> None:
    assert len({m.name for m in CONSORTIUM}) == 8
    venues = [m.venue for m in CONSORTIUM]
    assert {v: venues.count(v) for v in venues} == {"binance": 3, "bybit": 3, "hyperliquid": 2}
    assert {m.style for m in CONSORTIUM} == {"market_maker", "directional", "hedger", "momentum"}
    assert "simulated" in STANDIN


@pytest.mark.parametrize("member", CONSORTIUM, ids=lambda m: m.name)
def test_positions_meet_recorded_prices(member: SimulatedMember) -> None:
    book = BOOKS[member.name]
    assert MIN_POSITIONS <= len(book) <= MAX_POSITIONS
    assert set(book.symbol) == set(member.symbols)
    assert set(book.venue) == {member.venue}
    assert (np.diff(book.opened_s) >= 0).all()
    assert book.opened_s.min() >= SIMULATED_FROM_S
    assert book.opened_s.max() < TRAIN_UNTIL_S
    ended = book.closed_s != STILL_OPEN
    assert (book.closed_s[ended] > book.opened_s[ended]).all()
    assert book.closed_s.max() < TRAIN_UNTIL_S
    for i in range(0, len(book), 37):
        table = TABLES[book.venue[i], book.symbol[i]]
        hour = int(np.searchsorted(table.start_s, book.opened_s[i], side="right")) - 1
        assert table.low[hour] * 0.999999 <= book.entry_price[i] <= table.high[hour] * 1.000001


def test_styles_differ_as_documented() -> None:
    def median_hours(book: Positions) -> float:
        ended = book.closed_s != STILL_OPEN
        return float(np.median(book.closed_s[ended] - book.opened_s[ended])) / 3600

    books = {m.style: BOOKS[m.name] for m in CONSORTIUM}
    held = {style: median_hours(book) for style, book in books.items()}
    assert held["market_maker"] < held["momentum"] < held["directional"] < held["hedger"]
    assert (books["hedger"].side == -1).all()
    assert abs(books["market_maker"].side.mean()) < 0.1
    assert books["momentum"].leverage.min() >= 5
    assert books["market_maker"].leverage.max() <= 3


def test_liquidated_positions_end_in_the_hour_that_reaches_the_price() -> None:
    book, count = BOOKS["gorse"], 0
    for i in range(len(book)):
        table = TABLES[book.venue[i], book.symbol[i]]
        side, entry = int(book.side[i]), book.entry_price[i]
        price = entry * (1 - side * (1 / book.leverage[i] - 0.005))
        closed_s = int(book.closed_s[i]) if book.closed_s[i] != STILL_OPEN else TRAIN_UNTIL_S
        first = int(np.searchsorted(table.start_s, book.opened_s[i], side="right"))
        last = int(np.searchsorted(table.start_s, closed_s, side="right")) - 1
        reach = table.low if side > 0 else table.high
        held = (reach[first:last] - price) * side  # whole hours after the opening hour
        assert (held > -1e-6 * price).all()
        count += last > first and (reach[last] - price) * side <= 0
    assert count > 20


def test_the_same_seed_gives_the_same_file_and_another_seed_another() -> None:
    member = CONSORTIUM[0]
    assert csv_text(simulate_positions(member, TABLES, 1)) == csv_text(BOOKS[member.name])
    assert csv_text(simulate_positions(member, TABLES, 2)) != csv_text(BOOKS[member.name])


def test_the_future_of_the_prices_is_not_used() -> None:
    """Positions of the first month are the same whether or not later candles exist, up to when
    they end."""
    member = CONSORTIUM[1]
    until_s = SIMULATED_FROM_S + 30 * 86_400
    cut = {m: t.between(0, until_s) for m, t in TABLES.items()}
    full = simulate_positions(member, TABLES, 4, until_s=until_s)
    short = simulate_positions(member, cut, 4, until_s=until_s)
    assert csv_text(full) == csv_text(short)


@pytest.mark.parametrize("name", [m.name for m in CONSORTIUM])
def test_the_importer_takes_what_is_written(name: str, tmp_path: Path) -> None:
    path = tmp_path / "book.csv"
    path.write_text(csv_text(BOOKS[name]))
    book = read_positions(path, TRAIN_UNTIL_S)
    wanted = BOOKS[name]
    assert book.position_id == wanted.position_id
    assert all(identity.startswith("sim-") for identity in book.position_id)
    for column in ("side", "opened_s", "closed_s", "entry_price", "quantity_base", "leverage"):
        assert np.array_equal(getattr(book, column), getattr(wanted, column))
