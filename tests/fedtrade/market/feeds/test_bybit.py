"""Bybit v5: numbered changes; recorded frames."""

import json

import pytest
from recorded import frames, play
from sides import BybitSide
from truth import MARKET, Truth

from fedtrade.market.feeds.bybit import Bybit
from fedtrade.market.feeds.events import (
    BookLost,
    BookReset,
    Complained,
    Liquidated,
    Marked,
    Market,
    Quoted,
    Traded,
)
from fedtrade.market.feeds.lines import ASK_AGAIN_NS


@pytest.mark.parametrize("place", [0, 1])
def test_recorded_frames_replay_without_a_loss(place):
    name, symbols = "cryptofeed_v2_bybit", {}
    for _, conn, frame in frames(name):
        message = json.loads(frame)
        if message.get("topic", "").startswith("orderbook"):
            symbols.setdefault(conn, set()).add(message["data"]["s"])
    if place >= len(symbols):
        pytest.skip("one connection has books")
    connection = sorted(symbols)[place]
    feed = Bybit([Market("bybit", symbol, 8, 6) for symbol in sorted(symbols[connection])])
    out = play(name, feed, connection)
    assert not [each for each in out if isinstance(each, BookLost | Complained)]
    assert all(replica.live and not replica.losses for replica in feed.replicas.values())
    assert len(out) > 500


def test_a_number_of_one_is_a_whole_book():
    side, feed = BybitSide(Truth(3, 9)), Bybit([MARKET])
    feed.received(side.whole(0), 0)
    anew = json.loads(side.message(2, "delta", *side.truth.books[2]))
    anew["data"]["u"] = 1
    assert isinstance(feed.received(json.dumps(anew).encode(), 0)[0], BookReset)


def test_a_venue_whose_whole_books_cross_is_not_stormed():
    side, feed = BybitSide(Truth(3, 9)), Bybit([MARKET])
    crossed = side.message(1, "snapshot", {5: 1}, {4: 1})
    lost, *asked = feed.received(crossed, 0)
    assert isinstance(lost, BookLost)
    assert len(asked) == 2
    assert [type(each) for each in feed.received(crossed, ASK_AGAIN_NS - 1)] == [BookLost]
    assert len(feed.received(crossed, ASK_AGAIN_NS)) == 3
    assert isinstance(feed.received(side.whole(2), ASK_AGAIN_NS + 1)[0], BookReset)
    assert len(feed.received(crossed, ASK_AGAIN_NS + 2)) == 3  # a loss of its own


def told(topic, data, kind="snapshot"):
    message = {"topic": f"{topic}.BTCUSDT", "type": kind, "ts": 7, "data": data}
    return json.dumps(message).encode()


def test_everything_else_it_says():
    feed = Bybit([MARKET])
    trade = {"T": 3, "s": "BTCUSDT", "S": "Sell", "v": "2", "p": "1.5", "seq": 4}
    assert feed.received(told("publicTrade", [trade]), 1) == [
        Traded(MARKET, 1, 3_000_000, 1.5, 2.0, taker_buys=False)
    ]
    assert feed.received(told("allLiquidation", [trade]), 1) == [
        Liquidated(MARKET, 1, 3_000_000, 1.5, 2.0, long=False)
    ]
    first = {"symbol": "BTCUSDT", "bid1Price": "1", "bid1Size": "2", "ask1Price": "3",
             "ask1Size": "4", "markPrice": "5", "fundingRate": ""}  # fmt: skip
    assert feed.received(told("tickers", first), 1) == [
        Quoted(MARKET, 1, 7_000_000, 1, 2, 3, 4), Marked(MARKET, 1, 7_000_000, 5.0),
    ]  # fmt: skip
    change = {"symbol": "BTCUSDT", "ask1Size": "9"}
    assert feed.received(told("tickers", change, "delta"), 1) == [
        Quoted(MARKET, 1, 7_000_000, 1, 2, 3, 9)
    ]
    change = {"symbol": "BTCUSDT", "fundingRate": "0.0001"}
    assert feed.received(told("tickers", change, "delta"), 1) == [
        Marked(MARKET, 1, 7_000_000, 5.0, None, 0.0001)
    ]
    assert feed.received(b'{"success":true,"ret_msg":"pong","op":"ping"}', 1) == []
    refused = b'{"success":false,"ret_msg":"handler not found","op":"subscribe"}'
    assert feed.received(refused, 1) == [Complained("bybit", "handler not found")]
