"""dYdX: one numbering over all channels, late answers, crossing levels, recorded frames."""

import json

import pytest
from recorded import frames, play
from sides import DydxSide
from truth import MARKET, Truth

from fedtrade.market.feeds.dydx import Dydx
from fedtrade.market.feeds.events import (
    BookLost,
    BookMoved,
    BookReset,
    Complained,
    Marked,
    Market,
    Send,
    Traded,
)
from fedtrade.market.feeds.replica import BookStale


@pytest.mark.parametrize("place", [0.5, 0.9])
def test_a_torn_message_costs_one_whole_book(place):
    """Its number is told before what cannot be read, so that nobody waits for it besides."""
    side, feed = DydxSide(Truth(3, 20)), Dydx([MARKET], patience=3)
    feed.connected(0)
    feed.received(side.whole(0), 0)
    torn = side.diff(1)
    out = feed.received(torn[: int(place * len(torn))], 0)
    assert [type(each) for each in out] == [BookLost, Send, Send]
    out = feed.received(side.whole(1), 0)
    for number in range(2, 12):
        out += feed.received(side.diff(number), 0)
    assert [type(each) for each in out] == [BookReset, *[BookMoved] * 10]


def test_recorded_frames_replay_without_a_loss():
    name, symbols = "cryptofeed_dydx_v3_20211028", set()
    for _, _, frame in frames(name):
        message = json.loads(frame)
        if message.get("channel") == "v3_orderbook":
            symbols.add(message["id"])
    feed = Dydx([Market("dydx", symbol, 8, 4) for symbol in sorted(symbols)], "v3")
    out = play(name, feed)
    assert len(symbols) == 10
    assert all(replica.live and not replica.held for replica in feed.replicas.values())
    assert {each.reason for each in out if isinstance(each, BookLost)} == {
        "message 11 is missing"  # the answers to other subscriptions came late
    }
    assert all(replica.losses == 0 for replica in feed.replicas.values())


def test_a_book_is_held_while_a_message_is_missing():
    side, feed = DydxSide(Truth(1, 9)), Dydx([MARKET], patience=3)
    replica = feed.replicas[MARKET]
    feed.received(side.whole(0), 0)
    late = side.message("subscribed", {"trades": []}, "trades")
    (lost,) = feed.received(side.diff(1), 0)
    assert lost.reason == "message 2 is missing"
    with pytest.raises(BookStale, match="message 2 is missing"):
        replica.book(0)
    (reset,) = feed.received(late, 0)
    assert isinstance(reset, BookReset)
    assert replica.book(0)
    bids = {price: size for price, size in reset.bids.tolist()}
    assert bids == side.truth.books[1][0]


def test_what_is_newer_crosses_what_is_older():
    side, feed = DydxSide(Truth(1, 1)), Dydx([MARKET])
    feed.received(side.message("subscribed", {
        "bids": [{"price": "10.00", "size": "1"}],
        "asks": [{"price": "10.02", "size": "1"}, {"price": "10.05", "size": "2"}],
    }), 0)  # fmt: skip
    moved = {"bids": [["10.03", "4"]], "asks": []}
    feed.received(side.message("channel_batch_data", [moved]), 0)
    assert feed.replicas[MARKET].book(0).best() == (1003, 4000, 1005, 2000)
    feed.received(side.message("channel_data", {"asks": [["9.99", "1"]]}), 0)
    assert feed.replicas[MARKET].book(0).best() is None


def test_everything_else_it_says():
    side, feed = DydxSide(Truth(1, 1)), Dydx([MARKET])
    assert all(isinstance(each, Send) for each in feed.connected(0))
    trades = {"trades": [{"price": "1.5", "size": "2", "side": "BUY", "createdAt": "x"}]}
    told = side.message("channel_data", trades, "trades")
    assert feed.received(told, 1) == [Traded(MARKET, 1, 0, 1.5, 2.0, taker_buys=True)]
    contents = {"oraclePrices": {"BTCUSDT": {"oraclePrice": "3"}},
                "trading": {"BTCUSDT": {"nextFundingRate": "0.1"}}}  # fmt: skip
    told = side.message("channel_data", contents, "markets")
    assert feed.received(told, 1) == [
        Marked(MARKET, 1, 0, index=3.0), Marked(MARKET, 1, 0, funding_rate=0.1),
    ]  # fmt: skip
    wrong = b'{"type":"error","message":"Invalid subscription","connection_id":"c","message_id":3}'
    assert feed.received(wrong, 1) == [Complained("dydx", "Invalid subscription")]
