"""BitMEX: levels by id, nothing numbered; recorded frames; what of a hole can be seen."""

import json
from collections import Counter

from recorded import frames, play

from fedtrade.market.feeds.bitmex import Bitmex
from fedtrade.market.feeds.events import BookLost, BookMoved, BookReset, Market, Quoted, Traded

MARKET = Market("bitmex", "XBTUSD", 2, 0)


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


def test_everything_else_it_says():
    feed = Bitmex([MARKET])
    trade = {"symbol": "XBTUSD", "side": "Sell", "price": 1.5, "size": 2, "timestamp": "x"}
    assert feed.received(told("trade", "insert", trade), 1) == [
        Traded(MARKET, 1, 0, 1.5, 2.0, taker_buys=False)
    ]
    assert feed.received(told("trade", "partial", trade), 1) == []
    quote = {"symbol": "XBTUSD", "bidPrice": 1.0, "bidSize": 2, "askPrice": 3.0, "askSize": 4}
    assert feed.received(told("quote", "insert", quote), 1) == [Quoted(MARKET, 1, 0, 1, 2, 3, 4)]
    assert feed.received(told("quote", "insert", {**quote, "bidPrice": None}), 1) == []
    (complained,) = feed.received(b'{"status":400,"error":"Unknown table"}', 1)
    assert complained.text == "Unknown table"
