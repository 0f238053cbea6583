"""Inference in an agent: numpy only, deterministic, one row at a time.

The same function as `fedtrade.learning.network.predict` (equal to 1e-6 and better), without torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedtrade.artifact import CLIP_SIGMA, Artifact, ArtifactInvalid
from fedtrade.errors import BadInput
from fedtrade.learning.features import FEATURES
from fedtrade.learning.windows import HEADS, HORIZON_S

MAX_LOG_VARIANCE = math.log(1.0)
"""A forecast above 100 % an hour is cut here."""
MIN_LOG_VARIANCE = math.log(1e-12)
MAX_LOG_DEMAND = math.log(1e3)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected of the next hour."""

    log_variance: float
    """E[log v], v the Parkinson variance of log price over the hour."""
    log_demand: float
    """E[log d], d the hour's notional over its trailing 168 h mean."""
    variance_per_hour: float
    """E[v]: what a decision uses; the square root is a deviation of log price."""
    demand_ratio: float
    """E[d]."""


class Forecaster:
    """A verified artifact, ready to forecast."""

    def __init__(self, artifact: Artifact) -> None:
        manifest, arrays = artifact.manifest, artifact.arrays
        if (manifest.features, manifest.heads, manifest.horizon_s) != (FEATURES, HEADS, HORIZON_S):
            raise ArtifactInvalid("its features, heads or horizon are not those of this version")
        wide = {name: array.astype(np.float64) for name, array in arrays.items()}
        names = [*(f"dense{i}" for i in range(len(manifest.network.hidden))), "head"]
        self.sha256 = artifact.sha256
        self._layers = [(wide[f"{n}.weight"], wide[f"{n}.bias"]) for n in names]
        self._mean = wide["fixed.feature_mean"]
        self._inverse_scale = 1.0 / wide["fixed.feature_scale"]
        self._baseline = (wide["fixed.baseline_weight"], wide["fixed.baseline_bias"])
        self._target_scale = wide["fixed.target_scale"]
        self._smearing = (wide["fixed.log_to_mean_weight"], wide["fixed.log_to_mean"])

    def predict(self, row: Floats) -> Forecast:
        """Forecast from one row of raw features (F,), as `FeatureStream.row` gives it."""
        if row.shape != self._mean.shape or not np.isfinite(row).all():
            raise BadInput("features", "the row has a wrong length or is not finite", "Resync.")
        z = (row - self._mean) * self._inverse_scale
        z = np.minimum(np.maximum(z, -CLIP_SIGMA), CLIP_SIGMA)
        a = z
        for weight, bias in self._layers[:-1]:
            a = np.tanh(weight @ a + bias)
        weight, bias = self._layers[-1]
        correction = self._target_scale * (weight @ a + bias)
        output = self._baseline[0] @ z + self._baseline[1] + correction
        log_variance = min(max(float(output[0]), MIN_LOG_VARIANCE), MAX_LOG_VARIANCE)
        log_demand = min(max(float(output[1]), -MAX_LOG_DEMAND), MAX_LOG_DEMAND)
        smearing = self._smearing[0] @ z + self._smearing[1]
        return Forecast(
            log_variance,
            log_demand,
            math.exp(min(log_variance + float(smearing[0]), MAX_LOG_VARIANCE)),
            math.exp(min(log_demand + float(smearing[1]), MAX_LOG_DEMAND)),
        )
