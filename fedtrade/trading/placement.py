"""From a range to amounts: what to hold for it, what to swap for that, and what to accept at worst.

A range decision says where to provide; this module makes the integers that an action carries. All
of it is exact simulation on the replica, in smallest units, rounded as the pool rounds:

* `needed`: the amounts behind a position of given value, from L = value / V(1 unit of liquidity);
* `balancing_swap`: the one swap after which the account holds these amounts; `bounded_swap`: as much
  of a swap as moves the price no further than we accept;
* least amounts: the amounts at both ends of a price band p·(1 ± tolerance), the smaller of each. A
  position manager that finds the price outside of the band reverts, and nothing is lost but gas.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Final

from fedtrade.market.pool import Pool, amounts_for_liquidity, liquidity_for_amounts
from fedtrade.market.tick_math import MAX_SQRT_RATIO, MIN_SQRT_RATIO

BPS: Final = 10_000
HALVINGS_MAX: Final = 8
ROOM_BPS: Final = 5
"""What the price may move against a swap between decision and block before it reverts."""
_PROBE: Final = 1 << 80
"""A liquidity large enough that its amounts have many digits, for the ratio of amounts to value."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """What to offer for a mint and the least of each that may be taken."""

    amount0: int
    amount1: int
    amount0_min: int
    amount1_min: int


def quote_value(pool: Pool, amount0: int, amount1: int, price: float | None = None) -> float:
    """Value of two amounts at a price (default: the pool's), in whole units of the quote."""
    key = pool.key
    price = key.price(pool.sqrt_price_x96) if price is None else price
    base, quote = (amount0, amount1) if key.base_is_token0 else (amount1, amount0)
    return base / float(10**key.base.decimals) * price + quote / float(10**key.quote.decimals)


def needed(pool: Pool, lower: int, upper: int, value_quote: float) -> tuple[int, int]:
    """Amounts behind a position of this value in [lower, upper) at the pool's price."""
    price = pool.sqrt_price_x96
    probe = amounts_for_liquidity(price, lower, upper, _PROBE, True)
    liquidity = int(_PROBE * (value_quote / quote_value(pool, *probe)))
    return amounts_for_liquidity(price, lower, upper, liquidity, True)


def balancing_swap(
    pool: Pool, want: tuple[int, int], have: tuple[int, int], tolerance_bps: int
) -> tuple[bool, int] | None:
    """(sell token0?, exact input) that brings `have` to `want`; None where it is near enough.

    One side is short by less than `tolerance_bps` of the whole: near enough. Both short, or not
    enough of the other side to pay for it: nothing to be done by a swap.
    """
    short = (want[0] - have[0], want[1] - have[1])
    whole = quote_value(pool, *want)
    for side in (0, 1):
        missing = [0, 0]
        missing[side] = max(0, short[side])
        if quote_value(pool, *missing) * BPS <= whole * tolerance_bps:
            continue
        sell_token0 = side == 1
        quoted = pool.quote_exact_output(sell_token0, short[side])
        pays = quoted.amount0 if sell_token0 else quoted.amount1
        spare = have[1 - side] - want[1 - side]
        amount_in = min(pays, spare)
        if amount_in <= 0:
            return None
        return sell_token0, amount_in
    return None


def least_out(pool: Pool, sell_token0: bool, amount_in: int, slippage_bps: int) -> int:
    """What the swap gives now by exact simulation, less the slippage that we accept; 0 if none."""
    quoted = pool.quote_exact_input(sell_token0, amount_in)
    taken, given = (
        (quoted.amount0, -quoted.amount1) if sell_token0 else (quoted.amount1, -quoted.amount0)
    )
    if taken < amount_in:
        return 0  # the pool's liquidity ends before the input does
    return given * (BPS - slippage_bps) // BPS


def bounded_swap(
    pool: Pool,
    sell_token0: bool,
    amount_in: int,
    slippage_bps: int,
    fair_price: float,
    discount_bps: int,
) -> tuple[int, int]:
    """(input, least output): bounded by the slippage and by a discount to a fair price at once.

    The input is halved until the pool gives `ROOM_BPS` more than the tighter of the two bounds.
    After `HALVINGS_MAX` halvings it is given back whole: size is then not what is wrong.
    """
    for halvings in range(HALVINGS_MAX + 1):
        size = amount_in >> halvings
        if size == 0:
            break
        gives = least_out(pool, sell_token0, size, 0)
        sold = quote_value(pool, *_sided(sell_token0, size), fair_price)
        one = quote_value(pool, *_sided(not sell_token0, 1), fair_price)
        floor = int(sold * (1 - discount_bps / BPS) / one * (1 + 1e-9)) + 1
        if gives * (BPS - ROOM_BPS) >= floor * BPS:
            return size, max(floor, gives * (BPS - slippage_bps) // BPS)
    return amount_in, least_out(pool, sell_token0, amount_in, slippage_bps)


def _sided(of_token0: bool, amount: int) -> tuple[int, int]:
    return (amount, 0) if of_token0 else (0, amount)


def mint_amounts(
    pool: Pool, lower: int, upper: int, offer: tuple[int, int], slippage_bps: int
) -> Amounts:
    """What a mint takes of `offer` now, and the least it may take within the price band."""
    takes = _taken(pool.sqrt_price_x96, lower, upper, offer)
    ends = [_taken(p, lower, upper, offer) for p in _band(pool, slippage_bps)]
    least = (min(takes[i], *(end[i] for end in ends)) for i in (0, 1))
    # Between the ends the liquidity is rounded anew: leave a millionth and a unit for that.
    return Amounts(*offer, *(max(0, amount - amount // 10**6 - 1) for amount in least))


def withdraw_least(
    pool: Pool, lower: int, upper: int, liquidity: int, slippage_bps: int
) -> tuple[int, int]:
    """The least of each token that a burn gives within the price band."""
    prices = (pool.sqrt_price_x96, *_band(pool, slippage_bps))
    ends = [amounts_for_liquidity(p, lower, upper, liquidity, False) for p in prices]
    return min(end[0] for end in ends), min(end[1] for end in ends)


def _taken(price: int, lower: int, upper: int, offer: tuple[int, int]) -> tuple[int, int]:
    liquidity = liquidity_for_amounts(price, lower, upper, *offer)
    return amounts_for_liquidity(price, lower, upper, liquidity, True)


def _band(pool: Pool, slippage_bps: int) -> tuple[int, int]:
    """Square-root prices at p·(1 − s) and p·(1 + s), within the domain."""
    square = pool.sqrt_price_x96**2
    low, high = (isqrt(square * (BPS + s) // BPS) for s in (-slippage_bps, slippage_bps))
    return max(low, MIN_SQRT_RATIO), min(high, MAX_SQRT_RATIO - 1)
