"""Founding a consortium on a chain: the one deployer, for local chains and for every other.

The timelock is made first and owns everything from its first block on. While its delay is zero the
founder has its roles, and sets up through it: seats, guardians, addresses. One last operation gives
the governor its roles, sets the delay and takes all of the founder's; whoever stops before has
founded nothing that anybody should trust, and goes on by starting again. In the end `verify` reads
every owner and every role that was ever granted.

Each step's transaction is signed and kept (`steps`) before it is sent. Its nonce is used once, so a
step that is repeated after a crash takes effect once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from eth_abi.abi import encode
from eth_utils.address import to_checksum_address

from fedtrade.chain.contracts import Membership
from fedtrade.chain.deployment import (
    ChainDeployment,
    ChainSite,
    ConsortiumAt,
    Deployment,
    MessagesAt,
)
from fedtrade.chain.mirrors import (
    RegistryBeacon,
)
from fedtrade.chain.parameter_store import ParameterStore
from fedtrade.chain.plan import DeploymentPlan, FoundingPlan, MessagesPlan, SitePlan
from fedtrade.chain.quorum import reader
from fedtrade.chain.rpc import Rpc, from_hex
from fedtrade.chain.steps import Attempt, Begun, Dropped, Mined, Steps
from fedtrade.chain.transacting import (
    MAX_FEE_WEI,
    POLL_GROWTH,
    POLL_MAX_S,
    RECEIPT_POLL_S,
    RECEIPT_WAIT_S,
    NotMined,
    NotTaken,
    Reverted,
    Signer,
    broadcast,
    draft,
    hash_of,
    receipt_of,
)
from fedtrade.chain.verification import verify, verify_mirror
from fedtrade.errors import BadInput, Fault, Stale
from fedtrade.typed_data import keccak
from fedtrade.venues import governance as gov
from fedtrade.venues.codec import Call, Function, quantity
from fedtrade.venues.hyperlane import word_of

HOME_CONTRACTS: Final = (
    "ConsortiumTimelock",
    "Membership",
    "ParameterStore",
    "ModelRegistry",
    "ConsortiumGovernor",
)
CROSS_CHAIN: Final = ("RegistryBeacon", "RegistryMirror")
DEPLOY_MODULE: Final = Function("deploy(address[],uint8)", "(address)")
MODULE_OF: Final = Function("getAddress(address[],uint8)", "(address)")
SEATS_AT_ONCE: Final = 16
"""Seats admitted in one transaction: some five million gas."""
FEE_RAISES_MAX: Final = 4
CONFIRM_WAIT_S: Final = 1_800.0

Report = Callable[[str], None]
"""Told of each step that is done."""


class BlockGone(Stale):
    """A block that had one of our transactions was reorganised away."""

    def __init__(self, step: str) -> None:
        super().__init__(
            f"The block with step {step} is gone from the chain. Start again: it is sent again"
        )
        self.step = step


def creation_code(contract: str) -> tuple[bytes, list[str]]:
    """A shipped contract's creation code, and the types of its constructor."""
    shipped = json.loads((files("fedtrade.chain") / "abi" / f"{contract}.json").read_text())
    constructor = [entry for entry in shipped["abi"] if entry["type"] == "constructor"]
    types = [_type_of(parameter) for entry in constructor for parameter in entry["inputs"]]
    return bytes.fromhex(shipped["bytecode"].removeprefix("0x")), types


def _type_of(parameter: dict[str, Any]) -> str:
    kind = str(parameter["type"])
    if not kind.startswith("tuple"):
        return kind
    inner = ",".join(_type_of(part) for part in parameter["components"])
    return f"({inner}){kind.removeprefix('tuple')}"


class Deployer:
    """One account that creates and calls on one chain, each step once, however often it dies."""

    def __init__(
        self,
        rpc: Rpc,
        chain: str,
        chain_id: int,
        signer: Signer,
        steps: Steps,
        *,
        max_fee_wei: int = MAX_FEE_WEI,
        wait_s: float = RECEIPT_WAIT_S,
        report: Report = lambda _: None,
    ) -> None:
        """Raises BadInput where the node is of another chain."""
        found = quantity(rpc.call("eth_chainId"))
        if found != chain_id:
            raise BadInput(
                f"chain {chain}", f"the node is of chain {found}, not {chain_id}", "Correct rpc_url"
            )
        self.rpc = rpc
        self.chain = chain
        self.chain_id = chain_id
        self.signer = signer
        self.done: dict[str, Mined] = {}
        """The steps of this run, by their names."""
        self._steps = steps
        self._max_fee_wei = max_fee_wei
        self._wait_s = wait_s
        self._report = report

    def create(self, name: str, contract: str, *arguments: object) -> str:
        """Create one of our contracts; gives its address."""
        code, types = creation_code(contract)
        return self.create_raw(name, code + encode(types, arguments))

    def create_raw(self, name: str, code: bytes) -> str:
        """Create a contract from its creation code with its arguments; gives its address."""
        created = self._perform(name, None, code).created
        if created is None:
            raise Fault(f"Step {name} created nothing, says the node. Use another node")
        return to_checksum_address(created)

    def call(self, name: str, call: Call) -> None:
        """Make a call with effect."""
        self._perform(name, call.to, call.data)

    def govern(self, name: str, timelock: str, calls: Sequence[Call]) -> None:
        """Have the timelock make these calls, at once: before the hand-over only."""
        salt = keccak(f"{self.chain}/{name}".encode())
        self.call(f"{name} (scheduled)", gov.schedule(timelock, calls, salt))
        self.call(name, gov.execute_batch(timelock, calls, salt))

    def confirm(self, blocks: int) -> None:
        """Wait until so many blocks lie on every step, and look whether each is still there.

        Raises NotMined and BlockGone.
        """
        newest = max(step.block for step in self.done.values())
        until = time.monotonic() + CONFIRM_WAIT_S
        while (head := quantity(self.rpc.call("eth_blockNumber"))) < newest + blocks:
            if time.monotonic() > until:
                raise NotMined(
                    f"at block {newest} and {blocks} blocks on top of it", CONFIRM_WAIT_S
                )
            self._report(f"{self.chain}: {newest + blocks - head} more blocks for confirmation")
            time.sleep(POLL_MAX_S)
        for name, step in self.done.items():
            receipt = receipt_of(self.rpc, step.transaction)
            if receipt is None or receipt.block != step.block:
                raise BlockGone(name)

    def _perform(self, name: str, to: str | None, data: bytes) -> Mined:
        step = f"{self.chain}/{name}"
        attempts = self._steps.attempts.get(step)  # of an earlier process
        mined = self._known(step)
        if mined is None and attempts and self._used(attempts[-1].nonce):
            mined = self._known(step)  # it may have been mined between the two questions
            if mined is None:  # its nonce went to another transaction, so it never will be
                self._steps.add(Dropped(dropped=step))
        if mined is None:
            if not self._steps.attempts.get(step):
                self._attempt(step, to, data)
            mined = self._drive(step, to, data)
        self.done[name] = mined
        self._report(f"{step}: {mined.created or 'done'}, {mined.gas:,} gas")
        return mined

    def _drive(self, step: str, to: str | None, data: bytes) -> Mined:
        """Send the newest attempt until one of the step's is mined; pay more if it lies about."""
        until, pause_s, raises = time.monotonic() + self._wait_s, RECEIPT_POLL_S, 0
        newest = self._steps.attempts[step][-1]
        reason = broadcast(self.rpc, bytes.fromhex(newest.raw[2:]))
        while (mined := self._known(step)) is None:
            if reason is not None and not self._used(newest.nonce):
                raise NotTaken(self.signer.address, reason)
            if time.monotonic() > until:
                if raises == FEE_RAISES_MAX or self._used(newest.nonce):
                    raise NotMined(newest.transaction, self._wait_s, reason or "")
                raises += 1
                newest = self._attempt(step, to, data, newest)
                reason = broadcast(self.rpc, bytes.fromhex(newest.raw[2:]))
                until = time.monotonic() + self._wait_s
            time.sleep(pause_s)
            pause_s = min(POLL_MAX_S, pause_s * POLL_GROWTH)
        return mined

    def _known(self, step: str) -> Mined | None:
        """What became of a step, if one of its attempts is mined. Raises Reverted."""
        for attempt in reversed(self._steps.attempts.get(step, [])):
            receipt = receipt_of(self.rpc, attempt.transaction)
            if receipt is None:
                continue
            mined = Mined(
                mined=step,
                transaction=receipt.transaction,
                succeeded=receipt.succeeded,
                block=receipt.block,
                gas=receipt.gas,
                created=receipt.created,
            )
            if self._steps.mined.get(step) != mined:
                self._steps.add(mined)
            if not receipt.succeeded:
                raise Reverted(receipt.transaction)
            return mined
        return None

    def _attempt(
        self, step: str, to: str | None, data: bytes, instead: Attempt | None = None
    ) -> Attempt:
        """Sign a step's transaction and keep it; `instead` of one with the same nonce, for more."""
        made = draft(
            self.rpc,
            self.chain_id,
            self.signer.address,
            to,
            data,
            max_fee_wei=self._max_fee_wei,
        )
        if instead is not None:
            made["nonce"] = instead.nonce
            raised = len(self._steps.attempts[step])
            for name in ("maxFeePerGas", "maxPriorityFeePerGas"):
                made[name] = made[name] * 5**raised // 4**raised
            if made["maxFeePerGas"] > self._max_fee_wei:
                raise NotMined(instead.transaction, self._wait_s, "max_fee_gwei is reached")
        raw = self.signer.sign_transaction(made)
        attempt = Attempt(
            step=step, nonce=made["nonce"], raw="0x" + raw.hex(), transaction=hash_of(raw)
        )
        self._steps.add(attempt)
        return attempt

    def _used(self, nonce: int) -> bool:
        return nonce < quantity(
            self.rpc.call("eth_getTransactionCount", self.signer.address, "latest")
        )


def deploy(plan: DeploymentPlan, out: Path, signer: Signer, report: Report) -> Deployment:
    """Carry out a plan, and write the deployment file once everything is as planned.

    Whoever is killed on the way calls it again with the same arguments: it goes on where it stopped,
    by the file of steps beside `out`. Raises as Deployer does, and NotAsPlanned.
    """
    offices = (plan.governance.guardian, plan.governance.steward)
    if signer.address in offices or signer.address in [seat.account for seat in plan.seats]:
        raise BadInput(
            f"account {signer.address}",
            "who deploys holds nothing afterwards, and the plan gives it an office or a seat's vote",
            "Deploy with another key",
        )
    contracts = [*HOME_CONTRACTS, *(CROSS_CHAIN if len(plan.chains) > 1 else ())]
    code = b"".join(creation_code(contract)[0] for contract in contracts)
    begun = Begun(plan=plan.digest(code), founder=signer.address)
    steps_file = out.with_name(f"{out.name}.steps")
    with ExitStack() as stack:
        steps = stack.enter_context(Steps.open(steps_file, begun))
        deployers = {}
        for site in plan.chains:
            rpc = stack.enter_context(reader(site.all_rpc_urls, site.chain_id))
            deployers[site.name] = Deployer(
                rpc,
                site.name,
                site.chain_id,
                signer,
                steps,
                max_fee_wei=round(plan.max_fee_gwei * 10**9),
                report=report,
            )
            _require_contracts(rpc, site)
        deployment = establish(
            deployers,
            plan.chains,
            plan.home,
            plan,
            (plan.validators, plan.threshold),
            plan.confirmations,
        )
    deployment.save(out)
    return deployment


def establish(
    deployers: Mapping[str, Deployer],
    sites: Sequence[SitePlan],
    home: str,
    plan: FoundingPlan,
    believed: tuple[Sequence[str], int],
    confirmations: int = 0,
) -> Deployment:
    """Found the consortium on the home chain and a mirror on every other; verified when it returns.

    `believed`: validators (ascending), and how many of them a mirror asks for. Raises as Deployer
    does, and NotAsPlanned.
    """
    founded = deployers[home]
    at = create_consortium(founded, plan)
    messages = _connect(deployers, sites, home, at, believed)
    ends = {name: end for name, end in messages.items() if end.mirror is not None}
    beacon = next((end.beacon for end in messages.values() if end.beacon is not None), None)
    named = [
        RegistryBeacon(str(beacon)).set_mirror(end.domain, str(end.mirror)) for end in ends.values()
    ]
    hand_over(founded, at, plan, named)
    for deployer in deployers.values():
        deployer.confirm(confirmations)
    from_block = founded.done["timelock"].block
    verify(founded.rpc, home, at, plan, from_block, [] if beacon is None else [beacon])
    for name, end in ends.items():
        verify_mirror(deployers[name].rpc, founded.rpc, name, end, messages[home])
    return Deployment(
        chains=tuple(
            _deployed(
                site,
                at if site.name == home else None,
                messages.get(site.name),
                min(step.block for step in deployers[site.name].done.values()),
            )
            for site in sites
        ),
        home=home,
    )


def _deployed(
    site: SitePlan, at: ConsortiumAt | None, messages: MessagesAt | None, from_block: int
) -> ChainDeployment:
    mirror = None if messages is None else messages.mirror
    known = {name: getattr(site, name) for name in ChainSite.model_fields}
    return ChainDeployment.model_validate(
        known
        | {
            "registry": at.model_registry if at is not None else mirror,
            "parameters": at.parameter_store if at is not None else mirror,
            "consortium": at,
            "messages": messages,
            "from_block": from_block,
        }
    )


def _connect(
    deployers: Mapping[str, Deployer],
    sites: Sequence[SitePlan],
    home: str,
    at: ConsortiumAt,
    believed: tuple[Sequence[str], int],
) -> dict[str, MessagesAt]:
    """A beacon on the home chain and a mirror on every other, if there is another."""
    if len(sites) == 1:
        return {}
    known = {site.name: site.messages for site in sites}
    here = known.pop(home)
    assert here is not None  # the plan was checked
    beacon = deployers[home].create(
        "beacon", "RegistryBeacon", here.mailbox, at.model_registry, at.parameter_store, at.timelock
    )
    found = {home: _end(here, beacon=beacon)}
    for name, there in known.items():
        assert there is not None
        deployer, factory = deployers[name], there.multisig_factory
        deployer.call("mirror's module", Call(factory, DEPLOY_MODULE.encode(*believed)))
        (module,) = MODULE_OF.decode(deployer.rpc.eth_call(factory, MODULE_OF.encode(*believed)))
        mirror = deployer.create(
            "mirror", "RegistryMirror", there.mailbox, here.domain, word_of(beacon), module
        )
        found[name] = _end(there, mirror=mirror)
    return found


def _end(known: MessagesPlan, **end: str) -> MessagesAt:
    return MessagesAt.model_validate(known.model_dump(exclude={"multisig_factory"}) | end)


def _require_contracts(rpc: Rpc, site: ChainSite) -> None:
    """Refuse a plan whose pool, feed or venue is not on the chain. Raises BadInput."""
    for name, address in site.contracts.items():
        if not from_hex(rpc.call("eth_getCode", address, "latest")):
            raise BadInput(
                f"chain {site.name}",
                f"there is no contract at {name} {address}",
                "Correct the plan",
            )


def create_consortium(deployer: Deployer, plan: FoundingPlan) -> ConsortiumAt:
    """Make the home chain's contracts, all of them owned by the founder's timelock."""
    timelock = deployer.create("timelock", "ConsortiumTimelock", deployer.signer.address)
    membership = deployer.create("membership", "Membership", timelock)
    store = deployer.create(
        "parameter store", "ParameterStore", timelock, list(plan.governed.values)
    )
    registry = deployer.create("model registry", "ModelRegistry", membership, store, timelock)
    how = plan.governance
    settings = (how.voting_delay_s, how.voting_period_s, how.late_quorum_s, how.quorum_bps)
    governor = deployer.create(
        "governor", "ConsortiumGovernor", membership, timelock, settings, how.guardian
    )
    return ConsortiumAt(
        membership=membership,
        parameter_store=store,
        model_registry=registry,
        timelock=timelock,
        governor=governor,
    )


def hand_over(
    deployer: Deployer, at: ConsortiumAt, plan: FoundingPlan, further: Sequence[Call] = ()
) -> None:
    """Seat the members, appoint guardian and steward, make `further` calls, and give up all power."""
    seats = Membership(at.membership)
    admissions = [
        seats.admit(seat.account, seat.signer, bytes.fromhex(seat.x25519[2:]), seat.mask)
        for seat in plan.seats
    ]
    for start in range(0, len(admissions), SEATS_AT_ONCE):
        some = admissions[start : start + SEATS_AT_ONCE]
        name = f"seats {start + 1} to {start + len(some)}"
        deployer.govern(name, at.timelock, some)
    if further:
        deployer.govern("addresses", at.timelock, further)
    founder, store = deployer.signer.address, ParameterStore(at.parameter_store)
    governs = (gov.PROPOSER_ROLE, gov.CANCELLER_ROLE, gov.EXECUTOR_ROLE)
    last = [
        Call(at.model_registry, gov.SET_GUARDIAN.encode(plan.governance.guardian)),
        store.set_guardian(plan.governance.guardian),
        store.set_steward(plan.governance.steward),
        *(Call(at.timelock, gov.GRANT_ROLE.encode(role, at.governor)) for role in governs),
        Call(at.timelock, gov.UPDATE_DELAY.encode(plan.governance.timelock_delay_s)),
        *(Call(at.timelock, gov.REVOKE_ROLE.encode(role, founder)) for role in governs),
        Call(at.timelock, gov.REVOKE_ROLE.encode(gov.ADMIN_ROLE, founder)),
    ]
    deployer.govern("hand-over", at.timelock, last)
