"""Exact samples of the discrete Gaussian, from a keystream, in integers only.

The discrete Gaussian of deviation σ gives each integer x a probability proportional to
exp(−x²/2σ²). For an integer σ it is drawn by Karney's decomposition ("Sampling exactly from the
normal distribution", ACM TOMS 42, 2016, algorithm D): write |x| = kσ + j with 0 ≤ j < σ, so that

    exp(−x²/2σ²) = exp(−k²/2) · exp(−u(2k + u)/2)        u = j/σ

Propose k with weight exp(−k²/2), j and the sign uniformly, and keep them with probability
exp(−u(2k + u)/2). That is k + 1 events of probability exp(−a/b) for integers a ≤ b, and such an event
is decided by von Neumann's (1951) race: at step n go on with probability a/(bn); the first step
that fails is an odd one with probability exp(−a/b). Going on is "a uniform integer below bn is below
a", and uniform integers come from words of the keystream by rejection. So no logarithm, exponential
or floating-point number is taken of anything random, and nothing is rounded.

Given uniform words the law is exact but for three cuts, each smaller than what AES-256 itself leaves
open: k is chosen by 192-bit thresholds and ends at 16, and a race ends after 512 steps. Together
they are less than 2^-180 per value in total variation.

The time that a call takes depends on the values drawn: this is not constant-time, and whoever can
time a helper's sampling closely learns something (how many proposals fell) of its noise.
"""

from __future__ import annotations

from bisect import bisect_right
from decimal import Decimal, localcontext

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from fedtrade.errors import Fault

Words = NDArray[np.uint64]

DEVIATION_MAX = 2**24
"""The largest σ: up to here no product that decides an event passes 2^63."""

_BLOCK = 2**15
"""Proposals at a time: they stay in the processor's cache."""
_ATTEMPTS_MAX = 512
"""Of anything that is repeated until it succeeds, which each time it does with probability > 1/2
(uniform integers, blocks of proposals) or fails with probability > 1/n at step n (races)."""
_ALL = np.uint64(2**64 - 1)


def _cumulative() -> list[int]:
    """P(0), P(0..1), … P(0..15) for P(k) ∝ exp(−k²/2), in units of 2^-192, rounded down."""
    with localcontext() as context:
        context.prec = 90
        weights = [(Decimal(-k * k) / 2).exp() for k in range(32)]
        whole = sum(weights)
        return [int(sum(weights[: k + 1]) / whole * 2**192) for k in range(16)]


_CUMULATIVE = _cumulative()
_FIRST_WORDS = np.array([c >> 128 for c in _CUMULATIVE], dtype=np.uint64)


class KeystreamBroken(Fault):
    """Words that fail a test which uniform words fail with a probability below 2^-500."""

    def __init__(self) -> None:
        super().__init__(
            "the keystream of the noise is not random. This cannot happen with a working cipher: "
            "nothing was sent; look at the build of the package `cryptography` before another round"
        )


def discrete_gaussian(key: bytes, deviation: int, length: int) -> NDArray[np.int64]:
    """`length` independent values with P(x) ∝ exp(−x²/2σ²), σ = `deviation`. Shape (length,).

    A function of the 32-byte key, which must serve for one call only. ValueError for a key or a
    deviation out of range, KeystreamBroken if the cipher does not work.
    """
    if not 1 <= deviation <= DEVIATION_MAX:
        raise ValueError(f"the deviation must lie within 1 and {DEVIATION_MAX} units")
    stream = _Keystream(key)
    values = np.empty(length, dtype=np.int64)
    filled = 0
    for _ in range(_ATTEMPTS_MAX + length):
        if filled == length:
            return values
        wanted = min(_BLOCK, (length - filled) * 3 // 2 + 64)
        kept = _proposals(stream, deviation, wanted)[: length - filled]
        values[filled : filled + len(kept)] = kept
        filled += len(kept)
    raise KeystreamBroken


class _Keystream:
    """AES-256 in counter mode as 64-bit words and as uniform integers, read in order."""

    def __init__(self, key: bytes) -> None:
        if len(key) != 32:
            raise ValueError("the key of the noise has 32 bytes")
        self._stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def words(self, count: int) -> Words:
        return np.frombuffer(self._stream.update(bytes(8 * count)), dtype="<u8")

    def below(self, bounds: Words) -> Words:
        """For each n ≤ 2^63 in `bounds` a uniform integer below n."""
        word = self.words(len(bounds))
        found = word % bounds
        # Words from the last, incomplete run of n integers would favour the small ones. Such a word
        # lies above 2^64 − n, which rules out nearly all of them at once.
        again = np.flatnonzero(word > _ALL - bounds.max(initial=np.uint64(1)))
        again = again[word[again] - found[again] > _ALL - bounds[again] + np.uint64(1)]
        for _ in range(_ATTEMPTS_MAX):
            if not len(again):
                return found
            n, word = bounds[again], self.words(len(again))
            found[again] = word % n
            again = again[word - found[again] > _ALL - n + np.uint64(1)]
        raise KeystreamBroken


def _proposals(stream: _Keystream, deviation: int, count: int) -> NDArray[np.int64]:
    """`count` proposals, less those that fell; about 7 of 10 stay."""
    sigma = np.uint64(deviation)
    k = _whole_deviations(stream, count)
    draw = stream.below(np.full(count, np.uint64(2) * sigma))
    negative = draw >= sigma
    j = draw - sigma * negative
    whole = k * sigma
    a = j * (whole + whole + j)
    b = (k + np.uint64(1)) * (np.uint64(2) * sigma * sigma)
    stays = _races(stream, a, b)
    stays &= (whole + j > 0) | ~negative  # zero has one sign
    for repeat in range(1, int(k.max(initial=0)) + 1):
        racing = np.flatnonzero(stays & (k >= repeat))
        stays[racing] = _races(stream, a[racing], b[racing])
    kept = np.flatnonzero(stays)
    values = (whole[kept] + j[kept]).astype(np.int64)
    return np.where(negative[kept], -values, values)


def _whole_deviations(stream: _Keystream, count: int) -> Words:
    """`count` values of k, with probability proportional to exp(−k²/2)."""
    first = stream.words(count)
    k = np.zeros(count, dtype=np.uint64)
    reached = np.flatnonzero(first >= _FIRST_WORDS[0])
    for threshold in _FIRST_WORDS[1:]:
        k[reached] += np.uint64(1)
        reached = reached[first[reached] >= threshold]
    k[reached] += np.uint64(1)
    for tied in np.flatnonzero(first == _FIRST_WORDS[k.view(np.int64) - 1]):
        second, third = (int(word) for word in stream.words(2))
        k[tied] = bisect_right(_CUMULATIVE, (int(first[tied]) << 128) + (second << 64) + third)
    return k


def _races(stream: _Keystream, a: Words, b: Words) -> NDArray[np.bool_]:
    """For each pair an event of probability exp(−a/b), 0 ≤ a ≤ b (von Neumann)."""
    happened = np.ones(len(a), dtype=bool)
    going = np.arange(len(a))
    for step in range(1, _ATTEMPTS_MAX + 1):
        goes_on = np.flatnonzero(stream.below(b * np.uint64(step)) < a)
        going, a, b = going[goes_on], a[goes_on], b[goes_on]
        if not len(going):
            return happened
        happened[going] = step % 2 == 0  # so it is if the next step fails
    raise KeystreamBroken
