"""Lighter: numbered changes; recorded frames."""

import json
from collections import Counter

from recorded import play
from sides import LIGHTER as MARKET

from fedtrade.market.feeds.events import Complained, Liquidated, Market, Traded
from fedtrade.market.feeds.lighter import PONG, Lighter


def test_recorded_frames_replay_without_a_loss():
    market = Market("lighter", "1")
    feed = Lighter([market])
    counted = Counter(type(each).__name__ for each in play("lighter_btc_20251210", feed))
    assert counted == {
        "Send": 3, "Marked": 204, "BookReset": 1, "BookMoved": 2549, "Traded": 673,
    }  # fmt: skip
    assert feed.replicas[market].losses == 0


def test_everything_else_it_says():
    feed = Lighter([MARKET])
    assert feed.received(b'{"type":"ping"}', 1) == [PONG]
    trade = {"price": "1.5", "size": "2", "is_maker_ask": False, "timestamp": 3}
    told = {"type": "update/trade", "channel": "trade:1", "trades": [trade],
            "liquidation_trades": [{**trade, "type": "liquidation"}]}  # fmt: skip
    traded = Traded(MARKET, 1, 3_000_000, 1.5, 2.0, taker_buys=False)
    assert feed.received(json.dumps(told).encode(), 1) == [
        traded, traded, Liquidated(MARKET, 1, 3_000_000, 1.5, 2.0, long=True),
    ]  # fmt: skip
    told["type"] = "subscribed/trade"
    assert feed.received(json.dumps(told).encode(), 1) == []
    (complained,) = feed.received(b'{"type":"error","error":{"code":30003}}', 1)
    assert isinstance(complained, Complained)
