"""Flower's grid in one process: real ServerApp and ClientApp, no sockets, no Ray, no daemon.

Each node is a ClientApp call in a thread pool with a Context of its own; contents are copied as a
wire would copy them. One worker is the default: a round is many short calls into C, and two threads
that pass the interpreter's lock to and fro take longer than one. `fault` may drop, delay or forge a
reply, for tests of the protocol. The deployed transports are Flower's SuperLink and the round
channel; this one is the embedded default.

It touches one private name of Flower, `TaskIdentity`, which a Message reads; a test says so when it
moves.
"""

from __future__ import annotations

import copy
import threading
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Literal

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

Fault = Callable[[int, Message], Message | Literal["drop"] | None]
"""(node, message) -> a forged reply, "drop", or None to go on. May raise or sleep."""

_COORDINATOR_NODE = 1


class LocalGrid(Grid):
    """A grid whose nodes are objects of this process, with ids from 2 on."""

    def __init__(
        self, app: ClientApp, nodes: int, workers: int = 1, fault: Fault | None = None
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
        self._locks = {node: threading.Lock() for node in self._contexts}
        self._pool = ThreadPoolExecutor(workers)
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

    def _deliver(self, message: Message) -> Message | None:
        node = message.metadata.dst_node_id
        try:
            with self._locks[node]:
                outcome = self._fault(node, message) if self._fault else None
                if outcome == "drop":
                    return None
                if isinstance(outcome, Message):
                    return outcome
                return self._app(copy.deepcopy(message), self._contexts[node])
        except Exception as error:  # what a SuperNode answers when its app fails
            return Message(Error(code=2, reason=type(error).__name__), reply_to=message)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            message_id = uuid.uuid4().hex
            message.metadata.__dict__["_message_id"] = message_id
            self._pending[message_id] = self._pool.submit(self._deliver, message)
            ids.append(message_id)
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
        self._pool.shutdown(wait=False, cancel_futures=True)


def run_in_process(server: ServerApp, grid: LocalGrid) -> None:
    """Run a ServerApp on a local grid to its end."""
    context = Context(
        run_id=1, node_id=_COORDINATOR_NODE, node_config={}, state=RecordDict(), run_config={}
    )
    try:
        server(grid, context)
    finally:
        grid.close()
