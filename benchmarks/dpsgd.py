"""One DP-SGD step of a network with some 50k parameters and a batch of 512, beside Opacus and SGD.

Two networks: a perceptron, and a gated recurrent unit over 32 steps. The network, the loss and the
precision (float32) are the same on all sides, and so is the step: gradients clipped per position to
C, added up, and one step of SGD. Noise is left out everywhere, since here it is the committee's.
Each clipped gradient must equal ours before a time is reported. A position has one window here, so
that a position is what Opacus calls a sample. The plain side is torch's own layer and backward pass,
without clipping: for the recurrent unit nn.GRU, which Opacus cannot take; there it has its DPGRU.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.measure import Row, alternate, row
from fedtrade.artifact import FIXED, Arrays, NetworkShape, flatten, unflatten
from fedtrade.errors import Fault
from fedtrade.learning.network import clipped_gradient_sum, initial_arrays, window_losses
from fedtrade.learning.sequences import gru_shapes, initial_parameters
from fedtrade.learning.windows import PositionBatch

BATCH, INPUTS, HIDDEN = 512, 128, (256, 64)
STEPS, FEATURES, STATE = 32, 32, 112
CLIP, RATE = 1.0, 0.1
REPETITIONS = 11
AGREE = 2e-3
"""Largest distance to ours, relative to the gradient's norm: in float32 our norms carry the bound of
their rounding error, so that no crafted model escapes the clip, and Opacus adds 1e-6 to norms."""
PACKAGES = ("torch", "opacus")


class NotTheSame(Fault):
    """A counterpart computed another clipped gradient than ours."""

    def __init__(self, side: str, distance: float) -> None:
        super().__init__(f"{side}: its clipped gradient is {distance:.1e} away from ours.")
        self.side = side
        self.distance = distance


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One network, its batch, and how others name its arrays."""

    arrays: Arrays
    batch: PositionBatch
    names: Mapping[str, str]
    """Their parameter names -> ours."""
    module: Callable[[bool], nn.Module]
    """The same network from torch's layers; from those that Opacus can hook, if asked."""


class _Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        sizes = (INPUTS, *HIDDEN, 2)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = torch.tanh(layer(x))
        out: Tensor = self.layers[-1](x)
        return out


class _Recurrent(nn.Module):
    def __init__(self, hooked: bool) -> None:
        super().__init__()
        if hooked:
            from opacus.layers import DPGRU

            self.gru = DPGRU(FEATURES, STATE, batch_first=True)
        else:
            self.gru = nn.GRU(FEATURES, STATE, batch_first=True)
        self.head = nn.Linear(STATE, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.gru(x.view(-1, STEPS, FEATURES))[0][:, -1])
        return out


class _Loss(nn.Module):
    """The loss of each window, averaged unless Opacus asks for each."""

    def __init__(self) -> None:
        super().__init__()
        self.reduction = "mean"

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        losses, _ = window_losses(outputs, targets)
        return losses if self.reduction == "none" else losses.mean()


def perceptron() -> Case:
    """49,602 parameters in two hidden layers."""
    arrays = initial_arrays(NetworkShape(inputs=INPUTS, hidden=HIDDEN, outputs=2), seed=3)
    ours = [*(f"dense{i}" for i in range(len(HIDDEN))), "head"]
    names = {f"layers.{i}.{w}": f"{n}.{w}" for i, n in enumerate(ours) for w in ("weight", "bias")}
    return Case(_with_head(arrays), _batch(INPUTS), names, lambda hooked: _Perceptron())


def recurrent() -> Case:
    """49,282 parameters, 32 steps."""
    row_length = STEPS * FEATURES
    shape = NetworkShape(inputs=row_length, hidden=(), outputs=2)
    neutral = {n: a for n, a in initial_arrays(shape, seed=3).items() if n.startswith(FIXED)}
    arrays = {**initial_parameters(gru_shapes(FEATURES, STATE, 2), seed=3), **neutral}
    names = {"head.weight": "head.weight", "head.bias": "head.bias"}
    for what in ("weight", "bias"):
        for theirs, dp, ours in (("ih", "l0.ih", "input"), ("hh", "l0.hh", "state")):
            names[f"gru.{what}_{theirs}_l0"] = f"gru.{ours}.{what}"
            names[f"gru.{dp}.{what}"] = f"gru.{ours}.{what}"
    return Case(_with_head(arrays), _batch(row_length), names, _Recurrent)


def _with_head(arrays: dict[str, NDArray[np.float32]]) -> Arrays:
    """A head that is not zero, so that a slope reaches the layers below."""
    rng = np.random.default_rng(4)
    head = rng.normal(0, 0.2, arrays["head.weight"].shape).astype(np.float32)
    return {**arrays, "head.weight": head}


def _batch(inputs: int) -> PositionBatch:
    rng = np.random.default_rng(5)
    return PositionBatch(
        rng.standard_normal((BATCH, 1, inputs)).astype(np.float32),
        rng.standard_normal((BATCH, 1, 2)).astype(np.float32),
        np.ones((BATCH, 1), np.float32),
    )


def rows() -> list[Row]:
    """Ours against plain SGD and the engines of Opacus; raises NotTheSame."""
    warnings.filterwarnings("ignore", message="Full backward hook|Secure RNG")
    logging.getLogger("opacus").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    named = (
        ("dpsgd_mlp", "Opacus, hooks", "hooks"),
        ("dpsgd_mlp_functorch", "Opacus, functorch", "functorch"),
        ("dpsgd_mlp_ghost", "Opacus, ghost", "ghost"),
        ("dpsgd_mlp_plain", "plain SGD in torch, not private", "plain"),
        ("dpsgd_gru", "Opacus, hooks (DPGRU)", "hooks"),
        ("dpsgd_gru_plain", "plain SGD in torch (nn.GRU), not private", "plain"),
    )
    taken = {
        "dpsgd_mlp": measure(perceptron(), ("hooks", "functorch", "ghost")),
        "dpsgd_gru": measure(recurrent(), ("hooks",)),
    }
    found = []
    for name, counterpart, side in named:
        times = taken["dpsgd_gru" if name.startswith("dpsgd_gru") else "dpsgd_mlp"]
        ours, theirs = times["ours"] * 1e3, times[side] * 1e3
        found.append(row(name, counterpart, ours, theirs, "ms", PACKAGES))
    return found


def measure(case: Case, modes: tuple[str, ...]) -> dict[str, float]:
    """Seconds of a step: "ours", "plain", and Opacus in each of `modes`. Raises NotTheSame."""
    ours, _ = clipped_gradient_sum(case.arrays, case.batch, CLIP, precision=torch.float32)
    sides: dict[str, Callable[[], object]] = {
        "ours": _our_step(case),
        "plain": _their_step(case, None)[0],
    }
    for mode in modes:
        step, gradient = _their_step(case, mode)
        distance = float(np.linalg.norm(gradient() - ours) / np.linalg.norm(ours))
        if not distance < AGREE:
            raise NotTheSame(f"Opacus {mode}", distance)
        sides[mode] = step
    return alternate(sides, REPETITIONS)


def _our_step(case: Case) -> Callable[[], object]:
    """Clipped sum, then SGD on the flat vector, as the coordinator's optimiser steps."""
    shapes = {name: array.shape for name, array in case.arrays.items()}
    fixed = {name: array for name, array in case.arrays.items() if name.startswith(FIXED)}
    vector = flatten(case.arrays)

    def step() -> None:
        nonlocal vector
        current = {**unflatten(vector, shapes), **fixed}
        total, _ = clipped_gradient_sum(current, case.batch, CLIP, precision=torch.float32)
        vector = (vector - (RATE / BATCH) * total).astype(np.float32)

    return step


def _their_step(
    case: Case, mode: str | None
) -> tuple[Callable[[], object], Callable[[], NDArray[np.float64]]]:
    """One step of Opacus in `mode`, or of plain SGD; and its summed gradient at the start."""
    batch = case.batch
    features, targets = torch.tensor(batch.features[:, 0]), torch.tensor(batch.targets[:, 0])
    model: Any = case.module(mode is not None)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.tensor(case.arrays[case.names[name]]))
    loss: Any = _Loss()
    optimiser: Any = torch.optim.SGD(model.parameters(), lr=RATE)
    if mode is not None:
        from opacus import PrivacyEngine

        found = PrivacyEngine().make_private(
            module=model,
            optimizer=optimiser,
            data_loader=DataLoader(TensorDataset(features, targets), batch_size=BATCH),
            criterion=loss,
            noise_multiplier=0.0,
            max_grad_norm=CLIP,
            poisson_sampling=False,
            grad_sample_mode=mode,
        )
        model, optimiser = found[0], found[1]
        loss = found[2] if mode == "ghost" else loss

    def step() -> None:
        optimiser.zero_grad()
        loss(model(features), targets).backward()
        optimiser.step()

    def gradient() -> NDArray[np.float64]:
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        step()
        parameters = {n.removeprefix("_module."): p for n, p in model.named_parameters()}
        total: NDArray[np.float64] = _in_order(case, parameters) * BATCH
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(before[name])
        return total

    return step, gradient


def _in_order(case: Case, parameters: Mapping[str, Tensor]) -> NDArray[np.float64]:
    """The gradients in the order of `flatten`: by our names, sorted."""
    named = {case.names[name]: p.grad for name, p in parameters.items()}
    parts = [named[name] for name in sorted(named)]
    return np.concatenate([p.detach().numpy().ravel() for p in parts if p is not None]).astype(
        np.float64
    )
