"""A whole consortium in one process: members, committee and coordinator around one table.

Real keys, real ledgers on disk, real messages; what is rehearsed is only that they share a process
and that the home chain may be a dictionary (`Board`). The demo and the protocol's tests run on it.
Two transports carry the same messages: Flower on the embedded grid, which may put the others into
forked processes, and plain calls.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clients.app import make_app as make_member_app
from clients.budget import Budget
from clients.dealer import Dealer
from clients.desk import Desk
from clients.floor import Floor
from clients.helper import Helper
from clients.keys import MemberKeys
from clients.member import Member, Positions
from consortium.grid import Fault, LocalGrid, run_in_process
from fedtrade.artifact import Manifest, NetworkShape, flatten, load, pack, sha256_of
from fedtrade.channel import Role
from fedtrade.errors import FedtradeError
from fedtrade.learning.baseline import initial_arrays
from fedtrade.learning.tables import Candles
from fedtrade.learning.windows import HEADS, PositionBatch
from fedtrade.parameters import PrivacyParameters
from fedtrade.privacy.accounting import ADJACENCY, UNIT
from fedtrade.protocol import (
    Action,
    KeyRecord,
    ReleaseTerms,
    Seat,
    Sign,
)
from server import keymaking
from server.app import make_app as make_coordinator_app
from server.release import Exchange, Release
from server.store import TranscriptFile


class Notices(Protocol):
    """Where manifests become final: the home chain's registry, or a dictionary in tests."""

    def post(self, release: int, round_number: int, manifest: bytes) -> None: ...

    def final(self, release: int, round_number: int) -> bytes | None: ...


@dataclass
class Board:
    """A dictionary in place of the home chain: one manifest a round, like the contract."""

    manifests: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def post(self, release: int, round_number: int, manifest: bytes) -> None:
        stands = self.manifests.setdefault((release, round_number), manifest)
        if stands != manifest:
            raise ValueError(f"round {round_number} has another manifest")

    def final(self, release: int, round_number: int) -> bytes | None:
        return self.manifests.get((release, round_number))


@dataclass(frozen=True, slots=True)
class Party:
    """One member of the rehearsal, before the release is opened."""

    seat: int
    name: str
    keys: MemberKeys
    positions: Positions
    folder: Path
    """The member's own folder: nothing else writes there."""


def seat_of(party: Party) -> Seat:
    return Seat(id=party.seat, signer=party.keys.address.lower(), x25519=party.keys.x25519_public)


def make_terms(
    parties: Sequence[Party],
    parameters: PrivacyParameters,
    base: bytes,
    coordinator: str,
    release: int = 1,
    chain_id: int = 31101,
    registry: str = "0x" + "00" * 20,
) -> ReleaseTerms:
    """Terms over all parties; the first `parameters.helpers` of them are the committee as well."""
    artifact = load(base, sha256_of(base))
    seats = tuple(seat_of(p) for p in parties)
    return ReleaseTerms(
        release=release,
        chain_id=chain_id,
        registry=registry.lower(),
        coordinator=coordinator.lower(),
        parameters=parameters,
        members=seats,
        positions=tuple(p.positions.count for p in parties),
        helpers=seats[: parameters.helpers],
        base_sha256=artifact.sha256,
        dimension=len(flatten(artifact.arrays)),
    )


def make_key(terms: ReleaseTerms, parties: Sequence[Party]) -> tuple[ReleaseTerms, KeyRecord]:
    """The ceremony of a collective key among the committee (lane C)."""
    by_seat = {party.seat: party.keys for party in parties}
    dealers = {seat.id: Dealer(terms, seat.id, by_seat[seat.id]) for seat in terms.helpers}

    def exchange(action: Action, bodies: Mapping[int, bytes]) -> Mapping[int, bytes]:
        return {
            seat: (
                dealers[seat].commit()
                if action == "deal"
                else dealers[seat].reveal(body)
                if action == "reveal"
                else dealers[seat].rehearse(body)
            )
            for seat, body in bodies.items()
        }

    return keymaking.make_key(exchange, terms)


class Consortium:
    """Everybody's objects for one release."""

    def __init__(
        self,
        parties: Sequence[Party],
        terms: ReleaseTerms,
        base: bytes,
        notices: Notices,
        sign: Sign,
        folder: Path,
        floor: Floor | None = None,
        key: KeyRecord | None = None,
    ) -> None:
        """`sign` is the coordinator's; `key` the record of a lane C key (`make_key`)."""
        artifact = load(base, terms.base_sha256)
        floor = floor or Floor()
        committee = {seat.id for seat in terms.helpers}
        self.terms = terms
        self.transcript_path = folder / "transcript.bin"
        self.desks: dict[int, Desk] = {}
        for party in parties:
            budget = Budget(party.folder / "ledger.jsonl", floor.epsilon_limit, floor.delta_max)
            member = Member(
                party.seat, party.keys, party.positions, budget, floor, terms, artifact, key
            )
            roles: dict[Role, int] = {"member": party.seat}
            helper = None
            if party.seat in committee:
                roles["helper"] = party.seat
                helper = Helper(
                    party.seat,
                    party.keys,
                    terms,
                    party.folder,
                    notices.final,
                    floor.cohort_min,
                    key,
                )
            self.desks[party.seat] = Desk(roles, member=member, helper=helper)
        self.release = Release(
            terms,
            artifact,
            base,
            TranscriptFile(self.transcript_path),
            sign,
            notices.post,
        )

    def members(self) -> Iterable[Member]:
        return (desk.member for desk in self.desks.values() if desk.member is not None)

    def over_flower(
        self,
        run: Callable[[Exchange], None],
        timeout_s: float = 60.0,
        fault: Fault | None = None,
        processes: int = 0,
    ) -> None:
        """Run the coordinator as a Flower ServerApp and everybody else as ClientApps.

        With `processes` the others live in as many forks (`LocalGrid`): what they remember is then
        there, and afterwards the consortium is only good to be closed. They do not see a `Board` of
        this process, so manifests become final by certificate or on a chain.
        """
        by_node = dict(enumerate(self.desks.values(), start=2))
        app = make_member_app(lambda context: by_node[context.node_id])
        grid = LocalGrid(app, nodes=len(by_node), processes=processes, fault=fault)
        run_in_process(make_coordinator_app(run, timeout_s), grid)

    def direct(self, lose: Callable[[Action, int], bool] = lambda action, seat: False) -> Exchange:
        """Plain calls instead of Flower; `lose(action, seat)` says whose message is lost."""

        def exchange(action: Action, bodies: Mapping[int, bytes]) -> Mapping[int, bytes]:
            kept = {seat: body for seat, body in bodies.items() if not lose(action, seat)}
            return _ask(self.desks, action, kept)

        return exchange

    def close(self) -> None:
        for desk in self.desks.values():
            desk.close()


def _ask(
    desks: Mapping[int, Desk], action: Action, bodies: Mapping[int, bytes]
) -> dict[int, bytes]:
    """seat -> reply, of those that did not refuse: as over Flower."""
    replies = {}
    for seat, body in bodies.items():
        with contextlib.suppress(FedtradeError):
            replies[seat] = desks[seat].act(action, body)
    return replies


class RandomPositions:
    """Positions of seeded random numbers: for tests and benchmarks, where only sizes matter.

    Their windows come from no market, so there are no candles to judge a model on.
    """

    candles: Mapping[tuple[str, str], Candles] = {}

    def __init__(self, count: int, features: int, seed: int, windows: int = 4) -> None:
        rng = np.random.default_rng(seed)
        self._batch = PositionBatch(
            rng.standard_normal((count, windows, features)).astype(np.float32),
            rng.standard_normal((count, windows, 2)).astype(np.float32),
            np.full((count, windows), 1 / windows, np.float32),
        )

    @property
    def count(self) -> int:
        return self._batch.count

    def sample(self, include: NDArray[np.bool_]) -> PositionBatch:
        return self._batch.take(include)


def small_base(features: int = 6, hidden: tuple[int, ...] = (5,), seed: int = 1) -> bytes:
    """A base artifact of a small network with a neutral public baseline."""
    shape = NetworkShape(inputs=features, hidden=hidden, outputs=2)
    card = Manifest(
        network=shape,
        features=tuple(f"x{i}" for i in range(features)),
        heads=HEADS,
        horizon_s=3600,
        release=0,
        rounds=0,
        parent_sha256="",
        policy_sha256="",
        epsilon_micro=0,
        delta=0.0,
        unit=UNIT,
        adjacency=ADJACENCY,
        trained_until_s=0,
        standins=("positions are seeded random numbers",),
    )
    return pack(initial_arrays(shape, seed), card)


SMALL = PrivacyParameters(
    sampling_rate=0.2,
    noise_multiplier=1.0,
    clip_norm=1.0,
    rounds=8,
    delta=1e-6,
    epsilon_cap=20.0,
    cohort_min=4,
    helpers=5,
    corrupt=2,
    learning_rate=0.01,
)


def rehearse(
    folder: Path,
    members: int = 6,
    parameters: PrivacyParameters = SMALL,
    base: bytes | None = None,
    positions_each: int = 40,
    notices: Notices | None = None,
    floor: Floor | None = None,
    keys: Sequence[MemberKeys] | None = None,
    coordinator_keys: MemberKeys | None = None,
) -> Consortium:
    """A consortium over random positions and, unless `notices` says otherwise, without a chain."""
    base = base or small_base()
    features = load(base, sha256_of(base)).manifest.network.inputs
    parties = [
        Party(
            seat=i + 1,
            name=f"member-{i + 1}",
            keys=keys[i] if keys else MemberKeys.ephemeral(),
            positions=RandomPositions(positions_each, features, seed=i),
            folder=folder / f"member-{i + 1}",
        )
        for i in range(members)
    ]
    coordinator_keys = coordinator_keys or MemberKeys.ephemeral()
    terms = make_terms(parties, parameters, base, coordinator_keys.address)
    key = None
    if parameters.aggregation == "bfv":
        terms, key = make_key(terms, parties)
    return Consortium(
        parties,
        terms,
        base,
        notices or Board(),
        coordinator_keys.sign_digest,
        folder / "coordinator",
        floor or Floor(epsilon_limit=20.0),
        key,
    )
