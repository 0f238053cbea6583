"""A member's end of the round channel (`fedtrade.channel`): poll for work, do it, reply.

One loop a role. Everything that a task asks happens in one worker thread, one thing at a time, so a
desk need not think of threads. What goes back is the reply, or the *name* of an error: a text could
quote what it should not.

A lost connection is waited out: each wait is at most BACKOFF_MAX_S, each outage is logged once, and
the loop goes on until it is told to stop or the coordinator says that the release is over. The
reply to the last task is kept, so a task that is handed out again is never done twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import logging
import signal
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

import aiohttp

from clients.settings import MemberSettings
from fedtrade.channel import (
    ACTION_HEADER,
    EMPTY_SHA256,
    ERROR_NAME_BYTES_MAX,
    NEXT,
    POLL_S,
    REFUSE,
    REFUSED_HEADER,
    REPLY,
    TASK_HEADER,
    TIME_HEADER,
    ClockSkew,
    Request,
    Role,
    task_bytes_max,
)
from fedtrade.errors import BadInput, FedtradeError, Refusal
from fedtrade.protocol import (
    HELPER_ACTIONS,
    MEMBER_ACTIONS,
    Action,
    Sign,
)

log = logging.getLogger("fedtrade.member")

BACKOFF_MIN_S: Final = 0.1
BACKOFF_MAX_S: Final = 5.0
CONNECT_S: Final = 10.0
TRANSFER_S: Final = 600.0
"""Longest for a body, either way, beyond the time that a poll is held."""
GOODBYE_S: Final = 0.1
"""For TLS connections to be closed by both sides before the event loop ends (aiohttp's advice)."""
ACTIONS: Final[Mapping[Role, tuple[Action, ...]]] = {
    "member": MEMBER_ACTIONS,
    "helper": HELPER_ACTIONS,
}


T = TypeVar("T")


class TurnedAway(Refusal):
    """The coordinator does not know this seat or its signature."""

    def __init__(self, role: Role, seat: int, problem: str) -> None:
        super().__init__(
            f"the coordinator turns {role} {seat} away ({problem}). Compare seats, keys and the "
            "coordinator's address in member.toml with what the release was opened with"
        )
        self.role = role
        self.seat = seat
        self.problem = problem


class NotForUs(Refusal):
    """A task for another role, or one that this version does not know."""

    def __init__(self, role: Role, action: str) -> None:
        super().__init__(
            f"a {role} is not asked for {action!r}. Update this side, or look at the coordinator"
        )
        self.role = role
        self.action = action


class Desk(Protocol):
    """What sits at this machine (`clients.desk.Desk`), as far as the channel knows it."""

    @property
    def roles(self) -> Mapping[Role, int]: ...

    def act(self, action: Action, body: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class _Lost:
    """The connection, or the service behind it, is not there."""

    why: str


@dataclass(frozen=True, slots=True)
class _Given:
    """What the service answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def serve(
    desk: Desk,
    settings: MemberSettings,
    sign: Sign,
    stop: asyncio.Event,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
) -> None:
    """Work for every role of the desk until `stop` is set or the release is over.

    `sign` is the seats' signing key. A task that is being done when `stop` is set is finished and
    replied to. Raises ClockSkew, TurnedAway, and BadInput for an unusable authority.
    """
    tls = client_tls(settings.coordinator.ca_file)
    timeout = aiohttp.ClientTimeout(
        total=POLL_S + TRANSFER_S, connect=CONNECT_S, sock_read=POLL_S + CONNECT_S
    )
    with ThreadPoolExecutor(1, thread_name_prefix="desk") as worker:
        try:
            async with aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=tls, limit=len(desk.roles)),
                timeout=timeout,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            ) as http:
                loops = [
                    asyncio.create_task(
                        _Loop(desk, settings, sign, stop, now_ms, http, worker, role, seat).run()
                    )
                    for role, seat in desk.roles.items()
                ]
                try:
                    await asyncio.gather(*loops)
                finally:
                    for loop in loops:
                        loop.cancel()
        finally:
            await asyncio.sleep(GOODBYE_S)


class _Loop:
    """One role's conversation with the coordinator."""

    def __init__(
        self,
        desk: Desk,
        settings: MemberSettings,
        sign: Sign,
        stop: asyncio.Event,
        now_ms: Callable[[], int],
        http: aiohttp.ClientSession,
        worker: ThreadPoolExecutor,
        role: Role,
        seat: int,
    ) -> None:
        self._desk = desk
        self._url = settings.coordinator.url
        self._coordinator = settings.coordinator.address
        self._sign = sign
        self._stop = stop
        self._now_ms = now_ms
        self._http = http
        self._worker = worker
        self._role = role
        self._seat = seat
        self._last_ms = 0
        self._backoff_s = BACKOFF_MIN_S
        self._done: tuple[str, str, bytes] | None = None
        """The last task, where its reply goes and what it is."""

    async def run(self) -> None:
        while not self._stop.is_set():
            given = await self._until_stop(self._post(NEXT, b"", EMPTY_SHA256))
            if given is None:
                return
            if isinstance(given, _Lost):
                await self._wait(given.why)
            elif given.status == 410:
                log.info("the release is over for %s %d", self._role, self._seat)
                return
            elif given.status == 200:
                self._found()
                path, body = await self._do(given)
                await self._reply(path, body)
            else:
                self._found()

    async def _do(self, task: _Given) -> tuple[str, bytes]:
        """Do a task, once: the path and the body of its reply."""
        name = task.headers.get(TASK_HEADER, "")
        if self._done is not None and self._done[0] == name:
            return self._done[1:]
        asked = task.headers.get(ACTION_HEADER, "")[:32]
        path, body = REPLY + name, b""
        try:
            action = next((known for known in ACTIONS[self._role] if known == asked), None)
            if action is None:
                raise NotForUs(self._role, asked)
            body = await asyncio.get_running_loop().run_in_executor(
                self._worker, self._desk.act, action, task.body
            )
        except FedtradeError as error:
            log.warning("%s %d, %s: %s", self._role, self._seat, asked, error)
            path, body = REFUSE + name, type(error).__name__.encode()[:ERROR_NAME_BYTES_MAX]
        except Exception:  # whatever it is, its text stays here
            log.exception("%s %d, %s: failed", self._role, self._seat, asked)
            path, body = REFUSE + name, b"Fault"
        self._done = (name, path, body)
        return path, body

    async def _reply(self, path: str, body: bytes) -> None:
        """Deliver a reply; the next poll brings the task again if it did not arrive."""
        given = await self._post(path, body, hashlib.sha256(body).digest())
        if isinstance(given, _Lost):
            await self._wait(given.why)
        elif given.status == 404:
            log.warning("%s %d: a reply came too late and was dropped", self._role, self._seat)

    async def _post(self, path: str, body: bytes, body_sha256: bytes) -> _Given | _Lost:
        """One signed request. Raises ClockSkew or TurnedAway; everything else can be waited out."""
        self._last_ms = max(self._now_ms(), self._last_ms + 1)
        request = Request(
            self._coordinator, self._role, self._seat, f"POST {path}", body_sha256, self._last_ms
        )
        try:
            async with self._http.post(
                self._url + path,
                data=io.BytesIO(body) if body else None,
                headers=request.headers(self._sign),
                allow_redirects=False,
            ) as response:
                given = _Given(response.status, response.headers, await _bounded(response))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return _Lost(f"{type(error).__name__}: {error}")
        if given.status == 409:
            return self._behind(given)
        if given.status == 403:
            raise TurnedAway(self._role, self._seat, given.headers.get(REFUSED_HEADER, "403")[:64])
        if given.status == 429 or given.status >= 500:
            return _Lost(f"the coordinator answers {given.status}")
        return given

    def _behind(self, given: _Given) -> _Lost:
        """Our time was not later than the last one, or is far off the coordinator's."""
        told = given.headers.get(TIME_HEADER, "")
        server_ms = int(told) if told.isascii() and told.isdigit() and len(told) < 16 else 0
        if given.headers.get(REFUSED_HEADER) == ClockSkew.__name__:
            raise ClockSkew(self._last_ms, server_ms)
        self._last_ms = max(self._last_ms, server_ms)  # this clock was set back a little
        return _Lost("the coordinator has seen a later time of this seat")

    def _found(self) -> None:
        if self._backoff_s > BACKOFF_MIN_S:
            log.info("%s %d is connected again", self._role, self._seat)
        self._backoff_s = BACKOFF_MIN_S

    async def _wait(self, why: str) -> None:
        if self._backoff_s == BACKOFF_MIN_S:
            log.warning("%s %d has no connection (%s); trying on", self._role, self._seat, why)
        await self._until_stop(asyncio.sleep(self._backoff_s, result=True))
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_MAX_S)

    async def _until_stop(self, doing: Coroutine[object, object, T]) -> T | None:
        """What it gives, or None once we are told to stop."""
        task = asyncio.ensure_future(doing)
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            for each in (task, stopped):
                each.cancel()


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    """The body, if it is no larger than what is asked may be."""
    limit = task_bytes_max(response.headers.get(ACTION_HEADER, ""))
    body = bytearray()
    async for chunk in response.content.iter_chunked(65_536):
        body += chunk
        if len(body) > limit:
            raise aiohttp.ClientPayloadError(f"over {limit} bytes")
    return bytes(body)


def client_tls(ca_file: Path) -> ssl.SSLContext:
    """TLS 1.3 that believes this one authority. Raises BadInput."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(ca_file)
    except (OSError, ssl.SSLError) as error:
        raise BadInput(
            str(ca_file), f"no authority can be read ({error})", "Ask the coordinator for its CA."
        ) from None
    return context


def run(desk: Desk, settings: MemberSettings, sign: Sign) -> None:
    """`serve` as a process of its own: until SIGTERM, Ctrl-C, or the end of the release."""

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():  # only there may it be done
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stop.set)
        await serve(desk, settings, sign, stop)

    asyncio.run(main())
