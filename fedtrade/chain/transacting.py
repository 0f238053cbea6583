"""Transactions of one account: tried without effect, priced, signed, sent, waited for.

The account is anything with an address that signs: an operator's or a member's key, or an unlocked
account of a local chain. A contract's refusal comes as a sentence and costs no gas.

A receipt alone is not the end: a block that is replaced takes its transactions with it. So `transact`
waits until its transaction is `confirmations` blocks deep, and sends the same bytes again while they
are in no block; whether one had its effect is said at that depth and not before. `stands` waits in
the same way for something that is so in the newest blocks alone.

An account's nonce is used once, so the same bytes take effect once. The nonce is the next one that
the chain has not used: what an earlier life of a process has left in the nodes' pools is replaced,
not followed by another. Whoever has to survive a crash between sending and knowing (see `deploying`)
keeps the signed bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from fedtrade.chain.contracts import explain
from fedtrade.chain.conversation import Conversation, ask
from fedtrade.chain.rpc import NodeLost, NodeRefused, Rpc
from fedtrade.errors import BadInput, Fault, Stale
from fedtrade.typed_data import keccak
from fedtrade.venues.codec import Call, field, index, quantity

RECEIPT_WAIT_S: Final = 60.0
"""Longest that a transaction waits for its first block."""
BLOCK_WAIT_S: Final = 30.0
"""Longest that each further block may take, on the average."""
RECEIPT_POLL_S: Final = 0.01
POLL_GROWTH: Final = 1.5
POLL_MAX_S: Final = 2.0
"""Between two looks: short at first, half as long again each time."""
RESEND_S: Final = 3.0
REPLACED_MAX: Final = 8
"""How often a fee is raised by an eighth to replace what waits under our nonce."""
TIP_WEI: Final = 10**9
MAX_FEE_WEI: Final = 500 * 10**9
"""Highest price of a unit of gas that is signed unless somebody states another one."""

Transaction = dict[str, Any]
"""The fields of an EIP-1559 transaction, with integers; `data` as bytes; without `to`, a creation."""


Stands = Callable[[int | str], Conversation[bool]]
"""Whether something is so at a block."""


class Signer(Protocol):
    """An account that signs transactions, and gives their raw bytes."""

    @property
    def address(self) -> str: ...

    def sign_transaction(self, transaction: Transaction) -> bytes: ...


class GasTooDear(Stale):
    """A unit of gas costs more than the limit."""

    def __init__(self, base_fee_wei: int, limit_wei: int) -> None:
        super().__init__(
            f"Gas costs {base_fee_wei / 1e9:.2f} gwei, and the limit is {limit_wei / 1e9:.2f}. "
            "Wait for a cheaper hour, or raise the limit"
        )
        self.base_fee_wei = base_fee_wei
        self.limit_wei = limit_wei


class NotMined(Stale):
    """A transaction that was sent and is not mined, or not deep enough, yet."""

    def __init__(self, transaction: str, waited_s: float, reason: str = "") -> None:
        told = f" The node says: {reason}." if reason else ""
        super().__init__(
            f"Transaction {transaction} is not mined after {waited_s:.0f} s.{told} Look whether the "
            "chain makes blocks; then start again"
        )
        self.transaction = transaction


class NotDeep(NotMined):
    """Something that stands in the newest blocks, which may still be replaced."""

    def __init__(self, what: str, confirmations: int) -> None:
        Stale.__init__(
            self,
            f"{what} is not {confirmations} blocks deep in the time that this should take. Look "
            "whether the chain makes blocks; then start again: nothing is done twice",
        )
        self.transaction = what
        self.confirmations = confirmations


class NonceTaken(Stale):
    """Another transaction of the account has the nonce of one that was sent."""

    def __init__(self, sender: str, transaction: str) -> None:
        super().__init__(
            f"Another transaction of {sender} came before {transaction}. Let nothing else use this "
            "key; then start again"
        )
        self.sender = sender
        self.transaction = transaction


class Reverted(Fault):
    """A transaction that passed its trial and reverted when mined."""

    def __init__(self, transaction: str) -> None:
        super().__init__(
            f"Transaction {transaction} reverted although its trial passed; somebody else acted in "
            "between, or blocks were replaced. Look at what stands on-chain before you go on"
        )
        self.transaction = transaction


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a mined transaction."""

    transaction: str
    succeeded: bool
    block: int
    gas: int
    created: str | None
    """The contract that it created, in lower case."""
    raw: dict[str, Any]


def draft(
    rpc: Rpc,
    chain_id: int,
    sender: str,
    to: str | None,
    data: bytes,
    *,
    value_wei: int = 0,
    max_fee_wei: int = MAX_FEE_WEI,
) -> Transaction:
    """An unsigned transaction with the account's next nonce. Raises ContractRefused, GasTooDear."""
    body = {"from": sender, "data": "0x" + data.hex(), "value": hex(value_wei)}
    if to is not None:
        body["to"] = to
    try:
        # Not on top of what waits in the node's pool: this one may be there to replace it.
        gas = quantity(rpc.call("eth_estimateGas", body, "latest"))
    except NodeRefused as refused:
        raise explain(refused) from refused
    nonce, head = rpc.batch(
        [
            ("eth_getTransactionCount", [sender, "latest"]),
            ("eth_getBlockByNumber", ["latest", False]),
        ]
    )
    base_fee = quantity(field(head, "baseFeePerGas"))
    if base_fee > max_fee_wei:
        raise GasTooDear(base_fee, max_fee_wei)
    fee = min(2 * base_fee + TIP_WEI, max_fee_wei)
    made: Transaction = {
        "type": 2,
        "chainId": chain_id,
        "nonce": index(nonce),
        "data": data,
        "value": value_wei,
        "gas": gas * 5 // 4,
        "maxFeePerGas": fee,
        "maxPriorityFeePerGas": min(TIP_WEI, fee),
    }
    return made if to is None else made | {"to": to}


def hash_of(raw: bytes) -> str:
    """The hash under which a chain knows a signed transaction (EIP-2718: keccak of its bytes)."""
    return "0x" + keccak(raw).hex()


def broadcast(rpc: Rpc, raw: bytes) -> str | None:
    """Send; None if the node has it (now or already), else the reason why it was not taken."""
    try:
        rpc.call("eth_sendRawTransaction", "0x" + raw.hex())
    except NodeRefused as refused:
        if rpc.call("eth_getTransactionByHash", hash_of(raw)) is None:
            return refused.reason
    return None


def receipt_of(rpc: Rpc, transaction: str) -> Receipt | None:
    """The receipt, if the transaction is mined."""
    found = rpc.call("eth_getTransactionReceipt", transaction)
    if found is None:
        return None
    return Receipt(
        transaction,
        quantity(field(found, "status")) == 1,
        index(field(found, "blockNumber")),
        quantity(field(found, "gasUsed")),
        found.get("contractAddress"),
        found,
    )


def transact(
    rpc: Rpc,
    chain_id: int,
    signer: Signer,
    call: Call,
    max_fee_wei: int = MAX_FEE_WEI,
    *,
    confirmations: int = 1,
    sent: Callable[[str], None] = lambda _: None,
) -> Receipt:
    """Make one call with effect; returns once it is `confirmations` blocks deep, its own included.

    `sent` is told the transaction's hash when it is out. Raises ContractRefused (before any gas is
    paid), BadInput, GasTooDear, NotMined, NonceTaken, Reverted.
    """
    made = draft(
        rpc,
        chain_id,
        signer.address,
        call.to,
        call.data,
        value_wei=call.value_wei,
        max_fee_wei=max_fee_wei,
    )
    for _ in range(REPLACED_MAX):
        raw = signer.sign_transaction(made)
        if _is_out(rpc, signer.address, raw):
            sent(hash_of(raw))
            return _await(rpc, signer.address, raw, made["nonce"], confirmations)
        if made["maxFeePerGas"] == max_fee_wei:
            break
        for name in ("maxFeePerGas", "maxPriorityFeePerGas"):
            made[name] = min(made[name] * 9 // 8 + 1, max_fee_wei)
    raise NonceTaken(signer.address, hash_of(raw))


def stands(rpc: Rpc, confirmations: int, so: Stands, what: str) -> bool:
    """Whether something is so for good; while it is so in newer blocks only, this waits for them.

    `what` names it. Raises NotDeep where it stays undecided.
    """
    deep = confirmations - 1
    for _ in _looks(deep):
        newest = index(rpc.call("eth_blockNumber"))
        if newest >= deep and ask(rpc, so(newest - deep)):
            return True
        if not ask(rpc, so("latest")):
            return False
    raise NotDeep(what, confirmations)


def _looks(blocks: int) -> Iterator[None]:
    """Moments at which to look, until this many blocks should have been made."""
    until_s = time.monotonic() + RECEIPT_WAIT_S + blocks * BLOCK_WAIT_S
    pause_s = RECEIPT_POLL_S
    while time.monotonic() < until_s:
        yield
        time.sleep(pause_s)
        pause_s = min(POLL_GROWTH * pause_s, POLL_MAX_S)


def _is_out(rpc: Rpc, sender: str, raw: bytes) -> bool:
    """Whether the bytes may be out; False where something dearer waits under their nonce."""
    try:
        reason = broadcast(rpc, raw)
    except NodeLost:
        return True  # it may have arrived; whoever waits sends it again
    if reason is None or "nonce too low" in reason.lower():
        return True  # of the latter, whoever waits finds out what took the nonce
    if "underpriced" in reason.lower():
        return False
    raise NotTaken(sender, reason)


def _await(rpc: Rpc, sender: str, raw: bytes, nonce: int, confirmations: int) -> Receipt:
    """The receipt of a transaction that is deep enough; where it fell out it is sent again."""
    transaction, deep = hash_of(raw), confirmations - 1
    sent_s, was_mined = time.monotonic(), False
    for _ in _looks(deep):
        try:
            receipt = receipt_of(rpc, transaction)
            if receipt is not None:
                was_mined = True
                if _is_deep(rpc, receipt, deep):
                    if not receipt.succeeded:
                        raise Reverted(transaction)
                    return receipt
            elif time.monotonic() - sent_s > RESEND_S:
                sent_s = time.monotonic()
                _resend(rpc, sender, raw, nonce, deep)
        except NodeLost:
            continue  # asked again until the time is over
    if was_mined:
        raise NotDeep(f"Transaction {transaction}", confirmations)
    raise NotMined(transaction, RECEIPT_WAIT_S + deep * BLOCK_WAIT_S)


def _is_deep(rpc: Rpc, receipt: Receipt, deep: int) -> bool:
    """Whether so many blocks lie on the receipt's, and that one is part of the chain."""
    if index(rpc.call("eth_blockNumber")) < receipt.block + deep:
        return False
    block = rpc.call("eth_getBlockByNumber", hex(receipt.block), False)
    return block is not None and field(block, "hash") == field(receipt.raw, "blockHash")


def _resend(rpc: Rpc, sender: str, raw: bytes, nonce: int, deep: int) -> None:
    """Send bytes again that are in no block. Raises NonceTaken where they are dead."""
    newest = index(rpc.call("eth_blockNumber"))
    block = hex(max(0, newest - deep))
    used = index(rpc.call("eth_getTransactionCount", sender, block))
    if used > nonce and receipt_of(rpc, hash_of(raw)) is None:
        raise NonceTaken(sender, hash_of(raw))
    broadcast(rpc, raw)  # what is refused was mined a moment ago, or the next look tells


class NotTaken(BadInput):
    """The node did not take a transaction."""

    def __init__(self, sender: str, reason: str) -> None:
        super().__init__(
            f"account {sender}", f"the node takes no transaction of it ({reason})", "Give it gas."
        )
        self.reason = reason
