"""`fedtrade-coordinator relay`: carry the registry's state to the mirrors on other chains.

Commands import what they need when they run, so that `--help` answers at once.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Final

import typer

relay = typer.Typer(
    name="relay",
    help=(
        "Carry the live model and the parameters from the home chain to the mirrors.\n\n"
        "A relayer is trusted with nothing but its own money: mirrors believe a threshold of "
        "validators (`fedtrade-member validate`), and anybody may run a second relayer. **init** "
        "makes its key and settings; **run** posts and delivers; **status** asks the chains how far "
        "each mirror is."
    ),
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Settings = Annotated[Path, typer.Argument(help="The relayer's settings; `init` writes them.")]
RELAY_TOML: Final = Path("relay.toml")


@relay.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The relayer's own folder.")],
) -> None:
    """Make the relayer's key and a settings file to fill in, once.

    The printed address needs gas on the home chain and on every chain with a mirror. No other
    program may use it: two of them would take each other's nonces.
    """
    from server.keys import KEY_FILE, CoordinatorKeys
    from server.relay_settings import RELAY_FILE, RELAY_TEMPLATE

    keys = CoordinatorKeys.create(folder)
    settings = folder / RELAY_FILE
    if not settings.exists():
        settings.write_text(RELAY_TEMPLATE)
    typer.echo(f"address  {keys.address}")
    typer.echo(
        f"Its key is {folder / KEY_FILE}; whoever has it can spend what you put there, and nothing "
        f"else.\nNext: fill in {settings}, then `fedtrade-coordinator relay run {settings}`."
    )


@relay.command()
def run(settings: Settings = RELAY_TOML) -> None:
    """Post what has changed, and deliver it to every mirror, until SIGTERM or Ctrl-C.

    Says in one line where each chain stands, whenever that changes. Needs no memory: killed at any
    point it goes on from what the chains say. A chain or a validator that does not answer is tried
    again; the others go on.
    """
    from fedtrade.console import Stop
    from server.keys import CoordinatorKeys
    from server.relay import Relay, follow
    from server.relay_settings import RelaySettings

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    loaded = RelaySettings.load(settings)
    stop = Stop.on_signals()
    with Relay(loaded, CoordinatorKeys.load(loaded.keys)) as running:
        follow(running, loaded.poll_s, stop, lambda line: typer.echo(line, err=True))


@relay.command()
def status(settings: Settings = RELAY_TOML) -> None:
    """Ask every chain how far its mirror is, what it shows, and what the relayer's account holds.

    Reads the chains alone, and can be asked while a relayer runs, or from another machine.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from server.keys import CoordinatorKeys
    from server.relay_settings import RelaySettings
    from server.relay_status import mirror_rows

    loaded = RelaySettings.load(settings)
    titles = ("chain", "message", "as of (UTC)", "paused", "version", "live hash", "balance")
    table = Table(*titles, box=box.SIMPLE_HEAD)
    for row in mirror_rows(loaded, CoordinatorKeys.load(loaded.keys).address):
        table.add_row(*row)
    Console().print(table)
