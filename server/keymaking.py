"""The coordinator's part in the ceremony of a collective key (lane C): it carries messages.

It asks every helper to commit, then to reveal, then to rehearse, and puts the replies in order. It
cannot alter one (each is signed) and learns nothing (shares are sealed). The record that comes out is
checked by everybody who joins; its hash goes into the terms.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from fedtrade.errors import Stale
from fedtrade.parameters import Parsed
from fedtrade.privacy import ceremony
from fedtrade.protocol import (
    Action,
    KeyCommit,
    KeyRecord,
    KeyRehearsal,
    KeyReveal,
    ReleaseTerms,
    decode,
    encode,
    sha256,
)
from server.release import Exchange

K = TypeVar("K", bound=Parsed)


class CeremonyIncomplete(Stale):
    """A helper that did not answer in the making of a key."""

    def __init__(self, step: Action, missing: list[int]) -> None:
        super().__init__(
            f"helpers {missing} did not answer at {step!r}: a collective key takes them all. "
            "Bring them up and begin again, or open the release without them"
        )
        self.step = step
        self.missing = missing


def make_key(exchange: Exchange, draft: ReleaseTerms) -> tuple[ReleaseTerms, KeyRecord]:
    """(terms with the key in them, the record). `draft` are the terms without a key.

    Raises CeremonyIncomplete, or a Refusal that names whose message is wrong.
    """

    def ask(action: Action, body: bytes, kind: type[K]) -> tuple[list[bytes], list[K]]:
        replies = exchange(action, {seat.id: body for seat in draft.helpers})
        missing = sorted({seat.id for seat in draft.helpers} - set(replies))
        if missing:
            raise CeremonyIncomplete(action, missing)
        bodies = [replies[seat.id] for seat in draft.helpers]
        return bodies, [decode(kind, body) for body in bodies]

    commits_raw, commits = ask("deal", encode(draft), KeyCommit)
    ceremony.check_commits(draft, commits)
    reveals_raw, reveals = ask("reveal", msgspec.msgpack.encode(commits_raw), KeyReveal)
    key = ceremony.check_reveals(draft, commits, reveals)
    everything = msgspec.msgpack.encode([*commits_raw, *reveals_raw])
    _, rehearsals = ask("rehearse", everything, KeyRehearsal)
    ceremony.check_rehearsals(draft, key, reveals, rehearsals)
    record = KeyRecord(commits=tuple(commits), reveals=tuple(reveals), rehearsals=tuple(rehearsals))
    return draft.model_copy(update={"key_sha256": sha256(encode(record)).hex()}), record
