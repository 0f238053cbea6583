"""The hidden norm check: honest vectors always pass, and no attack that we know does."""

import itertools
import math
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrade.errors import BadInput
from fedtrade.parameters import NORM_UNITS_MAX
from fedtrade.privacy import masking, norm
from fedtrade.privacy.four_squares import four_squares
from fedtrade.privacy.mechanism import NotFinite
from fedtrade.privacy.projections import ROWS, project

committees = st.sampled_from([(3, 1), (5, 1), (5, 2), (6, 2), (7, 3)])


class Round:
    """One member's seeds and the committee that holds them."""

    def __init__(self, plan, m=3, c=1, context=b"c" * 32):
        self.plan, self.m, self.c = plan, m, c
        self.seeds = [os.urandom(32) for _ in masking.subsets(m, c)]
        self.pairs = {(i, j): os.urandom(32) for i in range(m) for j in range(i)}
        self.binding = norm.Binding(
            context,
            tuple(masking.commitment(s, context, i) for i, s in enumerate(self.seeds)),
        )

    @property
    def masks(self):
        zeros = np.zeros(self.plan.length, np.uint64)
        return masking.mask(zeros, self.seeds, self.binding.context)

    def prove(self, units):
        return norm.prove(np.asarray(units, np.int64), self.plan, self.masks, self.binding)

    def holding(self, helper):
        held = masking.seeds_of(helper, self.m, self.c)
        others = [h for h in range(self.m) if h != helper]
        return norm.Holding(
            helper,
            {i: self.seeds[i] for i in held},
            {o: self.pairs[max(o, helper), min(o, helper)] for o in others},
        )

    def words(self, masked, responders=None, binding=None):
        panel = norm.Panel(self.m, self.c, tuple(responders or range(self.m)))
        return {
            h: norm.answer(self.plan, masked, binding or self.binding, panel, self.holding(h))
            for h in panel.responders
        }

    def total(self, masked, responders=None, binding=None):
        return sum(self.words(masked, responders, binding).values(), np.zeros(norm.WORDS, "u8"))

    def accepts(self, masked, responders=None, binding=None):
        return norm.verdict(self.total(masked, responders, binding))

    def forge(self, values, digits=None):
        """What a cheat would send: any x' at all, with the best bits that there are for it.

        `digits` makes the k(w + 1) "bits" from the projections plus W, modulo 2^64.
        """
        values = np.array([int(v) % 2**64 for v in values], np.uint64)
        assert len(values) == self.plan.values
        masked = self.masks
        masked[: len(values)] += values
        key = norm._projection_key(self.plan, masked[: len(values)], self.binding)
        seen = project(values, key) + np.uint64(self.plan.window)
        masked[len(values) :] += (digits or honest_digits)(self.plan, seen)
        return masked


def honest_digits(plan, seen):
    return (seen[:, None] >> np.arange(plan.bits, dtype=np.uint64) & np.uint64(1)).ravel()


def filled(units, norm_squared):
    """x' = x and four numbers that bring the squared norm to `norm_squared`."""
    return [*units, *four_squares(norm_squared - sum(int(u) ** 2 for u in units))]


@settings(max_examples=60)
@given(committees, st.integers(1, 40), st.floats(-3, 12), st.data())
def test_honest_vectors_always_pass_whoever_checks(committee, dimension, size, data):
    m, c = committee
    least = 2 + math.isqrt(dimension)
    plan = norm.Plan(dimension, data.draw(st.integers(least, NORM_UNITS_MAX)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    units = norm.onto_ball(rng.standard_normal(dimension) * 10.0**size, plan)
    count = data.draw(st.integers(2 * c + 1, m))
    responders = data.draw(st.permutations(range(m)))[:count]
    here = Round(plan, m, c)
    masked = here.prove(units)
    assert here.accepts(masked, responders)
    opened = masked - here.masks
    assert (norm.reduce(opened[:dimension]) == units).all()


@pytest.mark.parametrize("bound", [3, 2**10, 2**22 - 1, 2**22])
def test_the_zero_vector_and_vectors_on_the_bound_pass(bound):
    plan = norm.Plan(1, bound)
    for units in ([0], [bound], [-bound], [bound - 1]):
        here = Round(plan)
        assert here.accepts(here.prove(units))
    plan = norm.Plan(4, bound - bound % 2 + 2 if bound < 2**22 else bound)
    here = Round(plan)
    assert here.accepts(here.prove([plan.bound // 2] * 4))


def test_a_long_vector_passes():
    plan = norm.Plan(9_001, 2**22)
    units = norm.onto_ball(np.random.default_rng(1).standard_normal(9_001) * 1e6, plan)
    assert 0.999 * plan.bound < math.sqrt(float((units**2).sum())) <= plan.bound
    here = Round(plan, 5, 2)
    assert here.accepts(here.prove(units))


def test_two_sets_of_responders_see_different_shares_of_the_same_zero():
    here = Round(norm.Plan(20, 1000), 5, 1)
    masked = here.prove([7] * 20)
    few, all_of_them = here.words(masked, (0, 2, 4)), here.words(masked)
    assert here.accepts(masked, (4, 0, 2))
    assert here.accepts(masked)
    for helper in few:
        assert not np.isin(few[helper], all_of_them[helper]).any()


@pytest.mark.parametrize(("m", "c"), [(3, 1), (5, 2), (6, 2), (7, 3)])
def test_fewer_than_2c_plus_1_are_refused(m, c):
    for count in range(2 * c + 1):
        with pytest.raises(norm.TooFewToCheck) as caught:
            norm.Panel(m, c, tuple(range(count)))
        assert (caught.value.found, caught.value.needed) == (count, 2 * c + 1)
    with pytest.raises(norm.TooFewToCheck):
        norm.Panel(m, c, (0, 1) * (c + 1))  # nobody counts twice


@given(committees, st.data())
def test_every_product_has_one_owner_that_holds_both_shares(committee, data):
    m, c = committee
    count = data.draw(st.integers(2 * c + 1, m))
    panel = norm.Panel(m, c, tuple(data.draw(st.permutations(range(m)))[:count]))
    subsets = (*masking.subsets(m, c), ())
    seen = []
    for helper, mine in enumerate(norm.duties(panel)):
        assert helper in panel.responders or not mine
        for i, partners in mine.items():
            seen += [(i, j) for j in partners]
            for j in partners:
                assert helper not in subsets[i]
                assert helper not in subsets[j]
    everything = itertools.combinations_with_replacement(range(len(subsets)), 2)
    assert sorted(seen) == sorted(everything)
    loads = [sum(map(len, norm.duties(panel)[h].values())) for h in panel.responders]
    if count == m:
        assert max(loads) - min(loads) <= 1


BOUND = 2**22
PLAN = norm.Plan(60, BOUND)


def edge_of_the_theorem():
    """‖u‖² = B² + 2^55 with entries below 2W: the shortest vector that (a) cannot tell from B².

    One coordinate gets 2^54·511, whose cross term 511·2^55 takes the 2^55 away modulo 2^64.
    """
    values = filled([2 * PLAN.window - 1] * 8 + [1] + [0] * 51, BOUND**2 + 2**55)
    values[8] += 2**54 * 511
    return values


WRAPPED = {
    "one over the bound": filled([BOUND + 1] + [0] * 59, BOUND**2 + 2**64),
    "one huge coordinate": filled([2**31] + [0] * 59, BOUND**2 + 2**64),
    "many middling coordinates": filled([2**28] * 60, BOUND**2 + 2**64),
    "a square that vanishes": [2**40, *[0] * 59, *four_squares(BOUND**2)],
    "half the modulus": [2**53, *[0] * 59, *four_squares(BOUND**2)],
    "edge of the theorem": edge_of_the_theorem(),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_wrapped_squares_are_caught_by_the_projections_alone(name):
    """The control is in the words: without (c) each of these would be accepted."""
    assert sum(v * v for v in WRAPPED[name]) % 2**64 == BOUND**2
    here = Round(PLAN)
    total = here.total(here.forge(WRAPPED[name]))
    norm_word, bit_words, projection_words = np.split(total, [1, 1 + norm.REPEATS])
    assert not norm_word.any()
    assert not bit_words.any()
    assert projection_words.any()
    assert not norm.verdict(total)


def digits_outside_the_window(plan, seen):
    """Puts what does not fit into the lowest digit, so that (c) is content."""
    digits = honest_digits(plan, seen).reshape(ROWS, plan.bits)
    powers = np.uint64(1) << np.arange(plan.bits, dtype=np.uint64)
    digits[:, 0] += seen - digits @ powers
    return digits.ravel()


def test_digits_that_are_no_bits_are_caught():
    here = Round(PLAN)
    total = here.total(here.forge(WRAPPED["one huge coordinate"], digits_outside_the_window))
    assert not total[0].any()
    assert total[1 : 1 + norm.REPEATS].any()
    assert not total[1 + norm.REPEATS :].any()


@pytest.mark.parametrize("value", [2, 2**20, 2**53, 2**54 + 1])
def test_one_digit_that_is_no_bit_is_caught(value):
    """Also where (c) is made good in another digit, and where the excess is a large power of two."""

    def digits(plan, seen):
        chosen = honest_digits(plan, seen)
        chosen[:1] += np.uint64(value)
        chosen[1:2] -= np.uint64(value // 2 if value % 2 == 0 else 0)
        return chosen

    here = Round(PLAN)
    assert not here.accepts(here.forge(filled([5] * 60, BOUND**2), digits))


def test_bits_of_another_projection_are_caught():
    here = Round(PLAN)
    shifted = lambda plan, seen: honest_digits(plan, np.roll(seen, 1))  # noqa: E731
    values = filled([1000] * 60, BOUND**2)
    assert here.accepts(here.forge(values))
    total = here.total(here.forge(values, shifted))
    assert not total[: 1 + norm.REPEATS].any()
    assert total[1 + norm.REPEATS :].any()


@pytest.mark.parametrize("excess", [1, -1, 2**20, 2**40])
def test_a_norm_that_is_not_filled_up_to_the_bound_is_caught(excess):
    here = Round(PLAN)
    assert not here.accepts(here.forge(filled([5] * 60, BOUND**2 + excess)))


@pytest.mark.parametrize("place", [0, 59, 60, 63, 64, PLAN.length - 1])
@pytest.mark.parametrize("change", [1, 2**53, 2**63 + 1])
def test_a_vector_that_was_altered_is_caught(place, change):
    here = Round(PLAN)
    masked = here.prove(np.arange(60))
    assert here.accepts(masked)
    masked[place : place + 1] += np.uint64(change)
    assert not here.accepts(masked)


def test_a_proof_is_bound_to_its_member_round_seeds_and_bound():
    here = Round(PLAN)
    masked = here.prove(np.arange(60))
    context, commitments = here.binding.context, here.binding.commitments
    assert here.accepts(masked, binding=norm.Binding(context, commitments))
    assert not here.accepts(masked, binding=norm.Binding(b"d" * 32, commitments))
    assert not here.accepts(masked, binding=norm.Binding(context, commitments[::-1]))
    here.plan = norm.Plan(60, BOUND - 1)
    assert not here.accepts(masked)


def test_different_seeds_to_different_helpers_do_not_pass():
    """The commitments catch it before; here the words do."""
    for victim in range(3):
        here = Round(PLAN)
        masked = here.prove(np.arange(60))
        total = np.zeros(norm.WORDS, np.uint64)
        for helper in range(3):
            holding = here.holding(helper)
            if helper == victim:
                given = dict.fromkeys(holding.seeds, os.urandom(32))
                holding = norm.Holding(helper, given, holding.pair_seeds)
            panel = norm.Panel(3, 1, (0, 1, 2))
            total += norm.answer(PLAN, masked, here.binding, panel, holding)
        assert not norm.verdict(total)


def test_no_challenge_can_be_known_before_what_it_judges_is_fixed():
    """Fiat–Shamir: R hangs on plan, binding and masked x'; ρ and τ on that and on the masked bits."""
    here = Round(PLAN)
    masked, n = here.prove(np.arange(60)), PLAN.values
    context, commitments = here.binding.context, here.binding.commitments
    first = norm._projection_key(PLAN, masked[:n], here.binding)
    others = {
        norm._projection_key(plan, masked[:n], norm.Binding(*binding))
        for plan, binding in (
            (norm.Plan(60, BOUND - 1), (context, commitments)),
            (norm.Plan(59, BOUND), (context, commitments)),
            (PLAN, (b"d" * 32, commitments)),
            (PLAN, (context, commitments[1:])),
            (PLAN, (context + commitments[0], commitments[1:])),
        )
    }
    second = norm._combination_key(PLAN, masked, first)
    for place in (0, 59, 63, 64, PLAN.length - 1):
        altered = masked.copy()
        altered[place : place + 1] += np.uint64(1)
        outer = norm._projection_key(PLAN, altered[:n], here.binding)
        assert (outer == first) == (place >= n)
        others |= {outer, norm._combination_key(PLAN, altered, outer)}
    assert len(others - {first, second}) == 5 + 3 + 5


def test_shares_of_zero_never_repeat():
    """Of the words under two pair seeds the terms cancel, and the shares of zero are left.

    Were they the same for other responders or another vector, the difference of two answers would
    show terms.
    """
    here = Round(PLAN, 5, 1)
    vectors = here.prove(np.arange(60)), here.prove(np.arange(60) + 1)
    questions = [(vectors[0], (0, 1, 2)), (vectors[0], (0, 1, 2, 3)), (vectors[1], (0, 1, 2))]
    before = [here.words(*question)[0] for question in questions]
    here.pairs[(1, 0)] = os.urandom(32)
    after = [here.words(*question)[0] for question in questions]
    left = [b - a for b, a in zip(before, after, strict=True)]
    for one, other in itertools.combinations(left, 2):
        assert not np.isin(one, other).any()


def test_a_helper_that_adds_an_error_fails_an_honest_member():
    """What the check does not stop, as its docstring says."""
    here = Round(PLAN)
    words = here.words(here.prove(np.arange(60)))
    words[1][:1] += np.uint64(1)
    assert not norm.verdict(sum(words.values()))


def test_the_words_of_one_helper_look_uniform():
    """Chi-square over all bytes of one helper's words for 120 honest members."""
    rows = []
    for _ in range(120):
        here = Round(norm.Plan(3, 100))
        rows.append(here.words(here.prove([1, 2, 3]))[2])
    counts = np.bincount(np.concatenate(rows).view(np.uint8), minlength=256)
    expected = counts.sum() / 256
    chi2 = float(((counts - expected) ** 2 / expected).sum())
    assert 150 < chi2 < 380  # 255 degrees of freedom: mean 255, deviation 22.6


def test_words_hide_behind_shares_of_zero_that_an_outsider_cannot_make():
    """Another pair seed, other words: without it the terms themselves would be published."""
    here = Round(PLAN)
    masked = here.prove(np.arange(60))
    first = here.words(masked)
    assert (first[0] == here.words(masked)[0]).all()  # the same question, the same bytes
    here.pairs[(1, 0)] = os.urandom(32)
    second = here.words(masked)
    assert (first[0] != second[0]).all()
    assert (first[1] != second[1]).all()
    assert (first[2] == second[2]).all()
    assert here.accepts(masked)


@given(st.lists(st.integers(-(2**53), 2**53 - 1), min_size=1, max_size=9), st.data())
def test_multiples_of_the_modulus_do_not_reach_the_sum(units, data):
    multiples = data.draw(st.lists(st.integers(0, 2**10 - 1), min_size=9, max_size=9))
    pairs = zip(units, multiples, strict=False)
    total = np.array([(u + 2**54 * t) % 2**64 for u, t in pairs], np.uint64)
    assert norm.reduce(total).tolist() == units


@given(
    st.integers(1, 50),
    st.floats(-2, 11),
    st.integers(0, 2**32 - 1),
    st.integers(20, NORM_UNITS_MAX),
)
def test_the_ball_holds_and_moves_no_two_points_apart(dimension, size, seed, bound):
    plan = norm.Plan(dimension, bound)
    rng = np.random.default_rng(seed)
    one = rng.standard_normal(dimension) * 10.0**size
    other = one + rng.standard_normal(dimension) * 10.0 ** rng.uniform(-2, size)
    brought = norm.onto_ball(one, plan), norm.onto_ball(other, plan)
    assert all(int((b * b).sum()) <= bound**2 for b in brought)
    apart = math.sqrt(float(((brought[0] - brought[1]) ** 2).sum()))
    assert apart <= np.linalg.norm(one - other) * (1 + 1e-9) + math.sqrt(dimension)


def test_rounding_up_in_every_coordinate_does_not_pass_the_bound():
    brought = norm.onto_ball(np.full(49, 100.51), norm.Plan(49, 705))  # ‖x‖ = 703.6, of 101s 707
    assert int((brought**2).sum()) <= 705**2


def test_a_vector_inside_the_ball_is_only_rounded():
    total = np.array([1.4, -2.6, 1000.5])
    assert norm.onto_ball(total, norm.Plan(3, 2000)).tolist() == [1, -3, 1000]


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e200])
def test_what_is_not_finite_is_not_sent(value):
    with pytest.raises(NotFinite):
        norm.onto_ball(np.array([value, 0.0]), norm.Plan(2, 1000))


@pytest.mark.parametrize("units", [[1001, 0], [1000, 1], [2**63 - 1, 0], [-(2**63), 5]])
def test_a_member_does_not_try_to_prove_what_is_too_long(units):
    with pytest.raises(norm.NormTooLarge):
        Round(norm.Plan(2, 1000)).prove(units)


@pytest.mark.parametrize(
    ("dimension", "bound"),
    [(0, 100), (norm.DIMENSION_MAX + 1, 2**20), (5, 2**22 + 1), (10_000, 101), (1, 0)],
)
def test_plans_that_the_theorem_does_not_cover_are_refused(dimension, bound):
    with pytest.raises(BadInput):
        norm.Plan(dimension, bound)


def test_the_constants_are_those_of_the_theorem():
    """Steps 1 to 4 of the proof, with the constants of the code."""
    modulus, bound = 2**norm.MODULUS_BITS, NORM_UNITS_MAX
    window = norm.Plan(1, bound).window
    assert 8 * bound <= window < 16 * bound
    assert (64 - norm.MODULUS_BITS + 1) * norm.REPEATS >= 128
    assert 2 * window * (norm.DIMENSION_MAX + norm.SLACK) < modulus - window
    one_row = math.pi**2 / 8 * (4 / math.sqrt(math.pi)) * window / math.sqrt(2 * modulus)
    assert max(0.5, one_row) ** ROWS <= 2.0**-128
    assert bound**2 < 2 * modulus
    assert 2 * math.exp(-((window / bound) ** 2)) * ROWS < 2.0**-84


def test_the_bound_on_one_row_holds_for_the_worst_vectors_that_we_know():
    """Pr[R_j·u ∈ A] of m equal entries just under 2W is C(2m, m)/4^m, as R_j·u must be 0."""
    for m in (8, 16, 32):
        exact = math.comb(2 * m, m) / 4**m
        norm_over_window = 2 * math.sqrt(m)
        assert exact < math.pi**2 / 8 * (4 / math.sqrt(math.pi)) / norm_over_window
