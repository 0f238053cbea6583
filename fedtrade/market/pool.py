"""An exact replica of one Uniswap v3 pool: the same integers as the contract, to the last unit.

The agent decides on this replica and never on a remote quote, so the replica must be the pool. It
starts from a snapshot, replays every Swap, Mint and Burn, and compares each result with what the
log says; the first difference is `ReplicaDiverged`, and the caller takes a new snapshot.

`swap` walks as the contract walks: a step ends at the next initialised tick, at the end of a word
of 256 ticks of the bitmap, or at the price limit, and each step rounds on its own. Fee growth is
kept globally and outside each tick modulo 2**256, so fees owed to a position are exact too. Quotes
read the same profile through `ladder`, which caches whole rungs; tests hold the two equal.

A Swap log carries neither its limit nor what was asked. It need not: between two stops the amounts
follow from the prices, so the final price and the amounts fix the state. `apply` asks in turn for
that input without a limit, for that price as a limit, and for that output without a limit;
whichever reproduces the log in full has moved the pool exactly as the chain did.

What logs do not show, and a snapshot must bring: fees of flash loans, and a protocol fee, which the
replica does not model and refuses. Reference: Uniswap v3 whitepaper (2021), section 6.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedtrade.errors import BadInput, Fault, Refusal, Stale
from fedtrade.market.events import LiquidityChanged, PoolSnapshot, Swapped
from fedtrade.market.instruments import PoolKey
from fedtrade.market.ladder import HIGHEST_LIMIT, LOWEST_LIMIT, Ladder, SwapResult
from fedtrade.market.tick_math import (
    MAX_TICK,
    MIN_TICK,
    UINT128_MAX,
    UINT256_MAX,
    OutOfDomain,
    amounts_for_liquidity,
    liquidity_for_amounts,
    sqrt_ratio_at_tick,
    swap_step,
    tick_at_sqrt_ratio,
)
from fedtrade.market.tick_table import TickTable

__all__ = [
    "OutOfDomain",
    "Pool",
    "ProtocolFeeOn",
    "ReplicaDiverged",
    "SnapshotTorn",
    "SwapResult",
    "amounts_for_liquidity",
    "liquidity_for_amounts",
    "refuse_protocol_fee",
    "sqrt_ratio_at_tick",
    "tick_at_sqrt_ratio",
]

_UNBOUNDED = (1 << 255) - 1


class ReplicaDiverged(Stale):
    """A log says something else than the replica computes; the replica is unchanged."""

    def __init__(
        self, pool: str, block: int, log_index: int, expected: object, computed: object
    ) -> None:
        super().__init__(
            f"pool {pool} diverged at block {block}, log {log_index}: the log says {expected}, the "
            f"replica computes {computed}. Take a new snapshot of the pool and replay from there."
        )
        self.pool = pool
        self.block = block
        self.log_index = log_index
        self.expected = expected
        self.computed = computed


class SnapshotTorn(Stale):
    """The parts of a snapshot do not belong together (read across blocks, or cut short)."""

    def __init__(self, pool: str, block: int, problem: str) -> None:
        super().__init__(
            f"snapshot of pool {pool} at block {block} is torn: {problem}. "
            "Read it again at one block."
        )
        self.pool = pool
        self.block = block
        self.problem = problem


class ProtocolFeeOn(Fault):
    """The pool hands part of its fees to the protocol; the replica would credit it to positions."""

    def __init__(self, pool: str, fee_protocol: int) -> None:
        super().__init__(
            f"pool {pool} has its protocol fee on (slot0.feeProtocol {fee_protocol}), which the "
            "replica does not model. Use a pool without one."
        )
        self.pool = pool
        self.fee_protocol = fee_protocol


def refuse_protocol_fee(pool: str, fee_protocol: int) -> None:
    """Raise where slot0.feeProtocol is not zero; whoever reads a snapshot calls this first."""
    if fee_protocol:
        raise ProtocolFeeOn(pool, fee_protocol)


@dataclass(slots=True)
class _Walk:
    """A swap that has been computed and not yet booked."""

    result: SwapResult
    fee_growth_x128: int
    """Global fee growth of the token sold, after the swap."""
    crossings: list[tuple[int, int]]
    """(tick, global fee growth of the token sold when it was crossed)."""


class Pool:
    """The mutable replica; `swap`, `change_liquidity` and `apply` change it, nothing else does."""

    def __init__(self, key: PoolKey, snapshot: PoolSnapshot) -> None:
        self.key = key
        self.sqrt_price_x96 = snapshot.sqrt_price_x96
        self.tick = snapshot.tick
        self.liquidity = snapshot.liquidity
        self.fee_growth_global0_x128 = snapshot.fee_growth_global0_x128
        self.fee_growth_global1_x128 = snapshot.fee_growth_global1_x128
        self._ticks = TickTable(key.tick_spacing, snapshot.ticks)
        self._ladders: dict[bool, Ladder] = {}
        span = MAX_TICK // key.tick_spacing * 2 + 1
        self.max_liquidity_per_tick = UINT128_MAX // span
        self._refuse_torn(snapshot)

    def _refuse_torn(self, snapshot: PoolSnapshot) -> None:
        problem = self._ticks.flaw() or self._flaw()
        if problem:
            raise SnapshotTorn(self.key.address, snapshot.block, problem)

    def _flaw(self) -> str:
        """Return in words what does not fit the ticks, or nothing."""
        active = self._ticks.active(self.tick)
        if active != self.liquidity:
            return f"its ticks put {active} in range, its liquidity is {self.liquidity}"
        standing = tick_at_sqrt_ratio(self.sqrt_price_x96)
        # After a downward crossing the tick is one below the one that the price stands on.
        crossed = sqrt_ratio_at_tick(standing) == self.sqrt_price_x96
        if self.tick != standing and not (crossed and self.tick == standing - 1):
            return f"its tick is {self.tick}, its price stands at tick {standing}"
        return ""

    def snapshot(self, block: int) -> PoolSnapshot:
        """Return the whole state as of `block`."""
        return PoolSnapshot(
            block=block,
            pool=self.key.address,
            sqrt_price_x96=self.sqrt_price_x96,
            tick=self.tick,
            liquidity=self.liquidity,
            fee_growth_global0_x128=self.fee_growth_global0_x128,
            fee_growth_global1_x128=self.fee_growth_global1_x128,
            ticks=self._ticks.rows(),
        )

    # Quotes: nothing changes.

    def quote_exact_input(
        self, zero_for_one: bool, amount_in: int, sqrt_price_limit_x96: int | None = None
    ) -> SwapResult:
        """Return what selling `amount_in` would do; filled in part where liquidity or limit end."""
        limit = self._limit(zero_for_one, amount_in, sqrt_price_limit_x96)
        ladder = self._ladders.get(zero_for_one) or self._build_ladder(zero_for_one)
        return ladder.exact_input(self.sqrt_price_x96, self.tick, amount_in, limit)

    def quote_exact_output(
        self, zero_for_one: bool, amount_out: int, sqrt_price_limit_x96: int | None = None
    ) -> SwapResult:
        """Return what buying `amount_out` would do; filled in part where liquidity or limit end.

        QuoterV2 without a limit reverts where the pool would fill in part: compare the amount.
        """
        limit = self._limit(zero_for_one, amount_out, sqrt_price_limit_x96)
        ladder = self._ladders.get(zero_for_one) or self._build_ladder(zero_for_one)
        return ladder.exact_output(self.sqrt_price_x96, self.tick, amount_out, limit)

    def _build_ladder(self, zero_for_one: bool) -> Ladder:
        key = self.key
        ladder = Ladder(zero_for_one, key.fee_pips, key.tick_spacing, self._ticks.nets())
        self._ladders[zero_for_one] = ladder
        return ladder

    def _limit(self, zero_for_one: bool, amount: int, limit: int | None) -> int:
        if not 0 < amount <= _UNBOUNDED:
            raise BadInput(
                f"pool {self.key.address}",
                f"amount {amount} is not in 1..2**255-1",
                "Ask for a positive one.",
            )
        if limit is None:
            limit = LOWEST_LIMIT if zero_for_one else HIGHEST_LIMIT
        price = self.sqrt_price_x96
        if zero_for_one:
            if LOWEST_LIMIT <= limit < price:
                return limit
        elif price < limit <= HIGHEST_LIMIT:
            return limit
        side = "below" if zero_for_one else "above"
        raise BadInput(
            f"pool {self.key.address}",
            f"price limit {limit} is not {side} the price {price} and within the domain",
            "Give a limit on the side to which the swap moves the price.",
        )

    # Swaps.

    def swap(
        self, zero_for_one: bool, amount_specified: int, sqrt_price_limit_x96: int | None = None
    ) -> SwapResult:
        """Swap and book it: `amount_specified` > 0 is an exact input, < 0 an exact output."""
        walk = self._walk(zero_for_one, amount_specified, sqrt_price_limit_x96)
        self._book(zero_for_one, walk)
        return walk.result

    def _walk(self, zero_for_one: bool, amount_specified: int, limit: int | None) -> _Walk:
        limit = self._limit(zero_for_one, abs(amount_specified), limit)
        price, tick, liquidity = self.sqrt_price_x96, self.tick, self.liquidity
        growth = self.fee_growth_global0_x128 if zero_for_one else self.fee_growth_global1_x128
        exact_input = amount_specified > 0
        remaining, taken, given = amount_specified, 0, 0
        crossings: list[tuple[int, int]] = []
        while remaining and price != limit:
            stop, initialised = self._ticks.next_stop(tick, zero_for_one)
            stop_price = sqrt_ratio_at_tick(stop)
            target = max(stop_price, limit) if zero_for_one else min(stop_price, limit)
            before = price
            price, amount_in, amount_out, fee = swap_step(
                price, target, liquidity, remaining, self.key.fee_pips, zero_for_one
            )
            taken += amount_in + fee
            given += amount_out
            remaining += -(amount_in + fee) if exact_input else amount_out
            if liquidity:
                growth = growth + (fee << 128) // liquidity & UINT256_MAX
            if price == stop_price:
                if initialised:
                    crossings.append((stop, growth))
                    net = self._ticks.net(stop)
                    liquidity += -net if zero_for_one else net
                tick = stop - 1 if zero_for_one else stop
            elif price != before:
                tick = tick_at_sqrt_ratio(price)
        amounts = (taken, -given) if zero_for_one else (-given, taken)
        result = SwapResult(*amounts, price, tick, liquidity, len(crossings))
        return _Walk(result, growth, crossings)

    def _book(self, zero_for_one: bool, walk: _Walk) -> None:
        result = walk.result
        for at, growth in walk.crossings:
            if zero_for_one:
                self._ticks.cross(at, growth, self.fee_growth_global1_x128)
            else:
                self._ticks.cross(at, self.fee_growth_global0_x128, growth)
        if zero_for_one:
            self.fee_growth_global0_x128 = walk.fee_growth_x128
        else:
            self.fee_growth_global1_x128 = walk.fee_growth_x128
        self.sqrt_price_x96 = result.sqrt_price_x96
        self.tick = result.tick
        self.liquidity = result.liquidity

    # Liquidity.

    def change_liquidity(
        self, tick_lower: int, tick_upper: int, liquidity_delta: int
    ) -> tuple[int, int]:
        """Mint (delta > 0) or burn (< 0) and return the amounts, both >= 0, as the log has them."""
        amounts = self._liquidity_amounts(tick_lower, tick_upper, liquidity_delta)
        self._book_liquidity(tick_lower, tick_upper, liquidity_delta)
        return amounts

    def _liquidity_amounts(self, lower: int, upper: int, delta: int) -> tuple[int, int]:
        """Return the amounts of a change that the pool would accept; refuse one it would revert."""
        spacing = self.key.tick_spacing
        if not MIN_TICK <= lower < upper <= MAX_TICK or lower % spacing or upper % spacing:
            raise BadInput(
                f"pool {self.key.address}",
                f"[{lower}, {upper}) is no range of multiples of {spacing} within the tick domain",
                "Align the range to the pool's tick spacing.",
            )
        for at in (lower, upper):
            held = self._ticks.gross(at)
            if not 0 <= held + delta <= self.max_liquidity_per_tick:
                raise BadInput(
                    f"pool {self.key.address}",
                    f"tick {at} holds {held} of {self.max_liquidity_per_tick}, not {delta} more",
                    "Change the liquidity by less.",
                )
        return amounts_for_liquidity(self.sqrt_price_x96, lower, upper, abs(delta), delta > 0)

    def _book_liquidity(self, lower: int, upper: int, delta: int) -> None:
        if delta == 0:
            return
        growth = (self.fee_growth_global0_x128, self.fee_growth_global1_x128)
        for at, net in ((lower, delta), (upper, -delta)):
            self._ticks.change(at, delta, net, growth if at <= self.tick else (0, 0))
        if lower <= self.tick < upper:
            self.liquidity += delta
        self._ladders.clear()

    # Fees.

    def fee_growth_inside(self, tick_lower: int, tick_upper: int) -> tuple[int, int]:
        """Return the fees per unit of liquidity inside a range, Q128 modulo 2**256, per token."""
        growth = (self.fee_growth_global0_x128, self.fee_growth_global1_x128)
        return self._ticks.inside(tick_lower, tick_upper, self.tick, growth)

    def fees_owed(
        self,
        tick_lower: int,
        tick_upper: int,
        liquidity: int,
        inside0_last_x128: int,
        inside1_last_x128: int,
    ) -> tuple[int, int]:
        """Return the fees of a position since its fee growth inside was last booked on-chain.

        Modulo 2**128, as the contract books them.
        """
        inside0, inside1 = self.fee_growth_inside(tick_lower, tick_upper)
        return (
            (inside0 - inside0_last_x128 & UINT256_MAX) * liquidity >> 128 & UINT128_MAX,
            (inside1 - inside1_last_x128 & UINT256_MAX) * liquidity >> 128 & UINT128_MAX,
        )

    # Replay.

    def apply(self, event: Swapped | LiquidityChanged) -> None:
        """Replay a log of this pool; raise `ReplicaDiverged`, unchanged, where results differ."""
        if event.pool != self.key.address:
            raise ReplicaDiverged(
                self.key.address, event.block, event.log_index, event.pool, self.key.address
            )
        if isinstance(event, Swapped):
            self._apply_swap(event)
        else:
            self._apply_liquidity(event)

    def _apply_liquidity(self, event: LiquidityChanged) -> None:
        lower, upper, delta = event.tick_lower, event.tick_upper, event.liquidity_delta
        expected = (event.amount0, event.amount1)
        computed: object
        try:
            computed = self._liquidity_amounts(lower, upper, delta)
        except Refusal as refusal:
            computed = refusal.message
        if computed != expected:
            raise ReplicaDiverged(event.pool, event.block, event.log_index, expected, computed)
        self._book_liquidity(lower, upper, delta)

    def _apply_swap(self, event: Swapped) -> None:
        price = event.sqrt_price_x96
        expected = (event.amount0, event.amount1, price, event.tick, event.liquidity)
        if event.amount0 == 0 == event.amount1:
            zero_for_one = price < self.sqrt_price_x96
        else:
            zero_for_one = event.amount0 > 0 or event.amount1 < 0
        taken = max(event.amount0, event.amount1, 0)
        given = min(event.amount0, event.amount1, 0)
        computed: object = "no swap"
        for amount, limit in ((taken, None), (_UNBOUNDED, price), (given, None)):
            try:
                walk = self._walk(zero_for_one, amount, limit)
            except Refusal as refusal:
                computed = refusal.message
                continue
            result = walk.result
            computed = (
                result.amount0, result.amount1, result.sqrt_price_x96, result.tick, result.liquidity
            )  # fmt: skip
            if computed == expected:
                self._book(zero_for_one, walk)
                return
        raise ReplicaDiverged(event.pool, event.block, event.log_index, expected, computed)
