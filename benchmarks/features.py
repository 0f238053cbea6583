"""Features a second and microseconds an update, and a forecast, beside counterparts.

Batch: all public features of hourly candles beside polars' rolling means of the same bars (nine
windows of variance, five of notional, of logs six: fewer columns than ours, and no rhythm). The
columns that both have must agree. Stream: a bar and its row beside forming the last row by polars
from the bars of 168 h kept, with bars of an hour and of a minute. Inference: one row through a
network of 64 and 32 beside LightGBM (300 trees of 31 leaves) and torch.
"""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import polars as pl
import torch

from benchmarks.measure import Row, alternate, row
from fedtrade.artifact import load, pack, sha256_of
from fedtrade.errors import Fault
from fedtrade.learning.baseline import base_manifest, initial_arrays
from fedtrade.learning.features import (
    CANDLE_FEATURES,
    FEATURES,
    MEMORY_H,
    FeatureStream,
    neutral_rows,
    public_rows,
)
from fedtrade.learning.forecast import Forecaster
from fedtrade.learning.tables import HOUR_S, Candles
from fedtrade.learning.windows import HEADS

HOURS = 100_000
UPDATES = 500
WINDOWS = (1, 2, 3, 6, 12, 24, 48, 72, 168)


class Mismatch(Fault):
    """Both sides have the column and it differs."""

    def __init__(self, apart: float) -> None:
        super().__init__(f"mean log variance over 24 h is {apart} apart. Do not use the figure.")
        self.apart = apart


def made_candles(count: int, width_s: int = HOUR_S) -> Candles:
    """A random walk."""
    draw = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(0.01 * draw.standard_normal(count)))
    opening = np.concatenate([[100.0], close[:-1]])
    up, down = np.exp(0.01 * draw.random((2, count)))
    high, low = np.maximum(opening, close) * up, np.minimum(opening, close) / down
    start_s = width_s * np.arange(count) + 1_600_000_000 // HOUR_S * HOUR_S
    notional = 1e6 * draw.random(count)
    return Candles("venue", "COIN", width_s, start_s, opening, high, low, close, notional)


def _by_polars(frame: pl.DataFrame) -> pl.DataFrame:
    variance = ((pl.col("high") / pl.col("low")).log() ** 2 / (4 * np.log(2.0))).alias("v")
    frame = frame.with_columns(variance, pl.col("notional").log().alias("ln"))
    frame = frame.with_columns(pl.col("v").log().alias("lv"))
    return frame.select(
        *(pl.col("v").rolling_mean(n).log().alias(f"v{n}") for n in WINDOWS),
        *(pl.col("notional").rolling_mean(n).log().alias(f"n{n}") for n in (1, 3, 6, 24, 72)),
        *(pl.col("lv").rolling_mean(n).alias(f"lv{n}") for n in (6, 24, 168)),
        *(pl.col("ln").rolling_mean(n).alias(f"ln{n}") for n in (6, 24, 168)),
    )


def rows() -> list[Row]:
    """The five rows."""
    candles = made_candles(HOURS)
    columns = {"high": candles.high, "low": candles.low, "notional": candles.notional_usd}
    frame = pl.DataFrame(columns)
    _, table = public_rows(candles, with_context=False)
    theirs = _by_polars(frame)
    level = table[:, CANDLE_FEATURES.index("log_variance_168h")]
    ours_24 = table[:, CANDLE_FEATURES.index("mean_log_variance_24h")] + level
    apart = float(np.abs(ours_24 - theirs["lv24"].to_numpy()[MEMORY_H - 1 :]).max())
    if not apart < 1e-9:
        raise Mismatch(apart)
    batch = alternate(
        {
            "ours": lambda: public_rows(candles, with_context=False),
            "theirs": lambda: _by_polars(frame),
        },
        7,
    )
    found = [
        row(
            "features_batch",
            "polars, rolling means (20 of our 51 columns)",
            HOURS / batch["ours"],
            HOURS / batch["theirs"],
            "/s",
            ("polars", "numba"),
        )
    ]
    found += [
        _updates(candles, "polars, the last row from 168 bars"),
        _updates(made_candles(60 * 240, 60), "polars, the last row from 10 080 minutes"),
    ]
    return [*found, *_inference(neutral_rows(table[:5000]))]


def _updates(candles: Candles, counterpart: str) -> Row:
    """A bar and its row, after 168 h of bars."""
    stream, bars, per_hour = FeatureStream(), candles.bars(), HOUR_S // candles.width_s
    for _ in range(MEMORY_H * per_hour):
        stream.observe(next(bars))

    def update() -> Any:
        stream.observe(next(bars))
        return stream.row()

    columns = {"high": candles.high, "low": candles.low, "notional": candles.notional_usd}
    last = pl.DataFrame(columns).head(MEMORY_H * per_hour)
    hours = pl.int_range(pl.len()) // per_hour
    high, low, notional = pl.col("high").max(), pl.col("low").min(), pl.col("notional").sum()

    def theirs() -> Any:
        table = last
        if per_hour > 1:
            table = last.group_by(hours, maintain_order=True).agg(high, low, notional)
        return _by_polars(table).tail(1)

    inner = {"ours": UPDATES, "theirs": 20}
    taken = alternate({"ours": update, "theirs": theirs}, 7, inner)
    ours, other = taken["ours"] * 1e6, taken["theirs"] * 1e6
    return row("features_stream", counterpart, ours, other, "us", ("polars", "numba"))


def _inference(rows: Any) -> list[Row]:
    manifest = base_manifest((64, 32), 0, standins=("random weights",))
    data = pack(initial_arrays(manifest.network, 1), manifest)
    forecaster, one = Forecaster(load(data, sha256_of(data))), rows[0]
    target = np.random.default_rng(1).standard_normal(len(rows))
    settings = {"num_threads": 1, "verbose": -1}
    booster = lightgbm.train(settings, lightgbm.Dataset(rows, target), 300)
    layers = (torch.nn.Linear(len(FEATURES), 64), torch.nn.Tanh(), torch.nn.Linear(64, 32))
    net = torch.nn.Sequential(*layers, torch.nn.Tanh(), torch.nn.Linear(32, len(HEADS))).double()
    tensor = torch.tensor(one[None])

    def by_torch() -> Any:
        with torch.inference_mode():
            return net(tensor)

    taken = alternate(
        {
            "ours": lambda: forecaster.predict(one),
            "lightgbm": lambda: booster.predict(one[None], num_threads=1),
            "torch": by_torch,
        },
        7,
        {"ours": UPDATES, "lightgbm": UPDATES, "torch": UPDATES},
    )
    return [
        row("inference", label, taken["ours"] * 1e6, taken[side] * 1e6, "us", (side, "numpy"))
        for side, label in (("lightgbm", "LightGBM, 300 trees"), ("torch", "torch, the network"))
    ]
