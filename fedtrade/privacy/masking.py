"""The one-message mask committee: replicated secret sharing of a pseudorandom mask.

Cramer, Damgård and Ishai, "Share conversion, pseudorandom secret-sharing and applications to secure
computation" (TCC 2005). There are m helpers, up to c of them bad. For every c-subset S of helpers
the member draws a 32-byte seed that only the helpers outside S receive, and adds PRG(seed) to its
vector modulo 2^32 (2^64 while the hidden norm check is on):

    y = x + Σ_S PRG(seed_S)  (mod 2^32)

Any c bad helpers form some S (or part of one) and miss that seed, so y is uniform to them and to the
coordinator. Any c + 1 helpers hold every seed between them and can remove the *sum* of the masks:
each subset is owned by one responder outside it, which adds up its PRG outputs over the cohort.

An answer is that share of the masks, plus the responder's noise, plus a pseudorandom share of zero
agreed pairwise among the responders. Without the shares of zero a coordinator that holds c helpers'
seeds could strip the masks it knows from an honest answer and read that helper's noise; with them
only the total shows.

Everything here is a pure function of its arguments. Seeds and ephemeral keys are passed in, drawn by
the shells from the operating system's source.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from typing import Any, Final

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from fedtrade.errors import Refusal

Ring = NDArray[np.uint32] | NDArray[np.uint64]
"""A vector of integers modulo 2^32, or modulo 2^64 where the norm is checked."""

RING_OF_BITS: Final[Mapping[int, np.dtype[Any]]] = {
    32: np.dtype(np.uint32),
    64: np.dtype(np.uint64),
}

SEED_BYTES = 32

_FROM_ZERO: Final = modes.CTR(bytes(16))
"""The first counter block. Every key here is used for one stream."""


class BoxUnreadable(Refusal):
    """A sealed box that does not open with the key that it was made for."""

    def __init__(self) -> None:
        super().__init__("a sealed box does not open: its sender made it wrongly or it was altered")


@lru_cache(maxsize=32)
def subsets(helpers: int, corrupt: int) -> tuple[tuple[int, ...], ...]:
    """All c-subsets of range(m) in lexicographic order: the index of every seed and commitment."""
    return tuple(combinations(range(helpers), corrupt))


@lru_cache(maxsize=256)
def seeds_of(helper: int, helpers: int, corrupt: int) -> tuple[int, ...]:
    """Indices of the subsets whose seeds helper number `helper` receives: those without it."""
    return tuple(i for i, s in enumerate(subsets(helpers, corrupt)) if helper not in s)


@lru_cache(maxsize=1024)
def owners(responders: tuple[int, ...], helpers: int, corrupt: int) -> tuple[int, ...]:
    """For each subset, the responder that removes its mask: outside it, and evenly loaded.

    Deterministic, so that every helper and every verifier finds the same. Raises ValueError when
    fewer than c + 1 respond, since then some mask has no holder.
    """
    if len(set(responders)) <= corrupt:
        raise ValueError(f"{len(set(responders))} responders cannot unmask; {corrupt + 1} can")
    load = dict.fromkeys(sorted(responders), 0)
    chosen = []
    for subset in subsets(helpers, corrupt):
        outside = (h for h in load if h not in subset)
        owner = min(outside, key=lambda h: (load[h], (h - subset[-1]) % helpers))
        load[owner] += 1
        chosen.append(owner)
    return tuple(chosen)


def derive(secret: bytes, label: bytes, context: bytes, length: int = 32) -> bytes:
    """HKDF-SHA256 (RFC 5869) of a secret for one purpose and one context."""
    return HKDF(hashes.SHA256(), length, salt=None, info=label + b"|" + context).derive(secret)


def commitment(seed: bytes, context: bytes, subset: int) -> bytes:
    """Hash that a member signs for a seed. A seed has 256 bits of entropy, so it hides it."""
    return hmac.digest(seed, b"fedtrade commitment|%d|" % subset + context, "sha256")


class Keystream:
    """Secret bytes drawn one after another from a 32-byte key (AES-256-CTR).

    Whoever has the key can draw the same bytes again: what makes a repeated upload the same upload.
    """

    def __init__(self, key: bytes) -> None:
        self._stream = Cipher(algorithms.AES(key), _FROM_ZERO).encryptor()

    def __call__(self, count: int) -> bytes:
        return self._stream.update(bytes(count))


class Prg:
    """AES-256-CTR as a stream of ring elements, into one reused buffer.

    A seed is used for one context only (release, round, terms, model and member are bound into the
    key), so a zero counter block is safe.
    """

    def __init__(self, length: int, ring: np.dtype[Any]) -> None:
        self._zeros = bytes(ring.itemsize * length)
        self._buffer = bytearray(ring.itemsize * length + 15)
        self._words = np.frombuffer(self._buffer, ring.newbyteorder("<"), count=length)

    def __call__(self, seed: bytes, context: bytes) -> NDArray[Any]:
        """The mask of a seed; valid until the next call (the buffer is reused)."""
        key = hmac.digest(seed, b"fedtrade mask|" + context, "sha256")
        stream = Cipher(algorithms.AES(key), _FROM_ZERO).encryptor()
        stream.update_into(self._zeros, self._buffer)
        return self._words


def mask(vector: Ring, seeds: Sequence[bytes], context: bytes) -> Ring:
    """y = x + Σ PRG(seed) in the vector's own ring. Shape (d,) in and out."""
    prg = Prg(len(vector), vector.dtype)
    masked = vector.copy()
    for seed in seeds:
        masked += prg(seed, context)
    return masked


def box_key(shared: bytes, ephemeral_public: bytes, helper_public: bytes, context: bytes) -> bytes:
    """Key of one box from an X25519 shared secret (HKDF over both public keys and the context)."""
    return derive(shared, b"fedtrade box", ephemeral_public + helper_public + context)


def seal(key: bytes, seeds: Sequence[bytes], ephemeral_public: bytes, context: bytes) -> bytes:
    """A box: ephemeral public key ‖ ChaCha20-Poly1305 of the seeds. The key is used once."""
    sealed = ChaCha20Poly1305(key).encrypt(bytes(12), b"".join(seeds), context)
    return ephemeral_public + sealed


def unseal(key: bytes, box: bytes, context: bytes, count: int) -> tuple[bytes, ...]:
    """The seeds in a box. Raises BoxUnreadable."""
    try:
        plain = ChaCha20Poly1305(key).decrypt(bytes(12), box[32:], context)
    except InvalidTag:
        raise BoxUnreadable from None
    if len(plain) != SEED_BYTES * count:
        raise BoxUnreadable
    return tuple(plain[i : i + SEED_BYTES] for i in range(0, len(plain), SEED_BYTES))


def mask_share(owned: Mapping[bytes, Sequence[bytes]], length: int, ring: np.dtype[Any]) -> Ring:
    """Sum of the masks that a responder owns: context of each member -> its owned seeds."""
    prg = Prg(length, ring)
    share: Ring = np.zeros(length, ring)
    for context, seeds in owned.items():
        for seed in seeds:
            share += prg(seed, context)
    return share


def zero_share(
    me: int, pair_seeds: Mapping[int, bytes], context: bytes, length: int, ring: np.dtype[Any]
) -> Ring:
    """This responder's share of zero: Σ_{j>i} PRG(k_ij) − Σ_{j<i} PRG(k_ij); all shares add to 0."""
    prg = Prg(length, ring)
    share: Ring = np.zeros(length, ring)
    for other, seed in pair_seeds.items():
        if other > me:
            share += prg(seed, context)
        else:
            share -= prg(seed, context)
    return share


def round_context(terms: bytes, release: int, round_number: int, model: bytes) -> bytes:
    """What binds masks and boxes to one round of one release under one set of terms."""
    numbers = release.to_bytes(8, "big") + round_number.to_bytes(4, "big")
    return hashlib.sha256(b"fedtrade round|" + terms + numbers + model).digest()


def member_context(round_ctx: bytes, member: int) -> bytes:
    """What binds masks and boxes to one member of a round."""
    return hashlib.sha256(round_ctx + member.to_bytes(8, "big")).digest()
