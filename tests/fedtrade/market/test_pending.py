"""The pending pool: what a plain model of a node and a chain says, and what no pool may say."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fedtrade.errors import BadInput
from fedtrade.market.events import Head
from fedtrade.market.pending import (
    UNDONE_MAX,
    Gone,
    PendingPool,
    PendingTransaction,
    PendingUnknown,
)

GWEI = 10**9


def tx(name, sender="a", nonce=0, fee=20, tip=2, gas=21_000):
    return PendingTransaction(name, sender, nonce, "0x0", 0, gas, fee * GWEI, tip * GWEI, b"")


def head(number, branch="", parent_branch=None):
    parent = branch if parent_branch is None else parent_branch
    return Head(number, f"{number}{branch}", f"{number - 1}{parent}", 12 * number, GWEI)


@pytest.fixture
def pool():
    pool = PendingPool(most=100)
    pool.begin(head(1), 0)
    return pool


def fates(gone):
    return [(g.transaction.hash, g.fate, g.by) for g in gone]


def test_it_arrives_once_and_a_block_takes_it(pool):
    assert pool.arrive(tx("x"), 1) == pool.arrive(tx("x"), 2) == []
    assert "x" in pool
    assert len(pool) == 1
    assert fates(pool.mine(head(2), [("x", "a", 0)], 3)) == [("x", "mined", None)]
    assert len(pool) == 0
    assert pool.arrive(tx("x"), 4) == []
    assert len(pool) == 0


@pytest.mark.parametrize(
    ("fee", "tip", "taken"), [(22, 3, True), (21, 3, False), (22, 2, False), (40, 2, False)]
)
def test_a_replacement_pays_a_tenth_more_of_both_fees(pool, fee, tip, taken):
    pool.arrive(tx("x", fee=20, tip=2), 1)
    gone = pool.arrive(tx("y", fee=fee, tip=tip), 2)
    assert fates(gone) == ([("x", "replaced", "y")] if taken else [])
    assert [t.hash for t in pool] == (["y"] if taken else ["x"])


def test_what_another_transaction_took_the_nonce_of_is_displaced(pool):
    for nonce, name in enumerate("xyz"):
        pool.arrive(tx(name, nonce=nonce), 1)
    gone = pool.mine(head(2), [("private", "a", 1)], 2)
    assert fates(gone) == [("x", "displaced", None), ("y", "displaced", "private")]
    assert [t.hash for t in pool] == ["z"]


def test_an_undone_block_gives_back_what_it_took(pool):
    pool.arrive(tx("x"), 1)
    pool.arrive(tx("y", sender="b"), 1)
    pool.mine(head(2), [("x", "a", 0)], 2)
    pool.mine(head(3), [("y", "b", 0)], 3)
    gone = pool.mine(head(2, "'", ""), [("y", "b", 0)], 4)
    assert fates(gone) == [("y", "mined", None)]
    assert [t.hash for t in pool] == ["x"]
    assert pool.arrive(tx("z", nonce=0, fee=50, tip=9), 5) != []  # nonce 0 is free again


def test_a_gap_is_not_guessed_across(pool):
    pool.arrive(tx("x"), 1)
    with pytest.raises(PendingUnknown, match="does not follow"):
        pool.mine(head(3), [], 2)
    with pytest.raises(PendingUnknown):
        pool.check(2)
    assert len(pool) == 0
    assert pool.arrive(tx("x"), 3) == []
    assert len(pool) == 0
    pool.begin(head(3), 4)
    pool.check(4)
    pool.arrive(tx("x"), 4)
    assert len(pool) == 1


def test_a_silent_node_is_not_believed(pool):
    pool.arrive(tx("x"), 10)
    pool.check(130)
    with pytest.raises(PendingUnknown, match="nothing for 121 s"):
        pool.check(131)


def test_what_waits_too_long_expires(pool):
    pool.arrive(tx("x"), 0)
    pool.arrive(tx("y", sender="b"), 5)
    assert pool.expire(3 * 3600) == []
    assert fates(pool.expire(3 * 3600 + 1)) == [("x", "expired", None)]
    assert fates(pool.drop("y", 6)) == [("y", "dropped", None)]
    assert pool.drop("y", 7) == []


def test_a_full_pool_loses_the_cheapest_and_what_hangs_on_it():
    pool = PendingPool(most=3)
    pool.begin(head(1), 0)
    pool.arrive(tx("x", fee=5, tip=1), 1)
    pool.arrive(tx("y", nonce=1, fee=90, tip=1), 1)
    pool.arrive(tx("z", sender="b"), 1)
    gone = pool.arrive(tx("w", sender="c"), 1)
    assert fates(gone) == [("x", "crowded out", None), ("y", "crowded out", None)]
    assert {t.hash for t in pool} == {"z", "w"}
    pool.arrive(tx("v", sender="d"), 1)
    assert fates(pool.arrive(tx("u", sender="e", fee=1, tip=1), 1)) == [("u", "crowded out", None)]


def test_many_replacements_take_no_more_memory():
    pool = PendingPool(most=10)
    pool.begin(head(1), 0)
    for i in range(200):
        pool.arrive(tx(f"x{i}", fee=int(10 * 1.15**i) + i, tip=int(10 * 1.15**i) + i), 1)
    assert len(pool) == 1
    assert len(pool._cheapest) <= 23
    for number in range(2, 300):
        pool.mine(head(number), [(f"m{number}", f"s{number}", 0)], 1)
    assert len(pool._blocks) == UNDONE_MAX


def test_a_builder_takes_the_best_tips_in_the_order_of_nonces(pool):
    pool.arrive(tx("a0", "a", 0, fee=50, tip=1), 1)
    pool.arrive(tx("a1", "a", 1, fee=50, tip=9), 1)
    pool.arrive(tx("b0", "b", 0, fee=50, tip=5), 1)
    pool.arrive(tx("c0", "c", 0, fee=9, tip=9), 1)  # cannot pay the base fee
    assert [t.hash for t in pool.next_block(10 * GWEI, 10**6)] == ["b0", "a0", "a1"]
    assert [t.hash for t in pool.next_block(10 * GWEI, 50_000)] == ["b0", "a0"]
    pool.mine(head(2), [("b-", "b", 4)], 2)
    pool.arrive(tx("b6", "b", 6, fee=50, tip=5), 3)  # 5 is missing
    assert [t.hash for t in pool.next_block(10 * GWEI, 10**6)] == ["a0", "a1"]


def test_a_negative_number_is_refused():
    with pytest.raises(BadInput):
        tx("x", nonce=-1)


class Chain(RuleBasedStateMachine):
    """A chain that mines, displaces and undoes, beside a model that replays its blocks."""

    @initialize()
    def start(self):
        self.pool = PendingPool(most=10_000, keep_s=10**9)
        self.pool.begin(head(1), 0)
        self.heads = [head(1)]
        self.mined = [[]]
        self.told = {}  # hash -> transaction, by the order of arrival
        self.lost = set()  # refused, replaced or displaced for good
        self.branch = 0

    def used(self):
        found = {}
        for block in self.mined:
            for _, sender, nonce in block:
                found[sender] = nonce + 1
        return found

    def slot(self, sender, nonce):
        held = [t for t in self.pool if (t.sender, t.nonce) == (sender, nonce)]
        return held[0] if held else None

    @rule(sender=st.sampled_from("abc"), nonce=st.integers(0, 6), fee=st.integers(1, 30))
    def arrive(self, sender, nonce, fee):
        new = tx(f"t{len(self.told)}", sender, nonce, fee, fee)
        before = self.slot(sender, nonce)
        gone = self.pool.arrive(new, 1)
        self.told[new.hash] = new
        if nonce < self.used().get(sender, 0):
            assert new.hash not in self.pool
            assert not gone
        elif before is None:
            assert new.hash in self.pool
            assert not gone
        elif 10 * fee * GWEI >= 11 * before.max_fee_wei:
            assert gone == [Gone(before, "replaced", new.hash)]
        else:
            assert new.hash not in self.pool
            assert before.hash in self.pool

    @rule(data=st.data(), private=st.booleans())
    def mine(self, data, private):
        self.grow(self.heads[-1], data, private)

    @precondition(lambda self: len(self.heads) > 1)
    @rule(data=st.data(), depth=st.integers(1, 5))
    def undo(self, data, depth):
        depth = min(depth, len(self.heads) - 1)
        before = {t.hash for t in self.pool}
        del self.heads[-depth:], self.mined[-depth:]
        self.branch += 1
        self.grow(self.heads[-1], data, False, before)

    def grow(self, parent, data, private, before=frozenset()):
        new = Head(parent.number + 1, f"{parent.number + 1}#{self.branch}.{len(self.told)}"
                   f".{len(self.heads)}", parent.hash, 0, GWEI)  # fmt: skip
        used, block = self.used(), []
        for sender in data.draw(st.lists(st.sampled_from("abc"), unique=True)):
            nonce = used.get(sender, 0)
            held = self.slot(sender, nonce)
            name = held.hash if held and not private else f"private {new.hash} {sender}"
            block.append((name, sender, nonce))
        gone = self.pool.mine(new, block, 1)
        self.heads.append(new)
        self.mined.append(block)
        names = {name for name, _, _ in block}
        for g in gone:
            assert (g.fate == "mined") == (g.transaction.hash in names)
        kept = {h for h in before if self.told[h].nonce >= self.used().get(self.told[h].sender, 0)}
        assert kept <= {t.hash for t in self.pool}  # an undone block loses nothing

    @invariant()
    def none_is_used_and_none_is_twice(self):
        used = self.used()
        slots = [(t.sender, t.nonce) for t in self.pool]
        assert len(slots) == len(set(slots)) == len(self.pool)
        assert all(nonce >= used.get(sender, 0) for sender, nonce in slots)
        assert all(t.hash in self.told for t in self.pool)
        assert [t.nonce for t in self.pool.of("a")] == sorted(n for s, n in slots if s == "a")


TestChain = Chain.TestCase
TestChain.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
