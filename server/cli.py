"""The command `fedtrade-coordinator`: what a coordinator operator does by hand.

The coordinator is trusted with nothing: it reads no update and cannot publish alone. Commands import
what they need when they run, so that `--help` answers at once.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from fedtrade.console import Stop, leave_cleanly
from fedtrade.errors import BadInput
from fedtrade.voting import group
from server.relay_commands import relay

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from server.keys import CoordinatorKeys
    from server.operation import Operation, Report
    from server.settings import CoordinatorSettings
    from server.superlink import SuperLink

app = typer.Typer(
    name="fedtrade-coordinator",
    help=(
        "Run rounds that nobody has to trust you for, and publish what members have signed.\n\n"
        "**init** makes key, certificates and a settings file; **terms** draws up the release; "
        "**run** drives it from its first round to its published hash; **up** keeps Flower's "
        "SuperLink behind its gate; **live** shows what is published. **deploy** founds a consortium "
        "on-chain, and with **gov** its members decide."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _key(folder: Path) -> CoordinatorKeys:
    from server.keys import CoordinatorKeys

    return CoordinatorKeys.load(folder)


app.add_typer(group(_key))
app.add_typer(relay)

Settings = Annotated[Path, typer.Argument(help="The coordinator's settings; `init` writes them.")]
COORDINATOR_TOML: Final = Path("coordinator.toml")
SUPERLINK_FOLDER: Final = "superlink"
PORT_FILE: Final = "port"
LOOK_S: Final = 2.0


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The coordinator's own folder.")],
    host: Annotated[
        list[str],
        typer.Option(help="Name or address by which members reach this machine; repeat for more."),
    ],
    consortium: Annotated[str, typer.Option(help="Name in the certificates.")] = "fedtrade",
) -> None:
    """Make the coordinator's key, certificates and a settings file to fill in, once.

    The key's address needs the coordinator role in Membership, and gas on every chain. Give members
    tls/ca.crt, the address and the port: they trust no other certificate.
    """
    from datetime import UTC, datetime

    from server.certificates import create_authority, issue
    from server.keys import KEY_FILE, CoordinatorKeys
    from server.settings import COORDINATOR_FILE, COORDINATOR_TEMPLATE

    keys = CoordinatorKeys.create(folder)
    now = datetime.now(UTC)
    create_authority(folder / "tls", consortium, now)
    issue(folder / "tls", host, now)
    settings = folder / COORDINATOR_FILE
    if not settings.exists():
        settings.write_text(COORDINATOR_TEMPLATE)
    typer.echo(f"address  {keys.address}")
    typer.echo(f"members  pin {folder / 'tls' / 'ca.crt'}, made for {', '.join(host)}")
    typer.echo(
        f"Back up {folder / KEY_FILE}; losing it ends only the release that is open. Move "
        f"{folder / 'tls' / 'ca.key'} off this machine until the certificate is to be renewed.\n"
        f"Next: fill in {settings}, then `fedtrade-coordinator terms {settings}`."
    )


@app.command()
def terms(settings: Settings = COORDINATOR_TOML) -> None:
    """Draw up the release of the settings and print its policy hash. Opens and sends nothing.

    The hash is what members compare: with the home chain, or with what they approve in their own
    files. It binds parameters, seats, keys, base model and coordinator.
    """
    from server.operation import Operation
    from server.settings import CoordinatorSettings

    with Operation(CoordinatorSettings.load(settings), _silent) as operation:
        drawn = operation.terms
    p = drawn.parameters
    typer.echo(f"{drawn.digest.hex()}  policy hash of release {drawn.release}")
    typer.echo(
        f"{len(drawn.members)} members, {len(drawn.helpers)} helpers of which {p.corrupt} may be bad; "
        f"{p.rounds} rounds, q = {p.sampling_rate:g}, z = {p.noise_multiplier:g}, at most "
        f"ε = {p.epsilon_cap:g} (RDP) at δ = {p.delta:g}; {drawn.dimension} parameters from "
        f"{drawn.base_sha256}"
    )
    if p.aggregation == "bfv":
        typer.echo("The collective key is still to be made; it changes the hash.")


@app.command()
def run(
    settings: Settings = COORDINATOR_TOML,
    over: Annotated[
        Literal["channel", "flower", "messages"],
        typer.Option(
            help="channel: members come by themselves. flower: open the release at the SuperNodes "
            "of `up` first; rounds go over the channel all the same. messages: hand the release to "
            "`up --rounds messages` and come back at once."
        ),
    ] = "channel",
) -> None:
    """Open the release of the settings, run its rounds, gather signatures, publish.

    Can be killed and started again at any time: it goes on where the transcript ends. The result
    lies in the release's folder: transcript.bin, artifact.safetensors, endorsements.json.
    """
    from server.certificates import TlsFiles
    from server.channel import RoundChannel
    from server.operation import Operation, timeouts_s
    from server.settings import CoordinatorSettings

    _log_to_stderr()
    loaded = CoordinatorSettings.load(settings)
    link = None if over == "channel" else _running_superlink(loaded)
    if link is not None and over == "messages":
        _open_at_nodes(link)
        return
    with _progress() as bar, Operation(loaded, _show(bar)) as operation:
        tls = TlsFiles.within(loaded.tls).server_context()
        channel = RoundChannel(
            operation.terms,
            tls,
            loaded.channel.host,
            loaded.channel.port,
            timeouts_s(loaded.release),
        )
        with channel:
            bar.console.print(f"round channel on {loaded.channel.host}:{channel.port}")
            if link is not None:
                _open_at_nodes(link)
            finished = operation.drive(channel.exchange, channel.heard)
        _tell(operation, finished.artifact_sha256, finished.epsilon_micro)


def _tell(operation: Operation, artifact_sha256: str, epsilon_micro: int) -> None:
    typer.echo(f"{artifact_sha256}  {operation.settings.release_folder / 'artifact.safetensors'}")
    typer.echo(
        f"ε = {epsilon_micro / 1e6:.4f} (RDP) at δ = {operation.terms.parameters.delta:g}; unit: "
        "position lifecycle; adjacency: zero-out of one position (counts public). Anybody can repeat "
        f"it: fedtrade verify {operation.settings.release_folder / 'transcript.bin'}"
    )


@app.command()
def up(
    settings: Settings = COORDINATOR_TOML,
    rounds: Annotated[
        Literal["channel", "messages"],
        typer.Option(
            help="channel: a run opens the release, its rounds go over the round channel. messages: "
            "a run drives every round as Flower messages; slow, for nodes that reach only the gate."
        ),
    ] = "channel",
) -> None:
    """Keep Flower's SuperLink and its gate up, until SIGTERM or Ctrl-C.

    The SuperLink listens on loopback alone; SuperNodes come through the gate, which lets through
    what belongs to the fleet and nothing else. Only nodes whose keys the settings name get in.
    `run --over flower` opens releases at them.
    """
    from fedtrade.errors import Unavailable
    from server.certificates import TlsFiles
    from server.flower import PURPOSE_VARIABLE, SETTINGS_VARIABLE
    from server.gate import Gate, read_node_keys, serving
    from server.settings import CoordinatorSettings
    from server.superlink import SuperLink

    loaded = CoordinatorSettings.load(settings)
    if loaded.superlink is None:
        raise BadInput(
            str(settings), "superlink: the section is missing", "Give gate and node keys"
        )
    stop = Stop.on_signals()
    known = read_node_keys(loaded.superlink.node_keys)
    folder = loaded.folder / SUPERLINK_FOLDER
    environment = {SETTINGS_VARIABLE: str(settings.resolve()), PURPOSE_VARIABLE: rounds}
    with SuperLink.start(folder, loaded.superlink.port, environment) as link:
        (folder / PORT_FILE).write_text(str(link.port))
        for key in loaded.superlink.node_keys:
            link.register(key)
        gate = Gate(link.url, link.tls.client_context(), known.__contains__)
        at = loaded.superlink
        tls = TlsFiles.within(loaded.tls).server_context()
        with serving(gate, at.gate_host, at.gate_port, tls) as port:
            typer.echo(f"SuperNodes connect to {at.gate_host}:{port}", err=True)
            while not stop.wait(LOOK_S):
                if not link.running:
                    raise Unavailable("SuperLink", "it has ended", f"See its log in {folder}")


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

    from fedtrade.chain.agreement import majority
    from fedtrade.chain.contracts import ModelRegistry
    from fedtrade.chain.conversation import ask
    from fedtrade.chain.deployment import Deployment
    from fedtrade.chain.quorum import reader

    table = Table("chain", "version", "live hash", "ε", "nodes", box=box.SIMPLE_HEAD)
    for chain in Deployment.load(deployment).chains:
        with reader(chain.all_rpc_urls, chain.chain_id) as rpc:
            model = ask(rpc, ModelRegistry(chain.registry).live())
        known = model.version > 0
        epsilon = f"{model.epsilon_micro / 1e6:.3f}" if known else ""
        count = len(chain.all_rpc_urls)
        nodes = f"{majority(count)} of {count} agree" if count > 1 else "one, trusted alone"
        sha256 = model.sha256 if known else "none is live"
        table.add_row(chain.name, str(model.version), sha256, epsilon, nodes)
    Console().print(table)


@app.command()
def deploy(
    plan: Annotated[
        Path | None, typer.Option(help="What to deploy, as TOML; --template shows how.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where to write the deployment file.")] = Path(
        "deployment.json"
    ),
    keys: Annotated[Path, typer.Option(help="Folder of the key that deploys and pays.")] = Path(),
    template: Annotated[
        bool, typer.Option("--template", help="Print a plan to fill in, and do nothing.")
    ] = False,
) -> None:
    """Found a consortium on-chain: members, parameters, registry, governor and timelock.

    Can be killed and started again at any time: it goes on where it stopped (OUT.steps), and never
    creates anything twice. In the end everything belongs to the timelock, the key that deployed has
    no power left, and both are read from the chain before the deployment file is written. Takes
    some 15 million gas, and 310,000 for each seat.
    """
    from fedtrade.chain.plan import PLAN_TEMPLATE, DeploymentPlan

    if template:
        typer.echo(PLAN_TEMPLATE, nl=False)
        return
    if plan is None:
        raise BadInput("--plan", "there is none", "`deploy --template` prints one to fill in")
    from fedtrade.chain.deploying import deploy as carry_out
    from server.keys import CoordinatorKeys

    loaded, signer = DeploymentPlan.load(plan), CoordinatorKeys.load(keys)
    deployment = carry_out(loaded, out, signer, lambda step: typer.echo(step, err=True))
    at = deployment.chain(deployment.home).decided_here
    for name, address in at.model_dump(exclude_none=True).items():
        typer.echo(f"{address}  {name.replace('_', ' ')}")
    typer.echo(
        f"The timelock owns it all, and {signer.address} has no power left, as read from the chain. "
        f"{out}: give it to every party."
    )


@app.command()
def steward(
    settings: Annotated[Path, typer.Argument(help="Its settings, as TOML.")] = Path("steward.toml"),
    once: Annotated[bool, typer.Option("--once", help="Assess once, and end.")] = False,
    template: Annotated[
        bool, typer.Option("--template", help="Print settings to fill in, and do nothing.")
    ] = False,
) -> None:
    """Move parameters by small steps while markets change, and say why each time.

    Limits of size shrink while volatility is above the usual and go back afterwards; the gas ceiling
    follows the market. Governance appoints the account (`gov propose --steward`); the contract bounds
    each step, waits between two, and forgets all of it after seven days. Where a feed or a node is
    silent, nothing is moved. Every assessment stands in steward.jsonl.
    """
    from fedtrade.errors import FedtradeError
    from server.steward import STEWARD_TEMPLATE, Outcome, Steward, StewardSettings, in_words

    if template:
        typer.echo(STEWARD_TEMPLATE, nl=False)
        return

    def report(what: Outcome | FedtradeError) -> None:
        typer.echo(str(what) if isinstance(what, FedtradeError) else in_words(what), err=True)

    with Steward(StewardSettings.load(settings)) as watching:
        typer.echo(f"steward {watching.address}", err=True)
        if once:
            report(watching.look())
            return
        watching.run(Stop.on_signals(), report)


def _running_superlink(settings: CoordinatorSettings) -> SuperLink:
    """The SuperLink that `up` keeps, in another process. Raises BadInput where there is none."""
    from server.superlink import SuperLink

    folder = settings.folder / SUPERLINK_FOLDER
    try:
        link = SuperLink(folder, int((folder / PORT_FILE).read_text()), {})
    except (OSError, ValueError):
        link = None
    if link is None or not link.healthy:
        raise BadInput(str(folder), "no SuperLink runs here", "`fedtrade-coordinator up` starts it")
    return link


def _open_at_nodes(link: SuperLink) -> None:
    from server.bundle import start_run

    started = start_run(link)
    typer.echo(f"run {started.id} of bundle {started.bundle_sha256} is open at the nodes", err=True)


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


def _show(bar: Progress) -> Report:
    """One line of progress for each thing that is going on, the last one open."""
    known: dict[str, TaskID] = {}

    def report(what: str, done: int, of: int) -> None:
        kind = what.partition(" (")[0]
        if kind not in known:
            known[kind] = bar.add_task(what, total=of)
        bar.update(known[kind], description=what, completed=done, total=of)

    return report


def _silent(_what: str, _done: int, _of: int) -> None:
    return None


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")


def main() -> None:
    """Run a command; its error becomes one sentence and an exit code."""
    leave_cleanly("fedtrade-coordinator", app)


if __name__ == "__main__":
    main()
