"""Where to provide liquidity, how wide, and when not to: pure functions of a forecast.

Write p for the price (quote per base), s2 for the forecast variance of log p per hour, D for the
notional traded in the pool per hour, f for its fee, L for our liquidity and Lo for everybody else's
at the price. A range of half width w in log price, centred on p, is worth

    V = 2 L sqrt(p) (1 - exp(-w/2)) = 2 L sqrt(p) / c        c(w) = 1 / (1 - exp(-w/2))

where c is its concentration: the full range (w infinite) has c = 1. Per hour and unit of value:

    fees(w)     = f D / V * L / (L + Lo)       our share of the fees; concave in our liquidity
    lvr(w)      = s2 / 8 * c(w)                loss-versus-rebalancing: L s2 sqrt(p) / 4, over V
    reranges(w) = (gas / V + k) s2 / w**2      leaving the range, once in w**2 / s2 hours

The last line is the mean exit time a b / s2 of Brownian motion from (-a, b). Each exit costs gas
and a swap of half of the position at k = (f + V / Vo) / 2: half the fee and half the price impact
against the others' depth Vo = 2 Lo sqrt(p). We take the width that maximises

    net(w) = fees(w) - lvr(w) - reranges(w)

on a fixed geometric grid of tick multiples. For small L and w it reads

    net(w) = 2 (F - s2 / 8) / w - K s2 / w**2,   F = f D / Vo,   hence w* = K s2 / (F - s2 / 8)

so the width grows with variance, and faster than it, until fees no longer cover the loss and the
answer is to withdraw. Fees and loss in 1/width against a concentration cost in 1/width**2 is the
shape of the closed form of Cartea, Drissi and Monga (arXiv 2309.08431); sharing, gas and impact are
why we search a grid and do not solve it. Loss-versus-rebalancing: Milionis, Moallemi, Roughgarden,
Zhang (arXiv 2208.06046).

No-trade region: over the horizon h a new range must earn, more than the present one, its gas, the
swap into it and a margin for the error of forecasts; entering must earn its gas; leaving must save
its gas. Consequences, each a test:
more variance never narrows a new range and never turns a refusal into a provision (net falls in s2,
the less the wider); more demand never turns a provision into a refusal.

What it leaves out: the drift of the price, depth that varies within the range, and that demand
which is arbitrage moves with variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, inf, isfinite, log, sqrt

from fedtrade.errors import BadInput
from fedtrade.market.instruments import PoolKey
from fedtrade.market.pool import Pool, amounts_for_liquidity
from fedtrade.market.tick_math import MAX_TICK, PIPS, Q96

LOG_TICK = log(1.0001)
_GROWTH = 1.15
"""Ratio of neighbouring widths of the grid, once it is wider than their spacing."""


@dataclass(frozen=True, slots=True)
class RangeLimits:
    """Bounds on what `decide_range` may answer."""

    half_width_min: float = 0.002
    """Narrowest half width, in log price."""
    half_width_max: float = 2.0
    """Widest half width, in log price."""
    lvr_multiple: float = 1.0
    """Loss-versus-rebalancing is counted this many times: above one asks for a margin of safety."""
    hysteresis: float = 0.1
    """A new range must be better by this part of the present net rate too, since forecasts err."""

    def __post_init__(self) -> None:
        ordered = 0 < self.half_width_min <= self.half_width_max < inf
        if not (ordered and 1 <= self.lvr_multiple < inf and 0 <= self.hysteresis < inf):
            raise BadInput(
                "range limits",
                f"{self} is not ordered, or counts less than all of the loss",
                "Give 0 < half_width_min <= half_width_max, lvr_multiple >= 1, hysteresis >= 0.",
            )


@dataclass(frozen=True, slots=True)
class RangeDecision:
    """Where to provide from now on; rates are per hour and unit of the position's value."""

    provide: bool
    tick_lower: int
    tick_upper: int
    """The range to hold; where `provide` is false, the best of those that do not pay."""
    expected_fee_rate: float
    expected_lvr_rate: float
    reason: str


@dataclass(frozen=True, slots=True)
class _Market:
    """What the rates depend on besides the range."""

    capital_quote: float
    variance_per_hour: float
    fees_per_hour: float
    """f D: all fees of the pool, in the quote."""
    others_quote: float
    """Vo: what the others' liquidity at the price would be worth as a full range."""
    gas_share: float
    """Gas of one change of range over the capital."""
    swap_share: float
    """k: cost of swapping half of the position, over the capital."""
    lvr_multiple: float


@dataclass(frozen=True, slots=True)
class _Rates:
    """Per hour and unit of value."""

    fees: float
    lvr: float
    reranges: float
    net: float


_IDLE = _Rates(0.0, 0.0, 0.0, 0.0)
"""Out of range a position earns nothing and loses nothing."""


def decide_range(
    pool: Pool,
    capital_quote: float,
    variance_per_hour: float,
    demand_quote_per_hour: float,
    gas_cost_quote: float,
    horizon_h: float,
    current: tuple[int, int] | None,
    limits: RangeLimits | None = None,
    own_liquidity: int | None = None,
) -> RangeDecision:
    """Decide the range for `capital_quote`, given the range held now (None: nothing is held).

    `gas_cost_quote` is the gas of a whole change of range, `horizon_h` the time in which a change
    must pay for itself. `own_liquidity` is what we hold in `current`; where it is not given it is
    taken to be worth the capital.
    """
    limits = limits or RangeLimits()
    _refuse_nonsense(
        {"capital_quote": capital_quote, "horizon_h": horizon_h},
        {
            "variance_per_hour": variance_per_hour,
            "demand_quote_per_hour": demand_quote_per_hour,
            "gas_cost_quote": gas_cost_quote,
        },
    )
    market = _read_market(
        pool,
        capital_quote,
        variance_per_hour,
        demand_quote_per_hour,
        gas_cost_quote,
        limits.lvr_multiple,
        _liquidity_of_others(pool, current, capital_quote, own_liquidity),
    )
    best, (lower, upper) = _best_range(pool, market, limits)
    gas_rate = market.gas_share / horizon_h
    if current is None:
        provide = best.net > gas_rate
        verdict = "enter" if provide else "stay out: it would not earn the gas of entering"
        return _decision(provide, (lower, upper), best, verdict)
    held, swap_part = _held_rates(pool, market, current)
    kept = held if held is not None and held.net >= -gas_rate else None
    change_rate = gas_rate + swap_part * market.swap_share / horizon_h
    present = kept.net + limits.hysteresis * abs(kept.net) if kept else 0.0
    if best.net > present + change_rate:
        return _decision(True, (lower, upper), best, "move: it earns the change back")
    if kept:
        return _decision(True, current, kept, "keep: no other range earns the change back")
    if held is None and best.net > 0:
        return _decision(True, current, _IDLE, "wait out of range: moving would not pay")
    return _decision(False, (lower, upper), best, "withdraw: fees do not cover the loss")


def _decision(provide: bool, ticks: tuple[int, int], rates: _Rates, verdict: str) -> RangeDecision:
    reason = (
        f"{verdict}; per hour {rates.fees:.4%} fees, {rates.lvr:.4%} loss-versus-rebalancing, "
        f"{rates.reranges:.4%} changes of range"
    )
    return RangeDecision(provide, *ticks, rates.fees, rates.lvr, reason)


def _refuse_nonsense(positive: dict[str, float], at_least_zero: dict[str, float]) -> None:
    for name, value in {**positive, **at_least_zero}.items():
        if not isfinite(value) or value < 0 or (name in positive and value == 0):
            kind = "positive" if name in positive else "zero or more"
            raise BadInput(name, f"{value} is no finite number, {kind}", "Check its source.")


def _read_market(
    pool: Pool,
    capital_quote: float,
    variance_per_hour: float,
    demand_quote_per_hour: float,
    gas_cost_quote: float,
    lvr_multiple: float,
    others: int,
) -> _Market:
    fee = pool.key.fee_pips / PIPS
    price = pool.key.price(pool.sqrt_price_x96)
    others_quote = 2 * whole_liquidity(pool.key, others) * sqrt(price)
    impact = min(capital_quote / others_quote, 1.0) if others_quote > 0 else 1.0
    return _Market(
        capital_quote=capital_quote,
        variance_per_hour=variance_per_hour,
        fees_per_hour=fee * demand_quote_per_hour,
        others_quote=others_quote,
        gas_share=gas_cost_quote / capital_quote,
        swap_share=(fee + impact) / 2,
        lvr_multiple=lvr_multiple,
    )


def _liquidity_of_others(
    pool: Pool, current: tuple[int, int] | None, capital_quote: float, own: int | None
) -> int:
    """Return the liquidity in force at the price without our own."""
    if current is None or not current[0] <= pool.tick < current[1]:
        return pool.liquidity
    if own is None:
        probe = Q96
        own = int(probe * (capital_quote / position_value_quote(pool, *current, probe)))
    return max(pool.liquidity - own, 0)


def _best_range(pool: Pool, market: _Market, limits: RangeLimits) -> tuple[_Rates, tuple[int, int]]:
    """Return the width of the grid with the highest net rate, the widest of equals."""
    spacing = pool.key.tick_spacing
    edge = MAX_TICK // spacing
    middle = round(2 * log(pool.sqrt_price_x96 / Q96) / LOG_TICK / spacing)
    best, chosen = None, 0
    for half in _grid(spacing, edge, limits):
        width = half * spacing * LOG_TICK
        concentration = 1 / (1 - exp(-width / 2))
        rates = _rates(market, concentration, width * width)
        if best is None or rates.net >= best.net:
            best, chosen = rates, half
    assert best is not None  # the grid is never empty
    lower = max(middle - chosen, -edge) * spacing
    upper = min(middle + chosen, edge) * spacing
    return best, (lower, upper)


def _grid(spacing: int, edge: int, limits: RangeLimits) -> list[int]:
    """Return half widths in tick spacings: every one at first, then growing geometrically."""
    unit = spacing * LOG_TICK
    half = min(max(-int(-limits.half_width_min // unit), 1), edge)
    widest = min(max(int(limits.half_width_max / unit), half), edge)
    halves = []
    while half < widest:
        halves.append(half)
        half = max(half + 1, int(half * _GROWTH))
    return [*halves, widest]


def _rates(market: _Market, concentration: float, exit_product: float) -> _Rates:
    """Return the rates of a range in force; `exit_product` is a b, the distances to its ends."""
    # V = capital, so L / (L + Lo) = c V / (c V + Vo).
    ours = concentration * market.capital_quote
    fees = market.fees_per_hour * concentration / (ours + market.others_quote)
    lvr = market.variance_per_hour / 8 * concentration
    cost = market.gas_share + market.swap_share
    reranges = cost * market.variance_per_hour / exit_product
    return _Rates(fees, lvr, reranges, fees - market.lvr_multiple * lvr - reranges)


def _held_rates(
    pool: Pool, market: _Market, current: tuple[int, int]
) -> tuple[_Rates | None, float]:
    """Return the rates of the present range, and how much of half of it a move would swap.

    Out of range there are no rates, and it is all in one token.
    """
    low, high = range_prices(pool.key, *current)
    price = pool.key.price(pool.sqrt_price_x96)
    below, above = log(price / low), log(high / price)
    if not current[0] <= pool.tick < current[1] or below <= 0 or above <= 0:
        return None, 1.0
    base, quote = range_holdings(price, low, high, 1.0)
    value = base * price + quote
    rates = _rates(market, 2 * sqrt(price) / value, below * above)
    return rates, abs(2 * base * price / value - 1)


# Values and loss-versus-rebalancing, in whole units.


def whole_liquidity(key: PoolKey, liquidity: int) -> float:
    """Return liquidity in whole units: base x and quote y of the full range have L = sqrt(x y)."""
    return liquidity / 10 ** ((key.token0.decimals + key.token1.decimals) / 2)


def range_prices(key: PoolKey, tick_lower: int, tick_upper: int) -> tuple[float, float]:
    """Return the ends of a range as prices (quote per base, whole units), the lower one first."""
    ends = [key.price(int(Q96 * exp(tick * LOG_TICK / 2))) for tick in (tick_lower, tick_upper)]
    return min(ends), max(ends)


def range_holdings(
    price: float, price_lower: float, price_upper: float, liquidity: float
) -> tuple[float, float]:
    """Return (base, quote) behind whole-unit liquidity in a price range."""
    root = sqrt(min(max(price, price_lower), price_upper))
    return liquidity * (1 / root - 1 / sqrt(price_upper)), liquidity * (root - sqrt(price_lower))


def position_value_quote(pool: Pool, tick_lower: int, tick_upper: int, liquidity: int) -> float:
    """Return what a burn of a position would give, without fees, in whole units of the quote."""
    amounts = amounts_for_liquidity(pool.sqrt_price_x96, tick_lower, tick_upper, liquidity, False)
    key = pool.key
    base, quote = amounts if key.base_is_token0 else amounts[::-1]
    price = key.price(pool.sqrt_price_x96)
    return float(base / 10**key.base.decimals * price + quote / 10**key.quote.decimals)


def full_range_value_path(prices: Sequence[float], value_quote: float) -> list[float]:
    """Return the value of a full-range position without fees along a path of prices.

    It begins at `value_quote` and goes as the square root of the price.
    """
    return [value_quote * sqrt(price / prices[0]) for price in prices]


def loss_versus_rebalancing(
    prices: Sequence[float], price_lower: float, price_upper: float, liquidity: float
) -> float:
    """Return what the portfolio that copies the position's base holdings earns more than it.

    The copy holds the position's base amount x(p) from each price to the next; the position trades
    along its curve at worse prices: sum of x(p0) (p1 - p0) - (V(p1) - V(p0)). Every term is >= 0,
    because V is concave with slope x. `liquidity` is in whole units, the result in the quote.
    """
    loss = 0.0
    for before, after in pairwise(prices):
        base0, quote0 = range_holdings(before, price_lower, price_upper, liquidity)
        base1, quote1 = range_holdings(after, price_lower, price_upper, liquidity)
        # x0 (p1 - p0) - (x1 p1 + y1 - x0 p0 - y0), without the terms that cancel
        loss += (base0 - base1) * after - (quote1 - quote0)
    return loss
