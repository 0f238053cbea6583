"""A member's own judgement of a model, on positions that no round has seen, before it signs.

Recomputing a release proves that the model is what the messages give; it does not prove that the
messages were well meant. So every member keeps a tenth of its positions out of all rounds, chosen by
a keyed coin for each position's place in the file, and compares the model with the one that the
release began with on them: the mean, over held-out positions, of the change of the loss, each cut to
±LOSS_CLIP. Whether it signs is seen by others, so the mean gets noise: a Gaussian mechanism of
multiplier NOISE_MULTIPLIER on a sum to which a position adds at most LOSS_CLIP. That is paid from the
ledger, as a spend of the held-out positions; since no position is in both pools, a position costs
the larger of the two and not their sum (parallel composition).

With fewer than JUDGED_MIN held-out positions the noise would decide, so the member does not judge.
"""

from __future__ import annotations

import hmac
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedtrade.errors import Refusal
from fedtrade.parameters import SCALE
from fedtrade.privacy.accounting import Spend
from fedtrade.privacy.mechanism import noise, noise_variance

HELD_OUT: Final = 0.1
LOSS_CLIP: Final = 0.25
NOISE_MULTIPLIER: Final = 4.0
TOLERANCE: Final = 0.1
"""The mean loss may rise by this much: what noise and a bad month may do to an honest model."""
JUDGED_MIN: Final = 30
"""At 30 positions the noise has a deviation of a third of the tolerance."""

COST: Final = Spend(sampling_rate=1.0, noise_multiplier=NOISE_MULTIPLIER, rounds=1)
"""What one judgement costs the held-out positions (before one unit of rounding: 2^-16 of it)."""


class ModelWorse(Refusal):
    """A model that this member's held-out positions speak against."""

    def __init__(self, artifact_sha256: str) -> None:
        super().__init__(
            f"model {artifact_sha256} forecasts this member's held-out positions worse than the one "
            "before it. It is not signed. Ask the others; if they see the same, a member or helper "
            "has poisoned the release: open a new one with the norm check and buckets on"
        )
        self.artifact_sha256 = artifact_sha256


def held_out(count: int, key: bytes) -> NDArray[np.bool_]:
    """Which of `count` positions no round may use. Depends on places in the file alone."""
    threshold = int(HELD_OUT * 2**32)
    return np.array(
        [
            int.from_bytes(hmac.digest(key, place.to_bytes(8, "big"), "sha256")[:4], "big")
            < threshold
            for place in range(count)
        ],
        dtype=np.bool_,
    )


def judge(
    before: NDArray[np.float64], after: NDArray[np.float64], key: bytes, artifact_sha256: str
) -> None:
    """Refuse a model whose losses (P,) on held-out positions have risen. Raises ModelWorse.

    `key`: 32 secret bytes of this artifact; the same key gives the same verdict.
    """
    change = np.nan_to_num(after - before, nan=LOSS_CLIP)
    units = int(np.rint(np.clip(change / LOSS_CLIP, -1.0, 1.0) * SCALE).sum())
    drawn = int(noise(key, noise_variance(NOISE_MULTIPLIER, responders=1, corrupt=0), 1)[0])
    if (units + drawn) * LOSS_CLIP / SCALE > TOLERANCE * len(after):
        raise ModelWorse(artifact_sha256)
