"""A recording through a feed: what it told, what was lost and why, and what was not understood."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final

import msgspec

from fedtrade.errors import BadInput
from fedtrade.market.feeds.events import UNREADABLE, BookLost, Complained, Fetch, Out, Said
from fedtrade.market.feeds.recording import Entry, Recording
from fedtrade.market.feeds.venues import Feed, Fetching, markets_of, venue_of

REASONS_MAX: Final = 1_000
"""Different reasons that are counted apart."""


@dataclass(slots=True)
class Replayed:
    """What a recording came to."""

    frames: int = 0
    events: Counter[str] = field(default_factory=Counter)
    """By the name of the event."""
    losses: Counter[str] = field(default_factory=Counter)
    """Books lost, by market and reason."""
    silent: Counter[str] = field(default_factory=Counter)
    """Messages from which nothing followed, by what they are about."""
    complaints: list[str] = field(default_factory=list)
    books: dict[str, str] = field(default_factory=dict)
    """How each market's book stood in the end."""
    torn: str = ""


def replay(
    entries: Iterable[Entry],
    feed: Feed,
    connection: str | None = None,
    take: Callable[[Said, Entry], None] | None = None,
) -> Replayed:
    """Play what was received, of one connection where it is named, into a feed.

    Each connect begins the books anew. Web answers are given where the feed has asked for one: the
    next recorded of that path, or the next at all where paths were not recorded.
    """
    found, wanted = Replayed(), list[Fetch]()

    def told(out: list[Out], entry: Entry) -> None:
        for each in out:
            if isinstance(each, Fetch):
                wanted.append(each)
            elif isinstance(each, Complained):
                found.complaints.append(f"{each.venue}: {each.text}")
            elif isinstance(each, Said):
                found.events[type(each).__name__] += 1
                if isinstance(each, BookLost) and len(found.losses) < REASONS_MAX:
                    found.losses[f"{each.market}: {each.reason}"] += 1
                if take is not None:
                    take(each, entry)

    begun = False
    early: list[Entry] = []
    """Web answers before the feed asked; cryptofeed asks when it connects, before the first change."""
    for entry in entries:
        if connection not in (None, entry.connection) and entry.kind != "http":
            continue
        if entry.kind == "http":
            early = [*early[-_EARLY_MAX:], entry]
        elif entry.kind in ("connect", "recv") and (entry.kind == "connect" or not begun):
            told(feed.connected(entry.at_ns), entry)
            begun = True
        if entry.kind == "recv":
            found.frames += 1
            out = feed.received(entry.data, entry.at_ns)
            told(out, entry)
            if not out and len(found.silent) < REASONS_MAX:
                found.silent[about(entry.data)] += 1
        for fetch in list(wanted):
            answer = next((each for each in early if _answers(each, fetch)), None)
            if answer is not None and isinstance(feed, Fetching):
                wanted.remove(fetch)
                early.remove(answer)
                told(feed.fetched(fetch, answer.data, entry.at_ns), entry)
    for market, replica in feed.replicas.items():
        best = replica.applied.best() if replica.live else None
        found.books[str(market)] = "lost" if not replica.live else "whole" if best else "empty"
    return found


def replay_file(
    path: Path, venue: str, named: Sequence[str], connection: str | None = None
) -> Replayed:
    """Replay a file; venue and markets as it says where they are not named. Raises BadInput."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise BadInput(str(path), str(error), "Name a recording.") from error
    with file:
        recording = Recording(file, path.name)
        entries = iter(recording)
        first = next(entries, None)
        found = venue_of(venue or recording.header.exchange)
        markets = markets_of(found, named) or recording.header.of(found.name)
        if not markets or first is None:
            raise BadInput(str(path), "it names no market, or is empty", "Name its markets.")
        replayed = replay(chain([first], entries), found.feed(markets), connection)
        replayed.torn = recording.torn
        return replayed


_EARLY_MAX: Final = 64


def _answers(entry: Entry, fetch: Fetch) -> bool:
    """Whether a web answer is of the wish's path, however many levels were asked for."""
    return not entry.url or fetch.path.partition("&")[0] in entry.url


def about(frame: bytes) -> str:
    """What a message is about, in a word or two, whatever the venue."""
    try:
        told = msgspec.json.decode(frame)
    except UNREADABLE:
        return "no JSON"
    if not isinstance(told, dict):
        return "no object"
    params, arg = told.get("params"), told.get("arg")
    params, arg = (each if isinstance(each, dict) else {} for each in (params, arg))
    words = [
        str(told["stream"]).partition("@")[2] if "stream" in told else "",
        str(told.get("topic", "")).partition(".")[0],
        str(params.get("channel") or arg.get("channel") or told.get("channel") or "").partition(
            "."
        )[0],
        *(str(told.get(key, "")) for key in ("table", "action", "feed", "event", "op", "type")),
    ]
    return " ".join(word for word in words if word) or "reply"
