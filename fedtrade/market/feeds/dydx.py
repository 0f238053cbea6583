"""dYdX v4 (and v3, whose recordings have the same messages): order books, trades and markets.

Every message of a connection has a `message_id`, counted over all channels, but they come out of
order: the answer to a subscription is numbered before it is made. So a hole may be any book's or no
book's: all are held until it is filled. If a change of a book fills it, that one is lost, if nothing
does, all are. The venue's indexer takes levels from many validators and lets them
cross; what is newer holds, and what it crosses on the other side is gone (dYdX documentation,
"Uncrossing the orderbook").
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from fedtrade.market.feeds.events import UNREADABLE, Complained, Marked, Market, Out, Send, Traded
from fedtrade.market.feeds.lines import Lines, Pairs

Version = Literal["v3", "v4"]
PATIENCE: Final = 64
"""Messages that one which is missing is waited for; a recording of ten markets needed 23."""
HOLE_MAX: Final = 256
"""Messages that may be missing at once; with more everything is lost at once."""
_NUMBER: Final = re.compile(rb'"message_id": ?([0-9]{1,15}),')
CHANNELS: Final = ("orderbook", "trades")


class _Level(msgspec.Struct):
    price: float
    size: float


class _Pair(msgspec.Struct, array_like=True):
    price: float
    size: float


class _Whole(msgspec.Struct):
    bids: list[_Level]
    asks: list[_Level]


class _Moved(msgspec.Struct):
    bids: list[_Pair] = []
    asks: list[_Pair] = []


class _Trade(msgspec.Struct):
    price: float
    size: float
    side: Literal["BUY", "SELL"]
    type: str = "LIMIT"


class _Trades(msgspec.Struct):
    trades: list[_Trade]


class _Oracle(msgspec.Struct):
    oraclePrice: float


class _Perpetual(msgspec.Struct):
    nextFundingRate: float | None = None
    openInterest: float | None = None


class _Markets(msgspec.Struct):
    oraclePrices: dict[str, _Oracle] = {}
    trading: dict[str, _Perpetual] = {}


class _Message(msgspec.Struct):
    type: str
    message_id: int
    channel: str = ""
    id: str = ""
    contents: msgspec.Raw = msgspec.Raw()
    message: str = ""


_message = msgspec.json.Decoder(_Message).decode
_whole = msgspec.json.Decoder(_Whole, strict=False).decode
_moved = msgspec.json.Decoder(_Moved, strict=False).decode
_moves = msgspec.json.Decoder(list[_Moved], strict=False).decode
_trades = msgspec.json.Decoder(_Trades, strict=False).decode
_markets = msgspec.json.Decoder(_Markets, strict=False).decode


class Dydx:
    """One connection to dYdX: bytes in, events and wishes out."""

    def __init__(
        self, markets: Sequence[Market], version: Version = "v4", patience: int = PATIENCE
    ) -> None:
        """`patience`: how many messages a missing one is waited for."""
        self._version, self._patience = version, patience
        self._lines = Lines(markets, self._again)
        self._due: int | None = None
        self._missing: set[int] = set()
        self._waited = 0
        self.replicas = self._lines.replicas

    def connected(self, at_ns: int) -> list[Out]:
        """A new connection: what to send. Every book begins anew."""
        self._due, self._waited = None, 0
        self._missing.clear()
        asked = [
            self._send("subscribe", kind, market.symbol)
            for market in self.replicas
            for kind in CHANNELS
        ]
        return [*self._lines.begin(at_ns), *asked, self._send("subscribe", "markets", "")]

    def _again(self, market: Market) -> list[Send]:
        return [
            self._send(what, "orderbook", market.symbol) for what in ("unsubscribe", "subscribe")
        ]

    def received(self, frame: bytes, at_ns: int) -> list[Out]:
        """A message of the venue. What cannot be read may have been any book's, so all are lost."""
        try:
            message = _message(frame)
            number = message.message_id
            if self._due is not None and number < self._due and number not in self._missing:
                return []  # told before
            return [*self._number(message, at_ns), *self._told(message, at_ns)]
        except UNREADABLE:
            return self._unread(frame, at_ns)

    def _unread(self, frame: bytes, at_ns: int) -> list[Out]:
        """Lose all; where its number can be read all the same, it is not waited for besides."""
        lost = self._lines.lose_all(at_ns, "a message of the venue cannot be read")
        found = _NUMBER.search(frame)
        if found is None:
            return lost
        number, due = int(found[1]), self._due
        self._missing.discard(number)
        if due is not None and due <= number <= due + HOLE_MAX:
            self._missing |= set(range(due, number))
            self._due = number + 1
        return [*lost, *self._settle(at_ns)]

    def _number(self, message: _Message, at_ns: int) -> list[Out]:
        """What a message's number says of the books."""
        number, due = message.message_id, self._due
        if due is None:
            self._due = number + 1
        elif number >= due:
            self._due = number + 1
            self._missing |= set(range(due, number)) if number - due <= HOLE_MAX else set()
            if number - due > HOLE_MAX:
                return self._lines.lose_all(at_ns, f"after message {due - 1} came {number}")
        elif number in self._missing:
            self._missing.discard(number)
            ours = self._lines.market(message.id) is not None
            if ours and message.channel.endswith("orderbook") and message.type != "subscribed":
                lost = self._lines.lose(message.id, at_ns, f"message {number} came late")
                return [*lost, *self._settle(at_ns)]
        return self._settle(at_ns)

    def _settle(self, at_ns: int) -> list[Out]:
        """Hold all books while a message is missing; lose them when it is missing too long."""
        if not self._missing:
            self._waited = 0
            freed = [each.release(at_ns) for each in self.replicas.values()]
            return [each for each in freed if each is not None]
        self._waited += 1
        if self._waited > self._patience:
            first = min(self._missing)
            self._missing.clear()
            self._waited = 0
            return self._lines.lose_all(at_ns, f"message {first} did not come")
        reason = f"message {min(self._missing)} is missing"
        held = [each.hold(at_ns, reason) for each in self.replicas.values()]
        return [each for each in held if each is not None]

    def _told(self, message: _Message, at_ns: int) -> list[Out]:
        kind, symbol = message.channel.partition("_")[2], message.id
        if message.type == "error":
            return [Complained("dydx", message.message[:500])]
        if kind == "markets" and message.type == "channel_data":
            return self._marked(_markets(message.contents), at_ns)
        if self._lines.market(symbol) is None:
            return []
        if kind == "orderbook" and message.type == "subscribed":
            whole = _whole(message.contents)
            bids, asks = (
                [(each.price, each.size) for each in side] for side in (whole.bids, whole.asks)
            )
            return self._lines.whole(symbol, 0, at_ns, 0, bids, _over(asks, bids))
        if kind == "orderbook" and message.type == "channel_data":
            return self._changed(symbol, _moved(message.contents), at_ns)
        if kind == "orderbook" and message.type == "channel_batch_data":
            moves = _moves(message.contents)
            return [out for each in moves for out in self._changed(symbol, each, at_ns)]
        if kind == "trades" and message.type == "channel_data":
            return self._traded(symbol, _trades(message.contents).trades, at_ns)
        return []

    def _changed(self, symbol: str, moved: _Moved, at_ns: int) -> list[Out]:
        market = self._lines.market(symbol)
        assert market is not None  # asked by the caller
        bids = [(each.price, each.size) for each in moved.bids]
        asks = [(each.price, each.size) for each in moved.asks]
        replica = self.replicas[market]
        if replica.live:
            price_scale = 10.0**market.price_decimals
            book = replica.applied
            high = max((price for price, size in bids if size), default=None)
            low = min((price for price, size in asks if size), default=None)
            named = {price for price, _ in asks}, {price for price, _ in bids}
            for price in (book.asks(_CROSSED_MAX)[:, 0] / price_scale).tolist():
                if high is not None and price <= high and price not in named[0]:
                    asks.append((price, 0.0))
            for price in (book.bids(_CROSSED_MAX)[:, 0] / price_scale).tolist():
                if low is not None and price >= low and price not in named[1]:
                    bids.append((price, 0.0))
        return self._lines.next(symbol, 0, 0, at_ns, 0, bids, asks)

    def _traded(self, symbol: str, trades: list[_Trade], at_ns: int) -> list[Out]:
        market = self._lines.market(symbol)
        assert market is not None  # asked by the caller
        return [
            Traded(market, at_ns, 0, each.price, each.size, each.side == "BUY") for each in trades
        ]

    def _marked(self, told: _Markets, at_ns: int) -> list[Out]:
        out: list[Out] = []
        for market in self.replicas:
            oracle, perpetual = (
                told.oraclePrices.get(market.symbol),
                told.trading.get(market.symbol),
            )
            if oracle is not None:
                out.append(Marked(market, at_ns, 0, index=oracle.oraclePrice))
            if perpetual is not None:
                rate, interest = perpetual.nextFundingRate, perpetual.openInterest
                out.append(Marked(market, at_ns, 0, funding_rate=rate, open_interest=interest))
        return out

    def _send(self, what: str, kind: str, symbol: str) -> Send:
        asked = {"type": what, "channel": f"{self._version}_{kind}"}
        if symbol:
            asked |= {"id": symbol}
        return Send(msgspec.json.encode(asked).decode())


_CROSSED_MAX: Final = 50
"""Levels of a side that one change may cross; with more the book is lost, as everywhere."""


def _over(asks: Pairs, bids: Pairs) -> Pairs:
    """Asks over the best bid: in a whole book neither side is the newer one."""
    best = max((price for price, _ in bids), default=0.0)
    return [(price, size) for price, size in asks if price > best]
