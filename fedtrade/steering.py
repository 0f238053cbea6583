"""What the parameter store makes of a proposal: the same answer as the contract's, before any gas.

Pure twin of contracts/src/ParameterStore.sol; a differential test compares them. Whoever proposes,
steers or tightens asks here first: a refusal names the rule and says what to change, and what is not
refused comes back as what would then stand. Who may do what is the contract's to check.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from fedtrade.errors import Refusal
from fedtrade.governed import (
    JOINT_RULES,
    RULES,
    WEEK_S,
    Governed,
    JointlyAbsurd,
    Rule,
    broken,
    rule_named,
)

INTERIM_S: Final = WEEK_S
"""The longest that what the steward did is in force."""


class NothingGiven(Refusal):
    """A proposal without a parameter."""

    def __init__(self) -> None:
        super().__init__("The proposal changes nothing. Name at least one parameter.")


class StorePaused(Refusal):
    """The steward may do nothing while everything is paused."""

    def __init__(self) -> None:
        super().__init__("The parameter store is paused. Wait until governance unpauses it.")


class StepTooFar(Refusal):
    """The steward may not move a parameter so far at one time."""

    def __init__(self, rule: Rule, present: int, to: int) -> None:
        super().__init__(
            f"{rule.name} may not go from {present} to {to} at once. Move it by at most "
            f"{rule.step_bps / 100:g} % (or one unit) and go on after {rule.cool_down_s} s, or have "
            "governance set it."
        )
        self.rule = rule
        self.present = present
        self.to = to


class OutOfReach(Refusal):
    """The steward may not bring a parameter so far from its governed value."""

    def __init__(self, rule: Rule, governed: int, to: int) -> None:
        super().__init__(
            f"{rule.name} {to} is out of the steward's reach from the governed {governed}. "
            "Have governance set it."
        )
        self.rule = rule
        self.governed = governed
        self.to = to


class TooSoon(Refusal):
    """The steward moved this parameter a short time ago."""

    def __init__(self, rule: Rule, earliest_s: int) -> None:
        super().__init__(
            f"{rule.name} was steered less than {rule.cool_down_s} s ago. "
            f"Leave it out, or wait until {earliest_s} (seconds since 1970)."
        )
        self.rule = rule
        self.earliest_s = earliest_s


class Looser(Refusal):
    """The guardian may not loosen anything."""

    def __init__(self, rule: Rule, value: int, than: int) -> None:
        side = "least" if rule.tighter_up else "most"
        super().__init__(
            f"{rule.name} {value} is looser than {than}, which stands. Give at {side} {than}."
        )
        self.rule = rule
        self.value = value
        self.than = than


class NothingTighter(Refusal):
    """A tightening that tightens nothing."""

    def __init__(self) -> None:
        super().__init__("Nothing would be tighter than it is. Give a tighter value for one.")


class NoInterim(Refusal):
    """There is no term to end."""

    def __init__(self) -> None:
        super().__init__("No interim values are in force. There is nothing to veto.")


@dataclass(frozen=True, slots=True)
class Standing:
    """Everything that a parameter store holds. Times are seconds since 1970, of the chain."""

    governed: Governed
    interim: Governed | None = None
    """What is in force in its place before `interim_until_s`; without meaning after that."""
    interim_until_s: int = 0
    paused: bool = False
    last_steered_s: tuple[int, ...] = (0,) * len(RULES)

    def term(self, now_s: int) -> Governed | None:
        """The interim set while its term is on."""
        return self.interim if now_s < self.interim_until_s else None

    def in_force(self, now_s: int) -> Governed:
        return self.term(now_s) or self.governed

    def after_set(self, changes: Mapping[str, int], now_s: int) -> Standing:
        """What stands after governance set these. Raises as Governed does, and NothingGiven."""
        _listed(changes)
        governed = self.governed.changed(changes)
        term = self.term(now_s)
        if term is None:
            return replace(self, governed=governed)
        mixed = list(term.values)
        for rule, value in _listed(changes):
            mixed[rule.id] = value
        if broken(mixed):
            return replace(self, governed=governed, interim=None, interim_until_s=0)
        return replace(self, governed=governed, interim=Governed.of(mixed))

    def after_steer(self, changes: Mapping[str, int], now_s: int) -> Standing:
        """What stands after the steward moved these.

        Raises StorePaused, NothingGiven, OutOfBounds, StepTooFar, OutOfReach, TooSoon, JointlyAbsurd.
        """
        if self.paused:
            raise StorePaused()
        values, moved = list(self.in_force(now_s).values), list(self.last_steered_s)
        for rule, to in _listed(changes):
            present, governed = values[rule.id], self.governed.values[rule.id]
            rule.require_bounds(to)
            if not rule.within_step(present, to):
                raise StepTooFar(rule, present, to)
            if not rule.within_reach(governed, to):
                raise OutOfReach(rule, governed, to)
            earliest_s = moved[rule.id] + rule.cool_down_s
            if moved[rule.id] and now_s < earliest_s:
                raise TooSoon(rule, earliest_s)
            values[rule.id], moved[rule.id] = to, now_s
        until_s = self.interim_until_s if self.term(now_s) else now_s + INTERIM_S
        return replace(
            self,
            interim=Governed.of(values),
            interim_until_s=until_s,
            last_steered_s=tuple(moved),
        )

    def after_tighten(self, changes: Mapping[str, int], now_s: int) -> Standing:
        """What stands after the guardian tightened these.

        Raises NothingGiven, OutOfBounds, Looser, NothingTighter, JointlyAbsurd.
        """
        governed, in_force = list(self.governed.values), list(self.in_force(now_s).values)
        tighter = False
        for rule, value in _listed(changes):
            rule.require_bounds(value)
            for than in (governed[rule.id], in_force[rule.id]):
                if not rule.as_tight(value, than):
                    raise Looser(rule, value, than)
                tighter = tighter or value != than
            governed[rule.id] = in_force[rule.id] = value
        if not tighter:
            raise NothingTighter()
        for values in (governed, in_force):
            if number := broken(values):
                raise JointlyAbsurd(JOINT_RULES[number - 1], values)
        tightened = replace(self, governed=Governed.of(governed))
        return replace(tightened, interim=Governed.of(in_force)) if self.term(now_s) else tightened

    def after_veto(self, now_s: int) -> Standing:
        """What stands after the term was ended. Raises NoInterim."""
        if self.term(now_s) is None:
            raise NoInterim()
        return replace(self, interim=None, interim_until_s=0)


def _listed(changes: Mapping[str, int]) -> list[tuple[Rule, int]]:
    """A proposal by id, as the contract takes it. Raises NothingGiven, UnknownParameter."""
    if not changes:
        raise NothingGiven()
    return sorted(((rule_named(name), to) for name, to in changes.items()), key=lambda r: r[0].id)


def arguments(changes: Mapping[str, int]) -> tuple[list[int], list[int]]:
    """(ids, values) of a proposal as the contract takes them. Raises as above."""
    listed = _listed(changes)
    return [rule.id for rule, _ in listed], [to for _, to in listed]
