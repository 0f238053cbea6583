"""How well the next hour's variance is forecast, beside HAR, GARCH and boosted trees; with and
without privacy. The table of docs/forecasts.md.

    python -m benchmarks.forecasts --data ../shared/data --part public  --out out/forecasts.json
    python -m benchmarks.forecasts --data ../shared/data --part private --out out/private.json

Trained on what ended before 2025-01-01, judged on what began after it, all symbols of
`perp_ohlcv/binance_usdm_1h.parquet`. R² is Campbell and Thompson's (2008): one less the squared
error over that of the symbol's own mean before 2025. QLIKE, and the Diebold–Mariano test on it, are
those of `fedtrade.learning.evaluation`. Choices were made on 2024 (trained before 2024-01-01).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fedtrade.artifact import Arrays, NetworkShape, flatten
from fedtrade.learning import baseline, evaluation
from fedtrade.learning.features import (
    FEATURES,
    PUBLIC_FEATURES,
    neutral_rows,
)
from fedtrade.learning.network import predict
from fedtrade.learning.optimiser import Adam
from fedtrade.learning.perceptron import log_to_mean
from fedtrade.learning.pretraining import pretrain
from fedtrade.learning.tables import HOUR_S, Candles
from fedtrade.learning.training import DEMO_HIDDEN, TrainingSettings, join, train
from fedtrade.learning.windows import (
    HEADS,
    MarketTable,
    PositionBatch,
    market_table,
    position_windows,
)
from fedtrade.privacy import accounting
from fedtrade.simulation.positions import SimulatedMember, StyleName, simulate_positions

Floats = NDArray[np.float64]
Told = tuple[Floats, Floats | float]
"""E[log v] of each row, and log E[v] less it, of all rows or of each."""
VENUE = "binance"
HIDDEN = (64, 32)
SEEDS = (1, 2, 3)
CANDLE_COLUMNS = 18
"""What the trees are given: the features that were there before the rhythm was."""
DELTA = 1e-6
EPSILON = 4.0
PRIVATE = TrainingSettings(
    rounds=100, sampling_rate=0.05, clip_norm=1.0, optimiser=Adam(learning_rate=1e-2)
)
BOOKS = 20
"""Simulated books of 1,500 to 2,500 positions each."""
STYLES: tuple[StyleName, ...] = ("market_maker", "directional", "hedger", "momentum")


def load(data: Path) -> dict[str, Candles]:
    """Hourly candles of every symbol."""
    frame = pl.read_parquet(data / "perp_ohlcv" / "binance_usdm_1h.parquet").sort("ts")
    found = {}
    for symbol in sorted(frame["symbol"].unique().to_list()):
        own = frame.filter(pl.col("symbol") == symbol)
        o, h, low, c, volume = (
            own[n].to_numpy().astype(np.float64) for n in ("open", "high", "low", "close", "volume")
        )
        start_s = own["ts"].dt.epoch("s").to_numpy().astype(np.int64)
        notional = volume * (o + h + low + c) / 4.0
        found[symbol] = Candles(VENUE, symbol, HOUR_S, start_s, o, h, low, c, notional)
    return found


def har(train_on: MarketTable, rows: Floats) -> tuple[Floats, float]:
    """The symbol's own HAR on mean logs over 1, 6, 24 and 168 h; forecasts, and log to mean."""

    def design(table: Floats) -> Floats:
        level = table[:, 3]
        means = [table[:, PUBLIC_FEATURES.index(f"mean_log_variance_{h}h")] for h in (6, 24, 168)]
        columns = [np.ones(len(table)), table[:, :4].sum(1), *(m + level for m in means)]
        return np.stack(columns, axis=1)

    before, target = design(train_on.features), train_on.targets[:, 0]
    weights = np.linalg.lstsq(before, target, rcond=None)[0]
    return design(rows) @ weights, float(np.log(np.exp(target - before @ weights).mean()))


def garch(
    candles: Candles, train_on: MarketTable, late: MarketTable, cut_s: int
) -> tuple[Floats, float]:
    """GARCH(1,1) on hourly returns, refitted each quarter on all that ended before it.

    E[log v] is log of its variance plus the mean difference before the cut.
    """
    from arch import arch_model  # seconds to import

    close = np.log(candles.close)
    whole = np.diff(candles.start_s) == HOUR_S
    returns = np.where(whole, np.diff(close), 0.0) * 100.0  # never across a gap
    end_s = candles.end_s[1:]
    year = datetime.fromtimestamp(cut_s, UTC).year
    starts = [int(datetime(year, m, 1, tzinfo=UTC).timestamp()) for m in (1, 4, 7, 10)]
    log_h = np.full(len(returns), np.nan)
    for i, start_s in enumerate(starts):
        past = returns[end_s <= start_s]
        fitted = arch_model(past, mean="Zero", rescale=False).fit(disp="off")
        fixed = arch_model(returns, mean="Zero", rescale=False).fix(fitted.params)
        omega, alpha, beta = fitted.params
        following = omega + alpha * returns**2 + beta * fixed.conditional_volatility**2
        if i == 0:
            log_h[end_s < start_s] = np.log(following / 1e4)[end_s < start_s]
        log_h[end_s >= start_s] = np.log(following / 1e4)[end_s >= start_s]
    before = log_h[np.searchsorted(end_s, train_on.end_s)]
    shift = float((train_on.targets[:, 0] - before).mean())
    residual = train_on.targets[:, 0] - before - shift
    return log_h[np.searchsorted(end_s, late.end_s)] + shift, float(np.log(np.exp(residual).mean()))


def trees(rows: Floats, target: Floats) -> tuple[Any, float]:
    """LightGBM as it comes, on candle features alone, and log E[v] less E[log v] of it."""
    import lightgbm  # seconds to import

    data = lightgbm.Dataset(rows[:, :CANDLE_COLUMNS].astype(np.float32), target)
    booster = lightgbm.train({"num_threads": 1, "verbose": -1, "seed": 1}, data, 300)
    residual = target - booster.predict(rows[:, :CANDLE_COLUMNS].astype(np.float32), num_threads=1)
    return booster, float(np.log(np.exp(residual).mean()))


def noise_for(epsilon: float, size: int, settings: TrainingSettings) -> float:
    """The least noise multiplier whose release costs at most `epsilon` (PLD), rounding included."""
    low, high = 0.3, 16.0
    while high - low > 1e-2:
        middle = (low + high) / 2
        rounded = middle * 2**16 / (2**16 + size**0.5)
        spend = accounting.Spend(settings.sampling_rate, rounded, settings.rounds)
        within = accounting.epsilon([spend], DELTA).pld <= epsilon
        low, high = (low, middle) if within else (middle, high)
    return high


def books(
    market: Mapping[str, Candles], tables: Mapping[str, MarketTable], cut_s: int
) -> PositionBatch:
    """Simulated positions over the candles before the cut."""
    candles = {(VENUE, s): c for s, c in market.items()}
    by_market = {(VENUE, s): t for s, t in tables.items()}
    symbols, batches = sorted(tables), []
    for book in range(BOOKS):
        own = tuple(symbols[(book + k * 7) % len(symbols)] for k in range(3))
        who = SimulatedMember(f"book {book}", VENUE, STYLES[book % 4], own)
        first_s = max(int(market[s].start_s[0]) for s in own) + 8 * 86_400
        held = simulate_positions(who, candles, book, first_s, cut_s)
        batches.append(position_windows(held, by_market, cut_s))
    return join(batches)


def judge(
    late: Mapping[str, MarketTable],
    before: Mapping[str, MarketTable],
    forecasts: Mapping[str, Mapping[str, Told]],
) -> dict[str, Any]:
    """R² and QLIKE per symbol, and every forecaster against `network`: symbols won, and DM."""
    r2: dict[str, dict[str, float]] = {}
    losses: dict[str, dict[str, Floats]] = {}
    for name, by_symbol in forecasts.items():
        for symbol, (forecast, shift) in by_symbol.items():
            target = late[symbol].targets[:, 0]
            reference = before[symbol].targets[:, 0].mean()
            share = np.square(target - forecast).sum() / np.square(target - reference).sum()
            r2.setdefault(name, {})[symbol] = 1.0 - float(share)
            losses.setdefault(name, {})[symbol] = evaluation.qlike(target, forecast + shift)
    symbols = sorted(late)
    end_s = np.concatenate([late[s].end_s for s in symbols])
    found: dict[str, Any] = {"r2": r2, "qlike": {}, "against_network": {}}
    for name, own in losses.items():
        found["qlike"][name] = {s: float(own[s].mean()) for s in symbols}
        pooled = np.concatenate([own[s] for s in symbols])
        network = np.concatenate([losses["network"][s] for s in symbols])
        if name != "network":
            statistic, p = evaluation.diebold_mariano(network, pooled, end_s)
            found["against_network"][name] = {
                "better_qlike": sum(
                    bool(losses["network"][s].mean() < own[s].mean()) for s in symbols
                ),
                "better_r2": sum(r2["network"][s] > r2[name][s] for s in symbols),
                "symbols": len(symbols),
                "dm": statistic,
                "p": p,
            }
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """One test year: candles, and the tables before and after the cut."""

    cut_s: int
    market: dict[str, Candles]
    before: dict[str, MarketTable]
    late: dict[str, MarketTable]
    """Of the symbols that have hours after the cut."""


def split(data: Path, year: int) -> Split:
    """The tables of one test year; a symbol may have ended before it."""
    cut_s, until_s = (int(datetime(y, 1, 1, tzinfo=UTC).timestamp()) for y in (year, year + 1))
    market = load(data)
    late = {}
    for s, c in market.items():
        whole = market_table(c, until_s, with_context=False)
        shown = whole.end_s >= cut_s
        if shown.any():
            late[s] = whole.take(shown)
    return Split(
        cut_s,
        market,
        {s: market_table(c, cut_s, with_context=False) for s, c in market.items()},
        late,
    )


def public_part(parts: Split) -> dict[str, Any]:
    """Baselines, and networks trained on the public candles."""
    before, late = parts.before, parts.late
    rows = np.concatenate([t.features for t in before.values()])
    target = np.concatenate([t.targets[:, 0] for t in before.values()])
    forecasts: dict[str, dict[str, Told]] = {"HAR": {}, "LightGBM": {}}
    booster, shift = trees(rows, target)
    for s, table in late.items():
        forecasts["HAR"][s] = har(before[s], table.features)
        columns = table.features[:, :CANDLE_COLUMNS].astype(np.float32)
        forecasts["LightGBM"][s] = (booster.predict(columns, num_threads=1), shift)
    forecasts["GARCH"] = {s: garch(parts.market[s], before[s], late[s], parts.cut_s) for s in late}
    models = {s: pretrain(tuple(before.values()), HIDDEN, s) for s in SEEDS}
    for seed, model in models.items():
        forecasts[f"network, seed {seed}"] = _told(model, late)
    forecasts["network"] = forecasts[f"network, seed {SEEDS[0]}"]
    return judge(late, before, forecasts)


def private_part(parts: Split) -> dict[str, Any]:
    """A network trained from HAR on simulated positions, with noise and without it."""
    held = books(parts.market, parts.before, parts.cut_s)
    shape = NetworkShape(inputs=len(FEATURES), hidden=DEMO_HIDDEN, outputs=len(HEADS))
    fixed = baseline.fixed_arrays(tuple(parts.before.values()))
    start = baseline.initial_arrays(shape, 1, fixed)
    z = noise_for(EPSILON, len(flatten(start)), PRIVATE)
    forecasts = {}
    for name, noise in (("network", 0.0), ("network, ε = 4", z)):
        draw = np.random.Generator(np.random.PCG64(3))
        model = train(start, held, replace(PRIVATE, noise_multiplier=noise), draw)
        smearing = _smearing(model, parts.before)
        forecasts[name] = {s: (f, smearing) for s, (f, _) in _told(model, parts.late).items()}
    judged = judge(parts.late, parts.before, forecasts)
    return {"positions": held.count, "noise_multiplier": z, **judged}


def _told(model: Arrays, late: Mapping[str, MarketTable]) -> dict[str, Told]:
    """Forecasts of a network by symbol, and its own factor from log to mean."""
    rows = {s: neutral_rows(t.features) for s, t in late.items()}
    return {s: (predict(model, r)[:, 0], log_to_mean(model, r)[:, 0]) for s, r in rows.items()}


def _smearing(model: Arrays, before: Mapping[str, MarketTable]) -> float:
    """Log E[v] less E[log v] on every tenth hour before the cut: a release that begins at HAR keeps
    HAR's, which is too high for it."""
    rows = np.concatenate([neutral_rows(t.features[::10]) for t in before.values()])
    target = np.concatenate([t.targets[::10, 0] for t in before.values()])
    return float(np.log(np.exp(target - predict(model, rows)[:, 0]).mean()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("out/forecasts.json"))
    parser.add_argument("--part", choices=("public", "private"), default="public")
    parser.add_argument("--year", type=int, default=2025)
    asked = parser.parse_args()
    part = {"public": public_part, "private": private_part}[asked.part]
    found = part(split(asked.data, asked.year))
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
