"""The ring of lane C: R_q = Z_q[X]/(X^N + 1), N = 8192, q = q₀·q₁ with two 60-bit primes of SEAL's.

Elements are held by their residues: uint64, shape (…, 2, n), one row a prime, always coefficients.
Only `multiply` goes through transforms: the negacyclic number-theoretic transform of Longa and
Naehrig ("Speeding up the number theoretic transform for faster ideal lattice-based cryptography",
CANS 2016) with Shoup's multiplication by constants (Harvey, "Faster arithmetic for number-theoretic
transforms", J. Symb. Comp. 2014), compiled by numba. SEAL has the same transform and is as fast, but
TenSEAL's only door to it is a stream, compressed on its way out, and an upload through that door
costs twice as much. The tests compare products with SEAL's.

**Hardness.** log₂ q = 120 at N = 8192 with ternary secrets is inside the 192-bit row (152) of the
table of the HomomorphicEncryption.org standard (Albrecht et al. 2018); the 128-bit row is 218.

Times do not depend on values but for what the processor does; nobody but the holder may measure it.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from fedtrade.errors import Refusal

Signed = NDArray[np.int64]
"""Small signed coefficients, shape (…, n)."""

Residues = NDArray[np.uint64]
"""Coefficients modulo both primes, shape (…, 2, n)."""

DEGREE = 8192
PRIMES = (1152921504606683137, 1152921504606748673)
"""The largest 60-bit primes ≡ 1 mod 2N but one, in SEAL's order; SEAL keeps that one for itself."""

MODULUS = prod(PRIMES)

_Q = np.array(PRIMES, dtype=np.uint64)
_COLUMN = _Q[:, None]
_NEGATIVE_INVERSE = np.array([-pow(q, -1, 2**64) % 2**64 for q in PRIMES], dtype=np.uint64)
_SQUARE = np.repeat(np.array([[pow(2, 128, q)] for q in PRIMES], dtype=np.uint64), DEGREE, axis=1)


class BadResidues(Refusal):
    """Bytes that are not coefficients modulo our primes."""

    def __init__(self, what: str, problem: str) -> None:
        super().__init__(
            f"{what}: {problem}. Leave its sender out; it must send canonical residues"
        )
        self.what = what
        self.problem = problem


# --- residues and bytes ---------------------------------------------------------------------------


def residues(values: Signed) -> Residues:
    """Signed integers below 2^59 in size, shape (…, n), as residues (…, 2, n)."""
    borrow = values >> 63  # −1 below zero: selects the prime without a branch
    found = np.empty((*values.shape[:-1], 2, values.shape[-1]), dtype=np.int64)
    for row, q in enumerate(PRIMES):
        np.add(values, borrow & q, out=found[..., row, :])
    return found.view(np.uint64)


def add(a: Residues, b: Residues) -> Residues:
    """a + b. For a sum below q the second candidate has wrapped and is the larger."""
    total: Residues = a + b
    np.minimum(total, total - _COLUMN, out=total)
    return total


def subtract(a: Residues, b: Residues) -> Residues:
    """a − b."""
    difference: Residues = a - b
    np.minimum(difference, difference + _COLUMN, out=difference)
    return difference


def negate(a: Residues) -> Residues:
    """−a."""
    return subtract(np.zeros_like(a), a)


def to_bytes(a: Residues) -> bytes:
    """Wire form: little-endian 64-bit words, all of the first prime, then all of the second."""
    return a.astype("<u8", copy=False).tobytes()


def from_bytes(what: str, data: bytes, length: int) -> Residues:
    """Residues (2, length) from their wire form. Raises BadResidues."""
    if len(data) != 16 * length:
        raise BadResidues(what, f"{len(data)} bytes, not {16 * length}")
    found = np.frombuffer(data, dtype="<u8").reshape(2, length)
    if (found >= _COLUMN).any():
        raise BadResidues(what, "a coefficient is not below its prime")
    return found


def split(a: Residues) -> Residues:
    """(2, k·N) on the wire as polynomials (k, 2, N)."""
    return np.ascontiguousarray(a.reshape(2, -1, DEGREE).transpose(1, 0, 2))


def join(polynomials: Residues) -> Residues:
    """Polynomials (k, 2, N) as (2, k·N)."""
    return polynomials.transpose(1, 0, 2).reshape(2, -1)


# --- multiplication -------------------------------------------------------------------------------


def _high_word(_: Any, a: Any, b: Any) -> Any:
    """Upper 64 bits of a 64 × 64-bit product: one instruction, which numba has no name for."""

    def build(__: Any, builder: Any, ___: Any, arguments: Any) -> Any:
        word = arguments[0].type
        double = type(word)(128)
        product = builder.mul(*(builder.zext(argument, double) for argument in arguments))
        return builder.trunc(builder.lshr(product, double(64)), word)

    return types.uint64(types.uint64, types.uint64), build


_high: Any = intrinsic(_high_word)


def _shoup(a: Any, w: Any, ratio: Any, q: Any) -> Any:
    """a·w mod q in [0, 2q), for any word a and constant w < q with ratio = ⌊w·2^64/q⌋."""
    return a * w - _high(a, ratio) * q


_times: Any = njit(inline="always")(_shoup)


def _forward_loops(data: Any, roots: Any, ratios: Any, primes: Any) -> None:
    """Transforms of (k, 2, N) in place: Cooley–Tukey butterflies within [0, 4q), order bit-reversed."""
    for p in range(data.shape[0]):
        for r in range(2):
            row, q = data[p, r], primes[r]
            twice = q + q
            span, blocks = row.shape[0] >> 1, 1
            while span:
                for block in range(blocks):
                    root, ratio = roots[r, blocks + block], ratios[r, blocks + block]
                    start = 2 * block * span
                    low, high = row[start : start + span], row[start + span : start + 2 * span]
                    for i in range(span):
                        a = min(low[i], low[i] - twice)  # wraps below 2q, and is then the larger
                        b = _times(high[i], root, ratio, q)
                        low[i], high[i] = a + b, a - b + twice
                span >>= 1
                blocks <<= 1
            for i in range(row.shape[0]):
                a = min(row[i], row[i] - twice)
                row[i] = min(a, a - q)


def _inverse_loops(data: Any, roots: Any, ratios: Any, last: Any, primes: Any) -> None:
    """Back again, in place: Gentleman–Sande butterflies within [0, 2q), then 1/N (last: w, ratio)."""
    for p in range(data.shape[0]):
        for r in range(2):
            row, q = data[p, r], primes[r]
            twice = q + q
            span, blocks = 1, row.shape[0] >> 1
            while blocks:
                for block in range(blocks):
                    root, ratio = roots[r, blocks + block], ratios[r, blocks + block]
                    start = 2 * block * span
                    low, high = row[start : start + span], row[start + span : start + 2 * span]
                    for i in range(span):
                        a, b = low[i], high[i]
                        total = a + b
                        low[i] = min(total, total - twice)
                        high[i] = _times(a - b + twice, root, ratio, q)
                span <<= 1
                blocks >>= 1
            for i in range(row.shape[0]):
                a = _times(row[i], last[0, r], last[1, r], q)
                row[i] = min(a, a - q)


def _pointwise_loops(data: Any, factors: Any, found: Any, primes: Any, inverses: Any) -> None:
    """found[k, 2, N] = data[k, 2, N]·factors[2, N]/2^64 in [0, 2q), for data < q (Montgomery 1985)."""
    for p in range(data.shape[0]):
        for r in range(2):
            q, inverse = primes[r], inverses[r]
            for i in range(data.shape[2]):
                a, b = data[p, r, i], factors[r, i]
                low = a * b
                carry = types.uint64(low != types.uint64(0))  # low + (…)·q is 0 modulo 2^64
                found[p, r, i] = _high(a, b) + _high(low * inverse, q) + carry


def _scale_loops(data: Any, found: Any, constants: Any, primes: Any) -> None:
    """found[2, n] = data[2, n]·w, constants being (w, ratio) of each prime."""
    for r in range(2):
        for i in range(data.shape[1]):
            a = _times(data[r, i], constants[0, r], constants[1, r], primes[r])
            found[r, i] = min(a, a - primes[r])


_forward: Any = njit(cache=True)(_forward_loops)
_inverse: Any = njit(cache=True)(_inverse_loops)
_pointwise: Any = njit(cache=True)(_pointwise_loops)
_scale: Any = njit(cache=True)(_scale_loops)


def _with_ratios(constants: list[list[int]]) -> Residues:
    """(2, n) constants and their ratios, (2, 2, n)."""
    ratios = [[(w << 64) // q for w in row] for row, q in zip(constants, PRIMES, strict=True)]
    return np.array([constants, ratios], dtype=np.uint64)


@lru_cache(maxsize=1)
def _tables() -> tuple[Residues, Residues, Residues]:
    """Powers of a 2N-th root of unity and of its inverse, bit-reversed, and 1/N; with ratios."""
    bits = DEGREE.bit_length() - 1
    order = [int(f"{i:0{bits}b}"[::-1], 2) for i in range(DEGREE)]
    tables: list[list[list[int]]] = [[], []]
    for q in PRIMES:
        exponent = (q - 1) // (2 * DEGREE)
        candidates = (pow(base, exponent, q) for base in range(2, 1000))
        root = next(w for w in candidates if pow(w, DEGREE, q) == q - 1)
        for table, w in zip(tables, (root, pow(root, -1, q)), strict=True):
            powers = [1]
            for _ in range(DEGREE - 1):
                powers.append(powers[-1] * w % q)
            table.append([powers[place] for place in order])
    last = _with_ratios([[pow(DEGREE, -1, q)] for q in PRIMES])
    return _with_ratios(tables[0]), _with_ratios(tables[1]), last[..., 0]


def scale(a: Residues, number: int) -> Residues:
    """number·a for an integer, shape (2, n)."""
    constants = _with_ratios([[number % q] for q in PRIMES])[..., 0]
    found = np.empty(a.shape, dtype=np.uint64)
    _scale(a, found, constants, _Q)
    return found


def factor(polynomial: Residues) -> Residues:
    """A polynomial (2, N) as `multiply` wants it: transformed, in Montgomery's form."""
    transform = polynomial[None].copy()
    _forward(transform, *_tables()[0], _Q)
    _pointwise(transform, _SQUARE, transform, _Q, _NEGATIVE_INVERSE)
    found: Residues = transform[0]
    return found


def multiply(polynomials: Residues, *factors: Residues) -> tuple[Residues, ...]:
    """Each factor (of `factor`) times every polynomial of (k, 2, N): one (k, 2, N) a factor."""
    roots, back, last = _tables()
    transforms = np.array(polynomials, dtype=np.uint64, order="C")
    _forward(transforms, *roots, _Q)
    products = []
    for chosen in factors:
        product = np.empty_like(transforms)
        _pointwise(transforms, chosen, product, _Q, _NEGATIVE_INVERSE)
        _inverse(product, *back, last, _Q)
        products.append(product)
    return tuple(products)
