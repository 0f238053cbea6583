"""The order book against two dictionaries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrade.market import book as module
from fedtrade.market.book import NO_LEVELS, Book

level = st.tuples(st.integers(1, 60), st.integers(0, 5))
levels = st.lists(level, max_size=30)


def array(pairs):
    return np.array(pairs, np.int64).reshape(-1, 2)


@settings(max_examples=300)
@given(st.lists(st.tuples(levels, levels), min_size=1, max_size=12))
def test_it_holds_what_two_dictionaries_hold(moves):
    book, bids, asks = Book(), {}, {}
    for place, (b, a) in enumerate(moves):
        (book.apply if place else book.reset)(array(b), array(a))
        for side, said in ((bids, b), (asks, a)):
            side.update(said)
            for price in [p for p, size in side.items() if not size]:
                del side[price]
        assert list(map(tuple, book.bids(100).tolist())) == sorted(bids.items(), reverse=True)
        assert list(map(tuple, book.asks(100).tolist())) == sorted(asks.items())
        assert list(map(tuple, book.bids(3).tolist())) == sorted(bids.items(), reverse=True)[:3]
        assert len(book) == len(bids) + len(asks)
        if bids and asks:
            assert book.best() == (max(bids), bids[max(bids)], min(asks), asks[min(asks)])
            assert book.crossed == (max(bids) >= min(asks))
        else:
            assert book.best() is None
            assert not book.crossed


def test_it_grows_and_forgets_the_worst(monkeypatch):
    monkeypatch.setattr(module, "LEVELS_MAX", 3_000)
    book = Book()
    prices = np.random.default_rng(1).permutation(5_000) + 1
    for part in np.array_split(prices, 7):
        book.apply(np.stack((part, part), axis=1), np.stack((part + 10_000, part), axis=1))
    assert book.bids(9_999)[:, 0].tolist() == list(range(5_000, 2_000, -1))
    assert book.asks(9_999)[:, 0].tolist() == list(range(10_001, 13_001))


def test_a_reset_forgets_all(monkeypatch):
    book = Book()
    book.apply(array([(5, 1)]), array([(6, 1)]))
    book.reset(NO_LEVELS, array([(7, 2)]))
    assert len(book) == 1
    with pytest.raises(TypeError):
        book.best()[0]
