"""The clipped gradient is exact: equal to autograd position by position, and to Opacus."""

from __future__ import annotations

import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedtrade.artifact import CLIP_SIGMA, NetworkShape, flatten, trainable_shapes, unflatten
from fedtrade.learning.network import (
    HEAD_WEIGHTS,
    HUBER_KNEES,
    clipped_gradient_sum,
    initial_arrays,
    predict,
)
from fedtrade.learning.windows import PositionBatch

torch.set_num_threads(1)
SHAPE = NetworkShape(inputs=5, hidden=(7, 4), outputs=2)
Arrays = dict[str, NDArray[np.float32]]


def some_arrays(seed: int = 0, shape: NetworkShape = SHAPE) -> Arrays:
    draw = np.random.default_rng(seed)
    fixed = {
        "fixed.baseline_bias": draw.standard_normal(2),
        "fixed.baseline_weight": draw.standard_normal((2, shape.inputs)),
        "fixed.feature_mean": draw.standard_normal(shape.inputs),
        "fixed.feature_scale": draw.uniform(0.5, 2.0, shape.inputs),
        "fixed.log_to_mean": draw.uniform(0, 0.5, 2),
        "fixed.target_scale": draw.uniform(0.5, 1.0, 2),
    }
    arrays = initial_arrays(shape, seed, {n: a.astype(np.float32) for n, a in fixed.items()})
    noise = 0.3 * draw.standard_normal(len(flatten(arrays)))
    moved = flatten(arrays) + noise.astype(np.float32)
    return {**arrays, **unflatten(moved, trainable_shapes(shape))}


def some_batch(seed: int = 0, positions: int = 9, windows: int = 4) -> PositionBatch:
    """Positions with 0 to `windows` windows; some targets far beyond the knees."""
    draw = np.random.default_rng(seed)
    used = draw.integers(0, windows + 1, positions)
    weights = (np.arange(windows) < used[:, None]) * draw.uniform(0.1, 1.0, (positions, windows))
    weights = weights / np.where(used > 0, weights.sum(1), 1.0)[:, None]
    return PositionBatch(
        (3 * draw.standard_normal((positions, windows, 5))).astype(np.float32),
        (4 * draw.standard_normal((positions, windows, 2))).astype(np.float32),
        weights.astype(np.float32),
    )


class Plain(torch.nn.Module):
    """The formula of `fedtrade.artifact`, written for autograd."""

    def __init__(self, arrays: Arrays, precision: torch.dtype) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleDict()
        for name in ("dense0", "dense1", "head"):
            weight = torch.tensor(arrays[f"{name}.weight"], dtype=precision)
            layer = torch.nn.Linear(weight.shape[1], weight.shape[0], dtype=precision)
            layer.weight.data = weight
            layer.bias.data = torch.tensor(arrays[f"{name}.bias"], dtype=precision)
            self.layers[name] = layer
        self.fixed = {
            n.removeprefix("fixed."): torch.tensor(a, dtype=precision)
            for n, a in arrays.items()
            if n.startswith("fixed.")
        }

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        f = self.fixed
        z = ((x - f["feature_mean"]) / f["feature_scale"]).clamp(-CLIP_SIGMA, CLIP_SIGMA)
        h = torch.tanh(self.layers["dense0"](z))
        h = torch.tanh(self.layers["dense1"](h))
        net = self.layers["head"](h)
        return z @ f["baseline_weight"].T + f["baseline_bias"] + f["target_scale"] * net

    def position_losses(self, x: torch.Tensor, y: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        error = y - self(x)
        loss = torch.zeros_like(w)
        for head in (0, 1):
            huber = torch.nn.functional.huber_loss(
                error[..., head],
                torch.zeros_like(error[..., head]),
                delta=HUBER_KNEES[head],
                reduction="none",
            )
            loss = loss + HEAD_WEIGHTS[head] * huber
        return (loss * w).sum(1)

    def gradient(self) -> NDArray[np.float64]:
        parts = {n: p.grad for n, p in self.layers.named_parameters()}
        return np.concatenate([parts[n].double().numpy().ravel() for n in sorted(parts)])


def tensors(batch: PositionBatch, precision: torch.dtype) -> tuple[torch.Tensor, ...]:
    names = ("features", "targets", "weights")
    return tuple(torch.tensor(getattr(batch, n), dtype=precision) for n in names)


def naive(arrays: Arrays, batch: PositionBatch, clip: float) -> tuple[NDArray[np.float64], float]:
    """One backward pass a position."""
    total = np.zeros(len(flatten(arrays)))
    losses = []
    for p in range(batch.count):
        model = Plain(arrays, torch.float64)
        one = batch.take(np.array([p]))
        loss = model.position_losses(*tensors(one, torch.float64)).sum()
        loss.backward()
        gradient = model.gradient()
        norm = float(np.linalg.norm(gradient))
        total += gradient * (min(1.0, clip / norm) if norm > 0 else 1.0)
        losses.append(float(loss.detach()))
    return total, float(np.mean(losses))


def relative(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize("clip", [0.05, 1.0, 5.0, math.inf])
@pytest.mark.parametrize("windows", [1, 4, 8])
def test_equal_to_one_backward_pass_a_position(clip: float, windows: int) -> None:
    arrays, batch = some_arrays(), some_batch(windows, windows=windows)
    ours, loss = clipped_gradient_sum(arrays, batch, clip)
    theirs, their_loss = naive(arrays, batch, clip)
    assert relative(ours, theirs) < 1e-12
    assert loss == pytest.approx(their_loss, rel=1e-12)


@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-4)])
def test_equal_to_opacus_with_positions_as_samples(
    precision: torch.dtype, tolerance: float
) -> None:
    arrays, batch, clip = some_arrays(1), some_batch(1, positions=40), 2.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from opacus.grad_sample import GradSampleModule

        model = Plain(arrays, precision)
        hooked = GradSampleModule(model, batch_first=True, loss_reduction="sum")
        x, y, w = tensors(batch, precision)
        # the hooks see only calls of the wrapper; the loss is taken outside
        error_model = Plain.position_losses
        model_forward = hooked(x)
        model.forward = lambda _: model_forward  # type: ignore[method-assign]
        error_model(model, x, y, w).sum().backward()
    samples = dict(model.layers.named_parameters())
    per_position = np.concatenate(
        [samples[n].grad_sample.double().numpy().reshape(batch.count, -1) for n in sorted(samples)],
        axis=1,
    )
    norms = np.linalg.norm(per_position, axis=1)
    assert (norms > clip).any()
    assert (norms < clip).any()
    factors = np.minimum(1.0, clip / np.maximum(norms, 1e-300))
    ours, _ = clipped_gradient_sum(arrays, batch, clip, precision)
    assert relative(ours, factors @ per_position) < tolerance


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 10.0))
def test_one_position_moves_the_sum_by_at_most_the_bound(seed: int, clip: float) -> None:
    """The sensitivity that privacy rests on: set any one position to nothing."""
    arrays, batch = some_arrays(seed % 7), some_batch(seed, positions=5)
    whole, _ = clipped_gradient_sum(arrays, batch, clip)
    for gone in range(batch.count):
        rest, _ = clipped_gradient_sum(arrays, batch.take(np.arange(batch.count) != gone), clip)
        assert np.linalg.norm(whole - rest) <= clip * (1 + 1e-9)


def test_a_gradient_that_is_not_finite_adds_nothing() -> None:
    arrays, batch = some_arrays(), some_batch(3)
    huge = batch.targets.copy()
    arrays["fixed.target_scale"] = np.array([3e38, 3e38], np.float32)
    arrays["head.weight"] = np.full((2, 4), 3e38, np.float32)
    poisoned = PositionBatch(batch.features, huge, batch.weights)
    total, _ = clipped_gradient_sum(arrays, poisoned, 1.0, torch.float32)
    assert np.isfinite(total).all()


def test_deterministic_and_of_the_order_of_flatten() -> None:
    arrays, batch = some_arrays(), some_batch(5)
    first, _ = clipped_gradient_sum(arrays, batch, 1.0)
    second, _ = clipped_gradient_sum(dict(reversed(arrays.items())), batch, 1.0)
    assert first.tobytes() == second.tobytes()
    assert first.shape == flatten(arrays).shape


def test_an_empty_sample_is_zero() -> None:
    arrays = some_arrays()
    total, loss = clipped_gradient_sum(arrays, some_batch(0).take(np.zeros(9, np.bool_)), 1.0)
    assert total.shape == flatten(arrays).shape
    assert not total.any()
    assert loss == 0.0


@pytest.mark.parametrize("clip", [0.0, -1.0, math.nan])
def test_a_clip_norm_must_be_positive(clip: float) -> None:
    with pytest.raises(ValueError, match="clip_norm"):
        clipped_gradient_sum(some_arrays(), some_batch(0), clip)


def test_a_fresh_network_forecasts_the_public_baseline() -> None:
    arrays = some_arrays()
    fixed = {n: a for n, a in arrays.items() if n.startswith("fixed.")}
    fresh = initial_arrays(SHAPE, 3, fixed)
    rows = np.random.default_rng(0).standard_normal((6, 5))
    z = (rows - fresh["fixed.feature_mean"]) / fresh["fixed.feature_scale"]
    z = np.clip(z, -CLIP_SIGMA, CLIP_SIGMA)
    wanted = z @ fresh["fixed.baseline_weight"].T.astype(np.float64) + fresh["fixed.baseline_bias"]
    assert np.allclose(predict(fresh, rows), wanted, atol=1e-12)
    other = initial_arrays(SHAPE, 4, fixed)
    assert not np.array_equal(flatten(fresh), flatten(other))
    assert np.array_equal(flatten(fresh), flatten(initial_arrays(SHAPE, 3, fixed)))


def test_a_batch_is_private() -> None:
    batch = some_batch(0)
    assert repr(batch) == "PositionBatch(9 positions)"
    with pytest.raises(TypeError, match="no serialiser"):
        pickle.dumps(batch)


def crafted(arrays, seed):
    """A coordinator's model for one victim: two hidden rows that are huge in effect and nearly cancel,
    behind units that are all but saturated. The Gram sum of a position then rounds to 0."""
    rng = np.random.default_rng(seed)
    made = dict(arrays)
    saturation = 11.0
    made["dense0.weight"] = rng.standard_normal(made["dense0.weight"].shape).astype(np.float32)
    made["dense0.bias"] = np.full_like(made["dense0.bias"], saturation)
    second = np.zeros_like(made["dense1.weight"])
    row = rng.standard_normal(second.shape[1]).astype(np.float32) * 0.1
    second[0], second[1] = row, row[::-1]
    made["dense1.weight"] = second
    made["dense1.bias"] = np.zeros_like(made["dense1.bias"])
    head = np.zeros_like(made["head.weight"])
    head[0, 0] = 1000.0 / (4 * np.exp(-2 * saturation))
    head[0, 1] = -head[0, 0]
    made["head.weight"] = head
    made["head.bias"] = np.zeros_like(made["head.bias"])
    return made


def test_no_model_makes_a_clipped_gradient_longer_than_the_bound():
    """Else a coordinator could choose a model under which a position is not clipped at all."""
    from consortium.rehearsal import RandomPositions, small_base
    from fedtrade.artifact import load, sha256_of

    base = small_base(features=6, hidden=(16, 16))
    arrays = load(base, sha256_of(base)).arrays
    for seed in range(300):
        one = RandomPositions(1, 6, seed=seed).sample(np.ones(1, bool))
        total, _ = clipped_gradient_sum(crafted(arrays, seed), one, 1.0)
        assert np.linalg.norm(total) <= 1 + 1e-9
