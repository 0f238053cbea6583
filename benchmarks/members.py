"""Federated against solo and pooled, over members with different venues and styles; newcomers.

    python -m benchmarks.members --data ../shared/data --out out/members --seed 1   (2, 3, …)
    python -m benchmarks.members --out out/members --draw docs

Twenty members on three venues hold simulated positions over the recorded prices: the styles are
those of `fedtrade.simulation.positions`, the sizes are scaled so that a member turns over TURNOVER of
what its market trades. All is fitted on what ended before the cut and judged on every hour after it.
Each seed draws books, sampling, noise and initial weights anew.

federated  `training.train` on all members' positions with the noise of ε: the computation of a release
           with its cryptography taken away, which draws from the same distribution
twin       the same without noise
pooled     all positions, no noise, no clipping, rate and rounds of its own: what nobody may do
solo       a member's own positions, no noise, no clipping, rate and rounds chosen by itself on the
           last fifth of its time
HAR        the public baseline that every network starts from

The first command leaves one JSON a seed, the second puts them together: members.json and members.svg
in the folder named, and the tables of docs/members.md on the screen.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are imported

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.forecasts import noise_for
from fedtrade.artifact import Arrays, NetworkShape, flatten
from fedtrade.learning import baseline, evaluation, personal
from fedtrade.learning.features import FEATURES, neutral_rows
from fedtrade.learning.folder import DataFolder
from fedtrade.learning.network import predict
from fedtrade.learning.optimiser import Adam
from fedtrade.learning.positions import Positions
from fedtrade.learning.tables import HOUR_S, Candles
from fedtrade.learning.training import TrainingSettings, each_round, join, train
from fedtrade.learning.windows import (
    HEADS,
    MarketTable,
    PositionBatch,
    market_table,
    position_windows,
)
from fedtrade.simulation.positions import CONSORTIUM, SimulatedMember, simulate_positions

Market = tuple[str, str]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DAY_S = 86_400
SCENES = {
    "settings": ("2025-01-01", "2025-05-01"),
    "test": ("2025-05-01", "2025-10-01"),
}
"""Cut, and end of the judged time. Settings were chosen on the first, and all is told of the second."""
LEAST_DAYS = 30
"""A member trades a market that it has known for so long before the cut, and no other."""
WARM_UP_S = 8 * DAY_S
TURNOVER = 0.002
"""A member's traded notional over that of its market in the same time: an assumption."""
MEMBERS = (
    *CONSORTIUM,
    SimulatedMember("aspen", "binance", "hedger", ("ATOM", "BCH")),
    SimulatedMember("birch", "binance", "market_maker", ("FIL", "INJ", "OP")),
    SimulatedMember("cedar", "binance", "momentum", ("SOL",)),
    SimulatedMember("elder", "binance", "directional", ("BTC", "BNB", "LTC")),
    SimulatedMember("maple", "binance", "momentum", ("BNB", "SUI")),
    SimulatedMember("poplar", "binance", "market_maker", ("ADA", "LTC", "DOT")),
    SimulatedMember("rowan", "binance", "directional", ("NEAR", "TRX")),
    SimulatedMember("juniper", "hyperliquid", "market_maker", ("SUI", "BNB", "LTC")),
    SimulatedMember("linden", "hyperliquid", "market_maker", ("kPEPE", "WIF")),
    SimulatedMember("myrtle", "hyperliquid", "hedger", ("AAVE", "UNI", "CRV")),
    SimulatedMember("oak", "hyperliquid", "directional", ("ENA", "ONDO", "ARB")),
    SimulatedMember("pine", "hyperliquid", "momentum", ("TAO", "WLD", "SEI")),
)
NEWCOMERS = (
    SimulatedMember("ash", "bybit", "momentum", ("BTC",)),
    SimulatedMember("box", "hyperliquid", "market_maker", ("ADA",)),
    SimulatedMember("cherry", "hyperliquid", "directional", ("NEAR",)),
    SimulatedMember("damson", "hyperliquid", "momentum", ("POPCAT",)),
    SimulatedMember("furze", "hyperliquid", "hedger", ("kBONK",)),
    SimulatedMember("hawthorn", "hyperliquid", "market_maker", ("FARTCOIN",)),
    SimulatedMember("ivy", "hyperliquid", "directional", ("TRUMP",)),
    SimulatedMember("larch", "hyperliquid", "hedger", ("OP",)),
)
"""None of their markets is any member's."""
NEWCOMER_S = 60 * DAY_S
"""They began to trade so long before the cut."""
FEW = (30, 100, 300, 1000)
"""Positions that a newcomer has."""

KINDS = {"qlike": 1.0, "frozen": 1.0, "r2": -1.0}
"""Figures of a forecaster, and whether less (1) or more (−1) of it is better."""
BASES = ("HAR", "solo")
EPSILONS = (1.0, 2.0, 4.0)
TOLD = 4.0
"""The ε of the curves and of the members' own figures."""
SHARES = (8, 4, 2)
"""The curve over the number of positions: every 8th, 4th and 2nd position of each member."""
HIDDEN = (32, 16)
RELEASE = TrainingSettings(
    rounds=200, sampling_rate=0.1, clip_norm=1.0, optimiser=Adam(learning_rate=5e-3)
)
POOLED = TrainingSettings(
    rounds=200, sampling_rate=0.05, clip_norm=np.inf, optimiser=Adam(learning_rate=5e-3)
)
SOLO_RATES = (3e-3, 1e-2)
SOLO_ROUNDS = (10, 20, 40, 60, 80, 100, 150, 200)
SOLO_STEP = 200
"""Positions that a solo step takes on average, or all."""
HELD_OUT = 0.2
FAST = torch.float32


@dataclass(frozen=True, slots=True, eq=False)
class Book:
    """A member's positions as batches: all, and those of the time before the held-out part of it."""

    who: SimulatedMember
    whole: PositionBatch
    early: PositionBatch
    held_out_s: int


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """One cut: the public tables before it and after it."""

    cut_s: int
    candles: Mapping[Market, Candles]
    before: Mapping[Market, MarketTable]
    late: Mapping[Market, MarketTable]


def open_scene(data: Path, name: str, who: Sequence[SimulatedMember]) -> Scene:
    """Candles and tables of every market of these members that has hours on both sides of the cut."""
    folder = DataFolder(data)
    cut_s, until_s = (
        int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) for day in SCENES[name]
    )
    candles: dict[Market, Candles] = {}
    before: dict[Market, MarketTable] = {}
    late: dict[Market, MarketTable] = {}
    for market in sorted({(w.venue, symbol) for w in who for symbol in w.symbols}):
        found = folder.candles(*market).between(0, until_s)
        if int(found.start_s[0]) + LEAST_DAYS * DAY_S <= cut_s:
            table = market_table(found, until_s, with_context=False)
            candles[market] = found
            before[market] = table.take(table.end_s + HOUR_S <= cut_s)
            late[market] = table.take(table.end_s >= cut_s)
    return Scene(cut_s, candles, before, late)


def known_to(who: Sequence[SimulatedMember], scene: Scene) -> list[SimulatedMember]:
    """The members with those of their markets that the scene has; who has none is left out."""
    cut = [
        replace(w, symbols=tuple(s for s in w.symbols if (w.venue, s) in scene.candles))
        for w in who
    ]
    return [w for w in cut if w.symbols]


def book_of(who: SimulatedMember, scene: Scene, seed: int, from_s: int = 0) -> Book:
    """A member's positions up to the cut."""
    markets = [(who.venue, symbol) for symbol in who.symbols]
    first_s = max(from_s, *(int(scene.candles[m].start_s[0]) + WARM_UP_S for m in markets))
    held = simulate_positions(who, scene.candles, seed, first_s, scene.cut_s)
    held = _sized(held, scene, first_s)
    held_out_s = int(np.quantile(held.opened_s, 1 - HELD_OUT))
    early = {m: t.take(t.end_s + HOUR_S <= held_out_s) for m, t in scene.before.items()}
    past = position_windows(held, early, held_out_s)
    whole = position_windows(held, scene.before, scene.cut_s)
    return Book(who, whole, past.take(past.weights.sum(1) > 0), held_out_s)


def _sized(positions: Positions, scene: Scene, from_s: int) -> Positions:
    """Positions of a size at which opening and closing them is TURNOVER of what the market trades."""
    quantity = positions.quantity_base.copy()
    symbols = np.array(positions.symbol)
    for symbol in sorted(set(positions.symbol)):
        own = symbols == symbol
        candles = scene.candles[positions.venue[0], symbol].between(from_s, scene.cut_s)
        simulated = 2.0 * float((quantity * positions.entry_price)[own].sum())
        quantity[own] *= TURNOVER * candles.notional_usd.sum() / simulated
    return replace(positions, quantity_base=quantity)


def thinned(book: Book, every: int) -> PositionBatch:
    """Every so many of a member's positions; books are in order of opening, so all times stay in."""
    return book.whole.take(np.arange(0, book.whole.count, every))


def solo(start: Arrays, book: Book, scene: Scene, seed: int) -> tuple[Arrays, tuple[float, int]]:
    """What a member reaches alone, and the rate and rounds that it chose: those with the least
    squared error of log variance on the public hours of its markets in the held-out time, by a
    network trained on the positions before it. No round at all is a choice too: that is HAR.
    """
    tables = [scene.before[book.who.venue, symbol] for symbol in book.who.symbols]
    late = [table.end_s >= book.held_out_s for table in tables]
    rows = _rows(np.concatenate([t.features[at] for t, at in zip(tables, late, strict=True)]))
    target = np.concatenate([t.targets[at, 0] for t, at in zip(tables, late, strict=True)])

    def error(model: Arrays) -> float:
        return float(np.square(target - predict(model, rows)[:, 0]).mean())

    best, chosen = error(start), (0.0, 0)
    for rate in SOLO_RATES:
        settings = _alone(book.early, rate, SOLO_ROUNDS[-1])
        for i, model in enumerate(
            each_round(start, book.early, settings, _coins(seed, "held"), FAST), 1
        ):
            if i in SOLO_ROUNDS and error(model) < best:
                best, chosen = error(model), (rate, i)
    return train(start, book.whole, _alone(book.whole, *chosen), _coins(seed, "solo"), FAST), chosen


def _alone(batch: PositionBatch, rate: float, rounds: int) -> TrainingSettings:
    share = min(1.0, SOLO_STEP / max(batch.count, 1))
    return TrainingSettings(rounds, share, np.inf, 0.0, Adam(learning_rate=rate or 1e-3))


def _coins(seed: int, label: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, *label.encode()]))


def _rows(public: Floats) -> NDArray[np.float32]:
    return neutral_rows(public).astype(np.float32)


class Judge:
    """Every hour of every market after the cut, told to a forecaster that holds no position.

    exp(forecast of E[log v]) is made a forecast of E[v] by the market's own mean of exp(residual)
    over the year before the cut: the same rule for everyone, and public.
    """

    def __init__(self, scene: Scene) -> None:
        self.markets = [m for m, table in sorted(scene.late.items()) if len(table.end_s)]
        self._late = [scene.late[m] for m in self.markets]
        self._past = [scene.before[m].take(_lately(scene.before[m])) for m in self.markets]

    def figures(
        self, model: Arrays, head: personal.PersonalHead | None = None
    ) -> dict[str, list[float]]:
        """By market: QLIKE, QLIKE with the factor frozen into the artifact, R² of log variance."""

        def told(table: MarketTable) -> Floats:
            outputs = predict(model, _rows(table.features))
            return (outputs if head is None else head.apply(outputs))[:, 0]

        found: dict[str, list[float]] = {"qlike": [], "frozen": [], "r2": []}
        for late, past in zip(self._late, self._past, strict=True):
            target = late.targets[:, 0]
            forecast, residual = told(late), past.targets[:, 0] - told(past)
            shift = float(np.log(np.exp(residual).mean()))
            frozen = float(model["fixed.log_to_mean"][0])
            found["qlike"].append(float(evaluation.qlike(target, forecast + shift).mean()))
            found["frozen"].append(float(evaluation.qlike(target, forecast + frozen).mean()))
            found["r2"].append(evaluation.r_squared(target, forecast))
        return found


def _lately(table: MarketTable) -> NDArray[np.bool_]:
    """Every fifth hour of the last year."""
    late = table.end_s > table.end_s[-1] - 365 * DAY_S
    return np.asarray(late & (table.end_s // HOUR_S % 5 == 0))


def _outputs(model: Arrays, batch: PositionBatch) -> Floats:
    """(P, W, K)."""
    flat = batch.features.reshape(-1, batch.features.shape[2])
    return predict(model, flat).reshape(batch.targets.shape)


def one_seed(data: Path, name: str, seed: int) -> dict[str, Any]:
    """All figures of one seed, by market and model."""
    scene = open_scene(data, name, MEMBERS)
    members = known_to(MEMBERS, scene)
    books = [book_of(who, scene, seed) for who in members]
    fixed = baseline.fixed_arrays(tuple(scene.before.values()))
    shape = NetworkShape(inputs=len(FEATURES), hidden=HIDDEN, outputs=len(HEADS))
    start = baseline.initial_arrays(shape, seed, fixed)
    judge = Judge(scene)
    whole = join([book.whole for book in books])
    noises = {e: noise_for(e, len(flatten(start)), RELEASE) for e in EPSILONS}

    def release(batch: PositionBatch, epsilon: float | None, label: str) -> Arrays:
        z = 0.0 if epsilon is None else noises[epsilon]
        return train(start, batch, replace(RELEASE, noise_multiplier=z), _coins(seed, label), FAST)

    federated = {f"federated, ε = {e:g}": release(whole, e, f"{e}") for e in EPSILONS}
    models = {
        "HAR": start,
        **federated,
        "twin": release(whole, None, "twin"),
        "pooled": train(start, whole, POOLED, _coins(seed, "pooled"), FAST),
    }
    found: dict[str, Any] = {
        "markets": ["/".join(m) for m in judge.markets],
        "members": {b.who.name: [b.who.venue, b.who.style, *b.who.symbols] for b in books},
        "positions": {b.who.name: b.whole.count for b in books},
        "noise": {f"{e:g}": z for e, z in noises.items()},
        "models": {label: judge.figures(model) for label, model in models.items()},
        "solo": {},
        "with own head": {},
        "chosen": {},
        "fewer": {},
    }
    for book in books:
        model, found["chosen"][book.who.name] = solo(start, book, scene, seed)
        found["solo"][book.who.name] = judge.figures(model)
    for every in SHARES:
        fewer = join([thinned(book, every) for book in books])
        found["fewer"][str(fewer.count)] = {
            "federated": judge.figures(release(fewer, TOLD, f"federated {every}")),
            "twin": judge.figures(release(fewer, None, f"twin {every}")),
        }
    shared = models[f"federated, ε = {TOLD:g}"]
    for book in books:
        head = personal.fit(book.whole, _outputs(shared, book.whole))
        found["with own head"][book.who.name] = judge.figures(shared, head)
    found["newcomers"] = newcomers(data, name, seed, start, shared)
    return found


def newcomers(
    data: Path, name: str, seed: int, start: Arrays, shared: Arrays
) -> dict[str, dict[str, Any]]:
    """Who joins late, alone with few positions: against the model of those who were there before."""
    scene = open_scene(data, name, NEWCOMERS)
    judge = Judge(scene)
    found: dict[str, dict[str, Any]] = {}
    for who in known_to(NEWCOMERS, scene):
        book = book_of(who, scene, seed, scene.cut_s - NEWCOMER_S)
        at = judge.markets.index((who.venue, who.symbols[0]))
        own = found[who.name] = {"market": "/".join(judge.markets[at]), "solo": {}}
        for label, model in (("HAR", start), ("federated", shared)):
            own[label] = {k: v[at] for k, v in judge.figures(model).items()}
        for count in FEW:
            few = _few(book, count, _coins(seed, f"{who.name} {count}"))
            model, chosen = solo(start, few, scene, seed)
            figures = {k: v[at] for k, v in judge.figures(model).items()}
            own["solo"][str(count)] = {**figures, "chosen": chosen}
    return found


def _few(book: Book, count: int, draw: np.random.Generator) -> Book:
    """A newcomer's book with `count` positions, of which the first four fifths are early ones."""
    early = round((1 - HELD_OUT) * count)
    return replace(
        book,
        whole=book.whole.take(np.sort(draw.permutation(book.whole.count)[:count])),
        early=book.early.take(np.sort(draw.permutation(book.early.count)[:early])),
    )


def _mean(figures: Mapping[str, Sequence[float]], kind: str, at: Sequence[int]) -> float:
    return float(np.mean([figures[kind][i] for i in at]))


def summary(seed: Mapping[str, Any]) -> dict[str, Any]:
    """One seed's table: losses, the share of members better off than alone, the gain kept.

    "Own" is over a member's own markets, each with the same weight; "all" over all markets.
    """
    whole = range(len(seed["markets"]))
    own = {
        name: [seed["markets"].index(f"{venue}/{s}") for s in symbols]
        for name, (venue, _, *symbols) in seed["members"].items()
    }
    solo = seed["solo"]
    levels = {k: float(np.mean([_mean(solo[n], k, whole) for n in own])) for k in KINDS}
    found: dict[str, Any] = {"solo (mean)": dict(levels)}
    for k in KINDS:
        found["solo (mean)"][f"{k} own"] = float(np.mean([_mean(solo[n], k, own[n]) for n in own]))
    models = seed["models"]
    for label, figures in models.items():
        row = found[label] = {k: _mean(figures, k, whole) for k in KINDS}
        for k, sign in KINDS.items():
            ours = {n: sign * _mean(figures, k, at) for n, at in own.items()}
            row[f"{k} own"] = sign * float(np.mean(list(ours.values())))
            row[f"{k} better, own"] = float(
                np.mean([ours[n] < sign * _mean(solo[n], k, at) for n, at in own.items()])
            )
            row[f"{k} better, all"] = float(
                np.mean([sign * row[k] < sign * _mean(solo[n], k, whole) for n in own])
            )
            for base, level in (("HAR", _mean(models["HAR"], k, whole)), ("solo", levels[k])):
                for best in ("pooled", "twin"):
                    gain = level - _mean(models[best], k, whole)
                    row[f"{k} kept of {best}, from {base}"] = (level - row[k]) / gain
    row = found[f"federated, ε = {TOLD:g}, with own head"] = {}
    for k, sign in KINDS.items():
        pairs = [
            (_mean(seed["with own head"][n], k, at), _mean(solo[n], k, at)) for n, at in own.items()
        ]
        row[f"{k} own"] = float(np.mean([ours for ours, _ in pairs]))
        row[f"{k} better, own"] = float(np.mean([sign * a < sign * b for a, b in pairs]))
    return found


def newcomer_gains(seed: Mapping[str, Any], kind: str = "qlike") -> dict[str, dict[str, float]]:
    """Own loss less the federated model's, mean over newcomers, by the number of positions; "members"
    is that of the old ones on their own markets. With it the share of them that gain.
    """
    sign, label = KINDS[kind], f"federated, ε = {TOLD:g}"
    gains: dict[str, list[float]] = {}
    for one in seed["newcomers"].values():
        for count, alone in one["solo"].items():
            gain = sign * (alone[kind] - one["federated"][kind])
            gains.setdefault(count, []).append(gain)
    for name, (venue, _, *symbols) in seed["members"].items():
        at = [seed["markets"].index(f"{venue}/{s}") for s in symbols]
        alone, ours = (_mean(f, kind, at) for f in (seed["solo"][name], seed["models"][label]))
        gains.setdefault("members", []).append(sign * (alone - ours))
    return {
        key: {"gain": float(np.mean(g)), "share": float(np.mean(np.array(g) > 0))}
        for key, g in gains.items()
    }


def fewer(seed: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """By share of the positions: how many they are, and what is kept of the gain over HAR that all
    positions bring without noise: by the federated model, and by its twin without noise."""
    whole = range(len(seed["markets"]))
    models = seed["models"]
    har, pooled = (_mean(models[n], "qlike", whole) for n in ("HAR", "pooled"))
    total = sum(seed["positions"].values())
    rows = {
        **seed["fewer"],
        str(total): {"federated": models[f"federated, ε = {TOLD:g}"], "twin": models["twin"]},
    }
    found = {}
    for count, pair in rows.items():
        part = min((1, *SHARES), key=lambda every: abs(total / every - int(count)))
        found[f"1/{part}"] = {
            "positions": float(count),
            **{n: (har - _mean(f, "qlike", whole)) / (har - pooled) for n, f in pair.items()},
        }
    return found


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of Student's 95 % interval over seeds."""
    array = np.array(values, np.float64)
    if len(array) < 2:
        return float(array.mean()), float("nan")
    from scipy.stats import t as student  # seconds to import

    half = student.ppf(0.975, len(array) - 1) * array.std(ddof=1) / len(array) ** 0.5
    return float(array.mean()), float(half)


def tables_text(seeds: Sequence[Mapping[str, Any]]) -> str:
    """The tables of the document, as Markdown."""
    told = [summary(seed) for seed in seeds]

    def cell(name: str, key: str, digits: int, scale: float = 1.0) -> str:
        if key not in told[0][name]:
            return "–"
        mean, half = interval([scale * one[name][key] for one in told])
        return f"{mean:.{digits}f} ± {half:.{digits}f}"

    noise_of = {f"federated, ε = {e:g}": seeds[0]["noise"][f"{e:g}"] for e in EPSILONS}
    lines = ["| model | z | QLIKE | R² | own QLIKE | own R² |", "|---|--:|--:|--:|--:|--:|"]
    names = ("HAR", "solo (mean)", *noise_of, "twin", "pooled", list(told[0])[-1])
    for name in names:
        z = f"{noise_of[name]:.2f}" if name in noise_of else "–"
        figures = [cell(name, k, 4) for k in ("qlike", "r2", "qlike own", "r2 own")]
        lines.append(f"| {name} | {z} | " + " | ".join(figures) + " |")
    for kind in KINDS:
        columns = [f"{kind} better, {where}" for where in ("own", "all")]
        columns += [f"{kind} kept of {b}, from {f}" for b in ("pooled", "twin") for f in BASES]
        lines += ["", "| model, % | " + " | ".join(columns) + " |"]
        lines.append("|---|" + "--:|" * len(columns))
        for name in names:
            if name != "solo (mean)":
                figures = [cell(name, column, 0, 100.0) for column in columns]
                lines.append(f"| {name} | " + " | ".join(figures) + " |")
    lines += ["", "| positions | federated | twin |", "|--:|--:|--:|"]
    curves = [fewer(seed) for seed in seeds]
    for part in curves[0]:
        count = np.mean([c[part]["positions"] for c in curves])
        pair = [interval([100 * c[part][n] for c in curves]) for n in ("federated", "twin")]
        lines.append(
            f"| {count:,.0f} | " + " | ".join(f"{m:.0f} ± {h:.0f}" for m, h in pair) + " |"
        )
    lines += ["", "| own positions | QLIKE gain | % gain | R² gain | % gain |"]
    lines.append("|---|--:|--:|--:|--:|")
    gains = {kind: [newcomer_gains(seed, kind) for seed in seeds] for kind in ("qlike", "r2")}
    for count in gains["qlike"][0]:
        cells = []
        for by_seed in gains.values():
            mean, half = interval([one[count]["gain"] for one in by_seed])
            share, width = interval([100 * one[count]["share"] for one in by_seed])
            cells.append(f"{mean:.4f} ± {half:.4f} | {share:.0f} ± {width:.0f}")
        lines.append(f"| {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Federated against solo and pooled; newcomers.")
    parser.add_argument("--data", type=Path, help="the research data pack")
    parser.add_argument("--out", type=Path, required=True, help="folder of the seeds' figures")
    parser.add_argument("--seed", type=int, help="measure this one")
    parser.add_argument("--scene", choices=sorted(SCENES), default="test")
    parser.add_argument("--draw", type=Path, help="folder for members.json and members.svg")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.seed is not None:
        began = process_time()
        found = one_seed(asked.data, asked.scene, asked.seed)
        found["cpu_s"] = round(process_time() - began)
        path = asked.out / f"{asked.scene}-{asked.seed}.json"
        path.write_text(json.dumps(found, ensure_ascii=False) + "\n")
    if asked.draw is not None:
        paths = sorted(asked.out.glob(f"{asked.scene}-*.json"))
        seeds = [json.loads(path.read_text()) for path in paths]
        print(tables_text(seeds))
        from benchmarks.members_figure import draw

        tables = [
            {"models": summary(s), "newcomers": newcomer_gains(s), "fewer": fewer(s)} for s in seeds
        ]
        told = {"scene": SCENES[asked.scene], "seeds": tables}
        text = json.dumps(told, indent=1, ensure_ascii=False)
        (asked.draw / "members.json").write_text(text + "\n")
        (asked.draw / "members.svg").write_text(draw(tables))


if __name__ == "__main__":
    main()
