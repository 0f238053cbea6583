"""A member's own correction on top of the published model, which never leaves the member.

The published model forecasts for everybody. A member whose positions lie systematically elsewhere
(other hours, other markets) fits a small linear correction of the outputs y on its own positions:

    y' = y + b + A (y − m)        m: weighted mean of y over the fitted positions

by ridge regression of the residuals (Hoerl and Kennard 1970), each position with weight 1 spread over
its windows as in training. The penalty is worth PRIOR_POSITIONS positions that want no correction at
all and whose outputs spread by one log unit, so that few positions correct little and none nothing,
and outputs that hardly vary teach no slope.

It is fitted without noise, so it is as private as the positions: it has no serialiser and no message
carries it. Nothing of it goes into an update either, which is computed on the published model alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from fedtrade.learning.windows import PositionBatch

PRIOR_POSITIONS = 20.0
"""Evidence against a correction, in positions: with so many of its own a member goes half the way."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PersonalHead:
    """The correction of one member, for K outputs."""

    centre: Floats
    """(K,): m."""
    weight: Floats
    """(K, K): A."""
    bias: Floats
    """(K,): b."""

    def apply(self, outputs: NDArray[np.floating]) -> Floats:
        """The corrected outputs, (…, K) as given."""
        found: Floats = outputs + self.bias + (outputs - self.centre) @ self.weight.T
        return found

    def __repr__(self) -> str:
        return "PersonalHead(private)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a personal head is as private as the positions: it has no serialiser")


def fit(batch: PositionBatch, outputs: NDArray[np.floating]) -> PersonalHead:
    """The correction that suits `batch`, whose windows the published model gives `outputs` (P, W, K).

    ValueError where the shapes differ or an output that counts is not finite.
    """
    if outputs.shape != batch.targets.shape:
        raise ValueError("outputs and targets must have one shape, (P, W, K)")
    counted = batch.weights > 0
    weights = batch.weights[counted].astype(np.float64)
    y, targets = outputs[counted].astype(np.float64), batch.targets[counted].astype(np.float64)
    if not np.isfinite(y).all():
        raise ValueError("an output of the published model is not finite")
    heads, total = y.shape[1], weights.sum()
    if total == 0:
        return PersonalHead(np.zeros(heads), np.zeros((heads, heads)), np.zeros(heads))
    centre = weights @ y / total
    inputs = np.column_stack([np.ones(len(y)), y - centre])
    weighted = inputs.T * weights
    penalty = PRIOR_POSITIONS * np.eye(1 + heads)
    solved = np.linalg.solve(weighted @ inputs + penalty, weighted @ (targets - y))
    return PersonalHead(centre, solved[1:].T, solved[0])
