"""Ticks, prices and amounts: known vectors, a high-precision reference, rounding laws."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from fedtrade.errors import Refusal
from fedtrade.market.tick_math import (
    MAX_SQRT_RATIO,
    MAX_TICK,
    MIN_SQRT_RATIO,
    MIN_TICK,
    Q96,
    UINT128_MAX,
    OutOfDomain,
    amount0_between,
    amount1_between,
    amounts_for_liquidity,
    liquidity_for_amounts,
    price_after_input,
    price_after_output,
    sqrt_ratio_at_tick,
    swap_step,
    tick_at_sqrt_ratio,
)

ticks = st.integers(MIN_TICK, MAX_TICK)
prices = st.integers(MIN_SQRT_RATIO, MAX_SQRT_RATIO - 1)
near_prices = ticks.flatmap(
    lambda tick: st.integers(-3, 3).map(
        lambda step: min(max(sqrt_ratio_at_tick(tick) + step, MIN_SQRT_RATIO), MAX_SQRT_RATIO - 1)
    )
)
liquidities = st.integers(1, 2**100)
amounts = st.integers(1, 2**120)
directions = st.booleans()


@pytest.mark.parametrize(
    ("tick", "ratio"),
    [
        (MIN_TICK, 4295128739),
        (MIN_TICK + 1, 4295343490),
        (-1, 79224201403219477170569942574),
        (0, 79228162514264337593543950336),
        (1, 79232123823359799118286999568),
        (60, 79466191966197645195421774833),
        (MAX_TICK - 1, 1461373636630004318706518188784493106690254656249),
        (MAX_TICK, 1461446703485210103287273052203988822378723970342),
    ],
)
def test_published_vectors(tick: int, ratio: int) -> None:
    assert sqrt_ratio_at_tick(tick) == ratio


@given(ticks)
@example(0)
def test_ratio_is_the_square_root_of_the_price_to_its_published_precision(tick: int) -> None:
    """The fixed-point products lose under 3e-20 of the ratio, besides rounding up to a unit."""
    with localcontext() as context:
        context.prec = 90
        exact = (Decimal("1.0001") ** tick).sqrt() * Q96
        error = Decimal(sqrt_ratio_at_tick(tick)) - exact
    assert -exact * Decimal("3e-20") <= error <= 1 + exact * Decimal("3e-20")


@given(st.one_of(prices, near_prices))
@example(MIN_SQRT_RATIO)
@example(MAX_SQRT_RATIO - 1)
def test_tick_is_the_greatest_at_or_below_the_price(price: int) -> None:
    tick = tick_at_sqrt_ratio(price)
    assert sqrt_ratio_at_tick(tick) <= price < sqrt_ratio_at_tick(tick + 1)


@pytest.mark.parametrize("tick", [MIN_TICK - 1, MAX_TICK + 1])
def test_ticks_outside_are_refused(tick: int) -> None:
    with pytest.raises(OutOfDomain, match="tick") as caught:
        sqrt_ratio_at_tick(tick)
    assert caught.value.value == tick
    assert isinstance(caught.value, Refusal)


@pytest.mark.parametrize("price", [MIN_SQRT_RATIO - 1, MAX_SQRT_RATIO, 0])
def test_prices_outside_are_refused(price: int) -> None:
    with pytest.raises(OutOfDomain):
        tick_at_sqrt_ratio(price)


@given(prices, prices, liquidities)
def test_amounts_round_a_rational_to_each_side(a: int, b: int, liquidity: int) -> None:
    exact0 = Fraction(liquidity * Q96 * abs(a - b), a * b)
    exact1 = Fraction(liquidity * abs(a - b), Q96)
    for exact, amount in ((exact0, amount0_between), (exact1, amount1_between)):
        down, up = amount(a, b, liquidity, False), amount(a, b, liquidity, True)
        assert down <= exact <= up
        assert up - down == (exact.denominator != 1)


@given(prices, liquidities, amounts, directions)
def test_a_price_moved_by_input_never_overpays(
    price: int, liquidity: int, amount: int, zero_for_one: bool
) -> None:
    after = price_after_input(price, liquidity, amount, zero_for_one)
    into = amount0_between if zero_for_one else amount1_between
    assume(0 < after < MAX_SQRT_RATIO)
    assert after <= price if zero_for_one else after >= price
    assert into(price, after, liquidity, True) <= amount


def test_overflow_of_256_bits_divides_first() -> None:
    """Where amount * price passes 2**256 the contract loses precision, and so must we."""
    price, liquidity, amount = MAX_SQRT_RATIO - 1, 2**127 + 12345, 2**97
    exact = -(-(liquidity << 96) * price // ((liquidity << 96) + amount * price))
    rough = -(-(liquidity << 96) // ((liquidity << 96) // price + amount))
    assert rough != exact
    assert price_after_input(price, liquidity, amount, True) == rough


@given(prices, liquidities, amounts, directions)
def test_a_price_moved_by_output_yields_enough(
    price: int, liquidity: int, amount: int, zero_for_one: bool
) -> None:
    out_of = amount1_between if zero_for_one else amount0_between
    end = MIN_SQRT_RATIO if zero_for_one else MAX_SQRT_RATIO
    assume(out_of(price, end, liquidity, False) >= amount)
    after = price_after_output(price, liquidity, amount, zero_for_one)
    assert end <= after <= price if zero_for_one else price <= after <= end
    assert out_of(price, after, liquidity, False) >= amount


@given(near_prices, near_prices, liquidities, amounts, directions, st.integers(0, 999_999))
def test_a_step_accounts_for_every_unit(
    price: int, target: int, liquidity: int, amount: int, exact_input: bool, fee_pips: int
) -> None:
    zero_for_one = target <= price
    remaining = amount if exact_input else -amount
    after, paid, got, fee = swap_step(price, target, liquidity, remaining, fee_pips, zero_for_one)
    assert min(price, target) <= after <= max(price, target)
    assert min(paid, got, fee) >= 0
    if exact_input:
        assert paid + fee <= amount
        if after != target:
            assert paid + fee == amount
    else:
        assert got <= amount
        if after != target:
            assert got == amount
    # The fee is never less than its share of the input.
    assert fee * (1_000_000 - fee_pips) >= paid * fee_pips


def test_an_output_may_land_on_the_target_short_of_what_it_holds() -> None:
    """Rounding the price down reaches the target although the range holds a unit more: capped."""
    target, liquidity = Q96, 3 * Q96
    price = target + 1
    assert amount1_between(price, target, liquidity, False) == 3
    assert swap_step(price, target, liquidity, -2, 3000, True) == (
        target,
        amount0_between(price, target, liquidity, True),
        2,
        1,
    )


@given(near_prices, ticks, ticks, st.integers(0, 2**90), st.integers(0, 2**90))
def test_liquidity_for_amounts_never_takes_more_than_was_offered(
    price: int, lower: int, upper: int, amount0: int, amount1: int
) -> None:
    assume(lower < upper)
    try:
        liquidity = liquidity_for_amounts(price, lower, upper, amount0, amount1)
    except OutOfDomain:
        assume(False)
    taken = amounts_for_liquidity(price, lower, upper, liquidity, True)
    given_back = amounts_for_liquidity(price, lower, upper, liquidity, False)
    assert taken[0] <= amount0
    assert taken[1] <= amount1
    assert all(up - down in (0, 1) for up, down in zip(taken, given_back, strict=True))


@given(ticks, ticks, liquidities)
def test_a_range_away_from_the_price_needs_one_token(
    lower: int, upper: int, liquidity: int
) -> None:
    assume(lower < upper)
    below = amounts_for_liquidity(sqrt_ratio_at_tick(lower), lower, upper, liquidity, True)
    above = amounts_for_liquidity(sqrt_ratio_at_tick(upper), lower, upper, liquidity, True)
    assert below[0] > 0 == below[1]
    assert above[1] > 0 == above[0]


def test_liquidity_beyond_128_bits_is_refused() -> None:
    with pytest.raises(OutOfDomain) as caught:
        liquidity_for_amounts(Q96, -1, 1, 2**127, 2**127)
    assert caught.value.value > UINT128_MAX == caught.value.highest


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(OutOfDomain):
        amounts_for_liquidity(Q96, 60, 60, 1, True)
