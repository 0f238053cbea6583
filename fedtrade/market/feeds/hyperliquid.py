"""Hyperliquid: `l2Book`, `trades`, `bbo` and `activeAssetCtx` of a coin.

Every book message is the whole book (20 levels a side) with the venue's time, so there is nothing to
miss: what was lost is told again with the next push. There are no numbers and no checksums; what shows
that something is wrong:

    times    an older book than the newest came late, or twice, and is left out
    silence  pushes come every 0.5 s, since July 2026 every 5 s, whether or not anything has changed;
             a book of which two are missing is not served
    a book that crosses, and what cannot be read

What nothing shows: that one push is missing. Until the next one the book served is the newest that
came, as old as its `venue_ns` says; `bbo` tells the best levels of every block between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from fedtrade.market.feeds.events import (
    UNREADABLE,
    Complained,
    Marked,
    Market,
    Out,
    Quoted,
    Send,
    Traded,
)
from fedtrade.market.feeds.lines import Lines

_MS: Final = 1_000_000
QUIET_MAX_NS: Final = 12_000_000_000
"""Two pushes of 5.0 to 5.6 s and some delay."""
PING: Final = Send('{"method":"ping"}')
"""To be sent where nothing came for 50 s; the venue closes a line after 60."""


class _Level(msgspec.Struct):
    px: float
    sz: float


class _Book(msgspec.Struct):
    coin: str
    levels: tuple[list[_Level], list[_Level]]
    time: int


class _Best(msgspec.Struct):
    coin: str
    time: int
    bbo: tuple[_Level | None, _Level | None]


class _Trade(msgspec.Struct):
    coin: str
    side: Literal["A", "B"]
    px: float
    sz: float
    time: int


class _Context(msgspec.Struct):
    funding: float | None = None
    openInterest: float | None = None
    oraclePx: float | None = None
    markPx: float | None = None


class _Active(msgspec.Struct):
    coin: str
    ctx: _Context


class _Message(msgspec.Struct):
    channel: str
    data: msgspec.Raw = msgspec.Raw()


_message = msgspec.json.Decoder(_Message).decode
_book = msgspec.json.Decoder(_Book, strict=False).decode
_best = msgspec.json.Decoder(_Best, strict=False).decode
_trades = msgspec.json.Decoder(list[_Trade], strict=False).decode
_active = msgspec.json.Decoder(_Active, strict=False).decode


class Hyperliquid:
    """One connection to Hyperliquid: bytes in, events and wishes out."""

    def __init__(self, markets: Sequence[Market]) -> None:
        self._lines = Lines(markets, self._again, QUIET_MAX_NS)
        self._newest_ms: dict[str, int] = {}
        self.replicas = self._lines.replicas

    def connected(self, at_ns: int) -> list[Out]:
        """A new connection: what to send. Every book begins anew."""
        self._newest_ms.clear()
        kinds = ("l2Book", "trades", "bbo", "activeAssetCtx")
        asked = [_send("subscribe", kind, market) for market in self.replicas for kind in kinds]
        return [*self._lines.begin(at_ns), *asked]

    def _again(self, market: Market) -> list[Send]:
        return [_send(what, "l2Book", market) for what in ("unsubscribe", "subscribe")]

    def received(self, frame: bytes, at_ns: int) -> list[Out]:
        """A message of the venue. What cannot be read may have been any book's, so all are lost."""
        try:
            message = _message(frame)
            if message.channel == "l2Book":
                return self._whole(_book(message.data), at_ns)
            if message.channel == "trades":
                return [out for each in _trades(message.data) for out in self._traded(each, at_ns)]
            if message.channel == "bbo":
                return self._quoted(_best(message.data), at_ns)
            if message.channel == "activeAssetCtx":
                return self._marked(_active(message.data), at_ns)
            if message.channel == "error":
                return [Complained("hyperliquid", bytes(message.data).decode()[:500])]
        except UNREADABLE:
            return self._lines.lose_all(at_ns, "a message of the venue cannot be read")
        return []

    def _whole(self, book: _Book, at_ns: int) -> list[Out]:
        market = self._lines.market(book.coin)
        if market is None:
            return []
        newest = self._newest_ms.get(book.coin, 0)
        if book.time < newest and not self.replicas[market].quiet(at_ns):
            return []
        if book.time < newest:  # nothing newer comes: that time was wrong, or this line has hung
            del self._newest_ms[book.coin]
            return self._lines.lose(book.coin, at_ns, f"{book.time} came after {newest}")
        self._newest_ms[book.coin] = book.time
        bids, asks = ([(each.px, each.sz) for each in side] for side in book.levels)
        return self._lines.whole(book.coin, 0, at_ns, book.time * _MS, bids, asks)

    def _traded(self, each: _Trade, at_ns: int) -> list[Out]:
        market = self._lines.market(each.coin)
        if market is None:
            return []
        return [Traded(market, at_ns, each.time * _MS, each.px, each.sz, each.side == "B")]

    def _quoted(self, told: _Best, at_ns: int) -> list[Out]:
        market, (bid, ask) = self._lines.market(told.coin), told.bbo
        if market is None or bid is None or ask is None:
            return []
        return [Quoted(market, at_ns, told.time * _MS, bid.px, bid.sz, ask.px, ask.sz)]

    def _marked(self, told: _Active, at_ns: int) -> list[Out]:
        market, ctx = self._lines.market(told.coin), told.ctx
        if market is None:
            return []
        return [Marked(market, at_ns, 0, ctx.markPx, ctx.oraclePx, ctx.funding, ctx.openInterest)]


def _send(what: str, kind: str, market: Market) -> Send:
    asked = {"method": what, "subscription": {"type": kind, "coin": market.symbol}}
    return Send(msgspec.json.encode(asked).decode())
