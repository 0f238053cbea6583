"""Robust aggregation over random buckets: what a few poisoned updates can still do is bounded.

Each member's update is hidden, so no rule can look at single updates. The cohort is therefore drawn
into random buckets, each bucket's sum is unmasked by itself, and the step is the coordinate-wise
trimmed mean of the bucket means (Yin, Chen, Ramchandran, Bartlett, "Byzantine-robust distributed
learning: towards optimal statistical rates", ICML 2018; buckets: Karimireddy, He, Jaggi,
"Byzantine-robust learning on heterogeneous datasets via bucketing", ICLR 2022).

**Breakdown point.** f bad members spoil at most f buckets. With g buckets and t of them cut off at
each end of every coordinate, g ≥ 2t + 1: while at most t buckets are spoiled, each coordinate of the
result lies between the smallest and the largest value of the honest buckets, whatever the others
say. So f ≤ t ≤ (g − 1)/2 holds always, and since g is at most the cohort over the least bucket size
k, that is a share of bad members below 1/(2k). Beyond it nothing is promised: the norm check
(`fedtrade.privacy.norm`) bounds each bad update, and the buckets' means may still be pulled.

**Price.** A position is in one bucket only, so the buckets compose in parallel and ε stays; but each
bucket carries the committee's whole noise on a sum over 1/g of the positions. The mean over g buckets
so has √g times the noise of one sum, before trimming. Trimming costs more, as it averages fewer of
the ordered values: for Gaussian noise the deviation grows by 1.03 at t/g = 0.1, 1.07 at 0.2 and by
√(π/2) = 1.25 for the median of many. It also is biased where bucket means are skewed. All buckets
count alike, whatever their expected batches.

**Privacy of a bucket.** Its sum is as public as a round's sum, so no bucket is smaller than the least
cohort. The draw must not be known before the cohort is fixed: who could choose it could put one
member among its colluders, and be left with that member's sum and the noise alone.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedtrade.errors import Refusal
from fedtrade.privacy.mechanism import NotFinite


class TooFewForBuckets(Refusal):
    """A cohort that does not fill one bucket, or buckets too few to trim."""

    def __init__(self, what: str, found: int, needed: int) -> None:
        super().__init__(
            f"{found} {what}, {needed} are needed. Start a new round with a larger cohort, "
            "or agree on smaller buckets or a smaller trim"
        )
        self.found = found
        self.needed = needed


def buckets(cohort: Sequence[int], bucket_min: int, beacon: bytes) -> tuple[tuple[int, ...], ...]:
    """The cohort in as many random buckets of at least `bucket_min` members as it fills.

    Sizes differ by at most one; members ascend within a bucket. Members are put in the order of
    HMAC-SHA256(beacon, member), which is a uniformly random order to whoever could not foresee the
    beacon, and the same for everybody and for ever. Raises TooFewForBuckets.
    """
    members = set(cohort)
    if len(members) != len(cohort) or bucket_min < 1:
        raise ValueError("a cohort lists each member once, and a bucket has a member")
    count = len(members) // bucket_min
    if count == 0:
        raise TooFewForBuckets("members for a bucket", len(members), bucket_min)
    order = sorted(members, key=lambda member: _ticket(beacon, member))
    return tuple(tuple(sorted(order[place::count])) for place in range(count))


def _ticket(beacon: bytes, member: int) -> bytes:
    return hmac.digest(beacon, b"fedtrade bucket|%d" % member, "sha256")


def trimmed_mean(means: NDArray[np.float64], trim: int) -> NDArray[np.float64]:
    """Coordinate-wise mean without the `trim` smallest and largest. Shape (g, d) -> (d,).

    Bit for bit the same for any order of the buckets: the values kept of a coordinate are added one
    after the other from the smallest up, and −0 counts as 0. Raises TooFewForBuckets for g < 2t + 1,
    NotFinite.
    """
    count = len(means)
    if trim < 0:
        raise ValueError("trim counts buckets")
    if count < 2 * trim + 1:
        raise TooFewForBuckets("buckets to trim", count, 2 * trim + 1)
    if not np.isfinite(means).all():
        raise NotFinite("the mean of a bucket is not finite")
    kept = np.sort(means + 0.0, axis=0)[trim : count - trim]
    total = kept[0].copy()
    for row in kept[1:]:
        total += row
    mean: NDArray[np.float64] = total / len(kept)
    return mean
