"""The gate: all of the SuperLink that anyone outside ever reaches.

A Flower SuperLink serves three interfaces on one port: the fleet's, which asks a node for its key,
and two that ask nobody for anything (starting runs, handing out tasks). So it listens on loopback and
this proxy stands before it. Nothing passes but a POST to one of ten exact paths, from a node whose
key is registered:

* TLS 1.3; a handshake, a request's head, its body and the whole exchange each have a time limit;
* the node's signature over its timestamp is checked from the *headers*, so an unregistered sender
  has no byte of a body read, and its path is compared as it was sent, before any decoding;
* a body states its length, at most 16 MiB, and is read whole before the SuperLink is called (a slow
  sender holds no connection of it); all bodies together have a limit too;
* connections are counted before the handshake, in all and by source; requests are counted by key,
  refusals by source;
* what goes on is a new request with the few headers that Flower's fleet needs, each of them once.

The signature is Flower's own (`flwr-signature`: ECDSA with SHA-256 over the text `flwr-timestamp`);
the SuperLink checks it again.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)

from fedtrade.errors import BadInput, Unavailable
from server.admission import (
    KEY_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    Buckets,
    Refused,
    check_node,
)

log = logging.getLogger("fedtrade.gate")

PATHS: Final = frozenset(
    f"/v1/fleet/{name}"
    for name in (
        "activate-node",
        "deactivate-node",
        "send-node-heartbeat",
        "pull-messages",
        "push-messages",
        "get-run",
        "get-fab",
        "push-object",
        "pull-object",
        "confirm-message-received",
    )
)
"""What a registered node needs (Flower 1.41). It never registers itself: an operator does."""

REQUEST_HEADERS: Final = (
    "content-type",
    "accept",
    KEY_HEADER,
    TIMESTAMP_HEADER,
    SIGNATURE_HEADER,
    "flwr-package-name",
    "flwr-package-version",
    "flwr-component-name",
)
RESPONSE_HEADERS: Final = ("content-type", "flwr-version-incompatibility-message")
CHUNK_BYTES: Final = 65_536
SOURCES_KEPT_MAX: Final = 4096
ACCEPT_PAUSE_S: Final = 0.1
START_S: Final = 10.0
STOP_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Every limit of a gate. Times in seconds, rates per second."""

    body_bytes_max: int = 16 * 2**20
    bodies_bytes_max: int = 128 * 2**20
    """All bodies that are held at one time."""
    connections_max: int = 512
    connections_per_source_max: int = 64
    requests_at_once_max: int = 64
    handshake_s: float = 10.0
    head_s: float = 15.0
    """From the handshake, or the last answer, to a whole request head; idle connections too."""
    body_s: float = 60.0
    exchange_s: float = 180.0
    upstream_connect_s: float = 2.0
    requests_per_key_s: float = 50.0
    requests_per_key_burst: float = 500.0
    refusals_per_source_s: float = 5.0
    refusals_per_source_burst: float = 50.0


class _Connection(asyncio.Protocol):
    """One connection: aiohttp's protocol inside, with a limit on how long it may send no request."""

    def __init__(self, inner: web.RequestHandler, head_s: float) -> None:
        self._inner = inner
        self._head_s = head_s
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._inner.connection_made(transport)
        self.await_head()

    def await_head(self) -> None:
        """From here a whole request head must come within the limit."""
        if self._transport is not None and not self.closed.is_set():
            self._timer = asyncio.get_running_loop().call_later(self._head_s, self._transport.abort)

    def head_came(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def connection_lost(self, error: Exception | None) -> None:
        self.head_came()
        self.closed.set()
        self._inner.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> None:
        self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()


class Gate:
    """The proxy. `await open(…)`, then `await close()`, in one event loop."""

    def __init__(
        self,
        upstream: str,
        upstream_tls: ssl.SSLContext,
        registered: Callable[[bytes], bool],
        limits: Limits | None = None,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        """`upstream` is the SuperLink's `https://host:port`; `registered` knows nodes' keys (PEM)."""
        parts = urlsplit(upstream)
        if parts.scheme != "https" or not parts.hostname or parts.path not in ("", "/"):
            raise BadInput("upstream", f"{upstream!r} is no https address", "https://host:port")
        self._upstream = upstream.rstrip("/")
        self._upstream_tls = upstream_tls
        self._registered = registered
        self._limits = limits or Limits()
        self._now = now or (lambda: datetime.now(UTC))
        limit = self._limits
        self._keys = Buckets(limit.requests_per_key_s, limit.requests_per_key_burst, 4096)
        self._refusals = Buckets(
            limit.refusals_per_source_s, limit.refusals_per_source_burst, SOURCES_KEPT_MAX
        )
        self._sources: Counter[str] = Counter()
        self._connections: dict[web.RequestHandler, _Connection] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._at_once = 0
        self._held_bytes = 0

    async def open(self, host: str, port: int, tls: ssl.SSLContext) -> int:
        """Listen; the port (a free one where `port` is 0). Raises Unavailable."""
        limit = self._limits
        try:
            self._socket = socket.create_server((host, port), backlog=128)
        except OSError as error:
            raise Unavailable(
                f"{host}:{port}", f"cannot listen ({error.strerror})", "Choose another port"
            ) from None
        self._socket.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._tls = tls
        self._session = aiohttp.ClientSession(
            # uvicorn closes an idle connection after 5 s; let go of ours before
            connector=aiohttp.TCPConnector(
                ssl=self._upstream_tls, limit=limit.requests_at_once_max, keepalive_timeout=2.0
            ),
            timeout=aiohttp.ClientTimeout(
                total=limit.exchange_s, sock_connect=limit.upstream_connect_s
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("user-agent", "accept-encoding"),
        )
        self._server = web.Server(
            self._handle, access_log=None, lingering_time=1.0, keepalive_timeout=limit.head_s
        )
        self._listen()
        return int(self._socket.getsockname()[1])

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._server.pre_shutdown()
        await self._server.shutdown(1.0)
        await asyncio.sleep(0)  # whoever was just taken begins, and so closes its socket at its end
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()

    def _accept(self) -> None:
        """Take one connection; count it before any handshake."""
        try:
            client, address = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # it is gone already
        except OSError as error:  # out of descriptors: let some connections end first
            log.warning("a connection was not taken: %s", error)
            self._loop.remove_reader(self._socket)
            self._pause = self._loop.call_later(ACCEPT_PAUSE_S, self._listen)
            return
        source = str(address[0])
        if (
            len(self._tasks) >= self._limits.connections_max
            or self._sources[source] >= self._limits.connections_per_source_max
        ):
            client.close()
            return
        client.setblocking(False)
        task = self._loop.create_task(self._serve(client, source))
        self._tasks.add(task)
        self._sources[source] += 1
        task.add_done_callback(partial(self._left, source))

    def _listen(self) -> None:
        self._loop.add_reader(self._socket, self._accept)

    def _left(self, source: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._sources[source] -= 1
        if self._sources[source] <= 0:
            del self._sources[source]

    async def _serve(self, client: socket.socket, source: str) -> None:
        """One connection from its handshake to its end."""
        inner = self._server()
        connection = _Connection(inner, self._limits.head_s)
        self._connections[inner] = connection
        try:
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                client,
                ssl=self._tls,
                ssl_handshake_timeout=self._limits.handshake_s,
                ssl_shutdown_timeout=2.0,
            )
            try:
                await connection.closed.wait()
            finally:
                transport.abort()
        except OSError as error:  # ssl.SSLError and TimeoutError are ones
            log.info("no handshake with %s: %s", source, type(error).__name__)
            client.close()
        finally:
            with suppress(OSError):  # it is closed; where not, a handshake would hold it open
                client.shutdown(socket.SHUT_RDWR)
            del self._connections[inner]

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Judge a request by its head, then read it, then pass it on."""
        connection = self._connections[request.protocol]
        connection.head_came()
        source = request.remote or ""
        try:
            headers, length = self._judge(request)
            return await self._pass_on(request, headers, length)
        except Refused as refused:
            return self._refuse(request, source, refused)
        finally:
            connection.await_head()

    def _refuse(
        self, request: web.BaseRequest, source: str, refused: Refused
    ) -> web.StreamResponse:
        """Answer with a status and a reason; a source that is refused too often gets no reason."""
        if not self._refusals.take(source, time.monotonic()):
            refused = Refused(429, "too many refused requests")
        else:
            log.warning("%s: %s %.80r: %s", source, request.method, request.path, refused.reason)
        response = web.Response(status=refused.status, text=refused.reason)
        if request.can_read_body:  # the rest of it is not waited for
            response.force_close()
        return response

    def _judge(self, request: web.BaseRequest) -> tuple[dict[str, str], int]:
        """The headers to pass on and the body's length. Raises Refused; reads no body."""
        if request.method != "POST" or request.raw_path not in PATHS:
            raise Refused(404, "nothing is here")
        headers: dict[str, str] = {}
        for name in REQUEST_HEADERS:
            values = request.headers.getall(name, [])
            if len(values) > 1:
                raise Refused(400, f"{name} is there twice")
            if values:
                headers[name] = values[0]
        key = check_node(headers, self._registered, self._now())
        if not self._keys.take(key.decode("ascii", "replace"), time.monotonic()):
            raise Refused(503, "too many requests of this node")
        if "content-encoding" in request.headers or "upgrade" in request.headers:
            raise Refused(400, "send the body as it is")
        length = request.content_length
        if length is None:
            raise Refused(411, "state the length of the body")
        if length > self._limits.body_bytes_max:
            raise Refused(413, f"a body has at most {self._limits.body_bytes_max} bytes")
        if self._at_once >= self._limits.requests_at_once_max or (
            self._held_bytes + length > self._limits.bodies_bytes_max
        ):
            raise Refused(503, "the gate is busy")
        return headers, length

    async def _pass_on(
        self, request: web.BaseRequest, headers: dict[str, str], length: int
    ) -> web.StreamResponse:
        self._at_once += 1
        self._held_bytes += length
        try:
            body = await self._read(request, length)
            return await self._exchange(request, headers, body)
        finally:
            self._at_once -= 1
            self._held_bytes -= length

    async def _read(self, request: web.BaseRequest, length: int) -> bytes:
        """The whole body, of exactly the length that was stated. Raises Refused."""
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_s):
                while chunk := await request.content.read(CHUNK_BYTES):
                    body += chunk
                    if len(body) > length:
                        raise Refused(400, "the body is longer than was stated")
        except TimeoutError:
            raise Refused(408, "the body came too slowly") from None
        except (web.RequestPayloadError, aiohttp.ClientError, ConnectionError):
            raise Refused(400, "the body broke off") from None
        if len(body) != length:
            raise Refused(400, "the body is shorter than was stated")
        return bytes(body)

    async def _exchange(
        self, request: web.BaseRequest, headers: dict[str, str], body: bytes
    ) -> web.StreamResponse:
        """One request to the SuperLink; its answer goes back as it comes. Raises Refused."""
        response: web.StreamResponse | None = None
        try:
            async with (
                asyncio.timeout(self._limits.exchange_s),
                self._session.post(
                    self._upstream + request.raw_path,
                    data=body,
                    headers=headers,
                    allow_redirects=False,
                ) as answer,
            ):
                response = web.StreamResponse(
                    status=answer.status,
                    headers={n: answer.headers[n] for n in RESPONSE_HEADERS if n in answer.headers},
                )
                response.content_length = answer.content_length
                await response.prepare(request)
                async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
                    await response.write(chunk)
                await response.write_eof()
                return response
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            late = isinstance(error, TimeoutError)
            log.error("an exchange with the SuperLink broke off: %s", type(error).__name__)
            if response is not None and response.prepared:
                # its head has left: only an abort tells the node that the rest is missing
                if request.transport is not None:
                    request.transport.abort()
                return response
            if late:
                raise Refused(504, "the SuperLink did not answer in time") from None
            raise Refused(502, "the SuperLink is not there") from None


def read_node_keys(paths: Iterable[Path]) -> frozenset[bytes]:
    """Nodes' public keys (OpenSSH files) as the gate compares them. Raises BadInput."""
    keys = set()
    for path in paths:
        try:
            key = load_ssh_public_key(path.read_bytes())
        except OSError as error:
            raise BadInput(
                str(path), f"cannot be read ({error.strerror})", "Check the path"
            ) from None
        except (ValueError, UnsupportedAlgorithm, NotImplementedError):  # the last: a packed point
            raise BadInput(
                str(path), "this is no public key", "Ask the member for its node key's .pub file"
            ) from None
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise BadInput(str(path), "not an elliptic-curve key", "Node keys are P-384")
        keys.add(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return frozenset(keys)


@contextmanager
def serving(gate: Gate, host: str, port: int, tls: ssl.SSLContext) -> Iterator[int]:
    """Run a gate in a thread with an event loop of its own; gives its port. Raises Unavailable."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="gate", daemon=True)
    thread.start()
    try:
        found = asyncio.run_coroutine_threadsafe(gate.open(host, port, tls), loop).result(START_S)
        try:
            yield found
        finally:
            asyncio.run_coroutine_threadsafe(gate.close(), loop).result(STOP_S)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(STOP_S)
        loop.close()
