"""A venue's true book, move by move: what a replica is compared with."""

from __future__ import annotations

import numpy as np

from fedtrade.market.feeds.events import Market

MARKET = Market("test", "BTCUSDT", 2, 3)


class Truth:
    """A random walk of a book of some levels a side; `books[i]` is the book after i moves."""

    def __init__(self, seed, moves, market=MARKET):
        rng = np.random.default_rng(seed)
        self.market = market
        middle = 6_000_000
        bids = {middle - i: int(rng.integers(1, 9_999)) for i in range(1, 40, 2)}
        asks = {middle + i: int(rng.integers(1, 9_999)) for i in range(0, 40, 2)}
        self.books = [(dict(bids), dict(asks))]
        self.moves = []
        for _ in range(moves):
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
