"""The public part of a model: a network fitted on public candles, before any private round.

Whatever can be learnt from public data needs no privacy and should cost none, so a release may begin
with it. From the public baseline (HAR) on, in three steps:

    teachers   TEACHERS networks of different seeds, each by AdamW (Loshchilov and Hutter 2019) with a
               falling rate on the squared error of both heads, each in units of what HAR leaves.
               Hours of all markets move together, so few of the rows are independent: decay of the
               weights and the mean of several networks are worth more than size or rounds
    student    one network fitted to the teachers' mean forecast (Hinton et al. 2015): as good as the
               mean, at one network's price in an agent and in an upload
    smearing   log E[x] less E[log x] as a linear function of the standardised inputs, by the
               regression whose deviance QLIKE is (Gamma with a log link; McCullagh and Nelder 1989,
               §8.2): errors are larger in some hours than in others

The private features are neutral in every row, so nothing is learnt of them: their weights begin at 0
and are left to the private rounds. On every third day what comes from outside the bars is "unknown",
as in a member's windows. On one thread the result is a function of tables, shape and seed, on a given
machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedtrade.artifact import CLIP_SIGMA, NetworkShape
from fedtrade.errors import BadInput
from fedtrade.learning import baseline
from fedtrade.learning.features import CONTEXT, FEATURES, PUBLIC_FEATURES, neutral_rows
from fedtrade.learning.perceptron import predict
from fedtrade.learning.windows import DAY_S, HEADS, MarketTable

TEACHERS: Final = 5
TEACHER_ROUNDS: Final = 1_700
STUDENT_ROUNDS: Final = 3_000
BATCH_ROWS: Final = 2_048
RATE: Final = 3e-3
WARM_ROUNDS: Final = 50
DECAY: Final = 0.3
LEAST_ROWS: Final = 5_000
SMEARING_ROWS: Final = 100_000
SMEARING_RIDGE: Final = 0.1
"""Without it the factor follows the level of one year into the next; chosen on 2022 to 2024."""
NEWTON_STEPS: Final = 60

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Progress = Callable[[str, int, int], None]
"""(what is going on, done, of how many)."""


def pretrain(
    tables: Sequence[MarketTable],
    hidden: tuple[int, ...],
    seed: int,
    progress: Progress = lambda what, done, of: None,
) -> dict[str, Singles]:
    """All arrays of an artifact, fitted on public tables alone. Raises BadInput for too few rows."""
    public = np.concatenate([table.features for table in tables])
    if len(public) < LEAST_ROWS:
        problem = f"{len(public)} hours of public candles are too few to fit a network on"
        raise BadInput("public candles", problem, f"Give {LEAST_ROWS} or more.")
    end_s = np.concatenate([table.end_s for table in tables])
    public[end_s // DAY_S % 3 == 0, CONTEXT] = 0.0
    shape = NetworkShape(inputs=len(FEATURES), hidden=hidden, outputs=len(HEADS))
    start = baseline.initial_arrays(shape, seed, baseline.fixed_arrays(tables))
    rows = neutral_rows(public)
    targets = np.concatenate([table.targets for table in tables])
    z = torch.from_numpy(_standardised(start, rows)[:, : len(PUBLIC_FEATURES)].astype(np.float32))
    missing = targets - predict(start, rows)  # the head is 0: what HAR leaves to be learnt
    wanted = torch.from_numpy((missing / start["fixed.target_scale"]).astype(np.float32))
    told = torch.zeros_like(wanted)
    for place in range(TEACHERS):
        teacher = _network(hidden, [seed, place])
        _fit(teacher, z, wanted, TEACHER_ROUNDS, DECAY, [seed, place])
        with torch.inference_mode():
            told += teacher(z) / TEACHERS
        progress("fitting on public candles", place + 1, TEACHERS + 2)
    student = _network(hidden, [seed, TEACHERS])
    _fit(student, z, told, STUDENT_ROUNDS, 0.0, [seed, TEACHERS])
    progress("fitting on public candles", TEACHERS + 1, TEACHERS + 2)
    arrays = {**start, **_arrays_of(student, len(FEATURES))}
    arrays.update(_smearing(arrays, rows, targets))
    progress("fitting on public candles", TEACHERS + 2, TEACHERS + 2)
    return arrays


def _standardised(arrays: dict[str, Singles], rows: Floats) -> Floats:
    z = (rows - arrays["fixed.feature_mean"]) / arrays["fixed.feature_scale"]
    return np.asarray(np.clip(z, -CLIP_SIGMA, CLIP_SIGMA))


def _network(hidden: Sequence[int], seed: Sequence[int]) -> nn.Sequential:
    """LeCun-normal layers and a zero head over the public features."""
    draw = np.random.Generator(np.random.PCG64([*seed, 0]))
    layers: list[nn.Module] = []
    width = len(PUBLIC_FEATURES)
    for units in (*hidden, len(HEADS)):
        layer = nn.Linear(width, units)
        scale = 0.0 if len(layers) == 2 * len(hidden) else 1 / math.sqrt(width)
        weight = scale * draw.standard_normal((units, width))
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.zero_()
        layers += [layer, nn.Tanh()]
        width = units
    return nn.Sequential(*layers[:-1])


def _fit(
    network: nn.Sequential,
    z: Tensor,
    wanted: Tensor,
    rounds: int,
    decay: float,
    seed: Sequence[int],
) -> None:
    """Least squares of both heads, in units of `target_scale`, on batches drawn at random."""
    draw = np.random.Generator(np.random.PCG64([*seed, 1]))
    adam = torch.optim.AdamW(network.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=decay)

    def falling(r: int) -> float:
        """A warm start, then half a cosine."""
        return min(1.0, (r + 1) / WARM_ROUNDS) * max(
            0.01, 0.5 + 0.5 * math.cos(math.pi * r / rounds)
        )

    rate = torch.optim.lr_scheduler.LambdaLR(adam, falling)
    for _ in range(rounds):
        batch = torch.from_numpy(draw.integers(0, len(z), BATCH_ROWS))
        error: Tensor = wanted[batch] - network(z[batch])
        loss = error.square().mean()
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        rate.step()


def _arrays_of(network: nn.Sequential, inputs: int) -> dict[str, Singles]:
    """The layers under the names of an artifact, with weights of 0 for the private features."""
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    names = [*(f"dense{i}" for i in range(len(layers) - 1)), "head"]
    found: dict[str, Singles] = {}
    for name, layer in zip(names, layers, strict=True):
        weight = layer.weight.detach().numpy()
        if layer is layers[0]:
            weight = np.pad(weight, ((0, 0), (0, inputs - weight.shape[1])))
        found[f"{name}.weight"] = np.ascontiguousarray(weight, np.float32)
        found[f"{name}.bias"] = layer.bias.detach().numpy().astype(np.float32)
    return found


def _smearing(arrays: dict[str, Singles], rows: Floats, targets: Floats) -> dict[str, Singles]:
    """`fixed.log_to_mean` and its weight: Gamma regression of exp(target − forecast) on the inputs."""
    some = slice(None, None, -(-len(rows) // SMEARING_ROWS))
    z, target = _standardised(arrays, rows[some]), targets[some]
    residual = target - predict(arrays, rows[some])
    design = np.concatenate([np.ones((len(z), 1)), z], axis=1)
    fitted = np.stack([_gamma(design, np.exp(residual[:, h])) for h in range(len(HEADS))])
    return {
        "fixed.log_to_mean": fitted[:, 0].astype(np.float32),
        "fixed.log_to_mean_weight": fitted[:, 1:].astype(np.float32),
    }


def _gamma(design: Floats, ratio: Floats) -> Floats:
    """w that minimises mean(ratio·exp(−design·w) + design·w), a little ridge on all but the first.

    Newton's method: the problem is convex. `ratio` (N,) is positive, the first column of ones.
    """
    ridge = np.full(design.shape[1], SMEARING_RIDGE)
    ridge[0] = 0.0
    w = np.zeros(design.shape[1])
    w[0] = math.log(ratio.mean())
    for _ in range(NEWTON_STEPS):
        left = ratio * np.exp(-design @ w)
        slope = design.T @ (1.0 - left) / len(ratio) + ridge * w
        bend = (design * left[:, None]).T @ design / len(ratio) + np.diag(ridge)
        step = np.linalg.lstsq(bend, slope, rcond=None)[0]
        w = w - step
        if np.abs(step).max() < 1e-9:
            return w
    raise ArithmeticError("the smearing did not settle")  # convex: unreachable on finite rows
