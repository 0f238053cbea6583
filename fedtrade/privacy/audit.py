"""The audit of one run of real rounds: what its sums show of ε, and what they show of the noise.

**What an attacker can show of ε.** Steinke, Nasr and Jagielski, "Privacy auditing with one (1)
training run" (arXiv 2305.08846): m canary positions are each in or out by a fair coin, the rounds run
once, and the auditor guesses coins from what it saw. A mechanism that is (ε, δ)-private bounds how
many guesses can be right; more right ones refute that ε. Mahloujifar, Melis and Chaudhuri (arXiv
2410.22235) sharpen the bound for a mechanism whose whole trade-off curve is known: sums with Gaussian
noise are μ-GDP (Dong, Roth and Su 2022).

Both give an ε that the run refutes, so a *lower* bound of the real one. A bound above the claim
proves a fault. A bound below it proves nothing: it only found none.

How many canaries are guessed is fixed in advance (`SHARE`), not chosen by looking at which number
gives the largest bound.

**What the noise itself shows.** An auditor that knows every gradient, as if all members were its own,
takes them off the sums and has the noise before it, d values a round (`measure_noise`):

strength   the squares of n Gaussian values of deviation σ, over σ², add up to a chi-squared variable
           of n degrees of freedom: an exact interval for σ (e.g. Casella and Berger, "Statistical
           Inference", 2nd ed., ch. 9.2)
shape      Kolmogorov and Smirnov's test against a Gaussian of the measured deviation. With a measured
           deviation the test is shy: it objects less often than its level says (Lilliefors 1967)
repeats    for independent rounds Σ_{s<t} ⟨r_s, r_t⟩ has mean 0 and variance σ⁴·d·T(T − 1)/2, and is
           close to Gaussian. Noise that comes again, or cancels, over the rounds moves it

This needs few rounds at any strength, and sees the lack of a single helper's noise. It assumes that
noise is Gaussian to say how strong it is, and cannot tell who knows it: noise that somebody can
predict looks the same.

All of it shares the error (`LEVELS`, `NOISE_LEVEL`): what one run shows, it shows with the stated
confidence together. The larger part goes to the sharper bound of ε.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr, ndtri
from scipy.stats import binom, chi2, kstest

SHARE = 0.1
"""Share of the canaries that is guessed: the clearest tenth, half of them "in" and half "out"."""
LEVELS = (0.01, 0.037)
"""How often each bound may be wrong: that of Steinke et al., and that of Mahloujifar et al."""
NOISE_LEVEL = 0.001
"""How often each of the three tests of the noise may object to noise that is right."""
CONFIDENCE = 1.0 - sum(LEVELS) - 3 * NOISE_LEVEL
EPSILON_MAX = 64.0
"""Where the search for a bound ends: more than any number of canaries in use can show."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Guesses:
    """What the auditor guessed of `canaries` fair coins: `made` guesses, `right` of them right."""

    canaries: int
    made: int
    right: int

    def __post_init__(self) -> None:
        if not 0 <= self.right <= self.made <= self.canaries:
            raise ValueError("need 0 <= right <= made <= canaries")


@dataclass(frozen=True, slots=True)
class Shown:
    """What the guesses of one run refute at δ: every ε up to these."""

    one_run: float
    """Steinke et al.: assumes nothing of the mechanism."""
    f_dp: float
    """Mahloujifar et al.: assumes Gaussian noise of unknown strength."""
    guesses: Guesses

    @property
    def epsilon(self) -> float:
        """The larger of the two bounds."""
        return max(self.one_run, self.f_dp)


def guess(scores: Floats, included: NDArray[np.bool_]) -> Guesses:
    """Guess "in" for the highest and "out" for the lowest scores, SHARE of all in two halves."""
    m = len(scores)
    half = max(1, round(SHARE * m / 2))
    order = np.argsort(-scores, kind="stable")
    right = int(included[order[:half]].sum() + (~included[order[m - half :]]).sum())
    return Guesses(m, 2 * half, right)


def show(scores: Floats, included: NDArray[np.bool_], delta: float) -> Shown:
    """The ε that these scores refute, at δ. `included`: the coins (m,), at least two."""
    if scores.shape != included.shape or len(scores) < 2 or not np.isfinite(scores).all():
        raise ValueError("scores and coins must be finite, of one length, and at least two")
    guesses = guess(scores, included)
    one_run, f_dp = LEVELS
    return Shown(
        epsilon_one_run(guesses, delta, one_run), epsilon_f_dp(guesses, delta, f_dp), guesses
    )


@dataclass(frozen=True, slots=True)
class Noise:
    """What the noise of a run was: its deviation in the unit of the sums, and two tests of its kind."""

    samples: int
    deviation: float
    low: float
    """`low` to `high` holds the true deviation with confidence 1 − NOISE_LEVEL."""
    high: float
    shape: float
    """p-value: how often a Gaussian looks no more like one than this. 0 where there is no noise."""
    repeats: float | None
    """p-value: how often independent rounds look no more so than these. None for one round."""

    @property
    def odd(self) -> bool:
        """Whether it is not the Gaussian, new in each round, that it is to be."""
        repeats = 1.0 if self.repeats is None else self.repeats
        return min(self.shape, repeats) < NOISE_LEVEL


def measure_noise(residuals: Floats) -> Noise:
    """What is left of T sums after all gradients are taken off, shape (T, d), as noise of mean 0."""
    if residuals.ndim != 2 or residuals.size == 0 or not np.isfinite(residuals).all():
        raise ValueError("residuals must be finite, of shape (rounds, dimension)")
    rounds, dimension = residuals.shape
    n = residuals.size
    squares = float(np.square(residuals).sum())
    low = math.sqrt(squares / float(chi2.isf(NOISE_LEVEL / 2, n)))
    high = math.sqrt(squares / float(chi2.ppf(NOISE_LEVEL / 2, n)))
    if squares == 0.0:
        return Noise(n, 0.0, low, high, 0.0, None)
    deviation = math.sqrt(squares / n)
    shape = float(kstest(residuals.ravel() / deviation, ndtr, method="asymp").pvalue)
    repeats = None
    if rounds > 1:
        across = float(np.square(residuals.sum(0)).sum()) - squares
        spread = deviation**2 * math.sqrt(2 * dimension * rounds * (rounds - 1))
        repeats = 2 * float(ndtr(-abs(across) / spread))
    return Noise(n, deviation, low, high, shape, repeats)


def chance(g: Guesses, epsilon: float, delta: float) -> float:
    """Largest probability of at least so many right guesses under (ε, δ)-DP.

    Steinke et al. 2023, theorem 5.2 for fair coins: with q = e^ε/(e^ε + 1) and X ~ Binomial(r, q),
    P[X ≥ v] + 2mδ · max_i P[v − i ≤ X < v]/i.
    """
    q = 1.0 / (1.0 + math.exp(-epsilon))
    tail = float(binom.sf(g.right - 1, g.made, q))
    steps = np.arange(1, g.right + 1)
    near = binom.sf(g.right - steps - 1, g.made, q) - tail
    worst = float((near / steps).max(initial=0.0))
    return min(1.0, tail + 2.0 * g.canaries * delta * max(worst, 0.0))


def epsilon_one_run(g: Guesses, delta: float, level: float) -> float:
    """Largest ε under which so many right guesses have a chance below `level`; 0 if there is none."""

    def excess(epsilon: float) -> float:
        return chance(g, epsilon, delta) - level

    return _crossing(excess)


def epsilon_f_dp(g: Guesses, delta: float, level: float) -> float:
    """Largest ε whose Gaussian curve refutes the guesses at `level`; 0 if there is none."""

    def excess(mu: float) -> float:
        return -_overflow(g, mu, level)

    return gaussian_epsilon(_crossing(excess), delta)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """ε at δ of a μ-GDP mechanism: δ(ε) = Φ(μ/2 − ε/μ) − e^ε Φ(−μ/2 − ε/μ) (Dong et al. 2022)."""
    if mu <= 0.0:
        return 0.0

    def excess(epsilon: float) -> float:
        lost = math.exp(epsilon + float(log_ndtr(-mu / 2 - epsilon / mu)))
        return delta - (float(ndtr(mu / 2 - epsilon / mu)) - lost)

    high = 1.0
    while excess(high) < 0.0:
        high *= 2.0
    return 0.0 if excess(0.0) >= 0.0 else float(brentq(excess, 0.0, high, xtol=1e-9))


def _overflow(g: Guesses, mu: float, level: float) -> float:
    """Positive where μ-GDP gives so many right guesses less than `level` chance.

    Mahloujifar et al. 2024, algorithm "audit_rh": r and h are the masses of right and wrong guesses
    (over m) of the runs with at least i right ones; their trade-off curve lets h grow to at least
    Φ(Φ⁻¹(r) − μ). Where the two come to more than all guesses, no such mechanism exists.
    """
    r = level * g.right / g.canaries
    h = level * (g.made - g.right) / g.canaries
    for i in range(g.right - 1, -1, -1):
        grown = max(h, float(ndtr(ndtri(r) - mu)))
        if grown == h:
            break  # then nothing changes any more
        r, h = min(r + i / (g.made - i) * (grown - h), 1.0), grown
    return r + h - g.made / g.canaries


def _crossing(excess: Callable[[float], float]) -> float:
    """Where an increasing function passes from negative to not negative; 0 if it starts there."""
    if excess(0.0) >= 0.0:
        return 0.0
    high = 1.0
    while excess(high) < 0.0 and high < EPSILON_MAX:
        high *= 2.0
    if excess(high) < 0.0:
        return high
    # the lower end of the bracket: rounding must not turn into a higher bound
    return float(max(0.0, brentq(excess, 0.0, high, xtol=1e-6) - 1e-5))
