"""A venue's line: what a feed wishes is sent and fetched, and what comes is given to it at once.

    connect → subscribe → frames → feed → events          (books whole or refused, never in between)
       ▲                                    │
       └── wait, longer each time ◀── cut, silent, or a book that does not become whole

Frames go from the socket into the feed as they are read: there is no queue of ours that could grow or
grow old. What is not read in time waits with the sender (TCP). The moment a line is gone every book of
it is lost, not when the next one begins. Everything that is waited for has a limit (`Limits`), and a
venue that complains ends it with its sentence, because asking again would change nothing.

picows reads the frames; what it costs beside others is in `benchmarks.feeds`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import aiohttp
import picows

from fedtrade.errors import BadInput, Refusal
from fedtrade.market.feeds.events import Complained, Fetch, Market, Out, Said, Send
from fedtrade.market.feeds.recording import Entry
from fedtrade.market.feeds.venues import Feed, Fetching, Venue

TEXT: Final = picows.WSMsgType.TEXT
BINARY: Final = picows.WSMsgType.BINARY
CONTINUATION: Final = picows.WSMsgType.CONTINUATION
CLOSE: Final = picows.WSMsgType.CLOSE
BUSY: Final = frozenset({418, 429, 503})
"""Answers of a web interface that is asked too often."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much and how long, at most."""

    message_bytes: int = 4 * 1024 * 1024
    answer_bytes: int = 32 * 1024 * 1024
    connect_s: float = 10.0
    silent_s: float = 30.0
    """Without a frame, and pings get one, for this long a line is dead."""
    stuck_s: float = 60.0
    """A book that is not whole for this long, or books all quiet, are begun anew on a new line."""
    fetch_s: float = 10.0
    fetch_tries: int = 4
    fetch_gap_s: float = 2.0
    """Between two whole books of a market: a venue whose snapshots are too old is not stormed."""
    retry_after_s: float = 120.0
    """As long as a venue may ask us to wait."""
    wait_s: float = 0.5
    """Before the second try; then doubled each time, up to `wait_max_s`."""
    wait_max_s: float = 30.0
    steady_s: float = 30.0
    """A line that held for this long begins with `wait_s` again."""
    lines_per_minute: int = 10
    sends_per_s: float = 5.0
    """The strictest venue's (Binance); a second's worth may go at once."""
    unsent: int = 4_096


_WISHES: Final = (Send, Fetch, Complained)


class VenueRefused(Refusal):
    """A venue refused what we asked of it."""

    def __init__(self, venue: str, text: str) -> None:
        super().__init__(
            f"{venue} refuses: {text}. Nothing of it will come; check the markets' names and whether "
            "this place may use the venue."
        )
        self.venue = venue
        self.text = text


class FeedLine:
    """One venue's line, kept until it is stopped."""

    def __init__(
        self,
        venue: Venue,
        feed: Feed,
        take: Callable[[Said], None],
        *,
        clock_ns: Callable[[], int],
        coin: Callable[[], float],
        limits: Limits | None = None,
        written: Callable[[Entry], None] | None = None,
    ) -> None:
        """`take` is given every event at once, in order; an error of it ends the line.

        `clock_ns` stamps what comes; `coin` draws from [0, 1) and spreads the waits; `written` is
        given what goes over the line, to record it.
        """
        if not venue.socket_url:
            raise BadInput(f"venue {venue.name}", "it is closed", "Only its recordings are left.")
        self.messages = self.lines = self.fetches = 0
        self.last_end = ""
        """Why the newest line ended."""
        self._venue, self._feed, self._take = venue, feed, take
        self._clock_ns, self._coin, self.limits = clock_ns, coin, limits or Limits()
        self._written = written
        self._begun: deque[float] = deque(maxlen=self.limits.lines_per_minute)
        self._failure: Exception | None = None
        self._transport: picows.WSTransport | None = None
        self._unsent: deque[Send] = deque()
        self._fetching: dict[Market, asyncio.Task[None]] = {}
        self._fetched_s: dict[Market, float] = {}
        self._wake = asyncio.Event()
        self.heard = False
        """Whether a frame of any kind came since this was looked at."""
        self._web = asyncio.Semaphore(1)

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the line until `stop`. Raises VenueRefused, and whatever `take` raised."""
        waited = 0
        async with aiohttp.ClientSession() as session:
            while not stop.is_set():
                await self._turn(stop)
                if stop.is_set():
                    return
                begin = _now()
                try:
                    await self._one_line(session, stop)
                finally:
                    self._lose_all()
                if self._failure is not None:
                    raise self._failure
                waited = 0 if _now() - begin > self.limits.steady_s else waited + 1
                await _either(stop, self._pause_s(waited))

    async def _turn(self, stop: asyncio.Event) -> None:
        """Wait until one more line is within the limit of a minute."""
        if len(self._begun) == self._begun.maxlen:
            await _either(stop, max(0.0, self._begun[0] + 60 - _now()))
        self._begun.append(_now())

    def _pause_s(self, failures: int) -> float:
        longest = min(self.limits.wait_max_s, self.limits.wait_s * 2.0 ** min(failures, 16))
        return longest * (0.5 + self._coin() / 2)

    async def _one_line(self, session: aiohttp.ClientSession, stop: asyncio.Event) -> None:
        """From connecting to the line's end; what the end was is in `last_end`."""
        limits = self.limits
        try:
            async with asyncio.timeout(limits.connect_s):
                transport, _ = await picows.ws_connect(
                    lambda: _Listener(self, session),
                    self._venue.socket_url,
                    websocket_handshake_timeout=limits.connect_s,
                    max_frame_size=limits.message_bytes,
                )
        except (OSError, TimeoutError, picows.WSError) as error:
            self.last_end = f"it cannot be connected to ({type(error).__name__}: {error})"[:300]
            return
        self._transport = transport
        try:
            await self._tend(transport, stop)
        finally:
            self._transport = None
            transport.disconnect(graceful=False)
            await self._ended(transport)
            tasks = list(self._fetching.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._fetching.clear()
            self._unsent.clear()

    async def _ended(self, transport: picows.WSTransport) -> None:
        """Wait until the socket is closed; what was wrong with its bytes is told here."""
        try:
            async with asyncio.timeout(self.limits.connect_s):
                await transport.wait_disconnected()
        except (OSError, TimeoutError, picows.WSError) as error:
            self.last_end = self.last_end or f"{type(error).__name__}: {error}"[:300]
        self.last_end = self.last_end or "the venue ended it"

    async def _tend(self, transport: picows.WSTransport, stop: asyncio.Event) -> None:
        """Send what is wished, ping, and see whether the line is alive, until it is not."""
        limits = self.limits
        heard_s = pinged_s = whole_s = refilled_s = _now()
        allowed = limits.sends_per_s
        while not stop.is_set() and not transport.is_disconnected and self._failure is None:
            now_s = _now()
            allowed = min(allowed + (now_s - refilled_s) * limits.sends_per_s, limits.sends_per_s)
            refilled_s = now_s
            while self._unsent and allowed >= 1:
                allowed -= 1
                self._send(transport, self._unsent.popleft())
            if now_s - pinged_s >= self._venue.ping_every_s:
                pinged_s = now_s
                self._ping(transport)
            if self._whole():
                whole_s = now_s
            if self.heard:
                heard_s, self.heard = now_s, False
            if now_s - heard_s > limits.silent_s:
                self.last_end = f"nothing came for {limits.silent_s:g} s"
                return
            if now_s - whole_s > limits.stuck_s:
                self.last_end = f"a book was not whole, or all were quiet, for {limits.stuck_s:g} s"
                return
            await _either(self._wake, min(0.2, limits.silent_s / 4))
            self._wake.clear()
        if stop.is_set():
            self.last_end = "it was stopped"

    def _whole(self) -> bool:
        """Whether all books are live and something is heard of at least one."""
        replicas, at_ns = self._feed.replicas.values(), self._clock_ns()
        return all(each.live for each in replicas) and not all(
            each.quiet(at_ns) for each in replicas
        )

    def _send(self, transport: picows.WSTransport, send: Send) -> None:
        transport.send(TEXT, send.text.encode())
        self._write(Entry("send", self._clock_ns(), "ws", send.text.encode()))

    def _ping(self, transport: picows.WSTransport) -> None:
        if self._venue.ping is None:
            transport.send_ping()
        else:
            self._send(transport, self._venue.ping)

    def _write(self, entry: Entry) -> None:
        if self._written is not None:
            self._written(entry)

    # what the socket tells

    def opened(self, session: aiohttp.ClientSession) -> None:
        """A line is there: subscribe."""
        self.lines += 1
        self.last_end = ""
        at_ns = self._clock_ns()
        self._write(Entry("connect", at_ns, "ws", b"", self._venue.socket_url))
        self._act(self._feed.connected(at_ns), session)

    def frame(self, payload: bytes, session: aiohttp.ClientSession) -> None:
        """A whole message."""
        self.messages += 1
        at_ns = self._clock_ns()
        if self._written is not None:
            self._written(Entry("recv", at_ns, "ws", payload))
        out = self._feed.received(payload, at_ns)
        if out:
            self._act(out, session)

    def woken(self) -> None:
        """The socket has ended."""
        self._wake.set()

    def failed(self, error: Exception) -> None:
        """What cannot be gone on from: `run` raises it."""
        self._failure = self._failure or error
        self._wake.set()

    def _act(self, out: list[Out], session: aiohttp.ClientSession) -> None:
        for each in out:
            if not isinstance(each, _WISHES):
                self._take(each)
            elif isinstance(each, Send):
                if len(self._unsent) < self.limits.unsent:
                    self._unsent.append(each)
                    self._wake.set()
                elif self._transport is not None:
                    self.last_end = f"over {self.limits.unsent} messages wait to be sent"
                    self._transport.disconnect(graceful=False)
            elif isinstance(each, Fetch):
                if each.market not in self._fetching:
                    task = asyncio.create_task(self._fetch(each, session))
                    self._fetching[each.market] = task
            else:
                self.failed(VenueRefused(each.venue, each.text))

    def _lose_all(self) -> None:
        """No book is believed without its line."""
        at_ns = self._clock_ns()
        reason = f"its line has ended: {self.last_end}"
        for replica in self._feed.replicas.values():
            if replica.live:
                lost = replica.lose(at_ns, reason)
                if self._failure is None:
                    self._take(lost)

    # the web interface

    async def _fetch(self, fetch: Fetch, session: aiohttp.ClientSession) -> None:
        """Ask until there is an answer, a few times; then the feed asks anew when it wants to."""
        body, limits = b"", self.limits
        gap_s = self._fetched_s.get(fetch.market, -limits.fetch_gap_s) + limits.fetch_gap_s - _now()
        await asyncio.sleep(max(0.0, gap_s))
        async with self._web:
            for failures in range(limits.fetch_tries):
                self.fetches += 1
                body, wait_s = await self._asked(fetch, session)
                if body:
                    break
                pause_s = self._pause_s(failures)
                await asyncio.sleep(min(max(wait_s, pause_s), limits.retry_after_s))
        del self._fetching[fetch.market]
        self._fetched_s[fetch.market] = _now()
        try:
            at_ns = self._clock_ns()
            if body:
                url = self._venue.web_url + fetch.path
                self._write(Entry("http", at_ns, "web", body, url))
            assert isinstance(self._feed, Fetching)  # it has asked
            self._act(self._feed.fetched(fetch, body, at_ns), session)
        except Exception as error:  # whatever `take` raised ends the line, in `run`
            self.failed(error)

    async def _asked(self, fetch: Fetch, session: aiohttp.ClientSession) -> tuple[bytes, float]:
        """The answer, or nothing and for how long the venue does not want to be asked."""
        try:
            async with asyncio.timeout(self.limits.fetch_s):
                async with session.get(self._venue.web_url + fetch.path) as response:
                    if response.status in BUSY:
                        return b"", _seconds(response.headers.get("Retry-After", ""))
                    if response.status != 200:
                        return b"", 0.0
                    body = bytearray()
                    async for chunk in response.content.iter_chunked(65_536):
                        body += chunk
                        if len(body) > self.limits.answer_bytes:
                            return b"", 0.0
                    return bytes(body), 0.0
        except (aiohttp.ClientError, OSError, TimeoutError):
            return b"", 0.0


class _Listener(picows.WSListener):
    """Puts frames together and hands them on."""

    def __init__(self, line: FeedLine, session: aiohttp.ClientSession) -> None:
        self._line, self._session = line, session
        self._parts = bytearray()

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._line.opened(self._session)

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        line, kind = self._line, frame.msg_type
        if transport.is_close_frame_sent:
            return  # behind what was no frame nothing is one
        line.heard = True
        try:
            if kind == TEXT and frame.fin:
                line.frame(frame.get_payload_as_bytes(), self._session)
            elif kind == CLOSE:
                reason = f"{frame.get_close_code()} {frame.get_close_reason() or ''}"
                line.last_end = f"the venue ended it ({reason.strip()})"[:300]
                transport.disconnect()
            elif kind == BINARY and frame.fin:
                line.frame(frame.get_payload_as_bytes(), self._session)
            elif kind in (TEXT, BINARY, CONTINUATION):
                self._part(transport, frame)
        except Exception as error:  # ends the line, in `run`
            line.failed(error)
            transport.disconnect(graceful=False)

    def _part(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type != CONTINUATION:
            self._parts.clear()
        self._parts += frame.get_payload_as_bytes()
        if len(self._parts) > self._line.limits.message_bytes:
            self._line.last_end = "a message in parts is over the limit"
            transport.disconnect(graceful=False)
        elif frame.fin:
            whole = bytes(self._parts)
            self._parts.clear()
            self._line.frame(whole, self._session)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self._line.woken()


async def _either(event: asyncio.Event, limit_s: float) -> None:
    """Until the event, and no longer than this."""
    try:
        async with asyncio.timeout(limit_s):
            await event.wait()
    except TimeoutError:
        return


def _now() -> float:
    return asyncio.get_running_loop().time()


def _seconds(text: str) -> float:
    return float(text) if text.isdigit() else 0.0
