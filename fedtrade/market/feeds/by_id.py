"""Levels that a venue tells by an id: inserted with their price, then changed and deleted.

Where messages have no numbers without holes, the ids are what shows that one is missing: a level that
is changed or deleted and is not there, one that is inserted and is there, one that has another price.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

from fedtrade.errors import Stale
from fedtrade.market.book import LEVELS_MAX

Action = Literal["insert", "update", "delete"]
Pair = tuple[float, float]
_Side = Literal["Buy", "Sell"]


class Contradicted(Stale):
    """What a venue says of a level does not fit what it said before: something is missing."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"A book's levels contradict each other: {reason}. Get the whole book.")
        self.reason = reason


class Level(msgspec.Struct):
    """A level as it is told; without price where that is known, without size where it goes."""

    symbol: str
    id: int
    side: _Side
    price: float | None = None
    size: float = 0.0
    timestamp: datetime | None = None


class LevelsById:
    """The levels that one book has by what was told."""

    def __init__(self) -> None:
        self._prices: dict[tuple[_Side, int], float] = {}

    def clear(self) -> None:
        """Forget all: a whole book follows, as levels that are inserted."""
        self._prices.clear()

    def apply(self, action: Action, levels: Sequence[Level]) -> tuple[list[Pair], list[Pair]]:
        """Bids and asks that change. Raises Contradicted; clear it then."""
        sides: dict[_Side, list[Pair]] = {"Buy": [], "Sell": []}
        for each in levels:
            key = each.side, each.id
            known = self._prices.get(key)
            price = known if each.price is None else each.price
            if price is None or (action == "insert") == (known is not None):
                wrong = "twice" if action == "insert" else "not"
                raise Contradicted(f"level {each.id} is {wrong} there")
            if known is not None and price != known:
                raise Contradicted(f"level {each.id} is at {price} and was at {known}")
            if action == "delete":
                del self._prices[key]
            else:
                self._prices[key] = price
            sides[each.side].append((price, 0.0 if action == "delete" else each.size))
        if len(self._prices) > 2 * LEVELS_MAX:
            raise Contradicted("there are more than a book may have")
        return sides["Buy"], sides["Sell"]
