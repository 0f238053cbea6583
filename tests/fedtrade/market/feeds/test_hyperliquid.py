"""Hyperliquid: whole books, in the order of the venue's clock."""

import json

from fedtrade.market.feeds.events import (
    BookLost,
    BookReset,
    Complained,
    Marked,
    Market,
    Quoted,
    Send,
    Traded,
)
from fedtrade.market.feeds.hyperliquid import Hyperliquid

MARKET = Market("hyperliquid", "BTC")


def told(channel, data):
    return json.dumps({"channel": channel, "data": data}).encode()


def book(time, bid="10", ask="11"):
    level = {"sz": "2", "n": 1}
    levels = [[{"px": bid, **level}], [{"px": ask, **level}]]
    return told("l2Book", {"coin": "BTC", "time": time, "levels": levels})


def test_each_message_is_the_whole_book_and_an_older_one_is_left_out():
    feed = Hyperliquid([MARKET])
    assert all(isinstance(each, Send) for each in feed.connected(0))
    (reset,) = feed.received(book(5), 1)
    assert isinstance(reset, BookReset)
    assert feed.received(book(4, "9"), 2) == []
    assert feed.replicas[MARKET].book(2).best()[0] == 10 * 10**8
    (lost, *asked) = feed.received(book(6, "12"), 3)
    assert isinstance(lost, BookLost)
    assert len(asked) == 2
    assert isinstance(feed.received(book(7), 4)[0], BookReset)
    (lost, *_) = feed.received(book(8)[:-20], 5)
    assert lost.reason == "a message of the venue cannot be read"


def test_everything_else_it_says():
    feed = Hyperliquid([MARKET])
    trade = {"coin": "BTC", "side": "B", "px": "1.5", "sz": "2", "time": 3, "tid": 1}
    assert feed.received(told("trades", [trade]), 1) == [
        Traded(MARKET, 1, 3_000_000, 1.5, 2.0, taker_buys=True)
    ]
    level = {"px": "1", "sz": "2", "n": 1}
    best = {"coin": "BTC", "time": 3, "bbo": [level, {**level, "px": "3"}]}
    assert feed.received(told("bbo", best), 1) == [Quoted(MARKET, 1, 3_000_000, 1, 2, 3, 2)]
    assert feed.received(told("bbo", {**best, "bbo": [None, level]}), 1) == []
    ctx = {"funding": "0.0000125", "openInterest": "7", "oraclePx": "5", "markPx": "6"}
    assert feed.received(told("activeAssetCtx", {"coin": "BTC", "ctx": ctx}), 1) == [
        Marked(MARKET, 1, 0, 6.0, 5.0, 0.0000125, 7.0)
    ]
    assert feed.received(told("pong", None), 1) == []
    assert feed.received(told("error", "Invalid subscription"), 1) == [
        Complained("hyperliquid", '"Invalid subscription"')
    ]
