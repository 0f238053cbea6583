"""A venue's true book, move by move, and a replica that must never serve another one."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
from hypothesis import strategies as st

from fedtrade.market.feeds.events import BookLost, BookReset, Fetch, Market, Send

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
            side = int(rng.integers(0, 2))
            book, inside = (bids, asks)[side], (-1, 1)[side]
            price = middle + inside * int(rng.integers(1, int(rng.integers(2, 41))))  # mostly near
            goes = price in book and len(book) > 9 and rng.integers(0, 2)
            moved = ({}, {})
            moved[side][price] = 0 if goes else book.get(price, 0) + int(rng.integers(1, 99))
            book.update(moved[side])
            if goes:
                del book[price]
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


def applied(book, moved):
    """What a book is after a move; it is changed in place."""
    for side, levels in zip(book, moved, strict=True):
        for price, size in levels.items():
            if size:
                side[price] = size
            else:
                side.pop(price, None)
    return book


KINDS = ("drop", "twice", "swap", "torn", "split", "old", "again", "altered", "crossed")
"""A message that is left out, comes twice, comes after the next one, or as its first half alone, or as
two halves; the last but two again; a new connection, which is no fault; levels that are not what the
venue's checksum is of, where it has one; a bid over the best ask."""
FAULTS = st.lists(st.sampled_from(["none"] * 7 + list(KINDS)), min_size=30, max_size=60)
CLEAN = 24
"""Messages without a fault in the end, after which a book must be whole again."""
SOON = 16
"""Messages after which one must be whole again that was doubted: two seconds and the answer."""
STEP_NS = 250_000_000


class Tally:
    """What was injected into the feed of a venue, and what came of it: by kind of fault.

    Found are those after which the book was refused before the next fault came; a book of after them
    was compared with the venue's whether they are or not.
    """

    def __init__(self):
        self.injected, self.wrong, self.found, self.served_wrong = (Counter() for _ in range(4))
        self.losses = self.asked = self.served = self.most_asked = 0

    @property
    def counted(self):
        """Faults that count: they came while the book was served, and a book without rules would
        have been another than the venue's after them."""
        return sum(self.wrong.values())

    def table(self, name):
        rows = [
            f"{name}: {self.counted} faults that would have made the book wrong; {self.served} books "
            f"served and compared, {self.losses} losses, {self.asked} whole books asked for after "
            f"them, at most {self.most_asked} each"
        ]
        rows += [
            f"  {kind:8}{self.injected[kind]:8} injected{self.wrong[kind]:8} would be wrong"
            f"{self.found[kind]:8} found{self.served_wrong[kind]:8} wrong books served"
            for kind in KINDS if self.injected[kind]
        ]  # fmt: skip
        return "\n".join(rows)


class Trial:
    """One feed, one side of a venue, and what must hold between them at every moment.

    A side gives `diff(n)`, the message of move n from 1 on, what `moved(n)` by it, and `whole(n)`, the
    whole book after it.
    What is served is always the venue's book after the newest move that came. A side that is not
    `numbered` cannot show that a message is missing: there it is the book of all moves that came, in
    their order. A side whose every message is the whole book says so by `repeats`. One that tells its
    best levels apart gives `best(n)`, that message and them, None where move n left them: once it came,
    what is served has them, too.
    """

    def __init__(self, feed, side, seed, delay, tally):
        self.feed, self.side, self.truth, self.delay = feed, side, side.truth, delay
        self.replica = feed.replicas[self.truth.market]
        self.fetched = getattr(feed, "fetched", None)
        self.numbered = getattr(side, "numbered", True)
        self.repeats = getattr(side, "repeats", False)
        self.best = getattr(side, "best", None)
        self.random, self.tally = random.Random(seed), tally
        self.clock_ns = self.newest = self.asked = self.number = 0
        self.due = self.pending = self.missing = None
        """`missing`: why a move has not come, since the newest whole book."""
        self.right = True
        """Whether the newest book served was the venue's own, where the stream may not tell."""
        self.fold = self.blind = ({}, {})
        """The book of what came, in its order; and as it came, without any rule."""
        self.take(feed.connected(0), connecting=True)

    @property
    def serves(self):
        return self.replica.live and not self.replica.held

    def take(self, out, connecting=False):
        """What the feed gave: at most one wish a loss, and never a wrong book."""
        wish, before = Fetch if self.fetched else Send, None
        for each in out:
            if isinstance(each, BookReset):
                self.asked = 0
            if isinstance(each, wish) and not isinstance(before, wish):
                self.asked += 1
                self.tally.asked += not connecting
                self.tally.most_asked = max(self.tally.most_asked, self.asked)
                assert self.asked <= 1, "two whole books were asked for after one loss"
                self.due = self.delay
            self.tally.losses += isinstance(each, BookLost)
            before = each
        if not self.serves:
            if self.pending:
                self.tally.found[self.pending] += 1
                self.pending = None
            return
        told = held(self.replica.book(self.clock_ns))
        self.tally.served += 1
        assert max(told[0], default=0) < min(told[1], default=2**62), "a crossed book is served"
        assert told == (self.truth.books[self.newest] if self.numbered else self.fold)
        if self.right and told != self.truth.books[self.number]:
            self.tally.served_wrong[self.missing] += 1
        self.right = told == self.truth.books[self.number]

    def give(self, frame):
        self.clock_ns += STEP_NS
        self.take(self.feed.received(frame, self.clock_ns))

    def came(self, number):
        """A move came through, maybe late or again."""
        moved = self.side.moved(number)
        if number > self.newest:
            applied(self.fold, moved)
        self.newest = max(self.newest, number)
        if self.repeats:
            self.blind = self.copy(number)
        else:
            applied(self.blind, moved)

    def copy(self, number):
        return tuple(dict(side) for side in self.truth.books[number])

    def play(self, faults):
        kept_back, refused = None, 0
        for number in range(1, len(self.truth.moves) + 1):
            self.number = number
            fault = faults[number - 1] if number <= len(faults) else "none"
            served = self.serves
            if (fault == "old" and number <= 3) or kept_back:
                fault = "none"
            if fault in ("altered", "crossed") and not (served and self.newest == number - 1):
                fault = "none"  # what is kept until the whole book comes shows no crossing
            frame = self.side.diff(number)
            if fault in ("altered", "crossed"):
                frame, moved = getattr(self.side, fault)(number)
                if frame is None:
                    fault, frame = "none", self.side.diff(number)
            if fault not in ("none", "again") and served:
                self.tally.injected[fault] += 1
                self.pending = fault
            self.missing = fault if fault in ("drop", "swap") else self.missing
            if fault in ("altered", "crossed"):
                self.newest = number
                applied(self.fold, moved)
                applied(self.blind, moved)
                self.give(frame)
            else:
                self.move(fault, number, frame)
            if fault == "swap":
                kept_back = number, frame, served
            elif kept_back:
                late, frame, served = kept_back
                kept_back, fault = None, "swap"
                self.came(late)
                self.give(frame)
            self.tell_best(number)
            if kept_back is None:
                self.judge(fault, number, served)
            self.answer(number)
            refused = 0 if self.serves else refused + 1
        # a hole that only now shows takes its time: what nothing shows at once may show at any time
        soon = self.numbered or refused > SOON
        assert self.serves or not soon, f"it was not whole again after {refused} clean messages"

    def move(self, fault, number, frame):
        """Give a move's message as the fault has it."""
        cut = self.random.randrange(1, len(frame))
        if fault == "torn":
            self.give(frame[:cut])
        elif fault == "split":
            self.give(frame[:cut])
            self.give(frame[cut:])
        elif fault in ("none", "twice", "old", "again"):
            if fault == "again":
                self.asked, self.pending = 0, None
                self.clock_ns += STEP_NS
                self.take(self.feed.connected(self.clock_ns), connecting=True)
            self.came(number)
            self.give(frame)
            if fault == "twice":
                self.came(number)
                self.give(frame)
            if fault == "old":
                self.came(number - 3)
                self.give(self.side.diff(number - 3))

    def tell_best(self, number):
        told = None if self.best is None else self.best(number)
        if told is not None:
            frame, best = told
            self.give(frame)
            if self.serves:
                assert self.replica.book(self.clock_ns).best() == best

    def judge(self, fault, number, served):
        """Whether a book without rules would be wrong now; then it is put right."""
        wrong = self.blind != self.truth.books[self.newest if self.repeats else number]
        self.tally.wrong[fault] += wrong and served and fault in KINDS
        self.blind = self.copy(self.newest if self.repeats else number)

    def answer(self, number):
        """The venue's whole book, some moves after it was asked for."""
        if self.due is None:
            return
        self.due -= 1
        if self.due >= 0:
            return
        self.due, self.newest, self.missing = None, number, None
        self.fold, self.blind = self.copy(number), self.copy(number)
        whole = self.side.whole(number)
        if self.fetched is None:
            self.give(whole)
        else:
            self.take(self.fetched(Fetch(self.truth.market, ""), whole, self.clock_ns))
