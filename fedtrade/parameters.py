"""The governed parameters of a release: unit, hard bounds, joint invariants.

Each field has a hard minimum and maximum that no vote can pass, and the model validators hold the
joint invariants: two values that are each within bounds can be jointly absurd. Whatever arrives from
outside is parsed here; a value outside the bounds never becomes an object.

The parameters are part of `protocol.ReleaseTerms`, whose digest is the policy hash that stands
on-chain, in every signature and in every mask, so that nobody can run a round under others.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

SCALE = 2**16
"""Fixed-point units per clip unit. At 2^16 rounding costs 0.2 % of ε; at 2^8 it would cost 71 %."""

RING_BITS = 32
"""Vectors are added modulo 2^32 and read back as signed 32-bit integers."""

FIELD_BITS = 28
"""Lane C packs two fields of this many bits, signed, into each slot of a ciphertext."""

NORM_UNITS_MAX = 2**22
"""The largest norm, in ring units, that the hidden norm check can bound without wrapping."""


class Parsed(BaseModel):
    """Base of what enters as bytes: frozen, and nothing that we do not know is let in."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PrivacyParameters(Parsed):
    """Everything that a round's privacy depends on."""

    sampling_rate: Annotated[float, Field(gt=0.0, le=0.25)]
    """q: the probability with which a position takes part in a round (Poisson)."""

    noise_multiplier: Annotated[float, Field(ge=0.5, le=64.0)]
    """z: standard deviation of the committee's noise on the sum, in clip units."""

    clip_norm: Annotated[float, Field(gt=0.0, le=1e3)]
    """C: the most that one position's gradient may weigh (L2)."""

    rounds: Annotated[int, Field(ge=1, le=10_000)]
    """Rounds in a release."""

    delta: Annotated[float, Field(gt=0.0, le=1e-5)]

    epsilon_cap: Annotated[float, Field(gt=0.0, le=20.0)]
    """The most that a release may spend of a member's ε (RDP), whatever its rounds."""

    cohort_min: Annotated[int, Field(ge=3, le=1_000)]
    """Fewest members whose sum may be unmasked."""

    helpers: Annotated[int, Field(ge=3, le=9)]
    """m: size of the mask committee."""

    corrupt: Annotated[int, Field(ge=1, le=4)]
    """c: helpers that may be bad; c + 1 unmask, c learn nothing."""

    aggregation: Literal["mask", "bfv"] = "mask"
    """Lane B (one-message mask committee) or lane C (collective-key BFV). Same integers."""

    agreement: Literal["chain", "certificate"] = "chain"
    """What makes a manifest final: that it stands on the home chain, or the helpers' signatures."""

    update_norm_max: Annotated[float, Field(gt=0.0, lt=NORM_UNITS_MAX / SCALE)] | None = None
    """The most that one member's whole update may weigh (L2, clip units). Helpers check it without
    seeing the update; the ring is then 2^64, an upload 8 B a parameter. None: not checked."""

    bucket_min: Annotated[int, Field(ge=3, le=1_000)] | None = None
    """Fewest members of a random bucket whose sum is unmasked by itself; the step is the trimmed
    mean over buckets. Each bucket carries the whole noise. None: one sum of the whole cohort."""

    bucket_trim: Annotated[int, Field(ge=0, le=100)] = 0
    """How many buckets are cut off at each end of every coordinate: so many may be poisoned."""

    weight_max: Annotated[int, Field(ge=1, le=16)] = 1
    """Lane C: the largest weight that the manifest may give a member after it has uploaded. The
    noise grows with it, so that ε does not."""

    local_steps: Annotated[int, Field(ge=0, le=64)] = 0
    """0: DP-FedSGD, noise by the committee. Else: each member takes so many DP-SGD steps with noise
    of its own and sends the difference (FedAvg), trusting no committee."""

    local_learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    proximal: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """FedProx: pull of the local steps toward the round's model (Li et al. 2020)."""

    server_optimiser: Literal["adam", "momentum"] = "adam"
    """momentum with beta1 = 0 is plain averaging (FedAvg)."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)]
    beta1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    beta2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999

    @model_validator(mode="after")
    def _jointly_sound(self) -> Self:
        if self.helpers < 2 * self.corrupt + 1:
            raise ValueError(
                f"{self.helpers} helpers cannot stand {self.corrupt} bad ones: "
                f"give at least {2 * self.corrupt + 1} helpers"
            )
        if self.cohort_min <= self.corrupt + 1:
            raise ValueError(
                f"a cohort of {self.cohort_min} hides nobody from {self.corrupt} colluders: "
                f"set cohort_min to at least {self.corrupt + 2}"
            )
        if self.noise_multiplier * 12 > self.batch_max:
            raise ValueError("the noise does not fit the ring: lower noise_multiplier")
        if self.bucket_min is not None and self.bucket_min < self.corrupt + 2:
            raise ValueError(
                f"a bucket of {self.bucket_min} hides nobody from {self.corrupt} colluders: "
                f"set bucket_min to at least {self.corrupt + 2}"
            )
        if self.bucket_trim and self.bucket_min is None:
            raise ValueError("bucket_trim without buckets: set bucket_min")
        if self.aggregation == "bfv" and self.update_norm_max is not None:
            raise ValueError("the hidden norm check needs shares: use aggregation = 'mask'")
        if self.aggregation == "mask" and self.weight_max != 1:
            raise ValueError("weights after submission need aggregation = 'bfv'")
        if self.local_steps and self.weight_max != 1:
            raise ValueError("local steps carry their own noise: weights would change what it is")
        return self

    @property
    def ring_bits(self) -> int:
        """Bits of one coordinate of a masked vector: 64 while the norm is checked."""
        return 2 * RING_BITS if self.update_norm_max is not None else RING_BITS

    @property
    def committee_noise(self) -> float:
        """Standard deviation that the committee must add to a sum, in ring units."""
        return 0.0 if self.local_steps else self.noise_multiplier * self.weight_max * SCALE

    @property
    def steps_per_round(self) -> int:
        """Noisy sums of a member's positions that one round releases: what the accountant counts."""
        return max(1, self.local_steps)

    @property
    def norm_units(self) -> int | None:
        """`update_norm_max` in ring units, or None where the norm is not checked."""
        return None if self.update_norm_max is None else int(self.update_norm_max * SCALE)

    @property
    def batch_max(self) -> int:
        """Clip units that all members' sums may reach together, so that no sum can wrap.

        Lane B's ring holds ±2^31/SCALE = ±2^15 clip units; half is for the members' sums, half for
        the committee's noise (12 standard deviations, checked above). Lane C's fields hold
        ±2^27/SCALE = ±2^11, shared alike; weights take their part of it.
        """
        bits = RING_BITS if self.aggregation == "mask" else FIELD_BITS
        return (1 << (bits - 2)) // SCALE // self.weight_max

    def effective_noise_multiplier(self, dimension: int) -> float:
        """z as accounted, after rounding to integers has widened the sensitivity.

        Leaving a position out changes the quantised sum by at most SCALE + √d in L2: one clip unit
        and two roundings of at most half a unit per coordinate.
        """
        return self.noise_multiplier * SCALE / (SCALE + math.sqrt(dimension))


def sha256_json(value: object) -> str:
    """sha256 over canonical JSON: sorted keys, no spaces, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
