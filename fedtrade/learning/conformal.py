"""Intervals round a forecast that keep their coverage when the market changes.

Quantiles of past residuals promise coverage only while the future is like the past; a crash is not.
So the interval has a controller (Gibbs and Candès 2021; in the form of Angelopoulos, Candès and
Tibshirani 2023, "conformal PID control": quantile tracking, a score that is scaled and centred by
what the last hours were like). For the residual r of each hour, misses m ∈ {0, 1}, miscoverage α:

    y = (r − 0.5 d) / (0.3 + 0.7 e)                              d, e: drift and size of the last hours
    l ← l + s (α/2 − 1[y < l]),   u ← u + s (1[y > u] − α/2)     slow: the shape, tail by tail
    q ← q + k (m − α)                                            fast: the width, both tails together
    interval  f + 0.5 d + (0.3 + 0.7 e) [l − q, u + q]

Because q moves by nothing else, misses over any T hours number exactly αT + (q_T − q_0)/k, whatever
the data do: that is the guarantee, and why k is large. At k = a tenth of the 90 % width, q has to
drift by half a width for 48 hours to be off by a tenth. The price is a width that moves; what that
costs is measured in docs/evaluation.md.

d is a mean of residuals with a half-life of six hours: who was too low for hours still is. e is a
mean, with a half-life of three, of residuals' sizes, each over its own usual size ("locally weighted
conformal", Lei et al. 2018). A single hour says little of e, but markets jump together: where others
are known, e takes the mean size over all of them (`track_markets`), and a market's own where not.

One value per market and head, a few floats, no clock and no coins: an agent can carry it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MISCOVERAGE: Final = 0.1
SLOW: Final = 0.002
"""s, in units of the first width."""
FAST: Final = 0.1
"""k, in units of the first width."""
LOCAL: Final = 0.7
"""How much of the width follows the last hours."""
PULL: Final = 0.5
"""How much of the last hours' drift is expected to stay."""
SIZE_STEP: Final = 1.0 - 0.5 ** (1 / 3)
DRIFT_STEP: Final = 1.0 - 0.5 ** (1 / 6)
TYPICAL_STEP: Final = 0.0005
"""The usual size of a residual is a mean over some three months."""
LEAST_RESIDUALS: Final = 100


@dataclass(frozen=True, slots=True)
class AdaptiveInterval:
    """The state of one market's interval for one head, in log units."""

    lower: float
    """l: where the lower tail of scores begins."""
    upper: float
    """u: where the upper tail begins."""
    offset: float
    """q: what the controller adds on both sides; negative when too much was covered."""
    width: float
    """u − l at the start: the unit of both steps."""
    drift: float
    """d, of the last hours."""
    size: float
    """e, of the last hours; 1 when they were as usual."""
    typical: float
    """The usual size of a residual, in log units."""
    miscoverage: float = MISCOVERAGE

    @classmethod
    def fitted(
        cls,
        residuals: Floats,
        market_sizes: Floats | None = None,
        miscoverage: float = MISCOVERAGE,
    ) -> Self:
        """Start from the quantiles of past residuals (N,); N at least LEAST_RESIDUALS.

        `market_sizes` (N,) as in `observe`.
        """
        if len(residuals) < LEAST_RESIDUALS or not np.isfinite(residuals).all():
            raise ValueError(f"an interval starts from {LEAST_RESIDUALS} finite residuals or more")
        if not 0.0 < miscoverage < 1.0:
            raise ValueError("the miscoverage must lie between 0 and 1")
        typical = max(float(np.abs(residuals).mean()), 1e-9)
        state = cls(0.0, 0.0, 0.0, 0.0, 0.0, 1.0, typical, miscoverage)
        scores = np.empty(len(residuals))
        sizes = [None] * len(residuals) if market_sizes is None else market_sizes.tolist()
        for i, (residual, size) in enumerate(zip(residuals.tolist(), sizes, strict=True)):
            scores[i] = state._score(residual)
            state = state._seen(residual, size, 0.0, 0.0, 0.0)
        low, high = (float(v) for v in np.quantile(scores, [miscoverage / 2, 1 - miscoverage / 2]))
        width = max(high - low, 1e-9)
        return cls(low, high, 0.0, width, state.drift, state.size, state.typical, miscoverage)

    def around(self, log_forecast: float) -> tuple[float, float]:
        """Lower and upper bound of the log target; they meet where the interval is empty."""
        low, high = self._range()
        centre, scale = log_forecast + PULL * self.drift, self._scale()
        return centre + scale * low, centre + scale * high

    def relative_size(self, residual: float) -> float:
        """|residual| over this market's usual one."""
        return abs(residual) / self.typical

    def observe(self, residual: float, market_size: float | None = None) -> Self:
        """The state after an hour whose target less forecast was `residual`; NaN changes nothing.

        `market_size`: the mean of `relative_size` over all markets in this hour, where known.
        """
        if not math.isfinite(residual):
            return self
        score = self._score(residual)
        low, high = self._range()
        missed = score < low or score > high
        slow, tail = SLOW * self.width, self.miscoverage / 2
        return self._seen(
            residual,
            market_size,
            slow * (tail - (score < self.lower)),
            slow * ((score > self.upper) - tail),
            FAST * self.width * (missed - self.miscoverage),
        )

    def track(
        self, log_forecast: Floats, log_target: Floats, market_sizes: Floats | None = None
    ) -> tuple[Floats, Floats, Self]:
        """Bounds (N,), (N,) of each hour, each made before its target is seen, and the last state."""
        state = self
        bounds = np.empty((2, len(log_forecast)))
        sizes = [None] * len(log_forecast) if market_sizes is None else market_sizes.tolist()
        for i, (forecast, target, size) in enumerate(
            zip(log_forecast.tolist(), log_target.tolist(), sizes, strict=True)
        ):
            bounds[:, i] = state.around(forecast)
            state = state.observe(target - forecast, size)
        return bounds[0], bounds[1], state

    def _range(self) -> tuple[float, float]:
        low, high = self.lower - self.offset, self.upper + self.offset
        return (low, high) if low <= high else ((low + high) / 2.0,) * 2

    def _scale(self) -> float:
        return 1.0 - LOCAL + LOCAL * self.size

    def _score(self, residual: float) -> float:
        return (residual - PULL * self.drift) / self._scale()

    def _seen(
        self,
        residual: float,
        market_size: float | None,
        lower_by: float,
        upper_by: float,
        offset_by: float,
    ) -> Self:
        size = self.relative_size(residual) if market_size is None else market_size
        return type(self)(
            self.lower + lower_by,
            self.upper + upper_by,
            self.offset + offset_by,
            self.width,
            self.drift + DRIFT_STEP * (residual - self.drift),
            self.size + SIZE_STEP * (size - self.size),
            max(self.typical + TYPICAL_STEP * (abs(residual) - self.typical), 1e-9),
            self.miscoverage,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One market's hours in time order, the first `calibration` of them only to start from."""

    end_s: Ints
    """(N,)."""
    log_forecast: Floats
    log_target: Floats
    calibration: int


def track_markets(markets: Sequence[Track]) -> list[tuple[Floats, Floats]]:
    """Bounds of every market's hours after its calibration, with the hour's mean size over all.

    Causal: the bounds of an hour use sizes of hours that had ended with all their targets known.
    """
    if not markets:
        return []
    residuals = [one.log_target - one.log_forecast for one in markets]
    sizes = [_relative_sizes(r, one.calibration) for r, one in zip(residuals, markets, strict=True)]
    hours, place = np.unique(np.concatenate([one.end_s for one in markets]), return_inverse=True)
    mean = np.bincount(place, np.concatenate(sizes), len(hours)) / np.bincount(place)
    bounds = []
    for one, residual in zip(markets, residuals, strict=True):
        together = mean[np.searchsorted(hours, one.end_s)]
        first = one.calibration
        start = AdaptiveInterval.fitted(residual[:first], together[:first])
        lower, upper, _ = start.track(
            one.log_forecast[first:], one.log_target[first:], together[first:]
        )
        bounds.append((lower, upper))
    return bounds


def _relative_sizes(residuals: Floats, calibration: int) -> Floats:
    """(N,): what `relative_size` says of each hour, from the state before it."""
    typical = max(float(np.abs(residuals[:calibration]).mean()), 1e-9)
    sizes = np.empty(len(residuals))
    for i, size in enumerate(np.abs(residuals).tolist()):
        sizes[i] = size / typical
        typical = max(typical + TYPICAL_STEP * (size - typical), 1e-9)
    return sizes


def interval_score(
    lower: Floats, upper: Floats, target: Floats, miscoverage: float = MISCOVERAGE
) -> Floats:
    """Width plus 2/α of every miss's distance: proper for central intervals (Winkler 1972)."""
    below, above = np.maximum(lower - target, 0.0), np.maximum(target - upper, 0.0)
    return np.asarray(upper - lower + 2.0 / miscoverage * (below + above))
