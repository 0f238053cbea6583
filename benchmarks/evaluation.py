"""The tables of docs/evaluation.md: interval coverage through crashes, and liquidity demand.

    python -m benchmarks.evaluation --data ../shared/data intervals|hourly|minutes

Needs the data pack; `hourly` and `minutes` need the research extra (LightGBM). Prints Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fedtrade.artifact import NetworkShape, load, sha256_of
from fedtrade.learning import baseline
from fedtrade.learning.conformal import Track, interval_score, track_markets
from fedtrade.learning.contenders import Contest, enter, fit_har, fit_trees, table_of
from fedtrade.learning.evaluation import diebold_mariano, r_squared
from fedtrade.learning.features import log_volume_ratio, neutral_rows
from fedtrade.learning.folder import DataFolder
from fedtrade.learning.forecast import Forecaster
from fedtrade.learning.network import predict
from fedtrade.learning.optimiser import Adam
from fedtrade.learning.scorecard import CRASHES, EVER_S, day_s
from fedtrade.learning.splits import walk_forward
from fedtrade.learning.tables import HOUR_S
from fedtrade.learning.training import TrainingSettings, each_round, train
from fedtrade.learning.windows import HEADS, MarketTable, PositionBatch

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
DAY_S = 86_400
REFIT_S = 30 * DAY_S
WARM_S = 60 * DAY_S
CALIBRATION = 500
HIDDEN = (64, 32)
SEED = 1
MINUTE_S = 60
MINUTE_HIDDEN = (16, 8)
MINUTE_SEEDS = (1, 2, 3)
MINUTE = TrainingSettings(400, 0.05, np.inf, 0.0, Adam(learning_rate=3e-3))
"""On minutes: at most so many rounds of about a thousand minutes each."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("table", choices=("intervals", "hourly", "minutes"))
    args = parser.parse_args()
    {"intervals": intervals, "hourly": hourly, "minutes": minutes}[args.table](args.data)


def causal_har(table: MarketTable) -> tuple[Ints, Floats, Floats]:
    """(end_s, forecast, target) of log variance, HAR refitted every 30 days on all before."""
    first, last = int(table.end_s[0]) + WARM_S, int(table.end_s[-1])
    edges = [*range(first, last + 1, REFIT_S), last + 1]
    forecast = np.full(len(table.end_s), np.nan)
    for split in walk_forward(table.end_s, edges, HOUR_S):
        past = MarketTable(
            *(
                getattr(table, n)[split.train]
                for n in ("end_s", "features", "targets", "close", "mean_notional")
            )
        )
        fitted = baseline.fit_linear([past], "log_variance", baseline.HAR_FEATURES)
        forecast[split.test] = fitted.predict(table.features[split.test])
    known = np.isfinite(forecast)
    return table.end_s[known], forecast[known], table.targets[known, 0]


def intervals(data: Path) -> None:
    """Coverage and interval score of adaptive intervals beside fixed quantiles, by window."""
    folder = DataFolder(data)
    markets = [m for m in folder.markets() if m[0] in ("binance", "unnamed_spot")]
    tracks = []
    for market in markets:
        table = table_of(folder, folder.candles(*market), EVER_S)
        if len(table.end_s) >= 5_000:
            tracks.append(Track(*causal_har(table), CALIBRATION))
    rows = []
    for one, bounds in zip(tracks, track_markets(tracks), strict=True):
        first = (one.log_target - one.log_forecast)[:CALIBRATION]
        end_s, forecast, target = (
            a[CALIBRATION:] for a in (one.end_s, one.log_forecast, one.log_target)
        )
        fixed = (forecast + quantile for quantile in np.quantile(first, [0.05, 0.95]))
        rows.append((end_s, target, *bounds, *fixed))
    when, y, low, high, low_fixed, high_fixed = (np.concatenate(c) for c in zip(*rows, strict=True))
    own = [((r[1] >= r[2]) & (r[1] <= r[3])).mean() for r in rows]
    print(f"{len(rows)} markets, {len(y):,} hours; by market {min(own):.3f} to {max(own):.3f}\n")
    print("| window | markets | hours | adaptive | score | fixed quantiles | score | ± 1 day |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    months = (("May 2021, the month", "2021-05-01", "2021-06-01"),)
    named = (*CRASHES, *months)
    spans = [("all", 0, EVER_S), *((n, day_s(a, 0), day_s(b, 0)) for n, a, b in named)]
    for name, begin, end in spans:
        here = (when >= begin) & (when < end)
        wide = (when >= begin - DAY_S) & (when < end + DAY_S)
        inside = (y >= low) & (y <= high)
        of_fixed = ((y >= low_fixed) & (y <= high_fixed))[here].mean()
        scores = [
            interval_score(a[here], b[here], y[here]).mean()
            for a, b in ((low, high), (low_fixed, high_fixed))
        ]
        count = sum(bool(((r[0] >= begin) & (r[0] < end)).any()) for r in rows)
        print(
            f"| {name} | {count} | {int(here.sum()):,} | {inside[here].mean():.3f} "
            f"| {scores[0]:.2f} | {of_fixed:.3f} | {scores[1]:.2f} | {inside[wide].mean():.3f} |"
        )


def hourly(data: Path) -> None:
    """Demand of the next hour on every binance symbol, fitted before 2025, judged on 2025."""
    folder, from_s = DataFolder(data), day_s("2025-01-01", 0)
    raw = baseline.base_artifact((), seed=0)
    artifact = load(raw, sha256_of(raw))
    contests: list[Contest] = []
    for market in folder.markets():
        if market[0] == "binance":
            entered = enter(folder, market, from_s, EVER_S, Forecaster(artifact))
            if isinstance(entered, Contest):
                contests.append(entered)
    fit_har(contests, artifact, [])
    fit_trees(contests)
    add_network(contests)
    names = ("persistence", "seasonal", "har", "lightgbm", "network")
    print(f"{len(contests)} markets, {sum(len(c.table.end_s) for c in contests):,} hours\n")
    end_s = np.concatenate([c.table.end_s for c in contests])
    target = np.concatenate([c.table.targets[:, 1] for c in contests])
    forecasts = {n: np.concatenate([c.forecasts[n][:, 1] for c in contests]) for n in names}
    compare(end_s, target, forecasts)
    shown = ("har", "lightgbm", "network")
    print("\n| symbol, R² | " + " | ".join(shown) + " |\n|---|" + "--:|" * len(shown))
    for one in contests:
        y = one.table.targets[:, 1]
        own = [f"{r_squared(y, one.forecasts[n][:, 1]):.3f}" for n in shown]
        print(f"| {one.market[1]} | " + " | ".join(own) + " |")


def add_network(contests: list[Contest]) -> None:
    """Our network, fitted on the same past as the trees."""
    from fedtrade.learning.pretraining import pretrain

    pasts = [one.past for one in contests if len(one.past.end_s)]
    model = pretrain(pasts, HIDDEN, SEED)
    for one in contests:
        one.forecasts["network"] = predict(model, neutral_rows(one.table.features))


def minutes(data: Path) -> None:
    """Demand of the next minute of Polygon's USDC/WETH 0.05 % pool: log of volume over its last day's.

    Fitted on July to 8 August 2022, judged on the days after that the source has. The ratio of a
    minute without volume is floored; more than an hour without a row is a gap.
    """
    import lightgbm

    frame = pl.read_parquet(data / "dex_swaps" / "uniswap_v3_pool_1m.parquet")
    own = frame.filter(
        pl.col("pool").str.starts_with("polygon") & (pl.col("ts").dt.year() == 2022)
    ).sort("ts")
    at = own["ts"].dt.epoch("s").to_numpy() // MINUTE_S
    amount0, amount1 = (own[f"inAmount{i}"].cast(pl.Float64).to_numpy() for i in (0, 1))
    price = 1e12 / 1.0001 ** own["closeTick"].to_numpy()
    place = at - at[0]
    size = int(place[-1]) + 1
    volume, swing, quiet = np.zeros(size), np.zeros(size), np.ones(size, np.bool_)
    volume[place] = amount0 / 1e6 + amount1 / 1e18 * price
    swing[place] = (own["highestTick"] - own["lowestTick"]).to_numpy()
    quiet[place] = False
    held = np.maximum.accumulate(np.where(quiet, -1, np.arange(size)))
    end_s = (at[0] + np.arange(size) + 1) * MINUTE_S
    silence = np.arange(size) - held

    def mean(series: Floats, span: int) -> Floats:
        total = np.concatenate([[0.0], np.cumsum(series)])
        first = np.maximum(np.arange(size) + 1 - span, 0)
        return np.asarray((total[1:] - total[first]) / (np.arange(size) + 1 - first))

    day = mean(volume, 1440)
    spans = (1, 5, 15, 60, 240)
    columns = [log_volume_ratio(mean(volume, span), day) for span in spans]
    target = np.append(log_volume_ratio(volume[1:], day[:-1]), np.nan)
    yesterday = np.full(size, np.nan)
    yesterday[1440:] = target[:-1440]
    clock = 2 * np.pi * (end_s % DAY_S) / DAY_S
    smooth = log_volume_ratio(np.convolve(volume, np.full(31, 1 / 31), "same"), day)
    days = np.stack([_before(smooth, 1440 * k - 1) for k in range(1, 8)])
    usual = np.nansum(days, axis=0) / np.maximum(np.isfinite(days).sum(0), 1)
    rich = [*columns, *(np.log1p(mean(swing, s)) for s in spans), np.sin(clock), np.cos(clock)]
    rich += [_before(smooth, 1439), usual]
    usable = (np.arange(size) >= 2 * 1440) & np.isfinite(target)
    usable &= np.append(mean(1.0 * (silence > 60), 1440)[1:], 1.0) == 0
    cut_s = day_s("2022-08-09", 0)
    past, later = usable & (end_s + MINUTE_S <= cut_s), usable & (end_s >= cut_s)
    design = np.stack([np.ones(size), *columns], axis=1)
    weights = np.linalg.lstsq(design[past], target[past], rcond=None)[0]
    features = np.stack(rich, axis=1)
    booster = lightgbm.train(
        {"objective": "regression", "num_threads": 1, "verbosity": -1, "seed": 0},
        lightgbm.Dataset(features[past], target[past]),
    )
    print(
        f"{size:,} minutes, {(volume == 0).mean():.1%} without volume; {past.sum():,} to fit on\n"
    )
    forecasts = {
        "persistence": columns[0][later],
        "seasonal (yesterday)": yesterday[later],
        "har": (design @ weights)[later],
        "lightgbm": np.asarray(booster.predict(features[later])),
        "network": minute_network(features, target, past, len(columns))(features[later]),
    }
    compare(end_s[later], target[later], forecasts)


def _before(series: Floats, age: int) -> Floats:
    """The series as it was so many steps before; NaN at its beginning."""
    return np.concatenate([np.full(age, np.nan), series[:-age]])


def minute_network(
    features: Floats, target: Floats, past: NDArray[np.bool_], har: int
) -> Callable[[Floats], Floats]:
    """Our network on the table of minutes: forecasts of its first head, the mean of a few seeds.

    It starts from the regression on the first `har` features. Its target is in units of that
    regression's residuals, so that Huber's knee lies at three deviations; the second head is idle.
    The number of rounds is that which is best on the last fifth of the past.
    """
    rows, y = features[past], target[past]
    mean, scale = rows.mean(0), rows.std(0)
    design = np.concatenate([np.ones((len(y), 1)), ((rows - mean) / scale)[:, :har]], axis=1)
    weights = np.linalg.lstsq(design, y, rcond=None)[0]
    unit = float((y - design @ weights).std())
    first = np.zeros((len(HEADS), rows.shape[1]))
    first[0, :har] = weights[1:] / unit
    fixed = {
        "fixed.baseline_bias": np.array([weights[0] / unit, 0.0]),
        "fixed.baseline_weight": first,
        "fixed.feature_mean": mean,
        "fixed.feature_scale": scale,
    }
    shape = NetworkShape(inputs=rows.shape[1], hidden=MINUTE_HIDDEN, outputs=len(HEADS))
    arrays = {name: value.astype(np.float32) for name, value in fixed.items()}
    starts = [baseline.initial_arrays(shape, seed, arrays) for seed in MINUTE_SEEDS]
    targets = np.stack([y / unit, np.zeros(len(y))], axis=1).astype(np.float32)
    batch = PositionBatch(
        rows.astype(np.float32)[:, None], targets[:, None], np.ones((len(y), 1), np.float32)
    )
    early, late = np.arange(len(y) * 4 // 5), slice(len(y) * 4 // 5, None)
    errors = np.zeros(MINUTE.rounds)
    for seed, start in enumerate(starts):
        draw = np.random.Generator(np.random.PCG64(seed))
        for i, model in enumerate(each_round(start, batch.take(early), MINUTE, draw)):
            errors[i] += np.square(targets[late, 0] - predict(model, rows[late])[:, 0]).mean()
    settings = replace(MINUTE, rounds=int(errors.argmin()) + 1)
    models = [
        train(start, batch, settings, np.random.Generator(np.random.PCG64(seed)))
        for seed, start in enumerate(starts)
    ]
    print(f"network of {MINUTE_HIDDEN}: {settings.rounds} rounds\n")
    return lambda asked: np.mean([unit * predict(m, asked)[:, 0] for m in models], axis=0)


def compare(end_s: Ints, target: Floats, forecasts: Mapping[str, Floats]) -> None:
    """R², MSE, and each forecast against the one above it on the rows that both know."""
    print("| forecast | rows | R² | MSE | DM against the line above | p |")
    print("|---|--:|--:|--:|--:|--:|")
    above: Floats | None = None
    for name, forecast in forecasts.items():
        known = np.isfinite(forecast)
        y, f = target[known], forecast[known]
        tested = ""
        if above is not None:
            both = known & np.isfinite(above)
            a, b = (np.square(target - x)[both] for x in (forecast, above))
            statistic, p = diebold_mariano(a, b, end_s[both])
            tested = f"{statistic:+.1f} | {p:.2g}"
        print(
            f"| {name} | {len(y):,} | {r_squared(y, f):.3f} | {np.square(y - f).mean():.3f} "
            f"| {tested or ' |'} |"
        )
        above = forecast


if __name__ == "__main__":
    main()
