"""Canary positions of the audit: a model that many of them fit into, their gradients, their scores.

The audit needs many canaries, since one is hard to see through the noise, and few parameters, since
noise is what a round spends its time on. So canaries have no coordinates to themselves: their
gradients are m directions in d < m dimensions, any two nearly at right angles. Of the score of one
canary the others blur a variance of about m/4d (their coins; what they add on average is known and
taken off), which is little beside the noise. That can only weaken the audit, never falsify it.

The model is a layer of tanh and two heads. A canary's features are fair coins ±6 deviations and the
layer's weights are large, so that all but a few of its units are at their limits and pass no slope
back: which ones do, and the signs of the features, make the direction. Targets lie out of reach, so
that every gradient is longer than the clipping norm and weighs exactly that.

The auditor has formulas of its own for these gradients (`Gradients`). It must not borrow the
member's code, or it would miss a fault in that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from consortium.rehearsal import small_base
from fedtrade.artifact import CLIP_SIGMA, Arrays, load, pack, sha256_of
from fedtrade.learning.network import HEAD_WEIGHTS, HUBER_KNEES
from fedtrade.learning.tables import Candles
from fedtrade.learning.windows import PositionBatch

FEATURES = 192
UNITS = 48
"""d = FEATURES·UNITS and a little: 9,362."""
DRIVE = 16.0
"""Deviation of a unit's input: one unit in twenty is not at its limit. From 8 to 24 this leaves
gradients closest to right angles: the mean squared cosine of two is 1/(0.8·d)."""
FAR = 1e3
"""A feature or target so far off that the feature is cut and the slope of the loss is at its bound."""

Floats = NDArray[np.float64]


class Canaries:
    """Canary positions of one member. Those that are in take part whatever the member's coins say.

    They come from no market, so there are no candles.
    """

    candles: Mapping[tuple[str, str], Candles] = {}

    def __init__(self, count: int, present: PositionBatch) -> None:
        self._count = count
        self._present = present

    @property
    def count(self) -> int:
        """All of them, in or out: under zero-out adjacency the count is public."""
        return self._count

    def sample(self, include: NDArray[np.bool_]) -> PositionBatch:
        return self._present


def canary_base(draw: np.random.Generator) -> bytes:
    """The model that canaries meet, as an artifact."""
    plain = small_base(features=FEATURES, hidden=(UNITS,))
    artifact = load(plain, sha256_of(plain))
    layer = draw.standard_normal((UNITS, FEATURES)) * DRIVE / (CLIP_SIGMA * math.sqrt(FEATURES))
    head = _signs(draw, artifact.arrays["head.weight"].shape)
    arrays = {"dense0.weight": layer.astype(np.float32), "head.weight": head.astype(np.float32)}
    return pack({**artifact.arrays, **arrays}, artifact.manifest)


def canary_batch(draw: np.random.Generator, canaries: int) -> PositionBatch:
    """Canaries of one window each."""
    features = FAR * _signs(draw, (canaries, 1, FEATURES))
    targets = FAR * _signs(draw, (canaries, 1, len(HEAD_WEIGHTS)))
    return PositionBatch(features, targets, np.ones((canaries, 1), np.float32))


def _signs(draw: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return draw.integers(0, 2, shape, np.int8).astype(np.float32) * 2 - 1


@dataclass(frozen=True, slots=True, eq=False)
class Gradients:
    """The clipped gradients of m canaries, kept as what they are made of.

    With inputs a, units h = tanh(Wa + b) and slopes e at the heads V, the gradient at W is
    δaᵀ, δ = (Vᵀe)∘(1 − h²), at b it is δ, at V ehᵀ, and at the heads' bias e. `slopes` and `heads`
    are divided by the norm of the whole, so that each gradient has length 1.
    """

    inputs: Floats
    """(m, FEATURES)."""
    units: Floats
    """(m, UNITS)."""
    slopes: Floats
    """δ (m, UNITS)."""
    heads: Floats
    """e (m, heads)."""

    @classmethod
    def of(cls, arrays: Arrays, batch: PositionBatch) -> Self:
        """Gradients of canaries (`canary_batch`) in a model (`canary_base`)."""
        inputs = CLIP_SIGMA * np.sign(batch.features[:, 0].astype(np.float64))
        units = np.tanh(inputs @ arrays["dense0.weight"].T + arrays["dense0.bias"])
        most = np.array(HUBER_KNEES) * np.array(HEAD_WEIGHTS)
        heads = -most * np.sign(batch.targets[:, 0].astype(np.float64))
        slopes = (heads @ arrays["head.weight"]) * (1 - units**2)
        squared = np.square(slopes).sum(1) * (np.square(inputs).sum(1) + 1)
        squared += np.square(heads).sum(1) * (np.square(units).sum(1) + 1)
        norms = np.sqrt(squared)[:, None]
        return cls(inputs, units, slopes / norms, heads / norms)

    def total(self, weights: Floats) -> Floats:
        """Σ_i w_i g_i in the order of `flatten`: weights (m,) to (d,)."""
        slopes, heads = self.slopes * weights[:, None], self.heads * weights[:, None]
        parts = (slopes.sum(0), slopes.T @ self.inputs, heads.sum(0), heads.T @ self.units)
        return np.concatenate([part.ravel() for part in parts])

    def scores(self, direction: Floats) -> Floats:
        """⟨g_i, v⟩ for each canary: (d,) to (m,). The matched filter of a sum in Gaussian noise."""
        (_, width), (_, features), (_, outputs) = (
            part.shape for part in (self.units, self.inputs, self.heads)
        )
        ends = np.cumsum([width, width * features, outputs])
        bias, layer, head_bias, head = np.split(direction, ends)
        found = self.slopes @ bias + self.heads @ head_bias
        found += ((self.slopes @ layer.reshape(width, features)) * self.inputs).sum(1)
        found += ((self.heads @ head.reshape(outputs, width)) * self.units).sum(1)
        return np.asarray(found, np.float64)
