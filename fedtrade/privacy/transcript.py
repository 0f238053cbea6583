"""All that a release made public to its members, as one file, and its verification.

The file is a magic line and length-prefixed frames: the terms, the base artifact, one frame a round
(statements with masked vectors, readiness, manifest, answers), and a closing frame with the
published hash and the hash of every byte before it. It holds no sealed box and no seed.

`verify` recomputes everything from the base: every signature, every hash, cohort and responders of
each round, each sum, each optimiser step, and at last the artifact's bytes. Whatever was altered,
left out or added is named. Nothing is trusted but the registry's word for the terms' digest and the
published hash, which the caller may pass in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field

from fedtrade.artifact import load, sha256_of
from fedtrade.errors import BadInput, FedtradeError, Refusal
from fedtrade.parameters import Parsed
from fedtrade.privacy.aggregation import (
    Trajectory,
    check_masked,
    check_statement,
    epsilon_micro,
    unmask,
)
from fedtrade.privacy.agreement import (
    check_certificate,
    check_draws,
    check_form,
    check_norms,
    check_readies,
)
from fedtrade.protocol import (
    Answer,
    Count,
    Hex32,
    Malformed,
    Masked,
    Question,
    ReleaseTerms,
    WrongBinding,
    check,
    decode,
    encode,
)

M = TypeVar("M", bound=Parsed)

MAGIC = b"fedtrade transcript 1\n"
FRAME_BYTES_MAX = 256 * 2**20
EPSILON_TOLERANCE_MICRO = 1_000
"""Accountants on different machines may differ in the last digits of a float, not by 1e-3."""


class Unverified(Refusal):
    """A transcript that does not prove the model that it claims to prove."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"transcript, {where}: {problem}. Do not sign or load this model")
        self.where = where
        self.problem = problem


class RoundRecord(Parsed):
    """The public messages of one round that ended in a sum."""

    uploads: tuple[Masked, ...]
    question: Question
    """The manifest, with what made it one that helpers answer."""
    answers: tuple[Answer, ...]


class BaseFrame(Parsed):
    artifact: Annotated[bytes, Field(max_length=64 * 2**20)]


class Closing(Parsed):
    """The end of a release."""

    rounds_spent: Count
    """Rounds that were begun, abandoned ones included: what the ledgers were charged for."""
    epsilon_micro: Count
    artifact_sha256: Hex32
    before_sha256: Hex32
    """sha256 of every byte of the file before this frame."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What a transcript proves."""

    artifact_sha256: str
    artifact: bytes
    terms: ReleaseTerms
    steps: int
    rounds_spent: int
    epsilon_micro: int


def frame(message: Parsed) -> bytes:
    """One length-prefixed frame."""
    body = encode(message)
    return len(body).to_bytes(4, "big") + body


def closing(before: bytes, rounds_spent: int, micro: int, artifact_sha256: str) -> Closing:
    """The closing frame of a transcript whose bytes so far are `before`."""
    return Closing(
        rounds_spent=rounds_spent,
        epsilon_micro=micro,
        artifact_sha256=artifact_sha256,
        before_sha256=hashlib.sha256(before).hexdigest(),
    )


def read_frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(offset, body) of each frame. Raises Unverified where the framing is torn."""
    for at, end in _spans(data):
        yield at, data[at + 4 : end]


def _spans(data: bytes) -> Iterator[tuple[int, int]]:
    """(offset, end) of each frame: a transcript is large, and its frames need not all be copied."""
    if not data.startswith(MAGIC):
        raise Unverified("header", "this is not a fedtrade transcript")
    at = len(MAGIC)
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 4 + length
        if length > FRAME_BYTES_MAX or end > len(data):
            raise Unverified(f"byte {at}", "a frame is torn or its length was altered")
        yield at, end
        at = end


def verify_file(
    path: Path, expect_sha256: str | None = None, progress: Callable[[int, int], None] | None = None
) -> Verified:
    """`verify` of a file. Raises BadInput where it cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(
            str(path), f"cannot be read ({error.strerror})", "Give the path of a transcript file"
        ) from None
    return verify(data, expect_sha256, progress)


def verify(
    data: bytes,
    expect_sha256: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Verified:
    """Recompute a release from its transcript. Raises Unverified, naming what is wrong and where."""
    spans = list(_spans(data))
    if len(spans) < 3:
        raise Unverified("end", "frames are missing; the file is cut short")

    def body(number: int) -> bytes:
        at, end = spans[number]
        return data[at + 4 : end]

    terms = _parse(ReleaseTerms, body(0), "terms")
    base_bytes = _parse(BaseFrame, body(1), "base artifact").artifact
    with _Naming("base artifact"):
        trajectory = Trajectory(terms, load(base_bytes, terms.base_sha256))
    end = _parse(Closing, body(-1), "closing frame")
    last = 0
    for index in range(len(spans) - 3):
        record = _parse(RoundRecord, body(index + 2), f"frame {index + 3}")
        number = record.question.manifest.round
        with _Naming(f"round {number}"):
            if number <= last:
                raise Malformed("Manifest", f"round {number} follows round {last}")
            apply_record(trajectory, record)
        last = number
        if progress is not None:
            progress(index + 1, len(spans) - 3)
    if hashlib.sha256(memoryview(data)[: spans[-1][0]]).hexdigest() != end.before_sha256:
        raise Unverified("closing frame", "the bytes before it were altered")
    if not last <= end.rounds_spent <= terms.parameters.rounds:
        raise Unverified("closing frame", f"{end.rounds_spent} rounds cannot have been spent")
    claimed = epsilon_micro(terms, end.rounds_spent)
    if abs(claimed - end.epsilon_micro) > EPSILON_TOLERANCE_MICRO:
        raise Unverified("closing frame", f"ε is {claimed} micro, not {end.epsilon_micro}")
    artifact = trajectory.artifact(end.epsilon_micro)
    found = sha256_of(artifact)
    for source, wanted in (("closing frame", end.artifact_sha256), ("registry", expect_sha256)):
        if wanted is not None and wanted != found:
            raise Unverified(source, f"the rounds give artifact {found}, not {wanted}")
    return Verified(found, artifact, terms, trajectory.steps, end.rounds_spent, end.epsilon_micro)


def apply_record(trajectory: Trajectory, record: RoundRecord) -> None:
    """Check one round completely and take its step. Raises Refusal naming what is wrong."""
    terms, manifest = trajectory.terms, record.question.manifest
    check(terms, manifest, terms.coordinator, manifest.round)
    if manifest.model != trajectory.model:
        raise WrongBinding("Manifest", "model", trajectory.model.hex(), manifest.model.hex())
    p = terms.parameters
    if len(manifest.cohort) < p.cohort_min:
        raise Malformed("Manifest", f"a cohort of {len(manifest.cohort)} is below the minimum")
    check_form(terms, manifest, p.bucket_min or p.cohort_min)
    _check_uploads(trajectory, record)
    check_readies(terms, manifest, record.question.readies)
    check_norms(terms, manifest, record.question.checks)
    check_draws(terms, record.question)
    if p.agreement == "certificate":
        check_certificate(terms, manifest, record.question.approvals)
    _check_answers(trajectory, record)
    masked = {u.statement.member: u.masked for u in record.uploads}
    sums = unmask(terms, manifest, masked, [a.share for a in record.answers])
    trajectory.step(manifest, sums)


def _check_uploads(trajectory: Trajectory, record: RoundRecord) -> None:
    terms, manifest = trajectory.terms, record.question.manifest
    found = tuple(u.statement.member for u in record.uploads)
    for member in manifest.cohort:
        if member not in found:
            raise Malformed("Upload", f"the upload of member {member} is missing")
    if found != manifest.cohort:
        raise Malformed("Upload", f"uploads of {found} do not match the cohort {manifest.cohort}")
    model = trajectory.model
    for upload, signed in zip(record.uploads, manifest.uploads, strict=True):
        member = upload.statement.member
        with _Naming(f"upload of member {member}"):
            content = check_statement(terms, upload.statement, manifest.round, model)
            check_masked(terms, upload.statement, upload.masked)
            if content != signed:
                raise Malformed("Upload", "it is not the one in the manifest")


def _check_answers(trajectory: Trajectory, record: RoundRecord) -> None:
    terms, manifest = trajectory.terms, record.question.manifest
    answered = tuple(a.helper for a in record.answers)
    for helper in manifest.responders:
        if helper not in answered:
            raise Malformed("Answer", f"the share of helper {helper} is missing")
    if answered != manifest.responders:
        raise Malformed("Answer", f"answers of {answered} do not match {manifest.responders}")
    for answer in record.answers:
        with _Naming(f"share of helper {answer.helper}"):
            check(terms, answer, terms.helper(answer.helper).signer, manifest.round)
            if answer.manifest != manifest.content():
                raise WrongBinding(
                    "Answer", "manifest", manifest.content().hex(), answer.manifest.hex()
                )


def _parse(kind: type[M], body: bytes, where: str) -> M:
    with _Naming(where):
        return decode(kind, body)


class _Naming:
    """Turns a refusal inside into Unverified with the place's name in front."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Unverified):
            raise Unverified(f"{self.where}, {error.where}", error.problem) from error
        if isinstance(error, (FedtradeError, ValueError)):
            raise Unverified(self.where, str(error).rstrip(".")) from error
