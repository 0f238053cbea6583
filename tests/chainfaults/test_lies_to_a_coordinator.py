"""One of three nodes lies to the coordinator, in twelve ways: each manifest is posted once, and stands.

`FEDTRADE_LIE_STEPS=200` runs the campaign at full length; a node that was left rests for 50 ms.
"""

from __future__ import annotations

import json
import os
import random
import time
from contextlib import closing
from typing import Any, Final

import pytest
from blocks import Miner, sent_by
from lying import LIES, Proxy
from office import office

from clients.homechain import final_manifests
from fedtrade.chain import agreement, quorum, transacting
from fedtrade.chain.agreement import NoAgreement
from fedtrade.chain.quorum import AgreedRpc, reader
from fedtrade.chain.rpc import Rpc

pytestmark = [pytest.mark.chain, pytest.mark.timeout(3600)]

STEPS: Final = int(os.environ.get("FEDTRADE_LIE_STEPS", "4"))
GAS_SANE: Final = 300_000


@pytest.fixture(autouse=True)
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "REST_S", 0.05)
    monkeypatch.setattr(agreement, "REST_MAX_S", 0.05)
    monkeypatch.setattr(transacting, "POLL_MAX_S", 0.05)


@pytest.mark.parametrize("lie", [*LIES, "corrupt"])
def test_one_lying_node_of_three_costs_nothing(
    devnet: Any, chain: Any, nodes: list[Proxy], seen_by_three: Any, lie: str
) -> None:
    before = chain.anvil.snapshot()
    seen = seen_by_three.model_copy(update={"confirmations": 2})
    dice, slowest_s = random.Random(lie), 0.0
    with (
        closing(office(devnet, chain.deployment, seen)) as desk,
        Miner(chain.anvil, desk.keys.address),
    ):
        desk.open(STEPS)
        for number in range(1, STEPS + 1):
            nodes[0].lie = lie if dice.random() < 0.8 or number == 1 else None
            begin_s = time.monotonic()
            desk.post(number)
            slowest_s = max(slowest_s, time.monotonic() - begin_s)
            assert desk.stands(number)
        rpc = desk.publisher._rpc
        assert isinstance(rpc, AgreedRpc)
        (liar, *others) = rpc.standings
    mined = sent_by(desk.honest, desk.keys.address)
    print(json.dumps({
        "lie": lie, "told": nodes[0].told, "steps": STEPS, "transactions": len(mined),
        "slowest_s": round(slowest_s, 3), "reason": liar.last,
    }))  # fmt: skip
    assert nodes[0].told > 0
    assert len(mined) == STEPS + 1
    assert len({tx["input"] for tx in mined}) == len(mined)
    assert max(int(tx["gas"], 16) for tx in mined[1:]) < GAS_SANE
    assert [other.last for other in others] == ["", ""]
    chain.anvil.automine(True)
    chain.anvil.revert(before)


@pytest.mark.parametrize("away", [1, 2])
def test_two_nodes_agree_without_the_third_and_one_does_not(
    chain: Any, nodes: list[Proxy], seen_by_three: Any, monkeypatch: pytest.MonkeyPatch, away: int
) -> None:
    monkeypatch.setattr(quorum, "AGREE_LIMIT_S", 0.5)
    for node in nodes[:away]:
        node.lie = "reset"
    with reader(seen_by_three.all_rpc_urls, seen_by_three.chain_id) as rpc:
        if away == 1:
            assert int(rpc.call("eth_blockNumber"), 16) == chain.anvil.latest().number
            return
        with pytest.raises(NoAgreement, match="2 of 3 nodes must agree on the newest block") as e:
            rpc.call("eth_blockNumber")
    assert nodes[0].url in e.value.message
    assert "gave no answer" in e.value.message


def test_two_liars_that_differ_are_a_standstill_and_not_an_answer(
    nodes: list[Proxy], seen_by_three: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quorum, "AGREE_LIMIT_S", 0.5)
    nodes[0].lie, nodes[1].lie = "corrupt", "null"
    with (
        reader(seen_by_three.all_rpc_urls, seen_by_three.chain_id) as rpc,
        pytest.raises(NoAgreement),
    ):
        rpc.call("eth_getBalance", seen_by_three.pool, "latest")


def test_nodes_of_another_chain_are_named(
    chain: Any, seen_by_three: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quorum, "AGREE_LIMIT_S", 0.2)
    with (
        reader(seen_by_three.all_rpc_urls, 99) as rpc,
        pytest.raises(NoAgreement, match="it is of chain 31101, not 99"),
    ):
        rpc.call("eth_chainId")


def test_a_helper_reads_a_final_manifest_that_two_of_three_have(
    devnet: Any, chain: Any, nodes: list[Proxy], seen_by_three: Any
) -> None:
    known = chain.deployment
    with closing(office(devnet, known, known)) as desk:
        desk.open(2)
        desk.post(1)
        nodes[2].lie = "corrupt"
        with reader(seen_by_three.all_rpc_urls, known.chain_id) as rpc:
            assert isinstance(final_manifests(rpc, known.model_registry, "latest")(1, 1), bytes)
            assert final_manifests(rpc, known.model_registry, "latest")(1, 2) is None
            chain.rpc.call("anvil_mine", "0x64")
            assert isinstance(final_manifests(rpc, known.model_registry)(1, 1), bytes)  # finalized


def test_one_node_is_a_plain_connection(chain: Any) -> None:
    with reader(chain.deployment.all_rpc_urls, chain.deployment.chain_id) as rpc:
        assert type(rpc) is Rpc
