"""From a node's websocket to events in block order: what an agent is allowed to believe.

The line is to one node, or to several that must agree (`nodes.py`); nothing here differs.

The node announces heads; for each, the logs of exactly that block (asked for by its hash) are read,
decoded and given before the head, so a block is either told whole or not at all. The governed
parameters are asked for at each head, too, and told where they have changed: a steward's term ends
by time alone, and neither store nor mirror says so in a log. A head that does
not follow the last one (a gap after a reconnect, a reorganisation, a silent replacement) makes a
*resync*, which is also how everything starts:

    Reorganised(last common block)                        forget
    Swapped… Head  for each block missed, oldest first    bars have no hole; nothing is decided
    PoolSnapshot, Holdings, OracleUpdated, ParametersSeen, ModelPublished…, ModelRevoked…
                                                          all at the newest block
    Head                                                  decide

Parent hashes are checked here and again in `World`; nodes tend to send no notice when they replace
blocks. All reads of a resync name one block, whose hash is compared before and after.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from clients.node import Line, NodeRefused
from fedtrade.chain.agreement import head_from
from fedtrade.chain.conversation import Conversation, ask_async
from fedtrade.chain.deployment import ChainDeployment
from fedtrade.chain.parameter_store import ParameterStore
from fedtrade.chain.pools import holdings, oracle_answer, pool_snapshot
from fedtrade.errors import BadInput, Fault, Stale
from fedtrade.market.events import (
    Event,
    Head,
    Holdings,
    ModelPublished,
    ModelRevoked,
    ParametersSeen,
    Reorganised,
    Swapped,
)
from fedtrade.venues import model_registry, price_feed, uniswap_v3
from fedtrade.venues.codec import AnswerUnreadable, field, quantity

BACKFILL_MAX: Final = 20_000
"""Blocks that are read back after an absence; a longer one needs newer history and a new folder."""
LOG_SPAN: Final = 500
"""Blocks asked for in one eth_getLogs of a pool."""
REGISTRY_SPAN: Final = 5_000
"""The same of a registry, which seldom says anything."""
REGISTRY_BLOCKS_MAX: Final = 10_000_000
"""Blocks of a registry that are looked through; with more, `from_block` is to be raised."""
REMEMBERED: Final = 128
"""Heads kept to find the last common block of a reorganisation."""
RESYNC_TRIES: Final = 5
TOPICS: Final = (*uniswap_v3.TOPICS, *price_feed.TOPICS, *model_registry.TOPICS)


class WrongChain(BadInput):
    """The node is of another chain than the deployment says."""

    def __init__(self, url: str, expected: int, got: int) -> None:
        super().__init__(
            f"node {url}",
            f"it is on chain {got}, the deployment says {expected}",
            "Correct ws_url or the deployment file.",
        )


class NeverStill(Stale):
    """No attempt to read a whole state succeeded: blocks were replaced, or a contract refused."""

    def __init__(self, tries: int, refused: str) -> None:
        told = f"; the node said last: {refused}" if refused else ""
        super().__init__(
            f"The chain moved under {tries} snapshots, or a contract is not the one that the "
            f"deployment file names{told}. Check that file, or try again when the chain is calmer."
        )
        self.tries = tries
        self.refused = refused


class AwayTooLong(Fault):
    """More blocks were missed than are read back."""

    def __init__(self, missed: int) -> None:
        super().__init__(
            f"{missed} blocks were missed, {BACKFILL_MAX} are read back at most. "
            "Start in a new folder with newer history."
        )
        self.missed = missed


class RegistryTooOld(Fault):
    """The registry's events lie further back than is looked through, or the node's head is invented."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__(
            f"The registry would be read from block {first} to {last}, over {REGISTRY_BLOCKS_MAX} "
            "blocks. Set from_block in the deployment to the block in which it was deployed; if it "
            "is, the node's newest block is not to be believed: use another."
        )
        self.first = first
        self.last = last


@dataclass(frozen=True, slots=True)
class Block:
    """What happened up to a head, in order; the head itself is to be told last."""

    events: tuple[Event, ...]
    head: Head
    resynced: bool


class Ingest:
    """The stream of one chain's blocks, from one open connection to another."""

    def __init__(
        self, chain: ChainDeployment, account: str, since_block: int | None = None
    ) -> None:
        """`since_block`: the last block of an earlier life, from which bars are read back."""
        self._chain = chain
        self._account = account
        self._since = since_block
        self._told: OrderedDict[int, Head] = OrderedDict()
        self._models: list[ModelPublished | ModelRevoked] = []
        self._models_to = chain.from_block - 1  # the registry was read up to here
        self._parameters: ParametersSeen | None = None
        """As told last."""
        self._filter = {
            "address": [chain.pool, chain.price_feed, chain.registry],
            "topics": [list(TOPICS)],
        }

    async def open(self, node: Line) -> Block:
        """Begin on a new connection: subscribe, then read the whole state."""
        chain_id = quantity(await node.call("eth_chainId"))
        if chain_id != self._chain.chain_id:
            raise WrongChain(node.url, self._chain.chain_id, chain_id)
        await node.follow_heads()
        return await self.resync(node)

    async def next(self, node: Line, limit_s: float | None = None) -> Block | None:
        """The next block, or None where none came in time. Heads told before are passed over."""
        while True:
            raw = await node.next_head(limit_s)
            if raw is None:
                return None
            head, last = head_of(raw), self._last()
            if last is None or head.number > last.number:
                break
            known = self._told.get(head.number)
            if known is not None and known.hash != head.hash:
                break  # replaced; an equal or long past one was told before
        if last is None or (head.number, head.parent_hash) != (last.number + 1, last.hash):
            return await self.resync(node)
        try:
            logs, seen = await asyncio.gather(
                node.call("eth_getLogs", {**self._filter, "blockHash": head.hash}),
                self.parameters(node, head.number),
            )
        except NodeRefused:
            return await self.resync(node)  # the block is not there any more
        self._remember(head)
        events = self._decode(_listed(logs))
        if self._parameters is None or _said(seen) != _said(self._parameters):
            events.append(seen)
            self._parameters = seen
        return Block(tuple(events), head, False)

    async def resync(self, node: Line) -> Block:
        """Read back what was missed and the whole state at the newest block."""
        last_refusal = ""
        for _ in range(RESYNC_TRIES):
            common = await self._common_block(node)
            newest = head_of(await node.call("eth_getBlockByNumber", "latest", False))
            self._forget_models(common)
            try:
                missed = await self._missed(node, common, newest)
                state = await self._state(node, newest.number)
                again = await node.call("eth_getBlockByNumber", hex(newest.number), False)
            except NodeRefused as refused:
                last_refusal = refused.reason
                continue  # a block went away between the questions
            if again is None or field(again, "hash") != newest.hash:
                continue
            for number in [n for n in self._told if n > common]:
                del self._told[number]
            for event in missed:
                if isinstance(event, Head):
                    self._remember(event)
            self._remember(newest)
            self._parameters = next(e for e in state if isinstance(e, ParametersSeen))
            self._since = None
            return Block((Reorganised(common), *missed, *state), newest, True)
        raise NeverStill(RESYNC_TRIES, last_refusal)

    async def holdings(self, node: Line, block: int) -> Holdings:
        """What the account has at a block."""
        chain = self._chain
        return await ask_async(
            node, holdings(chain.pool_key(), chain.position_manager, self._account, block)
        )

    async def parameters(self, node: Line, block: int) -> ParametersSeen:
        """What governs here at a block. Raises NothingMirrored, and a Refusal for what cannot be."""
        store = ParameterStore(self._chain.parameters)
        known = await ask_async(node, store.parameters(block))
        return ParametersSeen(
            block, known.governed.values, known.paused, known.as_of_s, self._chain.follows
        )

    async def models(self, node: Line, block: int) -> list[Event]:
        """Everything that the registry has said up to a block; what was read before is kept."""
        first = self._models_to + 1
        if block - first >= REGISTRY_BLOCKS_MAX:
            raise RegistryTooOld(first, block)
        asked = {"address": self._chain.registry, "topics": [list(model_registry.TOPICS)]}
        logs = await self._logs(node, asked, first, block, REGISTRY_SPAN)
        found = self._decode(logs)
        self._models += [e for e in found if isinstance(e, ModelPublished | ModelRevoked)]
        self._models_to = max(self._models_to, block)
        return [event for event in self._models if event.block <= block]

    def _forget_models(self, common: int) -> None:
        """What the registry said after this block may not be so any more.

        Where no head that was told is left, nobody knows how deep it goes: all is read anew.
        """
        if self._told and common < next(iter(self._told)):
            common = -1
        self._models_to = max(self._chain.from_block - 1, min(self._models_to, common))
        self._models = [event for event in self._models if event.block <= common]

    async def _state(self, node: Line, block: int) -> list[Event]:
        chain = self._chain
        return [
            await ask_async(node, pool_snapshot(chain.pool_key(), block)),
            await self.holdings(node, block),
            await ask_async(node, oracle_answer(chain.price_feed, chain.feed_decimals, block)),
            await self.parameters(node, block),
            *await self.models(node, block),
        ]

    async def _common_block(self, node: Line) -> int:
        """The newest block that we told and that is still part of the chain."""
        for number in reversed(self._told):
            found = await node.call("eth_getBlockByNumber", hex(number), False)
            if found is not None and field(found, "hash") == self._told[number].hash:
                return number
        if self._told:
            return next(iter(self._told)) - 1
        return self._since if self._since is not None else -1

    async def _missed(self, node: Line, common: int, newest: Head) -> list[Event]:
        """Swaps and heads of the blocks after `common` and before the newest one."""
        if common < 0 or common >= newest.number:
            return []
        if newest.number - common > BACKFILL_MAX:
            raise AwayTooLong(newest.number - common)
        asked = {"address": self._chain.pool, "topics": [[uniswap_v3.SWAP.topic]]}
        swaps: dict[int, list[Event]] = {}
        for event in self._decode(await self._logs(node, asked, common + 1, newest.number)):
            if isinstance(event, Swapped):
                swaps.setdefault(event.block, []).append(event)
        heads = await ask_async(node, _heads(range(common + 1, newest.number)))
        missed: list[Event] = []
        for head in heads:
            missed += [*swaps.get(head.number, ()), head]
        return missed + swaps.get(newest.number, [])

    async def _logs(
        self, node: Line, asked: Mapping[str, Any], first: int, last: int, span: int = LOG_SPAN
    ) -> list[dict[str, Any]]:
        starts = range(first, last + 1, span)
        spans = [
            {**asked, "fromBlock": hex(start), "toBlock": hex(min(start + span - 1, last))}
            for start in starts
        ]
        return [log for logs in await ask_async(node, _logs_of(spans)) for log in _listed(logs)]

    def _decode(self, logs: list[dict[str, Any]]) -> list[Event]:
        chain, events = self._chain, []
        for log in sorted(logs, key=_place):
            address = str(field(log, "address")).lower()
            event: Event | None = None
            if address == chain.pool.lower():
                event = uniswap_v3.decode(log)
            elif address == chain.price_feed.lower():
                event = price_feed.decode(log, chain.feed_decimals)
            elif address == chain.registry.lower():
                event = model_registry.decode(log)
            if event is not None:
                events.append(event)
        return events

    def _last(self) -> Head | None:
        return next(reversed(self._told.values())) if self._told else None

    def _remember(self, head: Head) -> None:
        self._told[head.number] = head
        while len(self._told) > REMEMBERED:
            self._told.popitem(last=False)


def head_of(raw: object) -> Head:
    """A block header as JSON-RPC gives it."""
    try:
        return head_from(raw)
    except AnswerUnreadable as error:
        raise Fault(
            f"The node sent a head that is none ({type(error).__name__}). Use another node."
        ) from error


def _said(seen: ParametersSeen) -> tuple[object, ...]:
    """What is news in it: on the home chain, time going on is none."""
    return seen.values, seen.paused, seen.as_of_s if seen.mirrored else 0


def _heads(numbers: range) -> Conversation[list[Head]]:
    raw = yield [("eth_getBlockByNumber", [hex(number), False]) for number in numbers]
    return [head_of(head or {}) for head in raw]


def _logs_of(spans: list[dict[str, Any]]) -> Conversation[list[Any]]:
    return (yield [("eth_getLogs", [span]) for span in spans])


def _listed(logs: object) -> list[dict[str, Any]]:
    """What eth_getLogs gave; each log is checked where it is read."""
    if not isinstance(logs, list):
        raise AnswerUnreadable("eth_getLogs", "it is no list")
    return logs


def _place(log: Mapping[str, Any]) -> tuple[int, int]:
    return quantity(field(log, "blockNumber")), quantity(field(log, "logIndex"))
