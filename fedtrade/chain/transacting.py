"""Transactions of one account: tried without effect, priced, signed, sent, waited for.

The account is anything with an address that signs: an operator's or a member's key, or an unlocked
account of a local chain. A contract's refusal comes as a sentence and costs no gas. Whoever has to
survive a crash between sending and knowing (see `deploying`) keeps the signed bytes: the same bytes
can be sent again, and take effect once, because an account's nonce is used once.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final, Protocol

from fedtrade.chain.contracts import explain
from fedtrade.chain.rpc import NodeRefused, Rpc
from fedtrade.errors import BadInput, Fault, Stale
from fedtrade.typed_data import keccak
from fedtrade.venues.codec import Call, field, quantity

RECEIPT_WAIT_S: Final = 60.0
RECEIPT_POLL_S: Final = 0.01
POLL_GROWTH: Final = 1.5
POLL_MAX_S: Final = 2.0
TIP_WEI: Final = 10**9
MAX_FEE_WEI: Final = 500 * 10**9
"""Highest price of a unit of gas that is signed unless somebody states another one."""

Transaction = dict[str, Any]
"""The fields of an EIP-1559 transaction, with integers; `data` as bytes; without `to`, a creation."""


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
    """A transaction that was sent and is not mined yet."""

    def __init__(self, transaction: str, waited_s: float, reason: str = "") -> None:
        told = f" The node says: {reason}." if reason else ""
        super().__init__(
            f"Transaction {transaction} is not mined after {waited_s:.0f} s.{told} Look whether the "
            "chain makes blocks; then start again"
        )
        self.transaction = transaction


class Reverted(Fault):
    """A transaction that passed its trial and reverted when mined."""

    def __init__(self, transaction: str) -> None:
        super().__init__(
            f"Transaction {transaction} reverted although its trial passed; somebody else acted in "
            "between. Look at what stands on-chain before you go on"
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
        gas = quantity(rpc.call("eth_estimateGas", body))
    except NodeRefused as refused:
        raise explain(refused) from refused
    nonce, head = rpc.batch(
        [
            ("eth_getTransactionCount", [sender, "pending"]),
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
        "nonce": quantity(nonce),
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
        quantity(field(found, "blockNumber")),
        quantity(field(found, "gasUsed")),
        found.get("contractAddress"),
        found,
    )


def await_receipt(rpc: Rpc, transaction: str, wait_s: float = RECEIPT_WAIT_S) -> Receipt:
    """Wait until a transaction is mined. Raises NotMined, and Reverted if it had no effect."""
    until, pause_s = time.monotonic() + wait_s, RECEIPT_POLL_S
    while (receipt := receipt_of(rpc, transaction)) is None:
        if time.monotonic() > until:
            raise NotMined(transaction, wait_s)
        time.sleep(pause_s)
        pause_s = min(POLL_MAX_S, pause_s * POLL_GROWTH)
    if not receipt.succeeded:
        raise Reverted(transaction)
    return receipt


def transact(
    rpc: Rpc, chain_id: int, signer: Signer, call: Call, max_fee_wei: int = MAX_FEE_WEI
) -> Receipt:
    """Make one call with effect, and wait until it is mined.

    Raises ContractRefused (before any gas is paid), BadInput, GasTooDear, NotMined, Reverted.
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
    raw = signer.sign_transaction(made)
    if reason := broadcast(rpc, raw):
        raise NotTaken(signer.address, reason)
    return await_receipt(rpc, hash_of(raw))


class NotTaken(BadInput):
    """The node did not take a transaction."""

    def __init__(self, sender: str, reason: str) -> None:
        super().__init__(
            f"account {sender}", f"the node takes no transaction of it ({reason})", "Give it gas."
        )
        self.reason = reason
