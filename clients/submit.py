"""The life of a transaction: from a decided action to a settled one, once, whatever crashes.

`advance` is called at each head and takes every open promise as far as it goes; the states and
their order are in `outbox.py`. What makes it exactly-once:

* the action and then the signed bytes are on disk before they leave, and bytes on disk are sent
  again, never signed anew: the chain's nonce lets one of them in;
* an action is signed anew with another nonce only when its old nonce is used up by something else,
  `confirmations` deep, so the old bytes are dead;
* an end is declared only at `confirmations` blocks, with the receipt's block still in the chain;
  when it is replaced, the bytes are sent again.

`permit` is the last word before each signature and before anything leaves: the breakers. A
transaction that is out and no longer wanted (breakers tripped, deadline over) is cancelled: an
empty transfer to ourselves with the same nonce and a higher fee. Our contract calls carry their
deadline on-chain too, so a late one reverts. Fees rise by an eighth (nodes want a tenth), at most
`attempts_max` times and never over the cap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from clients.keys import MemberKeys
from clients.node import NodeRefused, Rpc
from clients.outbox import Attempt, Outbox, Promise
from fedtrade.errors import BadInput
from fedtrade.market.actions import Action, ProvideLiquidity, SwapExactInput, WithdrawLiquidity
from fedtrade.market.encoding import decode, encode
from fedtrade.market.events import ActionSettled, Head
from fedtrade.venues.codec import field, index, quantity

CANCEL_GAS: Final = 21_000
RESEND_AFTER_BLOCKS: Final = 2
GAS_MAX: Final = 10_000_000
"""No call of ours takes a tenth of it: a higher estimate is a node's mistake, and is not signed."""
STEPS_MAX: Final = 8
"""Steps that one promise may take at one head; the longest honest way is four."""

LOOKED_BACK_BLOCKS: Final = 128
"""Ends in blocks as new as this are looked at again after a resync; nothing deeper is replaced."""

_ALREADY: Final = ("already known", "already imported", "known transaction")
_USED: Final = ("nonce too low", "nonce is too low", "invalid nonce")
_CHEAP: Final = ("underpriced",)
_POOR: Final = ("insufficient funds",)
_REVERT: Final = ("revert", "execution reverted", "custom error")


class Call(Protocol):
    """What venues make of an action: a contract call without value."""

    @property
    def to(self) -> str: ...
    @property
    def data(self) -> str | bytes: ...
    @property
    def value_wei(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Fees:
    """How transactions pay and wait."""

    cap_wei: int
    """Never offer more per gas."""
    tip_wei: int = 10**9
    confirmations: int = 1
    """Blocks, its own included, after which a transaction counts."""
    bump_after_blocks: int = 3
    attempts_max: int = 5

    def __post_init__(self) -> None:
        if not 0 < self.tip_wei <= self.cap_wei or not 1 <= self.confirmations <= 64:
            raise BadInput("fees", "tip above cap, or confirmations not in 1..64", "Correct them.")
        if self.bump_after_blocks < 1 or not 1 <= self.attempts_max <= 20:
            raise BadInput("fees", "bump_after_blocks < 1 or attempts_max not in 1..20", "Correct.")


Permit = Callable[[Action], str]
"""Why an action may not be signed or sent now; empty where it may."""


class Submitter:
    """One account's nonce lane on one chain."""

    def __init__(
        self,
        outbox: Outbox,
        keys: MemberKeys,
        chain_id: int,
        rpc: Rpc,
        fees: Fees,
        permit: Permit,
        at: Callable[[str], None] = lambda step: None,
    ) -> None:
        self.rpc = rpc
        self._outbox = outbox
        self._keys = keys
        self._chain_id = chain_id
        self._fees = fees
        self._permit = permit
        self._at = at  # named points at which a test may kill us

    def plan(self, action: Action, call: Call) -> None:
        """Promise an action, durably and once."""
        self._promise(action.action_id, encode(action), call, action.deadline_s)

    def plan_approval(self, approval_id: str, call: Call, deadline_s: int) -> None:
        """Promise a token approval: harmless to repeat, and nobody is told of its end."""
        self._promise(approval_id, {"type": "approval"}, call, deadline_s)

    def _promise(
        self, action_id: str, body: Mapping[str, Any], call: Call, deadline_s: int
    ) -> None:
        if call.value_wei:
            raise BadInput(action_id, "a call that carries native value", "Use wrapped tokens.")
        data = call.data if isinstance(call.data, str) else "0x" + call.data.hex()
        self._at("plan")
        self._outbox.plan(action_id, body, call.to, data, deadline_s)
        self._at("planned")

    def why(self, action_id: str) -> str:
        """What was noted about an action: why it was refused or dropped."""
        promise = self._outbox.get(action_id)
        return promise.note if promise is not None else ""

    def waiting(self) -> list[Promise]:
        """Promises that have not ended."""
        return self._outbox.open()

    def reported(self, action_id: str) -> None:
        """The caller has made the end of this action durable."""
        self._at("report")
        self._outbox.reported(action_id)

    async def undone(self, head: Head) -> Promise | None:
        """An action whose end the chain does not have any more, deeper than its confirmations."""
        for promise, hashes in self._outbox.ended_after(head.number - LOOKED_BACK_BLOCKS):
            found = [await self.rpc.call("eth_getTransactionReceipt", name) for name in hashes]
            told = [quantity(field(one, "status")) == 1 for one in found if one is not None]
            if not told or (promise.state != "dropped" and told != [promise.state == "confirmed"]):
                self._outbox.note_undone(promise.action_id)
                return promise
        return None

    async def advance(self, head: Head) -> list[ActionSettled]:
        """Take every promise as far as it goes now; gives the ends that nobody was told yet."""
        await self._advance(self._outbox.open(), head)
        settled = []
        for ended in self._outbox.unreported():
            if _is_approval(ended):
                self._outbox.reported(ended.action_id)
            elif ended.state in ("confirmed", "reverted", "dropped", "refused"):
                settled.append(
                    ActionSettled(
                        ended.block or head.number, ended.action_id, ended.state, ended.gas_wei
                    )
                )
        return settled

    async def advance_approvals(self, head: Head) -> bool:
        """Take approvals alone as far as they go; True when none is on its way any more."""
        await self._advance([p for p in self._outbox.open() if _is_approval(p)], head)
        return not any(_is_approval(p) for p in self._outbox.open())

    async def _advance(self, promises: list[Promise], head: Head) -> None:
        for promise in promises:
            current: Promise | None = promise
            for _ in range(STEPS_MAX):
                assert current is not None
                if not await self._step(current, head):
                    break
                current = self._outbox.get(promise.action_id)
            latest = self._outbox.get(promise.action_id)
            if latest is not None and latest.state == "planned":
                break  # nonces go out in order

    async def _step(self, promise: Promise, head: Head) -> bool:
        """One step of the table; False where nothing can be done before the next head."""
        match promise.state:
            case "planned":
                return await self._sign(promise, head)
            case "signed" | "sent":
                return await self._follow(promise, head)
            case "mined":
                return await self._settle(promise, head)
        return False

    # planned

    async def _sign(self, promise: Promise, head: Head) -> bool:
        if head.timestamp_s >= promise.deadline_s:
            self._outbox.move(promise, "dropped", block=head.number, note="deadline passed")
            return False
        if reason := self._forbidden(promise):
            self._outbox.move(promise, "refused", block=head.number, note=reason)
            return False
        sender = self._keys.address
        try:
            estimate = await self.rpc.call(
                "eth_estimateGas", {"from": sender, "to": promise.target, "data": promise.data}
            )
        except NodeRefused as error:
            if error.data or _says(error, _REVERT):
                note = f"would revert: {error.reason} {error.data[:10]}".strip()
                self._outbox.move(promise, "refused", block=head.number, note=note)
            return False
        # Counted where it is final: a nonce that somebody else has used in a block that is undone
        # again would be a gap below ours, and nothing of ours would ever be mined.
        nonce = self._outbox.next_nonce(await self._used(head))
        gas = quantity(estimate) * 13 // 10 + 20_000
        if gas > GAS_MAX:
            return False  # asked anew at the next head, until the deadline
        fee, tip = self._offer(head, nonce)
        if fee > self._fees.cap_wei or fee < head.base_fee_wei:
            return False  # too dear now: wait for a cheaper block until the deadline
        self._at("before_sign")
        self._store(promise, nonce, 0, False, promise.target, promise.data, fee, tip, gas, head)
        self._at("signed")
        return True

    def _forbidden(self, promise: Promise) -> str:
        action = None if _is_approval(promise) else decode(promise.body)
        if isinstance(action, ProvideLiquidity | WithdrawLiquidity | SwapExactInput):
            return self._permit(action)
        return ""

    def _offer(self, head: Head, nonce: int) -> tuple[int, int]:
        """(fee, tip) per gas: twice the base fee, capped; above what this nonce was offered."""
        fee_floor, tip_floor = (_raised(wei) for wei in self._outbox.fee_floor(nonce))
        tip = max(self._fees.tip_wei, tip_floor)
        fee = max(min(2 * head.base_fee_wei + tip, self._fees.cap_wei), fee_floor)
        return fee, min(tip, fee)

    def _store(
        self, promise: Promise, nonce: int, attempt: int, cancels: bool, to: str, data: str,
        fee: int, tip: int, gas: int, head: Head,
    ) -> None:  # fmt: skip
        raw, tx_hash = self._keys.sign_transaction(
            {
                "chainId": self._chain_id,
                "nonce": nonce,
                "maxPriorityFeePerGas": tip,
                "maxFeePerGas": fee,
                "gas": gas,
                "to": to,
                "value": 0,
                "data": data,
            }
        )
        self._at("before_store")
        self._outbox.signed(
            promise,
            Attempt(tx_hash, nonce, attempt, cancels, raw, fee, tip, gas, head.number),
        )

    # signed or sent

    async def _follow(self, promise: Promise, head: Head) -> bool:
        attempts = self._outbox.attempts(promise.action_id)
        if await self._is_mined(promise, attempts):
            return True
        last = attempts[-1]
        if await self._used(head) > last.nonce:
            # Ours may have been mined between the two questions: ask again before giving up.
            if await self._is_mined(promise, attempts):
                return True
            self._outbox.move(promise, "planned", note="somebody else used the nonce")
            return True
        late = head.timestamp_s >= promise.deadline_s
        reason = "deadline passed" if late else self._forbidden(promise)
        if reason and promise.state == "signed" and not await self._is_out(attempts):
            self._outbox.move(promise, "dropped", block=head.number, note=reason)
            return False
        waited = head.number - last.signed_block
        if reason and not last.cancels:
            self._raise_fee(promise, attempts, head, cancel=True)
        elif waited >= self._fees.bump_after_blocks:
            self._raise_fee(promise, attempts, head, cancel=last.cancels)
        elif promise.state == "sent" and waited < RESEND_AFTER_BLOCKS:
            return False
        newest = self._outbox.attempts(promise.action_id)[-1]
        if reason and not newest.cancels:
            return False  # no fee left to cancel with: what is out may not be helped along
        await self._send(promise, newest, head)
        return False

    async def _used(self, head: Head) -> int:
        """How many nonces are used up, in blocks that are deep enough to stay."""
        deep = self._fees.confirmations - 1
        block = hex(max(0, head.number - deep)) if deep else "latest"
        return index(await self.rpc.call("eth_getTransactionCount", self._keys.address, block))

    async def _is_mined(self, promise: Promise, attempts: list[Attempt]) -> bool:
        for attempt in attempts:
            receipt = await self.rpc.call("eth_getTransactionReceipt", attempt.hash)
            if receipt is not None:
                number = index(field(receipt, "blockNumber"))
                self._at("receipt")
                self._outbox.move(promise, "mined", block=number)
                self._at("mined")
                return True
        return False

    async def _is_out(self, attempts: list[Attempt]) -> bool:
        for attempt in attempts:
            if await self.rpc.call("eth_getTransactionByHash", attempt.hash) is not None:
                return True
        return False

    def _raise_fee(
        self, promise: Promise, attempts: list[Attempt], head: Head, *, cancel: bool
    ) -> None:
        last = attempts[-1]
        fee, tip = self._offer(head, last.nonce)
        if len(attempts) >= self._fees.attempts_max + cancel or fee > self._fees.cap_wei:
            return
        to, data = (self._keys.address, "0x") if cancel else (promise.target, promise.data)
        gas = CANCEL_GAS if cancel else last.gas
        self._at("before_replace")
        self._store(promise, last.nonce, last.attempt + 1, cancel, to, data, fee, tip, gas, head)
        self._at("replaced")

    async def _send(self, promise: Promise, attempt: Attempt, head: Head) -> None:
        self._at("before_send")
        try:
            await self.rpc.call("eth_sendRawTransaction", "0x" + attempt.raw.hex())
        except NodeRefused as error:
            if _says(error, _USED) or _says(error, _CHEAP):
                return  # mined, or a dearer one of ours is out: the next head tells
            if _says(error, _POOR) and promise.state == "signed" and attempt.attempt == 0:
                self._outbox.move(promise, "dropped", block=head.number, note=error.reason)
                return
            if not _says(error, _ALREADY):
                return  # tried again at the next head, until the deadline
        self._at("out")
        if promise.state == "signed":
            self._outbox.move(promise, "sent", block=head.number)
        self._at("sent")

    # mined

    async def _settle(self, promise: Promise, head: Head) -> bool:
        attempts = self._outbox.attempts(promise.action_id)
        for attempt in attempts:
            receipt = await self.rpc.call("eth_getTransactionReceipt", attempt.hash)
            if receipt is None:
                continue
            block = index(field(receipt, "blockNumber"))
            if head.number - block + 1 < self._fees.confirmations:
                return False
            if not await self._in_chain(block, field(receipt, "blockHash"), head):
                return False
            used, price = field(receipt, "gasUsed"), field(receipt, "effectiveGasPrice")
            gas_wei = quantity(used) * quantity(price)
            succeeded = quantity(field(receipt, "status")) == 1
            self._at("before_end")
            if attempt.cancels:
                self._outbox.move(
                    promise, "dropped", block=block, gas_wei=gas_wei, note="cancelled"
                )
            elif succeeded:
                self._outbox.move(promise, "confirmed", block=block, gas_wei=gas_wei)
            else:
                self._outbox.move(promise, "reverted", block=block, gas_wei=gas_wei)
            self._at("ended")
            return False
        self._outbox.move(promise, "sent", note="its block was replaced")
        return True

    async def _in_chain(self, block: int, block_hash: str, head: Head) -> bool:
        if block == head.number:
            return block_hash == head.hash
        found = await self.rpc.call("eth_getBlockByNumber", hex(block), False)
        return found is not None and field(found, "hash") == block_hash


def _is_approval(promise: Promise) -> bool:
    return bool(promise.body["type"] == "approval")


def _raised(wei: int) -> int:
    """An eighth more, rounded up; nothing for nothing."""
    return wei + -(-wei // 8)


def _says(error: NodeRefused, words: tuple[str, ...]) -> bool:
    reason = error.reason.lower()
    return any(word in reason for word in words)
