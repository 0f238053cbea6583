"""Canaries: what the auditor computes of them is what a member would, and they hardly meet."""

import numpy as np
import pytest

from consortium import canaries
from consortium.canaries import Gradients, canary_base, canary_batch
from fedtrade.artifact import load, sha256_of
from fedtrade.learning.network import clipped_gradient_sum

COUNT = 200


@pytest.fixture
def scene():
    draw = np.random.default_rng(11)
    base, batch = canary_base(draw), canary_batch(draw, COUNT)
    arrays = load(base, sha256_of(base)).arrays
    each = [clipped_gradient_sum(arrays, batch.take(np.array([i])), 1.0)[0] for i in range(COUNT)]
    return Gradients.of(arrays, batch), np.stack(each)


def test_the_auditor_s_gradients_are_the_member_s(scene):
    known, each = scene
    for i in (0, 17, COUNT - 1):
        assert known.total(np.eye(COUNT)[i]) == pytest.approx(each[i], abs=1e-9)
    weights = np.random.default_rng(3).standard_normal(COUNT)
    assert known.total(weights) == pytest.approx(weights @ each, abs=1e-8)


def test_scores_are_the_matched_filter(scene):
    known, each = scene
    direction = np.random.default_rng(5).standard_normal(each.shape[1])
    assert known.scores(direction) == pytest.approx(each @ direction, abs=1e-8)


def test_a_canary_weighs_the_clipping_norm(scene):
    _, each = scene
    assert np.linalg.norm(each, axis=1) == pytest.approx(1.0)


def test_two_canaries_are_nearly_at_right_angles(scene):
    _, each = scene
    cosines = (each @ each.T)[np.triu_indices(COUNT, 1)]
    assert np.square(cosines).mean() < 1 / (0.7 * each.shape[1])
    assert abs(cosines).max() < 0.3


def test_canaries_that_are_out_count_but_add_nothing():
    draw = np.random.default_rng(1)
    batch = canary_batch(draw, 9)
    held = canaries.Canaries(9, batch.take(np.arange(4)))
    assert held.count == 9
    assert held.sample(np.zeros(9, bool)).count == 4
