"""Exact samples of the discrete Gaussian, from a keystream.

The discrete Gaussian of deviation σ gives each integer x a probability proportional to
exp(−x²/2σ²). For an integer σ it is drawn by Karney's decomposition ("Sampling exactly from the
normal distribution", ACM TOMS 42, 2016): write |x| = kσ + j with 0 ≤ j < σ, so that

    exp(−x²/2σ²) = exp(−k²/2) · exp(−a/b)        a = j(2kσ + j), b = 2σ²

Propose k with weight exp(−k²/2), j and the sign uniformly, and keep them with probability exp(−a/b).
Uniform integers come from words of the keystream by rejection. A proposal is kept when a uniform
number U = 0.w₁w₂w₃…, read word by word from the keystream, lies below exp(−a/b). Its first word
decides in floating point wherever the two are more than 2^-40 apart, a thousand times what rounding
can add up to there; the others, one in 2^39, are decided in integers by the words after it.
So floating point saves time and changes no outcome: noise is a function of the key alone, the same
on every machine, and no number that was rounded is ever sent.

Given uniform words the law is exact but for two cuts, each smaller than what AES-256 itself leaves
open: k and U are compared to 192 bits, and k ends at 16. Together they are less than 2^-180 per value
in total variation.

The time that a call takes depends on how many proposals fell: this is not constant-time, and whoever
can time a helper's sampling closely learns a little of its noise.
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
_MARGIN = 2.0**-40
"""Distance between U and exp(−a/b) from which floating point decides. Rounding moves U, a/b and the
difference by less than 2^-52 of themselves, and exp is right to 4 units in the last place on every
platform of numpy: less than 2^-50 together."""
_ATTEMPTS_MAX = 512
"""Of anything that is repeated until it succeeds, which each time it does with probability > 1/2
(uniform integers, blocks of proposals)."""
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

    def below(self, n: int, count: int) -> Words:
        """`count` uniform integers below n ≤ 2^63."""
        bound, word = np.uint64(n), self.words(count)
        found = word % bound
        # Words from the last, incomplete run of n integers would favour the small ones. Such a word
        # lies above 2^64 − n, which rules out nearly all of them at once.
        again = np.flatnonzero(word > _ALL - bound)
        again = again[word[again] - found[again] > _ALL - bound + np.uint64(1)]
        for _ in range(_ATTEMPTS_MAX):
            if not len(again):
                return found
            word = self.words(len(again))
            found[again] = word % bound
            again = again[word - found[again] > _ALL - bound + np.uint64(1)]
        raise KeystreamBroken


def _proposals(stream: _Keystream, deviation: int, count: int) -> NDArray[np.int64]:
    """`count` proposals, less those that fell; about 7 of 10 stay."""
    sigma = np.uint64(deviation)
    whole: Words = _whole_deviations(stream, count) * sigma
    j = stream.below(2 * deviation, count)
    negative = j >= sigma
    j -= sigma * negative
    kept = _events(stream, j * (whole + whole + j), 2 * deviation * deviation)
    value = (whole + j).view(np.int64)
    kept &= (value > 0) | ~negative  # zero has one sign
    return np.where(negative, -value, value)[kept]


def _whole_deviations(stream: _Keystream, count: int) -> Words:
    """`count` values of k, with probability proportional to exp(−k²/2)."""
    first = stream.words(count)
    one, two, three = _FIRST_WORDS[:3]
    k: Words = (first >= one).astype(np.uint64)
    k += first >= two
    beyond = np.flatnonzero(first >= three)  # one in 150
    k[beyond] = np.searchsorted(_FIRST_WORDS, first[beyond], side="right").astype(np.uint64)
    tied = (first == one) | (first == two)
    tied[beyond] = first[beyond] == _FIRST_WORDS[k[beyond].view(np.int64) - 1]
    for place in np.flatnonzero(tied):
        k[place] = bisect_right(_CUMULATIVE, _longer(stream, first[place]))
    return k


def _events(stream: _Keystream, a: Words, b: int) -> NDArray[np.bool_]:
    """For each a an event of probability exp(−a/b)."""
    first = stream.words(len(a))
    distance = np.exp(a * (-1 / b)) - first * 2.0**-64
    happens: NDArray[np.bool_] = distance > 0
    for place in np.flatnonzero(np.abs(distance) < _MARGIN):
        with localcontext() as context:
            context.prec = 90
            chance = int((Decimal(-int(a[place])) / b).exp() * 2**192)
        happens[place] = _longer(stream, first[place]) < chance
    return happens


def _longer(stream: _Keystream, first: np.uint64) -> int:
    """192 bits: `first`, then two words more of the keystream."""
    second, third = (int(word) for word in stream.words(2))
    return (int(first) << 128) + (second << 64) + third
