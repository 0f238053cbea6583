"""What came of an agent's own forecasts, and how wide of the next one the truth may therefore lie.

An agent sees one market and no others, so its intervals start from that market's last hours: once an
hour a forecast is noted, an hour later it is compared with what the bars then say, and of each head
an `AdaptiveInterval` follows the residuals. Nothing is known before LEAST_RESIDUALS hours have been
forecast and have come, which history counts towards. A gap in the bars loses the hour that it is in.

A function of the bars alone: no clock, no coins, so a replay of them gives the same bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fedtrade.learning.conformal import LEAST_RESIDUALS, AdaptiveInterval
from fedtrade.learning.features import FeatureStream, log_variance, log_volume_ratio
from fedtrade.learning.forecast import (
    MAX_LOG_DEMAND,
    MAX_LOG_VARIANCE,
    MIN_LOG_VARIANCE,
    Forecast,
    Forecaster,
)
from fedtrade.learning.tables import HOUR_S


@dataclass(frozen=True, slots=True)
class Intervals:
    """90 % intervals of the next hour, (lower, upper) of each."""

    variance_per_hour: tuple[float, float]
    demand_ratio: tuple[float, float]
    """Of the hour's notional over its trailing 168 h mean."""


@dataclass(frozen=True, slots=True)
class _Noted:
    """A forecast that waits for its hour."""

    due_s: int
    forecast: Forecast
    mean_notional: float


class _Head:
    """The interval of one head, or the residuals that it will start from."""

    def __init__(self) -> None:
        self._first: list[float] = []
        self._interval: AdaptiveInterval | None = None

    def observe(self, residual: float) -> None:
        if not math.isfinite(residual):
            return
        if self._interval is not None:
            self._interval = self._interval.observe(residual)
            return
        self._first.append(residual)
        if len(self._first) == LEAST_RESIDUALS:
            self._interval = AdaptiveInterval.fitted(np.array(self._first))
            self._first = []

    def around(self, value: float, least: float, most: float) -> tuple[float, float] | None:
        """exp of the bounds of a log, each cut to what can be forecast."""
        if self._interval is None:
            return None
        low, high = self._interval.around(value)
        return math.exp(min(max(low, least), most)), math.exp(min(max(high, least), most))


class Hindsight:
    """Intervals of one market's forecasts. Tell it of every bar, after the features have it."""

    def __init__(self, forecaster: Forecaster) -> None:
        self._forecaster = forecaster
        self._noted: _Noted | None = None
        self._variance = _Head()
        self._demand = _Head()

    def observe(self, features: FeatureStream) -> None:
        """Compare the forecast whose hour has ended, if one has, and note the next."""
        end_s, noted = features.end_s, self._noted
        if end_s is None or (noted is not None and end_s < noted.due_s):
            return
        self._noted = None
        row, mean = features.row(), features.trailing_mean_notional()
        if row is None or mean is None or not np.isfinite(row).all():
            return  # a gap: the hour that was forecast is not known whole; or a bar beyond measure
        variance, notional = features.last_hour_variance(), features.last_hour_notional()
        if (
            noted is not None
            and end_s == noted.due_s
            and variance is not None
            and notional is not None
        ):
            came = float(log_variance(np.asarray(variance)))
            self._variance.observe(came - noted.forecast.log_variance)
            ratio = log_volume_ratio(np.asarray(notional), np.asarray(noted.mean_notional))
            self._demand.observe(float(ratio) - noted.forecast.log_demand)
        self._noted = _Noted(end_s + HOUR_S, self._forecaster.predict(row), mean)

    def around(self, forecast: Forecast) -> Intervals | None:
        """The intervals of a forecast made now; None until enough hours have come."""
        variance = self._variance.around(forecast.log_variance, MIN_LOG_VARIANCE, MAX_LOG_VARIANCE)
        demand = self._demand.around(forecast.log_demand, -MAX_LOG_DEMAND, MAX_LOG_DEMAND)
        return None if variance is None or demand is None else Intervals(variance, demand)
