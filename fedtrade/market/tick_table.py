"""The initialised ticks of one Uniswap v3 pool: liquidity, fee growth outside, next stop.

A tick is initialised while some position begins or ends on it. `net` is what crossing it upward
adds to the liquidity in force. `outside` is the fee growth per unit of liquidity on the far side of
the tick as seen from the price; crossing turns it over (whitepaper section 6.3). A new tick takes
all growth so far as having happened below it, a convention that cancels out of every difference.

Invariants: the net of all ticks sums to zero; `initialised` ascends and has the keys of the table;
fee growth is modulo 2**256.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from fedtrade.market.tick_math import MAX_TICK, MIN_TICK, UINT256_MAX

TickRow = tuple[int, int, int, int, int]
"""(tick, liquidity gross, liquidity net, fee growth outside 0, fee growth outside 1)"""


@dataclass(slots=True)
class _Tick:
    gross: int
    net: int
    outside0: int
    outside1: int


class TickTable:
    """Mutable; the pool that owns it decides when a tick is crossed or changed."""

    def __init__(self, spacing: int, rows: Iterable[TickRow]) -> None:
        self.spacing = spacing
        self._ticks = {at: _Tick(*fields) for at, *fields in rows}
        self.initialised = list(self._ticks)

    def flaw(self) -> str:
        """Return in words what makes this table impossible, or nothing."""
        if any(left >= right for left, right in pairwise(self.initialised)):
            return "its ticks do not ascend"
        if any(at % self.spacing or not MIN_TICK <= at <= MAX_TICK for at in self.initialised):
            return f"a tick is not a multiple of the spacing {self.spacing} within the domain"
        if any(tick.gross <= 0 for tick in self._ticks.values()):
            return "an initialised tick has no liquidity"
        if sum(tick.net for tick in self._ticks.values()):
            return "the net liquidity of its ticks does not sum to zero"
        return ""

    def rows(self) -> tuple[TickRow, ...]:
        """Return everything, ascending."""
        ticks = ((at, self._ticks[at]) for at in self.initialised)
        return tuple((at, t.gross, t.net, t.outside0, t.outside1) for at, t in ticks)

    def nets(self) -> dict[int, int]:
        return {at: tick.net for at, tick in self._ticks.items()}

    def active(self, tick: int) -> int:
        """Return the liquidity in force at a tick."""
        return sum(entry.net for at, entry in self._ticks.items() if at <= tick)

    def gross(self, at: int) -> int:
        return self._ticks[at].gross if at in self._ticks else 0

    def net(self, at: int) -> int:
        return self._ticks[at].net

    def outside(self, at: int) -> tuple[int, int]:
        """Return the fee growth outside a tick; zeros where it is not initialised, as on-chain."""
        tick = self._ticks.get(at)
        return (tick.outside0, tick.outside1) if tick else (0, 0)

    def inside(self, lower: int, upper: int, tick: int, growth: tuple[int, int]) -> tuple[int, int]:
        """Return the fee growth inside [lower, upper) per token, given the global growths."""
        inside = []
        for total, out_lower, out_upper in zip(
            growth, self.outside(lower), self.outside(upper), strict=True
        ):
            below = out_lower if tick >= lower else total - out_lower
            above = out_upper if tick < upper else total - out_upper
            inside.append(total - below - above & UINT256_MAX)
        return inside[0], inside[1]

    def next_stop(self, tick: int, zero_for_one: bool) -> tuple[int, bool]:
        """Return where a step from `tick` ends, and whether that tick is initialised.

        Down: the first initialised tick at or below, or the first of the 256 ticks of this word of
        the bitmap. Up: the first initialised tick above, or the last of its word.
        """
        compressed = tick // self.spacing
        if zero_for_one:
            end = max((compressed >> 8 << 8) * self.spacing, MIN_TICK)
            index = bisect_right(self.initialised, tick) - 1
            if index >= 0 and self.initialised[index] >= end:
                return self.initialised[index], True
        else:
            end = min((compressed + 1 | 255) * self.spacing, MAX_TICK)
            index = bisect_right(self.initialised, tick)
            if index < len(self.initialised) and self.initialised[index] <= end:
                return self.initialised[index], True
        return end, False

    def cross(self, at: int, growth0_x128: int, growth1_x128: int) -> None:
        """Turn the outside over; the growths are the global ones at the moment of crossing."""
        tick = self._ticks[at]
        tick.outside0 = growth0_x128 - tick.outside0 & UINT256_MAX
        tick.outside1 = growth1_x128 - tick.outside1 & UINT256_MAX

    def change(self, at: int, gross_delta: int, net_delta: int, below: tuple[int, int]) -> None:
        """Add to a tick; a new one starts with `below` outside, an emptied one is forgotten."""
        tick = self._ticks.get(at)
        if tick is None:
            tick = self._ticks[at] = _Tick(0, 0, *below)
            insort(self.initialised, at)
        tick.gross += gross_delta
        tick.net += net_delta
        if tick.gross == 0:
            del self._ticks[at]
            del self.initialised[bisect_left(self.initialised, at)]
