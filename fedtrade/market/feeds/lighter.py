"""Lighter: `order_book`, `trade` and `market_stats` of a market by its number.

Changes of a book are numbered by `offset`, without a hole; the first message after subscribing is the
whole book. A market's `symbol` here is the venue's number of it, as text.
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
    Send,
    Traded,
)
from fedtrade.market.feeds.lines import Lines

_MS: Final = 1_000_000


class _Level(msgspec.Struct):
    price: float
    size: float


class _Book(msgspec.Struct):
    offset: int
    bids: list[_Level]
    asks: list[_Level]


class _Trade(msgspec.Struct):
    price: float
    size: float
    is_maker_ask: bool
    timestamp: int
    type: str = "trade"


class _Stats(msgspec.Struct):
    mark_price: float | None = None
    index_price: float | None = None
    current_funding_rate: float | None = None
    open_interest: float | None = None


class _Message(msgspec.Struct):
    type: str
    channel: str = ""
    timestamp: int = 0
    order_book: _Book | None = None
    trades: list[_Trade] | None = None
    liquidation_trades: list[_Trade] | None = None
    market_stats: _Stats | None = None
    error: msgspec.Raw = msgspec.Raw()


_message = msgspec.json.Decoder(_Message, strict=False).decode
PONG: Final = Send('{"type":"pong"}')

Kind = Literal["order_book", "trade", "market_stats"]
KINDS: Final[tuple[Kind, ...]] = ("order_book", "trade", "market_stats")


class Lighter:
    """One connection to Lighter: bytes in, events and wishes out."""

    def __init__(self, markets: Sequence[Market]) -> None:
        self._lines = Lines(markets, self._again)
        self.replicas = self._lines.replicas

    def connected(self, at_ns: int) -> list[Out]:
        """A new connection: what to send. Every book begins anew."""
        asked = [_send("subscribe", kind, market) for market in self.replicas for kind in KINDS]
        return [*self._lines.begin(at_ns), *asked]

    def _again(self, market: Market) -> list[Send]:
        return [_send(what, "order_book", market) for what in ("unsubscribe", "subscribe")]

    def received(self, frame: bytes, at_ns: int) -> list[Out]:
        """A message of the venue. What cannot be read may have been any book's, so all are lost."""
        try:
            message = _message(frame)
            error = bytes(message.error).decode()
        except UNREADABLE:
            return self._lines.lose_all(at_ns, "a message of the venue cannot be read")
        if message.type == "ping":
            return [PONG]
        if error:
            return [Complained("lighter", error[:500])]
        symbol = message.channel.partition(":")[2]
        market, book = self._lines.market(symbol), message.order_book
        if market is None:
            return []
        if book is not None:
            sides = [[(each.price, each.size) for each in side] for side in (book.bids, book.asks)]
            told = at_ns, message.timestamp * _MS, sides[0], sides[1]
            if message.type.startswith("subscribed"):
                return self._lines.whole(symbol, book.offset, *told)
            return self._lines.next(symbol, book.offset - 1, book.offset, *told)
        if message.market_stats is not None:
            stats, venue_ns = message.market_stats, message.timestamp * _MS
            return [
                Marked(
                    market, at_ns, venue_ns, stats.mark_price, stats.index_price,
                    stats.current_funding_rate, stats.open_interest,
                )
            ]  # fmt: skip
        if message.type.startswith("subscribed"):
            return []  # the trades of before are told with the subscription
        return self._traded(market, message, at_ns)

    def _traded(self, market: Market, message: _Message, at_ns: int) -> list[Out]:
        out: list[Out] = []
        for each in message.trades or ():
            told = market, at_ns, each.timestamp * _MS, each.price, each.size
            out.append(Traded(*told, taker_buys=each.is_maker_ask))
        for each in message.liquidation_trades or ():
            told = market, at_ns, each.timestamp * _MS, each.price, each.size
            out += [
                Traded(*told, taker_buys=each.is_maker_ask),
                Liquidated(*told, long=not each.is_maker_ask),
            ]
        return out


def _send(what: str, kind: Kind, market: Market) -> Send:
    asked = {"type": what, "channel": f"{kind}/{market.symbol}"}
    return Send(msgspec.json.encode(asked).decode())
