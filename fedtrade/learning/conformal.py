"""Intervals round a forecast that keep their coverage when the market changes.

Quantiles of past residuals promise coverage only while the future is like the past; a crash is not.
So the interval has a controller (Gibbs and Candès 2021; in the form of Angelopoulos, Candès and
Tibshirani 2023, "conformal PID control", quantile tracking with a learnt score). For the residual r
of each hour, misses m ∈ {0, 1} and miscoverage α:

    l ← l + s (α/2 − 1[r < l]),   u ← u + s (1[r > u] − α/2)     slow: the shape, tail by tail
    q ← q + k (m − α)                                            fast: the width, both tails together
    interval  [f + l − q,  f + u + q]

Because q moves by nothing else, misses over any T hours number exactly αT + (q_T − q_0)/k, whatever
the data do: that is the guarantee, and why k is large. At k = a tenth of the 90 % width, q has to
drift by half a width for 48 hours to be off by a tenth. The price is a width that moves; what that
costs is measured in docs/evaluation.md.

One value per market and head, a few floats, no clock and no coins: an agent can carry it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MISCOVERAGE: Final = 0.1
SLOW: Final = 0.002
"""s, in units of the first width."""
FAST: Final = 0.1
"""k, in units of the first width."""
LEAST_RESIDUALS: Final = 100


@dataclass(frozen=True, slots=True)
class AdaptiveInterval:
    """The state of one market's interval for one head, in log units."""

    lower: float
    """l: where the lower tail of residuals begins."""
    upper: float
    """u: where the upper tail begins."""
    offset: float
    """q: what the controller adds on both sides; negative when too much was covered."""
    width: float
    """u − l at the start: the unit of both steps."""
    miscoverage: float = MISCOVERAGE

    @classmethod
    def fitted(cls, residuals: Floats, miscoverage: float = MISCOVERAGE) -> Self:
        """Start from the quantiles of past residuals (N,); N at least LEAST_RESIDUALS."""
        if len(residuals) < LEAST_RESIDUALS or not np.isfinite(residuals).all():
            raise ValueError(f"an interval starts from {LEAST_RESIDUALS} finite residuals or more")
        if not 0.0 < miscoverage < 1.0:
            raise ValueError("the miscoverage must lie between 0 and 1")
        low, high = np.quantile(residuals, [miscoverage / 2, 1.0 - miscoverage / 2])
        return cls(float(low), float(high), 0.0, max(float(high - low), 1e-9), miscoverage)

    def around(self, log_forecast: float) -> tuple[float, float]:
        """Lower and upper bound of the log target; they meet where the interval is empty."""
        low, high = self.lower - self.offset, self.upper + self.offset
        if low > high:
            low = high = (low + high) / 2.0
        return log_forecast + low, log_forecast + high

    def observe(self, residual: float) -> Self:
        """The state after an hour whose target less forecast was `residual`; NaN changes nothing."""
        if not math.isfinite(residual):
            return self
        low, high = self.around(0.0)
        missed = residual < low or residual > high
        slow, tail = SLOW * self.width, self.miscoverage / 2
        return replace(
            self,
            lower=self.lower + slow * (tail - (residual < self.lower)),
            upper=self.upper + slow * ((residual > self.upper) - tail),
            offset=self.offset + FAST * self.width * (missed - self.miscoverage),
        )

    def track(self, log_forecast: Floats, log_target: Floats) -> tuple[Floats, Floats, Self]:
        """Bounds (N,), (N,) of each hour, each made before its target is seen, and the last state."""
        state = self
        bounds = np.empty((2, len(log_forecast)))
        for i, (forecast, target) in enumerate(
            zip(log_forecast.tolist(), log_target.tolist(), strict=True)
        ):
            bounds[:, i] = state.around(forecast)
            state = state.observe(target - forecast)
        return bounds[0], bounds[1], state


def interval_score(
    lower: Floats, upper: Floats, target: Floats, miscoverage: float = MISCOVERAGE
) -> Floats:
    """Width plus 2/α of every miss's distance: proper for central intervals (Winkler 1972)."""
    below, above = np.maximum(lower - target, 0.0), np.maximum(target - upper, 0.0)
    return np.asarray(upper - lower + 2.0 / miscoverage * (below + above))
