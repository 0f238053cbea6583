"""Frames as others have recorded them: (received at, connection, bytes) of a file of the data pack."""

import json
from collections import Counter
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


def holes(make, told, change):
    """Leave out each change of a recorded book in turn; gives how that ended, and how often.

    `told`: the frames of one market, with when they came; `change`: what its changes of the book have
    in them and nothing else has. At once: no wrong book was served. Later: one was, until the feed
    lost or held it. Outlived: one was, until what came after had put it right. Unseen: one was, to the
    end of the recording.
    """

    def served(feed):
        (replica,) = feed.replicas.values()
        if not replica.live or replica.held:
            return None
        return replica.applied.bids(10**6).tobytes(), replica.applied.asks(10**6).tobytes()

    ends, whole, books = Counter(), make(), []
    for at, frame in told:
        whole.received(frame, at)
        books.append(served(whole))
        assert books[-1] or change not in frame
    for hole, (_, left_out) in enumerate(told):
        if change not in left_out:
            continue
        feed, end = make(), None
        for place, (at, frame) in enumerate(told):
            if place == hole:
                continue
            feed.received(frame, at)
            if place > hole:
                book = served(feed)
                if book in (None, books[place]):
                    end = end and ("later" if book is None else "outlived")
                    break
                end = "unseen"
        ends[end or "at once"] += 1
    return dict(ends)
