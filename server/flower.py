"""The module that the bundle names as ServerApp; it is this one, as the coordinator installed it.

It runs in a process that the SuperLink's executor starts, finds the coordinator's own settings by an
environment variable of that executor, and reads nothing of the run's config. First it calls the roll:
a node answers with the fedtrade that it runs, and only a node that took the bundle answers at all.
Then, by the purpose that the environment names:

* `channel`: it opens the release at every node that is there and waits until each says that it is
  over; the rounds are driven by the process that listens on the round channel;
* `messages`: it drives the release itself, each action of each round as a Flower message. Flower
  starts a process for each, so this is for few rounds, or for nodes that reach nothing but the gate;
* `roll-call`: nothing more.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from fedtrade.errors import BadInput
from server.app import over_flower
from server.operation import Operation
from server.settings import CoordinatorSettings

log = logging.getLogger("fedtrade.coordinator")

SETTINGS_VARIABLE: Final = "FEDTRADE_COORDINATOR_SETTINGS"
"""Path of the coordinator's own `coordinator.toml`, for the app."""
PURPOSE_VARIABLE: Final = "FEDTRADE_RUN"
"""What the run is for: one of PURPOSES."""
PURPOSES: Final = ("roll-call", "channel", "messages")
ROLL_FILE: Final = "roll-call.json"
RECORD: Final = "fedtrade"
VERSION_BYTES_MAX: Final = 64
NAME_BYTES_MAX: Final = 64


def ask(grid: Grid, kind: str, nodes: Iterable[int], timeout_s: float) -> dict[int, bytes]:
    """node id -> body, of the nodes that answered a message of this kind in time."""
    messages = [
        Message(RecordDict({RECORD: ConfigRecord({"body": b""})}), node, kind) for node in nodes
    ]
    bodies = {}
    for reply in grid.send_and_receive(messages, timeout=timeout_s):
        node = reply.metadata.src_node_id
        record = None if reply.has_error() else reply.content.config_records.get(RECORD)
        body = record.get("body") if record is not None else None
        refused = record.get("refused") if record is not None else None
        if isinstance(body, bytes):
            bodies[node] = body
        elif isinstance(refused, bytes):
            name = refused[:NAME_BYTES_MAX].decode(errors="replace")
            log.warning("node %d refused %s: %s", node, kind, name)
        else:
            log.warning("node %d failed at %s", node, kind)
    return bodies


def roll_call(grid: Grid, timeout_s: float) -> dict[int, str]:
    """node id -> the version of fedtrade there, of the nodes that took the bundle."""
    replies = ask(grid, "query.installed", list(grid.get_node_ids()), timeout_s)
    return {
        node: body[:VERSION_BYTES_MAX].decode(errors="replace") for node, body in replies.items()
    }


def write_roll(folder: Path, roll: Mapping[int, str], took_s: float) -> None:
    """Leave a roll call where the operator's commands find it.

    `took_s` is what an empty round over Flower messages takes with these nodes.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = folder / (ROLL_FILE + ".new")
    nodes = {str(node): found for node, found in sorted(roll.items())}
    draft.write_text(json.dumps({"nodes": nodes, "took_s": round(took_s, 3)}))
    draft.replace(folder / ROLL_FILE)


def main(grid: Grid, _context: Context) -> None:
    """One run. Raises BadInput where this process was not told what it is for."""
    purpose, path = os.environ.get(PURPOSE_VARIABLE), os.environ.get(SETTINGS_VARIABLE)
    if purpose not in PURPOSES or path is None:
        raise BadInput(
            PURPOSE_VARIABLE,
            f"{purpose!r} is none of {', '.join(PURPOSES)}",
            "Start the SuperLink with `fedtrade-coordinator up`",
        )
    settings = CoordinatorSettings.load(Path(path))
    limits = settings.release
    started_s = time.monotonic()
    roll = roll_call(grid, limits.round_timeout_s)
    write_roll(settings.folder, roll, time.monotonic() - started_s)
    if purpose == "channel":
        longest_s = 2 * limits.release_timeout_s + (
            limits.parameters.rounds * 4 * limits.round_timeout_s
        )
        left = ask(grid, "query.release", roll, longest_s)
        log.info("the release is over; %d of %d nodes stayed to its end", len(left), len(roll))
    elif purpose == "messages":
        with Operation(settings, _tell) as operation:
            finished = operation.drive(over_flower(grid, limits.round_timeout_s))
        log.info("the release ended in %s", finished.artifact_sha256)


def _tell(what: str, done: int, of: int) -> None:
    log.info("%s: %d of %d", what, done, of)


app = ServerApp()
app.main()(main)
