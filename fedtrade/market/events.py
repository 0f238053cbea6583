"""What happens in the world of one chain, as frozen values: the only input of an agent.

Amounts and prices on a chain are integers as the chain has them; addresses are checksummed hex;
hashes are 0x-prefixed lower-case hex. `block` is the number of the block in which it happened.
An agent sees the events of a block in log order, and the block's `Head` after them, so that a head
means "everything up to here is known".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Head:
    """A new block is complete: all its events have been delivered."""

    number: int
    hash: str
    parent_hash: str
    timestamp_s: int
    base_fee_wei: int


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """The whole state of a Uniswap v3 pool, read at one block (start, or after a gap)."""

    block: int
    pool: str
    sqrt_price_x96: int
    tick: int
    liquidity: int
    fee_growth_global0_x128: int
    fee_growth_global1_x128: int
    ticks: tuple[tuple[int, int, int, int, int], ...]
    """(tick, liquidity gross, liquidity net, fee growth outside 0, fee growth outside 1), ascending."""


@dataclass(frozen=True, slots=True)
class Swapped:
    """Uniswap v3 `Swap`: amounts are signed from the pool's side (positive: paid in)."""

    block: int
    log_index: int
    pool: str
    amount0: int
    amount1: int
    sqrt_price_x96: int
    liquidity: int
    tick: int


@dataclass(frozen=True, slots=True)
class LiquidityChanged:
    """Uniswap v3 `Mint` (delta > 0) or `Burn` (delta < 0) of [tick_lower, tick_upper)."""

    block: int
    log_index: int
    pool: str
    owner: str
    tick_lower: int
    tick_upper: int
    liquidity_delta: int
    amount0: int
    amount1: int


@dataclass(frozen=True, slots=True)
class OracleUpdated:
    """A price feed's new answer: quote per base times 10**decimals."""

    block: int
    log_index: int
    feed: str
    answer: int
    decimals: int
    updated_at_s: int


@dataclass(frozen=True, slots=True)
class ModelPublished:
    """The registry accepted a model; it is live from `live_from_s` unless revoked before."""

    block: int
    version: int
    sha256: str
    live_from_s: int
    epsilon_micro: int


@dataclass(frozen=True, slots=True)
class ModelRevoked:
    block: int
    version: int


@dataclass(frozen=True, slots=True)
class ParametersSeen:
    """What governs on this chain, as its parameter store or mirror says at a block."""

    block: int
    values: tuple[int, ...]
    """Those in force, in the order of the contracts (`fedtrade.governed`)."""
    paused: bool
    as_of_s: int
    """Up to when the home chain's state is known here."""
    mirrored: bool
    """Whether this grows old: on the home chain it holds until it is told anew."""


@dataclass(frozen=True, slots=True)
class BarClosed:
    """An aggregate of trading over [start_s, start_s + width_s): history given at the start."""

    start_s: int
    width_s: int
    open: float
    high: float
    low: float
    close: float
    notional_usd: float


@dataclass(frozen=True, slots=True)
class PositionHeld:
    """A liquidity position of ours as the position manager has it; `owed` are uncollected units."""

    token_id: int
    tick_lower: int
    tick_upper: int
    liquidity: int
    owed0: int
    owed1: int


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the agent's account holds at a block, read from the chain (never inferred)."""

    block: int
    amount0: int
    amount1: int
    native_wei: int
    positions: tuple[PositionHeld, ...]


@dataclass(frozen=True, slots=True)
class ActionSettled:
    """The end of an action: mined and confirmed, reverted on-chain, or never to be mined."""

    block: int
    action_id: str
    outcome: Literal["confirmed", "reverted", "dropped", "refused"]
    gas_wei: int
    """Gas paid, in wei of the native token."""


@dataclass(frozen=True, slots=True)
class Reorganised:
    """Blocks above `block` are no longer part of the chain; a snapshot and holdings follow."""

    block: int


Event = (
    Head
    | PoolSnapshot
    | Swapped
    | LiquidityChanged
    | OracleUpdated
    | ModelPublished
    | ModelRevoked
    | ParametersSeen
    | BarClosed
    | Holdings
    | ActionSettled
    | Reorganised
)
