"""A coordinator with a registry to post to: its account, one member, and what it publishes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from fedtrade.chain.contracts import COORDINATOR, MEMBER, Membership, ModelRegistry
from fedtrade.chain.conversation import ask
from fedtrade.chain.deployment import ChainDeployment
from fedtrade.chain.quorum import reader
from fedtrade.chain.rpc import Rpc
from fedtrade.devnet.net import Devnet
from fedtrade.typed_data import keccak
from server.keys import CoordinatorKeys
from server.publish import Publisher

SHA256 = "ab" * 32


@dataclass
class Office:
    """A coordinator on one chain."""

    honest: Rpc
    """The chain itself, for whoever judges."""
    registry: ModelRegistry
    publisher: Publisher
    keys: CoordinatorKeys
    members: list[Any]

    def open(self, rounds: int) -> None:
        """Open release 1."""
        ids = [
            ask(self.honest, Membership(self._membership()).id_of_signer(m.address))
            for m in self.members
        ]
        self.publisher._transact(
            self.registry.open_release(1, b"\1" * 32, "00" * 32, rounds, ids, [])
        )

    def close(self) -> None:
        self.publisher._rpc.close()

    def _membership(self) -> str:
        return self.publisher.chain.membership

    def post(self, number: int) -> None:
        self.publisher.post_manifest(1, number, manifest(number))

    def stands(self, number: int, block: int | str = "latest") -> bool:
        """Whether the chain itself has this manifest."""
        return ask(self.honest, self.registry.manifest_of(1, number, block)) == manifest(number)

    def publish(self) -> None:
        """Publish version 1, signed by everybody."""
        digest = ask(self.honest, self.registry.digest(1, 1, SHA256, "file:a", 1000))
        signed = {m.address: bytes(m.unsafe_sign_hash(digest).signature) for m in self.members}
        terms: Any = SimpleNamespace(release=1)
        finished: Any = SimpleNamespace(artifact_sha256=SHA256, epsilon_micro=1000)
        self.publisher.publish(terms, finished, 1, "file:a", signed)


def manifest(number: int) -> bytes:
    return keccak(number.to_bytes(8, "big"))


def office(devnet: Devnet, chain: ChainDeployment, seen: ChainDeployment) -> Office:
    """A coordinator who sees `chain` through the nodes that `seen` names."""
    from eth_account import Account

    keys = CoordinatorKeys.ephemeral()
    members: Sequence[Any] = [Account.create() for _ in range(3)]
    membership = Membership(chain.membership)
    devnet.fund(chain.name, keys.address, native_wei=10**20)
    for who, role in [*((m, MEMBER) for m in members), (keys, COORDINATOR)]:
        call = membership.admit(who.address, who.address, b"\0" * 32, role)
        devnet.govern(chain.name, call)
    for _ in range(16):
        devnet.mine(chain.name)  # a chain that was loaded has no states of before
    rpc = reader(seen.all_rpc_urls, seen.chain_id)
    publisher = Publisher(seen, rpc, keys)
    return Office(
        devnet.rpc(chain.name), ModelRegistry(chain.model_registry), publisher, keys, list(members)
    )
