"""The clipped gradient of any torch module, through Opacus: for layers that have no kernel of ours.

Opacus' hooks give the gradient of every row; here the rows of a position are added up *before* the
norm is taken, since the unit is the position. It is several times slower than `network`, keeps a
gradient per row in memory, and serves as the reference that the kernels are tested against.

Only its hooks are used. Its sampling, its noise, its averaging over `expected_batch_size` (which
depends on how many private positions there are) and its accountants stay outside.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.grad_sample import GradSampleModule
from opacus.validators import ModuleValidator
from torch import Tensor, nn

from fedtrade.errors import Refusal
from fedtrade.learning.network import window_losses
from fedtrade.learning.windows import PositionBatch


class CannotClip(Refusal):
    """A module whose gradient does not fall apart into those of single rows."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"this network cannot be clipped per position: {problem}. Replace the layer: statistics "
            "over a batch (BatchNorm) by GroupNorm, nn.GRU and nn.LSTM by opacus.layers"
        )
        self.problem = problem


def clipped_gradient_sum(
    module: nn.Module, batch: PositionBatch, clip_norm: float
) -> tuple[NDArray[np.float64], float]:
    """Σ_p clip(∇loss_p, C) over the module's parameters by sorted name, and the positions' mean loss.

    `module` takes rows (N, F) to outputs (N, 2), each output from its own row alone: a layer that
    mixes rows is refused where Opacus knows it, and a hand-written one must not. The precision is
    that of its parameters; it is left as it was, without gradients. As in the function of this name
    in `network`, a position whose gradient is not finite adds nothing, and the mean loss must not
    leave the member. Raises CannotClip.
    """
    if not clip_norm > 0:
        raise ValueError("clip_norm must be positive")
    named: dict[str, Any] = {n: p for n, p in sorted(module.named_parameters()) if p.requires_grad}
    if batch.count == 0:
        return np.zeros(sum(p.numel() for p in named.values())), 0.0
    precision = next(iter(named.values())).dtype
    rows = torch.tensor(batch.features, dtype=precision).flatten(0, 1)
    targets = torch.tensor(batch.targets, dtype=precision).flatten(0, 1)
    weights = torch.tensor(batch.weights, dtype=precision).flatten()
    problems = ModuleValidator.validate(module, strict=False)
    if problems:
        raise CannotClip(str(problems[0]))
    hooked = GradSampleModule(module, batch_first=True, loss_reduction="sum")
    try:
        outputs = hooked(rows)
        losses, slopes = window_losses(outputs.detach(), targets)
        outputs.backward(slopes * weights[:, None])
        per_position = {
            name: _of_positions(p.grad_sample, batch.count) for name, p in named.items()
        }
    finally:
        hooked.to_standard_module()
        module.zero_grad(set_to_none=True)
    norms = torch.stack([g.square().sum(1) for g in per_position.values()]).sum(0).sqrt()
    factors = (clip_norm / norms).clamp(max=1.0)
    kept = factors > 0  # neither NaN nor 0: the norm is finite
    vector = torch.cat([(factors[kept] @ g[kept]).to(torch.float64) for g in per_position.values()])
    return vector.numpy(), float((losses * weights).sum() / batch.count)


def _of_positions(grad_sample: Tensor, positions: int) -> Tensor:
    """(P·W, …) gradients of rows as (P, size) gradients of positions."""
    return grad_sample.view(positions, -1, grad_sample[0].numel()).sum(1)
