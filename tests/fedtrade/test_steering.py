"""What the store makes of proposals, in Python; the contract is compared in tests/contracts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.errors import Refusal
from fedtrade.governed import HOUR_S, RULES, Governed, JointlyAbsurd, OutOfBounds, rule_named
from fedtrade.steering import (
    INTERIM_S,
    Looser,
    NoInterim,
    NothingGiven,
    NothingTighter,
    OutOfReach,
    Standing,
    StepTooFar,
    StorePaused,
    TooSoon,
    arguments,
)

NOW_S = 1_750_000_000
FRESH = Standing(Governed())


def gas(standing, now_s=NOW_S):
    return standing.in_force(now_s).gas_price_max_gwei


class TestSteering:
    def test_a_step_is_in_force_for_a_term_and_lapses(self):
        after = FRESH.after_steer({"gasPriceMaxGwei": 750}, NOW_S)
        assert gas(after) == gas(after, NOW_S + INTERIM_S - 1) == 750
        assert gas(after, NOW_S + INTERIM_S) == 500
        assert after.governed == FRESH.governed

    def test_steering_on_does_not_lengthen_the_term(self):
        after = FRESH.after_steer({"gasPriceMaxGwei": 750}, NOW_S)
        last = after.after_steer({"oracleAgeMaxS": 4_000}, NOW_S + INTERIM_S - 1)
        assert last.interim_until_s == NOW_S + INTERIM_S
        assert last.in_force(NOW_S + INTERIM_S) == FRESH.governed

    def test_each_limit_is_named(self):
        with pytest.raises(StepTooFar, match="from 500 to 751"):
            FRESH.after_steer({"gasPriceMaxGwei": 751}, NOW_S)
        with pytest.raises(OutOfBounds):
            FRESH.after_steer({"gasPriceMaxGwei": 0}, NOW_S)
        once = FRESH.after_steer({"gasPriceMaxGwei": 750}, NOW_S)
        with pytest.raises(TooSoon) as refused:
            once.after_steer({"gasPriceMaxGwei": 800}, NOW_S + HOUR_S - 1)
        assert refused.value.earliest_s == NOW_S + HOUR_S
        twice = once.after_steer({"gasPriceMaxGwei": 1_125}, NOW_S + HOUR_S)
        with pytest.raises(OutOfReach, match="governed 500"):
            twice.after_steer({"gasPriceMaxGwei": 1_501}, NOW_S + 2 * HOUR_S)
        assert gas(twice.after_steer({"gasPriceMaxGwei": 1_500}, NOW_S + 2 * HOUR_S)) == 1_500

    def test_a_paused_store_steers_nothing(self):
        paused = Standing(Governed(), paused=True)
        with pytest.raises(StorePaused):
            paused.after_steer({"gasPriceMaxGwei": 400}, NOW_S)
        assert gas(paused.after_tighten({"gasPriceMaxGwei": 400}, NOW_S)) == 400

    def test_nothing_given(self):
        for act in (FRESH.after_set, FRESH.after_steer, FRESH.after_tighten):
            with pytest.raises(NothingGiven):
                act({}, NOW_S)


class TestGovernance:
    def test_what_it_sets_is_in_force_at_once(self):
        steered = FRESH.after_steer({"gasPriceMaxGwei": 750, "slippageMaxBps": 55}, NOW_S)
        after = steered.after_set({"gasPriceMaxGwei": 300}, NOW_S)
        assert gas(after) == after.governed.gas_price_max_gwei == 300
        assert after.in_force(NOW_S).slippage_max_bps == 55

    def test_a_term_that_would_be_absurd_ends(self):
        steered = FRESH.after_steer({"oracleAgeMaxS": 4_875}, NOW_S)
        after = steered.after_set({"oracleDeviationMaxBps": 170}, NOW_S)
        assert after.term(NOW_S) is None
        assert after.in_force(NOW_S).oracle_age_max_s == 3_900

    def test_veto(self):
        steered = FRESH.after_steer({"gasPriceMaxGwei": 750}, NOW_S)
        assert gas(steered.after_veto(NOW_S)) == 500
        with pytest.raises(NoInterim):
            FRESH.after_veto(NOW_S)
        with pytest.raises(NoInterim):
            steered.after_veto(NOW_S + INTERIM_S)


class TestTightening:
    def test_against_both_sets(self):
        steered = FRESH.after_steer({"gasPriceMaxGwei": 750, "slippageMaxBps": 40}, NOW_S)
        with pytest.raises(Looser) as refused:
            steered.after_tighten({"gasPriceMaxGwei": 550}, NOW_S)
        assert refused.value.than == 500
        with pytest.raises(Looser) as refused:
            steered.after_tighten({"slippageMaxBps": 45}, NOW_S)
        assert refused.value.than == 40
        after = steered.after_tighten({"slippageMaxBps": 40}, NOW_S)
        assert after.in_force(NOW_S + INTERIM_S).slippage_max_bps == 40
        with pytest.raises(NothingTighter):
            after.after_tighten({"slippageMaxBps": 40}, NOW_S)

    def test_what_belongs_together_is_tightened_together(self):
        with pytest.raises(JointlyAbsurd):
            FRESH.after_tighten({"oracleDeviationMaxBps": 100}, NOW_S)
        FRESH.after_tighten({"oracleDeviationMaxBps": 100, "oracleAgeMaxS": 1_500}, NOW_S)


def test_arguments_are_sorted_by_id():
    given = {"gasPriceMaxGwei": 2, "noiseMultiplierMicro": 1}
    assert arguments(given) == ([0, 24], [1, 2])


class TestJointlyAbsurd:
    """10 March 2026, Aave: an age and a growth of an oracle's cap, each within bounds, jointly put
    the price that the protocol believed 2.85 % under the market's, and 10,938 wstETH were
    liquidated. The same numbers: contracts/test/ParameterStore.t.sol (JointlyAbsurdTest)."""

    BEFORE = Standing(Governed(oracle_age_max_s=3_600, oracle_deviation_max_bps=200))
    CHANGES = {"oracleAgeMaxS": 4_500, "oracleDeviationMaxBps": 160}  # noqa: RUF012

    def test_each_alone_is_allowed(self):
        for name, value in self.CHANGES.items():
            self.BEFORE.after_steer({name: value}, NOW_S)
            self.BEFORE.after_set({name: value}, NOW_S)

    def test_both_are_within_bounds_step_reach_and_cool_down(self):
        """The control: what would be asked without joint rules holds, so only they refuse it."""
        before = self.BEFORE.governed.values
        for name, value in self.CHANGES.items():
            rule = rule_named(name)
            rule.require_bounds(value)
            assert rule.within_step(before[rule.id], value)
            assert rule.within_reach(before[rule.id], value)
            assert self.BEFORE.last_steered_s[rule.id] == 0

    def test_together_they_are_refused_from_everybody(self):
        for act in (self.BEFORE.after_steer, self.BEFORE.after_set):
            with pytest.raises(JointlyAbsurd, match="rule 9, OldPriceMayDiffer"):
                act(self.CHANGES, NOW_S)

    def test_one_after_the_other_the_second_is_refused(self):
        after = self.BEFORE.after_steer({"oracleAgeMaxS": 4_500}, NOW_S)
        with pytest.raises(JointlyAbsurd):
            after.after_steer({"oracleDeviationMaxBps": 160}, NOW_S + HOUR_S)


acts = st.tuples(
    st.sampled_from(("set", "steer", "tighten", "veto")),
    st.dictionaries(
        st.sampled_from([rule.name for rule in RULES]),
        st.integers(-2, 2),  # steps
        min_size=1,
        max_size=3,
    ),
    st.integers(0, 3 * 86_400),
)


@given(st.lists(acts, max_size=25))
def test_always_sound_within_reach_and_only_tightened_by_the_guardian(history):
    standing, now_s = FRESH, NOW_S
    for name, moves, wait_s in history:
        now_s += wait_s
        before = standing.in_force(now_s)
        changes = {
            moved: max(0, value + steps * max(1, value * rule_named(moved).step_bps // 10_000))
            for moved, steps in moves.items()
            for value in [before.values[rule_named(moved).id]]
        }
        try:
            match name:
                case "set":
                    standing = standing.after_set(changes, now_s)
                case "steer":
                    standing = standing.after_steer(changes, now_s)
                case "tighten":
                    standing = standing.after_tighten(changes, now_s)
                    for rule in RULES:
                        now = standing.in_force(now_s).values[rule.id]
                        assert rule.as_tight(now, before.values[rule.id])
                case "veto":
                    standing = standing.after_veto(now_s)
        except Refusal:
            continue
        assert standing.interim_until_s <= now_s + INTERIM_S
        for rule in RULES:  # sound it is by construction: Governed refuses anything else
            governed = standing.governed.values[rule.id]
            assert rule.within_reach(governed, standing.in_force(now_s).values[rule.id])
