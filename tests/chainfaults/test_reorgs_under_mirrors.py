"""Blocks are replaced under messages, 1 to 12 deep, on the home chain and on a mirror's.

Validators sign nothing that is undone, and every mirror has the newest message once in the end.
`FEDTRADE_REORG_MATRIX=1` runs every depth with every fate of a transaction; otherwise a few.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
from blocks import How, sent_by
from lying import Proxy

sys.path.insert(0, str(Path(__file__).parents[1] / "server"))

from test_relay import World
from test_relay import linked as linked  # fixtures
from test_relay import world as world

from clients.validator import Equivocation
from fedtrade.chain import agreement
from fedtrade.chain.conversation import ask
from fedtrade.chain.deployment import Deployment
from fedtrade.chain.mirrors import MIRRORED, RegistryBeacon
from fedtrade.chain.quorum import reader
from fedtrade.devnet.accounts import GOVERNOR
from fedtrade.devnet.deploy import send
from fedtrade.venues.hyperlane import INSERTED, read_checkpoint
from server.keys import CoordinatorKeys

pytestmark = [pytest.mark.chain, pytest.mark.timeout(600)]

DEEP: Final = 13
HOWS: Final[tuple[How, ...]] = ("dropped", "included")
SAMPLE: Final[tuple[tuple[int, How], ...]] = ((1, "dropped"), (6, "included"), (12, "dropped"))
MATRIX: Final = (
    [(depth, how) for depth in range(1, DEEP) for how in HOWS]
    if os.environ.get("FEDTRADE_REORG_MATRIX")
    else SAMPLE
)
FINAL_BLOCKS: Final = 64
"""More than lie between an anvil's newest and its safe block."""


APART: Final = itertools.count(1)


@pytest.fixture(autouse=True)
def apart(world: World) -> None:
    """Blocks that no test before had: a node that was put back has lost the states of equal ones."""
    number = next(APART)
    for chain in world.deployment.chains:
        anvil = world.devnet.anvil(chain.name)
        anvil.mine(anvil.latest().timestamp_s + number)
        anvil.rpc.call("anvil_mine", hex(DEEP))


@pytest.fixture
def safe(world: World) -> World:
    """A world in which validators and relayer wait until blocks are safe."""
    world.final_block = "safe"
    world.rpc.call("anvil_mine", hex(FINAL_BLOCKS))
    return world


def leaves(world: World) -> list[str]:
    """The message ids in the home chain's tree, in their order."""
    hook = world.home.messages.merkle_tree_hook
    asked = {"address": hook, "topics": [INSERTED.topic], "fromBlock": "0x0", "toBlock": "latest"}
    return [log["data"][2:66] for log in world.rpc.call("eth_getLogs", asked)]


def signed(world: World, number: int) -> list[str]:
    """The message ids that a validator has signed, in their order."""
    path = world.folder / f"v{number}.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    ids = [(entry.get("body") or entry)["message_id"] for entry in found]
    files = sorted((world.folder / f"v{number}").glob("*_with_id.json"))
    stored = [read_checkpoint(file.read_bytes()).checkpoint for file in files]
    assert {c.message_id.hex() for c in stored} == set(ids)
    return ids


def undo(world: World, name: str, depth: int, how: How, account: str) -> None:
    """Replace blocks until those with an account's newest transaction, made `depth` deep, are gone."""
    anvil = world.devnet.anvil(name)
    for _ in range(depth - 1):
        anvil.mine()
    (*_, newest) = sent_by(anvil.rpc, account)
    assert anvil.latest().number - int(newest["blockNumber"], 16) + 1 == depth
    raw = anvil.rpc.call("eth_getRawTransactionByHash", newest["hash"])
    anvil.rpc.call("anvil_reorg", depth, [[raw, depth // 2]] if how == "included" else [])
    stands = anvil.rpc.call("eth_getTransactionReceipt", newest["hash"]) is not None
    assert stands == (how == "included")


def taken(world: World, name: str) -> list[int]:
    """The numbers of the messages that a mirror has taken, in their order."""
    at = world.deployment.chain(name).messages
    asked = {"address": at.mirror, "topics": [MIRRORED.topic], "fromBlock": "0x0"}
    logs = world.devnet.rpc(name).call("eth_getLogs", {**asked, "toBlock": "latest"})
    return [int(log["topics"][1], 16) for log in logs]


@pytest.mark.parametrize(("depth", "how"), MATRIX)
def test_what_the_home_chain_undoes_is_signed_by_nobody(safe: World, depth: int, how: How) -> None:
    """A post is undone; what was posted instead at its place is signed once it is safe, and taken."""
    world, keys = safe, CoordinatorKeys.ephemeral()
    relay = world.relay(keys)
    world.looks(relay, 2)
    undone = leaves(world)
    assert len(undone) == 2  # one for each mirror
    assert world.validators(0, 1, 2) == 0
    undo(world, "aster", depth, how, keys.address)
    assert world.validators(0, 1, 2) == 0
    if how == "dropped":
        assert leaves(world) == []
        anvil = world.devnet.anvil("aster")
        anvil.mine(anvil.latest().timestamp_s + 7)
        domains = [world.deployment.chain(name).messages.domain for name in ("birch", "cedar")]
        beacon = RegistryBeacon(world.home.messages.beacon)
        send(world.rpc, GOVERNOR, beacon.post(domains[:1], ask(world.rpc, beacon.quote(domains))))
        assert leaves(world)[0] != undone[0]  # another message has its place
    world.change(40)
    world.looks(relay, 3)
    world.rpc.call("anvil_mine", hex(FINAL_BLOCKS))
    assert world.validators(0, 1, 2) == 3 * len(leaves(world))
    for number in range(3):
        assert signed(world, number) == leaves(world)
    assert how == "included" or not set(undone) & set(leaves(world))
    world.clock.now += 60.0
    world.looks(relay, 6)
    newest = world.posted()
    assert world.sequence("birch") == world.sequence("cedar") == newest
    assert taken(world, "cedar") == [newest]
    posts = [tx for tx in sent_by(world.rpc, keys.address) if tx["to"] == beacon_of(world)]
    assert len(posts) == (2 if how == "included" else 1)  # what was undone was not made up twice


def beacon_of(world: World) -> str:
    return str(world.home.messages.beacon).lower()


def test_control_a_validator_that_takes_the_newest_block_for_final_signs_an_orphan(
    world: World,
) -> None:
    """It finds out, signs nothing more, and its signature of what is gone is out."""
    relay = world.relay(keys := CoordinatorKeys.ephemeral())
    world.looks(relay, 1)
    orphan = leaves(world)
    assert world.validators(0) == 2
    undo(world, "aster", 1, "dropped", keys.address)
    world.change(40)
    world.looks(relay, 8)  # it takes its post for waiting at first
    assert len(leaves(world)) == 2
    assert not set(leaves(world)) & set(orphan)
    with pytest.raises(Equivocation):
        world.validators(0)
    assert signed(world, 0) == orphan


@pytest.mark.parametrize("name", ["birch", "cedar"])
@pytest.mark.parametrize(("depth", "how"), MATRIX)
def test_what_a_mirrors_chain_undoes_is_delivered_again(
    world: World, name: str, depth: int, how: How
) -> None:
    """Twice: after each, the mirror has taken the message once, and the other chain knows nothing."""
    (other,) = {"birch", "cedar"} - {name}
    world.validators(0, 1)
    keys = CoordinatorKeys.ephemeral()
    relay = world.relay(keys)
    world.looks(relay)
    world.validators(0, 1)
    world.looks(relay)
    assert taken(world, name) == taken(world, other) == [1]
    for _ in range(2):
        world.devnet.rpc(name).call("anvil_mine", hex(DEEP))
        undo_delivery(world, name, depth, how, keys.address)
        assert taken(world, name) == ([1] if how == "included" else [])
        world.looks(relay)
        assert taken(world, name) == taken(world, other) == [1]
        assert world.sequence(name) == 1
        sent = sent_by(world.devnet.rpc(name), keys.address)
        assert len(sent) == 1
    assert len(sent_by(world.devnet.rpc(other), keys.address)) == 1


def undo_delivery(world: World, name: str, depth: int, how: How, account: str) -> None:
    """As `undo`, where the delivery lies deeper: it is mined anew first, by a reorganisation."""
    anvil = world.devnet.anvil(name)
    (tx,) = sent_by(anvil.rpc, account)
    raw = anvil.rpc.call("eth_getRawTransactionByHash", tx["hash"])
    deep = anvil.latest().number - int(tx["blockNumber"], 16) + 1
    anvil.rpc.call("anvil_reorg", deep, [[raw, deep - 1]])  # now it is in the newest block
    undo(world, name, depth, how, account)


def test_a_change_goes_on_its_way_while_the_old_message_is_undone(world: World) -> None:
    """The delivery is undone, and something newer is signed: only that one is delivered."""
    world.validators(0, 1)
    relay = world.relay(keys := CoordinatorKeys.ephemeral())
    world.looks(relay)
    world.validators(0, 1)
    world.looks(relay)
    undo(world, "birch", 3, "dropped", keys.address)
    world.change(40)
    relay.home.again_s = 0.0
    relay._look_home()
    world.validators(0, 1)
    world.looks(relay)
    assert taken(world, "birch") == [2]
    assert taken(world, "cedar") == [1, 2]


@pytest.fixture
def by_three(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Proxy]]:
    """Every chain is read through three nodes; the proxies given are the first of each."""
    monkeypatch.setattr(agreement, "REST_S", 0.05)
    monkeypatch.setattr(agreement, "REST_MAX_S", 0.05)
    with ExitStack() as stack:
        liars, seen = [], []
        for chain in world.deployment.chains:
            proxies = [stack.enter_context(Proxy(chain.rpc_url, n)) for n in range(2)]
            liars.append(proxies[0])
            more = (proxies[1].url, chain.rpc_url)
            seen.append(chain.model_copy(update={"rpc_url": proxies[0].url, "more_rpc_urls": more}))
        world.deployment = Deployment(chains=tuple(seen), home="aster")
        yield liars


@pytest.mark.parametrize("lie", ["stale head", "corrupt", "fake receipt", "nonce", "null"])
def test_one_lying_node_of_three_misleads_neither_relayer_nor_validator(
    world: World, by_three: list[Proxy], lie: str
) -> None:
    home = world.home
    for liar in by_three:
        liar.lie = lie
    with reader(home.all_rpc_urls, home.chain_id) as three:
        honest, world.rpc = world.rpc, three
        keys = CoordinatorKeys.ephemeral()
        relay = world.relay(keys)
        for value in (40, 41):
            world.looks(relay)
            world.validators(0, 1)
            world.clock.now += 60.0
            world.looks(relay)
            world.rpc = honest
            world.change(value)
            world.rpc = three
    world.rpc = honest
    assert all(liar.told > 0 for liar in by_three)
    for name in ("birch", "cedar"):
        assert taken(world, name) == [1, 2]
        assert len(sent_by(world.devnet.rpc(name), keys.address)) == 2
    posts = [tx for tx in sent_by(world.rpc, keys.address) if tx["to"] == beacon_of(world)]
    assert len(posts) == 2
    assert signed(world, 0) == leaves(world)[:4]
