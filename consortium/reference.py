"""The reference model of a folder of public data: `fedtrade model`.

public     a base fitted on hourly candles that end before the cut (`fedtrade.learning.pretraining`):
           one market of each coin, the one with the longest past. The model card tells of the last
           VALIDATION_DAYS before the cut, as a twin forecasts them that was fitted without them
private    a release over real messages: members, a committee of five helpers and a coordinator in one
           process, Flower between them, certificates instead of a chain. The members' positions are
           simulated over the recorded prices (`STANDINS`)
checked    every member recomputes the release from its transcript, puts the model through the leak
           gate on its own candles, and signs
judged     on all that the folder has after the cut (`fedtrade.learning.scorecard`)

Leaves artifact.safetensors, its manifest.json, transcript.bin (for `fedtrade verify`) and
metrics.json. A run that was cut off takes up the base that it had fitted; the release begins anew,
with other keys and other noise.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console

from clients.floor import Floor
from clients.keys import MemberKeys
from clients.positions import PrivatePositions
from consortium.rehearsal import Board, Consortium, Party, make_terms
from consortium.stages import Stages
from fedtrade.artifact import (
    Measured,
    ModelCard,
    flatten,
    load,
    pack,
    sha256_of,
)
from fedtrade.console import leave_cleanly
from fedtrade.dashboard.scorecard import as_json, tables
from fedtrade.errors import BadInput, Fault
from fedtrade.learning import baseline, leaks
from fedtrade.learning.contenders import Progress, table_of
from fedtrade.learning.evaluation import qlike, r_squared
from fedtrade.learning.features import FEATURES, neutral_rows
from fedtrade.learning.folder import DataFolder, Market
from fedtrade.learning.perceptron import log_to_mean, predict
from fedtrade.learning.pretraining import pretrain
from fedtrade.learning.scorecard import EVER_S, Scorecard, day_s, evaluate_folder
from fedtrade.learning.tables import HOUR_S, Candles
from fedtrade.learning.windows import HEADS, MarketTable
from fedtrade.parameters import SCALE, PrivacyParameters
from fedtrade.privacy.accounting import least_noise
from fedtrade.protocol import Endorsement, encode
from fedtrade.simulation.positions import (
    STANDIN,
    SimulatedMember,
    StyleName,
    csv_text,
    simulate_positions,
)
from server.release import Exchange, Finished, endorsements

HIDDEN: Final = (64, 32)
SEED: Final = 20250101
VALIDATION_DAYS: Final = 60
LEAST_HOURS: Final = 180 * 24
"""Of a market's past before its positions or its candles are used."""
WARM_UP_S: Final = 8 * 86_400
MEMBERS: Final = 20
SYMBOLS_EACH: Final = 3
STYLES: Final[tuple[StyleName, ...]] = ("market_maker", "directional", "hedger", "momentum")
DELTA: Final = 1e-6
SAMPLING_RATE: Final = 0.05
ROUNDS: Final = 100
CLIP_NORM: Final = 3.0
"""At the base most positions' gradients are shorter (median 1.3, 95 % below 3.2). A bound of 1 cuts
the larger half, whose mean is then no longer 0, and moves a model that was right."""
LEARNING_RATE: Final = 1e-4
"""Small: the base knows the candles already, and simulated positions know nothing else."""
CHAIN_ID: Final = 31_101
"""Of no chain: signatures need a number, and nothing is published."""

STANDINS: Final = (
    STANDIN,
    "all members, helpers and the coordinator share one process",
    "no chain: the helpers' certificates make manifests final, and the hash is not published",
)


@dataclass(frozen=True, slots=True, eq=False)
class Public:
    """What the folder knows before the cut."""

    candles: dict[Market, Candles]
    """Of every market with LEAST_HOURS; members trade on them."""
    tables: dict[Market, MarketTable]
    """Of one market a coin."""


def read_public(folder: DataFolder, cut_s: int, progress: Progress) -> Public:
    """Hourly candles that end by the cut, and the tables of those that the base is fitted on."""
    candles: dict[Market, Candles] = {}
    known = folder.markets(HOUR_S)
    for done, market in enumerate(known):
        progress("reading candles", done, len(known))
        past = folder.candles(*market).between(0, cut_s)
        if len(past.start_s) >= LEAST_HOURS:
            candles[market] = past
    progress("reading candles", len(known), len(known))
    longest: dict[str, Market] = {}
    for market, past in candles.items():
        rival = longest.get(market[1])
        if rival is None or len(past.start_s) > len(candles[rival].start_s):
            longest[market[1]] = market
    if not longest:
        problem = f"no market has {LEAST_HOURS // 24} days of hourly candles before {_day(cut_s)}"
        raise BadInput(str(folder.path), problem, "Choose a later --until or a fuller folder.")
    made = {}
    for done, market in enumerate(sorted(longest.values())):
        progress("features", done, len(longest))
        made[market] = table_of(folder, candles[market], cut_s)
    progress("features", len(longest), len(longest))
    return Public(candles, made)


def fit_base(public: Public, cut_s: int, seed: int, progress: Progress) -> bytes:
    """The model that the release begins with, with its card. A function of its arguments."""
    arrays = pretrain(tuple(public.tables.values()), HIDDEN, seed, progress)
    card = _card(public, cut_s, seed, progress)
    manifest = baseline.base_manifest(HIDDEN, cut_s, standins=STANDINS, card=card)
    return pack(arrays, manifest)


def _card(public: Public, cut_s: int, seed: int, progress: Progress) -> ModelCard:
    """What the base was fitted on, and the figures of its twin on hours that the twin has not seen."""
    from_s = cut_s - VALIDATION_DAYS * 86_400
    tables = public.tables.values()
    before = [t.take(t.end_s + HOUR_S <= from_s) for t in tables]
    kept = [t.take(t.end_s >= from_s) for t in tables]
    twin = pretrain(
        before, HIDDEN, seed, lambda what, done, of: progress(f"{what}, twin", done, of)
    )
    public_rows = np.concatenate([t.features for t in kept])
    targets = np.concatenate([t.targets for t in kept])
    rows = neutral_rows(public_rows)
    told, shift = predict(twin, rows), log_to_mean(twin, rows)
    har = baseline.fit_linear(before, HEADS[0], baseline.HAR_FEATURES)
    by_har = har.predict(public_rows)
    variance, demand = targets[:, 0], targets[:, 1]
    figures = {
        "twin, QLIKE of variance": float(qlike(variance, told[:, 0] + shift[:, 0]).mean()),
        "HAR, QLIKE of variance": float(qlike(variance, by_har + har.log_to_mean).mean()),
        "twin, R² of log variance": r_squared(variance, told[:, 0]),
        "HAR, R² of log variance": r_squared(variance, by_har),
        "twin, R² of log demand": r_squared(demand, told[:, 1]),
    }
    return ModelCard(
        data=tuple(
            f"{'/'.join(market)}, hourly candles, {_day(t.end_s[0])} to {_day(t.end_s[-1] + HOUR_S)}"
            for market, t in public.tables.items()
        ),
        judged=f"{len(rows)} hours of {sum(len(k.end_s) > 0 for k in kept)} markets, "
        f"{_day(from_s)} to {_day(cut_s)}",
        figures=tuple(Measured(what=what, value=value) for what, value in figures.items()),
        intended_use=(
            "The next hour's variance and traded notional of liquid crypto markets with hourly "
            "candles, as one input of an execution agent with limits of its own."
        ),
        limits=(
            "It does not forecast direction.",
            "Its figures are those of a twin of the base, fitted without the hours judged: the private "
            "rounds cannot know the figures of their own result.",
            "A market must have 168 hours without a gap behind it.",
        ),
    )


def found(public: Public, out: Path, cut_s: int, seed: int, progress: Progress) -> list[Party]:
    """Members of different venues and styles, each with keys, a folder and a simulated book."""
    markets = sorted(public.candles)
    parties = []
    for place in range(MEMBERS):
        progress("members and simulated books", place, MEMBERS)
        venue, _ = markets[
            place * len(markets) // MEMBERS
        ]  # a venue of more markets has more of them
        coins = [symbol for where, symbol in markets if where == venue]
        own = tuple(
            sorted({coins[(place * SYMBOLS_EACH + i) % len(coins)] for i in range(SYMBOLS_EACH)})
        )
        who = SimulatedMember(f"member-{place + 1}", venue, STYLES[place % len(STYLES)], own)
        folder = out / "members" / who.name
        held = {(venue, symbol): public.candles[venue, symbol] for symbol in own}
        from_s = max(int(c.start_s[0]) for c in held.values()) + WARM_UP_S
        keys = MemberKeys.create(folder)
        path = folder / "positions.csv"
        path.write_text(csv_text(simulate_positions(who, held, seed, from_s, cut_s)))
        path.chmod(0o600)
        positions = PrivatePositions.load(path, held, cut_s)
        parties.append(Party(place + 1, who.name, keys, positions, folder))
    progress("members and simulated books", MEMBERS, MEMBERS)
    return parties


def parameters_for(dimension: int, epsilon: float) -> PrivacyParameters:
    """The release's parameters: the least noise that keeps it within ε (RDP), rounding included."""
    accounted = least_noise(SAMPLING_RATE, ROUNDS, DELTA, epsilon)
    return PrivacyParameters(
        sampling_rate=SAMPLING_RATE,
        noise_multiplier=accounted * (1 + dimension**0.5 / SCALE),
        clip_norm=CLIP_NORM,
        rounds=ROUNDS,
        delta=DELTA,
        epsilon_cap=epsilon + 1e-3,
        cohort_min=5,
        helpers=5,
        corrupt=2,
        agreement="certificate",
        learning_rate=LEARNING_RATE,
    )


def train(
    parties: Sequence[Party], base: bytes, epsilon: float, out: Path, progress: Progress
) -> Finished:
    """The private rounds, and every member's signature under their result."""
    dimension = len(flatten(load(base, sha256_of(base)).arrays))
    parameters = parameters_for(dimension, epsilon)
    coordinator = MemberKeys.ephemeral()
    terms = make_terms(parties, parameters, base, coordinator.address, chain_id=CHAIN_ID)
    consortium = Consortium(
        parties,
        terms,
        base,
        Board(),
        coordinator.sign_digest,
        out / "coordinator",
        Floor(epsilon_limit=parameters.epsilon_cap),
    )
    ended: list[Finished] = []

    def run(exchange: Exchange) -> None:
        release = consortium.release
        while release.rounds_left:
            release.run_round(exchange)
            progress("private rounds", release.spent, parameters.rounds)
        finished = release.finish()
        progress("members recompute the release and sign", 0, 1)
        body = encode(
            Endorsement(
                transcript=finished.transcript,
                version=1,
                uri="artifact.safetensors",
                registries={terms.chain_id: terms.registry},
            )
        )
        signed = len(endorsements(exchange, terms, body))
        if signed < len(parties):
            raise Fault(f"{len(parties) - signed} of {len(parties)} members did not sign the model")
        progress("members recompute the release and sign", 1, 1)
        ended.append(finished)

    consortium.over_flower(run, timeout_s=3_600.0)  # every member checks years of candles
    consortium.close()
    if not ended:
        raise Fault("the coordinator ended without a release. See model.log")
    return ended[0]


def make(
    data: Path,
    out: Path,
    until: str,
    epsilon: float,
    seed: int,
    with_rivals: bool,
    console: Console,
) -> Scorecard:
    """The whole command; gives the scorecard that it wrote."""
    cut_s = day_s(until, 0)
    stages = Stages(console)
    folder = DataFolder(data)
    out.mkdir(parents=True, exist_ok=True)
    _clear(out)
    with stages.stage("public") as progress:
        public = read_public(folder, cut_s, progress)
        base = _base(public, out, cut_s, seed, progress)
    with stages.stage("private") as progress:
        parties = found(public, out, cut_s, seed, progress)
        finished = train(parties, base, epsilon, out, progress)
    (out / "artifact.safetensors").write_bytes(finished.artifact)
    (out / "transcript.bin").write_bytes(finished.transcript)
    artifact = load(finished.artifact, finished.artifact_sha256)
    about = {"sha256": artifact.sha256, **artifact.manifest.model_dump(mode="json")}
    _write(out / "manifest.json", json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    with stages.stage("judging") as progress:
        card = evaluate_folder(
            artifact, data, cut_s, EVER_S, with_rivals=with_rivals, progress=progress
        )
    _write(out / "metrics.json", as_json(card))
    return card


def _base(public: Public, out: Path, cut_s: int, seed: int, progress: Progress) -> bytes:
    """The base of an earlier run over the same candles and settings, or a new one."""
    plan = {
        "until_s": cut_s,
        "seed": seed,
        "features": FEATURES,
        "candles": {
            "/".join(market): sha256_of(t.features.tobytes() + t.targets.tobytes())
            for market, t in public.tables.items()
        },
    }
    text = json.dumps(plan, indent=1)
    plan_path, path = out / "base.json", out / "base.safetensors"
    if path.is_file() and plan_path.is_file() and plan_path.read_text() == text:
        progress("base of an earlier run", 1, 1)
        return path.read_bytes()
    base = fit_base(public, cut_s, seed, progress)
    path.write_bytes(base)
    _write(plan_path, text)
    return base


def _clear(out: Path) -> None:
    """Remove the members and the coordinator of an earlier run, and nobody else's."""
    for name in ("members", "coordinator"):
        if (out / name).exists():
            if not (out / "base.json").is_file():
                problem = f"{name} in it is not of an earlier run of this command"
                raise BadInput(str(out), problem, "Choose another --out.")
            shutil.rmtree(out / name)


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%d")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="fedtrade model",
        description="Train the reference model of a folder through a private federation.",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder laid out as the data pack")
    parser.add_argument("--out", type=Path, default=Path("out/model"))
    parser.add_argument("--until", default="2025-01-01", help="nothing later is trained on (UTC)")
    parser.add_argument(
        "--epsilon", type=float, default=4.0, help="of the release, at δ = 1e-6 (RDP)"
    )
    parser.add_argument(
        "--seed", type=int, default=SEED, help="of base and simulated books, not of noise"
    )
    parser.add_argument(
        "--no-rivals", action="store_true", help="judge without GARCH and LightGBM (a minute less)"
    )
    given = parser.parse_args(arguments)
    if not 0.1 <= given.epsilon <= 8.0:
        raise BadInput("--epsilon", f"{given.epsilon:g} is out of range", "Give 0.1 to 8.")
    given.out.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=given.out / "model.log", filemode="w", level=logging.INFO)
    console = Console()
    card = make(
        given.data,
        given.out,
        given.until,
        given.epsilon,
        given.seed,
        not given.no_rivals,
        console,
    )
    for table in tables(card):
        console.print(table)
    console.print(f"\nModel: [bold]{(given.out / 'artifact.safetensors').resolve()}[/bold]")
    leaks.refuse(card.gate)


if __name__ == "__main__":
    leave_cleanly("fedtrade model", main)
