"""The same attacks against a naive pairwise scheme succeed: they are attacks, and not noise."""

import numpy as np
import pytest
from naive import mask, naive_members, naive_sum

SEATS = (1, 2, 3, 4, 5)


@pytest.fixture
def vectors():
    return np.random.default_rng(7).integers(-(2**20), 2**20, (5, 300)).astype(np.uint32)


@pytest.fixture
def members(vectors):
    return naive_members(vectors)


def test_it_works_when_all_are_honest(members, vectors):
    uploads = {s: members[s].upload(SEATS) for s in SEATS}
    np.testing.assert_array_equal(naive_sum(members, uploads, SEATS), vectors.sum(0, np.uint32))
    del uploads[2]  # a real drop-out
    rest = np.delete(vectors, 1, axis=0).sum(0, np.uint32)
    np.testing.assert_array_equal(naive_sum(members, uploads, SEATS), rest)


def test_a_cohort_of_one_gives_the_victims_vector(members, vectors):
    np.testing.assert_array_equal(members[3].upload((3,)), vectors[2])


def test_two_subsets_of_one_round_give_the_victims_vector(members, vectors):
    """The differencing attack: with the victim, and once more without it."""
    everybody = {s: members[s].upload(SEATS) for s in SEATS}
    without = {s: everybody[s] for s in SEATS if s != 3}
    first = naive_sum(members, everybody, SEATS)
    second = naive_sum(members, without, SEATS)
    np.testing.assert_array_equal(first - second, vectors[2])


def test_a_member_claimed_present_and_absent_gives_its_vector(members, vectors):
    """Its upload is kept, and the others are told that it has dropped out."""
    kept = members[3].upload(SEATS).copy()
    for s in (1, 2, 4, 5):
        shared = mask(members[s].seed_of(3), len(kept))
        kept = kept - shared if s > 3 else kept + shared
    np.testing.assert_array_equal(kept, vectors[2])


def test_a_replayed_round_gives_how_an_update_has_changed(members, vectors):
    """The masks are bound to no round: two uploads differ by the vectors alone."""
    before = members[3].upload(SEATS)
    members[3].vector = members[3].vector + np.uint32(12345)
    np.testing.assert_array_equal(members[3].upload(SEATS) - before, np.full(300, 12345, np.uint32))


def test_equivocation_over_the_cohort_gives_the_victims_vector(members, vectors):
    """The victim is told of one partner only, and that partner's seed is asked for."""
    masked = members[3].upload((3, 4))
    shared = mask(members[4].seed_of(3), len(masked))
    np.testing.assert_array_equal(masked - shared, vectors[2])
