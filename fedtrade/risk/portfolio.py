"""What the agent is worth, how far it has fallen, and where the difference comes from.

Everything is in whole units of the quote, valued at the pool's price p: the tokens in the account,
the tokens inside each liquidity position (exact, from the replica), and its uncollected fees.

    equity   = base · p + quote + Σ V(position) + Σ fees
    drawdown = 1 − equity / max over time of equity
    LVR     += x(p₀)·(p₁ − p₀) − (V(p₁) − V(p₀))     from head to head, at unchanged liquidity

The last line is loss-versus-rebalancing in discrete time (Milionis, Moallemi, Roughgarden, Zhang,
arXiv 2208.06046): what a portfolio that held the position's base amount x earned, and the position
did not. V is concave in p, so the sum never falls.

Known gaps, not estimated: fees earned between the last head and the block that collects them go
into equity but not into `fees_quote`; gas is counted in wei, and in the quote only where the native
token's price is known.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fedtrade.market.instruments import PoolKey
from fedtrade.market.pool import amounts_for_liquidity
from fedtrade.market.world import World

Place = tuple[int, int, int]
"""Token id and liquidity identify a position that has not been touched; with its lower tick."""


@dataclass(frozen=True, slots=True)
class Valuation:
    """The account at one head, in whole units."""

    price: float
    base: float
    """Volatile asset outside of positions."""
    quote: float
    """Quote outside of positions."""
    position_base: float
    """Volatile asset inside of positions."""
    position_quote: float
    """Value of the positions without fees, in the quote."""
    fees: tuple[tuple[int, float], ...]
    """Uncollected fees by token id, in the quote."""
    places: tuple[Place, ...]

    @property
    def fees_quote(self) -> float:
        return sum(fee for _, fee in self.fees)

    @property
    def equity_quote(self) -> float:
        return self.base * self.price + self.quote + self.position_quote + self.fees_quote


def value(world: World) -> Valuation:
    """Value the account at the world's head. Raises the world's Stale where it cannot be known."""
    pool, holdings, key, price = world.pool, world.holdings, world.key, world.price
    position_base = position_quote = 0.0
    fees = []
    for held in holdings.positions:
        amounts = amounts_for_liquidity(
            pool.sqrt_price_x96, held.tick_lower, held.tick_upper, held.liquidity, False
        )
        base, quote = whole(key, *amounts)
        position_base += base
        position_quote += base * price + quote
        fee_base, fee_quote = whole(key, *world.owed(held))
        fees.append((held.token_id, fee_base * price + fee_quote))
    base, quote = whole(key, holdings.amount0, holdings.amount1)
    return Valuation(
        price,
        base,
        quote,
        position_base,
        position_quote,
        tuple(fees),
        tuple((p.token_id, p.liquidity, p.tick_lower) for p in holdings.positions),
    )


def whole(key: PoolKey, amount0: int, amount1: int) -> tuple[float, float]:
    """(base, quote) in whole units from the pool's (token0, token1) in smallest units."""
    one, two = amount0 / float(10**key.token0.decimals), amount1 / float(10**key.token1.decimals)
    return (one, two) if key.base_is_token0 else (two, one)


@dataclass(slots=True)
class Portfolio:
    """The account over time; `observe` is called once per head."""

    high_water_quote: float = 0.0
    """Highest equity seen; carried over restarts, so that a restart forgives no loss."""
    native_price_quote: float | None = None
    """Price of the native token, where somebody knows it."""
    first: Valuation | None = None
    last: Valuation | None = None
    fees_quote: float = 0.0
    lvr_quote: float = 0.0
    gas_wei: int = 0
    _fees: dict[int, float] = field(default_factory=dict)

    def observe(self, valuation: Valuation) -> None:
        """Take in the account at a new head."""
        before, self.last = self.last, valuation
        if self.first is None:
            self.first = valuation
        self.high_water_quote = max(self.high_water_quote, valuation.equity_quote)
        fees = dict(valuation.fees)
        for token_id, fee in fees.items():
            self.fees_quote += max(0.0, fee - self._fees.get(token_id, 0.0))
        self._fees = fees
        if before is not None and before.places == valuation.places:
            step = valuation.price - before.price
            gained = valuation.position_quote - before.position_quote
            self.lvr_quote += before.position_base * step - gained

    def settled(self, gas_wei: int) -> None:
        """Count the gas of an action that has ended."""
        self.gas_wei += gas_wei

    @property
    def equity_quote(self) -> float:
        """Worth of the account at the last head; 0 before the first."""
        return self.last.equity_quote if self.last is not None else 0.0

    @property
    def drawdown(self) -> float:
        """Fall from the high-water mark, 0..1; 0 where nothing was ever held."""
        if self.last is None or not self.high_water_quote > 0.0:
            return 0.0
        return 1.0 - self.last.equity_quote / self.high_water_quote

    @property
    def profit_quote(self) -> float:
        """Equity now less equity at the first head; gas is paid in another token and not in it."""
        if self.first is None or self.last is None:
            return 0.0
        return self.last.equity_quote - self.first.equity_quote

    @property
    def hold_quote(self) -> float:
        """What the first head's account would have made by lying still, in the quote."""
        if self.first is None or self.last is None:
            return 0.0
        base = self.first.base + self.first.position_base
        return base * (self.last.price - self.first.price)

    @property
    def gas_quote(self) -> float | None:
        """Gas paid, in the quote, or None where the native token has no known price."""
        if self.native_price_quote is None:
            return None
        return self.gas_wei / 1e18 * self.native_price_quote
