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
    signed = mechanism.quantise(total, clip_norm=2.0, batch_max=4)
    assert signed.dtype == np.int64
    back = mechanism.dequantise(signed, 2.0, bound=2**31 - 1)
    assert np.abs(back - total).max() <= 0.5 * 2.0 / SCALE + 1e-12


@pytest.mark.parametrize("ring", [np.uint32, np.uint64])
@given(vectors=st.lists(arrays(np.float64, 5, elements=st.floats(-1, 1)), min_size=1, max_size=9))
def test_both_rings_add_like_the_integers(ring, vectors):
    total = np.zeros(5, ring)
    for v in vectors:
        total += mechanism.quantise(v, 1.0, 1).astype(ring)
    units = sum(np.rint(v * SCALE) for v in vectors)
    signed = total.view(ring().dtype.str.replace("u", "i")).astype(np.int64)
    assert (mechanism.dequantise(signed, 1.0, 2**31 - 1) * SCALE == units).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e9])
def test_what_cannot_be_a_sum_of_clipped_gradients_is_not_sent(bad):
    with pytest.raises(mechanism.NotFinite):
        mechanism.quantise(np.array([0.0, bad]), 1.0, 8)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_sum_beyond_the_honest_bound_is_a_fault(sign):
    signed = mechanism.quantise(np.array([3.0 * sign, 0.0]), 1.0, 4)
    assert len(mechanism.dequantise(signed, 1.0, bound=3 * SCALE)) == 2
    with pytest.raises(mechanism.RingOverflow) as caught:
        mechanism.dequantise(signed, 1.0, bound=3 * SCALE - 1)
    assert caught.value.largest == 3 * SCALE


def test_the_least_integer_is_larger_than_any_bound():
    with pytest.raises(mechanism.RingOverflow):  # its absolute value overflows to itself
        mechanism.dequantise(np.array([-(2**63)]), 1.0, bound=2**40)


@given(st.floats(0.25, 2.0**46))
def test_noise_has_at_least_the_variance_that_is_accounted(variance):
    deviation = mechanism.noise_deviation(variance)
    assert deviation**2 >= variance + mechanism.ROUNDING_VARIANCE
    assert (deviation - 1) ** 2 < variance + 1 + mechanism.ROUNDING_VARIANCE


def test_noise_is_drawn_with_that_deviation():
    variance = (1.1 * SCALE) ** 2 / 3
    n = 200_000
    noise = mechanism.noise(bytes(range(32)), variance, n)
    assert noise.dtype == np.int64
    assert noise.var() == pytest.approx(variance, rel=5 * np.sqrt(2 / n))
    assert stats.kstest(noise / np.sqrt(variance), "norm").pvalue > 1e-3


def test_noise_repeats_for_its_key_and_differs_for_another():
    one = mechanism.noise(b"k" * 32, 1e6, 50)
    assert (one == mechanism.noise(b"k" * 32, 1e6, 50)).all()
    assert (one != mechanism.noise(b"l" * 32, 1e6, 50)).any()


def test_a_rounded_gaussian_is_the_discrete_gaussian_that_the_accountant_assumes():
    """Peikert's theorem, in numbers: a continuous Gaussian of variance v − 4, rounded at random."""
    v, rounding = 30.0, float(mechanism.ROUNDING_VARIANCE)
    y = np.linspace(-80, 80, 8_001)
    density = np.exp(-(y**2) / (2 * (v - rounding)))
    x = np.arange(-60, 61)
    kernel = np.exp(-((x[:, None] - y) ** 2) / (2 * rounding))
    reach = np.arange(-120, 121)
    norm = sum(np.exp(-((r - y) ** 2) / (2 * rounding)) for r in reach)
    found = (kernel / norm * density).sum(1)
    wanted = np.exp(-(x**2) / (2 * v))
    ratio = (found / found.sum()) / (wanted / wanted.sum())
    assert np.abs(ratio - 1).max() < 1e-12


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
