"""The websocket: answers find who asked, limits hold, a broken line is a lost node."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import WSMsgType, web

from clients import node as module
from clients.node import Node, NodeLost, NodeRefused, NodeUnreachable

Serve = Callable[[web.WebSocketResponse, Any], Awaitable[None]]


def talk(serve: Serve, conversation: Callable[[Node], Awaitable[None]]) -> None:
    """Run a conversation with a node that answers each request by `serve`."""

    async def handler(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                await serve(socket, json.loads(message.data))
        return socket

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        try:
            async with Node(f"ws://127.0.0.1:{port}") as node:
                await conversation(node)
        finally:
            await runner.cleanup()

    asyncio.run(run())


async def echo(socket: web.WebSocketResponse, request: Any) -> None:
    await socket.send_json({"jsonrpc": "2.0", "id": request["id"], "result": request["params"]})


def test_answers_find_their_question_in_any_order() -> None:
    held: list[Any] = []

    async def backwards(socket: web.WebSocketResponse, request: Any) -> None:
        held.append(request)
        if len(held) == 3:
            for one in reversed(held):
                await echo(socket, one)

    async def conversation(node: Node) -> None:
        answers = await asyncio.gather(*(node.call("m", n) for n in range(3)))
        assert answers == [[0], [1], [2]]

    talk(backwards, conversation)


def test_an_error_is_a_refusal_with_its_data() -> None:
    async def refuse(socket: web.WebSocketResponse, request: Any) -> None:
        error = {"code": 3, "message": "execution reverted", "data": "0x08c379a0"}
        await socket.send_json({"jsonrpc": "2.0", "id": request["id"], "error": error})

    async def conversation(node: Node) -> None:
        with pytest.raises(NodeRefused, match="refused eth_call: execution reverted") as refused:
            await node.call("eth_call")
        assert (refused.value.code, refused.value.data) == (3, "0x08c379a0")

    talk(refuse, conversation)


def test_heads_come_in_order_and_a_wait_has_a_limit() -> None:
    async def announce(socket: web.WebSocketResponse, request: Any) -> None:
        await echo(socket, request)
        for n in (1, 2):
            head = {"subscription": "0x1", "result": {"number": n}}
            await socket.send_json({"method": "eth_subscription", "params": head})

    async def conversation(node: Node) -> None:
        await node.follow_heads()
        assert [await node.next_head(5), await node.next_head(5)] == [{"number": 1}, {"number": 2}]
        assert await node.next_head(0.05) is None

    talk(announce, conversation)


@pytest.mark.parametrize("how", ["close", "rubbish", "silence"])
def test_a_broken_line_is_a_lost_node(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(module, "CALL_LIMIT_S", 0.3)

    async def fail(socket: web.WebSocketResponse, request: Any) -> None:
        if how == "close":
            await socket.close()
        elif how == "rubbish":
            await socket.send_str("{")

    async def conversation(node: Node) -> None:
        with pytest.raises(NodeLost, match="Connect again"):
            await node.call("m")
        if how != "silence":
            with pytest.raises(NodeLost):
                await node.next_head(1)
            with pytest.raises(NodeLost):
                await node.call("m")

    talk(fail, conversation)


def test_a_reader_that_falls_behind_loses_the_line_and_not_a_head(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "HEADS_MAX", 3)

    async def flood(socket: web.WebSocketResponse, request: Any) -> None:
        for n in range(9):
            head = {"subscription": "0x1", "result": {"number": n}}
            await socket.send_json({"method": "eth_subscription", "params": head})

    async def conversation(node: Node) -> None:
        with pytest.raises(NodeLost, match="3 heads behind"):
            await node.call("m")

    talk(flood, conversation)


def test_nobody_there_is_unreachable() -> None:
    async def run() -> None:
        async with Node("ws://127.0.0.1:9"):
            pass

    with pytest.raises(NodeUnreachable, match="correct ws_url"):
        asyncio.run(run())
