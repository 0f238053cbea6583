"""The gate that a feature table and a model pass before anyone believes their figures.

A forecast that has seen a little of what it forecasts looks brilliant and is worth nothing. Five
checks, from the definition to the symptom:

    future     change every bar after t; no row up to t may move (the definition of causal)
    column     a column tells more of the next hour than an hour earlier it told, and much
    forecast   the forecast moves with the hour that it forecasts more than with the hour before it
    ceiling    the error is smaller than the noise of the target itself
    alignment  a series is ahead of the settled one that it stands for

The ceiling: the log of Parkinson's variance of an hour has a variance of 4 · 0.29² = 0.336 even for
somebody who knows the true variance (Alizadeh, Brandt and Diebold 2002, for a Brownian motion); who
errs by less has seen the path. Each check gives a Finding; `refuse` raises on those that failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedtrade.errors import Refusal
from fedtrade.learning.tables import HOUR_S, Candles

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Rows = Callable[[Candles], tuple[Ints, Floats]]
"""What is tested for causality: candles → (end of each row, rows)."""

TOLERANCE: Final = 1e-12
PROXY_NOISE: Final = 4 * 0.29**2
"""Variance of log Parkinson variance round the log of the true variance."""
CEILING: Final = 0.9 * PROXY_NOISE
TELLING: Final = 0.2
"""A column that correlates so much with news of the next hour, and hardly an hour before, peeks.
Of the honest columns of this package none passes 0.13."""
TOO_TELLING: Final = 0.35
"""And this much is no feature of the past, whatever it told before (it may see two hours ahead)."""
LEAST_ROWS: Final = 1_000
"""Below this a correlation of TELLING may be chance (6 standard errors at 1,000)."""
_WEEK_H: Final = 168


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check of one thing."""

    check: str
    subject: str
    passed: bool
    detail: str


class LeakFound(Refusal):
    """Features or a forecast that have seen the future. Nothing built on them may be published."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        first = findings[0]
        super().__init__(
            f"leak gate: {first.check} check failed for {first.subject}: {first.detail}"
            + (f" (and {len(findings) - 1} more)" if len(findings) > 1 else "")
            + ". Find where it sees the future; do not publish what was trained on it."
        )
        self.findings = tuple(findings)


def refuse(findings: Iterable[Finding]) -> None:
    """Raise LeakFound if any check failed."""
    failed = [finding for finding in findings if not finding.passed]
    if failed:
        raise LeakFound(failed)


def future(
    rows: Rows, candles: Candles, seed: int, names: Sequence[str] = (), cuts: int = 3
) -> Finding:
    """Shuffle and scale all bars after each of `cuts` times; rows up to it must not move.

    `seed` draws the shuffles. Rows that vanish or appear before the cut count as moved.
    """
    subject = f"{candles.venue}/{candles.symbol}"
    draw = np.random.Generator(np.random.PCG64(seed))
    count = len(candles.start_s)
    end_s, honest = rows(candles)
    for cut in np.linspace(0, count - 1, cuts + 2)[1:-1].astype(int):
        cut_s = int(candles.end_s[cut])
        other_s, other = rows(_other_future(candles, int(cut) + 1, draw))
        before, before_other = end_s <= cut_s, other_s <= cut_s
        if not np.array_equal(end_s[before], other_s[before_other]):
            return Finding("future", subject, False, "rows come and go with later bars")
        moved = ~np.isclose(
            honest[before], other[before_other], rtol=0.0, atol=TOLERANCE, equal_nan=True
        )
        if moved.any():
            which = np.flatnonzero(moved.any(0))
            said = ", ".join(names[i] if i < len(names) else f"column {i}" for i in which[:5])
            return Finding("future", subject, False, f"{said} before t depend on bars after t")
    return Finding("future", subject, True, f"{cuts} futures changed, no row moved")


def columns(
    end_s: Ints, features: Floats, names: Sequence[str], log_target: Floats, subject: str
) -> list[Finding]:
    """Columns that know the next hour's news: correlated with it, and an hour earlier not.

    News is what the target's own past (1, 6, 24, 168 h) and the hour of the week do not explain.
    `end_s` rises; `log_target` (N,) is the next hour's. Gives one finding for all if all pass.
    """
    if len(end_s) < LEAST_ROWS:
        return [Finding("column", subject, True, f"too few rows to tell ({len(end_s)})")]
    past, known = _own_past(end_s, log_target)
    followed = known[1:] & known[:-1] & (np.diff(end_s) == HOUR_S)
    index = np.flatnonzero(followed) + 1
    hour = end_s[index] // HOUR_S % _WEEK_H
    seasonless = [_without_season(past[index, i], hour) for i in range(past.shape[1])]
    design = np.stack([np.ones(len(index)), *seasonless], axis=1)
    news = _without_season(log_target[index], hour)
    news = news - design @ np.linalg.lstsq(design, news, rcond=None)[0]
    found, most = [], 0.0
    for i, name in enumerate(names):
        now = _correlation(_without_season(features[index, i], hour), news)
        older = _correlation(_without_season(features[index - 1, i], hour), news)
        most = max(most, abs(now))
        if abs(now) > TOO_TELLING or (abs(now) > TELLING and abs(older) < abs(now) / 2):
            detail = (
                f"{name} correlates {now:+.2f} with the next hour's news, "
                f"an hour earlier {older:+.2f}"
            )
            found.append(Finding("column", subject, False, detail))
    passed = f"no column correlates more than {most:.2f} with the next hour's news"
    return found or [Finding("column", subject, True, passed)]


def forecast(end_s: Ints, log_forecast: Floats, log_target: Floats, subject: str) -> list[Finding]:
    """The two checks of a forecast of log variance: what it moves with, and what it can know."""
    followed = np.flatnonzero(np.diff(end_s) == HOUR_S) + 1
    if len(followed) < LEAST_ROWS:
        return [Finding("forecast", subject, True, f"too few rows to tell ({len(followed)})")]
    hour = end_s[followed] // HOUR_S % _WEEK_H
    own = _without_season(log_forecast[followed], hour)
    ahead = _correlation(own, _without_season(log_target[followed], hour))
    behind = _correlation(own, _without_season(log_target[followed - 1], hour))
    error = float(np.square(log_target - log_forecast).mean())
    return [
        Finding(
            "forecast",
            subject,
            ahead <= behind,
            f"correlation {ahead:.2f} with the hour it forecasts, {behind:.2f} with the one before",
        ),
        Finding(
            "ceiling",
            subject,
            error >= CEILING,
            f"mean squared error {error:.2f} against {PROXY_NOISE:.2f} of noise in the target",
        ),
    ]


def alignment(series: Floats, settled: Floats, subject: str, most_h: int = 3) -> Finding:
    """Whether hourly `series` shows what `settled` shows only hours later; both (N,), NaN = none.

    Compares changes, which are sharp in time where levels are smooth.
    """
    change, truth = np.diff(series), np.diff(settled)
    correlations = {}
    for lead in range(-most_h, most_h + 1):
        a = change[max(0, -lead) : len(change) - max(0, lead)]
        b = truth[max(0, lead) : len(truth) - max(0, -lead)]
        both = np.isfinite(a) & np.isfinite(b)
        if int(both.sum()) >= _WEEK_H:
            correlations[lead] = _correlation(a[both], b[both])
    if 0 not in correlations:
        return Finding("alignment", subject, True, "too little overlap to tell")
    best = max(correlations, key=lambda lead: correlations[lead])
    ahead = best > 0 and correlations[best] > correlations[0] + 0.1
    detail = f"changes correlate {correlations[best]:.2f} with those {best:+d} h from them"
    detail += f", {correlations[0]:.2f} with those of the same hour"
    return Finding("alignment", subject, not ahead, detail)


def _other_future(candles: Candles, first: int, draw: np.random.Generator) -> Candles:
    """The same candles with the bars from `first` on in another order and on another scale."""
    count = len(candles.start_s)
    order = np.concatenate([np.arange(first), first + draw.permutation(count - first)])
    late = np.arange(count) >= first
    price = np.where(late, np.exp(draw.standard_normal(count)), 1.0)
    volume = np.where(late, np.exp(draw.standard_normal(count)), 1.0)
    stretch = np.where(late, np.exp(0.1 * np.abs(draw.standard_normal(count))), 1.0)
    return replace(
        candles,
        open=candles.open[order] * price,
        high=candles.high[order] * price * stretch,
        low=candles.low[order] * price / stretch,
        close=candles.close[order] * price,
        notional_usd=candles.notional_usd[order] * volume,
    )


def _own_past(end_s: Ints, log_target: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """(N, 4): means of the target over the last 1, 6, 24 and 168 h known at each row, and where."""
    place = (end_s - end_s[0]) // HOUR_S
    dense = np.full(int(place[-1]) + 1, np.nan)
    dense[place] = log_target
    there = np.isfinite(dense)
    total = np.concatenate([[0.0], np.cumsum(np.where(there, dense, 0.0))])
    count = np.concatenate([[0], np.cumsum(there)])
    # The target of the row at t is the hour after t: what is known at t ends with the row before.
    means, known = [], np.ones(len(end_s), np.bool_)
    for span in (1, 6, 24, _WEEK_H):
        first = np.maximum(place - span, 0)
        n = count[place] - count[first]
        known &= n > span // 2
        means.append((total[place] - total[first]) / np.maximum(n, 1))
    return np.stack(means, axis=1), known


def _without_season(values: Floats, hour: Ints) -> Floats:
    """Values less their mean in that hour of the week."""
    count = np.maximum(np.bincount(hour, minlength=_WEEK_H), 1)
    return np.asarray(
        values - (np.bincount(hour, weights=values, minlength=_WEEK_H) / count)[hour], np.float64
    )


def _correlation(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 1e-9 else 0.0
