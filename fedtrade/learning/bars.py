"""Tables of OHLCV bars as sources write them, made into bars that can be trusted.

`ts` (UTC) opens the bar. Volume comes in base coin (`volume`, in the unit that the price is for:
kPEPE is 1000 PEPE), in quote currency (`volume_usd`), or both; `usd` is what comes out.
"""

from __future__ import annotations

import polars as pl

SWAP_TOLERANCE = 0.25
"""How far the mean price of a bar, USD volume over volume, may lie outside its range: rounding."""
OHLC = ("open", "high", "low", "close")


def clean_bars(
    frame: pl.DataFrame, width_s: int, stamped_at_close: bool
) -> tuple[pl.DataFrame, str]:
    """Bars (start_s, open, high, low, close, usd) in time order, and what had to be done to them.

    Left out: bars whose prices are not above zero or not inside [low, high], whose volume is
    negative or missing, or whose time does not fall on the grid of the width; and all bars of a
    time that has two different ones. Where both volumes are given and exchanged (their quotient is
    a price only the other way round) they are exchanged back.
    """
    start = pl.col("ts").dt.epoch("s").cast(pl.Int64) - (width_s if stamped_at_close else 0)
    frame, swapped = _with_usd(frame.with_columns(start.alias("start_s")))
    frame = frame.select("start_s", *(pl.col(n).cast(pl.Float64) for n in (*OHLC, "usd")))
    low, high = pl.col("low"), pl.col("high")
    numbers = [pl.col(n).is_finite().fill_null(False) for n in (*OHLC, "usd")]
    possible = (
        pl.all_horizontal(*numbers)
        & (low > 0)
        & (pl.col("open").is_between(low, high))
        & (pl.col("close").is_between(low, high))
        & (pl.col("usd") >= 0)
        & (pl.col("start_s") % width_s == 0)
    )
    kept = frame.filter(possible).unique()
    single = kept.filter(pl.len().over("start_s") == 1).sort("start_s")
    done = (
        (frame.height - frame.filter(possible).height, "bars left out that cannot be"),
        (kept.height - single.height, "bars left out that share their time with a different bar"),
        (swapped, "bars whose base and quote volume were exchanged"),
    )
    return single, ", ".join(f"{n} {what}" for n, what in done if n)


def widened(frame: pl.DataFrame, from_s: int, to_s: int) -> pl.DataFrame:
    """Wider bars, each made of all the shorter ones inside it; one that lacks any is not made."""
    whole = frame.group_by(pl.col("start_s") // to_s * to_s, maintain_order=True).agg(
        pl.col("open").first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("close").last(),
        pl.col("usd").sum(),
        pl.len().alias("parts"),
    )
    return whole.filter(pl.col("parts") == to_s // from_s).drop("parts")


def _with_usd(frame: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """`usd`: the USD volume where there is one, else volume times the mean of the four prices."""
    mean_price = pl.mean_horizontal(*OHLC)
    if "volume_usd" not in frame.columns:
        return frame.with_columns((pl.col("volume") * mean_price).alias("usd")), 0
    if "volume" not in frame.columns:
        return frame.with_columns(pl.col("volume_usd").alias("usd")), 0
    low = pl.col("low") * (1.0 - SWAP_TOLERANCE)
    high = pl.col("high") * (1.0 + SWAP_TOLERANCE)
    right = (pl.col("volume_usd") / pl.col("volume")).is_between(low, high)
    exchanged = (pl.col("volume") / pl.col("volume_usd")).is_between(low, high) & ~right
    usd = pl.when(exchanged).then(pl.col("volume")).otherwise(pl.col("volume_usd"))
    exchanged_count = frame.select(exchanged.fill_null(False).sum()).item()
    return frame.with_columns(usd.alias("usd")), int(exchanged_count)
