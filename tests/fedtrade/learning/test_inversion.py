"""The red team's attacks: what they must be able to do, and what they cannot."""

import numpy as np
import pytest
import torch

from fedtrade.artifact import NetworkShape
from fedtrade.learning import inversion
from fedtrade.learning.baseline import initial_arrays
from fedtrade.learning.inversion import Effort, Prior
from fedtrade.learning.network import clipped_gradient_sum
from fedtrade.learning.windows import PositionBatch

PUBLIC, WIDTH = 8, 12
PRIVATE = range(PUBLIC, WIDTH)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def rng():
    return np.random.default_rng(2)


@pytest.fixture
def arrays(rng):
    plain = initial_arrays(NetworkShape(inputs=WIDTH, hidden=(16, 8), outputs=2), seed=3)
    head = rng.standard_normal(plain["head.weight"].shape) / 2
    return {**plain, "head.weight": head.astype(np.float32)}


@pytest.fixture
def population(rng):
    rows = rng.standard_normal((500, WIDTH)).astype(np.float32)
    rows[:, -1] = rng.choice([-1.0, 1.0], 500)
    return rows


def update(arrays, rows, rng, clip_norm=1.0):
    targets = rng.standard_normal((len(rows), 1, 2)).astype(np.float32)
    batch = PositionBatch(rows[:, None], targets, np.ones((len(rows), 1), np.float32))
    return clipped_gradient_sum(arrays, batch, clip_norm)[0]


def scenes(arrays, population, count, rng, number=4):
    picks = [rng.choice(len(population), count, replace=False) for _ in range(number)]
    seen = np.stack([update(arrays, population[p], rng) for p in picks])
    return seen, inversion.standardise(arrays, population[np.stack(picks)])


def test_the_attacker_s_gradient_is_the_member_s(arrays, population):
    """With the true rows and slopes the differentiable sum equals `clipped_gradient_sum`."""
    rows = population[:5]
    far = np.full((5, 1, 2), 1e3, np.float32)  # every slope at its knee
    batch = PositionBatch(rows[:, None], far, np.ones((5, 1), np.float32))
    real, _ = clipped_gradient_sum(arrays, batch, 0.7)
    slopes = torch.tensor(inversion.SLOPE_MAX) * -torch.ones(1, 5, 2)
    own = inversion._Layers.of(arrays).clipped_sum(torch.tensor(rows)[None], slopes, 0.7)
    assert own[0].numpy() == pytest.approx(real, abs=1e-5)


def test_one_row_is_read_off_exactly(arrays, population, rng):
    seen, truth = scenes(arrays, population, 1, rng)
    assert inversion.analytic_rows(arrays, seen) == pytest.approx(truth[:, 0], abs=1e-6)


def test_several_rows_are_read_off_with_public_data(arrays, population, rng):
    seen, truth = scenes(arrays, population, 4, rng)
    contexts = inversion.standardise(arrays, population)[:, :PUBLIC]
    found = inversion.context_rows(arrays, seen, 4, contexts, PUBLIC)
    prior = Prior.of(inversion.standardise(arrays, population))
    result = inversion.judge(found, truth, prior, PRIVATE)
    assert result.error == pytest.approx(0.0, abs=1e-6)
    assert result.recovered == pytest.approx(1.0)


def test_matching_beats_the_prior_without_noise_and_not_with_it(arrays, population, rng):
    prior = Prior.of(inversion.standardise(arrays, population))
    seen, truth = scenes(arrays, population, 1, rng, number=6)
    nothing = inversion.judge_prior(truth, prior, PRIVATE).error.mean()
    length = seen.shape[1]
    effort = Effort(steps=250)

    def error(observed, variance):
        found = inversion.match(
            arrays, observed, np.full(length, variance), 1, prior, 1.0, rng, effort
        )
        return inversion.judge(found, truth, prior, PRIVATE).error.mean()

    assert error(seen, 1e-12) < 0.7 * nothing
    loud = seen + 10.0 * rng.standard_normal(seen.shape)
    assert error(loud, 100.0) > 0.85 * nothing


def test_noise_defeats_public_data(arrays, population, rng):
    seen, truth = scenes(arrays, population, 2, rng, number=10)
    contexts = inversion.standardise(arrays, population)[:, :PUBLIC]
    prior = Prior.of(inversion.standardise(arrays, population))
    loud = seen + 2.0 * rng.standard_normal(seen.shape)
    found = inversion.context_rows(arrays, loud, 2, contexts, PUBLIC)
    nothing = inversion.judge_prior(truth, prior, PRIVATE).error.mean()
    assert inversion.judge(found, truth, prior, PRIVATE).error.mean() > 0.9 * nothing


def test_rows_are_compared_under_the_best_pairing(population):
    prior = Prior.of(population.astype(np.float64))
    truth = population[None, :5].astype(np.float64)
    assert inversion.judge(truth[:, ::-1], truth, prior, PRIVATE).error == pytest.approx(0.0)
    moved = inversion.judge(truth + 10 * prior.deviation, truth, prior, PRIVATE)
    assert moved.error == pytest.approx(10.0)


def test_the_prior_knows_marginals_and_few_values(population):
    prior = Prior.of(population.astype(np.float64))
    assert prior.values[-1] == (-1.0, 1.0)
    assert prior.values[0] == ()
    assert set(prior.rounded(population[:50] * 0.3)[:, -1]) == {-1.0, 1.0}
    crowd = np.r_[np.linspace(-3, 3, 40), np.full(60, 1.234)][:, None]
    assert Prior.of(crowd).constant[0] == pytest.approx(1.234, abs=0.3)
    result = inversion.judge_prior(crowd[None], Prior.of(crowd), [0])
    assert result.recovered[0] >= 0.6
