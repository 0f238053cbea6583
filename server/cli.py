"""The command `fedtrade-coordinator`: what a coordinator operator does by hand.

The coordinator is trusted with nothing: it reads no update and cannot publish alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedtrade.console import leave_cleanly

app = typer.Typer(
    name="fedtrade-coordinator",
    help="Run rounds that nobody has to trust you for, and publish what members have signed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The coordinator's own folder.")],
) -> None:
    """Make the coordinator's key, once, with mode 0600.

    Its address needs the coordinator role in Membership, and gas on every chain.
    """
    from server.keys import KEY_FILE, CoordinatorKeys

    keys = CoordinatorKeys.create(folder)
    typer.echo(f"address  {keys.address}")
    typer.echo(f"Back up {folder / KEY_FILE}; losing it ends only the release that is open.")


@app.command()
def live(
    deployment: Annotated[
        Path, typer.Option(help="Where everything stands; `fedtrade devnet up` writes one.")
    ],
) -> None:
    """Show which model is live on each chain."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from fedtrade.chain.contracts import ModelRegistry
    from fedtrade.chain.conversation import ask
    from fedtrade.chain.deployment import Deployment
    from fedtrade.chain.rpc import Rpc

    table = Table("chain", "version", "live hash", "ε", box=box.SIMPLE_HEAD)
    for chain in Deployment.load(deployment).chains:
        with Rpc(chain.rpc_url) as rpc:
            model = ask(rpc, ModelRegistry(chain.model_registry).live())
        known = model.version > 0
        epsilon = f"{model.epsilon_micro / 1e6:.3f}" if known else ""
        table.add_row(
            chain.name, str(model.version), model.sha256 if known else "none is live", epsilon
        )
    Console().print(table)


def main() -> None:
    """Run a command; its error becomes one sentence and an exit code."""
    leave_cleanly("fedtrade-coordinator", app)


if __name__ == "__main__":
    main()
