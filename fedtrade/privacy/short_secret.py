"""Secrets of lane C: exact sampling from a key, and a proof that a secret is short.

Secrets are uniform in {−1, 0, 1}; errors are centred binomial, η = 21 (σ = 3.24), as SEAL's are.
All of them are expanded from a key with ChaCha20, so the same key gives the same bytes: a helper
keeps no state, and a member that starts again in mid-round sends the same upload.

**The proof** (`prove`, `verify`) is Lyubashevsky's Fiat–Shamir with aborts ("Lattice signatures
without trapdoors", EUROCRYPT 2012) for t_k = a·x_k + e_k with x_k, e_k short, for K statements at
once: w = a·y₁ + y₂; sparse ternary challenges c_k = H(context, t, w); z = y + Σ c_k·(x_k, e_k);
aborted unless |z| stays where its distribution does not depend on the secret. It is a *relaxed*
proof: what it establishes is c̄·t_k = a·x̄ + ē for a difference c̄ of two challenges and x̄, ē of at
most 2^31, not t_k = a·x + e itself. Nobody can give it for an element computed from others' keys.
"""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray

from fedtrade.errors import Fault, Refusal
from fedtrade.privacy import lattice
from fedtrade.privacy.lattice import DEGREE, PRIMES, Residues, Signed

ETA = 21
"""Errors are in [−η, η]: the difference of two sums of η fair bits."""

CHALLENGE_WEIGHT = 12
"""Coefficients ±1 of a challenge: C(8192, 12)·2^12 > 2^139 of them."""

MASK_BITS = 30
"""y is uniform in [−2^30, 2^30): wide beside the secrets, and z fits 32 bits."""

ATTEMPTS = 128
"""An attempt fails with probability below 2/3 at the largest K, so all fail in less than 2^-70."""

STATEMENTS_MAX = 256
"""K: 256 polynomials of two fields hold four million parameters."""

PROOF_BYTES = 32 + 2 * 4 * DEGREE


class Unproven(Refusal):
    """A public element whose maker has not shown that it knows a short secret behind it."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"the proof of knowledge is refused: {problem}. Leave its sender out and go on without"
        )
        self.problem = problem


# --- sampling -------------------------------------------------------------------------------------


def keystream(key: bytes, label: bytes, length: int) -> bytes:
    """ChaCha20 (RFC 8439) under HMAC-SHA256(key, label): `length` bytes for one purpose.

    A label is used for one purpose only, so the zero nonce is safe.
    """
    derived = hmac.digest(key, b"fedtrade lattice|" + label, "sha256")
    return Cipher(algorithms.ChaCha20(derived, bytes(16)), None).encryptor().update(bytes(length))


def uniform(key: bytes, label: bytes, length: int, moduli: tuple[int, ...] = PRIMES) -> Residues:
    """Uniform residues (2, length), exactly: 60-bit words that are not below the prime are skipped.

    The primes lie within 2^18 of 2^60, so fewer than one word in 2^42 is skipped; 64 are spare.
    """
    spare = 64
    words = np.frombuffer(keystream(key, label, 8 * len(moduli) * (length + spare)), dtype="<u8")
    rows = (words & np.uint64(2**60 - 1)).reshape(len(moduli), -1)
    return np.stack([_below(row, q, length) for row, q in zip(rows, moduli, strict=True)])


def _below(words: NDArray[np.uint64], bound: int, length: int) -> NDArray[np.uint64]:
    first = words[:length]
    if int(first.max(initial=0)) < bound:
        return first
    kept = words[words < np.uint64(bound)][:length]
    if len(kept) < length:
        raise Fault("a key stream has run out of spare words, which chance does not do: stop")
    return kept


def ternary(key: bytes, label: bytes, length: int) -> Signed:
    """Uniform in {−1, 0, 1}, exactly: a byte of 255 is skipped, the others are taken modulo 3."""
    spare = length // 128 + 256  # 1/256 are skipped; the margin is beyond sixteen deviations
    stream = np.frombuffer(keystream(key, label, length + spare), dtype=np.uint8)
    kept = stream[stream != 255][:length]
    if len(kept) < length:
        raise Fault("a key stream has run out of spare bytes, which chance does not do: stop")
    found: Signed = (kept % np.uint8(3)).astype(np.int64) - 1
    return found


def binomial(key: bytes, label: bytes, length: int) -> Signed:
    """Centred binomial errors: variance η/2 = 10.5, at most η in size."""
    words = np.frombuffer(keystream(key, label, 8 * length), dtype="<u8")
    ones = np.uint64(2**ETA - 1)
    plus, minus = (np.bitwise_count(half & ones) for half in (words, words >> np.uint64(32)))
    found: Signed = plus.astype(np.int64) - minus
    return found


def bell(key: bytes, label: bytes, length: int, bits: int) -> Signed:
    """The sum of four uniforms of `bits` bits, centred: variance (2^2·bits − 1)/3, |·| ≤ 2^(bits+1).

    Integers all the way: no floating point rounds the tails or leaks through them.
    """
    words = np.frombuffer(keystream(key, label, 32 * length), dtype="<u8").reshape(4, length)
    total = (words & np.uint64(2**bits - 1)).sum(axis=0, dtype=np.uint64)
    found: Signed = total.astype(np.int64) - (2 ** (bits + 1) - 2)
    return found


# --- the proof ------------------------------------------------------------------------------------

_PRIMES = np.array(PRIMES, dtype=np.uint64)[:, None]

Challenge = tuple[tuple[int, int], ...]
"""(position, sign) of the coefficients that are not zero."""


def response_bound(statements: int) -> int:
    """Largest |z|: what |y| < 2^30 leaves after Σ c_k·e_k, so that z shows nothing of it."""
    return int(2**MASK_BITS - 1 - statements * CHALLENGE_WEIGHT * ETA)


def _challenges(digest: bytes, statements: int) -> tuple[Challenge, ...]:
    """Sparse ternary polynomials from a hash: distinct positions and fair signs."""
    found = []
    per_statement = 64
    stream = np.frombuffer(keystream(digest, b"challenge", 128 * statements), dtype="<u2")
    for row in stream.reshape(statements, per_statement).tolist():
        places: dict[int, int] = {}
        for word in row:
            if len(places) < CHALLENGE_WEIGHT:
                places.setdefault(word % DEGREE, 1 if word & DEGREE else -1)
        found.append(tuple(places.items()))
    return tuple(found)


def _respond(mask: Signed, secrets: Signed, challenges: tuple[Challenge, ...]) -> Signed:
    """y + Σ c_k·x_k over the integers; `secrets` (K, N)."""
    total = mask.copy()
    for secret, challenge in zip(secrets, challenges, strict=True):
        turned = np.concatenate([-secret, secret])
        for place, sign in challenge:
            rotated = turned[DEGREE - place : 2 * DEGREE - place]  # X^place · secret
            total += rotated if sign > 0 else -rotated
    return total


def _combine(statements: Residues, challenges: tuple[Challenge, ...]) -> Residues:
    """Σ c_k·t_k; `statements` (K, 2, N). Twelve terms below 2^60 do not overflow a word."""
    total = np.zeros((2, DEGREE), dtype=np.uint64)
    for statement, challenge in zip(statements, challenges, strict=True):
        turned = np.concatenate(
            [lattice.negate(statement), statement, lattice.negate(statement)], axis=1
        )
        partial = np.zeros_like(total)
        for place, sign in challenge:
            start = DEGREE - place if sign > 0 else 2 * DEGREE - place
            partial += turned[:, start : start + DEGREE]
        total = lattice.add(total, partial % _PRIMES)
    return total


def _image(a: Residues, pair: Signed) -> Residues:
    """a·x + e of a pair (2, N)."""
    (product,) = lattice.multiply(lattice.residues(pair[:1]), a)
    return lattice.add(product[0], lattice.residues(pair[1]))


def _digest(context: bytes, statements: Residues) -> bytes:
    data = hashlib.sha256(b"fedtrade short secret|%d|" % len(statements))
    data.update(hashlib.sha256(context).digest())
    data.update(statements.astype("<u8", copy=False).tobytes())
    return data.digest()


def prove(
    a: Residues,
    statements: Residues,
    secrets: Signed,
    errors: Signed,
    key: bytes,
    context: bytes,
) -> bytes:
    """Proof for t_k = a·x_k + e_k: challenge ‖ z₁ ‖ z₂, PROOF_BYTES long.

    `a` is a `lattice.factor`; shapes (K, 2, N), (K, N), (K, N), with |x| ≤ 1 and |e| ≤ η. y is derived
    from `key` and from what is proved, so that no y ever meets two challenges. Raises Unproven above
    STATEMENTS_MAX.
    """
    if not 1 <= len(statements) <= STATEMENTS_MAX:
        raise Unproven(f"{len(statements)} polynomials at once; at most {STATEMENTS_MAX} are taken")
    digest = _digest(context, statements)
    bound = response_bound(len(statements))
    for attempt in range(ATTEMPTS):
        stream = keystream(key, b"mask|%d|" % attempt + digest, 8 * DEGREE)
        words = np.frombuffer(stream, dtype="<u4") & np.uint32(2 ** (MASK_BITS + 1) - 1)
        y = (words.astype(np.int64) - 2**MASK_BITS).reshape(2, DEGREE)
        w = _image(a, y)
        challenge = hashlib.sha256(digest + lattice.to_bytes(w)).digest()
        sparse = _challenges(challenge, len(statements))
        z = np.stack([_respond(y[0], secrets, sparse), _respond(y[1], errors, sparse)])
        if int(np.abs(z).max()) <= bound:
            return challenge + z.astype("<i4").tobytes()
    raise Fault("a proof was aborted too often, which chance does not do: check the secret's size")


def verify(a: Residues, statements: Residues, proof: bytes, context: bytes) -> None:
    """Check a proof for t_k, shape (K, 2, N), under the context that it was made for.

    Raises Unproven: wrong length, a response too large, or an equation that does not hold.
    """
    if not 1 <= len(statements) <= STATEMENTS_MAX:
        raise Unproven(f"{len(statements)} polynomials at once; at most {STATEMENTS_MAX} are taken")
    if len(proof) != PROOF_BYTES:
        raise Unproven(f"{len(proof)} bytes, not {PROOF_BYTES}")
    challenge = proof[:32]
    z = np.frombuffer(proof[32:], dtype="<i4").astype(np.int64).reshape(2, DEGREE)
    if int(np.abs(z).max()) > response_bound(len(statements)):
        raise Unproven("a response is larger than a short secret gives")
    left = _image(a, z)
    w = lattice.subtract(left, _combine(statements, _challenges(challenge, len(statements))))
    if hashlib.sha256(_digest(context, statements) + lattice.to_bytes(w)).digest() != challenge:
        raise Unproven("the equation of the ring does not hold for this sender and this context")
