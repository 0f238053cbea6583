"""As-of look-ups: against a plain loop, and blind to what comes later."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.learning.series import Series, spread

times = st.lists(st.integers(0, 200), unique=True, max_size=30).map(sorted)


def made(known_s, max_age_s, seed=0):
    value = np.random.default_rng(seed).normal(size=len(known_s))
    return Series(np.array(known_s, np.int64), value, max_age_s)


def newest(series, t):
    known = [i for i, k in enumerate(series.known_s) if k <= t]
    fresh = known and t - series.known_s[known[-1]] <= series.max_age_s
    return known[-1] if fresh else None


@given(times, st.integers(1, 40), st.integers(0, 60))
def test_look_ups_equal_a_plain_loop(known_s, max_age_s, lag_s):
    series, at_s = made(known_s, max_age_s), np.arange(0, 260)
    value, change = series.at(at_s), series.change(at_s, lag_s)
    for t in at_s:
        now, before = newest(series, t), newest(series, t - lag_s)
        assert np.isnan(value[t]) if now is None else value[t] == series.value[now]
        steps = [] if now is None or before is None else np.diff(series.known_s[before : now + 1])
        if len(steps) == 0 or any(s > max_age_s for s in steps):
            assert np.isnan(change[t])
        else:
            assert change[t] == series.value[now] - series.value[before]


@given(times, st.integers(1, 40), st.integers(0, 200))
def test_what_comes_later_changes_nothing(known_s, max_age_s, now_s):
    series = made(known_s, max_age_s)
    past = series.known_s <= now_s
    cut = Series(series.known_s[past], series.value[past], max_age_s)
    at_s = np.arange(0, now_s + 1)
    assert np.array_equal(series.at(at_s), cut.at(at_s), equal_nan=True)
    assert np.array_equal(series.change(at_s, 24), cut.change(at_s, 24), equal_nan=True)


def test_a_spread_needs_two():
    one = Series(np.array([0, 10]), np.array([1.0, 2.0]), 5)
    two = Series(np.array([4, 10]), np.array([4.0, -1.0]), 5)
    width = spread((one, two), np.array([0, 4, 7, 12]))
    assert np.isnan(width[[0, 2]]).all()
    assert width[[1, 3]].tolist() == [3.0, 3.0]
    assert np.isnan(spread((one,), np.array([0]))).all()


def test_times_must_rise():
    with pytest.raises(ValueError, match="the times rise"):
        Series(np.array([1, 1]), np.array([1.0, 2.0]), 5)
