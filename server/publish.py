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

from collections.abc import Mapping

from fedtrade.chain.contracts import LiveModel, ModelRegistry
from fedtrade.chain.conversation import Conversation, ask
from fedtrade.chain.deployment import ChainDeployment
from fedtrade.chain.rpc import Rpc
from fedtrade.chain.transacting import Stands, stands, transact
from fedtrade.protocol import ReleaseTerms
from fedtrade.venues.codec import Call
from server.keys import CoordinatorKeys
from server.release import Finished


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

    def _stands(self, so: Stands, what: str) -> bool:
        """Whether it is so, for good."""
        return stands(self._rpc, self.chain.confirmations, so, f"{self.chain.name}: {what}")

    def _transact(self, call: Call) -> None:
        """Make a call, and wait until it is deep enough."""
        chain = self.chain
        transact(self._rpc, chain.chain_id, self._keys, call, confirmations=chain.confirmations)
