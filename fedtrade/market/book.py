"""An order book of price levels (L2): what rests on either side, as a venue's messages leave it.

Prices and sizes are integers, in units that the market states (`feeds.events.Market`). Each side is a
sorted array with its best level last: changes come near the best level, so that few elements move.
Arrays are changed in place by compiled code; a book never gets smaller arrays again.

A book knows nothing of sequence numbers or clocks. Whether it may be believed is known by whoever
applies the messages (`feeds.replica`).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

Levels = NDArray[np.int64]
"""Price levels, shape (n, 2): price and size. A size of zero removes the level."""

LEVELS_MAX: Final = 65_536
"""Levels a side; venues give at most some thousand. What is over this is the worst and left out."""
_FIRST_CAPACITY: Final = 1_024

NO_LEVELS: Final = np.empty((0, 2), np.int64)


class Book:
    """Both sides of one market's book."""

    __slots__ = ("_asks", "_bids", "crossed")

    def __init__(self) -> None:
        self._bids, self._asks = _Side(1), _Side(-1)
        self.crossed = False
        """Whether the best bid is at or over the best ask, which no venue lets rest."""

    def reset(self, bids: Levels, asks: Levels) -> None:
        """Forget everything; rest are these levels, in any order, the last of a price standing."""
        self._bids.count = self._asks.count = 0
        self.apply(bids, asks)

    def apply(self, bids: Levels, asks: Levels) -> None:
        """Put each level in place of what its price had; size zero removes it."""
        ours, theirs = self._bids, self._asks
        ours.make_room(len(bids))
        theirs.make_room(len(asks))
        ours.count, theirs.count, self.crossed = _apply_both(
            ours.keys, ours.sizes, ours.count, bids, theirs.keys, theirs.sizes, theirs.count, asks
        )
        if ours.count > LEVELS_MAX or theirs.count > LEVELS_MAX:
            ours.cut()
            theirs.cut()

    def best(self) -> tuple[int, int, int, int] | None:
        """(bid, its size, ask, its size), or None where a side is empty."""
        bids, asks = self._bids, self._asks
        if not bids.count or not asks.count:
            return None
        bid, ask = bids.count - 1, asks.count - 1
        return (
            int(bids.keys[bid]), int(bids.sizes[bid]), -int(asks.keys[ask]), int(asks.sizes[ask]),
        )  # fmt: skip

    def bids(self, most: int) -> Levels:
        """The best bids, best first, shape (≤ most, 2)."""
        return self._bids.top(most)

    def asks(self, most: int) -> Levels:
        """The best asks, best first, shape (≤ most, 2)."""
        return self._asks.top(most)

    def __len__(self) -> int:
        return self._bids.count + self._asks.count


class _Side:
    """Levels of one side: keys ascending, sign × price, so that the best is last."""

    __slots__ = ("count", "keys", "sign", "sizes")

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.keys = np.empty(_FIRST_CAPACITY, np.int64)
        self.sizes = np.empty(_FIRST_CAPACITY, np.int64)
        self.count = 0

    def make_room(self, more: int) -> None:
        """Let the arrays hold this many levels more."""
        if self.count + more <= len(self.keys):
            return
        capacity = len(self.keys)
        while capacity < self.count + more:
            capacity *= 2
        keys, sizes = np.empty(capacity, np.int64), np.empty(capacity, np.int64)
        keys[: self.count], sizes[: self.count] = self.keys[: self.count], self.sizes[: self.count]
        self.keys, self.sizes = keys, sizes

    def cut(self) -> None:
        """Leave out the worst levels over the limit."""
        if self.count > LEVELS_MAX:
            over = self.count - LEVELS_MAX
            self.keys[:LEVELS_MAX] = self.keys[over : self.count].copy()
            self.sizes[:LEVELS_MAX] = self.sizes[over : self.count].copy()
            self.count = LEVELS_MAX

    def top(self, most: int) -> Levels:
        first = max(0, self.count - most)
        keys, sizes = self.keys[first : self.count], self.sizes[first : self.count]
        return np.stack((self.sign * keys[::-1], sizes[::-1]), axis=1)


@njit(cache=True)
def _apply(
    keys: NDArray[np.int64], sizes: NDArray[np.int64], count: int, levels: Levels, sign: int
) -> int:
    """Put levels into a side that has room for them; gives how many it has then."""
    for row in range(levels.shape[0]):
        key, size = sign * levels[row, 0], levels[row, 1]
        low, high = 0, count
        # near the best first: steps of 1, 2, 4 … from the end, then halves of what is between
        step = 1
        while step <= count and keys[count - step] > key:
            high = count - step
            step *= 2
        if step <= count:
            low = count - step
        while low < high:
            middle = (low + high) >> 1
            if keys[middle] < key:
                low = middle + 1
            else:
                high = middle
        there = low < count and keys[low] == key
        if there and size > 0:
            sizes[low] = size
        elif there:
            count -= 1
            for i in range(low, count):  # one array a loop, so that it becomes one move of memory
                keys[i] = keys[i + 1]
            for i in range(low, count):
                sizes[i] = sizes[i + 1]
        elif size > 0:
            for i in range(count, low, -1):
                keys[i] = keys[i - 1]
            for i in range(count, low, -1):
                sizes[i] = sizes[i - 1]
            keys[low], sizes[low] = key, size
            count += 1
    return count


@njit(cache=True)
def _apply_both(
    bid_keys: NDArray[np.int64],
    bid_sizes: NDArray[np.int64],
    bid_count: int,
    bids: Levels,
    ask_keys: NDArray[np.int64],
    ask_sizes: NDArray[np.int64],
    ask_count: int,
    asks: Levels,
) -> tuple[int, int, bool]:
    """Both sides in one call, which costs more than the work; gives the counts, and if it crosses."""
    bid_count = _apply(bid_keys, bid_sizes, bid_count, bids, 1)
    ask_count = _apply(ask_keys, ask_sizes, ask_count, asks, -1)
    both = bid_count > 0 and ask_count > 0
    crossed = both and bid_keys[bid_count - 1] >= -ask_keys[ask_count - 1]
    return bid_count, ask_count, crossed
