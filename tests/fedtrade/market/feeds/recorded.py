"""Frames as others have recorded them: (received at, connection, bytes) of a file of the data pack."""

import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[5] / "shared" / "data" / "ws_frames"


def frames(name):
    file = FOLDER / f"{name}.jsonl.zst"
    if not file.is_file():
        pytest.skip("the recorded frames are not here (shared/data/ws_frames)")
    import zstandard

    with zstandard.open(file, "rb") as lines:
        for line in map(json.loads, lines.read().splitlines()):
            if line.get("t") in ("recv", "ws"):
                yield int(line["ts"] * 1e9), line.get("conn", ""), line["data"].encode()


def play(name, feed, connection=""):
    """Every frame of a connection into a feed; gives what came out."""
    out = feed.connected(0)
    for at, conn, frame in frames(name):
        if conn.endswith(connection):
            out += feed.received(frame, at)
    return out
