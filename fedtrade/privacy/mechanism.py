"""Sampling, fixed point and discrete noise: the mechanism whose privacy is accounted.

Each round every member includes each of its positions with probability q (Poisson sampling), adds up
gradients clipped to C per position, and quantises the sum to integers of SCALE per clip unit. The
committee adds Skellam noise: the difference of two Poisson variables of mean λ has variance 2λ
(Skellam 1946; Agarwal, Kairouz, Liu, "The Skellam mechanism for differentially private federated
learning", NeurIPS 2021). With a standard deviation of z·2^16 units its Rényi divergence exceeds the
Gaussian's by less than 1e-9 relative at every order used (Agarwal et al., theorem 3.5: the excess is
at most (2α−1)Δ₂²/4μ² + 3Δ₁/2μ² with μ = z²·2^32), so it is accounted as a Gaussian whose sensitivity
includes the rounding (`PrivacyParameters.effective_noise_multiplier`).

Each responder adds variance σ²/(r−c): whatever c of the r responders left out, the honest ones add
at least σ² = (z·SCALE)².
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from randomgen import ChaCha

from fedtrade.errors import Fault, Refusal
from fedtrade.parameters import SCALE
from fedtrade.privacy.masking import Ring

Entropy = Callable[[int], bytes]
"""A source of secret random bytes: `os.urandom` everywhere but in tests."""


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


def quantise(total: NDArray[np.float64], clip_norm: float, batch_max: int) -> Ring:
    """Integers of SCALE per clip unit, modulo 2^32. Raises NotFinite."""
    if not np.isfinite(total).all():
        raise NotFinite("a coordinate is not a finite number")
    units = np.rint(total / clip_norm * SCALE)
    if np.abs(units).max(initial=0.0) > batch_max * SCALE + 1:
        raise NotFinite("a coordinate is larger than all clipped positions together could make it")
    return units.astype(np.int64).astype(np.uint32)


def dequantise(total: Ring, clip_norm: float, bound: int) -> NDArray[np.float64]:
    """The sum of clipped gradients from the ring. `bound`: largest honest |units|. RingOverflow."""
    signed = total.astype(np.uint32).view(np.int32)
    largest = int(np.abs(signed.astype(np.int64)).max(initial=0))
    if largest > bound:
        raise RingOverflow(largest, bound)
    return signed.astype(np.float64) * (clip_norm / SCALE)


def noise_variance(noise_multiplier: float, responders: int, corrupt: int) -> float:
    """Variance that one responder adds, in squared units: σ²/(r − c)."""
    return float((noise_multiplier * SCALE) ** 2 / (responders - corrupt))


def skellam(key: bytes, variance: float, length: int) -> Ring:
    """Skellam noise of the given variance, as ring elements, from a 32-byte key.

    ChaCha20 in counter mode is the source; the same key gives the same noise, so that a repeated
    answer repeats its bytes instead of drawing a second sample of the same secret.
    """
    generator = np.random.Generator(ChaCha(key=int.from_bytes(key, "little"), rounds=20))
    rate = variance / 2
    noise = generator.poisson(rate, length) - generator.poisson(rate, length)
    return noise.astype(np.int64).astype(np.uint32)
