"""One account on one chain that has at most one transaction under way, and never waits for it.

A transaction is tried without effect first, so that a refusal is a sentence and costs no gas. One
that is not mined is replaced at the same nonce with a higher fee, up to a cap and a number of times;
then it is given up, and whatever is sent next takes its nonce. So at most one transaction of a nonce
is ever mined, and nothing that is stuck stays in the way of what comes later.

The nonce is asked for each time: a process that was killed needs to remember nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from fedtrade.chain.contracts import explain
from fedtrade.chain.rpc import NodeRefused, Rpc
from fedtrade.errors import Stale
from fedtrade.typed_data import keccak
from fedtrade.venues import codec
from fedtrade.venues.codec import Call, quantity
from server.keys import CoordinatorKeys

BUMP: Final = (5, 4)
"""By what a fee grows when it replaces another; nodes ask for an eighth more (geth: a tenth)."""
GAS_MARGIN: Final = (5, 4)
KNOWN: Final = ("already known", "already imported")
"""What nodes say of a transaction that they have: sent before this process was killed."""
TAKEN: Final = ("underpriced", "nonce too low")
"""What they say of one whose nonce has another one: no refusal of its content."""


class TooDear(Stale):
    """Gas costs more than the settings allow."""

    def __init__(self, chain: str, fee_wei: int, cap_wei: int) -> None:
        super().__init__(
            f"{chain}: gas would cost {fee_wei / 1e9:.3g} gwei and the cap is {cap_wei / 1e9:.3g}. "
            "It is tried again; raise fees.gas_price_max_gwei if this lasts"
        )
        self.chain = chain
        self.fee_wei = fee_wei
        self.cap_wei = cap_wei


class NonceTaken(Stale):
    """The node has another transaction at this nonce."""

    def __init__(self, chain: str, said: str) -> None:
        super().__init__(
            f"{chain}: another transaction of this account is under way ({said}). It is tried again "
            "with a higher fee; no other program may use this account"
        )
        self.chain = chain


@dataclass(frozen=True, slots=True)
class Settled:
    """How a transaction ended."""

    what: str
    outcome: str
    """"mined", "reverted" or "given up"."""
    gas: int = 0
    transaction: str = ""


@dataclass(frozen=True, slots=True)
class Fees:
    """Limits of what this account pays."""

    gas_price_max_wei: int
    tip_wei: int
    replace_after_s: float
    """How long a transaction waits before it is sent again with a higher fee."""
    attempts_max: int
    """How often the same is sent, with ever higher fees."""


@dataclass(slots=True)
class _Underway:
    what: str
    call: Call
    nonce: int
    gas: int
    fee_wei: int
    since_s: float
    attempts: int = 0
    transactions: list[str] = field(default_factory=list)


class Sender:
    """The account's transactions on one chain."""

    def __init__(
        self,
        name: str,
        chain_id: int,
        rpc: Rpc,
        keys: CoordinatorKeys,
        fees: Fees,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self._chain_id = name, chain_id
        self._rpc, self._keys, self._fees, self._clock = rpc, keys, fees, clock
        self._underway: _Underway | None = None
        self._outbid: tuple[int, int] = (-1, 0)
        """Nonce, and the fee that a transaction of this nonce has to pass."""

    @property
    def busy(self) -> bool:
        """Whether a transaction is under way."""
        return self._underway is not None

    def send(self, call: Call, what: str) -> None:
        """Try, sign and send. Raises Refusal where it would revert, TooDear, NonceTaken."""
        if self._underway is not None:
            raise NonceTaken(self.name, "ours")
        body = {
            "from": self._keys.address,
            "to": call.to,
            "data": "0x" + call.data.hex(),
            "value": hex(call.value_wei),
        }
        try:
            self._rpc.call("eth_call", body, "latest")
            # Not on top of what waits in the node's pool: this one may be there to replace it.
            gas = quantity(self._rpc.call("eth_estimateGas", body, "latest"))
        except NodeRefused as refused:
            raise explain(refused) from refused
        nonce = quantity(self._rpc.call("eth_getTransactionCount", self._keys.address, "latest"))
        fee = self._fee(self._outbid[1] if nonce == self._outbid[0] else 0)
        underway = _Underway(
            what, call, nonce, gas * GAS_MARGIN[0] // GAS_MARGIN[1], fee, self._clock()
        )
        self._broadcast(underway)
        self._underway = underway

    def settle(self) -> Settled | None:
        """Look whether what is under way has been mined; replace it or give it up in its time."""
        underway = self._underway
        if underway is None:
            return None
        for transaction in reversed(underway.transactions):
            receipt: dict[str, Any] | None = self._rpc.call(
                "eth_getTransactionReceipt", transaction
            )
            if receipt is not None:
                self._underway = None
                good = quantity(codec.field(receipt, "status")) == 1
                gas = quantity(codec.field(receipt, "gasUsed"))
                return Settled(underway.what, "mined" if good else "reverted", gas, transaction)
        if self._clock() - underway.since_s < self._fees.replace_after_s:
            return None
        self._outbid = (underway.nonce, underway.fee_wei)
        mined = quantity(self._rpc.call("eth_getTransactionCount", self._keys.address, "latest"))
        if underway.attempts >= self._fees.attempts_max or mined > underway.nonce:
            self._underway = None
            return Settled(underway.what, "given up")
        underway.since_s = self._clock()  # also if the next lines fail: no haste
        underway.fee_wei = self._fee(underway.fee_wei)
        self._broadcast(underway)
        return None

    def _fee(self, outbid_wei: int) -> int:
        head = self._rpc.call("eth_getBlockByNumber", "latest", False)
        asked = 2 * quantity(codec.field(head, "baseFeePerGas")) + self._fees.tip_wei
        fee = max(asked, outbid_wei * BUMP[0] // BUMP[1] + 1 if outbid_wei else 0)
        if fee > self._fees.gas_price_max_wei:
            raise TooDear(self.name, fee, self._fees.gas_price_max_wei)
        return fee

    def _broadcast(self, underway: _Underway) -> None:
        tip = self._fees.tip_wei
        if underway.nonce == self._outbid[0]:
            tip = underway.fee_wei  # a replacement has to raise both
        raw = self._keys.sign_transaction(
            {
                "type": 2,
                "chainId": self._chain_id,
                "nonce": underway.nonce,
                "to": underway.call.to,
                "data": underway.call.data,
                "value": underway.call.value_wei,
                "gas": underway.gas,
                "maxFeePerGas": underway.fee_wei,
                "maxPriorityFeePerGas": min(tip, underway.fee_wei),
            }
        )
        underway.attempts += 1
        try:
            self._rpc.call("eth_sendRawTransaction", "0x" + raw.hex())
        except NodeRefused as refused:
            said = refused.reason.lower()
            if any(word in said for word in TAKEN):
                # Of an earlier life of this process, most likely: bid more the next time.
                self._outbid = (underway.nonce, underway.fee_wei)
                raise NonceTaken(self.name, refused.reason) from refused
            if not any(word in said for word in KNOWN):
                raise
        underway.transactions.append("0x" + keccak(raw).hex())
