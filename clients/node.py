"""A websocket to one node: JSON-RPC calls and the heads it announces, nothing more.

One reader task routes what arrives: answers to whoever asked, heads into a queue. The queue is
bounded; a reader that cannot keep up closes the connection, because a gap is found and healed after
a reconnect, while a silently dropped head is not. Every wait has a limit.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from typing import Any, Final, Protocol, Self

import aiohttp
import msgspec

from fedtrade.chain.rpc import NodeLost, NodeRefused, result_of
from fedtrade.errors import Unavailable

CALL_LIMIT_S: Final = 20.0
CONNECT_LIMIT_S: Final = 10.0
MESSAGE_MAX_BYTES: Final = 64 * 2**20
HEADS_MAX: Final = 4096

__all__ = ["Line", "Node", "NodeLost", "NodeRefused", "NodeUnreachable", "Rpc"]


class NodeUnreachable(Unavailable):
    """Nothing answers at the node's address."""

    def __init__(self, url: str, problem: str) -> None:
        super().__init__(
            f"node {url}",
            f"cannot connect ({problem})",
            "Start it, or correct ws_url in the deployment file.",
        )


class Rpc(Protocol):
    """Whoever answers JSON-RPC calls: a node, or a test's stand-in for one."""

    async def call(self, method: str, *params: object) -> Any: ...


class Line(Rpc, Protocol):
    """What an agent has to its chain: one node, or several that must agree (`nodes.py`)."""

    @property
    def url(self) -> str: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def follow_heads(self) -> None: ...

    async def next_head(self, limit_s: float | None = None) -> Mapping[str, Any] | None: ...


class Node:
    """One open connection. Use as an async context manager."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._heads: asyncio.Queue[Mapping[str, Any] | None] = asyncio.Queue(HEADS_MAX)
        self._subscription: str | None = None
        self._lost: NodeLost | None = None
        self._session: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession()
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                self._socket = await self._session.ws_connect(
                    self.url, max_msg_size=MESSAGE_MAX_BYTES
                )
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            await self._session.close()
            raise NodeUnreachable(self.url, type(error).__name__) from error
        self._reader = asyncio.create_task(self._read(self._socket))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        if self._socket is not None:
            await self._socket.close()
        if self._session is not None:
            await self._session.close()

    async def call(self, method: str, *params: object) -> Any:
        """Ask the node; raises NodeRefused for its error, NodeLost where no answer comes."""
        if self._lost is not None:
            raise self._lost
        assert self._socket is not None, "used outside of its context"
        number = next(self._ids)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        try:
            async with asyncio.timeout(CALL_LIMIT_S):
                await self._socket.send_bytes(msgspec.json.encode(request), compress=None)
                reply = await answer
        except TimeoutError:
            raise NodeLost(self.url, f"no answer to {method} in {CALL_LIMIT_S:.0f} s") from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise NodeLost(self.url, type(error).__name__) from error
        finally:
            self._waiting.pop(number, None)
        return result_of(method, reply)

    async def follow_heads(self) -> None:
        """Ask for new heads; they then come out of `next_head`."""
        self._subscription = str(await self.call("eth_subscribe", "newHeads"))

    async def next_head(self, limit_s: float | None = None) -> Mapping[str, Any] | None:
        """The next announced head, or None if none came within `limit_s`."""
        try:
            async with asyncio.timeout(limit_s):
                head = await self._heads.get()
        except TimeoutError:
            return None
        if head is None:
            raise self._lost or NodeLost(self.url, "closed")
        return head

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        problem = "closed"
        try:
            async for message in socket:
                if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                    break
                self._route(msgspec.json.decode(message.data))
        except (ValueError, TypeError, AttributeError, RecursionError):  # whatever the node sends
            problem = "not JSON-RPC"
        except asyncio.QueueFull:
            problem = f"more than {HEADS_MAX} heads behind"
        except (aiohttp.ClientError, ConnectionError) as error:
            problem = type(error).__name__
        self._lost = NodeLost(self.url, problem)
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(self._lost)
        if self._heads.full():
            self._heads.get_nowait()
        self._heads.put_nowait(None)

    def _route(self, message: Any) -> None:
        if not isinstance(message, dict):
            return
        if message.get("method") == "eth_subscription":
            params = message.get("params")
            if not isinstance(params, dict) or not isinstance(params.get("result", {}), dict):
                raise TypeError("a head that is none")
            self._heads.put_nowait(params.get("result") or {})
            return
        answer = self._waiting.get(message.get("id") or 0)
        if answer is not None and not answer.done():
            answer.set_result(message)
