"""The member's Flower ClientApp (Message API): a thin shell over a `Desk`.

Every question is an action of the protocol with one body of bytes; besides them a node is asked who
sits there. Whatever goes wrong is answered with the *name* of the refusal alone: a text could quote
what it should not, and Flower shows texts to the coordinator.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedtrade.errors import FedtradeError, Refusal
from fedtrade.protocol import HELPER_ACTIONS, MEMBER_ACTIONS, Action

if TYPE_CHECKING:  # a desk brings torch; a node that is only asked who it is can do without
    from clients.desk import Desk

log = logging.getLogger("fedtrade.member")

RECORD = "fedtrade"

OpenDesk = Callable[[Context], "Desk"]


def make_app(open_desk: OpenDesk) -> ClientApp:
    """A ClientApp whose node finds its desk with `open_desk` (from its own files or memory)."""
    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        return answer(message, lambda _: msgspec.msgpack.encode(open_desk(context).roles))

    def offer(action: Action) -> None:
        @app.query(action)
        def act(message: Message, context: Context) -> Message:
            return answer(message, lambda body: open_desk(context).act(action, body))

    for action in (*MEMBER_ACTIONS, *HELPER_ACTIONS):
        offer(action)
    return app


def answer(message: Message, act: Callable[[bytes], bytes]) -> Message:
    """The reply to a question: a body, or the name of what went wrong and nothing else."""
    try:
        record = {"body": act(_body(message))}
    except FedtradeError as error:
        log.warning("%s", error)
        record = {"refused": type(error).__name__.encode()}
    except Exception:  # whatever it is, its text stays here
        log.exception("a question from the coordinator failed")
        record = {"refused": b"Fault"}
    return Message(RecordDict({RECORD: ConfigRecord(dict(record))}), reply_to=message)


def _body(message: Message) -> bytes:
    record = message.content.config_records.get(RECORD)
    body = record.get("body") if record is not None else None
    if not isinstance(body, bytes):
        raise Refusal("a question without a body of bytes; ask again in the protocol's form")
    return body
