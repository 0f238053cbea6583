"""What a member's machine reads of the home chain itself, instead of being told.

A helper asks its own node whether a manifest stands there; the coordinator's word for it is worth
nothing. An answer is remembered once it is a manifest: the registry takes one a round, for ever.
"""

from __future__ import annotations

from clients.helper import FinalManifest
from fedtrade.chain.contracts import ModelRegistry
from fedtrade.chain.conversation import ask
from fedtrade.chain.rpc import Rpc


def final_manifests(rpc: Rpc, registry: str) -> FinalManifest:
    """(release, round) -> the manifest hash that stands in `registry`, or None."""
    contract = ModelRegistry(registry)

    def final(release: int, round_number: int) -> bytes | None:
        root = ask(rpc, contract.manifest_of(release, round_number))
        return root if any(root) else None

    return final
