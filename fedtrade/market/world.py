"""All that an agent knows of one chain, from events: head, pool, oracle, account, models, parameters.

The world is a set of replicas. Each is either exactly what the chain says at the last `Head`, or it
raises a `Stale` that says why; there is no best guess in between. What breaks it and what heals it:

    a head whose parent is not our head, a gap in heads    ChainBroken      until a PoolSnapshot
    blocks were replaced                                   Reorganisation   arrives, and with it
    a log that the pool replica does not reproduce         ReplicaDiverged  oracle, account, models,
    nothing has been told yet                              NotYetKnown                 parameters

While broken, swaps and heads still make bars (a bar needs prices and no replica), so that history
has no hole after a reconnect. Bars are of one width (a minute) and close at the first head of a
later minute; the open is the previous close, because a pool has a price at every moment, also
between trades. Minutes without a block are filled flat, up to a day; a longer hole stays one.

The live model is judged as `ModelRegistry.live()` does: the newest version that is activated and
not revoked. Time is the head's time stamp; there is no clock in here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar

from fedtrade.errors import BadInput, Stale
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
from fedtrade.market.instruments import PoolKey
from fedtrade.market.pool import Pool

BAR_WIDTH_S: Final = 60
FLAT_FILL_MAX: Final = 24 * 60
"""Bars that may be filled in flat where no block came; more than a day is a hole."""

Part = TypeVar("Part")
Standing = Literal["live", "pending", "superseded", "revoked", "unpublished"]


class NotYetKnown(Stale):
    """A replica that no event has filled yet."""

    def __init__(self, what: str) -> None:
        super().__init__(f"The {what} is not known yet. Wait for its first event.")
        self.what = what


class ChainBroken(Stale):
    """A head does not follow the one we have: blocks were missed or replaced."""

    def __init__(self, number: int, expected: str, got: str) -> None:
        super().__init__(
            f"Block {number} does not follow what we know (expected {expected}, got {got}). "
            "Read a new snapshot."
        )
        self.number = number
        self.expected = expected
        self.got = got


class Reorganisation(Stale):
    """Blocks that we had applied are no longer part of the chain."""

    def __init__(self, block: int) -> None:
        super().__init__(f"Blocks above {block} were replaced. Read a new snapshot.")
        self.block = block


@dataclass(slots=True)
class Models:
    """The registry's publications as events told them."""

    published: dict[int, ModelPublished] = field(default_factory=dict)
    revoked: set[int] = field(default_factory=set)

    def live(self, now_s: int) -> ModelPublished | None:
        """The newest activated version that is not revoked, or None."""
        active = (
            m
            for m in self.published.values()
            if m.live_from_s <= now_s and m.version not in self.revoked
        )
        return max(active, key=lambda m: m.version, default=None)

    def standing(self, sha256: str, now_s: int) -> Standing:
        """What the registry says of a model with this hash at `now_s`."""
        ours = [m for m in self.published.values() if m.sha256 == sha256]
        if not ours:
            return "unpublished"
        live = self.live(now_s)
        if live is not None and live.sha256 == sha256:
            return "live"
        newest = max(ours, key=lambda m: m.version)
        if newest.version in self.revoked:
            return "revoked"
        if live is not None and newest.version < live.version:
            return "superseded"
        return "pending"


@dataclass(slots=True)
class BarBuilder:
    """Trades of whole blocks, with the block's time, to bars of one width."""

    width_s: int = BAR_WIDTH_S
    closed: list[BarClosed] = field(default_factory=list)
    _last_close: float | None = None
    _start_s: int | None = None
    _done_s: int = 0
    """Bars that start before this were given as history."""
    _high: float = 0.0
    _low: float = 0.0
    _open: float = 0.0
    _notional: float = 0.0

    def history(self, bar: BarClosed) -> None:
        """Go on after `bar`, which somebody else made."""
        if bar.start_s + bar.width_s > self._done_s:
            self._done_s = bar.start_s + bar.width_s
            self._last_close = bar.close
            self._start_s = None

    def block(self, timestamp_s: int, trades: list[tuple[float, float]]) -> None:
        """Add a block: (price after the trade, quote notional) of each trade, in order."""
        start_s = timestamp_s - timestamp_s % self.width_s
        if start_s < self._done_s:
            return
        if self._start_s is not None and start_s > self._start_s:
            self._close()
        if self._start_s is None:
            if self._last_close is None:
                if not trades:
                    return
                self._last_close = trades[0][0]
            self._fill_flat(start_s)
            self._start_s = start_s
            self._open = self._high = self._low = self._last_close
            self._notional = 0.0
        for price, notional in trades:
            self._high, self._low = max(self._high, price), min(self._low, price)
            self._last_close = price
            self._notional += notional

    def _close(self) -> None:
        if self._start_s is None or self._last_close is None:
            return
        bar = BarClosed(
            self._start_s, self.width_s, self._open, self._high, self._low, self._last_close,
            self._notional,
        )  # fmt: skip
        self.closed.append(bar)
        self._done_s = self._start_s + self.width_s
        self._start_s = None

    def _fill_flat(self, until_s: int) -> None:
        if not self._done_s or (until_s - self._done_s) // self.width_s > FLAT_FILL_MAX:
            return
        price = self._last_close or 0.0
        for start_s in range(self._done_s, until_s, self.width_s):
            self.closed.append(BarClosed(start_s, self.width_s, price, price, price, price, 0.0))


class World:
    """The replicas of one chain, as one agent needs them; `apply` is the only way in."""

    def __init__(self, key: PoolKey, feed: str, bar_width_s: int = BAR_WIDTH_S) -> None:
        self.key = key
        self.feed = feed
        self.models = Models()
        self._bars = BarBuilder(bar_width_s)
        self._broken: Stale | None = None
        self._head: Head | None = None
        self._pool: Pool | None = None
        self._oracle: OracleUpdated | None = None
        self._holdings: Holdings | None = None
        self._parameters: ParametersSeen | None = None
        self._marks: dict[int, tuple[int, int]] = {}
        self._trades: list[tuple[float, float]] = []
        self._anchor = -1
        """Block of the last snapshot; logs up to it are in the replica already."""
        self._applied = (-1, -1)

    # what is known, or a Stale

    @property
    def stale(self) -> Stale | None:
        """Why nothing may be decided now, or None."""
        if self._broken is not None:
            return self._broken
        for what, part in (
            ("head", self._head),
            ("pool", self._pool),
            ("oracle", self._oracle),
            ("account", self._holdings),
            ("governed parameters", self._parameters),
        ):
            if part is None:
                return NotYetKnown(what)
        return None

    @property
    def head(self) -> Head:
        return self._known(self._head, "head")

    @property
    def pool(self) -> Pool:
        return self._known(self._pool, "pool")

    @property
    def oracle(self) -> OracleUpdated:
        return self._known(self._oracle, "oracle")

    @property
    def holdings(self) -> Holdings:
        return self._known(self._holdings, "account")

    @property
    def parameters(self) -> ParametersSeen:
        return self._known(self._parameters, "governed parameters")

    @property
    def price(self) -> float:
        """Pool price, quote per base in whole units."""
        return self.key.price(self.pool.sqrt_price_x96)

    @property
    def oracle_price(self) -> float:
        """The feed's answer, quote per base in whole units."""
        oracle = self.oracle
        return float(oracle.answer / 10**oracle.decimals)

    def owed(self, position: PositionHeld) -> tuple[int, int]:
        """Uncollected fees of one of our positions now, to the last unit."""
        marks = self._known(self._marks.get(position.token_id), "position's fee growth")
        fee0, fee1 = self.pool.fees_owed(
            position.tick_lower, position.tick_upper, position.liquidity, *marks
        )
        return position.owed0 + fee0, position.owed1 + fee1

    def take_bars(self) -> list[BarClosed]:
        """Bars that have closed since the last call."""
        bars, self._bars.closed = self._bars.closed, []
        return bars

    def refuse_off_grid(self, bar: BarClosed) -> None:
        """Raise where no bar of ours could go on after this one."""
        end_s = bar.start_s + bar.width_s
        if end_s % self._bars.width_s:
            raise BadInput(
                f"bar at {bar.start_s}",
                f"it ends at {end_s}, between two bars of {self._bars.width_s} s",
                "Give candles of whole minutes or hours.",
            )

    def _known(self, part: Part | None, what: str) -> Part:
        if self._broken is not None:
            raise self._broken
        if part is None:
            raise NotYetKnown(what)
        return part

    # what happened

    def apply(self, event: Event) -> None:
        """Take in one event. Raises the Stale with which the world breaks, once."""
        match event:
            case Head():
                self._on_head(event)
            case Swapped() | LiquidityChanged():
                self._on_pool_log(event)
            case PoolSnapshot():
                self._on_snapshot(event)
            case OracleUpdated() if event.feed == self.feed:
                self._oracle = event
            case Holdings():
                self._on_holdings(event)
            case ModelPublished():
                self.models.published[event.version] = event
            case ModelRevoked():
                self.models.revoked.add(event.version)
            case ParametersSeen():
                self._parameters = event
            case BarClosed():
                self._bars.history(event)
            case Reorganised():
                self._forget(Reorganisation(event.block))
            case _:
                pass  # other feeds' answers and settled actions are not part of the world

    def _on_head(self, head: Head) -> None:
        trades, self._trades = self._trades, []
        self._bars.block(head.timestamp_s, trades)
        if self._broken is not None or self._pool is None:
            return
        before = self._head
        if before is None:
            if head.number < self._anchor:
                return  # a head from before the snapshot
            follows = head.number <= self._anchor + 1
            expected = f"at most {self._anchor + 1}"
        else:
            if head.hash == before.hash:
                return  # told twice
            follows = (head.number, head.parent_hash) == (before.number + 1, before.hash)
            expected = f"{before.number + 1} on {before.hash}"
        if not follows:
            broken = ChainBroken(head.number, expected, f"{head.number} on {head.parent_hash}")
            self._forget(broken)
            raise broken
        self._head = head

    def _on_pool_log(self, event: Swapped | LiquidityChanged) -> None:
        at = (event.block, event.log_index)
        if at <= self._applied and event.block > self._anchor:
            return  # told twice
        if isinstance(event, Swapped):
            quote = event.amount1 if self.key.base_is_token0 else event.amount0
            price = self.key.price(event.sqrt_price_x96)
            self._trades.append((price, abs(quote) / 10**self.key.quote.decimals))
        if self._broken is not None or self._pool is None or event.block <= self._anchor:
            return  # awaiting a snapshot, or already in it
        try:
            self._pool.apply(event)
        except Stale as broken:
            self._forget(broken)
            raise
        self._applied = at

    def _on_snapshot(self, event: PoolSnapshot) -> None:
        pool = Pool(self.key, event)  # raises SnapshotTorn, and then nothing has changed
        self._pool = pool
        self._broken = None
        self._head = None
        self._anchor = event.block
        self._applied = (event.block, -1)
        self._mark_fees()

    def _on_holdings(self, event: Holdings) -> None:
        self._holdings = event
        self._mark_fees()

    def _mark_fees(self) -> None:
        """Remember the fee growth at which the account was read: what grows later is owed too."""
        if self._pool is None or self._holdings is None:
            return
        self._marks = {
            p.token_id: self._pool.fee_growth_inside(p.tick_lower, p.tick_upper)
            for p in self._holdings.positions
        }

    def _forget(self, why: Stale) -> None:
        self._broken = why
        self._head = self._pool = self._oracle = self._holdings = self._parameters = None
        self._marks = {}
        self._trades = []
        self._anchor = -1
        self._applied = (-1, -1)
        self.models = Models()
