"""The least privacy that a member accepts: read from its own file, and from nowhere else."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fedtrade.errors import Refusal
from fedtrade.parameters import Parsed
from fedtrade.protocol import ReleaseTerms


class FloorBroken(Refusal):
    """Terms that are weaker than what this member accepts, whoever agreed to them."""

    def __init__(self, field: str, floor: float, found: float) -> None:
        super().__init__(
            f"the release's {field} is {found}, this member's own file demands {floor}. "
            "Nothing was sent. Change the member's file if you want to join"
        )
        self.field = field
        self.floor = floor
        self.found = found


class Floor(Parsed):
    """The least privacy that this member accepts. Nothing received can lower it."""

    epsilon_limit: Annotated[float, Field(gt=0, le=20)] = 8.0
    """The most ε (RDP) that this member ever spends on one set of positions."""
    delta_max: Annotated[float, Field(gt=0, le=1e-5)] = 1e-6
    noise_multiplier_min: Annotated[float, Field(ge=0.5)] = 0.5
    sampling_rate_max: Annotated[float, Field(gt=0, le=0.25)] = 0.25
    cohort_min: Annotated[int, Field(ge=3)] = 3
    corrupt_min: Annotated[int, Field(ge=1)] = 1
    """How many bad helpers the committee must at least withstand."""

    def check(self, terms: ReleaseTerms) -> None:
        """Refuse terms below the floor. Raises FloorBroken."""
        p = terms.parameters
        smallest = min(p.cohort_min, p.bucket_min or p.cohort_min)  # members in any sum
        for field, floor, found, holds in (
            ("delta", self.delta_max, p.delta, p.delta <= self.delta_max),
            (
                "noise_multiplier",
                self.noise_multiplier_min,
                p.noise_multiplier,
                p.noise_multiplier >= self.noise_multiplier_min,
            ),
            (
                "sampling_rate",
                self.sampling_rate_max,
                p.sampling_rate,
                p.sampling_rate <= self.sampling_rate_max,
            ),
            ("cohort_min", self.cohort_min, smallest, smallest >= self.cohort_min),
            ("corrupt", self.corrupt_min, p.corrupt, p.corrupt >= self.corrupt_min),
        ):
            if not holds:
                raise FloorBroken(field, floor, found)
