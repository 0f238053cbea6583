"""The gate that a feature table and a model pass before anyone believes their figures.

A forecast that has seen a little of what it forecasts looks brilliant and is worth nothing. Five
checks, from the definition to the symptom:

    future     change every bar after t; no row up to t may move (the definition of causal)
    column     a column tells much of the next hour's news, which it did not tell a week earlier
    forecast   the forecast moves with the hour that it forecasts more than with the hour before it
    ceiling    the error is smaller than the noise of the target itself
    alignment  a series is ahead of the settled one that it stands for

The ceiling: the log of Parkinson's variance of an hour has a variance of 4 · 0.29² = 0.336 even for
somebody who knows the true variance (Alizadeh, Brandt and Diebold 2002, for a Brownian motion); who
errs by less has seen the path. Each check gives a Finding; `refuse` raises on those that failed.

A column counts as leaking from a correlation of TELLING on, and a forecast too: a model that has
learnt nothing moves with both hours by chance, and that is no leak.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedtrade.errors import Refusal
from fedtrade.learning.features import PUBLIC_FEATURES
from fedtrade.learning.tables import HOUR_S, Candles
from fedtrade.learning.windows import HEADS, MarketTable

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Rows = Callable[[Candles], tuple[Ints, Floats]]
"""What is tested for causality: candles → (end of each row, rows)."""

TOLERANCE: Final = 1e-12
PROXY_NOISE: Final = 4 * 0.29**2
"""Variance of log Parkinson variance round the log of the true variance."""
CEILING: Final = 0.9 * PROXY_NOISE
TELLING: Final = 0.2
"""A column that correlates so much with news of the next hour, and hardly a week before, peeks."""
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


def market(
    subject: str, rows: Rows, candles: Candles, table: MarketTable, log_forecast: Floats
) -> list[Finding]:
    """All that can be checked of one market: its features, and a model's log variance (N,) on them.

    `rows` makes features of `candles`, for the check of the future; `table` holds those of the model.
    """
    return [
        future(rows, candles, seed=0, names=PUBLIC_FEATURES),
        *(
            finding
            for head, target in zip(HEADS, table.targets.T, strict=True)
            for finding in columns(
                table.end_s, table.features, PUBLIC_FEATURES, target, f"{subject} ({head})"
            )
        ),
        *forecast(table.end_s, log_forecast, table.targets[:, 0], subject),
    ]


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
    """Columns that know the next hour's news: correlated with it, and a week earlier not.

    News is what the target's own past (1, 6, 24, 168 h) and the clock do not explain. What a calendar
    tells it told a week ago too; what a leak tells it could not. `end_s` rises; `log_target` (N,) is
    the next hour's. Gives one finding for all if all pass.
    """
    if len(end_s) < LEAST_ROWS:
        return [Finding("column", subject, True, f"too few rows to tell ({len(end_s)})")]
    past, known = _own_past(end_s, log_target)
    week_ago = np.minimum(np.searchsorted(end_s, end_s - _WEEK_H * HOUR_S), len(end_s) - 1)
    index = np.flatnonzero(known & (end_s[week_ago] == end_s - _WEEK_H * HOUR_S))
    if len(index) < LEAST_ROWS:
        return [Finding("column", subject, True, f"too few rows to tell ({len(index)})")]
    clock = _clock(end_s[index])
    design = np.concatenate([clock, past[index]], axis=1)
    news = _without(design, log_target[index])
    now = _without(clock, features[index])
    older = _without(clock, features[week_ago[index]])
    found, most = [], 0.0
    for i, name in enumerate(names):
        told, told_before = _correlation(now[:, i], news), _correlation(older[:, i], news)
        most = max(most, abs(told))
        if abs(told) > TOO_TELLING or (abs(told) > TELLING and abs(told_before) < abs(told) / 2):
            detail = (
                f"{name} correlates {told:+.2f} with the next hour's news, "
                f"a week earlier {told_before:+.2f}"
            )
            found.append(Finding("column", subject, False, detail))
    passed = f"no column correlates more than {most:.2f} with the next hour's news"
    return found or [Finding("column", subject, True, passed)]


def forecast(end_s: Ints, log_forecast: Floats, log_target: Floats, subject: str) -> list[Finding]:
    """The two checks of a forecast of log variance: what it moves with, and what it can know."""
    followed = np.flatnonzero(np.diff(end_s) == HOUR_S) + 1
    if len(followed) < LEAST_ROWS:
        return [Finding("forecast", subject, True, f"too few rows to tell ({len(followed)})")]
    clock = _clock(end_s[followed])
    own = _without(clock, log_forecast[followed])
    ahead = _correlation(own, _without(clock, log_target[followed]))
    behind = _correlation(own, _without(clock, log_target[followed - 1]))
    error = float(np.square(log_target - log_forecast).mean())
    return [
        Finding(
            "forecast",
            subject,
            ahead <= max(behind, TELLING),
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


def _clock(end_s: Ints) -> Floats:
    """(N, 20): a constant, the week's first three harmonics, the day's first six, the weekend.

    Smooth on purpose: the mean of each hour of the week, taken over a few weeks, would hold so much
    of each hour's own news that honest means of past weeks seem to foretell it with a minus.
    """
    middle_s = end_s + HOUR_S / 2
    waves = [(7, k) for k in (1, 2, 3)] + [(1, k) for k in range(1, 7)]
    angles = [2.0 * np.pi * k * middle_s / (days * 86_400.0) for days, k in waves]
    weekend = (middle_s // 86_400 + 3) % 7 >= 5
    flat = [np.ones(len(end_s)), weekend.astype(np.float64)]
    return np.stack([*flat, *(f(a) for a in angles for f in (np.sin, np.cos))], axis=1)


def _without(design: Floats, values: Floats) -> Floats:
    """`values` (N,) or (N, K) less their least-squares fit on `design`."""
    return np.asarray(values - design @ np.linalg.lstsq(design, values, rcond=None)[0])


def _correlation(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 1e-9 else 0.0
