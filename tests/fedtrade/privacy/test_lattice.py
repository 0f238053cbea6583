"""The ring: every operation equals Python's integers, and products equal SEAL's."""

import os

import numpy as np
import pytest
import tenseal.sealapi as seal
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.privacy import lattice, seal_stream, threshold
from fedtrade.privacy.lattice import DEGREE, MODULUS, PRIMES

seeds = st.integers(0, 2**32 - 1)
numbers = st.integers(-(2**130), 2**130)


def element(seed, length=DEGREE):
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, q, length, dtype=np.uint64) for q in PRIMES])


def edges(length=64):
    """Residues that include 0, 1 and q − 1."""
    found = element(3, length)
    for row, q in enumerate(PRIMES):
        found[row, :4] = (0, 1, q - 1, q // 2)
    return found


def whole(a):
    return [[int(v) for v in row] for row in a]


def test_primes_are_prime_and_have_roots_of_unity():
    for q in PRIMES:
        assert q < 2**60
        assert q % (2 * DEGREE) == 1
        assert all(pow(base, q - 1, q) == 1 for base in (2, 3, 5, 7, 11, 13))
    assert MODULUS.bit_length() == 120


@given(seeds, numbers)
def test_sums_differences_and_multiples_are_those_of_integers(seed, number):
    a, b = edges(), edges()[:, ::-1] if seed % 2 else element(seed, 64)
    for name, found in (
        ("add", lattice.add(a, b)),
        ("subtract", lattice.subtract(a, b)),
        ("negate", lattice.negate(a)),
        ("scale", lattice.scale(a, number)),
    ):
        wanted = [
            [
                {"add": x + y, "subtract": x - y, "negate": -x, "scale": x * number}[name] % q
                for x, y in zip(left, right, strict=True)
            ]
            for left, right, q in zip(whole(a), whole(b), PRIMES, strict=True)
        ]
        assert whole(found) == wanted, name


@given(st.lists(st.integers(-(2**59), 2**59), min_size=1, max_size=9))
def test_signed_integers_become_their_residues(values):
    found = lattice.residues(np.array(values, np.int64))
    assert whole(found) == [[v % q for v in values] for q in PRIMES]


def sparse(places, sign=1):
    values = np.zeros(DEGREE, np.int64)
    values[list(places)] = sign
    return lattice.residues(values)


@given(seeds, st.lists(st.integers(0, DEGREE - 1), min_size=1, max_size=4, unique=True))
def test_a_product_with_a_sparse_polynomial_is_its_rotations(seed, places):
    a = element(seed)
    wanted = np.zeros_like(a)
    for place in places:
        turned = np.roll(a, place, axis=1)
        turned[:, :place] = lattice.negate(turned[:, :place])  # X^N = −1
        wanted = lattice.add(wanted, turned)
    (found,) = lattice.multiply(a[None], lattice.factor(sparse(places)))
    assert (found[0] == wanted).all()


def test_products_distribute_and_commute():
    a, b, c = element(1), element(2), edges(DEGREE)
    (ab, ac), _ = lattice.multiply(np.stack([b, c]), lattice.factor(a), lattice.factor(b))
    (asum,) = lattice.multiply(lattice.add(b, c)[None], lattice.factor(a))
    assert (asum[0] == lattice.add(ab, ac)).all()
    (ba,) = lattice.multiply(a[None], lattice.factor(b))
    assert (ba[0] == ab).all()


def seal_product(a, b):
    """a·b by SEAL's own transforms, through its stream."""
    s = threshold._seal()
    one = sparse([0])
    evaluator = seal.Evaluator(s.context)

    def coefficients(ciphertext):
        content = seal_stream.content_of(threshold._save(ciphertext), 10**6)
        words = seal_stream.content_of(content[-(24 + 2 * 2 * 8 * DEGREE) :], 10**6)
        return np.frombuffer(words, "<u8", offset=8).reshape(2, 2, DEGREE)

    pair = [
        threshold._load(
            seal.Ciphertext(),
            s.context,
            seal_stream.ciphertext(np.stack([x, one]), s.parms_id),
        )
        for x in (a, b)
    ]
    for ciphertext in pair:
        evaluator.transform_to_ntt_inplace(ciphertext)
    stream = seal_stream.plaintext(coefficients(pair[1])[0], s.parms_id)
    factor = threshold._load(seal.Plaintext(), s.context, stream)
    evaluator.multiply_plain_inplace(pair[0], factor)
    evaluator.transform_from_ntt_inplace(pair[0])
    return coefficients(pair[0])[0]


@pytest.mark.parametrize("seed", range(5))
def test_products_equal_seals_bit_for_bit(seed):
    a, b = element(seed), edges(DEGREE) if seed == 0 else element(seed + 100)
    (ours,) = lattice.multiply(a[None], lattice.factor(b))
    assert (ours[0] == seal_product(a, b)).all()


def test_multiplying_leaves_its_arguments_alone():
    a, b = element(1)[None], element(2)
    before = a.copy(), b.copy()
    lattice.multiply(a, lattice.factor(b))
    assert (a == before[0]).all()
    assert (b == before[1]).all()


@given(st.integers(0, 40), seeds)
def test_bytes_come_back(length, seed):
    a = element(seed, length)
    assert (lattice.from_bytes("x", lattice.to_bytes(a), length) == a).all()
    joined = np.concatenate([element(seed), element(seed + 1)], axis=1)
    assert (lattice.join(lattice.split(joined)) == joined).all()


@pytest.mark.parametrize("row", [0, 1])
def test_residues_that_are_not_canonical_or_of_another_length_are_refused(row):
    a = element(1, 8)
    for bad in (b"", lattice.to_bytes(a)[:-1], lattice.to_bytes(a) + b"\0" * 8, os.urandom(16)):
        with pytest.raises(lattice.BadResidues, match="bytes, not 128"):
            lattice.from_bytes("x", bad, 8)
    a[row, 3] = PRIMES[row] - 1
    lattice.from_bytes("x", lattice.to_bytes(a), 8)
    a[row, 3] = PRIMES[row]
    with pytest.raises(lattice.BadResidues, match="not below"):
        lattice.from_bytes("x", lattice.to_bytes(a), 8)
