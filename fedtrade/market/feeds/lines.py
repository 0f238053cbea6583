"""Books whose venue sends them whole over the socket, and then every change, most with a number.

What differs by venue is what a change names as its predecessor; what is done about it does not: a
change that does not follow loses the book, and the whole one is asked for once, by subscribing anew.
If it does not come, it is asked for again after a while. Where numbers only rise, with holes, a change
can be too late but none can be seen to be missing (`later`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from fedtrade.errors import BadInput
from fedtrade.market.feeds.events import Market, OffGrid, Out, Send
from fedtrade.market.feeds.replica import QUIET_MAX_NS, Replica

ASK_AGAIN_NS: Final = 10_000_000_000
"""How long a whole book is awaited before it is asked for again."""

Pairs = Sequence[Sequence[float]]
"""Price and size of levels, as numbers; what stands behind the size is not read."""


@dataclass(slots=True)
class _Line:
    replica: Replica
    number: int = 0
    """Of the newest message that was applied."""
    previous: int | None = None
    """What that message followed; None where it was whole."""
    frame: bytes = b""
    """That message as it came, where nothing else tells it from the next one."""
    asked_ns: int | None = None


class Lines:
    """The books of one connection."""

    def __init__(
        self,
        markets: Sequence[Market],
        again: Callable[[Market], Sequence[Send]],
        quiet_max_ns: int = QUIET_MAX_NS,
    ) -> None:
        """`again`: what to send for a whole book; `quiet_max_ns`: see `Replica`."""
        self._lines = {each.symbol: _Line(Replica(each, quiet_max_ns)) for each in markets}
        if len(self._lines) != len(markets):
            raise BadInput("feed", "a market is named twice", "Name each once.")
        self._again = again
        self.replicas = {line.replica.market: line.replica for line in self._lines.values()}

    def market(self, symbol: str) -> Market | None:
        """The market of a symbol, or None where it is none of ours."""
        line = self._lines.get(symbol)
        return None if line is None else line.replica.market

    def whole(
        self, symbol: str, number: int, at_ns: int, venue_ns: int, bids: Pairs, asks: Pairs
    ) -> list[Out]:
        """The whole book, at this number."""
        line = self._lines.get(symbol)
        if line is None:
            return []
        line.number, line.previous, replica = number, None, line.replica
        try:
            levels = replica.market.levels(bids), replica.market.levels(asks)
        except OffGrid as error:
            return self.lose(symbol, at_ns, error.message)
        out: list[Out] = [replica.reset(at_ns, venue_ns, *levels)]
        if not replica.live:
            return [*out, *self._ask(line, at_ns)]
        line.asked_ns = None
        return out

    def next(
        self,
        symbol: str,
        previous: int,
        number: int,
        at_ns: int,
        venue_ns: int,
        bids: Pairs,
        asks: Pairs,
    ) -> list[Out]:
        """A change that follows message `previous`."""
        line = self._lines.get(symbol)
        if line is None:
            return []
        replica = line.replica
        if not replica.live:
            return self._ask(line, at_ns)
        if previous != line.number and (previous, number) == (line.previous, line.number):
            return []  # the last one again
        if previous != line.number:
            return self.lose(symbol, at_ns, f"after {line.number} came what follows {previous}")
        try:
            levels = replica.market.levels(bids), replica.market.levels(asks)
        except OffGrid as error:
            return self.lose(symbol, at_ns, error.message)
        line.number, line.previous = number, previous
        moved = replica.move(at_ns, venue_ns, *levels)
        out: list[Out] = [] if moved is None else [moved]
        return out if replica.live else [*out, *self._ask(line, at_ns)]

    def later(
        self, symbol: str, number: int, at_ns: int, venue_ns: int, bids: Pairs, asks: Pairs
    ) -> list[Out]:
        """A change that is not older than the newest one, where numbers rise with holes.

        An older one was missing until now, so the book is lost; what it is then measured by is that
        older number, so that one wrong number does not lose every book after it.
        """
        line = self._lines.get(symbol)
        if line is None:
            return []
        newest = line.number
        if line.replica.live and number < newest:
            line.number = number
            return self.lose(symbol, at_ns, f"{number} came after {newest}")
        return self.next(symbol, newest, number, at_ns, venue_ns, bids, asks)

    def repeats(self, symbol: str, frame: bytes) -> bool:
        """Whether a message of a live book is its last one again, byte for byte."""
        line = self._lines[symbol]
        told, line.frame = line.replica.live and frame == line.frame, frame
        return told

    def newest(self, symbol: str) -> int:
        """The number of the newest message that was applied on this connection."""
        return self._lines[symbol].number

    def lose(self, symbol: str, at_ns: int, reason: str) -> list[Out]:
        """A book that may not be believed, and the wish for a whole one."""
        line = self._lines[symbol]
        return [line.replica.lose(at_ns, reason), *self._ask(line, at_ns)]

    def lose_all(self, at_ns: int, reason: str) -> list[Out]:
        """What could not be read may have been any book's."""
        live = [symbol for symbol, line in self._lines.items() if line.replica.live]
        return [out for symbol in live for out in self.lose(symbol, at_ns, reason)]

    def begin(self, at_ns: int) -> list[Out]:
        """A new connection: every book begins anew; the feed subscribes to all of them."""
        out: list[Out] = []
        for line in self._lines.values():
            if line.replica.live:
                out.append(line.replica.lose(at_ns, "the connection is new"))
            line.asked_ns, line.number = at_ns, 0
        return out

    def ask(self, symbol: str, at_ns: int) -> list[Out]:
        """The wish for the whole book, where none is under way."""
        return self._ask(self._lines[symbol], at_ns)

    def _ask(self, line: _Line, at_ns: int) -> list[Out]:
        if line.asked_ns is not None and at_ns - line.asked_ns < ASK_AGAIN_NS:
            return []
        line.asked_ns = at_ns
        return list(self._again(line.replica.market))
