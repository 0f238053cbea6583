"""How much of a Sharpe ratio is luck: deflated Sharpe ratio and probability of backtest overfitting.

Whoever tries N strategies and shows the best one shows a maximum, and the maximum of N draws of
nothing is large. Two answers (Bailey and López de Prado 2014; Bailey, Borwein, López de Prado and
Zhu 2017):

    PSR(b) = Φ( (SR − b) √(T−1) / √(1 − γ₃ SR + (γ₄−1)/4 SR²) )
    DSR    = PSR(SR₀),   SR₀ = √V [ (1−γ) Φ⁻¹(1 − 1/N) + γ Φ⁻¹(1 − 1/(N e)) ]

with SR per period (never annualised), γ₃ skewness and γ₄ kurtosis of its returns, V the variance of
SR over the trials and γ Euler's constant; and CSCV: over every way to give half of S slices of time
to selection, how often the strategy that was best in one half is below the median in the other.
"""

from __future__ import annotations

import math
from itertools import combinations
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
EULER: Final = 0.5772156649015329
MAX_SLICES: Final = 16
_NORMAL: Final = NormalDist()


def sharpe_ratio(returns: Floats) -> float:
    """Mean over deviation, per period; 0 for returns that never move."""
    deviation = float(returns.std(ddof=1)) if len(returns) > 1 else 0.0
    return float(returns.mean()) / deviation if deviation > 0 else 0.0


def probabilistic_sharpe(
    sharpe: float, periods: int, skewness: float, kurtosis: float, benchmark: float = 0.0
) -> float:
    """Probability that the true Sharpe ratio is above `benchmark`; all per period.

    `kurtosis` is not the excess: 3 for normal returns.
    """
    if periods < 2:
        raise ValueError("a Sharpe ratio needs at least two periods")
    spread = 1.0 - skewness * sharpe + (kurtosis - 1.0) / 4.0 * sharpe**2
    if spread <= 0:
        raise ValueError("skewness and kurtosis are not those of any distribution")
    return _NORMAL.cdf((sharpe - benchmark) * math.sqrt(periods - 1) / math.sqrt(spread))


def expected_best_sharpe(trials: int, variance: float) -> float:
    """What the best of `trials` strategies without skill shows; 0 for a single trial."""
    if trials < 1 or variance < 0:
        raise ValueError("there must be a trial, and a variance is at least 0")
    if trials == 1:
        return 0.0
    return math.sqrt(variance) * (
        (1.0 - EULER) * _NORMAL.inv_cdf(1.0 - 1.0 / trials)
        + EULER * _NORMAL.inv_cdf(1.0 - 1.0 / (trials * math.e))
    )


def deflated_sharpe(returns: Floats, trial_sharpes: Floats) -> float:
    """Probability that the chosen strategy has skill, given every strategy that was tried.

    `returns` (T,): of the chosen one; `trial_sharpes` (N,): per period, of all trials, it included.
    """
    centred = returns - returns.mean()
    deviation = float(returns.std())
    if deviation == 0:
        raise ValueError("returns that never move have no Sharpe ratio")
    variance = float(trial_sharpes.var(ddof=1)) if len(trial_sharpes) > 1 else 0.0
    return probabilistic_sharpe(
        sharpe_ratio(returns),
        len(returns),
        float((centred**3).mean()) / deviation**3,
        float((centred**4).mean()) / deviation**4,
        expected_best_sharpe(len(trial_sharpes), variance),
    )


def overfitting_probability(returns: Floats, slices: int = MAX_SLICES) -> float:
    """PBO: how often the best of `returns` (T, N) in half the slices is in the lower half after.

    Combinatorially symmetric cross-validation over `slices` (even, at most 16) spans of time with
    the Sharpe ratio as measure. About 0.5 without skill, near 0 where one strategy is really best.
    """
    periods, strategies = returns.shape
    if slices % 2 or not 2 <= slices <= MAX_SLICES or periods < 2 * slices or strategies < 2:
        raise ValueError("take an even number of slices, at most 16, of two periods and more each")
    parts = np.array_split(returns, slices)
    count = np.array([len(part) for part in parts], np.float64)
    total = np.stack([part.sum(0) for part in parts])
    square = np.stack([np.square(part).sum(0) for part in parts])
    chosen = np.zeros((math.comb(slices, slices // 2), slices))
    for row, picked in enumerate(combinations(range(slices), slices // 2)):
        chosen[row, list(picked)] = 1.0
    inside = _sharpes(chosen @ count, chosen @ total, chosen @ square)
    outside = _sharpes((1 - chosen) @ count, (1 - chosen) @ total, (1 - chosen) @ square)
    best = inside.argmax(1)
    its = np.take_along_axis(outside, best[:, None], axis=1)
    # A tie counts as half above and half below, so that copies of one strategy give 0.5.
    rank = (outside < its).sum(1) + 0.5 * ((outside == its).sum(1) + 1)
    return float(np.mean(np.where(rank == (strategies + 1) / 2, 0.5, rank < (strategies + 1) / 2)))


def _sharpes(count: Floats, total: Floats, square: Floats) -> Floats:
    mean = total / count[:, None]
    variance = np.maximum(square / count[:, None] - mean**2, 0.0)
    return np.where(variance > 0, mean / np.sqrt(np.where(variance > 0, variance, 1.0)), 0.0)
