"""The command `fedtrade`: what can be done without being a member or a coordinator.

Commands import what they need when they run, so that `--help` answers at once. Errors leave through
`main`: one sentence on stderr, and an exit code that says what to do (2: accept it or fix the input,
3: try again, 4: stop and look).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fedtrade.console import leave_cleanly
from fedtrade.data.commands import data

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedtrade.devnet.detached import ChainStatus
    from fedtrade.market.feeds.replaying import Replayed

app = typer.Typer(
    name="fedtrade",
    help="Train a shared predictor without showing your book, and act on it under hard limits.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

devnet = typer.Typer(
    help=(
        "Three local chains with real Uniswap v3 and the consortium's contracts, to rehearse on.\n\n"
        "Needs Node.js with npm the first time, when pinned packages are fetched into the cache "
        "([bold]$FEDTRADE_CACHE[/bold], by default ~/.cache/fedtrade); offline afterwards. "
        "Tokens and price feeds are stand-ins."
    ),
    no_args_is_help=True,
)
app.add_typer(devnet, name="devnet")
app.add_typer(data, name="data")

feed = typer.Typer(
    help=(
        "Public market data of venues: record it, replay it, serve a recording as if it were the "
        "venue.\n\n"
        "A book is shown and given only while every message since the venue's whole book was "
        "applied; after a gap, a wrong checksum or a cut line it is refused until it is whole "
        "again.\n\n"
        "Try it on one machine: [bold]feed serve FILE[/bold], and beside it [bold]feed record "
        "binance-usdm BTCUSDT --at 127.0.0.1:8765 --out copy.jsonl.zst[/bold]."
    ),
    no_args_is_help=True,
)
app.add_typer(feed, name="feed")

CHAINS: Final = 3

Folder = Annotated[
    Path, typer.Option(help="Where deployment.json, the log and the process id are kept.")
]


@devnet.command()
def up(
    folder: Folder = Path("out/devnet"),
    port: Annotated[
        int | None,
        typer.Option(
            min=1024,
            max=65_535 - CHAINS + 1,
            help="Listen on this port and the two after it. Free ports otherwise.",
        ),
    ] = None,
) -> None:
    """Start the chains and leave them running until `fedtrade devnet down`.

    Agents and members find them through deployment.json in the folder.
    """
    from fedtrade.devnet import detached

    detached.start(folder, None if port is None else range(port, port + CHAINS))
    _print_status(detached.status(folder))
    typer.echo(f"Deployment: {folder / 'deployment.json'}. End them with `fedtrade devnet down`.")


@devnet.command()
def down(folder: Folder = Path("out/devnet")) -> None:
    """End the chains. What happened on them is gone."""
    from fedtrade.devnet import detached

    detached.stop(folder)
    typer.echo("Local chains are down.")


@devnet.command()
def status(folder: Folder = Path("out/devnet")) -> None:
    """Show each chain's address, newest block and pool price."""
    from fedtrade.devnet import detached

    _print_status(detached.status(folder))


def _print_status(chains: Sequence[ChainStatus]) -> None:
    from datetime import UTC, datetime

    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for title in ("chain", "id", "node", "block", "time (UTC)", "pair", "price"):
        table.add_column(title, no_wrap=True, justify="right" if title == "price" else "left")
    for chain in chains:
        known = chain.deployment
        time = datetime.fromtimestamp(chain.timestamp_s, UTC).strftime("%m-%d %H:%M")
        pair = f"{known.base.symbol}/{known.quote.symbol}"
        row = (known.name, str(known.chain_id), known.rpc_url, str(chain.block), time, pair)
        table.add_row(*row, f"{chain.price:,.6g}")
    Console().print(table)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def demo(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for the report; made anew.")] = Path("out/demo"),
) -> None:
    """Run the main job: train privately, publish, and trade through a recorded crash.

    Three local chains, eight members, five helpers, three agents; a few minutes. Leaves report.html
    and summary.json in the folder. --rounds N and --minutes N make it shorter.
    """
    import subprocess

    # A process of its own: the rehearsal imports members and coordinator, and this package may not.
    command = [sys.executable, "-m", "consortium.demo", "--out", str(out), *context.args]
    raise typer.Exit(subprocess.run(command, check=False).returncode)


_PASSED_ON: Final = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command(context_settings=_PASSED_ON, add_help_option=False)
def model(context: typer.Context) -> None:
    """Train the reference model of a data folder through a private federation, and judge it."""
    _run_module("consortium.reference", context.args)


@feed.command("record", context_settings=_PASSED_ON, add_help_option=False)
def feed_record(context: typer.Context) -> None:
    """Follow a venue's feed and keep what came, to the nanosecond, in a file."""
    _run_module("clients.recorder", context.args)


@feed.command("serve", context_settings=_PASSED_ON, add_help_option=False)
def feed_serve(context: typer.Context) -> None:
    """Serve a recording on this machine as if it were the venue, websocket and web answers."""
    _run_module("consortium.venue", context.args)


def _run_module(module: str, arguments: Sequence[str]) -> None:
    """Run what this package may not import, as a process of its own."""
    import subprocess

    command = [sys.executable, "-m", module, *arguments]
    try:
        code = subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:
        code = 0  # it was told as well, and has ended
    raise typer.Exit(code)


@feed.command("play")
def feed_play(
    recording: Annotated[Path, typer.Argument(help="Of `feed record`, cryptofeed or Binance.")],
    markets: Annotated[
        list[str] | None,
        typer.Argument(help="SYMBOL[:decimals of price[:of size]]; if unsaid, as recorded."),
    ] = None,
    venue: Annotated[str, typer.Option(help="If unsaid, as recorded.")] = "",
    connection: Annotated[
        str, typer.Option(help="Only this one of a recording of several connections.")
    ] = "",
) -> None:
    """Replay a recording: what it told, which books were lost and why, and what gave nothing."""
    from fedtrade.market.feeds.replaying import replay_file

    found = replay_file(recording, venue, markets or (), connection or None)
    _print_replayed(found)
    if found.torn:
        typer.echo(found.torn, err=True)


def _print_replayed(found: Replayed) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("what")
    table.add_column("count", justify="right")
    table.add_row("frames", f"{found.frames:,}")
    parts = (("", found.events), ("lost: ", found.losses), ("gave nothing: ", found.silent))
    for title, counts in parts:
        for what, count in sorted(counts.items()):
            table.add_row(f"{title}{what}", f"{count:,}")
    for complaint in found.complaints:
        table.add_row(f"complained: {complaint}", "1")
    for market, state in found.books.items():
        table.add_row(f"in the end {market}", state)
    Console().print(table)


@app.command()
def verify(
    transcript: Annotated[Path, typer.Argument(help="transcript.bin of a release.")],
    expect: Annotated[
        str | None, typer.Option(help="sha256 that the registry has; compared if given.")
    ] = None,
) -> None:
    """Recompute a release from its transcript, down to the published hash, bit for bit.

    Every signature, cohort, sum and optimiser step is repeated. Whatever was altered, left out or
    added is named. Needs no key and no network.
    """
    from rich.console import Console
    from rich.progress import Progress

    from fedtrade.privacy.transcript import verify_file

    screen = Console(stderr=True)
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("recomputing rounds", total=None)
        proved = verify_file(
            transcript, expect, lambda done, of: bar.update(task, completed=done, total=of)
        )
    typer.echo(f"{proved.artifact_sha256}  artifact")
    typer.echo(
        f"{proved.steps} rounds recomputed, {proved.rounds_spent} spent, "
        f"ε = {proved.epsilon_micro / 1e6:.4f} (RDP) at δ = {proved.terms.parameters.delta:g}; "
        "unit: position lifecycle; adjacency: zero-out of one position (counts public)"
    )


@app.command()
def replay(
    journal: Annotated[Path, typer.Argument(help="journal.jsonl of an agent.")],
) -> None:
    """Reproduce every action of an agent's journal, and its head hash.

    The artifacts that the agent ran are kept beside its journal. An altered record is named.
    """
    from fedtrade.replay import replay_journal

    proved = replay_journal(journal)
    typer.echo(f"{proved.head_hash}  head of {proved.records} records")
    typer.echo(
        f"{proved.events} events gave the same {proved.receipts} receipts "
        f"and {proved.actions} actions."
    )
    if proved.torn_bytes:
        typer.echo(f"The last line is torn ({proved.torn_bytes} bytes) and is no record.")


@app.command()
def evaluate(
    artifact: Annotated[Path, typer.Option(help="artifact.safetensors of a model.")],
    data: Annotated[Path, typer.Option(help="Folder in the layout of the data pack.")],
    from_: Annotated[
        str | None,
        typer.Option(
            "--from", help="First day, as 2025-01-01 (UTC). By default when training ended."
        ),
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="The day after the last. By default where data ends.")
    ] = None,
    venue: Annotated[
        list[str] | None, typer.Option(help="Only this venue. May be given several times.")
    ] = None,
    symbol: Annotated[
        list[str] | None, typer.Option(help="Only this coin, as BTC. May be given several times.")
    ] = None,
    expect: Annotated[
        str | None, typer.Option(help="sha256 that the registry has; compared if given.")
    ] = None,
    rivals: Annotated[
        bool, typer.Option(help="Fit GARCH and LightGBM too (research extra; a minute or more).")
    ] = True,
    json: Annotated[Path | None, typer.Option(help="Write everything there as JSON.")] = None,
) -> None:
    """Judge a model on public data it has not seen: every market, month and crash, beside baselines.

    Any folder with hourly bars will do (perp_ohlcv/*.parquet; the rest is optional). Shows QLIKE and
    R² of the forecast beside persistence, the seasonal naive, HAR, GARCH and LightGBM,
    Diebold-Mariano tests, the coverage of its 90 % intervals, and a leak gate, which ends the command
    with exit code 2 if features or forecast have seen the future.
    """
    from rich.console import Console
    from rich.progress import Progress

    from fedtrade.dashboard.scorecard import as_json, tables
    from fedtrade.learning import leaks, scorecard

    model = scorecard.read_artifact(artifact, expect)
    screen = Console(stderr=True)
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("reading", total=None)
        card = scorecard.evaluate_folder(
            model,
            data,
            scorecard.day_s(from_, model.manifest.trained_until_s),
            scorecard.day_s(to, scorecard.EVER_S),
            venue or (),
            symbol or (),
            with_rivals=rivals,
            progress=lambda what, done, of: bar.update(
                task, description=what, completed=done, total=of
            ),
        )
    out = Console()
    for table in tables(card):
        out.print(table)
    if json is not None:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(as_json(card))
        typer.echo(f"Everything, month by month and market by market: {json}")
    leaks.refuse(card.gate)


def main() -> None:
    """Run a command; its error becomes one sentence and an exit code."""
    leave_cleanly("fedtrade", app)


if __name__ == "__main__":
    main()
