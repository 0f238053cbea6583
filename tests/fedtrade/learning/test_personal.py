"""A personal head helps a member that differs, leaves others alone, and cannot be sent."""

import ast
import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.learning import personal
from fedtrade.learning.personal import PRIOR_POSITIONS, PersonalHead, fit
from fedtrade.learning.windows import PositionBatch

ROOT = Path(__file__).parents[3]


def member(seed, positions, bias=(0.0, 0.0), slope=0.0, windows=4):
    """(batch, outputs of the published model): what it says is off by `bias` and `slope`."""
    draw = np.random.default_rng(seed)
    outputs = np.array([-9.0, 0.0]) + draw.standard_normal((positions, windows, 2))
    truth = outputs + np.array(bias) + slope * (outputs - np.array([-9.0, 0.0]))
    used = np.arange(windows) < draw.integers(1, windows + 1, positions)[:, None]
    weights = (used / used.sum(1, keepdims=True)).astype(np.float32)
    targets = truth + 0.5 * draw.standard_normal(truth.shape)
    features = np.zeros((positions, windows, 1), np.float32)
    return PositionBatch(features, targets.astype(np.float32), weights), outputs


def loss(batch, outputs):
    return float((((batch.targets - outputs) ** 2).sum(2) * batch.weights).sum() / batch.count)


@pytest.mark.parametrize("seed", range(5))
def test_a_biased_member_forecasts_better_on_positions_that_it_has_not_fitted(seed):
    mine, outputs = member(seed, 200, bias=(0.8, -0.5), slope=0.3)
    later, later_outputs = member(seed + 100, 200, bias=(0.8, -0.5), slope=0.3)
    head = fit(mine, outputs)
    assert loss(later, head.apply(later_outputs)) < 0.5 * loss(later, later_outputs)


@pytest.mark.parametrize("positions", [1, 5, 40, 400])
def test_members_like_the_others_lose_next_to_nothing(positions):
    later, outputs = member(2, 1000)
    without = loss(later, outputs)
    found = [loss(later, fit(*member(s, positions)).apply(outputs)) / without for s in range(30)]
    assert np.mean(found) < 1.03
    assert max(found) < 1.1


def test_the_penalty_is_worth_so_many_positions():
    """With as many positions as the prior, a constant error is corrected by half."""
    count = int(PRIOR_POSITIONS)
    outputs = np.tile([-9.0, 0.0], (count, 1, 1)).reshape(count, 1, 2)
    targets = (outputs + np.array([1.0, -2.0])).astype(np.float32)
    batch = PositionBatch(
        np.zeros((count, 1, 1), np.float32), targets, np.ones((count, 1), np.float32)
    )
    assert fit(batch, outputs).bias == pytest.approx([0.5, -1.0], abs=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_it_is_the_minimum_of_the_penalised_loss(seed, positions):
    batch, outputs = member(seed, positions, bias=(0.4, 0.1), slope=0.2)
    head = fit(batch, outputs)

    def objective(bias, weight):
        own = PersonalHead(head.centre, weight, bias)
        penalty = (bias**2).sum() + (weight**2).sum()
        return positions * loss(batch, own.apply(outputs)) + PRIOR_POSITIONS * penalty

    best = objective(head.bias, head.weight)
    draw = np.random.default_rng(seed)
    for _ in range(5):
        bias, weight = head.bias.copy(), head.weight.copy()
        bias += 0.05 * draw.standard_normal(2)
        weight += 0.05 * draw.standard_normal((2, 2))
        assert objective(bias, weight) > best


def test_padding_is_not_looked_at_and_no_position_means_no_correction():
    batch, outputs = member(3, 50, bias=(0.3, 0.3))
    spoilt = outputs.copy()
    spoilt[batch.weights == 0] = np.nan
    assert (fit(batch, spoilt).bias == fit(batch, outputs).bias).all()
    nothing = fit(batch.take(np.zeros(50, np.bool_)), outputs[:0])
    assert (nothing.apply(outputs) == outputs).all()


def test_outputs_that_do_not_fit_are_refused():
    batch, outputs = member(3, 5)
    with pytest.raises(ValueError, match="shape"):
        fit(batch, outputs[:, :1])
    outputs[batch.weights > 0] = np.inf
    with pytest.raises(ValueError, match="finite"):
        fit(batch, outputs)


def test_it_has_no_serialiser():
    head = fit(*member(1, 50, bias=(1.0, 1.0)))
    for attempt in (pickle.dumps, copy.deepcopy, json.dumps):
        with pytest.raises(TypeError):
            attempt(head)
    assert repr(head) == "PersonalHead(private)"


def test_nothing_that_sends_knows_of_it():
    """No module that builds a message, an artifact or a request imports the personal head."""
    senders = [
        *ROOT.glob("fedtrade/protocol.py"),
        *ROOT.glob("fedtrade/artifact.py"),
        *ROOT.glob("fedtrade/chain/*.py"),
        *ROOT.glob("fedtrade/privacy/*.py"),
        *ROOT.glob("server/*.py"),
        ROOT / "clients/member.py",
        ROOT / "clients/app.py",
    ]
    assert len(senders) > 10
    for path in senders:
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import | ast.ImportFrom)
                else []
            )
            module = getattr(node, "module", None) or ""
            assert personal.__name__ not in (module, *names), path
            assert not (module == "fedtrade.learning" and "personal" in names), path
