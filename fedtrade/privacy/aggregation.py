"""From masked uploads and answers to the sum, the step and the next model: what anyone recomputes.

Both the coordinator and every verifier call exactly these functions, so that a published hash is a
function of the public messages and of nothing else, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from cryptography.exceptions import InvalidTag
from numpy.typing import NDArray

from fedtrade.artifact import Artifact, flatten, successor
from fedtrade.errors import Refusal
from fedtrade.learning.optimiser import Adam
from fedtrade.parameters import SCALE
from fedtrade.privacy import accounting, masking
from fedtrade.privacy.masking import Ring
from fedtrade.privacy.mechanism import dequantise
from fedtrade.protocol import (
    Complaint,
    Malformed,
    ReleaseTerms,
    SealedUpload,
    Statement,
    Upload,
    WrongBinding,
    check,
    sha256,
)

SIGMAS = 12.0
"""Noise beyond this many standard deviations does not happen; the ring has room for it."""


def vector_from_bytes(kind: str, data: bytes, dimension: int) -> Ring:
    """A ring vector from its wire form. Raises Malformed when the length is wrong."""
    if len(data) != 4 * dimension:
        raise Malformed(kind, f"vector has {len(data)} bytes, not {4 * dimension}")
    return np.frombuffer(data, dtype="<u4")


def check_statement(
    terms: ReleaseTerms, statement: Statement, round_number: int, model: bytes
) -> None:
    """Refuse a statement that is not its member's, or not for this round and model.

    Raises Malformed, WrongBinding or WrongAuthor.
    """
    check(terms, statement, terms.member(statement.member).signer, round_number)
    p = terms.parameters
    if len(statement.boxes_sha256) != p.helpers:
        raise Malformed("Upload", f"{len(statement.boxes_sha256)} boxes for {p.helpers} helpers")
    if len(statement.commitments) != len(masking.subsets(p.helpers, p.corrupt)):
        raise Malformed("Upload", "the number of seed commitments is wrong")
    if statement.model != model:
        raise WrongBinding("Upload", "model", model.hex(), statement.model.hex())


def check_masked(terms: ReleaseTerms, statement: Statement, masked: bytes) -> None:
    """Refuse a masked vector that is not the one its member signed. Raises Malformed."""
    vector_from_bytes("Upload", masked, terms.dimension)
    if sha256(masked) != statement.masked_sha256:
        raise Malformed("Upload", f"member {statement.member}: the masked vector was altered")


def check_upload(terms: ReleaseTerms, upload: Upload, round_number: int, model: bytes) -> None:
    """Refuse an upload that is not whole. Raises Malformed, WrongBinding or WrongAuthor."""
    check_statement(terms, upload.statement, round_number, model)
    check_masked(terms, upload.statement, upload.masked)
    if tuple(sha256(b) for b in upload.boxes) != upload.statement.boxes_sha256:
        raise Malformed("Upload", f"member {upload.statement.member}: sealed boxes were altered")


def bad_seeds(
    terms: ReleaseTerms, helper_index: int, sealed: SealedUpload, key: bytes, context: bytes
) -> bool | None:
    """Whether the seeds in a box break the member's commitments; None where it does not open.

    A helper uses it on its own boxes, and anyone on a complaint that reveals the key of one box.
    ChaCha20-Poly1305 lets nobody find another key for a box that somebody else made.
    """
    p = terms.parameters
    wanted = masking.seeds_of(helper_index, p.helpers, p.corrupt)
    try:
        seeds = masking.unseal(key, sealed.box, context, len(wanted))
    except (masking.BoxUnreadable, InvalidTag, ValueError):
        return None
    committed = sealed.statement.commitments
    return any(
        masking.commitment(seed, context, subset) != committed[subset]
        for seed, subset in zip(seeds, wanted, strict=True)
    )


def proven(
    terms: ReleaseTerms, helper: int, sealed: SealedUpload, complaint: Complaint, context: bytes
) -> bool:
    """Whether a complaint carries evidence that convicts the member."""
    if len(complaint.box_key) != masking.SEED_BYTES:
        return False
    index = [seat.id for seat in terms.helpers].index(helper)
    return bad_seeds(terms, index, sealed, complaint.box_key, context) is True


def sum_bound(terms: ReleaseTerms, cohort: int, responders: int) -> int:
    """Largest |coordinate| that honest members and noise can produce, in units of the ring."""
    p = terms.parameters
    signal = cohort * (terms.member_batch_max() * SCALE + 1)
    sigma = p.noise_multiplier * SCALE * math.sqrt(responders / (responders - p.corrupt))
    return min(int(signal + SIGMAS * sigma), 2**31 - 1)


def unmask(terms: ReleaseTerms, masked: Sequence[bytes], shares: Sequence[bytes]) -> Ring:
    """Σ masked − Σ shares (mod 2^32) = Σ x + noise. Shape (d,)."""
    total = np.zeros(terms.dimension, dtype=np.uint32)
    for data in masked:
        total += vector_from_bytes("Upload", data, terms.dimension)
    for data in shares:
        total -= vector_from_bytes("Answer", data, terms.dimension)
    return total


def mean_gradient(
    terms: ReleaseTerms, total: Ring, cohort: Sequence[int], responders: int
) -> NDArray[np.float64]:
    """The noisy sum over the *public* expected batch q·Σ positions of the cohort.

    Raises RingOverflow where the sum cannot have come from honest members.
    """
    p = terms.parameters
    counts = {seat.id: n for seat, n in zip(terms.members, terms.positions, strict=True)}
    expected_batch = p.sampling_rate * sum(counts[m] for m in cohort)
    bound = sum_bound(terms, len(cohort), responders)
    return dequantise(total, p.clip_norm, bound) / expected_batch


class Trajectory:
    """The public path of the model through a release: base, then one optimiser step a round."""

    def __init__(self, terms: ReleaseTerms, base: Artifact) -> None:
        if base.sha256 != terms.base_sha256:
            raise WrongBinding("release", "base artifact", terms.base_sha256, base.sha256)
        self.terms = terms
        self.base = base
        self.vector = flatten(base.arrays)
        if len(self.vector) != terms.dimension:
            raise WrongBinding("release", "dimension", terms.dimension, len(self.vector))
        p = terms.parameters
        self._adam = Adam(learning_rate=p.learning_rate, beta1=p.beta1, beta2=p.beta2)
        self._state = self._adam.start(len(self.vector))
        self.steps = 0

    @property
    def model(self) -> bytes:
        """sha256 of the current parameters: what announcements, masks and signatures bind."""
        return sha256(self.vector_bytes)

    @property
    def vector_bytes(self) -> bytes:
        return self.vector.astype("<f4").tobytes()

    def step(self, total: Ring, cohort: Sequence[int], responders: int) -> None:
        """One optimiser step on an unmasked sum."""
        gradient = mean_gradient(self.terms, total, cohort, responders)
        self._state, self.vector = self._adam.step(self._state, self.vector, gradient)
        self.steps += 1

    def artifact(self, epsilon_micro: int) -> bytes:
        """The artifact that the release publishes; a function of the transcript alone."""
        return successor(
            self.base,
            self.vector,
            release=self.terms.release,
            rounds=self.steps,
            parent_sha256=self.base.sha256,
            policy_sha256=self.terms.digest.hex(),
            epsilon_micro=epsilon_micro,
            delta=self.terms.parameters.delta,
            unit=accounting.UNIT,
            adjacency=accounting.ADJACENCY,
        )


def spend_of(terms: ReleaseTerms, rounds: int) -> accounting.Spend:
    """What `rounds` rounds under these terms cost each member, as data."""
    p = terms.parameters
    return accounting.Spend(p.sampling_rate, p.effective_noise_multiplier(terms.dimension), rounds)


class TooCostly(Refusal):
    """Terms whose rounds together cost more ε than the terms themselves allow."""

    def __init__(self, rounds: int, cost: float, cap: float) -> None:
        super().__init__(
            f"{rounds} rounds of these terms cost ε = {cost:.4f} (RDP), their cap is {cap:.4f}. "
            "Nobody should join: lower the rounds or the sampling rate, or raise the noise"
        )
        self.rounds = rounds
        self.cost = cost
        self.cap = cap


def check_cost(terms: ReleaseTerms) -> None:
    """Refuse terms that break their own cap of ε. Raises TooCostly."""
    p = terms.parameters
    cost = accounting.epsilon_rdp([spend_of(terms, p.rounds)], p.delta)
    if cost > p.epsilon_cap:
        raise TooCostly(p.rounds, cost, p.epsilon_cap)


def epsilon_micro(terms: ReleaseTerms, rounds: int) -> int:
    """ε (RDP) of so many rounds in 1e-6, rounded up: what the chain is told."""
    spent = accounting.epsilon_rdp([spend_of(terms, rounds)], terms.parameters.delta)
    return math.ceil(spent * 1e6)
