"""A round, step by step: events in, values out.

`Round` collects uploads, hands each helper its boxes, judges complaints, fixes the manifest, and
adds up the answers. It reads no clock, opens no socket and holds no key: the shell that drives it
decides when a phase is over and passes in a signing function. What may happen when is the table
`protocol.ORDER`; anything else raises OutOfOrder.

Judging complaints. A complaint that reveals the key of a box with a wrong seed convicts its member.
Where a box does not open at all there is no such evidence, so more than c complaints convict the
member (one of the helpers is honest), and up to c take their helpers out of this round instead. If
too few helpers are left that way, the members complained of are left out.

The coordinator needs no trust for any of this: a helper answers only for uploads that it accepted
itself, under one manifest a round, and every verifier repeats the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedtrade.errors import Fault, Refusal, Stale
from fedtrade.privacy import masking
from fedtrade.privacy.aggregation import (
    check_upload,
    proven,
    unmask,
    vector_from_bytes,
)
from fedtrade.privacy.masking import Ring
from fedtrade.protocol import (
    ORDER,
    UNSIGNED,
    Announcement,
    Answer,
    Intake,
    Manifest,
    Ready,
    ReleaseTerms,
    SealedUpload,
    Sign,
    State,
    Step,
    Upload,
    WrongBinding,
    check,
    decode,
    sign_message,
)


class OutOfOrder(Fault):
    """A step that the table of the protocol does not allow in this state."""

    def __init__(self, state: State, step: Step) -> None:
        super().__init__(f"round is {state}: {step!r} may not happen now. Start a new round")
        self.state = state
        self.step = step


class AlreadyGiven(Refusal):
    """A second message from one author where one is allowed."""

    def __init__(self, kind: str, author: int) -> None:
        super().__init__(f"{kind} of {author} has been taken; a second one is not. Drop it")
        self.kind = kind
        self.author = author


class RoundAbandoned(Stale):
    """A round ends without a sum. Its ε counts as spent; a new round may begin."""

    def __init__(self, release: int, round_number: int, reason: str) -> None:
        super().__init__(
            f"round {round_number} of release {release} is abandoned: {reason}. "
            "No model came of it, its ε stays on every member's ledger; "
            "start the next round when that is mended"
        )
        self.release = release
        self.round = round_number
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Left:
    """Somebody who was left out of a round, and why: shown to operators, part of no message."""

    who: str
    why: str


class Round:
    """One round of one release, from the coordinator's side."""

    def __init__(self, terms: ReleaseTerms, number: int, model: bytes) -> None:
        self.terms = terms
        self.number = number
        self.model = model
        self.state: State = "collecting"
        self.left_out: list[Left] = []
        self.context = masking.round_context(terms.digest, terms.release, number, model)
        self.uploads: dict[int, Upload] = {}
        self.readies: dict[int, Ready] = {}
        self.answers: dict[int, Answer] = {}
        self.manifest: Manifest | None = None
        self._helper_index = {seat.id: i for i, seat in enumerate(terms.helpers)}

    def _step(self, step: Step) -> None:
        after = ORDER[self.state].get(step)
        if after is None:
            raise OutOfOrder(self.state, step)
        self.state = after

    def _header(self) -> dict[str, object]:
        return {
            "release": self.terms.release,
            "round": self.number,
            "terms": self.terms.digest,
            "model": self.model,
            "signature": UNSIGNED,
        }

    def announce(self, vector: bytes, sign: Sign) -> Announcement:
        """The signed message that opens the round for the members."""
        message = Announcement.model_validate({**self._header(), "vector": vector})
        return sign_message(self.terms, message, sign)

    def upload(self, data: bytes) -> int:
        """Take one member's upload; gives the member. Raises Refusal: drop that reply alone."""
        message = decode(Upload, data)
        check_upload(self.terms, message, self.number, self.model)
        member = message.statement.member
        if member in self.uploads:
            raise AlreadyGiven("Upload", member)
        self._step("upload")
        self.uploads[member] = message
        return member

    def close(self, sign: Sign) -> dict[int, Intake]:
        """End of collection: what each helper gets. Raises RoundAbandoned."""
        self._need_cohort(len(self.uploads))
        self._step("close")
        return {
            helper: sign_message(
                self.terms,
                Intake.model_validate(
                    {**self._header(), "uploads": tuple(self._sealed(helper).values())}
                ),
                sign,
            )
            for helper in self._helper_index
        }

    def _sealed(self, helper: int) -> dict[int, SealedUpload]:
        index = self._helper_index[helper]
        return {
            m: SealedUpload(statement=self.uploads[m].statement, box=self.uploads[m].boxes[index])
            for m in sorted(self.uploads)
        }

    def ready(self, data: bytes) -> int:
        """Take one helper's readiness; gives the helper. Raises Refusal: drop that reply alone."""
        message = decode(Ready, data)
        seat = self.terms.helper(message.helper)
        check(self.terms, message, seat.signer, self.number)
        if message.model != self.model:
            raise WrongBinding("Ready", "model", self.model.hex(), message.model.hex())
        if message.helper in self.readies:
            raise AlreadyGiven("Ready", message.helper)
        self._step("ready")
        self.readies[message.helper] = message
        return message.helper

    def commit(self, sign: Sign) -> Manifest:
        """Judge complaints and fix cohort and responders, once. Raises RoundAbandoned."""
        cohort, responders = self._judge()
        self._need_cohort(len(cohort))
        self._step("commit")
        self.manifest = sign_message(
            self.terms,
            Manifest.model_validate(
                {
                    **self._header(),
                    "cohort": tuple(cohort),
                    "uploads": tuple(self.uploads[m].statement.content() for m in cohort),
                    "responders": tuple(responders),
                }
            ),
            sign,
        )
        return self.manifest

    def _judge(self) -> tuple[list[int], list[int]]:
        """Cohort and responders after all complaints, both ascending."""
        corrupt = self.terms.parameters.corrupt
        cohort = set(self.uploads)
        complained: dict[int, set[int]] = {}
        for helper, message in self.readies.items():
            sealed = self._sealed(helper)
            for complaint in message.complaints:
                member = complaint.member
                if member not in sealed:
                    continue
                if complaint.statement != sealed[member].statement.content():
                    continue  # of another upload than the one we have
                complained.setdefault(member, set()).add(helper)  # a helper counts once
                context = masking.member_context(self.context, member)
                if member in cohort and proven(
                    self.terms, helper, sealed[member], complaint, context
                ):
                    cohort.discard(member)
                    self._leave(f"member {member}", f"helper {helper} proved a wrong seed")
        for member, helpers in complained.items():
            if member in cohort and len(helpers) > corrupt:
                cohort.discard(member)
                self._leave(f"member {member}", f"{len(helpers)} helpers could not open its box")
        responders = self._able(cohort)
        if len(responders) <= corrupt:
            for member in sorted(cohort & set(complained)):
                cohort.discard(member)
                self._leave(f"member {member}", "too few helpers could open its box")
            responders = self._able(cohort)
        if len(responders) <= corrupt:
            self.abandon(
                f"{len(responders)} of {len(self._helper_index)} helpers are ready and "
                f"{corrupt + 1} are needed to unmask; bring helpers up"
            )
        for helper in sorted(set(self.readies) - set(responders)):
            self._leave(f"helper {helper}", "it accepts too few uploads of the cohort")
        return sorted(cohort), responders

    def _able(self, cohort: set[int]) -> list[int]:
        wanted = {self.uploads[m].statement.content() for m in cohort}
        return sorted(h for h, r in self.readies.items() if wanted <= set(r.accepted))

    def answer(self, data: bytes) -> int:
        """Take one responder's share; gives the helper. Raises Refusal: drop that reply alone."""
        message = decode(Answer, data)
        if self.manifest is None or message.helper not in self.manifest.responders:
            raise WrongBinding(
                "Answer", "responder", self.manifest and self.manifest.responders, message.helper
            )
        check(self.terms, message, self.terms.helper(message.helper).signer, self.number)
        if message.manifest != self.manifest.content():
            raise WrongBinding(
                "Answer", "manifest", self.manifest.content().hex(), message.manifest.hex()
            )
        vector_from_bytes("Answer", message.share, self.terms.dimension)
        if message.helper in self.answers:
            raise AlreadyGiven("Answer", message.helper)
        self._step("answer")
        self.answers[message.helper] = message
        return message.helper

    def sum(self) -> tuple[Ring, tuple[int, ...]]:
        """The noisy sum of the cohort and its cohort. Raises RoundAbandoned when a share lacks.

        A responder that fails after the manifest ends the round: its masks have no other holder
        under this manifest, and a second manifest would be a second answer.
        """
        manifest = self.manifest
        if manifest is None:
            raise OutOfOrder(self.state, "sum")
        missing = sorted(set(manifest.responders) - set(self.answers))
        if missing:
            self.abandon(f"helpers {missing} were ready and did not answer")
        self._step("sum")
        masked = [self.uploads[m].masked for m in manifest.cohort]
        shares = [self.answers[h].share for h in manifest.responders]
        return unmask(self.terms, masked, shares), manifest.cohort

    def _need_cohort(self, size: int) -> None:
        least = self.terms.parameters.cohort_min
        if size < least:
            self.abandon(f"{size} members uploaded and a cohort has at least {least}")

    def abandon(self, reason: str) -> None:
        """End the round without a sum; always raises RoundAbandoned."""
        self._step("abandon")
        raise RoundAbandoned(self.terms.release, self.number, reason)

    def _leave(self, who: str, why: str) -> None:
        self.left_out.append(Left(who, why))


def drop_alone(
    take: Callable[[bytes], int], replies: Mapping[int, bytes], left_out: list[Left], role: str
) -> list[int]:
    """Feed replies one by one; whoever's reply is refused is left out alone, the rest go on."""
    taken = []
    for sender, data in replies.items():
        try:
            taken.append(take(data))
        except Refusal as refusal:
            left_out.append(Left(f"{role} {sender}", refusal.message))
    return taken
