"""Random buckets and the trimmed mean: the breakdown point holds, and the price is as stated."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.privacy import robust
from fedtrade.privacy.mechanism import NotFinite

beacons = st.binary(min_size=32, max_size=32)


@given(st.sets(st.integers(0, 10**6), min_size=3, max_size=60), st.integers(1, 9), beacons)
def test_buckets_are_a_partition_into_as_many_as_fit(cohort, bucket_min, beacon):
    if len(cohort) < bucket_min:
        with pytest.raises(robust.TooFewForBuckets):
            robust.buckets(tuple(cohort), bucket_min, beacon)
        return
    groups = robust.buckets(tuple(cohort), bucket_min, beacon)
    assert sorted(m for g in groups for m in g) == sorted(cohort)
    assert all(list(g) == sorted(g) for g in groups)
    sizes = [len(g) for g in groups]
    assert min(sizes) >= bucket_min
    assert max(sizes) - min(sizes) <= 1
    assert len(groups) == len(cohort) // bucket_min
    assert groups == robust.buckets(sorted(cohort, reverse=True), bucket_min, beacon)


def test_the_draw_is_fixed_for_ever():
    """A transcript of today must be verified by a library of tomorrow."""
    assert robust.buckets(range(10), 3, b"b" * 32) == ((0, 3, 7, 9), (1, 5, 8), (2, 4, 6))


def test_every_pair_of_members_meets_as_often_as_chance_has_it():
    together = np.zeros((12, 12))
    draws = 3000
    for i in range(draws):
        for group in robust.buckets(range(12), 3, i.to_bytes(32, "big")):
            together[np.ix_(group, group)] += 1
    share = together[np.triu_indices(12, 1)] / draws
    expected = 2 / 11
    deviation = math.sqrt(expected * (1 - expected) / draws)
    assert np.abs(share - expected).max() < 5 * deviation


@pytest.mark.parametrize(("cohort", "bucket_min"), [((1, 2, 2), 2), ((1, 2, 3), 0)])
def test_a_cohort_that_names_a_member_twice_is_no_cohort(cohort, bucket_min):
    with pytest.raises(ValueError, match="once"):
        robust.buckets(cohort, bucket_min, b"b" * 32)


matrices = st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 2**32 - 1))


@given(matrices)
def test_it_is_the_mean_of_what_is_left_and_no_order_changes_a_bit(drawn):
    trim, more, seed = drawn
    rng = np.random.default_rng(seed)
    means = rng.standard_normal((2 * trim + 1 + more, 6)) * 10.0 ** rng.integers(-9, 9)
    means[rng.random(means.shape) < 0.2] = -0.0
    means[rng.random(means.shape) < 0.1] = 0.0
    result = robust.trimmed_mean(means, trim)
    exact = [
        math.fsum(sorted(column)[trim : len(column) - trim]) / (len(column) - 2 * trim)
        for column in means.T
    ]
    assert np.allclose(result, exact, rtol=1e-12, atol=1e-12 * np.abs(means).max())
    again = robust.trimmed_mean(means[rng.permutation(len(means))], trim)
    assert result.tobytes() == again.tobytes()


@given(matrices, st.sampled_from([1e300, -1e300, 1e-3, 0.0]))
def test_up_to_trim_spoiled_buckets_stay_within_the_honest_values(drawn, value):
    trim, more, seed = drawn
    rng = np.random.default_rng(seed)
    means = rng.standard_normal((2 * trim + 1 + more, 4))
    honest = means[trim:]
    means[:trim] = value * rng.standard_normal((trim, 4))
    result = robust.trimmed_mean(means, trim)
    assert (result >= honest.min(axis=0) - 1e-12).all()
    assert (result <= honest.max(axis=0) + 1e-12).all()


def test_one_spoiled_bucket_more_and_it_is_lost():
    means = np.zeros((5, 1))
    means[:2] = 1e9
    assert robust.trimmed_mean(means, 2) == 0
    means[2] = 1e9
    assert robust.trimmed_mean(means, 2) == 1e9


def test_too_few_buckets_to_trim_and_values_that_are_not_finite_are_refused():
    with pytest.raises(robust.TooFewForBuckets) as caught:
        robust.trimmed_mean(np.zeros((4, 2)), 2)
    assert (caught.value.found, caught.value.needed) == (4, 5)
    with pytest.raises(ValueError, match="counts"):
        robust.trimmed_mean(np.zeros((4, 2)), -1)
    for value in (math.nan, math.inf):
        with pytest.raises(NotFinite):
            robust.trimmed_mean(np.full((3, 1), value), 1)


def test_the_price_in_noise_is_as_the_docstring_states():
    """Each of g buckets carries the noise of one sum over 1/g of the batch, and trimming adds more."""
    rng, width = np.random.default_rng(0), 40_000
    one_sum = rng.standard_normal(width).std()
    for g, trim, factor in ((10, 0, 1.0), (10, 1, 1.03), (10, 2, 1.07), (13, 6, 1.23)):
        means = g * rng.standard_normal((g, width))  # noise 1 on a sum, batch 1/g
        deviation = robust.trimmed_mean(means, trim).std()
        assert deviation / one_sum == pytest.approx(factor * math.sqrt(g), rel=0.025)
