"""Recordings: written and read back whole, cut anywhere, and as others write them."""

import io
import json

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.market.feeds import recording
from fedtrade.market.feeds.events import Market
from fedtrade.market.feeds.recording import (
    Entry,
    Recorder,
    Recording,
    RecordingUnreadable,
    whole_until,
)
from fedtrade.market.feeds.replaying import replay
from fedtrade.market.feeds.venues import VENUES

MARKET = Market("test", "BTCUSDT", 1, 3)
ENTRIES = st.lists(
    st.builds(
        Entry,
        st.sampled_from(["connect", "send", "recv", "http"]),
        st.integers(0, 2**62),
        st.sampled_from(["ws", "web"]),
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).map(str.encode),
        st.sampled_from(["", "wss://x/y?z=1"]),
    ).map(lambda e: Entry(e.kind, e.at_ns, e.connection, b"", e.url) if e.kind == "connect" else e),
    max_size=30,
)


def lines(entries):
    with zstandard.open(io.BytesIO(written(entries)), "rb") as packed:
        return packed.read()


def written(entries, flush_every=5):
    file = io.BytesIO()
    recorder = Recorder(file, "test", [MARKET])
    for number, entry in enumerate(entries):
        recorder.write(entry)
        if number % flush_every == 0:
            recorder.flush()
    recorder.flush()
    return file.getvalue()


@given(ENTRIES)
def test_what_was_written_is_read_to_the_nanosecond(entries):
    read = Recording(io.BytesIO(written(entries)))
    assert list(read) == entries
    assert read.torn == ""
    assert read.header.of("test") == [MARKET]


@given(ENTRIES.filter(bool), st.floats(0, 1))
def test_cut_anywhere_it_gives_what_came_before_and_is_appended_to_whole(entries, part):
    """A crash leaves any prefix of the file."""
    data = written(entries)
    cut = data[: int(part * len(data))]
    read = list(Recording(io.BytesIO(cut)))
    assert read == entries[: len(read)]
    whole = whole_until(io.BytesIO(cut))
    file = io.BytesIO(cut[:whole])
    kept = list(Recording(io.BytesIO(cut[:whole])))
    file.seek(0, io.SEEK_END)
    again = Recorder(file, "test", [MARKET])
    again.write(entries[-1])
    again.flush()
    assert list(Recording(io.BytesIO(file.getvalue()))) == [*kept, entries[-1]]
    if whole == len(data):
        assert kept == entries


def test_a_torn_last_line_is_left_out_and_said():
    lines = b'1 {"stream":"a"}\n2 {"stream":"b"}\n3 {"str'
    for data in (lines, zstandard.compress(lines)):
        read = Recording(io.BytesIO(data), "x.zst")
        assert [entry.at_ns for entry in read] == [1, 2]
        assert read.torn.startswith("x.zst: its last line has no end (7 bytes)")
    ended = Recording(io.BytesIO(b'1 {"stream":"a"}'))
    assert len(list(ended)) == 1
    assert ended.torn == ""


def test_the_four_formats():
    v1 = [{"t": "connect", "url": "wss://v", "ts": 1.5}, {"t": "recv", "ts": 2.25, "data": "x"}]
    v2 = [{"t": "header", "format": 2, "exchange": "OKX", "config": {}},
          {"t": "http", "conn": "h", "ts": 1, "url": "https://v/p", "data": "{}"},
          {"t": "ws", "conn": "w", "ts": 2, "data": "y"}]  # fmt: skip
    told = b"\n".join(json.dumps(each).encode() for each in v1 + v2)
    read = Recording(io.BytesIO(told))
    assert list(read) == [
        Entry("connect", 1_500_000_000, "", b"", "wss://v"),
        Entry("recv", 2_250_000_000, "", b"x"),
        Entry("http", 1_000_000_000, "h", b"{}", "https://v/p"),
        Entry("recv", 2_000_000_000, "w", b"y"),
    ]
    assert read.header.exchange == "OKX"
    (web,) = Recording(io.BytesIO(b'7 {"lastUpdateId":3}\n'))
    assert web == Entry("http", 7, "", b'{"lastUpdateId":3}')


@pytest.mark.parametrize("line", [b'{"t":"no"}\n', b"[]\n", b"7\n", b'{"t":"recv","ts":"x"}\n'])
def test_another_format_is_refused_with_its_line(line):
    with pytest.raises(RecordingUnreadable, match="line 2"):
        list(Recording(io.BytesIO(b'1 {"a":1}\n' + line)))


def test_a_line_without_end_is_refused_before_it_fills_the_memory(monkeypatch):
    monkeypatch.setattr(recording, "LINE_MAX", 1_000_000)
    bomb = zstandard.compress(b" " * 300_000_000)
    with pytest.raises(RecordingUnreadable, match="over 1000000 bytes"):
        list(Recording(io.BytesIO(bomb)))


@given(
    st.one_of(st.binary(max_size=200), ENTRIES.map(written)),
    st.integers(0, 10_000),
    st.integers(0, 255),
)
def test_any_bytes_are_read_or_refused_by_name(data, place, byte):
    """Also a recording of which one byte was changed."""
    hurt = bytearray(data)
    if hurt:
        hurt[place % len(hurt)] = byte
    for each in (bytes(hurt), zstandard.compress(bytes(hurt))):
        try:
            for entry in Recording(io.BytesIO(each)):
                assert isinstance(entry, Entry)
        except RecordingUnreadable:
            continue


@given(st.sampled_from(sorted(VENUES)), st.binary(max_size=60))
def test_no_bytes_of_a_venue_break_a_feed(venue, frame):
    feed = VENUES[venue].feed([Market(venue, "BTCUSDT")])
    feed.connected(0)
    for each in (
        frame,
        b'{"stream":"btcusdt@depth"' + frame,
        b"[" + frame,
        b'{"data":' + frame + b"}",
    ):
        feed.received(each, 0)
    replay([Entry("recv", 1, "ws", frame)], feed)


@pytest.mark.parametrize("venue", sorted(VENUES))
def test_what_is_no_text_or_nested_without_end_loses_books_and_raises_nothing(venue):
    feed = VENUES[venue].feed([Market(venue, "BTCUSDT")])
    for wrong in (b"\x80", b"[" * 100_000):
        for key in (
            b"stream",
            b"topic",
            b"channel",
            b"type",
            b"table",
            b"feed",
            b"method",
            b"data",
        ):
            for text in (b'"' + wrong + b'"', wrong):
                assert feed.received(b'{"' + key + b'":' + text + b',"x":1}', 0) == []
            feed.received(b'{"stream":"btcusdt@depth","data":{"s":"' + wrong + b'"}}', 0)
    for wrong in (
        b'{"error":{"\xe2":2}}',
        b'{"type":"x","error":["\xe2"]}',
        b'{"channel":"error","data":"\xe2"}',
    ):
        feed.received(wrong, 0)
    replay([Entry("recv", 1, "ws", b"[" * 100_000)], feed)
