"""Clipping per position at the price of a plain backward pass, for any stack of affine maps.

Every trainable array of our networks belongs to an affine map y = W a + b that is applied to many
rows: once a window in a dense layer, once a window and time step in a recurrent or convolutional one.
With the input a_r and the output slope δ_r of row r, the gradient of position p is

    G_p = Σ_{r of p} δ_r a_rᵀ        for W, and Σ_{r of p} δ_r for b

so a network's backward pass has to say only a and δ of its maps (`Affine`). From them come, without
a gradient of any single position being kept,

    ‖G_p‖² = Σ_{r,s of p} (a_r·a_s)(δ_r·δ_s)        Σ_p f_p G_p = Σ_r f_p(r) δ_r a_rᵀ

("ghost norms": Goodfellow 2015; Li et al. 2022 for the Gram form; Bu et al. 2023, "book-keeping",
for reusing δ). Where a position has so many rows that the Gram matrix costs more than G_p itself,
G_p is formed for a few positions at a time, squared and dropped (Li et al.'s mixed rule).

This is for the networks over steps (`sequences`); the perceptron has its own, shorter (`perceptron`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]

_SCRATCH = 2**22
"""Numbers that the norms of one block of positions may take: 32 MiB in float64."""


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """One affine map of a network in one backward pass: R rows for each of N windows."""

    name: str
    """The arrays are `name`.weight, of any shape that reads as (m, n), and `name`.bias (m,)."""
    inputs: Tensor
    """(R, N, n)."""
    slopes: Tensor
    """(R, N, m): slope of the loss at the map's output."""


class Kernel(Protocol):
    """A network between standardised inputs and outputs, with its backward pass written out."""

    def forward(self, rows: Tensor) -> Tensor:
        """Outputs (N, K) for inputs (N, F); keeps what `backward` needs."""
        ...

    def backward(self, slopes: Tensor) -> list[Affine]:
        """The affine maps of the last `forward`, given the slopes (N, K) at its outputs."""
        ...


def clipped_sum(affines: Sequence[Affine], positions: int, clip_norm: float) -> dict[str, Tensor]:
    """Σ_p clip(∇loss_p, C) by array name, each flat and float64.

    The N windows of every map are P positions of N/P each, in order. `clip_norm` may be infinite.
    A position whose gradient is not finite adds nothing.
    """
    squared = torch.zeros(positions, dtype=affines[0].inputs.dtype)
    for affine in affines:
        squared += _squared_norms(affine, positions)
    factors = (clip_norm / squared.clamp_min(0).sqrt()).clamp(max=1.0)
    broken = ~(factors > 0)  # NaN or 0: the norm was not finite
    windows = affines[0].inputs.shape[1] // positions
    factors = factors.masked_fill(broken, 0.0).repeat_interleave(windows)
    dropped = broken.repeat_interleave(windows) if bool(broken.any()) else None
    parts: dict[str, Tensor] = {}
    for affine in affines:
        inputs, slopes = affine.inputs, affine.slopes
        if dropped is not None:  # 0·∞ is not 0
            inputs = inputs.masked_fill(dropped[:, None], 0.0)
            slopes = slopes.masked_fill(dropped[:, None], 0.0)
        scaled = (inputs * factors[:, None]).flatten(0, 1)
        flat = slopes.flatten(0, 1)
        parts[f"{affine.name}.weight"] = (flat.T @ scaled).flatten().to(torch.float64)
        each = factors.repeat(len(inputs))
        parts[f"{affine.name}.bias"] = (flat.T @ each).to(torch.float64)
    return parts


def _squared_norms(affine: Affine, positions: int) -> Tensor:
    """‖G_p‖² of one map's weight and bias together, (P,), and never less.

    Whoever makes the model can make the terms of a Gram sum cancel: rows that are huge and nearly
    opposite, whose computed norm is 0 while their computed gradient is not. So the largest rounding
    error that the sum can have is added to it: (n + m + R² + 8)·u·(Σ_r ‖(a_r, 1)‖‖δ_r‖)², u the
    unit roundoff (Higham 2002, §3.1). An honest model's norms move by some 1e-12 of themselves.
    """
    inputs, slopes = (_by_position(x, positions) for x in (affine.inputs, affine.slopes))
    rows, n, m = inputs.shape[1], inputs.shape[2], slopes.shape[2]
    if rows == 1:
        return (inputs.square().sum((1, 2)) + 1) * slopes.square().sum((1, 2))
    by_gram = rows * (n + m) <= 2 * n * m
    block = max(1, _SCRATCH // (rows * rows if by_gram else n * m))
    found = slopes.sum(1).square().sum(1)
    lengths = (inputs.square().sum(2) + 1).sqrt() * slopes.square().sum(2).sqrt()
    roundoff = (n + m + rows * rows + 8) * torch.finfo(inputs.dtype).eps
    found += roundoff * lengths.sum(1).square()
    for start in range(0, positions, block):
        a, d = inputs[start : start + block], slopes[start : start + block]
        if by_gram:
            found[start : start + block] += ((a @ a.mT) * (d @ d.mT)).sum((1, 2))
        else:
            found[start : start + block] += (d.mT @ a).square().sum((1, 2))
    return found


def _by_position(x: Tensor, positions: int) -> Tensor:
    """(R, P·W, n) as (P, R·W, n)."""
    rows, _, width = x.shape
    apart = x.view(rows, positions, -1, width)
    return apart.permute(1, 0, 2, 3).reshape(positions, -1, width)
