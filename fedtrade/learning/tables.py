"""The packaged public market data (see `fedtrade/data/ATTRIBUTION.md`) as arrays.

Everything here is public and recorded. Times are Unix seconds; a candle is known at its *end*.
The split is fixed: models train on what ended before TRAIN_UNTIL_S and are judged on what comes
after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl

from fedtrade.errors import BadInput
from fedtrade.learning.series import Floats, Ints, Series, spread
from fedtrade.market.events import BarClosed

DATA = Path(__file__).resolve().parent.parent / "data"
HOUR_S = 3600
TRAIN_UNTIL_S = 1_749_686_400
"""2025-06-12 00:00 UTC."""
TEST_UNTIL_S = 1_759_276_800
"""2025-10-01 00:00 UTC."""
SETTLEMENTS_PER_8H = {"binance": 1.0, "bybit": 1.0, "hyperliquid": 8.0}
"""How many funding settlements make 8 hours, apart from HYPE on binance (2)."""
FUNDING_LAG_S = {"hyperliquid": HOUR_S}
"""The source samples Hyperliquid's premium an hour before the rate settles."""


@dataclass(frozen=True, slots=True, eq=False)
class Candles:
    """Candles of one market in time order; not necessarily without gaps."""

    venue: str
    symbol: str
    width_s: int
    start_s: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    notional_usd: Floats

    @property
    def end_s(self) -> Ints:
        return self.start_s + self.width_s

    def between(self, from_s: int, until_s: int) -> Candles:
        """Candles that lie wholly inside [from_s, until_s)."""
        first = int(np.searchsorted(self.start_s, from_s))
        last = int(np.searchsorted(self.end_s, until_s, side="right"))
        cut = slice(first, max(first, last))
        names = ("start_s", "open", "high", "low", "close", "notional_usd")
        return replace(self, **{name: getattr(self, name)[cut] for name in names})

    def bars(self) -> Iterator[BarClosed]:
        """The candles as the events that an agent is given for history."""
        columns = (self.start_s, self.open, self.high, self.low, self.close, self.notional_usd)
        for start, o, h, low, c, notional in zip(*(a.tolist() for a in columns), strict=True):
            yield BarClosed(start, self.width_s, o, h, low, c, notional)


@lru_cache(maxsize=8)
def _table(name: str) -> pl.DataFrame:
    frame = pl.read_parquet(DATA / name)
    return frame.with_columns(pl.col("ts").dt.epoch("s").alias("start_s")).sort("start_s")


def markets() -> tuple[tuple[str, str], ...]:
    """Every (venue, symbol) that the packaged candles cover, sorted."""
    frame = _table("candles_1h.parquet").select("venue", "symbol").unique()
    return tuple(sorted((str(venue), str(symbol)) for venue, symbol in frame.iter_rows()))


@lru_cache(maxsize=64)
def candles(venue: str, symbol: str) -> Candles:
    """Hourly candles of one market."""
    if (venue, symbol) not in markets():
        known = ", ".join(f"{v}/{s}" for v, s in markets())
        raise BadInput(f"{venue}/{symbol}", "no candles are packaged", f"Use one of: {known}.")
    own = (pl.col("venue") == venue) & (pl.col("symbol") == symbol)
    return _candles(_table("candles_1h.parquet").filter(own), venue, symbol, HOUR_S)


def crash_minutes() -> Candles:
    """ETH on binance, minute by minute, for a day from 2025-06-12 12:00 UTC: it falls by 12 %."""
    return _candles(_table("crash_1m.parquet"), "binance", "ETH", 60)


def funding_spread(symbol: str, at_s: Ints) -> Floats:
    """Highest less lowest funding over venues, per 8 h in basis points, as known at each time.

    NaN where fewer than two venues have settled within the last 9 hours.
    """
    frame = _table("funding.parquet").filter(pl.col("symbol") == symbol)
    rates = []
    for venue in sorted(frame["venue"].unique().to_list()):
        own = frame.filter(pl.col("venue") == venue)
        per_8h = 2.0 if (venue, symbol) == ("binance", "HYPE") else SETTLEMENTS_PER_8H[venue]
        known_s = own["start_s"].to_numpy() + FUNDING_LAG_S.get(venue, 0)
        bps = own["funding_rate"].to_numpy() * per_8h * 1e4
        rates.append(Series(known_s, bps, max_age_s=9 * HOUR_S))
    return spread(tuple(rates), at_s)


def open_interest_change(symbol: str, at_s: Ints) -> Floats:
    """Log change of open interest (on hyperliquid) over 24 h, as known at each time; NaN if not."""
    frame = _table("open_interest_1h.parquet").filter(pl.col("symbol") == symbol)
    known_s, log_oi = frame["start_s"].to_numpy(), np.log(frame["oi_usd"].to_numpy())
    series = Series(known_s, log_oi, max_age_s=2 * HOUR_S)
    return np.asarray(series.at(at_s) - series.at(at_s - 24 * HOUR_S), np.float64)


def _candles(frame: pl.DataFrame, venue: str, symbol: str, width_s: int) -> Candles:
    def column(name: str) -> Floats:
        return np.ascontiguousarray(frame[name].to_numpy(), np.float64)

    o, h, low, c = (column(name) for name in ("open", "high", "low", "close"))
    start_s = np.ascontiguousarray(frame["start_s"].to_numpy(), np.int64)
    notional = column("volume") * (o + h + low + c) / 4.0
    return Candles(venue, symbol, width_s, start_s, o, h, low, c, notional)
