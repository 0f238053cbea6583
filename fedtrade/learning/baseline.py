"""What a member could know without anybody's positions: HAR, a richer linear model, persistence.

    log-HAR      ln v_{t+1} = c + Σ_h β_h ln v̄_h(t), h ∈ {1, 6, 24, 168} hours      (Corsi 2009)
    demand       ln d_{t+1} = c + Σ_h γ_h ln d̄_h(t), h ∈ {1, 6, 24} hours
    linear       both heads on all public features
    persistence  ln v_{t+1} = ln v_t

fitted by least squares on the packaged public candles of every market before the training cut. HAR
is also where every network starts: its coefficients are frozen into the artifact and the network
learns a correction to it, so a network that has learnt nothing *is* HAR. (Starting from the richer
linear model instead was tried: training then only adds noise, see `fedtrade.learning.training`.)

A forecast of E[v] is exp(forecast of E[ln v]) times the mean of exp(residual): Duan's (1983)
smearing factor, kept in logs as `log_to_mean`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedtrade.artifact import (
    CLIP_SIGMA,
    Arrays,
    Manifest,
    ModelCard,
    NetworkShape,
    fixed_shapes,
    pack,
    trainable_shapes,
)
from fedtrade.learning.features import (
    FEATURES,
    PRIVATE_NEUTRAL,
    PRIVATE_SCALE,
    PUBLIC_FEATURES,
    SLOW_FEATURES,
)
from fedtrade.learning.tables import TRAIN_UNTIL_S, candles, markets
from fedtrade.learning.windows import HEADS, HORIZON_S, MarketTable, market_table

HAR_FEATURES = PUBLIC_FEATURES[:4]
DEMAND_FEATURES = PUBLIC_FEATURES[4:7]
SLOW_WIDENING = 4.0
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class LinearForecast:
    """ŷ = bias + z·weights of one head, and what turns E[log] into log E."""

    columns: tuple[int, ...]
    mean: Floats
    scale: Floats
    bias: float
    weights: Floats
    log_to_mean: float
    residual_deviation: float

    def predict(self, public: Floats) -> Floats:
        """Forecasts (N,) of the log target for public rows (N, F)."""
        z = (public[:, self.columns] - self.mean) / self.scale
        return np.asarray(self.bias + np.clip(z, -CLIP_SIGMA, CLIP_SIGMA) @ self.weights)


def public_tables(until_s: int = TRAIN_UNTIL_S) -> tuple[MarketTable, ...]:
    """The tables of every packaged market up to `until_s`."""
    return tuple(market_table(candles(*market), until_s) for market in markets())


def public_scaler(tables: Sequence[MarketTable]) -> tuple[Floats, Floats]:
    """Mean and scale of the public features; slow ones are widened, flags are fixed."""
    rows = np.concatenate([table.features for table in tables])
    mean, scale = rows.mean(0), rows.std(0)
    for i, name in enumerate(PUBLIC_FEATURES):
        if name.endswith("_known"):
            mean[i], scale[i] = 0.5, 0.5
        if name in SLOW_FEATURES:
            scale[i] *= SLOW_WIDENING
    return mean, np.maximum(scale, 1e-3)


def fit_linear(
    tables: Sequence[MarketTable], head: str, names: Sequence[str] = PUBLIC_FEATURES
) -> LinearForecast:
    """Least squares of one head on the named public features over all markets."""
    mean, scale = public_scaler(tables)
    columns = tuple(PUBLIC_FEATURES.index(name) for name in names)
    chosen = list(columns)
    rows = np.concatenate([table.features for table in tables])[:, chosen]
    target = np.concatenate([table.targets for table in tables])[:, HEADS.index(head)]
    z = np.clip((rows - mean[chosen]) / scale[chosen], -CLIP_SIGMA, CLIP_SIGMA)
    design = np.concatenate([np.ones((len(z), 1)), z], axis=1)
    solution = np.linalg.lstsq(design, target, rcond=1e-8)[0]
    residual = target - design @ solution
    return LinearForecast(
        columns,
        mean[chosen],
        scale[chosen],
        float(solution[0]),
        np.asarray(solution[1:]),
        float(np.log(np.exp(residual).mean())),
        float(residual.std()),
    )


def fixed_arrays(tables: Sequence[MarketTable]) -> dict[str, NDArray[np.float32]]:
    """The `fixed.*` arrays of an artifact: scaler and baseline, from public candles only."""
    mean, scale = public_scaler(tables)
    parts = [
        fit_linear(tables, head, names)
        for head, names in zip(HEADS, (HAR_FEATURES, DEMAND_FEATURES), strict=True)
    ]
    weights = np.zeros((len(HEADS), len(FEATURES)))
    for head, part in enumerate(parts):
        weights[head, list(part.columns)] = part.weights
    content = {
        "fixed.baseline_bias": [part.bias for part in parts],
        "fixed.baseline_weight": weights,
        "fixed.feature_mean": np.concatenate([mean, PRIVATE_NEUTRAL]),
        "fixed.feature_scale": np.concatenate([scale, PRIVATE_SCALE]),
        "fixed.log_to_mean": [part.log_to_mean for part in parts],
        "fixed.log_to_mean_weight": np.zeros_like(weights),
        "fixed.target_scale": [part.residual_deviation for part in parts],
    }
    return {name: np.array(value, np.float32) for name, value in content.items()}


def initial_arrays(
    network: NetworkShape, seed: int, fixed: Arrays | None = None
) -> dict[str, NDArray[np.float32]]:
    """Arrays before training: LeCun-normal hidden layers, a zero head (so the forecast starts at
    the public baseline), and `fixed` or, without it, neutral constants."""
    generator = np.random.Generator(np.random.PCG64(seed))
    arrays: dict[str, NDArray[np.float32]] = {}
    for name, shape in trainable_shapes(network).items():
        if name.startswith("dense") and name.endswith("weight"):
            draw = generator.standard_normal(shape) / math.sqrt(shape[1])
            arrays[name] = draw.astype(np.float32)
        else:
            arrays[name] = np.zeros(shape, np.float32)
    for name, shape in fixed_shapes(network).items():
        neutral = np.ones if name.endswith("scale") else np.zeros
        arrays[name] = np.array((fixed or {}).get(name, neutral(shape)), np.float32)
    return arrays


def base_manifest(
    hidden: tuple[int, ...],
    until_s: int,
    *,
    release: int = 0,
    policy_sha256: str = "",
    standins: tuple[str, ...] = (),
    card: ModelCard | None = None,
) -> Manifest:
    """What a model says of itself before any private round: no rounds, no parent, no ε."""
    return Manifest(
        network=NetworkShape(inputs=len(FEATURES), hidden=hidden, outputs=len(HEADS)),
        features=FEATURES,
        heads=HEADS,
        horizon_s=HORIZON_S,
        release=release,
        rounds=0,
        parent_sha256="",
        policy_sha256=policy_sha256,
        epsilon_micro=0,
        delta=0.0,
        unit="position lifecycle",
        adjacency="zero-out of one position (counts public)",
        trained_until_s=until_s,
        standins=standins,
        card=card,
    )


def base_artifact(
    hidden: tuple[int, ...],
    seed: int,
    *,
    release: int = 0,
    policy_sha256: str = "",
    until_s: int = TRAIN_UNTIL_S,
    standins: tuple[str, ...] = (),
) -> bytes:
    """The model that a first release begins with: HAR on public candles, nothing learnt yet."""
    manifest = base_manifest(
        hidden, until_s, release=release, policy_sha256=policy_sha256, standins=standins
    )
    arrays = initial_arrays(manifest.network, seed, fixed_arrays(public_tables(until_s)))
    return pack(arrays, manifest)
