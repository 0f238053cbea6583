"""Uniswap v3, sans-I/O: logs of a pool to events, actions of an agent to calls.

Selectors and topics are hand-written from the public interfaces (core 1.0.1, periphery 1.4.4).
Positions are held through the NonfungiblePositionManager and swaps go through the SwapRouter, so
that every call of ours carries a minimum and a deadline that the chain enforces.

Prices are sqrt(token1/token0) in Q64.96 as in the white paper (Adams et al. 2021, section 6.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import isqrt
from typing import Any, Final, Protocol

from eth_utils.address import to_checksum_address

from fedtrade.errors import Refusal
from fedtrade.market.actions import Action, ProvideLiquidity, SwapExactInput, WithdrawLiquidity
from fedtrade.market.events import LiquidityChanged, Swapped
from fedtrade.market.instruments import PoolKey
from fedtrade.venues.codec import Call as Call  # the adapters' callers need it beside encode_call
from fedtrade.venues.codec import Function, LogShape, place_of

UINT128_MAX: Final = 2**128 - 1
UINT256_MAX: Final = 2**256 - 1
MAX_TICK: Final = 887272

SWAP: Final = LogShape(
    "Swap(address,address,int256,int256,uint160,uint128,int24)",
    "(address,address)",
    "(int256,int256,uint160,uint128,int24)",
)
MINT: Final = LogShape(
    "Mint(address,address,int24,int24,uint128,uint256,uint256)",
    "(address,int24,int24)",
    "(address,uint128,uint256,uint256)",
)
BURN: Final = LogShape(
    "Burn(address,int24,int24,uint128,uint256,uint256)",
    "(address,int24,int24)",
    "(uint128,uint256,uint256)",
)
TOPICS: Final = (SWAP.topic, MINT.topic, BURN.topic)
"""The logs of a pool that `decode` understands: all that changes its price or liquidity."""

SLOT0: Final = Function("slot0()", "(uint160,int24,uint16,uint16,uint16,uint8,bool)")
LIQUIDITY: Final = Function("liquidity()", "(uint128)")
FEE_GROWTH0: Final = Function("feeGrowthGlobal0X128()", "(uint256)")
FEE_GROWTH1: Final = Function("feeGrowthGlobal1X128()", "(uint256)")
TICK_BITMAP: Final = Function("tickBitmap(int16)", "(uint256)")
TICKS: Final = Function(
    "ticks(int24)", "(uint128,int128,uint256,uint256,int56,uint160,uint32,bool)"
)

APPROVE: Final = Function("approve(address,uint256)", "(bool)")
ALLOWANCE: Final = Function("allowance(address,address)", "(uint256)")
BALANCE_OF: Final = Function("balanceOf(address)", "(uint256)")

CREATE_POOL: Final = Function(
    "createAndInitializePoolIfNecessary(address,address,uint24,uint160)", "(address)"
)
PROVIDE: Final = Function(
    "mint((address,address,uint24,int24,int24,uint256,uint256,uint256,uint256,address,uint256))",
    "(uint256,uint128,uint256,uint256)",
)
DECREASE: Final = Function(
    "decreaseLiquidity((uint256,uint128,uint256,uint256,uint256))", "(uint256,uint256)"
)
COLLECT: Final = Function("collect((uint256,address,uint128,uint128))", "(uint256,uint256)")
BURN_TOKEN: Final = Function("burn(uint256)")
MULTICALL: Final = Function("multicall(bytes[])", "(bytes[])")
POSITIONS: Final = Function(
    "positions(uint256)",
    "(uint96,address,address,address,uint24,int24,int24,uint128,uint256,uint256,uint128,uint128)",
)
TOKEN_OF_OWNER: Final = Function("tokenOfOwnerByIndex(address,uint256)", "(uint256)")
SWAP_EXACT_INPUT: Final = Function(
    "exactInputSingle((address,address,uint24,address,uint256,uint256,uint256,uint160))",
    "(uint256)",
)
QUOTE_EXACT_INPUT: Final = Function(
    "quoteExactInputSingle((address,address,uint256,uint24,uint160))",
    "(uint256,uint160,uint32,uint256)",
)


class Venue(Protocol):
    """The contracts through which we trade on a chain."""

    @property
    def position_manager(self) -> str: ...
    @property
    def swap_router(self) -> str: ...


class WrongPool(Refusal):
    """An action names another pool than the one it is to be encoded for."""

    def __init__(self, action_id: str, pool: str, expected: str) -> None:
        super().__init__(
            f"Action {action_id} is for pool {pool}, not {expected}. Give it to that chain's agent."
        )
        self.action_id = action_id
        self.pool = pool
        self.expected = expected


def decode(log: Mapping[str, Any]) -> Swapped | LiquidityChanged | None:
    """The event of a pool's log; None for logs that change neither price nor liquidity.

    A burn of nothing (how an owner has its fees counted) changes neither and gives None.
    """
    if SWAP.matches(log):
        _, (amount0, amount1, sqrt_price, liquidity, tick) = SWAP.decode(log)
        return Swapped(*place_of(log), amount0, amount1, sqrt_price, liquidity, tick)
    if MINT.matches(log):
        (owner, lower, upper), (_, liquidity, amount0, amount1) = MINT.decode(log)
        delta = liquidity
    elif BURN.matches(log):
        (owner, lower, upper), (liquidity, amount0, amount1) = BURN.decode(log)
        delta = -liquidity
    else:
        return None
    if delta == 0:
        return None
    return LiquidityChanged(
        *place_of(log), to_checksum_address(owner), lower, upper, delta, amount0, amount1
    )


def encode_call(action: Action, key: PoolKey, venue: Venue, account: str) -> Call:
    """The one call that carries an action out for `account`, which holds tokens and positions."""
    calls = encode_calls(action, key, venue, account)
    if len(calls) == 1:
        return calls[0]
    return Call(calls[0].to, MULTICALL.encode([call.data for call in calls]))


def encode_calls(action: Action, key: PoolKey, venue: Venue, account: str) -> tuple[Call, ...]:
    """The same, part by part, for an account whose calls are judged one by one (`venues.safe`)."""
    if action.pool != key.address:
        raise WrongPool(action.action_id, action.pool, key.address)
    match action:
        case ProvideLiquidity():
            return (Call(venue.position_manager, _provide(action, key, account)),)
        case WithdrawLiquidity():
            parts = _withdraw(action, account)
            return tuple(Call(venue.position_manager, part) for part in parts)
        case SwapExactInput():
            return (Call(venue.swap_router, _swap(action, key, account)),)


def encode_approval(token: str, spender: str, amount: int = UINT256_MAX) -> Call:
    """Let `spender` take up to `amount` of our token."""
    return Call(token, APPROVE.encode(spender, amount))


def encode_provide(
    key: PoolKey,
    account: str,
    ticks: tuple[int, int],
    amounts: tuple[int, int],
    minima: tuple[int, int] = (0, 0),
    deadline_s: int = UINT256_MAX,
) -> bytes:
    """Calldata of the position manager's mint."""
    return PROVIDE.encode(
        (
            key.token0.address,
            key.token1.address,
            key.fee_pips,
            *ticks,
            *amounts,
            *minima,
            account,
            deadline_s,
        )
    )


def encode_swap(
    key: PoolKey,
    account: str,
    sell_token0: bool,
    amount_in: int,
    amount_out_min: int = 0,
    sqrt_price_limit_x96: int = 0,
    deadline_s: int = UINT256_MAX,
) -> bytes:
    """Calldata of the router's exactInputSingle; with a price limit it may fill in part."""
    pair = (key.token0.address, key.token1.address)
    sold, bought = pair if sell_token0 else pair[::-1]
    return SWAP_EXACT_INPUT.encode(
        (
            sold,
            bought,
            key.fee_pips,
            account,
            deadline_s,
            amount_in,
            amount_out_min,
            sqrt_price_limit_x96,
        )
    )


def encode_removal(
    token_id: int,
    liquidity: int,
    account: str,
    minima: tuple[int, int] = (0, 0),
    deadline_s: int = UINT256_MAX,
) -> list[bytes]:
    """Take liquidity out and collect everything, fees included, as the parts of a multicall."""
    collect = COLLECT.encode((token_id, account, UINT128_MAX, UINT128_MAX))
    if liquidity == 0:  # the position manager refuses to decrease by nothing
        return [collect]
    return [DECREASE.encode((token_id, liquidity, *minima, deadline_s)), collect]


def full_range(tick_spacing: int) -> tuple[int, int]:
    """The widest range that a pool of this spacing allows."""
    edge = MAX_TICK // tick_spacing * tick_spacing
    return -edge, edge


def sqrt_price_x96(
    price: float, base_decimals: int, quote_decimals: int, base_is_token0: bool
) -> int:
    """A pool's price at `price` quote per base in whole units, rounded down."""
    ratio = Fraction(price) * Fraction(10) ** (quote_decimals - base_decimals)
    if not base_is_token0:
        ratio = 1 / ratio
    return isqrt((ratio.numerator << 192) // ratio.denominator)


def _provide(action: ProvideLiquidity, key: PoolKey, account: str) -> bytes:
    return encode_provide(
        key,
        account,
        (action.tick_lower, action.tick_upper),
        (action.amount0, action.amount1),
        (action.amount0_min, action.amount1_min),
        action.deadline_s,
    )


def _withdraw(action: WithdrawLiquidity, account: str) -> list[bytes]:
    minima = (action.amount0_min, action.amount1_min)
    parts = encode_removal(action.token_id, action.liquidity, account, minima, action.deadline_s)
    return [*parts, BURN_TOKEN.encode(action.token_id)]


def _swap(action: SwapExactInput, key: PoolKey, account: str) -> bytes:
    return encode_swap(
        key,
        account,
        action.sell_token0,
        action.amount_in,
        action.amount_out_min,
        deadline_s=action.deadline_s,
    )
