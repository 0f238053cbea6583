"""Placement: amounts that a pool takes exactly, swaps that lead to them, bounds that hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.market.events import PoolSnapshot
from fedtrade.market.instruments import PoolKey, Token
from fedtrade.market.pool import Pool, amounts_for_liquidity, liquidity_for_amounts
from fedtrade.market.tick_math import sqrt_ratio_at_tick
from fedtrade.trading import placement

WETH, USDC = Token("0xA", "WETH", 18), Token("0xB", "USDC", 6)
STRAIGHT = PoolKey("0xP", WETH, USDC, 500, 10, True)
FLIPPED = PoolKey("0xP", USDC, WETH, 500, 10, False)
DEPTH = 10**18


def pool(tick: int = -197_100, key: PoolKey = STRAIGHT, depth: int = DEPTH) -> Pool:
    ticks = ((-887_270, depth, depth, 0, 0), (887_270, depth, -depth, 0, 0))
    return Pool(key, PoolSnapshot(1, "0xP", sqrt_ratio_at_tick(tick), tick, depth, 0, 0, ticks))


ranges = st.tuples(st.integers(-300, 290), st.integers(1, 300)).map(
    lambda r: (-197_100 + 10 * r[0], -197_100 + 10 * (r[0] + r[1]))
)


@given(ticks=ranges, value=st.floats(10.0, 1e7))
def test_needed_amounts_are_worth_what_was_asked(ticks: tuple[int, int], value: float) -> None:
    here = pool()
    amounts = placement.needed(here, *ticks, value)
    assert placement.quote_value(here, *amounts) == pytest.approx(value, rel=1e-4, abs=1e-4)


def test_values_do_not_depend_on_the_order_of_the_tokens() -> None:
    straight, flipped = pool(), pool(197_100, FLIPPED)
    worth = placement.quote_value(straight, 10**18, 500 * 10**6)
    assert placement.quote_value(flipped, 500 * 10**6, 10**18) == pytest.approx(worth, rel=1e-4)
    assert placement.quote_value(straight, 10**18, 0, 1000.0) == 1000.0


@given(
    ticks=ranges,
    have=st.tuples(st.integers(0, 60 * 10**18), st.integers(1_100 * 10**6, 160_000 * 10**6)),
)
def test_one_swap_leads_to_the_ratio(ticks: tuple[int, int], have: tuple[int, int]) -> None:
    here = pool()
    total = placement.quote_value(here, *have)
    want = placement.needed(here, *ticks, 0.95 * total)
    swap = placement.balancing_swap(here, want, have, 100)
    if swap is None:
        short = [max(0, want[i] - have[i]) for i in (0, 1)]
        assert placement.quote_value(here, *short) <= 0.011 * total
        return
    sell_token0, amount_in = swap
    assert 0 < amount_in <= have[0 if sell_token0 else 1]
    done = here.swap(sell_token0, amount_in)
    after = (have[0] - done.amount0, have[1] - done.amount1)
    assert min(after) >= 0
    left = [max(0, want[i] - after[i]) for i in (0, 1)]
    assert placement.quote_value(here, *left) <= 0.02 * total


def test_nothing_is_swapped_where_there_is_nothing_to_pay_with() -> None:
    assert placement.balancing_swap(pool(), (10**18, 10**9), (0, 0), 100) is None


@given(sell=st.booleans(), size=st.integers(10**3, 10**13), slippage=st.integers(1, 300))
def test_the_least_out_is_met_by_the_pool_itself(sell: bool, size: int, slippage: int) -> None:
    here = pool()
    amount = size * 10**6 if sell else size
    least = placement.least_out(here, sell, amount, slippage)
    done = here.swap(sell, amount)
    given_out = -(done.amount1 if sell else done.amount0)
    assert least <= given_out
    assert least >= given_out * (10_000 - slippage) // 10_000 - 1


def test_no_least_out_where_liquidity_ends() -> None:
    narrow = PoolSnapshot(
        1, "0xP", sqrt_ratio_at_tick(-197_100), -197_100, DEPTH, 0, 0,
        ((-197_200, DEPTH, DEPTH, 0, 0), (-197_000, DEPTH, -DEPTH, 0, 0)),
    )  # fmt: skip
    assert placement.least_out(Pool(STRAIGHT, narrow), True, 10**30, 50) == 0


def test_a_swap_is_cut_to_what_the_market_bears() -> None:
    here, whole = pool(depth=10**16), 20 * 10**18
    fair = STRAIGHT.price(here.sqrt_price_x96)
    size, least = placement.bounded_swap(here, True, whole, 50, fair, 100)
    assert 0 < size < whole
    assert placement.least_out(here, True, 2 * size, 5) / 1e6 < 2 * size / 1e18 * fair * 0.99
    assert least / 1e6 >= size / 1e18 * fair * 0.99
    deep = pool()
    assert placement.bounded_swap(deep, True, 10**18, 50, fair, 100) == (
        10**18,
        placement.least_out(deep, True, 10**18, 50),
    )
    unfair = placement.bounded_swap(here, True, whole, 50, fair * 2, 100)
    assert unfair == (whole, placement.least_out(here, True, whole, 50))


@given(
    sell=st.booleans(), size=st.integers(10**6, 10**11), off=st.floats(0.99, 1.01),
    discount=st.integers(20, 300),
)  # fmt: skip
def test_both_bounds_hold_at_once(sell: bool, size: int, off: float, discount: int) -> None:
    here = pool()
    fair = STRAIGHT.price(here.sqrt_price_x96) * off
    amount = size * 10**8 if sell else size
    amount_in, least = placement.bounded_swap(here, sell, amount, 50, fair, discount)
    gives = placement.least_out(here, sell, amount_in, 0)
    assert gives * 9_950 // 10_000 <= least
    sold = amount_in / 1e18 * fair if sell else amount_in / 1e6
    bought = least / 1e6 if sell else least / 1e18 * fair
    honest = gives / 1e6 if sell else gives / 1e18 * fair
    if honest * 0.9994 >= sold * (1 - discount / 1e4):
        assert least <= gives
        assert bought >= sold * (1 - discount / 1e4)


@given(
    ticks=ranges,
    offer=st.tuples(st.integers(10**15, 10**20), st.integers(10**7, 10**12)),
    slippage=st.integers(1, 100),
    moved=st.floats(-1.0, 1.0),
)
def test_a_mint_inside_the_band_takes_at_least_the_least(
    ticks: tuple[int, int], offer: tuple[int, int], slippage: int, moved: float
) -> None:
    here = pool()
    found = placement.mint_amounts(here, *ticks, offer, slippage)
    assert (found.amount0, found.amount1) == offer
    price = int(here.sqrt_price_x96 * (1 + moved * slippage * 0.99 / 10_000) ** 0.5)
    liquidity = liquidity_for_amounts(price, *ticks, *offer)
    taken = amounts_for_liquidity(price, *ticks, liquidity, True)
    assert taken[0] >= found.amount0_min
    assert taken[1] >= found.amount1_min


@given(ticks=ranges, slippage=st.integers(1, 400), moved=st.floats(-1.0, 1.0))
def test_a_burn_inside_the_band_gives_at_least_the_least(
    ticks: tuple[int, int], slippage: int, moved: float
) -> None:
    here = pool()
    least = placement.withdraw_least(here, *ticks, 10**17, slippage)
    price = int(here.sqrt_price_x96 * (1 + moved * slippage * 0.99 / 10_000) ** 0.5)
    amounts = amounts_for_liquidity(price, *ticks, 10**17, False)
    assert amounts[0] >= least[0]
    assert amounts[1] >= least[1]
