"""What a member's risk officer asks: does the privacy that was promised really hold?

`python -m consortium.audit --out FOLDER` plays both attackers against the real protocol and leaves
leakage.html and leakage.json:

one-run audit   canary positions with known gradients go through real rounds (members, committee,
                coordinator; signatures, masks, noise), and the auditor guesses from the sums that the
                coordinator sees which canaries took part (`fedtrade.privacy.audit`)
red team        rows of positions are read back from gradients, with and without the protocol
                (`consortium.redteam`)

Where the canaries enter: they are a member's *positions*. A canary has one feature of its own, so its
gradient has coordinates that no other canary touches (37/38 of its length or more), and it weighs
exactly the clipping norm. "Out" is the
adjacency that ε is stated for: the position is replaced by nothing. Everything from the clipped sum
to the unmasked total is the member's, the helpers' and the coordinator's own code. What is skipped:
the sampling coins (a canary takes part in every round, so the ε that is tested is that of q = 1 and
the amplification by sampling is not tested), the reader of files, and the network between the
parties. The coordinator announces the same model each round, as a bad one may.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are imported

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from clients.floor import Floor
from clients.keys import MemberKeys
from consortium.redteam import attack, model_size
from consortium.rehearsal import Board, Consortium, Party, make_terms, small_base
from fedtrade.artifact import Artifact, load, pack, sha256_of, unflatten
from fedtrade.console import leave_cleanly
from fedtrade.dashboard.leakage import (
    AuditRow,
    LeakageReport,
    Promise,
    conclude,
    summary,
)
from fedtrade.dashboard.leakage_page import render
from fedtrade.errors import BadInput, Fault
from fedtrade.learning.network import clipped_gradient_sum
from fedtrade.learning.training import DEFAULTS, FEDERATED_NOISE_MULTIPLIER
from fedtrade.learning.windows import PositionBatch
from fedtrade.parameters import SCALE, PrivacyParameters
from fedtrade.privacy import accounting, audit
from fedtrade.privacy.aggregation import Trajectory
from fedtrade.protocol import Manifest, ReleaseTerms

CANARIES = 1_600
WIDTH = 6
"""Hidden units of the model that canaries meet: d = CANARIES·WIDTH and a little."""
FAR = 1e3
"""A target so far off that the slope of the loss is at its bound."""
MEMBERS = 3
ROUNDS_MAX = 300
"""A limit on time. From z = 18 on canaries then stand out by less than CLEAR: at z = 30 half the
noise is found in about 97 of 100 runs (simulated, as for CLEAR)."""
CLEAR = 0.8
"""The signal of a canary over all rounds, in deviations of the noise, that the rounds are to reach:
then half the noise is found in more than 99 of 100 runs."""
LEAST_NOISE = 0.5
"""The least noise multiplier that terms can carry: the strongest control without changed code."""
IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Ledgers and transcripts of an audit need not survive a power cut, and are synced at every step."""
STANDIN = "canary positions made for the audit; no real position takes part"

Progress = Callable[[str], None]


class AuditFailed(Fault):
    """The audit showed more than was promised, or could not have shown it."""

    def __init__(self, finding: str) -> None:
        super().__init__(f"{finding} Join no round until that is explained")
        self.finding = finding


class Canaries:
    """Canary positions of one member. They take part whatever the coins say."""

    def __init__(self, batch: PositionBatch) -> None:
        self._batch = batch

    @property
    def count(self) -> int:
        return self._batch.count

    def sample(self, include: NDArray[np.bool_]) -> PositionBatch:
        return self._batch


class Onlooker(Trajectory):
    """A coordinator's view that adds up the sums it sees and leaves the model where it is."""

    def __init__(self, terms: ReleaseTerms, base: Artifact) -> None:
        super().__init__(terms, base)
        self.seen = np.zeros(terms.dimension, np.int64)
        """Σ of the unmasked sums of all rounds, in ring units."""

    def step(self, manifest: Manifest, sums: Sequence[NDArray[np.int64]]) -> None:
        for group in sums:
            self.seen += group
        self.steps += 1


def audit_rounds(noise_multiplier: float) -> int:
    """Rounds after which a canary stands out by CLEAR deviations, at most ROUNDS_MAX."""
    return max(1, min(ROUNDS_MAX, math.ceil((CLEAR * _seen_noise(noise_multiplier)) ** 2)))


def audit_parameters(noise_multiplier: float, delta: float) -> PrivacyParameters:
    """Terms of an audit: the smallest committee, and a sampling rate that no canary heeds."""
    return PrivacyParameters(
        sampling_rate=1e-6,
        noise_multiplier=noise_multiplier,
        clip_norm=1.0,
        rounds=ROUNDS_MAX,
        delta=delta,
        epsilon_cap=20.0,
        cohort_min=MEMBERS,
        helpers=3,
        corrupt=1,
        learning_rate=1e-3,
    )


def _seen_noise(noise_multiplier: float) -> float:
    """z of a whole sum. All r helpers are honest here and each adds σ²/(r − c): r/(r − c) of σ²."""
    p = audit_parameters(noise_multiplier, 1e-6)
    return noise_multiplier * math.sqrt(p.helpers / (p.helpers - p.corrupt))


def claimed_epsilon(
    noise_multiplier: float, rounds: int, delta: float, dimension: int
) -> accounting.Epsilon:
    """What the coordinator alone may learn of a position that takes part in every one of the rounds.

    Stricter than what is promised against c bad helpers, since here no helper tells its noise.
    """
    p = audit_parameters(noise_multiplier, delta)
    z = p.effective_noise_multiplier(dimension) * _seen_noise(noise_multiplier) / noise_multiplier
    return accounting.epsilon([accounting.Spend(1.0, z, rounds)], delta)


def canary_base(draw: np.random.Generator, canaries: int) -> bytes:
    """A model with one input a canary and a head that passes slopes back."""
    plain = small_base(features=canaries, hidden=(WIDTH,))
    artifact = load(plain, sha256_of(plain))
    head = draw.choice([-1.0, 1.0], artifact.arrays["head.weight"].shape)
    return pack({**artifact.arrays, "head.weight": head.astype(np.float32)}, artifact.manifest)


def canary_batch(draw: np.random.Generator, canaries: int) -> PositionBatch:
    """Canaries of one window, each with its own feature and targets out of reach."""
    features = np.zeros((canaries, 1, canaries), np.float32)
    features[np.arange(canaries), 0, np.arange(canaries)] = FAR  # cut to CLIP_SIGMA by the model
    targets = FAR * draw.choice([-1.0, 1.0], (canaries, 1, 2))
    return PositionBatch(features, targets.astype(np.float32), np.ones((canaries, 1), np.float32))


def own_coordinates(base: Artifact, vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of a flat vector (d,) the weights of each canary's own feature: (WIDTH, m)."""
    shapes = {name: array.shape for name, array in base.arrays.items()}
    return unflatten(vector, shapes)["dense0.weight"].astype(np.float64)


def run_rounds(
    folder: Path, base: bytes, batch: PositionBatch, parameters: PrivacyParameters, rounds: int
) -> NDArray[np.float64]:
    """Σ over the rounds of what the coordinator sees, in clip units (d,)."""
    parties = []
    for i in range(MEMBERS):
        own = batch.take(np.arange(i, batch.count, MEMBERS))
        name = f"member-{i + 1}"
        parties.append(Party(i + 1, name, MemberKeys.ephemeral(), Canaries(own), folder / name))
    coordinator = MemberKeys.ephemeral()
    terms = make_terms(parties, parameters, base, coordinator.address)
    consortium = Consortium(
        parties,
        terms,
        base,
        Board(),
        coordinator.sign_digest,
        folder / "coordinator",
        Floor(epsilon_limit=parameters.epsilon_cap, delta_max=parameters.delta),
    )
    onlooker = Onlooker(terms, load(base, sha256_of(base)))
    consortium.release.trajectory = onlooker
    exchange = consortium.direct()
    for _ in range(rounds):
        consortium.release.run_round(exchange)
    consortium.close()
    return onlooker.seen / SCALE


def one_run(
    name: str,
    claimed: float,
    real: float,
    delta: float,
    draw: np.random.Generator,
    rounds: int | None = None,
    canaries: int = CANARIES,
) -> AuditRow:
    """One audit: rounds with noise multiplier `real`, judged by the claim made for `claimed`.

    `name` says in a report what was run. `draw` gives coins and canaries; noise and masks come from
    keys made here, as always.
    """
    began = time.perf_counter()
    rounds = rounds or audit_rounds(claimed)
    base, whole = canary_base(draw, canaries), canary_batch(draw, canaries)
    model = load(base, sha256_of(base))
    known, _ = clipped_gradient_sum(model.arrays, whole, 1.0)
    coins = draw.random(canaries) < 0.5
    present = coins.astype(np.float32)[:, None]
    entered = PositionBatch(whole.features * present[..., None], whole.targets, present)
    with tempfile.TemporaryDirectory(prefix="fedtrade-audit-", dir=IN_MEMORY) as folder:
        seen = run_rounds(Path(folder), base, entered, audit_parameters(real, delta), rounds)
    scores = audit.canary_scores(own_coordinates(model, known), own_coordinates(model, seen))
    shown = audit.show(scores, coins, delta)
    claim = claimed_epsilon(claimed, rounds, delta, len(known))
    return AuditRow(
        name=name,
        noise_multiplier=real,
        rounds=rounds,
        canaries=canaries,
        dimension=len(known),
        guesses=shown.guesses.made,
        right=shown.guesses.right,
        one_run=shown.one_run,
        f_dp=shown.f_dp,
        claimed=claim.pld,
        fault=real != claimed,
        seconds=time.perf_counter() - began,
    )


def run_audit(
    out: Path,
    parameters: PrivacyParameters,
    seed: int | None = None,
    progress: Progress = lambda text: None,
) -> LeakageReport:
    """Both attacks at the noise of `parameters`; writes leakage.html and leakage.json into `out`.

    `seed` draws coins, canaries and rows again; keys, masks and noise are new each time. Raises
    BadInput where half the noise would be less than terms can carry.
    """
    z, delta = parameters.noise_multiplier, parameters.delta
    if z < 2 * LEAST_NOISE:
        raise BadInput(
            "noise_multiplier",
            f"{z:g} cannot be halved for the control: terms carry at least {LEAST_NOISE:g}",
            f"Audit at {2 * LEAST_NOISE:g} or more.",
        )
    draw = np.random.Generator(np.random.PCG64(seed))
    rows = []
    for name, real in (
        ("noise as agreed", z),
        ("half the noise", z / 2),
        (f"the least noise of any terms, z = {LEAST_NOISE:g}", LEAST_NOISE),
    ):
        progress(f"one-run audit: {name}")
        rows.append(one_run(name, z, real, delta, draw))
    progress("red team")
    inversions, standins = attack(parameters, draw)
    report = LeakageReport(
        title="Leakage report",
        subtitle="What an attacker can learn of one position, measured on this machine",
        promise=_promise(parameters),
        audits=rows,
        inversions=inversions,
        conclusions=conclude(rows, inversions),
        standins=[STANDIN, *standins],
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "leakage.json").write_text(report.model_dump_json(indent=2) + "\n")
    (out / "leakage.html").write_text(render(report))
    return report


def _promise(p: PrivacyParameters) -> Promise:
    """What terms like these promise for a model of the demonstration's size."""
    spend = accounting.Spend(p.sampling_rate, p.effective_noise_multiplier(model_size()), p.rounds)
    spent = accounting.epsilon([spend], p.delta)
    return Promise(
        sampling_rate=p.sampling_rate,
        noise_multiplier=p.noise_multiplier,
        rounds=p.rounds,
        rdp=spent.rdp,
        pld=spent.pld,
        delta=spent.delta,
        unit=spent.unit,
        adjacency=spent.adjacency,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Exit code 4 where the audit found a fault, as for every Fault."""
    parser = argparse.ArgumentParser(prog="fedtrade-member audit", description="Privacy audit.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the two reports")
    parser.add_argument("--noise-multiplier", type=float, default=FEDERATED_NOISE_MULTIPLIER)
    parser.add_argument("--sampling-rate", type=float, default=DEFAULTS.sampling_rate)
    parser.add_argument("--rounds", type=int, default=DEFAULTS.rounds, help="of a release")
    parser.add_argument("--delta", type=float, default=1e-6)
    parser.add_argument("--seed", type=int, help="draw coins, canaries and rows again")
    given = parser.parse_args(arguments)
    try:
        parameters = audit_parameters(given.noise_multiplier, given.delta).model_copy(
            update={"sampling_rate": given.sampling_rate, "rounds": given.rounds}
        )
        parameters = PrivacyParameters.model_validate(parameters.model_dump())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "parameters"
        raise BadInput(where, first["msg"], "See --help for the options.") from None
    report = run_audit(given.out, parameters, given.seed, lambda text: print(text, flush=True))
    print(summary(report))
    print(f"{given.out / 'leakage.html'} and {given.out / 'leakage.json'}")
    if not report.passed:
        raise AuditFailed(report.conclusions[0])


if __name__ == "__main__":
    leave_cleanly("fedtrade-member audit", main)
