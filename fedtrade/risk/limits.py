"""How much risk an agent may take: numbers with hard bounds that no file, vote or message can pass.

Every limit is a maximum, so the smaller number is always the tighter one. What a member configures
lies within `HARD`; what arrives later from outside goes through `tightened`, which can only lower.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Final

from fedtrade.errors import Refusal

EPOCH_S: Final = 86_400
"""The notional cap counts over whole days of chain time. Not a limit that anyone may set."""

HARD: Final[Mapping[str, tuple[int, int]]] = {
    "drawdown_reduce_bps": (1, 1_000),
    "drawdown_halt_bps": (1, 2_000),
    "drawdown_unwind_bps": (1, 3_000),
    "oracle_deviation_reduce_bps": (1, 500),
    "oracle_deviation_halt_bps": (1, 1_000),
    "oracle_age_reduce_s": (1, 7_200),
    "oracle_age_halt_s": (1, 86_400),
    "model_age_max_s": (1, 30 * 86_400),
    "mirror_age_max_s": (1, 7 * 86_400),
    "gas_price_max_wei": (1, 1_000 * 10**9),
    "action_notional_max_quote": (1, 10_000_000),
    "epoch_notional_max_quote": (1, 50_000_000),
    "swap_discount_max_bps": (1, 300),
    "deadline_max_s": (1, 3_600),
}
"""(least, most) that each limit may be, whoever asks."""

_LADDERS: Final = (
    ("drawdown_reduce_bps", "drawdown_halt_bps", "drawdown_unwind_bps"),
    ("oracle_deviation_reduce_bps", "oracle_deviation_halt_bps"),
    ("oracle_age_reduce_s", "oracle_age_halt_s"),
    ("action_notional_max_quote", "epoch_notional_max_quote"),
)
"""Joint invariant: along each of these a limit is not above the next."""


class LimitRefused(Refusal):
    """A limit is outside the hard bounds, unknown, or contradicts another."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"Risk limit {name}: {problem}. Give a value that is within the bounds.")
        self.name = name
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one agent. Building one with a value out of bounds raises `LimitRefused`."""

    drawdown_reduce_bps: int = 500
    """Fall of equity from its high-water mark at which nothing may be added."""
    drawdown_halt_bps: int = 1_000
    """… at which liquidity is withdrawn."""
    drawdown_unwind_bps: int = 1_500
    """… at which the volatile asset is sold as well."""
    oracle_deviation_reduce_bps: int = 200
    """Pool price against the feed's, either way."""
    oracle_deviation_halt_bps: int = 500
    oracle_age_reduce_s: int = 3_900
    """Age of the feed's answer; feeds repeat themselves every hour."""
    oracle_age_halt_s: int = 7_500
    model_age_max_s: int = 7 * 86_400
    """Time since the model went live after which it is expired."""
    mirror_age_max_s: int = 86_400
    """Age of the home chain's news after which what they say of the model is not believed."""
    gas_price_max_wei: int = 200 * 10**9
    """Base fee above which nothing is added, and the cap of what any transaction offers."""
    action_notional_max_quote: int = 100_000
    """Most that one action may add, in whole units of the quote."""
    epoch_notional_max_quote: int = 1_000_000
    """Most that all actions of one day may add."""
    swap_discount_max_bps: int = 100
    """How far a swap's worst price may be from the feed's."""
    deadline_max_s: int = 1_800
    """How far ahead the deadline of an action may be."""

    def __post_init__(self) -> None:
        for name, (least, most) in HARD.items():
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise LimitRefused(name, f"{value!r} is not a whole number in {least}..{most}")
        for ladder in _LADDERS:
            for lower, upper in pairwise(ladder):
                if getattr(self, lower) > getattr(self, upper):
                    raise LimitRefused(lower, f"above {upper}")

    def tightened(self, received: Mapping[str, int]) -> Limits:
        """These limits, lowered to what was received where that is lower; never raised."""
        values = asdict(self)
        for name, value in received.items():
            if name not in values:
                raise LimitRefused(name, "unknown")
            if type(value) is not int or value < HARD[name][0]:
                raise LimitRefused(name, f"{value!r} is not a whole number above 0")
            values[name] = min(values[name], value)
        for ladder in _LADDERS:  # a lowered HALT also lowers REDUCE_ONLY: from the top down
            for lower, upper in reversed(list(pairwise(ladder))):
                values[lower] = min(values[lower], values[upper])
        return Limits(**values)


assert [f.name for f in fields(Limits)] == list(HARD), "every limit has hard bounds"
