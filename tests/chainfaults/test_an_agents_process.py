"""The whole agent over several nodes: one lies, one goes away, the line breaks between approvals."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lying import Proxy

sys.path.insert(0, str(Path(__file__).parents[1] / "clients"))

from test_execution import Desk, begin
from test_execution import desk as desk  # a fixture

from clients import execution as module
from clients.execution import Execution
from clients.node import Node, NodeLost
from clients.settings import ExecutionSettings
from fedtrade.chain.deployment import Deployment
from fedtrade.chain.rpc import Rpc
from fedtrade.venues.uniswap_v3 import ALLOWANCE

pytestmark = [pytest.mark.chain, pytest.mark.timeout(300)]


@pytest.fixture
def chain(chains: Any) -> Any:
    """The home chain, put back after each test: every one publishes the first model."""
    home = chains.deployment.chain(chains.deployment.home)
    anvil = chains.anvil(home.name)
    return SimpleNamespace(deployment=home, anvil=anvil, rpc=anvil.rpc, devnet=chains)


def through(desk: Desk, nodes: list[Proxy]) -> None:
    """The agent's deployment file names these nodes."""
    urls = [node.ws_url for node in nodes]
    known = desk.chain.deployment.model_copy(
        update={"ws_url": urls[0], "more_ws_urls": tuple(urls[1:])}
    )
    Deployment(chains=(known,), home=known.name).save(desk.folder / "deployment.json")


@pytest.mark.parametrize("lie", ["corrupt", "fake receipt", "stale head", "huge gas"])
def test_it_trades_on_and_names_the_node_that_lies(
    desk: Desk, nodes: list[Proxy], lie: str
) -> None:
    through(desk, nodes)
    nodes[0].lie = lie
    begin(desk)
    named = ""
    for step in range(14):
        said = desk.steps(1)["nodes"]
        assert said.startswith("2 of 3 nodes must agree")
        if "is left" in said:  # it rests, is asked again, and lies where it can
            named = said
        if named and step >= 3:
            break
    (position,) = desk.held().positions
    assert position.liquidity > 0
    assert f"{nodes[0].ws_url} is left: " in named
    assert nodes[1].ws_url not in named
    assert desk.stop() == 0
    result = desk.replay()
    assert result.unfinished == 0
    assert desk.nonce() == 4 + len([b for b in desk.records("event") if settled(b)])


def settled(body: Any) -> bool:
    return body["type"] == "ActionSettled" and body["outcome"] in ("confirmed", "reverted")


def test_without_agreement_it_holds_and_then_goes_on(desk: Desk, nodes: list[Proxy]) -> None:
    through(desk, nodes)
    begin(desk)
    desk.steps(3)
    decided, sent = len(desk.records("receipt")), desk.nonce()
    nodes[0].lie, nodes[1].lie = "corrupt", "stale head"
    for _ in range(3):
        desk.trade(True, 20_000.0)
        desk.mine()
    time.sleep(1.5)
    assert len(desk.records("receipt")) == decided  # two of three do not agree: nothing is decided
    assert desk.nonce() == sent
    nodes[0].lie = nodes[1].lie = None
    desk.steps(2)
    assert len(desk.records("receipt")) > decided
    assert desk.stop() == 0


class Breaks(Node):
    """A line that is lost at the third question about an allowance, once."""

    asked = 0

    async def call(self, method: str, *params: Any) -> Any:
        if method == "eth_call" and params[0]["data"].startswith("0x" + ALLOWANCE.selector.hex()):
            Breaks.asked += 1
            if Breaks.asked == 3:
                raise NodeLost(self.url, "broken off")
        return await super().call(method, *params)


@pytest.fixture
def mined(desk: Desk) -> Iterator[None]:
    """A block every tenth of a second."""
    stop, rpc = threading.Event(), Rpc(desk.chain.anvil.url)

    def work() -> None:
        while not stop.wait(0.1):
            rpc.call("evm_mine")

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stop.set()
    thread.join()
    rpc.close()


def test_a_line_that_breaks_between_two_approvals_leaves_none_out(
    desk: Desk, mined: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "line_of", lambda chain, standings: Breaks(chain.ws_url))
    monkeypatch.setattr(module, "CONNECT_PAUSE_S", 0.01)
    Breaks.asked = 0
    execution = Execution(ExecutionSettings.load(desk.settings()))

    async def live() -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(execution.run(stop))
        while execution._phase != "live" and not task.done():
            await asyncio.sleep(0.05)
        stop.set()
        await task

    asyncio.run(live())
    execution.close()
    assert Breaks.asked >= 6
    known, owner = desk.chain.deployment, desk.keys.address
    for token in (known.base, known.quote):
        for spender in (known.position_manager, known.swap_router):
            answer = desk.chain.rpc.eth_call(token.address, ALLOWANCE.encode(owner, spender))
            assert ALLOWANCE.decode(answer)[0] >= 2**128
    approvals = [data for data in sent(desk) if data.startswith("0x095ea7b3")]
    assert len(approvals) == len(set(approvals)) + 2  # two tokens, each pair of spenders alike
    assert len(approvals) == 4


def sent(desk: Desk) -> list[str]:
    newest = desk.chain.anvil.latest().number
    return [
        tx["input"]
        for number in range(newest + 1)
        for tx in desk.chain.rpc.call("eth_getBlockByNumber", hex(number), True)["transactions"]
        if tx["from"].lower() == desk.keys.address.lower()
    ]
