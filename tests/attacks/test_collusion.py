"""Up to c helpers work with the coordinator and pool all they hold: an honest vector stays hidden.

They hold every message, their own boxes' seeds, and the seeds that they share with other helpers. Each
test takes away every mask that these can take away and looks at what is left; each has a control, with
one helper more or one protection less, in which the secret comes out exactly.
"""

import itertools

import numpy as np
import pytest
from adversary import Adversary, byte_p_value, seeds_held, stripped

from consortium.rehearsal import small_base
from fedtrade.privacy import masking
from fedtrade.privacy.aggregation import ring_of
from fedtrade.privacy.mechanism import noise_variance
from fedtrade.protocol import Answer, decode

P_LEAST = 1e-6
"""Keys are drawn anew in every run, so a test of uniform bytes fails by chance once in a million."""


def wide_base():
    """A few hundred parameters: enough bytes for a chi-square."""
    return small_base(hidden=(40,))


@pytest.fixture(scope="module", params=["mask", "five", "certificate"])
def a(request, tmp_path_factory):
    adversary = Adversary(tmp_path_factory.mktemp("a"), request.param, base=wide_base())
    adversary.plain = {}
    for seat, desk in adversary.desks.items():
        watch(desk.member, adversary.plain, seat)
    adversary.collect().make_ready()
    yield adversary
    adversary.close()


def watch(member, found, seat):
    """Keep what the member adds to the sum, which only a test may see."""
    units = member._units

    def watched(vector, context):
        found[seat] = units(vector, context)
        return found[seat]

    member._units = watched


def test_c_helpers_and_the_coordinator_see_uniform_bytes_and_c_plus_1_see_all(a):
    c, ring = a.p.corrupt, ring_of(a.terms)
    victims = [s for s in a.desks if s not in a.helpers]
    left = [
        stripped(a, victim, seats)
        for victim in victims
        for seats in itertools.combinations(a.helpers, c)
    ]
    assert byte_p_value(left) > P_LEAST
    for victim in victims:
        for seats in itertools.combinations(a.helpers, c + 1):
            np.testing.assert_array_equal(stripped(a, victim, seats), a.plain[victim].astype(ring))
    # the control of the chi-square: unmasked vectors are far from uniform
    assert byte_p_value([a.plain[v].astype(ring) for v in victims]) < 1e-30


def test_every_c_set_misses_exactly_the_seed_of_its_own_subset(a):
    p = a.p
    for seats in itertools.combinations(a.helpers, p.corrupt):
        held = seeds_held(a, seats)
        own = tuple(sorted(a.helpers[s].index for s in seats))
        for seeds in held.values():
            missing = set(range(len(masking.subsets(p.helpers, p.corrupt)))) - set(seeds)
            assert [masking.subsets(p.helpers, p.corrupt)[i] for i in missing] == [own]


def test_what_is_left_of_two_members_is_independent(a):
    """The difference of two masked vectors is uniform as well: no mask is shared."""
    seats = tuple(a.helpers)[: a.p.corrupt]
    pairs = itertools.combinations(a.desks, 2)
    left = [stripped(a, one, seats) - stripped(a, two, seats) for one, two in pairs]
    assert byte_p_value(left) > P_LEAST


def owner_of_known_masks(a, bad):
    """A responder outside `bad` all of whose masks `bad` know, so that only noise protects it."""
    p = a.p
    responders = tuple(range(p.helpers))
    owner = masking.owners(responders, p.helpers, p.corrupt)
    indices = {a.helpers[s].index for s in bad}
    for seat, helper in a.helpers.items():
        mine = [s for i, s in enumerate(masking.subsets(p.helpers, p.corrupt))
                if owner[i] == helper.index]  # fmt: skip
        if seat not in bad and all(set(s) != indices for s in mine):
            return seat
    return None


def without_known_masks(a, seat, bad, share):
    """An answer less all the masks in it that `bad` know."""
    p = a.p
    owner = masking.owners(tuple(range(p.helpers)), p.helpers, p.corrupt)
    index = a.helpers[seat].index
    left = share.copy()
    for member, seeds in seeds_held(a, bad).items():
        context = masking.member_context(a.round.context, member)
        for subset, seed in seeds.items():
            if owner[subset] == index:
                left -= masking.mask_share({context: [seed]}, len(left), left.dtype)
    return left


def without_known_zeros(a, seat, bad, content, left):
    """And less the shares of zero that it shares with `bad`, who know those seeds too."""
    index = a.helpers[seat].index
    known = {}
    for other in bad:
        helper = a.helpers[other]
        secret = helper._keys.x25519_exchange(a.terms.helpers[index].x25519)
        known[helper.index] = masking.derive(secret, b"fedtrade zero", content)
    label = content + (0).to_bytes(4, "big")
    return left - masking.zero_share(index, known, label, len(left), left.dtype)


def test_an_honest_answer_stripped_by_c_helpers_is_uniform_and_without_zeros_is_its_noise(a):
    """What no share of zero would cost: the control reads an honest helper's noise exactly."""
    question = a.finalise(a.question())
    ring = ring_of(a.terms)
    content = a.manifest.content()
    left, naive, seen = [], [], 0
    for bad in itertools.combinations(a.helpers, a.p.corrupt):
        seat = owner_of_known_masks(a, bad)
        if seat is None:
            continue
        seen += 1
        answer = decode(Answer, a.ask("answer", seat, question))
        share = np.frombuffer(answer.share, ring.newbyteorder("<")).astype(ring)
        rest = without_known_masks(a, seat, bad, share)
        left.append(without_known_zeros(a, seat, bad, content, rest))
        # the control: the same answer by a helper that adds no share of zero
        helper = a.helpers[seat]
        pairs, helper._pairs = helper._pairs, lambda responders, label: {}
        bare = helper._share(helper._open, a.manifest, content, tuple(range(a.p.helpers)))
        helper._pairs = pairs
        rest = without_known_masks(
            a, seat, bad, np.frombuffer(bare, ring.newbyteorder("<")).astype(ring)
        )
        drawn = helper._noise(content, 0, a.p.helpers)
        np.testing.assert_array_equal((-rest).view(np.int32), drawn)
        naive.append(rest)
    assert seen >= len(a.helpers) - 1
    assert byte_p_value(left) > P_LEAST
    assert byte_p_value(naive) < 1e-30


def test_a_sum_without_the_colluding_members_still_holds_the_whole_honest_noise(a):
    """The most that c helpers and all members but the victim's cohort can know: the honest helpers'
    noise is still on it, and its deviation is at least the accounted one."""
    question = a.finalise(a.question())
    for seat in a.manifest.responders:
        a.round.manifest = a.manifest
        if seat not in a.round.answers:
            a.round.answer(a.ask("answer", seat, question))
    total = a.round.sum()[0]
    plain = sum(a.plain[s] for s in a.manifest.cohort)
    bad = list(a.helpers)[: a.p.corrupt]
    content, r = a.manifest.content(), len(a.manifest.responders)
    drawn = {s: h._noise(content, 0, r) for s, h in a.helpers.items()}
    np.testing.assert_array_equal(total - plain, sum(drawn.values()))
    honest = total - plain - sum(drawn[s] for s in bad)
    sigma = np.sqrt(noise_variance(a.p.noise_multiplier, r, a.p.corrupt) * (r - a.p.corrupt))
    assert 0.75 * sigma < honest.std() < 1.25 * sigma  # 330 coordinates: six deviations wide
    assert abs(honest.mean()) < 6 * sigma / np.sqrt(len(honest))


def test_the_masks_of_two_rounds_have_nothing_in_common(tmp_path):
    """Two uploads of one member for two rounds at one model: their difference is uniform."""
    from server.rounds import Round

    a = Adversary(tmp_path, "mask", base=wide_base())
    a.collect()
    first = {s: np.frombuffer(a.round.uploads[s].masked, "<u4") for s in a.desks}
    a.number, a.round = 2, Round(a.terms, 2, a.trajectory.model)
    a.collect()
    left = [np.frombuffer(a.round.uploads[s].masked, "<u4") - first[s] for s in a.desks]
    assert byte_p_value(left) > P_LEAST
    a.close()


def test_lane_c_partials_of_honest_helpers_are_uniform_and_c_shares_decrypt_nothing(tmp_path):
    """c helpers' shares of the secret, and every partial but one: what the last one hides is hidden."""
    from fedtrade.privacy import threshold
    from fedtrade.privacy.aggregation import halves

    a = Adversary(tmp_path, "bfv", base=wide_base())
    a.plain = {}
    for seat, desk in a.desks.items():
        watch(desk.member, a.plain, seat)
    a.collect().make_ready()
    question = a.finalise(a.question())
    share = decode(Answer, a.ask("answer", 1, question)).share
    words = np.frombuffer(share, "<u8") & np.uint64(2**32 - 1)
    assert byte_p_value([words.astype("<u4")]) > P_LEAST
    # one helper's share against one member's ciphertext, at every Lagrange weight that it may claim
    d = a.terms.dimension
    victim = a.round.uploads[5]
    c1, _ = halves(a.terms, victim.boxes[0])
    zeros = np.zeros(d, np.int64)
    for seat, helper in a.helpers.items():
        for other in set(a.helpers) - {seat}:
            pair = tuple(sorted((helper.index, a.helpers[other].index)))
            alone = threshold.partial(
                helper._secret[1], helper.index, pair, 1, c1,
                {a.helpers[other].index: bytes(32)}, zeros, bytes(32), b"alone",
            )  # fmt: skip
            forged = {helper.index: alone, a.helpers[other].index: bytes(len(alone))}
            try:
                found = threshold.fuse(victim.masked, forged, pair, 1, d)
            except threshold.WrongDecryption:
                continue
            assert not np.array_equal(found, a.plain[5])
    # the control: c + 1 shares decrypt one member alone, exactly
    pair = (0, 1)
    partials = {
        i: threshold.partial(
            a.helpers[i + 1]._secret[1], i, pair, 1, c1, {1 - i: bytes(32)}, zeros, bytes([i]) * 32,
            b"both",
        )
        for i in pair
    }  # fmt: skip
    np.testing.assert_array_equal(threshold.fuse(victim.masked, partials, pair, 1, d), a.plain[5])
    a.close()
