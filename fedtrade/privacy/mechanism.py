"""Sampling, fixed point and discrete noise: the mechanism whose privacy is accounted.

Each round every member includes each of its positions with probability q (Poisson sampling), adds up
gradients clipped to C per position, and quantises the sum to integers of SCALE per clip unit. The
committee adds discrete Gaussian noise, sampled exactly (`discrete_gaussian`).

Why it may be accounted as a Gaussian of the same variance, by any accountant:

* A discrete Gaussian of variance v is a Gaussian of variance v − 4 that was rounded to integers at
  random, by a discrete Gaussian of variance 4 around the real value (Peikert, "An efficient and
  parallel Gaussian sampler for lattices", CRYPTO 2010, theorem 3.1). Rounding commutes with integer
  shifts, so it is post-processing: the discrete mechanism costs at most what the continuous one
  does, up to a factor within 1 ± 4·exp(−8π²) (< 1 ± 1e-33) of each coordinate's probability. `noise`
  adds variance 4 (and rounds the deviation up), so that what is accounted is the smaller one.
* A sum of n discrete Gaussians of variance v is one of variance n·v up to a factor of
  exp(±10·Σ_k exp(−2π²v·k/(k + 1))) (Kairouz, Liu, Steinke, "The distributed discrete Gaussian
  mechanism for federated learning with secure aggregation", ICML 2021). At the smallest deviation
  that a responder adds (half a clip unit over 9 responders: 10^4 units) that is exp(±10^-5e8).

With d = 10^6 coordinates and 10^4 rounds both together change a privacy loss by less than 1e-22.
(For Rényi accounting at integer orders no such step is needed: every moment of the likelihood ratio
of discrete Gaussians is at most the Gaussians' (Canonne, Kamath, Steinke, "The discrete Gaussian for
differential privacy", 2020, theorem 4), and the subsampled bound of Mironov, Talwar, Zhang (2019) is
a positive combination of those.) Rounding of the sums themselves is in the sensitivity
(`PrivacyParameters.effective_noise_multiplier`).

Each responder adds variance σ²/(r−c): whatever c of the r responders left out, the honest ones add
at least σ² = (z·SCALE)².
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fedtrade.errors import Fault, Refusal
from fedtrade.parameters import SCALE
from fedtrade.privacy.discrete_gaussian import discrete_gaussian

Entropy = Callable[[int], bytes]
"""A source of secret random bytes: `os.urandom` everywhere but in tests."""


ROUNDING_VARIANCE = 4
"""Variance that the accountant does not count: what makes the rest exactly a Gaussian's (above)."""


class NotFinite(Refusal):
    """A vector with NaN, infinity or a coordinate that cannot be a sum of clipped gradients."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"this update cannot be sent: {problem}. Check the positions and the model"
        )
        self.problem = problem


class RingOverflow(Fault):
    """A sum outside what honest members and noise can produce: the ring has wrapped or was abused."""

    def __init__(self, largest: int, bound: int) -> None:
        super().__init__(
            f"a coordinate of the sum is {largest}, beyond the bound {bound}: "
            "the round is not usable; abandon it and find the member that sent too much"
        )
        self.largest = largest
        self.bound = bound


def poisson_sample(count: int, rate: float, entropy: Entropy) -> NDArray[np.bool_]:
    """Which of `count` positions take part: each with probability `rate`, from secret bytes."""
    threshold = np.uint64(min(int(rate * 2**64), 2**64 - 1))
    draws = np.frombuffer(entropy(8 * count), dtype="<u8")
    return np.asarray(draws < threshold)


def limit_sample(include: NDArray[np.bool_], batch_max: int, entropy: Entropy) -> NDArray[np.bool_]:
    """At most `batch_max` of the sampled, chosen at random without looking at any data.

    The choice depends on the public count and the coins only, so under zero-out adjacency it cannot
    leak; it keeps the sum inside the ring.
    """
    chosen = np.flatnonzero(include)
    if len(chosen) <= batch_max:
        return include
    order = np.argsort(np.frombuffer(entropy(8 * len(chosen)), dtype="<u8"), kind="stable")
    limited = np.zeros_like(include)
    limited[chosen[order[:batch_max]]] = True
    return limited


def quantise(total: NDArray[np.float64], clip_norm: float, batch_max: int) -> NDArray[np.int64]:
    """Integers of SCALE per clip unit, signed; the caller takes them into its ring. NotFinite."""
    units = total * (SCALE / clip_norm)
    np.rint(units, out=units)
    largest = max(units.max(initial=0.0), -units.min(initial=0.0))
    if not np.isfinite(largest):
        raise NotFinite("a coordinate is not a finite number")
    if largest > batch_max * SCALE + 1:
        raise NotFinite("a coordinate is larger than all clipped positions together could make it")
    return units.astype(np.int64)


def dequantise(signed: NDArray[np.int64], clip_norm: float, bound: int) -> NDArray[np.float64]:
    """The sum of clipped gradients, from the ring's elements read as signed integers.

    `bound`: the largest |units| that honest members and noise can produce. Raises RingOverflow.
    """
    largest = max(int(signed.max(initial=0)), -int(signed.min(initial=0)))
    if largest > bound:
        raise RingOverflow(largest, bound)
    return signed.astype(np.float64) * (clip_norm / SCALE)


def noise_variance(noise_multiplier: float, responders: int, corrupt: int) -> float:
    """Variance that one responder adds, in squared units: σ²/(r − c)."""
    return float((noise_multiplier * SCALE) ** 2 / (responders - corrupt))


def noise(key: bytes, variance: float, length: int) -> NDArray[np.int64]:
    """Signed discrete Gaussian noise of at least the given variance (squared units), shape (length,).

    A function of the 32-byte key, so that a repeated answer repeats its bytes instead of drawing a
    second sample of the same secret. The variance is raised by ROUNDING_VARIANCE, and the deviation
    to the next integer: together by less than 6e-5 of it at z = 1 and three honest responders.
    """
    return discrete_gaussian(key, noise_deviation(variance), length)


def noise_deviation(variance: float) -> int:
    """The integer deviation of `noise`: the least whose square is variance + ROUNDING_VARIANCE."""
    whole = math.ceil(variance) + ROUNDING_VARIANCE
    root = math.isqrt(whole)
    return root if root * root == whole else root + 1
