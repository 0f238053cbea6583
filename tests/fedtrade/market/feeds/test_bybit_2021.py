"""Bybit before v5: levels by id, numbers with holes; recorded frames."""

import json

import pytest
from recorded import frames, holes
from sides import Bybit2021Side
from truth import MARKET, Truth

from fedtrade.market.feeds.bybit_2021 import Bybit2021
from fedtrade.market.feeds.events import BookLost, BookMoved, Complained, Market, Send, Traded

NAME = "cryptofeed_bybit_20210417"
HOLES = {"at once": 69, "later": 58, "outlived": 85, "unseen": 6}
"""In the recording of UNIUSDT: see `recorded.holes`."""


def begun():
    side, feed = Bybit2021Side(Truth(3, 9)), Bybit2021([MARKET])
    feed.connected(0)
    feed.received(side.whole(0), 0)
    return side, feed


def test_a_recorded_book_is_the_best_25_levels_a_side_and_never_crossed():
    """What the venue's interface promised, and nothing of which the parser knows."""
    feeds = {}
    for at, _, frame in frames(NAME):
        topic, _, symbol = json.loads(frame).get("topic", "").partition(".")
        if topic != "orderBookL2_25":
            continue
        market = Market("bybit", symbol, 4, 8)
        feed = feeds.setdefault(symbol, Bybit2021([market]))
        (out,) = feed.received(frame, at)
        book = feed.replicas[market].book(at)
        assert len(book.bids(99)) == len(book.asks(99)) == 25
        bid, _, ask, _ = book.best()
        assert bid < ask
        assert out.venue_ns == int(json.loads(frame)["timestamp_e6"]) * 1_000
    assert len(feeds) == 8


def test_how_soon_a_hole_in_the_recording_is_found():
    """What the ids show of it, and what they do not."""
    told = [(at, frame) for at, _, frame in frames(NAME) if b"orderBookL2_25.UNIUSDT" in frame]
    market = Market("bybit", "UNIUSDT", 4, 8)
    found = holes(lambda: Bybit2021([market]), told, b'"type":"delta"')
    print(f"\nholes in Bybit's UNIUSDT: {found}")
    assert found == HOLES


@pytest.mark.parametrize(
    ("kind", "row", "reason"),
    [
        ("delete", {"id": "7", "side": "Buy", "price": "1"}, "level 7 is not there"),
        ("update", {"id": "7", "side": "Buy", "price": "1", "size": 2}, "level 7 is not there"),
        ("insert", {"id": "6000000", "side": "Sell", "price": "1"}, "level 6000000 is twice there"),
        ("update", {"id": "6000000", "side": "Sell", "price": "1"}, "level 6000000 is at 1.0 and"),
        (
            "insert",
            {"id": "7", "side": "Buy", "price": "99999", "size": 2},
            "its best bid is at or",
        ),
    ],
)
def test_what_contradicts_the_levels_loses_the_book(kind, row, reason):
    side, feed = begun()
    data = {"delete": [], "update": [], "insert": []}
    data[kind] = [{"symbol": "BTCUSDT", **row}]
    lost, *asked = feed.received(side.message(1, "delta", data), 0)
    assert isinstance(lost, BookLost)
    assert lost.reason.startswith(reason)
    assert [json.loads(send.text)["op"] for send in asked] == ["unsubscribe", "subscribe"]
    assert feed.received(side.diff(2), 0) == []  # the whole one is on its way


def test_numbers_rise_with_holes_and_an_older_one_loses_the_book():
    side, feed = begun()
    assert isinstance(feed.received(side.diff(1), 0)[0], BookMoved)
    assert feed.received(side.diff(1), 0) == []  # again
    empty = {"delete": [], "update": [], "insert": []}
    assert isinstance(feed.received(side.message(5, "delta", empty), 0)[0], BookMoved)
    lost, *_ = feed.received(side.message(4, "delta", empty), 0)
    assert lost.reason == "12 came after 15"


def test_everything_else_it_says():
    feed = Bybit2021([MARKET])
    assert [type(each) for each in feed.connected(0)] == [Send]
    trade = {"symbol": "BTCUSDT", "tick_direction": "MinusTick", "price": "1.5", "size": 2,
             "timestamp": "2021-04-17T16:43:05.000Z", "trade_time_ms": "3", "side": "Sell",
             "trade_id": "x"}  # fmt: skip
    told = {"topic": "trade.BTCUSDT", "data": [trade, {**trade, "symbol": "ETHUSDT"}]}
    assert feed.received(json.dumps(told).encode(), 1) == [
        Traded(MARKET, 1, 3_000_000, 1.5, 2.0, taker_buys=False)
    ]
    assert feed.received(b'{"success":true,"ret_msg":"","request":{"op":"subscribe"}}', 1) == []
    refused = b'{"success":false,"ret_msg":"error:topic:trade.X"}'
    assert feed.received(refused, 1) == [Complained("bybit", "error:topic:trade.X")]
