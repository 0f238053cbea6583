"""The circuit breakers: hard-coded, latching, the last word before a signature.

    NORMAL → REDUCE_ONLY → HALT → UNWIND

`RULES` is the whole of it: at each head every reading is held against its limit, and the level goes
to the highest rule that fired. It never comes down: a new journal, opened by a person, is the only
way back (a rule about a model is not carried to another model). A reading that is not a number
counts as beyond every limit.

What each level lets through:

    level         adds risk   swap to the quote   withdraw
    NORMAL        if `check`  yes                 yes
    REDUCE_ONLY   no          yes                 yes
    HALT          no          yes                 yes        the agent withdraws its liquidity
    UNWIND        no          yes                 yes        and sells the volatile asset

`check` judges one action. Whether it adds risk is derived here from what it does; an action that
says otherwise of itself is refused. Passing conditions (a model that is not live yet or whose news
are old, a pause, gas above its ceiling, a cap that is used up) refuse the action and leave the level
where it is.

No function, option or environment variable disables a rule; limits have bounds of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal

from fedtrade.market.actions import Action, ProvideLiquidity, SwapExactInput, WithdrawLiquidity
from fedtrade.market.instruments import PoolKey
from fedtrade.market.world import Standing
from fedtrade.risk.limits import EPOCH_S, Limits


class Level(IntEnum):
    """What the agent may still do; only ever rises."""

    NORMAL = 0
    REDUCE_ONLY = 1
    HALT = 2
    UNWIND = 3


@dataclass(frozen=True, slots=True)
class Readings:
    """What the breakers look at, taken at one head. NaN means that it could not be read."""

    timestamp_s: int
    price: float
    """Pool price, quote per base."""
    oracle_price: float
    oracle_age_s: float
    drawdown_bps: float
    gas_price_wei: float
    model: Standing | Literal["stale"]
    """What the registry says of it; stale: live, as far as news say that are too old."""
    model_age_s: float
    """Time since the model went live; 0 while it is not."""
    paused: bool
    """Whether the consortium has stopped everything."""

    @property
    def oracle_deviation_bps(self) -> float:
        """Distance of the pool from the feed, relative to the feed."""
        if not self.oracle_price > 0.0:
            return math.nan
        return abs(self.price / self.oracle_price - 1.0) * 1e4

    @property
    def model_revoked(self) -> float:
        return 1.0 if self.model == "revoked" else 0.0

    @property
    def model_superseded(self) -> float:
        return 1.0 if self.model == "superseded" else 0.0


@dataclass(frozen=True, slots=True)
class Rule:
    """`reading` above `limit` (the name of a limit, or 0) takes the level to at least `level`."""

    name: str
    reading: str
    limit: str
    level: Level
    of_model: bool = False
    """Says something about one model, so another model is not bound by it."""


RULES: Final = (
    Rule("drawdown", "drawdown_bps", "drawdown_reduce_bps", Level.REDUCE_ONLY),
    Rule("drawdown, deep", "drawdown_bps", "drawdown_halt_bps", Level.HALT),
    Rule("drawdown, ruinous", "drawdown_bps", "drawdown_unwind_bps", Level.UNWIND),
    Rule(
        "oracle deviation",
        "oracle_deviation_bps",
        "oracle_deviation_reduce_bps",
        Level.REDUCE_ONLY,
    ),
    Rule("oracle deviation, wide", "oracle_deviation_bps", "oracle_deviation_halt_bps", Level.HALT),
    Rule("oracle stale", "oracle_age_s", "oracle_age_reduce_s", Level.REDUCE_ONLY),
    Rule("oracle lost", "oracle_age_s", "oracle_age_halt_s", Level.HALT),
    Rule("model expired", "model_age_s", "model_age_max_s", Level.REDUCE_ONLY, of_model=True),
    Rule("model revoked", "model_revoked", "", Level.REDUCE_ONLY, of_model=True),
    Rule("model superseded", "model_superseded", "", Level.REDUCE_ONLY, of_model=True),
)


@dataclass(frozen=True, slots=True)
class Trip:
    """A rule that fired, once."""

    rule: str
    level: Level
    reading: float
    limit: float
    timestamp_s: int
    of_model: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an action may be signed, and if not, why."""

    passed: bool
    reason: str = ""


PASSED: Final = Verdict(True)


class Breakers:
    """The breakers of one agent on one pool."""

    def __init__(self, limits: Limits, key: PoolKey, carried: Level = Level.NORMAL) -> None:
        self.limits = limits
        """Those in force; looked at anew in every call."""
        self._key = key
        self._level = carried
        self._trips: dict[str, Trip] = {}
        self._epoch = 0
        self._spent: dict[str, float] = {}
        """Notional that each action of this epoch may add, by action id."""

    @property
    def level(self) -> Level:
        return self._level

    @property
    def trips(self) -> tuple[Trip, ...]:
        """Rules that have fired, in order."""
        return tuple(self._trips.values())

    def observe(self, readings: Readings) -> list[Trip]:
        """Hold readings against every rule; gives the rules that fired for the first time."""
        new = []
        for rule in RULES:
            reading = float(getattr(readings, rule.reading))
            limit = float(getattr(self.limits, rule.limit)) if rule.limit else 0.0
            if rule.name in self._trips or reading <= limit:
                continue  # NaN is not <= anything, so it fires
            trip = Trip(rule.name, rule.level, reading, limit, readings.timestamp_s, rule.of_model)
            self._trips[rule.name] = trip
            new.append(trip)
            self._level = max(self._level, rule.level)
        return new

    def adds_risk(self, action: Action) -> bool:
        """What the action does, whatever it says of itself."""
        match action:
            case WithdrawLiquidity():
                return False
            case SwapExactInput():
                return action.sell_token0 != self._key.base_is_token0
            case _:
                return True

    def check(self, action: Action, readings: Readings) -> Verdict:
        """Judge one action at these readings. Changes nothing; asking twice gives the same."""
        reason = self._malformed(action, readings)
        if not reason and self.adds_risk(action):
            reason = self._no_more_risk(action, readings)
        if not reason and isinstance(action, SwapExactInput):
            reason = self._bad_price(action, readings)
        return Verdict(False, reason) if reason else PASSED

    def book(self, action: Action, readings: Readings) -> None:
        """Count a passed action against the epoch's cap, whatever becomes of it."""
        if self.adds_risk(action):
            self._spent = self._spent_in(readings)
            self._epoch = readings.timestamp_s // EPOCH_S
            self._spent[action.action_id] = self._notional_quote(action, readings)

    def _malformed(self, action: Action, readings: Readings) -> str:
        if action.pool != self._key.address:
            return f"pool {action.pool} is not the agent's pool {self._key.address}"
        if action.adds_risk != self.adds_risk(action):
            return "it does not say truly whether it adds risk"
        if not 0 < action.deadline_s - readings.timestamp_s <= self.limits.deadline_max_s:
            return f"its deadline is not within {self.limits.deadline_max_s} s from the head"
        if isinstance(action, ProvideLiquidity):
            amounts = (action.amount0, action.amount1)
            least = (action.amount0_min, action.amount1_min)
            if min(amounts) < 0 or max(amounts) == 0:
                return "it provides nothing"
            if min(least) < 0 or max(least) == 0 or any(map(int.__gt__, least, amounts)):
                return "its least amounts bound nothing"
        elif isinstance(action, WithdrawLiquidity):
            if min(action.amount0_min, action.amount1_min, action.liquidity) < 0:
                return "it has a negative amount"
        elif action.amount_in <= 0 or action.amount_out_min <= 0:
            return "it swaps nothing, or for nothing"
        return ""

    def _no_more_risk(self, action: Action, readings: Readings) -> str:
        limits = self.limits
        if self._level >= Level.REDUCE_ONLY:
            fired = ", ".join(self._trips) or "carried over from the journal"
            return (
                f"the breakers are at {self._level.name} ({fired}): nothing that adds risk passes"
            )
        if readings.paused:
            return "the consortium has paused everything"
        if readings.model != "live":
            return f"the model is {readings.model}, not live"
        for what, reading, limit in (
            ("gas price, wei", readings.gas_price_wei, limits.gas_price_max_wei),
            ("oracle age, s", readings.oracle_age_s, limits.oracle_age_reduce_s),
            (
                "oracle deviation, bps",
                readings.oracle_deviation_bps,
                limits.oracle_deviation_reduce_bps,
            ),
            ("drawdown, bps", readings.drawdown_bps, limits.drawdown_reduce_bps),
            ("model age, s", readings.model_age_s, limits.model_age_max_s),
        ):
            if not reading <= limit:
                return f"{what}: {reading:.6g} is above its limit {limit}"
        notional = self._notional_quote(action, readings)
        if not notional <= limits.action_notional_max_quote:
            return (
                f"it adds {notional:.0f} of the quote, an action may add "
                f"{limits.action_notional_max_quote}"
            )
        others = sum(v for k, v in self._spent_in(readings).items() if k != action.action_id)
        if not others + notional <= limits.epoch_notional_max_quote:
            return (
                f"the day's actions would add {others + notional:.0f} of the quote, the cap is "
                f"{limits.epoch_notional_max_quote}"
            )
        return ""

    def _bad_price(self, action: SwapExactInput, readings: Readings) -> str:
        """Why the swap's worst price is too far from the feed's, or nothing."""
        if not readings.oracle_age_s <= self.limits.oracle_age_halt_s:
            return "there is no fresh oracle price to hold the swap against"
        sold = self._quote_value(action.sell_token0, action.amount_in, readings.oracle_price)
        least = self._quote_value(
            not action.sell_token0, action.amount_out_min, readings.oracle_price
        )
        discount_bps = (1.0 - least / sold) * 1e4 if sold > 0.0 else math.nan
        if not discount_bps <= self.limits.swap_discount_max_bps:
            return (
                f"its worst price is {discount_bps:.0f} bps from the oracle's, "
                f"{self.limits.swap_discount_max_bps} are allowed"
            )
        return ""

    def _spent_in(self, readings: Readings) -> dict[str, float]:
        return dict(self._spent) if readings.timestamp_s // EPOCH_S <= self._epoch else {}

    def _notional_quote(self, action: Action, readings: Readings) -> float:
        """Most that the action can move, in whole quote units, at the dearer of the two prices."""
        price = max(readings.price, readings.oracle_price)
        if math.isnan(readings.price) or math.isnan(readings.oracle_price):
            return math.nan
        match action:
            case ProvideLiquidity():
                return self._quote_value(True, action.amount0, price) + self._quote_value(
                    False, action.amount1, price
                )
            case SwapExactInput():
                return self._quote_value(action.sell_token0, action.amount_in, price)
            case WithdrawLiquidity():
                return 0.0

    def _quote_value(self, of_token0: bool, amount: int, price: float) -> float:
        token = self._key.token0 if of_token0 else self._key.token1
        whole = amount / float(10**token.decimals)
        return whole * price if of_token0 == self._key.base_is_token0 else whole
