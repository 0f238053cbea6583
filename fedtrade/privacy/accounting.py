"""What privacy costs: an interpreter over what happened.

What happened is data (`Spend`: so many rounds of Poisson sampling at q with noise multiplier z);
what it costs is computed from it by Google's dp-accounting, as Rényi DP (Mironov 2017) and as a
privacy-loss distribution (Koskela et al. 2020; Doroshenko et al. 2022). A better accountant can read
the same ledger years later. Where Opacus is installed its PRV accountant (Gopi, Lee, Wutschitz 2021) is
a third opinion (`epsilon_prv`). Its "gdp" accountant is offered nowhere: it is a central limit
approximation and under-reports under sampling.

A call costs some tens of milliseconds: one round's Rényi divergences and privacy-loss distribution
are kept by (q, z) and only composed anew.

Adjacency is *zero-out of one whole position lifecycle*: neighbours differ in one position's data
being replaced by nothing, so that the counts are public. For a Poisson-sampled Gaussian its pair of
distributions is that of add-or-remove.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtrade.errors import Refusal, Unavailable

UNIT = "position lifecycle"
ADJACENCY = "zero-out of one position (counts public)"
ORDERS = tuple(float(a) for a in (*range(2, 65), 80, 96, 128, 192, 256, 512))
"""Rényi orders. Any set gives an upper bound; at integers the sum is finite and exact, so two
accountants agree to the last digits, and the price of leaving out fractions is under 1 % of ε."""

PLD_INTERVALS = (1e-4, 2e-3)
"""Finest and coarsest discretisation of the privacy loss; rounding is pessimistic, so ε is never
under-reported. Within them a sixth of one round's deviation: even at 10,000 rounds that made ε at
most 0.01 too high wherever it was compared with a far finer grid."""


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
    return Epsilon(rdp=epsilon_rdp(spends, delta), pld=_pld(_real(spends), delta), delta=delta)


def epsilon_rdp(spends: Sequence[Spend], delta: float) -> float:
    """ε by RDP alone: the faster of the two, and what limits are enforced with."""
    return _from_divergences(_divergences(_real(spends)), delta)


def epsilon_prv(spends: Sequence[Spend], delta: float) -> float:
    """ε by Opacus' PRV accountant: an upper bound within 0.01 of the truth. Seconds, not tenths.

    Raises Unavailable where Opacus is not installed.
    """
    try:
        from opacus.accountants import PRVAccountant
    except ImportError as e:
        raise Unavailable(
            "the PRV accountant", str(e), "install fedtrade[research], or go by RDP and PLD"
        ) from e
    accountant = PRVAccountant()
    accountant.history = [(s.noise_multiplier, s.sampling_rate, s.rounds) for s in _real(spends)]
    if not accountant.history:
        return 0.0
    with (
        warnings.catch_warnings()
    ):  # it sizes its grid by RDP, where the best order does not matter
        warnings.filterwarnings("ignore", message="Optimal order")
        return float(accountant.get_epsilon(delta))


def affordable_rounds(
    spent: Sequence[Spend],
    sampling_rate: float,
    noise_multiplier: float,
    delta: float,
    limit: float,
    rounds_max: int = 10_000,
) -> int:
    """How many more rounds of this kind keep ε (RDP) within `limit`, by bisection."""
    before = _divergences(_real(spent))
    one = _divergences_of_one(sampling_rate, noise_multiplier)
    low, high = 0, rounds_max + 1
    while high - low > 1:
        middle = (low + high) // 2
        within = _from_divergences(before + middle * one, delta) <= limit
        low, high = (middle, high) if within else (low, middle)
    return low


def least_noise(sampling_rate: float, rounds: int, delta: float, limit: float) -> float:
    """The least noise multiplier, to 1e-3, at which so many rounds cost at most `limit` (RDP).

    Of the accounted kind: rounding to integers asks for a little more
    (`PrivacyParameters.effective_noise_multiplier`). Raises Overspent where 64 are not enough.
    """
    low, high = 0, 64_000
    if epsilon_rdp([Spend(sampling_rate, high / 1e3, rounds)], delta) > limit:
        raise Overspent(limit, limit)
    while high - low > 1:
        middle = (low + high) // 2
        cost = epsilon_rdp([Spend(sampling_rate, middle / 1e3, rounds)], delta)
        low, high = (low, middle) if cost <= limit else (middle, high)
    return high / 1e3


def _real(spends: Sequence[Spend]) -> tuple[Spend, ...]:
    return tuple(s for s in spends if s.rounds)


@lru_cache(maxsize=256)
def _divergences_of_one(sampling_rate: float, noise_multiplier: float) -> NDArray[np.float64]:
    """Rényi divergence of one round at each of ORDERS. Read only."""
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(ORDERS)
    accountant.compose(PoissonSampledDpEvent(sampling_rate, GaussianDpEvent(noise_multiplier)))
    divergences = np.asarray(accountant.rdp, dtype=np.float64)
    divergences.flags.writeable = False
    return divergences


def _divergences(spends: Sequence[Spend]) -> NDArray[np.float64]:
    total = np.zeros(len(ORDERS))
    for s in spends:
        total += s.rounds * _divergences_of_one(s.sampling_rate, s.noise_multiplier)
    return total


_ALPHA = np.array(ORDERS)


def _from_divergences(divergences: NDArray[np.float64], delta: float) -> float:
    """ε of Rényi divergences at ORDERS: Canonne, Kamath, Steinke 2020, proposition 12.

    dp-accounting's `compute_epsilon` in one numpy expression (a test holds the two together): every
    member asks for it in every round.
    """
    epsilon = divergences + np.log1p(-1 / _ALPHA) - np.log(delta * _ALPHA) / (_ALPHA - 1)
    nothing = delta**2 + np.expm1(-divergences) > 0  # total variation is below δ already
    return max(0.0, float(np.where(nothing, 0.0, epsilon).min()))


def _pld_interval(spends: Sequence[Spend]) -> float:
    """The discretisation that suits the round whose privacy loss varies least."""
    deviations = (s.sampling_rate * math.sqrt(math.expm1(s.noise_multiplier**-2)) for s in spends)
    finest, coarsest = PLD_INTERVALS
    return min(coarsest, max(finest, min(deviations) / 6))


@lru_cache(maxsize=64)
def _pld_of_one(sampling_rate: float, noise_multiplier: float, interval: float) -> Any:
    """dp-accounting's PrivacyLossDistribution of one round."""
    from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

    return from_gaussian_mechanism(
        noise_multiplier, sampling_prob=sampling_rate, value_discretization_interval=interval
    )


@lru_cache(maxsize=256)
def _pld(spends: tuple[Spend, ...], delta: float) -> float:
    if not spends:
        return 0.0
    interval = _pld_interval(spends)
    first, *others = (
        _pld_of_one(s.sampling_rate, s.noise_multiplier, interval).self_compose(s.rounds)
        for s in spends
    )
    for other in others:
        first = first.compose(other)
    return float(first.get_epsilon_for_delta(delta))
