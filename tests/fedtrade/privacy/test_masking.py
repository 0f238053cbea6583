"""The mask committee: masks cancel exactly, and c helpers with the coordinator see noise."""

import itertools
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.privacy import masking

committees = st.sampled_from([(3, 1), (5, 2), (5, 1), (7, 3)])


@given(committees, st.integers(1, 6), st.integers(1, 70), st.sampled_from([32, 64]), st.data())
def test_any_c_plus_1_helpers_remove_the_sum_of_the_masks(committee, members, length, bits, data):
    m, c = committee
    ring = masking.RING_OF_BITS[bits]
    size = data.draw(st.integers(c + 1, m))
    responders = tuple(sorted(data.draw(st.permutations(range(m)))[:size]))
    rng = np.random.default_rng(7)
    total = np.zeros(length, ring)
    masked = np.zeros(length, ring)
    seeds = {}
    for member in range(members):
        x = rng.integers(0, 2**bits - 1, length, dtype=ring)
        context = masking.member_context(b"c" * 32, member)
        seeds[context] = [os.urandom(32) for _ in masking.subsets(m, c)]
        total += x
        masked += masking.mask(x, seeds[context], context)
    owner = masking.owners(responders, m, c)
    for helper in responders:
        held = masking.seeds_of(helper, m, c)
        mine = [i for i in held if owner[i] == helper]
        owned = {context: [s[i] for i in mine] for context, s in seeds.items()}
        masked -= masking.mask_share(owned, length, masked.dtype)
    assert (masked == total).all()


@pytest.mark.parametrize(("m", "c"), [(3, 1), (5, 2), (7, 3)])
def test_every_c_helpers_miss_a_seed_and_every_c_plus_1_hold_all(m, c):
    everything = set(range(len(masking.subsets(m, c))))
    held = [set(masking.seeds_of(h, m, c)) for h in range(m)]
    for coalition in itertools.combinations(range(m), c):
        assert set().union(*(held[h] for h in coalition)) != everything
    for coalition in itertools.combinations(range(m), c + 1):
        assert set().union(*(held[h] for h in coalition)) == everything


@given(committees, st.data())
def test_owners_are_outside_their_subset_and_evenly_loaded(committee, data):
    m, c = committee
    size = data.draw(st.integers(c + 1, m))
    responders = tuple(sorted(data.draw(st.permutations(range(m)))[:size]))
    owner = masking.owners(responders, m, c)
    for subset, helper in zip(masking.subsets(m, c), owner, strict=True):
        assert helper in responders
        assert helper not in subset
    loads = [owner.count(h) for h in responders]
    if size == m:
        assert max(loads) - min(loads) <= 1


def test_too_few_responders_cannot_be_given_the_masks():
    with pytest.raises(ValueError, match="3 can"):
        masking.owners((0, 4), 5, 2)


def test_one_missing_seed_leaves_the_vector_uniform():
    """Chi-square of the top byte: with all seeds but one removed, nothing of x can be seen."""
    x = np.zeros(64_000, np.uint32)
    seeds = [os.urandom(32) for _ in range(10)]
    y = masking.mask(x, seeds, b"ctx")
    y -= masking.mask_share({b"ctx": seeds[1:]}, len(x), x.dtype)
    counts = np.bincount(y >> 24, minlength=256)
    chi2 = float(((counts - 250.0) ** 2 / 250.0).sum())
    assert 150 < chi2 < 380  # 255 degrees of freedom: mean 255, sd 22.6
    y -= masking.mask_share({b"ctx": seeds[:1]}, len(x), x.dtype)
    assert not y.any()


@given(st.integers(2, 6), st.integers(1, 40))
def test_shares_of_zero_add_up_to_zero(size, length):
    pair = {(i, j): os.urandom(32) for i in range(size) for j in range(i)}
    total = np.zeros(length, np.uint32)
    for i in range(size):
        mine = {j: pair[(max(i, j), min(i, j))] for j in range(size) if j != i}
        share = masking.zero_share(i, mine, b"manifest", length, total.dtype)
        assert share.any() or length < 3
        total += share
    assert not total.any()


def test_a_mask_is_bound_to_its_context():
    seed = [os.urandom(32)]
    zero = np.zeros(8, np.uint32)
    assert (masking.mask(zero, seed, b"a") != masking.mask(zero, seed, b"b")).any()
    round_1 = masking.round_context(b"t" * 32, 1, 1, b"m" * 32)
    for other in (
        masking.round_context(b"t" * 32, 1, 2, b"m" * 32),
        masking.round_context(b"t" * 32, 2, 1, b"m" * 32),
        masking.round_context(b"u" * 32, 1, 1, b"m" * 32),
        masking.round_context(b"t" * 32, 1, 1, b"n" * 32),
    ):
        assert other != round_1


def test_a_box_opens_only_with_its_key_context_and_count():
    key = os.urandom(32)
    seeds = [os.urandom(32), os.urandom(32)]
    box = masking.seal(key, seeds, b"e" * 32, b"ctx")
    assert masking.unseal(key, box, b"ctx", 2) == tuple(seeds)
    for k, b, context, count in (
        (os.urandom(32), box, b"ctx", 2),
        (key, box[:-1] + bytes([box[-1] ^ 1]), b"ctx", 2),
        (key, box, b"other", 2),
        (key, box, b"ctx", 3),
    ):
        with pytest.raises(masking.BoxUnreadable):
            masking.unseal(k, b, context, count)


def test_a_commitment_depends_on_seed_subset_and_context():
    seed = os.urandom(32)
    one = masking.commitment(seed, b"ctx", 0)
    assert one == masking.commitment(seed, b"ctx", 0)
    assert one != masking.commitment(seed, b"ctx", 1)
    assert one != masking.commitment(seed, b"other", 0)
    assert one != masking.commitment(os.urandom(32), b"ctx", 0)
