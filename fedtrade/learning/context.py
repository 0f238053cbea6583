"""What is known of a market beside its bars, as series with the time at which it became known.

Funding is a fraction of notional per 8 h whatever the venue settles by: Binance, Bybit and OKX
settle every 8 h (some coins every 4 h, and that changes), Hyperliquid every 8 h until 2023-06-08
and every hour since, dYdX and Lighter every hour. A venue that changes its periods shows them in
the distance of its settlements; a missing print must not be taken for a longer period, so the
period of a settlement is the median of the distances at it, before it and after it.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from fedtrade.learning.series import Floats, Ints, Series
from fedtrade.learning.tables import HOUR_S

DAY_S = 86_400
COMMON_PERIOD_H = 8
HOURLY_SINCE_S = {"hyperliquid": 1_686_182_400 + 1, "dydx": 0, "lighter": 0}
"""Venues that settle hourly, and since when; Hyperliquid's last of 8 h is 2023-06-08 00:00 UTC."""
SAMPLED_EARLY_S = {"hyperliquid": HOUR_S}
"""By how much a cross-venue table's rates are sampled before they settle: it samples the premium
of Hyperliquid at the start of the hour that the rate is for. What is sampled is not yet settled,
and so counts as known only then."""
FUNDING_AGE_S = 9 * HOUR_S
MAX_GAS_GWEI = 1e6
"""No base fee was ever a tenth of it; 2^64 − 1 (a placeholder of some nodes) is far above."""
INTRINSIC_GAS = 21_000
MAX_GAS_USED = 2**40
MAX_LIQUIDATION_USD = 1e9
"""No one call ever liquidated as much; sources have been off by 1e20."""
RECORDER_SILENCE_S = DAY_S
"""Longer without any liquidation is taken for a gap of the recorder, not for a calm."""
_PERIODS_H = (1, 2, 4, 8)
WRAPPED = {"WETH": "ETH", "AmmWETH": "ETH", "WBTC": "BTC", "AmmWBTC": "BTC", "stETH": "ETH"}


def seconds(name: str = "ts") -> pl.Expr:
    """A time column as Unix seconds, rounded down: venues stamp settlements some ms late."""
    return pl.col(name).dt.epoch("s").cast(pl.Int64)


def series(known_s: Ints, value: Floats, max_age_s: int) -> Series:
    """A series of the finite values, the last one where several share a time."""
    good = np.isfinite(value)
    known_s, value = known_s[good], value[good]
    order = np.argsort(known_s, kind="stable")
    known_s, value = known_s[order], value[order]
    last = np.append(np.diff(known_s) > 0, True)[: len(known_s)]
    return Series(known_s[last], value[last], max_age_s)


def empty(max_age_s: int = 0) -> Series:
    """The series of what a folder does not have."""
    return Series(np.zeros(0, np.int64), np.zeros(0), max_age_s)


def periods_h(settled_s: Ints, venue: str) -> Floats:
    """The funding period (N,) in hours that each settlement of one market paid for."""
    hourly_since_s = HOURLY_SINCE_S.get(venue)
    if hourly_since_s is not None:
        return np.where(settled_s >= hourly_since_s, 1.0, 8.0)
    if len(settled_s) < 2:
        return np.full(len(settled_s), float(COMMON_PERIOD_H))
    apart = np.round(np.diff(settled_s) / HOUR_S)
    before = np.concatenate([apart[:1], apart])
    around = np.stack([np.roll(before, 1), before, np.roll(before, -1)])
    around[0, 0], around[2, -1] = before[0], before[-1]
    period = np.median(around, axis=0)
    usual = [h for h in _PERIODS_H if (before == h).any()]
    commonest = max(usual, key=lambda h: int((before == h).sum())) if usual else COMMON_PERIOD_H
    return np.where(np.isin(period, _PERIODS_H), period, float(commonest))


def funding_per_8h(settled: pl.DataFrame, venue: str, early_s: int = 0) -> pl.DataFrame:
    """(known_s, rate per 8 h) of one market from (ts, funding_rate) in any order."""
    table = settled.select(seconds().alias("known_s"), pl.col("funding_rate").cast(pl.Float64))
    table = table.filter(pl.col("funding_rate").is_finite()).unique("known_s").sort("known_s")
    period = periods_h(table["known_s"].to_numpy() + early_s, venue)
    return table.select(
        pl.col("known_s") + early_s,
        pl.col("funding_rate") * pl.Series(COMMON_PERIOD_H / period),
    )


def merged_funding(own: pl.DataFrame | None, others: pl.DataFrame | None) -> Series:
    """The venue's own settlements, and what another table has at times that those lack."""
    parts = [t for t in (own, others) if t is not None]
    if not parts:
        return empty(FUNDING_AGE_S)
    both = pl.concat(parts).unique("known_s", keep="first", maintain_order=True)
    return _of(both, FUNDING_AGE_S)


def daily_open_interest(table: pl.DataFrame) -> Series:
    """Log USD at the day's close, known then, of (ts, oi_close): oi_open may be bogus."""
    closed = table.filter(pl.col("oi_close") > 0)
    return _of(closed.select(seconds() + DAY_S, pl.col("oi_close").log()), 2 * DAY_S)


def hourly_open_interest(table: pl.DataFrame) -> Series:
    """Log USD, known at its own time, of (ts, oi_usd)."""
    known = table.filter(pl.col("oi_usd") > 0)
    return _of(known.select(seconds(), pl.col("oi_usd").log()), 2 * HOUR_S)


def daily(table: pl.DataFrame, column: str, highest: float) -> Series:
    """A figure of the day, known when the day is over; values outside (0, highest) left out."""
    inside = (pl.col(column) > 0) & (pl.col(column) < highest)
    return _of(table.filter(inside).select(seconds() + DAY_S, pl.col(column)), 2 * DAY_S)


def hourly_sums(table: pl.DataFrame, usd: pl.Expr) -> Series:
    """USD per hour, known at the hour's end; 0 in a calm hour between two that are not far apart."""
    end_s = seconds() // HOUR_S * HOUR_S + HOUR_S
    events = table.select(end_s.alias("end_s"), usd.cast(pl.Float64).alias("usd"))
    possible = events.filter(pl.col("usd").is_between(0, MAX_LIQUIDATION_USD))
    sums = possible.group_by("end_s").agg(pl.col("usd").sum()).sort("end_s")
    at, value = sums["end_s"].to_numpy(), sums["usd"].to_numpy()
    if not len(at):
        return empty()
    hours = np.arange(at[0], at[-1] + 1, HOUR_S)
    following = np.searchsorted(at, hours)
    previous = np.maximum(np.searchsorted(at, hours, side="right") - 1, 0)
    calm = at[following] - at[previous] <= RECORDER_SILENCE_S
    dense = np.zeros(len(hours))
    dense[np.searchsorted(hours, at)] = value
    return Series(hours[calm], dense[calm], 0)


def known_gas(gas_used: pl.Expr) -> pl.Expr:
    """Gas of a receipt, or null where it cannot be: 2^64 − 1 and 1 are placeholders of sources."""
    return pl.when(gas_used.is_between(INTRINSIC_GAS, MAX_GAS_USED)).then(gas_used)


def _of(table: pl.DataFrame, max_age_s: int) -> Series:
    known_s, value = (table.to_series(i).to_numpy() for i in (0, 1))
    return series(known_s.astype(np.int64), value.astype(np.float64), max_age_s)
