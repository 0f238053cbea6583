"""The commands of governance, the same for members and coordinators: `gov propose`, `gov vote`, …

A command group is built around the way in which its owner opens a key; nothing here holds one.
Commands import what they need when they run, so that `--help` answers at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

if TYPE_CHECKING:
    from fedtrade.chain.governing import Governance, Standing, Voter
    from fedtrade.chain.transacting import Receipt
    from fedtrade.governed import Rule
    from fedtrade.venues.codec import Call
    from fedtrade.venues.governance import Support

Deployment = Annotated[
    Path, typer.Option(help="Where everything stands; `fedtrade-coordinator deploy` writes it.")
]
Keys = Annotated[Path, typer.Option(help="Folder of the key that signs and pays.")]
Id = Annotated[str, typer.Argument(help="A proposal's id, or its first digits; see `show`.")]
Choice = Literal["for", "against", "abstain"]
DEPLOYMENT: Final = Path("deployment.json")
HERE: Final = Path(".")

HELP: Final = (
    "Decide with the other members: parameters, seats, models, guardians.\n\n"
    "**propose** makes a proposal; once voting has begun members **vote**; anybody **queue**s what "
    "has passed, and **execute**s it when its delay is over. **show** says where each proposal "
    "stands, **parameters** what is in force. A guardian may **cancel**, **pause**, **tighten**, "
    "**veto** and **revoke** at once. Whatever the rules forbid is refused before any gas is "
    "paid. A command ends when what it did is as deep as the deployment's `confirmations` say; "
    "one that was interrupted can be run again, and does nothing twice."
)


def group(open_key: Callable[[Path], Voter]) -> typer.Typer:
    """The group `gov`. `open_key` gives the key in a folder, or raises BadInput."""
    gov = typer.Typer(name="gov", help=HELP, no_args_is_help=True, rich_markup_mode="markdown")
    gov.command()(parameters)
    gov.command()(show)
    _add_proposing(gov, open_key)
    gov.command("vote")(voting(open_key))
    _add_signing(gov, open_key)
    _add_carrying_out(gov, open_key)
    _add_guarding(gov, open_key)
    return gov


def voting(open_key: Callable[[Path], Voter]) -> Callable[..., None]:
    """The command `vote`."""

    def vote(
        proposal: Annotated[
            str | None, typer.Argument(help="A proposal's id, or its first digits; see `show`.")
        ] = None,
        choice: Annotated[Choice | None, typer.Argument(help="What you say to it.")] = None,
        why: Annotated[str, typer.Option(help="A reason, on-chain for everybody.")] = "",
        signed: Annotated[
            Path | None,
            typer.Option(help="Hand in somebody's ballot instead: the file that sign-vote wrote."),
        ] = None,
        deployment: Deployment = DEPLOYMENT,
        keys: Keys = HERE,
    ) -> None:
        """Vote on a proposal, or hand in a ballot that somebody has signed.

        One member, one vote, with the seats as they were when voting began. The key must be that of
        the seat's account, or of whom it delegated to. A vote cannot be changed.
        """
        from fedtrade.chain.governing import Ballot
        from fedtrade.errors import BadInput

        with _governance(deployment) as g:
            if signed is not None:
                _told(g.hand_in(Ballot.parse(_content(signed)), open_key(keys)), "handed in")
            elif proposal is None or choice is None:
                raise BadInput("vote", "proposal or choice is missing", "See `vote --help`")
            else:
                found = g.find(proposal)
                _told(g.vote(found, _support(choice), open_key(keys), why), f"voted {choice}")

    return vote


def parameters(
    name: Annotated[str | None, typer.Argument(help="One parameter, with all its rules.")] = None,
    deployment: Deployment = DEPLOYMENT,
) -> None:
    """Show every governed parameter and what the steward moved, or one with all its rules."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from fedtrade.chain.governing import moment
    from fedtrade.governed import RULES, rule_named

    chosen = None if name is None else rule_named(name)
    with _governance(deployment) as g:
        known, now_s = g.parameters(), g.now_s()
    in_force, governed = known.in_force(now_s).values, known.governed.values
    if chosen is not None:
        _explain(chosen, in_force[chosen.id], governed[chosen.id])
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for title in ("parameter", "in force", "unit", "bounds"):
        side: Literal["right", "left"] = "right" if title in ("in force", "bounds") else "left"
        table.add_column(title, justify=side, no_wrap=True)
    for rule in RULES:
        value, stands = in_force[rule.id], governed[rule.id]
        moved = "" if value == stands else " *"
        bounds = f"{rule.least:,} … {rule.most:,}"
        table.add_row(rule.name, f"{value:,}{moved}", rule.unit, bounds)
    Console().print(table)
    if known.term(now_s) is not None:
        typer.echo(
            f"* by the steward, until {moment(known.interim_until_s)}; then what is governed."
        )
    if known.paused:
        typer.echo("Everything is PAUSED. Only a proposal lets it go on: `propose --unpause`.")


def _explain(rule: Rule, value: int, governed: int) -> None:
    from fedtrade.governed import JOINT_RULES

    typer.echo(f"{rule.name}: {rule.meaning}")
    typer.echo(
        f"in force  {value:,} {rule.unit}; governed: {governed:,}; default: {rule.default:,}"
    )
    typer.echo(
        f"bounds    {rule.least:,} … {rule.most:,}; {'more' if rule.tighter_up else 'less'} is tighter"
    )
    typer.echo(
        f"steward   moves it by {rule.step_bps / 100:g} % (or one unit) each {rule.cool_down_s:,} s"
    )
    for joint in JOINT_RULES:
        if rule.id in joint.ids:
            typer.echo(f"rule {joint.number:<4} {joint.statement}. {joint.reason}")


def show(
    proposal: Annotated[str | None, typer.Argument(help="One proposal, in full.")] = None,
    deployment: Deployment = DEPLOYMENT,
) -> None:
    """Show where every proposal stands, or one of them with all that it does."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fedtrade.chain.governing import short

    with _governance(deployment) as g:
        if proposal is not None:
            _show(g, g.find(proposal))
            return
        known = g.proposals()
    if not known:
        typer.echo("Nothing was proposed yet.")
        return
    table = Table("proposal", "state", "for", "against", "abstain", "quorum", "why",
                  box=box.SIMPLE_HEAD)  # fmt: skip
    for one in known:
        votes = (one.in_favour, one.against, one.abstaining, one.needed)
        why = Text(_printable(one.proposed.proposal.description)[:60])
        table.add_row(short(one.id), one.state.name.lower(), *map(str, votes), why)
    Console().print(table)


def _show(g: Governance, one: Standing) -> None:
    from fedtrade.chain.governing import what_next

    proposed = one.proposed
    typer.echo(f"proposal  0x{one.id:064x}")
    typer.echo(f"state     {one.state.name.lower()}. {what_next(one)}")
    typer.echo(
        f"votes     {one.in_favour} for, {one.against} against, {one.abstaining} abstaining"
        + (f"; the quorum is {one.needed}" if one.needed else "")
    )
    typer.echo(f"by        {proposed.proposer}, in block {proposed.block}")
    for line in g.in_words(proposed.proposal.calls):
        typer.echo(f"does      {line}")
    for text in proposed.proposal.description.splitlines():
        typer.echo(f"why       {_printable(text)}")


def _add_proposing(gov: typer.Typer, open_key: Callable[[Path], Voter]) -> None:
    @gov.command()
    def propose(
        why: Annotated[str, typer.Option(help="Why members should agree, in a sentence or more.")],
        sets: Annotated[
            list[str] | None,
            typer.Option("--set", help="NAME=VALUE of a parameter, as `parameters` shows them."),
        ] = None,
        admit: Annotated[
            list[str] | None, typer.Option(help="New seat: ACCOUNT,SIGNER,X25519,member+helper.")
        ] = None,
        update: Annotated[
            list[str] | None,
            typer.Option(help="New keys or roles: ID,SIGNER,X25519,member+helper."),
        ] = None,
        expel: Annotated[list[int] | None, typer.Option(help="Id of a seat to take away.")] = None,
        revoke: Annotated[
            list[int] | None, typer.Option(help="Version of a model to withdraw, for ever.")
        ] = None,
        guardian: Annotated[
            str | None, typer.Option(help="Address of another guardian, everywhere.")
        ] = None,
        governor_guardian: Annotated[
            str | None,
            typer.Option(help="... of the governor alone: proposed alone, nobody can cancel it."),
        ] = None,
        steward: Annotated[str | None, typer.Option(help="Address of another steward.")] = None,
        unpause: Annotated[bool, typer.Option("--unpause", help="Let everything go on.")] = False,
        call: Annotated[
            list[str] | None, typer.Option(help="Any other call: 0xCONTRACT:0xCALLDATA.")
        ] = None,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Show what it would do, and send nothing.")
        ] = False,
        deployment: Deployment = DEPLOYMENT,
        keys: Keys = HERE,
    ) -> None:
        """Propose a change, or several that are voted on together. Needs a member's vote.

        Shows what it does, and refuses before any gas is paid what a rule, or a contract, forbids.
        """
        from fedtrade.chain.governing import Change, short

        change = Change(
            parameters=dict(_parameter(text) for text in sets or []),
            admit=tuple(_seat(text) for text in admit or []),
            update=tuple((_number(text), *_seat(text)[1:]) for text in update or []),
            expel=tuple(expel or []),
            revoke=tuple(revoke or []),
            guardian=_address("--guardian", guardian),
            governor_guardian=_address("--governor-guardian", governor_guardian),
            steward=_address("--steward", steward),
            unpause=unpause,
            others=tuple(_call(text) for text in call or []),
        )
        with _governance(deployment) as g:
            drafted = g.draft(change, why)
            for line in g.in_words(drafted.calls):
                typer.echo(line)
            if dry_run:
                typer.echo(f"Nothing was sent. It would be proposal {short(drafted.id)}.")
            else:
                receipt = g.propose(drafted, open_key(keys))
                _told(receipt, f"proposal 0x{drafted.id:064x}")
                _next(g, drafted.id)


def _add_signing(gov: typer.Typer, open_key: Callable[[Path], Voter]) -> None:
    @gov.command("sign-vote")
    def sign_vote(
        proposal: Id,
        choice: Annotated[Choice, typer.Argument(help="What you say to it.")],
        out: Annotated[Path | None, typer.Option(help="Write the ballot here.")] = None,
        deployment: Deployment = DEPLOYMENT,
        keys: Keys = HERE,
    ) -> None:
        """Sign a vote that anybody may hand in with `vote --signed`. Sends nothing, needs no gas."""
        with _governance(deployment) as g:
            ballot = g.sign_vote(g.find(proposal), _support(choice), open_key(keys))
        text = ballot.model_dump_json(indent=2)
        if out is None:
            typer.echo(text)
        else:
            out.write_text(text + "\n")
            typer.echo(f"{out}: for anybody to hand in with `vote --signed`")


def _add_carrying_out(gov: typer.Typer, open_key: Callable[[Path], Voter]) -> None:
    @gov.command()
    def queue(proposal: Id, deployment: Deployment = DEPLOYMENT, keys: Keys = HERE) -> None:
        """Start the delay of a proposal that has passed. Anybody may."""
        with _governance(deployment) as g:
            found = g.find(proposal)
            _told(g.queue(found, open_key(keys)), "queued")
            _next(g, found.id)

    @gov.command()
    def execute(proposal: Id, deployment: Deployment = DEPLOYMENT, keys: Keys = HERE) -> None:
        """Carry out a proposal whose delay is over. Anybody may."""
        with _governance(deployment) as g:
            found = g.find(proposal)
            lines = g.in_words(found.proposed.proposal.calls)
            _told(g.execute(found, open_key(keys)), "executed")
        for line in lines:
            typer.echo(line)

    @gov.command()
    def cancel(proposal: Id, deployment: Deployment = DEPLOYMENT, keys: Keys = HERE) -> None:
        """Take a proposal back: its proposer until voting begins, the guardian until execution."""
        with _governance(deployment) as g:
            _told(g.cancel(g.find(proposal), open_key(keys)), "canceled")


def _printable(text: str) -> str:
    """What somebody wrote, without what would move a cursor."""
    return "".join(c if c.isprintable() else " " for c in text)


def _add_guarding(gov: typer.Typer, open_key: Callable[[Path], Voter]) -> None:
    @gov.command()
    def pause(deployment: Deployment = DEPLOYMENT, keys: Keys = HERE) -> None:
        """Guardian: stop everything at once. Only a proposal lets it go on."""
        with _governance(deployment) as g:
            _told(g.pause(open_key(keys)), "paused")

    @gov.command()
    def veto(deployment: Deployment = DEPLOYMENT, keys: Keys = HERE) -> None:
        """Guardian: end what the steward did; what is governed is in force at once."""
        with _governance(deployment) as g:
            _told(g.veto(open_key(keys)), "ended")

    @gov.command()
    def tighten(
        sets: Annotated[list[str], typer.Option("--set", help="NAME=VALUE of a parameter.")],
        deployment: Deployment = DEPLOYMENT,
        keys: Keys = HERE,
    ) -> None:
        """Guardian: tighten parameters, until a proposal moves them. Nothing can be loosened."""
        with _governance(deployment) as g:
            changes = dict(_parameter(text) for text in sets)
            _told(g.tighten(changes, open_key(keys)), "tightened")

    @gov.command()
    def revoke(
        version: Annotated[int, typer.Argument(help="Version of the model.", min=1)],
        deployment: Deployment = DEPLOYMENT,
        keys: Keys = HERE,
    ) -> None:
        """Guardian: withdraw a model for ever. Agents stop acting on it."""
        with _governance(deployment) as g:
            _told(g.revoke(version, open_key(keys)), "revoked")


@contextmanager
def _governance(deployment: Path) -> Iterator[Governance]:
    from fedtrade.chain.deployment import Deployment as Known
    from fedtrade.chain.governing import Governance
    from fedtrade.chain.quorum import reader

    known = Known.load(deployment)
    home = known.chain(known.home)

    def sent(transaction: str) -> None:
        if home.confirmations > 1:
            depth = f"{home.confirmations} blocks deep"
            typer.echo(f"sent {transaction}; waiting until it is {depth}", err=True)

    with reader(home.all_rpc_urls, home.chain_id) as rpc:
        yield Governance(home, rpc, sent)


def _told(receipt: Receipt, what: str) -> None:
    typer.echo(f"{what}: block {receipt.block}, {receipt.gas:,} gas, {receipt.transaction}")


def _next(g: Governance, proposal_id: int) -> None:
    from fedtrade.chain.governing import what_next

    typer.echo(what_next(g.find(f"{proposal_id:064x}")))


def _support(choice: Choice) -> Support:
    from fedtrade.venues.governance import Support

    return Support[choice.upper()]


def _content(path: Path) -> bytes:
    from fedtrade.errors import BadInput

    try:
        with path.open("rb") as file:
            return file.read(65_536)
    except OSError as error:
        raise BadInput(str(path), f"cannot be read ({error.strerror})", "Check the path") from error


def _parameter(text: str) -> tuple[str, int]:
    from fedtrade.errors import BadInput

    name, _, value = text.partition("=")
    digits = value.strip().replace("_", "").replace(",", "")
    if not digits.isdecimal() or len(digits) > 20:
        raise BadInput(
            f"--set {text}", "it is not NAME=VALUE", "Give a whole number in the parameter's unit"
        )
    return name.strip(), int(digits)


def _number(text: str) -> int:
    from fedtrade.errors import BadInput

    first = text.partition(",")[0]
    if not first.isdecimal() or len(first) > 18:
        raise BadInput(f"--update {text}", "it does not begin with a seat's id", "See --help")
    return int(first)


def _seat(text: str) -> tuple[str, str, bytes, int]:
    from fedtrade.chain.plan import ROLES
    from fedtrade.errors import BadInput

    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 4:
        raise BadInput(f"seat {text}", f"{len(parts)} parts, separated by commas", "Give four")
    account, signer, key, roles = parts
    digits = key.removeprefix("0x")
    unknown = sorted(set(roles.split("+")) - ROLES.keys())
    if unknown:
        raise BadInput(f"seat {text}", f"no role {unknown[0]!r}", f"Use {', '.join(ROLES)}")
    try:
        x25519 = bytes.fromhex(digits.rjust(64, "0"))
    except ValueError:
        x25519 = b""
    if len(x25519) != 32:
        raise BadInput(f"seat {text}", f"{key!r} is no encryption key", "Give 64 hex digits")
    mask = sum(ROLES[role] for role in set(roles.split("+")))
    own = account if account.isdecimal() else _address(f"seat {text}", account)
    return own or "", _address(f"seat {text}", signer) or "", x25519, mask


def _address(where: str, text: str | None) -> str | None:
    from pydantic import TypeAdapter, ValidationError

    from fedtrade.chain.deployment import Address
    from fedtrade.errors import BadInput

    if text is None:
        return None
    try:
        checked: str = TypeAdapter(Address).validate_python(text)
    except ValidationError:
        raise BadInput(where, f"{text!r} is no address", "Give 40 hex digits after 0x") from None
    return checked


def _call(text: str) -> Call:
    from fedtrade.errors import BadInput
    from fedtrade.venues.codec import Call

    to, _, data = text.partition(":")
    try:
        content = bytes.fromhex(data.removeprefix("0x"))
    except ValueError:
        raise BadInput(f"--call {text}", "no calldata after the colon", "Give hex digits") from None
    return Call(_address(f"--call {text}", to) or "", content)
