"""Deribit: JSON-RPC subscriptions to `book`, `trades` and `ticker` of an instrument, raw.

A change names the `prev_change_id` that it follows (docs.deribit.com, "book.{instrument_name}.raw").
Sizes are contracts in USD, or in coins for options. Raw channels need a login on the live venue; the
100 ms ones do not, and have the same messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

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

_MS = 1_000_000

_Row = tuple[Literal["new", "change", "delete"], float, float]


class _Book(msgspec.Struct):
    instrument_name: str
    change_id: int
    timestamp: int
    bids: list[_Row]
    asks: list[_Row]
    type: Literal["snapshot", "change"] = "change"
    prev_change_id: int | None = None


class _Trade(msgspec.Struct):
    instrument_name: str
    timestamp: int
    price: float
    amount: float
    direction: Literal["buy", "sell"]
    liquidation: str | None = None


class _Ticker(msgspec.Struct):
    instrument_name: str
    timestamp: int
    best_bid_price: float | None = None
    best_bid_amount: float = 0.0
    best_ask_price: float | None = None
    best_ask_amount: float = 0.0
    mark_price: float | None = None
    index_price: float | None = None
    funding_8h: float | None = None
    open_interest: float | None = None


class _Params(msgspec.Struct):
    channel: str = ""
    data: msgspec.Raw = msgspec.Raw()


class _Message(msgspec.Struct):
    method: str = ""
    params: _Params | None = None
    error: msgspec.Raw = msgspec.Raw()


_message = msgspec.json.Decoder(_Message).decode
_book = msgspec.json.Decoder(_Book).decode
_trades = msgspec.json.Decoder(list[_Trade]).decode
_ticker = msgspec.json.Decoder(_Ticker).decode


class Deribit:
    """One connection to Deribit: bytes in, events and wishes out."""

    def __init__(self, markets: Sequence[Market], every: str = "100ms") -> None:
        """`every`: "100ms", or "raw" with a login."""
        self._every = every
        self._lines = Lines(markets, self._again)
        self.replicas = self._lines.replicas

    def connected(self, at_ns: int) -> list[Out]:
        """A new connection: what to send. Every book begins anew."""
        channels = [
            f"{kind}.{market.symbol}.{self._every}"
            for market in self.replicas
            for kind in ("book", "trades", "ticker")
        ]
        return [*self._lines.begin(at_ns), _send("subscribe", channels)]

    def _again(self, market: Market) -> list[Send]:
        channels = [f"book.{market.symbol}.{self._every}"]
        return [_send("unsubscribe", channels), _send("subscribe", channels)]

    def received(self, frame: bytes, at_ns: int) -> list[Out]:
        """A message of the venue. What cannot be read may have been any book's, so all are lost."""
        try:
            message = _message(frame)
            if message.params is None or not message.params.channel:
                return self._replied(message)
            kind, data = message.params.channel.partition(".")[0], message.params.data
            if kind == "book":
                return self._changed(_book(data), at_ns)
            if kind == "trades":
                return [out for trade in _trades(data) for out in self._traded(trade, at_ns)]
            if kind == "ticker":
                return self._ticked(_ticker(data), at_ns)
        except UNREADABLE:
            return self._lines.lose_all(at_ns, "a message of the venue cannot be read")
        return []

    def _replied(self, message: _Message) -> list[Out]:
        if message.method == "heartbeat":
            return [_send("test", [])]
        error = bytes(message.error)
        return [Complained("deribit", error.decode()[:500])] if error else []

    def _changed(self, book: _Book, at_ns: int) -> list[Out]:
        bids = [(price, size) for _, price, size in book.bids]
        asks = [(price, size) for _, price, size in book.asks]
        told = at_ns, book.timestamp * _MS, bids, asks
        if book.type == "snapshot":
            return self._lines.whole(book.instrument_name, book.change_id, *told)
        previous = -1 if book.prev_change_id is None else book.prev_change_id
        return self._lines.next(book.instrument_name, previous, book.change_id, *told)

    def _traded(self, trade: _Trade, at_ns: int) -> list[Out]:
        market = self._lines.market(trade.instrument_name)
        if market is None:
            return []
        buys, venue_ns = trade.direction == "buy", trade.timestamp * _MS
        out: list[Out] = [Traded(market, at_ns, venue_ns, trade.price, trade.amount, buys)]
        if trade.liquidation is not None:  # "M", "T" or "MT": which side was closed by force
            long = buys == (trade.liquidation == "M")
            out.append(Liquidated(market, at_ns, venue_ns, trade.price, trade.amount, long))
        return out

    def _ticked(self, told: _Ticker, at_ns: int) -> list[Out]:
        market = self._lines.market(told.instrument_name)
        if market is None:
            return []
        venue_ns = told.timestamp * _MS
        marked = Marked(
            market, at_ns, venue_ns,
            told.mark_price, told.index_price, told.funding_8h, told.open_interest,
        )  # fmt: skip
        if not told.best_bid_price or not told.best_ask_price:
            return [marked]  # a side is empty
        quoted = Quoted(
            market, at_ns, venue_ns,
            told.best_bid_price, told.best_bid_amount, told.best_ask_price, told.best_ask_amount,
        )  # fmt: skip
        return [quoted, marked]


def _send(method: str, channels: Sequence[str]) -> Send:
    asked = {
        "jsonrpc": "2.0", "id": 0, "method": f"public/{method}",
        "params": {"channels": channels} if channels else {},
    }  # fmt: skip
    return Send(msgspec.json.encode(asked).decode())
