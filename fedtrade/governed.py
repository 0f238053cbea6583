"""The governed parameters: what each may be, what must hold between them, and who obeys them.

The consortium votes on these 28 numbers (contracts/src/ParameterStore.sol holds them). No vote passes
the hard bounds here, and none breaks a joint rule: two values that are each within bounds can be
jointly absurd. The same rules in Solidity are contracts/src/ParameterRules.sol; both are judged by
contracts/test/vectors/parameters.json, and compared on random values.

A parameter is a whole number below 2^64, in the unit that its name ends with: micro = millionths,
bps = ten-thousandths, s = seconds; amounts of the quote are whole units. Floats are for statistics
only, and appear where the learning side takes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import Final, Self

from fedtrade.errors import Refusal
from fedtrade.parameters import PrivacyParameters

BPS: Final = 10_000
MICRO: Final = 1_000_000
REACH_STEPS: Final = 4
"""How many steps of the governed value the steward may loosen it by, in all."""

HOUR_S: Final = 3_600
DAY_S: Final = 86_400
WEEK_S: Final = 7 * DAY_S


class UnknownParameter(Refusal):
    """There is no parameter of this name or number."""

    def __init__(self, parameter: str | int) -> None:
        super().__init__(
            f"There is no governed parameter {parameter!r}. "
            f"Their names are: {', '.join(rule.name for rule in RULES)}."
        )
        self.parameter = parameter


class WrongCount(Refusal):
    """Not as many values as there are parameters."""

    def __init__(self, count: int) -> None:
        super().__init__(
            f"{count} values were given for {len(RULES)} governed parameters. "
            "Give each, in the order of the table; another count is another version of the rules."
        )
        self.count = count


class OutOfBounds(Refusal):
    """A value that no vote can allow."""

    def __init__(self, rule: Rule, value: int) -> None:
        super().__init__(
            f"{rule.name} cannot be {value}. "
            f"Give a whole number in {rule.least}..{rule.most} ({rule.unit})."
        )
        self.rule = rule
        self.value = value


class JointlyAbsurd(Refusal):
    """Values that are each within bounds and make no sense together."""

    def __init__(self, joint: JointRule, values: Sequence[int]) -> None:
        given = ", ".join(f"{RULES[i].name} {values[i]}" for i in joint.ids)
        super().__init__(
            f"The parameters break rule {joint.number}, {joint.name}: with {given} it is not so that "
            f"{joint.statement}. {joint.reason} Change one of them, or move them together."
        )
        self.joint = joint
        self.values = tuple(values)


class LooserThanGoverned(Refusal):
    """A release's parameters are looser than governance allows."""

    def __init__(self, findings: Sequence[str]) -> None:
        super().__init__(
            f"The release is looser than the governed parameters: {'; '.join(findings)}. "
            "Tighten these in the release's terms, or have governance change the parameters."
        )
        self.findings = tuple(findings)


@dataclass(frozen=True, slots=True)
class Rule:
    """What one parameter may be and how the steward may move it. See RULES for all of them."""

    id: int
    name: str
    """As the contracts and the command line write it."""
    unit: str
    least: int
    most: int
    step_bps: int
    """How far the steward may move it at one time, of the value in force; always one unit."""
    cool_down_s: int
    """How long the steward then waits."""
    tighter_up: bool
    """Whether a larger value is the tighter one."""
    default: int
    meaning: str

    @property
    def field(self) -> str:
        """The name in Python, as a field of Governed."""
        return re.sub("([A-Z])", lambda found: "_" + found[1].lower(), self.name)

    def require_bounds(self, value: int) -> None:
        """Raises OutOfBounds."""
        if type(value) is not int or not self.least <= value <= self.most:
            raise OutOfBounds(self, value)

    def within_step(self, present: int, to: int) -> bool:
        """Whether the steward may move from the value in force so far at one time."""
        return abs(to - present) <= self._step(present)

    def within_reach(self, governed: int, to: int) -> bool:
        """Whether the steward may get there at all, in however many steps of one term."""
        return self.as_tight(to, governed) or abs(to - governed) <= REACH_STEPS * self._step(
            governed
        )

    def as_tight(self, value: int, than: int) -> bool:
        """Whether a value is at least as tight as another."""
        return value >= than if self.tighter_up else value <= than

    def tightens(self, value: int, than: int) -> bool:
        """Whether a value is strictly tighter than another."""
        return value != than and self.as_tight(value, than)

    def _step(self, present: int) -> int:
        return max(1, present * self.step_bps // BPS)


UP, DOWN = True, False
# fmt: off
RULES: Final = tuple(Rule(i, *row) for i, row in enumerate((
    ("noiseMultiplierMicro", "millionths", 500_000, 64_000_000, 2500, DAY_S, UP, 1_000_000,
     "Least noise on a sum, as a multiple of the clip norm."),
    ("clipNormMicro", "millionths", 1_000, 1_000_000_000, 2500, DAY_S, DOWN, 1_000_000,
     "The most that one position's gradient may weigh."),
    ("samplingRateMicro", "millionths", 1, 250_000, 2500, DAY_S, DOWN, 50_000,
     "The most probable that a position may take part in a round."),
    ("epsilonReleaseMicro", "millionths", 10_000, 20_000_000, 1000, WEEK_S, DOWN, 8_000_000,
     "The most epsilon that one release may spend of a member's."),
    ("epsilonTotalMicro", "millionths", 10_000, 1_000_000_000, 1000, WEEK_S, DOWN, 20_000_000,
     "The most epsilon that all publications together may spend."),
    ("cohortMin", "members", 3, 256, 2500, DAY_S, UP, 4,
     "Fewest members whose sum may be unmasked."),
    ("helpers", "helpers", 3, 9, 2500, WEEK_S, UP, 5,
     "Fewest helpers in a mask committee."),
    ("corrupt", "helpers", 1, 4, 2500, WEEK_S, UP, 2,
     "Fewest bad helpers that a committee must stand."),
    ("respondersMin", "helpers", 2, 9, 2500, WEEK_S, UP, 3,
     "Fewest helpers that answer in a round."),
    ("releaseIntervalS", "s", 0, 30 * DAY_S, 5000, DAY_S, UP, 0,
     "Least time from the opening of a published release to the next opening."),
    ("quorumBps", "bps", 5_001, 10_000, 1000, WEEK_S, UP, 6_667,
     "Share of all members who must sign a publication."),
    ("activationDelayS", "s", 0, 30 * DAY_S, 5000, WEEK_S, UP, DAY_S,
     "Time from publication to use, in which a model may be revoked."),
    ("modelAgeMaxS", "s", 600, 90 * DAY_S, 2500, DAY_S, DOWN, 30 * DAY_S,
     "Age from which a model may no longer be acted on."),
    ("mirrorAgeMaxS", "s", 60, 7 * DAY_S, 2500, DAY_S, DOWN, DAY_S,
     "Age from which another chain's news of the registry are too old to act on."),
    ("leverageMaxBps", "bps", 10_000, 100_000, 1000, HOUR_S, DOWN, 30_000,
     "Most exposure of an agent, of its equity; 10,000 is no leverage."),
    ("slippageMaxBps", "bps", 1, 500, 2500, HOUR_S, DOWN, 50,
     "How far a swap's worst price may be from the feed's."),
    ("actionNotionalMax", "quote", 1, 1_000_000_000, 2500, HOUR_S, DOWN, 300_000,
     "The most that one action or order may move."),
    ("epochNotionalMax", "quote", 1, 10_000_000_000, 2500, HOUR_S, DOWN, 5_000_000,
     "The most that all actions of a day may move."),
    ("deltaBandBps", "bps", 0, 10_000, 2500, HOUR_S, DOWN, 1_000,
     "How far exposure may be from its target, of equity."),
    ("drawdownReduceBps", "bps", 10, 9_000, 1000, HOUR_S, DOWN, 200,
     "Fall of equity from its high-water mark from which nothing is added."),
    ("drawdownHaltBps", "bps", 20, 9_500, 1000, HOUR_S, DOWN, 400,
     "Fall of equity from which liquidity is withdrawn."),
    ("drawdownUnwindBps", "bps", 30, 10_000, 1000, HOUR_S, DOWN, 900,
     "Fall of equity from which the volatile asset is sold."),
    ("oracleAgeMaxS", "s", 10, DAY_S, 2500, HOUR_S, DOWN, 3_900,
     "Age of the feed's answer from which nothing is added; feeds repeat themselves hourly."),
    ("oracleDeviationMaxBps", "bps", 10, 5_000, 2500, HOUR_S, DOWN, 300,
     "Distance of the pool's price from the feed's from which nothing is added."),
    ("gasPriceMaxGwei", "gwei", 1, 100_000, 5000, HOUR_S, DOWN, 500,
     "Gas price above which nothing is added."),
    ("correlationMaxBps", "bps", 1_000, 10_000, 1000, HOUR_S, DOWN, 9_500,
     "Correlation of returns over markets from which they count as one; 10,000 is one."),
    ("bridgeInFlightMax", "quote", 0, 10_000_000_000, 2500, HOUR_S, DOWN, 1_000_000,
     "The most value that may be on its way between chains."),
    ("crowdingMaxBps", "bps", 100, 10_000, 2500, HOUR_S, DOWN, 5_000,
     "The largest share of a pool's active liquidity that may be one's own."),
)))
# fmt: on
"""Every parameter, by id. The order is that of the contracts, for ever."""

BY_NAME: Final[Mapping[str, Rule]] = {rule.name: rule for rule in RULES}


def rule_named(name: str) -> Rule:
    """One rule by the parameter's name. Raises UnknownParameter."""
    if name not in BY_NAME:
        raise UnknownParameter(name)
    return BY_NAME[name]


@dataclass(frozen=True, slots=True)
class JointRule:
    """What must hold between parameters, whoever writes them."""

    number: int
    name: str
    names: tuple[str, ...]
    """The parameters that it binds, in the order in which `holds` takes their values."""
    holds: Callable[..., bool]
    statement: str
    reason: str

    @property
    def ids(self) -> tuple[int, ...]:
        """Of the parameters that it binds."""
        return tuple(BY_NAME[name].id for name in self.names)


_JointRow = tuple[str, tuple[str, ...], Callable[..., bool], str, str]
_JOINT_ROWS: Final[tuple[_JointRow, ...]] = (
    ("CommitteeStands", ("helpers", "corrupt"),
     lambda helpers, corrupt: helpers >= 2 * corrupt + 1,
     "helpers >= 2 corrupt + 1",
     "So many bad helpers could stop or open a sum by themselves."),
    ("RespondersSuffice", ("corrupt", "respondersMin", "helpers"),
     lambda corrupt, responders, helpers: corrupt + 1 <= responders <= helpers,
     "corrupt + 1 <= respondersMin <= helpers",
     "Fewer answers unmask nothing, and more than there are helpers never come."),
    ("CohortHides", ("cohortMin", "corrupt"),
     lambda cohort, corrupt: cohort >= corrupt + 2,
     "cohortMin >= corrupt + 2",
     "A smaller cohort hides nobody from the bad helpers and their friends."),
    ("SamplingNeedsNoise", ("samplingRateMicro", "noiseMultiplierMicro"),
     lambda rate, noise: rate * 10 <= noise,
     "ten times the sampling rate is at most the noise multiplier",
     "Sampling amplifies privacy only while it is small against the noise."),
    ("ReleaseWithinTotal", ("epsilonReleaseMicro", "epsilonTotalMicro"),
     lambda release, total: release <= total,
     "epsilonReleaseMicro <= epsilonTotalMicro",
     "One release may not be allowed what all together are not."),
    ("ModelOutlivesDelay", ("modelAgeMaxS", "releaseIntervalS", "activationDelayS"),
     lambda age, interval, delay: age > interval + delay,
     "modelAgeMaxS > releaseIntervalS + activationDelayS",
     "There would be times without a usable model whatever anybody does."),
    ("LevelsAscend", ("drawdownReduceBps", "drawdownHaltBps", "drawdownUnwindBps"),
     lambda reduce, halt, unwind: reduce < halt < unwind,
     "drawdownReduceBps < drawdownHaltBps < drawdownUnwindBps",
     "Add nothing, then withdraw, then sell: a level that is passed over is no level."),
    ("ActionWithinEpoch", ("actionNotionalMax", "epochNotionalMax"),
     lambda action, epoch: action <= epoch,
     "actionNotionalMax <= epochNotionalMax",
     "A day's cap that one action passes is no cap of the day."),
    ("OldPriceMayDiffer", ("oracleDeviationMaxBps", "oracleAgeMaxS"),
     lambda deviation, age: 3 * deviation * deviation >= 20 * age,
     "the deviation is at least 20 bps for the square root of each minute of the age",
     "An honest price that is allowed to be old would look wrong in an ordinary market, and whoever "
     "believed the bound would act on a price that is not the market's."),
    ("SlippageWithinOracle", ("slippageMaxBps", "oracleDeviationMaxBps"),
     lambda slippage, deviation: slippage <= deviation,
     "slippageMaxBps <= oracleDeviationMaxBps",
     "A swap would give away more than what already counts as a wrong price."),
    ("BridgeWithinEpoch", ("bridgeInFlightMax", "epochNotionalMax"),
     lambda bridge, epoch: bridge <= epoch,
     "bridgeInFlightMax <= epochNotionalMax",
     "What one day's actions may not move cannot be on its way."),
    ("BandWithinUnwind", ("leverageMaxBps", "deltaBandBps", "drawdownUnwindBps"),
     lambda leverage, band, unwind: leverage * band * 2_000 <= unwind * BPS * BPS,
     "a fifth of leverage times band is at most drawdownUnwindBps",
     "A fifth's move against the whole band would go through every level at once."),
    ("MirrorWithinModel", ("mirrorAgeMaxS", "modelAgeMaxS"),
     lambda mirror, model: mirror <= model,
     "mirrorAgeMaxS <= modelAgeMaxS",
     "News that may be older than the model that they name cannot say that it is usable."),
)  # fmt: skip

JOINT_RULES: Final = tuple(JointRule(i, *row) for i, row in enumerate(_JOINT_ROWS, start=1))
"""Every joint rule, by number - 1."""


def broken(values: Sequence[int]) -> int:
    """The number of the first joint rule that these values break; 0 if they break none.

    It answers for any values, also those out of bounds. Raises WrongCount.
    """
    if len(values) != len(RULES):
        raise WrongCount(len(values))
    for rule, ids in _BINDINGS:
        if not rule.holds(*[values[i] for i in ids]):
            return rule.number
    return 0


_BINDINGS: Final = tuple((rule, rule.ids) for rule in JOINT_RULES)


@dataclass(frozen=True, slots=True)
class Governed:
    """One sound set of values. Building one that breaks a rule raises OutOfBounds, JointlyAbsurd.

    The meaning of each is in RULES; the defaults are those of RULES.
    """

    noise_multiplier_micro: int = RULES[0].default
    clip_norm_micro: int = RULES[1].default
    sampling_rate_micro: int = RULES[2].default
    epsilon_release_micro: int = RULES[3].default
    epsilon_total_micro: int = RULES[4].default
    cohort_min: int = RULES[5].default
    helpers: int = RULES[6].default
    corrupt: int = RULES[7].default
    responders_min: int = RULES[8].default
    release_interval_s: int = RULES[9].default
    quorum_bps: int = RULES[10].default
    activation_delay_s: int = RULES[11].default
    model_age_max_s: int = RULES[12].default
    mirror_age_max_s: int = RULES[13].default
    leverage_max_bps: int = RULES[14].default
    slippage_max_bps: int = RULES[15].default
    action_notional_max: int = RULES[16].default
    epoch_notional_max: int = RULES[17].default
    delta_band_bps: int = RULES[18].default
    drawdown_reduce_bps: int = RULES[19].default
    drawdown_halt_bps: int = RULES[20].default
    drawdown_unwind_bps: int = RULES[21].default
    oracle_age_max_s: int = RULES[22].default
    oracle_deviation_max_bps: int = RULES[23].default
    gas_price_max_gwei: int = RULES[24].default
    correlation_max_bps: int = RULES[25].default
    bridge_in_flight_max: int = RULES[26].default
    crowding_max_bps: int = RULES[27].default

    def __post_init__(self) -> None:
        values = self.values
        for rule, value in zip(RULES, values, strict=True):
            rule.require_bounds(value)
        if number := broken(values):
            raise JointlyAbsurd(JOINT_RULES[number - 1], values)

    @classmethod
    def of(cls, values: Sequence[int]) -> Self:
        """From all values in the order of the contracts. Raises WrongCount and as above."""
        if len(values) != len(RULES):
            raise WrongCount(len(values))
        return cls(*values)

    def changed(self, changes: Mapping[str, int]) -> Self:
        """These with some values changed, by the parameters' names. Raises UnknownParameter."""
        return replace(self, **{rule_named(name).field: to for name, to in changes.items()})

    @property
    def values(self) -> tuple[int, ...]:
        """In the order of the contracts."""
        return _VALUES(self)

    @property
    def noise_multiplier(self) -> float:
        return self.noise_multiplier_micro / MICRO

    @property
    def clip_norm(self) -> float:
        return self.clip_norm_micro / MICRO

    @property
    def sampling_rate(self) -> float:
        return self.sampling_rate_micro / MICRO

    @property
    def epsilon_release(self) -> float:
        return self.epsilon_release_micro / MICRO

    @property
    def epsilon_total(self) -> float:
        return self.epsilon_total_micro / MICRO

    def risk_limits(self) -> dict[str, int]:
        """What these say about an agent's limits, as `Limits.tightened` takes it.

        `own.tightened(governed.risk_limits())` is the stricter of both in everything: it lowers and
        never raises. What an agent has no limit for (leverage, band, correlation, value in flight,
        crowding) is not in it: it borrows nothing, holds one market, and has no bridge.
        """
        return {
            "drawdown_reduce_bps": self.drawdown_reduce_bps,
            "drawdown_halt_bps": self.drawdown_halt_bps,
            "drawdown_unwind_bps": self.drawdown_unwind_bps,
            "oracle_deviation_reduce_bps": self.oracle_deviation_max_bps,
            "oracle_age_reduce_s": self.oracle_age_max_s,
            "model_age_max_s": self.model_age_max_s,
            "mirror_age_max_s": self.mirror_age_max_s,
            "gas_price_max_wei": self.gas_price_max_gwei * 10**9,
            "action_notional_max_quote": self.action_notional_max,
            "epoch_notional_max_quote": self.epoch_notional_max,
            "swap_discount_max_bps": self.slippage_max_bps,
        }

    def require_obeyed(self, release: PrivacyParameters) -> None:
        """Refuse a release that keeps less than these ask for. Raises LooserThanGoverned.

        That enough helpers can answer needs no look: a committee of at least `helpers` has
        `responders_min` by rule 2. A round must still wait for that many; see `responders_of`.
        """
        floors: tuple[tuple[str, float, float], ...] = (
            ("noise_multiplier", release.noise_multiplier, self.noise_multiplier),
            ("cohort_min", release.cohort_min, self.cohort_min),
            ("helpers", release.helpers, self.helpers),
            ("corrupt", release.corrupt, self.corrupt),
        )
        ceilings = (
            ("clip_norm", release.clip_norm, self.clip_norm),
            ("sampling_rate", release.sampling_rate, self.sampling_rate),
            ("epsilon_cap", release.epsilon_cap, self.epsilon_release),
        )
        findings = [f"{name} {had} is below {least}" for name, had, least in floors if had < least]
        findings += [f"{name} {had} is above {most}" for name, had, most in ceilings if had > most]
        if findings:
            raise LooserThanGoverned(findings)

    def responders_of(self, release: PrivacyParameters) -> int:
        """Fewest helpers that must answer in a round of this release: c + 1, or what is governed."""
        return max(release.corrupt + 1, self.responders_min)


_VALUES: Final[Callable[[Governed], tuple[int, ...]]] = attrgetter(*[rule.field for rule in RULES])
assert [f.name for f in fields(Governed)] == [rule.field for rule in RULES], "one order for all"
