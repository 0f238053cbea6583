"""The control: secure aggregation as it is often drawn, with nothing that holds the server back.

Members agree on pairwise seeds and add PRG(seed) for a later partner and subtract it for an earlier
one, so that the masks cancel in the sum. Where a member drops out, the server asks the others for
the seeds that they share with it. Nothing is signed, no manifest fixes who is in, nobody remembers a
round, and nothing is bound to one. It works when all are honest; `test_naive.py` shows what it loses
to the attacks that the rest of this folder holds off. Nothing here is used by the product.
"""

import hashlib

import numpy as np


def mask(seed, length):
    """PRG of a seed: 32-bit words, the same whatever the round."""
    return np.frombuffer(hashlib.shake_256(seed).digest(4 * length), "<u4")


class NaiveMember:
    """A member that does as it is told."""

    def __init__(self, seat, vector, pair_seeds):
        self.seat = seat
        self.vector = np.asarray(vector).astype(np.uint32)
        self.pair_seeds = pair_seeds

    def upload(self, cohort):
        """x plus the masks shared with everybody whom the server says is there."""
        masked = self.vector.copy()
        for other in cohort:
            if other != self.seat:
                shared = mask(self.pair_seeds[other], len(masked))
                masked = masked + shared if other > self.seat else masked - shared
        return masked

    def seed_of(self, dropped):
        """What the server needs when a member has dropped out."""
        return self.pair_seeds[dropped]


def naive_members(vectors):
    """Members 1..n with pairwise seeds."""
    seats = range(1, len(vectors) + 1)

    def seed(a, b):
        return hashlib.sha256(b"%d %d" % (min(a, b), max(a, b))).digest()

    return {
        s: NaiveMember(s, vectors[s - 1], {o: seed(s, o) for o in seats if o != s}) for s in seats
    }


def naive_sum(members, uploads, cohort):
    """What an honest server computes: the masks of the dropped are removed with the others' seeds."""
    present = sorted(uploads)
    total = sum((uploads[s] for s in present), np.zeros_like(uploads[present[0]]))
    for dropped in set(cohort) - set(present):
        for s in present:
            shared = mask(members[s].seed_of(dropped), len(total))
            total = total - shared if dropped > s else total + shared
    return total
