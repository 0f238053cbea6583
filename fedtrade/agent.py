"""THE decision, for one pool on one chain: events in, actions out.

    world.apply → features → forecast → breakers.observe → liquidity.decide_range → placement
                → breakers.check → at most one action

In force is, of each limit, the tighter of the agent's own and the governed one, from the event that
tells it on: `in_force`. Nothing of what the agent is told by the chain loosens its own.

The agent is pure. It reads no clock (time is the head's), draws nothing at random, opens nothing;
fed the same events it gives the same actions and receipts, which is what a journal replays.

It decides once per head and has one action in flight. It acts only under a model whose hash it has
verified and that is live in the registry: an altered artifact does not load, an unpublished, older
or revoked one adds no risk, and before its model was live for the first time the agent sends nothing
at all. Where the home chain's news are too old, nobody knows whether the model still is: the agent
withdraws, and comes back with fresh news. While the consortium has paused everything it adds nothing.
From REDUCE_ONLY on nothing adds risk; at HALT it withdraws its liquidity; at UNWIND it also sells the
volatile asset. After each failure it waits longer, up to a limit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtrade import artifact
from fedtrade.governed import Governed
from fedtrade.learning.features import FeatureStream
from fedtrade.learning.forecast import Forecast, Forecaster
from fedtrade.learning.hindsight import Hindsight
from fedtrade.market.actions import Action, ProvideLiquidity, SwapExactInput, WithdrawLiquidity
from fedtrade.market.events import (
    ActionSettled,
    BarClosed,
    Event,
    Head,
    ParametersSeen,
    PositionHeld,
)
from fedtrade.market.world import World
from fedtrade.risk.breakers import Breakers, Level, Readings, Trip
from fedtrade.risk.portfolio import Portfolio, value
from fedtrade.trading import placement
from fedtrade.trading.liquidity import RangeDecision, decide_range
from fedtrade.trading.mandate import AgentSettings, Carried, Receipt, in_force

__all__ = ["Agent", "AgentSettings", "Carried", "Receipt", "agent_of"]

TIP_WEI = 10**9
"""What a transaction is assumed to add to the base fee, in the cost of a change of range."""
BALANCING_SWAPS_MAX = 4
"""Swaps in a row before providing with what is there."""
BALANCE_TOLERANCE_BPS = 200
HASTE = 6
"""Factor on the slippage of a withdrawal: getting out matters more than the exact split."""
DUST_QUOTE = 1.0


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the agent would do at this head, before the breakers are asked."""

    reason: str
    action: Action | None = None
    range: tuple[int, int] | None = None


class Agent:
    """One agent. `on` is all there is to it; `last_receipt` tells about the last head."""

    def __init__(
        self,
        settings: AgentSettings,
        artifact_bytes: bytes,
        artifact_sha256: str,
        carried: Carried | None = None,
    ) -> None:
        """Verify and load the artifact (raises a Refusal) and take over what was carried."""
        carried = carried or Carried()
        self.settings = settings
        self.artifact = artifact.load(artifact_bytes, artifact_sha256)
        self.world = World(settings.key, settings.feed)
        self.breakers = Breakers(settings.limits, settings.key, carried.level)
        self.portfolio = Portfolio(carried.high_water_quote, settings.native_price_quote)
        self.last_receipt: Receipt | None = None
        self._forecaster = Forecaster(self.artifact)
        self._features = FeatureStream()
        self._hindsight = Hindsight(self._forecaster)
        self._readings: Readings | None = None
        self._run = carried.run
        self._next_action = carried.next_action
        self._in_flight = carried.in_flight
        self._was_live = carried.was_live
        self._decided = ""  # hash of the last head that was decided on
        self._account_from = 0  # block from which on the account must have been read
        self._add_from_s = 0  # time from which on risk may be added
        self._reduce_from_s = 0
        self._cool_after = False  # whether the action in flight ends in a pause
        self._failures = 0
        self._swaps = 0

    def on(self, event: Event) -> list[Action]:
        """Take in one event; at a head, decide. Raises Stale where the world must be resynced, and
        a Refusal for parameters that no store can hold."""
        self.last_receipt = None
        if isinstance(event, ParametersSeen):
            self.breakers.limits = in_force(self.settings.limits, Governed.of(event.values))
        if isinstance(event, BarClosed):  # refused before anything has taken it in
            self.world.refuse_off_grid(event)
            self._take(event)
        self.world.apply(event)
        for bar in self.world.take_bars():
            self._take(bar)
        match event:
            case ActionSettled():
                self._settled(event)
            case Head() if self._is_news(event):
                return self._decide(event)
        return []

    def _take(self, bar: BarClosed) -> None:
        self._features.observe(bar)
        self._hindsight.observe(self._features)

    def _decide(self, head: Head) -> list[Action]:
        self.portfolio.observe(value(self.world))
        readings = self._readings = self._read(head)
        trips = self.breakers.observe(readings)
        row = self._features.row()
        forecast = self._forecaster.predict(row) if row is not None else None
        demand = self._demand_quote_per_hour(forecast)
        plan = self._plan(head, readings, forecast, demand)
        refused = self.breakers.check(plan.action, readings).reason if plan.action else ""
        self.last_receipt = self._receipt(
            head, readings, trips, row, forecast, demand, plan, refused
        )
        if plan.action is None or refused:
            return []
        self.breakers.book(plan.action, readings)
        self._in_flight = plan.action.action_id
        self._next_action += 1
        self._cool_after = plan.range is None or isinstance(plan.action, ProvideLiquidity)
        self._swaps = self._swaps + 1 if isinstance(plan.action, SwapExactInput) else 0
        return [plan.action]

    @property
    def actions(self) -> int:
        """Actions decided so far, by this agent and those before it on the journal."""
        return self._next_action

    @property
    def last_readings(self) -> Readings | None:
        """What the breakers saw at the last head; None before the first."""
        return self._readings

    def permit(self, action: Action) -> str:
        """The last word before a signature: why it may not be signed now, or nothing."""
        if self._readings is None:
            return "nothing is known of the chain yet"
        if (stale := self.world.stale) is not None and self.breakers.adds_risk(action):
            return str(stale)
        return self.breakers.check(action, self._readings).reason

    def _receipt(
        self,
        head: Head,
        readings: Readings,
        trips: Sequence[Trip],
        row: NDArray[np.float64] | None,
        forecast: Forecast | None,
        demand: float | None,
        plan: _Plan,
        refused: str,
    ) -> Receipt:
        live, portfolio = self.world.models.live(head.timestamp_s), self.portfolio
        intervals = self._hindsight.around(forecast) if forecast else None
        mean = self._features.trailing_mean_notional() or 0.0
        return Receipt(
            block=head.number,
            block_hash=head.hash,
            timestamp_s=head.timestamp_s,
            price=readings.price,
            oracle_price=readings.oracle_price,
            base_fee_wei=head.base_fee_wei,
            equity_quote=portfolio.equity_quote,
            high_water_quote=portfolio.high_water_quote,
            drawdown_bps=readings.drawdown_bps,
            profit_quote=portfolio.profit_quote,
            hold_quote=portfolio.hold_quote,
            fees_quote=portfolio.fees_quote,
            lvr_quote=portfolio.lvr_quote,
            gas_wei=portfolio.gas_wei,
            model_sha256=self.artifact.sha256,
            model=readings.model,
            model_version=live.version if live else 0,
            was_live=self._was_live,
            features_sha256=hashlib.sha256(row.tobytes()).hexdigest() if row is not None else "",
            variance_per_hour=forecast.variance_per_hour if forecast else None,
            variance_interval=intervals.variance_per_hour if intervals else None,
            demand_quote_per_hour=demand,
            demand_interval_quote=(
                (intervals.demand_ratio[0] * mean, intervals.demand_ratio[1] * mean)
                if intervals
                else None
            ),
            level=int(self.breakers.level),
            trips=tuple(trip.rule for trip in trips),
            range=plan.range,
            reason=plan.reason,
            refused=refused,
        )

    # what is known

    def _is_news(self, head: Head) -> bool:
        """Whether the world stands whole at this head, and it was not decided on before."""
        if self.world.stale is not None or self.world.head != head or self._decided == head.hash:
            return False
        self._decided = head.hash
        return True

    def _read(self, head: Head) -> Readings:
        standing = self.world.models.standing(self.artifact.sha256, head.timestamp_s)
        live = self.world.models.live(head.timestamp_s)
        known = self.world.parameters
        news_age_s = head.timestamp_s - known.as_of_s if known.mirrored else 0
        stale = standing == "live" and news_age_s > self.breakers.limits.mirror_age_max_s
        self._was_live = self._was_live or (standing == "live" and not stale)
        return Readings(
            timestamp_s=head.timestamp_s,
            price=self.world.price,
            oracle_price=self.world.oracle_price,
            oracle_age_s=float(max(0, head.timestamp_s - self.world.oracle.updated_at_s)),
            drawdown_bps=self.portfolio.drawdown * placement.BPS,
            gas_price_wei=float(head.base_fee_wei),
            model="stale" if stale else standing,
            model_age_s=float(head.timestamp_s - live.live_from_s)
            if live and standing == "live"
            else 0.0,
            paused=known.paused,
        )

    def _demand_quote_per_hour(self, forecast: Forecast | None) -> float | None:
        mean = self._features.trailing_mean_notional()
        return None if forecast is None or mean is None else forecast.demand_ratio * mean

    # what to do

    def _plan(
        self, head: Head, readings: Readings, forecast: Forecast | None, demand: float | None
    ) -> _Plan:
        level, held = self.breakers.level, self.world.holdings.positions
        if self._in_flight:
            return _Plan(f"waiting for {self._in_flight}")
        if self.world.holdings.block < self._account_from:
            return _Plan("waiting for the account after the last action")
        if not self._was_live:
            return _Plan(f"the model {self.artifact.sha256} is {readings.model}: nothing is sent")
        if level >= Level.HALT:
            return self._get_out(head, level.name, held)
        if readings.model in ("revoked", "stale"):
            return self._get_out(head, f"the model is {readings.model}", held)
        if readings.paused:
            return _Plan("holding: the consortium has paused everything", range=_range(held))
        if readings.model != "live" or forecast is None or demand is None:
            cold = "" if forecast else ", features are cold"
            return _Plan(f"holding: the model is {readings.model}{cold}", range=_range(held))
        if len(held) > 1:
            return self._withdraw(head, held[0], "one position is enough", _range(held))
        if self._capital_quote() < DUST_QUOTE:
            return _Plan("there is nothing to provide")
        decision = self._range_decision(head, forecast, demand, held)
        if held:
            return self._keep_or_leave(head, held[0], decision)
        if level > Level.NORMAL:
            return _Plan(f"{level.name}: nothing may be added")
        if not decision.provide:
            return _Plan(decision.reason)
        if head.timestamp_s < self._add_from_s:
            return _Plan(f"cooling down until {self._add_from_s}: {decision.reason}")
        return self._enter(head, decision)

    def _range_decision(
        self, head: Head, forecast: Forecast, demand: float, held: tuple[PositionHeld, ...]
    ) -> RangeDecision:
        gas_wei = self.settings.range_gas * (head.base_fee_wei + TIP_WEI)
        return decide_range(
            self.world.pool,
            self._capital_quote(),
            forecast.variance_per_hour,
            demand,
            gas_wei / 1e18 * self.settings.native_price_quote,
            self.settings.horizon_h,
            _range(held),
            own_liquidity=held[0].liquidity if held else None,
        )

    def _capital_quote(self) -> float:
        """What may stand in the pool: the settings', the breakers' and the account's limit."""
        cap = min(
            self.settings.capital_quote, 0.98 * self.breakers.limits.action_notional_max_quote
        )
        return min(cap, 0.998 * self.portfolio.equity_quote)

    def _keep_or_leave(self, head: Head, held: PositionHeld, decision: RangeDecision) -> _Plan:
        wanted = (decision.tick_lower, decision.tick_upper)
        current = (held.tick_lower, held.tick_upper)
        if not decision.provide:
            return self._withdraw(head, held, decision.reason, None)
        if wanted == current or head.timestamp_s < self._add_from_s:
            return _Plan(decision.reason, range=current)
        if self.breakers.level > Level.NORMAL:
            return _Plan("keeping the range: a new one would add risk", range=current)
        return self._withdraw(head, held, decision.reason, wanted)

    def _enter(self, head: Head, decision: RangeDecision) -> _Plan:
        """Provide in the range, or first swap to its ratio."""
        pool, holdings, slippage = self.world.pool, self.world.holdings, self.settings.slippage_bps
        lower, upper = decision.tick_lower, decision.tick_upper
        have = (holdings.amount0, holdings.amount1)
        want = placement.needed(pool, lower, upper, self._capital_quote())
        swap = placement.balancing_swap(pool, want, have, BALANCE_TOLERANCE_BPS)
        if swap is not None and self._swaps < BALANCING_SWAPS_MAX:
            return self._swap(head, *swap, decision.reason, (lower, upper))
        offer = (min(want[0], have[0]), min(want[1], have[1]))
        width_bps = int((1.0001 ** (upper - lower) - 1) * placement.BPS)
        amounts = placement.mint_amounts(
            pool, lower, upper, offer, min(slippage, width_bps // 3 + 1)
        )
        action = ProvideLiquidity(
            self._action_id(),
            pool.key.address,
            lower,
            upper,
            amounts.amount0,
            amounts.amount1,
            amounts.amount0_min,
            amounts.amount1_min,
            head.timestamp_s + self.settings.deadline_s,
        )
        return _Plan(decision.reason, action, (lower, upper))

    def _get_out(self, head: Head, reason: str, held: tuple[PositionHeld, ...]) -> _Plan:
        """Withdraw what is provided; at UNWIND sell the volatile asset, too."""
        if held:
            return self._withdraw(head, held[0], reason, None)
        if self.breakers.level < Level.UNWIND:
            return _Plan(reason)
        pool, holdings = self.world.pool, self.world.holdings
        base_is_token0 = pool.key.base_is_token0
        amount = holdings.amount0 if base_is_token0 else holdings.amount1
        worth = placement.quote_value(pool, *((amount, 0) if base_is_token0 else (0, amount)))
        if worth < DUST_QUOTE:
            return _Plan(f"{reason}: everything is in the quote")
        cap = self.breakers.limits.action_notional_max_quote
        if worth > cap:
            amount = int(amount * (cap / worth))
        return self._swap(head, base_is_token0, amount, reason, None)

    def _withdraw(
        self, head: Head, held: PositionHeld, reason: str, then: tuple[int, int] | None
    ) -> _Plan:
        if head.timestamp_s < self._reduce_from_s:
            return _Plan(f"trying again at {self._reduce_from_s}: {reason}", range=then)
        pool, slippage = self.world.pool, self.settings.slippage_bps * HASTE
        least = placement.withdraw_least(
            pool, held.tick_lower, held.tick_upper, held.liquidity, slippage
        )
        action = WithdrawLiquidity(
            self._action_id(),
            pool.key.address,
            held.token_id,
            held.liquidity,
            *least,
            head.timestamp_s + self.settings.deadline_s,
        )
        return _Plan(reason, action, then)

    def _swap(
        self, head: Head, sell_token0: bool, amount: int, reason: str, then: tuple[int, int] | None
    ) -> _Plan:
        pool = self.world.pool
        adds_risk = sell_token0 != pool.key.base_is_token0
        if not adds_risk and head.timestamp_s < self._reduce_from_s:
            return _Plan(f"trying again at {self._reduce_from_s}: {reason}", range=then)
        amount, least = placement.bounded_swap(
            pool,
            sell_token0,
            amount,
            self.settings.slippage_bps,
            self.world.oracle_price,
            self.breakers.limits.swap_discount_max_bps,
        )
        action = SwapExactInput(
            self._action_id(),
            pool.key.address,
            sell_token0,
            amount,
            least,
            head.timestamp_s + self.settings.deadline_s,
            adds_risk,
        )
        return _Plan(reason, action, then)

    def _action_id(self) -> str:
        return f"{self._run}-{self._next_action:06d}"

    def _settled(self, event: ActionSettled) -> None:
        """An action has ended: go on, or after a failure wait, each time twice as long."""
        self.portfolio.settled(event.gas_wei)
        if event.action_id != self._in_flight:
            return
        self._in_flight = ""
        self._account_from = event.block
        now_s = self._readings.timestamp_s if self._readings else 0
        self._failures = 0 if event.outcome == "confirmed" else min(self._failures + 1, 8)
        if self._failures:
            self._reduce_from_s = now_s + min(15 * 2**self._failures, 600)
            self._add_from_s = now_s + self.settings.cooldown_s * 2 ** (self._failures - 1)
        elif self._cool_after:
            self._add_from_s = now_s + self.settings.cooldown_s


def agent_of(start: Mapping[str, Any], artifact_bytes: bytes) -> Agent:
    """The agent that a journal's start record tells of, as it was then."""
    return Agent(
        AgentSettings.from_body(start["settings"]),
        artifact_bytes,
        start["artifact_sha256"],
        Carried.from_body(start["carried"]),
    )


def _range(held: tuple[PositionHeld, ...]) -> tuple[int, int] | None:
    return (held[0].tick_lower, held[0].tick_upper) if held else None
