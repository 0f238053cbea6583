"""Forecasts side by side on the same rows: a model's and those of everything that needs none.

    persistence   the next hour is as the last
    seasonal      the next hour is as the same hour a week ago
    har           Corsi's regression per market; of all markets where one has less than 30 days of
                  past; the one frozen into the artifact where the folder has no past at all
    garch, lightgbm   `fedtrade.learning.rivals`, if the research extra is there

The model forecasts exactly as in an agent (`Forecaster`, row by row, no position held); the others
are fitted on nothing but what the folder has before the period. A row is an hour whose memory before
it and whose next hour are there without a gap; what is missing is counted, never filled in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedtrade.artifact import Artifact
from fedtrade.learning import baseline, rivals
from fedtrade.learning.conformal import LEAST_RESIDUALS, Track, track_markets
from fedtrade.learning.features import CONTEXT, MEMORY_H, context_columns, neutral_rows
from fedtrade.learning.folder import DataFolder
from fedtrade.learning.forecast import Forecaster
from fedtrade.learning.tables import HOUR_S, Candles
from fedtrade.learning.windows import MarketTable, market_table

Floats = NDArray[np.float64]
Market = tuple[str, str]
Progress = Callable[[str, int, int], None]
"""(what is going on, done, of how many)."""

WARM_UP_H: Final = 336
"""Without any past an interval learns from the first two weeks, which are then not judged."""
HAR_LEAST_H: Final = 720
CALIBRATION_H: Final = 2_000
WEEK_S: Final = 7 * 86_400
_ARRAYS: Final = ("end_s", "features", "targets", "close", "mean_notional")


@dataclass(frozen=True, slots=True, eq=False)
class Contest:
    """Forecasts of one market in the period; each (N, 2) of E[log], NaN for "none"."""

    market: Market
    candles: Candles
    past: MarketTable
    table: MarketTable
    missing_hours: int
    forecasts: dict[str, Floats]
    log_to_mean: dict[str, Floats | float]
    """log E[v] less E[log v], of all rows or of each (N,)."""
    recent: MarketTable
    """The last hours before the period, from which intervals start."""
    recent_forecast: Floats
    bounds: Floats
    """(N, 2 heads, lower and upper); NaN until `fit_intervals`, and while an interval warms up."""


def table_of(folder: DataFolder, candles: Candles, until_s: int) -> MarketTable:
    """Rows and targets of one market, with the context that the folder knows and no other."""
    table = market_table(candles, until_s, with_context=False)
    if not len(table.end_s):
        return table
    features = table.features.copy()
    features[:, CONTEXT] = context_columns(
        folder.funding_spread(candles.symbol, table.end_s),
        folder.open_interest_change(candles.symbol, table.end_s),
    )
    return replace(table, features=features)


def as_before(table: MarketTable, age_s: int) -> Floats:
    """(N, 2): the targets of the hour that lies `age_s` before the one to be forecast; NaN if none.

    At an age of an hour or more that is known when the row is.
    """
    place = np.searchsorted(table.end_s, table.end_s - age_s)
    there = table.end_s[np.minimum(place, len(table.end_s) - 1)] == table.end_s - age_s
    return np.where(there[:, None], table.targets[np.minimum(place, len(place) - 1)], np.nan)


def enter(
    folder: DataFolder, market: Market, from_s: int, until_s: int, forecaster: Forecaster
) -> Contest | str:
    """The rows of a market with the forecasts that need no fitting; or why it has none."""
    candles = folder.candles(*market)
    inside = candles.between(from_s, until_s)
    if not len(inside.start_s):
        return "no bars in the period"
    table = table_of(folder, candles, until_s)
    late = table.end_s >= from_s
    if not late.any():
        return (
            f"no hour of the period has {MEMORY_H} hours without a gap before it and one after it"
        )
    naive = {"persistence": as_before(table, HOUR_S), "seasonal": as_before(table, WEEK_S)}
    naive = {name: rows[late] for name, rows in naive.items()}
    past = table.take(table.end_s + HOUR_S <= from_s)
    judged = table.take(late)
    model, smearing = _forecast(forecaster, judged)
    recent = (
        past.take(past.end_s >= past.end_s[-1] - CALIBRATION_H * HOUR_S)
        if len(past.end_s)
        else past
    )
    before, _ = _forecast(forecaster, recent)
    hours = round((int(inside.end_s[-1]) - int(inside.start_s[0])) / HOUR_S)
    return Contest(
        market,
        candles,
        past,
        judged,
        max(0, hours - len(judged.end_s)),
        {"model": model, **naive},
        {"model": smearing, "persistence": 0.0, "seasonal": 0.0},
        recent,
        before,
        np.full((len(model), 2, 2), np.nan),
    )


def _forecast(forecaster: Forecaster, table: MarketTable) -> tuple[Floats, Floats]:
    """Both heads (N, 2), and log E[v] less E[log v] of each row."""
    told = [forecaster.predict(row) for row in neutral_rows(table.features)]
    pairs = np.array([(f.log_variance, f.log_demand) for f in told]).reshape(-1, 2)
    return pairs, np.log([f.variance_per_hour for f in told]) - pairs[:, 0]


def fit_intervals(judged: Sequence[Contest]) -> None:
    """Fill in the bounds of every contest's model, with what the markets' hours have in common.

    A market starts from its recent hours, or, where it has none, learns from its first WARM_UP_H.
    """
    for head in range(2):
        entered, tracks = [], []
        for one in judged:
            before = len(one.recent.end_s) if len(one.recent.end_s) >= LEAST_RESIDUALS else 0
            warm = 0 if before else WARM_UP_H
            if not before and len(one.table.end_s) <= warm:
                continue
            parts = (
                (one.recent.end_s, one.table.end_s),
                (one.recent_forecast[:, head], one.forecasts["model"][:, head]),
                (one.recent.targets[:, head], one.table.targets[:, head]),
            )
            end_s, forecast, target = (np.concatenate([past[:before], now]) for past, now in parts)
            tracks.append(Track(end_s, forecast, target, before + warm))
            entered.append((one, warm))
        for (one, warm), bounds in zip(entered, track_markets(tracks), strict=True):
            one.bounds[warm:, head] = np.stack(bounds, axis=1)


def fit_har(judged: list[Contest], artifact: Artifact, notes: list[str]) -> None:
    """Add HAR to every contest: from its own past, from everybody's, or from the artifact."""
    pasts = [one.past for one in judged if len(one.past.end_s)]
    enough = sum(len(past.end_s) for past in pasts) >= HAR_LEAST_H
    heads = (("log_variance", baseline.HAR_FEATURES), ("log_demand", baseline.DEMAND_FEATURES))
    pooled = [baseline.fit_linear(pasts, *head) for head in heads] if enough else None
    borrowed = []
    for one in judged:
        fitted = pooled
        if len(one.past.end_s) >= HAR_LEAST_H:
            fitted = [baseline.fit_linear([one.past], *head) for head in heads]
        else:
            borrowed.append("/".join(one.market))
        if fitted is None:
            one.forecasts["har"], one.log_to_mean["har"] = _frozen_har(artifact, one.table)
        else:
            one.forecasts["har"] = np.stack([f.predict(one.table.features) for f in fitted], axis=1)
            one.log_to_mean["har"] = fitted[0].log_to_mean
    if borrowed:
        source = "all markets" if enough else "the artifact, since the folder has no past"
        notes.append(
            f"HAR is that of {source} for {', '.join(borrowed)}: less than {HAR_LEAST_H} h before."
        )


def _frozen_har(artifact: Artifact, table: MarketTable) -> tuple[Floats, float]:
    """The public baseline that the artifact carries: HAR as fitted when it was trained.

    Its level is that of the judged hours themselves, which no forecast could know: the artifact's own
    factor is its network's, and would be too low for HAR's larger errors.
    """
    arrays = {n: a.astype(np.float64) for n, a in artifact.arrays.items() if n.startswith("fixed.")}
    z = (neutral_rows(table.features) - arrays["fixed.feature_mean"]) / arrays[
        "fixed.feature_scale"
    ]
    output = arrays["fixed.baseline_bias"] + z @ arrays["fixed.baseline_weight"].T
    residual = table.targets[:, 0] - output[:, 0]
    return np.asarray(output), float(np.log(np.exp(residual).mean()))


def fit_garch(judged: list[Contest], from_s: int, progress: Progress) -> None:
    """Add GARCH(1,1) where a market has a past."""
    for done, one in enumerate(judged):
        progress("fitting GARCH", done, len(judged))
        whole = MarketTable(
            *(np.concatenate([getattr(one.past, n), getattr(one.table, n)]) for n in _ARRAYS)
        )
        fitted = rivals.garch(one.candles, whole, from_s)
        if fitted is not None:
            own = fitted[0][len(one.past.end_s) :]
            one.forecasts["garch"] = np.stack([own, np.full(len(own), np.nan)], axis=1)
            one.log_to_mean["garch"] = fitted[1]


def fit_trees(judged: list[Contest]) -> None:
    """Add LightGBM of all markets' past, if they have any."""
    pasts = [one.past for one in judged if len(one.past.end_s)]
    if sum(len(past.end_s) for past in pasts) < HAR_LEAST_H:
        return
    heads = [rivals.trees(pasts, [one.table for one in judged], head) for head in range(2)]
    for i, one in enumerate(judged):
        one.forecasts["lightgbm"] = np.stack([heads[0][0][i], heads[1][0][i]], axis=1)
        one.log_to_mean["lightgbm"] = heads[0][1]
