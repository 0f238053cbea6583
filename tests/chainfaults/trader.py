"""An agent's reading and signing (`Nodes`, `Ingest`, `Submitter`), with one approval a block for its
decision, and the honest chain's judgement of what it did."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from blocks import sent_by

from clients.ingest import Block, Ingest
from clients.keys import MemberKeys
from clients.node import NodeLost, NodeUnreachable
from clients.nodes import line_of
from clients.outbox import Outbox
from clients.submit import Fees, Submitter
from fedtrade.chain.agreement import NoAgreement, Standing
from fedtrade.errors import FedtradeError
from fedtrade.market.actions import WithdrawLiquidity
from fedtrade.venues.codec import Call, Function

APPROVE: Final = Function("approve(address,uint256)", "(bool)")
GAS_SANE: Final = 250_000
FEE_SANE_WEI: Final = 12 * 10**9
HALTS_MAX: Final = 6


@dataclass
class Campaign:
    """What happened in one."""

    steps: int = 0
    blocks: int = 0
    halts: int = 0
    slowest_s: float = 0.0
    """Longest from a new block to everything that follows from it."""
    over_s: float = 0.0
    """Longest from the moment a node was left to the next block that was dealt with."""
    reasons: set[str] = field(default_factory=set)
    unsafe: list[str] = field(default_factory=list)
    unfinished: int = 0


def spender(number: int) -> str:
    return f"0x{number + 1:040x}"


class Trader:
    """One agent's reading and signing."""

    def __init__(
        self,
        chain: Any,
        seen: Any,
        folder: Path,
        between: Callable[[random.Random, bool], None],
        confirmations: int = 2,
    ) -> None:
        """`between` is called before each block with dice, and whether steps are still to come."""
        self.chain, self.seen, self.between = chain, seen, between
        self.confirmations = confirmations
        self.keys = MemberKeys.ephemeral()
        chain.devnet.fund(chain.deployment.name, self.keys.address, native_wei=10**20)
        chain.anvil.automine(False)
        self.path = folder / "transactions.sqlite"
        self.outbox = Outbox(self.path, seen.chain_id, self.keys.address)
        self.standings = [Standing(url) for url in seen.all_ws_urls]
        self.dice = random.Random(chain.deployment.name)
        self.found = Campaign()

    async def run(self, steps: int) -> Campaign:
        ingest = Ingest(self.seen, self.keys.address)
        while self.found.halts < HALTS_MAX:
            try:
                async with line_of(self.seen, self.standings) as node:
                    await self._live(ingest, node, steps)
                    break
            except (NodeLost, NodeUnreachable, FedtradeError) as lost:
                self.found.halts += 1
                self.found.reasons.add(f"halt: {type(lost).__name__}")
                await asyncio.sleep(0.2)
        self._judge()
        return self.found

    async def _live(self, ingest: Ingest, node: Any, steps: int) -> None:
        fees = Fees(cap_wei=10**12, confirmations=self.confirmations)
        sender = Submitter(
            self.outbox, self.keys, self.seen.chain_id, node, fees, lambda action: ""
        )
        block: Block | None = await ingest.open(node)
        quiet = 0
        left_s: dict[str, float] = {}
        while True:
            if block is not None:
                quiet = 0
                await self._deal(sender, block, steps)
                if self.found.steps >= steps and not self.outbox.open():
                    return
            else:
                quiet += 1
                if quiet > 2:
                    raise NoAgreement("any block", self.standings)
            self.between(self.dice, self.found.steps < steps)
            self.found.blocks += 1
            if self.found.blocks > 4 * steps + 40:
                return  # something is stuck for good
            begin_s = time.monotonic()
            await asyncio.to_thread(self.chain.anvil.mine)
            block = await ingest.next(node, 5.0)
            self.found.slowest_s = max(self.found.slowest_s, time.monotonic() - begin_s)
            for standing in self.standings:
                if standing.reason and standing.url not in left_s:
                    left_s[standing.url] = begin_s
                    self.found.over_s = max(self.found.over_s, time.monotonic() - begin_s)
                    self.found.reasons.add(standing.reason)
                elif not standing.reason:
                    left_s.pop(standing.url, None)

    async def _deal(self, sender: Submitter, block: Block, steps: int) -> None:
        for event in await sender.advance(block.head):
            sender.reported(event.action_id)
        if self.found.steps < steps:
            number = self.found.steps
            self.found.steps += 1
            late_s = block.head.timestamp_s + 10**6
            action = WithdrawLiquidity(f"a{number}", "0xP", 1, 1, 0, 0, late_s)
            data = APPROVE.encode(spender(number), 7)
            sender.plan(action, Call(self.seen.base.address, data))
            await sender.advance(block.head)

    def _judge(self) -> None:
        """Compare with the honest chain: what was signed, what was mined, what was taken for done."""
        self.chain.anvil.mine()
        found, me = self.found, self.keys.address.lower()
        mined: dict[str, int] = {}
        for tx in sent_by(self.chain.rpc, me):
            mined[tx["input"]] = mined.get(tx["input"], 0) + 1
        with sqlite3.connect(self.path) as db:
            signed = db.execute("select nonce, gas, fee_wei, cancels from transactions").fetchall()
            states = db.execute("select action_id, data, state from actions").fetchall()
        db.close()
        for action_id, data, state in states:
            times = mined.get(data, 0)
            if times > 1:
                found.unsafe.append(f"{action_id} was mined {times} times")
            if state in ("confirmed", "reverted", "dropped") and (state == "confirmed") != (
                times == 1
            ):
                found.unsafe.append(f"{action_id} is {state} and was mined {times} times")
            found.unfinished += state in ("planned", "signed", "sent", "mined")
        nonces = {nonce for nonce, *_ in signed}
        if nonces != set(range(len(nonces))):
            found.unsafe.append(f"nonces with gaps: {sorted(nonces)[:5]}")
        found.unsafe += [f"gas limit {gas}" for _, gas, _, _ in signed if gas > GAS_SANE]
        found.unsafe += [f"fee {f}" for _, _, f, _ in signed if int(f) > FEE_SANE_WEI]
        found.unsafe += [f"nonce {n} cancelled" for n, _, _, cancels in signed if cancels]
        self.outbox.close()
