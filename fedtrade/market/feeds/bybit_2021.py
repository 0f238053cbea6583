"""Bybit as it was before v5, closed since: `orderBookL2_25` and `trade` of USDT perpetuals.

The book is told by levels with an id, the best 25 a side: whole once ("snapshot"), then by what is
deleted, changed and inserted ("delta"), in that order. `cross_seq` counts everything that the matching
engine does in a market, and only what changed the book is told: it rises from message to message with
holes (in the recording 16 % of them by one). So a message that comes too late is seen, and one that
comes twice, but a hole is not. It shows when a level that it told of is told of again, or when the book
crosses; where only sizes changed it may stay unseen until they change again. A book of this interface
may be believed less than one of those that number their messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from fedtrade.market.feeds.by_id import Action, Contradicted, Level, LevelsById
from fedtrade.market.feeds.events import UNREADABLE, Complained, Market, Out, Send, Traded
from fedtrade.market.feeds.lines import Lines

_MS: Final = 1_000_000
_US: Final = 1_000
TOPICS: Final = ("orderBookL2_25", "trade")


class _Whole(msgspec.Struct):
    order_book: list[Level]


class _Delta(msgspec.Struct):
    delete: list[Level]
    update: list[Level]
    insert: list[Level]


class _Trade(msgspec.Struct):
    symbol: str
    side: Literal["Buy", "Sell"]
    price: float
    size: float
    trade_time_ms: int


class _Head(msgspec.Struct):
    topic: str = ""
    type: Literal["snapshot", "delta", ""] = ""
    data: msgspec.Raw = msgspec.Raw()
    cross_seq: int = 0
    timestamp_e6: int = 0
    success: bool = True
    ret_msg: str = ""


_head = msgspec.json.Decoder(_Head, strict=False).decode
_whole = msgspec.json.Decoder(_Whole, strict=False).decode
_delta = msgspec.json.Decoder(_Delta, strict=False).decode
_trades = msgspec.json.Decoder(list[_Trade], strict=False).decode


class Bybit2021:
    """One connection to Bybit's interface of 2021: bytes in, events and wishes out."""

    def __init__(self, markets: Sequence[Market]) -> None:
        self._lines = Lines(markets, self._again)
        self._levels = {market.symbol: LevelsById() for market in markets}
        self.replicas = self._lines.replicas

    def connected(self, at_ns: int) -> list[Out]:
        """A new connection: what to send. Every book begins anew."""
        topics = [f"{topic}.{market.symbol}" for market in self.replicas for topic in TOPICS]
        return [*self._lines.begin(at_ns), _send("subscribe", topics)]

    def _again(self, market: Market) -> list[Send]:
        topics = [f"orderBookL2_25.{market.symbol}"]
        return [_send("unsubscribe", topics), _send("subscribe", topics)]

    def received(self, frame: bytes, at_ns: int) -> list[Out]:
        """A message of the venue. What cannot be read may have been any book's, so all are lost."""
        try:
            head = _head(frame)
            kind, _, symbol = head.topic.partition(".")
            if kind == "orderBookL2_25":
                return self._book(symbol, head, frame, at_ns)
            if kind == "trade":
                return [out for each in _trades(head.data) for out in self._traded(each, at_ns)]
        except UNREADABLE:
            return self._lines.lose_all(at_ns, "a message of the venue cannot be read")
        return [] if head.success else [Complained("bybit", head.ret_msg[:500])]

    def _book(self, symbol: str, head: _Head, frame: bytes, at_ns: int) -> list[Out]:
        market = self._lines.market(symbol)
        if market is None:
            return []
        whole = head.type == "snapshot"
        told: list[tuple[Action, list[Level]]]
        if whole:
            told = [("insert", _whole(head.data).order_book)]
        else:
            delta = _delta(head.data)
            told = [("delete", delta.delete), ("update", delta.update), ("insert", delta.insert)]
        if self._lines.repeats(symbol, frame) and not whole:
            return []
        if not whole and not self.replicas[market].live:
            return self._lines.ask(symbol, at_ns)
        levels, bids, asks = self._levels[symbol], [], []
        if whole:
            levels.clear()
        try:
            for action, rows in told:
                sides = levels.apply(action, rows)
                bids += sides[0]
                asks += sides[1]
        except Contradicted as error:
            return self._lines.lose(symbol, at_ns, error.reason)
        put = self._lines.whole if whole else self._lines.later
        return put(symbol, head.cross_seq, at_ns, head.timestamp_e6 * _US, bids, asks)

    def _traded(self, each: _Trade, at_ns: int) -> list[Out]:
        market = self._lines.market(each.symbol)
        if market is None:
            return []
        venue_ns, buys = each.trade_time_ms * _MS, each.side == "Buy"
        return [Traded(market, at_ns, venue_ns, each.price, each.size, buys)]


def _send(op: str, topics: Sequence[str]) -> Send:
    return Send(msgspec.json.encode({"op": op, "args": topics}).decode())
