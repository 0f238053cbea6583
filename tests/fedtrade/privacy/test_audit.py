"""The bounds of ε and the tests of noise: against closed forms, accountants, and simulated runs."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from fedtrade.privacy import accounting, audit
from fedtrade.privacy.audit import Guesses

DELTA = 1e-6
CANARIES = 3_000


def run(mu, rng, canaries=CANARIES):
    """Scores of a μ-GDP mechanism: coins seen through Gaussian noise of deviation 1/μ."""
    coins = rng.random(canaries) < 0.5
    return audit.show(mu * coins + rng.standard_normal(canaries), coins, DELTA)


def test_all_guesses_right_has_a_closed_form():
    """At δ = 0 the chance is q^r, so the bound is the logit of level^(1/r)."""
    q = 0.01 ** (1 / 50)
    found = audit.epsilon_one_run(Guesses(200, 50, 50), 0.0, 0.01)
    assert found == pytest.approx(math.log(q / (1 - q)), abs=1e-4)


@pytest.mark.parametrize(("made", "right", "epsilon"), [(20, 15, 0.4), (60, 50, 1.0), (9, 9, 2.0)])
def test_the_chance_is_the_theorem_s_written_out(made, right, epsilon):
    q = 1 / (1 + math.exp(-epsilon))
    tail = sum(binom.pmf(x, made, q) for x in range(right, made + 1))
    worst = max(
        sum(binom.pmf(x, made, q) for x in range(right - i, right)) / i for i in range(1, right + 1)
    )
    expected = min(1.0, tail + 2 * 100 * 1e-3 * worst)
    assert audit.chance(Guesses(100, made, right), epsilon, 1e-3) == pytest.approx(expected)


def test_the_f_dp_test_never_refutes_what_a_fair_coin_does():
    """With no privacy loss at all (μ = 0) guesses are Binomial(r, 1/2): refusals stay below level."""
    made, level = 200, 0.04
    first = next(
        v for v in range(made + 1) if audit._overflow(Guesses(1_000, made, v), 0, level) > 0
    )
    assert binom.sf(first - 1, made, 0.5) <= level
    assert binom.sf(first - 40, made, 0.5) > level  # it refutes long before all are right


@given(st.integers(1, 150), st.integers(0, 149))
def test_more_right_guesses_never_show_less(made, right):
    right = min(right, made - 1)
    fewer, more = Guesses(300, made, right), Guesses(300, made, right + 1)
    for bound in (audit.epsilon_one_run, audit.epsilon_f_dp):
        assert bound(more, DELTA, 0.02) >= bound(fewer, DELTA, 0.02)


@given(st.integers(1, 100))
def test_guesses_no_better_than_chance_show_nothing(half):
    g = Guesses(300, 2 * half, half)
    assert audit.epsilon_one_run(g, DELTA, 0.02) == 0.0
    assert audit.epsilon_f_dp(g, DELTA, 0.02) == 0.0


@pytest.mark.parametrize("mu", [0.2, 0.8, 2.0])
def test_gaussian_epsilon_is_the_accountant_s(mu):
    pld = accounting.epsilon([accounting.Spend(1.0, 1 / mu, 1)], DELTA).pld
    assert audit.gaussian_epsilon(mu, DELTA) == pytest.approx(pld, rel=0.01)
    assert audit.gaussian_epsilon(0.0, DELTA) == 0.0


@pytest.mark.parametrize("mu", [0.5, 0.8])
def test_right_noise_passes_and_half_the_noise_fails(mu):
    """Over seeds: at most 5 % false alarms, and half the noise is found nearly always."""
    rng = np.random.default_rng(3)
    claim = audit.gaussian_epsilon(mu, DELTA)
    alarms = [run(mu, rng).epsilon > claim for _ in range(60)]
    caught = [run(2 * mu, rng).epsilon > claim for _ in range(60)]
    assert np.mean(alarms) <= 0.05
    assert np.mean(caught) >= 0.9


def test_no_noise_is_shown_as_far_as_canaries_can_show_it():
    shown = run(1e3, np.random.default_rng(1))
    assert shown.guesses.right == shown.guesses.made
    assert shown.epsilon > audit.gaussian_epsilon(1.2, DELTA)


def test_how_many_are_guessed_does_not_depend_on_the_scores():
    rng = np.random.default_rng(5)
    made = {run(mu, rng).guesses.made for mu in (0.0, 0.5, 5.0)}
    assert made == {round(audit.SHARE * CANARIES)}


def gaussian(z, rng, shape=(5, 4_000)):
    return z * rng.standard_normal(shape)


@pytest.mark.parametrize("z", [0.5, 30.0])
def test_the_interval_holds_the_deviation_and_no_test_objects_too_often(z):
    rng = np.random.default_rng(13)
    runs = [audit.measure_noise(gaussian(z, rng)) for _ in range(200)]
    assert sum(not run.low < z < run.high for run in runs) <= 2
    assert sum(run.odd for run in runs) <= 2
    assert np.mean([run.repeats for run in runs]) == pytest.approx(0.5, abs=0.1)
    assert all(run.high < 1.04 * run.low for run in runs)  # and it says something


def test_a_hundredth_of_a_level_of_intervals_is_exact():
    """With few values the chi-squared interval still misses as often as it says."""
    rng = np.random.default_rng(17)
    squares = np.square(rng.standard_normal((20_000, 3)))
    one = audit.measure_noise(np.ones((1, 3)))
    low, high = (bound / one.deviation for bound in (one.low, one.high))
    deviations = np.sqrt(squares.mean(1))
    missed = np.mean((deviations * low > 1) | (deviations * high < 1))
    assert missed == pytest.approx(audit.NOISE_LEVEL, abs=0.0008)


def test_half_and_missing_noise_are_measured_as_what_they_are():
    rng = np.random.default_rng(19)
    half, none = audit.measure_noise(gaussian(15.0, rng)), audit.measure_noise(np.zeros((2, 50)))
    assert half.high < 16 < 30
    assert (none.deviation, none.high, none.odd) == (0.0, 0.0, True)


@pytest.mark.parametrize(
    "drawn",
    [
        lambda rng, shape: rng.uniform(-1, 1, shape) * 3**0.5,
        lambda rng, shape: rng.laplace(size=shape) / 2**0.5,
        lambda rng, shape: rng.standard_normal(shape) * (rng.random(shape) < 0.9) / 0.9**0.5,
    ],
)
def test_noise_of_another_shape_is_found(drawn):
    found = audit.measure_noise(drawn(np.random.default_rng(23), (5, 4_000)))
    assert found.deviation == pytest.approx(1.0, rel=0.03)
    assert found.shape < audit.NOISE_LEVEL
    assert found.odd


def test_noise_that_comes_again_or_cancels_is_found():
    rng = np.random.default_rng(29)
    whole = gaussian(1.0, rng)
    again = np.repeat(whole[:1], 5, axis=0)
    cancels = np.concatenate([whole[:2], -whole[:2]])
    for residuals in (again, cancels):
        found = audit.measure_noise(residuals)
        assert found.shape > audit.NOISE_LEVEL
        assert found.repeats < audit.NOISE_LEVEL
        assert found.odd
    assert audit.measure_noise(whole[:1]).repeats is None


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((0, 3)), np.full((2, 2), np.nan)])
def test_residuals_that_are_none_are_refused(bad):
    with pytest.raises(ValueError, match="residuals"):
        audit.measure_noise(bad)


@pytest.mark.parametrize("bad", [np.array([1.0, np.nan]), np.array([1.0]), np.zeros(3)])
def test_scores_that_are_none_are_refused(bad):
    with pytest.raises(ValueError, match="scores"):
        audit.show(bad, np.zeros(2 if len(bad) != 1 else 1, bool), DELTA)


def test_impossible_counts_are_refused():
    with pytest.raises(ValueError, match="right"):
        Guesses(10, 5, 6)
