"""Ticks, prices and amounts of Uniswap v3 in integers, rounded as the pool rounds them.

A pool quotes sqrt(P) = sqrt(token1 per token0) as an integer in Q64.96. Tick t stands for the price
1.0001**t, so its square root ratio is 1.0001**(t/2). Between two neighbouring ticks the pool is a
constant-product curve of liquidity L, hence (whitepaper sections 6.2 and 6.3)

    amount0 = L * (1/sqrt(Pa) - 1/sqrt(Pb))        amount1 = L * (sqrt(Pb) - sqrt(Pa))

What a pool is owed rounds up, what it owes rounds down, and a price moved by an amount rounds
towards the side that favours the pool. Adams, Zinsmeister, Salem, Keefer, Robinson (2021), "Uniswap
v3 Core". Ratios follow the deployed TickMath to the last unit: its twenty factors are
2**128 / 1.0001**(2**i / 2), and the products truncate in its order.

Invariants: tick_at_sqrt_ratio(sqrt_ratio_at_tick(t)) == t, and it is the greatest tick whose ratio
does not exceed the price. Floats appear once, as a guess that integers settle where it is close.
"""

from __future__ import annotations

from functools import lru_cache
from math import floor, log

from fedtrade.errors import Refusal

MIN_TICK = -887272
MAX_TICK = 887272
MIN_SQRT_RATIO = 4295128739
MAX_SQRT_RATIO = 1461446703485210103287273052203988822378723970342
Q96 = 1 << 96
Q128 = 1 << 128
PIPS = 1_000_000
UINT128_MAX = (1 << 128) - 1
UINT256_MAX = (1 << 256) - 1

_FACTORS = (
    0xFFFCB933BD6FAD37AA2D162D1A594001,
    0xFFF97272373D413259A46990580E213A,
    0xFFF2E50F5F656932EF12357CF3C7FDCC,
    0xFFE5CACA7E10E4E61C3624EAA0941CD0,
    0xFFCB9843D60F6159C9DB58835C926644,
    0xFF973B41FA98C081472E6896DFB254C0,
    0xFF2EA16466C96A3843EC78B326B52861,
    0xFE5DEE046A99A2A811C461F1969C3053,
    0xFCBE86C7900A88AEDCFFC83B479AA3A4,
    0xF987A7253AC413176F2B074CF7815E54,
    0xF3392B0822B70005940C7A398E4B70F3,
    0xE7159475A2C29B7443B29C7FA6E889D9,
    0xD097F3BDFD2022B8845AD8F792AA5825,
    0xA9F746462D870FDF8A65DC1F90E061E5,
    0x70D869A156D2A1B890BB3DF62BAF32F7,
    0x31BE135F97D08FD981231505542FCFA6,
    0x9AA508B5B7A84E1C677DE54F3E99BC9,
    0x5D6AF8DEDB81196699C329225EE604,
    0x2216E584F5FA1EA926041BEDFE98,
    0x48A170391F7DC42444E8FA2,
)
_LOG_Q96 = 96 * log(2)
_TICKS_PER_NAT = 2 / log(1.0001)
_DOUBT_TICKS = 1e-3
"""The guess errs by under 1e-5 ticks: 1e-9 of log, 5e-6 of the integer grid at MIN_TICK."""


class OutOfDomain(Refusal):
    """A tick, price or liquidity that no Uniswap v3 pool can have."""

    def __init__(self, quantity: str, value: int, lowest: int, highest: int) -> None:
        super().__init__(
            f"{quantity} {value} is outside [{lowest}, {highest}]: no Uniswap v3 pool can hold it. "
            "Give a value inside."
        )
        self.quantity = quantity
        self.value = value
        self.lowest = lowest
        self.highest = highest


@lru_cache(maxsize=1 << 15)
def sqrt_ratio_at_tick(tick: int) -> int:
    """Return sqrt(1.0001**tick) in Q64.96, rounded up as the pool has it."""
    if not MIN_TICK <= tick <= MAX_TICK:
        raise OutOfDomain("tick", tick, MIN_TICK, MAX_TICK)
    distance = abs(tick)
    ratio = Q128
    for bit, factor in enumerate(_FACTORS):
        if distance >> bit & 1:
            ratio = ratio * factor >> 128
    if tick > 0:
        ratio = UINT256_MAX // ratio
    return -(-ratio >> 32)


def tick_at_sqrt_ratio(sqrt_price_x96: int) -> int:
    """Return the greatest tick whose ratio is at or below the price."""
    if not MIN_SQRT_RATIO <= sqrt_price_x96 < MAX_SQRT_RATIO:
        raise OutOfDomain("sqrt price", sqrt_price_x96, MIN_SQRT_RATIO, MAX_SQRT_RATIO - 1)
    position = (log(sqrt_price_x96) - _LOG_Q96) * _TICKS_PER_NAT
    tick = floor(position)
    if position - tick > 1 - _DOUBT_TICKS:
        tick += 1
    elif position - tick >= _DOUBT_TICKS:
        return tick
    return tick if sqrt_ratio_at_tick(tick) <= sqrt_price_x96 else tick - 1


def amount0_between(sqrt_a: int, sqrt_b: int, liquidity: int, round_up: bool) -> int:
    """Return the token0 between two prices (any order, both > 0); nested floors are one floor."""
    numerator = (liquidity << 96) * abs(sqrt_b - sqrt_a)
    product = sqrt_a * sqrt_b
    return -(-numerator // product) if round_up else numerator // product


def amount1_between(sqrt_a: int, sqrt_b: int, liquidity: int, round_up: bool) -> int:
    """Return the token1 between two prices (any order)."""
    numerator = liquidity * abs(sqrt_b - sqrt_a)
    return -(-numerator >> 96) if round_up else numerator >> 96


def price_after_input(sqrt_price: int, liquidity: int, amount: int, zero_for_one: bool) -> int:
    """Return the price once `amount` (after fees) of the sold token has been added."""
    if not zero_for_one:
        return sqrt_price + (amount << 96) // liquidity
    numerator = liquidity << 96
    denominator = numerator + amount * sqrt_price
    if denominator <= UINT256_MAX:
        return -(-numerator * sqrt_price // denominator)
    # Where 256 bits overflow the contract divides first, which rounds differently.
    return -(-numerator // (numerator // sqrt_price + amount))


def price_after_output(sqrt_price: int, liquidity: int, amount: int, zero_for_one: bool) -> int:
    """Return the price once `amount` of the bought token has left; the range must hold as much."""
    if zero_for_one:
        return sqrt_price - -(-(amount << 96) // liquidity)
    numerator = liquidity << 96
    return -(-numerator * sqrt_price // (numerator - amount * sqrt_price))


def swap_step(
    sqrt_price: int,
    target: int,
    liquidity: int,
    remaining: int,
    fee_pips: int,
    zero_for_one: bool,
) -> tuple[int, int, int, int]:
    """Move the price towards `target` by at most `remaining`, under constant liquidity.

    `remaining` > 0 is input still to be sold (fee included), < 0 output still to be bought. Returns
    the next price, the input without fee, the output, and the fee.
    """
    into, out_of = (
        (amount0_between, amount1_between) if zero_for_one else (amount1_between, amount0_between)
    )
    if remaining >= 0:
        usable = remaining * (PIPS - fee_pips) // PIPS
        amount_in = into(sqrt_price, target, liquidity, True)
        if usable >= amount_in:
            next_price = target
        else:
            next_price = price_after_input(sqrt_price, liquidity, usable, zero_for_one)
            amount_in = into(sqrt_price, next_price, liquidity, True)
        amount_out = out_of(sqrt_price, next_price, liquidity, False)
        if next_price != target:
            return next_price, amount_in, amount_out, remaining - amount_in
    else:
        amount_out = out_of(sqrt_price, target, liquidity, False)
        if -remaining >= amount_out:
            next_price = target
        else:
            next_price = price_after_output(sqrt_price, liquidity, -remaining, zero_for_one)
            amount_out = -remaining  # never less: the rounded price yields at least this much
        amount_in = into(sqrt_price, next_price, liquidity, True)
    return next_price, amount_in, amount_out, -(-amount_in * fee_pips // (PIPS - fee_pips))


def amounts_for_liquidity(
    sqrt_price_x96: int, tick_lower: int, tick_upper: int, liquidity: int, round_up: bool
) -> tuple[int, int]:
    """Return (amount0, amount1) behind `liquidity` in [tick_lower, tick_upper) at a price.

    Rounded up it is what a mint takes, rounded down what a burn gives.
    """
    lower, upper = _range_ratios(tick_lower, tick_upper)
    price = min(max(sqrt_price_x96, lower), upper)
    return (
        amount0_between(price, upper, liquidity, round_up),
        amount1_between(lower, price, liquidity, round_up),
    )


def liquidity_for_amounts(
    sqrt_price_x96: int, tick_lower: int, tick_upper: int, amount0: int, amount1: int
) -> int:
    """Return the liquidity that the position manager mints for at most these amounts."""
    lower, upper = _range_ratios(tick_lower, tick_upper)
    price = min(max(sqrt_price_x96, lower), upper)
    from0 = amount0 * (price * upper >> 96) // (upper - price) if price < upper else None
    from1 = (amount1 << 96) // (price - lower) if price > lower else None
    liquidity = min(part for part in (from0, from1) if part is not None)
    if liquidity > UINT128_MAX:
        raise OutOfDomain("liquidity", liquidity, 0, UINT128_MAX)
    return liquidity


def _range_ratios(tick_lower: int, tick_upper: int) -> tuple[int, int]:
    if tick_lower >= tick_upper:
        raise OutOfDomain("lower tick", tick_lower, MIN_TICK, tick_upper - 1)
    return sqrt_ratio_at_tick(tick_lower), sqrt_ratio_at_tick(tick_upper)
