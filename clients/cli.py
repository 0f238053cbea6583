"""The command `fedtrade-member`: what a member does on its own machine.

Nothing here prints a position, a key or an update: counts, addresses and ε only. Commands import
what they need when they run, so that `--help` answers at once.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fedtrade.console import Stop, leave_cleanly
from fedtrade.errors import BadInput
from fedtrade.voting import group, voting

if TYPE_CHECKING:
    from clients.keys import VotingKey
    from clients.settings import MemberSettings

app = typer.Typer(
    name="fedtrade-member",
    help=(
        "Train without showing your book, keep your own account of ε, and run your agents.\n\n"
        "**init** makes keys and a settings file; **check** reads it and your "
        "positions; **train** takes part in releases; **status** says what was "
        "spent. With **gov** members decide together, and **vote** is your say."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _key(folder: Path) -> VotingKey:
    from clients.keys import MemberKeys, VotingKey

    return VotingKey(MemberKeys.load(folder))


app.add_typer(group(_key))
app.command("vote")(voting(_key))

Settings = Annotated[Path, typer.Argument(help="This party's settings; `init` writes the file.")]
MEMBER_TOML = Path("member.toml")


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The member's own folder; nobody else reads it.")],
) -> None:
    """Make this member's keys and a settings file to fill in, once.

    Writes keys.json (signing and encryption key) and node.key (for Flower's SuperNode) with mode
    0600, and member.toml with a comment on every field. Give the printed address and the encryption
    key to the consortium: they go into Membership.
    """
    from clients.keys import KEY_FILE, MemberKeys
    from clients.settings import MEMBER_FILE, MEMBER_TEMPLATE
    from clients.supernode import create_node_key

    keys = MemberKeys.create(folder)
    node = create_node_key(folder / "node.key")
    settings = folder / MEMBER_FILE
    if not settings.exists():
        settings.write_text(MEMBER_TEMPLATE)
    typer.echo(f"address         {keys.address}")
    typer.echo(f"encryption key  0x{keys.x25519_public.hex()}")
    typer.echo(f"node's key      {node}")
    typer.echo(
        f"Back up {folder / KEY_FILE} now, offline. Whoever has it can sign for you; without it you "
        "lose your seat. Back up ledger.jsonl and ledger.jsonl.head with it, and never put an older "
        f"copy back: it has forgotten ε that is spent.\nNext: fill in {settings}, then "
        f"`fedtrade-member check {settings}`."
    )


@app.command()
def check(
    file: Annotated[
        Path,
        typer.Argument(help="member.toml, or positions as CSV or Parquet in the schema below."),
    ],
    at: Annotated[
        str | None,
        typer.Option(help="Judge times as of this moment (ISO-8601, UTC); now by default."),
    ] = None,
) -> None:
    """Check settings with all that they name, or a file of positions, row by row. Sends nothing.

    Columns of positions: position_id, venue, symbol, side (long or short), opened_at, closed_at
    (empty while open), entry_price, quantity_base, leverage. clients/README.md explains each.
    """
    if file.suffix == ".toml":
        _check_settings(file, at)
    else:
        _check_positions(file, at)


def _check_positions(path: Path, at: str | None) -> None:
    from datetime import UTC, datetime

    from fedtrade.learning.positions import read_positions

    try:
        moment = datetime.fromisoformat(at) if at else datetime.now(UTC)
    except ValueError:
        raise BadInput("--at", f"{at!r} is no time", "Write it as 2025-06-12T00:00:00Z") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    found = read_positions(path, int(moment.timestamp()))
    typer.echo(f"{path}: {len(found)} positions, all rows are good.")


def _check_settings(path: Path, at: str | None) -> None:
    from clients.channel import client_tls
    from clients.keys import MemberKeys
    from clients.settings import MemberSettings
    from fedtrade.chain.agreement import Standing, trust_line

    settings = MemberSettings.load(path)
    keys = MemberKeys.load(settings.keys)
    client_tls(settings.coordinator.ca_file)
    typer.echo(f"{path}: {_seats(settings)}, signing as {keys.address}")
    floor = settings.floor
    typer.echo(
        f"floor: ε ≤ {floor.epsilon_limit:g} (RDP) at δ ≤ {floor.delta_max:g}, noise multiplier ≥ "
        f"{floor.noise_multiplier_min:g}, sampling rate ≤ {floor.sampling_rate_max:g}, at least "
        f"{floor.cohort_min} members in a sum, {floor.corrupt_min} bad helpers withstood"
    )
    if settings.home_chain is not None:
        typer.echo(f"home chain: {trust_line([Standing(u) for u in settings.home_chain.rpc_urls])}")
    if settings.positions is not None:
        until = settings.until.isoformat() if settings.until is not None else None
        _check_positions(settings.positions, at or until)


@app.command()
def train(
    settings: Settings = MEMBER_TOML,
    over: Annotated[
        Literal["channel", "flower"],
        typer.Option(
            help="channel: connect to the coordinator and wait for a release. flower: run a "
            "SuperNode, through which the coordinator opens releases."
        ),
    ] = "channel",
) -> None:
    """Take part in releases, in every seat of the settings, until SIGTERM or Ctrl-C.

    Checks the terms against your floor and your own node of the home chain before anything is
    sent; each round stands on your ledger before its upload leaves. Connects outward only. A lost
    connection is waited out. After a crash start it again: no round is paid twice.
    """
    from clients.settings import MemberSettings

    _log_to_stderr()
    loaded = MemberSettings.load(settings)
    if over == "channel":
        _serve(loaded)
    else:
        _run_supernode(settings)


@app.command()
def committee(settings: Settings = MEMBER_TOML) -> None:
    """Serve on the mask committee alone, in the helper seat of the settings, until SIGTERM or Ctrl-C.

    A helper answers one manifest a round, only once it is final, and only for sums of at least the
    minimum in its own [helper] section. Its list of what it signed (signed-*.jsonl) is what keeps it
    honest after a restart: back it up, never put an older copy back.
    """
    from clients.settings import MemberSettings, Seats

    _log_to_stderr()
    loaded = MemberSettings.load(settings)
    if loaded.seats.helper is None:
        raise BadInput(str(settings), "seats.helper: there is none", "Give the id of your seat")
    _serve(loaded.model_copy(update={"seats": Seats(helper=loaded.seats.helper)}))


@app.command()
def validate(settings: Settings = MEMBER_TOML) -> None:
    """Vouch for the home chain's messages to the mirrors on other chains, until SIGTERM or Ctrl-C.

    Follows the final blocks of your own node, rebuilds the tree of messages, compares its root with
    the contract's, and signs one checkpoint for each message into the storage folder of the
    [validator] section. Mirrors believe what a threshold of validators has signed, so what you sign
    has to come from a node that you trust. Serve the folder with any web server; it holds nothing
    secret. A relayer carries the signatures to the other chains and pays for it.

    Killed at any point it goes on where it stopped. validator.jsonl says what was signed: back it
    up, never put an older copy back. If the chain ever shows a second message for an index that was
    signed, it stops with exit code 4 and signs nothing more.
    """
    from clients.keys import MemberKeys
    from clients.settings import MemberSettings
    from clients.validator import LEDGER_FILE, Validator, status_line
    from clients.validator import validate as follow
    from fedtrade.chain.quorum import reader

    _log_to_stderr()
    loaded = MemberSettings.load(settings)
    if loaded.validator is None or loaded.home_chain is None:
        raise BadInput(str(settings), "validator or home_chain: the section is missing", "Add it")
    stop = Stop.on_signals()
    keys = MemberKeys.load(loaded.keys)
    ledger = loaded.folder / LEDGER_FILE
    with (
        reader(loaded.home_chain.rpc_urls, loaded.home_chain.chain_id) as rpc,
        Validator(loaded.home_chain, loaded.validator, ledger, keys, rpc) as validator,
    ):
        at = validator.announce()
        typer.echo(f"validator {keys.address} of domain {at.domain} at {at.location}", err=True)
        follow(validator, loaded.validator.poll_s, stop, lambda line: typer.echo(line, err=True))
        typer.echo(status_line(validator), err=True)


@app.command()
def status(settings: Settings = MEMBER_TOML) -> None:
    """Show seats, ε spent and left, the last round, and whether coordinator and chain are there.

    Changes nothing, and can be asked while a process trains.
    """
    from clients.keys import MemberKeys
    from clients.settings import MemberSettings
    from clients.status import chain_lines, coordinator_line, ledger_line

    loaded = MemberSettings.load(settings)
    typer.echo(f"seats        {_seats(loaded)}, signing as {MemberKeys.load(loaded.keys).address}")
    if loaded.seats.member is not None:
        typer.echo(f"ledger       {ledger_line(loaded.ledger, loaded.floor)}")
    typer.echo(f"coordinator  {coordinator_line(loaded.coordinator)}")
    if loaded.home_chain is not None:
        for line in chain_lines(loaded.home_chain):
            typer.echo(f"home chain   {line}")
    else:
        typer.echo(f"home chain   none; {len(loaded.approved_terms)} releases are approved by file")


@app.command()
def ledger(
    folder: Annotated[Path, typer.Argument(help="The member's own folder.")],
    limit: Annotated[float, typer.Option(help="The member's own limit of ε.")] = 8.0,
    delta: Annotated[float, typer.Option(help="The δ at which ε is stated.")] = 1e-6,
) -> None:
    """Show what this member has spent of its ε, from its own ledger. Changes nothing."""
    from clients.status import ledger_copy

    path = folder / "ledger.jsonl"
    if not path.exists():
        raise BadInput(str(path), "there is no ledger", "Give the folder of a member that trained")
    with ledger_copy(path, limit, delta) as budget:
        typer.echo(f"{budget.rounds} rounds; {budget.epsilon()}; limit {limit:g} (RDP)")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def audit(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for leakage.html and leakage.json.")],
) -> None:
    """Attack the privacy of a rehearsed release, and report what an attacker finds.

    Canaries go through real members, committee and sums, and an auditor guesses which were in: what
    it shows is set beside the ε that is claimed, for right, half and missing noise; the noise itself
    is measured as well. A red team tries to read positions out of updates, alone, summed and noised.
    Nothing of yours is used or sent.

    Further options: --noise-multiplier, --sampling-rate, --rounds, --delta, --seed. Exit code 4: the
    audit found more than is claimed. Needs the research extra.
    """
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "consortium.audit", "--out", str(out), *context.args], check=False
    )
    raise typer.Exit(done.returncode)


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


custody = typer.Typer(
    help=(
        "A Safe for an agent: its key can then trade within limits, and take nothing out.\n\n"
        "Between the key and the Safe stand a breaker (when, how much, at what price) and Zodiac "
        "Roles (what, and for whom). The Safe's owners sign with their own wallets and withdraw "
        "at any time; the guardian can halt; the consortium can pause and tighten."
    ),
    no_args_is_help=True,
)
app.add_typer(custody, name="custody")

CustodyFile = Annotated[Path, typer.Argument(help="custody.toml; `template` prints one.")]


@custody.command()
def template() -> None:
    """Print a custody.toml to fill in, with a comment on every field."""
    from clients.custody import TEMPLATE

    typer.echo(TEMPLATE, nl=False)


@custody.command("set-up")
def set_up(settings: CustodyFile) -> None:
    """Create Safe, Roles and breaker, hand the Safe to its owners, and compare all with the file.

    The key in the settings pays (about 4 million gas; 20 million on a chain where nobody has set up
    one before) and is the agent's. After a crash or a lost connection run it again: it goes on.
    Send money to the Safe only after this has ended well.
    """
    from clients.custody import CustodySettings, set_up_custody

    loaded = CustodySettings.load(settings)
    found = set_up_custody(loaded, lambda line: typer.echo(line, err=True))
    typer.echo(f"Safe     {found.safe}\nRoles    {found.roles}\nbreaker  {found.breaker}")
    typer.echo(f"Written to {loaded.out}: name it as `deployment` in the agent's settings.")


@custody.command("check")
def check_custody_of(settings: CustodyFile) -> None:
    """Compare owners, modules, limits and code on the chain with the file. Sends nothing."""
    from clients.custody import CustodySettings, check_custody

    found = check_custody(CustodySettings.load(settings))
    typer.echo(f"Safe {found.safe} is as the file says.")


@custody.command()
def halt(settings: CustodyFile) -> None:
    """Stop the agent's orders now; the settings' key must be the guardian's. Owners resume."""
    from clients.custody import CustodySettings, halt_custody

    found = halt_custody(CustodySettings.load(settings))
    typer.echo(f"Breaker {found.breaker} is halted. Only the Safe's owners resume it.")


def _seats(settings: MemberSettings) -> str:
    return " and ".join(f"{role} seat {seat}" for role, seat in settings.seats.roles.items())


def _serve(settings: MemberSettings) -> None:
    """Sit at the desk of these settings and work over the round channel."""
    from clients.channel import run
    from clients.desk import Desk
    from clients.keys import MemberKeys

    keys = MemberKeys.load(settings.keys)
    with Desk.open(settings) as desk:
        typer.echo(f"{_seats(settings)}: waiting for {settings.coordinator.url}", err=True)
        run(desk, settings, keys.sign_digest)
    typer.echo(f"{_seats(settings)}: done", err=True)


def _run_supernode(settings: Path) -> None:
    from clients.supernode import SuperNode
    from fedtrade.errors import Unavailable

    stop = Stop.on_signals()
    with SuperNode.start(settings) as node:
        typer.echo(f"SuperNode started; its log: {node.log}", err=True)
        while not stop.wait(1.0):
            if not node.running:
                raise Unavailable("SuperNode", "it has ended", f"See {node.log}")


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")


def main() -> None:
    """Run a command; its error becomes one sentence and an exit code."""
    leave_cleanly("fedtrade-member", app)


if __name__ == "__main__":
    main()
