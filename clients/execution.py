"""One agent on one chain, as a process: `python -m clients.execution --settings FILE`.

    ingest → journal → Agent.on → journal (fsync) → submit → status.json

Where the chain's deployment names a custody, the agent acts for that Safe: tokens and positions are
the Safe's, each action goes out as one order to its breaker, and the key of this process pays gas
and holds nothing else. Without one the key's own account trades.

The agent decides and this shell carries out. It has no opinion of its own: it feeds events in block
order, makes every decision durable before anything leaves, and takes three kinds of error three
ways: Stale (read the chain anew), a lost node (connect again, a limited number of times), anything
else (stop, say one sentence, exit code of its kind).

Before it sends anything, approvals of tokens included, the artifact on disk must be the model that
the registry has published; otherwise it ends with `ModelRefused`. Every decision takes its time from
the chain; this machine's clock only tells whether the node keeps up (`OffTime`), and no block that
is too far off it is decided on.

`status.json` is replaced whole after each head, when everything that follows from it has been sent:
a driver that makes blocks can wait for it. SIGTERM and SIGINT end the process between two heads.
No training library is imported here.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from clients.ingest import Block, Ingest
from clients.keys import MemberKeys
from clients.node import Line, NodeLost, NodeRefused, NodeUnreachable
from clients.nodes import line_of
from clients.outbox import Outbox
from clients.recovery import contiguous, read_history, recover
from clients.settings import ExecutionSettings
from clients.submit import Submitter
from fedtrade import artifact
from fedtrade.agent import Agent
from fedtrade.chain.agreement import Standing, trust_line
from fedtrade.chain.conversation import ask_async, read
from fedtrade.chain.rpc import from_hex
from fedtrade.errors import BadInput, Fault, FedtradeError, Refusal, Stale, Unavailable
from fedtrade.journal import Journal
from fedtrade.market.actions import Action
from fedtrade.market.encoding import plain
from fedtrade.market.events import Event, Head, ModelPublished, ModelRevoked
from fedtrade.market.world import Models
from fedtrade.venues.codec import Call
from fedtrade.venues.safe import AGENT, NEXT_NONCE, SAFE_OF, encode_order
from fedtrade.venues.uniswap_v3 import ALLOWANCE, encode_approval, encode_call, encode_calls

CONNECT_TRIES: Final = 8
CONNECT_PAUSE_S: Final = 0.5
RESYNCS_MAX: Final = 5
"""Resyncs in a row without a decision in between."""
ACCOUNT_EVERY_BLOCKS: Final = 100
"""The account is read after each action, and this often besides."""
BEHIND_MAX_S: Final = 60
"""Age of a new block from which on the node, or this clock, is not believed."""
AHEAD_MAX_S: Final = 5
APPROVED_ENOUGH: Final = 2**128
APPROVAL_LIMIT_S: Final = 86_400
POLL_S: Final = 0.25


class ModelRefused(Refusal):
    """The artifact is not the model that the registry has published. Nothing was sent."""

    def __init__(self, registry: str, sha256: str, standing: str, live: str) -> None:
        super().__init__(
            f"The artifact hashes to {sha256}, which the registry {registry} calls {standing}; "
            f"live there is {live}. Fetch the live artifact; nothing was sent."
        )
        self.registry = registry
        self.sha256 = sha256
        self.standing = standing
        self.live = live


class NotOurCustody(Refusal):
    """The breaker takes no orders of this key for this Safe. Nothing was sent."""

    def __init__(self, breaker: str, what: str, expected: str, got: str) -> None:
        super().__init__(
            f"Breaker {breaker}: its {what} is {got}, not {expected}. Correct the deployment file, or "
            "have the Safe's owners name this key by setAgent; nothing was sent."
        )
        self.breaker = breaker
        self.what = what
        self.expected = expected
        self.got = got


class KeyShared(Fault):
    """Orders were carried out that this process did not send."""

    def __init__(self, breaker: str, expected: int, got: int) -> None:
        super().__init__(
            f"Breaker {breaker}: its next order is {got}, this agent knows of {expected}. Somebody "
            "else sends orders with this key: have the guardian halt the breaker, find out who, and "
            "have the Safe's owners name a new key."
        )
        self.breaker = breaker
        self.expected = expected
        self.got = got


class Undone(Fault):
    """The chain took back an action that counted as done."""

    def __init__(self, action_id: str, outcome: str, block: int, confirmations: int) -> None:
        super().__init__(
            f"Action {action_id} was {outcome} in block {block}, {confirmations} deep, and the chain "
            "has replaced that block: its reorganisations are deeper than the confirmations here. "
            "Nothing more is sent. See whether the old transaction may still be mined, raise "
            "confirmations, then start again: the agent goes on from what the chain has."
        )
        self.action_id = action_id
        self.block = block


class OffTime(Stale):
    """The newest block is too far off this machine's clock: one of the two is wrong."""

    def __init__(self, url: str, block: int, ahead_s: float) -> None:
        super().__init__(
            f"node {url}: block {block} is {abs(ahead_s):.0f} s "
            f"{'ahead of' if ahead_s > 0 else 'behind'} this machine's clock; allowed are "
            f"{AHEAD_MAX_S} s ahead and {BEHIND_MAX_S} s behind. Set the clock by NTP, or use a node "
            "that keeps up; nothing was decided on this block."
        )
        self.url = url
        self.block = block
        self.ahead_s = ahead_s


def refuse_model(registry: str, models: Models, sha256: str, now_s: int) -> None:
    """Raise ModelRefused unless this model is live, or published and about to be."""
    standing = models.standing(sha256, now_s)
    if standing not in ("live", "pending"):
        live = models.live(now_s)
        told = f"version {live.version}, {live.sha256}" if live is not None else "no model"
        raise ModelRefused(registry, sha256, standing, told)


class Execution:
    """What the process holds: files, keys, the agent, and the counters of its status."""

    def __init__(self, settings: ExecutionSettings, now_s: Callable[[], float] = time.time) -> None:
        """Read everything that lies on disk; raises a Refusal or Fault before anything is sent."""
        self._now_s = now_s
        self.chain = settings.chain_deployment()
        self._agent_settings = settings.agent_settings()
        fees = settings.fee_settings(self.chain.confirmations)
        self._keys = MemberKeys.load(settings.keys)
        self._artifact = _read_artifact(settings.artifact)
        self._sha256 = hashlib.sha256(self._artifact).hexdigest()
        self._history = settings.history
        self.folder = settings.folder
        self._journal = Journal(self.folder / "journal.jsonl")
        self._outbox = Outbox(
            self.folder / "transactions.sqlite", self.chain.chain_id, self._keys.address
        )
        self._recovered = recover(
            self._journal.found,
            self._sha256,
            self._agent_settings.key,
            self._agent_settings.feed,
            os.urandom(4).hex(),
        )
        self._journal.found = ()
        self._unsettled = self._recovered.unsettled  # perhaps never promised to the chain
        self._fees = fees
        custody = self.chain.custody
        self.account = custody.safe if custody is not None else self._keys.address
        self._order = -1  # nonce of our last order in this process; -1 before the first
        self._standings = [Standing(url) for url in self.chain.all_ws_urls]
        self._ingest = Ingest(self.chain, self.account, self._recovered.last_block)
        self._agent: Agent | None = None
        self._submitter: Submitter | None = None
        self._approved = custody is not None  # a Safe has approved when it was set up
        self._decided = 0
        self._resyncs = 0
        self._account_block = -1
        self._phase = "preparing"

    def close(self) -> None:
        """Flush and let go of the files."""
        self._journal.close()
        self._outbox.close()

    async def run(self, stop: asyncio.Event) -> None:
        """Live until `stop` is set; connects again when the node goes away."""
        failures = 0
        while not stop.is_set():
            try:
                async with line_of(self.chain, self._standings) as node:
                    await self._on_connection(node, stop)
                    return
            except (NodeLost, NodeUnreachable, OffTime) as lost:  # NoAgreement is a NodeLost
                if self._decided:
                    failures, self._decided = 0, 0
                failures += 1
                if failures >= CONNECT_TRIES or self._agent is None:
                    raise
                self._phase = "stale"
                print(f"{lost} Attempt {failures} of {CONNECT_TRIES}.", file=sys.stderr)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), CONNECT_PAUSE_S * 2**failures)

    async def _on_connection(self, node: Line, stop: asyncio.Event) -> None:
        block = await self._ingest.open(node)
        self._refuse_off_time(block.head)
        if fresh := self._agent is None:
            self._gate(await self._ingest.models(node, block.head.number), block.head)
            await self._refuse_custody(node, block.head)
            agent = self._start(block.head)
            self._submitter = Submitter(
                self._outbox, self._keys, self.chain.chain_id, node, self._fees, agent.permit
            )
        assert self._submitter is not None
        self._submitter.rpc = node
        if not self._approved:  # also where the node was lost in the midst of it
            await self._approve(node, block.head, stop)
            fresh = True
        if fresh:  # blocks have gone by since
            block = await self._ingest.resync(node)
        current: Block | None = block
        while not stop.is_set():
            if current is not None:
                current = await self._take(node, current)
            else:
                current = await self._ingest.next(node, POLL_S)

    def _refuse_off_time(self, head: Head) -> None:
        """Raise OffTime where a chain that keeps the time of day is off this clock."""
        ahead_s = head.timestamp_s - self._now_s()
        if self.chain.keeps_time and not -BEHIND_MAX_S <= ahead_s <= AHEAD_MAX_S:
            raise OffTime(self.chain.ws_url, head.number, ahead_s)

    def _gate(self, told: Sequence[Event], head: Head) -> None:
        models = Models()
        for event in told:
            if isinstance(event, ModelPublished):
                models.published[event.version] = event
            elif isinstance(event, ModelRevoked):
                models.revoked.add(event.version)
        refuse_model(self.chain.registry, models, self._sha256, head.timestamp_s)

    async def _refuse_custody(self, node: Line, head: Head) -> None:
        """Raise NotOurCustody where the breaker would not take our orders."""
        if (custody := self.chain.custody) is None:
            return
        views = [(custody.breaker, view, ()) for view in (SAFE_OF, AGENT)]
        told = await ask_async(node, read(views, head.number))
        wanted = (("Safe", custody.safe), ("agent", self._keys.address))
        for (what, expected), (got,) in zip(wanted, told, strict=True):
            if got.lower() != expected.lower():
                raise NotOurCustody(custody.breaker, what, expected, got)

    def _start(self, head: Head) -> Agent:
        """Begin a life in the journal: start record, agent, bars of before."""
        kept = self.folder / "artifacts" / f"{self._sha256}.safetensors"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            _replace(kept, self._artifact)
        agent = Agent(self._agent_settings, self._artifact, self._sha256, self._recovered.carried)
        self._journal.append(
            "start",
            {
                "settings": plain(asdict(self._agent_settings)),
                "artifact_sha256": self._sha256,
                "carried": plain(asdict(self._recovered.carried)),
                "account": self.account,
                "chain_id": self.chain.chain_id,
                "versions": {
                    "python": platform.python_version(),
                    **{name: version(name) for name in ("fedtrade", "numpy")},
                },
            },
        )
        given = read_history(self._history) if self._history is not None else ()
        for bar in contiguous(given, self._recovered.bars, head.timestamp_s):
            self._journal.run(agent, bar)
        self._journal.sync()
        self._agent = agent
        return agent

    async def _approve(self, node: Line, head: Head, stop: asyncio.Event) -> None:
        """Let position manager and router take our tokens; returns when that is mined."""
        assert self._submitter is not None
        chain, owner = self.chain, self._keys.address
        under_way = {(p.target.lower(), p.data) for p in self._submitter.waiting()}
        for token in (chain.base, chain.quote):
            for spender in (chain.position_manager, chain.swap_router):
                data = "0x" + ALLOWANCE.encode(owner, spender).hex()
                asked = {"to": token.address, "data": data}
                answer = await node.call("eth_call", asked, hex(head.number))
                call = encode_approval(token.address, spender)
                asked_for = (call.to.lower(), "0x" + call.data.hex()) in under_way
                if ALLOWANCE.decode(from_hex(answer))[0] < APPROVED_ENOUGH and not asked_for:
                    self._submitter.plan_approval(
                        f"approve-{token.symbol}-{spender}-{head.number}",
                        call,
                        head.timestamp_s + APPROVAL_LIMIT_S,
                    )
        while not stop.is_set():
            done = await self._submitter.advance_approvals(head)
            self._write_status(head)
            if done:
                self._approved = True
                return
            while not stop.is_set():
                if (block := await self._ingest.next(node, POLL_S)) is not None:
                    head = block.head
                    break

    async def _take(self, node: Line, block: Block) -> Block | None:
        """Tell the agent one block and carry out its decision; a new block where it is stale."""
        assert self._agent is not None
        assert self._submitter is not None
        self._refuse_off_time(block.head)
        if block.resynced and (lost := await self._submitter.undone(block.head)) is not None:
            self._journal.append("note", {"undone": lost.action_id, "block": lost.block})
            self._journal.sync()
            raise Undone(lost.action_id, lost.state, lost.block, self._fees.confirmations)
        try:
            for event in block.events:
                self._tell(event)
            await self._settle(node, block)
            for action in self._journal.run(self._agent, block.head):
                self._unsettled = action  # one at a time: it waits for the end of this one
            if self._unsettled is not None:
                self._submitter.plan(
                    self._unsettled, await self._call_of(node, self._unsettled, block.head)
                )
                self._unsettled = None
        except (Stale, NodeRefused) as stale:
            if isinstance(stale, NodeLost):
                raise
            self._resyncs += 1
            if self._resyncs > RESYNCS_MAX:
                raise
            self._journal.append("note", {"resync": str(stale)})
            return await self._ingest.resync(node)
        self._decided += 1
        self._resyncs = 0
        if self._submitter.waiting():
            await self._submitter.advance(block.head)
        self._phase = "live"
        self._write_status(block.head)
        return None

    async def _call_of(self, node: Line, action: Action, head: Head) -> Call:
        """What carries an action out: a call of our own, or an order with the nonce of now.

        Should a second call for this action ever be signed, only one of the two can pass.
        """
        key, custody = self._agent_settings.key, self.chain.custody
        if custody is None:
            return encode_call(action, key, self.chain, self.account)
        reads = [(custody.breaker, NEXT_NONCE, ())]
        ((nonce,),) = await ask_async(node, read(reads, head.number))
        if self._order >= 0 and nonce > self._order + 1:
            raise KeyShared(custody.breaker, self._order + 1, nonce)
        self._order = nonce
        calls = encode_calls(action, key, self.chain, custody.safe)
        return encode_order(custody.breaker, nonce, self._sha256, action.deadline_s, calls)

    async def _settle(self, node: Line, block: Block) -> None:
        """Tell which actions have ended, and the account where it may have changed."""
        assert self._agent is not None
        assert self._submitter is not None
        head = block.head
        settled = []
        if self._agent.last_readings is not None and not block.resynced:
            # Before the first head, and after a resync, the breakers have no view to permit with.
            settled = await self._submitter.advance(head)
        for event in settled:
            self._tell(event)
            self._journal.append(
                "note", {"settled": event.action_id, "why": self._submitter.why(event.action_id)}
            )
            self._journal.sync()
            self._submitter.reported(event.action_id)
        if block.resynced:
            self._account_block = head.number
        if settled or head.number >= self._account_block + ACCOUNT_EVERY_BLOCKS:
            self._tell(await self._ingest.holdings(node, head.number))
            self._account_block = head.number

    def _tell(self, event: Event) -> None:
        assert self._agent is not None
        self._journal.run(self._agent, event)

    def _write_status(self, head: Head) -> None:
        agent, receipt = self._agent, self._agent.last_receipt if self._agent else None
        waiting = self._submitter.waiting() if self._submitter else []
        status: dict[str, Any] = {
            "chain": self.chain.name,
            "account": self.account,
            "key": self._keys.address,
            "pid": os.getpid(),
            "phase": self._phase,
            "block": head.number,
            "block_hash": head.hash,
            "timestamp_s": head.timestamp_s,
            "level": agent.breakers.level.name if agent else "NORMAL",
            "model_sha256": self._sha256,
            "model": receipt.model if receipt else "",
            "actions": agent.actions if agent else 0,
            "in_force": _in_force(agent) if agent else {},
            "waiting": [promise.action_id for promise in waiting],
            "equity_quote": receipt.equity_quote if receipt else None,
            "reason": receipt.reason if receipt else "",
            "refused": receipt.refused if receipt else "",
            "journal_records": self._journal.count,
            "journal_hash": self._journal.head_hash,
            "nodes": trust_line(self._standings),
        }
        _replace(self.folder / "status.json", json.dumps(status, indent=1).encode() + b"\n")


def _in_force(agent: Agent) -> dict[str, Any]:
    """The limits that the next action is held against, and what the consortium says besides."""
    if agent.world.stale is not None:
        return {}
    known = agent.world.parameters
    said = {"paused": known.paused, "as_of_s": known.as_of_s, "mirrored": known.mirrored}
    return {**said, "limits": asdict(agent.breakers.limits)}


def _read_artifact(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(artifact.MAX_ARTIFACT_BYTES + 1)
    except OSError as error:
        raise BadInput(
            str(path), f"cannot read the artifact ({error.strerror})", "Check the path."
        ) from error


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole: readers see the old one or the new one."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.write_bytes(content)
        os.replace(draft, path)
    except OSError as error:
        raise Unavailable(
            str(path), f"cannot write ({error.strerror})", "Free some disk."
        ) from error


async def execute(settings: ExecutionSettings) -> None:
    """Run one agent until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    execution = Execution(settings)
    try:
        await execution.run(stop)
    finally:
        execution.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; gives the exit code."""
    parser = argparse.ArgumentParser(prog="clients.execution", description=__doc__.split("\n")[0])
    parser.add_argument("--settings", type=Path, required=True, help="TOML file of this agent")
    given = parser.parse_args(arguments)
    try:
        asyncio.run(execute(ExecutionSettings.load(given.settings)))
    except FedtradeError as error:
        print(f"fedtrade: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
