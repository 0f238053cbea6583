"""The coordinator over Flower messages: a thin shell between a Grid and `Release`.

Each node is asked once who sits there; then an `Exchange` turns seats into nodes and bodies into
messages. A node that is late, fails or refuses is simply not in the reply, so one bad reply is
dropped alone and never ends a round.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final, Literal

import msgspec
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from fedtrade.protocol import MEMBER_ACTIONS, Action
from server.release import Exchange

log = logging.getLogger("fedtrade.coordinator")

RECORD: Final = "fedtrade"


def over_flower(grid: Grid, timeout_s: float) -> Exchange:
    """An Exchange over a Flower grid. `timeout_s` bounds every phase of a round."""

    def ask(action: Action | Literal["hello"], bodies: Mapping[int, bytes]) -> dict[int, bytes]:
        """node id -> body of the reply, of those that answered in time and did not refuse."""
        messages = [
            Message(
                RecordDict({RECORD: ConfigRecord({"body": body})}),
                dst_node_id=node,
                message_type=f"query.{action}",
            )
            for node, body in bodies.items()
        ]
        replies = {}
        for reply in grid.send_and_receive(messages, timeout=timeout_s):
            node = reply.metadata.src_node_id
            body = _reply_body(reply, node, action)
            if body is not None:
                replies[node] = body
        return replies

    seats = _seats(ask("hello", dict.fromkeys(grid.get_node_ids(), b"")))

    def exchange(action: Action, bodies: Mapping[int, bytes]) -> Mapping[int, bytes]:
        nodes = seats["member" if action in MEMBER_ACTIONS else "helper"]
        known = {nodes[seat]: seat for seat in bodies if seat in nodes}
        replies = ask(action, {node: bodies[seat] for node, seat in known.items()})
        return {known[node]: body for node, body in replies.items() if node in known}

    return exchange


def _reply_body(reply: Message, node: int, action: str) -> bytes | None:
    """The body of a reply, or None where there is none. Nothing in it is trusted here."""
    if reply.has_error():
        log.warning("node %d failed at %s", node, action)
        return None
    record = reply.content.config_records.get(RECORD)
    if record is None:
        log.warning("node %d gave no record at %s", node, action)
        return None
    refused, body = record.get("refused"), record.get("body")
    if isinstance(refused, bytes):
        name = refused[:64].decode(errors="replace")
        log.warning("node %d refused %s: %s", node, action, name if name.isalnum() else "?")
    return body if isinstance(body, bytes) else None


def _seats(replies: Mapping[int, bytes]) -> dict[str, dict[int, int]]:
    """role -> seat -> node; the first node that claims a seat has it.

    A registered node can so keep another's seat out of a release over Flower messages. It cannot
    speak for it: every message of a seat is signed by that seat's key. The round channel asks for
    that signature before it hands out anything.
    """
    found: dict[str, dict[int, int]] = {"member": {}, "helper": {}}
    for node, body in sorted(replies.items()):
        try:
            claims = msgspec.msgpack.decode(body, type=dict[str, int])
        except (msgspec.MsgspecError, ValueError):
            log.warning("node %d did not say who it is", node)
            continue
        for role, seats in found.items():
            seat = claims.get(role)
            if seat is not None:
                seats.setdefault(seat, node)
    return found


def make_app(run: Callable[[Exchange], None], timeout_s: float) -> ServerApp:
    """A ServerApp that hands `run` an exchange over its grid."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, _context: Context) -> None:
        run(over_flower(grid, timeout_s))

    return app
