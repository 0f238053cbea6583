"""What the forecast sees: causal features of one market, the same in a batch and in a stream.

Everything is built from *hour blocks*: the trailing 60 minutes that end at the last closed bar. A
block's variance is Parkinson's (1980) range estimator, v = ln(H/L)² / (4 ln 2), in units of one
hour; means of v over 1, 6, 24 and 168 blocks are the regressors of Corsi's (2009) HAR model. Their
logs enter as the level over 168 h and the steps 24 h − 168 h, 6 h − 24 h, 1 h − 6 h, which span the
same space and which keep what drifts (the level) apart from what does not. Volume enters only
relative to its own trailing mean over 168 h, so that venues of any size look alike. `blocks` adds
more windows, means of logs, and the weekly rhythm: what the hour that is forecast usually brings,
and how far the last hours lay from what was usual for them.

Bars may have any width that divides an hour. Where the blocks of a stream that changed from hours
to minutes do not fall on bar ends, a block is the linear interpolation between the ends beside it,
which for sums (variance, notional) is exactly the prorated sum. A gap empties the stream: nothing
is ever differenced across one. Only the rhythm survives it, which is a mean per hour of the week.

Two features come from outside the bars (funding spread, change of open interest). They carry a
"known" flag and a neutral value, and may be absent. Private features describe a position; an agent
that holds none uses PRIVATE_NEUTRAL.

Invariant: the row at t depends on nothing after t.
"""

from __future__ import annotations

import math
from collections import deque
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fedtrade.errors import BadInput
from fedtrade.learning import blocks
from fedtrade.learning.blocks import MEMORY_H as MEMORY_H
from fedtrade.learning.blocks import VARIANCE_FLOOR as VARIANCE_FLOOR
from fedtrade.learning.blocks import VOLUME_FLOOR as VOLUME_FLOOR
from fedtrade.learning.tables import HOUR_S, Candles, funding_spread, open_interest_change
from fedtrade.market.events import BarClosed

CANDLE_FEATURES = (
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
    *(f"log_variance_{h}h_over_168h" for h in (2, 3, 12, 48, 72)),
    *(f"log_volume_{h}h" for h in (3, 72)),
    *(f"mean_log_variance_{h}h" for h in (6, 24, 168)),
    *(f"smooth_log_variance_{h}h" for h in (2, 6, 18)),
    "squared_return_6h",
    "semivariance_24h",
    *(f"mean_log_volume_{h}h" for h in (6, 24)),
    *(f"same_hour_{d}d" for d in (1, 7)),
    *(f"usual_{name}" for name in ("day", "4w", "10w", "26w", "volume")),
    *(f"surprise_{h}h" for h in (1, 2, 3, 6, 12, 24)),
    *(f"volume_surprise_{h}h" for h in (1, 3, 6)),
)
"""What bars alone tell, in the order in which `blocks.fill_row` writes it."""
PUBLIC_FEATURES = (
    *CANDLE_FEATURES,
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

_PRORATED = [blocks.VARIANCE, blocks.NOTIONAL, blocks.ASYMMETRY]

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
    names = ("open", "high", "low", "close", "notional_usd")
    bars = np.stack([getattr(candles, name) for name in names], axis=1)
    end_s = candles.end_s
    breaks = [0, *(np.flatnonzero(np.diff(end_s) != HOUR_S) + 1).tolist(), len(end_s)]
    parts = list(pairwise(breaks)) if len(end_s) else []
    known_s = np.concatenate([end_s[:0], *(end_s[a + MEMORY_H - 1 : b] for a, b in parts)])
    rows, profiles, done = np.zeros((len(known_s), len(PUBLIC_FEATURES))), blocks.new_profiles(), 0
    for a, b in parts:
        more = max(b - a - MEMORY_H + 1, 0)
        own = rows[done : done + more]
        blocks.rows_of(int(end_s[a]), bars[a:b], blocks.new_past(), profiles, own)
        done += more
    if with_context and len(known_s):
        symbol = candles.symbol
        rows[:, CONTEXT] = context_columns(
            funding_spread(symbol, known_s), open_interest_change(symbol, known_s)
        )
    return known_s, rows


def neutral_rows(public: Floats) -> Floats:
    """Full rows (N, F) for whoever holds no position."""
    neutral = np.broadcast_to(PRIVATE_NEUTRAL, (len(public), len(PRIVATE_NEUTRAL)))
    return np.concatenate([public, neutral], axis=1)


class FeatureStream:
    """Features of one market, bar by bar; knows nothing until it has seen 168 contiguous hours."""

    def __init__(self) -> None:
        self._inside: deque[BarClosed] = deque()  # bars that lie inside the trailing hour
        self._first_s = 0
        self._count = 0
        self._ends = np.zeros(1024, np.int64)
        self._blocks = np.zeros((1024, blocks.WIDTH))
        self._profiles = blocks.new_profiles()
        self._past = blocks.new_past()
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
        self._append(end_s)

    def set_context(self, funding_spread_bps: float | None, interest_change: float | None) -> None:
        """Set what comes from outside the bars; None means unknown."""
        values = [math.nan if v is None else v for v in (funding_spread_bps, interest_change)]
        self._context = context_columns(np.array(values[:1]), np.array(values[1:]))[0]

    def row(self) -> Floats | None:
        """The features (F,) at the last bar's end, private ones neutral; None while cold."""
        if not self.warm:
            return None
        row = np.zeros(len(FEATURES))
        blocks.last_row(self._ends, self._blocks, self._count, self._past, self._profiles, row)
        row[CONTEXT] = self._context
        row[len(PUBLIC_FEATURES) :] = PRIVATE_NEUTRAL
        return row

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
        return float(self._blocks[self._count - 1, blocks.VARIANCE]) if self._count else None

    def last_hour_notional(self) -> float | None:
        """Notional of the trailing hour (USD)."""
        return float(self._blocks[self._count - 1, blocks.NOTIONAL]) if self._count else None

    def trailing_mean_notional(self) -> float | None:
        """Mean notional per hour over 168 h (USD): turns a demand ratio into an amount."""
        if not self.warm:
            return None
        at_s = int(self._ends[self._count - 1])
        blocks.look_back(self._ends, self._blocks, self._count, at_s, self._past)
        return float(self._past[0, :MEMORY_H, blocks.NOTIONAL].mean())

    def _append(self, end_s: int) -> None:
        """The block of the hour that ends at `end_s`, behind the others.

        What the bars inside the hour leave uncovered belongs to a wider bar that reaches into it:
        that part is prorated from the block at that bar's end. Before an hour is known at all, the
        covered part is scaled up.
        """
        if self._count == len(self._ends):
            self._forget(end_s)
        inside, block = self._inside, self._blocks[self._count]
        first, last = inside[0], inside[-1]
        high, low, notional = last.high, last.low, last.notional_usd
        if first is not last:
            high, low = max([b.high for b in inside]), min([b.low for b in inside])
            notional = sum([b.notional_usd for b in inside])
        blocks.describe(first.open, high, low, last.close, notional, block)
        covered, before = (end_s - first.start_s) / HOUR_S, self._count - len(inside)
        if covered < 1.0 and before >= 0:
            block[blocks.ASYMMETRY] *= covered
            block[_PRORATED] += (1.0 - covered) * self._blocks[before, _PRORATED]
        elif covered < 1.0:
            block[[blocks.VARIANCE, blocks.NOTIONAL]] /= covered
        blocks.close_block(self._ends, self._blocks, self._count, end_s, self._past, self._profiles)
        self._count += 1

    def _forget(self, end_s: int) -> None:
        """Drop what lies more than the memory before `end_s`, and make room for as much again."""
        from_s = end_s - (MEMORY_H + 2) * HOUR_S
        keep = int(np.searchsorted(self._ends, from_s, side="left"))
        ends, kept = self._ends[keep:], self._blocks[keep:]
        size = max(1024, 2 * len(ends))
        self._ends, self._blocks = np.zeros(size, np.int64), np.zeros((size, blocks.WIDTH))
        self._ends[: len(ends)], self._blocks[: len(ends)] = ends, kept
        self._count = len(ends)


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
