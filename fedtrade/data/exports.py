"""Bars that a user has exported from an exchange, taken into a folder of the research layout.

A file is CSV (comma or semicolon, with a header) or Parquet with these columns, by any of these
names and in any case; others are ignored:

| what | names |
|---|---|
| bar's opening, UTC | `ts`, `timestamp`, `time`, `open_time`, `opentime`, `date`, `datetime`, `unix` |
| prices | `open`, `high`, `low`, `close` |
| volume in base coin | `volume`, `volume_base`, `base_volume`, `vol` |
| or in USD | `volume_usd`, `usd_volume`, `quote_volume`, `quote_asset_volume`, `turnover` |

Times are ISO-8601 or Unix time in s, ms, µs or ns (told by their size). A bad row is named by its
number (the first after the header is row 1), and then nothing is taken.
"""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl

from fedtrade.errors import BadInput
from fedtrade.learning.bars import OHLC
from fedtrade.learning.folder import WIDTHS_S, coin

NAMES = {
    "ts": ("ts", "timestamp", "time", "open_time", "opentime", "date", "datetime", "unix"),
    **{name: (name,) for name in OHLC},
    "volume": ("volume", "volume_base", "base_volume", "vol"),
    "volume_usd": ("volume_usd", "usd_volume", "quote_volume", "quote_asset_volume", "turnover"),
}
MAX_LISTED = 20
MAX_FILE_BYTES = 2**31
REMEDY = "Correct the file; nothing was taken from it."
_MICROSECONDS = ((10**17, 1, 1000), (10**14, 1, 1), (10**11, 1000, 1), (0, 10**6, 1))
"""From this size on, a Unix time is (times, divided by) this in µs: it is in ns, µs, ms or s."""


def read_export(path: Path, symbol: str) -> pl.DataFrame:
    """(ts, symbol, open, high, low, close, volume and/or volume_usd) of an export, in time order."""
    frame = _renamed(_read(path), path.name)
    volumes = [name for name in ("volume", "volume_usd") if name in frame.columns]
    moment = _times(frame["ts"], path.name)
    numbers = frame.select(pl.col(n).cast(pl.Float64, strict=False) for n in (*OHLC, *volumes))
    low, high = pl.col("low"), pl.col("high")
    problems = numbers.select(
        pl.when(~pl.all_horizontal(pl.all().is_finite().fill_null(False)))
        .then(pl.lit("a price or volume is no number"))
        .when((low <= 0) | ~pl.col("open").is_between(low, high))
        .then(pl.lit("open must lie between low and high, and low above zero"))
        .when(~pl.col("close").is_between(low, high))
        .then(pl.lit("close must lie between low and high"))
        .when(pl.min_horizontal(*volumes) < 0)
        .then(pl.lit("a volume is negative"))
        .when(pl.Series(moment.is_null()))
        .then(pl.lit("its time is no ISO-8601 and no Unix time"))
        .when(pl.Series(moment.is_duplicated()))
        .then(pl.lit("another row has the same time"))
    ).to_series()
    bad = [f"row {i + 1}: {text}" for i, text in enumerate(problems) if text is not None]
    if bad or numbers.is_empty():
        more = f"; and {len(bad) - MAX_LISTED} more bad rows" if len(bad) > MAX_LISTED else ""
        raise BadInput(path.name, "; ".join(bad[:MAX_LISTED]) + more or "it has no rows", REMEDY)
    return (
        numbers.insert_column(0, moment.alias("ts"))
        .select("ts", pl.lit(coin(symbol)).alias("symbol"), pl.exclude("ts"))
        .sort("ts")
    )


def take_export(path: Path, folder: Path, venue: str, symbol: str, kind: str = "perp") -> Path:
    """Write an export into a folder (made where it is absent) and say where. `kind`: perp or spot.

    Raises BadInput where the file cannot be read, its bars have no usual width, or the folder holds
    that file already.
    """
    if not venue.isalnum() or not coin(symbol).isalnum():
        raise BadInput(f"{venue}/{symbol}", "letters and digits only", "Name it like binance, BTC.")
    frame = read_export(path, symbol)
    steps = frame["ts"].diff().drop_nulls().dt.total_seconds().value_counts(sort=True)
    width_s = int(steps[steps.columns[0]][0]) if steps.height else 0
    width = next((name for name, known in WIDTHS_S.items() if known == width_s), None)
    if width is None:
        problem = f"its bars are {width_s} s apart"
        raise BadInput(path.name, problem, f"Export bars of {', '.join(WIDTHS_S)}.")
    target = folder / f"{kind}_ohlcv" / f"{venue.lower()}_{width}_{coin(symbol)}.parquet"
    if target.exists():
        problem = f"{target.relative_to(folder)} exists"
        raise BadInput(str(folder), problem, "Remove it first if this export is to replace it.")
    write_bars(frame, target)
    return target


def write_bars(frame: pl.DataFrame, target: Path) -> None:
    """Write bars as the folder's files are, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".tmp")
    frame.with_columns(pl.col("ts").dt.cast_time_unit("ms")).write_parquet(temporary)
    os.replace(temporary, target)


def _read(path: Path) -> pl.DataFrame:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BadInput(path.name, f"larger than {MAX_FILE_BYTES} bytes", "Split the file.")
        if path.suffix.lower() == ".parquet":
            return pl.read_parquet(path)
        if path.suffix.lower() == ".csv":
            with path.open(encoding="utf-8") as file:
                separator = ";" if ";" in file.readline() else ","
            return pl.read_csv(path, separator=separator, infer_schema=False)
    except (OSError, UnicodeDecodeError, pl.exceptions.PolarsError) as error:
        problem = f"it cannot be read ({type(error).__name__})"
        raise BadInput(path.name, problem, REMEDY) from error
    raise BadInput(path.name, "the name must end in .csv or .parquet", REMEDY)


def _renamed(frame: pl.DataFrame, where: str) -> pl.DataFrame:
    have = {name.strip().lower().replace(" ", "_"): name for name in frame.columns}
    found = {}
    for ours, names in NAMES.items():
        name = next((n for n in names if n in have), None)
        if name is not None:
            found[ours] = have[name]
    missing = [n for n in ("ts", *OHLC) if n not in found]
    if "volume" not in found and "volume_usd" not in found:
        missing.append("volume or volume_usd")
    if missing:
        problem = f"no column for {', '.join(missing)}"
        raise BadInput(where, problem, "See `fedtrade data import --help` for the names.")
    return frame.select(pl.col(theirs).alias(ours) for ours, theirs in found.items())


def _times(column: pl.Series, where: str) -> pl.Series:
    """UTC times, null where a cell is none."""
    utc = pl.Datetime("us", "UTC")
    if column.dtype == pl.Date:
        column = column.cast(pl.Datetime("us"))
    if isinstance(column.dtype, pl.Datetime):
        aware = column if column.dtype.time_zone else column.dt.replace_time_zone("UTC")
        return aware.dt.convert_time_zone("UTC").dt.cast_time_unit("us")
    number = column.cast(pl.Float64, strict=False)
    if number.null_count() == len(number):
        try:
            return column.str.strip_chars().str.to_datetime(
                time_unit="us", time_zone="UTC", strict=False
            )
        except pl.exceptions.PolarsError as error:
            raise BadInput(where, "its times are in no one format", REMEDY) from error
    whole = column.cast(pl.Float64, strict=False).cast(pl.Int64, strict=False)
    us = pl.lit(None, pl.Int64)
    for least, times, over in reversed(_MICROSECONDS):
        us = pl.when(pl.col("t") >= least).then(pl.col("t") * times // over).otherwise(us)
    return pl.DataFrame({"t": whole}).select(us.cast(utc)).to_series()
