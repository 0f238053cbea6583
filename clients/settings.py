"""A member's settings files: TOML, read strictly (`fedtrade.settings`).

There are two. `member.toml` is the member's or helper's own (`MemberSettings`); `fedtrade-member
init` writes it with a comment on every field. The other is of one execution agent on one chain
(`ExecutionSettings`):

    deployment = "deployment.json"       where everything stands (`fedtrade devnet up` writes one)
    chain = "aster"
    keys = "keys"                        folder of the member's keys
    artifact = "model.safetensors"
    folder = "aster"                     journal, transactions, status; one agent, one folder

    [agent]
    capital_quote = 100000.0             most that may stand in the pool
    native_price_quote = 2700.0          a stated price of the gas token, for costs
                                         optional: range_gas, horizon_h, cooldown_s,
                                         slippage_bps, deadline_s
    [history]                            optional: candles up to the start, so that it need not wait
    candles = "history.parquet"          start_s, width_s, open, high, low, close, notional_usd
    notional_scale = 0.001               share of that volume which this pool can expect

    [limits]                             optional: may only lie within the hard bounds
    drawdown_halt_bps = 300
    [fees]                               optional: tip_wei, confirmations, bump_after_blocks,
    confirmations = 1                    attempts_max; the cap is limits.gas_price_max_wei

Paths are relative to the file. An unknown field is an error, never ignored.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from clients.floor import Floor
from clients.submit import Fees
from fedtrade.chain.deployment import ChainDeployment, Deployment
from fedtrade.errors import BadInput
from fedtrade.protocol import Address, Count, Hex32
from fedtrade.risk.limits import Limits
from fedtrade.settings import Beside, Strict, read_settings
from fedtrade.trading.mandate import AgentSettings

MEMBER_FILE: Final = "member.toml"

Role = Literal["member", "helper"]


class Seats(Strict):
    """Ids of this party's seats in Membership: a member's, a helper's, or both."""

    member: Count | None = None
    helper: Count | None = None

    @model_validator(mode="after")
    def _seated(self) -> Self:
        if self.member is None and self.helper is None:
            raise ValueError("give the id of your member seat, of your helper seat, or of both")
        return self

    @property
    def roles(self) -> dict[Role, int]:
        """Role -> seat id, of the roles that this party has."""
        held: tuple[tuple[Role, int | None], ...] = (
            ("member", self.member),
            ("helper", self.helper),
        )
        return {role: seat for role, seat in held if seat is not None}


class CoordinatorAt(Strict):
    """Where the coordinator is reached, and whom to take for it."""

    address: Address
    """The coordinator's signing address, lower case, as the consortium agreed on it."""
    url: Annotated[str, Field(pattern=r"^https://[A-Za-z0-9.\-\[\]:]+$")]
    """The round channel: https, host and port, no path."""
    ca_file: Beside
    """The only authority whose certificates are accepted (PEM); the system's are not."""


NodeUrl = Annotated[str, Field(pattern=r"^https?://\S+$")]


class HomeChainAt(Strict):
    """This party's own node of the home chain, and the contracts that it believes."""

    rpc_url: NodeUrl
    more_rpc_urls: Annotated[tuple[NodeUrl, ...], Field(max_length=8)] = ()
    """Further nodes, of other operators: a majority of all must agree. Without them the one is
    trusted alone."""
    chain_id: Annotated[int, Field(gt=0)]
    final_block: Literal["finalized", "safe", "latest"] = "finalized"
    """The block at which a manifest counts as final. "latest" only for local chains: a block that
    is reorganised away could show two helpers two manifests of a round."""
    membership: Address
    registry: Address

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.rpc_urls)) < len(self.rpc_urls):
            raise ValueError("more_rpc_urls: a node that is named twice would agree with itself")
        return self

    @property
    def rpc_urls(self) -> tuple[str, ...]:
        """Every node."""
        return (self.rpc_url, *self.more_rpc_urls)


class SuperNodeAt(Strict):
    """Only for the transport over Flower messages: the SuperLink and this node's key."""

    address: Annotated[str, Field(pattern=r"^[^/:\s]+:\d{1,5}$")]
    """host:port of the coordinator's gate before its SuperLink."""
    node_key: Beside
    """Private key of this SuperNode (OpenSSH, P-384, mode 0600)."""


class ValidatorAt(Strict):
    """Only for validators, who vouch for the home chain's messages to the mirrors on other chains."""

    merkle_tree_hook: Address
    """Hyperlane's tree on the home chain, lower case, as the consortium agreed on it."""
    from_block: Annotated[int, Field(ge=0)]
    """The block of the tree's deployment: nothing older is read."""
    storage: Beside
    """Folder of the signed checkpoints. It is public: serve it with any web server."""
    location: Annotated[str, Field(pattern=r"^(file://|https?://)\S+$", max_length=512)]
    """Where others read that folder."""
    poll_s: Annotated[float, Field(ge=0.01, le=3_600.0)] = 5.0
    """How often the node is asked for a new final block."""


class HelperPolicy(Strict):
    """What a helper demands of its own accord, whatever the terms say."""

    cohort_min: Annotated[int, Field(ge=3, le=1_000)] = 3
    """Fewest members whose sum this helper unmasks."""


class MemberSettings(Strict):
    """`member.toml`: everything that one member's or helper's machine is told, by its owner alone.

    Nothing that arrives over the network can change a value of it.
    """

    folder: Beside
    """What this party's processes write: ledger, answered manifests. One party, one folder."""
    keys: Beside
    """Folder of `keys.json`."""
    positions: Beside | None = None
    """CSV or Parquet of the private positions; a member needs it, a helper alone does not."""
    until: AwareDatetime | None = None
    """Nothing after this moment is learnt from; the start of the process where it is left out."""
    seats: Seats
    coordinator: CoordinatorAt
    home_chain: HomeChainAt | None = None
    """Where terms and manifests are checked. Left out, only `approved_terms` are joined."""
    approved_terms: Annotated[tuple[Hex32, ...], Field(max_length=64)] = ()
    """Without a home chain: policy hashes of the releases that this party has read and agreed to."""
    floor: Floor = Floor()
    helper: HelperPolicy = HelperPolicy()
    supernode: SuperNodeAt | None = None
    validator: ValidatorAt | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.seats.member is not None and self.positions is None:
            raise ValueError("positions: a member needs a file of positions")
        if self.home_chain is not None and self.approved_terms:
            raise ValueError(
                "approved_terms: with a home chain the terms are checked there; leave one of the two"
            )
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read `member.toml`; every path in it becomes absolute. Raises BadInput."""
        return read_settings(cls, path)

    @property
    def ledger(self) -> Path:
        """The member's ledger of ε."""
        return self.folder / "ledger.jsonl"


MEMBER_TEMPLATE: Final = """\
# The settings of one member or helper. Nothing that arrives over the network changes a value here.
# Paths are relative to this file. An unknown field is an error. `fedtrade-member check` reads it.

folder = "."                    # ledger.jsonl, answered manifests: back them up, one party a folder
keys = "."                      # folder of keys.json
positions = "positions.csv"     # your private positions; leave out if you are a helper alone
# until = 2025-06-12T00:00:00Z  # learn from nothing after this moment; without it: the start
# approved_terms = ["<64 hex digits>"]  # only without [home_chain]: policy hashes that you agreed to

[seats]                         # ids of your seats in Membership; leave out what you are not
member = 1
# helper = 1

[coordinator]
address = "0x<40 hex digits>"   # its signing address, lower case, as the consortium agreed on it
url = "https://<host>:<port>"   # the round channel
ca_file = "ca.crt"              # the only authority whose certificates are accepted

[home_chain]                    # your own node: terms, keys and manifests are checked there
rpc_url = "http://127.0.0.1:8545"
# more_rpc_urls = ["https://<another operator's node>", "https://<a third one>"]  # most must agree
chain_id = 1
# final_block = "finalized"     # where a manifest counts as final; "latest" for local chains alone
membership = "0x<40 hex digits>"
registry = "0x<40 hex digits>"

[floor]                         # the least privacy that you accept: weaker terms are refused
epsilon_limit = 8.0             # the most ε (RDP) that is ever spent on these positions
delta_max = 1e-6
noise_multiplier_min = 0.5
sampling_rate_max = 0.25
cohort_min = 3                  # fewest members in a sum
corrupt_min = 1                 # how many bad helpers the committee must withstand

[helper]                        # what you demand as a helper
cohort_min = 3                  # fewest members whose sum you unmask

# [supernode]                   # only for the transport over Flower messages
# address = "<host>:<port>"     # the coordinator's gate
# node_key = "node.key"         # private key of this SuperNode, mode 0600

# [validator]                   # only if you vouch for messages to other chains: `validate`
# merkle_tree_hook = "0x<40 hex digits>"        # Hyperlane's tree on the home chain, lower case
# from_block = 0                # block of its deployment
# storage = "checkpoints"       # what you signed; public: serve this folder
# location = "https://<host>/checkpoints"       # where others read it
# poll_s = 5.0                  # how often your node is asked for a new final block
"""


class _Agent(Strict):
    capital_quote: float
    native_price_quote: float
    range_gas: int | None = None
    horizon_h: float | None = None
    cooldown_s: int | None = None
    slippage_bps: int | None = None
    deadline_s: int | None = None


class HistorySettings(Strict):
    """Candles of before the start."""

    candles: Beside
    notional_scale: Annotated[float, Field(gt=0.0, le=1e6)] = 1.0


class _Fees(Strict):
    tip_wei: int | None = None
    confirmations: int | None = None
    bump_after_blocks: int | None = None
    attempts_max: int | None = None


class ExecutionSettings(Strict):
    """The file as it stands."""

    deployment: Beside
    chain: str
    keys: Beside
    artifact: Beside
    folder: Beside
    agent: _Agent
    history: HistorySettings | None = None
    limits: dict[str, int] = Field(default_factory=dict)
    fees: _Fees = _Fees()

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a settings file; every path in it becomes absolute. Raises BadInput."""
        return read_settings(cls, path)

    def chain_deployment(self) -> ChainDeployment:
        """This agent's chain out of the deployment file."""
        return Deployment.load(self.deployment).chain(self.chain)

    def agent_settings(self) -> AgentSettings:
        """What the agent is told; limits are checked against their hard bounds here."""
        chain = self.chain_deployment()
        return AgentSettings(
            chain=chain.name,
            key=chain.pool_key(),
            feed=chain.price_feed,
            limits=self._limits(),
            **self.agent.model_dump(exclude_none=True),
        )

    def fee_settings(self, confirmations: int) -> Fees:
        """How transactions pay, with the breakers' gas ceiling as cap, and wait: as deep as the chain
        needs (`confirmations`), if nothing else is said here."""
        return Fees(
            cap_wei=self._limits().gas_price_max_wei,
            **{
                "confirmations": confirmations,
                **self.fees.model_dump(exclude_none=True),
            },
        )

    def _limits(self) -> Limits:
        known = {field.name for field in fields(Limits)}
        if unknown := self.limits.keys() - known:
            raise BadInput(
                f"limits.{min(unknown)}",
                "no such limit",
                f"Use one of: {', '.join(sorted(known))}.",
            )
        return Limits(**self.limits)
