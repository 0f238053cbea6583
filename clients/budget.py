"""The only spender of a member's ε: an append-only, hash-chained ledger, fsynced before an upload.

One line of JSON a round: what happened (release, round, sampling rate, noise multiplier), the hash
of the line before and its own. What it costs is computed from the lines (`privacy.accounting`), so
the same file can be re-audited with a better accountant. The ledger is replayed at every start; a
line that does not fit its chain is a Fault, never skipped, because a forgotten line is ε spent
twice. The limit is the member's own and nothing received can raise it.

A lock on the file keeps a second process from spending beside us.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError

from fedtrade.errors import Fault, Refusal, Unavailable
from fedtrade.parameters import Parsed
from fedtrade.privacy.accounting import (
    Epsilon,
    Overspent,
    Spend,
    affordable_rounds,
    epsilon,
    epsilon_rdp,
)
from fedtrade.protocol import Count, Hex32, RoundNumber

GENESIS = "0" * 64


class LedgerDamaged(Fault):
    """A line of the ledger was altered, lost in the middle, or torn."""

    def __init__(self, path: Path, line: int, problem: str) -> None:
        super().__init__(
            f"{path}, line {line}: {problem}. Nothing is spent until it is whole again: "
            "restore the ledger from your backup; never delete lines, ε would be spent twice"
        )
        self.path = path
        self.line = line
        self.problem = problem


class RoundAlreadyPaid(Refusal):
    """A second upload for a round: a repeated or replayed announcement."""

    def __init__(self, release: int, round_number: int) -> None:
        super().__init__(
            f"round {round_number} of release {release} is already on the ledger; "
            "one upload a round. Wait for the next round"
        )
        self.release = release
        self.round = round_number


class Line(Parsed):
    """One round's spending, as it stands in the file."""

    release: Count
    round: RoundNumber
    sampling_rate: Annotated[float, Field(gt=0, le=1)]
    noise_multiplier: Annotated[float, Field(gt=0)]
    previous: Hex32
    hash: Hex32

    def expected_hash(self) -> str:
        body = self.model_dump(exclude={"hash"})
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


class Budget:
    """A member's ledger of ε, open for spending."""

    def __init__(self, path: Path, limit: float, delta: float) -> None:
        self.path = path
        self.limit = limit
        self.delta = delta
        self.head = GENESIS
        self._paid: set[tuple[int, int]] = set()
        self._rounds: Counter[tuple[float, float]] = Counter()
        self._left: tuple[tuple[float, float], int] | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise Unavailable(
                str(path),
                f"the ledger cannot be opened ({error.strerror})",
                "Check the folder and its rights; without a ledger no round is joined",
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise Unavailable(
                str(path),
                "another process holds this ledger",
                "Stop the other member process first: one ledger, one spender",
            ) from None
        try:
            self._replay()
        except LedgerDamaged:
            self.close()
            raise

    def _replay(self) -> None:
        data = self.path.read_bytes()
        lines = data.split(b"\n")
        if lines.pop() != b"":
            raise LedgerDamaged(self.path, len(lines) + 1, "the last line is torn")
        for number, raw in enumerate(lines, start=1):
            try:
                line = Line.model_validate_json(raw)
            except ValidationError:
                raise LedgerDamaged(self.path, number, "it cannot be read") from None
            if line.previous != self.head or line.hash != line.expected_hash():
                raise LedgerDamaged(self.path, number, "it does not fit the chain of hashes")
            self._remember(line)

    def _remember(self, line: Line) -> None:
        self.head = line.hash
        self._paid.add((line.release, line.round))
        self._rounds[(line.sampling_rate, line.noise_multiplier)] += 1

    @property
    def spends(self) -> tuple[Spend, ...]:
        """All that was spent, by kind."""
        return tuple(Spend(q, z, n) for (q, z), n in sorted(self._rounds.items()))

    def epsilon(self) -> Epsilon:
        """What it has cost so far."""
        return epsilon(self.spends, self.delta)

    def rounds_left(self, sampling_rate: float, noise_multiplier: float) -> int:
        """How many more rounds of this kind the limit allows."""
        kind = (sampling_rate, noise_multiplier)
        if self._left is None or self._left[0] != kind or self._left[1] < 1:
            left = affordable_rounds(
                self.spends, sampling_rate, noise_multiplier, self.delta, self.limit
            )
            self._left = (kind, left)
        return self._left[1]

    def spend(self, release: int, round_number: int, sampling_rate: float, noise: float) -> None:
        """Put one round on the ledger and on the disk. Raises Overspent or RoundAlreadyPaid.

        When this returns, the round counts as spent whatever happens to the upload.
        """
        if (release, round_number) in self._paid:
            raise RoundAlreadyPaid(release, round_number)
        left = self.rounds_left(sampling_rate, noise)
        if left < 1:
            would_be = epsilon_rdp((*self.spends, Spend(sampling_rate, noise, 1)), self.delta)
            raise Overspent(self.limit, would_be)
        draft = Line(
            release=release,
            round=round_number,
            sampling_rate=sampling_rate,
            noise_multiplier=noise,
            previous=self.head,
            hash=GENESIS,
        )
        line = draft.model_copy(update={"hash": draft.expected_hash()})
        body = json.dumps(line.model_dump(), sort_keys=True, separators=(",", ":")).encode() + b"\n"
        try:
            written = os.write(self._file, body)
            os.fsync(self._file)
        except OSError as error:
            raise Unavailable(
                str(self.path),
                f"the ledger cannot be written ({error.strerror})",
                "Free disk space; nothing was sent",
            ) from None
        if written != len(body):
            raise LedgerDamaged(self.path, len(self._paid) + 1, "a line was cut off by a full disk")
        self._remember(line)
        self._left = ((sampling_rate, noise), left - 1)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
