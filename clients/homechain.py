"""What a member's machine reads of the home chain itself, instead of being told.

A helper asks its own node whether a manifest stands there, and a member asks its own node whether
the terms that it was handed are those that the consortium agreed on. The coordinator's word for
either is worth nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from clients.helper import FinalManifest
from fedtrade.chain.contracts import Membership, ModelRegistry
from fedtrade.chain.conversation import ask
from fedtrade.chain.parameter_store import InForce, ParameterStore
from fedtrade.chain.rpc import Rpc
from fedtrade.protocol import ReleaseTerms, WrongBinding


def final_manifests(rpc: Rpc, registry: str, block: str = "finalized") -> FinalManifest:
    """(release, round) -> the manifest hash that stands in `registry`, or None.

    Read at a finalised block: one that can still be reorganised away could show two helpers two
    manifests of a round. Local chains of a rehearsal finalise nothing in time and say "latest".
    """
    contract = ModelRegistry(registry)

    def final(release: int, round_number: int) -> bytes | None:
        root = ask(rpc, contract.manifest_of(release, round_number, block))
        return root if any(root) else None

    return final


def parameters_in_force(rpc: Rpc, registry: str, block: str = "finalized") -> Callable[[], InForce]:
    """What governance allows, read anew at each call: rounds obey what it is now, not what it was.

    Read where the registry reads it, at a block that stays (see `final_manifests`).
    """
    store = ParameterStore(ask(rpc, ModelRegistry(registry).parameter_store()))
    return lambda: ask(rpc, store.parameters(block))


def closed_rounds(rpc: Rpc, terms: ReleaseTerms) -> list[int]:
    """Rounds of a release whose manifest stands on the home chain.

    A member that does not know them may be working with an old copy of its ledger, and charges them.
    """
    numbers = range(1, terms.parameters.rounds + 1)
    stand = ask(rpc, ModelRegistry(terms.registry).have_manifests(terms.release, numbers))
    return [number for number, stands in zip(numbers, stand, strict=True) if stands]


def check_terms(rpc: Rpc, membership: str, terms: ReleaseTerms) -> None:
    """Refuse terms that the home chain does not confirm: policy, base model, rounds, and every key.

    Raises WrongBinding. A swapped encryption key would let somebody read mask seeds; this is where
    it is found.
    """
    opened = ask(rpc, ModelRegistry(terms.registry).release(terms.release))
    for field, on_chain, told in (
        ("policy hash", opened.policy_hash.hex(), terms.digest.hex()),
        ("base artifact", opened.base_sha256, terms.base_sha256),
        ("rounds", opened.rounds, terms.parameters.rounds),
    ):
        if on_chain != told:
            raise WrongBinding("release", f"{field} on the home chain", on_chain, told)
    parties = {seat.id: seat for seat in (*terms.members, *terms.helpers)}
    for known in ask(rpc, Membership(membership).seats(sorted(parties))):
        told_seat = parties[known.id]
        if known.signer.lower() != told_seat.signer:
            raise WrongBinding(
                "release", f"signer of seat {known.id}", known.signer, told_seat.signer
            )
        if known.x25519 != told_seat.x25519:
            raise WrongBinding(
                "release",
                f"encryption key of seat {known.id}",
                known.x25519.hex(),
                told_seat.x25519.hex(),
            )
