"""Flower's grid in one process: real ServerApp and ClientApp, no sockets, no Ray, no daemon.

Each node is a ClientApp call with a Context of its own; contents are copied as a wire would copy
them. The nodes share one thread: a round is many short calls into C, and threads that pass the
interpreter's lock to and fro take longer than one. With `processes` they are dealt out in turn to as
many forked processes, for simulations of many members; what nodes remember is then in those
processes, which end with the grid. `fault` may drop, delay or forge a reply, for tests of the
protocol. The deployed transports are Flower's SuperLink and the round channel; this one is the
embedded default.

It touches one private name of Flower, `TaskIdentity`, which a Message reads; a test says so when it
moves.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import socket
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Literal

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

Fault = Callable[[int, Message], Message | Literal["drop"] | None]
"""(node, message) -> a forged reply, "drop", or None to go on. May raise or sleep."""

_COORDINATOR_NODE = 1
_REPLIES_BYTES = 1 << 20
"""What may lie between a process and us; the kernel gives less where its own limit is lower."""


class LocalGrid(Grid):
    """A grid whose nodes, with ids from 2 on, live in this process or in forks of it."""

    def __init__(
        self, app: ClientApp, nodes: int, processes: int = 0, fault: Fault | None = None
    ) -> None:
        run_id = 1
        TaskIdentity.run_id, TaskIdentity.node_id = run_id, _COORDINATOR_NODE
        TaskIdentity.task_id = 1
        self._app = app
        self._run = Run.create_empty(run_id)
        self._fault = fault
        self._contexts = {
            node: Context(
                run_id=run_id, node_id=node, node_config={}, state=RecordDict(), run_config={}
            )
            for node in range(_COORDINATOR_NODE + 1, _COORDINATOR_NODE + 1 + nodes)
        }
        if processes:
            gc.freeze()  # or each fork's collector would write to, and so copy, every page we share
        self._forks = [_fork(self._serve) for _ in range(processes)]
        self._pools = [ThreadPoolExecutor(1) for _ in range(processes or 1)]  # after the forks
        self._pending: dict[str, Future[Message | None]] = {}

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def _carry(self, place: int, batch: list[tuple[Message, Future[Message | None]]]) -> None:
        """Have a batch of messages answered in turn; each reply is there as soon as it is made."""
        if not self._forks:
            for message, reply in batch:
                reply.set_result(self._deliver(copy.deepcopy(message)))
            return
        _, end = self._forks[place]
        try:
            end.send([message for message, _ in batch])  # what they share is copied once
            for _, reply in batch:
                reply.set_result(end.recv())
        except (OSError, EOFError) as error:  # the process has ended
            for message, reply in batch:
                if not reply.done():
                    reply.set_result(_failed(message, error))

    def _deliver(self, message: Message) -> Message | None:
        try:
            outcome = self._fault(message.metadata.dst_node_id, message) if self._fault else None
        except Exception as error:
            return _failed(message, error)
        if outcome == "drop":
            return None
        return outcome or self._answer(message)

    def _answer(self, message: Message) -> Message:
        try:
            return self._app(message, self._contexts[message.metadata.dst_node_id])
        except Exception as error:
            return _failed(message, error)

    def _serve(self, end: Connection) -> None:
        """Answer for the nodes of a forked process until the other end is gone."""
        with contextlib.suppress(EOFError):
            while True:
                for message in end.recv():
                    end.send(self._deliver(message))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        batches: list[list[tuple[Message, Future[Message | None]]]] = [[] for _ in self._pools]
        ids = []
        for message in messages:
            message_id = uuid.uuid4().hex
            message.metadata.__dict__["_message_id"] = message_id
            self._pending[message_id] = Future()
            place = message.metadata.dst_node_id % len(batches)
            batches[place].append((message, self._pending[message_id]))
            ids.append(message_id)
        for place, batch in enumerate(batches):
            self._pools[place].submit(self._carry, place, batch)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        done = []
        for message_id in list(message_ids):
            future = self._pending.get(message_id)
            if future is not None and future.done():
                del self._pending[message_id]
                reply = future.result()
                if reply is not None:
                    done.append(reply)
        return done

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        ids = list(self.push_messages(messages))
        wait([self._pending[i] for i in ids], timeout=timeout)
        replies = list(self.pull_messages(ids))
        for late in ids:
            self._pending.pop(late, None)
        return replies

    def close(self) -> None:
        for process, _ in self._forks:
            process.kill()  # what counts is on the disk, and one may wait for us to read
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)
        for process, end in self._forks:
            process.join()
            end.close()
        if self._forks:
            gc.unfreeze()


def _failed(message: Message, error: Exception) -> Message:
    """What a SuperNode answers when its app fails."""
    return Message(Error(code=2, reason=type(error).__name__), reply_to=message)


def _fork(serve: Callable[[Connection], None]) -> tuple[BaseProcess, Connection]:
    """A fork of this process that serves the other end of a pipe."""
    fork = get_context("fork")
    near, far = fork.Pipe()
    with socket.socket(fileno=os.dup(far.fileno())) as end:  # a process need not wait for us
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _REPLIES_BYTES)
    process = fork.Process(target=serve, args=(far,), daemon=True)
    process.start()
    far.close()
    return process, near


def run_in_process(server: ServerApp, grid: LocalGrid) -> None:
    """Run a ServerApp on a local grid to its end."""
    context = Context(
        run_id=1, node_id=_COORDINATOR_NODE, node_config={}, state=RecordDict(), run_config={}
    )
    try:
        server(grid, context)
    finally:
        grid.close()
