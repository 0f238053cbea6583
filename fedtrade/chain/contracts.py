"""Our own contracts, typed: calls to encode, views to read, and errors as sentences.

Reads are conversations (see `conversation.py`); calls are values that somebody signs and sends.
Hashes go in as bytes; the sha256 of an artifact comes out as 64 hex digits, as everywhere else.
The compiled ABI in `abi/` is what the errors are decoded from; functions are written out here, and
a test compares each with the ABI.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from fedtrade.chain.conversation import Conversation, Value, read
from fedtrade.chain.revert_sentences import SENTENCES
from fedtrade.chain.rpc import NodeRefused, from_hex
from fedtrade.errors import Refusal
from fedtrade.venues.codec import Call, Function

MEMBER: Final = 1
HELPER: Final = 2
COORDINATOR: Final = 4

CONTRACTS: Final = (
    "BreakerModifier",
    "ConsortiumGovernor",
    "ConsortiumTimelock",
    "DevToken",
    "LocalPriceFeed",
    "Membership",
    "ModelRegistry",
    "ParameterStore",
    "RegistryBeacon",
    "RegistryMirror",
)

_SEAT_TYPE: Final = "(address,address,bytes32,uint8)"
_RELEASE_TYPE: Final = "(uint256,bytes32,bytes32,uint32,uint32,uint32,uint16,uint64,uint64,uint8)"

ADMIT: Final = Function("admit(address,address,bytes32,uint8)", "(uint256)")
UPDATE: Final = Function("update(uint256,address,bytes32,uint8)")
EXPEL: Final = Function("expel(uint256)")
SEAT: Final = Function("seat(uint256)", f"({_SEAT_TYPE})")
ID_OF_SIGNER: Final = Function("idOfSigner(address)", "(uint256)")
LAST_SEAT_ID: Final = Function("lastSeatId()", "(uint256)")
MEMBER_COUNT: Final = Function("memberCount()", "(uint256)")

OPEN_RELEASE: Final = Function("openRelease(uint64,bytes32,bytes32,uint32,uint256[],uint256[])")
POST_MANIFEST: Final = Function("postManifest(uint64,uint32,bytes32)")
ABANDON_RELEASE: Final = Function("abandonRelease(uint64)")
PUBLISH: Final = Function("publish(uint64,uint64,bytes32,string,uint64,bytes[])")
REVOKE: Final = Function("revoke(uint64)")
LIVE: Final = Function("live()", "(uint64,bytes32,uint64,uint64)")
MODEL: Final = Function("model(uint64)", "(bytes32,uint64,uint64,uint64,bool)")
MANIFEST_OF: Final = Function("manifestOf(uint64,uint32)", "(bytes32)")
HAS_MANIFEST: Final = Function("hasManifest(uint64,uint32)", "(bool)")
RELEASE_OF: Final = Function("releaseOf(uint64)", f"({_RELEASE_TYPE})")
SIGNATURES_NEEDED: Final = Function("signaturesNeeded(uint64)", "(uint256)")
EARLIEST_OPENING: Final = Function("earliestOpening()", "(uint64)")
PARAMETER_STORE: Final = Function("parameterStore()", "(address)")
LATEST_RELEASE: Final = Function("latestRelease()", "(uint64)")
LATEST_VERSION: Final = Function("latestVersion()", "(uint64)")
EPSILON_SPENT: Final = Function("epsilonSpentMicro()", "(uint64)")
EPSILON_CAP: Final = Function("epsilonCapMicro()", "(uint64)")
DIGEST: Final = Function("digest(uint64,uint64,bytes32,string,uint64)", "(bytes32)")


class ContractRefused(Refusal):
    """A contract reverted with one of its custom errors."""

    def __init__(self, error: str, arguments: Mapping[str, Any], sentence: str) -> None:
        super().__init__(f"The contract refused: {sentence} ({error}).")
        self.error = error
        self.arguments = dict(arguments)


@dataclass(frozen=True, slots=True)
class Seat:
    """A party of the consortium as Membership has it."""

    id: int
    account: str
    signer: str
    x25519: bytes
    roles: int


@dataclass(frozen=True, slots=True)
class LiveModel:
    """The model that agents may act on now. Version 0 means that there is none."""

    version: int
    sha256: str
    live_from_s: int
    epsilon_micro: int


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """A version as it was published, and whether it was revoked since."""

    version: int
    sha256: str
    release: int
    live_from_s: int
    epsilon_micro: int
    revoked: bool


@dataclass(frozen=True, slots=True)
class Release:
    """A release as it stands on-chain."""

    coordinator_id: int
    policy_hash: bytes
    base_sha256: str
    rounds: int
    last_round: int
    signatures_needed: int
    """To publish it now: the quorum at the opening or the present one, whichever is more."""
    members: int
    """Of the whole consortium, when it was opened."""
    opened_at_s: int
    version: int
    state: int
    """0 unknown, 1 open, 2 published, 3 abandoned, in the order of the contract's enum."""


@dataclass(frozen=True, slots=True)
class Membership:
    """Who belongs to the consortium. Its owner is governance."""

    address: str

    def admit(self, account: str, signer: str, x25519: bytes, roles: int) -> Call:
        """Give a party a seat; governance only."""
        return Call(self.address, ADMIT.encode(account, signer, x25519, roles))

    def update(self, seat_id: int, signer: str, x25519: bytes, roles: int) -> Call:
        """Change a seat's keys and roles; governance only."""
        return Call(self.address, UPDATE.encode(seat_id, signer, x25519, roles))

    def expel(self, seat_id: int) -> Call:
        """Take a seat away; governance only."""
        return Call(self.address, EXPEL.encode(seat_id))

    def seat(self, seat_id: int, block: int | str = "latest") -> Conversation[Seat]:
        """One seat; reverts with UnknownSeat."""
        ((row,),) = yield from read([(self.address, SEAT, (seat_id,))], block)
        return _seat(seat_id, row)

    def seats(
        self, seat_ids: Sequence[int], block: int | str = "latest"
    ) -> Conversation[list[Seat]]:
        """Several seats at one block."""
        rows = yield from read([(self.address, SEAT, (seat_id,)) for seat_id in seat_ids], block)
        return [_seat(seat_id, row) for seat_id, (row,) in zip(seat_ids, rows, strict=True)]

    def id_of_signer(self, signer: str, block: int | str = "latest") -> Conversation[int]:
        """The seat of a signing address; 0 if none."""
        return (yield from _one(self.address, ID_OF_SIGNER, (signer,), block, int))

    def last_seat_id(self, block: int | str = "latest") -> Conversation[int]:
        return (yield from _one(self.address, LAST_SEAT_ID, (), block, int))

    def member_count(self, block: int | str = "latest") -> Conversation[int]:
        """Seats that have the member role now."""
        return (yield from _one(self.address, MEMBER_COUNT, (), block, int))


@dataclass(frozen=True, slots=True)
class ModelRegistry:
    """Releases, manifests and published models."""

    address: str

    def open_release(
        self,
        release: int,
        policy_hash: bytes,
        base_sha256: str,
        rounds: int,
        member_ids: Sequence[int],
        helper_ids: Sequence[int],
    ) -> Call:
        """Fix a release's members, helpers and policy; by a coordinator. `base_sha256`: 64 hex."""
        base = bytes.fromhex(base_sha256)
        roster = (sorted(member_ids), sorted(helper_ids))
        data = OPEN_RELEASE.encode(release, policy_hash, base, rounds, *roster)
        return Call(self.address, data)

    def post_manifest(self, release: int, round_number: int, root: bytes) -> Call:
        """Bind a round to its uploads; by the release's coordinator."""
        return Call(self.address, POST_MANIFEST.encode(release, round_number, root))

    def abandon_release(self, release: int) -> Call:
        """End a release without a model."""
        return Call(self.address, ABANDON_RELEASE.encode(release))

    def publish(
        self,
        release: int,
        version: int,
        sha256: str,
        uri: str,
        epsilon_micro: int,
        signatures: Mapping[str, bytes],
    ) -> Call:
        """End a release with a model; anybody. `signatures` by signer's address, ordered here."""
        ordered = [signatures[signer] for signer in sorted(signatures, key=lambda a: int(a, 16))]
        digest = bytes.fromhex(sha256)
        data = PUBLISH.encode(release, version, digest, uri, epsilon_micro, ordered)
        return Call(self.address, data)

    def revoke(self, version: int) -> Call:
        """Withdraw a version for ever; owner or guardian."""
        return Call(self.address, REVOKE.encode(version))

    def live(self, block: int | str = "latest") -> Conversation[LiveModel]:
        """What agents may act on at `block`."""
        ((version, digest, live_from_s, epsilon),) = yield from read(
            [(self.address, LIVE, ())], block
        )
        return LiveModel(version, digest.hex(), live_from_s, epsilon)

    def model(self, version: int, block: int | str = "latest") -> Conversation[PublishedModel]:
        """One version; reverts with UnknownVersion."""
        ((digest, *rest),) = yield from read([(self.address, MODEL, (version,))], block)
        return PublishedModel(version, digest.hex(), *rest)

    def manifest_of(
        self, release: int, round_number: int, block: int | str = "latest"
    ) -> Conversation[bytes]:
        """The manifest root of a round; 32 zero bytes if none stands."""
        return (yield from _one(self.address, MANIFEST_OF, (release, round_number), block, bytes))

    def have_manifests(
        self, release: int, rounds: Sequence[int], block: int | str = "latest"
    ) -> Conversation[list[bool]]:
        """Which rounds of a release have a manifest, in their order."""
        views = [(self.address, HAS_MANIFEST, (release, number)) for number in rounds]
        values = yield from read(views, block)
        return [bool(value) for (value,) in values]

    def has_manifest(
        self, release: int, round_number: int, block: int | str = "latest"
    ) -> Conversation[bool]:
        return (yield from _one(self.address, HAS_MANIFEST, (release, round_number), block, bool))

    def release(self, release: int, block: int | str = "latest") -> Conversation[Release]:
        """A release as it stands; reverts with UnknownRelease."""
        (row,), (needed,) = yield from read(
            [
                (self.address, RELEASE_OF, (release,)),
                (self.address, SIGNATURES_NEEDED, (release,)),
            ],
            block,
        )
        coordinator, policy, base, rounds, last_round, _, *rest = row
        return Release(coordinator, policy, base.hex(), rounds, last_round, needed, *rest)

    def earliest_opening_s(self, block: int | str = "latest") -> Conversation[int]:
        """From when on the next release may be opened; 0 if at any time."""
        return (yield from _one(self.address, EARLIEST_OPENING, (), block, int))

    def parameter_store(self, block: int | str = "latest") -> Conversation[str]:
        """The address of what the registry reads its parameters from."""
        found = yield from _one(self.address, PARAMETER_STORE, (), block, str)
        return to_checksum_address(found)

    def latest_release(self, block: int | str = "latest") -> Conversation[int]:
        return (yield from _one(self.address, LATEST_RELEASE, (), block, int))

    def latest_version(self, block: int | str = "latest") -> Conversation[int]:
        return (yield from _one(self.address, LATEST_VERSION, (), block, int))

    def epsilon_micro(self, block: int | str = "latest") -> Conversation[tuple[int, int]]:
        """(spent, cap) of the consortium, in millionths; the cap as it is now."""
        (spent,), (cap,) = yield from read(
            [(self.address, EPSILON_SPENT, ()), (self.address, EPSILON_CAP, ())], block
        )
        return spent, cap

    def digest(
        self, release: int, version: int, sha256: str, uri: str, epsilon_micro: int
    ) -> Conversation[bytes]:
        """What members sign to publish, computed by the contract."""
        arguments = (release, version, bytes.fromhex(sha256), uri, epsilon_micro)
        return (yield from _one(self.address, DIGEST, arguments, "latest", bytes))


@dataclass(frozen=True, slots=True)
class ErrorShape:
    """A custom error of an ABI."""

    name: str
    arguments: tuple[tuple[str, str], ...]
    """(name, type) of each."""


@cache
def known_errors() -> dict[bytes, ErrorShape]:
    """Every custom error of our contracts, by selector."""
    found = {}
    for contract in CONTRACTS:
        text = (files("fedtrade.chain") / "abi" / f"{contract}.json").read_text()
        for entry in json.loads(text)["abi"]:
            if entry["type"] == "error":
                shape = ErrorShape(
                    entry["name"], tuple((i["name"], i["type"]) for i in entry["inputs"])
                )
                types = ",".join(kind for _, kind in shape.arguments)
                found[keccak(text=f"{shape.name}({types})")[:4]] = shape
    return found


def explain(refused: NodeRefused) -> Refusal:
    """What a revert means: a ContractRefused for an error of ours, the node's own error otherwise."""
    data = from_hex(refused.data)
    shape = known_errors().get(data[:4])
    if shape is None:
        return refused
    try:
        values = decode([kind for _, kind in shape.arguments], data[4:])
    except (DecodingError, OverflowError):  # lengths of bytes that no machine could hold
        return refused
    arguments = {
        name: _plain(value) for (name, _), value in zip(shape.arguments, values, strict=True)
    }
    sentence = SENTENCES.get(shape.name)
    listed = ", ".join(f"{name} {value}" for name, value in arguments.items())
    return ContractRefused(
        shape.name, arguments, sentence.format_map(arguments) if sentence else listed or "no detail"
    )


def _plain(value: Any) -> Any:
    return "0x" + value.hex() if isinstance(value, bytes) else value


def _seat(seat_id: int, row: tuple[Any, ...]) -> Seat:
    account, signer, x25519, roles = row
    return Seat(seat_id, to_checksum_address(account), to_checksum_address(signer), x25519, roles)


def _one(
    to: str, view: Function, arguments: Sequence[object], block: int | str, kind: type[Value]
) -> Conversation[Value]:
    """The only value that a view returns."""
    ((value,),) = yield from read([(to, view, arguments)], block)
    if not isinstance(value, kind):
        raise TypeError(f"{view.signature} returned {type(value).__name__}")
    return value
