"""A position's windows: few, causal, deterministic, with the targets of the hour after."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.learning.features import (
    CONTEXT,
    FEATURES,
    PRIVATE_NEUTRAL,
    PUBLIC_FEATURES,
    parkinson_variance,
)
from fedtrade.learning.positions import STILL_OPEN, Positions
from fedtrade.learning.tables import candles
from fedtrade.learning.windows import (
    DAY_S,
    MAX_DAYS,
    MAX_WINDOWS,
    PositionBatch,
    chosen_hours,
    market_table,
    position_windows,
)

MARKET = ("binance", "ETH")
UNTIL_S = 1_749_686_400
TABLE = market_table(candles(*MARKET), UNTIL_S)
PRIVATE = slice(len(PUBLIC_FEATURES), len(FEATURES))
OPENED_S = 1_743_503_400  # 2025-04-01 10:30 UTC


def book(opened_s: int = OPENED_S, hours: float = 30.0, **changes: object) -> Positions:
    closed_s = STILL_OPEN if math.isinf(hours) else opened_s + int(hours * 3600)
    position = Positions(
        ("p",),
        ("binance",),
        ("ETH",),
        np.array([1], np.int8),
        np.array([opened_s]),
        np.array([closed_s]),
        np.array([1850.0]),
        np.array([2.0]),
        np.array([5.0]),
    )
    return replace(position, **changes)  # type: ignore[arg-type]


def windows(position: Positions, now_s: int = UNTIL_S) -> PositionBatch:
    return position_windows(position, {MARKET: TABLE}, now_s)


def test_targets_are_those_of_the_hour_after() -> None:
    table = candles(*MARKET)
    for row in (0, 500, len(TABLE.end_s) - 1):
        end_s = int(TABLE.end_s[row])
        after = int(np.flatnonzero(table.start_s == end_s)[0])
        variance = parkinson_variance(table.high[after], table.low[after])
        assert TABLE.targets[row, 0] == pytest.approx(math.log(variance))
        mean = table.notional_usd[after - 168 : after].mean()
        assert TABLE.mean_notional[row] == pytest.approx(mean)
        assert TABLE.targets[row, 1] == pytest.approx(math.log(table.notional_usd[after] / mean))
        assert TABLE.close[row] == table.close[after - 1]
    assert TABLE.end_s[-1] == UNTIL_S - 3600


def test_nothing_after_the_cut_is_used() -> None:
    table = candles(*MARKET)
    cut = 2000
    until_s = int(table.end_s[cut - 1])
    shuffled = {}
    for name in ("open", "high", "low", "close", "notional_usd"):
        series = getattr(table, name).copy()
        series[cut:] = series[cut:][::-1]
        shuffled[name] = series
    before, after = market_table(table, until_s), market_table(replace(table, **shuffled), until_s)
    for name in ("end_s", "features", "targets", "close", "mean_notional"):
        assert np.array_equal(getattr(before, name), getattr(after, name))


@given(
    st.integers(1_741_900_000, UNTIL_S - 1),
    st.integers(0, 60 * DAY_S),
)
def test_chosen_hours_are_few_and_while_the_position_was_open(opened_s: int, held_s: int) -> None:
    closed_s = opened_s + held_s
    rows = chosen_hours(opened_s, closed_s, TABLE.end_s)
    times = TABLE.end_s[rows]
    assert len(rows) <= MAX_WINDOWS
    assert len(set(rows.tolist())) == len(rows)
    assert len({int(t) // DAY_S for t in times}) <= MAX_DAYS
    assert (times > opened_s).all()
    assert (times - 3600 < max(closed_s, opened_s + 1)).all()


def test_a_short_position_has_one_window_and_a_long_one_eight() -> None:
    for hours, count in ((0.1, 1), (3.0, 4), (30.0, 8), (2000.0, 8), (math.inf, 8)):
        weights = windows(book(hours=hours)).weights[0]
        assert (weights > 0).sum() == count
        assert weights.sum() == pytest.approx(1.0)
        assert np.allclose(weights[:count], 1 / count)


def test_public_part_is_the_tables_row_and_private_part_is_every_other_hour() -> None:
    batch = windows(book())
    rows = chosen_hours(OPENED_S, OPENED_S + 30 * 3600, TABLE.end_s)
    hidden = TABLE.end_s[rows] // 3600 % 2 == 1
    assert hidden.any()
    assert not hidden.all()
    public = batch.features[0, :, : len(PUBLIC_FEATURES)]
    thin = TABLE.end_s[rows] // DAY_S % 3 == 0
    expected = TABLE.features[rows].copy()
    expected[thin, CONTEXT] = 0
    assert np.allclose(public, expected, rtol=1e-6)
    private = batch.features[0, :, PRIVATE]
    assert np.allclose(private[hidden], PRIVATE_NEUTRAL)
    assert (private[~hidden, 0] == 1.0).all()
    assert np.allclose(private[~hidden, 1], math.log(5.0))


def test_private_features_of_a_long_and_a_short() -> None:
    rows = chosen_hours(OPENED_S, OPENED_S + 30 * 3600, TABLE.end_s)
    seen = np.flatnonzero(TABLE.end_s[rows] // 3600 % 2 == 0)[0]
    end_s, price = int(TABLE.end_s[rows][seen]), float(TABLE.close[rows][seen])
    long = windows(book()).features[0, seen, PRIVATE].astype(float)
    short = windows(book(side=np.array([-1], np.int8))).features[0, seen, PRIVATE].astype(float)
    assert long[2] == pytest.approx((price - 1850 * (1 - 0.195)) / price, rel=1e-5)
    assert short[2] == pytest.approx((1850 * (1 + 0.195) - price) / price, rel=1e-5)
    assert long[3] == pytest.approx(math.log1p((end_s - OPENED_S) / 3600), rel=1e-5)
    assert long[4] == pytest.approx(-short[4])
    assert np.sign(long[4]) == np.sign(price - 1850)
    mean = TABLE.mean_notional[rows][seen]
    assert long[5] == pytest.approx(math.log(3700 / mean), rel=1e-5)


def test_a_position_without_a_market_or_before_the_data_has_no_windows() -> None:
    elsewhere = position_windows(book(), {}, UNTIL_S)
    early = windows(book(opened_s=1_600_000_000, hours=5.0))
    for batch in (elsewhere, early):
        assert batch.count == 1
        assert not batch.weights.any()


def test_an_open_position_ends_now() -> None:
    now_s = OPENED_S + 3 * 3600
    table = market_table(candles(*MARKET), now_s)
    batch = position_windows(book(hours=math.inf), {MARKET: table}, now_s)
    assert (batch.weights > 0).sum() == 2  # 11:00 and 12:00: the hour after 13:00 is not known
    closed = position_windows(book(hours=3.0), {MARKET: table}, now_s)
    assert np.array_equal(batch.features, closed.features)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("features", np.full((1, 2, 3), np.nan, np.float32)),
        ("features", np.zeros((1, 2, 3))),
        ("targets", np.zeros((1, 3, 2), np.float32)),
        ("weights", np.zeros((2, 2), np.float32)),
        ("weights", np.array([[0.5, 0.4]], np.float32)),
        ("weights", np.array([[1.5, -0.5]], np.float32)),
    ],
)
def test_a_malformed_batch_is_refused(name: str, array: np.ndarray) -> None:
    good = {
        "features": np.zeros((1, 2, 3), np.float32),
        "targets": np.zeros((1, 2, 2), np.float32),
        "weights": np.array([[0.5, 0.5]], np.float32),
    }
    PositionBatch(**good)
    with pytest.raises(ValueError, match=r"batch|share|weights"):
        PositionBatch(**{**good, name: array})
