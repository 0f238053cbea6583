"""Ingest against a real node: exact replicas, gaps read back, reorganisations found."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from clients.ingest import Block, Ingest, NeverStill, WrongChain, head_of
from clients.node import Node, NodeLost, NodeUnreachable
from fedtrade.chain.conversation import ask
from fedtrade.chain.parameter_store import ParameterStore
from fedtrade.chain.pools import pool_snapshot
from fedtrade.devnet.accounts import ARBITRAGEUR, GOVERNOR, GUARDIAN, OPERATOR, STEWARD
from fedtrade.devnet.deploy import send
from fedtrade.errors import Fault
from fedtrade.governed import Governed
from fedtrade.market.events import (
    Head,
    Holdings,
    ParametersSeen,
    PoolSnapshot,
    Reorganised,
    Swapped,
)
from fedtrade.market.world import World
from fedtrade.venues.codec import AnswerUnreadable, Call, Function
from fedtrade.venues.price_feed import encode_push
from fedtrade.venues.uniswap_v3 import encode_provide, encode_swap

pytestmark = pytest.mark.chain
NOBODY = "0x00000000000000000000000000000000000000F1"


def swap(chain: Any, sell_token0: bool, amount: int) -> None:
    data = encode_swap(chain.deployment.pool_key(), ARBITRAGEUR, sell_token0, amount)
    send(chain.rpc, ARBITRAGEUR, Call(chain.deployment.swap_router, data))


def provide(chain: Any, account: str) -> None:
    key = chain.deployment.pool_key()
    now = ask(chain.rpc, pool_snapshot(key, chain.anvil.latest().number)).tick
    low = now // key.tick_spacing * key.tick_spacing
    ticks = (low - 10 * key.tick_spacing, low + 10 * key.tick_spacing)
    data = encode_provide(key, account, ticks, (10**12, 10**21))
    send(chain.rpc, ARBITRAGEUR, Call(chain.deployment.position_manager, data))


def world_of(chain: Any) -> World:
    return World(chain.deployment.pool_key(), chain.deployment.price_feed)


def tell(world: World, block: Block) -> None:
    for event in (*block.events, block.head):
        world.apply(event)


def equal_to_chain(world: World, chain: Any) -> bool:
    block = world.head.number
    return world.pool.snapshot(block) == ask(chain.rpc, pool_snapshot(world.key, block))


async def until(ingest: Ingest, node: Node, chain: Any, world: World) -> list[Block]:
    """All blocks up to the chain's newest."""
    blocks = []
    newest = chain.anvil.latest().number
    while not blocks or blocks[-1].head.number < newest:
        block = await ingest.next(node, 5.0)
        assert block is not None
        tell(world, block)
        blocks.append(block)
    return blocks


def talk(chain: Any, conversation: Callable[[Ingest, Node], Awaitable[None]]) -> None:
    async def run() -> None:
        async with Node(chain.deployment.ws_url) as node:
            await conversation(Ingest(chain.deployment, ARBITRAGEUR), node)

    asyncio.run(run())


def test_blocks_keep_the_replica_equal_to_the_chain(chain: Any) -> None:
    async def conversation(ingest: Ingest, node: Node) -> None:
        world = world_of(chain)
        tell(world, await ingest.open(node))
        assert equal_to_chain(world, chain)
        for amount in (10**12, 10**13, 7):
            swap(chain, True, amount)
        swap(chain, False, 10**21)
        provide(chain, ARBITRAGEUR)
        swap(chain, True, 10**11)
        send(chain.rpc, OPERATOR, encode_push(chain.deployment.price_feed, 2765 * 10**8))
        blocks = await until(ingest, node, chain, world)
        assert not any(block.resynced for block in blocks)
        assert equal_to_chain(world, chain)
        assert world.oracle_price == 2765.0

    talk(chain, conversation)


def test_all_logs_of_a_block_come_in_order_before_its_head(chain: Any) -> None:
    async def conversation(ingest: Ingest, node: Node) -> None:
        world = world_of(chain)
        tell(world, await ingest.open(node))
        chain.anvil.automine(False)
        key, router = chain.deployment.pool_key(), chain.deployment.swap_router
        for n in range(5):
            data = "0x" + encode_swap(key, ARBITRAGEUR, n % 2 == 0, 10**16).hex()
            chain.rpc.call(
                "eth_sendTransaction",
                {"from": ARBITRAGEUR, "to": router, "data": data, "gas": hex(900_000)},
            )
        chain.anvil.mine()
        (block,) = await until(ingest, node, chain, world)
        assert [type(e) for e in block.events] == [Swapped] * 5
        places = [e.log_index for e in block.events if isinstance(e, Swapped)]
        assert places == sorted(places)
        assert equal_to_chain(world, chain)

    talk(chain, conversation)


def test_a_gap_after_a_reconnect_is_read_back(chain: Any) -> None:
    async def run() -> None:
        ingest, world = Ingest(chain.deployment, ARBITRAGEUR), world_of(chain)
        async with Node(chain.deployment.ws_url) as node:
            first = await ingest.open(node)
            tell(world, first)
        world.take_bars()
        for _ in range(3):
            swap(chain, True, 10**11)
        async with Node(chain.deployment.ws_url) as node:
            block = await ingest.open(node)
            told = block.events
            assert told[0] == Reorganised(first.head.number)
            assert [e.number for e in told if isinstance(e, Head)] == [
                first.head.number + 1,
                first.head.number + 2,
            ]
            assert sum(isinstance(e, Swapped) for e in told) == 3
            kinds = [type(e) for e in told]
            assert kinds.index(PoolSnapshot) > max(
                i for i, k in enumerate(kinds) if k in (Swapped, Head)
            )
            tell(world, block)
            assert equal_to_chain(world, chain)
            swap(chain, False, 10**19)
            await until(ingest, node, chain, world)
            assert equal_to_chain(world, chain)

    asyncio.run(run())


@pytest.mark.parametrize("depth", [1, 3])
def test_a_reorganisation_is_found_by_parent_hashes(chain: Any, depth: int) -> None:
    async def conversation(ingest: Ingest, node: Node) -> None:
        world = world_of(chain)
        tell(world, await ingest.open(node))
        for _ in range(4):
            swap(chain, True, 10**12)
        blocks = await until(ingest, node, chain, world)
        before = blocks[-1].head
        chain.anvil.reorg(depth)
        swap(chain, False, 10**19)
        healed = await until(ingest, node, chain, world)
        (resync,) = [b for b in healed if b.resynced]
        assert resync.events[0] == Reorganised(before.number - depth)
        assert world.stale is None
        assert equal_to_chain(world, chain)

    talk(chain, conversation)


def test_holdings_are_read_from_the_chain(chain: Any) -> None:
    provide(chain, ARBITRAGEUR)
    swap(chain, True, 10**12)
    swap(chain, False, 10**19)

    async def conversation(ingest: Ingest, node: Node) -> None:
        block = await ingest.open(node)
        (held,) = [e for e in block.events if isinstance(e, Holdings)]
        (position,) = held.positions
        assert position.liquidity > 0
        assert min(position.owed0, position.owed1) > 0
        assert held.native_wei > 0

    talk(chain, conversation)


def test_another_chain_is_refused(chain: Any) -> None:
    other = chain.deployment.model_copy(update={"chain_id": 99})

    async def run() -> None:
        async with Node(chain.deployment.ws_url) as node:
            await Ingest(other, NOBODY).open(node)

    with pytest.raises(WrongChain, match="on chain 31101, the deployment says 99"):
        asyncio.run(run())


def test_the_registry_is_read_from_its_logs(chain: Any) -> None:
    data = Function("revoke(uint64)").encode(1)
    body = {"from": GOVERNOR, "to": chain.deployment.model_registry, "data": "0x" + data.hex()}
    chain.rpc.call("eth_sendTransaction", {**body, "gas": hex(200_000)})  # reverts: no such model

    async def conversation(ingest: Ingest, node: Node) -> None:
        block = await ingest.open(node)
        assert await ingest.models(node, block.head.number) == []

    talk(chain, conversation)


def test_what_governs_is_told_where_it_changes_and_an_interim_lapses_without_a_log(
    chain: Any,
) -> None:
    store = ParameterStore(chain.deployment.parameters)

    def seen(blocks: list[Block]) -> list[ParametersSeen]:
        return [e for block in blocks for e in block.events if isinstance(e, ParametersSeen)]

    async def conversation(ingest: Ingest, node: Node) -> None:
        world = world_of(chain)
        first = await ingest.open(node)
        tell(world, first)
        (told,) = seen([first])
        governed = Governed.of(told.values)
        assert (told.paused, told.mirrored, told.as_of_s) == (False, False, first.head.timestamp_s)
        chain.anvil.mine()
        assert seen(await until(ingest, node, chain, world)) == []  # time is no news here
        send(chain.rpc, STEWARD, store.steer({"slippageMaxBps": 45}))
        blocks = await until(ingest, node, chain, world)
        (steered,) = seen(blocks)
        assert Governed.of(steered.values) == governed.changed({"slippageMaxBps": 45})
        assert blocks[-1].events[-1] == steered
        until_s = blocks[-1].head.timestamp_s + 7 * 86_400
        chain.anvil.mine(until_s - 1)
        assert seen(await until(ingest, node, chain, world)) == []
        chain.anvil.mine(until_s)
        last = await until(ingest, node, chain, world)
        (lapsed,) = seen(last)
        asked = {"blockHash": last[-1].head.hash, "address": store.address}
        assert chain.rpc.call("eth_getLogs", asked) == []
        assert Governed.of(lapsed.values) == governed
        chain.devnet.transact(chain.deployment.name, GUARDIAN, store.pause())
        (paused,) = seen(await until(ingest, node, chain, world))
        assert paused.paused
        assert world.parameters == paused

    talk(chain, conversation)


def test_of_a_mirror_each_renewal_is_told(chain: Any) -> None:
    """The store in a mirror's place: what it knows is renewed with every block."""
    follower = chain.deployment.model_copy(update={"consortium": None})

    async def run() -> None:
        async with Node(follower.ws_url) as node:
            ingest, world = Ingest(follower, NOBODY), world_of(chain)
            tell(world, await ingest.open(node))
            assert world.parameters.mirrored
            for _ in range(2):
                chain.anvil.mine(chain.anvil.latest().timestamp_s + 10)
                await until(ingest, node, chain, world)
                assert world.parameters.as_of_s == world.head.timestamp_s

    asyncio.run(run())


def test_an_address_that_is_no_store_is_a_sentence(chain: Any) -> None:
    async def run(parameters: str) -> None:
        other = chain.deployment.model_copy(update={"parameters": parameters})
        async with Node(chain.deployment.ws_url) as node:
            await Ingest(other, NOBODY).open(node)

    with pytest.raises(AnswerUnreadable, match="Check the contract's address"):
        asyncio.run(run(NOBODY))
    with pytest.raises(
        NeverStill, match="not the one that the deployment file names; the node said"
    ):
        asyncio.run(run(chain.deployment.quote.address))


def test_nobody_there_is_said_in_one_sentence() -> None:
    async def run() -> None:
        async with Node("ws://127.0.0.1:9"):
            pass

    with pytest.raises(NodeUnreachable, match=r"ws://127\.0\.0\.1:9: cannot connect"):
        asyncio.run(run())


def test_a_node_that_dies_is_a_lost_node(devnet: Any) -> None:
    from fedtrade.devnet.anvil import Anvil
    from fedtrade.devnet.artifacts import fetch
    from fedtrade.devnet.cache import cache_folder

    with Anvil.start(fetch(cache_folder()).anvil, 5, timestamp_s=1000) as anvil:

        async def run() -> None:
            async with Node(anvil.ws_url) as node:
                await node.follow_heads()
                anvil.stop()
                await node.next_head(5.0)

        with pytest.raises(NodeLost, match="Connect again"):
            asyncio.run(run())


def test_a_head_that_is_none_is_a_fault() -> None:
    for raw in ({}, {"number": "0x1"}, {"number": "x", "hash": "0x", "parentHash": "0x"}):
        with pytest.raises(Fault, match="head that is none"):
            head_of(raw)
