"""An append-only file that cannot be shortened unnoticed: hash-chained lines, with the head beside.

One line of JSON an entry; each holds the hash of the line before and its own. Beside the file stands
`<name>.head`: how many lines there are, and the last hash. An entry is written in this order:

    line → fsync → head → what the entry permits (an upload, an answer) leaves

so after a crash or a power cut at any byte there are only these cases, and each has one outcome:

* the file is what the head says: nothing was lost;
* the file has whole lines beyond the head (a power cut may take the head's last change back): they
  fit the chain and are kept. A torn line beyond it was never acted on: it is cut off;
* the file ends before the head, a line does not fit the chain, or the head cannot be read: something
  that was acted on is gone. That is a Fault, never repaired here.

The head is not synced by itself: it is there to notice a *file* that was cut, and a head that is one
line behind still notices all but the last. Syncing it would double what an upload waits for.

An old copy of *both* files looks whole; who needs to notice that asks somebody else for the head
(`clients.budget`: the home chain).

A lock on the file keeps a second process out.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from fedtrade.errors import Fault, Unavailable

GENESIS: Final = "0" * 64
LINES_MAX: Final = 10_000_000
HEAD_BYTES: Final = 96

Entry = Mapping[str, Any]


class LedgerDamaged(Fault):
    """A line was altered, lost, or torn where it must be whole."""

    def __init__(self, path: Path, line: int, problem: str) -> None:
        super().__init__(
            f"{path}, line {line}: {problem}. Nothing more is done until it is whole again: "
            "restore it and its .head from your backup; never delete lines"
        )
        self.path = path
        self.line = line
        self.problem = problem


def chained(entry: Entry, previous: str) -> dict[str, Any]:
    """The entry with the hash of the line before and its own."""
    body = {**entry, "previous": previous}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return {**body, "hash": hashlib.sha256(text.encode()).hexdigest()}


class Ledger:
    """One such file, open for appending by this process alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.head = GENESIS
        self.count = 0
        """Lines of the file, appended ones included."""
        self.entries: list[dict[str, Any]] = []
        """What stood in the file when it was opened; what is appended is not kept in memory."""
        self.hashes: list[str] = []
        """The hash of the line of each of these entries."""
        self._head_path = path.with_name(path.name + ".head")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise Unavailable(
                str(path),
                f"cannot be opened ({error.strerror})",
                "Check the folder and its rights; without this file no round is joined",
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise Unavailable(
                str(path),
                "another process holds this file",
                "Stop the other process first: one file, one writer",
            ) from None
        try:
            self._replay()
        except LedgerDamaged:
            self.close()
            raise

    def _replay(self) -> None:
        data = self.path.read_bytes()
        whole, torn = data.rsplit(b"\n", 1) if b"\n" in data else (b"", data)
        lines = whole.split(b"\n") if whole else []
        count, head = self._read_head(len(lines))
        for number, raw in enumerate(lines[:LINES_MAX], start=1):
            try:
                line = json.loads(raw)
                entry = {k: v for k, v in line.items() if k not in ("previous", "hash")}
                fits = chained(entry, self.head) == line
            except (ValueError, AttributeError, RecursionError):
                raise LedgerDamaged(self.path, number, "it cannot be read") from None
            if not fits:
                raise LedgerDamaged(self.path, number, "it does not fit the chain of hashes")
            self._follow(line["hash"])
            self.entries.append(entry)
            self.hashes.append(self.head)
            if number == count and self.head != head:
                raise LedgerDamaged(self.path, number, "it is not the line that .head names")
        if len(lines) < count:
            raise LedgerDamaged(
                self.path, len(lines) + 1, f"{count} lines were written, {len(lines)} are left"
            )
        if torn:  # beyond the head: written by a process that did not live to act on it
            os.ftruncate(self._file, len(data) - len(torn))
            os.fsync(self._file)
        if len(lines) > count:
            self._write_head()

    def _read_head(self, lines: int) -> tuple[int, str]:
        """(lines, hash of the last) that were acted on."""
        try:
            count, head = json.loads(self._head_path.read_bytes())
            if not (isinstance(count, int) and isinstance(head, str) and count >= 1):
                raise ValueError
        except FileNotFoundError:
            if lines > 1:  # with one line, its writer did not live to write the first head
                raise LedgerDamaged(self._head_path, 1, "it is gone") from None
            return 0, GENESIS
        except (ValueError, TypeError, RecursionError):
            raise LedgerDamaged(self._head_path, 1, "it cannot be read") from None
        return count, head

    def append(self, entry: Entry) -> str:
        """Put one entry on the disk, and the head after it; gives its hash. Raises Unavailable.

        When this returns, what the entry permits may be done.
        """
        line = chained(entry, self.head)
        text = json.dumps(line, sort_keys=True, separators=(",", ":"), allow_nan=False)
        body = text.encode() + b"\n"
        try:
            written = os.write(self._file, body)
            os.fsync(self._file)
        except OSError as error:
            raise self._unwritable(error) from None
        if written != len(body):
            raise LedgerDamaged(self.path, self.count + 1, "cut off by a full disk")
        self._follow(line["hash"])
        self._write_head()
        return self.head

    def _follow(self, line_hash: str) -> None:
        self.head = line_hash
        self.count += 1

    def _write_head(self) -> None:
        """In place and of one length: a process that is killed leaves the old head or the new one."""
        text = json.dumps([self.count, self.head]).encode().ljust(HEAD_BYTES)
        try:
            descriptor = os.open(self._head_path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.pwrite(descriptor, text, 0)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> Unavailable:
        return Unavailable(
            str(self.path),
            f"cannot be written ({error.strerror})",
            "Free disk space; nothing was sent",
        )

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
