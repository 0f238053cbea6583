"""The round channel: the coordinator's own HTTPS service, as an `Exchange` (`fedtrade.channel`).

The service runs in a thread with an event loop of its own; the thread that drives the release calls
`exchange` and waits. Members and helpers poll for work, so nobody opens a port but the coordinator.

A seat has at most one task. It is handed out again to every poll until it is replied to, so that a
lost connection costs nothing, and withdrawn when the exchange is over; a reply after that is
dropped. An exchange ends when every seat that it asked has replied or after its time limit. A seat
that has let an exchange pass is still asked, but not waited for until it is heard of again: one
dead machine costs one time limit, not one a round. Nor is a seat waited for whose clock is refused;
where more than half of all seats find this clock off, in the same direction, it is this one that is
wrong, and the exchange ends in `CoordinatorClock`.

Limits, all of them constants below or in `fedtrade.channel`: TLS 1.3 alone; STRANGERS_MAX
connections that have not proved a seat (the oldest makes room) and one connection a seat and role;
IDLE_S without a request, BODY_S for a body; MESSAGE_BYTES_MAX in a reply and nothing in a poll,
by Content-Length, which is compulsory; REQUESTS_PER_S a seat. A body is read only after its headers
have proved who sends it and only where that seat owes a reply.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import ssl
import statistics
import threading
import time
from collections.abc import Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any, Final, Self

from aiohttp import web

from fedtrade.channel import (
    ACTION_HEADER,
    ERROR_NAME_BYTES_MAX,
    HEALTH,
    NEXT,
    POLL_S,
    REFUSE,
    REFUSED_HEADER,
    REPLY,
    TASK_HEADER,
    TIME_HEADER,
    ClockSkew,
    NotAuthentic,
    Replayed,
    Request,
    Role,
    check_fresh,
    error_name,
    read_request,
    role_of,
)
from fedtrade.errors import Fault, Stale, Unavailable
from fedtrade.protocol import MESSAGE_BYTES_MAX, Action, ReleaseTerms

log = logging.getLogger("fedtrade.coordinator")

STRANGERS_MAX: Final = 64
HANDSHAKE_S: Final = 10.0
IDLE_S: Final = 30.0
"""Longest between two requests of a connection, and for the headers of its first."""
BODY_S: Final = 120.0
LINGER_S: Final = 0.5
"""How long the body of a refused request is drained unread, so that the answer can be seen."""
REQUESTS_PER_S: Final = 200.0
BURST: Final = 400.0
HEADER_BYTES_MAX: Final = 1024
HEADERS_MAX: Final = 32
START_S: Final = 10.0
FAREWELL_S: Final = 2.0

_CHUNK: Final = 65_536


class ChannelClosed(Fault):
    """An exchange on a channel that is not open, or was closed under it."""

    def __init__(self, action: Action) -> None:
        super().__init__(
            f"the round channel is closed: nobody can be asked to {action}. Start it again"
        )
        self.action = action


class CoordinatorClock(Stale):
    """Most seats find the coordinator's clock off, in the same direction."""

    def __init__(self, seats: int, of: int, off_ms: int) -> None:
        super().__init__(
            f"{seats} of {of} seats have clocks from which this machine's is {off_ms / 1000:+.1f} s "
            "off: it is this one that is wrong. Set it by NTP, then start the coordinator again, "
            "and after it the members and helpers that have ended"
        )
        self.seats = seats
        self.of = of
        self.off_ms = off_ms


@dataclass(slots=True, eq=False)
class _Task:
    """What one seat is asked."""

    id: str
    action: Action
    body: bytes
    reply: asyncio.Future[bytes | None]
    """The body of the reply; None where the seat refused."""


@dataclass(slots=True, eq=False)
class _Slot:
    """One seat in one role."""

    last_ms: int
    tokens: float = BURST
    counted_s: float = 0.0
    task: _Task | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    missed: bool = False
    """It let an exchange pass, or its clock was refused, and it has not been heard of since."""
    off_ms: int = 0
    """How far off its clock this one is, as told by its last request, if that was refused for it."""
    connection: web.RequestHandler | None = None

    def allow(self, now_s: float) -> bool:
        """Take a token of the bucket, if there is one."""
        self.tokens = min(BURST, self.tokens + (now_s - self.counted_s) * REQUESTS_PER_S)
        self.counted_s = now_s
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


class _Door(web.Server):
    """Counts connections that have not proved a seat; the oldest of them makes room."""

    def __init__(self, channel: RoundChannel) -> None:
        super().__init__(
            channel._answer,
            handler_cancellation=True,
            keepalive_timeout=IDLE_S,
            lingering_time=LINGER_S,
            auto_decompress=False,
            access_log=None,
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
            max_headers=HEADERS_MAX,
        )
        self.strangers: dict[web.RequestHandler, None] = {}
        self._channel = channel

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self.strangers[handler] = None
        if len(self.strangers) > STRANGERS_MAX:
            oldest = next(iter(self.strangers))
            del self.strangers[oldest]
            oldest.force_close()

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        self.strangers.pop(handler, None)
        self._channel.forget(handler)
        super().connection_lost(handler, exc)


class RoundChannel:
    """One release's channel, open from `start` to `close`. Use as a context manager."""

    def __init__(
        self,
        terms: ReleaseTerms,
        tls: ssl.SSLContext,
        host: str,
        port: int,
        timeouts_s: Mapping[Action, float],
    ) -> None:
        """`timeouts_s`: how long an exchange of each action waits at most."""
        self.port = port
        """The port that is listened on, once started (0 takes a free one)."""
        self._coordinator = terms.coordinator
        self._signers: dict[tuple[Role, int], str] = {
            **{("member", seat.id): seat.signer for seat in terms.members},
            **{("helper", seat.id): seat.signer for seat in terms.helpers},
        }
        self._tls = tls
        self._host = host
        self._timeouts_s = timeouts_s
        self._ended = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="round channel", daemon=True)
        self._slots: dict[tuple[Role, int], _Slot] = {}
        self._ids = itertools.count(1)
        self._born_ms = 0
        self._skewed: asyncio.Future[None] = self._loop.create_future()
        """Done, and made anew, when a seat's clock is refused."""

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()  # whoever still waits for an exchange is told so
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()

    def start(self) -> None:
        """Listen. Raises Unavailable where the port cannot be had."""
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(START_S)
        except (OSError, TimeoutError) as error:
            self._stop_loop()
            raise Unavailable(
                f"{self._host}:{self.port}",
                f"the round channel cannot listen there ({error})",
                "Free the port or choose another one",
            ) from None

    async def _listen(self) -> None:
        # A request signed before this start may have been accepted by an earlier process.
        self._born_ms = _now_ms()
        self._slots = {key: _Slot(self._born_ms) for key in self._signers}
        self._door = _Door(self)
        self._runner = web.ServerRunner(self._door, shutdown_timeout=FAREWELL_S)
        await self._runner.setup()
        self._listener = await self._loop.create_server(
            self._door,
            self._host,
            self.port,
            ssl=self._tls,
            ssl_handshake_timeout=HANDSHAKE_S,
            backlog=STRANGERS_MAX,
        )
        self.port = self._listener.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Tell every seat that the release is over, and stop listening."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(2 * FAREWELL_S + 1)
            self._stop_loop()

    async def _end(self) -> None:
        self._ended = True
        for slot in self._slots.values():
            slot.wake.set()
        until = self._loop.time() + FAREWELL_S
        while any(slot.connection for slot in self._slots.values()) and self._loop.time() < until:
            await asyncio.sleep(0.02)  # each poll is answered "gone" and its connection closed
        self._listener.close()
        await self._runner.cleanup()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # the release's side

    def exchange(self, action: Action, bodies: Mapping[int, bytes]) -> Mapping[int, bytes]:
        """Ask each seat, wait, and give the bodies of those that replied in time.

        A `server.release.Exchange`; called from any thread but the channel's own. Raises
        ChannelClosed and CoordinatorClock.
        """
        if not self._thread.is_alive():
            raise ChannelClosed(action)
        asked = asyncio.run_coroutine_threadsafe(self._exchange(action, bodies), self._loop)
        try:
            return asked.result()
        except CancelledError:
            raise ChannelClosed(action) from None

    def heard(self, role: Role) -> set[int]:
        """Seats that are there: connected, and not silent since an exchange that they missed."""
        return {
            seat
            for (known, seat), slot in self._slots.items()
            if known == role and slot.connection is not None and not slot.missed
        }

    async def _exchange(self, action: Action, bodies: Mapping[int, bytes]) -> dict[int, bytes]:
        role = role_of(action)
        asked: dict[int, tuple[_Slot, _Task]] = {}
        for seat, body in bodies.items():
            slot = self._slots.get((role, seat))
            if slot is None:
                continue
            task = _Task(f"{self._born_ms:x}-{next(self._ids)}", action, body, asyncio.Future())
            slot.task = task
            slot.wake.set()
            asked[seat] = (slot, task)
        try:
            await self._wait(asked, self._timeouts_s[action])
        finally:
            for seat, (slot, task) in asked.items():
                if slot.task is task:
                    slot.task = None
                    if not self._ended:
                        slot.wake.clear()
                if not task.reply.done():
                    slot.missed = True
                    log.warning("%s %d gave no reply to %s in time", role, seat, action)
        replies = {}
        for seat, (_, task) in asked.items():
            body_of_reply = task.reply.result() if task.reply.done() else None
            if body_of_reply is not None:
                replies[seat] = body_of_reply
        return replies

    async def _wait(self, asked: Mapping[int, tuple[_Slot, _Task]], timeout_s: float) -> None:
        """Until all have replied that were heard of since they last missed an exchange."""
        until = self._loop.time() + timeout_s
        while left_s := max(0.0, until - self._loop.time()):
            self._doubt_own_clock()
            open_ = [(slot, task) for slot, task in asked.values() if not task.reply.done()]
            awaited = [task.reply for slot, task in open_ if not slot.missed]
            if not awaited and len(open_) < len(asked):
                return  # whoever is still open is missing since before
            if not open_:
                return
            waiting: list[asyncio.Future[Any]] = [self._skewed]
            waiting += awaited or [task.reply for _, task in open_]
            await asyncio.wait(waiting, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)

    def _doubt_own_clock(self) -> None:
        """Raise CoordinatorClock where most seats say so."""
        for sign in (1, -1):
            off = [slot.off_ms for slot in self._slots.values() if sign * slot.off_ms > 0]
            if 2 * len(off) > len(self._slots):
                raise CoordinatorClock(len(off), len(self._slots), round(statistics.median(off)))

    # the network's side

    def forget(self, connection: web.RequestHandler) -> None:
        """A connection is gone."""
        for slot in self._slots.values():
            if slot.connection is connection:
                slot.connection = None

    async def _answer(self, http: web.BaseRequest) -> web.StreamResponse:
        if http.method == "GET" and http.rel_url.raw_path_qs == HEALTH:
            return _closed(web.Response(text="ok\n"))
        try:
            slot, request = self._admit(http)
        except NotAuthentic as error:
            log.info("%s (from %s)", error, http.remote)
            return _refused(403, error)
        except (ClockSkew, Replayed) as error:
            log.warning("%s: %s", http.headers.get("Fedtrade-Seat"), type(error).__name__)
            last_ms = error.last_ms if isinstance(error, Replayed) else error.server_ms
            return _refused(409, error, {TIME_HEADER: str(last_ms)})
        if not slot.allow(self._loop.time()):
            return _closed(web.Response(status=429))
        path = http.rel_url.raw_path_qs
        if path == NEXT:
            return await self._next(http, slot)
        return await self._reply(http, slot, request, path)

    def _admit(self, http: web.BaseRequest) -> tuple[_Slot, Request]:
        """The seat that signed this request. Raises NotAuthentic, ClockSkew or Replayed."""
        path = http.rel_url.raw_path_qs
        if http.method != "POST" or not path.startswith((NEXT, REPLY, REFUSE)):
            raise NotAuthentic("there is nothing at its path")
        request = read_request(http.headers, self._coordinator, f"POST {path}", self._signers)
        slot = self._slots[(request.role, request.seat)]
        now_ms = _now_ms()
        try:
            check_fresh(request.time_ms, slot.last_ms, now_ms)
        except ClockSkew:
            # From anybody else than a connected seat this may be a replay of what it once sent.
            if slot.connection in (None, http.protocol):
                slot.missed, slot.off_ms = True, now_ms - request.time_ms
                self._skewed.set_result(None)
                self._skewed = self._loop.create_future()
            raise
        slot.last_ms = request.time_ms
        slot.missed, slot.off_ms = False, 0
        self._door.strangers.pop(http.protocol, None)
        if slot.connection is not http.protocol:
            if slot.connection is not None:
                slot.connection.force_close()
            slot.connection = http.protocol
        return slot, request

    async def _next(self, http: web.BaseRequest, slot: _Slot) -> web.StreamResponse:
        if http.content_length or http.headers.get("Transfer-Encoding"):
            return _closed(web.Response(status=413))
        if slot.task is None and not self._ended:
            try:
                async with asyncio.timeout(POLL_S):
                    await slot.wake.wait()
            except TimeoutError:
                return web.Response(status=204)
        if self._ended:
            slot.connection = None
            return _closed(web.Response(status=410))
        task = slot.task
        if task is None:  # withdrawn in this very moment
            return web.Response(status=204)
        return await _task(http, task)

    async def _reply(
        self, http: web.BaseRequest, slot: _Slot, request: Request, path: str
    ) -> web.StreamResponse:
        refusal = path.startswith(REFUSE)
        task = slot.task
        if task is None or path.removeprefix(REFUSE if refusal else REPLY) != task.id:
            return _closed(web.Response(status=404))  # late: the exchange is over
        limit = ERROR_NAME_BYTES_MAX if refusal else MESSAGE_BYTES_MAX
        if http.content_length is None:
            return _closed(web.Response(status=411))
        if http.content_length > limit:
            return _closed(web.Response(status=413))
        try:
            async with asyncio.timeout(BODY_S):
                body = await _body(http, http.content_length)
        except TimeoutError:
            return _closed(web.Response(status=408))
        if hashlib.sha256(body).digest() != request.body_sha256:
            return _refused(403, NotAuthentic("its body is not the one that was signed"))
        if slot.task is not task or task.reply.done():
            return web.Response(status=404)
        slot.task = None
        slot.wake.clear()
        if refusal:
            name = error_name(body)
            log.warning("%s %d refused %s: %s", request.role, request.seat, task.action, name)
        task.reply.set_result(None if refusal else body)
        return web.Response(status=204)


async def _task(http: web.BaseRequest, task: _Task) -> web.StreamResponse:
    """Hand a task out, piece by piece: a transcript is not encrypted as a whole for every seat."""
    headers = {TASK_HEADER: task.id, ACTION_HEADER: task.action}
    if len(task.body) <= _CHUNK:
        return web.Response(body=task.body, headers=headers)
    response = web.StreamResponse(headers=headers)
    response.content_length = len(task.body)
    await response.prepare(http)
    view = memoryview(task.body)
    for at in range(0, len(view), _CHUNK):
        await response.write(view[at : at + _CHUNK])
    return response


async def _body(http: web.BaseRequest, length: int) -> bytes:
    """Exactly the announced number of bytes; the parser gives no more."""
    body = bytearray()
    async for chunk in http.content.iter_chunked(_CHUNK):
        body += chunk
        if len(body) > length:
            raise web.HTTPRequestEntityTooLarge(length, len(body))
    return bytes(body)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _closed(response: web.Response) -> web.Response:
    response.force_close()
    return response


def _refused(
    status: int, error: Exception, headers: Mapping[str, str] | None = None
) -> web.Response:
    named = {REFUSED_HEADER: type(error).__name__, **(headers or {})}
    return _closed(web.Response(status=status, headers=named))
