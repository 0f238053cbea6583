"""Bybit v5, public: `orderbook`, `publicTrade`, `tickers`, `allLiquidation` of linear, inverse, spot.

An order book message is whole ("snapshot"), or a change whose `u` is the last one's plus one; `u` = 1
is a whole one too, after the venue began anew (bybit-exchange.github.io, "Orderbook"). Tickers are told
by their changes: what a message does not name has not changed.
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
PING_EVERY_S: Final = 20
"""The venue closes a line that has not pinged for longer."""
PING: Final = Send('{"op":"ping"}')

_Pair = tuple[float, float]


class _Book(msgspec.Struct):
    s: str
    b: list[_Pair]
    a: list[_Pair]
    u: int


class _Trade(msgspec.Struct):
    s: str
    T: int
    S: Literal["Buy", "Sell"]
    v: float
    p: float


class _Ticker(msgspec.Struct):
    symbol: str
    bid1Price: float | Literal[""] = ""
    bid1Size: float | Literal[""] = ""
    ask1Price: float | Literal[""] = ""
    ask1Size: float | Literal[""] = ""
    markPrice: float | Literal[""] = ""
    indexPrice: float | Literal[""] = ""
    fundingRate: float | Literal[""] = ""
    openInterest: float | Literal[""] = ""


class _Head(msgspec.Struct):
    topic: str = ""
    type: Literal["snapshot", "delta", ""] = ""
    ts: int = 0
    data: msgspec.Raw = msgspec.Raw()
    success: bool = True
    ret_msg: str = ""


_head = msgspec.json.Decoder(_Head).decode
_book = msgspec.json.Decoder(_Book, strict=False).decode
_trades = msgspec.json.Decoder(list[_Trade], strict=False).decode
_ticker = msgspec.json.Decoder(_Ticker, strict=False).decode


class Bybit:
    """One connection to one category of Bybit: bytes in, events and wishes out."""

    def __init__(self, markets: Sequence[Market], depth: int = 200, spot: bool = False) -> None:
        """`depth`: levels a side, as the venue offers them (1, 50, 200, 1000)."""
        self._depth, self._spot = depth, spot
        self._lines = Lines(markets, self._again)
        self._tickers: dict[str, _Ticker] = {}
        self.replicas = self._lines.replicas

    def connected(self, at_ns: int) -> list[Out]:
        """A new connection: what to send. Every book begins anew."""
        self._tickers.clear()
        kinds = [f"orderbook.{self._depth}", "publicTrade", "tickers"]
        if not self._spot:
            kinds.append("allLiquidation")
        topics = [f"{kind}.{market.symbol}" for market in self.replicas for kind in kinds]
        return [*self._lines.begin(at_ns), _send("subscribe", topics)]

    def _again(self, market: Market) -> list[Send]:
        topics = [f"orderbook.{self._depth}.{market.symbol}"]
        return [_send("unsubscribe", topics), _send("subscribe", topics)]

    def received(self, frame: bytes, at_ns: int) -> list[Out]:
        """A message of the venue. What cannot be read may have been any book's, so all are lost."""
        try:
            head = _head(frame)
            kind = head.topic.partition(".")[0]
            if kind == "orderbook":
                return self._changed(head, _book(head.data), at_ns)
            if kind == "publicTrade":
                return [out for trade in _trades(head.data) for out in self._traded(trade, at_ns)]
            if kind == "tickers":
                return self._ticked(head, _ticker(head.data), at_ns)
            if kind == "allLiquidation":
                return [out for each in _trades(head.data) for out in self._forced(each, at_ns)]
        except UNREADABLE:
            return self._lines.lose_all(at_ns, "a message of the venue cannot be read")
        return [] if head.success else [Complained("bybit", head.ret_msg[:500])]

    def _changed(self, head: _Head, book: _Book, at_ns: int) -> list[Out]:
        told = at_ns, head.ts * _MS, book.b, book.a
        if head.type == "snapshot" or book.u == 1:
            return self._lines.whole(book.s, book.u, *told)
        return self._lines.next(book.s, book.u - 1, book.u, *told)

    def _traded(self, trade: _Trade, at_ns: int) -> list[Out]:
        market = self._lines.market(trade.s)
        if market is None:
            return []
        buys = trade.S == "Buy"
        return [Traded(market, at_ns, trade.T * _MS, trade.p, trade.v, buys)]

    def _forced(self, each: _Trade, at_ns: int) -> list[Out]:
        market = self._lines.market(each.s)
        if market is None:
            return []
        long = each.S == "Buy"  # here the venue names the position's side
        return [Liquidated(market, at_ns, each.T * _MS, each.p, each.v, long)]

    def _ticked(self, head: _Head, told: _Ticker, at_ns: int) -> list[Out]:
        market = self._lines.market(told.symbol)
        if market is None:
            return []
        known = self._tickers.get(told.symbol)
        changed = {name for name in told.__struct_fields__ if getattr(told, name) != ""}
        if head.type == "snapshot" or known is None:
            known = self._tickers[told.symbol] = told
        for name in changed:
            setattr(known, name, getattr(told, name))
        out: list[Out] = []
        venue_ns = head.ts * _MS
        sides = known.bid1Price, known.bid1Size, known.ask1Price, known.ask1Size
        if changed & _QUOTE and "" not in sides:
            bid, bid_size, ask, ask_size = map(float, sides)
            out.append(Quoted(market, at_ns, venue_ns, bid, bid_size, ask, ask_size))
        if changed & _MARK:
            marks = known.markPrice, known.indexPrice, known.fundingRate, known.openInterest
            told_marks = [None if each == "" else float(each) for each in marks]
            out.append(Marked(market, at_ns, venue_ns, *told_marks))
        return out


_QUOTE: Final = {"bid1Price", "bid1Size", "ask1Price", "ask1Size"}
_MARK: Final = {"markPrice", "indexPrice", "fundingRate", "openInterest"}


def _send(op: str, topics: Sequence[str]) -> Send:
    return Send(msgspec.json.encode({"op": op, "args": topics}).decode())
