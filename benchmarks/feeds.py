"""Books and websockets: level updates a second, and recorded frames a second over a real socket.

`book_updates`: the diffs of ten recorded minutes of Binance COIN-M put into our book one by one, and
the same levels into hftbacktest's, which gets them as one array and runs through it in one call.

`ws_decoded`, `ws_applied`: a process that only writes sends recorded frames over the loopback; each
side reads them in one thread. Ours is the whole line of `clients.feed`: every event made, every book
applied and checked. The counterparts of `ws_decoded` only decode (websockets with json, as its manual
shows; picows with msgspec, into plain objects); those of `ws_applied` also keep levels in two
dictionaries. Neither checks a sequence.

The frames are those of `../shared/data/ws_frames`; without them this part is left out.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import multiprocessing
import socket
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from time import process_time, time_ns
from typing import Any, Final

import msgspec
import numpy as np
import picows

from benchmarks.measure import DataAbsent, Row, alternate, row
from clients.feed import FeedLine
from fedtrade.errors import Fault
from fedtrade.market.book import Book, Levels
from fedtrade.market.feeds.binance import Binance
from fedtrade.market.feeds.events import BookMoved, BookReset, Fetch, Market, Out, Said
from fedtrade.market.feeds.recording import Entry, Recording
from fedtrade.market.feeds.replaying import replay
from fedtrade.market.feeds.venues import VENUES

FOLDER: Final = Path(__file__).parents[2] / "shared" / "data" / "ws_frames"
DECODED: Final = ("binance_usdm_btcusdt_20240808", "usdm", "BTCUSDT")
"""As a market's frames are mixed: seven of a hundred are diffs, of some seventy levels."""
APPLIED: Final = ("binance_coinm_btcusd_perp_20240808", "coinm", "BTCUSD_PERP")
"""The most diffs: nearly half of the frames."""
FRAMES: Final = 90_000
PASSES: Final = 3
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass(frozen=True)
class Scene:
    """A recording: its frames, and the snapshot that the web interface gave."""

    product: Any
    market: Market
    frames: list[bytes]
    snapshot: bytes
    entries: list[Entry]


def scene(name: str, product: str, symbol: str) -> Scene:
    """Read a recording. Raises DataAbsent."""
    path = FOLDER / f"{name}.jsonl.zst"
    if not path.is_file():
        raise DataAbsent(path)
    with path.open("rb") as file:
        entries = list(Recording(file, name))
    frames = [each.data for each in entries if each.kind == "recv"][:FRAMES]
    snapshot = next(each.data for each in entries if each.kind == "http")
    return Scene(product, Market(f"binance-{product}", symbol, 1, 3), frames, snapshot, entries)


def rows() -> list[Row]:
    """Measure all; raises DataAbsent, and Fault where a counterpart is missing."""
    return [_book_updates(scene(*APPLIED)), *_sockets()]


# books


def _book_updates(of: Scene) -> Row:
    import hftbacktest as hft

    moves: list[tuple[Levels, Levels]] = []
    whole: list[tuple[Levels, Levels]] = []

    def take(said: Said, entry: Entry) -> None:
        if isinstance(said, BookReset):
            whole.append((said.bids, said.asks))
        elif isinstance(said, BookMoved):
            moves.append((said.bids, said.asks))

    replay(of.entries, VENUES[of.market.venue].feed([of.market]), take=take)
    count = sum(len(bids) + len(asks) for bids, asks in moves)
    events = _events(hft, [whole[0], *moves], of.market)
    ended: dict[str, tuple[float, float]] = {}
    units = 10.0**of.market.price_decimals

    def ours() -> None:
        book = Book()
        book.reset(*whole[0])
        for bids, asks in moves:
            book.apply(bids, asks)
        best = book.best()
        assert best is not None
        ended["ours"] = best[0] / units, best[2] / units

    def theirs() -> None:
        asset = (
            hft.BacktestAsset()
            .data(events)
            .linear_asset(1.0)
            .constant_order_latency(0, 0)
            .power_prob_queue_model(2.0)
            .no_partial_fill_exchange()
            .trading_value_fee_model(0.0, 0.0)
            .tick_size(0.1)
            .lot_size(1.0)
        )
        run = hft.HashMapMarketDepthBacktest([asset])
        run.elapse(10**15)
        depth = run.depth(0)
        ended["theirs"] = round(depth.best_bid, 1), round(depth.best_ask, 1)
        run.close()

    seconds = alternate({"ours": ours, "theirs": theirs}, 5)
    if ended["ours"] != ended["theirs"]:
        raise Fault(f"the books end differently: {ended}. One of the two misreads a level.")
    return row(
        "book_updates", f"hftbacktest, HashMapMarketDepth in one call; {len(moves)} messages",
        count / seconds["ours"], count / seconds["theirs"], "/s", ("numba", "hftbacktest"),
    )  # fmt: skip


def _events(hft: Any, moves: list[tuple[Levels, Levels]], market: Market) -> Any:
    """Levels as hftbacktest's events, which only its local side sees."""
    count = sum(len(bids) + len(asks) for bids, asks in moves)
    events = np.zeros(count, hft.event_dtype)
    at = 0
    for number, sides in enumerate(moves):
        for levels, side in zip(sides, (hft.BUY_EVENT, hft.SELL_EVENT), strict=True):
            part = events[at : at + len(levels)]
            part["ev"] = hft.DEPTH_EVENT | side | hft.LOCAL_EVENT
            part["exch_ts"] = part["local_ts"] = (number + 1) * 1_000
            part["px"] = levels[:, 0] / 10.0**market.price_decimals
            part["qty"] = levels[:, 1] / 10.0**market.size_decimals
            at += len(levels)
    return events


# sockets


def serve(frames: list[bytes], turns: int, told: Connection) -> None:
    """In a process of its own: one websocket after the other, all frames as fast as they are taken."""
    stream = bytearray()
    for frame in frames:
        size = len(frame)
        stream += b"\x81" + (bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big"))
        stream += frame
    with socket.create_server(("127.0.0.1", 0)) as listening:
        told.send(listening.getsockname()[1])
        for _ in range(turns):
            line, _ = listening.accept()
            with line:
                asked = b""
                while b"\r\n\r\n" not in asked:
                    asked += line.recv(65_536)
                headers = (each.partition(b":") for each in asked.split(b"\r\n"))
                key = next(v.strip() for k, _, v in headers if k.lower() == b"sec-websocket-key")
                accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
                line.sendall(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                    b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
                )
                line.sendall(stream)
                told.recv()  # it has read everything


class _Seeded:
    """Our feed with the recorded snapshot given at once, which counts what it is given."""

    def __init__(self, of: Scene, done: Callable[[], None]) -> None:
        self._feed = Binance(of.product, [of.market], "0ms")
        self._of, self._done, self._left = of, done, len(of.frames)
        self.replicas = self._feed.replicas

    def connected(self, at_ns: int) -> list[Out]:
        out = self._feed.connected(at_ns)
        return [*out, *self._feed.fetched(Fetch(self._of.market, ""), self._of.snapshot, at_ns)]

    def received(self, frame: bytes, at_ns: int) -> list[Out]:
        out = self._feed.received(frame, at_ns)
        self._left -= 1
        if not self._left:
            self._done()
        return out


async def _ours(url: str, of: Scene) -> float:
    """The product's own line; gives the CPU seconds until the last frame's events."""
    stop, counted, ended = asyncio.Event(), Counter[str](), [0.0]

    def done() -> None:
        ended[0] = process_time()
        stop.set()

    def take(said: Said) -> None:
        counted[type(said).__name__] += 1

    line = FeedLine(
        replace(VENUES[of.market.venue], socket_url=url, ping_every_s=1e9),
        _Seeded(of, done), take, clock_ns=time_ns, coin=lambda: 0.0,
    )  # fmt: skip
    begin = process_time()
    await line.run(stop)
    if counted["BookMoved"] < 1_000 or counted["BookLost"] > 1:
        raise Fault(f"the recording gave {dict(counted)}: the figure would be of nothing.")
    return ended[0] - begin


async def _websockets(url: str, of: Scene, use: Callable[[bytes | str], object]) -> float:
    from websockets.asyncio.client import connect

    begin = process_time()
    async with connect(url, compression=None, ping_interval=None, max_queue=1_024) as line:
        for _ in of.frames:
            use(await line.recv(decode=False))
        end = process_time()
    return end - begin


async def _picows(url: str, of: Scene, use: Callable[[bytes | str], object]) -> float:
    ended = asyncio.get_running_loop().create_future()

    class Listener(picows.WSListener):
        left = len(of.frames)

        def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
            use(frame.get_payload_as_bytes())
            self.left -= 1
            if not self.left:
                ended.set_result(process_time())

    begin = process_time()
    transport, _ = await picows.ws_connect(Listener, url)
    end: float = await ended
    transport.disconnect(graceful=False)
    return end - begin


def _into_dictionaries(decode: Callable[[bytes | str], Any]) -> Callable[[bytes | str], None]:
    """A book as tutorials keep it: two dictionaries of texts."""
    sides: dict[str, dict[str, str]] = {"b": {}, "a": {}}

    def use(frame: bytes | str) -> None:
        data = decode(frame)["data"]
        if data.get("e") == "depthUpdate":
            for side, levels in sides.items():
                for price, size in data[side]:
                    if float(size):
                        levels[price] = size
                    else:
                        levels.pop(price, None)

    return use


def _sockets() -> list[Row]:
    found = []
    decode = msgspec.json.Decoder().decode
    for name, of, theirs in (
        ("ws_decoded", scene(*DECODED), (json.loads, decode)),
        (
            "ws_applied",
            scene(*APPLIED),
            (_into_dictionaries(json.loads), _into_dictionaries(decode)),
        ),
    ):
        rates = _measured(of, {
            "ours": _ours,
            "websockets": partial(_websockets, use=theirs[0]),
            "picows": partial(_picows, use=theirs[1]),
        })  # fmt: skip
        what = "decode only" if name == "ws_decoded" else "and levels in dictionaries"
        for library, how in (("websockets", "json"), ("picows", "msgspec")):
            found.append(row(
                name if library == "websockets" else f"{name}_picows",
                f"{library} and {how}, {what}; ours: events and checked books",
                rates["ours"], rates[library], "/s", (library, "msgspec"),
            ))  # fmt: skip
    return found


def _measured(of: Scene, sides: Mapping[str, Callable[[str, Scene], Any]]) -> dict[str, float]:
    """Frames a second of CPU time, each side in turn, after a warm-up of each."""
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    here, there = multiprocessing.get_context("spawn").Pipe()
    turns = (PASSES + 1) * len(sides)
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(of.frames, turns, there), daemon=True
    )
    server.start()
    try:
        url = f"ws://127.0.0.1:{here.recv()}/"
        for turn in range(PASSES + 1):
            for side, read in sides.items():
                took = asyncio.run(read(url, of))
                here.send(None)
                if turn:
                    seconds[side].append(took)
    finally:
        server.terminate()
        server.join()
    return {side: len(of.frames) / median(times) for side, times in seconds.items()}


def soak(messages: int) -> None:
    """Put recorded frames through a feed over and over; print the memory as it goes."""
    of = scene(*APPLIED)
    feed, done = Binance(of.product, [of.market], "0ms"), 0
    while done < messages:
        feed.connected(0)
        feed.fetched(Fetch(of.market, ""), of.snapshot, 0)
        for frame in of.frames:
            feed.received(frame, 0)
        done += len(of.frames)
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4_096 / 1e6
        print(f"{done:>10,} messages  {resident:8.1f} MB", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["soak"]:
        soak(int(sys.argv[2]) if len(sys.argv) > 2 else 5_000_000)
    else:
        for each in rows():
            print(f"{each.name:18} {each.ours:12,.0f} {each.theirs:12,.0f} {each.unit} "
                  f"{each.ratio:6.2f}×  {each.counterpart}")  # fmt: skip
