"""Inference without torch equals the network's own forward pass."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from fedtrade.artifact import (
    Artifact,
    ArtifactInvalid,
    flatten,
    load,
    pack,
    sha256_of,
    successor,
)
from fedtrade.errors import BadInput
from fedtrade.learning.baseline import base_artifact
from fedtrade.learning.features import FEATURES
from fedtrade.learning.forecast import MAX_LOG_VARIANCE, MIN_LOG_VARIANCE, Forecaster
from fedtrade.learning.network import predict
from fedtrade.learning.perceptron import log_to_mean


def trained(scale: float = 0.05) -> Artifact:
    data = base_artifact((32, 16), seed=0)
    base = load(data, sha256_of(data))
    vector = flatten(base.arrays)
    noise = scale * np.random.default_rng(0).standard_normal(len(vector))
    data = successor(base, vector + noise.astype(np.float32))
    moved = load(data, sha256_of(data))
    weight = 0.1 * np.random.default_rng(2).standard_normal((2, len(FEATURES)))
    arrays = {**moved.arrays, "fixed.log_to_mean_weight": weight.astype(np.float32)}
    data = pack(arrays, moved.manifest)
    return load(data, sha256_of(data))


def test_equal_to_the_network() -> None:
    artifact = trained()
    forecaster = Forecaster(artifact)
    centre = artifact.arrays["fixed.feature_mean"].astype(float)
    spread = artifact.arrays["fixed.feature_scale"].astype(float)
    rows = centre + 0.4 * spread * np.random.default_rng(1).standard_normal((200, len(FEATURES)))
    wanted = predict(artifact.arrays, rows)
    assert np.abs(wanted[:, 0]).min() > 3  # inside the limits that only an agent applies
    shifts = log_to_mean(artifact.arrays, rows)
    assert shifts.std(0).min() > 0.1
    for row, (log_variance, log_demand), shift in zip(rows, wanted, shifts, strict=True):
        ours = forecaster.predict(row)
        assert ours.log_variance == pytest.approx(log_variance, abs=1e-9)
        assert ours.log_demand == pytest.approx(log_demand, abs=1e-9)
        assert ours.variance_per_hour == pytest.approx(math.exp(log_variance + shift[0]))
        assert ours.demand_ratio == pytest.approx(math.exp(log_demand + shift[1]))
    assert forecaster.sha256 == artifact.sha256


def test_deterministic() -> None:
    artifact = trained()
    row = artifact.arrays["fixed.feature_mean"].astype(float) + 0.1
    assert Forecaster(artifact).predict(row) == Forecaster(artifact).predict(row.copy())


def test_a_wild_row_stays_within_reason() -> None:
    artifact = trained(scale=3.0)
    for sign in (-1, 1):
        forecast = Forecaster(artifact).predict(np.full(len(FEATURES), sign * 1e12))
        assert MIN_LOG_VARIANCE <= forecast.log_variance <= MAX_LOG_VARIANCE
        assert 0 < forecast.variance_per_hour < 100
        assert 0 < forecast.demand_ratio < 1e6


@pytest.mark.parametrize(
    "row",
    [np.zeros(3), np.full(len(FEATURES), np.nan), np.zeros((1, len(FEATURES)))],
)
def test_a_bad_row_is_refused(row: np.ndarray) -> None:
    with pytest.raises(BadInput):
        Forecaster(trained()).predict(row)


@pytest.mark.parametrize(
    "changes",
    [
        {"features": tuple(reversed(FEATURES))},
        {"heads": ("log_demand", "log_variance")},
        {"horizon_s": 60},
    ],
)
def test_a_model_of_other_features_is_refused(changes: dict[str, object]) -> None:
    artifact = trained()
    other = replace(artifact, manifest=artifact.manifest.model_copy(update=changes))
    with pytest.raises(ArtifactInvalid, match="not those of this version"):
        Forecaster(other)


def test_an_agent_needs_no_torch() -> None:
    code = (
        "import sys; import fedtrade.learning.forecast, fedtrade.learning.features; "
        "sys.exit('torch' in sys.modules or 'flwr' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
