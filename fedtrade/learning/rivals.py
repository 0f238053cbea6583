"""The rivals that need the research extra: GARCH(1,1) and boosted trees, fitted on the past only.

GARCH is fitted once to a market's hourly returns before the cut (Bollerslev 1986; Student's t,
through `arch`) and then filtered forward with those coefficients, so each forecast uses returns up to
its own hour. Its variance of close-to-close returns is brought to Parkinson's level by the mean
difference of logs before the cut. LightGBM is left as it comes, on candle features alone, one model
for all markets: a floor, not a tuned competitor.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from numpy.typing import NDArray

from fedtrade.learning.features import CONTEXT
from fedtrade.learning.tables import HOUR_S, Candles
from fedtrade.learning.windows import MarketTable

Floats = NDArray[np.float64]
GARCH_HISTORY_H = 17_520
"""Two years: older returns change little, and the fit takes longer."""
LEAST_HISTORY_H = 1_000
TREE_ROWS = 400_000


def missing() -> tuple[str, ...]:
    """Which of the libraries are not installed."""
    absent = []
    for name in ("lightgbm", "arch"):
        try:
            version(name)
        except PackageNotFoundError:
            absent.append(name)
    return tuple(absent)


def garch(candles: Candles, table: MarketTable, cut_s: int) -> tuple[Floats, float] | None:
    """E[log variance] of every row of `table`, and log E[v] less E[log v]; None if too little past.

    A return across a gap is left out of the fit and leaves the filter where it was.
    """
    log_close = np.log(candles.close)
    whole = np.concatenate([[False], np.diff(candles.start_s) == HOUR_S])
    returns = np.concatenate([[0.0], 100.0 * np.diff(log_close)])
    before = whole & (candles.end_s <= cut_s)
    past = returns[before][-GARCH_HISTORY_H:]
    known = table.end_s + HOUR_S <= cut_s
    if len(past) < LEAST_HISTORY_H or int(known.sum()) < LEAST_HISTORY_H:
        return None
    from arch.univariate import arch_model  # seconds to import

    fitted = arch_model(past, mean="Zero", vol="GARCH", p=1, q=1, dist="t", rescale=False).fit(
        disp="off", show_warning=False
    )
    omega, alpha, beta = (float(fitted.params[n]) for n in ("omega", "alpha[1]", "beta[1]"))
    variance = np.empty(len(returns))
    state = float(past.var())
    for i, (value, usable) in enumerate(zip(returns.tolist(), whole.tolist(), strict=True)):
        if usable:
            state = omega + alpha * value * value + beta * state
        variance[i] = state  # of the hour after bar i
    log_forecast = np.log(np.maximum(variance, 1e-9))[np.searchsorted(candles.end_s, table.end_s)]
    residual = table.targets[known, 0] - log_forecast[known]
    level = float(residual.mean())
    return log_forecast + level, float(np.log(np.exp(residual - level).mean()))


def trees(
    past: Sequence[MarketTable], judged: Sequence[MarketTable], head: int
) -> tuple[list[Floats], float]:
    """LightGBM as it comes: forecasts of one head for each judged table, and its smearing factor."""
    import lightgbm

    columns = slice(0, CONTEXT.start)
    rows = np.concatenate([table.features[:, columns] for table in past])
    target = np.concatenate([table.targets[:, head] for table in past])
    if len(rows) > TREE_ROWS:  # every k-th, so that all markets and times stay in
        step = -(-len(rows) // TREE_ROWS)
        rows, target = rows[::step], target[::step]
    settings = {"objective": "regression", "num_threads": 1, "verbosity": -1, "seed": 0}
    booster = lightgbm.train(
        {**settings, "deterministic": True}, lightgbm.Dataset(rows, target), num_boost_round=100
    )
    residual = target - np.asarray(booster.predict(rows))
    forecasts = [np.asarray(booster.predict(table.features[:, columns])) for table in judged]
    return forecasts, float(np.log(np.exp(residual).mean()))
