"""Blocks are replaced under the coordinator, 1 to 12 deep, on every chain: each thing is done once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from blocks import Miner, sent_by
from office import SHA256, manifest, office

from fedtrade.chain import transacting
from fedtrade.chain.conversation import ask
from fedtrade.chain.quorum import reader
from server import publish

pytestmark = [pytest.mark.chain, pytest.mark.timeout(900)]

DEEP = 13
ROUNDS = 2


@pytest.fixture
def at(chains: Any) -> Iterator[Any]:
    """Makes coordinators, and closes their connections in the end."""
    made = []

    def make(name: str, confirmations: int = DEEP) -> Any:
        known = chains.deployment.chain(name)
        seen = known.model_copy(update={"confirmations": confirmations})
        made.append(office(chains, known, seen))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks come every few milliseconds here."""
    monkeypatch.setattr(transacting, "RESEND_S", 0.05)
    monkeypatch.setattr(transacting, "POLL_MAX_S", 0.05)


@pytest.mark.parametrize("depth", range(1, DEEP))
def test_a_release_stands_once_whatever_is_undone(chains: Any, at: Any, depth: int) -> None:
    """Every transaction of the release is undone once, and the release comes to its end."""
    desk = at("aster")
    with Miner(chains.anvil("aster"), desk.keys.address, depth) as miner:
        desk.open(ROUNDS)
        for number in range(1, ROUNDS + 1):
            desk.post(number)
        desk.publish()
        desk.post(1)  # as after a crash: it stands already
    assert len(miner.undone) == ROUNDS + 2
    newest = chains.anvil("aster").latest().number
    for number in range(1, ROUNDS + 1):
        assert desk.stands(number, newest - DEEP + 1)
    assert ask(desk.honest, desk.registry.model(1)).sha256 == SHA256
    mined = sent_by(desk.honest, desk.keys.address)
    assert len(mined) == ROUNDS + 2
    assert len({tx["input"] for tx in mined}) == len(mined)


def test_what_stands_but_not_deep_is_waited_for(chains: Any, at: Any) -> None:
    """After a crash between sending and depth: nothing is sent again unless it falls out."""
    shallow = at("aster", 1)
    seen = shallow.publisher.chain.model_copy(update={"confirmations": DEEP})
    with Miner(chains.anvil("aster"), shallow.keys.address) as miner:
        shallow.open(ROUNDS)
        shallow.post(1)
        again = publish.Publisher(seen, shallow.publisher._rpc, shallow.keys)
        again.post_manifest(1, 1, manifest(1))
        assert miner.undone == set()
    newest = chains.anvil("aster").latest().number
    assert shallow.stands(1, newest - DEEP + 1)
    assert len(sent_by(shallow.honest, shallow.keys.address)) == 2


def test_control_a_first_receipt_is_not_the_end(chains: Any, at: Any) -> None:
    """Who takes the first receipt for the end goes on without what was undone."""
    desk = at("aster", 1)
    with Miner(chains.anvil("aster"), desk.keys.address):
        desk.open(ROUNDS)
    with Miner(chains.anvil("aster"), desk.keys.address, 3) as miner:
        desk.post(1)
        while not miner.undone:
            time.sleep(0.01)
    assert not desk.stands(1)


def test_a_node_that_fakes_receipts_is_not_believed(
    chain: Any, nodes: list[Any], seen_by_three: Any
) -> None:
    """It keeps transactions to itself and tells receipts of them. Alone it is believed."""
    alone = chain.deployment.model_copy(update={"rpc_url": nodes[0].url})
    with closing(office(chain.devnet, chain.deployment, alone)) as desk:
        desk.open(ROUNDS)
        nodes[0].lie = "fake receipt"
        with Miner(chain.anvil, desk.keys.address):
            desk.post(1)
            assert not desk.stands(1)  # the control
            with reader(seen_by_three.all_rpc_urls, seen_by_three.chain_id) as three:
                agreeing = publish.Publisher(seen_by_three, three, desk.keys)
                agreeing.post_manifest(1, 1, manifest(1))
                assert desk.stands(1)
                (liar, *others) = three.standings
    assert liar.last
    assert [other.last for other in others] == ["", ""]
