"""What the coordinator keeps on disk: enough to go on after a crash, at the same step.

`transcript.bin` is the release so far: appended frame by frame, fsynced, and it is the checkpoint.
`transcript.part` holds what was taken in the round that is under way, stage by stage: a coordinator
that is killed reads it and asks only for what it had not yet. `transcript.ended` has the number of
the last round that ended without a sum; such a number is never used again.

Uploads, readiness and check words are kept before anything is built on them, so the manifest that
follows from them is the same after a restart: there is never a second one for a round.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Annotated, Final

import msgspec

from fedtrade.errors import Fault, Unavailable
from fedtrade.parameters import Parsed
from fedtrade.privacy.aggregation import Trajectory
from fedtrade.privacy.transcript import (
    MAGIC,
    BaseFrame,
    Closing,
    RoundRecord,
    Unverified,
    apply_record,
    closing,
    frame,
    read_frames,
)
from fedtrade.protocol import Malformed, ReleaseTerms, decode, encode

PART_MAGIC: Final = b"fedtrade round 2\n"


class TranscriptFile:
    """One release's transcript, open for appending."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ended = path.with_suffix(".ended")
        self._part = path.with_suffix(".part")
        self._closed = False
        self._stages: dict[tuple[int, str], list[bytes]] = {}

    @property
    def closed(self) -> bool:
        """Whether the release has ended."""
        return self._closed

    def resume(self, terms: ReleaseTerms, base: bytes, trajectory: Trajectory) -> int:
        """Read what is there, replay it onto the trajectory; gives the last round that ended.

        A last frame that a crash cut short was never relied on: it is dropped. Raises Fault when
        the file is of other terms, does not verify, or ends before rounds that were ended.
        """
        head = MAGIC + frame(terms) + frame(BaseFrame(artifact=base))
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _replace(self.path, [head])
            return 0
        data = self.path.read_bytes()
        if not data.startswith(head):
            raise Fault(
                f"{self.path} is the transcript of another release. "
                "Move it away, or give this release a folder of its own"
            )
        last, at, torn = 0, len(head), False
        try:
            for offset, body in read_frames(data):
                if offset < len(head):
                    continue
                if _is_closing(body):
                    self._closed = True
                    at = offset
                    break
                record = decode(RoundRecord, body)
                apply_record(trajectory, record)
                at = offset + 4 + len(body)
                last = record.question.manifest.round
        except Unverified:
            torn = True
        last = max(last, _read_ended(self._ended))
        self._stages = dict(_read_part(self._part))
        begun = max((number for number, _ in self._stages), default=0)
        if begun > last + 1:  # a round begins when the one before is on the disk
            raise _damaged(self.path, f"rounds {last + 1} to {begun - 1} are gone or damaged")
        if torn:
            os.truncate(self.path, at)
        return last

    def kept(self, number: int, stage: str) -> list[bytes] | None:
        """What was taken in a stage of the round under way, or None where it had not ended."""
        return self._stages.get((number, stage))

    def keep(self, number: int, stage: str, bodies: Sequence[bytes]) -> None:
        """Keep what was taken in a stage, on disk, before anything is built on it."""
        if self._closed:
            raise Fault(f"{self.path} is closed: the release has ended. Open a new release")
        head = msgspec.msgpack.encode((number, stage, [len(body) for body in bodies]))
        parts = (len(head).to_bytes(4, "big"), head, *bodies)  # written apart: they are large
        if any(of == number for of, _ in self._stages):
            _append(self._part, parts)
        else:
            _replace(self._part, (PART_MAGIC, *parts))
            self._stages = {}
        self._stages[(number, stage)] = list(bodies)

    def end(self, number: int) -> None:
        """Remember that a round ended without a sum."""
        _replace(self._ended, [str(number).encode()])

    def append(self, record: Parsed) -> None:
        """Add one round's frame, on disk when this returns."""
        body = encode(record)
        _append(self.path, (len(body).to_bytes(4, "big"), body))

    def close(self, spent: int, epsilon_micro: int, artifact_sha256: str) -> bytes:
        """Add the closing frame (once) and give the whole transcript."""
        if not self._closed:
            before = self.path.read_bytes()
            _append(self.path, [frame(closing(before, spent, epsilon_micro, artifact_sha256))])
            self._closed = True
        return self.path.read_bytes()


def _append(path: Path, parts: Iterable[bytes]) -> None:
    try:
        with path.open("ab") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _unwritable(path, error) from None


def _replace(path: Path, parts: Iterable[bytes]) -> None:
    """The whole file or the old one: readers never see half."""
    draft = path.with_name(path.name + ".draft")
    try:
        with draft.open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> Unavailable:
    return Unavailable(
        str(path),
        f"cannot be written ({error.strerror})",
        "Free disk space and start the coordinator again; it goes on where it stopped",
    )


def _damaged(path: Path, problem: str) -> Fault:
    return Fault(
        f"{path}: {problem}. Restore the folder from your backup; with an older copy the members "
        "refuse rounds that they have paid, so then open a new release"
    )


def _read_ended(path: Path) -> int:
    """The last round that ended without a sum."""
    if not path.exists():
        return 0
    data = path.read_bytes()
    if not data.isdigit() or len(data) > 10:
        raise _damaged(path, "it holds no number of a round")
    return int(data)


def _read_part(path: Path) -> Iterator[tuple[tuple[int, str], list[bytes]]]:
    """The stages of the round under way. A torn last stage was never built on: it is left out."""
    if not path.exists():
        return
    data = path.read_bytes()
    if not data.startswith(PART_MAGIC):
        raise Fault(
            f"{path} is of another version of fedtrade. End the round with that version, or move the "
            "file away: then the round is asked for again, and whoever has answered answers the same"
        )
    at = len(PART_MAGIC)
    while at + 4 <= len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            return
        try:
            number, stage, sizes = msgspec.msgpack.decode(
                data[at + 4 : end], type=tuple[int, str, list[Annotated[int, msgspec.Meta(ge=0)]]]
            )
        except msgspec.MsgspecError:
            raise _damaged(path, f"what is at byte {at} cannot be read") from None
        ends = list(accumulate(sizes, initial=end))
        if ends[-1] > len(data):
            return
        yield (number, stage), [data[a:b] for a, b in pairwise(ends)]
        at = ends[-1]


def _is_closing(body: bytes) -> bool:
    try:
        return encode(decode(Closing, body)) == body
    except Malformed:
        return False
