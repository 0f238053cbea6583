"""A venue's line under faults: no stale or crossed book is ever served, and it comes back.

The venue is a recording behind a local server, made of a true book's moves; what is served after a
frame is compared with the true book after it.
"""

import asyncio
import io
import json
import random
import time
from dataclasses import replace

import pytest
from aiohttp import web

from clients.feed import FeedLine, Limits, VenueRefused
from consortium.venue import LocalVenue, answer, tell
from fedtrade.market.feeds.binance import Binance
from fedtrade.market.feeds.events import (
    BookLost,
    BookMoved,
    BookReset,
    Market,
    Send,
)
from fedtrade.market.feeds.recording import Entry, Recorder, Recording
from fedtrade.market.feeds.replica import BookStale
from fedtrade.market.feeds.venues import Venue

MARKET = Market("binance-usdm", "BTCUSDT", 1, 0)
FRAMES = 60
QUICK = Limits(connect_s=2, silent_s=0.3, stuck_s=5, fetch_s=0.5, wait_s=0.01, wait_max_s=0.05,
               lines_per_minute=200, sends_per_s=1_000, fetch_gap_s=0.0)  # fmt: skip


def diff(number):
    """The best bid after frame n is 1000 + n, the best ask 2000 + n, of size n."""
    bids = [[f"{100 + number / 10:.1f}", str(number)]]
    asks = [[f"{200 + (number - 1) / 10:.1f}", "0"], [f"{200 + number / 10:.1f}", str(number)]]
    data = {"e": "depthUpdate", "E": number, "T": number, "s": "BTCUSDT", "U": 10 * number + 1,
            "u": 10 * number + 10, "pu": 10 * number, "b": bids, "a": asks}  # fmt: skip
    return json.dumps({"stream": "btcusdt@depth@0ms", "data": data}).encode()


def snapshot(number):
    bids, asks = [[[f"{first + number / 10:.1f}", str(number)]] for first in (100, 200)]
    return json.dumps({"lastUpdateId": 10 * number + 10, "bids": bids, "asks": asks}).encode()


@pytest.fixture
def recording(tmp_path):
    file = tmp_path / "venue.jsonl.zst"
    with file.open("wb") as out:
        recorder = Recorder(out, "binance-usdm", [MARKET])
        for number in range(1, FRAMES + 1):
            recorder.write(Entry("recv", number * 1_000_000, "ws", diff(number)))
            if number == 3:
                path = "https://x/fapi/v1/depth?symbol=BTCUSDT&limit=1000"
                recorder.write(Entry("http", number * 1_000_000, "web", snapshot(3), path))
        recorder.flush()
    return file


class Seen:
    """What a user of the line sees: every event, and after each the book if it is served."""

    def __init__(self, feed, enough):
        self.feed, self.enough = feed, enough
        self.stop, self.events, self.served, self.newest = asyncio.Event(), [], 0, 0
        received = feed.received

        def listened(frame, at_ns):
            if frame.startswith(b"{") and frame.endswith(b"}}"):
                self.newest = json.loads(frame)["data"]["E"]
            return received(frame, at_ns)

        feed.received = listened

    def __call__(self, event):
        self.events.append(event)
        try:
            book = self.feed.replicas[MARKET].book(0)
        except BookStale:
            assert isinstance(event, BookLost)
            return
        assert isinstance(event, BookMoved | BookReset)
        bid, size, ask, ask_size = book.best()
        number = bid - 1000
        assert (size, ask, ask_size) == (number, 2000 + number, number)
        assert number >= self.newest  # as new as what came; a snapshot may be newer
        self.served += 1
        if self.enough(number, self):
            self.stop.set()


def whole(number, seen):
    """The newest book is served, by the end of the recording."""
    return number == FRAMES and seen.newest == FRAMES


async def follow(recording, limits=QUICK, enough=whole, most_s=20, written=None, **meddling):
    """Follow a local venue until enough was seen; gives (line, seen)."""
    runner = web.AppRunner(LocalVenue(recording, **meddling).app(), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    place = f"127.0.0.1:{runner.addresses[0][1]}"
    feed = Binance("usdm", [MARKET], "0ms")
    venue = Venue("test", f"ws://{place}/stream", None, f"http://{place}", ping_every_s=0.1)
    seen = Seen(feed, enough)
    line = FeedLine(venue, feed, seen, clock_ns=time.time_ns, coin=random.Random(1).random,
                    limits=limits, written=written)  # fmt: skip
    try:
        async with asyncio.timeout(most_s):
            await line.run(seen.stop)
    finally:
        await runner.cleanup()
    return line, seen


def losses(seen):
    return [event.reason for event in seen.events if isinstance(event, BookLost)]


def test_a_recording_is_followed_and_recorded_again(recording):
    file = io.BytesIO()
    recorder = Recorder(file, "binance-usdm", [MARKET])
    line, seen = asyncio.run(follow(recording, written=recorder.write))
    recorder.flush()
    assert (line.lines, line.fetches, line.messages) == (1, 1, FRAMES)
    assert losses(seen) == ["its line has ended: it was stopped"]
    assert sum(isinstance(event, BookReset) for event in seen.events) == 1
    file.seek(0)
    entries = list(Recording(file))
    assert [entry.kind for entry in entries[:2]] == ["connect", "send"]
    assert [each.data for each in entries if each.kind == "recv"] == [
        diff(number) for number in range(1, FRAMES + 1)
    ]
    assert [each.data for each in entries if each.kind == "http"] == [snapshot(3)]


class Meddler:
    """A venue that does one wrong thing on each of its first two lines, and answers truly."""

    def __init__(self, kind="", place=20):
        self.kind, self.place, self.newest, self.asked, self.reached = kind, place, 0, 0, 0

    async def tell(self, line, number, place, frame):
        self.newest, self.reached = place + 1, number + 1
        await asyncio.sleep(0.001)
        if not self.kind or number >= 2 or place != self.place + number:
            return await tell(line, number, place, frame)
        raw = line._req.transport
        if self.kind == "cut":
            raw.abort()
        elif self.kind == "half":  # the socket ends within a frame
            raw.write(b"\x81\x7e\x01\x00" + frame[:50])
            await asyncio.sleep(0.02)
            raw.close()
        elif self.kind == "silent":
            raw.pause_reading()  # no pong either
            await asyncio.sleep(1)
        elif self.kind == "torn":
            await line.send_str(frame[: len(frame) // 2].decode())
        elif self.kind == "garbage":
            raw.write(b"\xff" * 300)
        elif self.kind == "binary":
            await line.send_bytes(b"\xff\x00" * 50)
        elif self.kind == "huge":
            await line.send_str(" " * 5_000_000)
        elif self.kind == "twice":
            await tell(line, number, place, frame)
            await tell(line, number, place, frame)
        return self.kind in ("torn", "binary", "drop", "twice")

    async def answer(self, path, recorded):
        self.asked += 1
        assert path == "/fapi/v1/depth?symbol=BTCUSDT&limit=1000"
        return await answer(path, snapshot(max(self.newest, 3)))


CUTS = ("cut", "half", "silent", "garbage", "huge")


@pytest.mark.parametrize("kind", [*CUTS, "torn", "binary", "drop", "twice"])
def test_a_fault_of_a_line_never_serves_a_wrong_book_and_costs_one_snapshot(recording, kind):
    venue = Meddler(kind)
    limits = replace(QUICK, silent_s=0.3 if kind == "silent" else 3.0)
    line, seen = asyncio.run(follow(recording, limits, tell=venue.tell, answer=venue.answer))
    lost = losses(seen)
    assert lost.pop() == "its line has ended: it was stopped"
    if kind in CUTS:
        assert line.lines == 3
        assert len(lost) == 2
        assert all("its line has ended" in each for each in lost), lost
    elif kind == "twice":
        assert (line.lines, lost) == (1, [])
    else:
        assert (line.lines, len(lost)) == (1, 1)
    if kind == "silent":
        assert all("nothing came for 0.3 s" in each for each in lost)
    assert venue.asked == line.fetches == 1 + len(lost)


@pytest.mark.parametrize(("status", "headers"), [(429, {"Retry-After": "0"}), (418, {}), (500, {})])
def test_a_web_interface_that_refuses_is_asked_again_later(recording, status, headers):
    venue = Meddler()

    async def busy(path, recorded):
        told = await venue.answer(path, recorded)
        return told if venue.asked > 2 else web.Response(status=status, headers=headers)

    line, seen = asyncio.run(follow(recording, tell=venue.tell, answer=busy))
    assert line.fetches == venue.asked == 3
    assert losses(seen) == ["its line has ended: it was stopped"]


@pytest.mark.parametrize("wrong", ["slow", "garbage", "huge", "empty"])
def test_a_snapshot_that_does_not_come_or_cannot_be_read_is_asked_for_anew(recording, wrong):
    venue = Meddler()

    async def answered(path, recorded):
        told = await venue.answer(path, recorded)
        if venue.asked > 1:
            return told
        if wrong == "slow":
            await asyncio.sleep(0.4)
        body = {"slow": told.body, "garbage": b"<html>", "empty": b"", "huge": b" " * 2_000_000}
        return web.Response(body=body[wrong])

    limits = replace(QUICK, fetch_s=0.2, answer_bytes=1_000_000)
    line, seen = asyncio.run(follow(recording, limits, tell=venue.tell, answer=answered))
    assert line.fetches == 2
    assert (line.lines, len(losses(seen))) == (1, 2 if wrong == "garbage" else 1)


def test_a_venue_that_complains_ends_it_with_its_sentence(recording):
    async def complains(line, number, place, frame):
        return await tell(
            line, number, place, b'{"error":{"code":2,"msg":"no such stream"},"id":1}'
        )

    with pytest.raises(VenueRefused, match="no such stream"):
        asyncio.run(follow(recording, tell=complains))


def test_an_error_of_the_taker_ends_it():
    class Feed:
        replicas = {}  # noqa: RUF012

        def connected(self, at_ns):
            return [Send("hello")]

        def received(self, frame, at_ns):
            return [BookLost(MARKET, at_ns, "x")]

    def take(event):
        raise ZeroDivisionError

    async def go():
        async def server(request):
            line = web.WebSocketResponse()
            await line.prepare(request)
            await line.send_str((await line.receive()).data)
            await line.receive()
            return line

        app = web.Application()
        app.router.add_get("/", server)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        place = f"ws://127.0.0.1:{runner.addresses[0][1]}/"
        line = FeedLine(Venue("test", place, None), Feed(), take, clock_ns=time.time_ns,
                        coin=random.Random(1).random, limits=QUICK)  # fmt: skip
        try:
            async with asyncio.timeout(5):
                await line.run(asyncio.Event())
        finally:
            await runner.cleanup()

    with pytest.raises(ZeroDivisionError):
        asyncio.run(go())


def test_a_book_that_does_not_become_whole_is_begun_anew_on_a_new_line(recording):
    """The venue answers pings, but its snapshots never come."""
    venue = Meddler()

    async def answered(path, recorded):
        told = await venue.answer(path, recorded)
        return told if venue.reached > 1 else web.Response(status=500)

    limits = replace(QUICK, stuck_s=0.3, wait_max_s=0.02)
    line, seen = asyncio.run(follow(recording, limits, tell=venue.tell, answer=answered))
    assert line.lines == 2
    assert {each.partition(" (")[0] for each in losses(seen)} == {
        "its snapshot cannot be read", "its line has ended: it was stopped",
    }  # fmt: skip


def test_nobody_there_is_asked_ever_more_seldom_and_no_more_than_the_limit_of_a_minute():
    feed, coins = Binance("usdm", [MARKET]), []

    def coin():
        coins.append(0.5)
        return 0.5

    async def go():
        limits = replace(QUICK, wait_s=0.001, wait_max_s=0.004, lines_per_minute=6)
        line = FeedLine(Venue("test", "ws://127.0.0.1:9/", None), feed, print, clock_ns=time.time_ns,
                        coin=coin, limits=limits)  # fmt: skip
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(1, stop.set)
        await line.run(stop)
        pauses = [line._pause_s(failures) for failures in range(5)]
        return line, pauses

    line, pauses = asyncio.run(go())
    assert len(coins) == 6 + 5
    assert pauses == [0.00075, 0.0015, 0.003, 0.003, 0.003]
    assert "cannot be connected to" in line.last_end
