"""Any natural number as a sum of four squares (Lagrange 1770), found directly.

Rabin and Shallit ("Randomized algorithms in number theory", 1986) need coins and primality tests for
numbers of cryptographic size. Ours stay below 2^64, where a greedy search is enough: the largest
square leaves a rest of at most 2√n; that rest is a sum of three squares unless it has the form
4^k(8m + 7) (Legendre 1798), and of its candidates for the second square one in a few leaves a sum of
two, which is small enough to try out. It needs no coins.
"""

from __future__ import annotations

from math import isqrt

LARGEST = 2**64
"""Numbers up to this are taken; the search would be right, but slow, far beyond it."""


def four_squares(number: int) -> tuple[int, int, int, int]:
    """(a, b, c, d) ≥ 0 with a² + b² + c² + d² = number. Raises ValueError outside 0..2^64."""
    if not 0 <= number <= LARGEST:
        raise ValueError(f"{number} is not within 0..2^64")
    for a in range(isqrt(number), -1, -1):
        others = _three_squares(number - a * a)
        if others is not None:
            return (a, *others)
    raise AssertionError("Lagrange's theorem does not fail")


def _three_squares(number: int) -> tuple[int, int, int] | None:
    """Three squares, or None for the numbers 4^k(8m + 7), which have none.

    A multiple of four is a sum of even squares only, so its factors 4^k are taken out first: with
    them in, the search would try 2^k candidates for each that can succeed.
    """
    scale = 1
    while number and number % 4 == 0:
        number //= 4
        scale *= 2
    if number % 8 == 7:
        return None
    for b in range(isqrt(number), -1, -1):
        pair = _two_squares(number - b * b)
        if pair is not None:
            return b * scale, pair[0] * scale, pair[1] * scale
    raise AssertionError("Legendre's theorem does not fail")


def _two_squares(number: int) -> tuple[int, int] | None:
    """(c, d) with c² + d² = number and c ≥ d, or None where there is no such pair."""
    for c in range(isqrt(number), isqrt(number // 2) - 1, -1):
        d = isqrt(number - c * c)
        if c * c + d * d == number:
            return c, d
    return None
