"""The key ceremony: any c + 1 helpers hold the secret, and cheats are found before the key is used."""

import hashlib
import itertools
import os
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrade.privacy import collective, lattice, short_secret, threshold
from fedtrade.privacy.collective import SharesInconsistent, WrongReveal
from fedtrade.privacy.lattice import DEGREE

CONTEXT = b"a test's ceremony"
M, C = 5, 2


def key(*parts):
    return hashlib.sha256(repr(parts).encode()).digest()


@lru_cache(maxsize=8)
def dealings(m=M, c=C, context=CONTEXT):
    return tuple(collective.deal(key(i), context, i, m, c) for i in range(m))


def public_key(dealt, context=CONTEXT):
    return collective.collective_key([d.reveal for d in dealt], context)


def key_shares(dealt):
    return [collective.key_share([d.shares[j] for d in dealt]) for j in range(len(dealt))]


def accept(reveal, index, context=CONTEXT):
    commitment = collective.commitment_of(reveal, context, index)
    collective.verify_reveal(reveal, commitment, context, index)


def rehearse(public, shares, m=M, c=C):
    """All partials of the rehearsal, as the helpers give them."""
    _, encrypted = collective.rehearsal(public)
    still = np.zeros(collective.REHEARSED, np.int64)
    return {
        subset: {
            i: threshold.partial(
                shares[i],
                i,
                subset,
                c,
                encrypted.c1,
                {j: key("pair", *sorted((i, j))) for j in subset if j != i},
                still,
                key("smudge", i),
                b"rehearsal",
            )
            for i in subset
        }
        for subset in collective.rehearsals(m, c)
    }


def interpolate(shares, subset):
    total = np.zeros((2, DEGREE), np.uint64)
    for i in subset:
        total = lattice.add(total, lattice.scale(shares[i], threshold.lagrange(i, subset)))
    return total


def test_any_c_plus_1_shares_hold_the_secret_of_the_public_key_and_c_do_not():
    dealt = dealings()
    public, shares = public_key(dealt), key_shares(dealt)
    found = [interpolate(shares, s) for s in itertools.combinations(range(M), C + 1)]
    assert all((one == found[0]).all() for one in found)
    a = threshold.crs(public[:32])
    (product,) = lattice.multiply(found[0][None], a)
    error = lattice.add(product[0], lattice.from_bytes("b", public[32:], DEGREE))
    signed = error[0].astype(np.int64)
    signed = np.where(signed > 2**59, signed - lattice.PRIMES[0], signed)
    assert np.abs(signed).max() <= M * 21  # b + a·s = −e
    assert signed.any()
    for few in itertools.combinations(range(M), C):
        assert (interpolate(shares, few) != found[0]).mean() > 0.99


def test_everything_is_repeated_from_the_seed_and_bound_to_its_place():
    one = dealings()[1]
    assert one == collective.deal(key(1), CONTEXT, 1, M, C)
    for other in (
        collective.deal(key(2), CONTEXT, 1, M, C),
        collective.deal(key(1), b"another", 1, M, C),
        collective.deal(key(1), CONTEXT, 2, M, C),
    ):
        assert other.reveal[:1000] != one.reveal[:1000]
        assert not set(other.shares) & set(one.shares)


def test_c_shares_of_a_dealer_are_uniform():
    for share in dealings()[0].shares[:C]:
        for row in lattice.from_bytes("share", share, DEGREE):
            counts = np.bincount((row >> np.uint64(52)).astype(np.int64), minlength=256)
            chi2 = float(((counts - 32.0) ** 2 / 32.0).sum())
            assert 150 < chi2 < 380  # 255 degrees of freedom: mean 255, deviation 22.6


@pytest.mark.parametrize(
    ("m", "c", "index"), [(4, 2, 0), (5, 2, 5), (5, 2, -1), (10, 2, 0), (2, 1, 0)]
)
def test_a_committee_that_is_none_is_refused(m, c, index):
    with pytest.raises(threshold.BadRequest):
        collective.deal(key(0), CONTEXT, index, m, c)


def test_honest_reveals_are_accepted():
    for index, dealt in enumerate(dealings()):
        assert len(dealt.reveal) == collective.REVEAL_BYTES
        accept(dealt.reveal, index)


def test_a_rogue_key_computed_from_the_others_is_refused():
    """b' = b − Σ others, so that the collective key is b, whose secret the rogue alone knows."""
    others = dealings()[:4]
    mine = collective.deal(key("rogue"), CONTEXT, 4, M, C)
    rogue = lattice.from_bytes("b", mine.reveal[: collective.SHARE_BYTES], DEGREE)
    for other in others:
        b = lattice.from_bytes("b", other.reveal[: collective.SHARE_BYTES], DEGREE)
        rogue = lattice.subtract(rogue, b)
    proof = mine.reveal[collective.SHARE_BYTES :]
    reveal = lattice.to_bytes(rogue) + proof
    everything = [d.reveal for d in others] + [reveal]
    owned = collective.collective_key(everything, CONTEXT)
    assert owned[32:] == mine.reveal[: collective.SHARE_BYTES]  # the attack works …
    with pytest.raises(WrongReveal, match="equation"):  # … but has no proof
        accept(reveal, 4)
    # the best it can do is to prove with the secret that it knows, which is not that of b'
    a = threshold.crs(collective._seed(CONTEXT))
    label = collective._of(CONTEXT, 4)
    s = short_secret.ternary(key("rogue"), b"secret|" + label, DEGREE)
    e = short_secret.binomial(key("rogue"), b"error|" + label, DEGREE)
    lie = short_secret.prove(a, rogue[None], -s[None], -e[None], key(9), label)
    with pytest.raises(WrongReveal, match="equation"):
        accept(lattice.to_bytes(rogue) + lie, 4)


def test_a_reveal_copied_from_another_helper_or_ceremony_is_refused():
    reveal = dealings()[0].reveal
    with pytest.raises(WrongReveal, match="equation"):
        accept(reveal, 1)
    with pytest.raises(WrongReveal, match="equation"):
        accept(reveal, 0, b"another ceremony")


def test_a_reveal_other_than_the_committed_one_is_refused():
    committed = collective.commitment_of(dealings()[0].reveal, CONTEXT, 0)
    second = collective.deal(key("changed its mind"), CONTEXT, 0, M, C)
    with pytest.raises(WrongReveal, match="committed"):
        collective.verify_reveal(second.reveal, committed, CONTEXT, 0)
    other_place = collective.commitment_of(dealings()[0].reveal, CONTEXT, 1)
    assert other_place != committed


def test_malformed_reveals_are_refused():
    good = dealings()[0].reveal
    out_of_range = lattice.PRIMES[0].to_bytes(8, "little") + good[8:]
    for bad in (b"", good[:-1], good + b"\0", os.urandom(len(good)), out_of_range):
        with pytest.raises(WrongReveal) as caught:
            accept(bad, 0)
        assert caught.value.index == 0


@settings(max_examples=25)
@given(st.integers(0, collective.REVEAL_BYTES - 1), st.integers(1, 255))
def test_a_reveal_with_any_byte_altered_is_refused(place, change):
    bad = bytearray(dealings()[0].reveal)
    bad[place] ^= change
    with pytest.raises(WrongReveal):
        accept(bytes(bad), 0)


@pytest.mark.parametrize(("m", "c"), [(3, 1), (5, 2), (7, 3), (9, 4), (6, 1)])
def test_an_honest_ceremony_passes_its_rehearsal_and_everyone_takes_part(m, c):
    dealt = dealings(m, c)
    public, shares = public_key(dealt), key_shares(dealt)
    subsets = collective.rehearsals(m, c)
    assert len(subsets) == m - c
    assert {i for s in subsets for i in s} == set(range(m))
    assert all(len(s) == c + 1 for s in subsets)
    collective.check_consistency(public, rehearse(public, shares, m, c), m, c)


@pytest.mark.parametrize("victim", range(M))
def test_a_dealer_that_gives_one_helper_a_bad_share_is_noticed(victim):
    """Even a share that is off in a single coefficient by one."""
    honest = dealings()
    shares = list(honest[3].shares)
    bad = lattice.from_bytes("s", shares[victim], DEGREE).copy()
    bad[0, 77] ^= np.uint64(1)
    shares[victim] = lattice.to_bytes(bad)
    dealt = [*honest[:3], collective.Dealing(honest[3].reveal, tuple(shares)), honest[4]]
    public = public_key(dealt)
    with pytest.raises(SharesInconsistent):
        collective.check_consistency(public, rehearse(public, key_shares(dealt)), M, C)


def test_swapped_shares_and_shares_of_another_secret_are_noticed():
    honest = dealings()
    first, second, *rest = honest[1].shares
    other = collective.deal(key("other"), CONTEXT, 1, M, C)
    for shares in ((second, first, *rest), other.shares):
        dealt = [honest[0], collective.Dealing(honest[1].reveal, shares), *honest[2:]]
        public = public_key(dealt)
        with pytest.raises(SharesInconsistent):
            collective.check_consistency(public, rehearse(public, key_shares(dealt)), M, C)


def test_a_dealer_of_too_high_a_degree_is_noticed():
    """Consistent among the first c + 1, but not on one polynomial of degree c."""
    honest = dealings()
    high = list(collective.deal(key(0), CONTEXT, 0, 7, 3).shares[:M])
    dealt = [collective.Dealing(honest[0].reveal, tuple(high)), *honest[1:]]
    public = public_key(dealt)
    with pytest.raises(SharesInconsistent):
        collective.check_consistency(public, rehearse(public, key_shares(dealt)), M, C)


def test_a_rehearsal_without_everybodys_partials_does_not_pass():
    dealt = dealings()
    public, shares = public_key(dealt), key_shares(dealt)
    partials = rehearse(public, shares)
    subset = collective.rehearsals(M, C)[-1]
    for missing in ({}, {s: p for s, p in partials.items() if s != subset}):
        with pytest.raises(threshold.TooFewPartials):
            collective.check_consistency(public, missing, M, C)
    bad = {**partials, subset: {**partials[subset], subset[0]: b"short"}}
    with pytest.raises(lattice.BadResidues):
        collective.check_consistency(public, bad, M, C)
    swapped = {**partials, subset: partials[collective.rehearsals(M, C)[0]]}
    with pytest.raises(threshold.TooFewPartials):
        collective.check_consistency(public, swapped, M, C)


def test_the_rehearsal_is_the_same_for_everybody_and_fills_its_fields():
    public = public_key(dealings())
    values, encrypted = collective.rehearsal(public)
    again = collective.rehearsal(public)
    assert (values == again[0]).all()
    assert encrypted == again[1]
    threshold.check_ciphertext(public, encrypted, collective.REHEARSED, b"rehearsal")
    assert np.abs(values).max() > 2**25


def test_malformed_shares_are_refused():
    good = [d.shares[0] for d in dealings()]
    for bad in (b"", good[1][:-8], b"\xff" * len(good[1])):
        with pytest.raises(lattice.BadResidues, match="share of 1"):
            collective.key_share([good[0], bad, *good[2:]])
