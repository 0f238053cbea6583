"""What can be held and where it trades: tokens and pools, in integers of the token's smallest unit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Token:
    """An ERC-20 token on one chain. Amounts of it are integers of 10**-decimals."""

    address: str
    symbol: str
    decimals: int


@dataclass(frozen=True, slots=True)
class PoolKey:
    """A Uniswap v3 pool: token0 sorts below token1; `fee_pips` is in 1e-6 of the input."""

    address: str
    token0: Token
    token1: Token
    fee_pips: int
    tick_spacing: int
    base_is_token0: bool
    """True where token0 is the volatile asset and token1 the unit of account (the quote)."""

    @property
    def base(self) -> Token:
        return self.token0 if self.base_is_token0 else self.token1

    @property
    def quote(self) -> Token:
        return self.token1 if self.base_is_token0 else self.token0

    def price(self, sqrt_price_x96: int) -> float:
        """Quote per base in whole units, from the pool's sqrt(token1/token0) in Q64.96."""
        raw = (sqrt_price_x96 / 2**96) ** 2
        if self.base_is_token0:
            return float(raw * 10 ** (self.token0.decimals - self.token1.decimals))
        return float(10 ** (self.token1.decimals - self.token0.decimals) / raw)
