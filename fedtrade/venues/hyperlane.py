"""Hyperlane's messages, checkpoints and proofs as bytes, sans-I/O.

A message leaves through the Mailbox of its chain, whose MerkleTreeHook puts the message's id into an
incremental Merkle tree. Each validator signs, for every leaf, a *checkpoint*: the tree's root after
that leaf, with the leaf's index and message id. On the other side the message goes through when as
many validators as the threshold of the recipient's security module (StaticMessageIdMultisigIsm)
have signed the same checkpoint. Formats are those of @hyperlane-xyz/core 9: `Message.sol`,
`CheckpointLib.sol`, `MessageIdMultisigIsmMetadata.sol`, `Merkle.sol`, `ValidatorAnnounce.sol`;
the files of a validator are those of Hyperlane's own agents with local storage.

Numbers are big-endian; an address takes 32 bytes, left-padded with zeros.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedtrade.errors import Refusal
from fedtrade.typed_data import keccak, recover
from fedtrade.venues.codec import Function, LogShape

VERSION: Final = 3
BODY_MAX_BYTES: Final = 65_536
DEPTH: Final = 32
FILE_MAX_BYTES: Final = 4_096
"""Of a file in a validator's storage."""
LOCATION_MAX_BYTES: Final = 512

DISPATCH: Final = LogShape(
    "Dispatch(address,uint32,bytes32,bytes)", "(address,uint32,bytes32)", "(bytes)"
)
INSERTED: Final = LogShape("InsertedIntoTree(bytes32,uint32)", "()", "(bytes32,uint32)")
PROCESS_ID: Final = LogShape("ProcessId(bytes32)", "(bytes32)", "()")

PROCESS: Final = Function("process(bytes,bytes)")
DELIVERED: Final = Function("delivered(bytes32)", "(bool)")
LOCAL_DOMAIN: Final = Function("localDomain()", "(uint32)")
MAILBOX: Final = Function("mailbox()", "(address)")
COUNT: Final = Function("count()", "(uint32)")
ROOT: Final = Function("root()", "(bytes32)")
VALIDATORS_AND_THRESHOLD: Final = Function("validatorsAndThreshold(bytes)", "(address[],uint8)")
ANNOUNCE: Final = Function("announce(address,string,bytes)", "(bool)")
ANNOUNCED: Final = Function("getAnnouncedStorageLocations(address[])", "(string[][])")

_UINT32: Final = 2**32


class BadMessage(Refusal):
    """Bytes that are no message, or a message that no bytes exist for."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"This is no Hyperlane message: {problem}. Drop it.")
        self.problem = problem


class BadCheckpoint(Refusal):
    """A file of a validator that is not what it must be."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"This file of a validator is not usable: {problem}. Ask its operator.")
        self.problem = problem


class TreeFull(Refusal):
    """The tree has 2^32 - 1 leaves."""

    def __init__(self) -> None:
        super().__init__("The Merkle tree is full. Deploy a new mailbox.")


def word_of(address: str) -> bytes:
    """An address as Hyperlane carries it: 32 bytes, left-padded."""
    return bytes(12) + bytes.fromhex(address.removeprefix("0x"))


@dataclass(frozen=True)
class Message:
    """What is sent. Domains are Hyperlane's numbers of chains, by custom the chain ids."""

    nonce: int
    origin: int
    sender: bytes
    destination: int
    recipient: bytes
    body: bytes

    def __post_init__(self) -> None:
        if not all(0 <= n < _UINT32 for n in (self.nonce, self.origin, self.destination)):
            raise BadMessage("a number is no uint32")
        if len(self.sender) != 32 or len(self.recipient) != 32:
            raise BadMessage("sender and recipient have 32 bytes")
        if len(self.body) > BODY_MAX_BYTES:
            raise BadMessage(f"its body is over {BODY_MAX_BYTES} bytes")

    @cached_property
    def encoded(self) -> bytes:
        """version 1 ‖ nonce 4 ‖ origin 4 ‖ sender 32 ‖ destination 4 ‖ recipient 32 ‖ body."""
        return b"".join(
            (
                bytes((VERSION,)),
                self.nonce.to_bytes(4, "big"),
                self.origin.to_bytes(4, "big"),
                self.sender,
                self.destination.to_bytes(4, "big"),
                self.recipient,
                self.body,
            )
        )

    @cached_property
    def id(self) -> bytes:
        """keccak of the encoding: what the tree, the validators and the far mailbox know it by."""
        return keccak(self.encoded)

    @classmethod
    def decode(cls, content: bytes) -> Self:
        """Read a message. Raises BadMessage."""
        if len(content) < 77:
            raise BadMessage(f"it has {len(content)} bytes")
        if content[0] != VERSION:
            raise BadMessage(f"its version is {content[0]}")
        return cls(
            nonce=int.from_bytes(content[1:5], "big"),
            origin=int.from_bytes(content[5:9], "big"),
            sender=content[9:41],
            destination=int.from_bytes(content[41:45], "big"),
            recipient=content[45:77],
            body=content[77:],
        )


# the tree


def _zero_hashes() -> tuple[bytes, ...]:
    hashes = [bytes(32)]
    for _ in range(DEPTH):
        hashes.append(keccak(hashes[-1] * 2))
    return tuple(hashes)


ZERO_HASHES: Final = _zero_hashes()
"""Roots of empty trees of each depth."""


class MerkleTree:
    """The incremental tree of depth 32 (`Merkle.sol`): one branch and a count are all its state."""

    def __init__(self) -> None:
        self.count = 0
        self._branch = [bytes(32)] * DEPTH

    def copy(self) -> MerkleTree:
        """Another tree with the same leaves."""
        other = MerkleTree()
        other.count, other._branch = self.count, list(self._branch)
        return other

    def insert(self, leaf: bytes) -> None:
        """Add a leaf of 32 bytes."""
        if self.count + 1 >= 2**DEPTH:
            raise TreeFull
        self.count += 1
        size, node = self.count, leaf
        for level in range(DEPTH):
            if size & 1:
                self._branch[level] = node
                return
            node = keccak(self._branch[level] + node)
            size >>= 1

    @property
    def root(self) -> bytes:
        """Root over the leaves so far and zeros in all other places."""
        node = bytes(32)
        for level in range(DEPTH):
            if self.count >> level & 1:
                node = keccak(self._branch[level] + node)
            else:
                node = keccak(node + ZERO_HASHES[level])
        return node


# what validators sign


def signed_message_hash(digest: bytes) -> bytes:
    """EIP-191 of a 32-byte digest: no typed data and no transaction has such a hash."""
    return keccak(b"\x19Ethereum Signed Message:\n32" + digest)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The tree of a chain after the leaf at `index`, which is a message's id."""

    domain: int
    hook: bytes
    """The MerkleTreeHook's address, 32 bytes."""
    root: bytes
    index: int
    message_id: bytes

    @property
    def digest(self) -> bytes:
        """What a validator signs (`CheckpointLib.digest`)."""
        domain_hash = keccak(self.domain.to_bytes(4, "big") + self.hook + b"HYPERLANE")
        content = domain_hash + self.root + self.index.to_bytes(4, "big") + self.message_id
        return signed_message_hash(keccak(content))


def announcement_digest(domain: int, mailbox: str, location: str) -> bytes:
    """What a validator signs to say where its checkpoints lie (`ValidatorAnnounce`)."""
    domain_hash = keccak(domain.to_bytes(4, "big") + word_of(mailbox) + b"HYPERLANE_ANNOUNCEMENT")
    return signed_message_hash(keccak(domain_hash + location.encode()))


def metadata(checkpoint: Checkpoint, signatures: Iterable[bytes]) -> bytes:
    """The proof for a StaticMessageIdMultisigIsm: hook 32 ‖ root 32 ‖ index 4 ‖ signatures.

    The signatures are as many as the threshold, in the order of the module's validators.
    """
    head = checkpoint.hook + checkpoint.root + checkpoint.index.to_bytes(4, "big")
    return head + b"".join(signatures)


# files of a validator


def checkpoint_name(index: int) -> str:
    """File of one checkpoint in a validator's storage."""
    return f"{index}_with_id.json"


INDEX_NAME: Final = "index.json"
"""Holds the newest index that the storage has."""
ANNOUNCEMENT_NAME: Final = "announcement.json"

_Word = Annotated[str, Field(pattern=r"^0x[0-9a-f]{64}$")]
_Address = Annotated[str, Field(pattern=r"^0x[0-9a-f]{40}$")]
_Signature = Annotated[str, Field(pattern=r"^0x[0-9a-f]{130}$")]
_Uint32 = Annotated[int, Field(ge=0, lt=_UINT32)]


class _Parsed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Parts(_Parsed):
    r: Annotated[str, Field(pattern=r"^0x[0-9a-f]{1,64}$")]
    s: Annotated[str, Field(pattern=r"^0x[0-9a-f]{1,64}$")]
    v: Annotated[int, Field(ge=27, le=28)]


class _CheckpointOf(_Parsed):
    merkle_tree_hook_address: _Word
    mailbox_domain: _Uint32
    root: _Word
    index: _Uint32


class _CheckpointWithId(_Parsed):
    checkpoint: _CheckpointOf
    message_id: _Word


class _CheckpointFile(_Parsed):
    value: _CheckpointWithId
    signature: _Parts
    serialized_signature: _Signature


class _AnnouncementOf(_Parsed):
    validator: _Address
    mailbox_address: _Word
    mailbox_domain: _Uint32
    storage_location: Annotated[str, Field(min_length=1, max_length=LOCATION_MAX_BYTES)]


class _AnnouncementFile(_Parsed):
    value: _AnnouncementOf
    signature: _Parts
    serialized_signature: _Signature


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint with one validator's signature."""

    checkpoint: Checkpoint
    signature: bytes

    @property
    def signer(self) -> str:
        """Lower-case address of who signed it, or "nobody"."""
        return recover(self.checkpoint.digest, self.signature)


@dataclass(frozen=True, slots=True)
class Announcement:
    """Where a validator's checkpoints lie, signed by it."""

    validator: str
    """Lower-case address."""
    domain: int
    mailbox: str
    location: str
    signature: bytes


def checkpoint_file(signed: SignedCheckpoint) -> bytes:
    """What a validator publishes of one checkpoint."""
    c = signed.checkpoint
    value = _CheckpointWithId(
        checkpoint=_CheckpointOf(
            merkle_tree_hook_address=_hex(c.hook),
            mailbox_domain=c.domain,
            root=_hex(c.root),
            index=c.index,
        ),
        message_id=_hex(c.message_id),
    )
    parts, serialized = _parts(signed.signature)
    content = _CheckpointFile(value=value, signature=parts, serialized_signature=serialized)
    return content.model_dump_json(indent=2).encode() + b"\n"


def read_checkpoint(content: bytes) -> SignedCheckpoint:
    """Parse a validator's file; whether its signature is good is for the caller to ask.

    Raises BadCheckpoint.
    """
    file = _parse(_CheckpointFile, content)
    at = file.value.checkpoint
    checkpoint = Checkpoint(
        at.mailbox_domain,
        _bytes(at.merkle_tree_hook_address),
        _bytes(at.root),
        at.index,
        _bytes(file.value.message_id),
    )
    return SignedCheckpoint(checkpoint, _bytes(file.serialized_signature))


def announcement_file(announcement: Announcement) -> bytes:
    """What a validator publishes of itself."""
    value = _AnnouncementOf(
        validator=announcement.validator.lower(),
        mailbox_address=_hex(word_of(announcement.mailbox)),
        mailbox_domain=announcement.domain,
        storage_location=announcement.location,
    )
    parts, serialized = _parts(announcement.signature)
    content = _AnnouncementFile(value=value, signature=parts, serialized_signature=serialized)
    return content.model_dump_json(indent=2).encode() + b"\n"


def read_announcement(content: bytes) -> Announcement:
    """Parse and verify a validator's announcement. Raises BadCheckpoint."""
    file = _parse(_AnnouncementFile, content)
    value = file.value
    if int(value.mailbox_address, 16) >> 160:
        raise BadCheckpoint("its mailbox is no address")
    mailbox = "0x" + value.mailbox_address[-40:]
    signature = _bytes(file.serialized_signature)
    digest = announcement_digest(value.mailbox_domain, mailbox, value.storage_location)
    if recover(digest, signature) != value.validator:
        raise BadCheckpoint("its announcement is not signed by the validator that it names")
    return Announcement(
        value.validator, value.mailbox_domain, mailbox, value.storage_location, signature
    )


def quorum(
    files: Mapping[str, SignedCheckpoint], validators: Sequence[str], threshold: int
) -> tuple[Checkpoint, list[bytes]] | None:
    """A checkpoint that enough validators signed, and their signatures in the module's order.

    `files` by lower-case address; each must be signed by that validator. Validators that signed
    another root are a group of their own, and never mixed with the rest. None if no group is
    large enough.
    """
    groups: dict[Checkpoint, list[bytes]] = {}
    for validator in validators:
        signed = files.get(validator.lower())
        if signed is not None and signed.signer == validator.lower():
            groups.setdefault(signed.checkpoint, []).append(signed.signature)
    for checkpoint, signatures in groups.items():
        if len(signatures) >= threshold:
            return checkpoint, signatures[:threshold]
    return None


def _parts(signature: bytes) -> tuple[_Parts, str]:
    r, s = (f"0x{int.from_bytes(signature[i : i + 32], 'big'):x}" for i in (0, 32))
    return _Parts(r=r, s=s, v=signature[64]), _hex(signature)


def _parse(kind: type[Any], content: bytes) -> Any:
    if len(content) > FILE_MAX_BYTES:
        raise BadCheckpoint(f"over {FILE_MAX_BYTES} bytes")
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "file"
        raise BadCheckpoint(f"{place}: {first['msg']}"[:200]) from None


def _hex(content: bytes) -> str:
    return "0x" + content.hex()


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text[2:])
