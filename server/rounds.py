"""A round, step by step: events in, values out.

`Round` collects uploads, hands each helper its boxes, judges complaints and norms, fixes the
manifest, and adds up the answers. It reads no clock, opens no socket and holds no key: the shell
that drives it decides when a phase is over and passes in a signing function. What may happen when
is the table `protocol.ORDER`; anything else raises OutOfOrder.

Judging complaints. A complaint that reveals the key of a box with a wrong seed convicts its member.
Where a box does not open at all there is no such evidence, so more than c complaints convict the
member (one of the helpers is honest), and up to c take their helpers out of this round instead. If
too few helpers are left that way, the members complained of are left out.

The coordinator needs no trust for any of this: a helper answers only for uploads that it accepted
itself, under one manifest a round, and every verifier repeats the sum.

A coordinator that is killed feeds what it had stored into a new Round: every step is a function of
the messages taken, so it goes on at the same place with the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedtrade.errors import Fault, Refusal, Stale
from fedtrade.privacy import masking, norm
from fedtrade.privacy.aggregation import (
    Signed,
    answer_bytes,
    buckets_of,
    check_upload,
    norm_plan,
    proven,
    unmask,
)
from fedtrade.privacy.agreement import (
    NO_BEACON,
    beacon_of,
    check_form,
    draft_of,
    nonce_sha256,
    passing,
)
from fedtrade.privacy.transcript import RoundRecord
from fedtrade.protocol import (
    ORDER,
    UNSIGNED,
    Announcement,
    Answer,
    Approval,
    Check,
    Draw,
    Inspection,
    Intake,
    Malformed,
    Manifest,
    Masked,
    Question,
    Ready,
    ReleaseTerms,
    SealedUpload,
    Sign,
    State,
    Step,
    Upload,
    WrongBinding,
    check,
    content_in,
    decode,
    encode,
    sign_message,
    signing_digest,
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
        self.contents: dict[int, bytes] = {}
        """Content hash of each upload's statement."""
        self.readies: dict[int, Ready] = {}
        self.checks: dict[int, Check] = {}
        self.draws: dict[int, Draw] = {}
        self.approvals: dict[int, Approval] = {}
        self.answers: dict[int, Answer] = {}
        self.panel: Inspection | None = None
        self.drafted: Manifest | None = None
        """The manifest but for its beacon."""
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
        content = check_upload(self.terms, message, self.number, self.model)
        member = message.statement.member
        if member in self.uploads:
            raise AlreadyGiven("Upload", member)
        self._step("upload")
        self.uploads[member] = message
        self.contents[member] = content
        return member

    def close(self, sign: Sign) -> dict[int, bytes]:
        """End of collection: the encoded Intake of each helper. Raises RoundAbandoned."""
        self._need_cohort(len(self.uploads))
        self._step("close")
        return {
            helper: _signed(
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
            m: SealedUpload(statement=self.uploads[m].statement, box=self.uploads[m].box(index))
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

    def inspect(self, sign: Sign) -> dict[int, Inspection]:
        """What the helpers that are ready get, to check norms with. Raises RoundAbandoned."""
        cohort, responders = self._judge()
        self._need_cohort(len(cohort))
        self._step("inspect")
        self.panel = sign_message(
            self.terms,
            Inspection.model_validate(
                {
                    **self._header(),
                    "responders": tuple(responders),
                    "uploads": tuple(self.contents[m] for m in cohort),
                    "vectors": tuple(self.uploads[m].masked for m in cohort),
                }
            ),
            sign,
        )
        return dict.fromkeys(responders, self.panel)

    def check(self, data: bytes) -> int:
        """Take one helper's check words; gives the helper. Raises Refusal: drop that reply alone."""
        message = decode(Check, data)
        if self.panel is None or message.helper not in self.panel.responders:
            raise WrongBinding("Check", "helper", self.panel and "one present", message.helper)
        check(self.terms, message, self.terms.helper(message.helper).signer, self.number)
        asked = (self.panel.responders, self.panel.uploads, self.model)
        if (message.responders, message.uploads, message.model) != asked:
            raise WrongBinding("Check", "panel", "the one asked about", "another")
        if [len(w) for w in message.words] != [8 * norm.WORDS] * len(message.uploads):
            raise Malformed("Check", "not one whole set of words for each upload")
        if message.helper in self.checks:
            raise AlreadyGiven("Check", message.helper)
        self._step("check")
        self.checks[message.helper] = message
        return message.helper

    def draft(self, sign: Sign) -> Question:
        """Fix cohort and responders before the buckets are drawn. Raises RoundAbandoned."""
        manifest = self._settle()
        self._step("draft")
        self.drafted = sign_message(self.terms, manifest, sign)
        return self._shown(self.drafted)

    def draw(self, data: bytes) -> int:
        """Take one responder's nonce; gives the helper. Raises Refusal: drop that reply alone."""
        message = decode(Draw, data)
        drafted = self.drafted
        if drafted is None or message.helper not in drafted.responders:
            raise WrongBinding("Draw", "responder", drafted and drafted.responders, message.helper)
        check(self.terms, message, self.terms.helper(message.helper).signer, self.number)
        if message.draft != draft_of(drafted):
            raise WrongBinding("Draw", "draft", "this round's", message.draft.hex())
        if nonce_sha256(message.nonce) != self.readies[message.helper].nonce_sha256:
            raise Malformed("Draw", "not the nonce that it committed to")
        if message.helper in self.draws:
            raise AlreadyGiven("Draw", message.helper)
        self._step("draw")
        self.draws[message.helper] = message
        return message.helper

    def commit(self, sign: Sign) -> Manifest:
        """Make the round's one manifest: as drafted, with its beacon. Raises RoundAbandoned."""
        drafted = self.drafted
        if drafted is None:
            drafted = self._settle()
        else:
            missing = sorted(set(drafted.responders) - set(self.draws))
            if missing:
                self.abandon(f"helpers {missing} were ready and did not show their nonces")
            draws = [self.draws[h] for h in drafted.responders]
            drafted = drafted.model_copy(update={"beacon": beacon_of(draws)})
        self._step("commit")
        self.manifest = sign_message(self.terms, drafted, sign)
        return self.manifest

    def _settle(self) -> Manifest:
        """Judge complaints and norms: the unsigned manifest without a beacon."""
        cohort, responders = self._judge()
        if norm_plan(self.terms) is not None:
            cohort = self._within_norm(cohort)
        self._need_cohort(len(cohort))
        readies = [self.readies[h] for h in responders]
        draft = Manifest.model_validate(
            {
                **self._header(),
                "cohort": tuple(cohort),
                "uploads": tuple(self.contents[m] for m in cohort),
                "responders": tuple(responders),
                "readies": tuple(r.content() for r in readies),
                "beacon": NO_BEACON,
            }
        )
        p = self.terms.parameters
        try:
            check_form(self.terms, draft, p.bucket_min or p.cohort_min)
        except Malformed as problem:
            self.abandon(problem.problem)
        return draft

    def _within_norm(self, cohort: list[int]) -> list[int]:
        """Those of the cohort whose check words add up to zero. Raises RoundAbandoned."""
        panel = self.panel
        if panel is None:
            raise OutOfOrder(self.state, "commit")
        missing = sorted(set(panel.responders) - set(self.checks))
        if missing:
            self.abandon(f"helpers {missing} were ready and did not check norms")
        verdicts = passing(self.terms, self.checks, panel.uploads)
        good = [m for m in cohort if verdicts.get(self.contents[m], False)]
        for member in sorted(set(cohort) - set(good)):
            self._leave(f"member {member}", "its hidden norm is not shown to be within the bound")
        return good

    def question(self) -> Question:
        """The manifest with what a helper needs to judge it."""
        if self.manifest is None:
            raise OutOfOrder(self.state, "answer")
        return self._shown(self.manifest)

    def _shown(self, manifest: Manifest) -> Question:
        responders = manifest.responders
        return Question(
            manifest=manifest,
            readies=tuple(self.readies[h] for h in responders),
            draws=tuple(self.draws[h] for h in responders) if self.draws else (),
            checks=tuple(self.checks[h] for h in responders) if self.checks else (),
            approvals=tuple(self.approvals[h] for h in sorted(self.approvals)),
        )

    def approve(self, data: bytes) -> int:
        """Take one helper's approval; gives the helper. Raises Refusal: drop that reply alone."""
        message = decode(Approval, data)
        check(self.terms, message, self.terms.helper(message.helper).signer, self.number)
        if self.manifest is None or message.manifest != self.manifest.content():
            raise WrongBinding("Approval", "manifest", "this round's", message.manifest.hex())
        if message.helper in self.approvals:
            raise AlreadyGiven("Approval", message.helper)
        self._step("approve")
        self.approvals[message.helper] = message
        return message.helper

    def certified(self) -> None:
        """End the round unless enough helpers have approved. Raises RoundAbandoned."""
        if len(self.approvals) < self.terms.certificate_min:
            self.abandon(
                f"{len(self.approvals)} helpers approved the manifest and "
                f"{self.terms.certificate_min} are needed"
            )

    def _judge(self) -> tuple[list[int], list[int]]:
        """Cohort and responders after all complaints, both ascending."""
        corrupt = self.terms.parameters.corrupt
        cohort = set(self.uploads)
        complained: dict[int, set[int]] = {}
        for helper, message in self.readies.items():
            sealed = self._sealed(helper) if message.complaints else {}
            for complaint in message.complaints:
                member = complaint.member
                if member not in sealed:
                    continue
                if complaint.statement != self.contents[member]:
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
        needed = self.terms.responders_min
        responders = self._able(cohort)
        if len(responders) < needed:
            for member in sorted(cohort & set(complained)):
                cohort.discard(member)
                self._leave(f"member {member}", "too few helpers could open its box")
            responders = self._able(cohort)
        if len(responders) < needed:
            self.abandon(
                f"{len(responders)} of {len(self._helper_index)} helpers are ready and "
                f"{needed} are needed; bring helpers up"
            )
        for helper in sorted(set(self.readies) - set(responders)):
            self._leave(f"helper {helper}", "it accepts too few uploads of the cohort")
        return sorted(cohort), responders

    def _able(self, cohort: set[int]) -> list[int]:
        wanted = {self.contents[m] for m in cohort}
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
        groups = len(buckets_of(self.terms, self.manifest))
        if len(message.share) != answer_bytes(self.terms, groups):
            raise Malformed("Answer", f"a share of {len(message.share)} bytes")
        if message.helper in self.answers:
            raise AlreadyGiven("Answer", message.helper)
        self._step("answer")
        self.answers[message.helper] = message
        return message.helper

    def sum(self) -> list[Signed]:
        """The noisy sum of each group. Raises RoundAbandoned when a share lacks.

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
        masked = {m: self.uploads[m].masked for m in manifest.cohort}
        shares = [self.answers[h].share for h in manifest.responders]
        return unmask(self.terms, manifest, masked, shares)

    def record(self) -> RoundRecord:
        """The public messages of the round, for the transcript."""
        manifest = self.manifest
        if manifest is None:
            raise OutOfOrder(self.state, "sum")
        question = self.question()
        return RoundRecord(
            uploads=tuple(
                Masked(statement=self.uploads[m].statement, masked=self.uploads[m].masked)
                for m in manifest.cohort
            ),
            question=question,
            answers=tuple(self.answers[h] for h in manifest.responders),
        )

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
    """Feed replies one by one; whoever's reply is refused is left out alone, the rest go on.

    Gives the senders whose replies were taken.
    """
    taken = []
    for sender, data in replies.items():
        try:
            take(data)
            taken.append(sender)
        except Refusal as refusal:
            left_out.append(Left(f"{role} {sender}", refusal.message))
    return taken


def _signed(terms: ReleaseTerms, message: Intake, sign: Sign) -> bytes:
    """The encoding of a signed message, made once: it lists every member's statement."""
    data = encode(message)
    return data[: -len(UNSIGNED)] + sign(signing_digest(terms, message, content_in(data)))
