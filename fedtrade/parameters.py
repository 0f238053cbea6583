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
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

SCALE = 2**16
"""Fixed-point units per clip unit. At 2^16 rounding costs 0.2 % of ε; at 2^8 it would cost 71 %."""

RING_BITS = 32
"""Vectors are added modulo 2^32 and read back as signed 32-bit integers."""


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
        if self.noise_multiplier * 12 > 2 ** (RING_BITS - 2) / SCALE:
            raise ValueError("the noise does not fit the ring: lower noise_multiplier")
        return self

    @property
    def batch_max(self) -> int:
        """Most positions that one member may send in a round, so that the sum cannot wrap.

        The ring holds ±2^31/SCALE = ±2^15 clip units. Half is for the members' sums (split over
        `members_max`), half for the committee's noise (12 standard deviations, checked above).
        """
        return (1 << (RING_BITS - 2)) // SCALE

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
