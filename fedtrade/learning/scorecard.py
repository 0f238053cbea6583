"""A published model judged on a folder of public data: every market, every month, every crash.

Beside it stand the forecasts of `fedtrade.learning.contenders` on the same rows, tests of the
difference, the coverage of its intervals, and the findings of the leak gate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedtrade.artifact import MAX_ARTIFACT_BYTES, Artifact, ArtifactInvalid, load, sha256_of
from fedtrade.errors import BadInput
from fedtrade.learning import leaks, rivals
from fedtrade.learning.conformal import interval_score
from fedtrade.learning.contenders import (
    Contest,
    Market,
    Progress,
    enter,
    fit_garch,
    fit_har,
    fit_intervals,
    fit_trees,
)
from fedtrade.learning.evaluation import NEWEY_WEST_LAG_H, diebold_mariano, qlike, r_squared
from fedtrade.learning.features import FEATURES, public_rows
from fedtrade.learning.folder import DataFolder, coin
from fedtrade.learning.forecast import Forecaster
from fedtrade.learning.tables import HOUR_S, Candles

SCHEMA: Final = "fedtrade.evaluation/1"
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

GATE_BARS: Final = 2_000
"""How many of a market's last bars the causality of its features is tried on."""
EVER_S: Final = 2**40
CRASHES: Final = (
    ("crash 2020-03-12", "2020-03-12", "2020-03-14"),
    ("crash 2021-05-19", "2021-05-19", "2021-05-20"),
    ("crash 2022-05-08 (LUNA)", "2022-05-08", "2022-05-15"),
    ("crash 2022-06-12", "2022-06-12", "2022-06-19"),
    ("depeg 2023-03-10 (USDC)", "2023-03-10", "2023-03-14"),
    ("crash 2024-08-05", "2024-08-05", "2024-08-06"),
)
"""The stress windows of the data card: first day, and the day after the last."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """One forecast on one set of rows; None where it forecasts no such thing or R² has no scale."""

    hours: int
    qlike: float | None
    r2: float | None
    mse: float | None
    demand_r2: float | None
    demand_mse: float | None


@dataclass(frozen=True, slots=True)
class Coverage:
    """Share of hours inside the model's 90 % interval, and its interval score (lower is better)."""

    hours: int
    variance: float
    demand: float
    variance_score: float
    demand_score: float


@dataclass(frozen=True, slots=True)
class Window:
    """A month or a crash, or the whole period."""

    name: str
    metrics: Mapping[str, Metrics]
    coverage: Coverage | None


@dataclass(frozen=True, slots=True)
class Test:
    """Diebold–Mariano of the model against a rival: negative statistic where the model is better."""

    loss: str
    statistic: float
    p: float


@dataclass(frozen=True, slots=True)
class MarketScore:
    """One market: its rows, its hours without a row, its windows (the first is the whole)."""

    venue: str
    symbol: str
    hours: int
    missing_hours: int
    windows: tuple[Window, ...]
    tests: Mapping[str, tuple[Test, ...]]


@dataclass(frozen=True, slots=True)
class Scorecard:
    """Everything `fedtrade evaluate` says; its JSON is this, field by field."""

    schema: str
    artifact_sha256: str
    trained_until: str
    epsilon: float
    standins: tuple[str, ...]
    data_from: str
    data_until: str
    markets: tuple[MarketScore, ...]
    pooled: tuple[Window, ...]
    tests: Mapping[str, tuple[Test, ...]]
    """Rival → tests over all markets, each hour's losses averaged over them first."""
    better: Mapping[str, float]
    """Rival → share of markets where the model has the lower QLIKE and the higher R²."""
    gate: tuple[leaks.Finding, ...]
    skipped: Mapping[str, str]
    """Market → why it has no score."""
    notes: tuple[str, ...]


def evaluate_folder(
    artifact: Artifact,
    path: Path,
    from_s: int,
    until_s: int,
    venues: Sequence[str] = (),
    symbols: Sequence[str] = (),
    *,
    with_rivals: bool = True,
    progress: Progress = lambda what, done, of: None,
) -> Scorecard:
    """Judge a model on [from_s, until_s) of a folder, on all its markets or those named.

    Raises BadInput where the folder has nothing to judge on and ArtifactInvalid where this version
    cannot compute what the model wants.
    """
    check_features(artifact)
    if from_s >= until_s:
        raise BadInput("--from", f"it is not before {_day(until_s)}", "Choose an earlier day.")
    folder = DataFolder(path)
    forecaster = Forecaster(artifact)
    notes: list[str] = []
    if artifact.manifest.trained_until_s > from_s:
        notes.append(
            f"The period begins before {_day(artifact.manifest.trained_until_s)}, until when the "
            "model was trained: what lies before that is not out of sample."
        )
    chosen = _choose(folder, venues, symbols)
    skipped: dict[str, str] = {}
    judged: list[Contest] = []
    for done, market in enumerate(chosen):
        progress("forecasting", done, len(chosen))
        outcome = enter(folder, market, from_s, until_s, forecaster)
        if isinstance(outcome, str):
            skipped["/".join(market)] = outcome
        else:
            judged.append(outcome)
    if not judged:
        raise _nothing(folder, chosen, from_s, until_s, skipped)
    fit_intervals(judged)
    fit_har(judged, artifact, notes)
    absent = rivals.missing()
    if with_rivals and absent:
        notes.append(
            f"Left out, because not installed (fedtrade[research]): {' and '.join(absent)}."
        )
    if with_rivals and "arch" not in absent:
        fit_garch(judged, from_s, progress)
    if with_rivals and "lightgbm" not in absent:
        progress("fitting LightGBM", 0, 1)
        fit_trees(judged)
    scores = []
    for done, one in enumerate(judged):
        progress("scoring", done, len(judged))
        scores.append(_score_market(one))
    names = _names(judged)
    return Scorecard(
        SCHEMA,
        artifact.sha256,
        _day(artifact.manifest.trained_until_s),
        artifact.manifest.epsilon_micro / 1e6,
        artifact.manifest.standins,
        _day(int(min(one.table.end_s[0] for one in judged))),
        _day(int(max(one.table.end_s[-1] for one in judged)) + HOUR_S),
        tuple(scores),
        tuple(_windows(judged, names)),
        _tests(judged, names),
        _better(scores),
        tuple(_gate(folder, judged, progress)),
        skipped,
        (*notes, *folder.notes),
    )


def read_artifact(path: Path, expect_sha256: str | None = None) -> Artifact:
    """The model in a file, verified; against its own hash where none is expected."""
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MAX_ARTIFACT_BYTES else b""
    except OSError as error:
        problem = f"it cannot be read ({error.strerror})"
        raise BadInput(str(path), problem, "Name the artifact.safetensors of a model.") from error
    return load(data, expect_sha256 or sha256_of(data))


def day_s(day: str | None, otherwise_s: int) -> int:
    """Unix seconds of a day or time such as 2025-01-01 or 2025-01-01T12:00, UTC if it says none."""
    if day is None:
        return otherwise_s
    try:
        when = datetime.fromisoformat(day)
    except ValueError as error:
        raise BadInput(day, "it is not a date", "Write it as 2025-01-01.") from error
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())


def _choose(
    folder: DataFolder, venues: Sequence[str], symbols: Sequence[str]
) -> tuple[Market, ...]:
    known = folder.markets(HOUR_S)
    wanted = [coin(symbol) for symbol in symbols]
    for names, place, what in ((venues, 0, "venue"), (wanted, 1, "symbol")):
        there = sorted({market[place] for market in known})
        for name in names:
            if name not in there:
                problem = f"{folder.path.name} has no hourly bars of this {what}"
                raise BadInput(name, problem, f"It has them of {', '.join(there) or 'none'}.")
    chosen = [m for m in known if m[0] in (venues or (m[0],)) and m[1] in (wanted or (m[1],))]
    if known and not chosen:
        named = f"{', '.join(symbols)} on {', '.join(venues)}"
        raise BadInput(named, "the folder has no such market", "Leave one of the two out.")
    return tuple(chosen)


def check_features(artifact: Artifact) -> None:
    """Refuse a model whose inputs this version cannot compute, and say which."""
    own = artifact.manifest.features
    unknown = [name for name in own if name not in FEATURES]
    if unknown:
        raise ArtifactInvalid(
            f"it wants {len(unknown)} features that this version cannot compute "
            f"({', '.join(unknown[:4])}); evaluate it with the version that made it"
        )
    if own != FEATURES:
        raise ArtifactInvalid(
            f"it was made for {len(own)} features in an order of their own, and this version computes "
            f"{len(FEATURES)}; evaluate it with the version that made it"
        )


def _names(judged: Sequence[Contest]) -> tuple[str, ...]:
    order = ("model", "persistence", "seasonal", "har", "garch", "lightgbm")
    return tuple(name for name in order if any(name in one.forecasts for one in judged))


def _joined(judged: Sequence[Contest], name: str) -> tuple[Ints, Floats, Floats, Floats]:
    """(end_s, targets, forecasts, smearing) of the markets that have this forecast."""
    have = [one for one in judged if name in one.forecasts]
    return (
        np.concatenate([one.table.end_s for one in have]),
        np.concatenate([one.table.targets for one in have]),
        np.concatenate([one.forecasts[name] for one in have]),
        np.concatenate(
            [np.broadcast_to(one.log_to_mean[name], one.table.end_s.shape) for one in have]
        ),
    )


def _metrics(target: Floats, forecast: Floats, smearing: Floats) -> Metrics:
    figures: list[float | None] = []
    for head in range(2):
        known = np.isfinite(forecast[:, head])
        y, f = target[known, head], forecast[known, head]
        scaled = len(y) > 1 and float(y.std()) > 0
        if head == 0:
            losses = qlike(y, f + smearing[known])
            figures.append(float(losses.mean()) if len(y) else None)
        figures.append(r_squared(y, f) if scaled else None)
        figures.append(float(np.square(y - f).mean()) if len(y) else None)
    return Metrics(int(np.isfinite(forecast[:, 0]).sum()), *figures)


def _spans(end_s: Ints) -> list[tuple[str, int, int]]:
    """The whole, every month, every crash that the hours after `end_s` touch."""
    first, last = int(end_s.min()), int(end_s.max())
    spans = [("all", first, last + 1)]
    month = datetime.fromtimestamp(first, UTC).replace(day=1, hour=0, minute=0, second=0)
    while month.timestamp() <= last:
        following = month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
        spans.append((f"{month:%Y-%m}", int(month.timestamp()), int(following.timestamp())))
        month = following
    for name, begin, end in CRASHES:
        spans.append((name, _seconds(begin), _seconds(end)))
    return [s for s in spans if bool(((end_s >= s[1]) & (end_s < s[2])).any())]


def _windows(judged: Sequence[Contest], names: Sequence[str]) -> list[Window]:
    joined = {name: _joined(judged, name) for name in names}
    end_s, target = joined["model"][:2]
    bounds = np.concatenate([one.bounds for one in judged])
    windows = []
    for title, begin, end in _spans(end_s):
        metrics = {}
        for name, (when, y, forecast, smearing) in joined.items():
            rows = (when >= begin) & (when < end)
            if rows.any():
                metrics[name] = _metrics(y[rows], forecast[rows], smearing[rows])
        rows = (end_s >= begin) & (end_s < end)
        windows.append(Window(title, metrics, _coverage(bounds[rows], target[rows])))
    return windows


def _coverage(bounds: Floats, target: Floats) -> Coverage | None:
    known = np.isfinite(bounds).all(axis=(1, 2))
    if not known.any():
        return None
    low, high, y = bounds[known, :, 0], bounds[known, :, 1], target[known]
    inside = ((y >= low) & (y <= high)).mean(0)
    scores = [float(interval_score(low[:, h], high[:, h], y[:, h]).mean()) for h in range(2)]
    return Coverage(int(known.sum()), float(inside[0]), float(inside[1]), *scores)


def _tests(judged: Sequence[Contest], names: Sequence[str]) -> dict[str, tuple[Test, ...]]:
    """The model against each rival on the rows that both forecast."""
    found: dict[str, tuple[Test, ...]] = {}
    for name in names:
        have = [one for one in judged if name in one.forecasts]
        if name == "model":
            continue
        end_s, target, forecast, smearing = _joined(have, name)
        _, _, model, own_smearing = _joined(have, "model")
        tests = []
        for loss, head in (("qlike", 0), ("squared_error", 0), ("demand_squared_error", 1)):
            known = np.isfinite(forecast[:, head])
            if len(np.unique(end_s[known])) <= 2 * NEWEY_WEST_LAG_H:
                continue
            y, a, b = target[known, head], model[known, head], forecast[known, head]
            if loss == "qlike":
                losses = qlike(y, a + own_smearing[known]), qlike(y, b + smearing[known])
            else:
                losses = np.square(y - a), np.square(y - b)
            tests.append(Test(loss, *diebold_mariano(*losses, end_s[known])))
        found[name] = tuple(tests)
    return found


def _score_market(one: Contest) -> MarketScore:
    names = _names([one])
    return MarketScore(
        *one.market,
        len(one.table.end_s),
        one.missing_hours,
        tuple(_windows([one], names)),
        _tests([one], names),
    )


def _better(scores: Sequence[MarketScore]) -> dict[str, float]:
    wins: dict[str, list[bool]] = {}
    for score in scores:
        metrics = score.windows[0].metrics
        model = metrics["model"]
        for name, rival in metrics.items():
            figures = (model.qlike, rival.qlike, rival.r2, model.r2)
            if name != "model" and None not in figures:
                a, b, c, d = (float(f or 0.0) for f in figures)
                wins.setdefault(name, []).append(a < b and c < d)
    return {name: float(np.mean(won)) for name, won in wins.items()}


def _gate(folder: DataFolder, judged: Sequence[Contest], progress: Progress) -> list[leaks.Finding]:
    """Every check of the gate on every judged market; what passed is there too."""
    findings = []
    for done, one in enumerate(judged):
        progress("leak gate", done, len(judged))
        name = "/".join(one.market)
        last = int(one.candles.end_s[-1])
        recent = one.candles.between(last - GATE_BARS * HOUR_S, last)

        def rows(candles: Candles) -> tuple[Ints, Floats]:
            return public_rows(candles, with_context=False)

        findings += leaks.market(name, rows, recent, one.table, one.forecasts["model"][:, 0])
    for symbol in sorted({one.market[1] for one in judged}):
        for venue in folder.funding_venues(symbol):
            settled, sampled = folder.funding_sources(venue, symbol)
            if len(settled) and len(sampled):
                hours = np.arange(sampled.known_s[0], sampled.known_s[-1] + 1, HOUR_S)
                subject = f"funding of {venue}/{symbol} across venues"
                findings.append(leaks.alignment(sampled.at(hours), settled.at(hours), subject))
    return findings


def _nothing(
    folder: DataFolder,
    chosen: Sequence[Market],
    from_s: int,
    until_s: int,
    skipped: Mapping[str, str],
) -> BadInput:
    ends = [folder.candles(*market).end_s for market in chosen]
    ends = [e for e in ends if len(e)]
    if not ends:
        return BadInput(
            str(folder.path),
            "it holds no hourly bars",
            "Put them under perp_ohlcv or spot_ohlcv, as its README says.",
        )
    first, last = min(int(e[0]) for e in ends), max(int(e[-1]) for e in ends)
    why = next(iter(skipped.values()))
    return BadInput(
        str(folder.path),
        f"no market can be judged from {_day(from_s)} to {_day(until_s)} ({why})",
        f"Its bars run from {_day(first)} to {_day(last)}: choose --from and --to inside.",
    )


def _day(at_s: int) -> str:
    return f"{datetime.fromtimestamp(min(at_s, 253_402_300_799), UTC):%Y-%m-%d %H:%M}"


def _seconds(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp())
