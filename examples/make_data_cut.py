"""Rebuild the packaged data cut from the research data pack.

    python examples/make_data_cut.py PATH_OF_THE_DATA_PACK

Only sources under a permissive licence go in (fedtrade/data/ATTRIBUTION.md names them). Candles,
funding and open interest are copied as they are. Two windows of one-minute candles are cut for
replays. Of the second one the pack has recorded minutes for ETH only; for BTC and SOL the minutes
are a *refinement* of the recorded hourly candles, marked `recorded = false`: within each hour the
shape of ETH's recorded minutes is mapped into the hour's recorded range, bridged so that it starts
at the recorded open and ends at the recorded close, and the hour's recorded volume is spread like
ETH's. Hourly open, high, low, close and volume are therefore exact; the minutes inside are not.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

DATA = Path(__file__).resolve().parent.parent / "fedtrade" / "data"
SYMBOLS = ("BTC", "ETH", "SOL")
PLAIN = {
    "perp_ohlcv/cross_venue_1h.parquet": "candles_1h.parquet",
    "funding/cross_venue.parquet": "funding.parquet",
    "open_interest/cross_venue_1h.parquet": "open_interest_1h.parquet",
}
CRASHES = {
    "2025-05-19": datetime(2025, 5, 18, 12, tzinfo=UTC),
    "2025-06-13": datetime(2025, 6, 12, 12, tzinfo=UTC),
}
"""Name of each replay window and its start; each lasts a day."""
OHLC = ("open", "high", "low", "close")


def refine(hours: pl.DataFrame, guide: pl.DataFrame) -> pl.DataFrame:
    """Minutes for recorded `hours` of one symbol, shaped by the recorded minutes of `guide`."""
    parts = []
    for hour in hours.iter_rows(named=True):
        end = hour["ts"] + timedelta(hours=1)
        minutes = guide.filter((pl.col("ts") >= hour["ts"]) & (pl.col("ts") < end))
        if minutes.height != 60:
            raise SystemExit(f"the guide has {minutes.height} of 60 minutes from {hour['ts']}")
        log_open, log_high, log_low, log_close = (np.log(hour[name]) for name in OHLC)
        shape = np.log(minutes.select(OHLC).to_numpy())
        low, high = shape[:, 2].min(), shape[:, 1].max()
        mapped = log_low + (shape - low) * (log_high - log_low) / (high - low)
        start_gap, end_gap = log_open - mapped[0, 0], log_close - mapped[-1, 3]
        clock = np.add.outer(np.arange(60) / 60, np.array([0, 0.5, 0.5, 1]) / 60)
        path = np.clip(mapped + start_gap + (end_gap - start_gap) * clock, log_low, log_high)
        path[0, 0], path[-1, 3] = log_open, log_close
        path[:, 1], path[:, 2] = path.max(1), path.min(1)
        path[path[:, 1].argmax(), 1], path[path[:, 2].argmin(), 2] = log_high, log_low
        volume = minutes["volume"].to_numpy()
        prices = {name: np.exp(path[:, i]) for i, name in enumerate(OHLC)}
        parts.append(
            pl.DataFrame(
                {"ts": minutes["ts"], **prices, "volume": hour["volume"] * volume / volume.sum()}
            )
        )
    return pl.concat(parts)


def crash_minutes(pack: Path) -> pl.DataFrame:
    """One-minute candles of every window and symbol, with `window` and `recorded`."""
    minutes = pl.read_parquet(pack / "perp_ohlcv/binance_usdm_1m_2025-05.parquet")
    candles = pl.read_parquet(pack / "perp_ohlcv/cross_venue_1h.parquet")
    parts = []
    for window, start in CRASHES.items():
        inside = pl.col("ts").is_between(start, start + timedelta(days=1), closed="left")
        cut = {
            symbol: minutes.filter(inside & (pl.col("symbol") == f"{symbol}USDT"))
            .drop("symbol")
            .sort("ts")
            for symbol in SYMBOLS
        }
        for symbol, frame in cut.items():
            recorded = frame.height == 1440
            if not recorded:
                own = (pl.col("venue") == "binance") & (pl.col("symbol") == symbol)
                frame = refine(candles.filter(inside & own).sort("ts"), cut["ETH"])
            labels = {"window": window, "symbol": symbol, "recorded": recorded}
            parts.append(frame.with_columns(*(pl.lit(v).alias(k) for k, v in labels.items())))
    columns = ["window", "symbol", "recorded", "ts", *OHLC, "volume"]
    return pl.concat([part.select(columns) for part in parts])


def main(pack: Path) -> None:
    DATA.mkdir(exist_ok=True)
    for source, name in PLAIN.items():
        frame = pl.read_parquet(pack / source).sort("venue", "symbol", "ts")
        frame.write_parquet(DATA / name, compression="zstd", compression_level=19)
    crash_minutes(pack).write_parquet(
        DATA / "crash_1m.parquet", compression="zstd", compression_level=19
    )
    for path in sorted(DATA.glob("*.parquet")):
        print(f"{path.name:28} {path.stat().st_size:>9,} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
