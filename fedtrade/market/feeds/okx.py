"""OKX v5, public: `books` (400 levels), `trades`, `tickers` of spot, swaps and futures.

Of swaps and futures also `mark-price` and `open-interest`, of swaps `funding-rate`.

An order book message names the `prevSeqId` that it follows; where nothing changed, that is its own
`seqId`, and after maintenance a `seqId` may be lower than its predecessor (okx.com/docs-v5, "Order book
channel"). Older recordings have no ids: there every message is judged by its checksum alone, which is
the CRC-32 over the texts of the best 25 levels, bid and ask in turn. Both are checked where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Final, Literal
from zlib import crc32

import msgspec

from fedtrade.market.book import LEVELS_MAX
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
CHECKED_LEVELS: Final = 25
PING: Final = Send("ping")
"""To be sent where nothing came for 20 s; the venue closes a line after 30."""
PONG: Final = b"pong"

_Row = tuple[str, str, str, str]
"""Price, size, 0, number of orders."""

_Texts = dict[int, tuple[str, str]]
"""Price in units -> the venue's texts of a level."""


class _Book(msgspec.Struct):
    bids: list[_Row]
    asks: list[_Row]
    ts: int
    checksum: int | None = None
    seqId: int | None = None
    prevSeqId: int | None = None


class _Trade(msgspec.Struct):
    ts: int
    px: float
    sz: float
    side: Literal["buy", "sell"]


class _Ticker(msgspec.Struct):
    ts: int
    bidPx: float | Literal[""]
    bidSz: float | Literal[""]
    askPx: float | Literal[""]
    askSz: float | Literal[""]


class _State(msgspec.Struct):
    """Of any of the three channels that tell a contract's state; each names its own field only."""

    ts: int
    markPx: float | None = None
    fundingRate: float | Literal[""] | None = None
    oi: float | None = None


STATES: Final = ("mark-price", "funding-rate", "open-interest")


class _Arg(msgspec.Struct):
    channel: str = ""
    instId: str = ""


class _Message(msgspec.Struct):
    arg: _Arg = msgspec.field(default_factory=_Arg)
    action: Literal["snapshot", "update", ""] = ""
    event: str = ""
    msg: str = ""
    data: msgspec.Raw = msgspec.Raw()


_message = msgspec.json.Decoder(_Message).decode
_books = msgspec.json.Decoder(tuple[_Book], strict=False).decode
_trades = msgspec.json.Decoder(list[_Trade], strict=False).decode
_states = msgspec.json.Decoder(list[_State], strict=False).decode
_tickers = msgspec.json.Decoder(list[_Ticker], strict=False).decode


class Okx:
    """One connection to OKX: bytes in, events and wishes out."""

    def __init__(self, markets: Sequence[Market]) -> None:
        self._lines = Lines(markets, self._again)
        self._texts: dict[str, tuple[_Texts, _Texts]] = {}
        self._counted: dict[str, int] = {}
        """Messages since the whole book, where the venue gives no ids."""
        self.replicas = self._lines.replicas

    def connected(self, at_ns: int) -> list[Out]:
        """A new connection: what to send. Every book begins anew."""
        args = [
            {"channel": channel, "instId": market.symbol}
            for market in self.replicas
            for channel in _channels(market.symbol)
        ]
        return [*self._lines.begin(at_ns), _send("subscribe", args)]

    def _again(self, market: Market) -> list[Send]:
        args = [{"channel": "books", "instId": market.symbol}]
        return [_send("unsubscribe", args), _send("subscribe", args)]

    def received(self, frame: bytes, at_ns: int) -> list[Out]:
        """A message of the venue. What cannot be read may have been any book's, so all are lost."""
        if frame == PONG:
            return []
        try:
            message = _message(frame)
            if message.event:
                problem = message.event == "error"
                return [Complained("okx", message.msg[:500])] if problem else []
            channel, symbol = message.arg.channel, message.arg.instId
            if channel == "books":
                (book,) = _books(message.data)
                return self._changed(symbol, book, message.action == "snapshot", at_ns)
            if channel == "trades":
                return self._traded(symbol, _trades(message.data), at_ns)
            if channel == "tickers":
                return self._ticked(symbol, _tickers(message.data), at_ns)
            if channel in STATES:
                return self._marked(symbol, _states(message.data), at_ns)
        except (*UNREADABLE, ValueError):
            return self._lines.lose_all(at_ns, "a message of the venue cannot be read")
        return []

    def _changed(self, symbol: str, book: _Book, whole: bool, at_ns: int) -> list[Out]:
        market = self._lines.market(symbol)
        if market is None:
            return []
        told = at_ns, book.ts * _MS, _numbers(book.bids), _numbers(book.asks)
        if whole:
            self._texts[symbol] = ({}, {})
            self._counted[symbol] = 0
            number = self._counted[symbol] if book.seqId is None else book.seqId
            out = self._lines.whole(symbol, number, *told)
        elif book.seqId is None:
            if book.checksum is None:
                return self._lines.lose(symbol, at_ns, "a change has neither number nor checksum")
            count = self._counted[symbol] = self._counted.get(symbol, 0) + 1
            out = self._lines.next(symbol, count - 1, count, *told)
        else:
            previous = -1 if book.prevSeqId is None else book.prevSeqId
            out = self._lines.next(symbol, previous, book.seqId, *told)
        replica = self.replicas[market]
        if not replica.live:
            return out
        for texts, rows in zip(self._texts[symbol], (book.bids, book.asks), strict=True):
            prices = market.levels(_numbers(rows))[:, 0].tolist()
            for price, (price_text, size_text, *_) in zip(prices, rows, strict=True):
                texts[price] = (price_text, size_text)
                if float(size_text) == 0:
                    del texts[price]
            if len(texts) > LEVELS_MAX:
                return self._lines.lose(symbol, at_ns, "it has more levels than a book may have")
        if book.checksum is not None and self._checksum(market, at_ns) != book.checksum:
            return self._lines.lose(symbol, at_ns, "its checksum is another")
        return out

    def _checksum(self, market: Market, at_ns: int) -> int:
        """Of the best levels' own texts, as a signed number of 32 bits."""
        book = self.replicas[market].book(at_ns)
        sides = book.bids(CHECKED_LEVELS), book.asks(CHECKED_LEVELS)
        texts = [
            [held[int(price)] for price in levels[:, 0]]
            for held, levels in zip(self._texts[market.symbol], sides, strict=True)
        ]
        words = chain.from_iterable(chain.from_iterable(zip_longest(*texts, fillvalue=())))
        unsigned = crc32(":".join(words).encode())
        return unsigned - 2**32 if unsigned >= 2**31 else unsigned

    def _traded(self, symbol: str, trades: list[_Trade], at_ns: int) -> list[Out]:
        market = self._lines.market(symbol)
        if market is None:
            return []
        return [
            Traded(market, at_ns, each.ts * _MS, each.px, each.sz, each.side == "buy")
            for each in trades
        ]

    def _ticked(self, symbol: str, tickers: list[_Ticker], at_ns: int) -> list[Out]:
        market = self._lines.market(symbol)
        if market is None:
            return []
        out: list[Out] = []
        for told in tickers:
            sides = told.bidPx, told.bidSz, told.askPx, told.askSz
            if "" not in sides:
                out.append(Quoted(market, at_ns, told.ts * _MS, *map(float, sides)))
        return out

    def _marked(self, symbol: str, states: list[_State], at_ns: int) -> list[Out]:
        market = self._lines.market(symbol)
        if market is None:
            return []
        out: list[Out] = []
        for told in states:
            rate = None if told.fundingRate == "" else told.fundingRate
            out.append(Marked(market, at_ns, told.ts * _MS, told.markPx, None, rate, told.oi))
        return out


def _channels(symbol: str) -> list[str]:
    """What is told of an instrument: BTC-USDT, BTC-USDT-SWAP, BTC-USD-220527."""
    channels = ["books", "trades", "tickers"]
    if symbol.count("-") > 1:
        channels += ["mark-price", "open-interest"]
    if symbol.endswith("-SWAP"):
        channels.append("funding-rate")
    return channels


def _numbers(rows: Sequence[_Row]) -> list[tuple[float, float]]:
    return [(float(price), float(size)) for price, size, *_ in rows]


def _send(op: str, args: Sequence[dict[str, str]]) -> Send:
    return Send(msgspec.json.encode({"op": op, "args": args}).decode())
