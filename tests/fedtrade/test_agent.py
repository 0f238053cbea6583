"""The agent on a small exact market: what it does, what it refuses, and that replay is the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrade import artifact
from fedtrade.agent import Agent, AgentSettings, Carried, agent_of
from fedtrade.artifact import ArtifactMismatch, Manifest, NetworkShape
from fedtrade.errors import BadInput, FedtradeError, Refusal, Stale
from fedtrade.governed import Governed
from fedtrade.journal import Journal, JournalAltered, Reader, replay
from fedtrade.learning.features import FEATURES
from fedtrade.learning.windows import HEADS, HORIZON_S
from fedtrade.market.actions import Action, ProvideLiquidity, SwapExactInput, WithdrawLiquidity
from fedtrade.market.encoding import plain
from fedtrade.market.events import (
    ActionSettled,
    BarClosed,
    Event,
    Head,
    Holdings,
    LiquidityChanged,
    ModelPublished,
    ModelRevoked,
    OracleUpdated,
    ParametersSeen,
    PoolSnapshot,
    PositionHeld,
    Reorganised,
    Swapped,
)
from fedtrade.market.instruments import PoolKey, Token
from fedtrade.market.pool import Pool, liquidity_for_amounts, sqrt_ratio_at_tick
from fedtrade.risk.breakers import Level
from fedtrade.risk.limits import Limits
from fedtrade.trading.mandate import in_force

POOL, FEED = "0xP", "0xF"
KEY = PoolKey(POOL, Token("0xA", "WETH", 18), Token("0xB", "USDC", 6), 500, 10, True)
TICK = -197_100
T0 = 1_750_000_020 // 60 * 60
HISTORY_H = 170
DEPTH = 2 * 10**17


def model(variance: float, demand_ratio: float) -> bytes:
    """An artifact that always forecasts the same."""
    shape = NetworkShape(inputs=len(FEATURES), hidden=(2,), outputs=2, activation="tanh")
    arrays = {
        name: np.zeros(size, np.float32)
        for name, size in {
            **artifact.trainable_shapes(shape),
            **artifact.fixed_shapes(shape),
        }.items()
    }
    arrays["fixed.feature_scale"] += 1.0
    arrays["fixed.baseline_bias"] += np.log([variance, demand_ratio]).astype(np.float32)
    manifest = Manifest(
        network=shape, features=FEATURES, heads=HEADS, horizon_s=HORIZON_S, release=1, rounds=1,
        parent_sha256="", policy_sha256="", epsilon_micro=0, delta=0.0, unit="position",
        adjacency="zero-out", trained_until_s=0, standins=("a constant",),
    )  # fmt: skip
    return artifact.pack(arrays, manifest)


CALM = model(1e-5, 1.0)
SHA = artifact.sha256_of(CALM)
SETTINGS = AgentSettings(
    chain="aster",
    key=KEY,
    feed=FEED,
    limits=Limits(drawdown_reduce_bps=100, drawdown_halt_bps=200, drawdown_unwind_bps=400),
    capital_quote=50_000.0,
    native_price_quote=2_700.0,
    cooldown_s=120,
)


@dataclass
class Market:
    """A chain with one exact pool; it carries actions out and tells everything as events."""

    amount0: int = 4 * 10**18
    amount1: int = 60_000 * 10**6
    now_s: int = T0
    hours: int = HISTORY_H
    """How much history there is."""
    number: int = 100
    pool: Pool = field(init=False)
    positions: dict[int, PositionHeld] = field(default_factory=dict)
    marks: dict[int, tuple[int, int]] = field(default_factory=dict)
    waiting: list[Action] = field(default_factory=list)
    done: list[Action] = field(default_factory=list)
    outcome: Callable[[Action], str] = lambda action: "confirmed"
    tokens: int = 0
    governed: Governed = Governed(  # noqa: RUF009 - frozen; looser than the agent's own
        drawdown_reduce_bps=900, drawdown_halt_bps=1800, drawdown_unwind_bps=3000,
        slippage_max_bps=300, leverage_max_bps=10_000,
    )  # fmt: skip
    paused: bool = False
    as_of_s: int | None = None
    """What a mirror says; on the home chain nothing."""

    def __post_init__(self) -> None:
        ticks = ((-887_270, DEPTH, DEPTH, 0, 0), (887_270, DEPTH, -DEPTH, 0, 0))
        start = PoolSnapshot(self.number, POOL, sqrt_ratio_at_tick(TICK), TICK, DEPTH, 0, 0, ticks)
        self.pool = Pool(KEY, start)

    @property
    def price(self) -> float:
        return KEY.price(self.pool.sqrt_price_x96)

    def history(self) -> list[Event]:
        price = self.price
        return [
            BarClosed(T0 - 3600 * (self.hours - i), 3600, price, price * (1.004 + 1e-4 * (i % 5)),
                      price * 0.998, price, 2e6 + 1e4 * (i % 7))
            for i in range(self.hours)
        ]  # fmt: skip

    def state(self) -> list[Event]:
        return [self.pool.snapshot(self.number), self.holdings(), self.oracle(), self.parameters()]

    def parameters(self, **changes: int) -> ParametersSeen:
        """What governs, with some of it changed from now on."""
        self.governed = replace(self.governed, **changes)
        home = self.as_of_s is None
        as_of_s = self.now_s if self.as_of_s is None else self.as_of_s
        return ParametersSeen(self.number, self.governed.values, self.paused, as_of_s, not home)

    def oracle(self, factor: float = 1.0) -> OracleUpdated:
        answer = round(self.price * factor * 1e8)
        return OracleUpdated(self.number, 99, FEED, answer, 8, self.now_s)

    def holdings(self) -> Holdings:
        held = []
        for token_id, p in self.positions.items():
            fees = self.pool.fees_owed(
                p.tick_lower, p.tick_upper, p.liquidity, *self.marks[token_id]
            )
            held.append(replace(p, owed0=fees[0], owed1=fees[1]))
        return Holdings(self.number, self.amount0, self.amount1, 10**18, tuple(held))

    def head(self, base_fee_wei: int = 10**9) -> Head:
        n = self.number
        return Head(n, f"0x{n}", f"0x{n - 1}", self.now_s, base_fee_wei)

    def block(
        self, move_to: float | None = None, oracle: bool = True, step_s: int = 60
    ) -> list[Event]:
        """The next block without its head: our actions, a move of the price, their ends."""
        self.number += 1
        self.now_s += step_s
        events: list[Event] = []
        settled: list[Event] = []
        for action in self.waiting:
            outcome = self.outcome(action)
            if outcome == "confirmed":
                events += self._carry_out(action, len(events))
            settled.append(ActionSettled(self.number, action.action_id, outcome, 10**14))  # type: ignore[arg-type]
            self.done.append(action)
        self.waiting = []
        if move_to is not None:
            events += self._move(move_to, len(events))
        if oracle:
            events.append(self.oracle())
        if settled:
            settled.append(self.holdings())
        return events + settled

    def _log(self, index: int, done: Any) -> Swapped:
        return Swapped(self.number, index, POOL, done.amount0, done.amount1, done.sqrt_price_x96,
                       done.liquidity, done.tick)  # fmt: skip

    def _move(self, price: float, index: int) -> list[Event]:
        target = math.isqrt(int(price * 10 ** (6 - 18) * 2**192))
        now = self.pool.sqrt_price_x96
        if abs(target / now - 1) < 1e-6:
            return []
        return [self._log(index, self.pool.swap(target < now, 10**40, target))]

    def _carry_out(self, action: Action, index: int) -> list[Event]:
        match action:
            case SwapExactInput():
                done = self.pool.swap(action.sell_token0, action.amount_in)
                out = -(done.amount1 if action.sell_token0 else done.amount0)
                assert out >= action.amount_out_min, "the chain would have reverted"
                self.amount0 -= done.amount0
                self.amount1 -= done.amount1
                return [self._log(index, done)]
            case ProvideLiquidity():
                ticks = (action.tick_lower, action.tick_upper)
                liquidity = liquidity_for_amounts(
                    self.pool.sqrt_price_x96, *ticks, action.amount0, action.amount1
                )
                a0, a1 = self.pool.change_liquidity(*ticks, liquidity)
                assert a0 >= action.amount0_min
                assert a1 >= action.amount1_min
                self.amount0, self.amount1 = self.amount0 - a0, self.amount1 - a1
                self.tokens += 1
                self.positions[self.tokens] = PositionHeld(self.tokens, *ticks, liquidity, 0, 0)
                self.marks[self.tokens] = self.pool.fee_growth_inside(*ticks)
                return [
                    LiquidityChanged(self.number, index, POOL, "0xM", *ticks, liquidity, a0, a1)
                ]
            case WithdrawLiquidity():
                held = self.positions.pop(action.token_id)
                ticks = (held.tick_lower, held.tick_upper)
                fees = self.pool.fees_owed(*ticks, held.liquidity, *self.marks[action.token_id])
                a0, a1 = self.pool.change_liquidity(*ticks, -held.liquidity)
                assert a0 >= action.amount0_min
                assert a1 >= action.amount1_min
                self.amount0 += a0 + fees[0]
                self.amount1 += a1 + fees[1]
                return [
                    LiquidityChanged(
                        self.number, index, POOL, "0xM", *ticks, -held.liquidity, a0, a1
                    )
                ]


class Play:
    """An agent on a market, every event and outcome in a list."""

    def __init__(
        self, market: Market | None = None, published: str | None = SHA, carried: Carried | None = None,
        told: AgentSettings = SETTINGS, journal: Journal | None = None, data: bytes = CALM,
    ) -> None:  # fmt: skip
        self.market = market or Market()
        self.agent = Agent(told, data, artifact.sha256_of(data), carried)
        self.journal = journal
        self.actions: list[Action] = []
        self.levels: list[Level] = []
        self.taken: list[tuple[Level, Action]] = []
        for event in (*self.market.history(), *self.market.state()):
            self.tell(event)
        if published is not None:
            self.tell(ModelPublished(self.market.number, 1, published, T0 - 3600, 1))
        self.head()

    def tell(self, event: Event) -> list[Action]:
        if self.journal is not None:
            return self.journal.run(self.agent, event)
        return self.agent.on(event)

    def head(self, base_fee_wei: int = 10**9) -> None:
        actions = self.tell(self.market.head(base_fee_wei))
        self.market.waiting += actions
        self.actions += actions
        self.levels.append(self.agent.breakers.level)
        self.taken += [(self.agent.breakers.level, action) for action in actions]

    def step(self, move_to: float | None = None, *extra: Event, **block: Any) -> None:
        for event in (*self.market.block(move_to, **block), *extra):
            self.tell(event)
        self.head()

    def churn(self, steps: int) -> None:
        """Trade to and fro, so that there are fees and bars."""
        price = self.market.price
        for n in range(steps):
            self.step(price * (1.0005 if n % 2 else 0.9995))

    @property
    def reason(self) -> str:
        assert self.agent.last_receipt is not None
        return self.agent.last_receipt.reason + self.agent.last_receipt.refused


def kinds(play: Play) -> list[str]:
    return [type(a).__name__ for a in play.actions]


def test_in_calm_it_balances_and_provides_one_position() -> None:
    play = Play()
    play.churn(8)
    assert kinds(play) == ["SwapExactInput", "ProvideLiquidity"]
    (held,) = play.market.positions.values()
    assert held.tick_lower < play.market.pool.tick < held.tick_upper
    value = play.agent.portfolio.last
    assert value is not None
    assert 0.9 * SETTINGS.capital_quote < value.position_quote < 1.01 * SETTINGS.capital_quote
    play.churn(30)
    assert play.agent.portfolio.fees_quote > 0
    assert play.agent.portfolio.lvr_quote > 0
    assert len(play.actions) <= 5  # at most one change of range


def test_the_same_on_a_pool_with_the_quote_first() -> None:
    """aster's pool has USDC as token0; the decision must not depend on the order."""
    flipped = PoolKey(POOL, KEY.token1, KEY.token0, 500, 10, False)
    ticks = ((-887_270, DEPTH, DEPTH, 0, 0), (887_270, DEPTH, -DEPTH, 0, 0))
    snapshot = PoolSnapshot(100, POOL, sqrt_ratio_at_tick(-TICK), -TICK, DEPTH, 0, 0, ticks)
    market = Market()
    agent = Agent(replace(SETTINGS, key=flipped), CALM, SHA)
    for event in (
        *market.history(), snapshot, Holdings(100, 60_000 * 10**6, 4 * 10**18, 10**18, ()),
        market.oracle(), market.parameters(), ModelPublished(100, 1, SHA, T0 - 3600, 1),
    ):  # fmt: skip
        agent.on(event)
    (action,) = agent.on(market.head())
    straight = Play(Market()).actions[0]
    assert isinstance(action, SwapExactInput)
    assert isinstance(straight, SwapExactInput)
    assert action.sell_token0 != straight.sell_token0
    assert action.adds_risk == straight.adds_risk
    assert action.amount_in == pytest.approx(straight.amount_in, rel=1e-3)


def test_a_wild_forecast_means_no_liquidity() -> None:
    wild = model(0.05, 0.01)
    play = Play(published=artifact.sha256_of(wild), data=wild)
    play.churn(10)
    assert play.actions == []
    assert "stay out" in play.reason


# the model gate: nothing is sent


def test_one_altered_byte_does_not_load() -> None:
    for at in (0, 9, len(CALM) // 2, len(CALM) - 1):
        data = bytearray(CALM)
        data[at] ^= 1
        with pytest.raises(ArtifactMismatch, match=SHA):
            Agent(SETTINGS, bytes(data), SHA)


def published(version: int, sha: str, live_from_s: int = T0 - 60) -> ModelPublished:
    return ModelPublished(100, version, sha, live_from_s, 1)


@pytest.mark.parametrize(
    ("registry", "said"),
    [
        ([], "unpublished"),  # no quorum signed it: the registry never spoke of it
        ([published(1, "f" * 64)], "unpublished"),
        ([published(1, SHA), published(2, "f" * 64)], "superseded"),
        ([published(2, SHA), ModelRevoked(100, 2)], "revoked"),
        ([published(1, SHA, T0 + 10**6)], "pending"),
        ([published(1, SHA), published(2, SHA, T0 + 10**6), ModelRevoked(100, 1)], "pending"),
    ],
)
def test_a_model_that_is_not_live_sends_nothing(registry: list[Event], said: str) -> None:
    market = Market()
    market.positions[7] = PositionHeld(
        7, TICK - TICK % 10 - 100, TICK - TICK % 10 + 100, 10**12, 0, 0
    )
    market.pool.change_liquidity(TICK - TICK % 10 - 100, TICK - TICK % 10 + 100, 10**12)
    market.marks[7] = (0, 0)
    play = Play(market, published=None)
    for event in registry:
        play.tell(event)
    play.churn(10)
    assert play.actions == []
    assert said in play.reason
    assert SHA in play.reason


def test_it_begins_when_its_model_goes_live() -> None:
    play = Play(published=None)
    play.tell(published(1, SHA, T0 + 300))
    play.churn(4)
    assert play.actions == []
    play.churn(4)
    assert play.actions


def test_a_revoked_model_gets_out_and_never_back_in() -> None:
    play = Play()
    play.churn(6)
    assert play.market.positions
    count = len(play.actions)
    play.step(None, ModelRevoked(play.market.number, 1))
    play.churn(10)
    assert not play.market.positions
    assert kinds(play)[count:] == ["WithdrawLiquidity"]
    assert play.levels[-1] is Level.REDUCE_ONLY


def test_a_newer_model_holds_what_there_is_and_adds_nothing() -> None:
    play = Play()
    play.churn(6)
    play.step(None, published(2, "f" * 64))
    play.churn(10)
    assert len(play.actions) == 2
    assert play.market.positions
    assert "superseded" in play.reason
    play.step(None, ModelRevoked(play.market.number, 2))  # live again, but the level stays
    play.churn(3)
    assert play.levels[-1] is Level.REDUCE_ONLY


# breakers


def crash(play: Play, fall: float, steps: int = 12) -> None:
    price = play.market.price
    for n in range(1, steps + 1):
        play.step(price * (1 - fall * n / steps))


def test_a_crash_trips_halts_and_withdraws_and_no_risk_is_added_after() -> None:
    play = Play()
    play.churn(6)
    crash(play, 0.05)
    play.churn(60)
    assert play.levels[-1] >= Level.HALT
    assert not play.market.positions
    assert play.levels == sorted(play.levels)
    after = [a for level, a in play.taken if level > Level.NORMAL]
    assert after
    assert not any(a.adds_risk for a in after)


def test_at_halt_it_withdraws_and_keeps_what_it_holds() -> None:
    patient = replace(SETTINGS, limits=replace(SETTINGS.limits, drawdown_unwind_bps=3000))
    play = Play(told=patient)
    play.churn(6)
    crash(play, 0.05)
    play.churn(6)
    assert play.levels[-1] is Level.HALT
    assert not play.market.positions
    assert play.market.amount0 > 10**18
    assert not any(isinstance(a, SwapExactInput) for level, a in play.taken if level > 0)


def test_at_unwind_the_volatile_asset_is_sold() -> None:
    play = Play()
    play.churn(6)
    crash(play, 0.12)
    play.churn(10)
    assert play.levels[-1] is Level.UNWIND
    assert not play.market.positions
    assert play.market.amount0 * play.market.price / 1e18 < 2
    assert play.market.amount1 > 10**6
    sells = [a for a in play.actions if isinstance(a, SwapExactInput) and a.sell_token0]
    assert sells
    assert "everything is in the quote" in play.reason


def test_an_oracle_that_disagrees_or_falls_silent_stops_it() -> None:
    play = Play()
    play.step(None, play.market.oracle(1.03))
    assert play.levels[-1] is Level.REDUCE_ONLY
    silent = Play()
    for _ in range(70):
        silent.step(oracle=False)
    assert silent.levels[-1] is Level.REDUCE_ONLY
    assert "oracle" in " ".join(t.rule for t in silent.agent.breakers.trips)


def test_gas_above_the_ceiling_defers_and_does_not_latch() -> None:
    play = Play(published=None)
    play.tell(published(1, SHA))
    for _ in range(3):
        for event in play.market.block():
            play.tell(event)
        play.head(base_fee_wei=201 * 10**9)
        assert play.actions == []
        assert "gas price" in play.reason
    assert play.levels[-1] is Level.NORMAL
    play.step()
    assert play.actions


# what governs


def notional(action: Action, price: float) -> float:
    assert isinstance(action, ProvideLiquidity)
    return action.amount0 / 1e18 * price + action.amount1 / 1e6


def test_a_tighter_vote_binds_the_very_next_decision() -> None:
    free = Play()
    free.churn(3)
    assert notional(free.actions[-1], free.market.price) > 0.9 * SETTINGS.capital_quote
    play = Play()
    play.step(None, play.market.parameters(action_notional_max=10_000))
    play.churn(3)
    assert isinstance(play.actions[-1], ProvideLiquidity)
    assert 9_000 < notional(play.actions[-1], play.market.price) <= 10_000
    assert play.agent.permit(replace(free.actions[-1], deadline_s=play.market.now_s + 60)) != ""


def test_a_vote_never_loosens_what_the_agent_was_told() -> None:
    play = Play()
    for notional_max in (1_000, 10_000_000):
        play.step(None, play.market.parameters(
            action_notional_max=notional_max, epoch_notional_max=10_000_000))  # fmt: skip
    assert play.agent.breakers.limits == SETTINGS.limits


def test_a_level_that_a_vote_lowers_below_the_loss_trips_at_the_next_decision() -> None:
    play = Play()
    play.churn(6)
    price = play.market.price
    play.step(price * 0.993)
    drawdown = play.agent.portfolio.drawdown * 1e4
    assert 20 < drawdown < 100
    assert play.levels[-1] is Level.NORMAL
    assert play.market.positions
    play.step(price * 0.993, play.market.parameters(
        drawdown_reduce_bps=10, drawdown_halt_bps=20))  # fmt: skip
    assert play.levels[-1] is Level.HALT
    assert isinstance(play.actions[-1], WithdrawLiquidity)
    play.step(None, play.market.parameters(drawdown_reduce_bps=900, drawdown_halt_bps=1800))
    play.churn(5)
    assert play.levels[-1] is Level.HALT  # who is out stays out
    assert not play.market.positions


@pytest.mark.parametrize("vote", [{"action_notional_max": 2_000}, {"slippage_max_bps": 15}])
def test_what_is_sold_at_unwind_obeys_too(vote: dict[str, int]) -> None:
    """In pieces of one action's size, and no swap worse than the vote allows."""
    play = Play()
    play.churn(6)
    play.step(None, play.market.parameters(**vote))
    crash(play, 0.12)
    play.churn(10)
    sells = [a for a in play.actions if isinstance(a, SwapExactInput) and a.sell_token0]
    assert len(sells) > 1
    price = play.market.price
    for sold in sells:
        worth = sold.amount_in / 1e18 * price
        assert worth <= 1.01 * vote.get("action_notional_max", 100_000)
        if "slippage_max_bps" in vote:
            assert sold.amount_out_min / 1e6 >= 0.997 * worth


def test_a_model_that_a_vote_makes_too_old_adds_nothing() -> None:
    play = Play(published=None)
    play.tell(published(1, SHA, T0 - 100_000))
    play.step(None, play.market.parameters(model_age_max_s=90_000))
    play.churn(3)
    assert play.actions == []
    assert [t.rule for t in play.agent.breakers.trips] == ["model expired"]
    assert play.levels[-1] is Level.REDUCE_ONLY


def test_while_all_is_paused_nothing_is_added_and_getting_out_goes_on() -> None:
    market = Market(paused=True)
    play = Play(market)
    play.churn(4)
    assert play.actions == []
    assert "paused" in play.reason
    market.paused = False
    play.step(None, market.parameters())
    play.churn(5)
    assert market.positions
    market.paused = True
    before = len(play.actions)
    play.step(None, market.parameters())
    adding = replace(play.actions[0], deadline_s=market.now_s + 60)
    assert "paused" in play.agent.permit(adding)
    price = market.price
    for n in range(1, 4):  # out of its range, which it would follow
        play.step(price * (1 + 0.006 * n))
    play.churn(30)
    assert len(play.actions) == before
    crash(play, 0.09)
    play.churn(5)
    assert not market.positions
    assert not any(a.adds_risk for a in play.actions[before:])


def test_where_news_of_home_are_old_it_withdraws_and_comes_back_with_fresh_ones() -> None:
    market = Market(as_of_s=T0)
    play = Play(market)
    play.churn(6)
    assert market.positions
    last_s = T0 + play.agent.breakers.limits.mirror_age_max_s
    play.step(step_s=last_s - market.now_s)
    assert play.agent.last_receipt is not None
    assert play.agent.last_receipt.model == "live"  # as old as it may be
    before = len(play.actions)
    play.step(step_s=1)
    assert play.agent.last_receipt.model == "stale"
    play.churn(10)
    assert kinds(play)[before:] == ["WithdrawLiquidity"]
    assert not market.positions
    assert play.levels[-1] is Level.NORMAL
    assert "stale" in play.agent.permit(replace(play.actions[0], deadline_s=market.now_s + 60))
    market.as_of_s = market.now_s
    play.step(None, market.parameters())
    play.churn(10)
    assert market.positions


def test_an_agent_that_begins_with_old_news_sends_nothing() -> None:
    market = Market(as_of_s=T0 - 100_000)
    play = Play(market)
    play.churn(5)
    assert play.actions == []
    assert "is stale: nothing is sent" in play.reason
    assert not play.agent.last_receipt.was_live  # type: ignore[union-attr]


def test_on_the_home_chain_what_was_told_long_ago_still_holds() -> None:
    play = Play(told=replace(SETTINGS, limits=replace(SETTINGS.limits, mirror_age_max_s=60)))
    for _ in range(5):
        play.step(step_s=600)
    assert play.market.positions


def test_an_agents_own_age_of_news_is_kept_where_it_is_tighter() -> None:
    strict = replace(SETTINGS, limits=replace(SETTINGS.limits, mirror_age_max_s=600))
    play = Play(Market(as_of_s=T0), told=strict)
    play.churn(6)
    assert play.market.positions
    play.churn(10)
    assert not play.market.positions


ABSURD = (*Governed().values[:12], 600, *Governed().values[13:])
"""Each within its bounds: models of ten minutes, and a delay of a day until they are used."""


@pytest.mark.parametrize("values", [(), (0,) * 28, Governed().values[:-1], ABSURD])
def test_values_that_no_store_can_hold_are_refused_and_change_nothing(values: Any) -> None:
    play = Play()
    known, limits = play.agent.world.parameters, play.agent.breakers.limits
    with pytest.raises(Refusal):
        play.tell(ParametersSeen(play.market.number, values, False, T0, False))
    assert play.agent.world.parameters == known
    assert play.agent.breakers.limits == limits


def test_without_parameters_nothing_is_decided() -> None:
    market = Market()
    agent = Agent(SETTINGS, CALM, SHA)
    for event in (*market.history(), *market.state()[:3], published(1, SHA)):
        agent.on(event)
    assert agent.on(market.head()) == []
    assert agent.last_receipt is None
    assert "governed parameters" in str(agent.world.stale)
    agent.on(market.parameters())
    assert agent.on(market.head()) != []


BOUNDS = {
    "drawdown_reduce_bps": st.integers(10, 1000), "drawdown_halt_bps": st.integers(1001, 2000),
    "drawdown_unwind_bps": st.integers(2001, 5000), "action_notional_max": st.integers(1, 10**6),
    "epoch_notional_max": st.integers(10**6, 10**8), "gas_price_max_gwei": st.integers(1, 1000),
    "oracle_deviation_max_bps": st.integers(300, 5000), "oracle_age_max_s": st.integers(10, 10_000),
    "slippage_max_bps": st.integers(1, 300), "model_age_max_s": st.integers(400_000, 7_000_000),
    "mirror_age_max_s": st.integers(60, 400_000),
}  # fmt: skip
OF_LIMITS = {
    "oracle_deviation_max_bps": "oracle_deviation_reduce_bps",
    "oracle_age_max_s": "oracle_age_reduce_s",
    "slippage_max_bps": "swap_discount_max_bps",
    "action_notional_max": "action_notional_max_quote",
    "epoch_notional_max": "epoch_notional_max_quote",
}


@settings(max_examples=60)
@given(votes=st.lists(st.fixed_dictionaries({}, optional=BOUNDS), min_size=1, max_size=6))
def test_in_force_is_never_looser_than_its_own_nor_than_any_vote_says(
    votes: list[dict[str, int]],
) -> None:
    """Whatever was told before: only the newest vote and its own settings count."""
    own = replace(SETTINGS.limits, mirror_age_max_s=3600, action_notional_max_quote=50_000)
    agent = Agent(replace(SETTINGS, limits=own), CALM, SHA)
    market = Market()
    for vote in votes:
        agent.on(market.parameters(**vote))
        limits, governed = asdict(agent.breakers.limits), market.governed
        assert all(limits[name] <= value for name, value in asdict(own).items())
        for name in BOUNDS.keys() - {"gas_price_max_gwei"}:
            assert limits[OF_LIMITS.get(name, name)] <= getattr(governed, name)
        assert limits["gas_price_max_wei"] <= governed.gas_price_max_gwei * 10**9
        assert agent.breakers.limits == in_force(own, governed)


# one at a time, and patience


def test_one_action_is_in_flight_at_a_time() -> None:
    play = Play()
    assert len(play.actions) == 1
    held_back = play.market.waiting
    play.market.waiting = []
    for _ in range(5):
        play.step()
    assert len(play.actions) == 1
    assert play.actions[0].action_id in play.reason
    play.market.waiting = held_back
    play.churn(2)
    assert len(play.actions) == 2


def test_a_head_told_twice_is_decided_once() -> None:
    play = Play(carried=Carried(in_flight="x"))
    head = play.market.head()
    play.tell(ActionSettled(play.market.number, "x", "dropped", 0))
    assert play.tell(head) == []
    assert play.agent.last_receipt is None


def test_ids_are_unique_deterministic_and_go_on_after_a_restart() -> None:
    one, two = Play(carried=Carried(run="abc")), Play(carried=Carried(run="abc"))
    one.churn(10)
    two.churn(10)
    assert one.actions == two.actions
    assert [a.action_id for a in one.actions] == ["abc-000000", "abc-000001"]
    later = Play(carried=Carried(run="abc", next_action=2))
    assert later.actions[0].action_id == "abc-000002"


def test_after_failures_it_waits_longer_each_time() -> None:
    market = Market()
    market.outcome = lambda action: "reverted"
    play = Play(market)
    tried = []
    for n in range(120):
        before = len(play.actions)
        play.step()
        if len(play.actions) > before:
            tried.append(n)
    waits = [b - a for a, b in pairwise(tried)]
    assert 3 <= len(tried) <= 7
    assert waits == sorted(waits)
    assert play.agent.portfolio.gas_wei == len(market.done) * 10**14


def test_an_action_in_flight_and_a_level_are_carried_over_a_restart() -> None:
    waiting = Play(carried=Carried(in_flight="old-000007"))
    waiting.churn(4)
    assert waiting.actions == []
    waiting.step(None, ActionSettled(waiting.market.number, "old-000007", "dropped", 0),
                 waiting.market.holdings())  # fmt: skip
    waiting.churn(10)
    assert waiting.actions
    halted = Play(carried=Carried(level=Level.HALT))
    halted.churn(10)
    assert halted.actions == []
    deep = Play(carried=Carried(high_water_quote=1e6))
    assert deep.levels[-1] is Level.UNWIND


def test_the_account_must_be_read_again_after_an_action() -> None:
    play = Play()
    action = play.market.waiting.pop()
    play.tell(ActionSettled(play.market.number + 5, action.action_id, "confirmed", 0))
    play.step()
    assert "waiting for the account" in play.reason
    assert len(play.actions) == 1


def test_permit_is_the_last_word_before_a_signature() -> None:
    fresh = Agent(SETTINGS, CALM, SHA)
    play = Play()
    action = play.actions[0]
    assert "nothing is known" in fresh.permit(action)
    assert play.agent.permit(action) == ""
    play.tell(Reorganised(play.market.number - 1))
    assert play.agent.permit(replace(action, adds_risk=True)) != ""
    halted = Play(carried=Carried(level=Level.HALT))
    assert "HALT" in halted.agent.permit(ProvideLiquidity("x", POOL, -10, 10, 1, 1, 1, 1, T0 + 100))


# stale, and bad input


def test_a_broken_world_is_told_and_nothing_is_decided_until_it_is_whole() -> None:
    play = Play()
    play.churn(6)
    play.market.waiting = []
    play.market.number += 2
    with pytest.raises(Stale):
        play.tell(play.market.head())
    play.market.number += 1
    assert play.tell(play.market.head()) == []
    assert play.agent.last_receipt is None
    for event in (*play.market.state(), published(1, SHA)):
        assert play.tell(event) == []
    play.head()
    assert play.agent.last_receipt is not None
    assert play.agent.world.stale is None


def test_settings_out_of_bounds_are_refused() -> None:
    for bad in ({"capital_quote": 0.0}, {"slippage_bps": 301}, {"deadline_s": 4000},
                {"native_price_quote": math.nan}):  # fmt: skip
        with pytest.raises(BadInput, match=next(iter(bad))):
            replace(SETTINGS, **bad)  # type: ignore[arg-type]


# journal and replay


def start_body(carried: Carried) -> Mapping[str, Any]:
    return {
        "settings": plain(asdict(SETTINGS)),
        "artifact_sha256": SHA,
        "carried": plain(asdict(carried)),
    }


def recorded(path: Path) -> Play:
    """A run with a crash, a reorganisation and a failure in it, all in a journal."""
    journal = Journal(path)
    carried = Carried(run="j")
    journal.append("start", start_body(carried))
    play = Play(carried=carried, journal=journal)
    play.churn(8)
    play.tell(Reorganised(play.market.number - 1))
    play.market.number += 1
    play.market.now_s += 60
    with pytest.raises(Stale):
        play.tell(play.market.head()) or play.tell(PoolSnapshot(1, POOL, 5, 0, 1, 0, 0, ()))
    for event in (*play.market.state(), published(1, SHA)):
        play.tell(event)
    play.head()
    play.step(None, play.market.parameters(action_notional_max=30_000, gas_price_max_gwei=3))
    crash(play, 0.08)
    play.churn(20)
    return play


def agents(body: Mapping[str, Any]) -> Agent:
    return agent_of(body, CALM)


def test_replay_reproduces_every_action_and_the_head_hash(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    play = recorded(path)
    assert play.journal is not None
    play.journal.close()
    result = replay(path, agents)
    assert result.head_hash == play.journal.head_hash
    assert result.actions == len(play.actions) >= 4
    assert result.receipts > 30


def test_receipts_carry_intervals_once_enough_hours_have_come_and_replay_makes_them_again(
    tmp_path: Path,
) -> None:
    path = tmp_path / "journal.jsonl"
    carried = Carried(run="j")
    with Journal(path) as journal:
        journal.append("start", start_body(carried))
        # 168 h make the first forecast; the last of 100 residuals comes with the first live hour
        play = Play(Market(hours=267), carried=carried, journal=journal)
        play.churn(130)
    receipts = [r.body for r in Reader(path) if r.kind == "receipt"]
    known = [r for r in receipts if r["variance_interval"] is not None]
    assert receipts[0]["variance_interval"] is receipts[0]["demand_interval_quote"] is None
    assert min(r["timestamp_s"] for r in known) == T0 + 3600
    assert all(r in known for r in receipts if r["timestamp_s"] >= T0 + 3600)
    for low, high in (
        *(r["variance_interval"] for r in known),
        *(r["demand_interval_quote"] for r in known),
    ):
        assert 0 < low < high
    assert len({tuple(r["variance_interval"]) for r in known}) > 1  # it learns on
    assert replay(path, agents).receipts == len(receipts)


def test_an_altered_event_is_found_and_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    play = recorded(path)
    assert play.journal is not None
    play.journal.close()
    swap = [r for r in Reader(path) if r.body.get("type") == "Swapped"][5]
    lines = path.read_text().splitlines(keepends=True)
    amount = swap.body["amount1"]
    lines[swap.seq] = lines[swap.seq].replace(f'"amount1":{amount}', f'"amount1":{amount + 1}')
    assert lines[swap.seq] != path.read_text().splitlines(keepends=True)[swap.seq]
    path.write_text("".join(lines))
    with pytest.raises(JournalAltered, match=f"record {swap.seq} ") as found:
        replay(path, agents)
    assert found.value.seq == swap.seq


def test_settings_and_carried_survive_the_journal() -> None:
    carried = Carried("r", 3, Level.HALT, 12.5, "r-000002", True)
    assert AgentSettings.from_body(plain(asdict(SETTINGS))) == SETTINGS
    assert Carried.from_body(plain(asdict(carried))) == carried


# the law, over random feeds

number = st.one_of(st.floats(), st.floats(1000, 4000))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("move"), st.floats(0.9, 1.1)),
        st.tuples(st.just("oracle"), st.floats(0.5, 1.5)),
        st.tuples(st.just("bar"), number, number),
        st.tuples(st.just("gap")),
        st.tuples(st.just("reorg")),
        st.tuples(st.just("revoke")),
        st.tuples(st.just("newer")),
        st.tuples(st.just("fail")),
        st.tuples(st.just("gas"), st.integers(0, 10**12)),
        st.tuples(st.just("time"), st.integers(0, 20_000)),
        st.tuples(st.just("vote"), st.fixed_dictionaries({}, optional=BOUNDS)),
        st.tuples(st.just("pause"), st.booleans()),
    ),
    min_size=5,
    max_size=40,
)


@settings(max_examples=40, deadline=None)
@given(steps=STEPS)
def test_no_feed_makes_it_add_risk_after_a_trip(steps: list[Any]) -> None:
    play = Play()
    highest = play.levels[-1]
    for kind, *values in steps:
        market = play.market
        before = len(play.actions)
        market.outcome = lambda action, kind=kind: "reverted" if kind == "fail" else "confirmed"
        try:
            if kind == "bar":
                play.tell(
                    BarClosed(market.now_s - 60, 60, values[0], values[0], values[1], 1.0, 1.0)
                )
            for event in market.block(
                market.price * values[0] if kind == "move" else None,
                oracle=kind != "time",
                step_s=values[0] if kind == "time" else 60,
            ):
                play.tell(event)
            if kind == "oracle":
                play.tell(market.oracle(values[0]))
            if kind == "revoke":
                play.tell(ModelRevoked(market.number, 1))
            if kind == "newer":
                play.tell(published(9, "e" * 64, market.now_s))
            if kind == "vote":
                play.tell(market.parameters(**values[0]))
            if kind == "pause":
                market.paused = values[0]
                play.tell(market.parameters())
            if kind == "gap":
                market.number += 1
            if kind == "reorg":
                play.tell(Reorganised(market.number - 3))
            play.head(values[0] if kind == "gas" else 10**9)
        except Stale:
            pass
        except Refusal:
            assert kind == "bar"
        if play.agent.world.stale is not None:
            for event in (*market.state(), published(1, SHA)):
                play.tell(event)
            play.head()
        assert play.agent.breakers.level >= highest
        if highest > Level.NORMAL:
            assert all(not a.adds_risk for a in play.actions[before:])
        if market.paused:
            assert all(not a.adds_risk for a in play.actions[before:])
        highest = play.agent.breakers.level
    with pytest.raises(FedtradeError):
        Agent(SETTINGS, CALM, "0" * 64)
