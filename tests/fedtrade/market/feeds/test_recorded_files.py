"""Every recorded frame file: what it told, and every message that was not understood, by reason.

No book is lost in any of them but for the reasons that stand here.
"""

import json
import re
from collections import Counter

import pytest
from recorded import FOLDER

from fedtrade.market.feeds.events import BookLost, Complained, Marked, Market
from fedtrade.market.feeds.recording import Recording
from fedtrade.market.feeds.replaying import about, replay
from fedtrade.market.feeds.venues import VENUES

NOT_UNDERSTOOD = {
    "reply": "an answer to a subscription, or a greeting",
    "subscribe": "an answer to a subscription",
    "subscribed": "an answer to a subscription",
    "info": "a greeting",
    "connected": "a greeting",
    "partial": "what was told before the subscription",
    "trade_snapshot": "what was told before the subscription",
    "v3_trades subscribed": "what was told before the subscription",
    "trade:1 subscribed/trade": "what was told before the subscription",
    "kline": "candles: they follow from the trades",
    "aggTrade": "trades added up: we ask for each",
    "ticker_lite": "a shorter ticker: we ask for the whole one",
    "depth": "older than the snapshot, or kept until it came",
    "v3_orderbook channel_data": "applied while a message was missing: told when it had come",
    "tickers": "a change of fields that no event has, or spot's, which have no best bid and ask",
}
D = r'"instrument_name":"([\w-]+)"'
FILES = [  # file, venue, decimals, symbols, connection, frames, events, understood by nobody
    ("cryptofeed_bitmex_20210722", "bitmex", (7, 0), r'"symbol":"([A-Z0-9]+)","id"', "", 2120,
     {"BookReset": 10, "BookMoved": 1969, "Quoted": 426, "Traded": 17},
     {"reply": 31, "quote partial": 10, "trade partial": 10}),
    ("cryptofeed_bybit_20210417", "bybit-2021", (4, 8), r'"symbol":"(\w+)"', "", 3342,
     {"BookReset": 8, "BookMoved": 3252, "Traded": 101}, {"reply": 16}),
    ("cryptofeed_deribit_20210722", "deribit", (8, 2), D, "", 136,
     {"BookReset": 10, "BookMoved": 36, "Quoted": 76, "Marked": 89}, {"reply": 1}),
    ("cryptofeed_dydx_v3_20211028", "dydx-v3", (8, 4), r'"id":"([A-Z0-9]+-USD)"', "", 4733,
     {"BookReset": 20, "BookLost": 10, "BookMoved": 4675, "Traded": 26},
     {"connected": 1, "v3_orderbook channel_data": 11, "v3_trades subscribed": 9}),
    ("cryptofeed_kraken_futures_20210722", "kraken-futures", (5, 2), r'"product_id":"(\w+)"', "",
     7175, {"BookReset": 10, "BookMoved": 7014, "Traded": 3},
     {"info": 1, "book subscribed": 10, "trade subscribed": 10, "ticker_lite subscribed": 10,
      "trade_snapshot": 10, "ticker_lite": 107}),
    ("cryptofeed_okx_20220513", "okx", (8, 8), r'"instId":"([\w-]+)"', "", 410,
     {"BookReset": 3, "BookMoved": 287, "Quoted": 28, "Traded": 74},
     {"tickers subscribe": 9, "trades subscribe": 6, "books subscribe": 3}),
    ("cryptofeed_v2_binance_futures", "binance-usdm", (5, 3), r'"s":"(\w+)"',
     "BINANCE_FUTURES.ws.1", 1535, {"BookReset": 4, "BookMoved": 752, "Quoted": 613},
     {"aggTrade": 91, "kline_1m": 67, "depth@100ms": 8}),
    ("cryptofeed_v2_bybit", "bybit-linear", (8, 6), r'"s":"(\w+)"', "BYBIT.ws.2", 2546,
     {"BookReset": 4, "BookMoved": 1594, "Quoted": 638, "Marked": 156, "Traded": 327},
     {"subscribe": 17, "kline snapshot": 71, "tickers delta": 18}),
    ("cryptofeed_v2_bybit", "bybit-spot", (8, 6), r'"s":"(\w+)"', "BYBIT.ws.3", 681,
     {"BookReset": 2, "BookMoved": 548, "Traded": 20},
     {"subscribe": 7, "kline snapshot": 25, "tickers snapshot": 81}),
    ("cryptofeed_v2_deribit", "deribit", (8, 2), D, "DERIBIT.ws.1", 136,
     {"BookReset": 10, "BookMoved": 36, "Quoted": 76, "Marked": 89}, {"reply": 1}),
    ("cryptofeed_v2_kraken_futures", "kraken-futures", (5, 2), r'"product_id":"(\w+)"',
     "KRAKEN_FUTURES.ws.1", 7175, {"BookReset": 10, "BookMoved": 7014, "Traded": 3},
     {"info": 1, "book subscribed": 10, "trade subscribed": 10, "ticker_lite subscribed": 10,
      "trade_snapshot": 10, "ticker_lite": 107}),
    ("cryptofeed_v2_okx", "okx", (8, 8), r'"instId":"([\w-]+)"', "OKX.ws.1", 410,
     {"BookReset": 3, "BookMoved": 287, "Quoted": 28, "Traded": 74},
     {"tickers subscribe": 9, "trades subscribe": 6, "books subscribe": 3}),
    ("lighter_btc_20251210", "lighter", (8, 8), r'order_book:(\d+)', "", 3053,
     {"BookReset": 1, "BookMoved": 2549, "Marked": 204, "Traded": 673},
     {"connected": 1, "trade:1 subscribed/trade": 1}),
    *((f"binance_{name}", f"binance-{product}", (8, 8), r'"s":"(\w+)"', "", *counts) for
      name, product, *counts in (
        ("coinm_btcusd_perp_20240808", "coinm", 98385,
         {"BookReset": 1, "BookMoved": 44772, "Quoted": 48355, "Traded": 5235}, {"depth@0ms": 24}),
        ("spot_btcusdt_20240808", "spot", 99573,
         {"BookReset": 1, "BookMoved": 6493, "Quoted": 73174, "Traded": 19904}, {"depth@100ms": 2}),
        ("usdm_btcusdt_20240718", "usdm", 71983,
         {"BookReset": 1, "BookMoved": 9017, "Quoted": 52260, "Traded": 10701}, {"depth@0ms": 5}),
        ("usdm_btcusdt_20240808", "usdm", 93953,
         {"BookReset": 1, "BookMoved": 6547, "Quoted": 66089, "Traded": 21313}, {"depth@0ms": 5}),
        ("usdm_ethusdt_20240718", "usdm", 69912,
         {"BookReset": 1, "BookMoved": 8924, "Quoted": 47328, "Traded": 13655}, {"depth@0ms": 6}),
    )),
]  # fmt: skip


def entries(name):
    file = FOLDER / f"{name}.jsonl.zst"
    if not file.is_file():
        pytest.skip("the recorded frames are not here (shared/data/ws_frames)")
    with file.open("rb") as lines:
        yield from Recording(lines, name)


def markets(name, venue, decimals, pattern, connection):
    found = set()
    for place, entry in enumerate(entries(name)):
        if entry.kind == "recv" and entry.connection == connection:
            found |= set(re.findall(pattern, entry.data.decode()))
        if place > 8_000:
            break
    finer = {symbol: (10, 0) for symbol in found if venue == "bitmex" and symbol.endswith("U21")}
    return [Market(venue, symbol, *finer.get(symbol, decimals)) for symbol in sorted(found)]


@pytest.mark.parametrize("row", FILES, ids=lambda row: f"{row[0]}{row[4]}")
def test_a_recorded_file_replays_without_an_unexplained_loss(row):
    name, venue, decimals, pattern, connection, frames, events, silent = row
    ours = markets(name, venue, decimals, pattern, connection)
    feed = VENUES[venue].feed(ours)
    found = replay(entries(name), feed, connection)
    print(f"\n{name} {connection}: {frames} frames, {found.events}, nothing: {found.silent}")
    assert found.frames == frames
    assert found.events == events
    assert found.silent == silent
    assert found.complaints == []
    assert sum(replica.losses for replica in feed.replicas.values()) == 0
    assert set(found.books.values()) <= {"whole", "empty"}
    held = [each for each in found.losses if not re.search("message [0-9]+ is missing", each)]
    assert held == []
    for what in found.silent:
        assert any(words in what for words in NOT_UNDERSTOOD), what


def test_no_recorded_file_is_left_out():
    if not FOLDER.is_dir():
        pytest.skip("the recorded frames are not here (shared/data/ws_frames)")
    there = {file.name.removesuffix(".jsonl.zst") for file in FOLDER.glob("*.zst")}
    assert there == {row[0] for row in FILES} | {f"nautilus_fixtures_{each}" for each in CLAIMED}


CLAIMED = {  # venue -> (name of it here, market, what its feed subscribes to)
    "bybit": ("bybit-linear", ("orderbook", "publicTrade", "tickers", "allLiquidation")),
    "deribit": ("deribit", ("book", "trades", "ticker")),
    "dydx": ("dydx", ("v4_orderbook", "v4_trades channel_data", "v4_markets channel_data")),
    "hyperliquid": ("hyperliquid", ("l2Book", "trades", "bbo", "activeAssetCtx")),
    "okx": ("okx", ("books", "trades", "tickers", "mark-price", "funding-rate", "open-interest")),
}
INVENTED = {
    "ws_books_snapshot.json": "the venue's documentation's example: its checksum is of other levels",
    "ws_book_grouped_snapshot.json": "the grouped book, another channel of the same name",
}


@pytest.mark.parametrize("venue", CLAIMED)
def test_every_single_message_that_a_feed_claims_to_read_is_read(venue):
    name, claimed = CLAIMED[venue]
    counted = Counter()
    file = FOLDER / f"nautilus_fixtures_{venue}.jsonl.zst"
    if not file.is_file():
        pytest.skip("the recorded frames are not here (shared/data/ws_frames)")
    import zstandard

    with zstandard.open(file, "rb") as lines:
        for line in map(json.loads, lines.read().splitlines()):
            short = line["file"].rpartition("/")[2]
            frame = json.dumps(line["payload"]).encode()
            kind = about(frame)
            if not short.startswith("ws_") or not kind.startswith(claimed):
                counted["of another channel, or of the web interface"] += 1
                continue
            symbols = set(re.findall(
                r'"(?:symbol|s|instrument_name|instId|id|coin)": "([\w-]+)"', frame.decode()
            )) | {"BTC-USD"}  # fmt: skip
            feed = VENUES[name].feed([Market(name, each, 4, 6) for each in sorted(symbols)])
            out = feed.received(frame, 1)
            lost = [each for each in out if isinstance(each, BookLost | Complained)]
            if short in INVENTED:
                counted[INVENTED[short]] += 1
                assert lost or not out
                continue
            assert out, short
            assert lost == [], short
            counted["read"] += 1
            if "funding" in kind:
                assert [type(each) for each in out] == [Marked]
    assert (
        counted["read"] == {"bybit": 4, "deribit": 5, "dydx": 5, "hyperliquid": 0, "okx": 4}[venue]
    )
