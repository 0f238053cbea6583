"""The sampler's law, against exact probabilities; its repeatability; the paths that never occur."""

import hashlib
from decimal import Decimal
from fractions import Fraction
from math import exp

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedtrade.privacy import discrete_gaussian as sampler
from fedtrade.privacy.discrete_gaussian import DEVIATION_MAX, KeystreamBroken, discrete_gaussian

KEYS = [bytes([i]) * 32 for i in (1, 2, 3)]


class Words(sampler._Keystream):
    """A keystream that somebody chose."""

    def __init__(self, words):
        self.left = list(words)

    def words(self, count):
        taken, self.left = self.left[:count], self.left[count:]
        return np.array(taken, dtype=np.uint64)


@pytest.mark.parametrize("deviation", [1, 2, 3, 5, 10])
def test_the_law_is_the_discrete_gaussians(deviation):
    n = 1_000_000
    drawn = discrete_gaussian(KEYS[0], deviation, n)
    support = np.arange(-3 * deviation - 2, 3 * deviation + 3)
    everywhere = np.arange(-40 * deviation, 40 * deviation + 1)
    weights = np.exp(-(support**2) / (2 * deviation**2))
    expected = n * weights / np.exp(-(everywhere**2) / (2 * deviation**2)).sum()
    found = np.array([(drawn == x).sum() for x in support])
    rest = n - expected.sum()
    test = stats.chisquare([*found, n - found.sum()], [*expected, rest])
    assert test.pvalue > 1e-3


@pytest.mark.parametrize("key", KEYS)
def test_at_the_scale_of_a_round_a_million_draws_pass_for_a_gaussian(key):
    deviation, n = 93_241, 1_000_000
    drawn = discrete_gaussian(key, deviation, n)
    assert stats.kstest(drawn / deviation, "norm").pvalue > 1e-3
    bins = np.histogram(stats.norm.cdf(drawn / deviation), bins=4096, range=(0, 1))[0]
    assert stats.chisquare(bins).pvalue > 1e-3
    assert stats.chisquare(np.bincount(drawn % 64)).pvalue > 1e-3  # the low bits are uniform
    scaled = drawn / deviation
    assert abs(scaled.mean()) < 4 / np.sqrt(n)
    assert abs(scaled.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs((scaled**4).mean() - 3) < 4 * np.sqrt(96 / n)


def test_the_same_key_gives_the_same_noise_on_every_machine():
    one = discrete_gaussian(KEYS[0], 50_000, 70_000)
    assert (one == discrete_gaussian(KEYS[0], 50_000, 70_000)).all()
    digest = hashlib.sha256(one.astype("<i8").tobytes()).hexdigest()
    assert digest == "adbc65e136d85a57f85a22fdf19e66a884bc354afd5ad14898dc136973c70793"


def test_a_thousand_keys_give_a_thousand_noises():
    drawn = {discrete_gaussian(i.to_bytes(32, "big"), 40_000, 8).tobytes() for i in range(1000)}
    assert len(drawn) == 1000


@given(st.integers(0, 3000), st.sampled_from([1, 2, 7, 40_000, DEVIATION_MAX]))
@settings(max_examples=40, deadline=None)
def test_any_length_is_filled(length, deviation):
    drawn = discrete_gaussian(KEYS[1], deviation, length)
    assert drawn.shape == (length,)
    assert drawn.dtype == np.int64
    assert np.abs(drawn).max(initial=0) < 17 * deviation


@pytest.mark.parametrize(("key", "deviation"), [(bytes(16), 5), (bytes(32), 0), (bytes(32), 2**25)])
def test_what_is_out_of_range_is_refused(key, deviation):
    with pytest.raises(ValueError, match=r"deviation|32 bytes"):
        discrete_gaussian(key, deviation, 10)


def test_the_thresholds_are_the_halves_of_the_gaussian_to_192_bits():
    weights = [(Decimal(-k * k) / 2).exp() for k in range(40)]
    assert sampler._CUMULATIVE[0] >> 140 == int(weights[0] / sum(weights) * 2**52)
    assert sorted(set(sampler._CUMULATIVE)) == sampler._CUMULATIVE
    assert 2**192 - sampler._CUMULATIVE[-1] < 2**10  # what is cut
    for k in range(6):
        mass = Fraction(sampler._CUMULATIVE[k], 2**192)
        want = sum(exp(-i * i / 2) for i in range(k + 1)) / sum(exp(-i * i / 2) for i in range(40))
        assert float(mass) == pytest.approx(want, rel=1e-14)


@given(st.integers(0, 15), st.sampled_from([-1, 0, 1]))
def test_a_word_on_a_threshold_is_decided_by_the_words_after_it(k, step):
    """Probability 2^-64, so it is put there by hand."""
    target = sampler._CUMULATIVE[k] + step
    words = [target >> 128, target >> 64 & 2**64 - 1, target & 2**64 - 1]
    found = sampler._whole_deviations(Words(words), 1)
    assert found[0] == (k if step < 0 else k + 1)


def test_words_of_the_incomplete_last_run_are_passed_over():
    n = 2**62 + 3  # 2^64 holds three whole runs, up to 3n
    last = 3 * n - 1
    stream = Words([last, last + 1, 2**64 - 1, 5, 7])
    found = stream.below(n, 3)
    assert found.tolist() == [n - 1, 5, 7]
    assert Words([2**64 - 1]).below(2**32, 1) == [2**32 - 1]


@pytest.mark.parametrize(("a", "b"), [(0, 7), (1, 2), (3, 4), (7, 7), (2**40 - 1, 2**40), (5, 2)])
def test_an_event_happens_with_probability_exp_of_minus_a_over_b(a, b):
    n = 400_000
    found = sampler._events(sampler._Keystream(KEYS[2]), np.full(n, a, dtype=np.uint64), b).sum()
    p = exp(-a / b)
    assert abs(found - n * p) <= 4 * np.sqrt(n * p * (1 - p))


def chance_of(a, b):
    """floor(exp(−a/b)·2^192), by its alternating series in fractions."""
    x = Fraction(a, b)
    term = total = Fraction(1)
    for n in range(1, 200):
        term *= -x / n
        total += term
    return int(total * 2**192)


@given(
    k=st.integers(0, 16),
    u=st.floats(0, 1, exclude_max=True),
    deviation=st.sampled_from([1, 2, 7, 40_000, DEVIATION_MAX]),
    step=st.integers(-5, 5) | st.integers(-(2**25), 2**25),
    rest=st.integers(0, 2**128 - 1),
)
@settings(max_examples=200, deadline=None)
def test_a_word_at_the_boundary_is_decided_as_192_bits_decide_it(k, u, deviation, step, rest):
    """Floating point is right wherever it decides, and where it might not be, it does not."""
    j = int(u * deviation)
    a, b = j * (2 * k * deviation + j), 2 * deviation**2
    chance = chance_of(a, b)
    word = min(max((chance >> 128) + step, 0), 2**64 - 1)
    stream = Words([word, rest >> 64, rest & 2**64 - 1])
    (found,) = sampler._events(stream, np.array([a], dtype=np.uint64), b)
    assert found == ((word << 128) + rest < chance)


@pytest.mark.parametrize("step", [-1, 0, 1])
def test_the_last_of_192_bits_decides(step):
    chance = chance_of(3, 8)
    drawn = chance + step
    words = [drawn >> 128, drawn >> 64 & 2**64 - 1, drawn & 2**64 - 1]
    assert sampler._events(Words(words), np.array([3], dtype=np.uint64), 8) == (step < 0)


def test_what_floating_point_leaves_open_is_a_thousand_times_what_it_gets_wrong():
    draw = np.random.default_rng(0)
    places = draw.uniform(0, 17, 2000)
    wrong = max(abs(float(Decimal(x).exp() - Decimal(float(np.exp(x))))) for x in -places)
    assert 1000 * wrong < sampler._MARGIN


def test_a_keystream_that_is_not_random_ends_in_a_fault(monkeypatch):
    monkeypatch.setattr(
        sampler._Keystream, "words", lambda self, n: np.full(n, 2**64 - 1, dtype=np.uint64)
    )
    with pytest.raises(KeystreamBroken):
        discrete_gaussian(KEYS[0], 3, 10)
