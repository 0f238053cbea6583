"""EIP-712 typed data (https://eips.ethereum.org/EIPS/eip-712): digests to sign, and who signed."""

from __future__ import annotations

from functools import lru_cache

from coincurve import PublicKey
from sha3 import keccak_256


def keccak(data: bytes) -> bytes:
    """Keccak-256 as Ethereum has it (32 bytes)."""
    return bytes(keccak_256(data).digest())


def word(value: int) -> bytes:
    return value.to_bytes(32, "big")


_DOMAIN_TYPE = keccak(
    b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
MESSAGE_TYPE = keccak(b"Message(string kind,uint64 release,uint32 round,bytes32 content)")
_PUBLICATION_TYPE = keccak(
    b"Publication(uint64 release,uint64 version,bytes32 sha256,string uri,uint64 epsilonMicro)"
)


@lru_cache(maxsize=64)
def _domain(name: bytes, chain_id: int, contract: str) -> bytes:
    """EIP-712 domain separator."""
    return keccak(
        _DOMAIN_TYPE
        + keccak(name)
        + keccak(b"1")
        + word(chain_id)
        + bytes(12)
        + bytes.fromhex(contract[2:])
    )


@lru_cache(maxsize=64)
def kind_hash(kind: str) -> bytes:
    return keccak(kind.encode())


def typed_digest(name: bytes, chain_id: int, contract: str, struct: bytes) -> bytes:
    """EIP-712 digest: keccak(0x1901 ‖ domain separator ‖ struct hash)."""
    return keccak(b"\x19\x01" + _domain(name, chain_id, contract) + keccak(struct))


def publication_digest(
    chain_id: int,
    registry: str,
    release: int,
    version: int,
    artifact_sha256: bytes,
    uri: str,
    epsilon_micro: int,
) -> bytes:
    """What a member signs to publish on one chain; equals `ModelRegistry.digest` of that chain."""
    struct = (
        _PUBLICATION_TYPE
        + word(release)
        + word(version)
        + artifact_sha256
        + keccak(uri.encode())
        + word(epsilon_micro)
    )
    return typed_digest(b"fedtrade ModelRegistry", chain_id, registry, struct)


@lru_cache(maxsize=4096)
def recover(digest: bytes, signature: bytes) -> str:
    """The address that signed a digest, or "nobody". Malleable signatures (EIP-2) are nobody's.

    Kept for what was seen last, since it is a function of its arguments alone and a helper meets
    the same signatures in a question to approve and in the one to answer.
    """
    half_order = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
    if signature[64] not in (27, 28) or int.from_bytes(signature[32:64], "big") > half_order:
        return "nobody"
    try:
        key = PublicKey.from_signature_and_message(
            signature[:64] + bytes([signature[64] - 27]), digest, hasher=None
        )
    except ValueError:
        return "nobody"
    return "0x" + keccak(key.format(compressed=False)[1:])[12:].hex()
