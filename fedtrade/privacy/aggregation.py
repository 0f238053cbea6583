"""From masked uploads and answers to the sum, the step and the next model: what anyone recomputes.

Both the coordinator and every verifier call exactly these functions, so that a published hash is a
function of the public messages and of nothing else, bit for bit.

The two lanes differ in what an upload and an answer are, and in nothing that comes after:

    lane B   Σ masked − Σ shares            (mod 2^32, or 2^64 while norms are checked)
    lane C   fuse(Σ weight·c0, Σ partials)  (the plaintext fields of a BFV ciphertext)

Both give the same signed integers for the same inputs. Lane C's modules bring TenSEAL and numba, so
they are imported where they are needed and nobody else pays for them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidTag
from numpy.typing import NDArray

from fedtrade.artifact import Artifact, flatten, successor
from fedtrade.errors import Refusal
from fedtrade.learning.optimiser import Adam
from fedtrade.parameters import FIELD_BITS, RING_BITS, SCALE
from fedtrade.privacy import accounting, masking, norm, robust
from fedtrade.privacy.masking import Ring
from fedtrade.privacy.mechanism import dequantise
from fedtrade.protocol import (
    Complaint,
    Malformed,
    Manifest,
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

Signed = NDArray[np.int64]
"""Sums as signed integers, in units of SCALE per clip unit."""


def ring_of(terms: ReleaseTerms) -> np.dtype[Any]:
    """The integers that lane B adds in."""
    return masking.RING_OF_BITS[terms.parameters.ring_bits]


def norm_plan(terms: ReleaseTerms) -> norm.Plan | None:
    """The layout of a vector whose norm is checked, or None where none is."""
    bound = terms.parameters.norm_units
    return None if bound is None else norm.Plan(terms.dimension, bound)


def masked_length(terms: ReleaseTerms) -> int:
    """Ring elements of a masked vector: the update, and what proves its norm."""
    plan = norm_plan(terms)
    return terms.dimension if plan is None else plan.length


def ring_vector(kind: str, data: bytes, length: int, ring: np.dtype[Any]) -> Ring:
    """A ring vector from its wire form. Raises Malformed when the length is wrong."""
    if len(data) != ring.itemsize * length:
        raise Malformed(kind, f"vector has {len(data)} bytes, not {ring.itemsize * length}")
    return np.frombuffer(data, ring.newbyteorder("<"))


def model_vector(data: bytes, dimension: int) -> NDArray[np.float32]:
    """The parameters of an announcement. Raises Malformed where they are not finite float32."""
    if len(data) != 4 * dimension:
        raise Malformed("Announcement", f"vector has {len(data)} bytes, not {4 * dimension}")
    vector = np.frombuffer(data, "<f4")
    if not np.isfinite(vector).all():
        raise Malformed("Announcement", "the model holds NaN or infinity")
    return vector


def check_statement(
    terms: ReleaseTerms, statement: Statement, round_number: int, model: bytes
) -> bytes:
    """Refuse a statement that is not its member's, or not for this round and model.

    Gives its content hash. Raises Malformed, WrongBinding or WrongAuthor.
    """
    content = check(terms, statement, terms.member(statement.member).signer, round_number)
    p = terms.parameters
    lane_b = p.aggregation == "mask"
    boxes = p.helpers if lane_b else 1
    seeds = len(masking.subsets(p.helpers, p.corrupt)) if lane_b else 0
    if len(statement.boxes_sha256) != boxes:
        raise Malformed("Upload", f"{len(statement.boxes_sha256)} boxes instead of {boxes}")
    if len(statement.commitments) != seeds:
        raise Malformed("Upload", "the number of seed commitments is wrong")
    if statement.model != model:
        raise WrongBinding("Upload", "model", model.hex(), statement.model.hex())
    return content


def check_masked(terms: ReleaseTerms, statement: Statement, masked: bytes) -> None:
    """Refuse a masked vector that is not the one its member signed. Raises Malformed."""
    if sha256(masked) != statement.masked_sha256:
        raise Malformed("Upload", f"member {statement.member}: the masked vector was altered")
    if terms.parameters.aggregation == "bfv":
        from fedtrade.privacy import lattice, threshold

        lattice.from_bytes("c0", masked, threshold.coefficients(terms.dimension))
    else:
        ring_vector("Upload", masked, masked_length(terms), ring_of(terms))


def check_upload(terms: ReleaseTerms, upload: Upload, round_number: int, model: bytes) -> bytes:
    """Refuse an upload that is not whole. Raises Malformed, WrongBinding or WrongAuthor.

    Gives the content hash of its statement.
    """
    content = check_statement(terms, upload.statement, round_number, model)
    check_masked(terms, upload.statement, upload.masked)
    if tuple(sha256(b) for b in upload.boxes) != upload.statement.boxes_sha256:
        raise Malformed("Upload", f"member {upload.statement.member}: sealed boxes were altered")
    if terms.parameters.aggregation == "bfv":
        halves(terms, upload.boxes[0])
    return content


def halves(terms: ReleaseTerms, box: bytes) -> tuple[bytes, bytes]:
    """Lane C: (c₁, its proof) out of the one box that all helpers get. Raises Malformed."""
    from fedtrade.privacy import threshold

    size = threshold.second_bytes(terms.dimension)
    if len(box) <= size:
        raise Malformed("Upload", f"a second half of {len(box)} bytes, not over {size}")
    return box[:size], box[size:]


def seeds_in(
    terms: ReleaseTerms, helper_index: int, sealed: SealedUpload, key: bytes, context: bytes
) -> tuple[tuple[bytes, ...], bool] | None:
    """The seeds in a box, and whether they are those that its member committed to.

    None where the box does not open. A helper uses it on its own boxes, and anyone on a complaint
    that reveals the key of one box. ChaCha20-Poly1305 lets nobody find another key for a box that
    somebody else made.
    """
    p = terms.parameters
    wanted = masking.seeds_of(helper_index, p.helpers, p.corrupt)
    try:
        seeds = masking.unseal(key, sealed.box, context, len(wanted))
    except (masking.BoxUnreadable, InvalidTag, ValueError):
        return None
    committed = sealed.statement.commitments
    good = all(
        masking.commitment(seed, context, subset) == committed[subset]
        for seed, subset in zip(seeds, wanted, strict=True)
    )
    return seeds, good


def proven(
    terms: ReleaseTerms, helper: int, sealed: SealedUpload, complaint: Complaint, context: bytes
) -> bool:
    """Whether a complaint carries evidence that convicts the member."""
    if len(complaint.box_key) != masking.SEED_BYTES:
        return False
    index = [seat.id for seat in terms.helpers].index(helper)
    opened = seeds_in(terms, index, sealed, complaint.box_key, context)
    return opened is not None and not opened[1]


def buckets_of(terms: ReleaseTerms, manifest: Manifest) -> tuple[tuple[int, ...], ...]:
    """The groups whose sums are unmasked apart: the whole cohort, or random buckets of it.

    Members are drawn into buckets by the manifest's beacon, which no party knows before the helpers
    are ready. Raises Malformed where there are too few buckets to cut off the outer ones.
    """
    p = terms.parameters
    if p.bucket_min is None:
        return (manifest.cohort,)
    groups = robust.buckets(manifest.cohort, p.bucket_min, manifest.beacon)
    if len(groups) < 2 * p.bucket_trim + 1:
        raise Malformed(
            "Manifest",
            f"{len(groups)} buckets of {p.bucket_min} members, but to cut off {p.bucket_trim} at "
            f"each end takes {2 * p.bucket_trim + 1}",
        )
    return groups


def weights_of(manifest: Manifest) -> dict[int, int]:
    """Each member's weight in the sum."""
    if not manifest.weights:
        return dict.fromkeys(manifest.cohort, 1)
    return dict(zip(manifest.cohort, manifest.weights, strict=True))


def sum_bound(terms: ReleaseTerms, weights: int, responders: int) -> int:
    """Largest |coordinate| that honest members and noise can produce, in units of the ring.

    `weights` is the sum of the members' weights: their number, where all weigh 1.
    """
    p = terms.parameters
    one = p.norm_units or terms.member_batch_max() * SCALE + 1
    signal = weights * one
    sigma = p.committee_noise * math.sqrt(responders / (responders - p.corrupt))
    bits = RING_BITS if p.aggregation == "mask" else FIELD_BITS
    return min(int(signal + SIGMAS * sigma), (1 << (bits - 1)) - 1)


def answer_bytes(terms: ReleaseTerms, groups: int) -> int:
    """Length of an answer's share: one part for each group."""
    if terms.parameters.aggregation == "bfv":
        from fedtrade.privacy import threshold

        return groups * threshold.first_bytes(terms.dimension)
    return int(groups * terms.dimension * ring_of(terms).itemsize)


def unmask(
    terms: ReleaseTerms,
    manifest: Manifest,
    masked: Mapping[int, bytes],
    shares: Sequence[bytes],
) -> list[Signed]:
    """The noisy sum of each group, exact integers of shape (d,). `masked` by member."""
    groups = buckets_of(terms, manifest)
    for share in shares:
        if len(share) != answer_bytes(terms, len(groups)):
            raise Malformed("Answer", f"a share has {len(share)} bytes")
    size = answer_bytes(terms, 1)
    sums = []
    for place, group in enumerate(groups):
        parts = [share[place * size : (place + 1) * size] for share in shares]
        if terms.parameters.aggregation == "bfv":
            sums.append(_unmask_ciphertext(terms, manifest, group, masked, parts))
        else:
            sums.append(_unmask_ring(terms, [masked[m] for m in group], parts))
    return sums


def _unmask_ciphertext(
    terms: ReleaseTerms,
    manifest: Manifest,
    group: Sequence[int],
    masked: Mapping[int, bytes],
    parts: Sequence[bytes],
) -> Signed:
    from fedtrade.privacy import threshold

    weights = [weights_of(manifest)[m] for m in group]
    order = [seat.id for seat in terms.helpers]
    responders = tuple(order.index(helper) for helper in manifest.responders)
    first = threshold.weighted_sum([masked[m] for m in group], weights)
    bound = sum_bound(terms, sum(weights), len(responders))
    answers = dict(zip(responders, parts, strict=True))
    p = terms.parameters
    return threshold.fuse(first, answers, responders, p.corrupt, terms.dimension, bound)


def _unmask_ring(terms: ReleaseTerms, masked: Sequence[bytes], shares: Sequence[bytes]) -> Signed:
    ring, d = ring_of(terms), terms.dimension
    total: Ring = np.zeros(d, ring)
    for data in masked:
        total += np.frombuffer(data, ring.newbyteorder("<"), count=d)
    for data in shares:
        total -= ring_vector("Answer", data, d, ring)
    if norm_plan(terms) is not None:
        return norm.reduce(total.astype(np.uint64))
    return total.view(np.int32).astype(np.int64)


def mean_gradient(
    terms: ReleaseTerms, manifest: Manifest, sums: Sequence[Signed]
) -> NDArray[np.float64]:
    """Each group's noisy sum over its *public* expected batch; over groups, their trimmed mean.

    Raises RingOverflow where a sum cannot have come from honest members.
    """
    p = terms.parameters
    counts = {seat.id: n for seat, n in zip(terms.members, terms.positions, strict=True)}
    weights = weights_of(manifest)
    means = []
    for group, total in zip(buckets_of(terms, manifest), sums, strict=True):
        expected_batch = p.sampling_rate * sum(weights[m] * counts[m] for m in group)
        bound = sum_bound(terms, sum(weights[m] for m in group), len(manifest.responders))
        means.append(dequantise(total, p.clip_norm, bound) / expected_batch)
    if len(means) == 1:
        return means[0]
    return robust.trimmed_mean(np.stack(means), p.bucket_trim)


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
        self._adam = Adam(p.learning_rate, p.beta1, p.beta2, adaptive=p.server_optimiser == "adam")
        self._state = self._adam.start(len(self.vector))
        self.steps = 0

    @property
    def model(self) -> bytes:
        """sha256 of the current parameters: what announcements, masks and signatures bind."""
        return sha256(self.vector_bytes)

    @property
    def vector_bytes(self) -> bytes:
        return self.vector.astype("<f4").tobytes()

    def step(self, manifest: Manifest, sums: Sequence[Signed]) -> None:
        """One optimiser step on the unmasked sums of a round."""
        gradient = mean_gradient(self.terms, manifest, sums)
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
    z = p.effective_noise_multiplier(terms.dimension)
    return accounting.Spend(p.sampling_rate, z, rounds * p.steps_per_round)


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
