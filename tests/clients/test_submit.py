"""Submission: exactly once through kills at every step, reorgs, lost mempools and stolen nonces."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from eth_account.typed_transactions import TypedTransaction
from hexbytes import HexBytes
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clients.keys import MemberKeys
from clients.node import NodeRefused
from clients.outbox import Outbox
from clients.submit import Fees, Submitter
from fedtrade.errors import BadInput
from fedtrade.market.actions import Action, WithdrawLiquidity
from fedtrade.market.events import ActionSettled, Head
from fedtrade.typed_data import keccak

KEYS = MemberKeys.ephemeral()
TARGET = "0x" + "22" * 20
GWEI = 10**9
POINTS = (
    "plan", "planned", "before_sign", "before_store", "signed", "before_send", "out", "sent",
    "receipt", "mined", "before_end", "ended", "report", "before_replace", "replaced",
)  # fmt: skip


class Killed(BaseException):
    """Stands for kill -9: nothing catches it, and what was in memory is gone."""


@dataclass
class Call:
    data: str
    to: str = TARGET
    value_wei: int = 0


@dataclass
class FakeChain:
    """A chain of one account: mempool by nonce, blocks that can be undone, receipts."""

    base_fee_wei: int = GWEI
    blocks: list[list[dict[str, Any]]] = field(default_factory=lambda: [[]])
    hashes: list[str] = field(default_factory=lambda: ["0x0"])
    pool: dict[int, dict[str, Any]] = field(default_factory=dict)
    made: int = 0
    refuse: Callable[[str], NodeRefused | None] = lambda method: None
    reverts: bool = False
    sent: list[dict[str, Any]] = field(default_factory=list)

    def nonce(self, upto: int | None = None) -> int:
        blocks = self.blocks if upto is None else self.blocks[: upto + 1]
        return sum(len(b) for b in blocks)

    def mine(self, take: bool = True) -> None:
        block = []
        while take and (tx := self.pool.get(self.nonce() + len(block))) is not None:
            if tx["maxFeePerGas"] < self.base_fee_wei:
                break
            block.append(self.pool.pop(tx["nonce"]))
        self.made += 1
        self.blocks.append(block)
        self.hashes.append(f"0x{self.made}")

    def reorg(self, depth: int, keep: bool) -> None:
        for _ in range(min(depth, len(self.blocks) - 1)):
            self.hashes.pop()
            for tx in self.blocks.pop():
                if keep:
                    self.pool.setdefault(tx["nonce"], tx)

    def steal(self) -> None:
        """Somebody else with our key uses the next nonce."""
        nonce = self.nonce()
        self.pool.pop(nonce, None)
        self.made += 1
        tx = {"nonce": nonce, "hash": f"0xf{self.made}", "data": "foreign", "maxFeePerGas": 10**15}
        self.blocks.append([tx])
        self.hashes.append(f"0x{self.made}")

    def head(self) -> Head:
        n = len(self.blocks) - 1
        return Head(n, self.hashes[n], self.hashes[n - 1], 12 * n, self.base_fee_wei)

    def executed(self) -> Counter[str]:
        return Counter(tx["data"] for block in self.blocks for tx in block)

    async def call(self, method: str, *params: Any) -> Any:
        if (error := self.refuse(method)) is not None:
            raise error
        match method:
            case "eth_estimateGas":
                if self.reverts:
                    raise NodeRefused(method, 3, "execution reverted", "0x08c379a0")
                return hex(100_000)
            case "eth_getTransactionCount":
                return hex(self.nonce(None if params[1] == "latest" else int(params[1], 16)))
            case "eth_sendRawTransaction":
                return self._take(params[0])
            case "eth_getTransactionByHash":
                return next((t for t in self.pool.values() if t["hash"] == params[0]), None)
            case "eth_getTransactionReceipt":
                return self._receipt(params[0])
            case "eth_getBlockByNumber":
                n = int(params[0], 16)
                return {"hash": self.hashes[n]} if n < len(self.hashes) else None
        raise AssertionError(method)

    def _take(self, raw: str) -> str:
        tx = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
        tx_hash = "0x" + keccak(bytes.fromhex(raw[2:])).hex()
        nonce, data = int(tx["nonce"]), "0x" + bytes(tx["data"]).hex()
        fee = int(tx["maxFeePerGas"])
        if nonce < self.nonce():
            raise NodeRefused("send", -32000, "nonce too low", "")
        old = self.pool.get(nonce)
        if old is not None and old["hash"] == tx_hash:
            raise NodeRefused("send", -32000, "already known", "")
        if old is not None and fee * 10 < old["maxFeePerGas"] * 11:
            raise NodeRefused("send", -32000, "replacement transaction underpriced", "")
        to = "0x" + bytes(tx["to"]).hex()
        self.pool[nonce] = {
            "nonce": nonce, "hash": tx_hash, "maxFeePerGas": fee,
            "data": data if to == TARGET else "cancel",
        }  # fmt: skip
        self.sent.append(self.pool[nonce])
        return tx_hash

    def _receipt(self, tx_hash: str) -> dict[str, str] | None:
        for n, block in enumerate(self.blocks):
            for tx in block:
                if tx["hash"] == tx_hash:
                    status = "0x0" if tx["data"] == "0xbad0" else "0x1"
                    return {
                        "blockNumber": hex(n), "blockHash": self.hashes[n], "status": status,
                        "gasUsed": hex(80_000), "effectiveGasPrice": hex(self.base_fee_wei),
                    }  # fmt: skip
        return None


def action(name: str, deadline_s: int = 10**6) -> WithdrawLiquidity:
    return WithdrawLiquidity(name, "0xP", 1, 1, 0, 0, deadline_s)


def data_of(name: str) -> str:
    return "0x" + name.encode().hex()


def submitter(
    path: Path,
    chain: FakeChain,
    permit: Callable[[Action], str] = lambda action: "",
    at: Callable[[str], None] = lambda step: None,
    **fees: int,
) -> Submitter:
    given_fees = Fees(**{"cap_wei": 500 * GWEI, "tip_wei": GWEI, **fees})
    return Submitter(Outbox(path, 1, KEYS.address), KEYS, 1, chain, given_fees, permit, at)


def advance(sender: Submitter, chain: FakeChain) -> list[ActionSettled]:
    return asyncio.run(sender.advance(chain.head()))


@pytest.fixture
def chain() -> FakeChain:
    return FakeChain()


def test_an_action_is_mined_confirmed_and_told_once(tmp_path: Path, chain: FakeChain) -> None:
    sender = submitter(tmp_path / "db", chain, confirmations=3)
    sender.plan(action("a"), Call(data_of("a")))
    sender.plan(action("a"), Call("0xother"))
    assert advance(sender, chain) == []
    for _ in range(3):
        chain.mine()
        assert sender.waiting()
        told = advance(sender, chain)
    assert told == [ActionSettled(1, "a", "confirmed", 80_000 * GWEI)]
    assert advance(sender, chain) == told  # until the caller has it on disk
    sender.reported("a")
    assert advance(sender, chain) == []
    assert chain.executed() == {data_of("a"): 1}


def test_a_revert_is_told_with_its_gas(tmp_path: Path, chain: FakeChain) -> None:
    sender = submitter(tmp_path / "db", chain)
    sender.plan(action("a"), Call("0xbad0"))
    advance(sender, chain)
    chain.mine()
    assert advance(sender, chain) == [ActionSettled(1, "a", "reverted", 80_000 * GWEI)]


def test_what_would_revert_is_refused_unsigned(tmp_path: Path, chain: FakeChain) -> None:
    chain.reverts = True
    sender = submitter(tmp_path / "db", chain)
    sender.plan(action("a"), Call(data_of("a")))
    assert [s.outcome for s in advance(sender, chain)] == ["refused"]
    assert chain.sent == []


def test_the_breakers_have_the_last_word_before_the_signature(
    tmp_path: Path, chain: FakeChain
) -> None:
    sender = submitter(tmp_path / "db", chain, permit=lambda action: "HALT")
    sender.plan(action("a"), Call(data_of("a")))
    assert [s.outcome for s in advance(sender, chain)] == ["refused"]
    assert chain.sent == []


def test_a_deadline_ends_what_was_not_signed(tmp_path: Path, chain: FakeChain) -> None:
    sender = submitter(tmp_path / "db", chain)
    chain.base_fee_wei = 501 * GWEI  # too dear to sign
    sender.plan(action("a", deadline_s=20), Call(data_of("a")))
    assert advance(sender, chain) == []
    chain.mine()
    assert advance(sender, chain) == []
    chain.mine()
    assert [s.outcome for s in advance(sender, chain)] == ["dropped"]
    assert chain.sent == []


def test_a_deadline_cancels_what_is_out(tmp_path: Path, chain: FakeChain) -> None:
    sender = submitter(tmp_path / "db", chain)
    sender.plan(action("a", deadline_s=13), Call(data_of("a")))
    advance(sender, chain)
    chain.mine(take=False)
    advance(sender, chain)
    chain.mine(take=False)
    advance(sender, chain)
    assert chain.pool[0]["data"] == "cancel"
    chain.mine()
    assert [s.outcome for s in advance(sender, chain)] == ["dropped"]
    assert chain.executed() == {"cancel": 1}


def test_tripped_breakers_cancel_what_is_out(tmp_path: Path, chain: FakeChain) -> None:
    reason = ""
    sender = submitter(tmp_path / "db", chain, permit=lambda action: reason)
    sender.plan(action("a"), Call(data_of("a")))
    advance(sender, chain)
    reason = "HALT"
    chain.mine(take=False)
    advance(sender, chain)
    assert chain.pool[0]["data"] == "cancel"
    chain.pool.clear()  # even from an empty mempool the action itself is never sent again
    for _ in range(12):
        chain.mine(take=False)
        advance(sender, chain)
    assert [tx["data"] for tx in chain.sent].count(data_of("a")) == 1


def test_fees_rise_by_a_tenth_and_stop_at_cap_and_count(tmp_path: Path, chain: FakeChain) -> None:
    sender = submitter(tmp_path / "db", chain, bump_after_blocks=1, attempts_max=4)
    sender.plan(action("a"), Call(data_of("a")))
    for _ in range(10):
        advance(sender, chain)
        chain.mine(take=False)
    fees = [tx["maxFeePerGas"] for tx in chain.sent]
    assert len(fees) == 4
    assert all(b * 10 >= a * 11 for a, b in pairwise(fees))
    capped = submitter(tmp_path / "db2", FakeChain(base_fee_wei=240 * GWEI), bump_after_blocks=1)
    chain = capped.rpc  # type: ignore[assignment]
    capped.plan(action("b"), Call(data_of("b")))
    for _ in range(6):
        advance(capped, chain)
        chain.mine(take=False)
    assert max(tx["maxFeePerGas"] for tx in chain.sent) <= 500 * GWEI


def test_a_stolen_nonce_leads_to_a_new_one(tmp_path: Path, chain: FakeChain) -> None:
    sender = submitter(tmp_path / "db", chain)
    sender.plan(action("a"), Call(data_of("a")))
    advance(sender, chain)
    chain.steal()
    advance(sender, chain)
    chain.mine()
    assert [s.outcome for s in advance(sender, chain)] == ["confirmed"]
    assert chain.executed() == {"foreign": 1, data_of("a"): 1}


def test_a_stolen_nonce_counts_only_when_it_is_deep(tmp_path: Path, chain: FakeChain) -> None:
    sender = submitter(tmp_path / "db", chain, confirmations=3)
    sender.plan(action("a"), Call(data_of("a")))
    advance(sender, chain)
    original = chain.pool[0]
    chain.steal()
    advance(sender, chain)
    chain.reorg(1, keep=False)  # the thief is gone, and some node still has our bytes
    chain.pool[0] = original
    for _ in range(8):
        chain.mine()
        advance(sender, chain)
    assert chain.executed() == {data_of("a"): 1}


def test_mined_between_two_questions_is_not_taken_for_stolen(
    tmp_path: Path, chain: FakeChain
) -> None:
    sender = submitter(tmp_path / "db", chain)
    sender.plan(action("a"), Call(data_of("a")))
    advance(sender, chain)

    def mine_first(method: str) -> None:
        if method == "eth_getTransactionCount":
            chain.mine()

    chain.refuse = mine_first
    for _ in range(4):
        advance(sender, chain)
    assert chain.executed() == {data_of("a"): 1}


def test_what_cannot_be_cancelled_is_at_least_not_sent_again(
    tmp_path: Path, chain: FakeChain
) -> None:
    reason = ""
    sender = submitter(tmp_path / "db", chain, permit=lambda action: reason, cap_wei=3 * GWEI)
    sender.plan(action("a"), Call(data_of("a")))
    advance(sender, chain)
    reason = "HALT"
    chain.pool.clear()
    for _ in range(6):
        chain.mine(take=False)
        advance(sender, chain)
    assert [tx["data"] for tx in chain.sent] == [data_of("a")]


def test_a_lost_mempool_and_a_reorg_are_survived(tmp_path: Path, chain: FakeChain) -> None:
    sender = submitter(tmp_path / "db", chain, confirmations=3)
    sender.plan(action("a"), Call(data_of("a")))
    advance(sender, chain)
    chain.pool.clear()
    for _ in range(4):
        chain.mine()
        advance(sender, chain)
    chain.reorg(2, keep=False)
    chain.pool.clear()
    for _ in range(8):
        chain.mine()
        told = advance(sender, chain)
    assert [s.outcome for s in told] == ["confirmed"]
    assert chain.executed() == {data_of("a"): 1}


def test_a_poor_account_drops_and_frees_the_nonce(tmp_path: Path, chain: FakeChain) -> None:
    sender = submitter(tmp_path / "db", chain)
    poor = NodeRefused("send", -32000, "insufficient funds for gas * price + value", "")
    chain.refuse = lambda method: poor if method == "eth_sendRawTransaction" else None
    sender.plan(action("a"), Call(data_of("a")))
    assert [s.outcome for s in advance(sender, chain)] == ["dropped"]
    sender.reported("a")
    chain.refuse = lambda method: None
    sender.plan(action("b"), Call(data_of("b")))
    advance(sender, chain)
    chain.mine()
    assert [s.action_id for s in advance(sender, chain)] == ["b"]


def test_approvals_are_made_once_and_not_told(tmp_path: Path, chain: FakeChain) -> None:
    sender = submitter(tmp_path / "db", chain, permit=lambda action: "no")
    for _ in range(2):
        sender.plan_approval("approve", Call("0x095ea7b3"), 10**6)
    assert advance(sender, chain) == []
    chain.mine()
    assert advance(sender, chain) == []
    assert chain.executed() == {"0x095ea7b3": 1}


def test_native_value_never_leaves(tmp_path: Path, chain: FakeChain) -> None:
    with pytest.raises(BadInput, match="native value"):
        submitter(tmp_path / "db", chain).plan(action("a"), Call("0x", value_wei=1))


def test_fees_out_of_bounds_are_refused() -> None:
    for bad in ({"tip_wei": 0}, {"tip_wei": 11}, {"confirmations": 0}, {"attempts_max": 0}):
        with pytest.raises(BadInput):
            Fees(**{"cap_wei": 10, "tip_wei": 1, **bad})


def run_to_end(path: Path, chain: FakeChain, names: list[str], at: Callable[[str], None]) -> None:
    """One life of the process: promise in order, one at a time, until all is told."""
    sender = submitter(path, chain, at=at, confirmations=2, bump_after_blocks=2)
    for _ in range(60):
        known = [n for n in names if sender._outbox.get(n) is not None]
        if not sender.waiting() and len(known) < len(names):
            name = names[len(known)]
            sender.plan(action(name), Call(data_of(name)))
        for settled in advance(sender, chain):
            assert settled.outcome == "confirmed"
            sender.reported(settled.action_id)
        if len(known) == len(names) and not sender.waiting():
            return
        chain.mine(take=len(chain.blocks) % 4 != 0)
    raise AssertionError("never came to an end")


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("hit", [0, 1, 3])
def test_killed_at_any_step_nothing_is_lost_or_doubled(
    tmp_path: Path, chain: FakeChain, point: str, hit: int
) -> None:
    left = hit
    killed = False

    def kill(step: str) -> None:
        nonlocal left, killed
        if step == point and not killed:
            if left == 0:
                killed = True
                raise Killed
            left -= 1

    names = ["a", "b", "c"]
    if point in ("before_replace", "replaced"):
        chain.base_fee_wei = GWEI
        original = chain.mine
        chain.mine = lambda take=True: original(take and len(chain.blocks) > 6)  # type: ignore[method-assign]
    try:
        run_to_end(tmp_path / "db", chain, names, kill)
    except Killed:
        run_to_end(tmp_path / "db", chain, names, kill)
    assert killed or hit == 3
    assert chain.executed() == {data_of(n): 1 for n in names}
    assert chain.nonce() == len(names)


EVENTS = st.lists(
    st.one_of(
        st.sampled_from(["mine", "mine", "mine", "skip", "lose", "steal", "dear", "cheap", "plan"]),
        st.tuples(st.just("reorg"), st.integers(1, 2), st.booleans()),
        st.tuples(st.just("kill"), st.sampled_from(POINTS)),
        st.sampled_from(["halt", "lost node"]),
    ),
    min_size=10,
    max_size=60,
)


@settings(max_examples=80, deadline=None)
@example(events=[*["mine"] * 3, "steal", "plan", ("kill", "before_store"), ("reorg", 1, False)])
@given(events=EVENTS)
def test_whatever_happens_each_action_is_done_at_most_once(
    tmp_path_factory: pytest.TempPathFactory, events: list[Any]
) -> None:
    path, chain = tmp_path_factory.mktemp("s") / "db", FakeChain()
    halted, armed, planned = False, "", 0
    ends: dict[str, str] = {}

    def at(step: str) -> None:
        nonlocal armed
        if step == armed:
            armed = ""
            raise Killed

    def permit(action: Action) -> str:
        return "HALT" if halted else ""

    def life() -> Submitter:
        return submitter(path, chain, permit, at, confirmations=3, bump_after_blocks=2)

    sender = life()
    for event in [*events, "cheap", *["mine"] * 30]:
        chain.refuse = lambda method: None
        match event:
            case "mine" | "skip":
                chain.mine(take=event == "mine")
            case "lose":
                chain.pool.clear()
            case "steal":
                chain.steal()
            case "dear":
                chain.base_fee_wei *= 4
            case "cheap":
                chain.base_fee_wei = GWEI
            case "halt":
                halted = True
            case "lost node":
                lost = NodeRefused("x", -32603, "try later", "")
                chain.refuse = lambda method, lost=lost: lost if "send" in method else None
            case ("kill", point):
                armed = point
            case ("reorg", depth, keep):
                chain.reorg(depth, keep)
                chain.mine(take=False)
        try:
            if event == "plan":
                planned += 1
                deadline = chain.head().timestamp_s + 12 * (5 + planned % 20)
                name = f"n{planned}"
                sender.plan(action(name, deadline), Call(data_of(name)))
            for settled in advance(sender, chain):
                assert ends.setdefault(settled.action_id, settled.outcome) == settled.outcome
                sender.reported(settled.action_id)
        except Killed:
            sender = life()
    done = chain.executed()
    for n in range(1, planned + 1):
        name = f"n{n}"
        assert done[data_of(name)] == (1 if ends.get(name) == "confirmed" else 0), (name, ends)
    if not armed:
        assert not sender.waiting()
