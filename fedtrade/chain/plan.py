"""The plan of a deployment: what will stand on-chain, as a TOML file, read strictly.

`fedtrade-coordinator deploy --template` writes one with a comment on every field. Nothing in it is
secret. The same sections, as values, found the consortium of the local chains.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from fedtrade.chain.contracts import COORDINATOR, HELPER, MEMBER
from fedtrade.chain.deployment import Address, ChainSite
from fedtrade.errors import Refusal
from fedtrade.governed import Governed
from fedtrade.settings import Strict, read_settings

HOUR_S: Final = 3_600
DAY_S: Final = 24 * HOUR_S
ROLES: Final = {"member": MEMBER, "helper": HELPER, "coordinator": COORDINATOR}
ZERO: Final = "0x" + "00" * 20


class SeatPlan(Strict):
    """One party from the first day on."""

    account: Address
    """Holds the vote; it may be a multisignature account."""
    signer: Address
    """Address of the key that signs updates and publications (`fedtrade-member init` prints it)."""
    x25519: Annotated[str, Field(pattern=r"^0x[0-9a-f]{64}$")] = "0x" + "00" * 32
    """Its encryption key; only a helper needs one."""
    roles: Annotated[tuple[Literal["member", "helper", "coordinator"], ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if ZERO in (self.account, self.signer):
            raise ValueError("account and signer cannot be the zero address")
        if "helper" in self.roles and not int(self.x25519, 16):
            raise ValueError("x25519: a helper needs an encryption key")
        return self

    @property
    def mask(self) -> int:
        """The roles as Membership has them."""
        return sum({ROLES[role] for role in self.roles})


class GovernancePlan(Strict):
    """How the consortium decides. Bounds are those of ConsortiumGovernor and ConsortiumTimelock."""

    voting_delay_s: Annotated[int, Field(ge=0, le=30 * DAY_S)] = DAY_S
    voting_period_s: Annotated[int, Field(ge=60, le=30 * DAY_S)] = 5 * DAY_S
    late_quorum_s: Annotated[int, Field(ge=0, le=30 * DAY_S)] = DAY_S
    quorum_bps: Annotated[int, Field(ge=3_334, le=10_000)] = 5_000
    timelock_delay_s: Annotated[int, Field(ge=60, le=30 * DAY_S)] = 2 * DAY_S
    guardian: Address
    """May cancel proposals, revoke models, tighten parameters and pause; nothing else."""
    steward: Address = ZERO
    """May move parameters within their steps; zero for nobody."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.late_quorum_s > self.voting_period_s:
            raise ValueError("late_quorum_s: at most voting_period_s")
        if self.guardian != ZERO and self.guardian == self.steward:
            raise ValueError("guardian and steward: one key must not have both offices")
        return self


class FoundingPlan(Strict):
    """A consortium before it exists."""

    governance: GovernancePlan
    seats: Annotated[tuple[SeatPlan, ...], Field(max_length=300)] = ()
    parameters: dict[str, int] = Field(default_factory=dict)
    """Initial values by name, in the units of `fedtrade.governed`; those left out are its defaults."""

    @field_validator("parameters")
    @classmethod
    def _sound(cls, given: dict[str, int]) -> dict[str, int]:
        try:
            Governed().changed(given)
        except Refusal as refused:
            raise ValueError(str(refused)) from None
        return given

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        keys = [seat.x25519 for seat in self.seats if int(seat.x25519, 16)]
        for what, found in (
            ("account", [seat.account for seat in self.seats]),
            ("signer", [seat.signer for seat in self.seats]),
            ("x25519", keys),
        ):
            twice = sorted({one for one in found if found.count(one) > 1})
            if twice:
                raise ValueError(f"seats: two of them have {what} {twice[0]}")
        if sum(seat.mask & MEMBER for seat in self.seats) > 256:
            raise ValueError("seats: at most 256 of them can be members")
        return self

    @property
    def governed(self) -> Governed:
        """The first governed set, whole."""
        return Governed().changed(self.parameters)


class MessagesPlan(Strict):
    """Hyperlane as it stands on a chain already."""

    domain: Annotated[int, Field(gt=0, lt=2**32)]
    mailbox: Address
    merkle_tree_hook: Address
    validator_announce: Address
    multisig_factory: Address
    """StaticMessageIdMultisigIsmFactory: makes the module that a mirror believes."""


class SitePlan(ChainSite):
    """One chain of the plan."""

    messages: MessagesPlan | None = None
    """Needed as soon as there is more than one chain."""


class DeploymentPlan(FoundingPlan):
    """`deployment.toml`: everything that `fedtrade-coordinator deploy` is told."""

    home: str
    confirmations: Annotated[int, Field(ge=0, le=1_000)] = 12
    """Blocks on top of the last transaction before it counts as done."""
    max_fee_gwei: Annotated[float, Field(gt=0, le=100_000)] = 100.0
    """The most that is paid for a unit of gas."""
    mirror_signatures: Annotated[int, Field(ge=1, le=255)] | None = None
    """How many members' signatures a mirror asks for; by default two thirds of them, rounded up."""
    chains: Annotated[tuple[SitePlan, ...], Field(min_length=1, max_length=32)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names, ids = [c.name for c in self.chains], [c.chain_id for c in self.chains]
        if len(set(names)) < len(names) or len(set(ids)) < len(ids):
            raise ValueError("chains: two have the same name or chain id")
        if self.home not in names:
            raise ValueError(f"home: {self.home!r} is not among the chains")
        for chain in self.chains:
            for name, address in chain.contracts.items():
                if address == ZERO:
                    raise ValueError(f"chains: {name} of {chain.name} is the zero address")
        if len(self.chains) > 1:
            for chain in self.chains:
                if chain.messages is None:
                    raise ValueError(
                        f"chains: {chain.name} needs a section messages to be connected"
                    )
        if not self.threshold * 2 > len(self.validators) >= self.threshold:
            raise ValueError(
                "mirror_signatures: more than half of the members, at most all of them"
            )
        if sum(seat.mask & MEMBER for seat in self.seats) < 3:
            raise ValueError("seats: a consortium begins with three members at least")
        if self.governance.guardian == ZERO:
            raise ValueError("governance.guardian: name who may cancel and pause")
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the plan. Raises BadInput with every mistake."""
        return read_settings(cls, path)

    @property
    def validators(self) -> list[str]:
        """Signers of the members, ascending: they vouch for what crosses chains."""
        signers = [seat.signer for seat in self.seats if seat.mask & MEMBER]
        return sorted(signers, key=lambda address: int(address, 16))

    @property
    def threshold(self) -> int:
        """How many of the validators a mirror asks for."""
        return self.mirror_signatures or (2 * len(self.validators) + 2) // 3

    def site(self, name: str) -> SitePlan:
        """One of the chains."""
        return next(chain for chain in self.chains if chain.name == name)

    def digest(self, code: bytes) -> str:
        """What this plan makes of this code, as 64 hex digits. Nodes may change on the way, and
        what is paid for gas."""
        content = self.model_dump(mode="json", exclude={"max_fee_gwei", "confirmations"})
        for chain in content["chains"]:
            for name in [name for name in chain if "url" in name]:
                del chain[name]
        text = json.dumps(content, sort_keys=True).encode()
        return hashlib.sha256(len(text).to_bytes(8, "big") + text + code).hexdigest()


PLAN_TEMPLATE: Final = """\
# The plan of a deployment, for `fedtrade-coordinator deploy`. An unknown field is an error.
# Amounts of time are seconds. Nothing in here is secret.

home = "ethereum"               # the chain on which the consortium decides
confirmations = 12              # blocks on top of the last transaction before it counts as done
max_fee_gwei = 100.0            # the most that is paid for a unit of gas; above it, deploy stops
# mirror_signatures = 3         # of members, for what crosses chains; left out: two thirds of them

[governance]
voting_delay_s = 86400          # from a proposal to the beginning of its vote: time to read it
voting_period_s = 432000        # how long votes are taken, 60 s to 30 days
late_quorum_s = 86400           # how long a vote goes on, at least, once its quorum is reached
quorum_bps = 5000               # share of all members that a proposal needs, above a third
timelock_delay_s = 172800       # from a passed proposal to its execution, 60 s to 30 days
guardian = "0x0000000000000000000000000000000000000000"  # cancels, revokes, tightens, pauses
# steward = "0x..."             # moves parameters within their steps, for 7 days at most

[parameters]                    # initial values; units: `gov parameters`
# epsilonReleaseMicro = 8000000 # left out: the default
# quorumBps = 6667

[[seats]]                       # at least three members; one section for each party
account = "0x0000000000000000000000000000000000000000"   # holds the vote
signer = "0x0000000000000000000000000000000000000000"    # `fedtrade-member init` prints it
x25519 = "0x0000000000000000000000000000000000000000000000000000000000000000"  # so it does this
roles = ["member", "helper"]    # member, helper, coordinator

[[chains]]                      # the home chain, and each other chain with agents
name = "ethereum"
chain_id = 1
rpc_url = "http://127.0.0.1:8545"
# more_rpc_urls = ["https://<another operator's node>", "https://<a third one>"]  # most must agree
ws_url = "ws://127.0.0.1:8546"
price_feed = "0x0000000000000000000000000000000000000000"  # Chainlink's interface, base in quote
feed_decimals = 8
pool = "0x0000000000000000000000000000000000000000"        # Uniswap v3, and where it belongs to:
fee_pips = 500
tick_spacing = 10
factory = "0x0000000000000000000000000000000000000000"
position_manager = "0x0000000000000000000000000000000000000000"
swap_router = "0x0000000000000000000000000000000000000000"
quoter = "0x0000000000000000000000000000000000000000"      # QuoterV2

[chains.base]                   # the volatile asset
address = "0x0000000000000000000000000000000000000001"
symbol = "WETH"
decimals = 18

[chains.quote]                  # the unit of account
address = "0x0000000000000000000000000000000000000002"
symbol = "USDC"
decimals = 6

# [chains.messages]             # Hyperlane; needed on every chain as soon as there are two
# domain = 1
# mailbox = "0x0000000000000000000000000000000000000000"
# merkle_tree_hook = "0x0000000000000000000000000000000000000000"
# validator_announce = "0x0000000000000000000000000000000000000000"
# multisig_factory = "0x0000000000000000000000000000000000000000"  # StaticMessageIdMultisigIsmFactory
"""
