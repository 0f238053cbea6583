"""Quotes against one fixed liquidity profile of a Uniswap v3 pool, fast and exact.

A swap walks from stop to stop. Stops are the initialised ticks *and* the ends of the 256-tick words
of the pool's bitmap: the contract ends a step there too, and every step rounds, so leaving them out
is off by a unit now and then. Going down the word ends at its first tick, going up at its last, so
each direction has a ladder of its own.

Liquidity between two stops depends on the positions only, never on the path, so what a whole rung
takes and gives is computed once. With fee f (in 1e-6) and `need` the input before fee of a rung,

    cost = need + ceil(need * f / (1e6 - f)) = ceil(need * 1e6 / (1e6 - f))

and floor(rest * (1e6 - f) / 1e6) >= need exactly when rest >= cost: comparing `cost` with what is
left decides as the contract decides. A quote is a partial rung, a run of whole rungs (a comparison
and two additions each), and a partial rung.

Invariant: a quote equals what `Pool.swap` does to the same pool, which walks the contract's way.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from functools import lru_cache
from itertools import accumulate
from operator import neg
from typing import NamedTuple

from fedtrade.market.tick_math import (
    MAX_SQRT_RATIO,
    MAX_TICK,
    MIN_SQRT_RATIO,
    MIN_TICK,
    PIPS,
    price_after_input,
    price_after_output,
    sqrt_ratio_at_tick,
    tick_at_sqrt_ratio,
)

LOWEST_LIMIT = MIN_SQRT_RATIO + 1
HIGHEST_LIMIT = MAX_SQRT_RATIO - 1


class SwapResult(NamedTuple):
    """A swap from the pool's side: positive amounts are paid in, negative ones paid out.

    A named tuple because one is made per quote, and a frozen dataclass takes five times as long.
    """

    amount0: int
    amount1: int
    sqrt_price_x96: int
    tick: int
    liquidity: int
    ticks_crossed: int
    """Initialised ticks whose liquidity was switched on or off on the way."""


@lru_cache(maxsize=64)
def word_ends(tick_spacing: int, zero_for_one: bool) -> tuple[int, ...]:
    """Return, ascending, the ticks inside the domain at which a step ends in this direction."""
    width = 256 * tick_spacing
    offset = 0 if zero_for_one else 255 * tick_spacing
    first = (MIN_TICK - offset) // width + 1
    last = -((offset - MAX_TICK) // width) - 1
    return tuple(word * width + offset for word in range(first, last + 1))


class Ladder:
    """One direction of one liquidity profile. Index i of every list is the i-th stop on the way."""

    __slots__ = (
        "_costs",
        "_crossed",
        "_keep",
        "_keys",
        "_liquidity",
        "_outputs",
        "_ratios",
        "_stops",
        "_zero_for_one",
    )

    def __init__(
        self,
        zero_for_one: bool,
        fee_pips: int,
        tick_spacing: int,
        liquidity_net: Mapping[int, int],
    ) -> None:
        ends = word_ends(tick_spacing, zero_for_one)
        stops = sorted({MIN_TICK, MAX_TICK, *ends, *liquidity_net})
        below = list(accumulate(liquidity_net.get(stop, 0) for stop in stops))
        ratios = [sqrt_ratio_at_tick(stop) for stop in stops]
        # The extreme ticks are never reached: the price stops one unit before.
        ratios[0], ratios[-1] = LOWEST_LIMIT, HIGHEST_LIMIT
        if zero_for_one:
            stops.reverse()
            below.reverse()
            ratios.reverse()
        else:
            below = [0, *below[:-1]]
        self._zero_for_one = zero_for_one
        self._keep = PIPS - fee_pips
        self._stops = stops
        self._keys = [-stop for stop in stops] if zero_for_one else stops
        self._ratios = ratios
        self._liquidity = below
        """Liquidity in force on arriving at the stop."""
        self._crossed = [0, *accumulate(int(stop in liquidity_net) for stop in stops)]
        self._costs = [-1] * len(stops)
        """Input with fee of a whole rung; -1 where it has not been needed yet."""
        self._outputs = [0] * len(stops)

    def exact_input(self, sqrt_price: int, tick: int, amount: int, limit: int) -> SwapResult:
        """Sell up to `amount`; less where the limit or the end of all liquidity comes first."""
        start, last = self._span(tick, limit)
        ratios, outputs, costs = self._ratios, self._outputs, self._costs
        rest, given, rung, here = amount, 0, start, sqrt_price
        target = ratios[start] if start < last else limit
        cost, output = self._whole(here, target, self._liquidity[start])
        if cost < rest and start < last:
            rest -= cost
            given = output
            rung += 1
            while rung < last:
                cost = costs[rung]
                if cost < 0:
                    cost = self._fill(rung)
                if cost >= rest:
                    break
                rest -= cost
                given += outputs[rung]
                rung += 1
            here = ratios[rung - 1]
            if rung < last:
                target, output = ratios[rung], outputs[rung]
            else:
                target = limit
                cost, output = self._whole(here, limit, self._liquidity[rung])
        if cost <= rest:
            rest -= cost
            price = target
        else:
            price, output = self._part(here, self._liquidity[rung], rest)
            rest = 0
        return self._result(amount - rest, given + output, here, price, start, rung, tick)

    def exact_output(self, sqrt_price: int, tick: int, amount: int, limit: int) -> SwapResult:
        """Buy up to `amount`; less where the limit or the end of all liquidity comes first."""
        start, last = self._span(tick, limit)
        ratios, outputs, costs = self._ratios, self._outputs, self._costs
        rest, taken, rung, here = amount, 0, start, sqrt_price
        price = ratios[start] if start < last else limit
        cost, output = self._whole(here, price, self._liquidity[start])
        if output < rest and start < last:
            rest -= output
            taken = cost
            rung += 1
            while rung < last:
                cost = costs[rung]
                if cost < 0:
                    cost = self._fill(rung)
                output = outputs[rung]
                if output >= rest:
                    break
                rest -= output
                taken += cost
                rung += 1
            here = ratios[rung - 1]
            if rung < last:
                price = ratios[rung]
            else:
                price = limit
                cost, output = self._whole(here, limit, self._liquidity[rung])
        if output > rest:
            # The rounded price may land on the target all the same; the output is then capped.
            liquidity = self._liquidity[rung]
            price = price_after_output(here, liquidity, rest, self._zero_for_one)
            cost, _ = self._whole(here, price, liquidity)
            output = rest
        rest -= output
        return self._result(taken + cost, amount - rest, here, price, start, rung, tick)

    def _span(self, tick: int, limit: int) -> tuple[int, int]:
        """Return the first stop from `tick`, and the first stop at or beyond the limit."""
        if self._zero_for_one:
            start = bisect_left(self._keys, -tick)
            if limit == LOWEST_LIMIT:
                return start, len(self._stops) - 1
            return start, bisect_left(self._ratios, -limit, start, key=neg)
        start = bisect_right(self._keys, tick)
        if limit == HIGHEST_LIMIT:
            return start, len(self._stops) - 1
        return start, bisect_left(self._ratios, limit, start)

    def _whole(self, here: int, target: int, liquidity: int) -> tuple[int, int]:
        """Return the input with fee and the output of going all the way to `target`."""
        if self._zero_for_one:
            distance = here - target
            need = -(-(liquidity << 96) * distance // (here * target))
            return -(-need * PIPS // self._keep), liquidity * distance >> 96
        distance = target - here
        need = -(-liquidity * distance >> 96)
        return -(-need * PIPS // self._keep), (liquidity << 96) * distance // (here * target)

    def _part(self, here: int, liquidity: int, amount: int) -> tuple[int, int]:
        """Return the price and the output of an input that ends within a rung."""
        usable = amount * self._keep // PIPS
        if self._zero_for_one:
            price = price_after_input(here, liquidity, usable, True)
            return price, liquidity * (here - price) >> 96
        price = here + (usable << 96) // liquidity
        return price, (liquidity << 96) * (price - here) // (price * here)

    def _fill(self, rung: int) -> int:
        cost, output = self._whole(
            self._ratios[rung - 1], self._ratios[rung], self._liquidity[rung]
        )
        self._costs[rung] = cost
        self._outputs[rung] = output
        return cost

    def _result(
        self, taken: int, given: int, here: int, price: int, start: int, rung: int, tick: int
    ) -> SwapResult:
        """Settle where the walk ended: on a stop (crossed), within a rung, or where it began."""
        down = self._zero_for_one
        if price == self._ratios[rung] and rung + 1 < len(self._stops):
            rung += 1
            final_tick = self._stops[rung - 1] - down
        elif price != here:
            final_tick = tick_at_sqrt_ratio(price)
        else:
            final_tick = self._stops[rung - 1] - down if rung > start else tick
        crossed = self._crossed[rung] - self._crossed[start]
        liquidity = self._liquidity[rung]
        if down:
            return SwapResult(taken, -given, price, final_tick, liquidity, crossed)
        return SwapResult(-given, taken, price, final_tick, liquidity, crossed)
