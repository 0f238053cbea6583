"""Rebuild the packaged data cut from the research data pack.

    python examples/make_data_cut.py PATH_OF_THE_DATA_PACK

Only sources under a permissive licence go in (fedtrade/data/ATTRIBUTION.md names them). Candles,
funding and open interest are copied as they are; one day of one-minute ETH candles, with the crash
of 13 June 2025 in it, is cut for the replay.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

DATA = Path(__file__).resolve().parent.parent / "fedtrade" / "data"
PLAIN = {
    "perp_ohlcv/cross_venue_1h.parquet": "candles_1h.parquet",
    "funding/cross_venue.parquet": "funding.parquet",
    "open_interest/cross_venue_1h.parquet": "open_interest_1h.parquet",
}
CRASH_START = datetime(2025, 6, 12, 12, tzinfo=UTC)
OHLCV = ("open", "high", "low", "close", "volume")


def crash_minutes(pack: Path) -> pl.DataFrame:
    """The day's one-minute candles of ETH."""
    minutes = pl.read_parquet(pack / "perp_ohlcv/binance_usdm_1m_2025-05.parquet")
    day = pl.col("ts").is_between(CRASH_START, CRASH_START + timedelta(days=1), closed="left")
    return minutes.filter(day & (pl.col("symbol") == "ETHUSDT")).sort("ts").select("ts", *OHLCV)


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
