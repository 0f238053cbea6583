"""Reading a chain in several steps, written once and run over any transport.

A conversation is a generator: it yields a batch of JSON-RPC calls, is sent their results in order,
and returns a value in the end. `ask` runs it over HTTP; `ask_async` over anything with an
asynchronous `call`, such as an agent's websocket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from typing import Any, Final, Protocol, TypeVar

from fedtrade.chain.rpc import Rpc, RpcCall, eth_call, from_hex
from fedtrade.venues.codec import Function

Value = TypeVar("Value")
Conversation = Generator[list[RpcCall], list[Any], Value]

IN_FLIGHT_MAX: Final = 128
"""Calls that may wait for their answer at one time on an asynchronous transport."""

Read = tuple[str, Function, Sequence[object]]
"""A contract's address, the view to call, and its arguments."""


class AsyncRpc(Protocol):
    """A transport that answers single calls."""

    async def call(self, method: str, *params: object) -> Any: ...


def ask(rpc: Rpc, conversation: Conversation[Value]) -> Value:
    """Hold a conversation over HTTP, one batch a step."""
    try:
        calls = next(conversation)
        while True:
            calls = conversation.send(rpc.batch(calls))
    except StopIteration as end:
        value: Value = end.value
        return value


async def ask_async(rpc: AsyncRpc, conversation: Conversation[Value]) -> Value:
    """Hold a conversation over a websocket, the calls of a step side by side."""
    gate = asyncio.Semaphore(IN_FLIGHT_MAX)

    async def one(call: RpcCall) -> Any:
        async with gate:
            return await rpc.call(call[0], *call[1])

    try:
        calls = next(conversation)
        while True:
            calls = conversation.send(await asyncio.gather(*map(one, calls)))
    except StopIteration as end:
        value: Value = end.value
        return value


def read(reads: Sequence[Read], block: int | str) -> Conversation[list[tuple[Any, ...]]]:
    """Call many views at one block and decode what they return."""
    answers = yield [view_call(to, view, arguments, block) for to, view, arguments in reads]
    return [
        view.decode(from_hex(answer)) for (_, view, _), answer in zip(reads, answers, strict=True)
    ]


def view_call(
    to: str,
    view: Function,
    arguments: Sequence[object],
    block: int | str,
    sender: str | None = None,
) -> RpcCall:
    """One call of a view, for a conversation that does more than `read`."""
    method, *params = eth_call(to, view.encode(*arguments), block, sender)
    return method, params
