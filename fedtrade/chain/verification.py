"""Whether what stands on-chain is what was planned: every owner, role, office, seat and setting.

It is the end of a deployment, and can be asked by anybody at any time after: what members have
changed since, by a proposal, counts as a difference too.
"""

from __future__ import annotations

from collections.abc import Sequence

from eth_utils.address import to_checksum_address

from fedtrade.chain.contracts import Membership
from fedtrade.chain.conversation import Conversation, ask, read
from fedtrade.chain.deployment import ConsortiumAt, MessagesAt
from fedtrade.chain.logs import logs_between
from fedtrade.chain.mirrors import BEACON, HOME_DOMAIN, MAILBOX, MIRROR_OF, SECURITY_MODULE
from fedtrade.chain.plan import FoundingPlan
from fedtrade.chain.rpc import Rpc
from fedtrade.errors import Fault
from fedtrade.venues import governance as gov
from fedtrade.venues.codec import Function, field, quantity
from fedtrade.venues.hyperlane import word_of


class NotAsPlanned(Fault):
    """What stands on-chain is not what the plan says."""

    def __init__(self, chain: str, findings: Sequence[str]) -> None:
        super().__init__(
            f"Chain {chain} is not as planned: {'; '.join(findings)}. Do not use these contracts; "
            "deploy anew with another account"
        )
        self.findings = tuple(findings)


def verify(
    rpc: Rpc,
    chain: str,
    at: ConsortiumAt,
    plan: FoundingPlan,
    from_block: int,
    owned: Sequence[str] = (),
) -> None:
    """Read everything that was planned. Raises NotAsPlanned with every difference.

    `owned`: further contracts that the timelock must own. What members may have changed since (by
    a proposal) counts as a difference too: this is for the end of a deployment.
    """
    head = quantity(field(rpc.call("eth_getBlockByNumber", "latest", False), "number"))
    findings = [
        *ask(rpc, _owners(at, owned, head)),
        *ask(rpc, _offices(at, plan, head)),
        *ask(rpc, _seated(at, plan, head)),
        *ask(rpc, _role_holders(at, from_block, head)),
    ]
    if findings:
        raise NotAsPlanned(chain, findings)


def verify_mirror(rpc: Rpc, home_rpc: Rpc, chain: str, end: MessagesAt, home: MessagesAt) -> None:
    """Whether mirror and beacon know each other. Raises NotAsPlanned."""
    mirror, beacon = str(end.mirror), str(home.beacon)
    views = (MAILBOX, HOME_DOMAIN, BEACON, SECURITY_MODULE)
    (mailbox,), (domain,), (believed,), (module,) = ask(
        rpc, read([(mirror, view, ()) for view in views], "latest")
    )
    ((named,),) = ask(home_rpc, read([(beacon, MIRROR_OF, (end.domain,))], "latest"))
    findings = [
        what
        for what, holds in (
            ("the mirror's mailbox", to_checksum_address(mailbox) == end.mailbox),
            ("the mirror's home", domain == home.domain),
            ("the mirror's beacon", believed == word_of(beacon)),
            ("the mirror's module", int(module, 16) != 0),
            ("the beacon's mirror", named == word_of(mirror)),
        )
        if not holds
    ]
    if findings:
        raise NotAsPlanned(chain, findings)


def _owners(at: ConsortiumAt, owned: Sequence[str], block: int) -> Conversation[list[str]]:
    known = {
        at.membership: "Membership",
        at.parameter_store: "ParameterStore",
        at.model_registry: "ModelRegistry",
    }
    addresses = [*known, *owned]
    owners = yield from read([(a, gov.OWNER, ()) for a in addresses], block)
    pending = yield from read([(a, gov.PENDING_OWNER, ()) for a in addresses], block)
    found = []
    for address, (owner,), (next_owner,) in zip(addresses, owners, pending, strict=True):
        if to_checksum_address(owner) != at.timelock:
            found.append(f"{known.get(address, address)} is owned by {owner}")
        if int(next_owner, 16):
            found.append(f"{known.get(address, address)} is offered to {next_owner}")
    return found


def _offices(at: ConsortiumAt, plan: FoundingPlan, block: int) -> Conversation[list[str]]:
    how = plan.governance
    governed = f"(uint64[{len(plan.governed.values)}])"
    wanted: list[tuple[str, str, Function, object]] = [
        ("the registry's membership", at.model_registry, _view("membership"), at.membership),
        ("the registry's store", at.model_registry, _view("parameterStore"), at.parameter_store),
        ("the registry's guardian", at.model_registry, gov.GUARDIAN, how.guardian),
        ("the store's guardian", at.parameter_store, gov.GUARDIAN, how.guardian),
        ("the steward", at.parameter_store, gov.STEWARD, how.steward),
        ("the governor's guardian", at.governor, gov.PROPOSAL_GUARDIAN, how.guardian),
        ("the governor's members", at.governor, gov.TOKEN, at.membership),
        ("the governor's timelock", at.governor, gov.TIMELOCK, at.timelock),
        ("the voting delay", at.governor, gov.VOTING_DELAY, how.voting_delay_s),
        ("the voting period", at.governor, gov.VOTING_PERIOD, how.voting_period_s),
        ("the late quorum's extension", at.governor, gov.LATE_QUORUM, how.late_quorum_s),
        ("the governor's quorum", at.governor, gov.QUORUM_BPS, how.quorum_bps),
        ("the timelock's delay", at.timelock, gov.MIN_DELAY, how.timelock_delay_s),
        (
            "the parameters",
            at.parameter_store,
            Function("governed()", governed),
            plan.governed.values,
        ),
    ]
    values = yield from read([(to, view, ()) for _, to, view, _ in wanted], block)
    found = []
    for (what, _, view, planned), (value,) in zip(wanted, values, strict=True):
        read_as = to_checksum_address(value) if view.returns == "(address)" else value
        if read_as != planned:
            found.append(f"{what}: {read_as}, planned {planned}")
    return found


def _seated(at: ConsortiumAt, plan: FoundingPlan, block: int) -> Conversation[list[str]]:
    membership = Membership(at.membership)
    last = yield from membership.last_seat_id(block)
    if last != len(plan.seats):
        return [f"{last} seats, planned {len(plan.seats)}"]
    seats = yield from membership.seats(range(1, last + 1), block)
    return [
        f"seat {seat.id} is not the one planned"
        for seat, planned in zip(seats, plan.seats, strict=True)
        if (seat.account, seat.signer, "0x" + seat.x25519.hex(), seat.roles)
        != (planned.account, planned.signer, planned.x25519, planned.mask)
    ]


def _role_holders(at: ConsortiumAt, from_block: int, block: int) -> Conversation[list[str]]:
    """Who holds the timelock's roles, by every grant and revocation since its creation."""
    topics = (gov.ROLE_GRANTED.topic, gov.ROLE_REVOKED.topic)
    logs = yield from logs_between(at.timelock, topics, from_block, block)
    held = gov.holders(logs)
    wanted = {("admin", at.timelock)} | {
        (role, at.governor) for role in ("proposer", "canceller", "executor")
    }
    return [f"{account} is {role} of the timelock" for role, account in sorted(held - wanted)] + [
        f"{account} is not {role} of the timelock" for role, account in sorted(wanted - held)
    ]


def _view(name: str) -> Function:
    return Function(f"{name}()", "(address)")
