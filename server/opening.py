"""From the coordinator's settings to an open release: its terms, and their hash on every chain.

Signers and encryption keys come from Membership on the home chain, not from the operator's file; a
consortium without a chain lists them, and each party approves the policy hash in its own file.
Opening is repeatable: where a release stands already under the same terms, nothing is sent.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedtrade.artifact import Artifact, flatten, load, sha256_of
from fedtrade.chain.contracts import Membership
from fedtrade.chain.conversation import ask
from fedtrade.chain.deployment import Deployment
from fedtrade.chain.parameter_store import InForce, ParameterStore
from fedtrade.chain.quorum import reader
from fedtrade.chain.rpc import Rpc
from fedtrade.errors import BadInput
from fedtrade.privacy.aggregation import check_cost
from fedtrade.protocol import (
    KeyRecord,
    ReleaseTerms,
    Seat,
    decode,
    encode,
    sha256,
)
from server.keys import CoordinatorKeys
from server.publish import Publisher
from server.release import Exchange
from server.settings import CoordinatorSettings, ReleaseSettings, SeatAt

NO_CHAIN: Final = 0
"""Chain id in the terms of a consortium without a chain."""
NO_REGISTRY: Final = "0x" + "00" * 20
ARTIFACT_BYTES_MAX: Final = 64 * 2**20


class Chains:
    """The chains on which a consortium decides, with a connection and the coordinator's account.

    Chains that follow through a mirror need nothing of a coordinator.
    """

    def __init__(self, deployment: Deployment, keys: CoordinatorKeys) -> None:
        self.home = deployment.chain(deployment.home)
        decide = [chain for chain in deployment.chains if chain.consortium is not None]
        self._rpcs = {chain.name: reader(chain.all_rpc_urls, chain.chain_id) for chain in decide}
        self.publishers = [Publisher(chain, self._rpcs[chain.name], keys) for chain in decide]

    @property
    def home_rpc(self) -> Rpc:
        return self._rpcs[self.home.name]

    def rpc(self, publisher: Publisher) -> Rpc:
        return self._rpcs[publisher.chain.name]

    def in_force(self) -> InForce:
        """What governance allows now."""
        return ask(self.home_rpc, ParameterStore(self.home.parameters).parameters())

    def post_manifest(self, release: int, round_number: int, manifest: bytes) -> None:
        """Make a manifest final on the home chain."""
        home = next(p for p in self.publishers if p.chain.name == self.home.name)
        home.post_manifest(release, round_number, manifest)

    def open_release(self, terms: ReleaseTerms) -> None:
        """Open the release on every chain where it is not open yet.

        Raises ContractRefused, for one where the release stands under other terms.
        """
        for publisher in self.publishers:
            publisher.open_release(terms)

    def close(self) -> None:
        for rpc in self._rpcs.values():
            rpc.close()


@dataclass(frozen=True, slots=True)
class Base:
    """The artifact that a release starts from."""

    artifact: Artifact
    content: bytes


def read_base(release: ReleaseSettings) -> Base:
    """The base artifact of the settings. Raises BadInput and what `artifact.load` raises."""
    try:
        with release.base.open("rb") as file:
            content = file.read(ARTIFACT_BYTES_MAX + 1)
    except OSError as error:
        raise BadInput(
            str(release.base), f"no artifact can be read ({error.strerror})", "Check release.base"
        ) from None
    if len(content) > ARTIFACT_BYTES_MAX:
        raise BadInput(str(release.base), f"over {ARTIFACT_BYTES_MAX} bytes", "Check release.base")
    return Base(load(content, sha256_of(content)), content)


def draw_up(
    settings: CoordinatorSettings, coordinator: str, base: Base, chains: Chains | None
) -> ReleaseTerms:
    """The terms of the settings' release. `coordinator` is its address.

    Raises BadInput, and Refusal where its rounds would cost more than its cap of ε.
    """
    release = settings.release
    parties = {seat.id: seat for seat in (*release.members, *release.helpers)}
    seats = _stated(parties) if chains is None else _from_membership(chains, sorted(parties))
    try:
        terms = ReleaseTerms(
            release=release.number,
            chain_id=NO_CHAIN if chains is None else chains.home.chain_id,
            registry=NO_REGISTRY if chains is None else chains.home.model_registry.lower(),
            coordinator=coordinator.lower(),
            parameters=release.parameters,
            members=tuple(seats[member.id] for member in release.members),
            positions=tuple(member.positions for member in release.members),
            helpers=tuple(seats[helper.id] for helper in release.helpers),
            base_sha256=base.artifact.sha256,
            dimension=len(flatten(base.artifact.arrays)),
        )
    except ValueError as error:  # pydantic's ValidationError is one
        problem = str(error).splitlines()[-2 if "\n" in str(error) else 0].strip()
        raise BadInput("release", problem, "Correct coordinator.toml") from None
    check_cost(terms)
    return terms


def _from_membership(chains: Chains, ids: list[int]) -> dict[int, Seat]:
    known = ask(chains.home_rpc, Membership(chains.home.membership).seats(ids))
    return {s.id: Seat(id=s.id, signer=s.signer.lower(), x25519=s.x25519) for s in known}


def _stated(parties: dict[int, SeatAt]) -> dict[int, Seat]:
    return {
        seat.id: Seat(id=seat.id, signer=seat.signer or "", x25519=bytes.fromhex(seat.x25519 or ""))
        for seat in parties.values()
    }


def with_key(terms: ReleaseTerms, exchange: Exchange, kept: Path) -> tuple[ReleaseTerms, KeyRecord]:
    """Lane C: the terms with their collective key, and the record of its ceremony.

    The record is kept, so a restart goes on with the same key. Raises CeremonyIncomplete, and
    Refusal where the record does not hold.
    """
    from fedtrade.privacy import ceremony  # lane C alone pays for TenSEAL and numba
    from server.keymaking import make_key

    if not kept.exists():
        final, record = make_key(exchange, terms)
        write_whole(kept, encode(record))
        return final, record
    record = decode(KeyRecord, kept.read_bytes())
    final = terms.model_copy(update={"key_sha256": sha256(encode(record)).hex()})
    ceremony.check_record(final, record)
    return final, record


def write_whole(path: Path, content: bytes) -> None:
    """Put a whole file in place: readers see the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".draft")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
