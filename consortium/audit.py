"""What a member's risk officer asks: does the privacy that was promised really hold?

`python -m consortium.audit --out FOLDER` plays both attackers against the real protocol and leaves
leakage.html and leakage.json:

guesses    canary positions with known gradients go through real rounds (members, committee,
           coordinator; signatures, masks, noise), and the auditor guesses from the sums that the
           coordinator sees which canaries took part: a lower bound of ε (`fedtrade.privacy.audit`)
noise      it takes the gradients that it knows off the same sums; what is left is the noise, whose
           strength and kind it measures
red team   rows of positions are read back from gradients, with and without the protocol
           (`consortium.redteam`)

Where the canaries enter: they are a member's *positions* (`consortium.canaries`), and each weighs
exactly the clipping norm. "Out" is the adjacency that ε is stated for: the position is replaced by
nothing. Everything from the clipped sum to the unmasked total is the member's, the helpers' and the
coordinator's own code. What is skipped: the sampling coins (a canary takes part in every round, so
the ε that is tested is that of q = 1 and the amplification by sampling is not tested), the reader of
files, and the network between the parties. The coordinator announces the same model each round, as a
bad one may.

Controls: the same rounds under the same terms, but with helpers that add half their noise, or none
(`FaintHelper`, which exists here only). An audit that passes them could not have seen a fault.
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
from clients.helper import Helper
from clients.keys import MemberKeys
from consortium.canaries import Canaries, Gradients, canary_base, canary_batch
from consortium.redteam import attack, model_size
from consortium.rehearsal import Board, Consortium, Party, make_terms
from fedtrade.artifact import Artifact, load, sha256_of
from fedtrade.console import leave_cleanly
from fedtrade.dashboard.leakage import (
    AuditRow,
    LeakageReport,
    Promise,
    conclude,
    failure,
    summary,
)
from fedtrade.dashboard.leakage_page import render
from fedtrade.errors import BadInput, Fault
from fedtrade.learning.training import DEFAULTS, FEDERATED_NOISE_MULTIPLIER
from fedtrade.learning.windows import PositionBatch
from fedtrade.parameters import SCALE, PrivacyParameters
from fedtrade.privacy import accounting, audit
from fedtrade.privacy.aggregation import Trajectory
from fedtrade.protocol import Manifest, ReleaseTerms

MEMBERS = 3
HELPERS, CORRUPT = 3, 1
POWER = 620
"""Canaries times rounds, over the variance of a sum's noise. The guesses then find half the noise in
more than 99 of 100 runs at z = 10 and 30: simulated with the canaries' own gradients, the least number
of right guesses that refutes the claim lies 2.7 deviations below the usual one at 540, 3.5 at 680."""
CANARIES_LEAST, CANARIES_MOST = 3_000, 16_000
"""A round costs as much as its canaries at some 12,000 to 24,000. Fewer than 3,000 are too few
guesses; but where the noise is small, more of them would only blur each other."""
ROUNDS_LEAST = 2
"""So that the noise of one round can be compared with another's. At z = 1 the guesses then find half
the noise in about 8 of 10 runs, below hardly ever; the noise itself shows it at any z."""
ROUNDS_MAX = 250
"""More than the noise of any terms needs: z = 64 takes 239."""
IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Ledgers and transcripts of an audit need not survive a power cut, and are synced at every step."""
STANDIN = "canary positions made for the audit; no real position takes part"

Progress = Callable[[str], None]


class AuditFailed(Fault):
    """The audit showed more than was promised, or could not have shown it."""

    def __init__(self, finding: str) -> None:
        super().__init__(f"{finding} Join no round until that is explained")
        self.finding = finding


class FaintHelper(Helper):
    """A control: a helper that adds its noise times `portion`. Nothing but this module seats one."""

    portion = 1.0

    def _noise(self, content: bytes, group: int, responders: int) -> NDArray[np.int64]:
        whole = super()._noise(content, group, responders)
        faint: NDArray[np.int64] = np.rint(whole * self.portion).astype(np.int64)
        return faint


class Onlooker(Trajectory):
    """A coordinator's view that keeps the sums it sees and leaves the model where it is."""

    def __init__(self, terms: ReleaseTerms, base: Artifact) -> None:
        super().__init__(terms, base)
        self.seen: list[NDArray[np.int64]] = []
        """The unmasked sum of each round (d,), in ring units."""

    def step(self, manifest: Manifest, sums: Sequence[NDArray[np.int64]]) -> None:
        self.seen.append(sum(sums, np.zeros(self.terms.dimension, np.int64)))
        self.steps += 1


def audit_size(noise_multiplier: float) -> tuple[int, int]:
    """(rounds, canaries) that give the guesses POWER, in as few rounds as that many allow."""
    product = POWER * (noise_multiplier * seen_noise()) ** 2
    rounds = max(ROUNDS_LEAST, math.ceil(product / CANARIES_MOST))
    return rounds, max(CANARIES_LEAST, math.ceil(product / rounds))


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
        helpers=HELPERS,
        corrupt=CORRUPT,
        learning_rate=1e-3,
    )


def seen_noise() -> float:
    """Deviation of a sum's noise over what is promised: all r helpers are honest here, √(r/(r − c))."""
    return math.sqrt(HELPERS / (HELPERS - CORRUPT))


def claimed_epsilon(
    noise_multiplier: float, rounds: int, delta: float, dimension: int
) -> accounting.Epsilon:
    """What the coordinator alone may learn of a position that takes part in every one of the rounds.

    Stricter than what is promised against c bad helpers, since here no helper tells its noise.
    """
    p = audit_parameters(noise_multiplier, delta)
    z = p.effective_noise_multiplier(dimension) * seen_noise()
    return accounting.epsilon([accounting.Spend(1.0, z, rounds)], delta)


def run_rounds(
    folder: Path,
    base: bytes,
    batch: PositionBatch,
    coins: NDArray[np.bool_],
    parameters: PrivacyParameters,
    rounds: int,
    portion: float = 1.0,
) -> NDArray[np.float64]:
    """What the coordinator sees in each round, in clip units (rounds, d).

    `coins`: which canaries of `batch` are in. `portion`: how much of its noise each helper adds.
    """
    parties = []
    for i in range(MEMBERS):
        own = np.arange(i, batch.count, MEMBERS)
        name, canaries = f"member-{i + 1}", Canaries(len(own), batch.take(own[coins[own]]))
        parties.append(Party(i + 1, name, MemberKeys.ephemeral(), canaries, folder / name))
    coordinator = MemberKeys.ephemeral()
    board = Board()
    floor = Floor(epsilon_limit=parameters.epsilon_cap, delta_max=parameters.delta)
    terms = make_terms(parties, parameters, base, coordinator.address)
    consortium = Consortium(
        parties, terms, base, board, coordinator.sign_digest, folder / "coordinator", floor
    )
    if portion != 1.0:
        for party in parties:
            desk = consortium.desks[party.seat]
            if desk.helper is not None:
                desk.helper.close()
                faint = FaintHelper(
                    party.seat, party.keys, terms, party.folder, board.final, floor.cohort_min
                )
                faint.portion = portion
                desk.helper = faint
    onlooker = Onlooker(terms, load(base, sha256_of(base)))
    consortium.release.trajectory = onlooker
    exchange = consortium.direct()
    for _ in range(rounds):
        consortium.release.run_round(exchange)
    consortium.close()
    return np.stack(onlooker.seen) / SCALE


def one_run(
    name: str,
    noise_multiplier: float,
    portion: float,
    delta: float,
    draw: np.random.Generator,
    size: tuple[int, int] | None = None,
) -> AuditRow:
    """One audit of terms with this noise, of which helpers add `portion` (1: a real run).

    `name` says in a report what was run. `draw` gives coins and canaries; noise and masks come from
    keys made here, as always. `size`: rounds and canaries, if not those of `audit_size`.
    """
    began = time.perf_counter()
    rounds, canaries = size or audit_size(noise_multiplier)
    base, batch = canary_base(draw), canary_batch(draw, canaries)
    coins = draw.random(canaries) < 0.5
    parameters = audit_parameters(noise_multiplier, delta)
    with tempfile.TemporaryDirectory(prefix="fedtrade-audit-", dir=IN_MEMORY) as folder:
        seen = run_rounds(Path(folder), base, batch, coins, parameters, rounds, portion)
    known = Gradients.of(load(base, sha256_of(base)).arrays, batch)
    dimension = seen.shape[1]
    # what canaries add on average tells no coin
    scores = known.scores(seen.mean(0) - known.total(np.full(canaries, 0.5)))
    shown = audit.show(scores, coins, delta)
    noise = audit.measure_noise(seen - known.total(coins.astype(np.float64)))
    return AuditRow(
        name=name,
        noise_multiplier=noise_multiplier,
        portion=portion,
        rounds=rounds,
        canaries=canaries,
        dimension=dimension,
        guesses=shown.guesses.made,
        right=shown.guesses.right,
        one_run=shown.one_run,
        f_dp=shown.f_dp,
        claimed=claimed_epsilon(noise_multiplier, rounds, delta, dimension).pld,
        noise=noise.deviation / seen_noise(),
        noise_low=noise.low / seen_noise(),
        noise_high=noise.high / seen_noise(),
        noise_samples=noise.samples,
        shape=noise.shape,
        repeats=noise.repeats,
        odd=noise.odd,
        seconds=time.perf_counter() - began,
    )


def run_audit(
    out: Path,
    parameters: PrivacyParameters,
    seed: int | None = None,
    progress: Progress = lambda text: None,
) -> LeakageReport:
    """Both attacks at the noise of `parameters`; writes leakage.html and leakage.json into `out`.

    `seed` draws coins, canaries and rows again; keys, masks and noise are new each time.
    """
    z, delta = parameters.noise_multiplier, parameters.delta
    draw = np.random.Generator(np.random.PCG64(seed))
    rows = []
    for name, portion in (("noise as agreed", 1.0), ("half the noise", 0.5), ("no noise", 0.0)):
        rows.append(one_run(name, z, portion, delta, draw))
        progress(f"one-run audit: {name}, {rows[-1].seconds:.1f} s")
    began = time.perf_counter()
    inversions, standins = attack(parameters, draw)
    seconds = time.perf_counter() - began
    progress(f"red team, {seconds:.1f} s")
    report = LeakageReport(
        title="Leakage report",
        subtitle="What an attacker can learn of one position, measured on this machine",
        promise=_promise(parameters),
        audits=rows,
        inversions=inversions,
        inversions_seconds=seconds,
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
        raise AuditFailed(failure(report.audits))


if __name__ == "__main__":
    leave_cleanly("fedtrade-member audit", main)
