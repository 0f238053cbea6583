"""From positions and public candles to the batch that a member's gradient is computed from.

The unit is the *position*. It contributes at most MAX_WINDOWS windows on at most MAX_DAYS days; a
window is an hour end t such that the position was open at some time in the hour before t. Its
features are those known at t; its targets are the log Parkinson variance of the hour after t and
the log of that hour's notional over the trailing 168 h mean. The loss of a position is the weighted
mean over its windows, so a position that was open for a week weighs as much as one that was open
for an hour, and clipping its gradient bounds all that it can do to the model.

In every other hour the private features are replaced by their neutral values, and on every third
day the context from outside the candles by "unknown", so that one network serves both who holds a
position and who does not. Which hours and days is public: it depends on t alone.

A batch is private. It shows only its size, and it cannot be pickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from fedtrade.learning.features import (
    CONTEXT,
    FEATURES,
    MEMORY_H,
    PRIVATE_NEUTRAL,
    PUBLIC_FEATURES,
    VARIANCE_FLOOR,
    log_variance,
    log_volume_ratio,
    parkinson_variance,
    public_rows,
)
from fedtrade.learning.positions import STILL_OPEN, Positions
from fedtrade.learning.tables import HOUR_S, Candles

HEADS = ("log_variance", "log_demand")
"""What the network forecasts for the next hour, in the order of its outputs."""
HORIZON_S = HOUR_S
MAX_WINDOWS = 8
MAX_DAYS = 5
DAY_S = 86_400
_LEVEL = PUBLIC_FEATURES.index("log_variance_168h")
MAINTENANCE_MARGIN = 0.005
"""Assumed share of notional at which a venue liquidates: a round figure, not any venue's own."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PositionBatch:
    """P positions of at most W windows with F features each; float32."""

    features: NDArray[np.float32]
    """(P, W, F): public features, then private ones, unscaled."""
    targets: NDArray[np.float32]
    """(P, W, 2): log variance and log demand of the hour after the window."""
    weights: NDArray[np.float32]
    """(P, W): at least 0; 0 for padding; they sum to 1, or to 0 for a position without windows."""

    def __post_init__(self) -> None:
        p, w, _ = self.features.shape
        if self.targets.shape != (p, w, len(HEADS)) or self.weights.shape != (p, w):
            raise ValueError("features, targets and weights must share positions and windows")
        for array in (self.features, self.targets, self.weights):
            if array.dtype != np.float32 or not np.isfinite(array).all():
                raise ValueError("a position batch holds finite float32 only")
        total = self.weights.sum(1)
        if (self.weights < 0).any() or np.minimum(np.abs(total - 1.0), total).max(initial=0) > 1e-5:
            raise ValueError("the weights of a position must be at least 0 and sum to 1 or to 0")

    @property
    def count(self) -> int:
        """How many positions the batch holds."""
        return int(self.features.shape[0])

    def take(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> PositionBatch:
        """The positions that `rows` (a mask or indices) selects.

        Rows of a batch that was checked are not checked again: members sample in every step.
        """
        part = object.__new__(PositionBatch)
        for name in ("features", "targets", "weights"):
            object.__setattr__(part, name, getattr(self, name)[rows])
        return part

    def __repr__(self) -> str:
        return f"PositionBatch({self.count} positions)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a position batch is private: it has no serialiser")


@dataclass(frozen=True, slots=True, eq=False)
class MarketTable:
    """Public rows and targets of one market, one line an hour whose following hour is known."""

    end_s: NDArray[np.int64]
    features: Floats
    """(N, public features)."""
    targets: Floats
    """(N, 2)."""
    close: Floats
    mean_notional: Floats
    """Per hour, over the trailing 168 h (USD)."""

    def take(self, rows: NDArray[np.bool_]) -> MarketTable:
        """The lines that `rows` (N,) selects."""
        names = ("end_s", "features", "targets", "close", "mean_notional")
        return MarketTable(*(getattr(self, name)[rows] for name in names))


def market_table(candles: Candles, until_s: int, with_context: bool = True) -> MarketTable:
    """Rows of hourly candles whose next hour has ended by `until_s`.

    With the packaged context, or with none: who has another joins it (`fedtrade.data.building`).
    """
    past = candles.between(0, until_s)
    end_s, features = public_rows(past, with_context)
    here = np.searchsorted(past.end_s, end_s)
    following = np.minimum(here + 1, len(past.start_s) - 1)
    known = past.start_s[following] == end_s
    here, following = here[known], following[known]
    total = np.concatenate([[0.0], np.cumsum(past.notional_usd)])
    mean_notional = (total[here + 1] - total[here + 1 - MEMORY_H]) / MEMORY_H
    variance = parkinson_variance(past.high[following], past.low[following])
    demand = log_volume_ratio(past.notional_usd[following], mean_notional)
    targets = np.stack([log_variance(variance), demand], axis=1)
    return MarketTable(end_s[known], features[known], targets, past.close[here], mean_notional)


def chosen_hours(opened_s: int, closed_s: int, end_s: NDArray[np.int64]) -> NDArray[np.intp]:
    """Indices into `end_s` of a position's windows: spread evenly, at most 8 on at most 5 days."""
    first_s = opened_s // HOUR_S * HOUR_S + HOUR_S
    last_s = -(-max(closed_s, opened_s + 1) // HOUR_S) * HOUR_S
    last_s = min(last_s, (first_s // DAY_S + MAX_DAYS) * DAY_S - HOUR_S)
    low, high = np.searchsorted(end_s, [first_s, last_s + 1])
    count = int(high - low)
    if count <= 0:
        return np.zeros(0, np.intp)
    spread = np.linspace(0, count - 1, min(MAX_WINDOWS, count))
    return np.asarray(low + np.round(spread), np.intp)


def position_windows(
    positions: Positions, tables: Mapping[tuple[str, str], MarketTable], now_s: int
) -> PositionBatch:
    """All windows of `positions`, one row a position; a market without a table gives no windows."""
    shape = (len(positions), MAX_WINDOWS)
    features = np.zeros((*shape, len(FEATURES)), np.float32)
    targets = np.zeros((*shape, len(HEADS)), np.float32)
    weights = np.zeros(shape, np.float32)
    for p in range(len(positions)):
        table = tables.get((positions.venue[p], positions.symbol[p]))
        if table is None:
            continue
        closed_s = int(positions.closed_s[p])
        closed_s = now_s if closed_s == STILL_OPEN else closed_s
        rows = chosen_hours(int(positions.opened_s[p]), closed_s, table.end_s)
        n = len(rows)
        if n == 0:
            continue
        public = _thinned(table, rows)
        private = _private_features(positions, p, closed_s, table, rows)
        features[p, :n] = np.concatenate([public, private], axis=1)
        targets[p, :n] = table.targets[rows]
        weights[p, :n] = 1.0 / n
    return PositionBatch(features, targets, weights)


def _thinned(table: MarketTable, rows: NDArray[np.intp]) -> Floats:
    public = table.features[rows]
    public[table.end_s[rows] // DAY_S % 3 == 0, CONTEXT] = 0.0
    return public


def _private_features(
    positions: Positions, p: int, closed_s: int, table: MarketTable, rows: NDArray[np.intp]
) -> Floats:
    """(n, private features) of position p at each window, in the order of PRIVATE_FEATURES."""
    end_s, price = table.end_s[rows], table.close[rows]
    side, leverage = float(positions.side[p]), float(positions.leverage[p])
    entry = float(positions.entry_price[p])
    liquidation = entry * (1.0 - side * (1.0 / leverage - MAINTENANCE_MARGIN))
    age_h = np.maximum(np.minimum(end_s, closed_s) - positions.opened_s[p], 0) / HOUR_S
    day_deviation = np.sqrt(24.0 * np.maximum(np.exp(table.features[rows, _LEVEL]), VARIANCE_FLOOR))
    notional = entry * float(positions.quantity_base[p])
    columns = [
        np.full(len(rows), side),
        np.full(len(rows), np.log(leverage)),
        np.clip(side * (price - liquidation) / price, 0.0, 1.0),
        np.log1p(age_h),
        np.clip(side * np.log(price / entry) / day_deviation, -4.0, 4.0),
        np.log(notional / np.maximum(table.mean_notional[rows], 1.0)),
    ]
    private = np.stack(columns, axis=1)
    private[end_s // HOUR_S % 2 == 1] = PRIVATE_NEUTRAL
    return private
