"""A recording served as if it were the venue: websocket and web interface, on this machine.

    python -m consortium.venue recording.jsonl.zst --port 8765          (or `fedtrade feed serve`)

Every websocket is told the recording from its beginning, once it has said something; so a reader that
reconnects sees a venue that began anew. A recording of several connections serves the one whose path
was asked for, or else the first. The web interface gives what was recorded for the same path: the
first answer that is not older than what the newest websocket was told, because a snapshot must overlap
with what follows it. Where a recording names no paths, its only answers are given for any.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from aiohttp import WSMsgType, web

from fedtrade.console import leave_cleanly
from fedtrade.errors import BadInput
from fedtrade.market.feeds.recording import Entry, Recording

SPOKEN_S: Final = 10.0
"""How long a reader may say nothing before it is told the recording all the same."""
ANSWERS_MAX: Final = 256 * 1024 * 1024
"""Bytes of recorded web answers, which are kept in memory."""

Tell = Callable[[web.WebSocketResponse, int, int, bytes], Awaitable[bool]]
"""Sends a frame: (line, number of the line, number of the frame, frame); false ends the line."""

Answer = Callable[[str, bytes | None], Awaitable[web.Response]]
"""Answers for a path with what was recorded for it, or None."""


async def tell(line: web.WebSocketResponse, number: int, place: int, frame: bytes) -> bool:
    """As it was recorded."""
    await line.send_str(frame.decode())
    return True


async def answer(path: str, recorded: bytes | None) -> web.Response:
    """As it was recorded; 404 where nothing was."""
    if recorded is None:
        return web.Response(status=404, text=f"nothing is recorded for {path}")
    return web.Response(body=recorded, content_type="application/json")


class LocalVenue:
    """Serves one recording."""

    def __init__(
        self, recording: Path, speed: float = 0.0, tell: Tell = tell, answer: Answer = answer
    ) -> None:
        """`speed`: times as fast as it was recorded; 0: as fast as it is read."""
        if not recording.is_file():
            raise BadInput(str(recording), "it is no file", "Name a recording.")
        self._file, self._speed, self._tell, self._answer = recording, speed, tell, answer
        self._answers: dict[str, list[Entry]] = {}
        """What the web interface gave, by path; under "" where a recording names none."""
        self._connections: dict[str, str] = {}
        """Path of a websocket -> the connection of the recording."""
        self._told_ns = 0
        self._lines = 0
        self._index()

    def _index(self) -> None:
        kept = 0
        for entry in self._entries():
            if entry.kind == "http":
                kept += len(entry.data)
                if kept > ANSWERS_MAX:
                    raise BadInput(str(self._file), "its web answers are too large", "Cut it.")
                self._answers.setdefault(_path(entry.url), []).append(entry)
            elif entry.kind == "connect":
                self._connections.setdefault(_path(entry.url), entry.connection)
            elif entry.kind == "recv":
                self._connections.setdefault("", entry.connection)

    def _entries(self) -> Iterator[Entry]:
        with self._file.open("rb") as file:
            yield from Recording(file, self._file.name)

    def app(self) -> web.Application:
        """The server, to be run by whoever owns the socket."""
        app = web.Application()
        app.router.add_get("/{rest:.*}", self._asked)
        return app

    async def _asked(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._line(request)
        path = request.path_qs
        answers = self._answers.get(path) or self._answers.get("") or []
        newer = [each for each in answers if each.at_ns >= self._told_ns]
        found = newer[0] if newer else answers[-1] if answers else None
        return await self._answer(path, None if found is None else found.data)

    async def _line(self, request: web.Request) -> web.WebSocketResponse:
        line = web.WebSocketResponse(compress=False)
        await line.prepare(request)
        number, self._lines = self._lines, self._lines + 1
        spoken = asyncio.Event()
        hearing = asyncio.create_task(_hear(line, spoken))
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(SPOKEN_S):
                    await spoken.wait()
            with suppress(ConnectionResetError):  # the reader has left
                await self._play(line, number, request.path_qs)
            await hearing  # a venue does not hang up because there is nothing new
        finally:
            hearing.cancel()
        return line

    async def _play(self, line: web.WebSocketResponse, number: int, path: str) -> None:
        connection = self._connections.get(path, self._connections.get("", ""))
        loop = asyncio.get_running_loop()
        begin_s, first_ns, place = loop.time(), None, 0
        for entry in self._entries():
            if entry.kind != "recv" or entry.connection != connection or line.closed:
                continue
            first_ns = entry.at_ns if first_ns is None else first_ns
            if self._speed:
                due_s = begin_s + (entry.at_ns - first_ns) / 1e9 / self._speed
                await asyncio.sleep(max(0.0, due_s - loop.time()))
            elif place % 64 == 0:
                await asyncio.sleep(0)
            self._told_ns = entry.at_ns
            if not await self._tell(line, number, place, entry.data):
                if not line.closed:
                    await line.close()
                return
            place += 1


async def _hear(line: web.WebSocketResponse, spoken: asyncio.Event) -> None:
    """Take what the reader says, which a recording cannot answer, until it hangs up."""
    while True:
        said = await line.receive()
        spoken.set()
        if said.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
            return


def _path(url: str) -> str:
    parts = urlsplit(url)
    return parts.path + (f"?{parts.query}" if parts.query else "")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="fedtrade feed serve", description="Serve a recording as if it were the venue."
    )
    parser.add_argument("recording", type=Path)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument(
        "--speed", type=float, default=1.0, help="times as fast as recorded; 0: as fast as read"
    )
    given = parser.parse_args()

    def serve() -> None:
        venue = LocalVenue(given.recording, given.speed)
        print(f"http://127.0.0.1:{given.port} and ws://127.0.0.1:{given.port}, until Ctrl-C")
        web.run_app(venue.app(), host="127.0.0.1", port=given.port, print=None)

    leave_cleanly("fedtrade feed serve", serve)


if __name__ == "__main__":
    main()
