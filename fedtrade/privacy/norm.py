"""The hidden norm check: helpers learn whether a masked update is within its bound, and no more.

**Shares.** The masks of `fedtrade.privacy.masking` are shares already. Modulo 2^64

    x = y + Σ_S (−PRG(seed_S)),

where y is known to all and the share of S to every helper outside S. A product of the shares of S
and T belongs to a helper outside S ∪ T, and |S ∪ T| ≤ 2c, so with r ≥ 2c + 1 responders each product
has an owner that can form it alone: any quadratic form of x is a sum of local terms (Cramer, Damgård,
Maurer, "General secure multi-party computation from any linear secret-sharing scheme", 2000).

**Proof.** Bound B ≤ 2^22 units, n = d + 4, k = 128, W the least power of two with W ≥ 8B. A member
masks the vector (x', b) of n + k(log₂W + 1) elements in the place of x:

    x' = (x, four numbers) with ‖x'‖² = B²             (Lagrange; `fedtrade.privacy.four_squares`)
    R ∈ {−1, 0, 0, 1}^(k×n)                            (Fiat–Shamir from the masked x' and the seeds)
    b = the bits of R_j·x' + W, each in [0, 2W)        (j = 1..k)

and the helpers open 25 words, all 0 for an honest member: with ρ and τ from a hash of all of y,

    (a)  ‖x'‖² − B²                                      1 word
    (b)  Σ_i ρ_i (b_i² − b_i)                           12 words, independent ρ
    (c)  Σ_j τ_j (R_j·x' + W − Σ_i 2^i b_ji)            12 words, independent τ

Projections against wrap-around follow Rothblum, Omri, Chen, Talwar ("PINE: efficient verification of
a Euclidean norm bound of a secret-shared vector", USENIX Security 2024); the slack of high bits,
Cramer, Damgård, Escudero, Scholl, Xing ("SPDZ2k", CRYPTO 2018).

**Theorem (soundness).** Let M = 2^54, n ≤ 2^25, seeds as committed, the responders' words computed
as stated, and hash and stream a random oracle. Let u be x' modulo M, read as signed numbers. A member
that asks the oracle Q times gets all 25 words to 0 with ‖u‖² ≠ B² with probability below Q·2^−127.
So what an accepted member adds to the sum, modulo M, is a vector of norm at most B. *Proof.*

1. If some e_i = b_i² − b_i is not 0 modulo M, the lowest set bit of all e_i is at most bit 53, so
   that Σ ρ_i e_i is uniform on at least 2^11 values: 0 in all 12 words has probability ≤ 2^−132.
   Else each b_i is 0 or 1 modulo M (b and b − 1 are coprime). The same holds for (c). If both hold,
   every projection R_j·u lies in A = [−W, W) modulo M.
2. Let |u_i| ≥ 2W for some i. For any values of a row's other entries, the sums for entry 0 and for
   entry ±1 differ by |u_i| ∈ [2W, M/2], and two members of A by less than 2W modulo M. So only one
   of the two cases, each of probability 1/2, can be in A: k rows pass with probability ≤ 2^−128.
3. Else all |u_i| < 2W and ‖u‖² ≥ M·2. |R_j·u| < 2Wn ≤ 2^51 cannot reach A by wrapping. An entry of R
   is half the sum of two fair signs, so its characteristic function is cos²(t/2) ≥ 0, and at most
   exp(−t²/4) for |t| ≤ π. With the Fejér kernel g(z) = (sin(Tz/2)/(Tz/2))², T = π/2W, whose
   transform is a triangle on [−T, T] and which is at least 8/π² on A,

       Pr[R_j·u ∈ A] ≤ π²/8 · E g ≤ π²/8 · (1/T)∫exp(−‖u‖²t²/4)dt = π²/8 · (4/√π) · W/‖u‖ < 0.493

   since W ≤ 2^25 and ‖u‖ ≥ 2^27.5: k rows pass with probability below 2^−130.
4. Else ‖u‖² < 2M. (a) gives ‖x'‖² = B² modulo 2^64; x'_i = u_i + M·t_i has x'_i² = u_i² modulo 2M;
   so ‖u‖² = B² modulo 2M, and both are below 2M: ‖u‖² = B². ∎

Bits 54 and up of x' stay unproved, so a sum of checked vectors is read modulo M (`reduce`).

**Completeness.** Entries of R have E exp(t·r) ≤ exp(t²/4), so |R_j·x'| > 8B has probability at most
2·exp(−64): an honest member fails with probability below 2^−84.

**Zero knowledge.** A helper adds to its words a pseudorandom share of zero, agreed pairwise and bound
to this vector and this set of responders. At least c + 1 responders are honest, so c bad ones see of
the others' words only their total; for an honest member it follows from what the bad ones hold,
since all totals are 0. Asking again with other responders shows other shares of the same zeros.

**What it does not stop.** A bad *helper* can add an error to its words: fail an honest member, or
pass a bad one that it works with. It learns nothing thereby, and what it lets in is for the trimmed
mean over buckets (`fedtrade.privacy.robust`) and the bound on the sum. The check needs r ≥ 2c + 1
helpers present; a consortium that wants it and helpers that may be away takes m > 2c + 1.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedtrade.errors import BadInput, Refusal
from fedtrade.parameters import NORM_UNITS_MAX
from fedtrade.privacy import masking
from fedtrade.privacy.four_squares import four_squares
from fedtrade.privacy.mechanism import NotFinite
from fedtrade.privacy.projections import ROWS, Words, project, stream

REPEATS = 12
"""Independent words for the bits, and for the projections: 11 bits of soundness each."""
WORDS = 1 + 2 * REPEATS
"""What a helper sends for each member."""
MODULUS_BITS = 54
"""log₂M: what is proved of a coordinate, and what is read of a sum."""
SLACK = 4
"""The numbers whose squares fill the norm up to the bound."""
DIMENSION_MAX = 2**25 - SLACK

_RING = np.dtype(np.uint64)


class NormTooLarge(Refusal):
    """A vector that its own member cannot prove to be within the bound."""

    def __init__(self, bound: int) -> None:
        super().__init__(
            f"the update is longer than the bound of {bound} units, so no proof would pass. "
            "Bring it onto the ball first (norm.onto_ball)"
        )
        self.bound = bound


class TooFewToCheck(Refusal):
    """A set of responders in which some product of shares has no owner."""

    def __init__(self, found: int, needed: int) -> None:
        super().__init__(
            f"{found} helpers cannot check a norm, {needed} can. Wait for more, or start a new round"
        )
        self.found = found
        self.needed = needed


@dataclass(frozen=True, slots=True)
class Plan:
    """The layout of a proved vector: x (d), four numbers, then the bits of k projections.

    Raises BadInput for a bound or a dimension that the theorem does not cover.
    """

    dimension: int
    bound: int
    """B, in units of the ring."""

    def __post_init__(self) -> None:
        if not 1 <= self.dimension <= DIMENSION_MAX:
            raise BadInput(
                "norm check", f"dimension {self.dimension}", f"Give 1 to {DIMENSION_MAX}"
            )
        least = 2 + math.isqrt(self.dimension)  # below it rounding alone could pass the bound
        if not least <= self.bound <= NORM_UNITS_MAX:
            raise BadInput(
                "norm check",
                f"a bound of {self.bound} units",
                f"Give {least} to {NORM_UNITS_MAX} units",
            )

    @property
    def values(self) -> int:
        """n: elements of x'."""
        return self.dimension + SLACK

    @property
    def window(self) -> int:
        """W: the least power of two that is at least 8B."""
        return 1 << (8 * self.bound - 1).bit_length()

    @property
    def bits(self) -> int:
        """Bits of one projection."""
        return self.window.bit_length()

    @property
    def length(self) -> int:
        """Elements of the whole masked vector."""
        return self.values + ROWS * self.bits


@dataclass(frozen=True, slots=True)
class Binding:
    """What a proof is bound to: its member in its round, and the seeds that it committed to."""

    context: bytes
    """`masking.member_context`."""
    commitments: tuple[bytes, ...]
    """One of 32 bytes for each subset, in the order of `masking.subsets`."""


@dataclass(frozen=True, slots=True)
class Panel:
    """The helpers that check together, by index. Raises TooFewToCheck below 2c + 1."""

    helpers: int
    corrupt: int
    responders: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "responders", tuple(sorted(set(self.responders))))
        needed = 2 * self.corrupt + 1
        if len(self.responders) < needed:
            raise TooFewToCheck(len(self.responders), needed)


@dataclass(frozen=True, slots=True, repr=False)
class Holding:
    """What one helper holds for one member's check."""

    index: int
    """Its place in the committee."""
    seeds: Mapping[int, bytes]
    """Subset -> the member's seed, for every subset without this helper."""
    pair_seeds: Mapping[int, bytes]
    """Index of another helper -> the seed agreed with it."""


def onto_ball(total: NDArray[np.float64], plan: Plan) -> NDArray[np.int64]:
    """Integers nearest to `total` (ring units, shape (d,)), shortened so that their norm is ≤ B.

    The projection onto a ball moves no two points apart, and rounding moves a vector by at most
    √d/2, so the sensitivity stays that of plain rounding. The ball's radius is B less √d/2, and less
    one unit for the arithmetic. Raises NotFinite.
    """
    with np.errstate(over="ignore"):  # an overflow is what is asked about
        length = float(np.sqrt(np.square(total).sum()))
    if not math.isfinite(length):
        raise NotFinite("a coordinate is not a finite number, or far too large")
    radius = plan.bound - math.sqrt(plan.dimension) / 2 - 1
    shortened = total * (radius / length) if length > radius else total
    return np.rint(shortened).astype(np.int64)


def prove(units: NDArray[np.int64], plan: Plan, masks: Words, binding: Binding) -> Words:
    """The masked vector with its proof. Shape (plan.length,).

    `units` is x, shape (d,). `masks` is Σ PRG(seed) over the whole length, that is `masking.mask` of
    zeros. Raises NormTooLarge.
    """
    squared = float(np.square(units.astype(np.float64)).sum())  # exact below 2^53
    if not squared <= plan.bound**2:
        raise NormTooLarge(plan.bound)
    n = plan.values
    fill = np.array(four_squares(plan.bound**2 - int(squared)), np.int64)
    values = np.concatenate([units, fill]).view(np.uint64)
    masked = masks.copy()
    masked[:n] += values
    seen = project(values, _projection_key(plan, masked[:n], binding)) + np.uint64(plan.window)
    masked[n:] += (seen[:, None] >> np.arange(plan.bits, dtype=np.uint64) & np.uint64(1)).ravel()
    return masked


def answer(plan: Plan, masked: Words, binding: Binding, panel: Panel, holding: Holding) -> Words:
    """A helper's words for one member: its terms and its share of zero. Shape (WORDS,).

    Deterministic: the same question gets the same words.
    """
    outer = _projection_key(plan, masked[: plan.values], binding)
    inner = _combination_key(plan, masked, outer)
    words = _terms(plan, masked, binding, panel, holding, (outer, inner))
    others = {
        other: holding.pair_seeds[other] for other in panel.responders if other != holding.index
    }
    context = b"fedtrade norm zero|%d|%d|" % (panel.helpers, panel.corrupt)
    context += bytes(panel.responders) + inner
    words += masking.zero_share(holding.index, others, context, WORDS, _RING)
    return words


def verdict(total: Words) -> bool:
    """Whether the words of all responders, added up (shape (WORDS,)), accept the member."""
    return not total.any()


def reduce(total: Words) -> NDArray[np.int64]:
    """A sum of checked vectors as signed integers modulo 2^54, the part that was proved."""
    unproved = np.uint64(64 - MODULUS_BITS)
    signed: NDArray[np.int64] = (total << unproved).view(np.int64) >> unproved.astype(np.int64)
    return signed


@lru_cache(maxsize=256)
def duties(panel: Panel) -> tuple[dict[int, tuple[int, ...]], ...]:
    """For each helper: share -> its partners in the products of shares that the helper owns.

    Shares are numbered as `masking.subsets`, and y, which everybody has, comes last. A pair is
    listed under its lower number. Pairs with the fewest possible owners are given out first, each to
    the least loaded, which everybody finds alike.
    """
    known = (*masking.subsets(panel.helpers, panel.corrupt), ())
    pairs = [
        (tuple(h for h in panel.responders if h not in known[i] and h not in known[j]), i, j)
        for i in range(len(known))
        for j in range(i, len(known))
    ]
    load = dict.fromkeys(panel.responders, 0)
    given: list[dict[int, tuple[int, ...]]] = [{} for _ in range(panel.helpers)]
    for able, i, j in sorted(pairs, key=lambda pair: (len(pair[0]), pair[1:])):
        owner = min(able, key=lambda h: (load[h], (h - i - j) % panel.helpers))
        load[owner] += 1
        given[owner][i] = (*given[owner].get(i, ()), j)
    return tuple(given)


def _terms(
    plan: Plan,
    masked: Words,
    binding: Binding,
    panel: Panel,
    holding: Holding,
    keys: tuple[bytes, bytes],
) -> Words:
    """This helper's part of the words: the products of shares that it owns, and their linear terms.

    The linear term of a share goes with its square, and the constants with the square of y.
    """
    mine = duties(panel)[holding.index]
    last = len(binding.commitments)
    prg = masking.Prg(plan.length, _RING)
    shares: dict[int, Words] = {
        i: masked if i == last else np.negative(prg(holding.seeds[i], binding.context))
        for i in sorted(set(mine).union(*mine.values()))
    }
    squares = np.zeros(plan.length, np.uint64)
    linear = np.zeros(plan.length, np.uint64)
    for i, partners in mine.items():
        factor = np.zeros(plan.length, np.uint64)
        for j in partners:
            if j != i:
                factor += shares[j]
        factor += factor
        if i in partners:
            factor += shares[i]
            linear += shares[i]
        factor *= shares[i]
        squares += factor
    return _fold(plan, squares, linear, keys, constants=last in mine.get(last, ()))


def _fold(
    plan: Plan, squares: Words, linear: Words, keys: tuple[bytes, bytes], constants: bool
) -> Words:
    """The words (a), (b), (c) of elementwise squares and of linear terms, both (plan.length,)."""
    n, outer, inner = plan.values, keys[0], keys[1]
    drawn = np.frombuffer(
        stream(inner).update(bytes(8 * REPEATS * (ROWS * plan.bits + ROWS))), "<u8"
    )
    rho = drawn[: REPEATS * ROWS * plan.bits].reshape(REPEATS, -1)
    tau = drawn[rho.size :].reshape(REPEATS, ROWS)
    powers = np.uint64(1) << np.arange(plan.bits, dtype=np.uint64)
    gaps = project(linear[:n], outer) - linear[n:].reshape(ROWS, plan.bits) @ powers
    excess = squares[:n].sum(keepdims=True)
    if constants:
        gaps += np.uint64(plan.window)
        excess -= np.uint64(plan.bound**2)
    return np.concatenate([excess, rho @ (squares[n:] - linear[n:]), tau @ gaps])


def _projection_key(plan: Plan, masked_values: Words, binding: Binding) -> bytes:
    """Fiat–Shamir: R depends on the masked x' and on the seeds, that is on x'."""
    text = b"fedtrade norm projections|%d|%d|%d|" % (
        plan.dimension,
        plan.bound,
        len(binding.commitments),
    )
    digest = hashlib.sha256(text + binding.context + b"".join(binding.commitments))
    digest.update(masked_values.astype("<u8", copy=False).tobytes())
    return digest.digest()


def _combination_key(plan: Plan, masked: Words, outer: bytes) -> bytes:
    """Fiat–Shamir: ρ and τ depend on all that R depends on, and on the masked bits."""
    bits = masked[plan.values :].astype("<u8", copy=False).tobytes()
    return hashlib.sha256(b"fedtrade norm combinations|" + outer + bits).digest()
