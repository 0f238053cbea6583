"""One market's book and whether it may be believed.

There are two states. *Lost*: nothing is served, changes may be kept until the venue's whole book
comes. *Live*: every message since the whole book has been applied, none is missing. A feed moves
between them by what its venue's numbers and checksums say; a book that crosses is lost as well,
because no venue lets one rest: something was missed or misread. A live book may be *held* while a
feed waits for a message that may have been about it.
"""

from __future__ import annotations

from typing import Final

from fedtrade.errors import Stale
from fedtrade.market.book import LEVELS_MAX, Book, Levels
from fedtrade.market.feeds.events import BookLost, BookMoved, BookReset, Market

QUIET_MAX_NS: Final = 60_000_000_000
"""A live book of which nothing was heard for this long is not served: its line may be dead."""


class BookStale(Stale):
    """A book that may not be believed now."""

    def __init__(self, market: Market, reason: str) -> None:
        super().__init__(
            f"The book of {market} is not served: {reason}. Wait for its next whole book."
        )
        self.market = market
        self.reason = reason


class Replica:
    """The copy of one book. A feed applies; anybody else may only ask for `book`."""

    __slots__ = ("_book", "_heard_ns", "_held", "_lost", "_quiet_max_ns", "losses", "market")

    def __init__(self, market: Market, quiet_max_ns: int = QUIET_MAX_NS) -> None:
        """`quiet_max_ns`: less where the venue repeats itself more often than that."""
        self.market = market
        self._quiet_max_ns = quiet_max_ns
        self.losses = 0
        """How often a live book was lost."""
        self._book = Book()
        self._lost: str | None = "it was never whole"
        self._held: str | None = None
        self._heard_ns = 0

    @property
    def live(self) -> bool:
        return self._lost is None

    @property
    def applied(self) -> Book:
        """Everything that was applied, for the feed that applies it and for nobody else."""
        return self._book

    @property
    def held(self) -> bool:
        """Whether a live book is held back until a doubt is settled."""
        return self._held is not None

    def quiet(self, now_ns: int) -> bool:
        """Whether nothing was heard of it for too long."""
        return now_ns - self._heard_ns > self._quiet_max_ns

    def book(self, now_ns: int) -> Book:
        """The book. Raises BookStale where it may not be believed."""
        if self._lost is not None:
            raise BookStale(self.market, self._lost)
        if self._held is not None:
            raise BookStale(self.market, self._held)
        if self.quiet(now_ns):
            quiet_s = (now_ns - self._heard_ns) / 1e9
            raise BookStale(self.market, f"nothing was heard for {quiet_s:.0f} s")
        return self._book

    def reset(self, at_ns: int, venue_ns: int, bids: Levels, asks: Levels) -> BookReset | BookLost:
        """The venue's whole book."""
        self._book.reset(bids, asks)
        self._heard_ns = at_ns
        if self._book.crossed:
            return self.lose(at_ns, "the venue's whole book is crossed")
        self._lost = self._held = None
        return BookReset(self.market, at_ns, venue_ns, bids, asks)

    def move(
        self, at_ns: int, venue_ns: int, bids: Levels, asks: Levels
    ) -> BookMoved | BookLost | None:
        """The next change of a live book; None where it is held back."""
        self._book.apply(bids, asks)
        self._heard_ns = at_ns
        if self._book.crossed:
            return self.lose(at_ns, "its best bid is at or over its best ask")
        if self._held is not None:
            return None
        return BookMoved(self.market, at_ns, venue_ns, bids, asks)

    def heard(self, at_ns: int) -> None:
        """The venue said that nothing has changed."""
        self._heard_ns = at_ns

    def hold(self, at_ns: int, reason: str) -> BookLost | None:
        """Serve nothing of a live book, but go on applying what comes, until `release`."""
        if self._lost is not None or self._held is not None:
            return None
        self._held = reason
        return BookLost(self.market, at_ns, reason)

    def release(self, at_ns: int) -> BookReset | None:
        """There was nothing to doubt: the book is as whole as it was."""
        if self._held is None:
            return None
        self._held = None
        whole = self._book.bids(LEVELS_MAX), self._book.asks(LEVELS_MAX)
        return BookReset(self.market, at_ns, 0, *whole)

    def lose(self, at_ns: int, reason: str) -> BookLost:
        """Serve nothing until the next whole book."""
        self.losses += self._lost is None
        self._lost, self._held = reason, None
        return BookLost(self.market, at_ns, reason)
