"""What a beacon has sent: its messages, each with its place in the tree that validators sign.

Read from the home chain's logs and kept nowhere else. What lies in final blocks is read once; what is
newer is read again each time, so that a block which is replaced takes its messages with it. After a
start the search goes backwards, and ends as soon as every mirror has a message: older ones are of no
use, since a mirror takes only the newest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from fedtrade.chain.mirrors import BadSnapshot, Snapshot
from fedtrade.chain.rpc import Rpc
from fedtrade.venues.codec import AnswerUnreadable, field, place_of, quantity
from fedtrade.venues.hyperlane import DISPATCH, INSERTED, BadMessage, Message, word_of

LOG_SPAN: Final = 2_000
"""Blocks in one request for logs."""
KEPT_MAX: Final = 32
"""Newest messages that are kept for each mirror."""
LOGS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Dispatched:
    """One message of the beacon."""

    message: Message
    snapshot: Snapshot
    index: int
    """Its leaf in the tree."""
    block: int


class Dispatches:
    """The beacon's messages to some mirrors, newest last."""

    def __init__(
        self, rpc: Rpc, beacon: str, mailbox: str, hook: str, from_block: int, final_block: str
    ) -> None:
        self._rpc, self._beacon, self._mailbox, self._hook = rpc, beacon, mailbox, hook
        self._from_block, self._final_block = from_block, final_block
        self._final: list[Dispatched] = []
        self._fresh: list[Dispatched] = []
        self._read_to: int | None = None

    def refresh(self, destinations: Sequence[int]) -> None:
        """Look at the chain. Raises NodeLost, AnswerUnreadable and the like; nothing is lost then."""
        final, head = (
            quantity(field(block, "number"))
            for block in self._rpc.batch(
                [
                    ("eth_getBlockByNumber", [self._final_block, False]),
                    ("eth_getBlockByNumber", ["latest", False]),
                ]
            )
        )
        if self._read_to is None:
            found = self._newest(final, destinations)
        else:
            found = self._between(self._read_to + 1, final)
            final = max(final, self._read_to)  # a node that lags takes nothing back
        fresh = self._between(final + 1, head)
        self._final, self._fresh, self._read_to = _kept(self._final + found), fresh, final

    def to(self, domain: int, mirror: str) -> list[Dispatched]:
        """Messages to one mirror, newest first, those in blocks that are not final included."""
        recipient = word_of(mirror)
        return [
            sent
            for sent in reversed(self._final + self._fresh)
            if sent.message.destination == domain and sent.message.recipient == recipient
        ]

    def _newest(self, last: int, destinations: Sequence[int]) -> list[Dispatched]:
        found: list[Dispatched] = []
        wanted = set(destinations)
        while last >= self._from_block and wanted:
            first = max(self._from_block, last - LOG_SPAN + 1)
            found = self._between(first, last) + found
            wanted -= {sent.message.destination for sent in found}
            last = first - 1
        return found

    def _between(self, first: int, last: int) -> list[Dispatched]:
        sent = []
        topics = [DISPATCH.topic, "0x" + word_of(self._beacon).hex()]
        for start in range(first, last + 1, LOG_SPAN):
            end = min(start + LOG_SPAN - 1, last)
            for entry in self._logs(self._mailbox, topics, start, end):
                sent.append(self._dispatched(entry))
        return sent

    def _dispatched(self, entry: dict[str, Any]) -> Dispatched:
        """A log as a message, with its leaf from the hook's log in the same block."""
        _, (content,) = DISPATCH.decode(entry)
        try:
            message = Message.decode(content)
            snapshot = Snapshot.decode(message.body)
        except (BadMessage, BadSnapshot):
            raise AnswerUnreadable("Dispatch", "the beacon sends nothing like this") from None
        block, _, _ = place_of(entry)
        for leaf in self._logs(self._hook, [INSERTED.topic], block, block):
            _, (message_id, index) = INSERTED.decode(leaf)
            if message_id == message.id:
                return Dispatched(message, snapshot, int(index), block)
        # The block was replaced in between, or the hook is not the mailbox's: look again.
        raise AnswerUnreadable("InsertedIntoTree", f"no leaf for the message in block {block}")

    def _logs(
        self, address: str, topics: Sequence[str], first: int, last: int
    ) -> list[dict[str, Any]]:
        asked = {
            "address": address,
            "topics": list(topics),
            "fromBlock": hex(first),
            "toBlock": hex(last),
        }
        logs = self._rpc.call("eth_getLogs", asked)
        if not isinstance(logs, list) or len(logs) > LOGS_MAX:
            raise AnswerUnreadable("eth_getLogs", "no list, or far too long")
        return sorted(logs, key=place_of)


def _kept(sent: list[Dispatched]) -> list[Dispatched]:
    """The newest few for each recipient, in their order."""
    counts: dict[tuple[int, bytes], int] = {}
    kept = []
    for one in reversed(sent):
        key = (one.message.destination, one.message.recipient)
        counts[key] = counts.get(key, 0) + 1
        if counts[key] <= KEPT_MAX:
            kept.append(one)
    return kept[::-1]
