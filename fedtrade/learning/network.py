"""The network, and the exact clipped gradient of a batch of positions at the price of a plain step.

A network corrects the public linear forecast that is frozen into the artifact
(see `fedtrade.artifact` for the formula). Heads: log variance and log demand of the next hour.

Loss of a window: Huber's (1964) loss of e = y − ŷ per head, quadratic up to the head's knee. The
variance head so learns E[log v], and `fixed.log_to_mean` (public, from the baseline's residuals)
makes exp(ŷ + log_to_mean) a forecast of E[v], which is what QLIKE judges (Patton 2011). Training on
a capped QLIKE directly was tried: the cap biases the forecast low by 6 to 14 %, and without a cap
single hours rule the gradient. The loss of a position is the weighted mean over its windows.

What stands between the standardised inputs z and the outputs is told by the names of the arrays: a
multilayer perceptron (`perceptron`, in numpy: what artifacts hold and members train), a gated
recurrent unit or a temporal convolution (`sequences`, in torch). Each gives the same exact clipping
per position (see `kernels`): with C the bound, Σ_p g_p·min(1, C/‖g_p‖). All is float64 by default,
so that the bound holds to 1e-13; on one thread the result is deterministic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtrade.artifact import CLIP_SIGMA, FIXED, Arrays
from fedtrade.learning import perceptron
from fedtrade.learning.baseline import initial_arrays as initial_arrays
from fedtrade.learning.kernels import Affine, Kernel, Tensors, clipped_sum
from fedtrade.learning.perceptron import HEAD_WEIGHTS as HEAD_WEIGHTS
from fedtrade.learning.perceptron import HUBER_KNEES as HUBER_KNEES
from fedtrade.learning.sequences import GatedRecurrent, TemporalConvolution
from fedtrade.learning.windows import PositionBatch as PositionBatch

_IN_NUMPY: Final[Mapping[torch.dtype, perceptron.Precision]] = {
    torch.float32: np.float32,
    torch.float64: np.float64,
}
"""The precisions that a network is computed in."""


@dataclass(frozen=True, slots=True, eq=False)
class _Network:
    """The arrays as tensors of one precision: the formula of `fedtrade.artifact`."""

    kernel: Kernel
    fixed: Tensors

    def forward(self, features: Tensor) -> Tensor:
        """Outputs (N, K) for N rows of raw features."""
        z = (features - self.fixed["feature_mean"]) / self.fixed["feature_scale"]
        z = z.clamp(-CLIP_SIGMA, CLIP_SIGMA)
        baseline = torch.addmm(self.fixed["baseline_bias"], z, self.fixed["baseline_weight"].T)
        return baseline + self.fixed["target_scale"] * self.kernel.forward(z)

    def backward(self, slopes: Tensor) -> list[Affine]:
        """The affine maps of the last `forward`, given the slopes (N, K) of the loss there."""
        return self.kernel.backward(slopes * self.fixed["target_scale"])


def _sequence(arrays: Arrays, precision: torch.dtype) -> _Network | None:
    """The network over steps that these arrays are of; None for a perceptron's."""
    if "gru.state.weight" not in arrays and "conv0.weight" not in arrays:
        return None
    tensors = {name: torch.tensor(array, dtype=precision) for name, array in arrays.items()}
    fixed = {n.removeprefix(FIXED): t for n, t in tensors.items() if n.startswith(FIXED)}
    if "gru.state.weight" in arrays:
        return _Network(GatedRecurrent(tensors), fixed)
    return _Network(TemporalConvolution(tensors), fixed)


def predict(
    arrays: Arrays, features: NDArray[np.floating], precision: torch.dtype = torch.float64
) -> NDArray[np.float64]:
    """Forecasts (N, K) of log variance and log demand for N rows of raw features."""
    network = _sequence(arrays, precision)
    if network is None:
        return perceptron.predict(arrays, features, _IN_NUMPY[precision])
    with torch.no_grad():
        outputs = network.forward(torch.tensor(features, dtype=precision))
    return outputs.numpy().astype(np.float64)


def window_losses(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each window (N,) and its slope at the outputs (N, K)."""
    knees = torch.tensor(HUBER_KNEES, dtype=outputs.dtype)
    weights = torch.tensor(HEAD_WEIGHTS, dtype=outputs.dtype)
    error = targets - outputs
    bounded = torch.minimum(torch.maximum(error, -knees), knees)
    losses = weights * bounded * (error - 0.5 * bounded)
    return losses.sum(1), -weights * bounded


def position_losses(
    arrays: Arrays, batch: PositionBatch, precision: torch.dtype = torch.float64
) -> NDArray[np.float64]:
    """The loss of each position (P,): as private as the positions."""
    network = _sequence(arrays, precision)
    if network is None:
        return perceptron.position_losses(arrays, batch, _IN_NUMPY[precision])
    positions, windows, _ = batch.features.shape
    with torch.no_grad():
        rows = torch.tensor(batch.features, dtype=precision).flatten(0, 1)
        targets = torch.tensor(batch.targets, dtype=precision).flatten(0, 1)
        losses, _ = window_losses(network.forward(rows), targets)
        weights = torch.tensor(batch.weights, dtype=precision)
        return (losses.view(positions, windows) * weights).sum(1).numpy().astype(np.float64)


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
    network = _sequence(arrays, precision)
    if network is None:
        return perceptron.clipped_gradient_sum(arrays, batch, clip_norm, _IN_NUMPY[precision])
    if not clip_norm > 0:
        raise ValueError("clip_norm must be positive")
    positions = batch.count
    if positions == 0:
        size = sum(a.size for n, a in arrays.items() if not n.startswith(FIXED))
        return np.zeros(size), 0.0
    with torch.inference_mode():
        rows = torch.tensor(batch.features, dtype=precision).flatten(0, 1)
        targets = torch.tensor(batch.targets, dtype=precision).flatten(0, 1)
        weights = torch.tensor(batch.weights, dtype=precision).flatten()
        losses, slopes = window_losses(network.forward(rows), targets)
        affines = network.backward(slopes * weights[:, None])
        parts = clipped_sum(affines, positions, clip_norm)
        vector = torch.cat([parts[name] for name in sorted(parts)])
        mean_loss = float((losses * weights).sum() / positions)
    return vector.numpy(), mean_loss
