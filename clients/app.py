"""The member's Flower ClientApp (Message API): a thin shell over `Member` and `Helper`.

A node answers four questions, each with one body of bytes: who are you, an announcement, an intake,
a manifest, and at the end a transcript. Whatever goes wrong is answered with the *name* of the
refusal alone: a text could quote what it should not, and Flower shows texts to the coordinator.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.helper import Helper
from clients.member import Member
from fedtrade.errors import FedtradeError, Refusal

log = logging.getLogger("fedtrade.member")

RECORD = "fedtrade"


@dataclass(frozen=True, slots=True)
class Desk:
    """What sits at one node: a member, a helper of the committee, or both."""

    member: Member | None
    helper: Helper | None


class NotSeated(Refusal):
    """A question for a role that this node does not have."""

    def __init__(self, role: str) -> None:
        super().__init__(f"this node is no {role}; ask another")
        self.role = role


OpenDesk = Callable[[Context], Desk]


def make_app(open_desk: OpenDesk) -> ClientApp:
    """A ClientApp whose node finds its desk with `open_desk` (from its own files or memory)."""
    app = ClientApp()

    def answer(message: Message, act: Callable[[bytes], bytes]) -> Message:
        try:
            record = {"body": act(_body(message))}
        except FedtradeError as error:
            log.warning("%s", error)
            record = {"refused": type(error).__name__.encode()}
        except Exception:  # whatever it is, its text stays here
            log.exception("a question from the coordinator failed")
            record = {"refused": b"Fault"}
        return Message(RecordDict({RECORD: ConfigRecord(dict(record))}), reply_to=message)

    def member(context: Context) -> Member:
        desk = open_desk(context)
        if desk.member is None:
            raise NotSeated("member")
        return desk.member

    def helper(context: Context) -> Helper:
        desk = open_desk(context)
        if desk.helper is None:
            raise NotSeated("helper")
        return desk.helper

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        desk = open_desk(context)
        seats = {
            "member": desk.member.seat.id if desk.member else None,
            "helper": desk.helper.seat.id if desk.helper else None,
        }
        return answer(message, lambda _: msgspec.msgpack.encode(seats))

    @app.train("upload")
    def upload(message: Message, context: Context) -> Message:
        return answer(message, lambda body: member(context).upload(body))

    @app.query("ready")
    def ready(message: Message, context: Context) -> Message:
        return answer(message, lambda body: helper(context).ready(body))

    @app.query("answer")
    def unmask(message: Message, context: Context) -> Message:
        return answer(message, lambda body: helper(context).answer(body))

    @app.query("endorse")
    def endorse(message: Message, context: Context) -> Message:
        def act(body: bytes) -> bytes:
            transcript, version, uri, registries = msgspec.msgpack.decode(
                body, type=tuple[bytes, int, str, dict[int, str]]
            )
            return msgspec.msgpack.encode(
                member(context).endorse(transcript, version, uri, registries)
            )

        return answer(message, act)

    return app


def _body(message: Message) -> bytes:
    record = message.content.config_records.get(RECORD)
    body = record.get("body") if record is not None else None
    if not isinstance(body, bytes):
        raise Refusal("a question without a body of bytes; ask again in the protocol's form")
    return body
