"""The network, and the exact clipped gradient of a batch of positions at the price of a plain step.

A multilayer perceptron (tanh) corrects the public linear forecast that is frozen into the artifact
(see `fedtrade.artifact` for the formula). Heads: log variance and log demand of the next hour.

Loss of a window: Huber's (1964) loss of e = y − ŷ per head, quadratic up to the head's knee. The
variance head so learns E[log v], and `fixed.log_to_mean` (public, from the baseline's residuals)
makes exp(ŷ + log_to_mean) a forecast of E[v], which is what QLIKE judges (Patton 2011). Training on
a capped QLIKE directly was tried: the cap biases the forecast low by 6 to 14 %, and without a cap
single hours rule the gradient. The loss of a position is the weighted mean over its windows.

Clipping is per position and exact. With inputs a_w and output slopes δ_w of one dense layer over
the windows w of a position, its weight gradient is G = Σ_w δ_w a_wᵀ, so

    ‖G‖² = Σ_{w,w'} (a_w·a_w')(δ_w·δ_w')        ‖Σ_w δ_w‖² for the bias

("ghost norms": Goodfellow 2015; Li et al. 2022 for the Gram form). No gradient of a single position
is ever formed: the slopes are scaled by min(1, C/‖g_p‖), and one product gives Σ_p clip(g_p). All
is float64 by default, so that the bound C holds to 1e-13; on one thread the result is
deterministic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtrade.artifact import CLIP_SIGMA, Arrays
from fedtrade.learning.baseline import initial_arrays as initial_arrays
from fedtrade.learning.windows import PositionBatch as PositionBatch

HUBER_KNEES = (3.0, 1.0)
"""Per head, in log units: some 3.5 and 2 deviations of the baseline's residuals."""
HEAD_WEIGHTS = (1.0, 0.5)


@dataclass(frozen=True, slots=True, eq=False)
class _Dense:
    weight: Tensor
    bias: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Network:
    """The arrays as tensors of one precision."""

    layers: tuple[_Dense, ...]
    fixed: dict[str, Tensor]

    def standardise(self, features: Tensor) -> Tensor:
        z = (features - self.fixed["feature_mean"]) / self.fixed["feature_scale"]
        return z.clamp(-CLIP_SIGMA, CLIP_SIGMA)

    def forward(self, features: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Outputs (N, K) and the input of every layer, for N rows of raw features."""
        z = self.standardise(features)
        inputs = [z]
        for layer in self.layers[:-1]:
            linear = torch.addmm(layer.bias, inputs[-1], layer.weight.T)
            inputs.append(linear.tanh())
        net = torch.addmm(self.layers[-1].bias, inputs[-1], self.layers[-1].weight.T)
        baseline = torch.addmm(self.fixed["baseline_bias"], z, self.fixed["baseline_weight"].T)
        return baseline + self.fixed["target_scale"] * net, inputs

    def backward(self, output_slopes: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The slope of the loss at every layer's linear output, first layer first."""
        slopes = [output_slopes * self.fixed["target_scale"]]
        for depth in range(len(self.layers) - 1, 0, -1):
            a = inputs[depth]
            slopes.insert(0, (slopes[0] @ self.layers[depth].weight) * (1 - a * a))
        return slopes


def _network(arrays: Arrays, precision: torch.dtype) -> _Network:
    def tensor(name: str) -> Tensor:
        return torch.tensor(arrays[name], dtype=precision)

    depth = sum(name.startswith("dense") and name.endswith("weight") for name in arrays)
    names = [*(f"dense{i}" for i in range(depth)), "head"]
    layers = tuple(_Dense(tensor(f"{n}.weight"), tensor(f"{n}.bias")) for n in names)
    fixed = {n.removeprefix("fixed."): tensor(n) for n in arrays if n.startswith("fixed.")}
    return _Network(layers, fixed)


def predict(
    arrays: Arrays, features: NDArray[np.floating], precision: torch.dtype = torch.float64
) -> NDArray[np.float64]:
    """Forecasts (N, K) of log variance and log demand for N rows of raw features."""
    with torch.no_grad():
        rows = torch.tensor(features, dtype=precision)
        outputs, _ = _network(arrays, precision).forward(rows)
    return outputs.numpy().astype(np.float64)


def window_losses(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each window (N,) and its slope at the outputs (N, K)."""
    knees = torch.tensor(HUBER_KNEES, dtype=outputs.dtype)
    weights = torch.tensor(HEAD_WEIGHTS, dtype=outputs.dtype)
    error = targets - outputs
    bounded = torch.minimum(torch.maximum(error, -knees), knees)
    losses = weights * bounded * (error - 0.5 * bounded)
    return losses.sum(1), -weights * bounded


def clipped_gradient_sum(
    arrays: Arrays,
    batch: PositionBatch,
    clip_norm: float,
    precision: torch.dtype = torch.float64,
) -> tuple[NDArray[np.float64], float]:
    """Σ_p clip(∇loss_p, C) in the order of `flatten`, and the mean loss of the positions.

    `clip_norm` may be infinite (no clipping). A position whose gradient is not finite adds nothing.
    The mean loss is as private as the positions: it must not leave the member.
    """
    if not clip_norm > 0:
        raise ValueError("clip_norm must be positive")
    positions, windows, _ = batch.features.shape
    if positions == 0:
        size = sum(a.size for n, a in arrays.items() if not n.startswith("fixed."))
        return np.zeros(size), 0.0
    with torch.no_grad():
        network = _network(arrays, precision)
        rows = torch.tensor(batch.features, dtype=precision).flatten(0, 1)
        targets = torch.tensor(batch.targets, dtype=precision).flatten(0, 1)
        weights = torch.tensor(batch.weights, dtype=precision).flatten()
        outputs, inputs = network.forward(rows)
        losses, slopes = window_losses(outputs, targets)
        layer_slopes = network.backward(slopes * weights[:, None], inputs)
        norms = _position_norms(inputs, layer_slopes, positions, windows)
        factors = (clip_norm / norms).clamp(max=1.0)  # NaN or 0 where the norm is not finite
        per_row = factors.repeat_interleave(windows)[:, None]
        parts: dict[str, Tensor] = {}
        names = [*(f"dense{i}" for i in range(len(network.layers) - 1)), "head"]
        for name, a, slope in zip(names, inputs, layer_slopes, strict=True):
            scaled = torch.where(per_row > 0, slope * per_row, 0.0)
            parts[f"{name}.weight"] = (scaled.T @ a).to(torch.float64)
            parts[f"{name}.bias"] = scaled.sum(0).to(torch.float64)
        vector = torch.cat([parts[name].flatten() for name in sorted(parts)])
        mean_loss = float((losses * weights).sum() / positions)
    return vector.numpy(), mean_loss


def _position_norms(
    inputs: Sequence[Tensor], slopes: Sequence[Tensor], positions: int, windows: int
) -> Tensor:
    """‖∇loss_p‖ (P,), from Gram products over each position's windows."""
    squared = torch.zeros(positions, dtype=inputs[0].dtype)
    for a, slope in zip(inputs, slopes, strict=True):
        per_a, per_slope = a.view(positions, windows, -1), slope.view(positions, windows, -1)
        grams = (per_a @ per_a.mT) * (per_slope @ per_slope.mT)
        squared += grams.sum((1, 2)) + per_slope.sum(1).square().sum(1)
    return squared.clamp_min(0).sqrt()
