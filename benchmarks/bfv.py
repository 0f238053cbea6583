"""Lane C for 100,000 parameters: encrypt, partial decryption, fusion and bytes, beside shared-key CKKS.

The counterpart is how federated learning uses TenSEAL as a rule: CKKS vectors under one secret key
that all members share (N = 8192, primes of 60, 40 and 40 bits, scale 2^40, cut into vectors of one
ciphertext each). It has no partial decryption and nothing to fuse: whoever has the key decrypts
alone, so both rows stand beside its decryption of a sum, from bytes. Ours is measured from integers
to bytes and from bytes to integers, with committees of five (three respond), noise, smudging, shares
of zero and proofs; both sums are checked before anything is reported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tenseal
from numpy.typing import NDArray

from benchmarks.measure import Row, alternate, row
from fedtrade.errors import Fault
from fedtrade.privacy import collective, mechanism, threshold
from fedtrade.privacy.lattice import Signed

PARAMETERS, MEMBERS = 100_000, 4
HELPERS, CORRUPT = 5, 2
RESPONDERS = (0, 2, 4)
DEGREE, SLOTS = 8192, 4096
REPETITIONS = 9
CONTEXT = b"benchmark"
PACKAGES = ("tenseal", "numba", "numpy")


class WrongSum(Fault):
    """What was decrypted is not the sum of what was encrypted."""

    def __init__(self, side: str, distance: float) -> None:
        super().__init__(f"{side}: the sum is off by {distance:g}.")
        self.side = side
        self.distance = distance


@dataclass(frozen=True, slots=True)
class _Side:
    """What is timed of one side, and the bytes of one upload."""

    encrypt: Callable[[], object]
    decrypt: dict[str, Callable[[], object]]
    upload_bytes: int


def rows() -> list[Row]:
    """Encryption, partial decryption, fusion, and bytes a parameter of an upload."""
    vectors = [
        np.random.default_rng(seed).integers(-(2**19), 2**19, PARAMETERS) for seed in range(MEMBERS)
    ]
    ours, theirs = _ours(vectors), _theirs(vectors)
    taken = alternate(
        {
            "encrypt": ours.encrypt,
            **ours.decrypt,
            "their encrypt": theirs.encrypt,
            **theirs.decrypt,
        },
        REPETITIONS,
    )
    shared = "TenSEAL CKKS under one shared key"
    return [
        row(
            "bfv_encrypt_100k",
            f"{shared}: encrypt and serialise",
            taken["encrypt"] * 1e3,
            taken["their encrypt"] * 1e3,
            "ms",
            PACKAGES,
        ),
        row(
            "bfv_partial_100k",
            f"{shared}: its holder decrypts alone; there are no partials",
            taken["partial"] * 1e3,
            taken["their decrypt"] * 1e3,
            "ms",
            PACKAGES,
        ),
        row(
            "bfv_fuse_100k",
            f"{shared}: its holder decrypts alone; nothing is fused",
            taken["fuse"] * 1e3,
            taken["their decrypt"] * 1e3,
            "ms",
            PACKAGES,
        ),
        row(
            "upload_bytes_per_param_bfv",
            f"{shared}: serialised vectors",
            ours.upload_bytes / PARAMETERS,
            theirs.upload_bytes / PARAMETERS,
            "B",
            PACKAGES,
        ),
    ]


def _key(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


def _ours(vectors: list[Signed]) -> _Side:
    """A ceremony, uploads of all members, and the answers of three of five helpers."""
    dealt = [collective.deal(_key(i), CONTEXT, i, HELPERS, CORRUPT) for i in range(HELPERS)]
    public = collective.collective_key([d.reveal for d in dealt], CONTEXT)
    shares = [collective.key_share([d.shares[j] for d in dealt]) for j in range(HELPERS)]
    uploads = [
        threshold.encrypt(public, vector, _key("coins", i), b"member %d" % i)
        for i, vector in enumerate(vectors)
    ]
    for i, upload in enumerate(uploads):
        threshold.check_ciphertext(public, upload, PARAMETERS, b"member %d" % i)
    ones = [1] * MEMBERS
    first = threshold.weighted_sum([u.c0 for u in uploads], ones)
    second = threshold.weighted_sum([u.c1 for u in uploads], ones)
    variance = mechanism.noise_variance(1.0, len(RESPONDERS), CORRUPT)
    noise = {i: mechanism.noise(_key("noise", i), variance, PARAMETERS) for i in RESPONDERS}

    def partial(index: int) -> bytes:
        pairs = {j: _key("pair", *sorted((index, j))) for j in RESPONDERS if j != index}
        return threshold.partial(
            shares[index],
            index,
            RESPONDERS,
            CORRUPT,
            second,
            pairs,
            noise[index],
            _key("smudge", index),
            CONTEXT,
        )

    partials = {i: partial(i) for i in RESPONDERS}

    def fuse() -> Signed:
        return threshold.fuse(first, partials, RESPONDERS, CORRUPT, PARAMETERS)

    distance = float(np.abs(fuse() - sum(vectors) - sum(noise.values())).max())
    if distance:
        raise WrongSum("collective BFV", distance)
    return _Side(
        lambda: threshold.encrypt(public, vectors[0], _key("coins"), b"member 0"),
        {"partial": lambda: partial(RESPONDERS[0]), "fuse": fuse},
        len(uploads[0].c0) + len(uploads[0].c1) + len(uploads[0].proof),
    )


def _theirs(vectors: list[Signed]) -> _Side:
    """Shared-key CKKS: every member has the key, so whoever holds an upload and a key reads it."""
    context: Any = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS, DEGREE, coeff_mod_bit_sizes=[60, 40, 40], n_threads=1
    )
    context.global_scale = 2.0**40
    floats = [[chunk.tolist() for chunk in _chunks(v.astype(np.float64))] for v in vectors]

    def encrypt(member: int) -> list[bytes]:
        return [tenseal.ckks_vector(context, chunk).serialize() for chunk in floats[member]]

    sent = [encrypt(member) for member in range(MEMBERS)]
    summed = []
    for place in range(len(floats[0])):
        total: Any = tenseal.ckks_vector_from(context, sent[0][place])
        for other in sent[1:]:
            total = total + tenseal.ckks_vector_from(context, other[place])
        summed.append(total.serialize())

    def decrypt() -> NDArray[np.float64]:
        return np.concatenate([tenseal.ckks_vector_from(context, s).decrypt() for s in summed])

    distance = float(np.abs(decrypt() - sum(vectors)).max())
    if distance > 1.0:
        raise WrongSum("shared-key CKKS", distance)
    return _Side(lambda: encrypt(0), {"their decrypt": decrypt}, sum(len(data) for data in sent[0]))


def _chunks(vector: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Pieces of one ciphertext each: TenSEAL prints a warning for every longer vector."""
    return [vector[start : start + SLOTS] for start in range(0, len(vector), SLOTS)]
