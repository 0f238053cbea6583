"""What the forecast sees: causal features of one market, the same in a batch and in a stream.

Everything is built from *hour blocks*: the trailing 60 minutes that end at the last closed bar. A
block's variance is Parkinson's (1980) range estimator, v = ln(H/L)² / (4 ln 2), in units of one
hour; means of v over 1, 6, 24 and 168 blocks are the regressors of Corsi's (2009) HAR model. Their
logs enter as the level over 168 h and the steps 24 h − 168 h, 6 h − 24 h, 1 h − 6 h, which span the
same space and which keep what drifts (the level) apart from what does not. Volume enters only
relative to its own trailing mean over 168 h, so that venues of any size look alike.

Bars may have any width that divides an hour. Where the blocks of a stream that changed from hours
to minutes do not fall on bar ends, a block is the linear interpolation between the ends beside it,
which for sums (variance, notional) is exactly the prorated sum. A gap empties the stream: nothing
is ever differenced across one.

Two features come from outside the bars (funding spread, change of open interest). They carry a
"known" flag and a neutral value, and may be absent. Private features describe a position; an agent
that holds none uses PRIVATE_NEUTRAL.

Invariant: the row at t depends on nothing after t.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fedtrade.errors import BadInput
from fedtrade.learning.tables import HOUR_S, Candles, funding_spread, open_interest_change
from fedtrade.market.events import BarClosed

PUBLIC_FEATURES = (
    "log_variance_1h_over_6h",
    "log_variance_6h_over_24h",
    "log_variance_24h_over_168h",
    "log_variance_168h",
    "log_volume_1h",
    "log_volume_6h",
    "log_volume_24h",
    "return_1h",
    "return_6h",
    "return_24h",
    "range_asymmetry_1h",
    "hour_sin",
    "hour_cos",
    "half_day_sin",
    "half_day_cos",
    "week_sin",
    "week_cos",
    "weekend",
    "funding_spread",
    "funding_known",
    "open_interest_change",
    "open_interest_known",
)
PRIVATE_FEATURES = (
    "side",
    "log_leverage",
    "liquidation_distance",
    "log_age",
    "unrealised_return",
    "log_relative_size",
)
FEATURES = PUBLIC_FEATURES + PRIVATE_FEATURES
PRIVATE_NEUTRAL = np.array([0.0, math.log(3.0), 0.3, math.log(7.0), 0.0, math.log(1e-4)])
"""What stands for "no position": public constants, also the centres of the scaler."""
PRIVATE_SCALE = np.array([2.0, 1.6, 0.5, 2.0, 3.0, 5.0])
"""The scaler's widths: public constants, never estimated from positions."""
SLOW_FEATURES = (
    "log_variance_168h",
    "week_sin",
    "week_cos",
    "funding_spread",
    "funding_known",
    "open_interest_change",
    "open_interest_known",
)
"""They hardly move within weeks, so a network can learn dates by heart from them: scaled down."""
CONTEXT = slice(PUBLIC_FEATURES.index("funding_spread"), len(PUBLIC_FEATURES))
"""The public features that come from outside the bars."""

MEMORY_H = 168
VARIANCE_FLOOR = 1e-10
"""Per hour (a range of 0.17 bp): below it a block counts as flat, so that its log exists."""
VOLUME_FLOOR = 1e-3
"""Relative to the trailing mean."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def parkinson_variance(high: Floats | float, low: Floats | float) -> Floats:
    """ln(H/L)² / (4 ln 2), the variance of log price over the bar (Parkinson 1980)."""
    return np.asarray(np.square(np.log(high) - np.log(low)) / (4.0 * math.log(2.0)))


def log_variance(variance: Floats) -> Floats:
    """The log of a variance per hour, floored so that a flat hour is finite."""
    return np.asarray(np.log(np.maximum(variance, VARIANCE_FLOOR)))


def log_volume_ratio(notional: Floats, mean_notional: Floats) -> Floats:
    """ln(notional / trailing mean), floored; 0 where nothing traded for a week."""
    safe = np.where(mean_notional > 0, mean_notional, 1.0)
    ratio = np.where(mean_notional > 0, notional / safe, 1.0)
    return np.asarray(np.log(np.maximum(ratio, VOLUME_FLOOR)))


def _assemble(
    end_s: Ints, variance: Floats, notional: Floats, asymmetry: Floats, log_close: Floats
) -> Floats:
    """Public rows (N, len(PUBLIC_FEATURES)) without context, from blocks at lags 0, 1, … hours.

    `variance`, `notional`: (N, 168), newest first; `log_close`: (N, 4) at lags 0, 1, 6, 24 h.
    """
    spans = (1, 6, 24, MEMORY_H)
    mean_variance = [variance[:, :n].mean(1) for n in spans]
    mean_notional = [notional[:, :n].mean(1) for n in spans]
    hourly_deviation = np.sqrt(np.maximum(mean_variance[-1], VARIANCE_FLOOR))
    returns = [
        (log_close[:, 0] - log_close[:, i + 1]) / (hourly_deviation * math.sqrt(n))
        for i, n in enumerate(spans[:3])
    ]
    middle_s = end_s + HOUR_S / 2  # of the hour that is forecast
    day, week = 2 * math.pi * middle_s / 86_400, 2 * math.pi * middle_s / 604_800
    weekday = (middle_s // 86_400 + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0
    nothing = np.zeros(len(end_s))
    v1, v6, v24, v168 = (log_variance(v) for v in mean_variance)
    columns = [
        *(v1 - v6, v6 - v24, v24 - v168, v168),
        *(log_volume_ratio(n, mean_notional[-1]) for n in mean_notional[:3]),
        *returns,
        asymmetry,
        *(np.sin(day), np.cos(day), np.sin(2 * day), np.cos(2 * day)),
        *(np.sin(week), np.cos(week), np.where(weekday >= 5, 1.0, 0.0)),
        *(nothing, nothing, nothing, nothing),
    ]
    return np.stack(columns, axis=1)


def context_columns(funding: Floats, interest: Floats) -> Floats:
    """(N, 4): funding spread (asinh of bp) and open-interest change, each with its known flag."""
    columns = []
    for value, squash in ((np.arcsinh(funding), 4.0), (interest, 0.5)):
        known = np.isfinite(value)
        columns += [np.where(known, np.clip(value, -squash, squash), 0.0), known.astype(float)]
    return np.stack(columns, axis=1)


def public_rows(candles: Candles, with_context: bool = True) -> tuple[Ints, Floats]:
    """Ends (N,) and public rows (N, F) of every hour of hourly candles that has 168 h behind it."""
    if candles.width_s != HOUR_S:
        raise ValueError("public_rows takes hourly candles; use FeatureStream for other widths")
    ends, rows = [np.zeros(0, np.int64)], [np.zeros((0, len(PUBLIC_FEATURES)))]
    breaks = np.flatnonzero(np.diff(candles.start_s) != HOUR_S) + 1
    for part in np.split(np.arange(len(candles.start_s)), breaks):
        if len(part) < MEMORY_H:
            continue
        high, low, opening = (a[part] for a in (candles.high, candles.low, candles.open))
        variance = parkinson_variance(high, low)
        log_close = np.log(candles.close[part])
        last = np.arange(MEMORY_H - 1, len(part))
        end_s = candles.end_s[part][last]

        def lagged(series: Floats) -> Floats:
            return sliding_window_view(series, MEMORY_H)[:, ::-1]

        rows.append(
            _assemble(
                end_s,
                lagged(variance),
                lagged(candles.notional_usd[part]),
                _asymmetry(high, low, opening)[last],
                np.stack([log_close[last - lag] for lag in (0, 1, 6, 24)], axis=1),
            )
        )
        ends.append(end_s)
    end_s, table = np.concatenate(ends), np.concatenate(rows)
    if with_context and len(end_s):
        symbol = candles.symbol
        table[:, CONTEXT] = context_columns(
            funding_spread(symbol, end_s), open_interest_change(symbol, end_s)
        )
    return end_s, table


def neutral_rows(public: Floats) -> Floats:
    """Full rows (N, F) for whoever holds no position."""
    neutral = np.broadcast_to(PRIVATE_NEUTRAL, (len(public), len(PRIVATE_NEUTRAL)))
    return np.concatenate([public, neutral], axis=1)


def _asymmetry(high: Floats, low: Floats, opening: Floats) -> Floats:
    """(up − down) / (up + down) of the log range round the open, in [−1, 1]; 0 for a flat bar."""
    up, down = np.log(high / opening), np.log(opening / low)
    width = up + down
    return np.where(width > 0, (up - down) / np.where(width > 0, width, 1.0), 0.0)


class FeatureStream:
    """Features of one market, bar by bar; knows nothing until it has seen 168 contiguous hours."""

    def __init__(self) -> None:
        self._inside: deque[BarClosed] = deque()  # bars that lie inside the trailing hour
        self._first_s = 0
        self._count = 0
        self._ends = np.zeros(1024)
        self._blocks = np.zeros((1024, 4))  # variance, notional, asymmetry, log close
        self._context = np.zeros(4)

    def observe(self, bar: BarClosed) -> None:
        """Take the next closed bar. A gap before it empties the stream; going back is refused."""
        _check(bar)
        if self._count:
            known_s = int(self._ends[self._count - 1])
            if bar.start_s < known_s:
                problem = f"starts at {bar.start_s}, but bars up to {known_s} are known"
                raise BadInput("bar", problem, "Give bars once each, in time order.")
            if bar.start_s > known_s:
                self._inside.clear()
                self._count = 0
        if not self._count:
            self._first_s = bar.start_s
        end_s = bar.start_s + bar.width_s
        self._inside.append(bar)
        while self._inside[0].start_s < end_s - HOUR_S:
            self._inside.popleft()
        self._append(end_s, self._block(end_s))

    def set_context(self, funding_spread_bps: float | None, interest_change: float | None) -> None:
        """Set what comes from outside the bars; None means unknown."""
        values = [math.nan if v is None else v for v in (funding_spread_bps, interest_change)]
        self._context = context_columns(np.array(values[:1]), np.array(values[1:]))[0]

    def row(self) -> Floats | None:
        """The features (F,) at the last bar's end, private ones neutral; None while cold."""
        if not self.warm:
            return None
        end_s, lags_s = self._ends[self._count - 1], np.arange(MEMORY_H) * HOUR_S
        variance, notional = self._lagged(0, lags_s), self._lagged(1, lags_s)
        log_close = self._lagged(3, np.array([0, 1, 6, 24]) * HOUR_S)
        asymmetry = self._blocks[self._count - 1, 2]
        row = _assemble(
            np.array([int(end_s)]), variance[None], notional[None], asymmetry[None], log_close[None]
        )[0]
        row[CONTEXT] = self._context
        return np.concatenate([row, PRIVATE_NEUTRAL])

    @property
    def warm(self) -> bool:
        """Whether 168 contiguous hours are known."""
        return bool(
            self._count and self._ends[self._count - 1] - self._first_s >= MEMORY_H * HOUR_S
        )

    @property
    def end_s(self) -> int | None:
        """The end of the last bar, or None before the first."""
        return int(self._ends[self._count - 1]) if self._count else None

    def last_hour_variance(self) -> float | None:
        """Parkinson variance of log price over the trailing hour."""
        return float(self._blocks[self._count - 1, 0]) if self._count else None

    def trailing_mean_notional(self) -> float | None:
        """Mean notional per hour over 168 h (USD): turns a demand ratio into an amount."""
        if not self.warm:
            return None
        return float(self._lagged(1, np.arange(MEMORY_H) * HOUR_S).mean())

    def _lagged(self, column: int, lags_s: Ints) -> Floats:
        ends = self._ends[: self._count]
        series = self._blocks[: self._count, column]
        return np.asarray(np.interp(ends[-1] - lags_s, ends, series), np.float64)

    def _block(self, end_s: int) -> Floats:
        """Variance, notional, asymmetry and log close of the hour that ends at `end_s`.

        What the bars inside the hour leave uncovered belongs to a wider bar that reaches into it:
        that part is prorated from the block at that bar's end. Before an hour is known at all, the
        covered part is scaled up.
        """
        inside = self._inside
        covered = (end_s - inside[0].start_s) / HOUR_S
        high, low = max(b.high for b in inside), min(b.low for b in inside)
        piece = np.array(
            [
                float(parkinson_variance(high, low)),
                sum(b.notional_usd for b in inside),
                float(_asymmetry(*(np.array([x]) for x in (high, low, inside[0].open)))[0]),
            ]
        )
        before = self._count - (len(inside) - 1) - 1
        if covered == 1.0:
            block = piece
        elif before >= 0:
            block = piece * [1.0, 1.0, covered] + (1.0 - covered) * self._blocks[before, :3]
        else:
            block = piece / [covered, covered, 1.0]
        return np.append(block, math.log(inside[-1].close))

    def _append(self, end_s: int, block: Floats) -> None:
        if self._count == len(self._ends):
            keep = int(
                np.searchsorted(
                    self._ends[: self._count], end_s - (MEMORY_H + 2) * HOUR_S, side="left"
                )
            )
            ends, blocks = self._ends[keep : self._count], self._blocks[keep : self._count]
            size = max(1024, 2 * len(ends))
            self._ends, self._blocks = np.zeros(size), np.zeros((size, 4))
            self._ends[: len(ends)], self._blocks[: len(ends)] = ends, blocks
            self._count = len(ends)
        self._ends[self._count], self._blocks[self._count] = end_s, block
        self._count += 1


def _check(bar: BarClosed) -> None:
    prices = (bar.low, bar.open, bar.close, bar.high)
    problem = None
    if not (0 < bar.width_s <= HOUR_S and HOUR_S % bar.width_s == 0):
        problem = f"a width of {bar.width_s} s does not divide an hour"
    elif not all(math.isfinite(p) and p > 0 for p in prices):
        problem = "prices must be positive and finite"
    elif not (bar.low <= min(bar.open, bar.close) and max(bar.open, bar.close) <= bar.high):
        problem = "open and close must lie between low and high"
    elif not (math.isfinite(bar.notional_usd) and bar.notional_usd >= 0):
        problem = "the notional must be at least 0 and finite"
    if problem:
        raise BadInput(f"bar at {bar.start_s}", problem, "Fix the source of the bars.")
