"""Deribit: changes that name their predecessor; recorded frames."""

import json
from collections import Counter

from recorded import frames, play
from truth import MARKET

from fedtrade.market.feeds.deribit import Deribit
from fedtrade.market.feeds.events import Complained, Liquidated, Marked, Market, Quoted, Traded


def told(channel, data):
    params = {"channel": f"{channel}.BTCUSDT.raw", "data": data}
    message = {"jsonrpc": "2.0", "method": "subscription", "params": params}
    return json.dumps(message).encode()


def test_recorded_frames_replay_without_a_loss():
    name, symbols = "cryptofeed_deribit_20210722", set()
    for _, _, frame in frames(name):
        channel = json.loads(frame).get("params", {}).get("channel", "")
        if channel.startswith("book."):
            symbols.add(channel.split(".")[1])
    feed = Deribit([Market("deribit", symbol, 8, 2) for symbol in sorted(symbols)])
    counted = Counter(type(each).__name__ for each in play(name, feed))
    assert counted == {"Send": 1, "Quoted": 76, "Marked": 89, "BookReset": 10, "BookMoved": 36}
    assert all(replica.live for replica in feed.replicas.values())


def test_everything_else_it_says():
    feed = Deribit([MARKET])
    trade = {"instrument_name": "BTCUSDT", "timestamp": 3, "price": 1.5, "amount": 2.0,
             "direction": "sell"}  # fmt: skip
    traded = Traded(MARKET, 1, 3_000_000, 1.5, 2.0, taker_buys=False)
    assert feed.received(told("trades", [trade]), 1) == [traded]
    for side, long in (("T", True), ("M", False)):  # the taker sold: its position was long
        out = feed.received(told("trades", [{**trade, "liquidation": side}]), 1)
        assert out == [traded, Liquidated(MARKET, 1, 3_000_000, 1.5, 2.0, long)]
    ticker = {"instrument_name": "BTCUSDT", "timestamp": 3, "best_bid_price": 1.0,
              "best_bid_amount": 2.0, "best_ask_price": 3.0, "best_ask_amount": 4.0,
              "mark_price": 5.0, "index_price": 6.0, "funding_8h": 0.1,
              "open_interest": 7.0}  # fmt: skip
    marked = Marked(MARKET, 1, 3_000_000, 5.0, 6.0, 0.1, 7.0)
    assert feed.received(told("ticker", ticker), 1) == [
        Quoted(MARKET, 1, 3_000_000, 1.0, 2.0, 3.0, 4.0), marked,
    ]  # fmt: skip
    assert feed.received(told("ticker", {**ticker, "best_bid_price": None}), 1) == [marked]
    (send,) = feed.received(
        b'{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"test_request"}}', 1
    )
    assert json.loads(send.text)["method"] == "public/test"
    (complained,) = feed.received(b'{"jsonrpc":"2.0","id":0,"error":{"code":13778}}', 1)
    assert isinstance(complained, Complained)
