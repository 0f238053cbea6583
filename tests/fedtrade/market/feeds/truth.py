"""A venue's true book, move by move, and a replica that must never serve another one.

FEDTRADE_FEED_FAULTS asks for about as many faults a venue (for the bar: 10000).
"""

from __future__ import annotations

import os

import numpy as np
from hypothesis import strategies as st

from fedtrade.market.feeds.events import Fetch, Market, Send

MARKET = Market("test", "BTCUSDT", 2, 3)


class Truth:
    """A random walk of a book of some levels a side; `books[i]` is the book after i moves."""

    def __init__(self, seed, moves, market=MARKET, single=False):
        """`single`: every move is of one level, for venues that tell no more in a message."""
        rng = np.random.default_rng(seed)
        self.market = market
        middle = 6_000_000
        bids = {middle - i: int(rng.integers(1, 9_999)) for i in range(1, 40, 2)}
        asks = {middle + i: int(rng.integers(1, 9_999)) for i in range(0, 40, 2)}
        self.books = [(dict(bids), dict(asks))]
        self.moves = []
        for _ in range(moves if single else 0):
            side, price = int(rng.integers(0, 2)), int(rng.integers(1, 40))
            price = middle - price if side == 0 else middle + price
            size = int(rng.integers(0, 3)) and int(rng.integers(1, 9_999))
            moved = ({}, {})
            moved[side][price] = size
            (bids, asks)[side].update(moved[side])
            if not size:
                del (bids, asks)[side][price]
            self.books.append((dict(bids), dict(asks)))
            self.moves.append(moved)
        for _ in range(0 if single else moves):
            middle += int(rng.integers(-6, 7))
            moved = ({}, {})
            for side, book, inside in ((0, bids, -1), (1, asks, 1)):
                for price in [p for p in book if inside * (p - middle) < (inside < 0)]:
                    moved[side][price] = 0  # it was reached
                for _ in range(int(rng.integers(0, 5))):
                    price = middle + inside * int(rng.integers(1, 40))
                    moved[side][price] = int(rng.integers(0, 3)) and int(rng.integers(1, 9_999))
                for price, size in moved[side].items():
                    if size:
                        book[price] = size
                    else:
                        book.pop(price, None)
            for side, book, price in ((0, bids, middle - 41), (1, asks, middle + 41)):
                book[price] = moved[side][price] = 7  # never empty
            self.books.append((dict(bids), dict(asks)))
            self.moves.append(moved)

    def text(self, levels):
        """Pairs of decimal texts, as venues write them."""
        return [[self.price(p), f"{s / 10**self.market.size_decimals:.{self.market.size_decimals}f}"]
                for p, s in levels.items()]  # fmt: skip

    def price(self, units):
        return f"{units / 10**self.market.price_decimals:.{self.market.price_decimals}f}"


def held(book):
    """A Book as two dictionaries."""
    return dict(map(tuple, book.bids(10**6).tolist())), dict(map(tuple, book.asks(10**6).tolist()))


KINDS = ["none"] * 6 + ["drop", "twice", "swap", "torn", "old", "again"]
FAULTS = st.lists(st.sampled_from(KINDS), min_size=30, max_size=60)
EXAMPLES = max(30, int(os.environ.get("FEDTRADE_FEED_FAULTS", "0")) // 20)


def withstand(feed, venue, faults, delay):
    """Play a venue's moves with faults among them; `delay` moves pass before a wish is answered.

    `venue.diff(n)` is the message of move n, from 1 on; `venue.whole(n)` the whole book after it. What
    is served is always the venue's book after the newest move that came; after twelve clean messages
    it is served again; and no fault costs more than one whole book.
    """
    truth = venue.truth
    replica = feed.replicas[truth.market]
    fetched = getattr(feed, "fetched", None)
    wish = Fetch if fetched else Send
    asked, due, made, newest, kept_back = 0, None, 0, 0, None

    def take(out):
        nonlocal asked, due
        if any(isinstance(each, wish) for each in out):
            asked, due = asked + 1, delay
        if replica.live and not replica.held:
            assert held(replica.book(0)) == truth.books[newest]

    take(feed.connected(0))
    for number in range(1, len(truth.moves) + 1):
        fault = faults[number - 1] if number <= len(faults) else "none"
        frame = venue.diff(number)
        made += fault not in ("none", "twice")
        if fault == "swap":
            kept_back = frame, number
            continue
        if fault not in ("torn", "drop"):
            newest = number
        if fault == "torn":
            take(feed.received(frame[: len(frame) // 2], 0))
        elif fault == "again":
            take(feed.connected(0))
            take(feed.received(frame, 0))
        elif fault != "drop":
            take(feed.received(frame, 0))
        if fault == "twice":
            take(feed.received(frame, 0))
        if fault == "old" and number > 3:
            take(feed.received(venue.diff(number - 3), 0))
        if kept_back is not None:
            (late, place), kept_back = kept_back, None
            newest = max(newest, place)
            take(feed.received(late, 0))
        if due is not None:
            due -= 1
            if due < 0:
                due, newest = None, number
                whole = venue.whole(number)
                take(fetched(Fetch(truth.market, ""), whole, 0) if fetched else
                     feed.received(whole, 0))  # fmt: skip
    assert (replica.live, replica.held) == (True, False), (
        "it was not whole again after twelve clean messages"
    )
    assert asked <= 1 + made
