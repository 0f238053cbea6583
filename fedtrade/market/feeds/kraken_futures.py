"""Kraken Futures: `book`, `trade` and `ticker` of a product.

Each message of a book changes one level and is numbered by `seq`, without a hole for its product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from fedtrade.market.feeds.events import (
    UNREADABLE,
    Complained,
    Liquidated,
    Marked,
    Market,
    Out,
    Quoted,
    Send,
    Traded,
)
from fedtrade.market.feeds.lines import Lines

_MS: Final = 1_000_000
FEEDS: Final = ("book", "trade", "ticker")


class _Level(msgspec.Struct):
    price: float
    qty: float


class _Message(msgspec.Struct):
    """Whatever it is about; what a kind of message does not have keeps its default."""

    feed: str = ""
    event: str = ""
    message: str = ""
    product_id: str = ""
    seq: int = -1
    timestamp: int = 0
    side: Literal["buy", "sell", ""] = ""
    price: float = 0.0
    qty: float = 0.0
    bids: list[_Level] = []
    asks: list[_Level] = []
    type: str = ""
    time: int = 0
    bid: float | None = None
    ask: float | None = None
    bid_size: float | None = None
    ask_size: float | None = None
    markPrice: float | None = None
    index: float | None = None
    openInterest: float | None = None
    relative_funding_rate: float | None = None


_message = msgspec.json.Decoder(_Message).decode


class KrakenFutures:
    """One connection to Kraken Futures: bytes in, events and wishes out."""

    def __init__(self, markets: Sequence[Market]) -> None:
        self._lines = Lines(markets, self._again)
        self.replicas = self._lines.replicas

    def connected(self, at_ns: int) -> list[Out]:
        """A new connection: what to send. Every book begins anew."""
        symbols = [market.symbol for market in self.replicas]
        return [*self._lines.begin(at_ns), *(_send("subscribe", feed, symbols) for feed in FEEDS)]

    def _again(self, market: Market) -> list[Send]:
        return [_send(what, "book", [market.symbol]) for what in ("unsubscribe", "subscribe")]

    def received(self, frame: bytes, at_ns: int) -> list[Out]:
        """A message of the venue. What cannot be read may have been any book's, so all are lost."""
        try:
            told = _message(frame)
        except UNREADABLE:
            return self._lines.lose_all(at_ns, "a message of the venue cannot be read")
        if told.event:
            wrong = told.event in ("error", "alert", "subscribed_failed")
            return [Complained("kraken futures", told.message[:500])] if wrong else []
        market = self._lines.market(told.product_id)
        if market is None:
            return []
        if told.feed == "book_snapshot":
            sides = [[(each.price, each.qty) for each in side] for side in (told.bids, told.asks)]
            return self._lines.whole(
                market.symbol, told.seq, at_ns, told.timestamp * _MS, sides[0], sides[1]
            )
        if told.feed == "book":
            level = [(told.price, told.qty)]
            bids, asks = (level, []) if told.side == "buy" else ([], level)
            return self._lines.next(
                market.symbol, told.seq - 1, told.seq, at_ns, told.timestamp * _MS, bids, asks
            )
        if told.feed == "trade":
            return self._traded(market, told, at_ns)
        if told.feed == "ticker":
            return self._ticked(market, told, at_ns)
        return []

    def _traded(self, market: Market, told: _Message, at_ns: int) -> list[Out]:
        buys = told.side == "buy"
        what = market, at_ns, told.time * _MS, told.price, told.qty
        out: list[Out] = [Traded(*what, taker_buys=buys)]
        if told.type == "liquidation":
            out.append(Liquidated(*what, long=not buys))
        return out

    def _ticked(self, market: Market, told: _Message, at_ns: int) -> list[Out]:
        venue_ns = told.time * _MS
        out: list[Out] = [
            Marked(
                market, at_ns, venue_ns, told.markPrice, told.index,
                told.relative_funding_rate, told.openInterest,
            )
        ]  # fmt: skip
        if told.bid and told.ask and told.bid_size and told.ask_size:
            best = told.bid, told.bid_size, told.ask, told.ask_size
            out.append(Quoted(market, at_ns, venue_ns, *best))
        return out


def _send(what: str, feed: str, symbols: Sequence[str]) -> Send:
    asked = {"event": what, "feed": feed, "product_ids": symbols}
    return Send(msgspec.json.encode(asked).decode())
