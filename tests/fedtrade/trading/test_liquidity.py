"""The decision to provide: its laws, its no-trade region, and the bookkeeping of its losses."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import exp, inf, isclose, log, nan, sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrade.errors import BadInput
from fedtrade.market.events import PoolSnapshot
from fedtrade.market.instruments import PoolKey, Token
from fedtrade.market.pool import Pool, sqrt_ratio_at_tick, tick_at_sqrt_ratio
from fedtrade.trading.liquidity import (
    LOG_TICK,
    RangeDecision,
    RangeLimits,
    decide_range,
    full_range_value_path,
    loss_versus_rebalancing,
    position_value_quote,
    range_holdings,
    range_prices,
    whole_liquidity,
)

ETH, USDC = Token("0x" + "01" * 20, "WETH", 18), Token("0x" + "02" * 20, "USDC", 6)
CALM = 6.7e-5
"""Variance per hour of an asset that moves 4 % a day."""
LAW = settings(max_examples=120, deadline=None)


def market(base_is_token0: bool = True, depth: int = 3 * 10**17, fee_pips: int = 500) -> Pool:
    """WETH/USDC at about 2,500 with one full-range provider: about 30 million USDC of value."""
    pair = (ETH, USDC) if base_is_token0 else (USDC, ETH)
    key = PoolKey("0x" + "aa" * 20, *pair, fee_pips, 10, base_is_token0)
    tick = -198_080 if base_is_token0 else 198_080
    price = sqrt_ratio_at_tick(tick) + 10**12
    pool = Pool(key, PoolSnapshot(0, key.address, price, tick_at_sqrt_ratio(price), 0, 0, 0, ()))
    if depth:
        pool.change_liquidity(-887_270, 887_270, depth)
    return pool


POOL = market()


def decide(
    pool: Pool = POOL,
    capital: float = 200_000.0,
    variance: float = CALM,
    demand: float = 4e6,
    gas: float = 5.0,
    horizon: float = 6.0,
    current: tuple[int, int] | None = None,
    **others: object,
) -> RangeDecision:
    return decide_range(pool, capital, variance, demand, gas, horizon, current, **others)  # type: ignore[arg-type]


def entered(capital: float = 200_000.0) -> tuple[Pool, RangeDecision, int]:
    """The pool once the first decision has been carried out, that decision, and our liquidity."""
    pool, first = market(), decide(capital=capital)
    ticks = (first.tick_lower, first.tick_upper)
    own = int(10**18 * capital / position_value_quote(pool, *ticks, 10**18))
    pool.change_liquidity(*ticks, own)
    return pool, first, own


def width(decision: RangeDecision) -> int:
    return decision.tick_upper - decision.tick_lower


variances = st.floats(1e-7, 1e-2)
demands = st.floats(0, 1e9)
capitals = st.floats(1e3, 1e7)
gases = st.floats(0, 200)
ranges = st.one_of(
    st.none(),
    st.tuples(st.integers(-300, 300), st.integers(1, 400)).map(
        lambda pair: (-198_080 + (pair[0] - pair[1]) * 10, -198_080 + (pair[0] + pair[1]) * 10)
    ),
)


# Laws.


@LAW
@given(variances, st.floats(1, 50), demands, capitals, gases)
def test_more_variance_is_wider_or_out(
    variance: float, factor: float, demand: float, capital: float, gas: float
) -> None:
    calm = decide(variance=variance, demand=demand, capital=capital, gas=gas)
    wild = decide(variance=variance * factor, demand=demand, capital=capital, gas=gas)
    assert width(wild) >= width(calm)
    assert not wild.provide or calm.provide


@LAW
@given(variances, st.floats(1, 50), demands, capitals, gases, ranges)
def test_more_variance_never_makes_one_provide(
    variance: float,
    factor: float,
    demand: float,
    capital: float,
    gas: float,
    current: tuple[int, int] | None,
) -> None:
    asked = {"demand": demand, "capital": capital, "gas": gas, "current": current}
    wild = decide(variance=variance * factor, **asked)  # type: ignore[arg-type]
    calm = decide(variance=variance, **asked)  # type: ignore[arg-type]
    assert calm.provide or not wild.provide


@LAW
@given(variances, demands, st.floats(1, 50), capitals, gases, ranges)
def test_more_demand_is_never_less_willing(
    variance: float,
    demand: float,
    factor: float,
    capital: float,
    gas: float,
    current: tuple[int, int] | None,
) -> None:
    asked = {"variance": variance, "capital": capital, "gas": gas, "current": current}
    slow = decide(demand=demand, **asked)  # type: ignore[arg-type]
    busy = decide(demand=demand * factor, **asked)  # type: ignore[arg-type]
    assert busy.provide or not slow.provide


@LAW
@given(variances, st.floats(1e5, 1e9), capitals, st.floats(1, 20))
def test_sharing_is_concave(variance: float, demand: float, capital: float, factor: float) -> None:
    """In one range, more capital earns more in all and less per unit; never more than all fees."""
    keep = RangeLimits(half_width_min=0.05, half_width_max=0.05)
    rates = [
        decide(capital=part, variance=variance, demand=demand, gas=0, limits=keep).expected_fee_rate
        for part in (capital, capital * factor)
    ]
    assert rates[1] <= rates[0] * (1 + 1e-12)
    assert capital * factor * rates[1] >= capital * rates[0] * (1 - 1e-12)
    assert capital * factor * rates[1] <= 0.0005 * demand * (1 + 1e-12)


def test_width_grows_with_variance_and_then_it_withdraws() -> None:
    decisions = [decide(variance=CALM * factor) for factor in (0.25, 1, 2, 4, 64)]
    widths = [width(each) for each in decisions]
    assert [each.provide for each in decisions] == [True, True, True, True, False]
    assert widths == sorted(widths)
    assert widths[0] < widths[3]
    assert "stay out" in decisions[-1].reason


def test_the_width_is_near_the_closed_form_where_sharing_is_small() -> None:
    """K s2 / (F - s2/8) with K = gas + swap, for a position that hardly moves the shares."""
    pool, capital, demand, gas = market(depth=3 * 10**19), 1e5, 1.2e8, 500.0
    others = 2 * whole_liquidity(pool.key, pool.liquidity) * sqrt(price_of(pool))
    cost = gas / capital + (0.0005 + capital / others) / 2
    for variance in (4e-5, CALM, 1e-4):
        half = cost * variance / (0.0005 * demand / others - variance / 8)
        found = width(decide(pool, capital, variance, demand, gas)) / 2 * LOG_TICK
        assert half / 1.2 < found < half * 1.2


def test_rates_are_the_papers() -> None:
    """Fees by share of liquidity, and variance / 8 times the concentration."""
    capital, half = 200_000.0, 0.05
    limits = RangeLimits(half_width_min=half, half_width_max=half)
    decision = decide(capital=capital, limits=limits)
    exact = width(decision) / 2 * LOG_TICK
    concentration = 1 / (1 - exp(-exact / 2))
    assert isclose(decision.expected_lvr_rate, CALM / 8 * concentration, rel_tol=1e-9)
    low, high = range_prices(POOL.key, decision.tick_lower, decision.tick_upper)
    base, quote = range_holdings(price_of(POOL), low, high, 1.0)
    ours = capital / (base * price_of(POOL) + quote)
    share = ours / (ours + whole_liquidity(POOL.key, POOL.liquidity))
    # The grid centres ranges on a multiple of the spacing, hence the tolerance.
    assert isclose(decision.expected_fee_rate, 0.0005 * 4e6 * share / capital, rel_tol=2e-3)


def test_the_token_order_does_not_matter() -> None:
    for current in (None, (-198_580, -197_580)):
        mirror = None if current is None else (-current[1], -current[0])
        straight, turned = decide(current=current), decide(market(False), current=mirror)
        assert straight.provide == turned.provide
        assert (straight.tick_lower, straight.tick_upper) == (
            -turned.tick_upper,
            -turned.tick_lower,
        )
        assert isclose(straight.expected_fee_rate, turned.expected_fee_rate, rel_tol=1e-6)


# The no-trade region.


def test_what_it_chose_it_keeps() -> None:
    pool, first, own = entered()
    chosen = (first.tick_lower, first.tick_upper)
    again = decide(pool, current=chosen, own_liquidity=own)
    assert again.provide
    assert (again.tick_lower, again.tick_upper) == chosen
    assert "keep" in again.reason


@LAW
@given(st.floats(0.85, 1.15), st.floats(0.85, 1.15))
def test_forecasts_that_wobble_move_nothing(variance_factor: float, demand_factor: float) -> None:
    """A new best range within the no-trade region is not worth its gas."""
    pool, first, own = entered()
    current = (first.tick_lower, first.tick_upper)
    decision = decide(
        pool,
        variance=CALM * variance_factor,
        demand=4e6 * demand_factor,
        current=current,
        own_liquidity=own,
    )
    assert (decision.tick_lower, decision.tick_upper) == current


def test_it_moves_when_that_earns_the_change_back_and_only_then() -> None:
    off_centre = (-198_080 - 20, -198_080 + 380)
    cheap = decide(current=off_centre, gas=0.1, horizon=24.0)
    dear = decide(current=off_centre, gas=5_000.0, horizon=0.5)
    assert "move" in cheap.reason
    assert "keep" in dear.reason
    assert (dear.tick_lower, dear.tick_upper) == off_centre


def test_out_of_range_it_moves_waits_or_leaves() -> None:
    away = (-197_080, -196_080)
    assert "move" in decide(current=away).reason
    waiting = decide(current=away, gas=5_000.0, horizon=0.5)
    assert waiting.provide
    assert "wait" in waiting.reason
    assert (waiting.expected_fee_rate, waiting.expected_lvr_rate) == (0.0, 0.0)
    leaving = decide(current=away, variance=CALM * 64)
    assert not leaving.provide
    assert "withdraw" in leaving.reason


def test_a_range_that_loses_is_left_unless_leaving_costs_more() -> None:
    current = (-198_580, -197_580)
    assert not decide(current=current, variance=CALM * 64).provide
    lossy = decide(current=current, demand=0.0)
    assert not lossy.provide
    held = decide(current=current, demand=0.0, variance=1e-7, gas=100.0, horizon=1.0)
    assert held.provide
    assert "keep" in held.reason


def test_a_safety_multiple_on_losses_leaves_earlier() -> None:
    at = {"variance": CALM * 4, "demand": 4e6}
    assert decide(**at).provide  # type: ignore[arg-type]
    assert not decide(**at, limits=RangeLimits(lvr_multiple=4.0)).provide  # type: ignore[arg-type]


def test_own_liquidity_is_not_counted_as_others() -> None:
    """In the pool or about to be: the expected fee rate of the range is the same."""
    pool, first, own = entered()
    current = (first.tick_lower, first.tick_upper)
    told = decide(pool, current=current, own_liquidity=own)
    guessed = decide(pool, current=current)
    blind = decide(pool, current=current, own_liquidity=0)
    assert isclose(told.expected_fee_rate, first.expected_fee_rate, rel_tol=0.02)
    assert isclose(told.expected_fee_rate, guessed.expected_fee_rate, rel_tol=1e-6)
    assert blind.expected_fee_rate < 0.9 * told.expected_fee_rate


def test_alone_in_the_pool_all_fees_are_ours() -> None:
    decision = decide(market(depth=0), capital=1e5, demand=1e8)
    assert decision.provide
    assert isclose(decision.expected_fee_rate, 0.0005 * 1e8 / 1e5)


def test_ranges_are_aligned_and_within_limits() -> None:
    limits = RangeLimits(half_width_min=0.01, half_width_max=0.02)
    for factor in (0.01, 1, 10):
        decision = decide(variance=CALM * factor, limits=limits)
        assert decision.tick_lower % 10 == 0 == decision.tick_upper % 10
        assert 0.02 <= width(decision) * LOG_TICK <= 0.04 + 20 * LOG_TICK
    widest = decide(variance=1.0, limits=RangeLimits(half_width_max=1e4))
    assert (widest.tick_lower, widest.tick_upper) == (-887_270, 689_190)


@pytest.mark.parametrize("field", ["capital", "variance", "demand", "gas", "horizon"])
@pytest.mark.parametrize("value", [nan, inf, -1.0])
def test_nonsense_is_refused(field: str, value: float) -> None:
    with pytest.raises(BadInput):
        decide(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["capital", "horizon"])
def test_zero_is_refused_where_it_divides(field: str) -> None:
    with pytest.raises(BadInput, match="positive"):
        decide(**{field: 0.0})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "limits",
    [{"half_width_min": 0.0}, {"half_width_min": 3.0}, {"lvr_multiple": 0.5}, {"hysteresis": -1.0}],
)
def test_limits_that_contradict_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(BadInput, match="range limits"):
        RangeLimits(**limits)


# Values and losses.


def price_of(pool: Pool) -> float:
    return pool.key.price(pool.sqrt_price_x96)


prices = st.lists(st.floats(500, 8_000), min_size=2, max_size=12)
ends = st.tuples(st.floats(600, 6_000), st.floats(1.01, 4)).map(
    lambda pair: (pair[0], pair[0] * pair[1])
)


@pytest.mark.parametrize("base_is_token0", [True, False])
def test_exact_and_whole_units_agree(base_is_token0: bool) -> None:
    pool = market(base_is_token0)
    ticks = (-198_580, -197_580) if base_is_token0 else (197_580, 198_580)
    liquidity = 10**16
    low, high = range_prices(pool.key, *ticks)
    assert low < price_of(pool) < high
    base, quote = range_holdings(price_of(pool), low, high, whole_liquidity(pool.key, liquidity))
    value = position_value_quote(pool, *ticks, liquidity)
    assert isclose(value, base * price_of(pool) + quote, rel_tol=1e-6)


@given(prices, ends, st.floats(1, 1e6))
def test_losses_are_never_negative_and_balance(
    path: list[float], edges: tuple[float, float], liquidity: float
) -> None:
    """What the rebalancing copy gained is what the position gained, and the loss."""
    loss = loss_versus_rebalancing(path, *edges, liquidity)
    values, copied = [], 0.0
    for price in path:
        base, quote = range_holdings(price, *edges, liquidity)
        values.append(base * price + quote)
    for before, after in pairwise(path):
        copied += range_holdings(before, *edges, liquidity)[0] * (after - before)
    scale = max(values) + 1e-9
    assert loss >= -1e-9 * scale
    assert isclose(copied, values[-1] - values[0] + loss, abs_tol=1e-8 * scale)


@given(ends, st.floats(1, 1e6), st.floats(1, 4))
def test_out_of_range_nothing_is_lost(
    edges: tuple[float, float], liquidity: float, factor: float
) -> None:
    above = [edges[1] * 1.01, edges[1] * 1.01 * factor]
    below = [edges[0] * 0.99, edges[0] * 0.99 / factor]
    for path in (above, below):
        assert abs(loss_versus_rebalancing(path, *edges, liquidity)) <= 1e-6 * liquidity


def test_losses_per_step_tend_to_the_variance_over_eight() -> None:
    """A full range under steps of ±s loses s**2 / 8 of its value a step, as the paper says."""
    step, price = 1e-3, 2_500.0
    path = [price, price * exp(step), price]
    value = 2 * sqrt(price)
    loss = loss_versus_rebalancing(path, 1e-12, 1e15, 1.0)
    assert isclose(loss / value / 2, step**2 / 8, rel_tol=2e-3)


@given(st.floats(100, 1e5), st.floats(0.2, 5), st.floats(1, 1e6))
def test_full_range_goes_as_the_root_of_the_price(
    price: float, factor: float, value: float
) -> None:
    path = full_range_value_path([price, price * factor], value)
    assert path[0] == value
    assert isclose(log(path[1] / path[0]), log(factor) / 2, abs_tol=1e-9)
    assert path[1] <= value * (1 + factor) / 2 * (1 + 1e-12)  # never better than holding


def test_a_swap_in_the_replica_loses_what_the_books_say() -> None:
    """The exact pool and the float bookkeeping agree on a real swap, fees apart."""
    pool = market(fee_pips=500)
    ticks, liquidity = (-198_580, -197_580), 10**16
    pool.change_liquidity(*ticks, liquidity)
    low, high = range_prices(pool.key, *ticks)
    before, value = price_of(pool), position_value_quote(pool, *ticks, liquidity)
    base, _ = range_holdings(before, low, high, whole_liquidity(pool.key, liquidity))
    pool.swap(True, 10**20)
    after = price_of(pool)
    assert low < after < before
    loss = loss_versus_rebalancing([before, after], low, high, whole_liquidity(pool.key, liquidity))
    gained = position_value_quote(pool, *ticks, liquidity) - value
    assert isclose(base * (after - before) - gained, loss, rel_tol=1e-4)
    assert loss > 0


def test_the_decision_is_deterministic() -> None:
    assert decide() == decide()
    assert replace(decide()) == decide()
