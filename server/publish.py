"""What the coordinator does on-chain: open a release, post its manifests, publish its model.

Each call is tried without effect first, so that a contract's refusal is a sentence and costs no gas;
then it is signed, sent, and waited for within a stated time. One account, one nonce at a time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from fedtrade.chain.contracts import LiveModel, ModelRegistry, explain
from fedtrade.chain.conversation import ask
from fedtrade.chain.deployment import ChainDeployment
from fedtrade.chain.rpc import NodeRefused, Rpc
from fedtrade.errors import Fault, Stale
from fedtrade.protocol import ReleaseTerms
from fedtrade.venues.codec import Call, field, quantity
from server.keys import CoordinatorKeys
from server.release import Finished

RECEIPT_WAIT_S: Final = 60.0
RECEIPT_POLL_S: Final = 0.01
TIP_WEI: Final = 10**9


class NotMined(Stale):
    """A transaction that was sent and is not mined yet."""

    def __init__(self, chain: str, transaction: str) -> None:
        super().__init__(
            f"{chain}: transaction {transaction} is not mined after {RECEIPT_WAIT_S:.0f} s. "
            "Look whether the chain makes blocks; then start the coordinator again"
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
        if ask(self._rpc, self.registry.latest_release()) >= terms.release:
            opened = ask(self._rpc, self.registry.release(terms.release))
            if opened.policy_hash == terms.digest:
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
        """Make a round's manifest final; returns once it is mined, or at once where it stands."""
        if ask(self._rpc, self.registry.manifest_of(release, round_number)) == manifest:
            return  # posted before a crash
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
        if ask(self._rpc, self.registry.latest_version()) >= version:
            known = ask(self._rpc, self.registry.model(version))
            if known.sha256 == finished.artifact_sha256:
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

    def _transact(self, call: Call) -> dict[str, Any]:
        body = {"from": self._keys.address, "to": call.to, "data": "0x" + call.data.hex()}
        try:
            self._rpc.call("eth_call", body, "latest")
            gas = quantity(self._rpc.call("eth_estimateGas", body))
        except NodeRefused as refused:
            raise explain(refused) from refused
        nonce, head = self._rpc.batch(
            [
                ("eth_getTransactionCount", [self._keys.address, "pending"]),
                ("eth_getBlockByNumber", ["latest", False]),
            ]
        )
        raw = self._keys.sign_transaction(
            {
                "type": 2,
                "chainId": self.chain.chain_id,
                "nonce": quantity(nonce),
                "to": call.to,
                "data": call.data,
                "value": 0,
                "gas": gas * 5 // 4,
                "maxFeePerGas": 2 * quantity(field(head, "baseFeePerGas")) + TIP_WEI,
                "maxPriorityFeePerGas": TIP_WEI,
            }
        )
        transaction = self._rpc.call("eth_sendRawTransaction", "0x" + raw.hex())
        return self._await(transaction)

    def _await(self, transaction: str) -> dict[str, Any]:
        until = time.monotonic() + RECEIPT_WAIT_S
        while True:
            receipt: dict[str, Any] | None = self._rpc.call(
                "eth_getTransactionReceipt", transaction
            )
            if receipt is not None:
                if quantity(field(receipt, "status")) != 1:
                    raise Reverted(self.chain.name, transaction)
                return receipt
            if time.monotonic() > until:
                raise NotMined(self.chain.name, transaction)
            time.sleep(RECEIPT_POLL_S)
