"""What an agent may ask for, as frozen values: the only output of a decision.

Each action carries its own id (unique and deterministic within a journal), so that the shell that
submits it can be killed and restarted without losing or doubling it. `adds_risk` is what the
breakers look at: an action that adds risk may not pass once REDUCE_ONLY is reached.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class ProvideLiquidity:
    """Mint a new position of [tick_lower, tick_upper) with at most these amounts."""

    adds_risk: ClassVar[bool] = True
    action_id: str
    pool: str
    tick_lower: int
    tick_upper: int
    amount0: int
    amount1: int
    amount0_min: int
    amount1_min: int
    deadline_s: int


@dataclass(frozen=True, slots=True)
class WithdrawLiquidity:
    """Remove all liquidity of a position, collect what it owes, and burn it."""

    adds_risk: ClassVar[bool] = False
    action_id: str
    pool: str
    token_id: int
    liquidity: int
    amount0_min: int
    amount1_min: int
    deadline_s: int


@dataclass(frozen=True, slots=True)
class SwapExactInput:
    """Sell `amount_in` of one token of the pool for at least `amount_out_min` of the other."""

    action_id: str
    pool: str
    sell_token0: bool
    amount_in: int
    amount_out_min: int
    deadline_s: int
    adds_risk: bool
    """True when it buys the volatile asset; selling it for the quote only reduces risk."""


Action = ProvideLiquidity | WithdrawLiquidity | SwapExactInput
