"""What the relayer believes was sent is what stands on the chain now, whatever was replaced."""

import pytest

from fedtrade.chain.conversation import ask
from fedtrade.chain.mirrors import RegistryBeacon
from fedtrade.chain.rpc import NodeLost, Rpc
from fedtrade.devnet.accounts import GOVERNOR
from fedtrade.devnet.deploy import send
from fedtrade.venues.codec import AnswerUnreadable
from fedtrade.venues.hyperlane import MerkleTree
from server import dispatched
from server.dispatched import Dispatches

pytestmark = pytest.mark.chain
VALIDATOR = "0x" + "11" * 20


class Node(Rpc):
    """A real node behind this test's idea of what is final, and of which logs to show."""

    def __init__(self, url, final):
        super().__init__(url)
        self.final = final
        self.hide = ""
        self.spans = []

    def call(self, method, *params):
        if method == "eth_getLogs":
            self.spans.append((int(params[0]["fromBlock"], 16), int(params[0]["toBlock"], 16)))
            if self.hide and params[0]["address"] == self.hide:
                return []
        return super().call(method, *params)

    def batch(self, calls):
        given = [
            (m, [hex(self.final), p[1]] if p[0] == "finalized" else p)
            if m == "eth_getBlockByNumber"
            else (m, p)
            for m, p in calls
        ]
        return super().batch(given)


@pytest.fixture(scope="module")
def linked(devnet):
    return devnet, devnet.link([VALIDATOR], 1)


@pytest.fixture
def place(linked):
    devnet, deployment = linked
    anvil = devnet.anvil("aster")
    before = anvil.snapshot()
    home = deployment.chain("aster")
    domains = [deployment.chain(name).messages.domain for name in ("birch", "cedar")]
    place = Place(anvil, home, domains, deployment.chain("birch").messages)
    yield place
    place.node.close()
    anvil.revert(before)


class Place:
    def __init__(self, anvil, home, domains, birch):
        self.anvil, self.home, self.domains, self.birch = anvil, home, domains, birch
        self.node = Node(home.rpc_url, anvil.latest().number)
        self.begun = self.node.final

    def dispatches(self, from_block=None):
        at = self.home.messages
        return Dispatches(
            self.node,
            at.beacon,
            at.mailbox,
            at.merkle_tree_hook,
            self.begun if from_block is None else from_block,
            "finalized",
        )

    def post(self, domains=None):
        beacon = RegistryBeacon(self.home.messages.beacon)
        domains = domains or self.domains
        fee = ask(self.anvil.rpc, beacon.quote(domains))
        return send(self.anvil.rpc, GOVERNOR, beacon.post(domains, fee))

    def seen(self, dispatches):
        dispatches.refresh(self.domains)
        return [
            one.snapshot.sequence for one in dispatches.to(self.birch.domain, self.birch.mirror)
        ]


def test_newest_first_final_or_not(place):
    dispatches = place.dispatches()
    assert place.seen(dispatches) == []
    place.post()
    place.post()
    assert place.seen(dispatches) == [2, 1]
    place.node.final = place.anvil.latest().number
    place.post()
    assert place.seen(dispatches) == [3, 2, 1]
    assert place.seen(dispatches) == [3, 2, 1]  # once each


def test_each_knows_its_leaf(place):
    dispatches = place.dispatches()
    place.post()
    place.post()
    dispatches.refresh(place.domains)
    tree, found = MerkleTree(), []
    for domain in place.domains:
        found += dispatches.to(domain, place.birch.mirror)  # the mirrors' addresses are equal
    for number, one in enumerate(sorted(found, key=lambda one: one.index)):
        assert one.index == number
        tree.insert(one.message.id)
    assert tree.count == 4


def test_a_replaced_block_takes_its_messages_with_it(place):
    dispatches = place.dispatches()
    place.post()
    assert place.seen(dispatches) == [1]
    place.anvil.reorg(1)
    assert place.seen(dispatches) == []
    place.post()
    assert place.seen(dispatches) == [1]


def test_the_first_search_goes_backwards_and_ends_soon(place, monkeypatch):
    monkeypatch.setattr(dispatched, "LOG_SPAN", 4)
    place.post()
    for _ in range(12):
        place.anvil.mine()
    place.post()
    place.anvil.mine()
    place.node.final = place.anvil.latest().number
    dispatches = place.dispatches()
    assert place.seen(dispatches) == [2]
    assert min(first for first, _ in place.node.spans) > place.begun + 8
    again = place.dispatches()
    # A chain that was never posted to makes it look through everything.
    again.refresh([*place.domains, 999])
    assert [one.snapshot.sequence for one in again.to(place.birch.domain, place.birch.mirror)] == [
        2,
        1,
    ]


def test_few_are_kept(place, monkeypatch):
    monkeypatch.setattr(dispatched, "KEPT_MAX", 3)
    dispatches = place.dispatches()
    for _ in range(5):
        place.post()
        place.node.final = place.anvil.latest().number
        dispatches.refresh(place.domains)
    assert place.seen(dispatches) == [5, 4, 3]


def test_a_node_that_lags_takes_nothing_back(place):
    dispatches = place.dispatches()
    place.post()
    place.node.final = place.anvil.latest().number
    assert place.seen(dispatches) == [1]
    place.node.final -= 1
    assert place.seen(dispatches) == [1]


def test_a_message_without_a_leaf_is_not_half_believed(place):
    dispatches = place.dispatches()
    place.seen(dispatches)
    place.post()
    place.node.hide = place.home.messages.merkle_tree_hook
    with pytest.raises(AnswerUnreadable, match="no leaf"):
        place.seen(dispatches)
    place.node.hide = ""
    assert place.seen(dispatches) == [1]


def test_a_lost_node_loses_nothing(place):
    dispatches = place.dispatches()
    place.post()
    place.seen(dispatches)
    batch = place.node.batch

    def lost(_):
        raise NodeLost(place.node.url, "away")

    place.node.batch = lost
    with pytest.raises(NodeLost):
        dispatches.refresh(place.domains)
    place.node.batch = batch
    assert place.seen(dispatches) == [1]
