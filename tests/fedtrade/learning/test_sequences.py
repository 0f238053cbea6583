"""Recurrent and convolutional networks: equal to torch, to autograd by position, and to Opacus."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import conv1d, huber_loss, pad

from fedtrade.artifact import CLIP_SIGMA, flatten
from fedtrade.learning import opacus_engine, sequences
from fedtrade.learning.network import HEAD_WEIGHTS, HUBER_KNEES, clipped_gradient_sum, predict
from fedtrade.learning.windows import PositionBatch

torch.set_num_threads(1)
FEATURES, STEPS = 3, 16
KINDS = {
    "gru": sequences.gru_shapes(FEATURES, 5, 2),
    "convolution": sequences.convolution_shapes(FEATURES, (4, 6, 5), 3, 2),
    "convolution of two taps": sequences.convolution_shapes(FEATURES, (4, 3, 4, 5), 2, 2),
}
kinds = pytest.mark.parametrize("kind", sorted(KINDS))


def some_arrays(kind, seed=0, steps=STEPS):
    draw = np.random.default_rng(seed)
    n = FEATURES * steps
    arrays = sequences.initial_parameters(KINDS[kind], seed)
    arrays = {
        k: (a + 0.3 * draw.standard_normal(a.shape)).astype(np.float32) for k, a in arrays.items()
    }
    fixed = {
        "fixed.baseline_bias": draw.standard_normal(2),
        "fixed.baseline_weight": draw.standard_normal((2, n)) / n,
        "fixed.feature_mean": draw.standard_normal(n),
        "fixed.feature_scale": draw.uniform(0.5, 2.0, n),
        "fixed.log_to_mean": draw.uniform(0, 0.5, 2),
        "fixed.target_scale": draw.uniform(0.5, 1.0, 2),
    }
    return {**arrays, **{k: a.astype(np.float32) for k, a in fixed.items()}}


def some_batch(seed=0, positions=7, windows=3, steps=STEPS):
    draw = np.random.default_rng(seed)
    used = draw.integers(0, windows + 1, positions)
    weights = (np.arange(windows) < used[:, None]) * draw.uniform(0.1, 1.0, (positions, windows))
    weights = weights / np.where(used > 0, weights.sum(1), 1.0)[:, None]
    return PositionBatch(
        draw.standard_normal((positions, windows, FEATURES * steps)).astype(np.float32),
        (3 * draw.standard_normal((positions, windows, 2))).astype(np.float32),
        weights.astype(np.float32),
    )


def torch_net(arrays, x):
    """net(z) for steps x (N, T, F), by torch's own layers."""
    if "gru.state.weight" in arrays:
        hidden = arrays["gru.state.weight"].shape[1]
        layer = torch.nn.GRU(FEATURES, hidden, batch_first=True, dtype=x.dtype)
        names = {"weight_ih_l0": "input.weight", "bias_ih_l0": "input.bias"}
        names |= {"weight_hh_l0": "state.weight", "bias_hh_l0": "state.bias"}
        own = {theirs: arrays[f"gru.{ours}"] for theirs, ours in names.items()}
        last = torch.func.functional_call(layer, own, (x,))[0][:, -1]
    else:
        x = x.transpose(1, 2)
        for i in range(sum(n.startswith("conv") and n.endswith("weight") for n in arrays)):
            weight = arrays[f"conv{i}.weight"].transpose(1, 2)
            x = pad(x, ((weight.shape[2] - 1) * 2**i, 0))
            x = torch.tanh(conv1d(x, weight, arrays[f"conv{i}.bias"], dilation=2**i))
        last = x[:, :, -1]
    return last @ arrays["head.weight"].T + arrays["head.bias"]


def torch_outputs(arrays, rows):
    f = {n.removeprefix("fixed."): a for n, a in arrays.items() if n.startswith("fixed.")}
    z = ((rows - f["feature_mean"]) / f["feature_scale"]).clamp(-CLIP_SIGMA, CLIP_SIGMA)
    net = torch_net(arrays, z.unflatten(1, (-1, FEATURES)))
    return z @ f["baseline_weight"].T + f["baseline_bias"] + f["target_scale"] * net


def naive(arrays, batch, clip):
    """One backward pass of torch's own layers a position."""
    tensors = {n: torch.tensor(a, dtype=torch.float64) for n, a in arrays.items()}
    moved = [tensors[n].requires_grad_() for n in sorted(tensors) if not n.startswith("fixed.")]
    total = np.zeros(len(flatten(arrays)))
    norms = []
    for p in range(batch.count):
        one = [torch.tensor(a[p], dtype=torch.float64) for a in (batch.features, batch.targets)]
        outputs = torch_outputs(tensors, one[0])
        loss = sum(
            HEAD_WEIGHTS[k]
            * huber_loss(outputs[:, k], one[1][:, k], delta=HUBER_KNEES[k], reduction="none")
            for k in (0, 1)
        )
        (loss * torch.tensor(batch.weights[p], dtype=torch.float64)).sum().backward()
        gradient = np.concatenate([a.grad.numpy().ravel() for a in moved])
        for a in moved:
            a.grad = None
        norms.append(float(np.linalg.norm(gradient)))
        total += gradient * (min(1.0, clip / norms[-1]) if norms[-1] > 0 else 1.0)
    return total, norms


def relative(a, b):
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@kinds
@pytest.mark.parametrize("windows", [1, 3])
@pytest.mark.parametrize("clip", [0.3, 1.0, math.inf])
def test_equal_to_one_backward_pass_a_position(kind, windows, clip):
    arrays, batch = some_arrays(kind), some_batch(windows, windows=windows)
    ours, _ = clipped_gradient_sum(arrays, batch, clip)
    theirs, norms = naive(arrays, batch, clip)
    assert relative(ours, theirs) < 1e-12
    assert clip == math.inf or max(norms) > clip


@kinds
def test_finite_differences_agree(kind):
    arrays, batch = some_arrays(kind), some_batch(4)
    gradient, _ = clipped_gradient_sum(arrays, batch, math.inf)
    direction = np.random.default_rng(0).standard_normal(len(gradient))
    losses = []
    for step in (1e-5, -1e-5):
        moved, start = dict(arrays), 0
        for name in sorted(n for n in arrays if not n.startswith("fixed.")):
            size = arrays[name].size
            part = direction[start : start + size].reshape(arrays[name].shape)
            moved[name], start = arrays[name].astype(np.float64) + step * part, start + size
        losses.append(clipped_gradient_sum(moved, batch, 1.0)[1] * batch.count)
    slope = (losses[0] - losses[1]) / 2e-5
    assert slope == pytest.approx(gradient @ direction, rel=1e-7)


class Hooked(torch.nn.Module):
    """The same networks from layers that Opacus can hook, for rows (N, T·F)."""

    def __init__(self, arrays, precision):
        super().__init__()
        self.fixed = {
            n: torch.tensor(a, dtype=precision) for n, a in arrays.items() if n.startswith("fixed.")
        }
        tensors = {n: torch.tensor(a, dtype=precision) for n, a in arrays.items()}
        if "gru.state.weight" in arrays:
            from opacus.layers import DPGRU

            self.recurrent = DPGRU(FEATURES, tensors["gru.state.weight"].shape[1], batch_first=True)
            own = {"weight_ih_l0": "input.weight", "bias_ih_l0": "input.bias"}
            own |= {"weight_hh_l0": "state.weight", "bias_hh_l0": "state.bias"}
            self.recurrent = self.recurrent.to(precision)
            self.recurrent.load_state_dict({k: tensors[f"gru.{n}"] for k, n in own.items()})
        else:
            depth = sum(n.startswith("conv") and n.endswith("weight") for n in arrays)
            self.convolutions = torch.nn.ModuleList()
            for i in range(depth):
                weight = tensors[f"conv{i}.weight"].transpose(1, 2).contiguous()
                layer = torch.nn.Conv1d(*weight.shape[1::-1], weight.shape[2], dilation=2**i)
                layer.weight = torch.nn.Parameter(weight)
                layer.bias = torch.nn.Parameter(tensors[f"conv{i}.bias"])
                self.convolutions.append(layer)
        head = tensors["head.weight"]
        self.head = torch.nn.Linear(head.shape[1], head.shape[0])
        self.head.weight = torch.nn.Parameter(head)
        self.head.bias = torch.nn.Parameter(tensors["head.bias"])

    def forward(self, rows):
        f = {n.removeprefix("fixed."): a for n, a in self.fixed.items()}
        z = ((rows - f["feature_mean"]) / f["feature_scale"]).clamp(-CLIP_SIGMA, CLIP_SIGMA)
        x = z.unflatten(1, (-1, FEATURES))
        if hasattr(self, "recurrent"):
            last = self.recurrent(x)[0][:, -1]
        else:
            x = x.transpose(1, 2)
            for layer in self.convolutions:
                x = pad(x, ((layer.kernel_size[0] - 1) * layer.dilation[0], 0))
                x = torch.tanh(layer(x))
            last = x[:, :, -1]
        baseline = z @ f["baseline_weight"].T + f["baseline_bias"]
        return baseline + f["target_scale"] * self.head(last)


def ours_in_their_order(kind, arrays, vector, module):
    """Our flat vector as theirs is laid out."""
    parts, start = {}, 0
    for name in sorted(n for n in arrays if not n.startswith("fixed.")):
        size = arrays[name].size
        parts[name] = vector[start : start + size].reshape(arrays[name].shape)
        start += size
    found = []
    for name, _ in sorted(module.named_parameters()):
        if name.startswith("convolutions."):
            _, layer, what = name.split(".")
            part = parts[f"conv{layer}.{what}"]
            found.append(part.transpose(0, 2, 1) if what == "weight" else part)
        elif name.startswith("recurrent."):
            place = "input" if ".ih." in name or "_ih_" in name else "state"
            found.append(parts[f"gru.{place}.{'weight' if 'weight' in name else 'bias'}"])
        else:
            found.append(parts[name])
    return np.concatenate([part.ravel() for part in found])


@kinds
@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 2e-3)])
def test_equal_to_opacus_with_positions_as_samples(kind, precision, tolerance):
    arrays, batch = some_arrays(kind, 2), some_batch(3, positions=20)
    ours, loss = clipped_gradient_sum(arrays, batch, 0.5, precision)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = Hooked(arrays, precision)
        theirs, their_loss = opacus_engine.clipped_gradient_sum(module, batch, 0.5)
    assert relative(ours_in_their_order(kind, arrays, ours, module), theirs) < tolerance
    assert loss == pytest.approx(their_loss, rel=tolerance)


@kinds
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), clip=st.floats(1e-3, 5.0))
def test_one_position_moves_the_sum_by_at_most_the_bound(kind, seed, clip):
    arrays, batch = some_arrays(kind, seed % 5), some_batch(seed, positions=4)
    whole, _ = clipped_gradient_sum(arrays, batch, clip)
    for gone in range(batch.count):
        rest, _ = clipped_gradient_sum(arrays, batch.take(np.arange(batch.count) != gone), clip)
        assert np.linalg.norm(whole - rest) <= clip * (1 + 1e-9)


@kinds
def test_a_position_that_is_not_finite_adds_nothing_and_spoils_nobody(kind):
    arrays, batch = some_arrays(kind), some_batch(6)
    others, _ = clipped_gradient_sum(arrays, batch.take(np.arange(batch.count) != 2), 1.0)
    weights = batch.weights.copy()
    weights[2, 0] = np.nan  # as if its slopes had overflowed: no batch can be built with it
    object.__setattr__(batch, "weights", weights)
    found, _ = clipped_gradient_sum(arrays, batch, 1.0)
    assert np.allclose(found, others, rtol=0, atol=1e-12)


@kinds
def test_predict_is_torchs_own_and_deterministic(kind):
    arrays = some_arrays(kind)
    rows = some_batch(9).features[:, 0]
    tensors = {n: torch.tensor(a, dtype=torch.float64) for n, a in arrays.items()}
    wanted = torch_outputs(tensors, torch.tensor(rows, dtype=torch.float64)).numpy()
    assert np.allclose(predict(arrays, rows), wanted, rtol=0, atol=1e-12)
    batch = some_batch(9)
    one, two = (clipped_gradient_sum(arrays, batch, 1.0)[0].tobytes() for _ in range(2))
    assert one == two


def test_a_convolution_looks_no_further_back_than_it_says():
    kind = "convolution"  # 3 taps, 3 layers: 1 + 2·7 = 15 steps
    arrays = some_arrays(kind)
    rows = some_batch(1, steps=STEPS).features[:, 0]
    moved = rows.copy()
    moved[:, :FEATURES] += 1.0
    tensors = {n: torch.tensor(a, dtype=torch.float64) for n, a in arrays.items()}
    net = sequences.TemporalConvolution(tensors)
    before, after = (net.forward(torch.tensor(r, dtype=torch.float64)) for r in (rows, moved))
    assert torch.equal(before, after)
    moved[:, FEATURES : 2 * FEATURES] += 1.0
    assert not torch.equal(before, net.forward(torch.tensor(moved, dtype=torch.float64)))


@pytest.mark.parametrize(
    ("kind", "length"), [("gru", 7), ("convolution", 14 * FEATURES), ("convolution", 46)]
)
def test_a_row_that_is_not_enough_steps_is_refused(kind, length):
    tensors = {n: torch.tensor(a) for n, a in some_arrays(kind).items()}
    found = sequences.GatedRecurrent if kind == "gru" else sequences.TemporalConvolution
    with pytest.raises(sequences.RowTooShort, match=str(length)):
        found(tensors).forward(torch.zeros(2, length))


@kinds
def test_a_fresh_network_forecasts_the_public_baseline(kind):
    arrays = {**some_arrays(kind), **sequences.initial_parameters(KINDS[kind], 1)}
    rows = some_batch(2).features[:, 0].astype(np.float64)
    z = (rows - arrays["fixed.feature_mean"]) / arrays["fixed.feature_scale"]
    z = np.clip(z, -CLIP_SIGMA, CLIP_SIGMA)
    wanted = z @ arrays["fixed.baseline_weight"].T.astype(np.float64)
    assert np.allclose(predict(arrays, rows), wanted + arrays["fixed.baseline_bias"], atol=1e-12)
    again = sequences.initial_parameters(KINDS[kind], 1)
    assert all((again[n] == arrays[n]).all() for n in again)
    assert {n: a.shape for n, a in again.items()} == dict(KINDS[kind])
