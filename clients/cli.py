"""The command `fedtrade-member`: what a member does on its own machine.

Nothing here prints a position, a key or an update: counts, addresses and ε only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedtrade.console import leave_cleanly
from fedtrade.errors import BadInput

app = typer.Typer(
    name="fedtrade-member",
    help="Train without showing your book, keep your own account of ε, and run your agents.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The member's own folder; nobody else reads it.")],
) -> None:
    """Make this member's keys, once.

    Writes keys.json with mode 0600 and says what to back up. Give the printed address and the
    encryption key to the consortium: they go into Membership.
    """
    from clients.keys import KEY_FILE, MemberKeys

    keys = MemberKeys.create(folder)
    typer.echo(f"address         {keys.address}")
    typer.echo(f"encryption key  0x{keys.x25519_public.hex()}")
    typer.echo(
        f"Back up {folder / KEY_FILE} now, offline. Whoever has it can sign for you; "
        "without it you lose your seat. Back up ledger.jsonl with it: a lost ledger is spent ε "
        "that nobody remembers."
    )


@app.command()
def check(
    positions: Annotated[Path, typer.Argument(help="CSV or Parquet in the schema below.")],
    at: Annotated[
        str | None,
        typer.Option(help="Judge times as of this moment (ISO-8601, UTC); now by default."),
    ] = None,
) -> None:
    """Check a file of positions, row by row, and load none of it.

    Columns: position_id, venue, symbol, side (long or short), opened_at, closed_at (empty while
    open), entry_price, quantity_base, leverage. clients/README.md explains each.
    """
    from datetime import UTC, datetime

    from fedtrade.learning.positions import read_positions

    try:
        moment = datetime.fromisoformat(at) if at else datetime.now(UTC)
    except ValueError:
        raise BadInput("--at", f"{at!r} is no time", "Write it as 2025-06-12T00:00:00Z") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    found = read_positions(positions, int(moment.timestamp()))
    typer.echo(f"{positions}: {len(found)} positions, all rows are good.")


@app.command()
def ledger(
    folder: Annotated[Path, typer.Argument(help="The member's own folder.")],
    limit: Annotated[float, typer.Option(help="The member's own limit of ε.")] = 8.0,
    delta: Annotated[float, typer.Option(help="The δ at which ε is stated.")] = 1e-6,
) -> None:
    """Show what this member has spent of its ε, from its own ledger."""
    from clients.budget import Budget

    path = folder / "ledger.jsonl"
    if not path.exists():
        raise BadInput(str(path), "there is no ledger", "Give the folder of a member that trained")
    with Budget(path, limit, delta) as budget:
        rounds = sum(spend.rounds for spend in budget.spends)
        typer.echo(f"{rounds} rounds; {budget.epsilon()}; limit {limit:g} (RDP)")


@app.command()
def trade(
    settings: Annotated[Path, typer.Option(help="TOML file of one agent on one chain.")],
) -> None:
    """Run one agent on one chain until it is told to stop (SIGTERM or Ctrl-C).

    It sends nothing unless its artifact is the model that the chain's registry has published. It
    goes on where it stopped: journal and transactions lie in the folder that the settings name.
    """
    import asyncio

    from clients.execution import execute
    from clients.settings import ExecutionSettings

    asyncio.run(execute(ExecutionSettings.load(settings)))


def main() -> None:
    """Run a command; its error becomes one sentence and an exit code."""
    leave_cleanly("fedtrade-member", app)


if __name__ == "__main__":
    main()
