"""Binance: spot, USD-M and COIN-M futures, over combined streams.

A book is the web interface's snapshot with the diff stream put on top of it. The venue's own rules
(developers.binance.com, "How to manage a local order book correctly") differ by product:

    spot      a diff follows where its first id U is the last one's final id u, plus one;
              the first one after a snapshot has U ≤ lastUpdateId + 1 ≤ u
    futures   a diff follows where its `pu` is the last one's u;
              the first one after a snapshot has U ≤ lastUpdateId ≤ u, or follows it as well

A snapshot is asked for when the first diff has come, so that diffs and snapshot overlap and one
snapshot is enough. Diffs that come meanwhile are kept, in the order of their ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, Literal, TypeVar

import msgspec

from fedtrade.errors import BadInput
from fedtrade.market.book import Levels
from fedtrade.market.feeds.events import (
    UNREADABLE,
    Complained,
    Fetch,
    Liquidated,
    Marked,
    Market,
    OffGrid,
    Out,
    Quoted,
    Send,
    Traded,
)
from fedtrade.market.feeds.replica import Replica

Product = Literal["spot", "usdm", "coinm"]

_MS: Final = 1_000_000

KEPT_MAX: Final = 4_096
"""Diffs kept while a snapshot is awaited: minutes of the busiest market. Then it is asked for anew."""
KEPT_MAX_BYTES: Final = 32 * 1024 * 1024
"""And how much they are together."""

_SNAPSHOT: Final[dict[Product, str]] = {
    "spot": "/api/v3/depth?symbol={}&limit=5000",
    "usdm": "/fapi/v1/depth?symbol={}&limit=1000",
    "coinm": "/dapi/v1/depth?symbol={}&limit=1000",
}

_Pair = tuple[float, float]


class _Depth(msgspec.Struct):
    """All of a diff but its levels, which are read apart (`Market.sides`)."""

    s: str
    U: int
    u: int
    E: int
    T: int = 0
    pu: int | None = None


class _Levels(msgspec.Struct):
    b: list[_Pair]
    a: list[_Pair]


class _Ticker(msgspec.Struct):
    s: str
    b: float
    B: float
    a: float
    A: float
    E: int = 0


class _Trade(msgspec.Struct):
    s: str
    p: float
    q: float
    m: bool
    T: int
    X: str = "MARKET"


class _Mark(msgspec.Struct):
    s: str
    p: float
    E: int
    i: float | None = None
    r: float | Literal[""] = ""


class _Order(msgspec.Struct):
    s: str
    S: Literal["BUY", "SELL"]
    z: float
    ap: float
    T: int


class _Forced(msgspec.Struct):
    o: _Order


class _Snapshot(msgspec.Struct):
    lastUpdateId: int
    bids: list[_Pair]
    asks: list[_Pair]
    T: int = 0


class _Reply(msgspec.Struct):
    stream: str = ""
    error: msgspec.Raw = msgspec.Raw()


_Data = TypeVar("_Data")


class _In(msgspec.Struct, Generic[_Data]):
    data: _Data


_depth = msgspec.json.Decoder(_In[_Depth], strict=False).decode
_levels = msgspec.json.Decoder(_In[_Levels], strict=False).decode
_ticker = msgspec.json.Decoder(_In[_Ticker], strict=False).decode
_trade = msgspec.json.Decoder(_In[_Trade], strict=False).decode
_mark = msgspec.json.Decoder(_In[_Mark], strict=False).decode
_forced = msgspec.json.Decoder(_In[_Forced], strict=False).decode
_snapshot = msgspec.json.Decoder(_Snapshot, strict=False).decode
_reply = msgspec.json.Decoder(_Reply).decode


def _sides(market: Market, frame: bytes) -> tuple[Levels, Levels]:
    """The levels of a diff, in units. Raises OffGrid and msgspec's errors."""
    read = market.sides(frame, frame.find(b'"b":[') + 4, frame.find(b'"a":[') + 4)
    if read is not None:
        return read
    told = _levels(frame).data
    return market.levels(told.b), market.levels(told.a)


@dataclass(slots=True)
class _Line:
    """Where one market's diffs stand."""

    replica: Replica
    last: int = 0
    """Final id of what was applied last."""
    first: int | None = None
    """First id of that, or None where it was the snapshot."""
    asked: bool = False
    kept: dict[int, tuple[_Depth, bytes]] = field(default_factory=dict)
    """Diffs by their final id and as they came, while a snapshot is awaited."""
    kept_bytes: int = 0

    def take_kept(self) -> dict[int, tuple[_Depth, bytes]]:
        """What was kept; nothing is, from here on, and no snapshot is asked for."""
        kept, self.kept, self.kept_bytes, self.asked = self.kept, {}, 0, False
        return kept


class Binance:
    """One connection to one product of Binance: bytes in, events and wishes out."""

    def __init__(self, product: Product, markets: Sequence[Market], depth: str = "100ms") -> None:
        """`depth`: how often diffs come, "100ms", or for futures "0ms"."""
        if len({market.symbol for market in markets}) != len(markets):
            raise BadInput("binance", "a market is named twice", "Name each once.")
        self._product = product
        self._depth_every = depth
        self._lines = {market.symbol: _Line(Replica(market)) for market in markets}
        self._markets = {market.symbol: market for market in markets}
        self.replicas = {market: self._lines[market.symbol].replica for market in markets}

    def connected(self, at_ns: int) -> list[Out]:
        """A new connection: what to send. Every book begins anew."""
        lost = self._lose_all(at_ns, "the connection is new")
        for line in self._lines.values():
            line.take_kept()
        streams = [f"{symbol.lower()}@{kind}" for symbol in self._lines for kind in self._streams()]
        asked = {"method": "SUBSCRIBE", "params": streams, "id": 1}
        return [*lost, Send(msgspec.json.encode(asked).decode())]

    def _streams(self) -> Iterable[str]:
        yield f"depth@{self._depth_every}"
        yield from ("bookTicker", "trade")
        if self._product != "spot":
            yield from ("markPrice@1s", "forceOrder")

    def received(self, frame: bytes, at_ns: int) -> list[Out]:
        """A message of the venue. What cannot be read may have been any book's, so all are lost."""
        at = frame.find(b"@") + 1 if frame.startswith(b'{"stream"') else 0
        try:
            if frame.startswith(b"bookTicker", at):
                return self._quoted(_ticker(frame).data, at_ns)
            if frame.startswith(b"trade", at):
                return self._traded(_trade(frame).data, at_ns)
            if frame.startswith(b"depth", at):
                return self._diff(_depth(frame).data, frame, at_ns)
            if frame.startswith(b"markPrice", at):
                return self._marked(_mark(frame).data, at_ns)
            if frame.startswith(b"forceOrder", at):
                return self._liquidated(_forced(frame).data.o, at_ns)
            error = bytes(_reply(frame).error).decode()
        except UNREADABLE:
            return self._lose_all(at_ns, "a message of the venue cannot be read")
        return [Complained(f"binance {self._product}", error[:500])] if error else []

    def fetched(self, fetch: Fetch, body: bytes, at_ns: int) -> list[Out]:
        """The answer to a Fetch. One that cannot be read is asked for again with the next diff."""
        line = self._lines[fetch.market.symbol]
        line.asked = False
        try:
            snapshot = _snapshot(body)
            bids, asks = fetch.market.levels(snapshot.bids), fetch.market.levels(snapshot.asks)
        except (*UNREADABLE, OffGrid) as error:
            return [line.replica.lose(at_ns, f"its snapshot cannot be read ({error})")]
        line.last, line.first = snapshot.lastUpdateId, None
        out: list[Out] = [line.replica.reset(at_ns, snapshot.T * _MS, bids, asks)]
        for _, (diff, frame) in sorted(line.take_kept().items()):
            out += self._diff(diff, frame, at_ns)
        return out

    def _diff(self, diff: _Depth, frame: bytes, at_ns: int) -> list[Out]:
        line = self._lines.get(diff.s)
        if line is None:
            return []
        replica = line.replica
        if not replica.live:
            return self._keep(line, diff, frame)
        if self._told(line, diff):
            return []
        if not self._follows(line, diff):
            lost = replica.lose(at_ns, f"after {line.last} came {diff.U} to {diff.u}")
            return [lost, *self._keep(line, diff, frame)]
        try:
            bids, asks = _sides(replica.market, frame)
        except (*UNREADABLE, OffGrid) as error:
            return [replica.lose(at_ns, str(error)), *self._keep(line, diff, frame)]
        line.last, line.first = diff.u, diff.U
        moved = replica.move(at_ns, (diff.T or diff.E) * _MS, bids, asks)
        return [] if moved is None else [moved]

    def _told(self, line: _Line, diff: _Depth) -> bool:
        """Whether the snapshot holds this already, or it is the last one again.

        An older one is neither: a venue whose ids go back would leave a book that never moves.
        """
        if line.first is None:
            return diff.u < line.last + (self._product == "spot")
        return (diff.U, diff.u) == (line.first, line.last)

    def _follows(self, line: _Line, diff: _Depth) -> bool:
        due = line.last + (self._product == "spot")
        if (diff.U if self._product == "spot" else diff.pu) == due:
            return True
        return line.first is None and due >= diff.U

    def _keep(self, line: _Line, diff: _Depth, frame: bytes) -> list[Out]:
        """Keep a diff until the snapshot is there; ask for it once."""
        if len(line.kept) >= KEPT_MAX or line.kept_bytes + len(frame) > KEPT_MAX_BYTES:
            line.take_kept()
        line.kept[diff.u] = diff, frame
        line.kept_bytes += len(frame)
        if line.asked:
            return []
        line.asked = True
        market = line.replica.market
        return [Fetch(market, _SNAPSHOT[self._product].format(market.symbol))]

    def _quoted(self, told: _Ticker, at_ns: int) -> list[Out]:
        market = self._markets.get(told.s)
        if market is None:
            return []
        return [Quoted(market, at_ns, told.E * _MS, told.b, told.B, told.a, told.A)]

    def _traded(self, told: _Trade, at_ns: int) -> list[Out]:
        market = self._markets.get(told.s)
        if market is None or told.X not in ("MARKET", ""):
            return []  # the insurance fund's and deleveraging trades are at no market price
        return [Traded(market, at_ns, told.T * _MS, told.p, told.q, not told.m)]

    def _marked(self, told: _Mark, at_ns: int) -> list[Out]:
        market = self._markets.get(told.s)
        if market is None:
            return []
        rate = None if told.r == "" else told.r
        return [Marked(market, at_ns, told.E * _MS, told.p, told.i, rate)]

    def _liquidated(self, told: _Order, at_ns: int) -> list[Out]:
        market = self._markets.get(told.s)
        if market is None:
            return []
        return [Liquidated(market, at_ns, told.T * _MS, told.ap, told.z, told.S == "SELL")]

    def _lose_all(self, at_ns: int, reason: str) -> list[Out]:
        live = [line.replica for line in self._lines.values() if line.replica.live]
        return [replica.lose(at_ns, reason) for replica in live]
