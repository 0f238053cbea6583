"""The yardsticks themselves: QLIKE is minimal at the truth, R² and Diebold–Mariano are textbook."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.learning.baseline import DEMAND_FEATURES, HAR_FEATURES, fit_linear, public_tables
from fedtrade.learning.evaluation import (
    diebold_mariano,
    evaluate,
    evaluate_linear,
    newey_west_lag,
    persistence,
    pinball,
    qlike,
    r_squared,
    sample,
)
from fedtrade.learning.tables import TEST_UNTIL_S, TRAIN_UNTIL_S, candles

JUDGED = sample()


def test_out_of_sample_is_after_the_cut_and_everywhere() -> None:
    assert JUDGED.end_s.min() == TRAIN_UNTIL_S
    assert JUDGED.end_s.max() == TEST_UNTIL_S - 3600
    assert len(set(JUDGED.market)) == 8  # hyperliquid ends before, lighter has no full week
    assert len(JUDGED.rows) == len(JUDGED.targets) == len(JUDGED.market) == 21_312


def test_targets_belong_to_their_rows() -> None:
    row = 12_345
    table = candles(*JUDGED.market[row])
    after = int(np.flatnonzero(table.start_s == JUDGED.end_s[row])[0])
    log_range = np.log(table.high[after] / table.low[after])
    assert JUDGED.targets[row, 0] == pytest.approx(np.log(log_range**2 / (4 * np.log(2))))


@given(st.floats(-20, 5), st.floats(-3, 3))
def test_qlike_is_zero_at_the_truth_only(log_variance: float, error: float) -> None:
    truth = np.array([log_variance])
    assert qlike(truth, truth)[0] == 0.0
    if abs(error) > 1e-6:
        assert qlike(truth, truth + error)[0] > 0.0


def test_qlike_asks_for_the_mean_of_the_variance() -> None:
    draw = np.random.default_rng(0)
    log_variance = draw.standard_normal(200_000)
    scores = {s: qlike(log_variance, np.full(200_000, s)).mean() for s in (0.3, 0.4, 0.5, 0.6, 0.7)}
    assert min(scores, key=lambda s: scores[s]) == 0.5  # log E[exp z] = 1/2


def test_r_squared_of_the_mean_is_zero_and_of_the_truth_is_one() -> None:
    target = np.random.default_rng(0).standard_normal(100)
    assert r_squared(target, np.full(100, target.mean())) == pytest.approx(0.0)
    assert r_squared(target, target) == 1.0


def test_diebold_mariano_has_its_nominal_size_under_dependence() -> None:
    """Equal accuracy with losses correlated over 12 hours and over markets: p < 0.05 in some 5 %."""
    draw = np.random.default_rng(0)
    hours = np.repeat(np.arange(1500), 4)
    rejected = 0
    for _ in range(200):
        shocks = draw.standard_normal(1511)
        hourly = np.convolve(shocks, np.ones(12) / 12, mode="valid")
        both = np.repeat(hourly, 4) + 0.1 * draw.standard_normal(6000)
        rejected += diebold_mariano(both, np.zeros(6000), hours)[1] < 0.05
    assert rejected <= 24


def test_diebold_mariano_sees_a_difference_and_its_sign() -> None:
    draw = np.random.default_rng(1)
    hours = np.arange(1000)
    worse = 0.2 + draw.standard_normal(1000)
    statistic, p = diebold_mariano(np.zeros(1000), worse, hours)
    assert statistic < 0
    assert p < 1e-4
    assert diebold_mariano(worse, np.zeros(1000), hours)[0] == pytest.approx(-statistic)
    assert diebold_mariano(worse, worse, hours) == (0.0, 1.0)
    with pytest.raises(ValueError, match="hours"):
        diebold_mariano(worse[:20], worse[:20], hours[:20])


def test_har_beats_persistence_and_the_richer_model_beats_har() -> None:
    tables = public_tables()
    har = evaluate_linear(
        fit_linear(tables, "log_variance", HAR_FEATURES),
        fit_linear(tables, "log_demand", DEMAND_FEATURES),
        JUDGED,
    )
    linear = evaluate_linear(
        fit_linear(tables, "log_variance"), fit_linear(tables, "log_demand"), JUDGED
    )
    naive = persistence(JUDGED)
    assert linear.qlike < har.qlike < naive.qlike
    assert 0.6 < har.r2 < linear.r2 < 0.7
    assert naive.r2 < har.r2
    assert set(har.as_dict()) == {"qlike", "r2", "mse", "demand_r2"}
    assert diebold_mariano(har.losses, naive.losses, JUDGED.end_s)[1] < 1e-6


def test_evaluate_uses_the_smearing_factor_for_qlike_only() -> None:
    forecast = JUDGED.targets + 0.3
    plain, shifted = evaluate(forecast, 0.0, JUDGED), evaluate(forecast, -0.3, JUDGED)
    assert shifted.qlike == pytest.approx(0.0, abs=1e-12)
    assert plain.qlike > 0.03
    assert plain.r2 == shifted.r2
    assert plain.mse == pytest.approx(0.09)


@pytest.mark.parametrize("level", [0.05, 0.5, 0.9])
def test_pinball_is_least_at_the_quantile(level: float) -> None:
    target = np.random.default_rng(0).exponential(size=20_000)
    truth = -np.log(1 - level)
    losses = {
        q: pinball(target, np.full(20_000, q), level).mean()
        for q in truth * np.array([0.7, 1.0, 1.3])
    }
    assert min(losses, key=lambda q: losses[q]) == truth
    with pytest.raises(ValueError, match="level"):
        pinball(target, target, 1.0)


def test_the_lag_grows_with_the_memory_of_the_losses() -> None:
    shocks = np.random.default_rng(0).standard_normal(6_000)
    slow = np.zeros(6_000)
    for i in range(1, 6_000):
        slow[i] = 0.95 * slow[i - 1] + shocks[i]
    assert newey_west_lag(shocks) == 24
    assert newey_west_lag(slow) > 100
    assert newey_west_lag(slow[:90]) == 30
    # At ρ = 0.95 a lag of a day calls far too much significant; the longer one does not.
    rejected = 0
    draw = np.random.default_rng(1)
    for _ in range(100):
        shocks = draw.standard_normal(3_000)
        for i in range(1, 3_000):
            shocks[i] += 0.95 * shocks[i - 1]
        rejected += diebold_mariano(shocks, np.zeros(3_000), np.arange(3_000))[1] < 0.05
    assert rejected <= 13
