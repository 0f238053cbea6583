"""How good a forecast is, out of sample: QLIKE, R², mean squared error, Diebold–Mariano.

    QLIKE(v, f) = v/f − ln(v/f) − 1                                          (Patton 2011)

is the loss to judge variance forecasts by: minimal in expectation at f = E[v] even though v is a
noisy proxy, and hard on forecasts that are too low. R² and the squared error are taken on log
variance. The Diebold–Mariano (1995) test compares two loss series; markets at one hour move
together, so losses are first averaged over markets, and the variance of the hourly mean difference
is Newey and West's (1987) with a lag of a day, or longer where Andrews' (1991) rule asks for it:
losses of a crash stay large for days, and too short a lag calls such a run of hours significant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedtrade.learning.baseline import LinearForecast
from fedtrade.learning.features import PUBLIC_FEATURES, neutral_rows
from fedtrade.learning.tables import TEST_UNTIL_S, TRAIN_UNTIL_S, candles, markets
from fedtrade.learning.windows import market_table

Floats = NDArray[np.float64]
NEWEY_WEST_LAG_H = 24
"""At least; see `newey_west_lag`."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Every (market, hour) of a period, with public features; private ones are neutral."""

    end_s: NDArray[np.int64]
    market: tuple[tuple[str, str], ...]
    public: Floats
    rows: Floats
    """(N, F) full rows."""
    targets: Floats
    """(N, 2): log variance and log demand of the next hour."""


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Metrics of one forecast and its loss per row."""

    qlike: float
    r2: float
    mse: float
    demand_r2: float
    losses: Floats
    """QLIKE of each row."""

    def as_dict(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in ("qlike", "r2", "mse", "demand_r2")}


def sample(from_s: int = TRAIN_UNTIL_S, until_s: int = TEST_UNTIL_S) -> Sample:
    """All hours whose features end in [from_s, until_s) and whose next hour ends by `until_s`."""
    ends, rows, targets = [], [], []
    names: list[tuple[str, str]] = []
    for market in markets():
        table = market_table(candles(*market), until_s)
        late = table.end_s >= from_s
        ends.append(table.end_s[late])
        rows.append(table.features[late])
        targets.append(table.targets[late])
        names += [market] * int(late.sum())
    public = np.concatenate(rows)
    return Sample(
        np.concatenate(ends), tuple(names), public, neutral_rows(public), np.concatenate(targets)
    )


def qlike(log_variance: Floats, log_forecast: Floats) -> Floats:
    """QLIKE of each row, from the logs of variance and of its forecast mean."""
    surprise = log_variance - log_forecast
    return np.asarray(np.exp(surprise) - surprise - 1.0)


def r_squared(target: Floats, forecast: Floats) -> float:
    """1 − (squared error) / (squared deviation from the sample's own mean)."""
    return 1.0 - float(np.square(target - forecast).sum() / np.square(target - target.mean()).sum())


def evaluate(forecast: Floats, log_to_mean: Floats | float, judged: Sample) -> Scored:
    """Score forecasts (N, 2) of E[log variance] and E[log demand].

    `log_to_mean`: log E[v] less E[log v], of all rows or of each (N,).
    """
    variance, demand = judged.targets[:, 0], judged.targets[:, 1]
    losses = qlike(variance, forecast[:, 0] + log_to_mean)
    return Scored(
        float(losses.mean()),
        r_squared(variance, forecast[:, 0]),
        float(np.square(variance - forecast[:, 0]).mean()),
        r_squared(demand, forecast[:, 1]),
        losses,
    )


def evaluate_linear(variance: LinearForecast, demand: LinearForecast, judged: Sample) -> Scored:
    """Score a pair of linear forecasts (HAR, or the richer linear model)."""
    both = np.stack([variance.predict(judged.public), demand.predict(judged.public)], axis=1)
    return evaluate(both, variance.log_to_mean, judged)


def persistence(judged: Sample) -> Scored:
    """Score "the next hour is as the last"; nothing is fitted, so nothing is smeared."""
    steps = [PUBLIC_FEATURES.index(name) for name in PUBLIC_FEATURES[:4]]
    last_hour = judged.public[:, steps].sum(1)
    volume = judged.public[:, PUBLIC_FEATURES.index("log_volume_1h")]
    return evaluate(np.stack([last_hour, volume], axis=1), 0.0, judged)


def pinball(target: Floats, quantile: Floats, level: float) -> Floats:
    """Loss of each row that is least in expectation at the quantile of this level in (0, 1)."""
    if not 0.0 < level < 1.0:
        raise ValueError("the level of a quantile lies between 0 and 1")
    below = target - quantile
    return np.asarray(np.maximum(level * below, (level - 1.0) * below))


def newey_west_lag(series: Floats) -> int:
    """Lag for the variance of the mean of `series` (N,): a day, or Andrews' (1991) for an AR(1).

    1.1447 (4ρ² N / ((1−ρ)² (1+ρ)²))^⅓ with ρ the first autocorrelation; at most a third of N.
    """
    centred = series - series.mean()
    power = float(centred @ centred)
    rho = float(centred[1:] @ centred[:-1]) / power if power > 0 else 0.0
    rho = min(max(rho, -0.97), 0.97)
    memory = 4 * rho * rho / ((1 - rho * rho) * (1 - rho * rho))
    wanted = 1.1447 * math.cbrt(memory * len(series))
    return max(NEWEY_WEST_LAG_H, min(math.ceil(wanted), len(series) // 3))


def diebold_mariano(
    losses_a: Floats, losses_b: Floats, end_s: NDArray[np.int64]
) -> tuple[float, float]:
    """(statistic, two-sided p) of equal accuracy; negative where a is the better one."""
    hours, index = np.unique(end_s, return_inverse=True)
    counts = np.bincount(index)
    difference = np.bincount(index, weights=losses_a - losses_b) / counts
    n = len(hours)
    if n <= NEWEY_WEST_LAG_H:
        raise ValueError(f"the test needs more than {NEWEY_WEST_LAG_H} hours")
    centred = difference - difference.mean()
    long_run = float(centred @ centred) / n
    most = newey_west_lag(difference)
    for lag in range(1, most + 1):
        weight = 1.0 - lag / (most + 1)
        long_run += 2.0 * weight * float(centred[lag:] @ centred[:-lag]) / n
    if long_run <= 0:
        return 0.0, 1.0
    statistic = float(difference.mean()) / math.sqrt(long_run / n)
    return statistic, math.erfc(abs(statistic) / math.sqrt(2.0))
