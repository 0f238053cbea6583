"""Exactly once on a real node: SIGKILL at every step of a transaction's life, then start again."""

from __future__ import annotations

import asyncio
import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clients.keys import MemberKeys
from clients.outbox import Outbox
from clients.submit import Fees, Submitter
from fedtrade.chain.rpc import Rpc
from fedtrade.market.actions import WithdrawLiquidity
from fedtrade.market.events import ActionSettled, Head
from fedtrade.venues.codec import Call, Function, quantity

pytestmark = pytest.mark.chain

APPROVE = Function("approve(address,uint256)", "(bool)")
ACTIONS = 2
POINTS = (
    "plan", "planned", "before_sign", "before_store", "signed", "before_send", "out", "sent",
    "receipt", "mined", "before_end", "ended", "report",
)  # fmt: skip


class Direct:
    """The asynchronous face of a plain connection: each life of the process opens its own."""

    def __init__(self, url: str) -> None:
        self.rpc = Rpc(url)

    async def call(self, method: str, *params: object) -> Any:
        return self.rpc.call(method, *params)


def head_of(rpc: Rpc) -> Head:
    block = rpc.call("eth_getBlockByNumber", "latest", False)
    return Head(
        quantity(block["number"]), block["hash"], block["parentHash"],
        quantity(block["timestamp"]), quantity(block["baseFeePerGas"]),
    )  # fmt: skip


def live(url: str, token: str, path: Path, keys: MemberKeys, at: Callable[[str], None]) -> None:
    """One life: promise each action in turn and advance it, making a block at each turn."""
    node = Direct(url)
    chain_id = quantity(node.rpc.call("eth_chainId"))
    outbox = Outbox(path, chain_id, keys.address)
    fees = Fees(cap_wei=10**12, confirmations=2)
    sender = Submitter(outbox, keys, chain_id, node, fees, lambda action: "", at)
    for _ in range(40):
        head = head_of(node.rpc)
        done = [n for n in range(ACTIONS) if outbox.get(f"a{n}") is not None]
        if not outbox.open() and not outbox.unreported() and len(done) == ACTIONS:
            return
        if not outbox.open() and not outbox.unreported():
            n = len(done)
            action = WithdrawLiquidity(f"a{n}", "0xP", 1, 1, 0, 0, head.timestamp_s + 10**6)
            spender = "0x" + f"{n + 1:040x}"
            sender.plan(action, Call(token, APPROVE.encode(spender, 7 + n)))
        settled: list[ActionSettled] = asyncio.run(sender.advance(head))
        for event in settled:
            assert event.outcome == "confirmed"
            sender.reported(event.action_id)
        node.rpc.call("evm_mine")
    raise AssertionError("never came to an end")


def life(url: str, token: str, path: Path, keys: MemberKeys, point: str) -> bool:
    """Live in a process of its own, killed where it first comes to `point`; whether it was."""
    child = os.fork()
    if child == 0:

        def kill(step: str) -> None:
            if step == point:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            live(url, token, path, keys, kill)
        except BaseException:
            traceback.print_exc()
            os._exit(3)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("point", POINTS)
def test_sigkill_at_each_step(chain: Any, tmp_path: Path, point: str) -> None:
    keys = MemberKeys.ephemeral()
    chain.devnet.fund(chain.deployment.name, keys.address, native_wei=10**18)
    chain.anvil.automine(False)
    url, token, path = chain.anvil.url, chain.deployment.base.address, tmp_path / "db"
    deaths = [life(url, token, path, keys, point) for _ in range(ACTIONS)]
    assert deaths[0]
    assert not life(url, token, path, keys, "")
    me = keys.address.lower()
    sent = [
        tx["input"]
        for number in range(chain.anvil.latest().number + 1)
        for tx in chain.rpc.call("eth_getBlockByNumber", hex(number), True)["transactions"]
        if tx["from"].lower() == me
    ]
    expected = ["0x" + APPROVE.encode("0x" + f"{n + 1:040x}", 7 + n).hex() for n in range(ACTIONS)]
    assert sent == expected
    assert quantity(chain.rpc.call("eth_getTransactionCount", keys.address, "latest")) == ACTIONS
