"""Networks over the T past steps of a window: a gated recurrent unit and a temporal convolution.

A window's row holds T·F numbers, oldest step first, and is read as T steps of F features; T follows
from the row's length, so batches, scalers and clipping are those of the perceptron. What makes a
network private cheaply is in `kernels`: here are only forward passes and the slopes of their maps.

Gated recurrent unit (Cho et al. 2014, in the form of cuDNN and PyTorch), state h_0 = 0:

    r, z = σ(W x_t + b + U h_{t−1} + c)         (first two thirds of the rows, in this order)
    n = tanh(W x_t + b + r ∘ (U h_{t−1} + c))   (last third)
    h_t = (1 − z) ∘ n + z ∘ h_{t−1}             outputs = head(h_T)

Temporal convolution (Bai, Kolter, Koltun 2018, without the residual path): layer i looks back over
K inputs 2^i steps apart, with tanh; outputs = head(last step). The last step alone is used, so only
the steps that it depends on are computed. Rows must be at least as long as its receptive field,
1 + (K − 1)(2^L − 1) steps; older ones are not looked at, and nothing is padded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtrade.learning.kernels import Affine, Tensors

Shapes = Mapping[str, tuple[int, ...]]


def gru_shapes(features: int, hidden: int, outputs: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the trainable arrays of a recurrent network."""
    return {
        "gru.input.weight": (3 * hidden, features),
        "gru.input.bias": (3 * hidden,),
        "gru.state.weight": (3 * hidden, hidden),
        "gru.state.bias": (3 * hidden,),
        "head.weight": (outputs, hidden),
        "head.bias": (outputs,),
    }


def convolution_shapes(
    features: int, channels: tuple[int, ...], taps: int, outputs: int
) -> dict[str, tuple[int, ...]]:
    """Shapes of the trainable arrays of a convolutional network: weights are (out, K, in)."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, (above, below) in enumerate(zip(channels, (features, *channels), strict=False)):
        shapes[f"conv{layer}.weight"] = (above, taps, below)
        shapes[f"conv{layer}.bias"] = (above,)
    return {**shapes, "head.weight": (outputs, channels[-1]), "head.bias": (outputs,)}


def initial_parameters(shapes: Shapes, seed: int) -> dict[str, NDArray[np.float32]]:
    """Trainable arrays before training: LeCun-normal weights, a zero head, zero biases."""
    generator = np.random.Generator(np.random.PCG64(seed))
    arrays: dict[str, NDArray[np.float32]] = {}
    for name, shape in shapes.items():
        arrays[name] = np.zeros(shape, np.float32)
        if name.endswith("weight") and name != "head.weight":
            scale = 1 / math.sqrt(math.prod(shape[1:]))
            arrays[name] = (scale * generator.standard_normal(shape)).astype(np.float32)
    return arrays


class RowTooShort(ValueError):
    """A window's row that is no whole number of steps, or fewer than the network looks back."""

    def __init__(self, length: int, features: int, steps_min: int) -> None:
        super().__init__(
            f"a row of {length} numbers is not {steps_min} or more steps of {features} features"
        )


class GatedRecurrent:
    """One recurrent layer over T steps; see the module for the formula."""

    def __init__(self, arrays: Tensors) -> None:
        self._input = (arrays["gru.input.weight"], arrays["gru.input.bias"])
        self._state = (arrays["gru.state.weight"], arrays["gru.state.bias"])
        self._head = (arrays["head.weight"], arrays["head.bias"])

    def forward(self, rows: Tensor) -> Tensor:
        self._x = x = _steps(rows, self._input[0].shape[1], 1)
        steps, count, _ = x.shape
        weight, bias = self._state
        hidden = weight.shape[1]
        transposed = weight.T.contiguous()
        gates = torch.addmm(self._input[1], x.flatten(0, 1), self._input[0].T)
        self._gates = gates = gates.view(steps, count, 3 * hidden)
        self._carried = carried = gates.new_empty(steps, count, hidden)
        self._h = h = gates.new_zeros(steps + 1, count, hidden)
        for t in range(steps):
            from_state = torch.addmm(bias, h[t], transposed)
            both = gates[t, :, : 2 * hidden].add_(from_state[:, : 2 * hidden]).sigmoid_()
            carried[t] = from_state[:, 2 * hidden :]
            new = gates[t, :, 2 * hidden :].addcmul_(both[:, :hidden], carried[t]).tanh_()
            torch.lerp(new, h[t], both[:, hidden:], out=h[t + 1])
        return torch.addmm(self._head[1], h[-1], self._head[0].T)

    def backward(self, slopes: Tensor) -> list[Affine]:
        gates, h, weight = self._gates, self._h, self._state[0]
        steps, _, triple = gates.shape
        hidden = triple // 3
        at_input = torch.empty_like(gates)
        at_state = torch.empty_like(gates)
        slope = slopes @ self._head[0]  # at h_t
        for t in range(steps - 1, -1, -1):
            r, z, n = torch.split(gates[t], hidden, dim=1)
            to_new = slope * (1 - z) * (1 - n * n)
            at_input[t, :, 2 * hidden :] = to_new
            torch.mul(to_new, r, out=at_state[t, :, 2 * hidden :])
            at_input[t, :, :hidden] = to_new * self._carried[t] * r * (1 - r)
            at_input[t, :, hidden : 2 * hidden] = slope * (h[t] - n) * z * (1 - z)
            at_state[t, :, : 2 * hidden] = at_input[t, :, : 2 * hidden]
            slope = torch.addmm(slope * z, at_state[t], weight)
        return [
            Affine("gru.input", self._x, at_input),
            Affine("gru.state", h[:-1], at_state),
            Affine("head", h[-1:], slopes[None]),
        ]


class TemporalConvolution:
    """Dilated causal convolutions over T steps; see the module for the formula."""

    def __init__(self, arrays: Tensors) -> None:
        depth = sum(name.startswith("conv") and name.endswith("weight") for name in arrays)
        self._layers = [(arrays[f"conv{i}.weight"], arrays[f"conv{i}.bias"]) for i in range(depth)]
        self._head = (arrays["head.weight"], arrays["head.bias"])
        self._reach, self._taps = _dependencies(depth, self._layers[0][0].shape[1])

    def forward(self, rows: Tensor) -> Tensor:
        x = _steps(rows, self._layers[0][0].shape[2], self._reach)
        current = x[len(x) - self._reach :]  # (steps, N, channels)
        self._patches: list[Tensor] = []
        self._outputs: list[Tensor] = []
        for (weight, bias), taps in zip(self._layers, self._taps, strict=True):
            patches = current[taps].transpose(1, 2).flatten(2)  # (rows, N, K·channels)
            linear = torch.addmm(bias, patches.flatten(0, 1), weight.flatten(1).T)
            current = linear.tanh_().view(len(taps), x.shape[1], -1)
            self._patches.append(patches)
            self._outputs.append(current)
        return torch.addmm(self._head[1], current[0], self._head[0].T)

    def backward(self, slopes: Tensor) -> list[Affine]:
        found = [Affine("head", self._outputs[-1], slopes[None])]
        at_output = (slopes @ self._head[0])[None]
        for layer in range(len(self._layers) - 1, -1, -1):
            weight, taps = self._layers[layer][0], self._taps[layer]
            outputs = self._outputs[layer]
            at_linear = at_output * (1 - outputs * outputs)
            found.append(Affine(f"conv{layer}", self._patches[layer], at_linear))
            if layer == 0:
                break
            to_patches = at_linear @ weight.flatten(1)
            apart = to_patches.view(len(taps), -1, *weight.shape[1:]).transpose(1, 2)
            at_output = torch.zeros_like(self._outputs[layer - 1])
            for tap in range(taps.shape[1]):  # within one tap no step comes twice
                at_output[taps[:, tap]] += apart[:, tap]
        return found


def _steps(rows: Tensor, features: int, steps_min: int) -> Tensor:
    """Rows (N, T·F) as steps (T, N, F), contiguous. Raises RowTooShort."""
    steps, rest = divmod(rows.shape[1], features)
    if rest or steps < steps_min:
        raise RowTooShort(rows.shape[1], features, steps_min)
    return rows.view(-1, steps, features).transpose(0, 1).contiguous()


def _dependencies(depth: int, taps: int) -> tuple[int, list[Tensor]]:
    """The receptive field in steps, and for each layer which of its inputs each output takes.

    Going down from the last step: the outputs of a layer are exactly the inputs of the one above.
    """
    lags, below = [0], []
    for layer in range(depth - 1, -1, -1):
        needed = sorted({lag + k * 2**layer for lag in lags for k in range(taps)}, reverse=True)
        where = {lag: place for place, lag in enumerate(needed)}
        looks = [[where[lag + k * 2**layer] for k in reversed(range(taps))] for lag in lags]
        below.append(torch.tensor(looks))
        lags = needed
    return lags[0] + 1, below[::-1]
