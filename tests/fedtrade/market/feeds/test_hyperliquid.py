"""Hyperliquid: whole books, in the order of the venue's clock."""

import json

import pytest
from recorded import FOLDER

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
from fedtrade.market.feeds.replica import BookStale

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


def test_a_book_of_which_two_pushes_are_missing_is_not_served():
    feed = Hyperliquid([MARKET])
    feed.received(book(5), 1)
    assert feed.replicas[MARKET].book(1 + 12_000_000_000)
    with pytest.raises(BookStale, match="nothing was heard for 12 s"):
        feed.replicas[MARKET].book(2 + 12_000_000_000)


def test_one_wrong_time_does_not_stop_a_book_for_good():
    feed = Hyperliquid([MARKET])
    feed.received(book(10**15), 1)
    assert feed.received(book(6), 12_000_000_000) == []
    lost, *asked = feed.received(book(7), 12_000_000_002)
    assert isinstance(lost, BookLost)
    assert len(asked) == 2
    assert isinstance(feed.received(book(8), 12_000_000_003)[0], BookReset)


@pytest.mark.parametrize("coin", ["BTC", "SOL"])
def test_the_recorded_books_of_the_data_pack_are_those_that_are_served(coin):
    """lob/hyperliquid_l2_20: as messages, and back."""
    file = FOLDER.parent / "lob" / f"hyperliquid_l2_20_{coin}.parquet"
    if not file.is_file():
        pytest.skip("the recorded books are not here (shared/data/lob)")
    import polars as pl

    market, newest = Market("hyperliquid", coin), 0
    feed = Hyperliquid([market])
    for row in pl.read_parquet(file).iter_rows(named=True):
        at, time = int(row["ts_recv_s"] * 1e9), row["ts_exch_ms"]
        sides = [[(row[f"{side}_price_{i}"], row[f"{side}_size_{i}"]) for i in range(20)]
                 for side in ("bid", "ask")]  # fmt: skip
        levels = [[{"px": str(p), "sz": str(s), "n": 1} for p, s in side] for side in sides]
        (reset,) = feed.received(told("l2Book", {"coin": coin, "time": time, "levels": levels}), at)
        assert isinstance(reset, BookReset)
        assert time >= newest
        newest, served = time, feed.replicas[market].book(at)
        for held, side in zip((served.bids(21), served.asks(21)), sides, strict=True):
            assert (held / 1e8).tolist() == [list(level) for level in side]
    assert feed.replicas[market].losses == 0


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
