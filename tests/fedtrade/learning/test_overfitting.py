"""Luck is called luck and skill is called skill; the papers' own numbers come out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.learning.overfitting import (
    deflated_sharpe,
    expected_best_sharpe,
    overfitting_probability,
    probabilistic_sharpe,
    sharpe_ratio,
)


def test_the_worked_example_of_the_deflated_sharpe_ratio() -> None:
    """Bailey and López de Prado (2014): five years of days, SR 2.5 a year, the best of 100."""
    best = expected_best_sharpe(100, 0.5 / 250)
    assert best == pytest.approx(0.1132, abs=5e-5)
    deflated = probabilistic_sharpe(2.5 / math.sqrt(250), 1250, -3.0, 10.0, best)
    assert deflated == pytest.approx(0.9004, abs=5e-5)
    # "46 independent trials instead of 100, with normal returns: about 0.95"
    fewer = expected_best_sharpe(46, 0.5 / 250)
    assert probabilistic_sharpe(2.5 / math.sqrt(250), 1250, -3.0, 10.0, fewer) == pytest.approx(
        0.9505, abs=5e-5
    )


def test_the_best_of_many_draws_is_what_the_formula_says() -> None:
    draw = np.random.default_rng(0)
    best = draw.standard_normal((4000, 50)).max(1).mean()
    assert expected_best_sharpe(50, 1.0) == pytest.approx(best, rel=0.02)


def test_luck_is_deflated_and_skill_is_not() -> None:
    draw = np.random.default_rng(1)
    noise = draw.standard_normal((1500, 200))
    sharpes = np.array([sharpe_ratio(column) for column in noise.T])
    lucky = noise[:, sharpes.argmax()]
    assert probabilistic_sharpe(sharpe_ratio(lucky), 1500, 0.0, 3.0) > 0.95  # undeflated: fooled
    assert deflated_sharpe(lucky, sharpes) < 0.9
    skilled = noise[:, 0] + 0.2
    assert deflated_sharpe(skilled, np.append(sharpes, sharpe_ratio(skilled))) > 0.99


@given(st.floats(0.0, 0.3), st.integers(50, 5000), st.floats(0.0, 0.2))
def test_more_trials_or_a_higher_bar_never_help(
    sharpe: float, periods: int, benchmark: float
) -> None:
    plain = probabilistic_sharpe(sharpe, periods, 0.0, 3.0)
    assert probabilistic_sharpe(sharpe, periods, 0.0, 3.0, benchmark) <= plain
    assert expected_best_sharpe(10, 0.01) < expected_best_sharpe(100, 0.01)


def test_noise_is_overfitted_half_the_time() -> None:
    draw = np.random.default_rng(2)
    found = [overfitting_probability(draw.standard_normal((480, 20)), 8) for _ in range(60)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.06)


def test_a_planted_skill_is_not_overfitted() -> None:
    returns = np.random.default_rng(3).standard_normal((960, 20))
    returns[:, 7] += 0.3
    assert overfitting_probability(returns) < 0.01


def test_what_is_best_in_one_half_only_because_it_is_worst_in_the_other_is_overfitted() -> None:
    """Detrended noise: what gained in one half must have lost in the other."""
    returns = np.random.default_rng(4).standard_normal((960, 20))
    assert overfitting_probability(returns - returns.mean(0)) > 0.9


def test_copies_of_one_strategy_are_neither() -> None:
    one = np.random.default_rng(5).standard_normal((320, 1))
    assert overfitting_probability(np.repeat(one, 6, axis=1), 4) == pytest.approx(0.5)


def test_impossible_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match="slices"):
        overfitting_probability(np.zeros((100, 3)), 5)
    with pytest.raises(ValueError, match="slices"):
        overfitting_probability(np.zeros((10, 3)), 8)
    with pytest.raises(ValueError, match="trial"):
        expected_best_sharpe(0, 1.0)
    with pytest.raises(ValueError, match="never move"):
        deflated_sharpe(np.ones(10), np.ones(3))
    with pytest.raises(ValueError, match="distribution"):
        probabilistic_sharpe(1.0, 100, 5.0, 3.0)
    assert sharpe_ratio(np.ones(5)) == 0.0
