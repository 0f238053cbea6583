"""The perceptron of an artifact in numpy: its forecasts, its losses, its exact clipped gradients.

The formula is that of `fedtrade.artifact`, the loss and the clipping per position are those that
`fedtrade.learning.network` states for every network. What a member computes in a round is here and
needs no torch: at the sizes of a round (tens of rows, some thousand parameters) the price of a
gradient is the number of calls, and at larger ones it is the matrix products, which are as fast.

With a_r the input and δ_r the output slope of row r in a layer, the gradient of position p is
G_p = Σ_{r of p} δ_r (a_r, 1)ᵀ. A small batch forms each G_p, which takes the fewest calls. For others

    ‖G_p‖² = Σ_{r,s of p} Σ_layers (a_r·a_s + 1)(δ_r·δ_s)     Σ_p f_p G_p = Σ_r f_p(r) δ_r (a_r, 1)ᵀ

("ghost norms": Goodfellow 2015; Li et al. 2022 for the Gram form; Bu et al. 2023, "book-keeping").
The result is a function of the arguments and of the machine's numpy, on one thread bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fedtrade.artifact import CLIP_SIGMA, FIXED
from fedtrade.learning.windows import PositionBatch

HUBER_KNEES = (3.0, 1.0)
"""Per head, in log units: some 3.5 and 2 deviations of the baseline's residuals."""
HEAD_WEIGHTS = (1.0, 0.5)

_KNEES = np.array(HUBER_KNEES)
_MINUS_WEIGHTS = -np.array(HEAD_WEIGHTS)

_FORMED = 2**17
"""Numbers up to which every G_p is formed: they stay in the processor's cache."""

Floats = NDArray[Any]
"""Of the precision that the call asks for."""
Precision = DTypeLike
"""float32 or float64."""
Weights = Mapping[str, NDArray[np.floating[Any]]]
"""The arrays of an artifact, in any precision."""


@dataclass(frozen=True, slots=True, eq=False)
class _Pass:
    """One forward pass over N rows."""

    names: list[str]
    """Of the layers, from the inputs on."""
    weights: list[Floats]
    """(m, n) each."""
    inputs: list[Floats]
    """(N, n) each."""
    outputs: Floats
    """(N, K)."""
    scale: Floats
    """(K,): what the network's output is multiplied by."""


def predict(
    arrays: Weights, features: NDArray[np.floating[Any]], precision: Precision = np.float64
) -> NDArray[np.float64]:
    """Forecasts (N, K) of log variance and log demand for N rows of raw features."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(_forward(arrays, features, precision).outputs, np.float64)


def log_to_mean(arrays: Weights, features: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """log E[x] less E[log x] of each head (N, K), for N rows of raw features."""
    z = _standardised(arrays, features, np.float64)
    weight = arrays[f"{FIXED}log_to_mean_weight"].astype(np.float64)
    return np.asarray(arrays[f"{FIXED}log_to_mean"] + z @ weight.T, np.float64)


def position_losses(
    arrays: Weights, batch: PositionBatch, precision: Precision = np.float64
) -> NDArray[np.float64]:
    """The loss of each position (P,): as private as the positions."""
    with np.errstate(over="ignore", invalid="ignore"):
        outputs = _forward(arrays, _rows(batch.features), precision).outputs
        losses, _ = _window_losses(outputs, _rows(batch.targets))
        weighted = losses.reshape(batch.weights.shape) * batch.weights
        return np.asarray(weighted.sum(1), np.float64)


def clipped_gradient_sum(
    arrays: Weights,
    batch: PositionBatch,
    clip_norm: float,
    precision: Precision = np.float64,
) -> tuple[NDArray[np.float64], float]:
    """Σ_p clip(∇loss_p, C) in the order of `flatten`, and the mean loss of the positions.

    `clip_norm` may be infinite (no clipping). A position whose gradient is not finite adds nothing.
    The mean loss is as private as the positions: it must not leave the member.
    """
    if not clip_norm > 0:
        raise ValueError("clip_norm must be positive")
    if batch.count == 0:
        size = sum(a.size for n, a in arrays.items() if not n.startswith(FIXED))
        return np.zeros(size), 0.0
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        done = _forward(arrays, _rows(batch.features), precision)
        losses, at_output = _window_losses(done.outputs, _rows(batch.targets))
        weights = batch.weights.ravel()
        mean_loss = float(np.dot(losses, weights.astype(precision))) / batch.count
        slopes = _backward(done, at_output * done.scale * weights[:, None])
        if batch.count * sum(w.size for w in done.weights) <= _FORMED:
            total = _clipped_sum_of(_each_gradient(done, slopes, batch.count), clip_norm)
        else:
            norms = np.sqrt(_squared_norms(done.inputs, slopes, batch.count))
            total = _clipped_sum(done, slopes, clip_norm / norms)
        return total.astype(np.float64, copy=False), mean_loss


def _rows(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """(P, W, n) as (P·W, n)."""
    return x.reshape(-1, x.shape[2])


def _standardised(arrays: Weights, features: Floats, precision: Precision) -> Floats:
    z: Floats = features.astype(precision)
    z -= arrays[f"{FIXED}feature_mean"].astype(precision, copy=False)
    z /= arrays[f"{FIXED}feature_scale"].astype(precision, copy=False)
    np.maximum(z, -CLIP_SIGMA, out=z)
    return np.minimum(z, CLIP_SIGMA, out=z)


def _forward(arrays: Weights, features: Floats, precision: Precision) -> _Pass:
    def array(name: str) -> Floats:
        return arrays[name].astype(precision, copy=False)

    z = _standardised(arrays, features, precision)
    depth = 0
    while f"dense{depth}.weight" in arrays:
        depth += 1
    names = [*(f"dense{i}" for i in range(depth)), "head"]
    weights = [array(f"{name}.weight") for name in names]
    inputs = [z]
    for name, weight in zip(names, weights, strict=True):
        linear = inputs[-1] @ weight.T
        linear += arrays[f"{name}.bias"]
        if name != "head":
            inputs.append(np.tanh(linear, out=linear))
    scale = array(f"{FIXED}target_scale")
    outputs = z @ array(f"{FIXED}baseline_weight").T
    outputs += array(f"{FIXED}baseline_bias")
    outputs += scale * linear
    return _Pass(names, weights, inputs, outputs, scale)


def _window_losses(outputs: Floats, targets: Floats) -> tuple[Floats, Floats]:
    """The loss of each window (N,) and its slope at the outputs (N, K)."""
    knees, weights = _KNEES.astype(outputs.dtype), _MINUS_WEIGHTS.astype(outputs.dtype)
    error = targets - outputs
    bounded = np.maximum(error, -knees)
    np.minimum(bounded, knees, out=bounded)
    slopes = weights * bounded
    bounded *= 0.5
    bounded -= error
    return np.vecdot(slopes, bounded), slopes


def _backward(done: _Pass, slopes: Floats) -> list[Floats]:
    """The loss's slopes (N, m) at every layer's output, given those at the last one."""
    found = [slopes]
    for weight, a in zip(done.weights[:0:-1], done.inputs[:0:-1], strict=True):
        slopes = slopes @ weight
        slopes *= 1 - a * a
        found.append(slopes)
    return found[::-1]


def _each_gradient(done: _Pass, slopes: list[Floats], positions: int) -> Floats:
    """G_p of every position (P, d), in the order of `flatten`."""
    sizes = [
        slope.shape[1] * (1 + a.shape[1]) for a, slope in zip(done.inputs, slopes, strict=True)
    ]
    found = np.empty((positions, sum(sizes)), slopes[0].dtype)
    end = 0
    for _, i in sorted((name, i) for i, name in enumerate(done.names)):
        a = done.inputs[i].reshape(positions, -1, done.inputs[i].shape[1])
        slope = slopes[i].reshape(positions, -1, slopes[i].shape[1])
        begin, end = end, end + sizes[i]
        middle = begin + slope.shape[2]
        np.add.reduce(slope, axis=1, out=found[:, begin:middle])
        weight = found[:, middle:end].reshape(positions, slope.shape[2], a.shape[2])
        np.matmul(slope.transpose(0, 2, 1), a, out=weight)
    return found


def _clipped_sum_of(gradients: Floats, clip_norm: float) -> Floats:
    """Σ_p clip(G_p, C) of (P, d): (d,). Rows that are not finite, or 0, add nothing."""
    factors = clip_norm / np.sqrt(np.vecdot(gradients, gradients))
    broken = ~(factors > 0)  # NaN or 0: the norm was not finite
    if broken.any():  # 0·∞ is not 0
        gradients[broken] = 0
        factors[broken] = 0
    total: Floats = np.minimum(factors, 1) @ gradients
    return total


def _squared_norms(inputs: list[Floats], slopes: list[Floats], positions: int) -> Floats:
    """‖G_p‖² of all layers' weights and biases together, (P,), and never less.

    Whoever makes the model can make the terms of a Gram sum cancel: rows that are huge and nearly
    opposite, whose computed norm is 0 while their computed gradient is not. So more than the
    largest rounding error that the sum can have is added to it: with W rows a position, L layers
    and u the unit roundoff, (n + m + L + W² + 8)·2u·Σ_layers (Σ_r ‖(a_r, 1)‖‖δ_r‖)² (Higham 2002,
    §3.1). By Minkowski's inequality that sum is at most (Σ_r √t_r)², t_r the terms with r = s. An
    honest model's norms move by some 1e-12 of themselves.
    """
    windows = len(inputs[0]) // positions
    if windows == 1:  # products of lengths: nothing can cancel
        return _squared_lengths(inputs, slopes)
    terms = np.zeros((positions, windows, windows), inputs[0].dtype)
    for a, slope in zip(inputs, slopes, strict=True):
        rows = a.reshape(positions, windows, -1)
        gram = rows @ rows.transpose(0, 2, 1)
        gram += 1
        rows = slope.reshape(positions, windows, -1)
        gram *= rows @ rows.transpose(0, 2, 1)
        terms += gram
    flat = terms.reshape(positions, -1)
    width = max(a.shape[1] + slope.shape[1] for a, slope in zip(inputs, slopes, strict=True))
    roundoff = (width + len(inputs) + windows**2 + 8) * np.finfo(terms.dtype).eps
    lengths = np.sqrt(flat[:, :: windows + 1]).sum(1)
    found: Floats = np.maximum(flat.sum(1), 0) + roundoff * (lengths * lengths)
    return found


def _squared_lengths(inputs: list[Floats], slopes: list[Floats]) -> Floats:
    """Σ_layers ‖(a_r, 1)‖²‖δ_r‖² of every row, (N,)."""
    squares = np.zeros(len(inputs[0]), inputs[0].dtype)
    for a, slope in zip(inputs, slopes, strict=True):
        squares += (np.einsum("ri,ri->r", a, a) + 1) * np.einsum("ri,ri->r", slope, slope)
    return squares


def _clipped_sum(done: _Pass, slopes: list[Floats], factors: Floats) -> Floats:
    """Σ_p min(1, factor_p)·G_p in the order of `flatten`. What has no factor above 0 adds nothing."""
    broken = ~(factors > 0)  # NaN or 0: the norm was not finite
    windows = len(done.inputs[0]) // len(factors)
    each = np.repeat(np.minimum(factors, 1), windows)[:, None]
    dropped = np.repeat(broken, windows) if broken.any() else None
    parts: dict[str, Floats] = {}
    for name, a, slope in zip(done.names, done.inputs, slopes, strict=True):
        scaled = slope * each
        if dropped is not None:  # 0·∞ is not 0
            scaled[dropped] = 0
            a = np.where(dropped[:, None], 0, a)
        parts[f"{name}.bias"] = scaled.sum(0)
        parts[f"{name}.weight"] = (scaled.T @ a).ravel()
    return np.concatenate([parts[name] for name in sorted(parts)])
