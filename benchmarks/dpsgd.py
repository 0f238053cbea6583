"""One DP-SGD step of an MLP with 50k parameters and a batch of 512, beside Opacus and plain SGD.

The network, the loss and the precision (float32) are the same on all sides, and so is the step:
gradients clipped per position to C, added up, and one step of SGD. Noise is left out everywhere,
since here it is the committee's. Each clipped gradient must equal ours before a time is reported.
A position has one window here, so that a position is what Opacus calls a sample.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.measure import Row, alternate, row
from fedtrade.artifact import Arrays, NetworkShape, flatten, unflatten
from fedtrade.errors import Fault
from fedtrade.learning.network import clipped_gradient_sum, initial_arrays, window_losses
from fedtrade.learning.windows import PositionBatch

BATCH, INPUTS, HIDDEN = 512, 128, (256, 64)
CLIP, RATE = 1.0, 0.1
REPETITIONS = 11
AGREE = 2e-5
"""Largest distance to ours, relative to the gradient's norm: float32, and Opacus adds 1e-6 to norms."""
PACKAGES = ("torch", "opacus")


class NotTheSame(Fault):
    """A counterpart computed another clipped gradient than ours."""

    def __init__(self, side: str, distance: float) -> None:
        super().__init__(f"{side}: its clipped gradient is {distance:.1e} away from ours.")
        self.side = side
        self.distance = distance


class _Net(nn.Module):
    """The network of `fedtrade.learning.network` in the way that Opacus wants it."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__()
        sizes = (INPUTS, *HIDDEN, 2)
        names = [*(f"dense{i}" for i in range(len(HIDDEN))), "head"]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        for name, layer in zip(names, self.layers, strict=True):
            layer.weight = nn.Parameter(torch.tensor(arrays[f"{name}.weight"]))
            layer.bias = nn.Parameter(torch.tensor(arrays[f"{name}.bias"]))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = torch.tanh(layer(x))
        out: Tensor = self.layers[-1](x)
        return out


class _Loss(nn.Module):
    """The loss of each window, averaged unless Opacus asks for each."""

    def __init__(self) -> None:
        super().__init__()
        self.reduction = "mean"

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        losses, _ = window_losses(outputs, targets)
        return losses if self.reduction == "none" else losses.mean()


def rows() -> list[Row]:
    """Ours against plain SGD and three engines of Opacus; raises NotTheSame."""
    warnings.filterwarnings("ignore", message="Full backward hook|Secure RNG")
    logging.getLogger("opacus").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    arrays = initial_arrays(NetworkShape(inputs=INPUTS, hidden=HIDDEN, outputs=2), seed=3)
    rng = np.random.default_rng(4)
    arrays["head.weight"] = rng.normal(0, 0.2, arrays["head.weight"].shape).astype(np.float32)
    batch = PositionBatch(
        rng.standard_normal((BATCH, 1, INPUTS)).astype(np.float32),
        rng.standard_normal((BATCH, 1, 2)).astype(np.float32),
        np.ones((BATCH, 1), np.float32),
    )
    ours, _ = clipped_gradient_sum(arrays, batch, CLIP, precision=torch.float32)
    sides: dict[str, Callable[[], object]] = {
        "ours": _our_step(arrays, batch),
        "plain": _their_step(arrays, batch, None)[0],
    }
    for mode in ("hooks", "functorch", "ghost"):
        step, gradient = _their_step(arrays, batch, mode)
        distance = float(np.linalg.norm(gradient() - ours) / np.linalg.norm(ours))
        if not distance < AGREE:
            raise NotTheSame(f"Opacus {mode}", distance)
        sides[mode] = step
    taken = alternate(sides, REPETITIONS)
    named = (
        ("dpsgd_mlp", "Opacus, hooks", "hooks"),
        ("dpsgd_mlp_functorch", "Opacus, functorch", "functorch"),
        ("dpsgd_mlp_ghost", "Opacus, ghost", "ghost"),
        ("dpsgd_mlp_plain", "plain SGD in torch, not private", "plain"),
    )
    return [
        row(name, counterpart, taken["ours"] * 1e3, taken[side] * 1e3, "ms", PACKAGES)
        for name, counterpart, side in named
    ]


def _our_step(arrays: Arrays, batch: PositionBatch) -> Callable[[], object]:
    """Clipped sum, then SGD on the flat vector, as the coordinator's optimiser steps."""
    shapes = {name: array.shape for name, array in arrays.items()}
    fixed = {name: array for name, array in arrays.items() if name.startswith("fixed.")}
    vector = flatten(arrays)

    def step() -> None:
        nonlocal vector
        current = {**unflatten(vector, shapes), **fixed}
        total, _ = clipped_gradient_sum(current, batch, CLIP, precision=torch.float32)
        vector = (vector - (RATE / BATCH) * total).astype(np.float32)

    return step


def _their_step(
    arrays: Arrays, batch: PositionBatch, mode: str | None
) -> tuple[Callable[[], object], Callable[[], NDArray[np.float64]]]:
    """One step of Opacus in `mode`, or of plain SGD; and its summed gradient at the start."""
    features, targets = torch.tensor(batch.features[:, 0]), torch.tensor(batch.targets[:, 0])
    model: Any = _Net(arrays)
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
        total: NDArray[np.float64] = _in_order(dict(model.named_parameters())) * BATCH
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(before[name])
        return total

    return step, gradient


def _in_order(parameters: dict[str, Tensor]) -> NDArray[np.float64]:
    """The gradients in the order of `flatten`: by our names, sorted."""
    ours = [*(f"dense{i}" for i in range(len(HIDDEN))), "head"]
    named = {
        f"{ours[int(name.split('layers.')[1].split('.')[0])]}.{name.rsplit('.', 1)[1]}": p.grad
        for name, p in parameters.items()
    }
    parts = [named[name] for name in sorted(named)]
    return np.concatenate([p.detach().numpy().ravel() for p in parts if p is not None]).astype(
        np.float64
    )
