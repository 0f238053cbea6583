"""The perceptron in numpy: equal to autograd for any shape, and the same bytes wherever it runs."""

import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedtrade.artifact import CLIP_SIGMA, NetworkShape, flatten, trainable_shapes, unflatten
from fedtrade.learning import network, perceptron
from fedtrade.learning.baseline import initial_arrays
from fedtrade.learning.perceptron import (
    HEAD_WEIGHTS,
    HUBER_KNEES,
    clipped_gradient_sum,
    log_to_mean,
    position_losses,
    predict,
)
from fedtrade.learning.windows import PositionBatch

torch.set_num_threads(1)


def some_arrays(seed, inputs, hidden):
    draw = np.random.default_rng(seed)
    shape = NetworkShape(inputs=inputs, hidden=hidden, outputs=2)
    fixed = {
        "fixed.baseline_bias": draw.standard_normal(2),
        "fixed.baseline_weight": draw.standard_normal((2, inputs)),
        "fixed.feature_mean": draw.standard_normal(inputs),
        "fixed.feature_scale": draw.uniform(0.5, 2.0, inputs),
        "fixed.log_to_mean": draw.uniform(0, 0.5, 2),
        "fixed.log_to_mean_weight": draw.standard_normal((2, inputs)),
        "fixed.target_scale": draw.uniform(0.5, 1.0, 2),
    }
    arrays = initial_arrays(shape, seed, {n: a.astype(np.float32) for n, a in fixed.items()})
    vector = flatten(arrays) + 0.3 * draw.standard_normal(len(flatten(arrays)))
    return {**arrays, **unflatten(vector.astype(np.float32), trainable_shapes(shape))}


def some_batch(seed, positions, windows, inputs):
    """Some windows are padding, and some targets lie far beyond the knees."""
    draw = np.random.default_rng(seed)
    used = draw.integers(0, windows + 1, positions)
    weights = (np.arange(windows) < used[:, None]) * draw.uniform(0.1, 1.0, (positions, windows))
    weights = weights / np.where(used > 0, weights.sum(1), 1.0)[:, None]
    return PositionBatch(
        (3 * draw.standard_normal((positions, windows, inputs))).astype(np.float32),
        (4 * draw.standard_normal((positions, windows, 2))).astype(np.float32),
        weights.astype(np.float32),
    )


def by_autograd(arrays, batch):
    """(gradient of each position (P, d), loss of each (P,), outputs): torch, and nothing of ours."""
    tensors = {n: torch.tensor(a, dtype=torch.float64) for n, a in arrays.items()}
    names = sorted(n for n in tensors if not n.startswith("fixed."))
    depth = sum(n.startswith("dense") and n.endswith("weight") for n in names)
    for name in names:
        tensors[name].requires_grad_()
    x, y, w = (
        torch.tensor(a, dtype=torch.float64) for a in (batch.features, batch.targets, batch.weights)
    )
    z = ((x - tensors["fixed.feature_mean"]) / tensors["fixed.feature_scale"]).clamp(
        -CLIP_SIGMA, CLIP_SIGMA
    )
    a = z
    for i in range(depth):
        a = torch.tanh(a @ tensors[f"dense{i}.weight"].T + tensors[f"dense{i}.bias"])
    net = a @ tensors["head.weight"].T + tensors["head.bias"]
    outputs = z @ tensors["fixed.baseline_weight"].T + tensors["fixed.baseline_bias"]
    outputs = outputs + tensors["fixed.target_scale"] * net
    error = (y - outputs).abs()
    knees, heads = torch.tensor(HUBER_KNEES), torch.tensor(HEAD_WEIGHTS)
    huber = torch.where(error < knees, error.square() / 2, knees * (error - knees / 2))
    losses = ((huber * heads).sum(2) * w).sum(1)
    gradients = []
    for loss in losses:
        parts = torch.autograd.grad(loss, [tensors[n] for n in names], retain_graph=True)
        gradients.append(torch.cat([part.flatten() for part in parts]).numpy())
    return np.array(gradients), losses.detach().numpy(), outputs.detach().numpy()


SHAPES = {
    "inputs": st.integers(1, 9),
    "hidden": st.lists(st.integers(1, 9), max_size=3).map(tuple),
    "positions": st.integers(1, 6),
    "windows": st.sampled_from([1, 2, 8]),
    "seed": st.integers(0, 2**31),
}


@pytest.fixture(params=["formed", "by norms"])
def either_way(request, monkeypatch):
    """Each gradient formed, as for small batches, or its norm alone."""
    formed = 2**40 if request.param == "formed" else 0
    monkeypatch.setattr(perceptron, "_FORMED", formed)


BOTH = {"suppress_health_check": [HealthCheck.function_scoped_fixture], "deadline": None}


@pytest.mark.usefixtures("either_way")
@settings(max_examples=60, **BOTH)
@given(**SHAPES, clip=st.sampled_from([0.05, 1.0, math.inf]))
def test_it_is_the_sum_of_gradients_clipped_one_by_one(
    inputs, hidden, positions, windows, seed, clip
):
    arrays = some_arrays(seed, inputs, hidden)
    batch = some_batch(seed, positions, windows, inputs)
    gradients, losses, outputs = by_autograd(arrays, batch)
    norms = np.linalg.norm(gradients, axis=1)
    wanted = np.minimum(1, clip / np.maximum(norms, 1e-300)) @ gradients
    found, mean_loss = clipped_gradient_sum(arrays, batch, clip)
    size = np.linalg.norm(gradients, axis=1).clip(max=clip).sum()
    assert np.linalg.norm(found - wanted) <= 1e-11 * max(size, 1e-30)
    assert mean_loss == pytest.approx(losses.mean(), rel=1e-12)
    assert position_losses(arrays, batch) == pytest.approx(losses, rel=1e-12, abs=1e-300)
    rows = batch.features.reshape(-1, inputs)
    assert predict(arrays, rows) == pytest.approx(outputs.reshape(-1, 2), rel=1e-11, abs=1e-11)


@pytest.mark.usefixtures("either_way")
@settings(max_examples=25, **BOTH)
@given(**SHAPES)
def test_single_precision_is_the_same_to_its_rounding(inputs, hidden, positions, windows, seed):
    arrays = some_arrays(seed, inputs, hidden)
    batch = some_batch(seed, positions, windows, inputs)
    wide, _ = clipped_gradient_sum(arrays, batch, 1.0)
    narrow, _ = clipped_gradient_sum(arrays, batch, 1.0, np.float32)
    assert narrow.dtype == np.float64
    assert np.linalg.norm(wide - narrow) <= 1e-3 * positions
    rows = batch.features.reshape(-1, inputs)
    assert predict(arrays, rows, np.float32) == pytest.approx(
        predict(arrays, rows), rel=1e-3, abs=1e-3
    )


@pytest.mark.usefixtures("either_way")
def test_a_network_of_no_steps_is_computed_here():
    arrays, batch = some_arrays(1, 5, (7, 4)), some_batch(1, 9, 4, 5)
    for precision, named in ((np.float32, torch.float32), (np.float64, torch.float64)):
        ours, _ = clipped_gradient_sum(arrays, batch, 1.0, precision)
        theirs, _ = network.clipped_gradient_sum(arrays, batch, 1.0, named)
        assert ours.tobytes() == theirs.tobytes()


def moved(array, shift):
    """A copy that begins `shift` items off an aligned place."""
    memory = np.empty(array.size + 64 + shift, array.dtype)
    place = memory[shift : shift + array.size].reshape(array.shape)
    place[...] = array
    return place


@pytest.mark.usefixtures("either_way")
def test_the_bytes_depend_on_no_address_and_on_no_other_thread():
    """A member that starts again must build the same upload (`clients.member`)."""
    arrays, batch = some_arrays(2, 28, (32, 16)), some_batch(2, 8, 4, 28)
    wanted = clipped_gradient_sum(arrays, batch, 1.0)[0].tobytes()

    def again(shift):
        elsewhere = {name: moved(array, shift) for name, array in arrays.items()}
        rows = PositionBatch(
            *(moved(x, shift) for x in (batch.features, batch.targets, batch.weights))
        )
        return clipped_gradient_sum(elsewhere, rows, 1.0)[0].tobytes()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(again, [*range(17)] * 3)) == {wanted}


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    windows=st.sampled_from([1, 2, 5, 8]),
    nearly=st.sampled_from([0.0, 1e-12, 1e-6, 1.0]),
)
def test_a_norm_is_never_less_than_the_gradients(seed, windows, nearly):
    """Rows that cancel, to any degree: what a model is crafted for that wants a clip to fail."""
    draw = np.random.default_rng(seed)
    positions, widths = 3, (6, 4, 2)
    inputs, slopes = [], []
    for n, m in ((widths[0], widths[1]), (widths[1], widths[2])):
        a = np.repeat(draw.standard_normal((positions, 1, n)), windows, 1)
        d = np.repeat(draw.standard_normal((positions, 1, m)) * 1e6, windows, 1)
        a = a + nearly * draw.standard_normal(a.shape)
        d *= (-1.0) ** np.arange(windows)[:, None]
        inputs.append(a.reshape(-1, n))
        slopes.append(d.reshape(-1, m))
    found = perceptron._squared_norms(inputs, slopes, positions)
    wanted = np.zeros(positions, np.longdouble)
    for a, d in zip(inputs, slopes, strict=True):
        a, d = (x.reshape(positions, windows, -1).astype(np.longdouble) for x in (a, d))
        wanted += np.square(np.einsum("pwm,pwn->pmn", d, a)).sum((1, 2))
        wanted += np.square(d.sum(1)).sum(1)
    slack = 1 if windows > 1 else 1 - 1e-14  # of one row the norm is a product
    assert (found >= wanted * slack).all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.sampled_from([1e-200, 1e-3, 1.0, 1e6, 1e160]))
def test_what_a_formed_gradient_adds_is_within_the_clip(seed, size):
    """Whatever rounding made of it: the norm is that of the numbers that are added."""
    gradient = size * np.random.default_rng(seed).standard_normal((1, 50))
    with np.errstate(over="ignore", divide="ignore"):
        added = np.linalg.norm(perceptron._clipped_sum_of(gradient, 0.5))
    assert added <= 0.5 * (1 + 1e-14)
    assert added >= min(0.5 * (1 - 1e-14), 5 * size) or size in (1e-200, 1e160)


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e200])
@pytest.mark.parametrize("where", ["_forward", "_backward"])
def test_a_position_that_is_not_finite_adds_nothing(bad, where, monkeypatch):
    arrays, batch = some_arrays(3, 5, (7, 4)), some_batch(3, 4, 2, 5)
    wanted, _ = clipped_gradient_sum(arrays, batch.take(np.arange(4) != 1), 1.0)
    honest = getattr(perceptron, where)

    def spoiled(*arguments):
        found = honest(*arguments)
        rows = found[0] if where == "_backward" else found.inputs[1]
        rows[2] = bad  # a row of position 1
        return found

    monkeypatch.setattr(perceptron, where, spoiled)
    found, _ = clipped_gradient_sum(arrays, batch, 1.0)
    assert np.allclose(found, wanted, rtol=1e-12, atol=1e-12)


def test_a_member_needs_no_torch():
    code = "import sys, clients.member; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_log_to_mean_is_linear_in_the_clipped_inputs():
    arrays = some_arrays(3, 4, (2,))
    rows = np.random.default_rng(4).standard_normal((50, 4)) * 20.0
    z = (rows - arrays["fixed.feature_mean"]) / arrays["fixed.feature_scale"]
    z = np.clip(z, -CLIP_SIGMA, CLIP_SIGMA)
    assert (np.abs(z) == CLIP_SIGMA).any()
    wanted = arrays["fixed.log_to_mean"] + z @ arrays["fixed.log_to_mean_weight"].T
    assert log_to_mean(arrays, rows) == pytest.approx(wanted, abs=1e-5)
