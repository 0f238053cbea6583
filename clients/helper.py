"""A helper of the mask committee: what it will do, and what it refuses.

It opens the boxes that members sealed for it, says which uploads it can unmask, checks the hidden
norms where the release wants it, and answers one manifest a round with its share of the masks, its
noise, and its share of zero. Its rules are its own and hold against everybody, the coordinator
included:

* every statement is signed by its member for this release, round, terms and model;
* one intake a round: what it said it was ready for does not change;
* the manifest is signed by the coordinator and *final*: it stands on the home chain, or enough
  helpers have signed it, each of them one a round;
* a sum of fewer members than the helper's own minimum is refused, whatever the terms say;
* one manifest a round: its hash is on disk before the signature or the answer leaves, another one is
  refused for ever, and a repeated question gets the same bytes (noise is derived from the manifest);
* it answers sums only: there is no message that names one member's share.

What it needs to go on after a crash is on its disk before it replies: the intake as it came (its
boxes stay sealed) and the chain of what it signed. All the rest follows from its keys.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from clients.keys import MemberKeys
from clients.ledger import Ledger, LedgerDamaged
from fedtrade.chain.parameter_store import InForce
from fedtrade.errors import Refusal, Stale
from fedtrade.privacy import masking, norm
from fedtrade.privacy.aggregation import (
    Signed,
    buckets_of,
    check_statement,
    halves,
    norm_plan,
    ring_of,
    ring_vector,
    seeds_in,
    weights_of,
)
from fedtrade.privacy.agreement import (
    NO_BEACON,
    check_certificate,
    check_draws,
    check_form,
    check_norms,
    check_readies,
    nonce_sha256,
)
from fedtrade.privacy.mechanism import noise, noise_variance
from fedtrade.protocol import (
    UNSIGNED,
    Answer,
    Approval,
    Check,
    Complaint,
    Draw,
    Inspection,
    Intake,
    KeyRecord,
    Malformed,
    Manifest,
    Question,
    Ready,
    ReleaseTerms,
    SealedUpload,
    WrongBinding,
    check,
    content_in,
    decode,
    encode,
    sha256,
    sign_message,
)

if TYPE_CHECKING:
    from fedtrade.privacy.lattice import Residues

Bound = Literal["manifest", "draft"]
BOUND: Final[tuple[Bound, ...]] = ("manifest", "draft")

FinalManifest = Callable[[int, int], bytes | None]
"""(release, round) -> the manifest hash that stands on the home chain, or None."""


class ManifestNotFinal(Stale):
    """A manifest that does not (yet) stand on the home chain."""

    def __init__(self, release: int, round_number: int, found: str) -> None:
        super().__init__(
            f"manifest of round {round_number}, release {release}, is not final: the home chain has "
            f"{found}. Ask again once it stands there"
        )
        self.release = release
        self.round = round_number
        self.found = found


class SecondManifest(Refusal):
    """Another manifest for a round that this helper has signed: the differencing attack."""

    def __init__(self, release: int, round_number: int) -> None:
        super().__init__(
            f"round {round_number} of release {release} was signed under another manifest; "
            "two subsets of one round would give away their difference. Start a new round"
        )
        self.release = release
        self.round = round_number


class SecondIntake(Refusal):
    """Other uploads for a round that this helper is ready for already."""

    def __init__(self, round_number: int) -> None:
        super().__init__(
            f"this helper took other uploads for round {round_number}; one intake a round. "
            "Send the same again, or start a new round"
        )
        self.round = round_number


class CohortRefused(Refusal):
    """A manifest over uploads or with responders that this helper does not answer for."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"manifest refused: {problem}. Start a new round")
        self.problem = problem


@dataclass(slots=True)
class _Open:
    """What a helper knows of the round that it is ready for."""

    intake: Intake
    content: bytes
    """Of the intake."""
    reply: Ready
    seeds: dict[bytes, tuple[int, tuple[bytes, ...]]]
    """Statement hash -> (member, this helper's seeds; none in lane C)."""
    boxes: dict[bytes, bytes]
    """Lane C: statement hash -> the second half of its ciphertext."""


class Helper:
    """One seat of the mask committee for one release."""

    def __init__(
        self,
        seat: int,
        keys: MemberKeys,
        terms: ReleaseTerms,
        folder: Path,
        final_manifest: FinalManifest,
        cohort_min: int,
        key: KeyRecord | None = None,
        governance: Callable[[], InForce] | None = None,
    ) -> None:
        """`governance` asks what governance allows now; None where there is no chain to ask."""
        self.seat = terms.helper(seat)
        if self.seat.signer != keys.address.lower() or self.seat.x25519 != keys.x25519_public:
            raise WrongBinding("release", f"keys of helper {seat}", self.seat.signer, keys.address)
        self.index = [s.id for s in terms.helpers].index(seat)
        self.terms = terms
        self.cohort_min = max(cohort_min, terms.parameters.cohort_min)
        self.bucket_min = max(cohort_min, terms.parameters.bucket_min or self.cohort_min)
        """Fewest members of any sum that it helps to unmask."""
        self._keys = keys
        self._final = final_manifest
        self._governance = governance
        self._secret: tuple[bytes, Residues] | None = None
        """Lane C: the collective key, and this helper's share of its secret."""
        if terms.parameters.aggregation == "bfv":
            from clients.dealer import Dealer  # lane C alone pays for TenSEAL and numba

            self._secret = Dealer(terms, seat, keys).share(terms, key)
        self._open: _Open | None = None
        self._intake_path = folder / f"intake-{terms.release}-{seat}.bin"
        self._log = Ledger(folder / f"signed-{seat}.jsonl")
        try:
            self._signed = {
                (what, int(e["release"]), int(e["round"])): bytes.fromhex(e[what])
                for e in self._log.entries
                for what in BOUND
                if what in e
            }
            if len(self._signed) != len(self._log.entries):
                raise ValueError("an entry that binds nothing, or a round twice")
        except (KeyError, ValueError, TypeError):
            self._log.close()
            raise LedgerDamaged(self._log.path, 1, "it is no list of signed manifests") from None

    def close(self) -> None:
        self._log.close()

    # ready

    def ready(self, data: bytes) -> bytes:
        """Open this helper's boxes of a round; gives an encoded Ready. Raises Refusal.

        The same intake gets the same reply; another one for the same round is refused, and any where
        governance allows the release no more.
        """
        intake = decode(Intake, data)
        terms = self.terms
        content = check(terms, intake, terms.coordinator, intake.round, content_in(data))
        if not 1 <= intake.round <= terms.parameters.rounds:
            raise WrongBinding("Intake", "round", f"1 to {terms.parameters.rounds}", intake.round)
        before = self._held()
        if before is not None and before.intake.round == intake.round:
            if before.intake != intake:
                raise SecondIntake(intake.round)
            return encode(before.reply)
        if before is not None and intake.round < before.intake.round:
            raise WrongBinding("Intake", "round", before.intake.round, intake.round)
        if self._governance is not None:
            self._governance().require_obeyed(terms.parameters)
        opened = self._take_all(intake, content)
        self._keep(data)
        self._open = opened
        return encode(opened.reply)

    def _held(self) -> _Open | None:
        """The round that this helper is ready for; read again from the disk after a restart."""
        if self._open is None and self._intake_path.exists():
            intake = decode(Intake, self._intake_path.read_bytes())
            self._open = self._take_all(intake, intake.content())
        return self._open

    def _keep(self, data: bytes) -> None:
        """The intake on disk before the reply leaves: its boxes are sealed, so it is no secret."""
        draft = self._intake_path.with_suffix(".draft")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(draft, self._intake_path)

    def _take_all(self, intake: Intake, intake_content: bytes) -> _Open:
        terms = self.terms
        context = masking.round_context(terms.digest, terms.release, intake.round, intake.model)
        seeds: dict[bytes, tuple[int, tuple[bytes, ...]]] = {}
        boxes: dict[bytes, bytes] = {}
        complaints: list[Complaint] = []
        members: set[int] = set()
        for sealed in intake.uploads:
            statement = sealed.statement
            content = check_statement(terms, statement, intake.round, intake.model)
            if statement.member in members:
                raise Malformed("Intake", f"member {statement.member} is listed twice")
            members.add(statement.member)
            opened = self._take(sealed, masking.member_context(context, statement.member))
            if isinstance(opened, tuple):
                seeds[content] = (statement.member, opened)
                if self._secret is not None:
                    boxes[content] = halves(terms, sealed.box)[0]
            else:
                complaints.append(
                    Complaint(member=statement.member, statement=content, box_key=opened)
                )
        accepted = tuple(sorted(seeds))
        reply = Ready(
            release=terms.release,
            round=intake.round,
            terms=terms.digest,
            model=intake.model,
            helper=self.seat.id,
            accepted=accepted,
            complaints=tuple(complaints),
            nonce_sha256=nonce_sha256(self._nonce(intake_content)),
            signature=UNSIGNED,
        )
        signed = sign_message(terms, reply, self._keys.sign_digest)
        return _Open(intake, intake_content, signed, seeds, boxes)

    def _take(self, sealed: SealedUpload, context: bytes) -> tuple[bytes, ...] | bytes:
        """The seeds in a good box; otherwise the evidence (a box key, or nothing)."""
        place = 0 if self._secret is not None else self.index
        if sha256(sealed.box) != sealed.statement.boxes_sha256[place]:
            # not what the member signed: no evidence against it, and its key is not revealed
            return b""
        if self._secret is not None:
            from fedtrade.privacy import threshold

            try:
                c1, proof = halves(self.terms, sealed.box)
                threshold.check_second(self._secret[0], c1, proof, self.terms.dimension, context)
            except Refusal:
                return b""
            return ()
        ephemeral = sealed.box[:32]
        try:
            shared = self._keys.x25519_exchange(ephemeral)
        except Refusal:
            return b""
        key = masking.box_key(shared, ephemeral, self.seat.x25519, context)
        opened = seeds_in(self.terms, self.index, sealed, key, context)
        if opened is None:
            return b""
        seeds, committed = opened
        return seeds if committed else key

    def _nonce(self, intake_content: bytes) -> bytes:
        return self._keys.derive(b"fedtrade nonce", intake_content)

    # check

    def check(self, data: bytes) -> bytes:
        """This helper's share of every vector's check words; gives an encoded Check. Raises Refusal.

        For an honest member the shares of all helpers add up to zero, whoever is asked how often,
        and each alone is uniform: nothing about the vector is learned but whether it is in bounds.
        """
        panel = decode(Inspection, data)
        terms, p = self.terms, self.terms.parameters
        check(terms, panel, terms.coordinator, panel.round)
        plan = norm_plan(terms)
        opened = self._ready_for(panel.round, panel.model)
        if plan is None:
            raise WrongBinding("Inspection", "norm check", "none in this release", "one")
        responders = self._responders(panel.responders, 2 * p.corrupt + 1)
        if len(panel.uploads) != len(panel.vectors):
            raise Malformed("Inspection", "uploads and vectors differ in length")
        context = masking.round_context(terms.digest, terms.release, panel.round, panel.model)
        statements = {s.statement.content(): s.statement for s in opened.intake.uploads}
        pairs = self._pairs(responders, b"norm" + context)
        present = norm.Panel(p.helpers, p.corrupt, responders)
        mine = masking.seeds_of(self.index, p.helpers, p.corrupt)
        words = []
        for content, vector in zip(panel.uploads, panel.vectors, strict=True):
            held = opened.seeds.get(content)
            if held is None:
                raise CohortRefused("a vector whose boxes this helper did not accept")
            statement = statements[content]
            if sha256(vector) != statement.masked_sha256:
                raise Malformed("Inspection", f"member {held[0]}: its vector was altered")
            share = norm.answer(
                plan,
                ring_vector("Inspection", vector, plan.length, ring_of(terms)).astype(np.uint64),
                norm.Binding(masking.member_context(context, held[0]), statement.commitments),
                present,
                norm.Holding(self.index, dict(zip(mine, held[1], strict=True)), pairs),
            )
            words.append(share.astype("<u8").tobytes())
        reply = Check(
            release=terms.release,
            round=panel.round,
            terms=terms.digest,
            model=panel.model,
            helper=self.seat.id,
            responders=panel.responders,
            uploads=panel.uploads,
            words=tuple(words),
            signature=UNSIGNED,
        )
        return encode(sign_message(terms, reply, self._keys.sign_digest))

    # draw, approve and answer

    def draw(self, data: bytes) -> bytes:
        """Show this helper's nonce for a drafted manifest, one a round; gives an encoded Draw."""
        question = decode(Question, data)
        terms, manifest = self.terms, question.manifest
        if terms.parameters.bucket_min is None or manifest.beacon != NO_BEACON:
            raise WrongBinding("Manifest", "beacon", "none yet", manifest.beacon.hex())
        self._judge(question, drawn=False)
        opened = self._ready_for(manifest.round, manifest.model)
        self._responders(manifest.responders, self._fewest())
        content = manifest.content()
        self._bind("draft", manifest.release, manifest.round, content)
        reply = Draw(
            release=terms.release,
            round=manifest.round,
            terms=terms.digest,
            model=manifest.model,
            helper=self.seat.id,
            draft=content,
            nonce=self._nonce(opened.content),
            signature=UNSIGNED,
        )
        return encode(sign_message(terms, reply, self._keys.sign_digest))

    def approve(self, data: bytes) -> bytes:
        """Sign a manifest, one a round (agreement by certificate); gives an encoded Approval."""
        terms = self.terms
        if terms.parameters.agreement != "certificate":
            raise WrongBinding("Manifest", "agreement", terms.parameters.agreement, "certificate")
        question = decode(Question, data)
        manifest = question.manifest
        self._judge(question)
        self._ready_for(manifest.round, manifest.model)
        content = manifest.content()
        self._bind("manifest", manifest.release, manifest.round, content)
        reply = Approval(
            release=terms.release,
            round=manifest.round,
            terms=terms.digest,
            model=manifest.model,
            helper=self.seat.id,
            manifest=content,
            signature=UNSIGNED,
        )
        return encode(sign_message(terms, reply, self._keys.sign_digest))

    def answer(self, data: bytes) -> bytes:
        """Answer a final manifest, once a round; gives an encoded Answer. Raises Refusal, Stale."""
        question = decode(Question, data)
        terms, manifest = self.terms, question.manifest
        self._judge(question)
        opened = self._ready_for(manifest.round, manifest.model)
        for member, upload in zip(manifest.cohort, manifest.uploads, strict=True):
            held = opened.seeds.get(upload)
            if held is None or held[0] != member:
                raise CohortRefused(f"the upload of member {member} was not accepted here")
        responders = self._responders(manifest.responders, self._fewest())
        content = manifest.content()
        if terms.parameters.agreement == "certificate":
            check_certificate(terms, manifest, question.approvals)
        else:
            final = self._final(manifest.release, manifest.round)
            if final != content:
                raise ManifestNotFinal(
                    manifest.release, manifest.round, final.hex() if final else "none"
                )
        self._bind("manifest", manifest.release, manifest.round, content)
        reply = Answer(
            release=terms.release,
            round=manifest.round,
            terms=terms.digest,
            model=manifest.model,
            helper=self.seat.id,
            manifest=content,
            share=self._share(opened, manifest, content, responders),
            signature=UNSIGNED,
        )
        return encode(sign_message(terms, reply, self._keys.sign_digest))

    def _judge(self, question: Question, drawn: bool = True) -> None:
        """Everything about a manifest that does not depend on this helper's own boxes.

        `drawn`: whether its buckets must have been drawn by now.
        """
        terms, manifest = self.terms, question.manifest
        check(terms, manifest, terms.coordinator, manifest.round)
        if not 1 <= manifest.round <= terms.parameters.rounds:
            raise WrongBinding(
                "Manifest", "round", f"1 to {terms.parameters.rounds}", manifest.round
            )
        if len(manifest.cohort) < self.cohort_min:
            raise CohortRefused(
                f"{len(manifest.cohort)} members, this helper's minimum is {self.cohort_min}"
            )
        check_form(terms, manifest, self.bucket_min)
        check_readies(terms, manifest, question.readies)
        check_norms(terms, manifest, question.checks)
        if drawn:
            check_draws(terms, question)

    def _ready_for(self, round_number: int, model: bytes) -> _Open:
        opened = self._held()
        if opened is None or opened.intake.round != round_number or opened.intake.model != model:
            known = None if opened is None else opened.intake.round
            raise WrongBinding("Manifest", "round", known, round_number)
        return opened

    def _fewest(self) -> int:
        """How many must answer: c + 1, or what governance asks for now."""
        p = self.terms.parameters
        return (
            p.corrupt + 1
            if self._governance is None
            else self._governance().governed.responders_of(p)
        )

    def _responders(self, seats: tuple[int, ...], least: int) -> tuple[int, ...]:
        """Places of the responders in the committee. Raises CohortRefused."""
        order = [seat.id for seat in self.terms.helpers]
        if list(seats) != sorted(set(seats)) or not set(seats) <= set(order):
            raise CohortRefused("the responders are not distinct helpers in order")
        if len(seats) < least or self.seat.id not in seats:
            raise CohortRefused(f"responders {seats} do not include us or are too few")
        return tuple(order.index(seat) for seat in seats)

    def _bind(self, what: Bound, release: int, round_number: int, content: bytes) -> None:
        """Bind this round to this manifest (or draft), on disk, before anything of it leaves."""
        before = self._signed.get((what, release, round_number))
        if before == content:
            return
        if before is not None:
            raise SecondManifest(release, round_number)
        self._log.append({"release": release, "round": round_number, what: content.hex()})
        self._signed[(what, release, round_number)] = content

    def _pairs(self, responders: tuple[int, ...], content: bytes) -> dict[int, bytes]:
        """A secret shared with each other responder, for one use."""
        return {
            i: masking.derive(
                self._keys.x25519_exchange(self.terms.helpers[i].x25519), b"fedtrade zero", content
            )
            for i in responders
            if i != self.index
        }

    def _noise(self, content: bytes, group: int, responders: int) -> Signed:
        """This responder's noise of one group, derived from the manifest: the same when repeated."""
        p = self.terms.parameters
        if p.committee_noise == 0:
            return np.zeros(self.terms.dimension, np.int64)
        key = self._keys.derive(b"fedtrade noise", content + group.to_bytes(4, "big"))
        variance = noise_variance(p.noise_multiplier * p.weight_max, responders, p.corrupt)
        return noise(key, variance, self.terms.dimension)

    def _share(
        self, opened: _Open, manifest: Manifest, content: bytes, responders: tuple[int, ...]
    ) -> bytes:
        """For each group: its masks that we own, plus noise, plus our share of zero."""
        parts = []
        pairs = self._pairs(responders, content)
        uploads = dict(zip(manifest.cohort, manifest.uploads, strict=True))
        for place, group in enumerate(buckets_of(self.terms, manifest)):
            drawn = self._noise(content, place, len(responders))
            label = content + place.to_bytes(4, "big")
            if self._secret is None:
                owned = {m: opened.seeds[uploads[m]][1] for m in group}
                parts.append(self._unmasking(manifest, owned, responders, pairs, label, drawn))
            else:
                from fedtrade.privacy import threshold

                second = [opened.boxes[uploads[m]] for m in group]
                weights = [weights_of(manifest)[m] for m in group]
                parts.append(
                    threshold.partial(
                        self._secret[1],
                        self.index,
                        responders,
                        self.terms.parameters.corrupt,
                        threshold.weighted_sum(second, weights),
                        pairs,
                        drawn,
                        self._keys.derive(b"fedtrade smudge", label),
                        label,
                    )
                )
        return b"".join(parts)

    def _unmasking(
        self,
        manifest: Manifest,
        seeds: dict[int, tuple[bytes, ...]],
        responders: tuple[int, ...],
        pairs: dict[int, bytes],
        label: bytes,
        drawn: Signed,
    ) -> bytes:
        """Lane B's share of one group, as ring elements."""
        terms, p, ring = self.terms, self.terms.parameters, ring_of(self.terms)
        owners = masking.owners(responders, p.helpers, p.corrupt)
        held = masking.seeds_of(self.index, p.helpers, p.corrupt)
        mine = [place for place, subset in enumerate(held) if owners[subset] == self.index]
        context = masking.round_context(terms.digest, terms.release, manifest.round, manifest.model)
        owned = {
            masking.member_context(context, member): [of[place] for place in mine]
            for member, of in seeds.items()
        }
        share = masking.mask_share(owned, terms.dimension, ring)
        share += masking.zero_share(self.index, pairs, label, terms.dimension, ring)
        share -= drawn.astype(ring)  # shares are subtracted, so the noise enters the sum
        return bytes(share.astype(ring.newbyteorder("<")).tobytes())
