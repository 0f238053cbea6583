"""What position-level ε costs in forecasts, on real candles: federated, solo, pooled, HAR.

    python -m benchmarks.epsilon --data FOLDER --out docs

FOLDER is the research data pack (its `perp_ohlcv` files are not in the repository). Twelve members on
three venues hold simulated positions over the recorded prices: the styles are those of
`fedtrade.simulation.positions`, the sizes are scaled so that a member turns over TURNOVER of what its
market trades. Walk-forward: for each of CUTS everything is fitted on what ended before the cut and
judged on every hour of every market in the month after it. Each seed draws books, sampling, noise and
initial weights anew.

federated  `training.train` on all members' positions with the noise of ε: the computation of a release
           with its cryptography taken away, which draws from the same distribution
solo       each member's own positions, no noise
pooled     all positions, no noise: what nobody may do
HAR        the public baseline that every network starts from

Leaves epsilon.json and epsilon.svg in the output folder and prints the tables of docs/epsilon.md.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are imported

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy.stats import t as student

from fedtrade.artifact import Arrays, NetworkShape, flatten
from fedtrade.errors import BadInput
from fedtrade.learning import baseline, evaluation
from fedtrade.learning.features import (
    FEATURES,
    neutral_rows,
)
from fedtrade.learning.network import predict
from fedtrade.learning.positions import Positions
from fedtrade.learning.tables import HOUR_S, Candles
from fedtrade.learning.training import DEFAULTS, DEMO_HIDDEN, TrainingSettings, join, train
from fedtrade.learning.windows import (
    HEADS,
    MarketTable,
    PositionBatch,
    market_table,
    position_windows,
)
from fedtrade.privacy import accounting
from fedtrade.simulation.positions import CONSORTIUM, SimulatedMember, simulate_positions

EPSILONS = (1.0, 2.0, 4.0, 8.0)
DELTA = 1e-6
SEEDS = (1, 2, 3, 4, 5)
TURNOVER = 0.002
"""A member's traded notional over that of its market in the same time: an assumption."""
BOOKS = 2
"""Books of the simulator put together for one member (each has 1,500 to 2,500 positions)."""
WARM_UP_S = 8 * 86_400
START_S = int(datetime(2024, 9, 5, tzinfo=UTC).timestamp())
CUTS = tuple(int(datetime(2025, month, 1, tzinfo=UTC).timestamp()) for month in (5, 6, 7, 8))
"""Training ends at each but the last; the month up to the next one is judged."""
MEMBERS = (
    *CONSORTIUM,
    SimulatedMember("maple", "binance", "momentum", ("BNB", "SUI")),
    SimulatedMember("poplar", "binance", "market_maker", ("ADA", "LTC", "DOT")),
    SimulatedMember("rowan", "binance", "directional", ("NEAR", "TRX")),
    SimulatedMember("juniper", "hyperliquid", "market_maker", ("SUI", "BNB", "LTC")),
)

Market = tuple[str, str]
Floats = NDArray[np.float64]


def load(data: Path) -> dict[Market, Candles]:
    """Hourly candles of every market that a member trades, from the pack."""
    folder = data / "perp_ohlcv"
    wanted = sorted({(who.venue, symbol) for who in MEMBERS for symbol in who.symbols})
    if not folder.is_dir():
        raise BadInput("--data", f"{folder} is not a folder", "Give the research data pack.")
    frames = {
        "binance": (pl.read_parquet(folder / "binance_usdm_1h.parquet"), "{}USDT"),
        "hyperliquid": (pl.read_parquet(folder / "hyperliquid_1h.parquet"), "{}-USD"),
        "bybit": (
            pl.read_parquet(folder / "cross_venue_1h.parquet").filter(pl.col("venue") == "bybit"),
            "{}",
        ),
    }
    found = {}
    for venue, symbol in wanted:
        frame, form = frames[venue]
        own = frame.filter(pl.col("symbol") == form.format(symbol)).sort("ts")
        if own.is_empty():
            raise BadInput("--data", f"no candles of {venue}/{symbol}", "Give the whole pack.")
        found[venue, symbol] = _candles(own, venue, symbol).between(START_S, CUTS[-1] + HOUR_S)
    return found


def _candles(frame: pl.DataFrame, venue: str, symbol: str) -> Candles:
    start_s = frame["ts"].dt.epoch("s").to_numpy()
    o, h, low, c, volume = (
        frame[name].to_numpy().astype(np.float64)
        for name in ("open", "high", "low", "close", "volume")
    )
    notional = volume * (o + h + low + c) / 4.0
    return Candles(venue, symbol, HOUR_S, np.asarray(start_s, np.int64), o, h, low, c, notional)


def books(
    who: SimulatedMember,
    market: Mapping[Market, Candles],
    tables: Mapping[Market, MarketTable],
    seed: int,
    until_s: int,
) -> PositionBatch:
    """A member's positions up to a cut, as the batch that its gradients come from."""
    batches = []
    for book in range(BOOKS):
        first_s = max(int(market[who.venue, s].start_s[0]) for s in who.symbols) + WARM_UP_S
        simulated = simulate_positions(who, market, seed * BOOKS + book, first_s, until_s)
        sized = _calibrated(simulated, market, first_s, until_s)
        batches.append(position_windows(sized, tables, until_s))
    return join(batches)


def _calibrated(
    positions: Positions, market: Mapping[Market, Candles], from_s: int, until_s: int
) -> Positions:
    """Positions of a size at which opening and closing them is TURNOVER / BOOKS of the market."""
    quantity = positions.quantity_base.copy()
    symbols = np.array(positions.symbol)
    for symbol in sorted(set(positions.symbol)):
        own = symbols == symbol
        traded = market[positions.venue[0], symbol].between(from_s, until_s).notional_usd.sum()
        simulated = 2.0 * float((quantity * positions.entry_price)[own].sum())
        quantity[own] *= TURNOVER / BOOKS * traded / simulated
    return replace(positions, quantity_base=quantity)


def noise_for(epsilon: float) -> float:
    """The least noise multiplier whose release costs at most `epsilon` (PLD), rounding included."""
    shape = NetworkShape(inputs=len(FEATURES), hidden=DEMO_HIDDEN, outputs=len(HEADS))
    size = len(flatten(baseline.initial_arrays(shape, 0)))
    low, high = 0.5, 64.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        rounded = middle * 2**16 / (2**16 + size**0.5)
        spend = accounting.Spend(DEFAULTS.sampling_rate, rounded, DEFAULTS.rounds)
        within = accounting.epsilon([spend], DELTA).pld <= epsilon
        low, high = (low, middle) if within else (middle, high)
    return high


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """The hours of one month on all markets, with each forecaster's losses."""

    market: NDArray[np.str_]
    target: Floats
    forecasts: dict[str, Floats]
    """E[log variance] by forecaster."""
    losses: dict[str, Floats]
    """QLIKE by forecaster."""


def month(
    market: Mapping[Market, Candles], seed: int, place: int, noises: Mapping[str, float]
) -> tuple[Judged, dict[str, int]]:
    """Fit everything before one cut and judge it on the month after it."""
    cut_s, until_s = CUTS[place], CUTS[place + 1]
    tables = {key: market_table(c, cut_s, with_context=False) for key, c in market.items()}
    members = {who.name: books(who, market, tables, 100 * seed + place, cut_s) for who in MEMBERS}
    fixed = baseline.fixed_arrays(tuple(tables.values()))
    shape = NetworkShape(inputs=len(FEATURES), hidden=DEMO_HIDDEN, outputs=len(HEADS))
    start = baseline.initial_arrays(shape, seed, fixed)
    whole = join(list(members.values()))

    def fitted(batch: PositionBatch, z: float, label: str) -> Arrays:
        draw = np.random.Generator(np.random.PCG64([seed, place, *label.encode()]))
        settings = TrainingSettings(noise_multiplier=z)
        return train(start, batch, settings, draw)

    models: dict[str, Arrays] = {"HAR": start, "pooled": fitted(whole, 0.0, "pooled")}
    models |= {name: fitted(whole, z, name) for name, z in noises.items()}
    models |= {f"solo {name}": fitted(own, 0.0, name) for name, own in members.items()}
    late = {key: market_table(c, until_s, with_context=False) for key, c in market.items()}
    rows, targets, names = [], [], []
    for key, table in late.items():
        shown = table.end_s >= cut_s
        rows.append(neutral_rows(table.features[shown]).astype(np.float32))
        targets.append(table.targets[shown, 0])
        names += ["/".join(key)] * int(shown.sum())
    x, target = np.concatenate(rows), np.concatenate(targets)
    shift = float(fixed["fixed.log_to_mean"][0])
    forecasts = {name: predict(model, x)[:, 0] for name, model in models.items()}
    losses = {name: evaluation.qlike(target, y + shift) for name, y in forecasts.items()}
    sizes = {name: batch.count for name, batch in members.items()}
    return Judged(np.array(names), target, forecasts, losses), sizes


def score(months: Sequence[Judged]) -> dict[str, Any]:
    """One seed's figures over all months."""
    market = np.concatenate([m.market for m in months])
    target = np.concatenate([m.target for m in months])
    names = list(months[0].losses)
    losses = {n: np.concatenate([m.losses[n] for m in months]) for n in names}
    forecasts = {n: np.concatenate([m.forecasts[n] for m in months]) for n in names}
    result: dict[str, Any] = {
        name: {
            "qlike": float(losses[name].mean()),
            "r2": evaluation.r_squared(target, forecasts[name]),
        }
        for name in names
    }
    own = {w.name: np.isin(market, [f"{w.venue}/{s}" for s in w.symbols]) for w in MEMBERS}
    gain = result["HAR"]["qlike"] - result["pooled"]["qlike"]
    for name in names:
        if name.startswith("solo"):
            continue
        won = [
            losses[name][at].mean() < losses[f"solo {who}"][at].mean() for who, at in own.items()
        ]
        everywhere = [losses[name].mean() < losses[f"solo {who}"].mean() for who in own]
        result[name] |= {
            "beats_solo_own_markets": float(np.mean(won)),
            "beats_solo_all_markets": float(np.mean(everywhere)),
            "gain_kept": (result["HAR"]["qlike"] - result[name]["qlike"]) / gain,
        }
    solo = [result.pop(f"solo {who}") for who in own]
    result["solo (mean)"] = {
        "qlike": float(np.mean([s["qlike"] for s in solo])),
        "r2": float(np.mean([s["r2"] for s in solo])),
        "qlike_own_markets": float(
            np.mean([losses[f"solo {w}"][at].mean() for w, at in own.items()])
        ),
    }
    return result


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of Student's 95 % interval over seeds."""
    array = np.array(values)
    half = student.ppf(0.975, len(array) - 1) * array.std(ddof=1) / len(array) ** 0.5
    return float(array.mean()), float(half)


def tables_text(seeds: Sequence[Mapping[str, Any]], noises: Mapping[str, float]) -> str:
    """The table of the document, as Markdown."""
    lines = [
        "| model | z | QLIKE | R² | beats solo, own markets | beats solo, all | pooled gain kept |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]

    def cell(name: str, key: str, digits: int, percent: bool = False) -> str:
        if key not in seeds[0][name]:
            return "–"
        mean, half = interval([s[name][key] * (100 if percent else 1) for s in seeds])
        return f"{mean:.{digits}f} ± {half:.{digits}f}{' %' if percent else ''}"

    for name in ("HAR", "solo (mean)", *noises, "pooled"):
        z = f"{noises[name]:.2f}" if name in noises else "–"
        lines.append(
            f"| {name} | {z} | {cell(name, 'qlike', 4)} | {cell(name, 'r2', 4)} | "
            f"{cell(name, 'beats_solo_own_markets', 0, True)} | "
            f"{cell(name, 'beats_solo_all_markets', 0, True)} | {cell(name, 'gain_kept', 0, True)} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="ε against forecast error on real candles.")
    parser.add_argument("--data", type=Path, required=True, help="the research data pack")
    parser.add_argument("--out", type=Path, required=True, help="folder for JSON and plot")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="fewer, for a quick look")
    given = parser.parse_args()
    torch.set_num_threads(1)
    began = process_time()
    market = load(given.data)
    noises = {f"federated, ε = {e:g}": noise_for(e) for e in EPSILONS}
    print({name: round(z, 3) for name, z in noises.items()}, flush=True)
    seeds: list[dict[str, Any]] = []
    sizes: list[dict[str, int]] = []
    for seed in SEEDS[: given.seeds]:
        months = []
        for place in range(len(CUTS) - 1):
            judged, counts = month(market, seed, place, noises)
            months.append(judged)
            sizes.append(counts)
            shown = {n: round(float(v.mean()), 4) for n, v in judged.losses.items()}
            print(f"seed {seed}, month {place + 1}: {process_time() - began:.0f} s of CPU, {shown}")
        seeds.append(score(months))
    found = {
        "epsilons": EPSILONS,
        "delta": DELTA,
        "noise_multipliers": noises,
        "sampling_rate": DEFAULTS.sampling_rate,
        "rounds": DEFAULTS.rounds,
        "cuts_s": CUTS,
        "members": {w.name: [w.venue, w.style, *w.symbols] for w in MEMBERS},
        "positions": sizes,
        "judged_hours": [len(m.target) for m in months],
        "seeds": seeds,
        "cpu_s": round(process_time() - began),
    }
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "epsilon.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    totals = [sum(counts.values()) for counts in sizes]
    print(
        f"positions: {min(totals)} to {max(totals)} in all, {found['judged_hours']} hours a month"
    )
    if len(seeds) > 1:
        print(tables_text(seeds, noises))
        from benchmarks.epsilon_figure import draw

        (given.out / "epsilon.svg").write_text(draw(found))


if __name__ == "__main__":
    main()
