"""What has been promised to the chain: actions and their signed transactions, on disk first.

A row is written before the step that it announces, with SQLite in WAL mode and `synchronous=FULL`,
so a process killed at any point finds out at its next start how far it came. The order of states is
this table and nothing else:

    planned   → signed | refused | dropped     nothing was signed yet
    signed    → sent | mined | planned | dropped      the bytes are on disk
    sent      → mined | planned | dropped      a node took them
    mined     → confirmed | reverted | dropped | sent      in a block, maybe not for ever
    confirmed, reverted, dropped, refused      ends: never left again

`planned` again means that somebody else used the nonce: the old bytes can never be mined. `sent`
again means that the block was replaced. `dropped` out of `mined` is our own cancellation.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from fedtrade.errors import BadInput, Fault, Unavailable
from fedtrade.venues.codec import index

State = Literal["planned", "signed", "sent", "mined", "confirmed", "reverted", "dropped", "refused"]
TABLE: Final[Mapping[State, frozenset[State]]] = {
    "planned": frozenset({"signed", "refused", "dropped"}),
    "signed": frozenset({"sent", "mined", "planned", "dropped"}),
    "sent": frozenset({"mined", "planned", "dropped"}),
    "mined": frozenset({"confirmed", "reverted", "dropped", "sent"}),
    "confirmed": frozenset(),
    "reverted": frozenset(),
    "dropped": frozenset(),
    "refused": frozenset(),
}
UNDONE: Final = "undone"
"""Noted of an end that the chain took back, deeper than its confirmations."""
ENDS: Final = frozenset(state for state, after in TABLE.items() if not after)

_SCHEMA: Final = """
create table if not exists lane (
    one integer primary key check (one = 1),
    chain_id integer not null,
    account text not null
) strict;
create table if not exists actions (
    seq integer primary key autoincrement,
    action_id text not null unique,
    body text not null,
    target text not null,
    data text not null,
    deadline_s integer not null,
    state text not null,
    nonce integer,
    block integer not null default 0,
    gas_wei text not null default '0',
    note text not null default '',
    reported integer not null default 0
) strict;
create table if not exists transactions (
    hash text primary key,
    action_id text not null references actions(action_id),
    nonce integer not null,
    attempt integer not null,
    cancels integer not null,
    raw blob not null,
    fee_wei text not null,
    tip_wei text not null,
    gas integer not null,
    signed_block integer not null,
    fate text not null,
    unique (action_id, nonce, attempt)
) strict;
"""


class IllegalStep(Fault):
    """The state machine was asked for a step that its table does not have."""

    def __init__(self, action_id: str, before: str, after: str) -> None:
        super().__init__(
            f"action {action_id}: no way from {before} to {after}. "
            "Stop this agent and look at its transactions.sqlite."
        )
        self.action_id = action_id
        self.before = before
        self.after = after


@dataclass(frozen=True, slots=True)
class Promise:
    """One action on its way."""

    action_id: str
    body: Mapping[str, Any]
    target: str
    data: str
    deadline_s: int
    state: State
    nonce: int | None
    block: int
    gas_wei: int
    note: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One signed transaction for an action; several share a nonce when the fee was raised."""

    hash: str
    nonce: int
    attempt: int
    cancels: bool
    raw: bytes
    fee_wei: int
    tip_wei: int
    gas: int
    signed_block: int


class Outbox:
    """The table of promises in one SQLite file. Every method is one durable transaction."""

    def __init__(self, path: Path, chain_id: int, account: str) -> None:
        """Open or create the file; it serves one account on one chain, its nonce lane, for ever."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
            self._db.execute("pragma journal_mode=wal")
            self._db.execute("pragma synchronous=full")
            self._db.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise Unavailable(
                str(path), f"cannot open the outbox ({error})", "Check folder and disk."
            ) from error
        self._db.execute("insert or ignore into lane values(1, ?, ?)", (chain_id, account))
        lane = self._db.execute("select chain_id, account from lane").fetchone()
        if lane != (chain_id, account):
            self._db.close()
            raise BadInput(
                str(path),
                f"belongs to {lane[1]} on chain {lane[0]}, not to {account} on chain {chain_id}",
                "Give this agent a folder of its own.",
            )

    def close(self) -> None:
        self._db.close()

    def plan(
        self, action_id: str, body: Mapping[str, Any], target: str, data: str, deadline_s: int
    ) -> None:
        """Promise an action. An id that is already there changes nothing: ids are used once."""
        self._db.execute(
            "insert or ignore into actions(action_id, body, target, data, deadline_s, state)"
            " values(?, ?, ?, ?, ?, 'planned')",
            (action_id, json.dumps(body, sort_keys=True), target, data, deadline_s),
        )

    def get(self, action_id: str) -> Promise | None:
        rows = self._promises("where action_id = ?", action_id)
        return rows[0] if rows else None

    def open(self) -> list[Promise]:
        """Promises that have not ended, in the order in which they were made."""
        return self._promises("where state in ('planned', 'signed', 'sent', 'mined')")

    def unreported(self) -> list[Promise]:
        """Promises that have ended and whose end nobody has been told."""
        return self._promises(
            "where reported = 0 and state in ('confirmed', 'reverted', 'dropped', 'refused')"
        )

    def ended_after(self, block: int) -> list[tuple[Promise, list[str]]]:
        """Promises that a transaction in a later block has ended, with the hashes it may have."""
        ended = self._promises(
            "where block > ? and note != ? and"
            " (state in ('confirmed', 'reverted') or (state = 'dropped' and gas_wei != '0'))",
            block,
            UNDONE,
        )
        asked = "select hash from transactions where action_id = ? and fate = ?"
        return [
            (one, [h for (h,) in self._db.execute(asked, (one.action_id, one.state))])
            for one in ended
        ]

    def note_undone(self, action_id: str) -> None:
        """The chain has replaced the block in which this action ended; that is told once."""
        self._db.execute("update actions set note = ? where action_id = ?", (UNDONE, action_id))

    def attempts(self, action_id: str) -> list[Attempt]:
        """Signed transactions of an action that may still be mined, oldest first."""
        rows = self._db.execute(
            "select hash, nonce, attempt, cancels, raw, fee_wei, tip_wei, gas, signed_block"
            " from transactions where action_id = ? and fate = 'open' order by attempt",
            (action_id,),
        )
        return [
            Attempt(h, n, a, bool(c), raw, int(fee), int(tip), gas, block)
            for h, n, a, c, raw, fee, tip, gas, block in rows
        ]

    def next_nonce(self, chain_nonce: int) -> int:
        """The first nonce that neither the chain nor an open promise has used."""
        (ours,) = self._db.execute(
            "select max(nonce) from actions where state in ('signed', 'sent', 'mined')"
        ).fetchone()
        return max(chain_nonce, -1 if ours is None else int(ours) + 1)

    def fee_floor(self, nonce: int) -> tuple[int, int]:
        """Highest (fee, tip) ever signed for a nonce: a node wants a tenth more to replace it."""
        rows = self._db.execute(
            "select fee_wei, tip_wei from transactions where nonce = ?", (nonce,)
        ).fetchall()
        return max((int(f) for f, _ in rows), default=0), max((int(t) for _, t in rows), default=0)

    def signed(self, promise: Promise, attempt: Attempt) -> None:
        """Store signed bytes; from now on they may have left."""
        for number in (attempt.nonce, attempt.gas, attempt.signed_block):
            index(number)
        self._db.execute("begin immediate")
        try:
            self._db.execute(
                "insert into transactions values(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'open')",
                (
                    attempt.hash,
                    promise.action_id,
                    attempt.nonce,
                    attempt.attempt,
                    int(attempt.cancels),
                    attempt.raw,
                    str(attempt.fee_wei),
                    str(attempt.tip_wei),
                    attempt.gas,
                    attempt.signed_block,
                ),
            )
            if promise.state == "planned":
                self._move(promise, "signed")
                self._db.execute(
                    "update actions set nonce = ? where action_id = ?",
                    (attempt.nonce, promise.action_id),
                )
            self._db.execute("commit")
        except BaseException:
            self._db.execute("rollback")
            raise

    def move(
        self, promise: Promise, state: State, *, block: int = 0, gas_wei: int = 0, note: str = ""
    ) -> None:
        """Take a step of the table, durably. An end or a new plan closes the open attempts.

        Raises AnswerUnreadable for a block that no chain has: the node made it up.
        """
        index(block)
        self._db.execute("begin immediate")
        try:
            self._move(promise, state)
            self._db.execute(
                "update actions set block = ?, gas_wei = ?, note = ? where action_id = ?",
                (block, str(gas_wei), note, promise.action_id),
            )
            if state in ENDS or state == "planned":
                self._db.execute(
                    "update transactions set fate = ? where action_id = ? and fate = 'open'",
                    ("replaced" if state == "planned" else state, promise.action_id),
                )
            if state == "planned":
                self._db.execute(
                    "update actions set nonce = null where action_id = ?", (promise.action_id,)
                )
            self._db.execute("commit")
        except BaseException:
            self._db.execute("rollback")
            raise

    def reported(self, action_id: str) -> None:
        """The end of this action stands in the journal."""
        self._db.execute("update actions set reported = 1 where action_id = ?", (action_id,))

    def _move(self, promise: Promise, state: State) -> None:
        changed = self._db.execute(
            "update actions set state = ? where action_id = ? and state = ?",
            (state, promise.action_id, promise.state),
        )
        if state not in TABLE[promise.state] or changed.rowcount != 1:
            raise IllegalStep(promise.action_id, promise.state, state)

    def _promises(self, where: str, *values: object) -> list[Promise]:
        rows = self._db.execute(
            "select action_id, body, target, data, deadline_s, state, nonce, block, gas_wei, note"
            f" from actions {where} order by seq",
            values,
        )
        return [
            Promise(i, json.loads(body), to, data, deadline, state, nonce, block, int(gas), note)
            for i, body, to, data, deadline, state, nonce, block, gas, note in rows
        ]
