"""What the coordinator does on-chain: open a release, post its manifests, publish its model.

Each call is tried without effect first, so that a contract's refusal is a sentence and costs no gas;
then it is signed, sent to every node, and waited for until it is `confirmations` blocks deep. A
receipt alone is not the end: a block that is replaced takes its transactions with it, so the same
bytes are sent again until they stand deep enough, and whatever stands already but not deep enough is
waited for. The contracts take each thing once, so nothing is done twice. One account, one nonce at a
time; what an earlier life of this process has left in the nodes' pools is replaced, not followed by
another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from fedtrade.chain.agreement import transaction_hash
from fedtrade.chain.contracts import LiveModel, ModelRegistry, explain
from fedtrade.chain.conversation import Conversation, ask
from fedtrade.chain.deployment import ChainDeployment
from fedtrade.chain.rpc import NodeLost, NodeRefused, Rpc
from fedtrade.errors import Fault, Stale
from fedtrade.protocol import ReleaseTerms
from fedtrade.venues.codec import Call, field, index, quantity
from server.keys import CoordinatorKeys
from server.release import Finished

RECEIPT_WAIT_S: Final = 60.0
"""Longest that a transaction waits for its first block."""
BLOCK_WAIT_S: Final = 30.0
"""Longest that each further block may take, on the average."""
POLL_S: Final = 0.01
POLL_MAX_S: Final = 1.0
"""Between two looks: short at first, half as long again each time."""
RESEND_S: Final = 3.0
TIP_WEI: Final = 10**9
REPLACED_MAX: Final = 8
"""How often a fee is raised by an eighth to replace what waits under our nonce."""

Stands = Callable[[int | str], Conversation[bool]]
"""Whether something is so at a block."""


class NotMined(Stale):
    """A transaction that was sent and is not deep enough yet."""

    def __init__(self, chain: str, transaction: str, confirmations: int) -> None:
        super().__init__(
            f"{chain}: transaction {transaction} is not {confirmations} blocks deep in the time that "
            "this should take. Look whether the chain makes blocks; then start the coordinator again"
        )
        self.chain = chain
        self.transaction = transaction


class NonceTaken(Stale):
    """Another transaction of the coordinator's account took the nonce of one that was sent."""

    def __init__(self, chain: str, transaction: str) -> None:
        super().__init__(
            f"{chain}: another transaction of this account came before {transaction}. Let nothing "
            "else use the coordinator's key; then start the coordinator again"
        )
        self.chain = chain
        self.transaction = transaction


class Reverted(Fault):
    """A transaction that passed its trial and reverted when mined."""

    def __init__(self, chain: str, transaction: str) -> None:
        super().__init__(
            f"{chain}: transaction {transaction} reverted although its trial passed; "
            "somebody else acted in between. Look at the registry before you go on"
        )
        self.chain = chain
        self.transaction = transaction


class Publisher:
    """One chain's registry, with the coordinator's account."""

    def __init__(self, chain: ChainDeployment, rpc: Rpc, keys: CoordinatorKeys) -> None:
        self.chain = chain
        self.registry = ModelRegistry(chain.model_registry)
        self._rpc = rpc
        self._keys = keys

    def open_release(self, terms: ReleaseTerms) -> None:
        """Fix members, committee, policy and base model on this chain, once."""

        def opened(block: int | str) -> Conversation[bool]:
            if (yield from self.registry.latest_release(block)) < terms.release:
                return False
            release = yield from self.registry.release(terms.release, block)
            return release.policy_hash == terms.digest

        if self._stands(opened, f"release {terms.release}"):
            return  # opened before a crash
        self._transact(
            self.registry.open_release(
                terms.release,
                terms.digest,
                terms.base_sha256,
                terms.parameters.rounds,
                [seat.id for seat in terms.members],
                [seat.id for seat in terms.helpers],
            )
        )

    def post_manifest(self, release: int, round_number: int, manifest: bytes) -> None:
        """Make a round's manifest final; returns once it stands deep enough."""

        def posted(block: int | str) -> Conversation[bool]:
            found = yield from self.registry.manifest_of(release, round_number, block)
            return found == manifest

        if not self._stands(posted, f"manifest of round {round_number}"):
            self._transact(self.registry.post_manifest(release, round_number, manifest))

    def publish(
        self,
        terms: ReleaseTerms,
        finished: Finished,
        version: int,
        uri: str,
        signatures: Mapping[str, bytes],
    ) -> None:
        """End the release with its model, once. `signatures` by signer; it takes a quorum."""

        def published(block: int | str) -> Conversation[bool]:
            if (yield from self.registry.latest_version(block)) < version:
                return False
            known = yield from self.registry.model(version, block)
            return known.sha256 == finished.artifact_sha256

        if self._stands(published, f"version {version}"):
            return  # published before a crash
        self._transact(
            self.registry.publish(
                terms.release,
                version,
                finished.artifact_sha256,
                uri,
                finished.epsilon_micro,
                signatures,
            )
        )

    def live(self) -> LiveModel:
        """What is live on this chain now."""
        return ask(self._rpc, self.registry.live())

    def _stands(self, stands: Stands, what: str) -> bool:
        """Whether it is so, for good; while it is so in newer blocks only, this waits for them."""
        deep = self.chain.confirmations - 1
        for _ in self._looks(deep):
            newest = index(self._rpc.call("eth_blockNumber"))
            if newest >= deep and ask(self._rpc, stands(newest - deep)):
                return True
            if not ask(self._rpc, stands("latest")):
                return False
        raise NotMined(self.chain.name, what, self.chain.confirmations)

    def _looks(self, blocks: int) -> Iterator[None]:
        """Moments at which to look, until this many blocks should have been made."""
        until_s = time.monotonic() + RECEIPT_WAIT_S + blocks * BLOCK_WAIT_S
        pause_s = POLL_S
        while time.monotonic() < until_s:
            yield
            time.sleep(pause_s)
            pause_s = min(1.5 * pause_s, POLL_MAX_S)

    def _transact(self, call: Call) -> dict[str, Any]:
        """Try, sign, send, and wait until it is deep enough; its receipt."""
        body = {"from": self._keys.address, "to": call.to, "data": "0x" + call.data.hex()}
        try:
            self._rpc.call("eth_call", body, "latest")
            gas = quantity(self._rpc.call("eth_estimateGas", body))
        except NodeRefused as refused:
            raise explain(refused) from refused
        nonce, head = self._rpc.batch(
            [
                ("eth_getTransactionCount", [self._keys.address, "latest"]),
                ("eth_getBlockByNumber", ["latest", False]),
            ]
        )
        fee = 2 * quantity(field(head, "baseFeePerGas")) + TIP_WEI
        tip = TIP_WEI
        for _ in range(REPLACED_MAX):
            raw = self._keys.sign_transaction(
                {
                    "type": 2,
                    "chainId": self.chain.chain_id,
                    "nonce": index(nonce),
                    "to": call.to,
                    "data": call.data,
                    "value": 0,
                    "gas": gas * 5 // 4,
                    "maxFeePerGas": fee,
                    "maxPriorityFeePerGas": tip,
                }
            )
            if self._send(raw):
                return self._await(raw, index(nonce))
            fee, tip = fee * 9 // 8 + 1, tip * 9 // 8 + 1
        raise NonceTaken(self.chain.name, transaction_hash("0x" + raw.hex()))

    def _send(self, raw: bytes) -> bool:
        """Whether the bytes may be out; False where something dearer waits under their nonce."""
        try:
            self._rpc.call("eth_sendRawTransaction", "0x" + raw.hex())
        except NodeRefused as refused:
            reason = refused.reason.lower()
            if "underpriced" in reason:
                return False
            if not any(word in reason for word in ("known", "imported", "nonce too low")):
                raise
        except NodeLost:
            return True  # it may have arrived; whoever waits sends it again
        return True

    def _await(self, raw: bytes, nonce: int) -> dict[str, Any]:
        """The receipt of a transaction that is deep enough; where it fell out it is sent again."""
        transaction = transaction_hash("0x" + raw.hex())
        deep = self.chain.confirmations - 1
        sent_s = time.monotonic()
        for _ in self._looks(deep):
            try:
                receipt = self._receipt(transaction, deep)
                if receipt is not None:
                    return receipt
                if time.monotonic() - sent_s > RESEND_S:
                    sent_s = time.monotonic()
                    self._resend(raw, transaction, nonce, deep)
            except NodeLost:
                continue  # asked again until the time is over
        raise NotMined(self.chain.name, transaction, self.chain.confirmations)

    def _receipt(self, transaction: str, deep: int) -> dict[str, Any] | None:
        """The receipt, if its block is deep enough and part of the chain."""
        receipt: dict[str, Any] | None
        receipt = self._rpc.call("eth_getTransactionReceipt", transaction)
        if receipt is None:
            return None
        number = index(field(receipt, "blockNumber"))
        if index(self._rpc.call("eth_blockNumber")) < number + deep:
            return None
        block = self._rpc.call("eth_getBlockByNumber", hex(number), False)
        if block is None or field(block, "hash") != field(receipt, "blockHash"):
            return None
        if quantity(field(receipt, "status")) != 1:
            raise Reverted(self.chain.name, transaction)
        return receipt

    def _resend(self, raw: bytes, transaction: str, nonce: int, deep: int) -> None:
        """Send the bytes again unless they are in a block. Raises NonceTaken where they are dead."""
        if self._rpc.call("eth_getTransactionReceipt", transaction) is not None:
            return
        newest = index(self._rpc.call("eth_blockNumber"))
        address, block = self._keys.address, hex(max(0, newest - deep))
        used = index(self._rpc.call("eth_getTransactionCount", address, block))
        if used > nonce and self._rpc.call("eth_getTransactionReceipt", transaction) is None:
            raise NonceTaken(self.chain.name, transaction)
        try:
            self._rpc.call("eth_sendRawTransaction", "0x" + raw.hex())
        except NodeRefused:
            return  # known, or mined a moment ago: the next look tells
