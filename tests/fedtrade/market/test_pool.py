"""The pool replica: laws of the constant-product curve, fees, replay of logs, and refusals.

Equality with the deployed contract is in test_pool_onchain.py; here are the laws that hold for any
pool, and the equality of the two ways to walk: step by step as the contract (`swap`), and over
whole rungs (quotes).
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fedtrade.errors import BadInput, Fault, Refusal, Stale
from fedtrade.market.events import LiquidityChanged, PoolSnapshot, Swapped
from fedtrade.market.instruments import PoolKey, Token
from fedtrade.market.pool import (
    Pool,
    ProtocolFeeOn,
    ReplicaDiverged,
    SnapshotTorn,
    SwapResult,
    refuse_protocol_fee,
    sqrt_ratio_at_tick,
    tick_at_sqrt_ratio,
)
from fedtrade.market.tick_math import MAX_SQRT_RATIO, MAX_TICK, MIN_SQRT_RATIO, MIN_TICK, Q96

ADDRESS = "0x" + "aa" * 20
SPACINGS = {100: 1, 500: 10, 3000: 60, 10000: 200}
LAW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def empty_pool(fee_pips: int, sqrt_price: int, tick_spacing: int | None = None) -> Pool:
    key = PoolKey(
        address=ADDRESS,
        token0=Token("0x" + "01" * 20, "WETH", 18),
        token1=Token("0x" + "02" * 20, "USDC", 6),
        fee_pips=fee_pips,
        tick_spacing=tick_spacing or SPACINGS[fee_pips],
        base_is_token0=True,
    )
    snapshot = PoolSnapshot(0, ADDRESS, sqrt_price, tick_at_sqrt_ratio(sqrt_price), 0, 0, 0, ())
    return Pool(key, snapshot)


def copy(pool: Pool) -> Pool:
    return Pool(pool.key, pool.snapshot(0))


@st.composite
def pools(draw: st.DrawFn, positions: int = 6, fees: tuple[int, ...] = tuple(SPACINGS)) -> Pool:
    """A pool with some positions, from one tick wide to all of the domain, with gaps between."""
    fee = draw(st.sampled_from(fees))
    spacing = SPACINGS[fee]
    centre = draw(st.sampled_from([0, -200_000, 120_000, 300]))
    on_tick = draw(st.booleans())
    price = sqrt_ratio_at_tick(centre) if on_tick else sqrt_ratio_at_tick(centre) + 12_345_678_901
    pool = empty_pool(fee, price)
    width = st.one_of(st.integers(1, 30), st.integers(200, 1500), st.just(MAX_TICK))
    for _ in range(draw(st.integers(1, positions))):
        middle = centre // spacing + draw(st.integers(-600, 600))
        half = draw(width)
        lower = max((middle - half) * spacing, -(MAX_TICK // spacing) * spacing)
        upper = min((middle + half) * spacing, MAX_TICK // spacing * spacing)
        pool.change_liquidity(lower, upper, draw(st.integers(1, 2**70)))
    return pool


swaps = st.tuples(
    st.booleans(), st.one_of(st.integers(1, 10**6), st.integers(1, 2**80), st.just(2**120))
)


def paid_and_got(result: SwapResult) -> tuple[int, int]:
    return max(result.amount0, result.amount1), -min(result.amount0, result.amount1)


# The two ways to walk are one.


@LAW
@given(pools(), swaps, st.booleans(), st.one_of(st.none(), st.integers(1, 400_000)))
def test_quotes_equal_swaps(
    pool: Pool, swap: tuple[bool, int], exact_input: bool, distance: int | None
) -> None:
    zero_for_one, amount = swap
    limit = None
    if distance is not None:
        tick = pool.tick - distance if zero_for_one else pool.tick + 1 + distance
        limit = sqrt_ratio_at_tick(min(max(tick, MIN_TICK + 1), MAX_TICK - 1))
    before = pool.snapshot(0)
    quote = pool.quote_exact_input if exact_input else pool.quote_exact_output
    quoted = quote(zero_for_one, amount, limit)
    again = quote(zero_for_one, amount, limit)
    assert pool.snapshot(0) == before
    swapped = copy(pool).swap(zero_for_one, amount if exact_input else -amount, limit)
    assert quoted == again == swapped


@LAW
@given(pools(), st.lists(swaps, min_size=1, max_size=4), swaps)
def test_quotes_equal_swaps_from_any_state(
    pool: Pool, history: list[tuple[bool, int]], swap: tuple[bool, int]
) -> None:
    """After swaps the cached rungs still serve, and after a mint they are made anew."""
    for zero_for_one, amount in history:
        try:
            expected = pool.quote_exact_input(zero_for_one, amount)
        except BadInput:  # the price already stands at the end of the domain
            continue
        assert pool.swap(zero_for_one, amount) == expected
    spacing = pool.key.tick_spacing
    lower = pool.tick // spacing * spacing
    assume(lower >= MIN_TICK and lower + spacing <= MAX_TICK)
    pool.change_liquidity(lower, lower + spacing, 10**15)
    zero_for_one, amount = swap
    if MIN_SQRT_RATIO + 1 < pool.sqrt_price_x96 < MAX_SQRT_RATIO - 1:
        swapped_out = copy(pool).swap(zero_for_one, -amount)
        assert pool.quote_exact_output(zero_for_one, amount) == swapped_out


# Laws of a quote.


@LAW
@given(pools(), st.booleans(), st.integers(1, 2**80), st.integers(0, 2**80))
def test_more_in_gives_more_out_and_no_better_price(
    pool: Pool, zero_for_one: bool, amount: int, extra: int
) -> None:
    small, large = (
        pool.quote_exact_input(zero_for_one, amount),
        pool.quote_exact_input(zero_for_one, amount + extra),
    )
    assert paid_and_got(large)[0] >= paid_and_got(small)[0]
    assert paid_and_got(large)[1] >= paid_and_got(small)[1]
    if zero_for_one:
        assert large.sqrt_price_x96 <= small.sqrt_price_x96 <= pool.sqrt_price_x96
    else:
        assert large.sqrt_price_x96 >= small.sqrt_price_x96 >= pool.sqrt_price_x96


@LAW
@given(pools(), st.booleans(), st.integers(1, 2**75))
def test_exact_input_and_exact_output_agree(pool: Pool, zero_for_one: bool, amount: int) -> None:
    """Buying what an input would give costs no more than that input, and less buys less."""
    paid, got = paid_and_got(pool.quote_exact_input(zero_for_one, amount))
    assume(got > 0)
    cost, bought = paid_and_got(pool.quote_exact_output(zero_for_one, got))
    assert bought == got
    # The walks may end a rung apart by rounding, each rung rounds up by at most two units.
    rungs = 2 * (2 * MAX_TICK // (256 * pool.key.tick_spacing) + 20)
    assert cost <= paid + rungs
    sold = paid_and_got(pool.quote_exact_input(zero_for_one, cost))[1]
    assert sold >= got - rungs


@LAW
@given(pools(), st.booleans(), st.integers(1, 2**80))
def test_no_free_round_trip(pool: Pool, zero_for_one: bool, amount: int) -> None:
    paid, got = paid_and_got(pool.swap(zero_for_one, amount))
    assume(got > 0)
    _, back = paid_and_got(pool.swap(not zero_for_one, got))
    assert back <= paid


@LAW
@given(pools(), st.integers(1, 2**80), st.integers(-40, 40), st.integers(1, 40), swaps)
def test_mint_and_burn_never_profit(
    pool: Pool, liquidity: int, offset: int, width: int, swap: tuple[bool, int]
) -> None:
    """At one price a burn never gives more than the mint took; nor changes what others see."""
    spacing = pool.key.tick_spacing
    lower = (pool.tick // spacing + offset) * spacing
    upper = lower + width * spacing
    before, quote = pool.snapshot(0), pool.quote_exact_input(*swap)
    taken = pool.change_liquidity(lower, upper, liquidity)
    given_back = pool.change_liquidity(lower, upper, -liquidity)
    assert all(0 <= up - down <= 1 for up, down in zip(taken, given_back, strict=True))
    assert pool.snapshot(0) == before
    assert pool.quote_exact_input(*swap) == quote


@LAW
@given(
    st.sampled_from(tuple(SPACINGS)),
    st.lists(
        st.tuples(st.integers(-2000, 2000), st.integers(1, 3000), st.integers(1, 2**70)),
        min_size=1,
        max_size=5,
    ),
    st.lists(swaps, min_size=1, max_size=6),
)
def test_value_is_conserved(
    fee: int, ranges: list[tuple[int, int, int]], history: list[tuple[bool, int]]
) -> None:
    """All that went in covers all positions and their fees; the pool keeps only roundings."""
    pool, spacing = empty_pool(fee, Q96), SPACINGS[fee]
    limit = MAX_TICK // spacing
    balance = [0, 0]
    marks = []
    for middle, half, liquidity in ranges:
        lower = max(middle - half, -limit) * spacing
        upper = min(middle + half, limit) * spacing
        took = pool.change_liquidity(lower, upper, liquidity)
        balance = [held + part for held, part in zip(balance, took, strict=True)]
        marks.append((lower, upper, liquidity, *pool.fee_growth_inside(lower, upper)))
    steps = len(ranges) * 2
    for zero_for_one, amount in history:
        try:
            result = pool.swap(zero_for_one, amount)
        except BadInput:
            continue
        balance[0] += result.amount0
        balance[1] += result.amount1
        steps += result.ticks_crossed + 2 * MAX_TICK // (256 * spacing) + 2
    for mark in marks:
        lower, upper, liquidity, *_ = mark
        owed = pool.fees_owed(*mark)
        gave = pool.change_liquidity(lower, upper, -liquidity)
        balance = [
            held - fee_part - part for held, fee_part, part in zip(balance, owed, gave, strict=True)
        ]
    assert pool.liquidity == 0
    assert pool.snapshot(0).ticks == ()
    # Every step rounds by under 4 units, growth by under one unit per position and step.
    assert all(0 <= dust <= steps * (4 + len(marks)) for dust in balance)


def test_a_word_boundary_rounds_even_without_a_tick() -> None:
    """A walk over two whole words costs a unit more than the same distance in one step.

    This is why quotes stop at the ends of bitmap words where nothing is initialised.
    """
    split, joined = empty_pool(100, Q96), empty_pool(100, Q96, tick_spacing=8192)
    liquidity = 10**9 + 7
    for pool in (split, joined):
        pool.change_liquidity(-8192 * 100, 8192 * 100, liquidity)
    limit = sqrt_ratio_at_tick(-2000)
    fine = split.quote_exact_input(True, 10**30, limit)
    coarse = joined.quote_exact_input(True, 10**30, limit)
    assert fine.sqrt_price_x96 == coarse.sqrt_price_x96
    assert fine.amount0 > coarse.amount0
    assert fine.amount1 > coarse.amount1  # pays out less


def test_exhausted_liquidity_fills_in_part() -> None:
    pool = empty_pool(3000, Q96)
    pool.change_liquidity(-600, 600, 10**18)
    sold = pool.quote_exact_input(True, 10**24)
    bought = pool.quote_exact_output(True, 10**24)
    assert sold == bought == copy(pool).swap(True, 10**24)
    assert 0 < sold.amount0 < 10**24
    assert (sold.sqrt_price_x96, sold.tick, sold.liquidity) == (MIN_SQRT_RATIO + 1, MIN_TICK, 0)
    up = pool.quote_exact_input(False, 10**24)
    assert (up.sqrt_price_x96, up.tick) == (MAX_SQRT_RATIO - 1, MAX_TICK - 1)
    pool.swap(True, 10**24)
    with pytest.raises(BadInput, match="below"):
        pool.quote_exact_input(True, 1)


def test_a_swap_leaps_a_gap_without_liquidity() -> None:
    pool = empty_pool(500, Q96)
    pool.change_liquidity(0, 100, 10**20)
    pool.change_liquidity(50_000, 50_100, 10**20)
    first = pool.quote_exact_input(False, 10**24, sqrt_ratio_at_tick(100))
    past = pool.quote_exact_input(False, max(first.amount1, 1) + 10**18)
    assert past.tick >= 50_000
    assert past.ticks_crossed == 2


# Fees.


def test_fees_are_shared_by_liquidity_and_only_in_range() -> None:
    pool = empty_pool(3000, Q96)
    pool.change_liquidity(-600, 600, 3 * 10**18)
    pool.change_liquidity(-600, 600, 10**18)
    pool.change_liquidity(6000, 6060, 10**18)
    wide = pool.fee_growth_inside(-600, 600)
    away = pool.fee_growth_inside(6000, 6060)
    result = pool.swap(True, 10**15)
    paid_fee = 10**15 * 3000 // 1_000_000
    big = pool.fees_owed(-600, 600, 3 * 10**18, *wide)
    small = pool.fees_owed(-600, 600, 10**18, *wide)
    assert result.ticks_crossed == 0
    assert 0 <= paid_fee - (big[0] + small[0]) <= 3
    assert abs(big[0] - 3 * small[0]) <= 3
    assert pool.fees_owed(6000, 6060, 10**18, *away) == (0, 0)


def test_a_new_tick_takes_the_growth_so_far_as_below_it() -> None:
    pool = empty_pool(500, Q96)
    pool.change_liquidity(-1000, 1000, 10**18)
    pool.swap(True, 10**15)
    pool.swap(False, 10**15)
    growth = (pool.fee_growth_global0_x128, pool.fee_growth_global1_x128)
    pool.change_liquidity(-500, 500, 10**18)
    outside = {row[0]: row[3:] for row in pool.snapshot(0).ticks}
    assert outside == {-1000: (0, 0), -500: growth, 500: (0, 0), 1000: (0, 0)}
    assert min(growth) > 0


def test_fee_growth_wraps_at_256_bits() -> None:
    pool = empty_pool(3000, Q96)
    pool.change_liquidity(-600, 600, 10**18)
    shifted = copy(pool)
    top = 2**256 - 1
    shifted.fee_growth_global0_x128 = top
    start, marks = pool.fee_growth_inside(-600, 600), shifted.fee_growth_inside(-600, 600)
    for replica in (pool, shifted):
        replica.swap(True, 10**16)
    assert shifted.fee_growth_global0_x128 < top
    owed = pool.fees_owed(-600, 600, 10**18, *start)
    assert shifted.fees_owed(-600, 600, 10**18, *marks) == owed


# Replay.


def swapped(result: SwapResult, block: int = 5) -> Swapped:
    return Swapped(
        block,
        3,
        ADDRESS,
        result.amount0,
        result.amount1,
        result.sqrt_price_x96,
        result.liquidity,
        result.tick,
    )


@LAW
@given(
    pools(),
    st.lists(
        st.tuples(swaps, st.booleans(), st.one_of(st.none(), st.integers(0, 3000))),
        min_size=1,
        max_size=5,
    ),
)
def test_replay_of_logs_reaches_the_same_state(
    pool: Pool, history: list[tuple[tuple[bool, int], bool, int | None]]
) -> None:
    """Exact input and output, with and without a limit: the log alone fixes the whole state."""
    replica = copy(pool)
    for (zero_for_one, amount), exact_input, distance in history:
        limit = None
        if distance is not None:
            tick = pool.tick - distance if zero_for_one else pool.tick + 1 + distance
            limit = sqrt_ratio_at_tick(min(max(tick, MIN_TICK + 1), MAX_TICK - 1)) + (
                7 if distance % 2 and not zero_for_one else 0
            )
        try:
            result = pool.swap(zero_for_one, amount if exact_input else -amount, limit)
        except BadInput:
            continue
        replica.apply(swapped(result))
        assert replica.snapshot(0) == pool.snapshot(0)


def test_replay_of_an_output_that_no_input_reproduces() -> None:
    """Where one unit of input buys very much, only the exact output tells how far the price went."""
    pool = empty_pool(3000, sqrt_ratio_at_tick(-600_000))
    pool.change_liquidity(-660_000, -540_000, 10**20)
    differing = 0
    for amount in (10**9, 10**18, 10**24 + 7):
        replica = copy(pool)
        result = pool.swap(False, -amount)
        differing += copy(replica).swap(False, result.amount1) != result
        replica.apply(swapped(result))
        assert replica.snapshot(0) == pool.snapshot(0)
    assert differing > 0


def test_replay_over_a_gap_without_amounts() -> None:
    """A swap in an empty stretch moves the price and nothing else; its direction is the price's."""
    pool = empty_pool(3000, Q96)
    pool.change_liquidity(6000, 6060, 10**18)
    for zero_for_one, tick in ((False, 3000), (True, -77)):
        replica = copy(pool)
        result = pool.swap(zero_for_one, 10**18, sqrt_ratio_at_tick(tick))
        assert (result.amount0, result.amount1) == (0, 0)
        replica.apply(swapped(result))
        assert replica.snapshot(0) == pool.snapshot(0)


@pytest.mark.parametrize(
    ("field", "by"),
    # Two units in and 1e12 of price: less may be what another limit or input would have logged.
    [("amount0", 2), ("amount1", 1), ("sqrt_price_x96", 10**12), ("liquidity", 1), ("tick", 1)],
)
def test_an_altered_swap_log_is_found_and_changes_nothing(field: str, by: int) -> None:
    pool = empty_pool(500, Q96)
    pool.change_liquidity(-1000, 1000, 10**18)
    log = swapped(copy(pool).swap(True, 10**15))
    before = pool.snapshot(0)
    with pytest.raises(ReplicaDiverged, match="snapshot") as caught:
        pool.apply(replace(log, **{field: getattr(log, field) + by}))
    assert (caught.value.block, caught.value.log_index) == (5, 3)
    assert isinstance(caught.value, Stale)
    assert pool.snapshot(0) == before
    pool.apply(log)
    assert pool.snapshot(0) != before


def test_liquidity_logs_replay_and_diverge() -> None:
    pool = empty_pool(500, Q96 + 12345)
    amounts = copy(pool).change_liquidity(-100, 100, 10**18)
    log = LiquidityChanged(7, 1, ADDRESS, "0x" + "cc" * 20, -100, 100, 10**18, *amounts)
    with pytest.raises(ReplicaDiverged):
        pool.apply(replace(log, amount0=log.amount0 - 1))
    pool.apply(log)
    assert pool.liquidity == 10**18
    gave = copy(pool).change_liquidity(-100, 100, -(10**18))
    poke = replace(log, liquidity_delta=0, amount0=0, amount1=0)
    pool.apply(poke)
    assert pool.liquidity == 10**18
    burn = replace(log, liquidity_delta=-(10**18), amount0=gave[0], amount1=gave[1])
    with pytest.raises(ReplicaDiverged, match="holds"):
        pool.apply(replace(burn, liquidity_delta=-2 * 10**18))
    pool.apply(burn)
    assert pool.snapshot(0).ticks == ()


def test_a_log_of_another_pool_is_refused() -> None:
    pool = empty_pool(500, Q96)
    with pytest.raises(ReplicaDiverged):
        pool.apply(Swapped(1, 0, "0x" + "bb" * 20, 1, 0, Q96, 0, 0))


# Snapshots and refusals.


@LAW
@given(pools(), st.lists(swaps, max_size=3), swaps)
def test_a_snapshot_is_the_whole_state(
    pool: Pool, history: list[tuple[bool, int]], swap: tuple[bool, int]
) -> None:
    for zero_for_one, amount in history:
        try:
            pool.swap(zero_for_one, amount)
        except BadInput:
            continue
    twin = copy(pool)
    for replica in (pool, twin):
        try:
            replica.swap(*swap)
        except BadInput:
            assume(False)
    assert twin.snapshot(9) == pool.snapshot(9)


@pytest.mark.parametrize(
    ("torn", "problem"),
    [
        ({"liquidity": 5}, "in range"),
        ({"tick": 1}, "stands at tick"),
        ({"tick": -2}, "stands at tick"),
        ({"ticks": ((-100, 5, 5, 0, 0), (100, 5, -4, 0, 0))}, "sum to zero"),
        ({"ticks": ((100, 9, -9, 0, 0), (-100, 9, 9, 0, 0))}, "ascend"),
        ({"ticks": ((-101, 9, 9, 0, 0), (100, 9, -9, 0, 0))}, "spacing"),
        ({"ticks": ((-100, 9, 9, 0, 0), (50, 0, 0, 0, 0), (100, 9, -9, 0, 0))}, "no liquidity"),
    ],
)
def test_a_torn_snapshot_is_found(torn: dict[str, object], problem: str) -> None:
    pool = empty_pool(500, Q96)
    pool.change_liquidity(-100, 100, 9)
    snapshot = pool.snapshot(3)
    assert Pool(pool.key, snapshot).snapshot(3) == snapshot
    with pytest.raises(SnapshotTorn, match=problem) as caught:
        Pool(pool.key, replace(snapshot, **torn))  # type: ignore[arg-type]
    assert caught.value.block == 3


def test_a_price_on_a_tick_crossed_downward_is_no_tear() -> None:
    pool = empty_pool(500, Q96)
    pool.change_liquidity(-100, 100, 10**9)
    pool.swap(True, 10**30, sqrt_ratio_at_tick(-100))
    assert pool.tick == -101
    assert copy(pool).liquidity == 0


@pytest.mark.parametrize(
    ("zero_for_one", "amount", "limit"),
    [
        (True, 0, None),
        (True, 2**255, None),
        (True, 1, Q96),
        (True, 1, MIN_SQRT_RATIO),
        (False, 1, Q96),
        (False, 1, MAX_SQRT_RATIO),
    ],
)
def test_what_the_pool_would_revert_is_refused(
    zero_for_one: bool, amount: int, limit: int | None
) -> None:
    pool = empty_pool(500, Q96)
    for ask in (pool.quote_exact_input, pool.quote_exact_output, pool.swap):
        with pytest.raises(BadInput):
            ask(zero_for_one, amount, limit)


@pytest.mark.parametrize(
    ("lower", "upper", "delta"),
    [(-5, 10, 1), (10, 10, 1), (20, 10, 1), (-887_280, 0, 1), (0, 10, -1), (0, 10, 2**127)],
)
def test_liquidity_that_the_pool_would_revert_is_refused(
    lower: int, upper: int, delta: int
) -> None:
    pool = empty_pool(500, Q96)
    before = pool.snapshot(0)
    with pytest.raises(Refusal):
        pool.change_liquidity(lower, upper, delta)
    assert pool.snapshot(0) == before


def test_liquidity_per_tick_is_capped_as_on_chain() -> None:
    """The constants that the factory's four pools report."""
    caps = {100: 191757530477355301479181766273477, 500: 1917569901783203986719870431555990}
    caps |= {3000: 11505743598341114571880798222544994, 10000: 38350317471085141830651933667504588}
    assert {fee: empty_pool(fee, Q96).max_liquidity_per_tick for fee in caps} == caps


def test_a_protocol_fee_is_a_fault() -> None:
    refuse_protocol_fee(ADDRESS, 0)
    with pytest.raises(ProtocolFeeOn) as caught:
        refuse_protocol_fee(ADDRESS, 0x44)
    assert isinstance(caught.value, Fault)
    assert caught.value.fee_protocol == 0x44
