"""The first half of the demo: from eight private books to one published model.

found      keys, folders and simulated books of eight members, and the seats they are to have
train      a release of rounds over Flower, manifests on the home chain
publish    every member recomputes the release from its transcript and signs; the home registry
judge      the model beside solo, pooled, HAR and persistence on later, public data
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from clients.floor import Floor
from clients.homechain import check_terms, final_manifests
from clients.keys import MemberKeys
from clients.positions import PrivatePositions
from consortium.rehearsal import Consortium, Party, make_terms
from fedtrade.artifact import Arrays, load, sha256_of, unflatten
from fedtrade.chain.plan import SeatPlan
from fedtrade.dashboard import Epsilon, RoundPoint, Score, SoloScore
from fedtrade.devnet.net import Devnet
from fedtrade.errors import Fault
from fedtrade.learning import baseline, evaluation
from fedtrade.learning.network import predict
from fedtrade.learning.optimiser import Adam
from fedtrade.learning.perceptron import log_to_mean
from fedtrade.learning.tables import TRAIN_UNTIL_S, candles
from fedtrade.learning.training import TrainingSettings, train_pooled, train_solo
from fedtrade.parameters import PrivacyParameters
from fedtrade.privacy import accounting
from fedtrade.privacy.aggregation import spend_of
from fedtrade.protocol import Endorsement, encode
from fedtrade.simulation.positions import CONSORTIUM, SimulatedMember, csv_text, simulate_positions
from server.keys import CoordinatorKeys
from server.publish import Publisher
from server.release import Exchange, Finished, endorsements

RELEASE = 1
VERSION = 1
VALIDATION_S = 7 * 86_400
"""Public candles of the last week before the cut, on which each round's model is looked at."""

Progress = Callable[[str, int, int], None]
"""(what is going on, done, of how many)."""


@dataclass(frozen=True, slots=True)
class Book:
    """One member and its positions, as the demo keeps them in this process."""

    who: SimulatedMember
    party: Party
    positions: PrivatePositions


@dataclass(frozen=True, slots=True)
class Trained:
    """A published release."""

    consortium: Consortium
    finished: Finished
    points: tuple[RoundPoint, ...]
    epsilon: Epsilon


@dataclass(frozen=True, slots=True)
class Judged:
    """Out-of-sample scores; all on the same rows."""

    metrics: Mapping[str, Score]
    solo: tuple[SoloScore, ...]
    linear_public: Score
    """A linear model on all public features: what needs no federation at all."""
    p_value: float
    """Diebold–Mariano, federated against HAR, two-sided."""
    statistic: float


class HomeChain:
    """Where manifests become final: written by the coordinator, read by each helper itself."""

    def __init__(self, publisher: Publisher, devnet: Devnet) -> None:
        home = devnet.deployment.chain(devnet.deployment.home)
        self._publisher = publisher
        self._final = final_manifests(devnet.rpc(home.name), home.model_registry, "latest")

    def post(self, release: int, round_number: int, manifest: bytes) -> None:
        self._publisher.post_manifest(release, round_number, manifest)

    def final(self, release: int, round_number: int) -> bytes | None:
        return self._final(release, round_number)


def found(
    folder: Path, seed: int, committee: int
) -> tuple[list[Book], CoordinatorKeys, list[SeatPlan]]:
    """Members with keys, folders and books, a coordinator, and the seats that they are to have."""
    table = {
        (who.venue, symbol): candles(who.venue, symbol)
        for who in CONSORTIUM
        for symbol in who.symbols
    }
    books, seats = [], []
    for place, who in enumerate(CONSORTIUM):
        own = folder / "members" / who.name
        keys = MemberKeys.create(own)
        path = own / "positions.csv"
        path.write_text(csv_text(simulate_positions(who, table, seed)))
        path.chmod(0o600)
        positions = PrivatePositions.load(path, table, TRAIN_UNTIL_S)
        # Membership numbers its seats from 1 on, in the order of the plan.
        books.append(Book(who, Party(place + 1, who.name, keys, positions, own), positions))
        seats.append(
            SeatPlan(
                account=keys.address,
                signer=keys.address,
                x25519="0x" + keys.x25519_public.hex(),
                roles=("member", "helper") if place < committee else ("member",),
            )
        )
    coordinator = CoordinatorKeys.create(folder / "coordinator")
    address = coordinator.address
    seats.append(SeatPlan(account=address, signer=address, roles=("coordinator",)))
    return books, coordinator, seats


def train(
    folder: Path,
    devnet: Devnet,
    books: Sequence[Book],
    coordinator: CoordinatorKeys,
    parameters: PrivacyParameters,
    base: bytes,
    progress: Progress,
) -> Trained:
    """Open the release on the home chain, run its rounds, endorse and publish."""
    home = devnet.deployment.chain(devnet.deployment.home)
    terms = make_terms(
        [book.party for book in books],
        parameters,
        base,
        coordinator.address,
        release=RELEASE,
        chain_id=home.chain_id,
        registry=home.model_registry,
    )
    publisher = Publisher(home, devnet.rpc(home.name), coordinator)
    publisher.open_release(terms)
    for _ in books:  # each member asks its own node before it joins
        check_terms(devnet.rpc(home.name), home.membership, terms)
    consortium = Consortium(
        [book.party for book in books],
        terms,
        base,
        HomeChain(publisher, devnet),
        coordinator.sign_digest,
        folder / "coordinator",
        Floor(epsilon_limit=parameters.epsilon_cap),
    )
    points: list[RoundPoint] = []
    ended: list[Finished] = []

    def run(exchange: Exchange) -> None:
        points.extend(_rounds(consortium, exchange, progress))
        finished = consortium.release.finish()
        progress("members recompute the release and sign", 0, 1)
        _publish(consortium, exchange, finished, publisher, folder)
        progress("members recompute the release and sign", 1, 1)
        ended.append(finished)

    consortium.over_flower(run, timeout_s=120.0)
    if not ended:
        raise Fault("the coordinator ended without a release. See the log of the run")
    consortium.close()
    spent = accounting.epsilon([spend_of(terms, consortium.release.spent)], parameters.delta)
    epsilon = Epsilon(
        rdp=spent.rdp,
        pld=spent.pld,
        delta=spent.delta,
        unit=spent.unit,
        adjacency=spent.adjacency,
    )
    return Trained(consortium, ended[0], tuple(points), epsilon)


def _rounds(consortium: Consortium, exchange: Exchange, progress: Progress) -> list[RoundPoint]:
    release, terms = consortium.release, consortium.terms
    judged = evaluation.sample(TRAIN_UNTIL_S - VALIDATION_S, TRAIN_UNTIL_S)
    base = release.trajectory.base.arrays
    points = []
    while release.rounds_left:
        began = time.perf_counter()
        report = release.run_round(exchange)
        seconds = time.perf_counter() - began
        arrays = current_arrays(base, release.trajectory.vector)
        spent = accounting.epsilon_rdp([spend_of(terms, release.spent)], terms.parameters.delta)
        points.append(
            RoundPoint(
                number=report.number,
                cohort=len(report.cohort),
                responders=len(report.responders),
                left_out=len(report.left_out),
                epsilon_rdp=spent,
                seconds=seconds,
                qlike=score(arrays, judged).qlike,
            )
        )
        progress("private rounds", release.spent, terms.parameters.rounds)
    return points


def _publish(
    consortium: Consortium,
    exchange: Exchange,
    finished: Finished,
    publisher: Publisher,
    folder: Path,
) -> None:
    """Write the artifact, gather a quorum of endorsements, publish on the home chain."""
    terms = consortium.terms
    path = folder / "model" / "artifact.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(finished.artifact)
    uri = path.name
    registries = {terms.chain_id: terms.registry}
    body = encode(
        Endorsement(transcript=finished.transcript, version=VERSION, uri=uri, registries=registries)
    )
    signatures = {
        terms.member(seat).signer: msgspec.msgpack.decode(reply, type=dict[int, bytes])[
            terms.chain_id
        ]
        for seat, reply in endorsements(exchange, terms, body).items()
    }
    publisher.publish(terms, finished, VERSION, uri, signatures)


def current_arrays(base: Arrays, vector: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """The arrays of a round: the moved vector and the frozen rest."""
    shapes = {name: array.shape for name, array in base.items()}
    fixed = {name: array for name, array in base.items() if name.startswith("fixed.")}
    return {**unflatten(vector, shapes), **fixed}


def score(arrays: Arrays, judged: evaluation.Sample) -> evaluation.Scored:
    """Score a model's forecasts on a sample, private features neutral."""
    rows = judged.rows.astype(np.float32)
    return evaluation.evaluate(predict(arrays, rows), log_to_mean(arrays, rows)[:, 0], judged)


def judge(
    books: Sequence[Book],
    base: bytes,
    artifact: bytes,
    parameters: PrivacyParameters,
    seed: int,
    progress: Progress,
) -> Judged:
    """Federated, every solo, pooled, HAR and persistence on the same later rows.

    Solo and pooled use the same network, start, rounds and optimiser, and no noise.
    """
    judged = evaluation.sample()
    start = load(base, sha256_of(base)).arrays
    settings = TrainingSettings(
        rounds=parameters.rounds,
        sampling_rate=parameters.sampling_rate,
        clip_norm=parameters.clip_norm,
        noise_multiplier=0.0,
        optimiser=Adam(parameters.learning_rate, parameters.beta1, parameters.beta2),
    )
    federated = score(load(artifact, sha256_of(artifact)).arrays, judged)
    solo = []
    for index, book in enumerate(books):
        progress("training alone, for comparison", index, len(books) + 1)
        alone = score(train_solo(start, book.positions.everything(), seed, settings), judged)
        solo.append(
            SoloScore(
                name=book.who.name,
                venue=book.who.venue,
                style=book.who.style,
                positions=book.positions.count,
                qlike=alone.qlike,
                r2=alone.r2,
            )
        )
    progress("training alone, for comparison", len(books), len(books) + 1)
    everything = [book.positions.everything() for book in books]
    pooled = score(train_pooled(start, everything, seed, settings), judged)
    tables = baseline.public_tables()
    har = evaluation.evaluate_linear(
        baseline.fit_linear(tables, "log_variance", baseline.HAR_FEATURES),
        baseline.fit_linear(tables, "log_demand", baseline.DEMAND_FEATURES),
        judged,
    )
    linear = evaluation.evaluate_linear(
        baseline.fit_linear(tables, "log_variance"),
        baseline.fit_linear(tables, "log_demand"),
        judged,
    )
    statistic, p_value = evaluation.diebold_mariano(federated.losses, har.losses, judged.end_s)
    metrics = {
        name: Score(qlike=scored.qlike, r2=scored.r2)
        for name, scored in (
            ("federated", federated),
            ("pooled", pooled),
            ("har", har),
            ("persistence", evaluation.persistence(judged)),
        )
    }
    metrics["solo_mean"] = Score(
        qlike=float(np.mean([s.qlike for s in solo])), r2=float(np.mean([s.r2 for s in solo]))
    )
    progress("training alone, for comparison", len(books) + 1, len(books) + 1)
    public = Score(qlike=linear.qlike, r2=linear.r2)
    return Judged(metrics, tuple(solo), public, p_value, statistic)
