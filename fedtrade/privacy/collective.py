"""The key ceremony of lane C: a collective public key, and a share of its secret for each helper.

Every helper i expands a short secret s_i, an error e_i and a polynomial f_i of degree c with
f_i(0) = s_i from its seed, and gives

    b_i = −(a·s_i + e_i)    a proof that it knows s_i and e_i    f_i(j + 1) for every helper j, boxed

with a from a hash of the ceremony's context (nobody chose it). The public key is (Σ b_i, a); helper
j's share is Σ_i f_i(j + 1), and any c + 1 shares give s = Σ s_i (Shamir 1979). The order is:

1. *Commit.* Everyone posts `commitment_of` its reveal before it sees another's.
2. *Reveal.* Everyone posts b_i and proof, and checks all others' (`verify_reveal`). A key computed
   from others' (b' = b − Σ b_i, so that the sum is b) has no proof; a copied one fails by its index.
3. *Rehearse.* A ciphertext that everyone computes is decrypted by m − c subsets (`rehearsals`). All
   share c helpers and the known secret, so all shares lie on one polynomial of degree c and belong
   to the public key, or a subset fails: a dealer's bad shares show before the key is used. Who the
   dealer was does not show; helpers then open their boxes to each other and begin again.

c helpers learn nothing of the others' secrets: c points of each honest f_i are uniform.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedtrade.errors import Refusal
from fedtrade.privacy import lattice, short_secret, threshold
from fedtrade.privacy.lattice import DEGREE, Residues, Signed

SHARE_BYTES = 16 * DEGREE
REVEAL_BYTES = 16 * DEGREE + short_secret.PROOF_BYTES
REHEARSED = 256
"""Integers in the rehearsal: a wrong share passes for each pair of them with chance 2^-57."""


class WrongReveal(Refusal):
    """A reveal that cannot enter the key."""

    def __init__(self, index: int, problem: str) -> None:
        super().__init__(
            f"helper {index}: its reveal is refused, {problem}. Begin the ceremony again without it"
        )
        self.index = index
        self.problem = problem


class SharesInconsistent(Refusal):
    """Some dealer's shares do not belong to its public part."""

    def __init__(self, subset: tuple[int, ...]) -> None:
        super().__init__(
            f"helpers {subset} do not decrypt what the key encrypts: a dealer gave bad shares or a "
            "helper answered badly. Do not use this key; open the boxes and begin again without it"
        )
        self.subset = subset


@dataclass(frozen=True, slots=True)
class Dealing:
    """What one helper brings: the reveal is public, share j is for helper j alone."""

    reveal: bytes
    shares: tuple[bytes, ...]


def _seed(context: bytes) -> bytes:
    return hashlib.sha256(b"fedtrade key ceremony|" + context).digest()


def _of(context: bytes, index: int) -> bytes:
    return _seed(context) + b"helper %d" % index


def deal(seed: bytes, context: bytes, index: int, helpers: int, corrupt: int) -> Dealing:
    """Helper `index`'s part of the ceremony, from a 32-byte seed used for this context only.

    Raises BadRequest for a committee that is none.
    """
    if not (0 <= index < helpers <= threshold.RESPONDERS_MAX and 2 * corrupt + 1 <= helpers):
        raise threshold.BadRequest(f"helper {index} of {helpers} with {corrupt} bad")
    label = _of(context, index)
    secret = short_secret.ternary(seed, b"secret|" + label, DEGREE)
    error = short_secret.binomial(seed, b"error|" + label, DEGREE)
    a = threshold.crs(_seed(context))
    (product,) = lattice.multiply(lattice.residues(-secret[None]), a)
    b = lattice.add(product[0], lattice.residues(-error))
    proof = short_secret.prove(a, b[None], -secret[None], -error[None], seed, label)
    higher = [
        short_secret.uniform(seed, b"coefficient %d|" % power + label, DEGREE)
        for power in range(1, corrupt + 1)
    ]
    shares = tuple(
        lattice.to_bytes(_evaluate(lattice.residues(secret), higher, other + 1))
        for other in range(helpers)
    )
    return Dealing(lattice.to_bytes(b) + proof, shares)


def _evaluate(constant: Residues, higher: Sequence[Residues], point: int) -> Residues:
    """constant + Σ higher_k·point^k, by Horner's rule."""
    total = np.zeros_like(constant)
    for coefficient in reversed(higher):
        total = lattice.scale(lattice.add(total, coefficient), point)
    return lattice.add(total, constant)


def commitment_of(reveal: bytes, context: bytes, index: int) -> bytes:
    """What is posted before any reveal. A reveal has the secret's entropy, so its hash hides it."""
    return hashlib.sha256(b"fedtrade reveal|" + _of(context, index) + b"|" + reveal).digest()


def verify_reveal(reveal: bytes, commitment: bytes, context: bytes, index: int) -> None:
    """Refuse a reveal that was not committed to, is malformed, or has no proof. Raises WrongReveal."""
    if len(reveal) != REVEAL_BYTES:
        raise WrongReveal(index, f"{len(reveal)} bytes, not {REVEAL_BYTES}")
    if commitment_of(reveal, context, index) != commitment:
        raise WrongReveal(index, "it is not what was committed to")
    a = threshold.crs(_seed(context))
    try:
        b = lattice.from_bytes("b", reveal[:SHARE_BYTES], DEGREE)
        short_secret.verify(a, b[None], reveal[SHARE_BYTES:], _of(context, index))
    except (lattice.BadResidues, short_secret.Unproven) as error:
        raise WrongReveal(index, error.problem) from None


def collective_key(reveals: Sequence[bytes], context: bytes) -> bytes:
    """The public key of verified reveals of *all* helpers: seed of a ‖ Σ b_i."""
    total = np.zeros((2, DEGREE), dtype=np.uint64)
    for reveal in reveals:
        total = lattice.add(total, lattice.from_bytes("b", reveal[:SHARE_BYTES], DEGREE))
    return _seed(context) + lattice.to_bytes(total)


def key_share(shares: Sequence[bytes]) -> Residues:
    """A helper's share of the collective secret: the sum of what every dealer (itself too) gave it.

    Raises BadResidues.
    """
    total = np.zeros((2, DEGREE), dtype=np.uint64)
    for dealer, share in enumerate(shares):
        total = lattice.add(total, lattice.from_bytes(f"share of {dealer}", share, DEGREE))
    return total


def rehearsals(helpers: int, corrupt: int) -> tuple[tuple[int, ...], ...]:
    """The (c + 1)-subsets that decrypt the rehearsal: the first c helpers with each of the others."""
    return tuple((*range(corrupt), other) for other in range(corrupt, helpers))


def rehearsal(public_key: bytes) -> tuple[Signed, threshold.Encrypted]:
    """Known integers and their encryption, which everyone computes from the key alone."""
    seed = hashlib.sha256(b"fedtrade rehearsal|" + public_key).digest()
    stream = np.frombuffer(short_secret.keystream(seed, b"values", 4 * REHEARSED), dtype="<i4")
    values = stream.astype(np.int64) >> 5
    values = np.clip(values, -threshold.FIELD_MAX, threshold.FIELD_MAX)
    return values, threshold.encrypt(public_key, values, seed, b"rehearsal")


def check_consistency(
    public_key: bytes,
    partials: Mapping[tuple[int, ...], Mapping[int, bytes]],
    helpers: int,
    corrupt: int,
) -> None:
    """End of a ceremony: every rehearsal subset decrypts to the known integers.

    `partials`: subset -> helper -> its partial of the rehearsal's c₁ with noise zero. Raises
    SharesInconsistent, TooFewPartials or BadResidues.
    """
    values, encrypted = rehearsal(public_key)
    for subset in rehearsals(helpers, corrupt):
        answers = partials.get(subset, {})
        try:
            total = threshold.fuse(encrypted.c0, answers, subset, corrupt, REHEARSED)
        except threshold.WrongDecryption:
            raise SharesInconsistent(subset) from None
        if not np.array_equal(total, values):
            raise SharesInconsistent(subset)
