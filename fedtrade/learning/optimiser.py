"""The server's step, bit for bit the same for everybody who recomputes it.

Adam (Kingma & Ba 2015, algorithm 1) over the flat parameter vector:

    m ← β₁m + (1−β₁)g        v ← β₂v + (1−β₂)g²
    θ ← θ − α · m/(1−β₁ᵗ) / (√(v/(1−β₂ᵗ)) + ε)

Without the second moment the step is α·m/(1−β₁ᵗ): momentum (FedAvgM; Hsu, Qi, Brown 2019), and with
β₁ = 0 plain averaging of the members' differences (FedAvg; McMahan et al. 2017).

The gradient is the aggregated noisy one, so this is post-processing of a private release and costs
no privacy. A member recomputes it in order to sign the result, hence it uses only elementwise
float64 + − × ÷ √, each correctly rounded under IEEE 754, in a stated order, with the powers of β as
running products: no reduction, no BLAS, no `pow`. The new parameters are rounded to float32, which
is what an artifact holds and what the next round starts from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedtrade.errors import Refusal


class GradientRefused(Refusal):
    """An aggregated gradient has the wrong length or is not finite: the step is not made."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"gradient: {problem}. Drop this round; the model stays as it was.")
        self.problem = problem


@dataclass(frozen=True, slots=True, eq=False)
class AdamState:
    """Moments of the gradient so far; `beta*_power` are βᵗ as running products."""

    first: NDArray[np.float64]
    second: NDArray[np.float64]
    beta1_power: float
    beta2_power: float
    steps: int


@dataclass(frozen=True, slots=True)
class Adam:
    """Settings of the server's optimiser; they belong to the release's policy."""

    learning_rate: float = 3e-3
    beta1: float = 0.9
    beta2: float = 0.99
    stabiliser: float = 1e-8
    """Adam's ε, named apart from the ε of privacy."""
    adaptive: bool = True
    """False leaves the second moment out."""

    def __post_init__(self) -> None:
        positive = self.learning_rate > 0 and self.stabiliser > 0
        if not (positive and 0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ValueError("Adam needs a positive rate and stabiliser, and betas in [0, 1)")

    def start(self, size: int) -> AdamState:
        """The state before the first step, for a vector of `size` parameters."""
        return AdamState(np.zeros(size), np.zeros(size), 1.0, 1.0, 0)

    def step(
        self, state: AdamState, params: NDArray[np.float32], gradient: NDArray[np.float64]
    ) -> tuple[AdamState, NDArray[np.float32]]:
        """The state and the float32 parameters after one step; inputs are left untouched."""
        g = np.asarray(gradient, np.float64)
        if not g.shape == params.shape == state.first.shape:
            raise GradientRefused(f"shape {g.shape}, the model has {params.shape}")
        if not np.isfinite(g).all():
            raise GradientRefused("holds NaN or infinity")
        beta1_power = state.beta1_power * self.beta1
        beta2_power = state.beta2_power * self.beta2
        first = self.beta1 * state.first + (1.0 - self.beta1) * g
        second = self.beta2 * state.second + (1.0 - self.beta2) * (g * g)
        direction = first / (1.0 - beta1_power)
        if self.adaptive:
            direction = direction / (np.sqrt(second / (1.0 - beta2_power)) + self.stabiliser)
        moved = params.astype(np.float64) - self.learning_rate * direction
        if not (np.abs(moved) <= np.finfo(np.float32).max).all():
            raise GradientRefused("the step leaves the range of float32")
        after = AdamState(first, second, beta1_power, beta2_power, state.steps + 1)
        return after, moved.astype(np.float32)
