"""Several websockets as one: an agent hears a head, and an answer, only once k nodes agree on it.

`Nodes` stands where a `Node` stands: calls, heads, one context. A task per node keeps its line: it
connects, checks the chain id, tells the newest block, follows heads; a node that lies, lags, hangs or
breaks off is left with its reason (`agreement.Standing`) and connected again after a rest, while the
others serve.

A head comes out when k nodes have announced it in every field, and that head becomes the pin: calls
go to all nodes that announced it, "latest" by its hash, and the first k equal answers are the answer.
So nothing is decided on a head, nor signed for it, before agreement on it, and the wait is for the
k-th fastest node, never for the slowest. Without agreement there is no head, `next_head` raises
NoAgreement in the end, and an agent that hears nothing adds no risk.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, Self

from clients.node import Line, Node, NodeLost, NodeRefused, NodeUnreachable
from fedtrade.chain.agreement import (
    LAG_MAX_BLOCKS,
    SEND,
    Ballot,
    NoAgreement,
    NodeUseless,
    Standing,
    Vote,
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
from fedtrade.chain.deployment import ChainDeployment
from fedtrade.market.events import Head
from fedtrade.venues.codec import AnswerUnreadable, quantity

NODE_LIMIT_S: Final = 5.0
"""A node that has not answered after this long is left."""
AGREE_LIMIT_S: Final = 10.0
"""How long agreement is tried for, on a call or on the next head, before NoAgreement."""
PAUSE_S: Final = 0.05
LOOK_S: Final = 0.25
CHAIN_MAX: Final = 256
"""Blocks that are kept of what each node tells."""
LAG_GRACE_S: Final = 1.0
"""A node is behind only if it has told no agreed block for as long as this."""
HEADS_MAX: Final = 4096
STEPS_DOWN: Final = 3


def line_of(chain: ChainDeployment, standings: Sequence[Standing]) -> Line:
    """One line to the chain's node, or to all of them where there are several."""
    urls = chain.all_ws_urls
    return Node(urls[0]) if len(urls) == 1 else Nodes(standings, chain.chain_id)


class _Member:
    """One node of several, and what it has told of its chain."""

    def __init__(self, standing: Standing) -> None:
        self.standing = standing
        self.node: Node | None = None
        """Its open line; None while it is left or connecting."""
        self.chain: OrderedDict[int, Head] = OrderedDict()
        """Its newest blocks by number, as far as it has told them."""
        self.shared = -1
        """The newest agreed head that it has told, too, and when."""
        self.shared_at_s = 0.0

    def admit(self, node: Node, pin: Head | None) -> None:
        """Count its votes from now on."""
        self.chain.clear()
        self.shared = pin.number if pin is not None else -1
        self.shared_at_s = time.monotonic()
        self.node = node

    def leave(self, reason: str, node: Node | None = None) -> None:
        """Count it no more; `node`: only if this is still its line."""
        if node is None or self.node is node:
            self.standing.leave(reason, time.monotonic())
            self.node = None

    def tell(self, head: Head, newest: bool) -> None:
        """It has this block; where that is its newest one, those above were replaced."""
        if newest:
            for number in [number for number in self.chain if number > head.number]:
                del self.chain[number]
        self.chain[head.number] = head
        while len(self.chain) > CHAIN_MAX:
            del self.chain[min(self.chain)]

    @property
    def newest(self) -> int:
        return max(self.chain, default=-1)

    def has(self, head: Head | None) -> bool:
        """Whether there is a line to it and it has this block."""
        return self.node is not None and head is not None and self.chain.get(head.number) == head


class Nodes:
    """Lines to several nodes of one chain. Use as an async context manager, more than once if need be.

    `standings` outlive the lines, so a node that was left is not forgiven by a reconnect.
    """

    def __init__(self, standings: Sequence[Standing], chain_id: int) -> None:
        distinct([s.url for s in standings])
        self.url = ", ".join(s.url for s in standings)
        self._standings = list(standings)
        self._need = majority(len(standings))
        self._chain_id = chain_id
        self._members: list[_Member] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._late: set[asyncio.Task[Any]] = set()
        self._pin: Head | None = None
        self._agreed: OrderedDict[int, Head] = OrderedDict()
        self._heads: asyncio.Queue[Head] = asyncio.Queue(HEADS_MAX)
        self._changed = asyncio.Event()
        self._apart_from_s = 0.0  # since when too few are there, or they tell different blocks

    async def __aenter__(self) -> Self:
        self._members = [_Member(standing) for standing in self._standings]
        self._agreed.clear()
        self._heads = asyncio.Queue(HEADS_MAX)
        self._changed = asyncio.Event()
        self._pin, self._apart_from_s = None, 0.0
        self._tasks = [asyncio.create_task(self._keep(n)) for n in range(len(self._members))]
        try:
            async with asyncio.timeout(AGREE_LIMIT_S):
                while self._pin is None:
                    await self._change()
                    await self._newest()
        except TimeoutError:
            await self.__aexit__()
            raise NoAgreement("the newest block", self._standings) from None
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in (*self._tasks, *self._late):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._late, return_exceptions=True)
        self._tasks, self._late = [], set()

    async def follow_heads(self) -> None:
        """Heads are followed from the start; those of before are dropped: what follows is new."""
        while not self._heads.empty():
            self._heads.get_nowait()

    async def next_head(self, limit_s: float | None = None) -> Mapping[str, Any] | None:
        """The next head that k nodes have announced, or None. Raises NoAgreement after a time."""
        try:
            async with asyncio.timeout(limit_s):
                self._refuse_silence()
                while self._heads.empty():
                    await self._change(LOOK_S)
                    self._refuse_silence()
        except TimeoutError:
            return None
        return header_of(self._heads.get_nowait())

    async def call(self, method: str, *params: object) -> Any:
        """What the nodes agree on. Raises NodeRefused where they agree on that, and NoAgreement."""
        until_s = time.monotonic() + AGREE_LIMIT_S
        while True:
            if method == SEND:
                outcome = await self._send(str(params[0]))
            elif method == "eth_getBlockByNumber" and tag_of(method, params) == "latest":
                outcome = await self._newest()
            else:
                outcome = await self._at_pin(method, params)
            if outcome is not None:
                ballot, vote = outcome
                return ballot.result(vote)
            if time.monotonic() >= until_s:
                raise NoAgreement(method, self._standings)
            await self._change(PAUSE_S)

    # calls

    async def _at_pin(self, method: str, params: Sequence[Any]) -> tuple[Ballot, Vote] | None:
        """Ask the nodes that have the pin; None where they do not agree, or too few have it."""
        pin = self._pin
        voters = [n for n, member in enumerate(self._members) if member.has(pin)]
        if pin is None or len(voters) < self._need:
            return None
        return await self._ballot(method, pinned(method, params, pin), voters, pin)

    async def _newest(self) -> tuple[Ballot, Vote] | None:
        """The newest common block, asked for now: a resync must not go by what was announced."""
        asked = [n for n, member in enumerate(self._members) if member.node is not None]
        waiting = {asyncio.create_task(self._tell_newest(n)) for n in asked}
        numbers: list[int] = []
        while waiting and not enough_heads(numbers, len(self._members)):
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            numbers += [head.number for head in (task.result() for task in done) if head]
        self._late |= waiting
        for task in waiting:
            task.add_done_callback(self._late.discard)
        top = agreed_number(numbers, len(self._members))
        if top is None:
            return None
        for number in range(top, max(-1, top - 1 - STEPS_DOWN), -1):
            found = await self._ballot("eth_getBlockByNumber", [hex(number), False], asked, None)
            if found is not None and found[1] != ("result", "null"):
                head = head_from(found[0].result(found[1]))
                for n, vote in found[0].votes.items():
                    if vote == found[1]:
                        self._told(n, head, newest=False)
                return found
        return None

    async def _send(self, raw: str) -> tuple[Ballot, Vote] | None:
        """Give a signed transaction to every node that there is a line to."""
        nodes = [n for n, member in enumerate(self._members) if member.node is not None]
        found = await self._ballot(SEND, [raw], nodes, None)
        if found is None or found[1][0] != "result":
            return found
        return found[0], ("result", json.dumps(transaction_hash(raw)))

    async def _ballot(
        self, method: str, params: Sequence[Any], nodes: Sequence[int], head: Head | None
    ) -> tuple[Ballot, Vote] | None:
        """Ask nodes side by side; back as soon as enough agree. What comes later is still judged."""
        ballot = Ballot(method, len(self._members))
        waiting = {asyncio.create_task(self._vote(ballot, n, params, head)) for n in nodes}
        outcome: Vote | None = None
        try:
            while waiting and outcome is None:
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                outcome = ballot.outcome(everybody=not waiting)
        except asyncio.CancelledError:
            for task in waiting:
                task.cancel()
            raise
        if outcome is None:
            return None
        self._judge(ballot, outcome)
        for task in waiting:
            self._late.add(task)
            task.add_done_callback(partial(self._judge_late, ballot, outcome))
        return ballot, outcome

    async def _vote(self, ballot: Ballot, n: int, params: Sequence[Any], head: Head | None) -> None:
        """One node's vote; a node without one is left."""
        member = self._members[n]
        node = member.node
        if node is None:
            return
        try:
            async with asyncio.timeout(NODE_LIMIT_S):
                reply: Any = await node.call(ballot.method, *params)
        except NodeRefused as refused:
            reply = refused
        except NodeLost as lost:
            member.leave(f"it gave no answer ({lost.problem})", node)
            return
        except TimeoutError:
            member.leave(f"it gave no answer to {ballot.method} in {NODE_LIMIT_S:g} s", node)
            return
        try:
            ballot.cast(n, reply, head)
        except NodeUseless as useless:
            member.leave(useless.reason)

    def _judge(self, ballot: Ballot, outcome: Vote) -> None:
        wrong = ballot.against(outcome)
        for n, vote in ballot.votes.items():
            member = self._members[n]
            if n in wrong:
                member.leave(f"it answered otherwise to {ballot.method}")
            elif vote == outcome:
                member.standing.agreed()
            elif vote[0] == "refused" and outcome[0] == "result" and ballot.method != SEND:
                member.standing.strike(f"it refuses {ballot.method}", time.monotonic())
                if member.standing.reason:
                    member.leave(member.standing.reason)

    def _judge_late(self, ballot: Ballot, outcome: Vote, task: asyncio.Task[Any]) -> None:
        self._late.discard(task)
        if not task.cancelled():
            for n in ballot.against(outcome):
                self._members[n].leave(f"it answered otherwise to {ballot.method}")

    # lines

    async def _keep(self, n: int) -> None:
        """One node's life: connect, follow, be left, rest, connect again."""
        member = self._members[n]
        while True:
            now_s = time.monotonic()
            if not member.standing.serves(now_s):
                await asyncio.sleep(min(member.standing.until_s - now_s, LOOK_S))
                continue
            try:
                async with Node(member.standing.url) as node:
                    await self._admit(member, node)
                    await self._tell_newest(n)
                    self._changed.set()
                    while member.node is node:
                        raw = await node.next_head(LOOK_S)
                        if raw is not None and member.node is node:
                            self._told(n, head_from(raw), newest=True)
            except NodeUnreachable as error:
                member.leave(f"it {error.problem}")
            except (NodeUseless, NodeRefused) as error:
                member.leave(error.reason)
            except NodeLost as lost:
                member.leave(f"the line broke ({lost.problem})")
            except AnswerUnreadable as error:
                member.leave(f"its answer cannot be read ({error.problem})")
            finally:
                member.node = None
            if not member.standing.reason:
                member.leave("the line ended")
            self._changed.set()

    async def _admit(self, member: _Member, node: Node) -> None:
        """Let a node vote: it is of our chain and follows heads. Raises what a node can do wrong."""
        try:
            async with asyncio.timeout(NODE_LIMIT_S):
                chain_id = quantity(await node.call("eth_chainId"))
                if chain_id != self._chain_id:
                    raise NodeUseless(f"it is of chain {chain_id}, not {self._chain_id}")
                await node.follow_heads()
        except TimeoutError:
            raise NodeUseless(f"it gave no answer in {NODE_LIMIT_S:g} s") from None
        member.admit(node, self._pin)

    async def _tell_newest(self, n: int) -> Head | None:
        """Hear a node's newest block, and whether it has the pin, as if it had announced them."""
        member = self._members[n]
        node, pin = member.node, self._pin
        if node is None:
            return None
        try:
            async with asyncio.timeout(NODE_LIMIT_S):
                newest = head_from(await node.call("eth_getBlockByNumber", "latest", False))
                self._told(n, newest, newest=True)
                if pin is not None and newest.number > pin.number:
                    raw = await node.call("eth_getBlockByNumber", hex(pin.number), False)
                    self._told(n, head_from(raw), newest=False)
                return newest
        except (NodeLost, NodeRefused) as error:
            member.leave(f"it tells no newest block ({type(error).__name__})", node)
        except AnswerUnreadable as error:
            member.leave(f"its answer cannot be read ({error.problem})", node)
        except TimeoutError:
            member.leave(f"it gave no answer in {NODE_LIMIT_S:g} s", node)
        return None

    # heads

    def _told(self, n: int, head: Head, newest: bool) -> None:
        """A node has told a block. Where it is agreed on by that, it is the pin and comes out."""
        member = self._members[n]
        member.tell(head, newest)
        known = self._agreed.get(head.number)
        if known == head:
            self._shares(member, head)
        at_height = {
            m: other.chain[head.number]
            for m, other in enumerate(self._members)
            if other.node is not None and head.number in other.chain
        }
        agreed = agreed_head(at_height, len(self._members))
        if agreed is None:
            return
        for m, other in at_height.items():
            if other.hash == agreed.hash and other != agreed:
                self._members[m].leave(f"it tells block {head.number} otherwise than its hash")
        pin = self._pin
        if (
            agreed == head
            and head != pin
            and (
                pin is None
                or head.number >= pin.number
                or sum(m.has(pin) for m in self._members) < self._need
            )
        ):
            self._come_out(head)

    def _come_out(self, head: Head) -> None:
        """A head has just been agreed on."""
        self._pin = head
        self._agreed[head.number] = head
        while len(self._agreed) > CHAIN_MAX:
            self._agreed.popitem(last=False)
        self._apart_from_s = 0.0
        if not self._heads.full():  # otherwise `next_head` ends the connection
            self._heads.put_nowait(head)
        now_s = time.monotonic()
        for member in self._members:
            if member.has(head):
                self._shares(member, head)
            behind = head.number - member.shared
            late = now_s - member.shared_at_s > LAG_GRACE_S
            if member.node is not None and behind > LAG_MAX_BLOCKS and late:
                member.leave(f"it has not told the agreed blocks for {behind} blocks")
        self._changed.set()

    def _shares(self, member: _Member, head: Head) -> None:
        member.shared = max(member.shared, head.number)
        member.shared_at_s = time.monotonic()

    def _refuse_silence(self) -> None:
        """Raise NoAgreement where too few are there, or they tell different blocks, for too long."""
        for task in self._tasks:
            if task.done():
                task.result()
        if self._heads.full():
            raise NodeLost(self.url, f"more than {HEADS_MAX} heads behind")
        reached = self._pin.number if self._pin is not None else -1
        there = [m for m in self._members if m.node is not None]
        ahead = [m for m in there if m.newest > reached]
        if len(there) >= self._need > len(ahead):
            self._apart_from_s = 0.0
            return
        self._apart_from_s = self._apart_from_s or time.monotonic()
        if time.monotonic() - self._apart_from_s > AGREE_LIMIT_S:
            raise NoAgreement("the next block", self._standings)

    async def _change(self, limit_s: float = LOOK_S) -> None:
        """Wait for something to change, a moment at most."""
        self._changed.clear()
        try:
            async with asyncio.timeout(limit_s):
                await self._changed.wait()
        except TimeoutError:
            return
