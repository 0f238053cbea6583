"""Kraken Futures: one numbered level a message; recorded frames."""

import json
from collections import Counter

import pytest
from recorded import frames, play
from truth import MARKET

from fedtrade.market.feeds.events import Complained, Liquidated, Marked, Market, Quoted, Traded
from fedtrade.market.feeds.kraken_futures import KrakenFutures


def told(feed, **more):
    return json.dumps({"feed": feed, "product_id": "BTCUSDT", **more}).encode()


@pytest.mark.parametrize(
    "name", ["cryptofeed_kraken_futures_20210722", "cryptofeed_v2_kraken_futures"]
)
def test_recorded_frames_replay_without_a_loss(name):
    symbols = set()
    for _, _, frame in frames(name):
        message = json.loads(frame)
        if message.get("feed") == "book_snapshot":
            symbols.add(message["product_id"])
    feed = KrakenFutures([Market("kraken", symbol, 5, 2) for symbol in sorted(symbols)])
    counted = Counter(type(each).__name__ for each in play(name, feed))
    assert counted == {"Send": 3, "BookReset": 10, "BookMoved": 7014, "Traded": 3}
    assert all(replica.live for replica in feed.replicas.values())


def test_everything_else_it_says():
    feed = KrakenFutures([MARKET])
    trade = told("trade", side="sell", type="liquidation", seq=1, time=3, qty=2.0, price=1.5)
    assert feed.received(trade, 1) == [
        Traded(MARKET, 1, 3_000_000, 1.5, 2.0, taker_buys=False),
        Liquidated(MARKET, 1, 3_000_000, 1.5, 2.0, long=True),
    ]
    ticker = told("ticker", time=3, bid=1.0, bid_size=2.0, ask=3.0, ask_size=4.0, markPrice=5.0,
                  index=6.0, openInterest=7.0, relative_funding_rate=0.1)  # fmt: skip
    assert feed.received(ticker, 1) == [
        Marked(MARKET, 1, 3_000_000, 5.0, 6.0, 0.1, 7.0), Quoted(MARKET, 1, 3_000_000, 1, 2, 3, 4),
    ]  # fmt: skip
    assert feed.received(b'{"event":"info","version":1}', 1) == []
    assert feed.received(b'{"event":"error","message":"Invalid product id"}', 1) == [
        Complained("kraken futures", "Invalid product id")
    ]
