"""The packaged data: what is there, what is known when, and what is marked as a stand-in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fedtrade.errors import BadInput
from fedtrade.learning import tables
from fedtrade.learning.tables import (
    DATA,
    Floats,
    Ints,
    candles,
    crash_minutes,
    funding_spread,
    markets,
    open_interest_change,
)


def test_the_cut_is_small_and_attributed() -> None:
    files = list(DATA.glob("*.parquet"))
    assert sum(file.stat().st_size for file in files) <= 6 * 2**20
    text = (DATA / "ATTRIBUTION.md").read_text()
    assert all(f"`{file.name}`" in text for file in files)
    assert "@64385d37" in text
    assert "MIT License" in text


def test_sixteen_markets_on_four_venues() -> None:
    assert len(markets()) == 16
    assert {venue for venue, _ in markets()} == {"binance", "bybit", "hyperliquid", "lighter"}


@pytest.mark.parametrize("market", markets())
def test_candles_are_in_order_and_sane(market: tuple[str, str]) -> None:
    table = candles(*market)
    assert (np.diff(table.start_s) >= 3600).all()
    assert (table.start_s % 3600 == 0).all()
    assert (table.low <= np.minimum(table.open, table.close)).all()
    assert (table.high >= np.maximum(table.open, table.close)).all()
    assert (table.low > 0).all()
    assert (table.notional_usd >= 0).all()


def test_an_unknown_market_is_named() -> None:
    with pytest.raises(BadInput, match=r"binance/DOGE.*binance/BTC"):
        candles("binance", "DOGE")


def test_between_takes_whole_candles_only() -> None:
    table = candles("binance", "BTC")
    start = int(table.start_s[10])
    cut = table.between(start, start + 3 * 3600)
    assert cut.start_s.tolist() == [start, start + 3600, start + 7200]
    assert len(table.between(start + 1, start + 3 * 3600 - 1).start_s) == 1
    assert len(table.between(start, start).start_s) == 0


def test_bars_are_the_candles() -> None:
    table = candles("bybit", "SOL").between(0, int(candles("bybit", "SOL").end_s[4]))
    bars = list(table.bars())
    assert [b.start_s for b in bars] == table.start_s.tolist()
    assert [b.close for b in bars] == table.close.tolist()
    assert {b.width_s for b in bars} == {3600}


def test_crash_minutes_add_up_to_the_recorded_hours() -> None:
    """Two sources, minutes and hours, tell the same story."""
    minutes = crash_minutes()
    assert len(minutes.start_s) == 1440
    assert (np.diff(minutes.start_s) == 60).all()
    hours = candles("binance", "ETH").between(int(minutes.start_s[0]), int(minutes.end_s[-1]))
    assert len(hours.start_s) == 24
    by_hour = {n: getattr(minutes, n).reshape(24, 60) for n in ("open", "high", "low", "close")}
    assert np.allclose(by_hour["open"][:, 0], hours.open, rtol=1e-12)
    assert np.allclose(by_hour["high"].max(1), hours.high, rtol=1e-12)
    assert np.allclose(by_hour["low"].min(1), hours.low, rtol=1e-12)
    assert np.allclose(by_hour["close"][:, -1], hours.close, rtol=1e-12)
    assert (minutes.low <= np.minimum(minutes.open, minutes.close)).all()
    assert (minutes.high >= np.maximum(minutes.open, minutes.close)).all()


def test_it_is_a_crash() -> None:
    minutes = crash_minutes()
    assert minutes.low.min() / minutes.high.max() - 1 < -0.12


@pytest.mark.parametrize("series", [funding_spread, open_interest_change])
def test_context_is_known_only_afterwards(
    series: Callable[[str, Ints], Floats], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked at t does not change when everything after t is cut away."""
    at = candles("binance", "ETH").end_s[300:320]
    values = series("ETH", at)
    assert np.isfinite(values).all()
    names = ("funding.parquet", "open_interest_1h.parquet")
    cut = {n: f.filter(f["start_s"] <= at[9]) for n, f in ((n, tables._table(n)) for n in names)}
    monkeypatch.setattr(tables, "_table", cut.__getitem__)
    assert np.array_equal(series("ETH", at[:10]), values[:10])
    assert np.isnan(series("ETH", at + 9 * 3600 + 1)[10:]).all()


def test_context_says_when_it_is_unknown() -> None:
    before_everything = np.array([0, 10**9])
    assert np.isnan(funding_spread("ETH", before_everything)).all()
    assert np.isnan(open_interest_change("ETH", before_everything)).all()
    assert np.isnan(funding_spread("DOGE", before_everything)).all()


def test_hyperliquid_funding_is_used_an_hour_late() -> None:
    frame = tables._table("funding.parquet")
    own = frame.filter((frame["venue"] == "hyperliquid") & (frame["symbol"] == "BTC"))
    start, rate = int(own["start_s"][500]), float(own["funding_rate"][500])
    others = frame.filter((frame["venue"] == "binance") & (frame["symbol"] == "BTC"))
    known = others.filter(others["start_s"] <= start + 3600)["funding_rate"][-1]
    bybit = frame.filter((frame["venue"] == "bybit") & (frame["symbol"] == "BTC"))
    known_bybit = bybit.filter(bybit["start_s"] <= start + 3600)["funding_rate"][-1]
    rates = np.array([rate * 8, known, known_bybit]) * 1e4
    spread = funding_spread("BTC", np.array([start + 3600]))[0]
    assert spread == pytest.approx(rates.max() - rates.min(), rel=1e-12)
