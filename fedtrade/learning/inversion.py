"""The red team: how much of a position can be read back from a gradient.

The attacker knows the model, the clipping, how many positions are in an update, the distribution of
positions (`Prior`, as if it had a large book of its own), and an observation of the update: exact, in
fixed point, summed with others, or with noise. It wants the rows: the standardised features of each
position (one window each, the worst case). Two attacks:

`analytic_rows`  The weight gradient of a dense layer is Σ δ aᵀ and its bias gradient Σ δ, so for one
    row every unit gives the whole input as their ratio (Phong et al. 2018; Geiping et al. 2020).
    For several rows the ratio is a mixture of them.
`match`  Optimises rows and slopes until their clipped gradient is the observed one (Zhu, Liu, Han 2019,
    "Deep leakage from gradients"; Geiping et al. 2020, "Inverting gradients"), adapted to tables as in
    Vero et al. 2023 ("TabLeak"): features are kept within the range that the prior has seen, columns
    of few values are rounded to one of them, and several starts are made of which the best is kept.
    The objective is the posterior's: squared distance over the variance of what is not explained
    (rounding, other members, noise), plus the prior. So where the observation says nothing the
    attack falls back on the prior mean, as a good attacker would.

Labels are not needed: the loss is Huber's, so a label acts only through the slope at the output, which
is optimised within the bounds that Huber's knees set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fedtrade.artifact import CLIP_SIGMA, Arrays
from fedtrade.learning.network import HEAD_WEIGHTS, HUBER_KNEES

Floats = NDArray[np.float64]

FEW_VALUES = 3
"""A column with at most so many values counts as discrete (the side of a position has three)."""
TOLERANCE = 0.1
"""A value counts as recovered within so many deviations of the prior."""
SLOPE_MAX = tuple(knee * weight for knee, weight in zip(HUBER_KNEES, HEAD_WEIGHTS, strict=True))


def standardise(arrays: Arrays, rows: NDArray[np.floating]) -> Floats:
    """Raw feature rows (…, F) as the network sees them."""
    z = (rows - arrays["fixed.feature_mean"]) / arrays["fixed.feature_scale"]
    return np.clip(z.astype(np.float64), -CLIP_SIGMA, CLIP_SIGMA)


@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """What is known of a row before the attack: the marginals of a population of rows."""

    mean: Floats
    deviation: Floats
    low: Floats
    high: Floats
    constant: Floats
    """Per column the constant within TOLERANCE of which most of the population lies."""
    values: tuple[tuple[float, ...], ...]
    """Per column its values where they are few, otherwise nothing."""

    @classmethod
    def of(cls, population: Floats) -> Prior:
        """From standardised rows (N, F)."""
        deviation = np.maximum(population.std(0), 1e-6)
        seen = [np.unique(column) for column in population.T]
        return cls(
            population.mean(0),
            deviation,
            population.min(0),
            population.max(0),
            np.array(
                [
                    _commonest(np.sort(column), TOLERANCE * width)
                    for column, width in zip(population.T, deviation, strict=True)
                ]
            ),
            tuple(tuple(v.tolist()) if len(v) <= FEW_VALUES else () for v in seen),
        )

    def rounded(self, rows: Floats) -> Floats:
        """Rows with discrete columns at the nearest value that occurs."""
        out = rows.copy()
        for column, values in enumerate(self.values):
            if values:
                near = np.abs(rows[..., column, None] - np.array(values)).argmin(-1)
                out[..., column] = np.array(values)[near]
        return out


def _commonest(ordered: Floats, reach: float) -> float:
    """The centre of the window of width 2·reach that holds most of the sorted values."""
    ends = np.searchsorted(ordered, ordered + 2 * reach, side="right")
    return float(ordered[int(np.argmax(ends - np.arange(len(ordered))))] + reach)


@dataclass(frozen=True, slots=True)
class _Layers:
    """The dense layers of a model, first to last, as tensors; gradients in the order of `flatten`."""

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    target_scale: Tensor

    @classmethod
    def of(cls, arrays: Arrays) -> _Layers:
        depth = sum(name.startswith("dense") and name.endswith("weight") for name in arrays)
        names = [*(f"dense{i}" for i in range(depth)), "head"]

        def tensor(name: str) -> Tensor:
            return torch.tensor(arrays[name], dtype=torch.float32)

        return cls(
            tuple(tensor(f"{n}.weight") for n in names),
            tuple(tensor(f"{n}.bias") for n in names),
            tensor("fixed.target_scale"),
        )

    def clipped_sum(self, rows: Tensor, slopes: Tensor, clip_norm: float) -> Tensor:
        """Σ_n clip(gradient of row n): (B, n, F) rows and (B, n, K) slopes give (B, d).

        Differentiable in both, unlike `network.clipped_gradient_sum`, whose sums it equals.
        """
        inputs = [rows]
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            inputs.append((inputs[-1] @ weight.T + bias).tanh())
        deltas = [slopes * self.target_scale]
        for depth in range(len(self.weights) - 1, 0, -1):
            a = inputs[depth]
            deltas.insert(0, (deltas[0] @ self.weights[depth]) * (1 - a * a))
        squared = sum(
            delta.square().sum(-1) * (a.square().sum(-1) + 1)
            for delta, a in zip(deltas, inputs, strict=True)
        )
        assert isinstance(squared, Tensor)
        factor = (clip_norm / (squared + 1e-12).sqrt()).clamp(max=1.0)[..., None]
        parts = []  # the names sort as dense0.bias, dense0.weight, …, head.bias, head.weight
        for delta, a in zip(deltas, inputs, strict=True):
            scaled = delta * factor
            parts += [scaled.sum(1), (scaled.mT @ a).flatten(1)]
        return torch.cat(parts, dim=1)


def analytic_rows(arrays: Arrays, observed: Floats) -> Floats:
    """The input of the first layer by gradient ratios: (S, d) observations give (S, F) rows."""
    units, width = arrays["dense0.weight"].shape
    slopes = observed[:, :units]
    products = observed[:, units : units + units * width].reshape(-1, units, width)
    power = np.maximum(np.square(slopes).sum(1), 1e-30)
    return np.asarray(np.einsum("su,suf->sf", slopes, products) / power[:, None])


def context_rows(
    arrays: Arrays, observed: Floats, rows: int, contexts: Floats, public: int
) -> Floats:
    """Rows (S, rows, F) by linear algebra and public data, from S observations (S, d).

    Beside its bias gradient the first layer's weight gradient is Δᵀ[Z 1], so its row space is
    spanned by the rows themselves, whatever their slopes and however they were clipped. The first
    `public` features of a row are market data that anyone has: of all `contexts` (N, public), those
    that lie in the space are the hours in which a position was open, and the space then gives the
    private features that belong to them. Exact while there are fewer rows than public features.
    """
    units, width = arrays["dense0.weight"].shape
    known = np.concatenate([contexts, np.ones((len(contexts), 1))], axis=1)
    columns = [*range(public), width]
    found = []
    for vector in observed:
        bias, weight = vector[:units, None], vector[units : units + units * width]
        gradient = np.concatenate([weight.reshape(units, width), bias], axis=1)
        space = np.linalg.svd(gradient, full_matrices=False)[2][:rows]
        solved = known @ np.linalg.pinv(space[:, columns])
        misses = np.linalg.norm(solved @ space[:, columns] - known, axis=1)
        best = np.argsort(misses, kind="stable")[:rows]
        found.append((solved[best] @ space)[:, :width].clip(-CLIP_SIGMA, CLIP_SIGMA))
    return np.stack(found)


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard the attacker tries."""

    steps: int = 600
    starts: int = 4
    rate: float = 0.1


def match(
    arrays: Arrays,
    observed: Floats,
    variance: Floats,
    rows: int,
    prior: Prior,
    clip_norm: float,
    draw: np.random.Generator,
    effort: Effort | None = None,
) -> Floats:
    """Rows (S, rows, F) that explain S observations (S, d), by gradient matching.

    `variance` (d,) is that of what the rows do not explain, in the units of `observed` squared.
    """
    effort = effort or Effort()
    scenes, width = len(observed), len(prior.mean)
    layers = _Layers.of(arrays)
    seen = torch.tensor(observed, dtype=torch.float32).repeat_interleave(effort.starts, 0)
    weight = torch.tensor(1.0 / variance, dtype=torch.float32)
    mean, deviation, low, high = (
        torch.tensor(a, dtype=torch.float32)
        for a in (prior.mean, prior.deviation, prior.low, prior.high)
    )
    size = (scenes * effort.starts, rows, width)
    spread = torch.tensor(draw.standard_normal(size), dtype=torch.float32)
    guess = (mean + deviation * spread).clamp(low, high).requires_grad_()
    raw = torch.tensor(draw.standard_normal((*size[:2], len(SLOPE_MAX))), dtype=torch.float32)
    raw.requires_grad_()
    bound = torch.tensor(SLOPE_MAX)
    optimiser = torch.optim.Adam(
        [{"params": [guess], "lr": effort.rate}, {"params": [raw], "lr": effort.rate}]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, effort.steps)
    for _ in range(effort.steps):
        optimiser.zero_grad()
        losses = _losses(
            layers, guess, bound * raw.tanh(), clip_norm, seen, weight, mean, deviation
        )
        losses.sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            guess.clamp_(low, high)
    with torch.no_grad():
        losses = _losses(
            layers, guess, bound * raw.tanh(), clip_norm, seen, weight, mean, deviation
        )
        best = losses.view(scenes, effort.starts).argmin(1)
        found = guess.view(scenes, effort.starts, rows, width)[torch.arange(scenes), best]
    return found.numpy().astype(np.float64)


def _losses(
    layers: _Layers,
    rows: Tensor,
    slopes: Tensor,
    clip_norm: float,
    seen: Tensor,
    weight: Tensor,
    mean: Tensor,
    deviation: Tensor,
) -> Tensor:
    """Minus twice the log posterior of each scene (B,), up to a constant, with heavy tails.

    d·log(1 + q/d) is q, the weighted squared distance, near the solution; far from it the gradient
    does not grow without bound, so that Adam also converges where the variance is tiny.
    """
    miss = layers.clipped_sum(rows, slopes, clip_norm) - seen
    surprise = ((rows - mean) / deviation).square().sum((1, 2))
    unexplained = (miss.square() * weight).mean(1)
    return miss.shape[1] * unexplained.log1p() + surprise


@dataclass(frozen=True, slots=True, eq=False)
class Recovery:
    """How well rows were read back, one figure a scene (S,)."""

    error: Floats
    """Root mean square distance in deviations of the prior: the prior's mean has about 1."""
    recovered: Floats
    """Share of the values within TOLERANCE deviations of the truth."""


def judge(found: Floats, truth: Floats, prior: Prior, columns: Sequence[int]) -> Recovery:
    """Compare found with true rows, both (S, n, F), on `columns`, under the best pairing."""
    chosen = list(columns)
    unit = prior.deviation[chosen]
    errors, shares = [], []
    for guess, real in zip(found, truth, strict=True):
        apart = (guess[:, None, chosen] - real[None, :, chosen]) / unit
        first, second = linear_sum_assignment(np.square(apart).sum(-1))
        errors.append(float(np.sqrt(np.square(apart[first, second]).mean())))
        near = (prior.rounded(guess)[first][:, chosen] - real[second][:, chosen]) / unit
        shares.append(float((np.abs(near) <= TOLERANCE).mean()))
    return Recovery(np.array(errors), np.array(shares))


def judge_prior(truth: Floats, prior: Prior, columns: Sequence[int]) -> Recovery:
    """What is reached without any observation: the mean, and the commonest values."""
    mean = np.broadcast_to(prior.mean, truth.shape)
    constant = np.broadcast_to(prior.constant, truth.shape)
    return Recovery(
        judge(mean, truth, prior, columns).error, judge(constant, truth, prior, columns).recovered
    )
