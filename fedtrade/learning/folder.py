"""A folder of public market data in the layout of the research pack, read lazily.

```
perp_ohlcv/<venue>[_…]_<width>[_…].parquet   ts, symbol, open, high, low, close, volume | volume_usd
perp_ohlcv/cross_venue_<width>.parquet       the same with a column `venue`
spot_ohlcv/…                                 the same; the venue is called <venue>_spot
funding/<venue>[_…].parquet                  ts, symbol, funding_rate (a fraction per settlement)
funding/cross_venue.parquet                  the same with a column `venue`
open_interest/coinalyze_daily.parquet        ts, symbol, contract, oi_close (USD)
open_interest/cross_venue_1h.parquet         ts, venue, symbol, oi_usd
options/dvol_<coin>_daily.parquet            ts, symbol, dvol
gas/ethereum_daily_gas.parquet               ts, avg_gas_price_gwei
liquidations/aave_v2_ethereum.parquet        ts, collateral, collateral_usd, debt_usd
liquidations/perp_liquidations*.parquet      ts, venue, symbol, size_usd
```

Any file may be absent. `ts` is UTC and opens the bar (but for CLOSE_STAMPED). Symbols are asked for
as coins (`BTC`, `kPEPE`) or as the venue writes them (`BTCUSDT`, `1000PEPEUSDT`). A bar that cannot
be is left out (`bars.clean_bars`), which makes it a gap, and `notes` says how many were. Nothing is
filled in and nothing is joined across a gap.

Where several files hold the same market at the same width, the venue's own files are taken and
`cross_venue` is not mixed in: its Hyperliquid volume is 0.43 of what the venue itself reports. For
funding it fills only what the venue's own file lacks, an hour late where it is a sample of the
premium and not yet the settled rate (SAMPLED_EARLY_S).
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from fedtrade.errors import BadInput
from fedtrade.learning import context
from fedtrade.learning.bars import OHLC, clean_bars, widened
from fedtrade.learning.series import Floats, Ints, Series, spread
from fedtrade.learning.tables import HOUR_S, Candles

CLOSE_STAMPED = ("btc_perp_1m_202201",)
"""Files whose `ts` closes the bar."""
UNNAMED = ("btc_perp", "btcusd")
"""How files begin whose source does not name the venue."""
WIDTHS_S = {
    "1m": 60,
    "5m": 300,
    "15m": 900,
    "30m": 1800,
    "1h": 3600,
    "4h": 14_400,
    "8h": 28_800,
    "1d": 86_400,
    "daily": 86_400,
}
KEYS = ("venue", "symbol", "contract", "collateral")
"""Columns that say which market a row is of."""
OTHER_NAMES = {"baseTokenVolume": "volume", "usdVolume": "volume_usd"}
"""What dYdX calls its volumes."""
PATTERNS = (
    "perp_ohlcv/*.parquet",
    "spot_ohlcv/*.parquet",
    "funding/*.parquet",
    "open_interest/*.parquet",
    "options/dvol_*_daily.parquet",
    "gas/ethereum_daily_gas.parquet",
    "liquidations/*.parquet",
    "mev/block_receipts.parquet",
)
BAR_COLUMNS = (("ts", *OHLC), ("volume", "volume_usd"))
REMEDY = "Put the whole file in its place, or take it out of the folder."
MAX_DVOL = 1e4
"""Percent a year."""
AGGREGATOR_VENUES = {"A": "binance", "6": "bybit", "3": "okx"}
"""The suffix of a Coinalyze contract names its venue."""
DOLLAR_COINS = ("TUSD", "FDUSD", "PYUSD", "BUSD", "GUSD", "LUSD", "SUSD")
"""Coins whose own names end like a quote."""
_QUOTE = re.compile(r"(?<=.)(-USDT?-SWAP|[-/]?USD[TC]?|-PERP)$")

Market = tuple[str, str]


def coin(symbol: str) -> str:
    """The coin of a venue's symbol: BTCUSDT, BTC-USD and BTC are BTC; 1000PEPEUSDT is kPEPE."""
    bare = symbol if symbol in DOLLAR_COINS else _QUOTE.sub("", symbol)
    return f"k{bare[4:]}" if re.match(r"1000[A-Z]", bare) else bare


class DataFolder:
    """Public data of one folder; a file is read when it is first asked for, and then kept."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            remedy = "Name a folder laid out like the data pack."
            raise BadInput(str(path), "there is no such folder", remedy)
        self.path = path
        self.notes: list[str] = []
        """What was left out or put right while reading, one sentence each."""
        self._read: dict[Path, dict[Market, pl.DataFrame]] = {}
        self._candles: dict[tuple[Market, int], Candles] = {}

    def markets(self, width_s: int = HOUR_S) -> tuple[Market, ...]:
        """Every (venue, coin) with bars of this width, or with shorter bars that divide it."""
        found = {market for market, width in self._sources if width_s % width == 0}
        return tuple(sorted(found))

    def widths(self, venue: str, symbol: str) -> tuple[int, ...]:
        """Widths in seconds of the bars that the folder holds of a market, shortest first."""
        market = (venue, coin(symbol))
        return tuple(sorted(width for known, width in self._sources if known == market))

    def candles(self, venue: str, symbol: str, width_s: int = HOUR_S) -> Candles:
        """Bars of one market with their notional in USD: of that width, or made of shorter ones.

        A bar is made of shorter ones only where every one of them exists. Raises BadInput where the
        folder holds neither.
        """
        market = (venue, coin(symbol))
        fitting = [w for w in self.widths(*market) if width_s % w == 0]
        if not fitting:
            known = ", ".join(f"{v}/{s}" for v, s in self.markets(width_s)) or "no market"
            problem = f"{self.path.name} has no bars of {width_s} s for it"
            raise BadInput(f"{venue}/{symbol}", problem, f"It has them for {known}.")
        if (market, width_s) not in self._candles:
            self._candles[market, width_s] = self._read_candles(market, fitting[-1], width_s)
        return self._candles[market, width_s]

    def funding(self, venue: str, symbol: str) -> Series:
        """Settled funding of one market, a fraction of notional per 8 h; empty where unknown."""
        return context.merged_funding(*self._funding_tables(venue, symbol))

    def funding_sources(self, venue: str, symbol: str) -> tuple[Series, Series]:
        """What `funding` merges: the venue's own settlements, and those of a cross-venue table."""
        own, other = self._funding_tables(venue, symbol)
        return context.merged_funding(own, None), context.merged_funding(None, other)

    def _funding_tables(
        self, venue: str, symbol: str
    ) -> tuple[pl.DataFrame | None, pl.DataFrame | None]:
        own, other = (tables.get((venue, coin(symbol))) for tables in self._funding)
        early_s = context.SAMPLED_EARLY_S.get(venue, 0)
        return (
            None if own is None else context.funding_per_8h(own, venue),
            None if other is None else context.funding_per_8h(other, venue, early_s),
        )

    def funding_venues(self, symbol: str) -> tuple[str, ...]:
        """The venues whose funding of a coin the folder holds, sorted."""
        known = {venue for tables in self._funding for venue, c in tables if c == coin(symbol)}
        return tuple(sorted(known))

    def funding_spread(self, symbol: str, at_s: Ints) -> Floats:
        """Highest less lowest funding over venues, per 8 h in basis points, as known at each time.

        NaN where fewer than two venues have settled within the last 9 hours.
        """
        return 1e4 * spread(
            tuple(self.funding(v, symbol) for v in self.funding_venues(symbol)), at_s
        )

    def open_interest(self, venue: str, symbol: str) -> Series:
        """Log open interest of one market in USD, hourly where the folder has it, else daily."""
        market = (venue, coin(symbol))
        hourly = self._table("open_interest/cross_venue_1h.parquet", ("ts", "oi_usd"))
        daily = self._table("open_interest/coinalyze_daily.parquet", ("ts", "oi_close"))
        if market in hourly:
            return context.hourly_open_interest(hourly[market])
        return context.daily_open_interest(daily[market]) if market in daily else context.empty()

    def open_interest_change(self, symbol: str, at_s: Ints) -> Floats:
        """Log change over 24 h of a coin's open interest, as known at each time; NaN if not.

        Of the first of hyperliquid, binance, bybit and okx that knows it at that time.
        """
        change = np.full(at_s.shape, np.nan)
        for venue in ("hyperliquid", "binance", "bybit", "okx"):
            own = self.open_interest(venue, symbol).change(at_s, 24 * HOUR_S)
            change = np.where(np.isnan(change), own, change)
        return change

    def dvol(self, symbol: str) -> Series:
        """Deribit's implied-volatility index of a coin in percent a year, known at day's end."""
        table = self._table(f"options/dvol_{coin(symbol).lower()}_daily.parquet", ("ts", "dvol"))
        own = table.get(("", coin(symbol)))
        return context.empty() if own is None else context.daily(own, "dvol", MAX_DVOL)

    def gas(self) -> Series:
        """Ethereum's mean gas price of the day in gwei, known at day's end."""
        column = "avg_gas_price_gwei"
        own = self._table("gas/ethereum_daily_gas.parquet", ("ts", column)).get(("", ""))
        return context.empty() if own is None else context.daily(own, column, context.MAX_GAS_GWEI)

    def liquidations(self, venue: str, symbol: str) -> Series:
        """USD liquidated per hour of one market (of venue `aave`: of one collateral)."""
        tables = {
            "liquidations/aave_v2_ethereum.parquet": "collateral_usd",
            **dict.fromkeys(self._names("liquidations/perp_*.parquet"), "size_usd"),
        }
        for name, usd in tables.items():
            own = self._table(name, ("ts", usd)).get((venue, coin(symbol)))
            if own is not None:
                return context.hourly_sums(own, pl.col(usd))
        return context.empty()

    def receipts(self) -> pl.DataFrame:
        """(block, tx_index, gas_used) of recorded blocks; gas_used is null where it cannot be."""
        columns = ("block", "tx_index", "gas_used")
        table = self._table("mev/block_receipts.parquet", columns).get(("", ""))
        if table is None:
            kinds = dict.fromkeys(columns, pl.Int64)
            return pl.DataFrame(schema=kinds)
        return table.with_columns(context.known_gas(pl.col("gas_used")).cast(pl.Int64))

    def files(self) -> tuple[str, ...]:
        """The files that this folder's data come from, read or not: what a manifest has to name."""
        return tuple(sorted(name for pattern in PATTERNS for name in self._names(pattern)))

    # -- how they are read ----------------------------------------------------------------------

    @cached_property
    def _sources(self) -> dict[tuple[Market, int], list[str]]:
        """The files with each market's bars of each width: the venue's own before cross_venue."""
        sources: dict[tuple[Market, int], list[str]] = {}
        names = [*self._names("perp_ohlcv/*.parquet"), *self._names("spot_ohlcv/*.parquet")]
        for name in sorted(names, key=_is_shared):
            columns = _check(self.path / name, name, *BAR_COLUMNS)
            keys = [k for k in KEYS if k in columns]
            for key in _collect(
                pl.scan_parquet(self.path / name).select(keys).drop_nulls().unique(), name
            ).rows():
                market = _market(name, dict(zip(keys, map(str, key), strict=True)))
                known = sources.setdefault((market, self._width_s(name)), [])
                if name not in known and (not _is_shared(name) or all(map(_is_shared, known))):
                    known.append(name)
        return sources

    def _width_s(self, name: str) -> int:
        """The width that the file's name gives, or else the commonest distance of its bars."""
        for part in Path(name).stem.split("_"):
            if part in WIDTHS_S:
                return WIDTHS_S[part]
        apart = [
            own["ts"].sort().diff().dt.total_seconds().alias("s")
            for own in self._table(name, *BAR_COLUMNS).values()
        ]
        counts = pl.concat(apart).drop_nulls().value_counts(sort=True).filter(pl.col("s") > 0)
        return int(counts["s"][0]) if counts.height else HOUR_S

    def _read_candles(self, market: Market, from_s: int, to_s: int) -> Candles:
        parts = []
        for name in self._sources[market, from_s]:
            own = self._table(name, *BAR_COLUMNS)[market]
            bars, done = clean_bars(own, from_s, Path(name).stem in CLOSE_STAMPED)
            if done:
                self.notes.append(f"{name}, {'/'.join(market)}: {done}.")
            parts.append(bars)
        bars = pl.concat(parts).unique("start_s", keep="first", maintain_order=True).sort("start_s")
        if to_s != from_s:
            bars = widened(bars, from_s, to_s)
        start_s = np.ascontiguousarray(bars["start_s"].to_numpy())
        columns = (np.ascontiguousarray(bars[n].to_numpy()) for n in (*OHLC, "usd"))
        return Candles(*market, to_s, start_s, *columns)

    @cached_property
    def _funding(self) -> tuple[dict[Market, pl.DataFrame], dict[Market, pl.DataFrame]]:
        """Settlements by market: of the venues' own files, and of a table of several venues."""
        own: dict[Market, pl.DataFrame] = {}
        shared: dict[Market, pl.DataFrame] = {}
        for name in self._names("funding/*.parquet"):
            into = shared if _is_shared(name) else own
            for market, part in self._table(name, ("ts", "funding_rate")).items():
                parts = [into[market], part] if market in into else [part]
                into[market] = pl.concat(parts, how="vertical_relaxed")
        return own, shared

    def _names(self, pattern: str) -> list[str]:
        return sorted(p.relative_to(self.path).as_posix() for p in self.path.glob(pattern))

    def _table(
        self, name: str, columns: tuple[str, ...], any_of: tuple[str, ...] = ()
    ) -> dict[Market, pl.DataFrame]:
        """A file by market: these columns, and what there is of `any_of`; {} where it is absent."""
        path = self.path / name
        if path not in self._read and path.is_file():
            have = _check(path, name, columns, any_of)
            keys = [k for k in KEYS if k in have]
            numbers = [c for c in (*columns, *any_of) if c in have and c != "ts"]
            whole = [*keys, *(c for c in columns if c == "ts")]
            table = pl.scan_parquet(path).rename(OTHER_NAMES, strict=False)
            table = table.select(*keys, *([_utc(have["ts"])] if "ts" in columns else []), *numbers)
            self._read[path] = self._split(name, _collect(table.drop_nulls(whole), name))
        return self._read.get(path, {})

    def _split(self, name: str, frame: pl.DataFrame) -> dict[Market, pl.DataFrame]:
        """The rows of each (venue, coin); of two symbols of one coin, those of the longer."""
        keys = [k for k in KEYS if k in frame.columns]
        if not keys:
            return {("", ""): frame}
        found: dict[Market, tuple[str, pl.DataFrame]] = {}
        for key, part in frame.partition_by(keys, as_dict=True, include_key=False).items():
            named = dict(zip(keys, map(str, key), strict=True))
            market, symbol = _market(name, named), named.get("symbol", "")
            if market in found and "collateral" in keys:
                part = pl.concat([found[market][1], part])  # WETH and stETH are both ETH
            elif market in found:
                first, other = found[market]
                kept, left = (first, symbol) if other.height >= part.height else (symbol, first)
                self.notes.append(f"{name}: {left} left out, {kept} is the same coin and longer.")
                part = max(other, part, key=lambda f: f.height)
                symbol = kept
            found[market] = (symbol, part)
        return {market: part for market, (_, part) in found.items()}


def _is_shared(name: str) -> bool:
    """Whether a file holds several venues."""
    return Path(name).stem.startswith("cross_venue")


def _venue(name: str, named: dict[str, str]) -> str:
    """The venue of a row: its column, its contract's suffix, or the beginning of the file's name."""
    path = Path(name)
    if "venue" in named:
        venue = named["venue"]
    elif "contract" in named:
        venue = AGGREGATOR_VENUES.get(named["contract"].rpartition(".")[2], "other")
    elif path.parent.name in ("options", "gas", "mev"):
        venue = ""
    else:
        venue = "unnamed" if path.stem.startswith(UNNAMED) else path.stem.split("_")[0]
    return f"{venue}_spot" if path.parent.name == "spot_ohlcv" else venue


def _market(name: str, named: dict[str, str]) -> Market:
    symbol = named.get("symbol", named.get("collateral", ""))
    return _venue(name, named), context.WRAPPED.get(symbol, coin(symbol))


def _check(
    path: Path, name: str, columns: tuple[str, ...], any_of: tuple[str, ...]
) -> dict[str, pl.DataType]:
    """The columns of a Parquet file under our names; BadInput where one is missing or of no use."""
    try:
        have = {OTHER_NAMES.get(c, c): kind for c, kind in pl.read_parquet_schema(path).items()}
    except (OSError, pl.exceptions.PolarsError) as error:
        raise _unreadable(name, error) from error
    missing = [c for c in columns if c not in have]
    if any_of and not any(c in have for c in any_of):
        missing.append(" or ".join(any_of))
    if missing:
        raise BadInput(name, f"it has no column {', '.join(missing)}", REMEDY)
    if "ts" in columns and not isinstance(have["ts"], pl.Datetime):
        raise BadInput(name, "its ts is not a date with a time", REMEDY)
    words = [c for c in (*columns, *any_of) if c != "ts" and c in have and not have[c].is_numeric()]
    if words:
        raise BadInput(name, f"its {', '.join(words)} is not a number", REMEDY)
    return have


def _utc(kind: pl.DataType) -> pl.Expr:
    """`ts` in UTC and ms, whatever a file has; a time without a zone is UTC."""
    ts = pl.col("ts").dt.cast_time_unit("ms")
    zone = kind.time_zone if isinstance(kind, pl.Datetime) else None
    return ts.dt.replace_time_zone("UTC") if zone is None else ts.dt.convert_time_zone("UTC")


def _collect(table: pl.LazyFrame, name: str) -> pl.DataFrame:
    try:
        return table.collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> BadInput:
    return BadInput(name, f"it cannot be read as Parquet ({type(error).__name__})", REMEDY)
