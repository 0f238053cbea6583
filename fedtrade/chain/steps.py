"""The steps of a deployment, on disk before they happen.

One file of JSON lines beside the deployment file. A transaction's signed bytes stand in it before
they are sent, and its receipt afterwards; each line is fsynced. Whoever is killed at any moment
starts again, finds the bytes, and sends the same ones: their nonce is used once, so what they create
is created once. A half line at the end is what a killed writer leaves, and is cut off.

The file holds nothing secret: what it has is public as soon as it is sent.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import Field, ValidationError

from fedtrade.errors import BadInput, Unavailable
from fedtrade.settings import Strict

LINES_MAX: Final = 4_096
LINE_MAX_BYTES: Final = 262_144
Hash = Annotated[str, Field(pattern="^0x[0-9a-f]{64}$")]
Name = Annotated[str, Field(min_length=1, max_length=128)]


class Begun(Strict):
    """The first line: what is deployed, and by whom. Another plan begins another file."""

    plan: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    founder: str


class Attempt(Strict):
    """A signed transaction of a step. Those of one step have one nonce, and so one effect."""

    step: Name
    nonce: Annotated[int, Field(ge=0, lt=2**64)]
    raw: Annotated[str, Field(pattern="^0x[0-9a-f]+$")]
    transaction: Hash


class Mined(Strict):
    """A step whose transaction is in a block, whether it had its effect, and what it created."""

    mined: Name
    transaction: Hash
    succeeded: bool
    block: Annotated[int, Field(ge=0, lt=2**63)]
    gas: Annotated[int, Field(ge=0, lt=2**63)]
    created: str | None = None


class Dropped(Strict):
    """A step whose attempts will never be mined: its nonce went to another transaction."""

    dropped: Name


class _Line(Strict):
    line: Begun | Attempt | Mined | Dropped


class Steps:
    """What was attempted and what is done. With no path it is kept in memory only."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._file: int | None = None
        self._lines = 0
        self.begun: Begun | None = None
        self.attempts: dict[str, list[Attempt]] = {}
        self.mined: dict[str, Mined] = {}

    @classmethod
    def open(cls, path: Path, begun: Begun) -> Self:
        """Go on with the file, or begin it. Raises BadInput if it is of another plan or founder."""
        steps = cls(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            steps._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise Unavailable(
                str(path), f"cannot be written ({error.strerror})", "Choose another --out"
            ) from error
        try:
            fcntl.flock(steps._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            steps.close()
            raise Unavailable(
                str(path), "another process is deploying with it", "Wait until it has ended"
            ) from None
        try:
            steps._read()
            if steps.begun is None:
                steps.add(begun)
            elif steps.begun != begun:
                raise BadInput(
                    str(path),
                    f"this deployment was begun with another {_difference(steps.begun, begun)}",
                    "Go on with that one, or choose another --out for a new deployment",
                )
        except BaseException:
            steps.close()
            raise
        return steps

    def close(self) -> None:
        """Let another process go on with the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, line: Begun | Attempt | Mined | Dropped) -> None:
        """Write one line, durably, and count it in."""
        if self._lines >= LINES_MAX:
            raise BadInput(
                str(self._path), f"over {LINES_MAX} lines", "Something repeats: look at the chain"
            )
        if self._file is not None:
            content = line.model_dump_json(exclude_none=True).encode() + b"\n"
            if len(content) > LINE_MAX_BYTES:
                raise BadInput(str(self._path), "a line is too long", "Admit fewer seats in a step")
            os.lseek(self._file, 0, os.SEEK_END)
            while content:
                content = content[os.write(self._file, content) :]
            os.fsync(self._file)
        self._count(line)

    def _count(self, line: Begun | Attempt | Mined | Dropped) -> None:
        self._lines += 1
        if isinstance(line, Begun):
            self.begun = line
        elif isinstance(line, Attempt):
            self.attempts.setdefault(line.step, []).append(line)
        elif isinstance(line, Dropped):
            self.attempts.pop(line.dropped, None)
            self.mined.pop(line.dropped, None)
        elif line.succeeded:
            self.mined[line.mined] = line
        else:  # it reverted, and its nonce is used: the step is still to be done
            self.attempts.pop(line.mined, None)

    def _read(self) -> None:
        assert self._file is not None
        size = os.fstat(self._file).st_size
        if size > LINES_MAX * LINE_MAX_BYTES // 64:
            raise BadInput(str(self._path), "this is no file of steps", "Choose another --out")
        content = os.pread(self._file, size, 0)
        whole, _, half = content.rpartition(b"\n")
        if half:
            os.ftruncate(self._file, len(content) - len(half))
        for number, text in enumerate(whole.splitlines(), 1):
            try:
                line = _Line.model_validate_json(b'{"line":' + text + b"}").line
            except ValidationError as error:
                raise BadInput(
                    f"{self._path}:{number}", "not a step", "Restore the file; do not edit it"
                ) from error
            if isinstance(line, Begun) != (number == 1):
                raise BadInput(
                    f"{self._path}:{number}", "out of place", "Restore the file; do not edit it"
                )
            self._count(line)


def _difference(one: Begun, other: Begun) -> str:
    return "plan" if one.plan != other.plan else "account"
