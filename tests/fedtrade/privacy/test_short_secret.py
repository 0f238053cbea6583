"""Samplers have the stated distributions, and the proof convinces only where a secret is short."""

import hashlib
import os
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrade.errors import Fault
from fedtrade.privacy import lattice, short_secret
from fedtrade.privacy.lattice import DEGREE, PRIMES
from fedtrade.privacy.short_secret import Unproven, prove, verify

N = 200_000
KEY = hashlib.sha256(b"a test's key").digest()


def test_the_same_key_and_label_repeat_and_any_other_does_not():
    one = short_secret.keystream(KEY, b"a", 64)
    assert one == short_secret.keystream(KEY, b"a", 64)
    assert one != short_secret.keystream(KEY, b"b", 64)
    assert one != short_secret.keystream(bytes(32), b"a", 64)
    assert one[:32] == short_secret.keystream(KEY, b"a", 32)


def test_ternary_values_are_even():
    drawn = short_secret.ternary(KEY, b"t", N)
    counts = np.array([(drawn == v).sum() for v in (-1, 0, 1)])
    assert counts.sum() == N
    assert (np.abs(counts - N / 3) < 5 * np.sqrt(N * 2 / 9)).all()


def test_each_ternary_value_takes_as_many_bytes(monkeypatch):
    monkeypatch.setattr(short_secret, "keystream", lambda *_: bytes(range(255, -1, -1)) * 9)
    drawn = short_secret.ternary(KEY, b"t", 255 * 4)
    assert [int((drawn == v).sum()) for v in (-1, 0, 1)] == [85 * 4] * 3


def test_errors_are_centred_binomial():
    drawn = short_secret.binomial(KEY, b"e", N)
    assert abs(int(drawn.min())) <= 21
    assert int(drawn.max()) <= 21
    assert abs(drawn.mean()) < 5 * np.sqrt(10.5 / N)
    assert abs(drawn.var() - 10.5) < 5 * np.sqrt(2 * 10.5**2 / N)
    assert len(np.unique(drawn)) > 25


@pytest.mark.parametrize("bits", [4, 20, 57])
def test_smudging_is_bounded_centred_and_has_its_variance(bits):
    drawn = short_secret.bell(KEY, b"s", N, bits).astype(np.float64) / 2.0**bits
    assert np.abs(drawn).max() <= 2
    variance = (1 - 4.0**-bits) / 3
    assert abs(drawn.mean()) < 5 * np.sqrt(variance / N)
    assert abs(drawn.var() - variance) < 5 * variance * np.sqrt(2 / N)
    # the tails of four uniforms: P(sum of 4 > 3) = 1/24
    tail = (drawn > 1).mean() if bits > 4 else 1 / 24
    assert abs(tail - 1 / 24) < 5 * np.sqrt(1 / 24 / N)


def test_smudges_of_a_few_bits_are_exactly_the_sum_of_four_uniforms():
    drawn = short_secret.bell(KEY, b"s", N, 1)
    counts = np.array([(drawn == v).sum() for v in range(-2, 3)])
    wanted = N * np.array([1, 4, 6, 4, 1]) / 16
    assert counts.sum() == N
    assert (np.abs(counts - wanted) < 5 * np.sqrt(wanted)).all()


def test_residues_are_uniform_and_words_beyond_the_prime_are_skipped():
    drawn = short_secret.uniform(KEY, b"u", N)
    for row, q in zip(drawn, PRIMES, strict=True):
        assert int(row.max()) < q
        counts = np.bincount((row >> np.uint64(52)).astype(np.int64), minlength=256)
        chi2 = float(((counts - N / 256) ** 2 / (N / 256)).sum())
        assert 150 < chi2 < 380  # 255 degrees of freedom: mean 255, deviation 22.6
    small = 2**60 - 2**58  # a quarter of the words is beyond: they must be skipped, not folded
    words = np.arange(1000, dtype=np.uint64) * np.uint64(2**50) + np.uint64(7)
    kept = short_secret._below(words[::-1], small, 500)
    assert int(kept.max()) < small
    assert (kept == words[::-1][words[::-1] < small][:500]).all()
    with pytest.raises(Fault):
        short_secret._below(words, 2**50, 500)


@lru_cache(maxsize=4)
def statement(count=1, seed=0):
    key = hashlib.sha256(b"%d" % seed).digest()
    a = lattice.factor(short_secret.uniform(bytes(32), b"a", DEGREE))
    x = short_secret.ternary(key, b"x", count * DEGREE).reshape(count, DEGREE)
    e = short_secret.binomial(key, b"e", count * DEGREE).reshape(count, DEGREE)
    (image,) = lattice.multiply(lattice.residues(x), a)
    return a, lattice.add(image, lattice.residues(e)), x, e


@pytest.mark.parametrize("count", [1, 3, 20])
def test_an_honest_proof_is_accepted_and_repeats(count):
    a, t, x, e = statement(count)
    proof = prove(a, t, x, e, KEY, b"ctx")
    assert len(proof) == short_secret.PROOF_BYTES
    assert proof == prove(a, t, x, e, KEY, b"ctx")
    assert proof != prove(a, t, x, e, bytes(32), b"ctx")
    verify(a, t, proof, b"ctx")


def test_a_proof_is_bound_to_context_statements_and_a():
    a, t, x, e = statement(3)
    proof = prove(a, t, x, e, KEY, b"ctx")
    altered = t.copy()
    altered[1, 0, 17] ^= np.uint64(1)
    other_a = lattice.factor(short_secret.uniform(bytes(32), b"another", DEGREE))
    for args in (
        (a, t, proof, b"other"),
        (a, altered, proof, b"ctx"),
        (a, t[::-1], proof, b"ctx"),
        (a, t[:2], proof, b"ctx"),
        (other_a, t, proof, b"ctx"),
    ):
        with pytest.raises(Unproven):
            verify(*args)


@settings(max_examples=30)
@given(st.integers(0, short_secret.PROOF_BYTES - 1), st.integers(1, 255))
def test_a_proof_with_any_byte_altered_is_refused(place, change):
    a, t, x, e = statement()
    proof = bytearray(prove(a, t, x, e, KEY, b"ctx"))
    proof[place] ^= change
    with pytest.raises(Unproven):
        verify(a, t, bytes(proof), b"ctx")


def test_bytes_that_are_no_proof_are_refused():
    a, t, _, _ = statement()
    for junk in (b"", bytes(31), os.urandom(short_secret.PROOF_BYTES), bytes(65568 + 4)):
        with pytest.raises(Unproven):
            verify(a, t, junk, b"ctx")
    for none in (t[:0], np.concatenate([t] * 257)):
        with pytest.raises(Unproven, match="at most 256"):
            verify(a, none, bytes(short_secret.PROOF_BYTES), b"ctx")


def forged(a, t, z, w, context=b"ctx"):
    """A proof whose hash is right for w, whatever z does."""
    digest = short_secret._digest(context, t)
    challenge = hashlib.sha256(digest + lattice.to_bytes(w)).digest()
    return challenge + z.astype("<i4").tobytes()


def test_a_simulated_transcript_fails_since_the_challenge_follows_from_w():
    """Choosing z and c first gives w = a·z₁ + z₂ − c·t, whose hash is another challenge."""
    a, t, _, _ = statement()
    z = np.random.default_rng(0).integers(-(2**20), 2**20, (2, DEGREE))
    chosen = short_secret._challenges(bytes(32), 1)
    w = lattice.subtract(short_secret._image(a, z), short_secret._combine(t, chosen))
    with pytest.raises(Unproven, match="equation"):
        verify(a, t, forged(a, t, z, w), b"ctx")


def test_a_long_secret_that_satisfies_the_equation_is_refused_by_its_norm():
    """Whoever multiplies its secret by 2^28 answers rightly modulo q and too long."""
    a, _, x, e = statement()
    x, e = x << 28, e << 28
    (image,) = lattice.multiply(lattice.residues(x), a)
    t = lattice.add(image, lattice.residues(e))
    y = np.zeros((2, DEGREE), np.int64)
    w = short_secret._image(a, y)
    digest = short_secret._digest(b"ctx", t)
    challenge = hashlib.sha256(digest + lattice.to_bytes(w)).digest()
    sparse = short_secret._challenges(challenge, 1)
    z = np.stack([short_secret._respond(y[0], x, sparse), short_secret._respond(y[1], e, sparse)])
    left = short_secret._image(a, z)
    assert (lattice.subtract(left, short_secret._combine(t, sparse)) == w).all()
    with pytest.raises(Unproven, match="larger"):
        verify(a, t, challenge + z.astype("<i4").tobytes(), b"ctx")


def test_challenges_are_sparse_ternary_and_fill_the_space():
    found = [short_secret._challenges(bytes([i]) * 32, 5) for i in range(40)]
    every = [c for row in found for c in row]
    assert all(len(dict(c)) == short_secret.CHALLENGE_WEIGHT for c in every)
    assert all(0 <= p < DEGREE and s in (-1, 1) for c in every for p, s in c)
    assert len({c for c in every}) == 200
    signs = [s for c in every for _, s in c]
    assert abs(sum(signs)) < 5 * len(signs) ** 0.5
    places = [p for c in every for p, _ in c]
    assert abs(np.mean(places) - DEGREE / 2) < 5 * DEGREE / np.sqrt(12 * len(places))


def test_responses_of_two_secrets_have_one_distribution():
    """z is uniform within its bound for every secret, the largest included: nothing shows."""
    a, t, x, e = statement()
    bound = short_secret.response_bound(1)
    worst = np.full((1, DEGREE), 21), np.full((1, DEGREE), 1)
    (image,) = lattice.multiply(lattice.residues(worst[1]), a)
    t_worst = lattice.add(image, lattice.residues(worst[0]))
    for t_, x_, e_ in ((t, x, e), (t_worst, worst[1], worst[0])):
        z = [
            np.frombuffer(prove(a, t_, x_, e_, bytes([i]) * 32, b"")[32:], "<i4") for i in range(12)
        ]
        z = np.concatenate(z).astype(np.float64) / bound
        assert np.abs(z).max() <= 1
        assert abs(z.mean()) < 5 / np.sqrt(3 * z.size)
        counts, _ = np.histogram(z, 64, (-1, 1))
        chi2 = float(((counts - z.size / 64) ** 2 / (z.size / 64)).sum())
        assert 15 < chi2 < 140  # 63 degrees of freedom: mean 63, deviation 11.2


def test_an_attempt_that_would_show_the_secret_is_aborted(monkeypatch):
    """With a narrow mask, z beyond its bound comes up, and prove goes on to another."""
    a, t, x, e = statement()
    monkeypatch.setattr(short_secret, "MASK_BITS", 22)
    tried = []
    real = short_secret._challenges
    monkeypatch.setattr(short_secret, "_challenges", lambda *g: tried.append(1) or real(*g))
    proofs = [prove(a, t, x, e, bytes([i]) * 32, b"") for i in range(12)]
    assert len(tried) > 12
    bound = short_secret.response_bound(1)
    assert all(np.abs(np.frombuffer(p[32:], "<i4")).max() <= bound for p in proofs)
    with pytest.raises(Fault, match="aborted too often"):
        prove(a, t, x, e << 18, KEY, b"")
