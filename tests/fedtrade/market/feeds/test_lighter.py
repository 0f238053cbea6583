"""Lighter: numbered changes; recorded frames; no fault makes a wrong book served."""

import json
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import play
from truth import EXAMPLES, FAULTS, Truth, withstand

from fedtrade.market.feeds.events import Complained, Liquidated, Market, Traded
from fedtrade.market.feeds.lighter import PONG, Lighter

MARKET = Market("lighter", "1", 2, 3)


class Venue:
    """Lighter's side of one book."""

    def __init__(self, truth):
        self.truth = truth

    def message(self, number, kind, sides):
        bids, asks = (
            [{"price": price, "size": size} for price, size in self.truth.text(side)]
            for side in sides
        )
        book = {"code": 0, "offset": 40 + number, "nonce": 1, "bids": bids, "asks": asks}
        return json.dumps({"channel": "order_book:1", "timestamp": number,
                           "type": f"{kind}/order_book", "order_book": book}).encode()  # fmt: skip

    def diff(self, number):
        return self.message(number, "update", self.truth.moves[number - 1])

    def whole(self, number):
        return self.message(number, "subscribed", self.truth.books[number])


@settings(max_examples=EXAMPLES)
@given(st.integers(0, 2**32), FAULTS, st.integers(0, 4))
def test_no_fault_makes_a_wrong_book_served(seed, faults, delay):
    venue = Venue(Truth(seed, len(faults) + 12, MARKET))
    withstand(Lighter([MARKET]), venue, faults, delay)


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
