"""Binance: recorded frames give the recorded books."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sides import BinanceSide
from truth import MARKET, Truth, held

from fedtrade.errors import BadInput
from fedtrade.market.feeds import binance
from fedtrade.market.feeds.binance import Binance
from fedtrade.market.feeds.events import (
    BookLost,
    BookMoved,
    Complained,
    Fetch,
    Liquidated,
    Marked,
    Market,
    Quoted,
    Traded,
)
from fedtrade.market.feeds.replica import BookStale

SHARED = Path(__file__).parents[5] / "shared" / "data"
RECORDED = [
    ("binance_coinm_btcusd_perp_20240808", "coinm", "BTCUSD_PERP", 6469),
    ("binance_spot_btcusdt_20240808", "spot", "BTCUSDT", 6491),
    ("binance_usdm_btcusdt_20240718", "usdm", "BTCUSDT", 4772),
    ("binance_usdm_btcusdt_20240808", "usdm", "BTCUSDT", 3436),
    ("binance_usdm_ethusdt_20240718", "usdm", "ETHUSDT", 4769),
]


@pytest.mark.parametrize(("name", "product", "symbol", "rows"), RECORDED)
def test_a_recording_gives_the_recorded_book_and_loses_nothing(name, product, symbol, rows):
    file = SHARED / "ws_frames" / f"{name}.jsonl.zst"
    if not file.is_file():
        pytest.skip("the recorded frames are not here (shared/data/ws_frames)")
    import polars as pl
    import zstandard

    stream = name.rpartition("_")[0]
    table = pl.read_parquet(SHARED / "lob" / "binance_top10_100ms.parquet")
    wanted = {row["ts_recv_ns"]: row for row in
              table.filter(pl.col("stream") == stream).iter_rows(named=True)}  # fmt: skip
    market = Market(f"binance {product}", symbol)
    feed, fetch, compared = Binance(product, [market], "0ms"), None, 0
    told = {Quoted: [], Traded: []}
    feed.connected(0)
    with zstandard.open(file, "rb") as lines:
        for line in lines.read().splitlines():
            at, _, frame = line.partition(b" ")
            if frame.startswith(b'{"lastUpdateId"'):
                out = feed.fetched(fetch, frame, int(at))
            else:
                out = feed.received(frame, int(at))
            fetch = next((o for o in out if isinstance(o, Fetch)), fetch)
            assert not any(isinstance(o, Complained) for o in out)
            for each in out:
                told.get(type(each), []).append(each)
            if int(at) in wanted and any(isinstance(o, BookMoved) for o in out):
                book, row = feed.replicas[market].book(int(at)), wanted[int(at)]
                for side, levels in (("bid", book.bids(10)), ("ask", book.asks(10))):
                    best = [[row[f"{side}_px_{i}"], row[f"{side}_sz_{i}"]] for i in range(10)]
                    np.testing.assert_array_equal(levels / 1e8, best)
                compared += 1
    assert compared == rows
    assert feed.replicas[market].losses == 0
    for table, kind, columns in (
        ("lob/binance_bbo", Quoted, ("bid_px", "bid_sz", "ask_px", "ask_sz")),
        ("trades/binance_trades", Traded, ("price", "qty")),
    ):
        there = pl.read_parquet(SHARED / f"{table}.parquet").filter(pl.col("stream") == stream)
        first, last = told[kind][0].at_ns, told[kind][-1].at_ns
        there = there.filter(pl.col("ts_recv_ns").is_between(first, last))
        assert there["ts_recv_ns"].to_list() == [each.at_ns for each in told[kind]]
        fields = ("bid", "bid_size", "ask", "ask_size") if kind is Quoted else ("price", "size")
        for column, field in zip(columns, fields, strict=True):
            assert there[column].to_list() == [getattr(each, field) for each in told[kind]]


@pytest.mark.parametrize(("limit", "value"), [("KEPT_MAX", 3), ("KEPT_MAX_BYTES", 1_000)])
def test_what_is_kept_has_a_limit_and_then_the_snapshot_is_asked_for_anew(
    monkeypatch, limit, value
):
    monkeypatch.setattr(binance, limit, value)
    side, feed = BinanceSide(Truth(1, 40), "usdm", 1), Binance("usdm", [MARKET])
    asked = [len(feed.received(side.diff(number), 0)) for number in range(1, 31)]
    assert asked[0] == 1
    assert 3 <= sum(asked) < 30
    feed.fetched(Fetch(MARKET, ""), side.whole(29), 0)
    assert held(feed.replicas[MARKET].book(0)) == side.truth.books[30]


def test_a_book_is_not_served_before_it_is_whole_nor_after_a_gap_nor_when_quiet():
    truth = Truth(1, 9)
    side, feed = BinanceSide(truth, "usdm", 1), Binance("usdm", [MARKET])
    replica = feed.replicas[MARKET]
    with pytest.raises(BookStale, match="never whole"):
        replica.book(0)
    (fetch,) = feed.received(side.diff(1), 5)
    assert fetch == Fetch(MARKET, "/fapi/v1/depth?symbol=BTCUSDT&limit=1000")
    feed.fetched(fetch, side.whole(1), 6)
    assert replica.book(6)
    with pytest.raises(BookStale, match="nothing was heard for 61 s"):
        replica.book(61_000_000_006)
    feed.received(side.diff(2), 7)
    lost, fetch = feed.received(side.diff(4), 8)
    assert isinstance(lost, BookLost)
    with pytest.raises(BookStale, match=f"after {side.last[2]} came"):
        replica.book(8)
    assert replica.losses == 1


def test_a_crossed_book_is_lost():
    truth = Truth(1, 9)
    side, feed = BinanceSide(truth, "spot", 1), Binance("spot", [MARKET])
    (fetch,) = feed.received(side.diff(1), 5)
    feed.fetched(fetch, side.whole(1), 6)
    data = json.loads(side.diff(2))
    data["data"]["b"] = [["90000.00", "1.000"]]
    (lost,) = feed.received(json.dumps(data).encode(), 7)
    assert lost.reason == "its best bid is at or over its best ask"


@pytest.mark.parametrize(
    "levels", [[["1.001", "1"]], [["-1", "1"]], [["1e30", "1"]], [["0.00", "1"]], [["5e-324", "1"]]]
)
def test_a_level_off_the_grid_loses_the_book(levels):
    truth = Truth(1, 9)
    side, feed = BinanceSide(truth, "spot", 1), Binance("spot", [MARKET])
    (fetch,) = feed.received(side.diff(1), 5)
    feed.fetched(fetch, side.whole(1), 6)
    data = json.loads(side.diff(2))
    data["data"]["b"] = levels
    lost, again = feed.received(json.dumps(data).encode(), 7)
    assert "State those" in lost.reason
    assert isinstance(again, Fetch)


ROWS = st.lists(
    st.tuples(
        st.one_of(
            st.decimals(0, 10**5, places=2).map(str),
            st.sampled_from(
                ["1e3", "01.50", ".5", "5.", "-1", "", " 1", "1.001", "9" * 20, "1.500000"]
            ),
        ),
        st.decimals(0, 10**5, places=3).map(str),
    ),
    max_size=4,
)


@given(ROWS, ROWS, st.booleans())
def test_levels_read_digit_by_digit_are_those_that_a_json_reader_reads(bids, asks, spaced):
    """Whatever is written otherwise is left to the reader of JSON; nothing is read wrongly."""
    data = {"b": bids, "a": asks}
    text = json.dumps(data, separators=(", ", ": ") if spaced else (",", ":")).encode()
    at = text.find(b'"b":[') + 4, text.find(b'"a":[') + 4
    read = MARKET.sides(text, *at)
    plain = [all(re.fullmatch(r"[0-9]+([.][0-9]+)?", each) for each in row) for row in bids + asks]
    if read is None:
        assert spaced or not all(plain) or any(
            float(p) * 100 % 1 or not 0 < float(p) <= 2**46 / 100 for p, _ in bids + asks if p
        )  # fmt: skip
        return
    for levels, told in zip(read, (bids, asks), strict=True):
        np.testing.assert_array_equal(
            levels, MARKET.levels([tuple(map(float, row)) for row in told])
        )


@pytest.mark.parametrize("cut", range(1, 40))
def test_levels_that_end_too_early_are_not_read(cut):
    text = b'{"b":[["1.00","1.000"]],"a":[["2.00","1.000"]]}'
    assert MARKET.sides(text, 5, 28) is not None
    assert MARKET.sides(text[:-cut], 5, 28) is None or cut < 3
    assert MARKET.sides(text, -1, 28) is None


def frame(stream, **data):
    return json.dumps({"stream": f"btcusdt@{stream}", "data": {"s": "BTCUSDT", **data}}).encode()


def test_everything_else_it_says():
    feed = Binance("usdm", [MARKET])
    told = frame("bookTicker", u=1, b="1.5", B="2", a="1.6", A="3", E=9, T=8)
    assert feed.received(told, 4) == [Quoted(MARKET, 4, 9_000_000, 1.5, 2.0, 1.6, 3.0)]
    told = frame("trade", p="1.5", q="2", m=True, T=8, X="MARKET")
    assert feed.received(told, 4) == [Traded(MARKET, 4, 8_000_000, 1.5, 2.0, False)]
    assert feed.received(frame("trade", p="1", q="2", m=True, T=8, X="INSURANCE_FUND"), 4) == []
    told = frame("markPrice@1s", p="1.5", i="1.4", r="0.0001", E=7, T=99)
    assert feed.received(told, 4) == [Marked(MARKET, 4, 7_000_000, 1.5, 1.4, 0.0001)]
    assert feed.received(frame("markPrice@1s", p="1.5", r="", E=7), 4) == [
        Marked(MARKET, 4, 7_000_000, 1.5)
    ]
    order = {"s": "BTCUSDT", "S": "SELL", "z": "2", "ap": "1.5", "T": 8}
    told = frame("forceOrder", o=order)
    assert feed.received(told, 4) == [Liquidated(MARKET, 4, 8_000_000, 1.5, 2.0, long=True)]
    assert feed.received(frame("trade", p="1", q="2", m=True, T=8).replace(b"BTC", b"ETH"), 4) == []
    assert feed.received(b'{"result":null,"id":1}', 4) == []
    (complained,) = feed.received(b'{"error":{"code":2,"msg":"Invalid request"},"id":1}', 4)
    assert "Invalid request" in complained.text


def test_it_asks_for_the_streams_of_its_product():
    (send,) = Binance("spot", [MARKET]).connected(0)
    assert json.loads(send.text)["params"] == [
        "btcusdt@depth@100ms", "btcusdt@bookTicker", "btcusdt@trade",
    ]  # fmt: skip
    with pytest.raises(BadInput, match="twice"):
        Binance("spot", [MARKET, MARKET])
