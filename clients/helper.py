"""A helper of the mask committee: what it will do, and what it refuses.

It opens the boxes that members sealed for it, says which uploads it can unmask, and answers one
manifest a round with its share of the masks, its noise, and its share of zero. Its rules are its
own and hold against everybody, the coordinator included:

* every statement is signed by its member for this release, round, terms and model;
* the manifest is signed by the coordinator and *final*: it stands on the home chain;
* a cohort below the helper's own minimum is refused, whatever the terms say;
* one manifest a round: the hash is on disk before the answer leaves, another one is refused for
  ever, and a repeated question gets the same bytes (noise is derived from the manifest);
* it answers sums only: there is no message that names one member's share.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clients.keys import MemberKeys
from fedtrade.errors import Fault, Refusal, Stale
from fedtrade.privacy import masking
from fedtrade.privacy.aggregation import bad_seeds, check_statement
from fedtrade.privacy.mechanism import noise_variance, skellam
from fedtrade.protocol import (
    UNSIGNED,
    Answer,
    Complaint,
    Intake,
    Malformed,
    Manifest,
    Ready,
    ReleaseTerms,
    SealedUpload,
    WrongBinding,
    check,
    decode,
    encode,
    sha256,
    sign_message,
)

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
    """Another manifest for a round that this helper has answered: the differencing attack."""

    def __init__(self, release: int, round_number: int) -> None:
        super().__init__(
            f"round {round_number} of release {release} was answered under another manifest; "
            "two subsets of one round would give away their difference. Start a new round"
        )
        self.release = release
        self.round = round_number


class CohortRefused(Refusal):
    """A cohort or a set of responders that this helper does not answer for."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"manifest refused: {problem}. Start a new round with a larger cohort")
        self.problem = problem


@dataclass(slots=True)
class _Open:
    """What a helper knows of the round that it is ready for."""

    number: int
    model: bytes
    seeds: dict[bytes, tuple[int, tuple[bytes, ...]]]
    """Statement hash -> (member, this helper's seeds)."""


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
    ) -> None:
        self.seat = terms.helper(seat)
        if self.seat.signer != keys.address.lower() or self.seat.x25519 != keys.x25519_public:
            raise WrongBinding("release", f"keys of helper {seat}", self.seat.signer, keys.address)
        self.index = [s.id for s in terms.helpers].index(seat)
        self.terms = terms
        self.cohort_min = max(cohort_min, terms.parameters.cohort_min)
        self._keys = keys
        self._final = final_manifest
        self._open: _Open | None = None
        self._path = folder / f"answered-{seat}.jsonl"
        self._answered = self._replay()

    def _replay(self) -> dict[tuple[int, int], bytes]:
        if not self._path.exists():
            return {}
        answered = {}
        lines = self._path.read_text().split("\n")
        for number, line in enumerate(lines[:-1], start=1):
            try:
                release, round_number, manifest = json.loads(line)
                answered[(int(release), int(round_number))] = bytes.fromhex(manifest)
            except (ValueError, TypeError):
                raise Fault(
                    f"{self._path}, line {number}: cannot be read. "
                    "Restore it from your backup before this helper answers again"
                ) from None
        if lines[-1]:
            raise Fault(f"{self._path}: the last line is torn. Restore it from your backup")
        return answered

    def ready(self, data: bytes) -> bytes:
        """Open this helper's boxes of a round; gives an encoded Ready. Raises Refusal."""
        intake = decode(Intake, data)
        terms = self.terms
        check(terms, intake, terms.coordinator, intake.round)
        context = masking.round_context(terms.digest, terms.release, intake.round, intake.model)
        seeds: dict[bytes, tuple[int, tuple[bytes, ...]]] = {}
        complaints: list[Complaint] = []
        members: set[int] = set()
        for sealed in intake.uploads:
            statement = sealed.statement
            check_statement(terms, statement, intake.round, intake.model)
            if statement.member in members:
                raise Malformed("Intake", f"member {statement.member} is listed twice")
            members.add(statement.member)
            content = statement.content()
            opened = self._take(sealed, masking.member_context(context, statement.member))
            if isinstance(opened, tuple):
                seeds[content] = (statement.member, opened)
            else:
                complaints.append(
                    Complaint(member=statement.member, statement=content, box_key=opened)
                )
        self._open = _Open(intake.round, intake.model, seeds)
        reply = Ready(
            release=terms.release,
            round=intake.round,
            terms=terms.digest,
            model=intake.model,
            helper=self.seat.id,
            accepted=tuple(sorted(seeds)),
            complaints=tuple(complaints),
            signature=UNSIGNED,
        )
        return encode(sign_message(terms, reply, self._keys.sign_digest))

    def _take(self, sealed: SealedUpload, context: bytes) -> tuple[bytes, ...] | bytes:
        """The seeds in a good box; otherwise the evidence (a box key, or nothing)."""
        if sha256(sealed.box) != sealed.statement.boxes_sha256[self.index]:
            # not what the member signed: no evidence against it, and its key is not revealed
            return b""
        ephemeral = sealed.box[:32]
        try:
            shared = self._keys.x25519_exchange(ephemeral)
        except Refusal:
            return b""
        key = masking.box_key(shared, ephemeral, self.seat.x25519, context)
        verdict = bad_seeds(self.terms, self.index, sealed, key, context)
        if verdict is None:
            return b""
        if verdict:
            return key
        p = self.terms.parameters
        wanted = masking.seeds_of(self.index, p.helpers, p.corrupt)
        return masking.unseal(key, sealed.box, context, len(wanted))

    def answer(self, data: bytes) -> bytes:
        """Answer a final manifest, once a round; gives an encoded Answer. Raises Refusal, Stale."""
        manifest = decode(Manifest, data)
        terms = self.terms
        check(terms, manifest, terms.coordinator, manifest.round)
        content = manifest.content()
        self._check_manifest(manifest)
        final = self._final(manifest.release, manifest.round)
        if final != content:
            raise ManifestNotFinal(
                manifest.release, manifest.round, final.hex() if final else "none"
            )
        self._commit(manifest.release, manifest.round, content)
        share = self._share(manifest, content)
        reply = Answer(
            release=terms.release,
            round=manifest.round,
            terms=terms.digest,
            model=manifest.model,
            helper=self.seat.id,
            manifest=content,
            share=share.astype("<u4").tobytes(),
            signature=UNSIGNED,
        )
        return encode(sign_message(terms, reply, self._keys.sign_digest))

    def _check_manifest(self, manifest: Manifest) -> None:
        p = self.terms.parameters
        opened = self._open
        if opened is None or opened.number != manifest.round or opened.model != manifest.model:
            raise WrongBinding("Manifest", "round", opened and opened.number, manifest.round)
        if len(manifest.cohort) < self.cohort_min:
            raise CohortRefused(
                f"{len(manifest.cohort)} members, this helper's minimum is {self.cohort_min}"
            )
        if list(manifest.cohort) != sorted(set(manifest.cohort)):
            raise CohortRefused("a member is listed twice or out of order")
        if len(manifest.uploads) != len(manifest.cohort):
            raise CohortRefused("cohort and uploads differ in length")
        for member, content in zip(manifest.cohort, manifest.uploads, strict=True):
            held = opened.seeds.get(content)
            if held is None or held[0] != member:
                raise CohortRefused(f"the upload of member {member} was not accepted here")
        responders = manifest.responders
        seats = {seat.id for seat in self.terms.helpers}
        if list(responders) != sorted(set(responders)) or not set(responders) <= seats:
            raise CohortRefused("the responders are not distinct helpers in order")
        if len(responders) <= p.corrupt or self.seat.id not in responders:
            raise CohortRefused(f"responders {responders} do not include us or are too few")

    def _commit(self, release: int, round_number: int, content: bytes) -> None:
        """Bind this round to this manifest, on disk, before anything of it leaves."""
        before = self._answered.get((release, round_number))
        if before == content:
            return
        if before is not None:
            raise SecondManifest(release, round_number)
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        line = json.dumps([release, round_number, content.hex()]) + "\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, line.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._answered[(release, round_number)] = content

    def _share(self, manifest: Manifest, content: bytes) -> masking.Ring:
        """Masks that we own over the cohort, plus noise, plus our share of zero (mod 2^32)."""
        terms, p = self.terms, self.terms.parameters
        assert self._open is not None  # _check_manifest
        order = [seat.id for seat in terms.helpers]
        responders = tuple(order.index(h) for h in manifest.responders)
        owners = masking.owners(responders, p.helpers, p.corrupt)
        held = masking.seeds_of(self.index, p.helpers, p.corrupt)
        mine = [place for place, subset in enumerate(held) if owners[subset] == self.index]
        context = masking.round_context(terms.digest, terms.release, manifest.round, manifest.model)
        owned = {
            masking.member_context(context, member): [
                self._open.seeds[upload][1][place] for place in mine
            ]
            for member, upload in zip(manifest.cohort, manifest.uploads, strict=True)
        }
        share = masking.mask_share(owned, terms.dimension)
        pairs = {
            i: masking.derive(
                self._keys.x25519_exchange(terms.helpers[i].x25519), b"fedtrade zero", content
            )
            for i in responders
            if i != self.index
        }
        share += masking.zero_share(self.index, pairs, content, terms.dimension)
        variance = noise_variance(p.noise_multiplier, len(responders), p.corrupt)
        noise = skellam(self._keys.derive(b"fedtrade noise", content), variance, terms.dimension)
        share -= noise  # the coordinator subtracts shares, so the noise enters the sum
        return share
