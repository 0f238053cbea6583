"""The portfolio: value against a burn, drawdown from the highest mark, a loss that never falls."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.market.events import Head, Holdings, OracleUpdated, PoolSnapshot, PositionHeld
from fedtrade.market.instruments import PoolKey, Token
from fedtrade.market.pool import Pool
from fedtrade.market.tick_math import sqrt_ratio_at_tick
from fedtrade.market.world import NotYetKnown, World
from fedtrade.risk.portfolio import Portfolio, Valuation, value, whole
from fedtrade.trading.liquidity import loss_versus_rebalancing, range_prices, whole_liquidity

DEPTH, OURS = 10**18, 10**16
TICK = -197_100
WETH, USDC = Token("0xA", "WETH", 18), Token("0xB", "USDC", 6)
STRAIGHT = PoolKey("0xP", WETH, USDC, 500, 10, True)
FLIPPED = PoolKey("0xP", USDC, WETH, 500, 10, False)


def at(key: PoolKey, tick: int, owed: tuple[int, int] = (0, 0)) -> World:
    """A world with one position of ours around the start, seen at a price."""
    sign = 1 if key.base_is_token0 else -1
    low, high = sorted((sign * (TICK - 500), sign * (TICK + 500)))
    tick = sign * tick
    active = DEPTH + (OURS if low <= tick < high else 0)
    rows = sorted([
        (-887_270, DEPTH, DEPTH, 0, 0), (low, OURS, OURS, 0, 0), (high, OURS, -OURS, 0, 0),
        (887_270, DEPTH, -DEPTH, 0, 0),
    ])  # fmt: skip
    snapshot = PoolSnapshot(1, "0xP", sqrt_ratio_at_tick(tick), tick, active, 0, 0, tuple(rows))
    held = PositionHeld(1, low, high, OURS, *owed)
    world = World(key, "0xF")
    for event in (
        snapshot, Holdings(1, 5 * 10**17, 10**9, 0, (held,)), OracleUpdated(1, 0, "0xF", 1, 0, 0),
        Head(1, "0x1", "0x0", 60, 1),
    ):  # fmt: skip
        world.apply(event)
    return world


@pytest.mark.parametrize("tick", [TICK - 800, TICK - 100, TICK, TICK + 333, TICK + 800])
def test_a_position_is_worth_what_a_burn_gives(tick: int) -> None:
    world = at(STRAIGHT, tick)
    twin = Pool(STRAIGHT, world.pool.snapshot(1))
    (held,) = world.holdings.positions
    amounts = twin.change_liquidity(held.tick_lower, held.tick_upper, -OURS)
    base, quote = whole(STRAIGHT, *amounts)
    seen = value(world)
    assert seen.position_quote == pytest.approx(base * world.price + quote)
    assert seen.position_base == base
    assert (seen.base, seen.quote) == (0.5, 1000.0)
    assert seen.equity_quote == pytest.approx((base + 0.5) * world.price + quote + 1000.0)


def test_the_order_of_the_tokens_does_not_matter() -> None:
    straight, flipped = value(at(STRAIGHT, TICK)), at(FLIPPED, TICK)
    holdings = flipped.holdings
    flipped.apply(replace(holdings, amount0=holdings.amount1, amount1=holdings.amount0))
    other = value(flipped)
    for name in ("price", "base", "quote", "position_base", "position_quote"):
        assert getattr(other, name) == pytest.approx(getattr(straight, name), rel=1e-9)


def test_uncollected_fees_belong_to_the_equity() -> None:
    bare, owed = value(at(STRAIGHT, TICK)), value(at(STRAIGHT, TICK, (10**16, 5 * 10**6)))
    assert owed.fees_quote == pytest.approx(0.01 * owed.price + 5.0)
    assert owed.equity_quote - bare.equity_quote == pytest.approx(owed.fees_quote)


def test_nothing_is_valued_that_is_not_known() -> None:
    with pytest.raises(NotYetKnown):
        value(World(STRAIGHT, "0xF"))


def plain(equity: float) -> Valuation:
    return Valuation(1.0, 0.0, equity, 0.0, 0.0, (), ())


@given(equities=st.lists(st.floats(0, 1e9), min_size=1, max_size=30), carried=st.floats(0, 1e9))
def test_drawdown_is_the_fall_from_the_highest_mark(equities: list[float], carried: float) -> None:
    portfolio = Portfolio(high_water_quote=carried)
    for equity in equities:
        portfolio.observe(plain(equity))
    top = max(carried, *equities)
    assert portfolio.high_water_quote == top
    assert 0.0 <= portfolio.drawdown <= 1.0
    if top > 0:
        assert portfolio.drawdown == pytest.approx(1 - equities[-1] / top)
    assert portfolio.profit_quote == pytest.approx(equities[-1] - equities[0])


def test_an_equity_that_is_no_number_is_no_drawdown_of_zero() -> None:
    portfolio = Portfolio()
    portfolio.observe(plain(100.0))
    portfolio.observe(plain(float("nan")))
    assert not portfolio.drawdown <= 0.99


@given(ticks=st.lists(st.integers(TICK - 900, TICK + 900), min_size=2, max_size=12))
def test_loss_versus_rebalancing_never_falls_and_equals_the_closed_sum(ticks: list[int]) -> None:
    portfolio, last = Portfolio(), 0.0
    for tick in ticks:
        portfolio.observe(value(at(STRAIGHT, tick)))
        assert portfolio.lvr_quote >= last - 1e-6
        last = portfolio.lvr_quote
    prices = [at(STRAIGHT, tick).price for tick in ticks]
    ends = range_prices(STRAIGHT, TICK - 500, TICK + 500)
    expected = loss_versus_rebalancing(prices, *ends, whole_liquidity(STRAIGHT, OURS))
    assert portfolio.lvr_quote == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_fees_count_once_and_survive_their_collection() -> None:
    portfolio = Portfolio()
    here = ((1, OURS, 0),)
    for fees, places in (
        (((1, 0.0),), here), (((1, 5.0),), here), (((1, 7.0),), here), ((), ()), (((2, 1.0),), ()),
    ):  # fmt: skip
        portfolio.observe(Valuation(1.0, 0, 0, 0, 0, fees, places))
    assert portfolio.fees_quote == pytest.approx(8.0)


def test_gas_is_in_the_quote_only_where_its_price_is_known() -> None:
    portfolio = Portfolio()
    portfolio.settled(10**17)
    assert portfolio.gas_quote is None
    portfolio.native_price_quote = 2_000.0
    assert portfolio.gas_quote == pytest.approx(200.0)


def test_holding_is_what_lying_still_would_have_made() -> None:
    portfolio = Portfolio()
    portfolio.observe(Valuation(100.0, 2.0, 0.0, 1.0, 100.0, (), ()))
    portfolio.observe(Valuation(90.0, 0.0, 500.0, 0.0, 0.0, (), ()))
    assert portfolio.hold_quote == pytest.approx(-30.0)
