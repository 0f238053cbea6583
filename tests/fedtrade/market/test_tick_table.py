"""The table of ticks: where a step ends (against the bitmap of the contract), crossing, growth."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.market.tick_math import MAX_TICK, MIN_TICK, UINT256_MAX
from fedtrade.market.tick_table import TickTable

spacings = st.sampled_from([1, 10, 60, 200])


def table_of(spacing: int, initialised: set[int]) -> TickTable:
    return TickTable(spacing, [(at, 1, 0, 0, 0) for at in sorted(initialised)])


def next_by_bitmap(
    initialised: set[int], spacing: int, tick: int, zero_for_one: bool
) -> tuple[int, bool]:
    """Search one word of the bitmap bit by bit, as the whitepaper tells it (section 6.2.3)."""
    bits = {at // spacing for at in initialised}
    position = tick // spacing
    if zero_for_one:
        word = position >> 8
        reach = range(position, (word << 8) - 1, -1)
    else:
        word = position + 1 >> 8
        reach = range(position + 1, (word << 8) + 256)
    for bit in reach:
        if bit in bits:
            return bit * spacing, True
    return min(max(reach[-1] * spacing, MIN_TICK), MAX_TICK), False


@given(spacings, st.data())
def test_a_step_ends_where_the_bitmap_says(spacing: int, data: st.DataObject) -> None:
    tick = data.draw(st.integers(MIN_TICK, MAX_TICK - 1))
    near = st.integers(-600, 600).map(lambda step: (tick // spacing + step) * spacing)
    anywhere = st.integers(MIN_TICK // spacing + 1, MAX_TICK // spacing).map(lambda n: n * spacing)
    drawn = data.draw(st.sets(st.one_of(near, anywhere), max_size=8))
    initialised = {at for at in drawn if MIN_TICK <= at <= MAX_TICK}
    table = table_of(spacing, initialised)
    for zero_for_one in (True, False):
        expected = next_by_bitmap(initialised, spacing, tick, zero_for_one)
        assert table.next_stop(tick, zero_for_one) == expected


@given(
    st.integers(0, UINT256_MAX),
    st.integers(0, UINT256_MAX),
    st.integers(0, UINT256_MAX),
)
def test_crossing_twice_at_one_growth_changes_nothing(
    outside: int, growth0: int, growth1: int
) -> None:
    rows = ((0, 5, 5, outside, outside), (10, 5, -5, 0, 0))
    table = TickTable(10, rows)
    table.cross(0, growth0, growth1)
    assert table.outside(0) == ((growth0 - outside) % 2**256, (growth1 - outside) % 2**256)
    table.cross(0, growth0, growth1)
    assert table.rows() == rows


def test_growth_inside_is_what_happened_between_the_ticks() -> None:
    """Two units of growth below the range, three inside, five above; seen from each place."""
    table = TickTable(10, ((0, 1, 1, 2, 2), (10, 1, -1, 5, 5)))
    assert table.inside(0, 10, 4, (10, 10)) == (3, 3)
    table.cross(10, 10, 10)
    assert table.inside(0, 10, 12, (10, 10)) == (3, 3)
    table.cross(10, 10, 10)
    table.cross(0, 10, 10)
    assert table.inside(0, 10, -3, (10, 10)) == (3, 3)


def test_ticks_come_and_go_with_their_liquidity() -> None:
    table = TickTable(10, ())
    table.change(20, 7, -7, (1, 2))
    table.change(-10, 7, 7, (3, 4))
    table.change(-10, 5, 5, (9, 9))  # an initialised tick keeps its growth
    assert table.rows() == ((-10, 12, 12, 3, 4), (20, 7, -7, 1, 2))
    assert table.initialised == [-10, 20]
    assert (table.gross(-10), table.gross(0), table.net(20)) == (12, 0, -7)
    assert [table.active(tick) for tick in (-11, -10, 19, 20)] == [0, 12, 12, 5]
    table.change(-10, -12, -12, (0, 0))
    assert table.initialised == [20]
    assert table.outside(-10) == (0, 0)
    assert table.nets() == {20: -7}


@pytest.mark.parametrize(
    ("rows", "flaw"),
    [
        ((), ""),
        (((0, 1, 1, 0, 0), (10, 1, -1, 0, 0)), ""),
        (((10, 1, 1, 0, 0), (0, 1, -1, 0, 0)), "ascend"),
        (((0, 1, 1, 0, 0), (5, 1, -1, 0, 0)), "spacing"),
        (((0, 1, 1, 0, 0), (MAX_TICK // 10 * 10 + 10, 1, -1, 0, 0)), "domain"),
        (((0, 1, 1, 0, 0), (10, 0, -1, 0, 0)), "no liquidity"),
        (((0, 1, 1, 0, 0), (10, 1, 0, 0, 0)), "zero"),
    ],
)
def test_flaws(rows: tuple[tuple[int, int, int, int, int], ...], flaw: str) -> None:
    found = TickTable(10, rows).flaw()
    assert flaw in found
    assert bool(flaw) == bool(found)
