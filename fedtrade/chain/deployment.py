"""Where everything stands: the chains of a consortium and the contracts on each, as one JSON file.

It is written by whoever deploys (for local chains, the devnet) and read by members, coordinator and
agents. It names addresses and nodes only; there is nothing secret in it. It is parsed strictly: an
unknown field is an error, not a guess.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Annotated, Self

from eth_utils.address import to_checksum_address
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from fedtrade.errors import BadInput
from fedtrade.market.instruments import PoolKey, Token


def _checksummed(address: str) -> str:
    if not re.fullmatch(r"0x[0-9a-fA-F]{40}", address):
        raise ValueError("an address has 40 hex digits after 0x")
    return to_checksum_address(address)


Address = Annotated[str, AfterValidator(_checksummed)]
"""A checksummed address."""
HttpUrl = Annotated[str, Field(pattern=r"^https?://")]
WsUrl = Annotated[str, Field(pattern=r"^wss?://")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TokenAt(_Strict):
    """A token on one chain."""

    address: Address
    symbol: str = Field(min_length=1, max_length=16)
    decimals: int = Field(ge=0, le=36)

    def token(self) -> Token:
        return Token(self.address, self.symbol, self.decimals)


class Custody(_Strict):
    """The Safe that an agent acts for, and what stands between its key and the Safe's money."""

    safe: Address
    """Holds tokens and positions."""
    roles: Address
    """Zodiac Roles: what may be called, and for whom."""
    breaker: Address
    """BreakerModifier: takes the agent's orders."""


class MessagesAt(_Strict):
    """Hyperlane on one chain, and what of ours it connects: the beacon at home, else a mirror."""

    domain: int = Field(gt=0, lt=2**32)
    """Hyperlane's number of the chain."""
    mailbox: Address
    merkle_tree_hook: Address
    validator_announce: Address
    beacon: Address | None = None
    mirror: Address | None = None

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if (self.beacon is None) == (self.mirror is None):
            raise ValueError("a chain has a beacon (the home chain) or a mirror (every other)")
        return self


class ConsortiumAt(_Strict):
    """The contracts with which a consortium decides. The home chain has them."""

    membership: Address
    parameter_store: Address
    model_registry: Address
    timelock: Address
    """Owns the others; what the governor has passed is carried out by it."""
    governor: Address


class ChainSite(_Strict):
    """One chain before anything of ours stands on it: its node, a pool and the venue of the pool."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")
    chain_id: int = Field(gt=0)
    rpc_url: HttpUrl
    ws_url: WsUrl
    more_rpc_urls: tuple[HttpUrl, ...] = Field(default=(), max_length=8)
    more_ws_urls: tuple[WsUrl, ...] = Field(default=(), max_length=8)
    """Further nodes of this chain, of other operators: a majority of all must agree on what is read.
    Without them one node is trusted alone. Two are no majority once one is away: name two more."""
    confirmations: int = Field(default=13, ge=1, le=64)
    """Blocks, its own included, after which what we wrote counts as done: no deeper reorganisation
    is expected. 1 only for chains that have none, as local ones."""
    price_feed: Address
    feed_decimals: int = Field(ge=0, le=36)
    base: TokenAt
    """The volatile asset."""
    quote: TokenAt
    """The unit of account."""
    pool: Address
    fee_pips: int = Field(gt=0, lt=1_000_000)
    tick_spacing: int = Field(gt=0, le=16384)
    factory: Address
    position_manager: Address
    swap_router: Address
    quoter: Address
    keeps_time: bool = True
    """Whether the newest block carries the time of day. False for local chains, which play recorded
    days; on all others an agent refuses a node that is behind or ahead of its own clock."""

    @property
    def contracts(self) -> dict[str, str]:
        """Every contract that is there already, by its name here."""
        return {
            "base": self.base.address,
            "quote": self.quote.address,
            "price_feed": self.price_feed,
            "pool": self.pool,
            "factory": self.factory,
            "position_manager": self.position_manager,
            "swap_router": self.swap_router,
            "quoter": self.quoter,
        }

    @model_validator(mode="after")
    def _two_tokens(self) -> Self:
        if self.base.address == self.quote.address:
            raise ValueError("base and quote are the same token")
        for urls in (self.all_rpc_urls, self.all_ws_urls):
            if len(set(urls)) < len(urls):
                raise ValueError("a node that is named twice would agree with itself")
        return self

    @property
    def all_rpc_urls(self) -> tuple[str, ...]:
        """Every node over HTTP."""
        return (self.rpc_url, *self.more_rpc_urls)

    @property
    def all_ws_urls(self) -> tuple[str, ...]:
        """Every node over a websocket."""
        return (self.ws_url, *self.more_ws_urls)

    def pool_key(self) -> PoolKey:
        """The pool as the market knows it; token0 is the one with the smaller address."""
        base_is_token0 = int(self.base.address, 16) < int(self.quote.address, 16)
        base, quote = self.base.token(), self.quote.token()
        token0, token1 = (base, quote) if base_is_token0 else (quote, base)
        return PoolKey(self.pool, token0, token1, self.fee_pips, self.tick_spacing, base_is_token0)


class ChainDeployment(ChainSite):
    """One chain with our contracts: what its agents read, and on the home chain what is decided."""

    registry: Address
    """Says which model is live: the ModelRegistry on the home chain, a RegistryMirror elsewhere."""
    parameters: Address
    """Says what is in force: the ParameterStore on the home chain, a RegistryMirror elsewhere."""
    consortium: ConsortiumAt | None = None
    custody: Custody | None = None
    """Given: the agent acts for this Safe. None: its key holds tokens and positions itself."""
    from_block: int = Field(default=0, ge=0)
    """No log of ours is older: where a reader of registry and governor events begins."""
    messages: MessagesAt | None = None
    """None where the chain is not connected to others."""

    @property
    def follows(self) -> bool:
        """Whether `parameters` is a mirror, whose news grow old, and not the store itself."""
        return self.consortium is None or self.parameters != self.consortium.parameter_store

    @property
    def decided_here(self) -> ConsortiumAt:
        """The consortium's contracts. Raises BadInput on a chain that only follows."""
        if self.consortium is None:
            raise BadInput(
                f"chain {self.name}",
                "the consortium does not decide on this chain",
                "Use the home chain of the deployment.",
            )
        return self.consortium

    @property
    def membership(self) -> str:
        return self.decided_here.membership

    @property
    def model_registry(self) -> str:
        return self.decided_here.model_registry


class Deployment(_Strict):
    """All chains. The home chain has the manifests and is where releases are opened."""

    chains: tuple[ChainDeployment, ...] = Field(min_length=1, max_length=32)
    home: str

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [chain.name for chain in self.chains]
        ids = [chain.chain_id for chain in self.chains]
        if len(set(names)) < len(names) or len(set(ids)) < len(ids):
            raise ValueError("two chains have the same name or chain id")
        if self.home not in names:
            raise ValueError(f"home chain {self.home!r} is not among the chains")
        if self.chain(self.home).consortium is None:
            raise ValueError(f"home chain {self.home!r} has no contracts of the consortium")
        return self

    def chain(self, name: str) -> ChainDeployment:
        """One chain by its name."""
        for chain in self.chains:
            if chain.name == name:
                return chain
        known = ", ".join(chain.name for chain in self.chains)
        raise BadInput("chain", f"{name!r} is not deployed", f"Choose one of: {known}.")

    @classmethod
    def load(cls, path: Path) -> Deployment:
        """Read and check a deployment file."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BadInput(
                str(path),
                f"the deployment file cannot be read ({error.strerror})",
                "`fedtrade devnet up` writes one for local chains.",
            ) from error
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the file"
            raise BadInput(
                str(path),
                f"{place}: {first['msg']}",
                "Correct the deployment file, or write it anew.",
            ) from error

    def save(self, path: Path) -> None:
        """Write the file whole: readers see the old one or the new one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(number, "w") as file:
            file.write(self.model_dump_json(indent=2) + "\n")
        os.chmod(name, 0o644)
        os.replace(name, path)
