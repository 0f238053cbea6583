"""What an automated steward would change in the parameters, and why: a pure function of what is seen.

The steward keeps the consortium's risk about constant while markets change, between votes. It is
given how each chain's market stands and what the parameter store holds, and gives a proposal that
the store will take (see `steering`), with one finding for each parameter, changed or not:

    stress s = the largest ratio of present to usual volatility of any market, at least 1
    limits of size (SCALED)   → governed / min(s, STRESS_MAX)     as volatility targeting has it
    gas ceiling               → FEE_MULTIPLE · the highest chain's usual base fee

So limits of size shrink in a storm, go back to what governance set when it is over, and are never
loosened beyond it; the gas ceiling follows the market both ways, as far as the store lets it. Each
parameter moves by one step at most, and waits for its cool-down. A difference below DEAD_BAND of the
present value moves nothing: parameters that flutter are read by nobody.

Whatever is missing, stale or no number stops the whole assessment (`InputsUnusable`): limits that
were set for a market that nobody sees are the ones that hurt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from fedtrade.errors import Stale
from fedtrade.governed import JOINT_RULES, Governed, JointlyAbsurd, Rule, rule_named
from fedtrade.steering import Standing, StorePaused

SCALED: Final = ("leverageMaxBps", "actionNotionalMax", "epochNotionalMax", "deltaBandBps",
                 "bridgeInFlightMax")  # fmt: skip
"""Limits of size, which shrink as volatility grows."""
GAS: Final = "gasPriceMaxGwei"
STRESS_MAX: Final = 4.0
"""Limits of size shrink to a quarter at most: an agent that may do nothing cannot hedge either."""
FEE_MULTIPLE: Final = 20.0
DEAD_BAND: Final = 0.1
AGE_MAX_S: Final = 900
"""How old what is known of a market may be."""
GWEI: Final = 10**9


class InputsUnusable(Stale):
    """Something that the assessment needs is missing, too old, or no number."""

    def __init__(self, market: str, problem: str) -> None:
        super().__init__(
            f"{market}: {problem}. Nothing was changed; see to that node or feed and assess again."
        )
        self.market = market
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Market:
    """How one chain's market stands."""

    name: str
    observed_s: int
    """Time of the block at which all of this was read."""
    variance_per_hour: float
    """Realised variance of the feed's log price lately."""
    usual_variance_per_hour: float
    """The same over a longer time."""
    base_fee_wei: float
    """Usual base fee: the median of the last blocks."""
    feed_age_s: float


@dataclass(frozen=True, slots=True)
class Finding:
    """What was thought about one parameter."""

    parameter: str
    present: int
    governed: int
    wanted: int
    to: int
    """Where it is moved now; `present` where it stays."""
    why: str


@dataclass(frozen=True, slots=True)
class Assessment:
    """All findings, and the proposal that follows from them."""

    now_s: int
    stress: float
    findings: tuple[Finding, ...]
    changes: Mapping[str, int] = field(default_factory=dict)


def assess(markets: Sequence[Market], standing: Standing, now_s: int) -> Assessment:
    """What to propose at chain time `now_s`; the store takes it. Raises InputsUnusable, StorePaused."""
    if standing.paused:
        raise StorePaused()
    if not markets:
        raise InputsUnusable("no market", "nothing is known of any chain")
    for market in markets:
        _require_usable(market, standing.governed, now_s)
    stress = max(1.0, *(_volatility_ratio(market) for market in markets))
    findings = [
        _finding(rule_named(name), wanted, why, standing, now_s)
        for name, wanted, why in _wanted(markets, standing.governed, stress)
    ]
    return Assessment(now_s, stress, *_consistent(findings, standing, now_s))


def _require_usable(market: Market, governed: Governed, now_s: int) -> None:
    age_s = now_s - market.observed_s
    if not 0 <= age_s <= AGE_MAX_S:
        raise InputsUnusable(market.name, f"what is known of it is {age_s} s old")
    if not 0 <= market.feed_age_s <= governed.oracle_age_max_s:
        raise InputsUnusable(
            market.name,
            f"its feed is {market.feed_age_s:.0f} s old and {governed.oracle_age_max_s} are allowed",
        )
    positive = {
        "usual variance": market.usual_variance_per_hour,
        "base fee": market.base_fee_wei,
    }
    for what, value in {**positive, "variance": market.variance_per_hour}.items():
        if not math.isfinite(value) or value < 0 or (what in positive and value == 0):
            raise InputsUnusable(market.name, f"its {what} is {value}")


def _volatility_ratio(market: Market) -> float:
    return math.sqrt(market.variance_per_hour / market.usual_variance_per_hour)


def _wanted(
    markets: Sequence[Market], governed: Governed, stress: float
) -> list[tuple[str, float, str]]:
    """(parameter, where it should be, why)."""
    wildest = max(markets, key=_volatility_ratio)
    share = 1 / min(stress, STRESS_MAX)
    told = (
        f"volatility of {wildest.name} is {_volatility_ratio(wildest):.2f} times the usual: "
        f"{share:.0%} of the governed value"
    )
    found = [(name, getattr(governed, rule_named(name).field) * share, told) for name in SCALED]
    dearest = max(markets, key=lambda market: market.base_fee_wei)
    fee_gwei = dearest.base_fee_wei / GWEI
    gas = (
        f"the usual base fee of {dearest.name} is {fee_gwei:.3g} gwei: {FEE_MULTIPLE:g} times that"
    )
    return [*found, (GAS, FEE_MULTIPLE * fee_gwei, gas)]


def _finding(rule: Rule, wanted: float, why: str, standing: Standing, now_s: int) -> Finding:
    present = getattr(standing.in_force(now_s), rule.field)
    governed = getattr(standing.governed, rule.field)
    goal = max(rule.least, min(rule.most, math.floor(wanted)))
    to = _one_step(rule, present, governed, goal)
    last_s = standing.last_steered_s[rule.id]
    if goal != governed and abs(goal - present) < DEAD_BAND * present:
        to, why = present, f"{why}; too little to move"
    elif to == present:
        why = f"{why}; as far as it may go" if goal != present else f"{why}; it is there"
    elif last_s and now_s < last_s + rule.cool_down_s:
        to, why = present, f"{why}; waits until {last_s + rule.cool_down_s}"
    return Finding(rule.name, present, governed, goal, to, why)


def _one_step(rule: Rule, present: int, governed: int, goal: int) -> int:
    """The value nearest to the goal that one step reaches and the store allows.

    What it allows is an interval around the present value that both ends of the reach only cut, so
    bisection finds its edge.
    """
    near, far = present, goal
    if rule.within_step(present, far) and rule.within_reach(governed, far):
        return far
    while abs(far - near) > 1:  # halves each time: 64 times at most
        middle = (near + far) // 2
        allowed = rule.within_step(present, middle) and rule.within_reach(governed, middle)
        near, far = (middle, far) if allowed else (near, middle)
    return near


def _consistent(
    findings: Sequence[Finding], standing: Standing, now_s: int
) -> tuple[tuple[Finding, ...], dict[str, int]]:
    """Findings and proposal, without what would break a joint rule."""
    kept = list(findings)
    for _ in range(len(JOINT_RULES) + 1):
        changes = {f.parameter: f.to for f in kept if f.to != f.present}
        if not changes:
            break
        try:
            standing.after_steer(changes, now_s)
            return tuple(kept), changes
        except JointlyAbsurd as absurd:
            bound, name = absurd.joint.names, absurd.joint.name
            kept = [
                Finding(
                    f.parameter, f.present, f.governed, f.wanted, f.present,
                    f"{f.why}; left out: it would break {name}",
                )
                if f.parameter in bound and f.to != f.present
                else f
                for f in kept
            ]  # fmt: skip
    return tuple(kept), {}
