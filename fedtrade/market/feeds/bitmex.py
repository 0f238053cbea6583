"""BitMEX: `orderBookL2`, `trade` and `quote` of an instrument.

Nothing is numbered. The venue promises the order of messages within one table, none between tables
(blog.bitmex.com, "Change in Inter-Table Ordering"). What shows that a message is missing, late or
comes twice:

    ids      a change of a level that is not there, one that is there twice or at another price
    times    since 2022 a change carries the matching engine's; an older one came late
    quotes   the newest one is the best of the book: in the recording each one was, to the size, when it
             came. Where it is not, the book is held until both agree, and lost where they do not soon
    a book that crosses, and what cannot be read

What nothing shows: a lost change below the best levels, until its level is told of again or becomes
the best. So this venue's book may be believed less than those that number their messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

import msgspec

from fedtrade.market.feeds.by_id import Action, Contradicted, Level, LevelsById
from fedtrade.market.feeds.events import (
    UNREADABLE,
    Complained,
    Market,
    OffGrid,
    Out,
    Quoted,
    Send,
    Traded,
)
from fedtrade.market.feeds.lines import Lines

TABLES: Final = ("orderBookL2", "trade", "quote")
DOUBT_NS: Final = 2_000_000_000
"""How long a book may differ from the newest quote, held; the two tables come in no order."""
_MS: Final = 1_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class _Trade(msgspec.Struct):
    symbol: str
    side: Literal["Buy", "Sell"]
    price: float
    size: float
    timestamp: datetime | None = None


class _Quote(msgspec.Struct):
    symbol: str
    bidPrice: float | None = None
    bidSize: float | None = None
    askPrice: float | None = None
    askSize: float | None = None
    timestamp: datetime | None = None


class _Filter(msgspec.Struct):
    symbol: str = ""


class _Message(msgspec.Struct):
    table: str = ""
    action: Literal["partial", ""] | Action = ""
    filter: _Filter | None = None
    data: msgspec.Raw = msgspec.Raw()
    error: str = ""


_message = msgspec.json.Decoder(_Message).decode
_levels = msgspec.json.Decoder(list[Level]).decode
_trades = msgspec.json.Decoder(list[_Trade]).decode
_quotes = msgspec.json.Decoder(list[_Quote]).decode

_Best = tuple[int, int, int, int]
"""Bid, its size, ask, its size, in units."""


class Bitmex:
    """One connection to BitMEX: bytes in, events and wishes out."""

    def __init__(self, markets: Sequence[Market]) -> None:
        self._lines = Lines(markets, self._again)
        self._levels = {market.symbol: LevelsById() for market in markets}
        self._doubted: dict[str, tuple[int, _Best]] = {}
        """symbol -> since when its book differs from its newest quote, and that."""
        self.replicas = self._lines.replicas

    def connected(self, at_ns: int) -> list[Out]:
        """A new connection: what to send. Every book begins anew."""
        self._doubted.clear()
        topics = [f"{table}:{market.symbol}" for market in self.replicas for table in TABLES]
        return [*self._lines.begin(at_ns), _send("subscribe", topics)]

    def _again(self, market: Market) -> list[Send]:
        topics = [f"orderBookL2:{market.symbol}"]
        return [_send("unsubscribe", topics), _send("subscribe", topics)]

    def received(self, frame: bytes, at_ns: int) -> list[Out]:
        """A message of the venue. What cannot be read may have been any book's, so all are lost."""
        try:
            out = self._told(_message(frame), frame, at_ns)
        except UNREADABLE:
            return self._lines.lose_all(at_ns, "a message of the venue cannot be read")
        for symbol, (_, quoted) in list(self._doubted.items()):
            out += self._compare(symbol, quoted, at_ns)
        return out

    def _told(self, message: _Message, frame: bytes, at_ns: int) -> list[Out]:
        if message.table == "orderBookL2":
            return self._book(message, _levels(message.data), frame, at_ns)
        if message.table == "trade" and message.action == "insert":
            return [out for each in _trades(message.data) for out in self._traded(each, at_ns)]
        if message.table == "quote" and message.action == "insert":
            return self._quoted(_quotes(message.data), at_ns)
        return [Complained("bitmex", message.error[:500])] if message.error else []

    def _book(self, message: _Message, levels: list[Level], frame: bytes, at_ns: int) -> list[Out]:
        symbols = {each.symbol for each in levels}
        if message.action == "partial" and message.filter is not None:
            symbols.add(message.filter.symbol)  # the whole book may be empty
        out: list[Out] = []
        for symbol in sorted(symbols):
            market = self._lines.market(symbol)
            if market is not None:
                of_it = [each for each in levels if each.symbol == symbol]
                out += self._changed(market, message.action, of_it, frame, at_ns)
        return out

    def _changed(
        self,
        market: Market,
        action: Literal["partial", ""] | Action,
        levels: list[Level],
        frame: bytes,
        at_ns: int,
    ) -> list[Out]:
        symbol, known, lines = market.symbol, self._levels[market.symbol], self._lines
        at_ms = max((_ms(each.timestamp) for each in levels), default=0)
        again = lines.repeats(symbol, frame)
        try:
            if action == "partial":
                known.clear()
                self._doubted.pop(symbol, None)
                sides = known.apply("insert", levels)
                # its time is that of its making: changes that follow it may be older
                return lines.whole(symbol, lines.newest(symbol), at_ns, at_ms * _MS, *sides)
            if not self.replicas[market].live:
                return lines.ask(symbol, at_ns)
            if again or action == "":
                return []
            sides = known.apply(action, levels)
        except Contradicted as error:
            return lines.lose(symbol, at_ns, error.reason)
        return lines.later(symbol, at_ms, at_ns, at_ms * _MS, *sides)

    def _compare(self, symbol: str, quoted: _Best, at_ns: int) -> list[Out]:
        """Hold a book while it is not the newest quote's; lose it when it stays so."""
        market = self._lines.market(symbol)
        assert market is not None  # asked by the caller
        replica = self.replicas[market]
        since_ns, _ = self._doubted.pop(symbol, (at_ns, quoted))
        if not replica.live:
            return []
        if replica.applied.best() == quoted:
            released = replica.release(at_ns)
            return [] if released is None else [released]
        if at_ns - since_ns > DOUBT_NS:
            return self._lines.lose(symbol, at_ns, "its best levels are not those quoted")
        self._doubted[symbol] = since_ns, quoted
        held = replica.hold(at_ns, "its best levels are not yet those quoted")
        return [] if held is None else [held]

    def _traded(self, each: _Trade, at_ns: int) -> list[Out]:
        market = self._lines.market(each.symbol)
        if market is None:
            return []
        venue_ns, buys = _ms(each.timestamp) * _MS, each.side == "Buy"
        return [Traded(market, at_ns, venue_ns, each.price, each.size, buys)]

    def _quoted(self, quotes: list[_Quote], at_ns: int) -> list[Out]:
        """Quotes of a message; by the last of each market its book is judged."""
        out: list[Out] = []
        told: dict[str, _Best] = {}
        for each in quotes:
            market = self._lines.market(each.symbol)
            best = each.bidPrice, each.bidSize, each.askPrice, each.askSize
            if market is None or None in best:
                continue
            bid, bid_size, ask, ask_size = (part for part in best if part is not None)
            venue_ns = _ms(each.timestamp) * _MS
            out.append(Quoted(market, at_ns, venue_ns, bid, bid_size, ask, ask_size))
            try:
                (bids,), (asks,) = (
                    market.levels([(bid, bid_size)]),
                    market.levels([(ask, ask_size)]),
                )
            except OffGrid as error:
                return [*out, *self._lines.lose(each.symbol, at_ns, error.message)]
            told[each.symbol] = (*bids.tolist(), *asks.tolist())
        for symbol, quoted in told.items():
            out += self._compare(symbol, quoted, at_ns)
        return out


def _ms(at: datetime | None) -> int:
    """Milliseconds since 1970, 0 where none is said. One without a zone is UTC, as all of theirs."""
    if at is None:
        return 0
    return (at.replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)


def _send(op: str, topics: Sequence[str]) -> Send:
    return Send(msgspec.json.encode({"op": op, "args": topics}).decode())
