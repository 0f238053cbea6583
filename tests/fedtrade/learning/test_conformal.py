"""Coverage is a law of the controller, not a hope about the data."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrade.learning.conformal import (
    FAST,
    AdaptiveInterval,
    Track,
    interval_score,
    track_markets,
)
from fedtrade.learning.tables import HOUR_S

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
    """Most of it is the price of the controller; alone, a market guesses its scale from few hours."""
    markets = [quiet(seed, 10_500) for seed in range(12)]
    assert mean_score(markets, track_markets(markets)) < 1.06
    alone = [track_markets([one])[0] for one in markets[:2]]
    assert mean_score(markets[:2], alone) < 1.12


def quiet(seed: int, hours: int) -> Track:
    target = np.random.default_rng(seed).standard_normal(hours)
    return Track(HOUR_S * np.arange(hours), np.zeros(hours), target, 500)


def mean_score(markets: list[Track], bounds: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """The interval score over that of the best fixed interval of a standard normal."""
    fixed = interval_score(
        np.full(10**5, -1.645), np.full(10**5, 1.645), quiet(99, 10**5).log_target
    )
    own = [
        interval_score(*sides, one.log_target[one.calibration :]).mean()
        for one, sides in zip(markets, bounds, strict=True)
    ]
    return float(np.mean(own) / fixed.mean())


def test_each_tail_is_missed_as_often_as_the_other() -> None:
    target = np.random.default_rng(3).exponential(size=60_000)  # all of its tail is above
    start = AdaptiveInterval.fitted(target[:100])
    lower, upper, _ = start.track(np.zeros(60_000), target)
    late = slice(20_000, None)
    assert (target < lower)[late].mean() == pytest.approx(0.05, abs=0.01)
    assert (target > upper)[late].mean() == pytest.approx(0.05, abs=0.01)


def test_markets_that_jump_together_are_covered_better_together() -> None:
    """In each storm all are three times as far off as usual, and too low."""
    storms = [slice(begin, begin + 24) for begin in range(700, 3_000, 400)]
    markets = [quiet(seed, 3_000) for seed in range(12)]
    for one in markets:
        for storm in storms:
            one.log_target[storm] = 3.0 * one.log_target[storm] + 2.0
    stormy = np.concatenate([np.r_[storm] for storm in storms]) - 500

    def covered(bounds: list[tuple[np.ndarray, np.ndarray]]) -> float:
        inside = [
            ((one.log_target[500:] >= low) & (one.log_target[500:] <= high))[stormy].mean()
            for one, (low, high) in zip(markets, bounds, strict=True)
        ]
        return float(np.mean(inside))

    fixed = [(np.full(2_500, -1.645), np.full(2_500, 1.645))] * len(markets)
    together = covered(track_markets(markets))
    assert covered(fixed) < 0.45
    assert together > 0.8
    assert together > covered([track_markets([one])[0] for one in markets])


def test_bounds_over_markets_see_the_hours_before_and_none_after() -> None:
    calm, other = quiet(1, 900), quiet(2, 900)
    before = track_markets([calm, other])
    changed = other.log_target.copy()
    changed[700] += 30.0
    after = track_markets([calm, dataclasses.replace(other, log_target=changed)])
    for honest, again in zip(before, after, strict=True):
        for side, same in zip(honest, again, strict=True):
            assert (side[:201] == same[:201]).all()
    assert after[0][1][201] > before[0][1][201] + 1.0  # the calm market hears of it an hour later
    one = track_markets([calm])[0]
    first = AdaptiveInterval.fitted(calm.log_target[:500])
    lower, upper, _ = first.track(calm.log_forecast[500:], calm.log_target[500:])
    assert np.allclose(one, (lower, upper), atol=1e-12)


def test_hours_that_some_markets_lack_are_taken_from_those_that_have_them() -> None:
    calm, late = quiet(1, 900), quiet(2, 700)
    late = dataclasses.replace(late, end_s=late.end_s + 200 * HOUR_S)
    bounds = track_markets([calm, late])
    assert [len(low) for low, _ in bounds] == [400, 200]
    assert all(np.isfinite(side).all() for sides in bounds for side in sides)
    assert track_markets([]) == []


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
        AdaptiveInterval.fitted(np.arange(200.0), miscoverage=1.0)
