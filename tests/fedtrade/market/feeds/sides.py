"""Each venue's side of one book: the messages that it would send of a true one (see truth.Trial)."""

import json
from zlib import crc32

import numpy as np
from truth import MARKET, Truth

from fedtrade.market.feeds.binance import Binance
from fedtrade.market.feeds.bitmex import Bitmex
from fedtrade.market.feeds.bybit import Bybit
from fedtrade.market.feeds.bybit_2021 import Bybit2021
from fedtrade.market.feeds.deribit import Deribit
from fedtrade.market.feeds.dydx import Dydx
from fedtrade.market.feeds.events import Market
from fedtrade.market.feeds.hyperliquid import Hyperliquid
from fedtrade.market.feeds.kraken_futures import KrakenFutures
from fedtrade.market.feeds.lighter import Lighter
from fedtrade.market.feeds.okx import Okx


class Side:
    """What all sides have: the true book, and its moves."""

    def __init__(self, truth):
        self.truth = truth

    def moved(self, number):
        """The levels that move n tells."""
        return self.truth.moves[number - 1]

    def altered(self, number):
        """Move n with levels that its checksum is not of, and they; None where there is none."""
        return None, None

    def crossed(self, number):
        """A bid over the best ask in place of move n, and it; None where the venue rules on that."""
        moves, ask = self.truth.moves, min(self.truth.books[number - 1][1])
        told, moves[number - 1] = moves[number - 1], ({ask + 1: 5}, {})
        try:
            return self.diff(number), moves[number - 1]
        finally:
            moves[number - 1] = told


def best_first(sides):
    return sorted(sides[0].items(), reverse=True), sorted(sides[1].items())


def encoded(told):
    return json.dumps(told).encode()


class BinanceSide(Side):
    """Diffs with some ids each, and snapshots of the web interface."""

    def __init__(self, truth, product, seed):
        super().__init__(truth)
        self.product = product
        rng = np.random.default_rng(seed)
        self.last = [1_000, *(1_000 + np.cumsum(rng.integers(1, 5, len(truth.moves)))).tolist()]

    def diff(self, number):
        bids, asks = self.truth.moves[number - 1]
        data = {"e": "depthUpdate", "E": number, "s": self.truth.market.symbol,
                "U": self.last[number - 1] + 1, "u": self.last[number],
                "b": self.truth.text(bids), "a": self.truth.text(asks)}  # fmt: skip
        if self.product != "spot":
            data |= {"T": number, "pu": self.last[number - 1]}
        return encoded({"stream": "btcusdt@depth@100ms", "data": data})

    def whole(self, number):
        bids, asks = self.truth.books[number]
        return encoded({"lastUpdateId": self.last[number], "bids": self.truth.text(bids),
                        "asks": self.truth.text(asks)})  # fmt: skip


class BybitSide(Side):
    def message(self, number, kind, bids, asks):
        symbol = self.truth.market.symbol
        data = {"s": symbol, "b": self.truth.text(bids), "a": self.truth.text(asks),
                "u": 10 + number, "seq": 1}  # fmt: skip
        return encoded(
            {"topic": f"orderbook.200.{symbol}", "type": kind, "ts": number, "data": data}
        )

    def diff(self, number):
        return self.message(number, "delta", *self.truth.moves[number - 1])

    def whole(self, number):
        return self.message(number, "snapshot", *self.truth.books[number])


class Bybit2021Side(Side):
    """Levels by id; numbers rise by three."""

    numbered = False

    def message(self, number, kind, data):
        topic = f"orderBookL2_25.{self.truth.market.symbol}"
        return encoded({"topic": topic, "type": kind, "data": data, "cross_seq": str(3 * number),
                        "timestamp_e6": str(number)})  # fmt: skip

    def row(self, side, price, size=None):
        told = {"price": self.truth.price(price), "symbol": self.truth.market.symbol,
                "id": str(price), "side": ("Buy", "Sell")[side]}  # fmt: skip
        return told if size is None else {**told, "size": size / 1e3}

    def moved(self, number):
        """Without what goes and was not there: it has no id."""
        before = self.truth.books[number - 1]
        return tuple(
            {price: size for price, size in moved.items() if size or price in before[side]}
            for side, moved in enumerate(self.truth.moves[number - 1])
        )

    def diff(self, number):
        before, data = self.truth.books[number - 1], {"delete": [], "update": [], "insert": []}
        for side, moved in enumerate(self.moved(number)):
            for price, size in moved.items():
                kind = "delete" if not size else "update" if price in before[side] else "insert"
                data[kind].append(self.row(side, price, size or None))
        return self.message(number, "delta", data)

    def whole(self, number):
        rows = [self.row(side, *level) for side, levels in enumerate(self.truth.books[number])
                for level in levels.items()]  # fmt: skip
        return self.message(number, "snapshot", {"order_book": rows})


class OkxSide(Side):
    def message(self, number, action, bids, asks, **more):
        data = {"bids": self.rows(bids), "asks": self.rows(asks), "ts": str(number),
                "checksum": self.checksum(number), "seqId": 10 + number, **more}  # fmt: skip
        arg = {"channel": "books", "instId": self.truth.market.symbol}
        return encoded({"arg": arg, "action": action, "data": [data]})

    def rows(self, levels):
        return [[*row, "0", "1"] for row in self.truth.text(levels)]

    def diff(self, number):
        return self.message(number, "update", *self.truth.moves[number - 1], prevSeqId=9 + number)

    def whole(self, number):
        return self.message(number, "snapshot", *self.truth.books[number], prevSeqId=-1)

    def altered(self, number):
        """Move n with another size of one of the best levels, and its true checksum."""
        moved = tuple(dict(side) for side in self.truth.moves[number - 1])
        for side, levels in enumerate(best_first(self.truth.books[number])):
            for price, size in levels[:25]:
                if price in moved[side]:
                    moved[side][price] = size + 1
                    return self.message(number, "update", *moved, prevSeqId=9 + number), moved
        return None, None

    def checksum(self, number):
        best = [side[:25] for side in best_first(self.truth.books[number])]
        words = []
        for place in range(25):
            for side in best:
                if place < len(side):
                    words += self.truth.text(dict([side[place]]))[0]
        found = crc32(":".join(words).encode())
        return found - 2**32 if found >= 2**31 else found


class DeribitSide(Side):
    def message(self, number, bids, asks, **more):
        rows = [
            [
                ["change" if size else "delete", price / 1e2, size / 1e3]
                for price, size in each.items()
            ]
            for each in (bids, asks)
        ]
        data = {"instrument_name": "BTCUSDT", "change_id": 7 * number, "timestamp": number,
                "bids": rows[0], "asks": rows[1], **more}  # fmt: skip
        params = {"channel": "book.BTCUSDT.raw", "data": data}
        return encoded({"jsonrpc": "2.0", "method": "subscription", "params": params})

    def diff(self, number):
        moves = self.truth.moves[number - 1]
        return self.message(number, *moves, type="change", prev_change_id=7 * number - 7)

    def whole(self, number):
        return self.message(number, *self.truth.books[number], type="snapshot")


class DydxSide(Side):
    """It numbers what it sends, as it sends it."""

    def __init__(self, truth):
        super().__init__(truth)
        self.sent, self.made = 0, {}

    def message(self, kind, contents, channel="orderbook"):
        self.sent += 1
        return encoded({"type": kind, "connection_id": "c", "message_id": self.sent,
                        "channel": f"v4_{channel}", "id": "BTCUSDT",
                        "contents": contents})  # fmt: skip

    def diff(self, number):
        if number not in self.made:
            bids, asks = self.truth.moves[number - 1]
            contents = {"bids": self.truth.text(bids), "asks": self.truth.text(asks)}
            self.made[number] = self.message("channel_data", contents)
        return self.made[number]

    def crossed(self, number):
        return None, None

    def whole(self, number):
        sides = [
            [{"price": price, "size": size} for price, size in self.truth.text(side)]
            for side in self.truth.books[number]
        ]
        return self.message("subscribed", {"bids": sides[0], "asks": sides[1]})


class LighterSide(Side):
    def message(self, number, kind, sides):
        bids, asks = (
            [{"price": price, "size": size} for price, size in self.truth.text(side)]
            for side in sides
        )
        book = {"code": 0, "offset": 40 + number, "nonce": 1, "bids": bids, "asks": asks}
        return encoded({"channel": "order_book:1", "timestamp": number,
                        "type": f"{kind}/order_book", "order_book": book})  # fmt: skip

    def diff(self, number):
        return self.message(number, "update", self.truth.moves[number - 1])

    def whole(self, number):
        return self.message(number, "subscribed", self.truth.books[number])


class KrakenSide(Side):
    def diff(self, number):
        bids, asks = self.truth.moves[number - 1]
        ((price, size),) = [*bids.items(), *asks.items()]
        return encoded({"feed": "book", "product_id": "BTCUSDT", "side": "buy" if bids else "sell",
                        "seq": 9 + number, "price": price / 1e2, "qty": size / 1e3,
                        "timestamp": 1})  # fmt: skip

    def whole(self, number):
        sides = [
            [{"price": price / 1e2, "qty": size / 1e3} for price, size in side.items()]
            for side in self.truth.books[number]
        ]
        return encoded({"feed": "book_snapshot", "product_id": "BTCUSDT", "seq": 9 + number,
                        "timestamp": 1, "bids": sides[0], "asks": sides[1]})  # fmt: skip


class HyperliquidSide(Side):
    """Every message is the whole book."""

    repeats = True

    def whole(self, number):
        sides = [[{"px": price, "sz": size, "n": 1} for price, size in self.truth.text(side)]
                 for side in self.truth.books[number]]  # fmt: skip
        data = {"coin": "BTCUSDT", "time": number, "levels": sides}
        return encoded({"channel": "l2Book", "data": data})

    diff = whole

    def crossed(self, number):
        bids, asks = self.truth.books[number]
        moved = {min(asks) + 1: 5}
        self.truth.books[number] = {**bids, **moved}, asks
        try:
            return self.diff(number), (moved, {})
        finally:
            self.truth.books[number] = bids, asks


class BitmexSide(Side):
    """One level a message, by id; the best levels apart."""

    numbered = False

    def rows(self, number, side, levels, *what):
        at = f"2026-01-01T00:00:{number // 1000:02}.{number % 1000:03}Z"
        told = ({"symbol": "BTCUSDT", "id": price, "side": ("Buy", "Sell")[side],
                 "price": price / 1e2, "size": size / 1e3, "timestamp": at}
                for price, size in levels.items())  # fmt: skip
        return [{key: row[key] for key in row if key not in what} for row in told]

    def diff(self, number):
        ((side, moved),) = [each for each in enumerate(self.truth.moves[number - 1]) if each[1]]
        ((price, size),) = moved.items()
        there = price in self.truth.books[number - 1][side]
        action = "delete" if not size else "update" if there else "insert"
        known = {"insert": (), "update": ("price",), "delete": ("price", "size")}[action]
        return encoded({"table": "orderBookL2", "action": action,
                        "data": self.rows(number, side, moved, *known)})  # fmt: skip

    def whole(self, number):
        rows = [row for side, levels in enumerate(self.truth.books[number])
                for row in self.rows(number, side, levels)]  # fmt: skip
        return encoded({"table": "orderBookL2", "action": "partial", "data": rows})

    def best(self, number):
        before, after = (
            sum((side[0] for side in best_first(self.truth.books[each])), ())
            for each in (number - 1, number)
        )
        if before == after:
            return None
        names = ("bidPrice", "bidSize", "askPrice", "askSize")
        parts = (after[0] / 1e2, after[1] / 1e3, after[2] / 1e2, after[3] / 1e3)
        quote = {"symbol": "BTCUSDT", **dict(zip(names, parts, strict=True))}
        return encoded({"table": "quote", "action": "insert", "data": [quote]}), after


LIGHTER = Market("lighter", "1", 2, 3)


def _binance(product):
    def both(seed, moves):
        return Binance(product, [MARKET]), BinanceSide(Truth(seed, moves), product, seed)

    return both


def _of(feed, side, market=MARKET, single=False):
    return lambda seed, moves: (feed([market]), side(Truth(seed, moves, market, single)))


SIDES = {
    "binance-spot": _binance("spot"),
    "binance-usdm": _binance("usdm"),
    "binance-coinm": _binance("coinm"),
    "bybit": _of(Bybit, BybitSide),
    "bybit-2021": _of(Bybit2021, Bybit2021Side),
    "okx": _of(Okx, OkxSide),
    "deribit": _of(Deribit, DeribitSide),
    "dydx": _of(lambda markets: Dydx(markets, patience=3), DydxSide),
    "lighter": _of(Lighter, LighterSide, LIGHTER),
    "kraken-futures": _of(KrakenFutures, KrakenSide, single=True),
    "hyperliquid": _of(Hyperliquid, HyperliquidSide),
    "bitmex": _of(Bitmex, BitmexSide, single=True),
}
"""Venue -> a feed and the side of its venue, of a seed and a number of moves."""
