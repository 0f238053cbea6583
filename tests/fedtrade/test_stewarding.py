"""The steward's assessment: what it proposes is what the store takes, and it is never in the dark."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrade.governed import BY_NAME, HOUR_S, Governed
from fedtrade.steering import INTERIM_S, Standing, StorePaused
from fedtrade.stewarding import AGE_MAX_S, GAS, GWEI, SCALED, InputsUnusable, Market, assess

NOW_S = 1_750_000_000
CALM = Market("aster", NOW_S - 12, 1e-6, 1e-6, 25.0 * GWEI, 60.0)


def storm(ratio):
    return replace(CALM, variance_per_hour=ratio**2 * CALM.usual_variance_per_hour)


def moved(assessment):
    return {f.parameter: (f.present, f.to) for f in assessment.findings if f.to != f.present}


def after(standing, assessment):
    return standing.after_steer(assessment.changes, assessment.now_s)


def test_in_a_calm_market_nothing_moves():
    assessment = assess([CALM], Standing(Governed()), NOW_S)
    assert assessment.changes == {}
    assert assessment.stress == 1.0
    assert all("it is there" in f.why for f in assessment.findings)


def test_a_storm_shrinks_every_limit_of_size_by_one_step_and_says_why():
    assessment = assess([CALM, replace(storm(2.0), name="birch")], Standing(Governed()), NOW_S)
    assert set(moved(assessment)) == set(SCALED)
    assert assessment.changes["epochNotionalMax"] == 3_750_000  # a quarter less, not yet half
    assert assessment.changes["leverageMaxBps"] == 27_000  # its step is a tenth
    finding = next(f for f in assessment.findings if f.parameter == "epochNotionalMax")
    assert finding.wanted == 2_500_000
    assert "birch is 2.00 times the usual: 50% of the governed value" in finding.why


def test_step_by_step_it_arrives_and_when_the_storm_is_over_goes_back():
    standing, now_s = Standing(Governed()), NOW_S
    for _ in range(12):
        assessment = assess([replace(storm(2.0), observed_s=now_s)], standing, now_s)
        standing = after(standing, assessment) if assessment.changes else standing
        now_s += HOUR_S
    assert standing.in_force(now_s).epoch_notional_max == pytest.approx(2_500_000, rel=0.1)
    for _ in range(24):
        assessment = assess([replace(CALM, observed_s=now_s)], standing, now_s)
        standing = after(standing, assessment) if assessment.changes else standing
        now_s += HOUR_S
    assert standing.in_force(now_s) == Governed()
    assert now_s < NOW_S + INTERIM_S  # all of it in one term


def test_within_the_cool_down_it_waits():
    standing = after(Standing(Governed()), assess([storm(2.0)], Standing(Governed()), NOW_S))
    later = assess([replace(storm(2.0), observed_s=NOW_S + 60)], standing, NOW_S + 60)
    assert later.changes == {}
    assert all("waits until" in f.why for f in later.findings if f.parameter in SCALED)


def test_the_gas_ceiling_follows_the_dearest_chain_as_far_as_the_store_lets_it():
    dear = replace(CALM, base_fee_wei=100.0 * GWEI, name="birch")
    assessment = assess([CALM, dear], Standing(Governed()), NOW_S)
    assert assessment.changes == {GAS: 750}  # 2,000 is wanted; a step is half
    standing, now_s = Standing(Governed()), NOW_S
    for _ in range(12):
        seen = [replace(dear, base_fee_wei=1e4 * GWEI, observed_s=now_s)]
        assessment = assess(seen, standing, now_s)
        standing = after(standing, assessment) if assessment.changes else standing
        now_s += HOUR_S
    assert standing.in_force(now_s).gas_price_max_gwei == 500 + 4 * 250  # its reach


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"observed_s": NOW_S - AGE_MAX_S - 1}, "901 s old"),
        ({"observed_s": NOW_S + 1}, "-1 s old"),
        ({"feed_age_s": 3_901.0}, "its feed is 3901 s old"),
        ({"variance_per_hour": math.nan}, "variance is nan"),
        ({"variance_per_hour": -1.0}, "variance is -1.0"),
        ({"usual_variance_per_hour": 0.0}, "usual variance is 0.0"),
        ({"usual_variance_per_hour": math.inf}, "usual variance is inf"),
        ({"base_fee_wei": 0.0}, "base fee is 0.0"),
    ],
)
def test_one_unusable_input_stops_all_of_it(change, problem):
    with pytest.raises(InputsUnusable, match=problem) as stopped:
        assess([storm(3.0), replace(CALM, name="birch", **change)], Standing(Governed()), NOW_S)
    assert stopped.value.market == "birch"


def test_no_market_is_no_reason_to_act():
    with pytest.raises(InputsUnusable, match="nothing is known"):
        assess([], Standing(Governed()), NOW_S)


def test_nothing_is_steered_while_paused():
    with pytest.raises(StorePaused):
        assess([CALM], Standing(Governed(), paused=True), NOW_S)


def test_what_would_break_a_joint_rule_is_left_out_and_named():
    """The day's cap may move, the action's not yet: it would stand above the day's."""
    governed = Governed().changed({"actionNotionalMax": 1_000_000, "epochNotionalMax": 1_000_000})
    waits = [0] * len(governed.values)
    waits[BY_NAME["actionNotionalMax"].id] = NOW_S - 60
    standing = Standing(governed, last_steered_s=tuple(waits))
    assessment = assess([storm(2.0)], standing, NOW_S)
    assert "epochNotionalMax" not in assessment.changes
    left = next(f for f in assessment.findings if f.parameter == "epochNotionalMax")
    assert "left out: it would break ActionWithinEpoch" in left.why
    assert "leverageMaxBps" in assessment.changes
    after(standing, assessment)


@settings(max_examples=200)
@given(
    ratios=st.lists(st.floats(0.0, 50.0), min_size=1, max_size=4),
    fees=st.floats(1e-6, 1e6),
    gaps=st.lists(st.integers(0, 3 * 86_400), min_size=1, max_size=8),
    action=st.integers(1, 10**9),
    epoch=st.integers(10**6, 10**10),
)
def test_the_store_takes_every_proposal_and_size_is_never_loosened(
    ratios, fees, gaps, action, epoch
):
    governed = Governed().changed(
        {"actionNotionalMax": min(action, epoch), "epochNotionalMax": epoch}
    )
    standing, now_s = Standing(governed), NOW_S
    for number, gap in enumerate(gaps):
        now_s += gap
        ratio = ratios[number % len(ratios)]
        market = replace(storm(ratio), observed_s=now_s, base_fee_wei=fees * GWEI)
        assessment = assess([market], standing, now_s)
        if assessment.changes:
            standing = after(standing, assessment)  # raises where the store would not take it
        for name in SCALED:
            rule = BY_NAME[name]
            value = getattr(standing.in_force(now_s), rule.field)
            assert rule.as_tight(value, getattr(governed, rule.field))
