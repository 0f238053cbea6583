"""The commands `fedtrade data …`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

data = typer.Typer(
    help=(
        "Training tables from public market data.\n\n"
        "A data folder holds Parquet files in [bold]perp_ohlcv/[/bold], [bold]spot_ohlcv/[/bold], "
        "[bold]funding/[/bold], [bold]open_interest/[/bold], [bold]options/[/bold], "
        "[bold]gas/[/bold] and [bold]liquidations/[/bold]; any of them may be absent. "
        "[bold]fetch[/bold] and [bold]import[/bold] put bars from a venue or from an export into "
        "one, and [bold]build[/bold] makes the training table."
    ),
    no_args_is_help=True,
)

Data = Annotated[Path, typer.Option("--data", help="The data folder.")]


@data.command()
def build(
    folder: Data,
    out: Annotated[Path, typer.Option(help="The table to write (Parquet).")],
    from_: Annotated[
        str, typer.Option("--from", help="First hour's end, ISO-8601, UTC. All by default.")
    ] = "1970-01-01",
    to: Annotated[
        str, typer.Option(help="Rows end before it, and their next hour by then. All by default.")
    ] = "2100-01-01",
    symbols: Annotated[
        str, typer.Option(help="Coins with commas between, for example BTC,ETH. All by default.")
    ] = "",
) -> None:
    """Build a training table: one row for each hour's end of each market, targets beside it.

    Everything in a row but its targets was known at that hour's end. Nothing is carried across a
    gap: after one, 168 hours must pass before the first row. Beside the table lies a manifest with
    the hash of every input, each market's gaps, and what was left out. A build that was cut off
    goes on when it is repeated; another build's table is never overwritten.

    Example: fedtrade data build --data ../shared/data --out out/train.parquet --to 2025-01-01
    """
    from rich.console import Console
    from rich.progress import track

    from fedtrade.data import building
    from fedtrade.learning.folder import DataFolder

    def each(markets: list[Any]) -> Iterable[Any]:
        return track(markets, "markets", console=Console(stderr=True))

    made = building.build(
        DataFolder(folder),
        out,
        _seconds("--from", from_),
        _seconds("--to", to),
        [s.strip() for s in symbols.split(",") if s.strip()],
        each,
    )
    typer.echo(f"{made['sha256']}  {out}")
    gaps = sum(len(market["gaps_s"]) for market in made["per_market"])
    without = [market["market"] for market in made["per_market"] if not market["rows"]]
    typer.echo(f"{made['rows']} rows of {len(made['per_market'])} markets, {gaps} gaps")
    if without:
        typer.echo(f"Without rows (168 hours on end are needed): {', '.join(without)}")
    for note in made["notes"]:
        typer.echo(note)


@data.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="An export of bars: CSV or Parquet.")],
    folder: Data,
    venue: Annotated[str, typer.Option(help="For example binance.")],
    symbol: Annotated[str, typer.Option(help="For example BTC or BTCUSDT.")],
    spot: Annotated[bool, typer.Option("--spot", help="Spot, not perpetual.")] = False,
) -> None:
    """Put an exchange's export of bars into a data folder.

    Columns, by these names in any case (others are ignored): the bar's opening as ts, timestamp,
    time, open_time, date, datetime or unix (ISO-8601, or Unix s, ms, µs or ns; UTC); open, high,
    low, close; and volume in base coin as volume, volume_base, base_volume or vol, or in USD as
    volume_usd, quote_volume, quote_asset_volume or turnover. Bad rows are named by number, and then
    nothing is taken.
    """
    from fedtrade.data.exports import take_export

    path = take_export(file, folder, venue, symbol, "spot" if spot else "perp")
    typer.echo(f"wrote {path}")


@data.command()
def fetch(
    folder: Data,
    venue: Annotated[str, typer.Option(help="binance, bybit, okx or hyperliquid.")],
    symbols: Annotated[str, typer.Option(help="Coins with commas between, for example BTC,ETH.")],
    from_: Annotated[str, typer.Option("--from", help="First bar, ISO-8601, UTC.")],
    to: Annotated[str, typer.Option(help="Bars start before it; not in the future.")],
    width: Annotated[str, typer.Option(help="1m, 5m, 15m, 30m, 1h or 4h.")] = "1h",
) -> None:
    """Fetch perpetuals' candles and settled funding from a venue's public interface.

    Slowly enough for the venue's limits. A fetch that was cut off goes on when it is repeated. A
    gap is asked for twice, and then stays a gap. Needs no account and sends nothing of yours.
    """
    import asyncio

    from fedtrade.data.fetching import fetch_all
    from fedtrade.data.histories import history

    coins = [s.strip() for s in symbols.split(",") if s.strip()]
    window_s = _seconds("--from", from_), _seconds("--to", to)
    asyncio.run(fetch_all(history(venue), coins, width, window_s, folder, typer.echo))


@data.command()
def positions(
    logs: Annotated[Path, typer.Argument(help="Logs as eth_getLogs gives them: JSON, or lines.")],
    settings: Annotated[Path, typer.Option(help="How to read them (JSON).")],
    out: Annotated[Path, typer.Option(help="The file of positions to write: .csv or .parquet.")],
    folder: Annotated[
        Path | None, typer.Option("--data", help="A data folder with prices; Aave needs one.")
    ] = None,
) -> None:
    """Make a member's file of positions from chain logs. It is private: it stays where it is made.

    Every log needs its block's time in blockTimestamp. Bad logs are named by row, and then nothing
    is written. Settings, by protocol:

    uniswap_v3: pool, token0 and token1 (address, symbol, decimals), fee_pips, tick_spacing,
    base_is_token0, market (for example ["binance", "ETH"]), owners (addresses, or token-123 of the
    position manager; all by default). Logs: the pool's, and the position manager's.

    perp_v2: trader, markets (base token to market), collateral_decimals. Logs: PositionChanged,
    and the vault's Deposited and Withdrawn.

    aave_v3: account, reserves (token to decimals and market; null for a dollar). Logs: the pool's.
    """
    from fedtrade.data import log_files, onchain
    from fedtrade.errors import BadInput
    from fedtrade.learning.folder import DataFolder

    if out.exists() or out.suffix not in (".csv", ".parquet"):
        problem = "it exists" if out.exists() else "the name must end in .csv or .parquet"
        raise BadInput(out.name, problem, "Choose another --out.")
    found = log_files.lifecycles(
        log_files.read_logs(logs),
        log_files.read_settings(settings),
        None if folder is None else DataFolder(folder),
    )
    table = onchain.as_table(found)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".csv":
        table.write_csv(out)
    else:
        table.write_parquet(out)
    still_open = sum(life.closed_s < 0 for life in found)
    typer.echo(f"wrote {out}: {len(found)} positions, {still_open} of them open")


def _seconds(option: str, text: str) -> int:
    from datetime import UTC, datetime

    from fedtrade.errors import BadInput

    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadInput(
            option, f"{text!r} is no ISO-8601 time", "For example 2025-01-01."
        ) from error
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(aware.timestamp())
