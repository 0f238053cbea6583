"""The governed parameters: bounds, joint rules, and who must obey them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.errors import Refusal
from fedtrade.governed import (
    BY_NAME,
    JOINT_RULES,
    RULES,
    Governed,
    JointlyAbsurd,
    LooserThanGoverned,
    OutOfBounds,
    UnknownParameter,
    WrongCount,
    broken,
    rule_named,
)
from fedtrade.parameters import PrivacyParameters
from fedtrade.risk.limits import HARD, Limits

AS_GOVERNED = PrivacyParameters(
    sampling_rate=0.05,
    noise_multiplier=1.0,
    clip_norm=1.0,
    rounds=40,
    delta=1e-6,
    epsilon_cap=8.0,
    cohort_min=4,
    helpers=5,
    corrupt=2,
    learning_rate=0.01,
)
"""Exactly what the defaults ask for: not a hair looser is allowed."""


def within(rule):
    return st.integers(rule.least, rule.most)


@st.composite
def sound_sets(draw):
    """Sound values, by moving the defaults as long as they stay sound."""
    values = list(Governed().values)
    for rule in draw(st.lists(st.sampled_from(RULES), max_size=8)):
        before, values[rule.id] = values[rule.id], draw(within(rule))
        if broken(values):
            values[rule.id] = before
    return Governed.of(values)


rules = st.sampled_from(RULES)
amounts = st.integers(0, 2**64 - 1)


def test_the_table_is_in_order():
    assert [rule.id for rule in RULES] == list(range(28))
    assert len(BY_NAME) == 28
    for rule in RULES:
        assert 0 <= rule.least <= rule.default <= rule.most < 2**64
        assert getattr(Governed(), rule.field) == rule.default
        assert re.fullmatch(r"[A-Z].*\.", rule.meaning)
        assert rule_named(rule.name) is rule
    assert [joint.number for joint in JOINT_RULES] == list(range(1, 14))


def test_units_are_in_the_names():
    assert Governed().noise_multiplier == 1.0
    assert Governed(clip_norm_micro=250_000).clip_norm == 0.25
    assert Governed().sampling_rate == 0.05
    assert Governed().epsilon_release == 8.0
    assert Governed().epsilon_total == 20.0


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_hard_bounds(rule):
    for value in (rule.least - 1, rule.most + 1, -1, 2**64, float(rule.default), True):
        with pytest.raises(OutOfBounds, match=rf"{rule.name} cannot be .*{rule.least}"):
            Governed().changed({rule.name: value})


@pytest.mark.parametrize("joint", JOINT_RULES, ids=lambda joint: joint.name)
def test_a_broken_joint_rule_is_named_with_its_values(joint):
    """Each can be broken with every value within its bounds, and says by what."""
    breaking = {
        "CommitteeStands": {"helpers": 4},
        "RespondersSuffice": {"respondersMin": 2},
        "CohortHides": {"cohortMin": 3},
        "SamplingNeedsNoise": {"samplingRateMicro": 100_001},
        "ReleaseWithinTotal": {"epsilonTotalMicro": 7_000_000},
        "ModelOutlivesDelay": {"releaseIntervalS": 2_592_000},
        "LevelsAscend": {"drawdownHaltBps": 200},
        "ActionWithinEpoch": {"actionNotionalMax": 5_000_001},
        "OldPriceMayDiffer": {"oracleDeviationMaxBps": 161},
        "SlippageWithinOracle": {"slippageMaxBps": 301},
        "BridgeWithinEpoch": {"bridgeInFlightMax": 5_000_001},
        "BandWithinUnwind": {"deltaBandBps": 1_501},
        "MirrorWithinModel": {"mirrorAgeMaxS": 86_402, "modelAgeMaxS": 86_401},
    }[joint.name]
    with pytest.raises(JointlyAbsurd, match=f"rule {joint.number}, {joint.name}") as refused:
        Governed().changed(breaking)
    assert refused.value.joint is joint
    for name in joint.names:
        assert name in refused.value.message
    assert joint.reason in refused.value.message


@given(st.lists(amounts, min_size=28, max_size=28))
def test_broken_answers_for_anything(values):
    assert 0 <= broken(values) <= 13


@given(sound_sets())
def test_what_is_sound_stays_what_it_is(governed):
    assert Governed.of(governed.values) == governed
    assert governed.changed({}) == governed


def test_other_counts_and_names_are_refused():
    with pytest.raises(WrongCount, match="27 values were given for 28"):
        Governed.of(Governed().values[1:])
    with pytest.raises(WrongCount):
        broken([1])
    with pytest.raises(UnknownParameter, match="Their names are: noiseMultiplierMicro") as refused:
        Governed().changed({"quorum": 6_000})
    assert refused.value.parameter == "quorum"
    with pytest.raises(UnknownParameter):
        rule_named("")


class TestDirections:
    @given(rules, amounts, amounts)
    def test_tighter_is_an_order(self, rule, a, b):
        assert rule.as_tight(a, b) or rule.as_tight(b, a)
        assert (rule.as_tight(a, b) and rule.as_tight(b, a)) == (a == b)
        assert rule.tightens(a, b) == (not rule.as_tight(b, a))

    @given(rules, amounts, amounts)
    def test_a_step_is_a_share_or_one_unit(self, rule, present, to):
        far = abs(to - present)
        if rule.within_step(present, to):
            assert far <= 1 or far * 10_000 <= present * rule.step_bps
        else:
            assert far > 1
        assert rule.within_step(present, present)

    @given(rules, amounts, amounts)
    def test_reach_ends_at_four_steps_and_only_on_the_looser_side(self, rule, governed, to):
        allowed = 4 * max(1, governed * rule.step_bps // 10_000)
        assert rule.within_reach(governed, to) == (
            rule.as_tight(to, governed) or abs(to - governed) <= allowed
        )


class TestReleases:
    def test_what_is_as_tight_as_governed_obeys(self):
        Governed().require_obeyed(AS_GOVERNED)

    @pytest.mark.parametrize(
        ("change", "finding"),
        [
            ({"noise_multiplier": 0.999}, "noise_multiplier 0.999 is below 1.0"),
            ({"clip_norm": 1.001}, "clip_norm 1.001 is above 1.0"),
            ({"sampling_rate": 0.0501}, "sampling_rate 0.0501 is above 0.05"),
            ({"epsilon_cap": 8.01}, "epsilon_cap 8.01 is above 8.0"),
            ({"cohort_min": 4, "corrupt": 1}, "corrupt 1 is below 2"),
            ({"helpers": 4, "corrupt": 1}, "helpers 4 is below 5"),
        ],
    )
    def test_anything_looser_is_named(self, change, finding):
        release = PrivacyParameters(**(AS_GOVERNED.model_dump() | change))
        with pytest.raises(LooserThanGoverned, match="looser than the governed") as refused:
            Governed().require_obeyed(release)
        assert finding in refused.value.findings
        assert finding in refused.value.message

    def test_a_cohort_below_the_governed_one_is_named(self):
        with pytest.raises(LooserThanGoverned) as refused:
            Governed(cohort_min=5).require_obeyed(AS_GOVERNED)
        assert refused.value.findings == ("cohort_min 4 is below 5",)

    def test_everything_looser_is_named_at_once(self):
        strict = Governed(noise_multiplier_micro=2_000_000, clip_norm_micro=500_000)
        with pytest.raises(LooserThanGoverned) as refused:
            strict.require_obeyed(AS_GOVERNED)
        assert len(refused.value.findings) == 2

    @given(sound_sets())
    def test_a_release_cut_to_the_parameters_obeys_them(self, governed):
        """To the last bit: a float that is printed and parsed again does not become looser."""
        release = AS_GOVERNED.model_copy(
            update={
                "noise_multiplier": governed.noise_multiplier,
                "clip_norm": governed.clip_norm,
                "sampling_rate": governed.sampling_rate,
                "epsilon_cap": governed.epsilon_release,
                "cohort_min": governed.cohort_min,
                "helpers": governed.helpers,
                "corrupt": governed.corrupt,
            }
        )
        governed.require_obeyed(release)
        parsed = PrivacyParameters.model_validate_json(AS_GOVERNED.model_dump_json())
        Governed().require_obeyed(parsed)
        assert governed.responders_of(release) <= release.helpers  # the floor can be met

    @given(sound_sets())
    def test_all_that_is_within_bounds_can_be_a_releases(self, governed):
        """No sound set asks for what PrivacyParameters cannot be (the noise must fit its ring)."""
        fields = AS_GOVERNED.model_dump() | {
            "noise_multiplier": governed.noise_multiplier,
            "clip_norm": governed.clip_norm,
            "sampling_rate": governed.sampling_rate,
            "epsilon_cap": governed.epsilon_release,
            "cohort_min": governed.cohort_min,
            "helpers": governed.helpers,
            "corrupt": governed.corrupt,
        }
        governed.require_obeyed(PrivacyParameters(**fields))

    def test_responders(self):
        assert Governed().responders_of(AS_GOVERNED) == 3
        assert Governed(responders_min=4).responders_of(AS_GOVERNED) == 4


class TestLimits:
    @given(sound_sets())
    def test_the_stricter_of_both_wins_and_nothing_is_loosened(self, governed):
        own = Limits()
        both = own.tightened(governed.risk_limits())
        for name in HARD:
            assert getattr(both, name) <= getattr(own, name)
        for name, value in governed.risk_limits().items():
            assert getattr(both, name) <= value

    def test_every_name_is_a_limits(self):
        assert Governed().risk_limits().keys() < HARD.keys()

    def test_a_looser_vote_changes_nothing(self):
        loose = Governed().changed(
            {
                "drawdownReduceBps": 6_000, "drawdownHaltBps": 7_000, "drawdownUnwindBps": 8_000,
                "oracleDeviationMaxBps": 5_000, "oracleAgeMaxS": 86_400, "slippageMaxBps": 500,
                "actionNotionalMax": 1_000_000_000, "epochNotionalMax": 10_000_000_000,
                "gasPriceMaxGwei": 100_000, "modelAgeMaxS": 90 * 86_400,
            }
        )  # fmt: skip
        assert Limits().tightened(loose.risk_limits()) == Limits()

    def test_a_tighter_vote_is_obeyed(self):
        tight = Limits().tightened(Governed().risk_limits())
        assert (tight.drawdown_reduce_bps, tight.drawdown_halt_bps) == (200, 400)
        assert tight.drawdown_unwind_bps == 900
        assert tight.swap_discount_max_bps == 50


@given(st.dictionaries(st.sampled_from(sorted(BY_NAME)), amounts, max_size=4))
def test_changes_are_refused_or_sound(changes):
    try:
        changed = Governed().changed(changes)
    except Refusal:
        return
    assert broken(changed.values) == 0
