"""OKX: ids and checksums; recorded frames."""

import json
from collections import Counter

import pytest
from recorded import play
from sides import OkxSide
from truth import MARKET, Truth

from fedtrade.market.feeds import okx
from fedtrade.market.feeds.events import (
    BookLost,
    BookMoved,
    BookReset,
    Complained,
    Marked,
    Market,
    Quoted,
    Send,
    Traded,
)
from fedtrade.market.feeds.okx import PONG, Okx


@pytest.mark.parametrize("ids", [True, False])
def test_a_wrong_checksum_loses_the_book(ids):
    side, feed = OkxSide(Truth(3, 20)), Okx([MARKET])

    def sent(frame):
        message = json.loads(frame)
        if not ids:
            for data in message["data"]:
                del data["seqId"], data["prevSeqId"]
        return message

    feed.connected(0)
    feed.received(json.dumps(sent(side.whole(0))).encode(), 0)
    for number in range(1, 10):
        (moved,) = feed.received(json.dumps(sent(side.diff(number))).encode(), 0)
        assert isinstance(moved, BookMoved)
    message = sent(side.diff(10))
    message["data"][0]["bids"][-1][1] = "0.123"
    lost, *asked = feed.received(json.dumps(message).encode(), 0)
    assert isinstance(lost, BookLost)
    assert lost.reason == "its checksum is another"
    assert [json.loads(send.text)["op"] for send in asked] == ["unsubscribe", "subscribe"]


def test_a_gap_is_found_by_the_checksum_alone_where_there_are_no_ids():
    symbols = ("BTC-USD-220527", "UNI-USD-SWAP", "BTC-USDT")
    feed = Okx([Market("okx", symbol) for symbol in symbols])
    out = play("cryptofeed_okx_20220513", feed)
    counted = Counter(type(each).__name__ for each in out)
    assert counted == {
        "Send": 1, "Quoted": 28, "Traded": 74, "BookReset": 3, "BookMoved": 287,
    }  # fmt: skip
    assert all(replica.live for replica in feed.replicas.values())


def test_a_change_of_nothing_and_ids_that_begin_anew():
    side, feed = OkxSide(Truth(3, 9)), Okx([MARKET])
    feed.received(side.whole(0), 0)
    same = side.message(0, "update", {}, {}, prevSeqId=10)
    assert isinstance(feed.received(same, 0)[0], BookMoved)
    lower = json.loads(side.diff(1))
    lower["data"][0]["seqId"] = 3  # after maintenance
    assert isinstance(feed.received(json.dumps(lower).encode(), 0)[0], BookMoved)
    after = json.loads(side.diff(2))
    after["data"][0] |= {"prevSeqId": 3, "seqId": 4}
    assert isinstance(feed.received(json.dumps(after).encode(), 0)[0], BookMoved)


def test_everything_else_it_says():
    feed = Okx([MARKET])
    assert feed.received(PONG, 1) == []
    arg = {"channel": "trades", "instId": "BTCUSDT"}
    trade = {"instId": "BTCUSDT", "tradeId": "1", "px": "1.5", "sz": "2", "side": "buy", "ts": "3"}
    told = json.dumps({"arg": arg, "data": [trade]}).encode()
    assert feed.received(told, 1) == [Traded(MARKET, 1, 3_000_000, 1.5, 2.0, True)]
    arg = {"channel": "tickers", "instId": "BTCUSDT"}
    ticker = {"bidPx": "1", "bidSz": "2", "askPx": "3", "askSz": "4", "ts": "5"}
    told = json.dumps({"arg": arg, "data": [ticker]}).encode()
    assert feed.received(told, 1) == [Quoted(MARKET, 1, 5_000_000, 1.0, 2.0, 3.0, 4.0)]
    told = json.dumps({"arg": arg, "data": [{**ticker, "bidPx": ""}]}).encode()
    assert feed.received(told, 1) == []
    assert feed.received(b'{"event":"subscribe","arg":{}}', 1) == []
    error = b'{"event":"error","code":"60012","msg":"Invalid request"}'
    assert feed.received(error, 1) == [Complained("okx", "Invalid request")]


def test_what_it_says_of_swaps_and_futures():
    swap = Market("okx", "BTC-USDT-SWAP")
    feed = Okx([swap, Market("okx", "BTC-USD-220527"), Market("okx", "BTC-USDT")])
    (send,) = feed.connected(0)
    asked = Counter(each["channel"] for each in json.loads(send.text)["args"])
    assert asked == {"books": 3, "trades": 3, "tickers": 3, "mark-price": 2, "open-interest": 2,
                     "funding-rate": 1}  # fmt: skip

    def told(channel, **data):
        arg = {"channel": channel, "instId": swap.symbol}
        data = {"instId": swap.symbol, "instType": "SWAP", "ts": "5", **data}
        return feed.received(json.dumps({"arg": arg, "data": [data]}).encode(), 1)

    assert told("mark-price", markPx="42310.6") == [Marked(swap, 1, 5_000_000, mark=42310.6)]
    assert told("open-interest", oi="2216113", oiCcy="22", oiUsd="9") == [
        Marked(swap, 1, 5_000_000, open_interest=2216113.0)
    ]
    rates = {"fundingRate": "0.0001", "nextFundingRate": ""}
    assert told("funding-rate", **rates) == [Marked(swap, 1, 5_000_000, funding_rate=0.0001)]
    assert told("funding-rate", fundingRate="") == [Marked(swap, 1, 5_000_000)]


def test_a_book_that_does_not_come_is_asked_for_again():
    feed = Okx([MARKET])
    side = OkxSide(Truth(3, 9))
    assert isinstance(feed.connected(0)[-1], Send)
    assert feed.received(side.diff(1), 9_999_999_999) == []
    assert len(feed.received(side.diff(2), 10_000_000_000)) == 2
    assert feed.received(side.diff(3), 19_999_999_999) == []


def test_more_levels_than_a_book_may_have_lose_it(monkeypatch):
    monkeypatch.setattr(okx, "LEVELS_MAX", 30)
    side, feed = OkxSide(Truth(3, 9)), Okx([MARKET])
    assert isinstance(feed.received(side.whole(0), 0)[0], BookReset)
    levels = {price: 7 for price in range(5_000_000, 5_000_020)}
    told = json.loads(side.message(0, "update", levels, {}, prevSeqId=10))
    lost, *asked = feed.received(json.dumps(told).encode(), 0)
    assert lost.reason == "it has more levels than a book may have"
    assert len(asked) == 2
