"""BitMEX: levels by id, times and quotes in place of numbers; recorded frames."""

import json
from collections import Counter

import pytest
from recorded import frames, holes, play

from fedtrade.market.feeds import by_id
from fedtrade.market.feeds.bitmex import DOUBT_NS, Bitmex
from fedtrade.market.feeds.events import (
    BookLost,
    BookMoved,
    BookReset,
    Market,
    Quoted,
    Send,
    Traded,
)
from fedtrade.market.feeds.replica import BookStale

MARKET = Market("bitmex", "XBTUSD", 2, 0)
HOLES = {"at once": 8, "later": 68, "outlived": 16, "unseen": 49}
"""In the recording of SOLUSDT: see `recorded.holes`."""


def told(table, action, *data):
    return json.dumps({"table": table, "action": action, "data": data}).encode()


def level(number, side="Buy", **more):
    return {"symbol": "XBTUSD", "id": number, "side": side, **more}


WHOLE = told("orderBookL2", "partial", level(1, price=10.0, size=5),
             level(2, "Sell", price=11.0, size=6))  # fmt: skip


def test_recorded_frames_replay_without_a_loss():
    name, symbols = "cryptofeed_bitmex_20210722", set()
    for _, _, frame in frames(name):
        message = json.loads(frame)
        if message.get("table") == "orderBookL2":
            symbols |= {each["symbol"] for each in message["data"]}
    feed = Bitmex([Market("bitmex", symbol, 7 + 3 * symbol.endswith("U21"), 0)
                   for symbol in sorted(symbols)])  # fmt: skip
    out = play(name, feed)
    assert not [each for each in out if isinstance(each, BookLost)]
    counted = Counter(type(each).__name__ for each in out)
    assert counted["BookReset"] == len(symbols) == 10
    assert counted["BookMoved"] == 1969
    assert all(replica.live for replica in feed.replicas.values())


def test_a_change_of_what_is_not_there_loses_the_book():
    feed = Bitmex([MARKET])
    for wrong in (
        told("orderBookL2", "update", level(3, size=1)),
        told("orderBookL2", "delete", level(3)),
        told("orderBookL2", "insert", level(1, price=10.0, size=1)),
        told("orderBookL2", "insert", level(9, price=12.0, size=1)),  # crosses
        told("orderBookL2", "update", level(1, price=9.0, size=1)),  # another price than before
        b'{"table":"orderBookL2","acti',
    ):
        assert isinstance(feed.received(WHOLE, 0)[0], BookReset)
        lost = feed.received(wrong, 0)
        assert any(isinstance(each, BookLost) for each in lost)
        assert not feed.replicas[MARKET].live


def test_levels_keep_their_price_until_they_are_deleted():
    feed = Bitmex([MARKET])
    feed.received(WHOLE, 0)
    (moved,) = feed.received(told("orderBookL2", "update", level(1, size=7)), 0)
    assert isinstance(moved, BookMoved)
    assert feed.replicas[MARKET].book(0).best() == (1000, 7, 1100, 6)
    feed.received(told("orderBookL2", "insert", level(5, price=10.5, size=3)), 0)
    assert feed.replicas[MARKET].book(0).best() == (1050, 3, 1100, 6)
    feed.received(told("orderBookL2", "delete", level(5)), 0)
    assert feed.replicas[MARKET].book(0).best() == (1000, 7, 1100, 6)


def at(second, **more):
    return {"timestamp": f"2026-01-01T00:00:{second:02}.500Z", **more}


def quote(bid, bid_size, ask, ask_size):
    return told("quote", "insert", {"symbol": "XBTUSD", "bidPrice": bid, "bidSize": bid_size,
                                    "askPrice": ask, "askSize": ask_size})  # fmt: skip


def test_an_older_change_loses_the_book_and_one_wrong_time_not_every_book_after_it():
    feed = Bitmex([MARKET])

    def change(second, size):
        frame = told("orderBookL2", "update", level(1, size=size, **at(second)))
        return [type(each) for each in feed.received(frame, 0)]

    feed.received(WHOLE, 0)
    assert change(5, 7) == [BookMoved]
    assert change(5, 8) == [BookMoved]
    assert change(5, 8) == []  # again, byte for byte
    assert change(59, 9) == [BookMoved]
    assert change(6, 7) == [BookLost, Send, Send]
    assert change(7, 7) == []  # a whole one is on its way
    feed.received(WHOLE, 0)
    assert change(7, 7) == [BookMoved]


def test_a_change_after_the_whole_book_may_be_of_before_it_was_made():
    feed = Bitmex([MARKET])
    whole = json.loads(WHOLE)
    whole["data"] = [{**each, **at(30)} for each in whole["data"]]
    (reset,) = feed.received(json.dumps(whole).encode(), 0)
    assert reset.venue_ns == 1_767_225_630_500_000_000
    (moved,) = feed.received(told("orderBookL2", "update", level(1, size=7, **at(29))), 0)
    assert isinstance(moved, BookMoved)


def test_a_book_that_differs_from_the_newest_quote_is_held_and_then_lost():
    feed = Bitmex([MARKET])
    replica = feed.replicas[MARKET]
    feed.received(WHOLE, 0)
    (quoted,) = feed.received(quote(10.0, 5, 11.0, 6), 1)
    assert isinstance(quoted, Quoted)
    _, held = feed.received(quote(10.0, 4, 11.0, 6), 2)  # before its book
    with pytest.raises(BookStale, match="not yet those quoted"):
        replica.book(2)
    assert isinstance(held, BookLost)
    (reset,) = feed.received(told("orderBookL2", "update", level(1, size=4)), 3)
    assert isinstance(reset, BookReset)
    assert replica.book(3).best() == (1000, 4, 1100, 6)
    feed.received(quote(10.5, 9, 11.0, 6), 4)  # the change to that never comes
    assert feed.received(b"{}", 4 + DOUBT_NS) == []
    lost, *asked = feed.received(b"{}", 5 + DOUBT_NS)
    assert lost.reason == "its best levels are not those quoted"
    assert [json.loads(send.text)["op"] for send in asked] == ["unsubscribe", "subscribe"]
    feed.received(WHOLE, 6 + DOUBT_NS)
    assert replica.book(6 + DOUBT_NS).best() == (1000, 5, 1100, 6)  # judged by newer quotes only
    feed.received(quote(10.5, 9, 11.0, 6), 7 + DOUBT_NS)
    assert replica.held
    feed.received(WHOLE, 7 + DOUBT_NS)  # a whole book settles it
    assert feed.received(b"{}", 9 + 2 * DOUBT_NS) == []
    assert replica.book(9 + 2 * DOUBT_NS)
    (quoted, lost, *_) = feed.received(quote(10.001, 9, 11.0, 6), 7 + DOUBT_NS)
    assert "State those" in lost.reason


def test_more_levels_than_a_book_may_have_lose_it(monkeypatch):
    monkeypatch.setattr(by_id, "LEVELS_MAX", 2)
    feed = Bitmex([MARKET])
    feed.received(WHOLE, 0)
    for number in (3, 4):
        row = level(number, price=10.0 - number, size=1)
        (moved,) = feed.received(told("orderBookL2", "insert", row), 0)
        assert isinstance(moved, BookMoved)
    lost, *_ = feed.received(told("orderBookL2", "insert", level(5, price=1.0, size=1)), 0)
    assert lost.reason == "there are more than a book may have"


def test_how_soon_a_hole_in_the_recording_is_found():
    """What the ids and quotes show of it, and what they do not."""
    told = [(at, frame) for at, _, frame in frames("cryptofeed_bitmex_20210722")
            if b'"SOLUSDT"' in frame]  # fmt: skip
    found = Counter()
    for action in ("insert", "update", "delete"):
        change = f'"table":"orderBookL2","action":"{action}"'.encode()
        found.update(holes(lambda: Bitmex([Market("bitmex", "SOLUSDT", 7, 0)]), told, change))
    print(f"\nholes in BitMEX's SOLUSDT: {dict(found)}")
    assert found == HOLES


def test_everything_else_it_says():
    feed = Bitmex([MARKET])
    trade = {"symbol": "XBTUSD", "side": "Sell", "price": 1.5, "size": 2, **at(1)}
    assert feed.received(told("trade", "insert", trade), 1) == [
        Traded(MARKET, 1, 1_767_225_601_500_000_000, 1.5, 2.0, taker_buys=False)
    ]
    assert feed.received(told("trade", "partial", trade), 1) == []
    assert feed.received(quote(1.0, 2, 3.0, 4), 1) == [Quoted(MARKET, 1, 0, 1, 2, 3, 4)]
    assert feed.received(quote(None, 2, 3.0, 4), 1) == []
    (complained,) = feed.received(b'{"status":400,"error":"Unknown table"}', 1)
    assert complained.text == "Unknown table"
