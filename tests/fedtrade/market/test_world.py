"""The world: exact or stale, never a guess; bars from blocks; the registry's own notion of live."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.errors import Stale
from fedtrade.market.events import (
    BarClosed,
    Event,
    Head,
    Holdings,
    LiquidityChanged,
    ModelPublished,
    ModelRevoked,
    OracleUpdated,
    ParametersSeen,
    PoolSnapshot,
    PositionHeld,
    Reorganised,
    Swapped,
)
from fedtrade.market.instruments import PoolKey, Token
from fedtrade.market.pool import Pool, ReplicaDiverged, SnapshotTorn
from fedtrade.market.tick_math import sqrt_ratio_at_tick
from fedtrade.market.world import (
    BarBuilder,
    ChainBroken,
    Models,
    NotYetKnown,
    Reorganisation,
    World,
)

KEY = PoolKey("0xP", Token("0xA", "WETH", 18), Token("0xB", "USDC", 6), 500, 10, True)
FEED = "0xF"
TICK = -200_310  # about 2,000 USDC per WETH
DEPTH = 10**18
START = PoolSnapshot(
    10, "0xP", sqrt_ratio_at_tick(TICK), TICK, DEPTH, 5, 7,
    ((-887_270, DEPTH, DEPTH, 0, 0), (887_270, DEPTH, -DEPTH, 0, 0)),
)  # fmt: skip
GOVERNED = ParametersSeen(11, (1, 2), False, 700, False)
MINE = PositionHeld(1, TICK - 100, TICK + 100, 10**17, 3, 4)


def head(number: int, timestamp_s: int | None = None, fork: str = "") -> Head:
    parent = f"0x{number - 1}" + ("" if fork == "tip" else fork)
    return Head(number, f"0x{number}{fork}", parent, timestamp_s or 600 + 12 * number, 7)


def ready() -> World:
    world = World(KEY, FEED)
    for event in (
        START,
        LiquidityChanged(11, 0, "0xP", "0xM", MINE.tick_lower, MINE.tick_upper, MINE.liquidity, 0, 0),
        Holdings(11, 10**18, 10**9, 10**17, (MINE,)),
        OracleUpdated(11, 1, FEED, 2000 * 10**8, 8, 700),
        GOVERNED,
        head(11),
    ):  # fmt: skip
        if isinstance(event, LiquidityChanged):
            amounts = Pool(KEY, START).change_liquidity(
                event.tick_lower, event.tick_upper, event.liquidity_delta
            )
            event = replace(event, amount0=amounts[0], amount1=amounts[1])
        world.apply(event)
    return world


def swap(world: World, block: int, index: int, sell_base: bool, amount: int) -> Swapped:
    """The log of a swap against the world's pool as it stands."""
    twin = Pool(KEY, world.pool.snapshot(block))
    done = twin.swap(sell_base, amount)
    return Swapped(
        block, index, "0xP", done.amount0, done.amount1, done.sqrt_price_x96, done.liquidity,
        done.tick,
    )  # fmt: skip


def test_nothing_is_served_before_it_is_known() -> None:
    world = World(KEY, FEED)
    for part in ("head", "pool", "oracle", "holdings", "parameters", "price", "oracle_price"):
        with pytest.raises(NotYetKnown):
            getattr(world, part)
    assert isinstance(world.stale, NotYetKnown)
    assert ready().stale is None


def test_replica_follows_the_logs_and_fees_are_exact() -> None:
    world = ready()
    twin = Pool(KEY, world.pool.snapshot(11))
    inside = twin.fee_growth_inside(MINE.tick_lower, MINE.tick_upper)
    for index, (sell, amount) in enumerate([(True, 10**18), (False, 3 * 10**9), (True, 10**15)]):
        log = swap(world, 12, index, sell, amount)
        twin.swap(sell, amount)
        world.apply(log)
    world.apply(head(12))
    assert world.pool.snapshot(0) == twin.snapshot(0)
    fees = twin.fees_owed(MINE.tick_lower, MINE.tick_upper, MINE.liquidity, *inside)
    assert min(fees) > 0
    assert world.owed(MINE) == (MINE.owed0 + fees[0], MINE.owed1 + fees[1])
    assert world.price == pytest.approx(KEY.price(twin.sqrt_price_x96))
    assert world.oracle_price == 2000.0


@pytest.mark.parametrize(
    "wrong",
    [
        head(13),
        replace(head(12), parent_hash="0xother"),
        replace(head(11), hash="0xother"),
        head(5),
    ],
)
def test_a_head_that_does_not_follow_breaks_the_world_until_a_snapshot(wrong: Head) -> None:
    world = ready()
    with pytest.raises(ChainBroken) as broken:
        world.apply(wrong)
    assert str(wrong.number) in str(broken.value)
    for part in ("head", "pool", "oracle", "holdings", "parameters"):
        with pytest.raises(ChainBroken):
            getattr(world, part)
    world.apply(replace(head(14), number=14))  # no second alarm, and no way back by heads alone
    assert world.stale is broken.value
    heal(world, 14)
    assert world.stale is None
    assert world.head == head(14)


def heal(world: World, block: int) -> None:
    for event in (
        replace(START, block=block),
        Holdings(block, 1, 1, 1, ()),
        OracleUpdated(block, 0, FEED, 1, 0, 1),
        replace(GOVERNED, block=block),
        head(block),
    ):
        world.apply(event)


def test_a_reorganisation_forgets_everything_that_may_be_undone() -> None:
    world = ready()
    world.apply(ModelPublished(11, 1, "ab", 0, 0))
    with pytest.raises(Reorganisation):
        tell(world, Reorganised(10))
    assert isinstance(world.stale, Reorganisation)
    assert world.models.live(10**9) is None
    world.apply(replace(START, block=11))
    for part in ("head", "oracle", "holdings", "parameters"):
        with pytest.raises(NotYetKnown):
            getattr(world, part)
    heal(world, 11)
    assert world.stale is None


def tell(world: World, event: Event) -> None:
    world.apply(event)
    if world.stale is not None:
        raise world.stale


def test_a_log_that_the_replica_does_not_reproduce_breaks_the_world() -> None:
    world = ready()
    log = swap(world, 12, 0, True, 10**18)
    with pytest.raises(ReplicaDiverged):
        world.apply(replace(log, amount1=log.amount1 + 1))
    with pytest.raises(ReplicaDiverged):
        _ = world.pool


def test_a_torn_snapshot_changes_nothing() -> None:
    world = ready()
    before = world.pool.snapshot(0)
    with pytest.raises(SnapshotTorn):
        world.apply(replace(START, liquidity=1))
    assert world.pool.snapshot(0) == before


def test_a_log_or_head_told_twice_counts_once() -> None:
    world = ready()
    log = swap(world, 12, 0, True, 10**18)
    world.apply(log)
    price = world.price
    world.apply(log)
    world.apply(head(12))
    world.apply(head(12))
    assert world.price == price
    world.apply(head(13, 100_000))
    (bar, *_) = world.take_bars()
    assert bar.notional_usd == pytest.approx(-log.amount1 / 1e6)


def test_logs_up_to_the_snapshot_are_in_it_already() -> None:
    world = ready()
    log = swap(world, 12, 0, True, 10**18)
    heal(world, 20)
    before = world.pool.snapshot(0)
    world.apply(log)
    assert world.pool.snapshot(0) == before


def test_a_head_of_before_the_snapshot_says_nothing() -> None:
    world = World(KEY, FEED)
    world.apply(START)
    world.apply(head(9))
    assert isinstance(world.stale, NotYetKnown)
    with pytest.raises(ChainBroken):
        world.apply(head(12))


def test_another_feeds_answer_is_not_ours() -> None:
    world = ready()
    world.apply(OracleUpdated(12, 0, "0xother", 1, 0, 1))
    assert world.oracle_price == 2000.0


# models

PUBLISHED = st.lists(
    st.tuples(st.integers(1, 5), st.sampled_from("abc"), st.integers(0, 100)), max_size=6
)


@given(published=PUBLISHED, revoked=st.sets(st.integers(1, 5)), now_s=st.integers(0, 100))
def test_live_is_the_newest_activated_and_unrevoked(
    published: list[tuple[int, str, int]], revoked: set[int], now_s: int
) -> None:
    models = Models()
    for version, sha, live_from_s in published:
        models.published[version] = ModelPublished(1, version, sha, live_from_s, 0)
    models.revoked = revoked
    known = list(models.published.values())
    active = [m for m in known if m.live_from_s <= now_s and m.version not in revoked]
    live = models.live(now_s)
    assert (live is None) == (not active)
    if live is not None:
        assert all(m.version <= live.version for m in active)
    for sha in "abcd":
        standing = models.standing(sha, now_s)
        assert (standing == "live") == (live is not None and live.sha256 == sha)
        assert (standing == "unpublished") == (sha not in {m.sha256 for m in known})


def test_standings() -> None:
    models = Models()
    models.published = {v: ModelPublished(1, v, f"m{v}", 10 * v, 0) for v in (1, 2, 3)}
    assert [models.standing(f"m{v}", 25) for v in (1, 2, 3)] == ["superseded", "live", "pending"]
    models.revoked = {2}
    assert [models.standing(f"m{v}", 25) for v in (1, 2, 3)] == ["live", "revoked", "pending"]
    assert models.standing("m4", 25) == "unpublished"


def test_revocation_reaches_the_world() -> None:
    world = ready()
    world.apply(ModelPublished(11, 1, "ab", 0, 0))
    assert world.models.standing("ab", 1) == "live"
    world.apply(ModelRevoked(12, 1))
    assert world.models.standing("ab", 1) == "revoked"


# bars


def test_bars_hold_the_trades_of_their_minute() -> None:
    builder = BarBuilder()
    builder.block(605, [(100.0, 10.0), (90.0, 5.0)])
    builder.block(655, [(120.0, 1.0)])
    assert builder.closed == []
    builder.block(660, [(110.0, 2.0)])
    assert builder.closed == [BarClosed(600, 60, 100.0, 120.0, 90.0, 120.0, 16.0)]
    builder.block(720, [])
    assert builder.closed[1] == BarClosed(660, 60, 120.0, 120.0, 110.0, 110.0, 2.0)


def test_minutes_without_a_block_are_flat_and_a_longer_hole_stays() -> None:
    builder = BarBuilder()
    builder.block(0, [(100.0, 1.0)])
    builder.block(300, [])
    builder.block(360, [])
    assert [b.start_s for b in builder.closed] == [0, 60, 120, 180, 240, 300]
    assert all(b.high == b.low == 100.0 for b in builder.closed)
    assert [b.notional_usd for b in builder.closed] == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    builder.closed.clear()
    builder.block(360 + 3 * 86_400, [])
    assert [b.start_s for b in builder.closed] == [360]


def test_bars_go_on_after_history_and_never_back_into_it() -> None:
    builder = BarBuilder()
    builder.history(BarClosed(0, 3600, 1.0, 2.0, 0.5, 1.5, 9.0))
    builder.block(3000, [(7.0, 1.0)])
    builder.block(3720, [(1.6, 1.0)])
    builder.block(3780, [])
    assert [b.start_s for b in builder.closed] == [3600, 3660, 3720]
    assert builder.closed[0] == BarClosed(3600, 60, 1.5, 1.5, 1.5, 1.5, 0.0)
    assert (builder.closed[2].open, builder.closed[2].close) == (1.5, 1.6)


@given(
    blocks=st.lists(
        st.tuples(
            st.integers(0, 200),
            st.lists(st.tuples(st.floats(1, 9), st.floats(0, 9)), max_size=3),
        ),
        max_size=30,
    )
)
def test_bars_are_contiguous_and_lose_no_notional(
    blocks: list[tuple[int, list[tuple[float, float]]]],
) -> None:
    builder, now_s = BarBuilder(), 0
    total, first = 0.0, False
    for step_s, trades in blocks:
        now_s += step_s
        builder.block(now_s, trades)
        first = first or bool(trades)
        total += sum(n for _, n in trades)
    builder.block(now_s + 60, [])
    bars = builder.closed
    assert all(b.start_s == a.start_s + 60 and b.open == a.close for a, b in pairwise(bars))
    assert all(b.low <= min(b.open, b.close) <= max(b.open, b.close) <= b.high for b in bars)
    assert sum(b.notional_usd for b in bars) == pytest.approx(total)
    assert bool(bars) == first


def test_bars_are_made_while_the_world_is_broken() -> None:
    world = ready()
    log = swap(world, 12, 0, True, 10**18)
    with pytest.raises(Reorganisation):
        tell(world, Reorganised(11))
    world.apply(replace(log, block=13))
    world.apply(head(13, 100_020))
    world.apply(head(14, 100_080))
    bars = world.take_bars()
    assert bars[-1].start_s == 100_020
    assert bars[-1].notional_usd > 0


def test_stale_says_what_to_do() -> None:
    for stale in (NotYetKnown("pool"), ChainBroken(1, "a", "b"), Reorganisation(3)):
        assert isinstance(stale, Stale)
        assert str(stale).count(".") >= 2
