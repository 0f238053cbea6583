"""The ladder of rungs: its stops, and quotes that begin, end and run out at odd places.

That its quotes equal the step-by-step walk is a law in test_pool.py.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.market.ladder import HIGHEST_LIMIT, LOWEST_LIMIT, Ladder, SwapResult, word_ends
from fedtrade.market.tick_math import (
    MAX_TICK,
    MIN_TICK,
    amount0_between,
    amount1_between,
    sqrt_ratio_at_tick,
    tick_at_sqrt_ratio,
)

FEE = 3000
LIQUIDITY = 10**18
PRICE = sqrt_ratio_at_tick(30) + 1


def ladder(zero_for_one: bool) -> Ladder:
    """One position on [-60, 60)."""
    return Ladder(zero_for_one, FEE, 60, {-60: LIQUIDITY, 60: -LIQUIDITY})


@pytest.mark.parametrize("spacing", [1, 10, 60, 200, 16383])
@pytest.mark.parametrize("zero_for_one", [True, False])
def test_word_ends_are_the_edge_bits_of_every_word(spacing: int, zero_for_one: bool) -> None:
    bit = 0 if zero_for_one else 255
    words = range(MIN_TICK // spacing // 256 - 2, MAX_TICK // spacing // 256 + 3)
    edges = [(256 * word + bit) * spacing for word in words]
    assert word_ends(spacing, zero_for_one) == tuple(
        edge for edge in edges if MIN_TICK < edge < MAX_TICK
    )


def test_within_a_rung_the_input_moves_the_price_and_pays_the_fee() -> None:
    result = ladder(True).exact_input(PRICE, 30, 10**12, LOWEST_LIMIT)
    after = result.sqrt_price_x96
    need = amount0_between(PRICE, after, LIQUIDITY, True)
    assert result.amount0 == 10**12
    assert 0 <= 10**12 * (1_000_000 - FEE) // 1_000_000 - need <= 1
    assert result.amount1 == -amount1_between(PRICE, after, LIQUIDITY, False)
    assert (result.tick, result.liquidity, result.ticks_crossed) == (
        tick_at_sqrt_ratio(after),
        LIQUIDITY,
        0,
    )


@given(st.booleans(), st.integers(-1, 1))
def test_at_the_exact_cost_of_a_rung_the_tick_is_crossed(zero_for_one: bool, short: int) -> None:
    end, limit = (-60, LOWEST_LIMIT) if zero_for_one else (60, HIGHEST_LIMIT)
    stop = sqrt_ratio_at_tick(end)
    # Downward the word ends at tick 0 on the way: two rungs, each rounding by itself.
    parts = [PRICE, sqrt_ratio_at_tick(0), stop] if zero_for_one else [PRICE, stop]
    between = amount0_between if zero_for_one else amount1_between
    needs = [between(a, b, LIQUIDITY, True) for a, b in pairwise(parts)]
    cost = sum(-(-need * 1_000_000 // (1_000_000 - FEE)) for need in needs)
    result = ladder(zero_for_one).exact_input(PRICE, 30, cost + short, limit)
    if short < 0:
        assert result.ticks_crossed == 0
        assert result.liquidity == LIQUIDITY
        assert result.sqrt_price_x96 != stop
    elif short == 0:
        assert result.ticks_crossed == 1
        assert (result.sqrt_price_x96, result.liquidity) == (stop, 0)
        assert result.tick == (-61 if zero_for_one else 60)
    else:
        # Nothing is left to trade with, so the unit stays with its owner and the price runs out.
        assert max(result.amount0, result.amount1) == cost
        assert result.sqrt_price_x96 == limit


def test_an_output_beyond_all_liquidity_fills_in_part() -> None:
    result = ladder(False).exact_output(PRICE, 30, 10**30, HIGHEST_LIMIT)
    available = amount0_between(PRICE, sqrt_ratio_at_tick(60), LIQUIDITY, False)
    assert result.amount0 == -available
    assert (result.sqrt_price_x96, result.tick, result.liquidity) == (
        HIGHEST_LIMIT,
        MAX_TICK - 1,
        0,
    )


def test_a_limit_on_a_tick_crosses_it_and_one_unit_before_does_not() -> None:
    stop = sqrt_ratio_at_tick(60)
    on = ladder(False).exact_input(PRICE, 30, 10**30, stop)
    before = ladder(False).exact_input(PRICE, 30, 10**30, stop - 1)
    assert (on.tick, on.liquidity, on.ticks_crossed) == (60, 0, 1)
    assert (before.tick, before.liquidity, before.ticks_crossed) == (59, LIQUIDITY, 0)


def test_a_price_on_a_tick_crossed_downward_crosses_back_for_nothing() -> None:
    """The price stands on tick 60 and the tick is 59: going up crosses 60 at no cost."""
    stop = sqrt_ratio_at_tick(60)
    result = ladder(False).exact_input(stop, 59, 1, stop + 1)
    assert result == SwapResult(0, 0, stop + 1, 60, 0, 1)


def test_a_result_cannot_be_altered() -> None:
    with pytest.raises(AttributeError):
        SwapResult(1, -1, 1, 0, 0, 0).amount0 = 2  # type: ignore[misc]
