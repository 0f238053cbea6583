"""RegistryBeacon and RegistryMirror, typed: what is sent between chains, and what a mirror shows.

Reads are conversations (`conversation.py`); calls are values that somebody signs and sends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_utils.address import to_checksum_address

from fedtrade.chain.contracts import LIVE, LiveModel
from fedtrade.chain.conversation import Conversation, read
from fedtrade.errors import Refusal
from fedtrade.venues.codec import Call, Function, LogShape

_LISTED: Final = "(uint64,uint64,uint64,uint64,bytes32)"
_SNAPSHOT: Final = f"(uint64,uint64,{_LISTED}[],uint64[28],uint64[28],uint64,bool,uint64)"

POST: Final = Function("post(uint32[])")
QUOTE: Final = Function("quote(uint32[])", "(uint256)")
SET_MIRROR: Final = Function("setMirror(uint32,bytes32)")
MIRROR_OF: Final = Function("mirrorOf(uint32)", "(bytes32)")
SNAPSHOT: Final = Function("snapshot()", f"({_SNAPSHOT})")
MAILBOX: Final = Function("mailbox()", "(address)")
SEQUENCE: Final = Function("sequence()", "(uint64)")
SENT_AT: Final = Function("sentAt()", "(uint64)")
PARAMETERS: Final = Function("parameters()", "(uint64[28],bool,uint64)")
LISTED: Final = Function("listed()", f"({_LISTED}[])")
SECURITY_MODULE: Final = Function("interchainSecurityModule()", "(address)")
HOME_DOMAIN: Final = Function("homeDomain()", "(uint32)")
BEACON: Final = Function("beacon()", "(bytes32)")

MIRRORED: Final = LogShape("Mirrored(uint64,uint64)", "(uint64)", "(uint64)")


class BadSnapshot(Refusal):
    """A message of a beacon that does not decode."""

    def __init__(self) -> None:
        super().__init__("This body is no message of a beacon. Check the beacon's address.")


@dataclass(frozen=True, slots=True)
class Listed:
    """A version that is live, or waits to be."""

    version: int
    release: int
    live_from_s: int
    epsilon_micro: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a beacon tells its mirrors: registry and parameters at one moment of the home chain."""

    sequence: int
    sent_at_s: int
    models: tuple[Listed, ...]
    """Newest first; at most the last one was live when this was sent."""
    governed: tuple[int, ...]
    interim: tuple[int, ...]
    interim_until_s: int
    paused: bool
    parameters_sequence: int

    @classmethod
    def decode(cls, body: bytes) -> Snapshot:
        """Read a message's body. Raises BadSnapshot."""
        try:
            (row,) = decode([_SNAPSHOT], body)
        except (DecodingError, ValueError, OverflowError):
            raise BadSnapshot from None
        return _snapshot(row)

    def encode(self) -> bytes:
        """The body that a beacon sends of this."""
        rows = [
            (m.version, m.release, m.live_from_s, m.epsilon_micro, bytes.fromhex(m.sha256))
            for m in self.models
        ]
        return encode(
            [_SNAPSHOT],
            [
                (
                    self.sequence,
                    self.sent_at_s,
                    rows,
                    self.governed,
                    self.interim,
                    self.interim_until_s,
                    self.paused,
                    self.parameters_sequence,
                )
            ],
        )

    def says(self, now_s: int) -> object:
        """What a mirror shows of this from `now_s` on: two snapshots that are equal in it are the
        same to a reader. A version below one that is live by then says nothing any more."""
        models: list[Listed] = []
        for model in self.models:
            models.append(model)
            if model.live_from_s <= now_s:
                break
        return tuple(models), self.parameters_sequence


@dataclass(frozen=True, slots=True)
class Parameters:
    """What `parameters()` of a store or a mirror gives."""

    values: tuple[int, ...]
    paused: bool
    as_of_s: int


@dataclass(frozen=True, slots=True)
class RegistryBeacon:
    """On the home chain: tells the mirrors. Anybody may post; its owner is governance."""

    address: str

    def post(self, destinations: Sequence[int], fee_wei: int) -> Call:
        """Send the present state to the mirrors of these domains; the rest of the fee comes back."""
        return Call(self.address, POST.encode(sorted(destinations)), fee_wei)

    def set_mirror(self, domain: int, mirror: str) -> Call:
        """Name the mirror of a chain; governance only."""
        word = bytes(12) + bytes.fromhex(mirror.removeprefix("0x"))
        return Call(self.address, SET_MIRROR.encode(domain, word))

    def quote(self, destinations: Sequence[int], block: int | str = "latest") -> Conversation[int]:
        """What `post` costs now, in wei."""
        ((fee,),) = yield from read([(self.address, QUOTE, (sorted(destinations),))], block)
        return int(fee)

    def snapshot(self, block: int | str = "latest") -> Conversation[Snapshot]:
        """What a post would say."""
        ((row,),) = yield from read([(self.address, SNAPSHOT, ())], block)
        return _snapshot(row)

    def mailbox(self, block: int | str = "latest") -> Conversation[str]:
        ((mailbox,),) = yield from read([(self.address, MAILBOX, ())], block)
        return to_checksum_address(mailbox)

    def mirror_of(self, domain: int, block: int | str = "latest") -> Conversation[bytes]:
        """The mirror on a chain as 32 bytes; zeros if none."""
        ((mirror,),) = yield from read([(self.address, MIRROR_OF, (domain,))], block)
        return bytes(mirror)


@dataclass(frozen=True, slots=True)
class MirrorState:
    """How far a mirror is, and what it is bound to."""

    sequence: int
    sent_at_s: int
    mailbox: str
    security_module: str
    home_domain: int
    beacon: bytes


@dataclass(frozen=True, slots=True)
class RegistryMirror:
    """On every other chain: which model is live and which parameters are in force."""

    address: str

    def live(self, block: int | str = "latest") -> Conversation[LiveModel]:
        """The model that agents of this chain must use."""
        (row,) = yield from read([(self.address, LIVE, ())], block)
        version, digest, live_from_s, epsilon_micro = row
        return LiveModel(version, digest.hex(), live_from_s, epsilon_micro)

    def parameters(self, block: int | str = "latest") -> Conversation[Parameters]:
        """What is in force on this chain, and up to when the home chain's state is known."""
        (row,) = yield from read([(self.address, PARAMETERS, ())], block)
        values, paused, as_of_s = row
        return Parameters(tuple(values), paused, as_of_s)

    def listed(self, block: int | str = "latest") -> Conversation[tuple[Listed, ...]]:
        """The versions of the newest message."""
        ((rows,),) = yield from read([(self.address, LISTED, ())], block)
        return tuple(map(_listed, rows))

    def state(self, block: int | str = "latest") -> Conversation[MirrorState]:
        views = (SEQUENCE, SENT_AT, MAILBOX, SECURITY_MODULE, HOME_DOMAIN, BEACON)
        rows = yield from read([(self.address, view, ()) for view in views], block)
        ((sequence,), (sent_at_s,), (mailbox,), (module,), (home_domain,), (beacon,)) = rows
        return MirrorState(
            sequence,
            sent_at_s,
            to_checksum_address(mailbox),
            to_checksum_address(module),
            home_domain,
            bytes(beacon),
        )


def _listed(row: Any) -> Listed:
    version, release, live_from_s, epsilon_micro, digest = row
    return Listed(version, release, live_from_s, epsilon_micro, digest.hex())


def _snapshot(row: Any) -> Snapshot:
    sequence, sent_at_s, models, governed, interim, until_s, paused, written = row
    return Snapshot(
        sequence,
        sent_at_s,
        tuple(map(_listed, models)),
        tuple(governed),
        tuple(interim),
        until_s,
        paused,
        written,
    )
