"""A member: one upload a round, and one signature when the release has proved its model.

What a member does with an announcement, in order: check who signed it and what it binds; sample
positions with secret coins; sum their clipped gradients; mask and seal them; put the round on the
ledger, on disk; only then sign and send. Nothing leaves but masked integers, sealed seeds and hashes.

Every coin of an upload is drawn from a key that is derived from the member's own secret and from
what the upload is for; mask seeds also from the vector that they mask, so that no mask is ever used
for two vectors. So a member that is killed at any point builds the same upload again, bit for bit,
and the round is paid once; another upload for the same round is refused by the ledger.

In local mode (`local_steps`) the member takes noisy steps of its own and sends their difference: what
leaves is private before any committee has touched it.

A member signs a publication only after recomputing the whole release from its transcript, after the
leak gate on its own public candles, and after judging the model on positions that it kept out of all
rounds (`clients.judgement`). None of it can be left out by who asks.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from numpy.typing import NDArray

from clients.budget import Budget
from clients.floor import Floor
from clients.judgement import COST, JUDGED_MIN, held_out, judge, pass_leak_gate
from clients.keys import MemberKeys
from fedtrade.artifact import Artifact, Shapes, load, trainable_shapes
from fedtrade.chain.parameter_store import InForce
from fedtrade.learning.perceptron import clipped_gradient_sum, position_losses
from fedtrade.learning.tables import Candles
from fedtrade.learning.windows import PositionBatch
from fedtrade.parameters import SCALE
from fedtrade.privacy import local, masking, mechanism, norm
from fedtrade.privacy.aggregation import (
    check_cost,
    model_vector,
    norm_plan,
    ring_of,
    spend_of,
)
from fedtrade.privacy.transcript import Verified, verify
from fedtrade.protocol import (
    UNSIGNED,
    Announcement,
    KeyRecord,
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


class Positions(Protocol):
    """A member's private positions: how many there are, and a batch of those that take part."""

    @property
    def count(self) -> int: ...

    @property
    def candles(self) -> Mapping[tuple[str, str], Candles]:
        """The public candles, by (venue, symbol), that features are computed from."""
        ...

    def sample(self, include: NDArray[np.bool_]) -> PositionBatch: ...


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
        key: KeyRecord | None = None,
        governance: Callable[[], InForce] | None = None,
    ) -> None:
        """`governance` asks what governance allows now; None where there is no chain to ask."""
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
        budget.rounds_left(spend_of(terms, 1))  # slow once, so not later
        self.terms = terms
        self._governance = governance
        self._obey()
        self.budget = budget
        self._keys = keys
        self._positions = positions
        self._base = base
        self._held_out = held_out(positions.count, keys.derive(b"fedtrade held out", b""))
        self._key = None
        if terms.parameters.aggregation == "bfv":
            from fedtrade.privacy import ceremony  # lane C alone pays for TenSEAL and numba

            self._key = ceremony.check_record(terms, key)
        self._fixed = {
            n: a.astype(np.float64) for n, a in base.arrays.items() if n.startswith("fixed.")
        }
        self._places = _places(trainable_shapes(base.manifest.network))
        self._helpers = [X25519PublicKey.from_public_bytes(h.x25519) for h in terms.helpers]

    def upload(self, data: bytes) -> bytes:
        """Answer an announcement; gives an encoded Upload, the same bytes however often it is asked.

        Raises Malformed, WrongBinding, WrongAuthor, Overspent, RoundAlreadyPaid, and where governance
        allows this release no more LooserThanGoverned or EverythingPaused (nothing is sent).
        """
        terms, p = self.terms, self.terms.parameters
        message = decode(Announcement, data)
        check(terms, message, terms.coordinator, message.round)
        if not 1 <= message.round <= p.rounds:
            raise WrongBinding("Announcement", "round", f"1 to {p.rounds}", message.round)
        vector = model_vector(message.vector, terms.dimension)
        self._obey()
        cost = spend_of(terms, 1)
        self.budget.check(terms.release, message.round, cost)
        context = masking.member_context(
            masking.round_context(terms.digest, terms.release, message.round, message.model),
            self.seat.id,
        )
        units = self._units(vector, context)
        masked, boxes, commitments = self._protect(units, context)
        boxes_sha256 = tuple(sha256(box) for box in boxes)
        contents = hashlib.sha256(masked)  # one pass over a long vector serves two hashes
        masked_sha256 = contents.digest()
        contents.update(b"".join(boxes_sha256))
        head = self.budget.spend(terms.release, message.round, cost, contents.digest())
        statement = Statement(
            release=terms.release,
            round=message.round,
            terms=terms.digest,
            model=message.model,
            member=self.seat.id,
            masked_sha256=masked_sha256,
            boxes_sha256=boxes_sha256,
            commitments=commitments,
            ledger=head,
            signature=UNSIGNED,
        )
        signed = sign_message(terms, statement, self._keys.sign_digest)
        return encode(Upload(statement=signed, masked=masked, boxes=boxes))

    def _obey(self) -> None:
        if self._governance is not None:
            self._governance().require_obeyed(self.terms.parameters)

    def _units(self, vector: NDArray[np.float32], context: bytes) -> NDArray[np.int64]:
        """What this member adds to the sum, in ring units (d,)."""
        terms, p = self.terms, self.terms.parameters
        coins = masking.Keystream(self._keys.derive(b"fedtrade coins", context))
        batch_max = terms.member_batch_max()

        bound = batch_max * p.clip_norm

        def bounded(total: NDArray[np.float64]) -> NDArray[np.float64]:
            # clipping has done it already; whatever happens, the data never decides about a refusal
            np.clip(total, -bound, bound, out=total)
            unknown = np.isnan(total)
            if unknown.any():
                total[unknown] = 0.0
            return total

        def clipped_sum(at: NDArray[np.float32]) -> NDArray[np.float64]:
            include = mechanism.poisson_sample(self._positions.count, p.sampling_rate, coins)
            include &= ~self._held_out
            include = mechanism.limit_sample(include, batch_max, coins)
            wide = at.astype(np.float64)
            arrays = {name: wide[place].reshape(shape) for name, place, shape in self._places}
            batch = self._positions.sample(include)
            total, _ = clipped_gradient_sum({**arrays, **self._fixed}, batch, p.clip_norm)
            return bounded(total)

        if p.local_steps:
            noise_key = self._keys.derive(b"fedtrade local noise", context)
            expected = p.sampling_rate * self._positions.count
            total = bounded(
                local.difference(vector, clipped_sum, p, batch_max, expected, noise_key)
            )
        else:
            total = clipped_sum(vector)
        plan = norm_plan(terms)
        if plan is not None:
            return norm.onto_ball(total / p.clip_norm * SCALE, plan)
        return mechanism.quantise(total, p.clip_norm, batch_max)

    def _protect(
        self, units: NDArray[np.int64], context: bytes
    ) -> tuple[bytes, tuple[bytes, ...], tuple[bytes, ...]]:
        """(masked vector, boxes, commitments): the only form in which an update leaves."""
        terms, p = self.terms, self.terms.parameters
        ring = ring_of(terms)
        inputs = units.astype(ring)
        inputs_sha256 = hashlib.sha256(inputs.data).digest()
        secret = self._keys.derive(b"fedtrade upload", context + inputs_sha256)
        entropy = masking.Keystream(secret)
        if p.aggregation == "bfv":
            from fedtrade.privacy import threshold

            assert self._key is not None  # checked when the release was joined
            sealed = threshold.encrypt(self._key, units, entropy(32), context)
            return sealed.c0, (sealed.c1 + sealed.proof,), ()
        count = len(masking.subsets(p.helpers, p.corrupt))
        seeds = [entropy(masking.SEED_BYTES) for _ in range(count)]
        commitments = tuple(
            masking.commitment(seed, context, subset) for subset, seed in enumerate(seeds)
        )
        plan = norm_plan(terms)
        if plan is None:
            masked = masking.mask(inputs, seeds, context)
        else:
            masks = masking.mask(np.zeros(plan.length, ring), seeds, context)
            binding = norm.Binding(context, commitments)
            masked = norm.prove(units, plan, masks.astype(np.uint64), binding)
        wire = masked.astype(ring.newbyteorder("<"), copy=False).tobytes()
        return wire, self._seal(seeds, context, entropy), commitments

    def _seal(
        self, seeds: list[bytes], context: bytes, entropy: masking.Keystream
    ) -> tuple[bytes, ...]:
        """One box a helper, under a key pair that lives for this upload only."""
        p = self.terms.parameters
        ephemeral = X25519PrivateKey.from_private_bytes(entropy(32))
        public = ephemeral.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        boxes = []
        for index, helper in enumerate(self.terms.helpers):
            shared = ephemeral.exchange(self._helpers[index])
            key = masking.box_key(shared, public, helper.x25519, context)
            wanted = [seeds[i] for i in masking.seeds_of(index, p.helpers, p.corrupt)]
            boxes.append(masking.seal(key, wanted, public, context))
        return tuple(boxes)

    def endorse(
        self, transcript: bytes, version: int, uri: str, registries: Mapping[int, str]
    ) -> dict[int, bytes]:
        """Recompute the release, judge its model, sign its hash for each chain id -> registry.

        Raises Unverified, WrongBinding when the transcript is of other terms than ours, SeesAhead, or
        ModelWorse.
        """
        proved = verify(transcript)
        if proved.terms.digest != self.terms.digest:
            raise WrongBinding(
                "transcript", "terms", self.terms.digest.hex(), proved.terms.digest.hex()
            )
        self._judge(proved)
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

    def _judge(self, proved: Verified) -> None:
        """Refuse a model that has seen ahead, or is worse on positions that no round has seen.

        Raises SeesAhead, which costs no privacy and so comes first, or ModelWorse.
        """
        model = load(proved.artifact, proved.artifact_sha256)
        pass_leak_gate(self._positions.candles, model)
        if int(self._held_out.sum()) < JUDGED_MIN:
            return  # the noise that a vote needs would decide it
        artifact = bytes.fromhex(proved.artifact_sha256)
        self.budget.judge(self.terms.release, COST, artifact)
        batch = self._positions.sample(self._held_out)
        judge(
            position_losses(self._base.arrays, batch),
            position_losses(model.arrays, batch),
            self._keys.derive(b"fedtrade judgement", artifact),
            proved.artifact_sha256,
        )


def _places(shapes: Shapes) -> list[tuple[str, slice, tuple[int, ...]]]:
    """Where each trainable array lies in the flat vector: (name, place, shape), in its order."""
    found, end = [], 0
    for name in sorted(shapes):
        begin, end = end, end + math.prod(shapes[name])
        found.append((name, slice(begin, end), shapes[name]))
    return found
