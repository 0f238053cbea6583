"""What a single node can make an agent do at most: loops, files and gas have their limits."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from clients import ingest as module
from clients.ingest import Ingest, RegistryTooOld, head_of
from clients.keys import MemberKeys
from clients.outbox import Attempt, Outbox
from clients.submit import Fees, Submitter
from fedtrade.chain.deployment import ChainDeployment, TokenAt
from fedtrade.errors import Fault
from fedtrade.market.actions import WithdrawLiquidity
from fedtrade.market.events import Head
from fedtrade.venues.codec import AnswerUnreadable, Call, index, quantity

ME = "0x00000000000000000000000000000000000000F1"


def at(number: int) -> str:
    return f"0x{number:040x}"


def chain(from_block: int = 0) -> ChainDeployment:
    names = (
        "registry", "parameters", "price_feed", "pool", "factory", "position_manager",
        "swap_router", "quoter",
    )  # fmt: skip
    return ChainDeployment(
        name="aster", chain_id=1, rpc_url="http://x", ws_url="ws://x", feed_decimals=8,
        base=TokenAt(address=at(1), symbol="WETH", decimals=18),
        quote=TokenAt(address=at(2), symbol="USDC", decimals=6),
        fee_pips=500, tick_spacing=10, from_block=from_block,
        **{name: at(100 + place) for place, name in enumerate(names)},
    )  # fmt: skip


class Logs:
    """A node without logs that notes what it was asked."""

    url = "ws://x"

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    async def call(self, method: str, *params: Any) -> Any:
        assert method == "eth_getLogs"
        self.asked.append((int(params[0]["fromBlock"], 16), int(params[0]["toBlock"], 16)))
        return []


def test_a_registry_is_read_once_and_then_only_what_is_new() -> None:
    node, ingest = Logs(), Ingest(chain(1_000), ME)
    span = module.REGISTRY_SPAN
    asyncio.run(ingest.models(node, 1_000 + 2 * span))  # type: ignore[arg-type]
    assert node.asked == [
        (1_000, 999 + span),
        (1_000 + span, 999 + 2 * span),
        (1_000 + 2 * span, 1_000 + 2 * span),
    ]
    node.asked.clear()
    asyncio.run(ingest.models(node, 1_010 + 2 * span))  # type: ignore[arg-type]
    asyncio.run(ingest.models(node, 1_000))  # type: ignore[arg-type]
    assert node.asked == [(1_001 + 2 * span, 1_010 + 2 * span)]
    node.asked.clear()
    ingest._forget_models(1_005 + 2 * span)  # as after a reorganisation
    asyncio.run(ingest.models(node, 1_010 + 2 * span))  # type: ignore[arg-type]
    assert node.asked == [(1_006 + 2 * span, 1_010 + 2 * span)]


def test_an_invented_head_makes_no_endless_reading() -> None:
    node, ingest = Logs(), Ingest(chain(), ME)
    with pytest.raises(RegistryTooOld, match="Set from_block"):
        asyncio.run(ingest.models(node, 2**62))  # type: ignore[arg-type]
    assert node.asked == []


@pytest.mark.parametrize("number", [2**63, 2**255])
def test_a_number_that_no_chain_has_counted_to_is_no_head(number: int) -> None:
    raw = {"number": hex(number), "hash": "0x" + "11" * 32, "parentHash": "0x" + "22" * 32,
           "timestamp": "0x1"}  # fmt: skip
    with pytest.raises(Fault, match="head that is none"):
        head_of(raw)
    with pytest.raises(AnswerUnreadable, match="too large to count"):
        index(hex(number))
    assert quantity(hex(number)) == number
    with pytest.raises(AnswerUnreadable, match="256 bits"):
        quantity(hex(2**256))


def test_the_outbox_takes_no_block_that_no_chain_has(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "db", 1, ME)
    outbox.plan("a", {"type": "approval"}, at(1), "0x", 99)
    promise = outbox.open()[0]
    with pytest.raises(AnswerUnreadable):
        outbox.signed(promise, Attempt("0x1", 0, 0, False, b"", 1, 1, 21_000, 2**63))
    with pytest.raises(AnswerUnreadable):
        outbox.move(promise, "dropped", block=2**63)
    assert outbox.open() == [promise]
    outbox.move(promise, "dropped", block=2**63 - 1)
    outbox.close()


class Says:
    """A node that says these things, and notes what is asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def call(self, method: str, *params: Any) -> Any:
        self.asked.append(method)
        return self.answers[method]


def sender(tmp_path: Path, node: Says) -> tuple[Submitter, Outbox]:
    keys = MemberKeys.ephemeral()
    outbox = Outbox(tmp_path / "db", 1, keys.address)
    found = Submitter(outbox, keys, 1, node, Fees(cap_wei=10**12), lambda action: "")
    found.plan(WithdrawLiquidity("a", "0xP", 1, 1, 0, 0, 10**6), Call(at(1), b""))
    return found, outbox


def test_no_node_makes_us_sign_for_huge_gas(tmp_path: Path) -> None:
    node = Says(eth_estimateGas=hex(2**40), eth_getTransactionCount="0x0")
    found, outbox = sender(tmp_path, node)
    asyncio.run(found.advance(Head(5, "0x1", "0x0", 1, 10**9)))
    assert outbox.open()[0].state == "planned"
    assert outbox.attempts("a") == []
    outbox.close()


def test_a_nonce_that_no_account_has_used_up_is_unreadable(tmp_path: Path) -> None:
    node = Says(eth_estimateGas="0x5208", eth_getTransactionCount=hex(2**63))
    found, outbox = sender(tmp_path, node)
    with pytest.raises(AnswerUnreadable):
        asyncio.run(found.advance(Head(5, "0x1", "0x0", 1, 10**9)))
    assert outbox.attempts("a") == []
    outbox.close()
