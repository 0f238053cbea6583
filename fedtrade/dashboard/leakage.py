"""What an audit found, as one frozen value, and what it says in plain words.

The value is leakage.json as it stands; the page (`leakage_page`) and the lines in the terminal are
functions of it. Every sentence here is computed from the figures, so that it cannot contradict them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, computed_field

from fedtrade.dashboard import formats as f

CONFIDENCE = "95 %"
"""Of all that one audit run shows, together; and of every interval of the red team."""

LIMITS = (
    "A bound below the claim proves nothing: it only means that this attack found no fault. The "
    "promise itself rests on the proof of the mechanism, not on the audit.",
    "The canaries take part in every round. That tests noise, clipping, rounding, masks and sums, "
    "but not the sampling of positions, whose effect on ε is computed.",
    "The auditor takes off the sums every gradient that it knows, as if all members were its own. "
    "That measures the noise, whoever added it: how strong it is, whether it is Gaussian, whether it "
    "is new in each round. Noise that somebody can predict looks the same.",
    "The red team's attacks are strong ones, not all there are. Only ε bounds every attacker.",
    "Position rows come from simulated books over real prices, and the attacked updates hold one "
    "window a position: the worst case for the member.",
    "Nothing here looks at a member's own machine, at times and sizes of messages, or at what a "
    "member gives away by other means.",
    "All parties of the audit ran in one process with keys of their own, with the smallest "
    "committee (three helpers, one of them bad at most).",
)
"""What the report does not show."""


Verdict = Literal["PASS", "FAIL"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Promise(_Frozen):
    """What the terms promise: ε of a whole release."""

    sampling_rate: float
    noise_multiplier: float
    rounds: int
    rdp: float
    pld: float
    delta: float
    unit: str
    adjacency: str


class AuditRow(_Frozen):
    """One run of canaries through the rounds."""

    name: str
    noise_multiplier: float
    """What the terms promise."""
    portion: float
    """How much of its noise each helper added: less than 1 in a control."""
    rounds: int
    canaries: int
    dimension: int
    guesses: int
    right: int
    one_run: float
    """ε refuted by the bound of Steinke et al. 2023."""
    f_dp: float
    """ε refuted by the bound of Mahloujifar et al. 2024."""
    claimed: float
    """ε (PLD) that the noise as agreed allows for these rounds."""
    noise: float
    """Noise multiplier that was measured in the sums, as if one bad helper had added nothing."""
    noise_low: float
    noise_high: float
    noise_samples: int
    shape: float
    """p-value: whether the noise is Gaussian."""
    repeats: float | None
    """p-value: whether it is independent from round to round; None for a single round."""
    odd: bool
    """Whether one of the two is too small for noise as it is to be."""
    seconds: float

    @property
    def bound(self) -> float:
        """The larger of the two bounds; both hold together."""
        return max(self.one_run, self.f_dp)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def fault(self) -> bool:
        """Whether this run was made with too little noise on purpose, to see that it is found."""
        return self.portion != 1.0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def guesses_verdict(self) -> Verdict:
        """FAIL: more leaks than is claimed. PASS: no proof of that."""
        return "FAIL" if self.bound > self.claimed else "PASS"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def noise_verdict(self) -> Verdict:
        """FAIL: the noise is weaker than promised, or of another kind. PASS: no proof of that."""
        return "FAIL" if self.odd or self.noise_high < self.noise_multiplier else "PASS"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Verdict:
        """FAIL where either test fails."""
        return "FAIL" if "FAIL" in (self.guesses_verdict, self.noise_verdict) else "PASS"


class InversionRow(_Frozen):
    """One attack on one kind of observation: means over scenes, with intervals."""

    observed: str
    positions: int
    attack: str
    scenes: int
    error: float
    """Of the private features, in deviations of the prior; 0 is exact."""
    error_low: float
    error_high: float
    prior_error: float
    """What the prior's mean reaches in the same scenes."""
    recovered: float
    """Share of private values within a tenth of a deviation."""
    recovered_low: float
    recovered_high: float
    prior_recovered: float
    control_error: float
    """The error of the same attack's rows against the positions of other scenes."""
    better: bool
    """Whether the attack beats the prior and its own control; holds for all rows together."""


class LeakageReport(_Frozen):
    """Everything in the two files."""

    title: str
    subtitle: str
    promise: Promise
    audits: list[AuditRow]
    inversions: list[InversionRow]
    inversions_seconds: float
    conclusions: list[str]
    standins: list[str]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def limits(self) -> list[str]:
        """What the report does not show."""
        return list(LIMITS)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        """No run with the noise as agreed showed more than is claimed."""
        return all(row.verdict == "PASS" for row in self.audits if not row.fault)


OBSERVED = {
    "alone": "An update by itself, as a server without secure aggregation would receive it",
    "fixed point": "The same update after rounding",
    "cohort": "The update summed with those of other members, without noise",
    "noise": "The update with the committee's noise, all other members helping the attacker",
    "cohort, noise": "What the protocol shows: the cohort's sum with the committee's noise",
}
"""Observations in order of protection, in words."""


def _guesses_finding(row: AuditRow) -> str:
    shown = f"ε = {f.number(row.bound, 2)} shown, {f.number(row.claimed, 2)} claimed"
    if row.guesses_verdict == "PASS":
        return f"The audit found no leak beyond the promise ({shown}, {CONFIDENCE} confidence)."
    return (
        f"The audit proves that more leaks than was promised ({shown}, {CONFIDENCE} "
        "confidence): the noise is too weak, missing, or undone on its way."
    )


def noise_shown(row: AuditRow) -> str:
    """The measured noise multiplier with its interval."""
    digits = 1 if row.noise_multiplier >= 10 else 2
    span = f"{f.number(row.noise_low, digits)} to {f.number(row.noise_high, digits)}"
    return f"{f.number(row.noise, digits)} ({span})"


def _noise_finding(row: AuditRow) -> str:
    promised = f"{row.noise_multiplier:g} promised"
    measured = f"The noise measured in the sums is z = {noise_shown(row)}, {promised}"
    if row.noise_verdict == "PASS":
        return f"{measured}: no weaker, Gaussian, and new in each round as far as can be seen."
    if row.noise_high < row.noise_multiplier:
        return f"{measured}: it is too weak. Find the helper that adds less than it should."
    return (
        f"{measured}, but it is not the Gaussian, new in each round, that was promised. Find the "
        "helper whose noise is made otherwise."
    )


def failure(audits: Sequence[AuditRow]) -> str:
    """What the tests that failed on real runs found; empty where none did."""
    sentences = []
    for row in audits:
        if not row.fault and row.guesses_verdict == "FAIL":
            sentences.append(_guesses_finding(row))
        if not row.fault and row.noise_verdict == "FAIL":
            sentences.append(_noise_finding(row))
    return " ".join(sentences)


def _control_finding(row: AuditRow) -> str:
    """Which of the two tests caught a control."""
    seen = {
        f"the guesses (ε ≥ {f.number(row.bound, 2)})": row.guesses_verdict,
        f"the noise (z = {f.number(row.noise, 2)})": row.noise_verdict,
    }
    caught = [test for test, verdict in seen.items() if verdict == "FAIL"]
    missed = [test for test, verdict in seen.items() if verdict == "PASS"]
    if not caught:
        return (
            f"The control with {row.name} was not caught, so this run could hardly have seen such a "
            "fault: repeat it."
        )
    found = f"The control with {row.name} was caught by {f.listing(caught)}"
    return f"{found}, not by {f.listing(missed)}." if missed else f"{found}."


def _audit_findings(audits: Sequence[AuditRow]) -> list[str]:
    real = [row for row in audits if not row.fault]
    sentences = [finding(row) for row in real for finding in (_guesses_finding, _noise_finding)]
    return sentences + [_control_finding(row) for row in audits if row.fault]


def _inversion_finding(observed: str, rows: Sequence[InversionRow]) -> str:
    """What the attacks on one kind of observation came to."""
    who = OBSERVED[observed]
    winners = [row for row in rows if row.better]
    if not winners:
        best = min(rows, key=lambda row: row.error - row.prior_error)
        return (
            f"{who}: no attack did better than the marginals alone (best error "
            f"{f.number(best.error, 2)}, prior {f.number(best.prior_error, 2)})."
        )
    most = max(row.positions for row in winners)
    best = max((row for row in winners if row.positions == most), key=lambda row: row.recovered)
    return (
        f"{who}: positions can be read back. With {f.count(most, 'position')} in it, the best attack "
        f"had {f.percent(best.recovered, 0)} of the private values right "
        f"(the marginals alone: {f.percent(best.prior_recovered, 0)})."
    )


def conclude(audits: Sequence[AuditRow], inversions: Sequence[InversionRow]) -> list[str]:
    """The findings as sentences for somebody who has to decide."""
    sentences = _audit_findings(audits)
    for observed in OBSERVED:
        own = [row for row in inversions if row.observed == observed]
        if own:
            sentences.append(_inversion_finding(observed, own))
    return sentences


def summary(report: LeakageReport) -> str:
    """The verdicts in a few lines of text."""
    lines = [
        f"{row.verdict}  {row.name}: ε ≥ {row.bound:.2f} shown, {row.claimed:.2f} claimed "
        f"({row.guesses_verdict}); z = {noise_shown(row)} measured, {row.noise_multiplier:g} "
        f"promised ({row.noise_verdict}); {row.rounds} rounds, {row.canaries} canaries, "
        f"{row.seconds:.1f} s"
        for row in report.audits
    ]
    return "\n".join([*lines, *report.conclusions])
