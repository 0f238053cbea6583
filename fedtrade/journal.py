"""What an agent saw and did, in a form that can be proved later: append-only, hash-chained JSONL.

A record is one line of canonical JSON (sorted keys, no spaces, no NaN):

    {"body": …, "hash": h_n, "kind": …, "prev": h_{n-1}, "seq": n}
    h_n = sha256(canonical({"body", "kind", "prev": h_{n-1}, "seq": n})),   h_{-1} = 64 zeros

An agent is deterministic, so events are enough to make its receipts and actions again. `replay`
does that, compares record by record, and names the first one that was altered (the chain is broken)
or that comes out differently (the chain is whole, but forged anew, or the code is another).

Order on disk is a promise: an event stands before what it caused, and `sync` has returned before an
action leaves the process. So after a crash the file can lack only what never had an effect: an
incomplete last line was never synced, it is cut off and the next record says so. Everything else
that does not fit is an alteration and is named by its sequence number, never repaired.

How events and actions become JSON is told in `market/encoding.py`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Protocol, Self, get_args

from fedtrade.errors import Fault, FedtradeError, Unavailable
from fedtrade.market.actions import Action, ProvideLiquidity, SwapExactInput, WithdrawLiquidity
from fedtrade.market.encoding import Body, canonical, decode, encode, plain
from fedtrade.market.events import Event

Kind = Literal["start", "event", "receipt", "action", "note"]

GENESIS: Final = "0" * 64
MAX_LINE_BYTES: Final = 16 * 2**20
_KINDS: Final[frozenset[str]] = frozenset(get_args(Kind))
_RECORD_KEYS: Final = frozenset({"body", "hash", "kind", "prev", "seq"})


class JournalAltered(Fault):
    """A record is not what was written: its text, its place or its hash does not fit."""

    def __init__(self, path: Path, seq: int, problem: str) -> None:
        super().__init__(
            f"{path}: record {seq} was altered ({problem}). "
            "Do not act on this journal; compare it with your backup."
        )
        self.path = path
        self.seq = seq
        self.problem = problem


class JournalDiffers(Fault):
    """Replay makes something else of the recorded events than what stands in the journal."""

    def __init__(self, path: Path, seq: int, kind: str, problem: str) -> None:
        super().__init__(
            f"{path}: record {seq} ({kind}) is not reproduced: {problem}. Either an event "
            "before it was altered and the chain forged, or other code or another artifact ran."
        )
        self.path = path
        self.seq = seq
        self.kind = kind
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a journal whose place in the chain has been checked."""

    seq: int
    kind: Kind
    body: Body
    hash: str


class Receipt(Protocol):
    """Why an agent decided what it did."""

    def body(self) -> Body: ...


class Decider(Protocol):
    """What a journal needs of an agent."""

    last_receipt: Any

    def on(self, event: Event) -> list[Action]: ...


def link(prev: str, seq: int, kind: str, body: Body) -> str:
    """Hash of a record, bound to all before it."""
    text = canonical({"body": body, "kind": kind, "prev": prev, "seq": seq})
    return hashlib.sha256(text.encode()).hexdigest()


# reading


class Reader:
    """The records of a journal file in order, each checked against the chain.

    After the iteration `head_hash`, `count` and `torn_bytes` (an incomplete last line) stand.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.head_hash = GENESIS
        self.count = 0
        self.whole_bytes = 0
        self.torn_bytes = 0

    def __iter__(self) -> Iterator[Record]:
        try:
            file = self.path.open("rb")
        except OSError as error:
            raise Unavailable(
                str(self.path), f"cannot read the journal ({error.strerror})", "Check the path."
            ) from error
        with file:
            while line := file.readline(MAX_LINE_BYTES):
                if not line.endswith(b"\n"):
                    if len(line) == MAX_LINE_BYTES:
                        raise JournalAltered(self.path, self.count, "the line has no end")
                    self.torn_bytes = len(line)
                    return
                record = self._record(line)
                self.head_hash = record.hash
                self.count += 1
                self.whole_bytes += len(line)
                yield record

    def _record(self, line: bytes) -> Record:
        try:
            raw = json.loads(line)
        except (ValueError, RecursionError):
            raise JournalAltered(self.path, self.count, "not JSON") from None
        if not _is_record(raw):
            raise JournalAltered(self.path, self.count, "not a record")
        if raw["seq"] != self.count or raw["prev"] != self.head_hash:
            raise JournalAltered(self.path, self.count, "it does not follow the record before it")
        try:
            digest = link(self.head_hash, self.count, raw["kind"], raw["body"])
            text = canonical(raw)
        except (ValueError, RecursionError):  # NaN, or too deep to be written again
            raise JournalAltered(self.path, self.count, "no text is canonical for it") from None
        if raw["hash"] != digest:
            raise JournalAltered(self.path, self.count, "its content does not have its hash")
        if text.encode() + b"\n" != line:
            raise JournalAltered(self.path, self.count, "its text is not canonical")
        return Record(self.count, raw["kind"], raw["body"], raw["hash"])


def _is_record(raw: object) -> bool:
    """Whether a line has the fields of a record, and a name and an object where they must be."""
    return (
        isinstance(raw, dict)
        and raw.keys() == _RECORD_KEYS
        and isinstance(raw["kind"], str)
        and raw["kind"] in _KINDS
        and isinstance(raw["body"], dict)
    )


# writing


class Journal:
    """A journal open for appending. One process at a time; `sync` before an action leaves."""

    def __init__(self, path: Path) -> None:
        """Open or create `path`, verify every record, and cut off a torn tail (a note says so)."""
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise Unavailable(
                str(path), "another process writes this journal", "Stop it first."
            ) from None
        except OSError as error:
            raise Unavailable(
                str(path), f"cannot open the journal ({error.strerror})", "Check folder and disk."
            ) from error
        reader = Reader(path)
        self.found: tuple[Record, ...]
        """What stood in the file at opening; the shell reads it once and lets go of it."""
        try:
            self.found = tuple(reader)
            self.torn_bytes = reader.torn_bytes
            if self.torn_bytes:
                self._file.truncate(reader.whole_bytes)
        except BaseException:
            self._file.close()
            raise
        self.head_hash = reader.head_hash
        self.count = reader.count
        if self.torn_bytes:
            self.append("note", {"torn_bytes": self.torn_bytes})

    def append(self, kind: Kind, body: Body) -> None:
        """Add a record. It is on disk only after the next `sync`."""
        digest = link(self.head_hash, self.count, kind, body)
        line = canonical(
            {"body": body, "hash": digest, "kind": kind, "prev": self.head_hash, "seq": self.count}
        )
        self._file.write(line.encode() + b"\n")
        self.head_hash = digest
        self.count += 1

    def run(self, agent: Decider, event: Event) -> list[Action]:
        """Record an event, let the agent decide, record what it decided; synced where it acts.

        What the agent raises (Stale: resync) is recorded, and raised again here.
        """
        self.append("event", encode(event))
        outcome, actions, error = _decide(agent, event)
        for kind, body in outcome:
            self.append(kind, body)
        if actions:
            self.sync()
        if error is not None:
            raise error
        return actions

    def sync(self) -> None:
        """Return when everything appended so far is on the disk."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise Unavailable(
                str(self.path), f"cannot write the journal ({error.strerror})", "Free some disk."
            ) from error

    def close(self) -> None:
        """Sync and let go of the file."""
        if not self._file.closed:
            self.sync()
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _decide(
    agent: Decider, event: Event
) -> tuple[list[tuple[Kind, Body]], list[Action], FedtradeError | None]:
    """What an event leads to, as records; the same for a live run and for its replay."""
    try:
        actions = agent.on(event)
    except FedtradeError as error:
        return [("note", {"raised": type(error).__name__, "message": str(error)})], [], error
    outcome: list[tuple[Kind, Body]] = []
    if agent.last_receipt is not None:
        outcome.append(("receipt", plain(agent.last_receipt.body())))
    outcome += [("action", encode(action)) for action in actions]
    return outcome, actions, None


# replay


@dataclass(frozen=True, slots=True)
class Replay:
    """A journal that was reproduced: every receipt and action came out the same."""

    records: int
    events: int
    receipts: int
    actions: int
    head_hash: str
    """Recomputed from the replayed bodies; equal to the last record's."""
    torn_bytes: int
    """Length of an incomplete last line, which is no record."""
    unfinished: int
    """Outcomes of a last event before a crash that were never written, hence never acted upon."""


def replay(path: Path, make_agent: Callable[[Body], Decider]) -> Replay:
    """Feed the recorded events to fresh agents (one per start record) and compare all they do."""
    reader = Reader(path)
    agent: Decider | None = None
    due: list[tuple[Kind, Body]] = []
    counts = dict.fromkeys(_KINDS, 0)
    head, unfinished = GENESIS, 0
    for record in reader:
        body = record.body
        if record.kind == "start":
            unfinished += len(due)
            agent, due = make_agent(body), []
        elif record.kind == "note" and "raised" not in body:
            pass
        elif due:
            kind, body = due.pop(0)
            if (kind, body) != (record.kind, record.body):
                problem = _difference(record.body, body) if kind == record.kind else f"now {kind}"
                raise JournalDiffers(path, record.seq, record.kind, problem)
        elif record.kind == "event" and agent is not None:
            event = _event(path, record)
            due = _decide(agent, event)[0]
        else:
            raise JournalDiffers(path, record.seq, record.kind, "nothing leads to it")
        counts[record.kind] += 1
        head = link(head, record.seq, record.kind, body)
    return Replay(
        reader.count,
        counts["event"],
        counts["receipt"],
        counts["action"],
        head,
        reader.torn_bytes,
        unfinished + len(due),
    )


def _event(path: Path, record: Record) -> Event:
    try:
        value = decode(record.body)
    except ValueError as error:
        raise JournalAltered(path, record.seq, str(error)) from None
    if isinstance(value, ProvideLiquidity | WithdrawLiquidity | SwapExactInput):
        raise JournalAltered(path, record.seq, "an action stands where an event must")
    return value


def _difference(recorded: Body, replayed: Body) -> str:
    for name in sorted(recorded.keys() | replayed.keys()):
        old, new = recorded.get(name), replayed.get(name)
        if old != new:
            return f"{name} is {old!r:.80} in the journal and {new!r:.80} now"
    return "another body"
