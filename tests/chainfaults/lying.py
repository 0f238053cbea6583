"""A node that lies: a proxy before an honest one, over HTTP and websocket, with one lie at a time.

`Proxy.lie` may be set at any moment, from any thread; the next message is told that way. The twelve
lies are those of `LIES`; "corrupt" is a thirteenth, for values alone. The proxy has a thread and a loop
of its own, so that what is tested may be synchronous or not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, Self, TypeVar

import aiohttp
from aiohttp import WSMsgType, web

LIES: Final = (
    "stale head", "wrong chain", "fake receipt", "null", "nonce", "huge gas", "slow", "reset",
    "truncated", "duplicate", "reorder", "429",
)  # fmt: skip
SLOW_S: Final = 30.0
HELD_S: Final = 0.05
OTHER_CHAIN: Final = "0xdead"
WORD: Final = "0x" + "ab" * 32

T = TypeVar("T")
Json = Any


class Reset(Exception):
    """The connection is to be broken off now."""


class Proxy:
    """One proxy. Use as a context manager."""

    def __init__(self, upstream: str, seed: int = 0) -> None:
        self.lie: str | None = None
        self.told = 0
        """How often it has lied."""
        self._upstream = upstream
        self._dice = random.Random(seed)
        self._frozen: str | None = None  # number of the head that is told for ever
        self._newest: dict[str, str] = {"number": "0x1", "hash": WORD}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._serve())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def _run(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(30)

    async def _serve(self) -> None:
        self._session = aiohttp.ClientSession()
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/", self._http)
        app.router.add_get("/", self._websocket)
        self._runner = web.AppRunner(app, shutdown_timeout=0.05)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = int(self._runner.addresses[0][1])

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._runner.cleanup()
        await self._session.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for one in others:  # answers that are still held back
            one.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    # what is asked and told

    def _ask(self, request: Json) -> Json:
        """The question that the honest node is asked instead."""
        if self.lie == "fake receipt" and request["method"] == "eth_sendRawTransaction":
            return {**request, "method": "eth_chainId", "params": []}  # it keeps it to itself
        if self.lie != "stale head":
            self._frozen = None
            return request
        self._frozen = self._frozen or self._newest["number"]
        method, params = request["method"], list(request.get("params") or [])
        place = {"eth_call": 1, "eth_getBalance": 1, "eth_getTransactionCount": 1}.get(method)
        if method == "eth_getBlockByNumber" and params[0] == "latest":
            place = 0
        if place is not None:
            self.told += 1
            params[place : place + 1] = [self._frozen]
        return {**request, "params": params}

    def _tell(self, method: str, reply: Json) -> Json:
        """What is told instead of the honest answer."""
        result, lie = reply.get("result"), self.lie
        if lie is None or method == "eth_subscribe":
            return reply
        if lie == "429":
            self.told += 1
            error = {"code": -32005, "message": "limit exceeded"}
            return {"jsonrpc": "2.0", "id": reply.get("id"), "error": error}
        told = self._result(method, result, lie)
        if told is not result:
            self.told += 1
            return {"jsonrpc": "2.0", "id": reply.get("id"), "result": told}
        return reply

    def _result(self, method: str, result: Json, lie: str) -> Json:
        if lie == "null":
            return None
        if lie == "fake receipt" and method == "eth_sendRawTransaction":
            return WORD
        if lie == "wrong chain" and method == "eth_chainId":
            return OTHER_CHAIN
        if lie == "stale head" and method == "eth_blockNumber":
            return self._frozen
        if lie == "fake receipt" and method == "eth_getTransactionReceipt":
            return self._receipt(result)
        if lie == "nonce" and method == "eth_getTransactionCount" and result:
            step = self._dice.choice((-1, 1, 3))
            return hex(max(0, int(result, 16) + step))
        if lie == "huge gas":
            if method == "eth_estimateGas":
                return hex(self._dice.choice((7_000_000, 2**40)))
            if isinstance(result, dict) and "baseFeePerGas" in result:
                return {**result, "baseFeePerGas": hex(40 * int(result["baseFeePerGas"], 16))}
        if lie == "duplicate" and isinstance(result, list):
            return result + result
        if lie == "corrupt":
            return self._corrupt(method, result)
        return result

    def _receipt(self, result: Json) -> Json:
        if result is not None:
            return {**result, "status": "0x0" if result["status"] == "0x1" else "0x1"}
        return {
            "transactionHash": WORD, "blockNumber": self._newest["number"],
            "blockHash": self._newest["hash"], "status": "0x1", "gasUsed": "0x5208",
            "effectiveGasPrice": "0x1", "contractAddress": None, "logs": [],
        }  # fmt: skip

    def _corrupt(self, method: str, result: Json) -> Json:
        """Values that are nearly right."""
        if method in ("eth_getBalance", "eth_call") and isinstance(result, str) and len(result) > 2:
            return result[:-1] + ("1" if result[-1] == "0" else "0")
        if method == "eth_getLogs" and result:
            first = dict(result[0])
            first["data"] = first["data"][:-1] + ("1" if first["data"][-1:] == "0" else "0")
            return [first, *result[1:]]
        if isinstance(result, dict) and "timestamp" in result:
            return {**result, "timestamp": hex(int(result["timestamp"], 16) + 600)}
        return result

    def _note(self, block: Json) -> None:
        if isinstance(block, dict) and "parentHash" in block:
            self._newest = {"number": block["number"], "hash": block["hash"]}

    # over HTTP

    async def _http(self, request: web.Request) -> web.StreamResponse:
        asked = json.loads(await request.read())
        many = isinstance(asked, list)
        methods = {one["id"]: one["method"] for one in (asked if many else [asked])}
        questions = [self._ask(one) for one in (asked if many else [asked])]
        async with self._session.post(self._upstream, json=questions) as response:
            honest = {reply["id"]: reply for reply in await response.json(content_type=None)}
        replies = []
        for question in questions:
            reply, method = honest[question["id"]], methods[question["id"]]
            if method == "eth_getBlockByNumber" and self._frozen is None:
                self._note(reply.get("result"))
            replies.append(self._tell(method, reply))
        lie = self.lie
        if lie == "duplicate":
            replies += replies
        if lie == "reorder" and len(replies) > 1:
            numbers = [reply["id"] for reply in replies]
            replies = [{**r, "id": n} for r, n in zip(reversed(replies), numbers, strict=True)]
        body = json.dumps(replies if many else replies[0]).encode()
        if lie in ("slow", "reset", "truncated", "reorder", "duplicate"):
            self.told += 1
        if lie == "slow":
            await asyncio.sleep(SLOW_S)
        if lie == "reset":
            _abort(request)
        if lie == "truncated":
            half = web.StreamResponse(headers={"Content-Length": str(len(body))})
            await half.prepare(request)
            await half.write(body[: len(body) // 2])
            _abort(request)
            return half
        return web.Response(
            body=body, status=429 if lie == "429" else 200, content_type="application/json"
        )

    # over a websocket

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        near = web.WebSocketResponse(max_msg_size=2**26)
        await near.prepare(request)
        asked: dict[int, str] = {}
        address = self._upstream.replace("http", "ws", 1)
        try:
            async with self._session.ws_connect(address, max_msg_size=2**26) as far:
                back = asyncio.create_task(self._back(request, near, far, asked))
                self._tasks.add(back)
                back.add_done_callback(self._tasks.discard)
                async for message in near:
                    if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                        break
                    question = json.loads(message.data)
                    asked[question["id"]] = question["method"]
                    await far.send_str(json.dumps(self._ask(question)))
                back.cancel()
                await asyncio.gather(back, return_exceptions=True)
        except (aiohttp.ClientError, OSError):
            return near
        return near

    async def _back(
        self,
        request: web.Request,
        near: web.WebSocketResponse,
        far: aiohttp.ClientWebSocketResponse,
        asked: dict[int, str],
    ) -> None:
        held: list[Json] = []
        with contextlib.suppress(ConnectionError, Reset):
            async for message in far:
                if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                    break
                said = json.loads(message.data)
                if "method" in said:
                    told = self._announce(said)
                else:
                    method = asked.pop(said["id"], "")
                    if method == "eth_getBlockByNumber" and self._frozen is None:
                        self._note(said.get("result"))
                    told = self._tell(method, said)
                if told is not None:
                    await self._out(request, near, told, held)
        await near.close()

    def _announce(self, said: Json) -> Json | None:
        """A head as it is told; None where it is kept back."""
        head = said["params"]["result"]
        if self.lie == "stale head":
            self._frozen = self._frozen or self._newest["number"]
            self.told += 1
            return None
        self._note(head)
        if self.lie in ("null", "429"):
            return None
        told = self._result("eth_subscription", head, self.lie or "")
        return {**said, "params": {**said["params"], "result": told}}

    async def _out(
        self, request: web.Request, near: web.WebSocketResponse, told: Json, held: list[Json]
    ) -> None:
        lie, text = self.lie, json.dumps(told)
        if lie in ("slow", "reset", "truncated", "reorder", "duplicate"):
            self.told += 1
        if lie == "slow":
            task = asyncio.create_task(_later(SLOW_S, near, lambda: text))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif lie == "reset":
            _abort(request)
            raise Reset
        elif lie == "truncated":
            await near.send_str(text[: len(text) // 2])
        elif lie == "duplicate":
            await near.send_str(text)
            await near.send_str(text)
        elif lie == "reorder":
            held.append(told)
            if len(held) == 2:  # each under the other's name
                first, second = held
                held.clear()
                for one in _swapped(second, first):
                    await near.send_str(json.dumps(one))
        else:
            for one in held:
                await near.send_str(json.dumps(one))
            held.clear()
            await near.send_str(text)


def _swapped(one: Json, other: Json) -> tuple[Json, Json]:
    if "id" in one and "id" in other:
        return {**one, "id": other["id"]}, {**other, "id": one["id"]}
    return one, other


async def _later(after_s: float, near: web.WebSocketResponse, text: Callable[[], str]) -> None:
    await asyncio.sleep(after_s)
    with contextlib.suppress(ConnectionError, RuntimeError):
        await near.send_str(text())


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
