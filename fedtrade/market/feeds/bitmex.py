"""BitMEX: `orderBookL2`, `trade` and `quote` of an instrument.

Levels are told by an id, first with their price and then without it. Nothing is numbered: a change of
a level that is not there, a level that is there twice or a crossed book is all that shows that
something was missed. So this venue's book may be believed less than the others'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from fedtrade.market.feeds.events import UNREADABLE, Complained, Market, Out, Quoted, Send, Traded
from fedtrade.market.feeds.lines import Lines

TABLES: Final = ("orderBookL2", "trade", "quote")

_Side = Literal["Buy", "Sell"]


class _Level(msgspec.Struct):
    symbol: str
    id: int
    side: _Side
    price: float | None = None
    size: float = 0.0


class _Trade(msgspec.Struct):
    symbol: str
    side: _Side
    price: float
    size: float


class _Quote(msgspec.Struct):
    symbol: str
    bidPrice: float | None = None
    bidSize: float | None = None
    askPrice: float | None = None
    askSize: float | None = None


class _Filter(msgspec.Struct):
    symbol: str = ""


class _Message(msgspec.Struct):
    table: str = ""
    action: Literal["partial", "insert", "update", "delete", ""] = ""
    filter: _Filter | None = None
    data: msgspec.Raw = msgspec.Raw()
    error: str = ""


_message = msgspec.json.Decoder(_Message).decode
_levels = msgspec.json.Decoder(list[_Level]).decode
_trades = msgspec.json.Decoder(list[_Trade]).decode
_quotes = msgspec.json.Decoder(list[_Quote]).decode


class Bitmex:
    """One connection to BitMEX: bytes in, events and wishes out."""

    def __init__(self, markets: Sequence[Market]) -> None:
        self._lines = Lines(markets, self._again)
        self._prices: dict[str, dict[tuple[_Side, int], float]] = {}
        """symbol -> (side, id of a level) -> its price."""
        self.replicas = self._lines.replicas

    def connected(self, at_ns: int) -> list[Out]:
        """A new connection: what to send. Every book begins anew."""
        topics = [f"{table}:{market.symbol}" for market in self.replicas for table in TABLES]
        return [*self._lines.begin(at_ns), _send("subscribe", topics)]

    def _again(self, market: Market) -> list[Send]:
        topics = [f"orderBookL2:{market.symbol}"]
        return [_send("unsubscribe", topics), _send("subscribe", topics)]

    def received(self, frame: bytes, at_ns: int) -> list[Out]:
        """A message of the venue. What cannot be read may have been any book's, so all are lost."""
        try:
            message = _message(frame)
            if message.table == "orderBookL2":
                return self._book(message, _levels(message.data), at_ns)
            if message.table == "trade" and message.action == "insert":
                return [out for each in _trades(message.data) for out in self._traded(each, at_ns)]
            if message.table == "quote" and message.action == "insert":
                return [out for each in _quotes(message.data) for out in self._quoted(each, at_ns)]
        except UNREADABLE:
            return self._lines.lose_all(at_ns, "a message of the venue cannot be read")
        return [Complained("bitmex", message.error[:500])] if message.error else []

    def _book(self, message: _Message, levels: list[_Level], at_ns: int) -> list[Out]:
        symbols = {each.symbol for each in levels}
        if message.action == "partial" and message.filter is not None:
            symbols.add(message.filter.symbol)  # the whole book may be empty
        out: list[Out] = []
        for symbol in sorted(symbols):
            if self._lines.market(symbol) is not None:
                of_it = [each for each in levels if each.symbol == symbol]
                out += self._changed(symbol, message.action, of_it, at_ns)
        return out

    def _changed(self, symbol: str, action: str, levels: list[_Level], at_ns: int) -> list[Out]:
        if action == "partial":
            self._prices[symbol] = {}
        prices = self._prices.setdefault(symbol, {})
        bids: list[tuple[float, float]] = []
        asks: list[tuple[float, float]] = []
        for each in levels:
            key, new = (each.side, each.id), action in ("partial", "insert")
            price = each.price if new else prices.get(key)
            if price is None or (new and key in prices):
                what = "is there twice" if new else "is not there"
                return self._lines.lose(symbol, at_ns, f"level {each.id} {what}")
            prices[key] = price
            if action == "delete":
                del prices[key]
            (bids if each.side == "Buy" else asks).append((price, each.size))
        if action == "partial":
            return self._lines.whole(symbol, 0, at_ns, 0, bids, asks)
        return self._lines.next(symbol, 0, 0, at_ns, 0, bids, asks)

    def _traded(self, each: _Trade, at_ns: int) -> list[Out]:
        market = self._lines.market(each.symbol)
        if market is None:
            return []
        return [Traded(market, at_ns, 0, each.price, each.size, each.side == "Buy")]

    def _quoted(self, each: _Quote, at_ns: int) -> list[Out]:
        market = self._lines.market(each.symbol)
        best = each.bidPrice, each.bidSize, each.askPrice, each.askSize
        if market is None or None in best:
            return []
        return [Quoted(market, at_ns, 0, *(part for part in best if part is not None))]


def _send(op: str, topics: Sequence[str]) -> Send:
    return Send(msgspec.json.encode({"op": op, "args": topics}).decode())
