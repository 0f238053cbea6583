"""A member: one upload a round, and one signature when the release has proved its model.

What a member does with an announcement, in order: check who signed it and what it binds; check that
its own floor holds; sample positions with secret coins; sum their clipped gradients; put the round
on the ledger, on disk; only then mask, seal, sign and send. Nothing leaves but masked integers,
sealed seeds and hashes.

A member signs a publication only after recomputing the whole release from its transcript.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from numpy import bool_, frombuffer
from numpy.typing import NDArray
from pydantic import Field

from clients.budget import Budget
from clients.keys import MemberKeys
from fedtrade.artifact import Artifact, unflatten
from fedtrade.errors import Refusal
from fedtrade.learning.network import clipped_gradient_sum
from fedtrade.learning.windows import PositionBatch
from fedtrade.parameters import Parsed
from fedtrade.privacy import masking, mechanism
from fedtrade.privacy.aggregation import check_cost, spend_of, vector_from_bytes
from fedtrade.privacy.mechanism import Entropy
from fedtrade.privacy.transcript import verify
from fedtrade.protocol import (
    UNSIGNED,
    Announcement,
    ReleaseTerms,
    Statement,
    Upload,
    WrongBinding,
    check,
    decode,
    encode,
    publication_digest,
    sha256,
    sign_message,
)


class FloorBroken(Refusal):
    """Terms that are weaker than what this member accepts, whoever agreed to them."""

    def __init__(self, field: str, floor: float, found: float) -> None:
        super().__init__(
            f"the release's {field} is {found}, this member's own file demands {floor}. "
            "Nothing was sent. Change the member's file if you want to join"
        )
        self.field = field
        self.floor = floor
        self.found = found


class Floor(Parsed):
    """The least privacy that this member accepts. Nothing received can lower it."""

    epsilon_limit: Annotated[float, Field(gt=0, le=20)] = 8.0
    """The most ε (RDP) that this member ever spends on one set of positions."""
    delta_max: Annotated[float, Field(gt=0, le=1e-5)] = 1e-6
    noise_multiplier_min: Annotated[float, Field(ge=0.5)] = 0.5
    sampling_rate_max: Annotated[float, Field(gt=0, le=0.25)] = 0.25
    cohort_min: Annotated[int, Field(ge=3)] = 3
    corrupt_min: Annotated[int, Field(ge=1)] = 1
    """How many bad helpers the committee must at least withstand."""

    def check(self, terms: ReleaseTerms) -> None:
        """Refuse terms below the floor. Raises FloorBroken."""
        p = terms.parameters
        for field, floor, found, holds in (
            ("delta", self.delta_max, p.delta, p.delta <= self.delta_max),
            (
                "noise_multiplier",
                self.noise_multiplier_min,
                p.noise_multiplier,
                p.noise_multiplier >= self.noise_multiplier_min,
            ),
            (
                "sampling_rate",
                self.sampling_rate_max,
                p.sampling_rate,
                p.sampling_rate <= self.sampling_rate_max,
            ),
            ("cohort_min", self.cohort_min, p.cohort_min, p.cohort_min >= self.cohort_min),
            ("corrupt", self.corrupt_min, p.corrupt, p.corrupt >= self.corrupt_min),
        ):
            if not holds:
                raise FloorBroken(field, floor, found)


class Positions(Protocol):
    """A member's private positions: how many there are, and a batch of those that take part."""

    @property
    def count(self) -> int: ...

    def sample(self, include: NDArray[bool_]) -> PositionBatch: ...


class Member:
    """One member in one release."""

    def __init__(
        self,
        seat: int,
        keys: MemberKeys,
        positions: Positions,
        budget: Budget,
        floor: Floor,
        terms: ReleaseTerms,
        base: Artifact,
        entropy: Entropy = os.urandom,
    ) -> None:
        floor.check(terms)
        check_cost(terms)
        self.seat = terms.member(seat)
        if self.seat.signer != keys.address.lower():
            raise WrongBinding("release", f"signer of seat {seat}", self.seat.signer, keys.address)
        if base.sha256 != terms.base_sha256:
            raise WrongBinding("release", "base artifact", terms.base_sha256, base.sha256)
        index = [s.id for s in terms.members].index(seat)
        if terms.positions[index] != positions.count:
            raise WrongBinding(
                "release", f"positions of seat {seat}", terms.positions[index], positions.count
            )
        spend = spend_of(terms, 1)
        budget.rounds_left(spend.sampling_rate, spend.noise_multiplier)  # slow once, so not later
        self.terms = terms
        self.budget = budget
        self.last_loss = 0.0
        """Mean loss of the last batch: private, shown to nobody but this member."""
        self._keys = keys
        self._positions = positions
        self._base = base
        self._entropy = entropy
        self._shapes = {name: array.shape for name, array in base.arrays.items()}
        self._fixed = {n: a for n, a in base.arrays.items() if n.startswith("fixed.")}

    def upload(self, data: bytes) -> bytes:
        """Answer an announcement; gives an encoded Upload.

        Raises Malformed, WrongBinding, WrongAuthor, Overspent, RoundAlreadyPaid (nothing is sent).
        """
        terms, p = self.terms, self.terms.parameters
        message = decode(Announcement, data)
        check(terms, message, terms.coordinator, message.round)
        if message.round > p.rounds:
            raise WrongBinding("Announcement", "round", f"at most {p.rounds}", message.round)
        if sha256(message.vector) != message.model:
            raise WrongBinding(
                "Announcement", "model", message.model.hex(), sha256(message.vector).hex()
            )
        vector_from_bytes("Announcement", message.vector, terms.dimension)
        units = self._gradient(message.vector)
        spend = spend_of(terms, 1)
        self.budget.spend(terms.release, message.round, spend.sampling_rate, spend.noise_multiplier)
        return self._mask(message, units)

    def _gradient(self, vector: bytes) -> masking.Ring:
        """The quantised sum of the sampled positions' clipped gradients, in ring units (d,)."""
        p = self.terms.parameters
        batch_max = self.terms.member_batch_max()
        include = mechanism.poisson_sample(self._positions.count, p.sampling_rate, self._entropy)
        include = mechanism.limit_sample(include, batch_max, self._entropy)
        arrays = {**unflatten(frombuffer(vector, dtype="<f4"), self._shapes), **self._fixed}
        total, self.last_loss = clipped_gradient_sum(
            arrays, self._positions.sample(include), p.clip_norm
        )
        return mechanism.quantise(total, p.clip_norm, batch_max)

    def _mask(self, message: Announcement, units: masking.Ring) -> bytes:
        """Mask, seal and sign: the only place where something of this member leaves."""
        terms, p = self.terms, self.terms.parameters
        context = masking.member_context(
            masking.round_context(terms.digest, terms.release, message.round, message.model),
            self.seat.id,
        )
        count = len(masking.subsets(p.helpers, p.corrupt))
        secret = self._entropy(masking.SEED_BYTES * count)
        seeds = [secret[i : i + masking.SEED_BYTES] for i in range(0, len(secret), 32)]
        masked = masking.mask(units, seeds, context).astype("<u4").tobytes()
        boxes = self._seal(seeds, context)
        statement = Statement(
            release=terms.release,
            round=message.round,
            terms=terms.digest,
            model=message.model,
            member=self.seat.id,
            masked_sha256=sha256(masked),
            boxes_sha256=tuple(sha256(box) for box in boxes),
            commitments=tuple(
                masking.commitment(seed, context, subset) for subset, seed in enumerate(seeds)
            ),
            signature=UNSIGNED,
        )
        signed = sign_message(terms, statement, self._keys.sign_digest)
        return encode(Upload(statement=signed, masked=masked, boxes=boxes))

    def _seal(self, seeds: list[bytes], context: bytes) -> tuple[bytes, ...]:
        """One box a helper, under a key pair that lives for this upload only."""
        p = self.terms.parameters
        ephemeral = X25519PrivateKey.from_private_bytes(self._entropy(32))
        public = ephemeral.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        boxes = []
        for index, helper in enumerate(self.terms.helpers):
            shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(helper.x25519))
            key = masking.box_key(shared, public, helper.x25519, context)
            wanted = [seeds[i] for i in masking.seeds_of(index, p.helpers, p.corrupt)]
            boxes.append(masking.seal(key, wanted, public, context))
        return tuple(boxes)

    def endorse(
        self, transcript: bytes, version: int, uri: str, registries: Mapping[int, str]
    ) -> dict[int, bytes]:
        """Recompute the release; sign its hash for each chain id -> registry address.

        Raises Unverified, or WrongBinding when the transcript is of other terms than ours.
        """
        proved = verify(transcript)
        if proved.terms.digest != self.terms.digest:
            raise WrongBinding(
                "transcript", "terms", self.terms.digest.hex(), proved.terms.digest.hex()
            )
        return {
            chain_id: self._keys.sign_digest(
                publication_digest(
                    chain_id,
                    registry,
                    self.terms.release,
                    version,
                    bytes.fromhex(proved.artifact_sha256),
                    uri,
                    proved.epsilon_micro,
                )
            )
            for chain_id, registry in registries.items()
        }
