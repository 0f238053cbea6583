"""Sampling, fixed point and noise: what the accountant assumes is what happens."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from fedtrade.parameters import SCALE
from fedtrade.privacy import mechanism


@given(arrays(np.float64, st.integers(1, 50), elements=st.floats(-4, 4)))
def test_fixed_point_is_within_half_a_unit(total):
    ring = mechanism.quantise(total, clip_norm=2.0, batch_max=4)
    back = mechanism.dequantise(ring, 2.0, bound=2**31 - 1)
    assert np.abs(back - total).max() <= 0.5 * 2.0 / SCALE + 1e-12


@given(st.lists(arrays(np.float64, 5, elements=st.floats(-1, 1)), min_size=1, max_size=9))
def test_the_ring_adds_like_the_integers(vectors):
    total = np.zeros(5, np.uint32)
    for v in vectors:
        total += mechanism.quantise(v, 1.0, 1)
    units = sum(np.rint(v * SCALE) for v in vectors)
    assert (mechanism.dequantise(total, 1.0, 2**31 - 1) * SCALE == units).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e9])
def test_what_cannot_be_a_sum_of_clipped_gradients_is_not_sent(bad):
    with pytest.raises(mechanism.NotFinite):
        mechanism.quantise(np.array([0.0, bad]), 1.0, 8)


def test_a_sum_beyond_the_honest_bound_is_a_fault():
    ring = mechanism.quantise(np.array([3.0]), 1.0, 4)
    with pytest.raises(mechanism.RingOverflow) as caught:
        mechanism.dequantise(ring, 1.0, bound=2 * SCALE)
    assert caught.value.largest == 3 * SCALE


@pytest.mark.parametrize("variance", [4.0, (1.1 * SCALE) ** 2 / 3])
def test_noise_has_the_variance_and_the_law_that_is_accounted(variance):
    noise = mechanism.skellam(bytes(range(32)), variance, 200_000).view(np.int32)
    n = len(noise)
    assert abs(noise.mean()) < 5 * np.sqrt(variance / n)
    assert noise.var() == pytest.approx(variance, rel=5 * np.sqrt(2 / n))
    if variance < 100:  # exact law by chi-square
        support = np.arange(-8, 9)
        expected = stats.skellam.pmf(support, variance / 2, variance / 2) * n
        found = np.array([(noise == k).sum() for k in support])
        assert stats.chisquare(found, expected * found.sum() / expected.sum()).pvalue > 1e-4
    else:  # at this scale a Skellam is a Gaussian on the integers
        assert stats.kstest(noise / np.sqrt(variance), "norm").pvalue > 1e-4


def test_noise_repeats_for_its_key_and_differs_for_another():
    one = mechanism.skellam(b"k" * 32, 1e6, 50)
    assert (one == mechanism.skellam(b"k" * 32, 1e6, 50)).all()
    assert (one != mechanism.skellam(b"l" * 32, 1e6, 50)).any()


@pytest.mark.parametrize(("responders", "corrupt"), [(3, 2), (5, 2), (3, 1), (7, 3)])
def test_honest_responders_alone_add_the_accounted_variance(responders, corrupt):
    one = mechanism.noise_variance(1.3, responders, corrupt)
    assert one * (responders - corrupt) == pytest.approx((1.3 * SCALE) ** 2)


def test_sampling_is_poisson_at_the_public_rate():
    include = mechanism.poisson_sample(200_000, 0.05, os.urandom)
    assert include.mean() == pytest.approx(0.05, abs=5 * np.sqrt(0.05 * 0.95 / 200_000))
    assert not mechanism.poisson_sample(10, 0.25, lambda n: b"\xff" * n).any()
    assert mechanism.poisson_sample(10, 0.25, bytes).all()


def test_an_overfull_sample_is_cut_at_random_and_never_extended():
    include = np.ones(100, bool)
    include[::2] = False
    cut = mechanism.limit_sample(include, 20, os.urandom)
    assert cut.sum() == 20
    assert (cut <= include).all()
    again = mechanism.limit_sample(include, 20, os.urandom)
    assert (cut != again).any()
    assert mechanism.limit_sample(include, 50, os.urandom) is include
