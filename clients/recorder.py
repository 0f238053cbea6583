"""`fedtrade feed record`: follow a venue, show what its books do, and keep what came in a file.

    python -m clients.recorder binance-usdm BTCUSDT:1:3 ETHUSDT:2:3 --out today.jsonl.zst

An existing recording is appended to; what a crash left unfinished at its end is cut off first. Each
second what came is written out as a whole zstd frame, so a kill loses a second at most.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Final

from rich.console import Console
from rich.live import Live
from rich.table import Table

from clients.feed import FeedLine
from fedtrade.console import leave_cleanly
from fedtrade.errors import Unavailable
from fedtrade.market.feeds.events import BookLost, Market, Said
from fedtrade.market.feeds.recording import Recorder, whole_until
from fedtrade.market.feeds.replica import BookStale
from fedtrade.market.feeds.venues import VENUES, Feed, markets_of, venue_of

LOOK_S: Final = 1.0


class Screen:
    """What is known of each market, and how it is shown."""

    def __init__(self, feed: Feed) -> None:
        self.events: Counter[Market] = Counter()
        self.last_loss = ""
        self._feed = feed
        self._before, self._before_s = 0, time.monotonic()

    def take(self, event: Said) -> None:
        self.events[event.market] += 1
        if isinstance(event, BookLost):
            self.last_loss = f"{time.strftime('%H:%M:%S')} {event.market.symbol}: {event.reason}"

    def table(self, line: FeedLine, name: str, bytes_written: int) -> Table:
        """The screen of this moment."""
        now_s = time.monotonic()
        rate = (line.messages - self._before) / max(now_s - self._before_s, 1e-9)
        self._before, self._before_s = line.messages, now_s
        shown = Table(title=f"{name}: {rate:,.0f} messages/s", title_justify="left", box=None)
        for title in ("market", "book", "bid", "ask", "spread", "events", "lost"):
            shown.add_column(title, justify="left" if title in ("market", "book") else "right")
        for market, replica in self._feed.replicas.items():
            quote = ["", "", ""]
            try:
                best = replica.book(time.time_ns()).best()
                state = "[green]whole[/green]"
                if best is not None:
                    units = 10.0**market.price_decimals
                    bid, ask = best[0] / units, best[2] / units
                    quote = [f"{bid:,.10g}", f"{ask:,.10g}", f"{(ask / bid - 1) * 1e4:.2f} bp"]
            except BookStale as stale:
                state = f"[yellow]stale[/yellow] [dim]{stale.reason[:60]}[/dim]"
            counts = (f"{self.events[market]:,}", str(replica.losses))
            shown.add_row(market.symbol, state, *quote, *counts)
        shown.caption = (
            f"{line.messages:,} messages, {bytes_written / 1e6:.1f} MB written, {line.lines} lines, "
            f"{line.fetches} web answers asked for\nlast line's end: {line.last_end or 'none'}\n"
            f"last loss: {self.last_loss or 'none'}"
        )
        shown.caption_justify = "left"
        return shown


def opened(out: Path) -> IO[bytes]:
    """The file to append to; an unfinished end is cut off."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        file = out.open("a+b")
    except OSError as error:
        raise Unavailable(str(out), str(error), "Name another file with --out.") from error
    file.seek(0)
    whole, size = whole_until(file), file.seek(0, 2)
    if whole < size:
        print(f"{out}: {size - whole} bytes of an unfinished end are cut off", file=sys.stderr)
        file.truncate(whole)
    return file


async def record(line: FeedLine, recorder: Recorder, file: IO[bytes], screen: Screen, name: str,
                 stop: asyncio.Event, console: Console) -> None:  # fmt: skip
    """Until `stop`; the newest second is written out in the end, whatever happens."""
    running = asyncio.create_task(line.run(stop))
    try:
        with Live(console=console, auto_refresh=False, transient=False) as live:
            while not running.done():
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await asyncio.shield(running)
                recorder.flush()
                os.fsync(file.fileno())
                live.update(screen.table(line, name, file.tell()), refresh=True)
        await running
    finally:
        running.cancel()
        recorder.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="fedtrade feed record",
        description="Follow a venue's public feed and keep what came. Ends with Ctrl-C.",
        epilog="example: fedtrade feed record binance-usdm BTCUSDT:1:3 --out btc.jsonl.zst",
    )
    parser.add_argument("venue", choices=sorted(VENUES), metavar="venue", help=", ".join(VENUES))
    parser.add_argument(
        "markets", nargs="+", metavar="SYMBOL[:PRICE[:SIZE]]",
        help="as the venue writes it, with its decimals of price and of size (8 and 8 if unsaid)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="appended to if it is there")
    parser.add_argument("--for-s", type=float, default=0.0, help="end after this long; 0: never")
    parser.add_argument(
        "--at", default="", metavar="HOST:PORT",
        help="a local venue (`fedtrade feed serve`) instead of the real one",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    leave_cleanly("fedtrade feed record", lambda: _record(given))


def _record(given: argparse.Namespace) -> None:
    venue = venue_of(given.venue)
    if given.at:
        venue = replace(venue, socket_url=f"ws://{given.at}/", web_url=f"http://{given.at}")
    markets = markets_of(venue, given.markets)
    feed = venue.feed(markets)
    screen = Screen(feed)
    with opened(given.out) as file:
        recorder = Recorder(file, venue.name, markets)
        line = FeedLine(
            venue, feed, screen.take,
            clock_ns=time.time_ns, coin=random.Random().random, written=recorder.write,
        )  # fmt: skip

        async def go() -> None:
            stop, loop = asyncio.Event(), asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, stop.set)
            if given.for_s:
                loop.call_later(given.for_s, stop.set)
            await record(line, recorder, file, screen, venue.name, stop, Console())

        asyncio.run(go())
    print(f"{recorder.entries:,} entries in {given.out}. Replay: fedtrade feed play {given.out}")


if __name__ == "__main__":
    main()
