"""The only module that holds a private key: a member's signing key and its committee key.

A member has two secrets. The secp256k1 key signs what the chain checks: transactions, and digests
of EIP-712 messages (uploads, publications). The X25519 key opens the mask seeds that other members
send to a helper. Both live in one file, `keys.json`, in a folder of the member's own.

Rules, each with an attack in the test:

* the file is created exclusively with mode 0600 and never overwritten; a crash leaves no half file;
* a file that group or others can read, that is a link, or that belongs to someone else is refused;
* the object shows only its address, has no serialiser, and cannot be pickled or copied;
* `sign_transaction` takes EIP-1559 transactions (type 2, EIP-2718 envelope) with every field
  given: a missing nonce or fee is an error, never a default. Its bytes equal eth-account's, because
  both use RFC 6979 nonces and low-s signatures (EIP-2); RLP is written out here, so it is fast.

The file is not encrypted: whoever can read the member's account can sign for it. Keep the folder on
a disk that is, or replace this module by one that speaks to a hardware key.
"""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn, Self

import coincurve
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedtrade.errors import BadInput, Refusal, Unavailable
from fedtrade.typed_data import keccak

KEY_FILE: Final = "keys.json"
_MAX_FILE_BYTES: Final = 4096
_MAX_DATA_BYTES: Final = 131_072  # the pool limit of a transaction's size in common nodes
_REQUIRED: Final = frozenset(
    {"chainId", "nonce", "maxPriorityFeePerGas", "maxFeePerGas", "gas", "to", "value"}
)
_TX_FIELDS: Final = _REQUIRED | {"type", "data", "accessList"}


class KeyWithheld(Refusal):
    """Somebody tried to serialise or copy a private key."""

    def __init__(self) -> None:
        super().__init__(
            "A private key has no serialiser and no copy. Pass the MemberKeys object itself."
        )


class _KeyFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    format: int = Field(ge=1, le=1)
    secp256k1: str = Field(pattern="^[0-9a-f]{64}$", repr=False)
    x25519: str = Field(pattern="^[0-9a-f]{64}$", repr=False)


class MemberKeys:
    """The two private keys of one member. Make it with `create`, `load` or `ephemeral`."""

    __slots__ = ("_exchange", "_signing", "address", "x25519_public")

    address: str
    """Checksummed address of the signing key."""
    x25519_public: bytes
    """Public half of the committee key, 32 bytes."""

    def __init__(self, signing: coincurve.PrivateKey, exchange: X25519PrivateKey) -> None:
        self._signing = signing
        self._exchange = exchange
        self.address = checksum_address(
            keccak(signing.public_key.format(compressed=False)[1:])[12:]
        )
        self.x25519_public = exchange.public_key().public_bytes_raw()

    @classmethod
    def ephemeral(cls) -> Self:
        """New keys that live in this process only and are gone with it."""
        return cls(coincurve.PrivateKey(), X25519PrivateKey.generate())

    @classmethod
    def create(cls, folder: Path) -> Self:
        """Make new keys and write them to `folder`; refuses where there are keys already."""
        keys = cls.ephemeral()
        content = _KeyFile(
            format=1,
            secp256k1=keys._signing.secret.hex(),
            x25519=keys._exchange.private_bytes_raw().hex(),
        )
        _write_once(Path(folder) / KEY_FILE, content.model_dump_json().encode() + b"\n")
        return keys

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the keys of `folder`; refuses a file that anyone else could have read or written.

        From here on this process and its children leave no core file: one would hold the keys.
        """
        path = Path(folder) / KEY_FILE
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            content = _KeyFile.model_validate_json(_read_private(path))
            signing = coincurve.PrivateKey(bytes.fromhex(content.secp256k1))
        except ValidationError as error:
            fields = sorted({".".join(map(str, e["loc"])) or "file" for e in error.errors()})
            raise BadInput(
                str(path),
                f"not a key file (wrong: {', '.join(fields)})",
                "Restore it from your backup, or create new keys in another folder.",
            ) from None  # the cause may quote key material
        except ValueError:
            raise BadInput(
                str(path), "secp256k1 key out of range", "Restore it from your backup."
            ) from None
        return cls(signing, X25519PrivateKey.from_private_bytes(bytes.fromhex(content.x25519)))

    def sign_digest(self, digest: bytes) -> bytes:
        """Sign a 32-byte digest; gives r ‖ s ‖ v, 65 bytes, v in {27, 28}, s low."""
        if len(digest) != 32:
            raise BadInput("sign_digest", f"digest of {len(digest)} bytes", "Hash to 32 bytes.")
        signature = self._signing.sign_recoverable(bytes(digest), hasher=None)
        return signature[:64] + bytes((27 + signature[64],))

    def sign_transaction(self, tx: Mapping[str, object]) -> tuple[bytes, str]:
        """Sign an EIP-1559 transaction; gives its raw bytes and its 0x-prefixed hash.

        Fields as in JSON-RPC with integers: chainId, nonce, maxPriorityFeePerGas, maxFeePerGas,
        gas, to, value; data (hex or bytes) may be left out; no contract creation, no access list.
        """
        payload = _unsigned_payload(tx)
        digest = keccak(b"\x02" + _rlp_list(payload))
        signature = self._signing.sign_recoverable(digest, hasher=None)
        raw = b"\x02" + _rlp_list(
            payload
            + _rlp_int(signature[64])
            + _rlp_int(int.from_bytes(signature[:32]))
            + _rlp_int(int.from_bytes(signature[32:64]))
        )
        return raw, "0x" + keccak(raw).hex()

    def x25519_exchange(self, peer_public: bytes) -> bytes:
        """The raw shared secret with a peer, 32 bytes: a key is derived from it."""
        try:
            return self._exchange.exchange(X25519PublicKey.from_public_bytes(peer_public))
        except ValueError:
            raise BadInput(
                "x25519 public key",
                "not a usable point (wrong length or low order)",
                "Drop this peer's message.",
            ) from None

    def derive(self, label: bytes, context: bytes) -> bytes:
        """A 32-byte secret of one purpose and one context, derived from the committee key (HKDF).

        The same label and context give the same bytes, so that what is drawn from it is repeated
        and never drawn twice.
        """
        info = label + b"|" + context
        return HKDF(SHA256(), 32, None, info).derive(self._exchange.private_bytes_raw())

    def __repr__(self) -> str:
        return f"MemberKeys({self.address})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise KeyWithheld

    def __copy__(self) -> NoReturn:
        raise KeyWithheld

    def __deepcopy__(self, memo: object) -> NoReturn:
        raise KeyWithheld


class VotingKey:
    """A member's signing key as governance uses it: it votes, and pays for what it sends."""

    __slots__ = ("_keys", "address")

    def __init__(self, keys: MemberKeys) -> None:
        self._keys = keys
        self.address = keys.address

    def sign_transaction(self, transaction: Mapping[str, object]) -> bytes:
        """The raw bytes of a signed EIP-1559 transaction."""
        return self._keys.sign_transaction(transaction)[0]

    def sign_digest(self, digest: bytes) -> bytes:
        """r ‖ s ‖ v of a 32-byte digest."""
        return self._keys.sign_digest(digest)


def checksum_address(address: bytes) -> str:
    """EIP-55 spelling of a 20-byte address."""
    plain = address.hex()
    digest = keccak(plain.encode()).hex()
    return "0x" + "".join(
        c.upper() if int(d, 16) >= 8 else c for c, d in zip(plain, digest, strict=False)
    )


# RLP (Ethereum yellow paper, appendix B), the parts that a transaction needs


def _rlp_bytes(value: bytes) -> bytes:
    if len(value) == 1 and value[0] < 0x80:
        return value
    if len(value) < 56:
        return bytes((0x80 + len(value),)) + value
    size = len(value).to_bytes((len(value).bit_length() + 7) // 8)
    return bytes((0xB7 + len(size),)) + size + value


def _rlp_int(value: int) -> bytes:
    return _rlp_bytes(value.to_bytes((value.bit_length() + 7) // 8))


def _rlp_list(payload: bytes) -> bytes:
    if len(payload) < 56:
        return bytes((0xC0 + len(payload),)) + payload
    size = len(payload).to_bytes((len(payload).bit_length() + 7) // 8)
    return bytes((0xF7 + len(size),)) + size + payload


def _unsigned_payload(tx: Mapping[str, object]) -> bytes:
    if unknown := tx.keys() - _TX_FIELDS:
        raise BadInput("transaction", f"unknown field {min(unknown)!r}", "EIP-1559 fields only.")
    if missing := _REQUIRED - tx.keys():
        raise BadInput("transaction", f"no {min(missing)!r}", "Give every field: none is guessed.")
    if tx.get("type", 2) not in (2, "0x2") or tx.get("accessList"):
        raise BadInput("transaction", "not a plain EIP-1559 transaction", "Use type 2, no list.")
    to = _bytes_field(tx, "to")
    data = _bytes_field(tx, "data")
    if len(to) != 20:
        raise BadInput("transaction", f"'to' has {len(to)} bytes", "Give a 20-byte address.")
    if len(data) > _MAX_DATA_BYTES:
        raise BadInput("transaction", f"{len(data)} bytes of data", "Split the call.")
    tip, fee = _int_field(tx, "maxPriorityFeePerGas"), _int_field(tx, "maxFeePerGas")
    if tip > fee:
        raise BadInput("transaction", "priority fee above the fee cap", "Raise maxFeePerGas.")
    return b"".join(
        (
            _rlp_int(_int_field(tx, "chainId")),
            _rlp_int(_int_field(tx, "nonce", bits=64)),
            _rlp_int(tip),
            _rlp_int(fee),
            _rlp_int(_int_field(tx, "gas", bits=64)),
            _rlp_bytes(to),
            _rlp_int(_int_field(tx, "value")),
            _rlp_bytes(data),
            b"\xc0",
        )
    )


def _int_field(tx: Mapping[str, object], name: str, bits: int = 256) -> int:
    value = tx[name]
    if type(value) is not int or not 0 <= value < 1 << bits:
        raise BadInput("transaction", f"{name!r} is not a uint{bits}", "Give a whole number ≥ 0.")
    return value


def _bytes_field(tx: Mapping[str, object], name: str) -> bytes:
    value = tx.get(name, b"")
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, str) and value[:2] in ("", "0x"):
        try:
            return bytes.fromhex(value[2:])
        except ValueError:
            pass  # said below, with the field's name
    raise BadInput("transaction", f"{name!r} is neither bytes nor 0x-hex", "Give one of the two.")


# the file


def _write_once(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, 0o600)  # whatever the umask says
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            os.link(draft, path)  # fails where a key is, so nothing is ever overwritten
        finally:
            draft.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError:
        raise BadInput(
            str(path), "there are keys already", "Load them, or choose another folder."
        ) from None
    except OSError as error:
        raise Unavailable(
            str(path), f"cannot write the key file ({error.strerror})", "Check folder and disk."
        ) from error


def _read_private(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise BadInput(
            str(path), "no keys here", "Create them first, or give the right folder."
        ) from None
    except OSError as error:
        raise BadInput(
            str(path), f"cannot open the key file ({error.strerror})", "Give a plain, own file."
        ) from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise BadInput(str(path), "not a plain file of this user", "Restore it from backup.")
        if status.st_mode & 0o077:
            raise BadInput(
                str(path),
                f"mode {stat.S_IMODE(status.st_mode):04o} lets others at the key",
                "Run chmod 600 on it, and treat the key as read by others: make a new one.",
            )
        return file.read(_MAX_FILE_BYTES)


__all__ = ["KEY_FILE", "KeyWithheld", "MemberKeys", "VotingKey", "checksum_address"]
