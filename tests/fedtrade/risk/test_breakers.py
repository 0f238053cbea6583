"""Breakers: a law over random feeds, and one case for each rule and each refusal."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fedtrade.market.actions import Action, ProvideLiquidity, SwapExactInput, WithdrawLiquidity
from fedtrade.market.instruments import PoolKey, Token
from fedtrade.risk.breakers import RULES, Breakers, Level, Readings
from fedtrade.risk.limits import EPOCH_S, Limits

KEY = PoolKey("0xP", Token("0xA", "WETH", 18), Token("0xB", "USDC", 6), 500, 10, True)
FLIPPED = PoolKey("0xP", Token("0xB", "USDC", 6), Token("0xA", "WETH", 18), 500, 10, False)
NOW = 1_750_000_000
CALM = Readings(NOW, 2000.0, 2001.0, 60.0, 10.0, 5e9, "live", 3600.0, False)
LIMITS = Limits(action_notional_max_quote=50_000, epoch_notional_max_quote=120_000)

PROVIDE = ProvideLiquidity("p", "0xP", -10, 10, 10**18, 2 * 10**9, 1, 1, NOW + 60)
WITHDRAW = WithdrawLiquidity("w", "0xP", 7, 10**15, 0, 0, NOW + 60)
BUY = SwapExactInput("b", "0xP", False, 2000 * 10**6, 995 * 10**15, NOW + 60, True)
SELL = SwapExactInput("s", "0xP", True, 10**18, 1990 * 10**6, NOW + 60, False)


def test_calm_passes_everything() -> None:
    breakers = Breakers(LIMITS, KEY)
    assert breakers.observe(CALM) == []
    assert all(breakers.check(a, CALM).passed for a in (PROVIDE, WITHDRAW, BUY, SELL))


BEYOND: dict[str, dict[str, Any]] = {
    "drawdown": {"drawdown_bps": 501.0},
    "drawdown, deep": {"drawdown_bps": 1001.0},
    "drawdown, ruinous": {"drawdown_bps": 1501.0},
    "oracle deviation": {"price": 2001.0 * 1.021},
    "oracle deviation, wide": {"price": 2001.0 * 0.94},
    "oracle stale": {"oracle_age_s": 3901.0},
    "oracle lost": {"oracle_age_s": 7501.0},
    "model expired": {"model_age_s": 7 * 86_400 + 1.0},
    "model revoked": {"model": "revoked"},
    "model superseded": {"model": "superseded"},
}


@pytest.mark.parametrize("row", RULES, ids=lambda row: row.name)
def test_each_rule_fires_once_and_latches(row: Any) -> None:
    breakers = Breakers(LIMITS, KEY)
    beyond = replace(CALM, **BEYOND[row.name])
    fired = breakers.observe(beyond)
    assert row.name in [t.rule for t in fired]
    assert breakers.level == max(t.level for t in fired) >= row.level
    level = breakers.level
    assert breakers.observe(beyond) == []
    assert breakers.observe(CALM) == []
    assert breakers.level == level
    assert not breakers.check(PROVIDE, CALM).passed
    assert row.name in breakers.check(PROVIDE, CALM).reason


@pytest.mark.parametrize(
    "field", ["drawdown_bps", "price", "oracle_price", "oracle_age_s", "model_age_s"]
)
def test_what_is_not_a_number_counts_as_beyond(field: str) -> None:
    breakers = Breakers(LIMITS, KEY)
    broken = replace(CALM, **{field: math.nan})  # type: ignore[arg-type]
    assert not breakers.check(PROVIDE, broken).passed
    assert not breakers.check(BUY, broken).passed
    assert breakers.observe(broken)
    assert breakers.level >= Level.REDUCE_ONLY


@pytest.mark.parametrize("level", [Level.REDUCE_ONLY, Level.HALT, Level.UNWIND])
def test_a_raised_level_lets_only_reductions_through(level: Level) -> None:
    breakers = Breakers(LIMITS, KEY, carried=level)
    assert breakers.check(WITHDRAW, CALM).passed
    assert breakers.check(SELL, CALM).passed
    for action in (PROVIDE, BUY):
        verdict = breakers.check(action, CALM)
        assert not verdict.passed
        assert level.name in verdict.reason


def test_an_action_cannot_lie_about_its_risk() -> None:
    calm = Breakers(LIMITS, KEY)
    for liar in (replace(BUY, adds_risk=False), replace(SELL, adds_risk=True)):
        assert "truly" in calm.check(liar, CALM).reason
    breakers = Breakers(LIMITS, KEY, carried=Level.HALT)
    assert not breakers.check(replace(BUY, adds_risk=False), CALM).passed
    flipped = Breakers(LIMITS, FLIPPED, carried=Level.HALT)
    sell = SwapExactInput("s", "0xP", False, 10**18, 1990 * 10**6, NOW + 60, False)
    assert flipped.check(sell, CALM).passed
    assert not flipped.check(replace(sell, sell_token0=True), CALM).passed


@pytest.mark.parametrize(
    ("action", "readings", "said"),
    [
        (PROVIDE, {"model": "unpublished"}, "unpublished"),
        (PROVIDE, {"model": "pending"}, "pending"),
        (PROVIDE, {"model": "stale"}, "stale"),
        (PROVIDE, {"paused": True}, "paused"),
        (BUY, {"paused": True}, "paused"),
        (PROVIDE, {"gas_price_wei": 201e9}, "gas price"),
        (PROVIDE, {"gas_price_wei": math.nan}, "gas price"),
        (replace(PROVIDE, amount1=60_000 * 10**6), {}, "an action may add"),
        (replace(PROVIDE, pool="0xQ"), {}, "not the agent's pool"),
        (replace(PROVIDE, deadline_s=NOW), {}, "deadline"),
        (replace(PROVIDE, deadline_s=NOW + 1801), {}, "deadline"),
        (replace(PROVIDE, amount0_min=0, amount1_min=0), {}, "bound nothing"),
        (replace(PROVIDE, amount0_min=10**19), {}, "bound nothing"),
        (replace(PROVIDE, amount0=0, amount1=0), {}, "provides nothing"),
        (replace(WITHDRAW, liquidity=-1), {}, "negative"),
        (replace(SELL, amount_out_min=0), {}, "for nothing"),
        (replace(SELL, amount_out_min=1900 * 10**6), {}, "worst price"),
        (replace(BUY, amount_out_min=10**17), {}, "worst price"),
        (SELL, {"oracle_age_s": 7501.0}, "no fresh oracle price"),
        (SELL, {"oracle_price": math.nan}, "worst price"),
    ],
)
def test_each_refusal_says_why_and_leaves_the_level(
    action: Action, readings: dict[str, Any], said: str
) -> None:
    breakers = Breakers(LIMITS, KEY)
    verdict = breakers.check(action, replace(CALM, **readings))
    assert not verdict.passed
    assert said in verdict.reason
    assert breakers.level is Level.NORMAL


def test_the_day_has_a_cap_and_a_new_day_a_new_one() -> None:
    breakers = Breakers(LIMITS, KEY)
    big = replace(PROVIDE, amount1=48_000 * 10**6 - 2_000 * 10**6)  # 48,001 with the WETH
    for name in ("1", "2"):
        action = replace(big, action_id=name)
        assert breakers.check(action, CALM).passed
        breakers.book(action, CALM)
    third = replace(big, action_id="3")
    assert "the day's actions" in breakers.check(third, CALM).reason
    assert breakers.check(replace(big, action_id="2"), CALM).passed  # counted once
    breakers.book(SELL, CALM)
    later = replace(CALM, timestamp_s=NOW + EPOCH_S)
    assert breakers.check(replace(third, deadline_s=NOW + EPOCH_S + 9), later).passed


reading = st.one_of(
    st.floats(), st.floats(0, 3000), st.sampled_from([0.0, 600.0, 2000.0, math.nan, math.inf])
)
READINGS = st.builds(
    Readings,
    st.integers(NOW, NOW + 3 * EPOCH_S),
    st.one_of(reading, st.floats(1900, 2100)),
    st.one_of(reading, st.floats(1900, 2100)),
    reading, reading, reading,
    st.sampled_from(["live", "live", "stale", "pending", "superseded", "revoked", "unpublished"]),
    reading,
    st.booleans(),
)  # fmt: skip
amount = st.integers(-1, 10**19)
WILD: st.SearchStrategy[Action] = st.one_of(
    st.builds(ProvideLiquidity, st.text(max_size=2), st.just("0xP"), st.just(-10), st.just(10),
              amount, amount, amount, amount, st.integers(NOW, NOW + 3 * EPOCH_S)),
    st.builds(WithdrawLiquidity, st.text(max_size=2), st.just("0xP"), st.just(1), amount, amount,
              amount, st.integers(NOW, NOW + 3 * EPOCH_S)),
    st.builds(SwapExactInput, st.text(max_size=2), st.just("0xP"), st.booleans(), amount, amount,
              st.integers(NOW, NOW + 3 * EPOCH_S), st.booleans()),
)  # fmt: skip


class RandomFeeds(RuleBasedStateMachine):
    """Whatever is read and asked: no way down, and no risk added from REDUCE_ONLY on."""

    def __init__(self) -> None:
        super().__init__()
        self.breakers = Breakers(LIMITS, KEY)
        self.highest = Level.NORMAL

    @rule(readings=READINGS)
    def read(self, readings: Readings) -> None:
        self.breakers.observe(readings)

    @rule(change=st.sampled_from([{}, *BEYOND.values()]))
    def read_a_single_excess(self, change: dict[str, Any]) -> None:
        self.breakers.observe(replace(CALM, **change))

    @rule(readings=READINGS, action=WILD)
    def ask(self, readings: Readings, action: Action) -> None:
        self._ask(readings, action)

    @rule(
        sane=st.sampled_from([PROVIDE, WITHDRAW, BUY, SELL]), change=st.sampled_from(
            [{}, *BEYOND.values()])
    )  # fmt: skip
    def ask_something_sane(self, sane: Action, change: dict[str, Any]) -> None:
        self._ask(replace(CALM, **change), sane)

    def _ask(self, readings: Readings, action: Action) -> None:
        verdict = self.breakers.check(action, readings)
        buys = isinstance(action, SwapExactInput) and not action.sell_token0
        if verdict.passed and (buys or isinstance(action, ProvideLiquidity)):
            assert self.highest is Level.NORMAL
            assert readings.model == "live"
            assert not readings.paused
            assert action.adds_risk
            self.breakers.book(action, readings)
        assert verdict.passed == (verdict.reason == "")

    @invariant()
    def never_down(self) -> None:
        assert self.breakers.level >= self.highest
        self.highest = self.breakers.level


TestRandomFeeds = RandomFeeds.TestCase
TestRandomFeeds.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
