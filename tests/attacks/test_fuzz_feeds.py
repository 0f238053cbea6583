"""What venues send, fed with mutants: a book is whole and not crossed, or it is `BookStale`."""

import sys
from pathlib import Path

import pytest
from fuzzing import fuzz
from mutation import JSON, Mutator

sys.path.insert(0, str(Path(__file__).parents[1] / "fedtrade" / "market" / "feeds"))

from sides import SIDES
from truth import held

from fedtrade.market.feeds.events import Complained, Fetch, Said, Send
from fedtrade.market.feeds.replaying import about
from fedtrade.market.feeds.replica import BookStale

pytestmark = pytest.mark.timeout(7200)

OTHERS = {
    "binance": [
        b'{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":1,"s":"BTCUSDT","b":"59.9",'
        b'"B":"1.5","a":"60.1","A":"2","T":5,"E":6}}',
        b'{"stream":"btcusdt@trade","data":{"e":"trade","E":6,"T":5,"s":"BTCUSDT","t":1,"p":"60",'
        b'"q":"0.1","X":"MARKET","m":true}}',
        b'{"stream":"btcusdt@markPrice@1s","data":{"e":"markPriceUpdate","E":6,"s":"BTCUSDT",'
        b'"p":"60","i":"60.1","P":"60","r":"0.0001","T":9}}',
        b'{"stream":"btcusdt@forceOrder","data":{"e":"forceOrder","E":6,"o":{"s":"BTCUSDT",'
        b'"S":"SELL","o":"LIMIT","q":"1","p":"59","ap":"60","X":"FILLED","l":"1","z":"1","T":5}}}',
        b'{"error":{"code":2,"msg":"Invalid request"},"id":1}',
    ],
    "bybit": [
        b'{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":5,"data":[{"T":5,"s":"BTCUSDT",'
        b'"S":"Sell","v":"0.1","p":"60","i":"x","seq":4}]}',
        b'{"topic":"tickers.BTCUSDT","type":"delta","ts":5,"data":{"symbol":"BTCUSDT",'
        b'"bid1Price":"59.9","bid1Size":"1","ask1Price":"60.1","ask1Size":"2","markPrice":"60",'
        b'"indexPrice":"60","fundingRate":"0.0001","openInterest":"7"}}',
        b'{"topic":"allLiquidation.BTCUSDT","type":"snapshot","ts":5,"data":[{"T":5,"s":"BTCUSDT",'
        b'"S":"Sell","v":"0.1","p":"60"}]}',
        b'{"success":false,"ret_msg":"handler not found","op":"subscribe"}',
    ],
    "bybit-2021": [
        b'{"topic":"trade.BTCUSDT","data":[{"symbol":"BTCUSDT","tick_direction":"MinusTick",'
        b'"price":"60","size":2,"timestamp":"2021-04-17T16:43:05.000Z","trade_time_ms":"3",'
        b'"side":"Sell","trade_id":"x"}]}',
        b'{"success":true,"ret_msg":"","conn_id":"c","request":{"op":"subscribe","args":["x"]}}',
    ],
    "okx": [
        b'{"arg":{"channel":"trades","instId":"BTCUSDT"},"data":[{"instId":"BTCUSDT","tradeId":"1",'
        b'"px":"60","sz":"1","side":"buy","ts":"5"}]}',
        b'{"arg":{"channel":"tickers","instId":"BTCUSDT"},"data":[{"instId":"BTCUSDT","last":"60",'
        b'"bidPx":"59.9","bidSz":"1","askPx":"60.1","askSz":"2","ts":"5"}]}',
        b'{"arg":{"channel":"funding-rate","instId":"BTCUSDT"},"data":[{"fundingRate":"0.0001",'
        b'"ts":"5"}]}',
        b'{"event":"error","code":"60012","msg":"Invalid request"}',
        b"pong",
    ],
    "deribit": [
        b'{"jsonrpc":"2.0","method":"subscription","params":{"channel":"trades.BTCUSDT.raw","data":'
        b'[{"instrument_name":"BTCUSDT","timestamp":5,"price":60.0,"amount":2.0,"direction":"sell",'
        b'"liquidation":"T"}]}}',
        b'{"jsonrpc":"2.0","method":"subscription","params":{"channel":"ticker.BTCUSDT.raw","data":{'
        b'"instrument_name":"BTCUSDT","timestamp":5,"best_bid_price":59.9,"best_bid_amount":1.0,'
        b'"best_ask_price":60.1,"best_ask_amount":2.0,"mark_price":60.0,"index_price":60.0,'
        b'"funding_8h":0.0001,"open_interest":7.0}}}',
        b'{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"test_request"}}',
        b'{"jsonrpc":"2.0","id":0,"error":{"code":13778,"message":"raw_subscriptions_not_available"}}',
    ],
    "dydx": [
        b'{"type":"channel_data","connection_id":"c","message_id":3,"channel":"v4_trades",'
        b'"id":"BTCUSDT","contents":{"trades":[{"price":"60","size":"2","side":"BUY"}]}}',
        b'{"type":"channel_data","connection_id":"c","message_id":3,"channel":"v4_markets",'
        b'"contents":{"oraclePrices":{"BTCUSDT":{"oraclePrice":"60"}},"trading":{"BTCUSDT":'
        b'{"nextFundingRate":"0.0001","openInterest":"7"}}}}',
        b'{"type":"channel_batch_data","connection_id":"c","message_id":4,"channel":"v4_orderbook",'
        b'"id":"BTCUSDT","contents":[{"bids":[["60001.5","4"]]},{"asks":[["59999.5","1"]]}]}',
        b'{"type":"error","message":"Invalid subscription","connection_id":"c","message_id":3}',
    ],
    "lighter": [
        b'{"type":"update/trade","channel":"trade:1","trades":[{"price":"60","size":"2",'
        b'"is_maker_ask":false,"timestamp":5}],"liquidation_trades":[{"price":"60","size":"2",'
        b'"is_maker_ask":true,"timestamp":5,"type":"liquidation"}]}',
        b'{"type":"update/market_stats","channel":"market_stats:1","market_stats":{"mark_price":"60",'
        b'"index_price":"60","current_funding_rate":"0.0001","open_interest":"7"},"timestamp":5}',
        b'{"type":"error","error":{"code":30003,"message":"Already Subscribed"}}',
        b'{"type":"ping"}',
    ],
    "kraken-futures": [
        b'{"feed":"trade","product_id":"BTCUSDT","side":"sell","type":"liquidation","seq":1,"time":5,'
        b'"qty":2.0,"price":60.0}',
        b'{"feed":"ticker","product_id":"BTCUSDT","time":5,"bid":59.9,"ask":60.1,"bid_size":1.0,'
        b'"ask_size":2.0,"markPrice":60.0,"index":60.0,"openInterest":7.0,'
        b'"relative_funding_rate":0.0001}',
        b'{"event":"error","message":"Invalid product id"}',
    ],
    "hyperliquid": [
        b'{"channel":"trades","data":[{"coin":"BTCUSDT","side":"B","px":"60","sz":"2","time":5,'
        b'"tid":1}]}',
        b'{"channel":"bbo","data":{"coin":"BTCUSDT","time":5,"bbo":[{"px":"59.9","sz":"2","n":1},'
        b'{"px":"60.1","sz":"2","n":1}]}}',
        b'{"channel":"activeAssetCtx","data":{"coin":"BTCUSDT","ctx":{"funding":"0.0000125",'
        b'"openInterest":"7","oraclePx":"60","markPx":"60"}}}',
        b'{"channel":"error","data":"Invalid subscription"}',
    ],
    "bitmex": [
        b'{"table":"trade","action":"insert","data":[{"timestamp":"2026-01-01T00:00:00.005Z",'
        b'"symbol":"BTCUSDT","side":"Sell","size":2,"price":60.0}]}',
        b'{"table":"quote","action":"insert","data":[{"timestamp":"2026-01-01T00:00:00.005Z",'
        b'"symbol":"BTCUSDT","bidPrice":59999.5,"bidSize":1,"askPrice":60000.5,"askSize":2}]}',
        b'{"status":400,"error":"Unknown table"}',
    ],
}
"""What a venue sends besides its books."""
EVENTS = (Said, Send, Fetch, Complained)
MOVES = 12


class Hearing:
    """A feed that is given its venue's whole book again whenever it has none, or none for long."""

    def __init__(self, venue):
        self.feed, self.side = SIDES[venue](5, MOVES)
        self.replica = self.feed.replicas[self.side.truth.market]
        self.fetch = Fetch(self.side.truth.market, "")
        self.clock_ns = 0
        self.messages = [self.side.diff(number) for number in range(1, MOVES + 1)]
        self.messages += [self.side.whole(0), self.side.whole(MOVES)]
        if hasattr(self.feed, "fetched"):
            self.snapshots = self.messages[-2:]
            del self.messages[-2:]

    def whole(self):
        self.feed.connected(self.clock_ns)
        if hasattr(self.feed, "fetched"):
            self.feed.received(self.messages[0], self.clock_ns)
            self.feed.fetched(self.fetch, self.snapshots[0], self.clock_ns)
        else:
            self.feed.received(self.side.whole(0), self.clock_ns)
        assert self.replica.live

    def served(self):
        """The book, whole. Raises BookStale."""
        bids, asks = held(self.replica.book(self.clock_ns))
        assert max(bids, default=0) < min(asks, default=2**62), "a crossed book is served"
        assert min([*bids.values(), *asks.values()], default=1) > 0

    def received(self, frame):
        self.clock_ns += 1_000_000
        if not self.replica.live or (self.replica.held and self.clock_ns % 16_000_000 == 0):
            self.whole()
        for each in self.feed.received(frame, self.clock_ns):
            assert isinstance(each, EVENTS)
        about(frame)
        self.served()

    def fetched(self, body):
        self.clock_ns += 1_000_000
        for each in self.feed.fetched(self.fetch, body, self.clock_ns):
            assert isinstance(each, EVENTS)
        self.served()


@pytest.mark.parametrize("venue", SIDES)
def test_no_message_makes_anything_but_a_book_or_its_refusal(venue):
    hearing = Hearing(venue)
    seeds = hearing.messages + OTHERS["binance" if venue.startswith("binance") else venue]
    for frame in hearing.messages:
        hearing.received(frame)
    text = [frame for frame in seeds if frame != b"pong"]
    mutate = Mutator(text, 16, JSON)
    mutate.seeds = seeds
    fuzz(f"feed {venue}", hearing.received, mutate, 300, refusals=BookStale)


@pytest.mark.parametrize("venue", [each for each in SIDES if each.startswith("binance")])
def test_no_answer_of_the_web_makes_anything_but_a_book_or_its_refusal(venue):
    hearing = Hearing(venue)
    hearing.whole()
    mutate = Mutator(hearing.snapshots, 17, JSON)
    fuzz(f"snapshot {venue}", hearing.fetched, mutate, 300, refusals=BookStale)
