"""The transcript on disk: appended frame by frame, fsynced, and enough to go on after a crash.

Beside it stands a one-line file with the number of the last round that was *begun*: a round that
crashed between the first upload and its frame is spent on the members' ledgers, so its number must
never be used again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

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


class TranscriptFile:
    """One release's transcript, open for appending."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._begun = path.with_suffix(".begun")
        self._closed = False

    def resume(self, terms: ReleaseTerms, base: bytes, trajectory: Trajectory) -> Iterator[int]:
        """Read what is there, replay it onto the trajectory, and give the rounds already spent.

        A frame that a crash cut short was never relied on: it is dropped. Raises Fault when the
        file is of other terms, or does not verify.
        """
        head = MAGIC + frame(terms) + frame(BaseFrame(artifact=base))
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._write(head, fresh=True)
            return
        data = self.path.read_bytes()
        if not data.startswith(head):
            raise Fault(
                f"{self.path} is the transcript of another release. "
                "Move it away, or give this release a folder of its own"
            )
        at = len(head)
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
                yield record.manifest.round
        except Unverified:
            os.truncate(self.path, at)
        if self._begun.exists():
            yield int(self._begun.read_text() or 0)

    def begin(self, number: int) -> None:
        """Remember that a round was begun, before its announcement leaves."""
        if self._closed:
            raise Fault(f"{self.path} is closed: the release has ended. Open a new release")
        draft = self._begun.with_suffix(".draft")
        with draft.open("w") as file:
            file.write(str(number))
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self._begun)

    def append(self, record: Parsed) -> None:
        """Add one round's frame, on disk when this returns."""
        self._write(frame(record))

    def close(self, spent: int, epsilon_micro: int, artifact_sha256: str) -> bytes:
        """Add the closing frame (once) and give the whole transcript."""
        if not self._closed:
            before = self.path.read_bytes()
            self._write(frame(closing(before, spent, epsilon_micro, artifact_sha256)))
            self._closed = True
        return self.path.read_bytes()

    def _write(self, data: bytes, fresh: bool = False) -> None:
        try:
            with self.path.open("xb" if fresh else "ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise Unavailable(
                str(self.path),
                f"the transcript cannot be written ({error.strerror})",
                "Free disk space and start the coordinator again; it goes on where it stopped",
            ) from None


def _is_closing(body: bytes) -> bool:
    try:
        return encode(decode(Closing, body)) == body
    except Malformed:
        return False
