"""What privacy costs: an interpreter over what happened.

What happened is data (`Spend`: so many rounds of Poisson sampling at q with noise multiplier z);
what it costs is computed from it by Google's dp-accounting, as Rényi DP (Mironov 2017) and as a
privacy-loss distribution (Koskela et al. 2020; Doroshenko et al. 2022). A better accountant can read
the same ledger years later.

Adjacency is *zero-out of one whole position lifecycle*: neighbours differ in one position's data
being replaced by nothing, so that the counts are public. For a Poisson-sampled Gaussian its pair of
distributions is that of add-or-remove.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from fedtrade.errors import Refusal

UNIT = "position lifecycle"
ADJACENCY = "zero-out of one position (counts public)"
ORDERS = tuple(float(a) for a in (*range(2, 65), 80, 96, 128, 192, 256, 512))
"""Rényi orders. Any set gives an upper bound; at integers the sum is finite and exact, so two
accountants agree to the last digits, and the price of leaving out fractions is under 1 % of ε."""

PLD_INTERVAL = 1e-3
"""Discretisation of the privacy loss; rounding is pessimistic, so ε is never under-reported."""


class Overspent(Refusal):
    """A round that would take the member beyond its own limit of ε."""

    def __init__(self, limit: float, would_be: float) -> None:
        super().__init__(
            f"this round would bring ε to {would_be:.4f}, beyond this member's limit {limit:.4f} "
            f"({UNIT}, {ADJACENCY}). Nothing was sent. Raise the limit in the member's own file, "
            "or wait for a new set of positions"
        )
        self.limit = limit
        self.would_be = would_be


@dataclass(frozen=True, slots=True)
class Spend:
    """`rounds` releases of a Poisson-sampled sum with Gaussian-like noise."""

    sampling_rate: float
    noise_multiplier: float
    """As accounted: after rounding (`PrivacyParameters.effective_noise_multiplier`)."""
    rounds: int


@dataclass(frozen=True, slots=True)
class Epsilon:
    """ε at δ by two accountants, with the unit and the adjacency that make it mean something."""

    rdp: float
    pld: float
    delta: float
    unit: str = UNIT
    adjacency: str = ADJACENCY

    def __str__(self) -> str:
        return (
            f"ε = {self.pld:.3f} (PLD), {self.rdp:.3f} (RDP) at δ = {self.delta:g}; "
            f"unit: {self.unit}; adjacency: {self.adjacency}"
        )


def epsilon(spends: Sequence[Spend], delta: float) -> Epsilon:
    """ε of everything spent, by RDP and by PLD."""
    key = tuple(s for s in spends if s.rounds)
    return Epsilon(rdp=_rdp(key, delta), pld=_pld(key, delta), delta=delta)


def epsilon_rdp(spends: Sequence[Spend], delta: float) -> float:
    """ε by RDP alone: the faster of the two, and what limits are enforced with."""
    return _rdp(tuple(s for s in spends if s.rounds), delta)


@lru_cache(maxsize=4096)
def _rdp(spends: tuple[Spend, ...], delta: float) -> float:
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    if not spends:
        return 0.0
    accountant = RdpAccountant(ORDERS)
    for s in spends:
        event = PoissonSampledDpEvent(s.sampling_rate, GaussianDpEvent(s.noise_multiplier))
        accountant.compose(event, s.rounds)
    return float(accountant.get_epsilon(delta))


@lru_cache(maxsize=256)
def _pld(spends: tuple[Spend, ...], delta: float) -> float:
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.pld import PLDAccountant

    if not spends:
        return 0.0
    accountant = PLDAccountant(value_discretization_interval=PLD_INTERVAL)
    for s in spends:
        event = PoissonSampledDpEvent(s.sampling_rate, GaussianDpEvent(s.noise_multiplier))
        accountant.compose(event, s.rounds)
    return float(accountant.get_epsilon(delta))


@lru_cache(maxsize=256)
def affordable_rounds(
    spent: tuple[Spend, ...],
    sampling_rate: float,
    noise_multiplier: float,
    delta: float,
    limit: float,
    rounds_max: int = 10_000,
) -> int:
    """How many more rounds of this kind keep ε (RDP) within `limit`, by bisection."""

    def within(rounds: int) -> bool:
        more = Spend(sampling_rate, noise_multiplier, rounds)
        return _rdp((*spent, more), delta) <= limit

    low, high = 0, rounds_max + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if within(middle) else (low, middle)
    return low
