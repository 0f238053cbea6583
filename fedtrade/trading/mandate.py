"""What an agent is told, what it takes over from the one before it, and what it leaves behind.

The mandate bounds an agent from the start and is part of its journal, so that a replay needs the
journal and the artifact and nothing else. `Carried` is what a restart may not forget: the breaker
level, the high-water mark and the action under way. A `Receipt` says why, at each head. What the
consortium decides later comes as events, and `in_force` says what it makes of the agent's limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fedtrade.errors import BadInput
from fedtrade.governed import Governed
from fedtrade.market.instruments import PoolKey, Token
from fedtrade.risk.breakers import Level
from fedtrade.risk.limits import Limits


def in_force(own: Limits, governed: Governed) -> Limits:
    """Of each limit the tighter: an agent's own or the consortium's. Never looser than its own."""
    return own.tightened(governed.risk_limits())


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What an agent is told once. Nothing in it is secret; it stands in the journal."""

    chain: str
    key: PoolKey
    feed: str
    limits: Limits
    capital_quote: float
    """Most that it may have in the pool, in whole units of the quote."""
    native_price_quote: float
    """Price of the gas token; a stated constant, used for costs and not for decisions of risk."""
    range_gas: int = 900_000
    """Gas of withdrawing, swapping and providing anew."""
    horizon_h: float = 6.0
    """Time over which a change of range must earn back its gas."""
    cooldown_s: int = 900
    """Time after providing or failing before risk is added again, or the range changed."""
    slippage_bps: int = 50
    deadline_s: int = 600

    def __post_init__(self) -> None:
        for name, least, most in (
            ("capital_quote", 1.0, 1e7),
            ("native_price_quote", 0.0, 1e6),
            ("range_gas", 0, 10**7),
            ("horizon_h", 0.1, 168.0),
            ("cooldown_s", 0, 86_400),
            ("slippage_bps", 1, 300),
            ("deadline_s", 1, self.limits.deadline_max_s),
        ):
            if not least <= getattr(self, name) <= most:
                raise BadInput(f"agent.{name}", f"not in {least}..{most}", "Correct the settings.")

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> AgentSettings:
        """The inverse of `asdict`, out of a journal's start record."""
        raw = body["key"]
        key = PoolKey(
            raw["address"],
            Token(**raw["token0"]),
            Token(**raw["token1"]),
            raw["fee_pips"],
            raw["tick_spacing"],
            raw["base_is_token0"],
        )
        return cls(**{**body, "key": key, "limits": Limits(**body["limits"])})


@dataclass(frozen=True, slots=True)
class Carried:
    """What an agent takes over from the one before it on this journal: no restart forgives."""

    run: str = "run"
    """Names the journal; part of every action id."""
    next_action: int = 0
    level: Level = Level.NORMAL
    high_water_quote: float = 0.0
    in_flight: str = ""
    """Action that had not been settled."""
    was_live: bool = False
    """Whether this artifact was live under the agent before."""

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Carried:
        return cls(**{**body, "level": Level(body["level"])})


@dataclass(frozen=True, slots=True)
class Receipt:
    """Why the agent did what it did at one head."""

    block: int
    block_hash: str
    timestamp_s: int
    price: float
    oracle_price: float
    base_fee_wei: int
    equity_quote: float
    high_water_quote: float
    drawdown_bps: float
    profit_quote: float
    hold_quote: float
    fees_quote: float
    lvr_quote: float
    gas_wei: int
    model_sha256: str
    model: str
    model_version: int
    was_live: bool
    features_sha256: str
    variance_per_hour: float | None
    variance_interval: tuple[float, float] | None
    """90 % interval of the next hour's variance; None until enough forecasts have met their hours.

    It is on record and decides nothing: what it should decide is a policy that nobody has tested.
    """
    demand_quote_per_hour: float | None
    demand_interval_quote: tuple[float, float] | None
    level: int
    trips: tuple[str, ...]
    range: tuple[int, int] | None
    """Where liquidity is to be, or None: nowhere."""
    reason: str
    refused: str
    """What the breakers said of the action, or nothing."""

    def body(self) -> Mapping[str, Any]:
        return asdict(self)
