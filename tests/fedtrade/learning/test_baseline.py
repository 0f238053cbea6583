"""HAR is what a member has without anybody's help, and where every network starts."""

from __future__ import annotations

import numpy as np
import pytest

from fedtrade.artifact import load, sha256_of
from fedtrade.learning.baseline import (
    DEMAND_FEATURES,
    HAR_FEATURES,
    base_artifact,
    fit_linear,
    fixed_arrays,
    public_scaler,
    public_tables,
)
from fedtrade.learning.features import (
    FEATURES,
    PRIVATE_NEUTRAL,
    PRIVATE_SCALE,
    PUBLIC_FEATURES,
    neutral_rows,
)
from fedtrade.learning.network import predict
from fedtrade.learning.tables import TRAIN_UNTIL_S
from fedtrade.learning.windows import HEADS

TABLES = public_tables()


def test_public_tables_end_before_the_cut() -> None:
    assert max(int(t.end_s.max()) for t in TABLES if len(t.end_s)) == TRAIN_UNTIL_S - 3600


def test_har_is_least_squares() -> None:
    """Residuals are orthogonal to the regressors, and have the deviation that is claimed."""
    har = fit_linear(TABLES, "log_variance", HAR_FEATURES)
    public = np.concatenate([t.features for t in TABLES])
    target = np.concatenate([t.targets for t in TABLES])[:, 0]
    residual = target - har.predict(public)
    assert abs(residual.mean()) < 1e-9
    assert np.abs(residual @ public[:, :4]).max() / len(target) < 0.01  # clipped at 6 deviations
    assert residual.std() == pytest.approx(har.residual_deviation)
    assert np.exp(residual).mean() == pytest.approx(np.exp(har.log_to_mean))


def test_har_recovers_known_coefficients() -> None:
    draw = np.random.default_rng(0)
    truth = np.array([0.5, 0.3, -0.2, 0.8])
    made = []
    for table in TABLES[:2]:
        target = table.features[:, :4] @ truth - 1.0 + 0.1 * draw.standard_normal(len(table.end_s))
        fake = np.stack([target, table.targets[:, 1]], axis=1)
        made.append(
            type(table)(table.end_s, table.features, fake, table.close, table.mean_notional)
        )
    har = fit_linear(made, "log_variance", HAR_FEATURES)
    assert np.allclose(har.weights / har.scale, truth, atol=0.02)


def test_the_scaler_uses_public_constants_for_what_is_private() -> None:
    fixed = fixed_arrays(TABLES)
    count = len(PUBLIC_FEATURES)
    assert np.allclose(fixed["fixed.feature_mean"][count:], PRIVATE_NEUTRAL)
    assert np.allclose(fixed["fixed.feature_scale"][count:], PRIVATE_SCALE)
    assert not fixed["fixed.baseline_weight"][:, count:].any()
    mean, scale = public_scaler(TABLES)
    rows = np.concatenate([t.features for t in TABLES])
    level = PUBLIC_FEATURES.index("log_variance_168h")
    assert scale[level] == pytest.approx(4 * rows[:, level].std())
    assert mean[PUBLIC_FEATURES.index("funding_known")] == 0.5


def test_a_base_model_forecasts_har() -> None:
    data = base_artifact((6, 3), seed=1)
    base = load(data, sha256_of(data))
    assert base.manifest.features == FEATURES
    assert base.manifest.rounds == 0
    public = TABLES[0].features[:50]
    forecast = predict(base.arrays, neutral_rows(public))
    for head, names in zip(HEADS, (HAR_FEATURES, DEMAND_FEATURES), strict=True):
        linear = fit_linear(TABLES, head, names)
        assert np.abs(forecast[:, HEADS.index(head)] - linear.predict(public)).max() < 1e-4


def test_a_base_model_is_reproducible() -> None:
    assert base_artifact((4,), seed=3) == base_artifact((4,), seed=3)
    assert base_artifact((4,), seed=3) != base_artifact((4,), seed=4)
