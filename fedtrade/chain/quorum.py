"""One `Rpc` made of several nodes over HTTP: what it answers, k of them have agreed on.

`reader` gives a plain `Rpc` for one node and an `AgreedRpc` for more; whoever reads sees no difference
but in what can go wrong: without agreement an AgreedRpc raises NoAgreement, which is a NodeLost.

A batch takes two steps: each node says which chain it is of and what its newest block is, and a block
is agreed on; then every call of the batch is asked at that block of all nodes, side by side, and an
answer is taken as soon as k say it. Nobody waits for the slowest: a node that hangs is left, and costs
at most `NODE_LIMIT_S` where its vote is needed.

Blocks are told by their headers alone, and logs and receipts by what this project reads of them
(`agreement.canonical`). Methods that set up local chains are for a plain `Rpc`.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from fedtrade.chain.agreement import (
    LAG_MAX_BLOCKS,
    SEND,
    Ballot,
    NoAgreement,
    NodeUseless,
    Standing,
    agreed_head,
    agreed_number,
    distinct,
    enough_heads,
    head_from,
    header_of,
    majority,
    pinned,
    tag_of,
    transaction_hash,
)
from fedtrade.chain.rpc import TIMEOUT_S, NodeLost, NodeRefused, Rpc, RpcCall
from fedtrade.errors import Unavailable
from fedtrade.market.events import Head
from fedtrade.venues.codec import AnswerUnreadable, quantity

NODE_LIMIT_S: Final = 5.0
"""A node that has not answered after this long is left."""
AGREE_LIMIT_S: Final = 10.0
"""How long agreement is tried for before NoAgreement; nodes that import a block differ for moments."""
PAUSE_S: Final = 0.05
STEPS_DOWN: Final = 3
"""Blocks below the common head that are tried where the nodes have different ones."""

OUT_MAX: Final = 3
"""Questions that may wait for one node; with more it is not asked."""

Replies = Sequence[Any]


class _Behind(NodeUseless):
    """A node that does not know the agreed block; honest ones are a moment late."""


def reader(urls: Sequence[str], chain_id: int, timeout_s: float = TIMEOUT_S) -> Rpc:
    """The connection to one node, or to several that must agree. Raises BadInput.

    `timeout_s` is of one node alone; of several each has `NODE_LIMIT_S`.
    """
    found = distinct(urls)
    return Rpc(found[0], timeout_s) if len(found) == 1 else AgreedRpc(found, chain_id)


class _Voter:
    """One node: its connection, its standing, and the questions that are still out."""

    def __init__(self, url: str) -> None:
        self.standing = Standing(url)
        self._rpc = Rpc(url, NODE_LIMIT_S)
        self._out: dict[int, float] = {}  # question -> when it was asked
        self._numbers = itertools.count()

    def ask(self, calls: Sequence[RpcCall], arrived: Callable[[Replies | str], None]) -> bool:
        """Ask without waiting; False where too much is still out. `arrived` may come from a thread."""
        now_s = time.monotonic()
        if self._out and now_s - min(self._out.values()) > NODE_LIMIT_S:
            self.hang_up(f"it gave no answer in {NODE_LIMIT_S:g} s")
        if len(self._out) >= OUT_MAX:
            return False
        number, rpc = next(self._numbers), self._rpc
        self._out[number] = now_s

        def work() -> None:
            try:
                replies: Replies | str = self._twice(rpc, calls)
            except NodeLost as lost:
                replies = lost.problem
            except Unavailable as error:
                replies = error.problem
            self._out.pop(number, None)
            if rpc is not self._rpc:
                rpc.close()  # it was hung up meanwhile
            arrived(replies)

        threading.Thread(target=work, daemon=True).start()
        return True

    def _twice(self, rpc: Rpc, calls: Sequence[RpcCall]) -> Replies:
        """The replies; once more on a new connection, as the node may have closed an idle one."""
        try:
            return rpc.replies(calls)
        except NodeLost as lost:
            if "timed out" in lost.problem or rpc is not self._rpc:
                raise
            return rpc.replies(calls)

    def hang_up(self, reason: str = "") -> None:
        """Break off what is out and start afresh; the threads that wait end by themselves."""
        before, self._rpc = self._rpc, Rpc(self._rpc.url, NODE_LIMIT_S)
        if self._out:
            before.abort()
        else:
            before.close()
        self._out = {}
        if reason:
            self.standing.leave(reason, time.monotonic())


class AgreedRpc(Rpc):
    """Several nodes of one chain as one; safe to share between threads, which then take turns."""

    def __init__(self, urls: Sequence[str], chain_id: int) -> None:
        super().__init__(urls[0])
        self._voters = [_Voter(url) for url in distinct(urls)]
        self._chain_id = chain_id
        self._one_at_a_time = threading.RLock()
        self._newest = 0
        """Number of the newest block that was agreed on last."""

    @property
    def standings(self) -> list[Standing]:
        """How each node stands, in the order of the configuration."""
        return [voter.standing for voter in self._voters]

    def close(self) -> None:
        """Give all connections up; the next request opens new ones."""
        for voter in self._voters:
            voter.hang_up()

    def call(self, method: str, *params: object) -> Any:
        """What the nodes agree on. Raises NodeRefused where they agree on that, and NoAgreement."""
        (reply,) = self.replies([(method, params)])
        if isinstance(reply, NodeRefused):
            raise reply
        return reply

    def replies(self, calls: Sequence[RpcCall]) -> list[Any]:
        """Each call's agreed result, or the NodeRefused that is agreed on. Raises NoAgreement."""
        with self._one_at_a_time:
            until_s = time.monotonic() + AGREE_LIMIT_S
            found: dict[int, Any] = {}
            while True:
                try:
                    self._round(calls, found)
                except NoAgreement:
                    if time.monotonic() >= until_s:
                        raise
                if len(found) == len(calls):
                    return [found[place] for place in range(len(calls))]
                if time.monotonic() >= until_s:
                    method = next(m for n, (m, _) in enumerate(calls) if n not in found)
                    raise NoAgreement(method, self.standings)
                time.sleep(PAUSE_S)

    def _round(self, calls: Sequence[RpcCall], found: dict[int, Any]) -> None:
        """Ask once for what is not agreed on yet; all at one head per tag."""
        heads: dict[str, Head] = {}
        groups: dict[str, list[int]] = {}
        for place, (method, params) in enumerate(calls):
            if place not in found:
                tag = "" if method == SEND else tag_of(method, params) or "latest"
                groups.setdefault(tag, []).append(place)
        for tag, places in groups.items():
            if not tag:
                for place in places:
                    found[place] = self._send(calls[place])
                continue
            head = heads[tag] = self._head(tag)
            asked = []
            for place in places:
                method, params = calls[place]
                if method == "eth_blockNumber":
                    found[place] = hex(head.number)
                elif method == "eth_getBlockByNumber" and tag_of(method, params) == tag:
                    found[place] = header_of(head)
                else:
                    asked.append(place)
            if asked:
                self._at(head, {place: calls[place] for place in asked}, found)

    def _at(self, head: Head, calls: dict[int, RpcCall], found: dict[int, Any]) -> None:
        """Ask these calls at one head, of all nodes that have it."""
        count = len(self._voters)
        ballots = {place: Ballot(method, count) for place, (method, _) in calls.items()}
        questions: list[RpcCall] = [("eth_getBlockByNumber", [hex(head.number), False])]
        questions += [(m, pinned(m, params, head)) for m, params in calls.values()]
        outcomes: dict[int, Any] = {}

        def told(node: int, replies: Replies) -> bool:
            mine, *rest = replies
            if isinstance(mine, NodeRefused) or mine is None or head_from(mine) != head:
                raise _Behind(f"it has not the agreed block {head.number}")
            for (place, ballot), reply in zip(ballots.items(), rest, strict=True):
                ballot.cast(node, reply, head)
                if (outcome := ballot.outcome()) is not None:
                    outcomes[place] = outcome
            return len(outcomes) == len(ballots)

        self._ask(questions, told)
        now_s = time.monotonic()
        for place, ballot in ballots.items():
            outcome = outcomes.get(place) or ballot.outcome(everybody=True)
            if outcome is None:
                continue
            wrong = ballot.against(outcome)
            for node, voter in enumerate(self._voters):
                if node in wrong:
                    voter.standing.leave(f"it answered otherwise to {ballot.method}", now_s)
                elif ballot.votes.get(node) == outcome:
                    voter.standing.agreed()
            try:
                found[place] = ballot.result(outcome)
            except NodeRefused as refused:
                found[place] = refused

    def _head(self, tag: str) -> Head:
        """The newest block of this tag on which the nodes agree. Raises NoAgreement."""
        heads: dict[int, Head] = {}
        count = len(self._voters)

        def told(node: int, replies: Replies) -> bool:
            chain_id, raw = replies
            for reply in replies:
                if isinstance(reply, NodeRefused):
                    raise NodeUseless(reply.reason)
            if quantity(chain_id) != self._chain_id:
                raise NodeUseless(f"it is of chain {quantity(chain_id)}, not {self._chain_id}")
            heads[node] = head_from(raw)
            if tag == "latest" and (agreed_number(_numbers(heads), count) or 0) < self._newest:
                return False  # who has read a block reads none before it, if anybody can help it
            return enough_heads(_numbers(heads), count)

        self._ask([("eth_chainId", []), ("eth_getBlockByNumber", [tag, False])], told)
        top = agreed_number(_numbers(heads), count)
        if top is None:
            raise NoAgreement("the newest block", self.standings)
        head = agreed_head(heads, count)
        if head is None or head.number != top:
            head = self._common(top)
        if tag == "latest":
            self._newest = head.number
        self._judge(head, heads)
        for node, other in heads.items():
            if tag == "latest" and other.number < head.number - LAG_MAX_BLOCKS:
                reason = f"it is {head.number - other.number} blocks behind"
                self._voters[node].standing.leave(reason, time.monotonic())
        return head

    def _common(self, top: int) -> Head:
        """The newest block at or below `top` that the nodes have alike. Raises NoAgreement."""
        for number in range(top, max(-1, top - 1 - STEPS_DOWN), -1):
            heads: dict[int, Head] = {}

            def told(node: int, replies: Replies, heads: dict[int, Head] = heads) -> bool:
                (raw,) = replies
                if raw is None or isinstance(raw, NodeRefused):
                    return False  # it is not there yet
                heads[node] = head_from(raw)
                return agreed_head(heads, len(self._voters)) is not None

            self._ask([("eth_getBlockByNumber", [hex(number), False])], told)
            if (head := agreed_head(heads, len(self._voters))) is not None:
                self._judge(head, heads)
                return head
        raise NoAgreement(f"block {top}", self.standings)

    def _judge(self, head: Head, heads: dict[int, Head]) -> None:
        """Name nodes that have another block at the agreed height, or tell this one otherwise."""
        for node, other in heads.items():
            standing, now_s = self._voters[node].standing, time.monotonic()
            if other.hash == head.hash and other != head:
                standing.leave(f"it tells block {head.number} otherwise than its hash", now_s)
            elif other.number == head.number and other.hash != head.hash:
                standing.strike(f"it has another block {head.number}", now_s)

    def _send(self, call: RpcCall) -> Any:
        """Give a signed transaction to every node; its hash, or the NodeRefused agreed on."""
        ballot = Ballot(SEND, len(self._voters))

        def told(node: int, replies: Replies) -> bool:
            ballot.cast(node, replies[0])
            return False  # every node is to have it

        self._ask([call], told, everybody=True)
        outcome = ballot.outcome(everybody=True)
        if outcome is None:
            raise NoAgreement(SEND, self.standings)
        if outcome[0] == "result":
            return transaction_hash(str(call[1][0]))
        try:
            return ballot.result(outcome)
        except NodeRefused as refused:
            return refused

    def _ask(
        self,
        questions: Sequence[RpcCall],
        told: Callable[[int, Replies], bool],
        everybody: bool = False,
    ) -> None:
        """Ask nodes side by side until `told` is content, or all have answered or been left."""
        now_s = time.monotonic()
        asked = {n for n, v in enumerate(self._voters) if v.standing.serves(now_s) or everybody}
        if len(asked) < majority(len(self._voters)):
            asked = set(range(len(self._voters)))  # rests save time; they must not cost agreement
        arrived: queue.SimpleQueue[tuple[int, Replies | str]] = queue.SimpleQueue()
        asked = {n for n in asked if self._voters[n].ask(questions, partial(_put, arrived, n))}
        until_s = now_s + NODE_LIMIT_S
        while asked:
            try:
                node, replies = arrived.get(timeout=max(0.0, until_s - time.monotonic()))
            except queue.Empty:
                break
            asked.discard(node)
            try:
                if isinstance(replies, str):
                    raise NodeUseless(f"it gave no answer ({replies})")
                if told(node, replies):
                    return  # nobody waits for the slowest
            except _Behind as behind:
                self._voters[node].standing.strike(behind.reason, time.monotonic())
            except NodeUseless as useless:
                self._voters[node].standing.leave(useless.reason, time.monotonic())
            except AnswerUnreadable as error:
                reason = f"its answer cannot be read ({error.problem})"
                self._voters[node].standing.leave(reason, time.monotonic())
        for node in asked:
            self._voters[node].hang_up(f"it gave no answer in {NODE_LIMIT_S:g} s")


def _put(arrived: queue.SimpleQueue[tuple[int, Replies | str]], node: int, what: Any) -> None:
    arrived.put((node, what))


def _numbers(heads: dict[int, Head]) -> list[int]:
    return [head.number for head in heads.values()]
