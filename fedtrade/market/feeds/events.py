"""What venues tell, as values: the output of every feed, whatever the venue.

Levels of books are integers in the units of their `Market`, so that equal prices are equal keys;
other prices and sizes are the venue's decimals as floats, in quote and in base or contracts. `at_ns`
is when we received it by our clock, `venue_ns` what the venue's clock said, 0 where it said nothing;
the two clocks may be a second apart in either direction, so a difference of the two is no latency.

A feed also gives what it wants done: `Send` these bytes, `Fetch` this answer. It opens no socket.

What is told hundreds of thousands of times a second is a msgspec struct: making a frozen dataclass
takes five times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numba import njit
from numpy.typing import NDArray

from fedtrade.errors import BadInput, Refusal
from fedtrade.market.book import NO_LEVELS, Levels

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What reading a venue's message may raise: it is no JSON, no text, or nested without end."""
UNITS_MAX: Final = 2**46
"""Largest price or size in units: below it a float of a venue's decimal text rounds to one integer."""
_OFF_GRID: Final = 1 / 64
"""How far from an integer such a float may be: four times what its own rounding can do at UNITS_MAX."""


class OffGrid(Refusal):
    """A price or size that is no whole number of its market's units, or too many; or no price."""

    def __init__(self, market: Market, price: float, size: float) -> None:
        super().__init__(
            f"{market}: {size} at {price} is no whole number of units up to 2^46, with "
            f"{market.price_decimals} decimals of price and {market.size_decimals} of size. "
            "State those that the venue uses now."
        )
        self.market = market
        self.price = price
        self.size = size


@dataclass(frozen=True, slots=True)
class Market:
    """One instrument on one venue, and the units of its prices and sizes."""

    venue: str
    symbol: str
    """As the venue writes it in its messages."""
    price_decimals: int = 8
    size_decimals: int = 8

    def __post_init__(self) -> None:
        if not (0 <= self.price_decimals <= 12 and 0 <= self.size_decimals <= 12):
            raise BadInput(f"market {self}", "its decimals are not in 0..12", "Correct them.")

    def __str__(self) -> str:
        return f"{self.venue} {self.symbol}"

    def levels(self, said: Sequence[Sequence[float]]) -> Levels:
        """Levels in units, from pairs of price and size. Raises OffGrid."""
        if not said:
            return NO_LEVELS
        units = np.empty((len(said), 2), np.int64)
        scales = 10.0**self.price_decimals, 10.0**self.size_decimals
        wrong = _into_units(np.array(said, np.float64), *scales, units)
        if wrong >= 0:
            raise OffGrid(self, *said[wrong][:2])
        return units

    def sides(self, frame: bytes, bids_at: int, asks_at: int) -> tuple[Levels, Levels] | None:
        """Both sides in units, of `[["price","size"],…]` from two places of a message on.

        For the many levels a second that one venue tells: digit by digit, without a Python object
        for each. None where it is written otherwise or is off the grid: read it by `levels` then.
        """
        units = np.empty((len(frame) // _ROW_MIN + 1, 2), np.int64)
        bids, asks = _read_sides(
            frame, bids_at, asks_at, self.price_decimals, self.size_decimals, units
        )
        return None if asks < 0 else (units[:bids], units[bids:asks])


_ROW_MIN: Final = len('["1","1"],')


@njit(cache=True)
def _read_sides(
    frame: bytes, bids_at: int, asks_at: int, price_decimals: int, size_decimals: int, units: Levels
) -> tuple[int, int]:
    """Fill units with the bids' rows, then the asks'; gives where either ends, -1 for neither."""
    bids = _read_rows(frame, bids_at, price_decimals, size_decimals, units, 0)
    if bids < 0:
        return -1, -1
    return bids, _read_rows(frame, asks_at, price_decimals, size_decimals, units, bids)


@njit(cache=True)
def _read_rows(
    text: bytes, at: int, price_decimals: int, size_decimals: int, units: Levels, rows: int
) -> int:
    """Read rows of two decimal texts behind `rows`; gives how many there are then, or -1."""
    end, first = len(text) - 1, rows
    if at < 0 or at >= end or text[at] != 91:  # [
        return -1
    at += 1
    while at < end and text[at] != 93:  # ]
        if rows > first:
            if text[at] != 44:  # ,
                return -1
            at += 1
        if at + _ROW_MIN > end or text[at] != 91:
            return -1
        at += 1
        for column in range(2):
            decimals = price_decimals if column == 0 else size_decimals
            if text[at] != 34:  # "
                return -1
            at += 1
            value, digits, behind = 0, 0, -1
            while at < end and text[at] != 34:
                byte = text[at]
                at += 1
                if byte == 46 and behind < 0 and digits > 0:  # .
                    behind = 0
                    continue
                digit = int(byte) - 48
                if digit < 0 or digit > 9:
                    return -1
                digits += 1
                if behind >= 0:
                    behind += 1
                if behind > decimals:
                    if digit != 0:
                        return -1  # off the grid
                    continue
                value = value * 10 + digit
                if value > UNITS_MAX:
                    return -1
            if digits == 0 or behind == 0:
                return -1
            for _ in range(max(behind, 0), decimals):
                value *= 10
                if value > UNITS_MAX:
                    return -1
            if column == 0 and value == 0:
                return -1
            units[rows, column] = value
            at += 1
            if at >= end or text[at] != (44 if column == 0 else 93):
                return -1
            at += 1
        rows += 1
    return rows if at < end else -1


@njit(cache=True)
def _into_units(
    said: NDArray[np.float64], price_scale: float, size_scale: float, units: Levels
) -> int:
    """Write prices and sizes as whole units; gives the first row where one is none, or -1."""
    for row in range(said.shape[0]):
        for column, scale in ((0, price_scale), (1, size_scale)):
            scaled = said[row, column] * scale
            if not 0.0 <= scaled <= UNITS_MAX:  # so too where it is no number
                return row
            whole = np.rint(scaled)
            if abs(scaled - whole) > _OFF_GRID or (column == 0 and whole == 0.0):
                return row
            units[row, column] = np.int64(whole)
    return -1


class BookReset(msgspec.Struct, frozen=True, gc=False):
    """The whole book; it may be believed from here on."""

    market: Market
    at_ns: int
    venue_ns: int
    bids: Levels
    asks: Levels


class BookMoved(msgspec.Struct, frozen=True, gc=False):
    """Levels that changed, in a book that may still be believed."""

    market: Market
    at_ns: int
    venue_ns: int
    bids: Levels
    asks: Levels


class BookLost(msgspec.Struct, frozen=True, gc=False):
    """The book may not be believed until the next `BookReset`."""

    market: Market
    at_ns: int
    reason: str


class Quoted(msgspec.Struct, frozen=True, gc=False):
    """The best bid and ask, as the venue tells them apart from its book."""

    market: Market
    at_ns: int
    venue_ns: int
    bid: float
    bid_size: float
    ask: float
    ask_size: float


class Traded(msgspec.Struct, frozen=True, gc=False):
    """A trade. `taker_buys`: whether it took from the asks."""

    market: Market
    at_ns: int
    venue_ns: int
    price: float
    size: float
    taker_buys: bool


class Liquidated(msgspec.Struct, frozen=True, gc=False):
    """A position that the venue closed by force; where the venue tells trades, it is among them."""

    market: Market
    at_ns: int
    venue_ns: int
    price: float
    size: float
    long: bool
    """Whether the position was long, so that the venue sold."""


class Marked(msgspec.Struct, frozen=True, gc=False):
    """What the venue says of a perpetual or future besides its trading; None where it did not say.

    `funding_rate` is a fraction of the notional for one of the venue's own periods.
    """

    market: Market
    at_ns: int
    venue_ns: int
    mark: float | None = None
    index: float | None = None
    funding_rate: float | None = None
    open_interest: float | None = None


Said = BookReset | BookMoved | BookLost | Quoted | Traded | Liquidated | Marked


@dataclass(frozen=True, slots=True)
class Send:
    """A message for the venue's socket."""

    text: str


@dataclass(frozen=True, slots=True)
class Fetch:
    """An answer that is wanted from the venue's web interface; `path` begins after its host."""

    market: Market
    path: str


@dataclass(frozen=True, slots=True)
class Complained:
    """The venue refused what we sent. Nothing of it will come: stop, and show this."""

    venue: str
    text: str


Out = Said | Send | Fetch | Complained
