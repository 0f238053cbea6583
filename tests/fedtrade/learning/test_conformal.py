"""Coverage is a law of the controller, not a hope about the data."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrade.learning.conformal import FAST, AdaptiveInterval, interval_score

START = AdaptiveInterval.fitted(np.random.default_rng(0).standard_normal(2000))


@settings(deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=300))
def test_misses_are_what_the_controller_moved_whatever_comes(residuals: list[float]) -> None:
    state, missed = START, 0
    for residual in residuals:
        low, high = state.around(0.0)
        missed += residual < low or residual > high
        state = state.observe(residual)
    moved = (state.offset - START.offset) / (FAST * START.width)
    assert missed == pytest.approx(0.1 * len(residuals) + moved)


@given(st.lists(st.floats(-20, 20), min_size=2, max_size=60), st.integers(0, 59), st.floats(-9, 9))
def test_a_bound_depends_on_nothing_that_comes_after(
    targets: list[float], place: int, change: float
) -> None:
    place %= len(targets)
    target = np.array(targets)
    forecast = np.zeros(len(target))
    lower, upper, _ = START.track(forecast, target)
    target[place:] += change
    again_lower, again_upper, _ = START.track(forecast, target)
    assert (lower[: place + 1] == again_lower[: place + 1]).all()
    assert (upper[: place + 1] == again_upper[: place + 1]).all()


def test_coverage_survives_a_change_of_regime_that_fixed_quantiles_do_not() -> None:
    draw = np.random.default_rng(1)
    target = np.concatenate([draw.standard_normal(2000), 2.5 * draw.standard_normal(1000) + 1.0])
    lower, upper, _ = START.track(np.zeros(3000), target)
    inside = (target >= lower) & (target <= upper)
    fixed = (target >= START.lower) & (target <= START.upper)
    assert fixed[2000:].mean() < 0.65
    assert inside[2000:2200].mean() == pytest.approx(0.9, abs=0.05)  # the shock itself
    for window in (slice(0, 2000), slice(2200, 3000)):
        assert inside[window].mean() == pytest.approx(0.9, abs=0.01)


def test_in_quiet_times_it_is_hardly_wider_than_it_must_be() -> None:
    target = np.random.default_rng(2).standard_normal(20_000)
    lower, upper, _ = START.track(np.zeros(20_000), target)
    fixed = interval_score(np.full(20_000, -1.645), np.full(20_000, 1.645), target).mean()
    assert interval_score(lower, upper, target).mean() < 1.08 * fixed


def test_each_tail_finds_its_own_place() -> None:
    target = np.random.default_rng(3).exponential(size=60_000)  # all of its tail is above
    _, _, state = AdaptiveInterval.fitted(target[:100]).track(np.zeros(60_000), target)
    assert state.lower == pytest.approx(0.051, abs=0.08)
    assert state.upper == pytest.approx(3.0, abs=0.3)


def test_the_state_is_small_frozen_and_repeatable() -> None:
    assert START.observe(3.0) == START.observe(3.0) != START
    assert START.observe(float("nan")) == START
    with pytest.raises(dataclasses.FrozenInstanceError):
        START.offset = 0.0  # type: ignore[misc]
    empty = dataclasses.replace(START, offset=-10 * START.width)
    low, high = empty.around(1.0)
    assert low == high


def test_the_interval_score_is_proper() -> None:
    target = np.random.default_rng(4).standard_normal(50_000)
    scores = {
        z: interval_score(np.full(50_000, -z), np.full(50_000, z), target).mean()
        for z in (1.2, 1.4, 1.645, 1.9, 2.2)
    }
    assert min(scores, key=lambda z: scores[z]) == 1.645


def test_too_little_history_is_refused() -> None:
    with pytest.raises(ValueError, match="residuals"):
        AdaptiveInterval.fitted(np.zeros(10))
    with pytest.raises(ValueError, match="miscoverage"):
        AdaptiveInterval.fitted(np.arange(200.0), 1.0)
