"""Simulated private positions over real prices: a stand-in, since no real book can be published.

A position is simulated; the prices that it meets are the recorded ones of its venue. Four styles of
trading (round figures, chosen to differ, fitted to nobody):

| style | opens | side | holding (median) | leverage |
|---|---|---|---|---|
| `market_maker` | at any hour | either | 2 h | 1–3 |
| `directional` | at any hour | with the week's trend, 65 % | 30 h | 2–5 |
| `hedger` | in hours of high variance | short | 72 h | 1–2 |
| `momentum` | after large daily moves | with the day's move, 85 % | 10 h | 5–20 |

Opening hours are drawn from a style's weights over the hours before them, entry is uniform in the
recorded range of the hour, holding times and sizes are log-normal, and a position ends early at the
first hour whose recorded range reaches its liquidation price. What is still open at the end of the
period stays open. The style decides *which* hours a member has seen and from which side; it adds no
knowledge of the future, and the targets stay the recorded ones. So a gain measured with these
positions is the gain from pooling markets and hours, and says nothing on what private positions
reveal.

Deterministic: the same seed, member and candles give the same positions (numpy PCG64).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedtrade.learning.features import parkinson_variance
from fedtrade.learning.positions import COLUMNS, STILL_OPEN, Positions
from fedtrade.learning.tables import HOUR_S, TRAIN_UNTIL_S, Candles
from fedtrade.learning.windows import MAINTENANCE_MARGIN

STANDIN = "positions simulated over real prices (fedtrade.simulation.positions)"
SIMULATED_FROM_S = 1_741_824_000
"""2025-03-13 00:00 UTC: a week of candles lies before it."""
MIN_POSITIONS, MAX_POSITIONS = 1_500, 2_500
MEDIAN_NOTIONAL_USD = 20_000.0

StyleName = Literal["market_maker", "directional", "hedger", "momentum"]
Floats = NDArray[np.float64]
_Random = np.random.Generator


@dataclass(frozen=True, slots=True)
class SimulatedMember:
    """Who trades what, where and how."""

    name: str
    venue: str
    style: StyleName
    symbols: tuple[str, ...]


CONSORTIUM = (
    SimulatedMember("alder", "binance", "market_maker", ("BTC", "ETH")),
    SimulatedMember("beech", "binance", "directional", ("ETH", "SOL")),
    SimulatedMember("clover", "binance", "hedger", ("BTC",)),
    SimulatedMember("dogwood", "bybit", "momentum", ("SOL", "HYPE")),
    SimulatedMember("elm", "bybit", "market_maker", ("ETH", "SOL", "HYPE")),
    SimulatedMember("fern", "bybit", "hedger", ("ETH",)),
    SimulatedMember("gorse", "hyperliquid", "momentum", ("BTC", "ETH", "SOL")),
    SimulatedMember("hazel", "hyperliquid", "directional", ("HYPE", "SOL")),
)
"""The demonstration's members: eight invented parties on three venues."""


@dataclass(frozen=True, slots=True)
class _Style:
    holding_h: float
    holding_spread: float
    """Deviation of the log holding time."""
    leverage: tuple[float, float]
    agreement: float
    """Probability of taking the side of the trend; the hedger's trend is always short."""


_STYLES: Mapping[StyleName, _Style] = {
    "market_maker": _Style(2.0, 1.0, (1.0, 3.0), 0.5),
    "directional": _Style(30.0, 0.9, (2.0, 5.0), 0.65),
    "hedger": _Style(72.0, 0.7, (1.0, 2.0), 1.0),
    "momentum": _Style(10.0, 0.9, (5.0, 20.0), 0.85),
}


def simulate_positions(
    member: SimulatedMember,
    candles: Mapping[tuple[str, str], Candles],
    seed: int,
    from_s: int = SIMULATED_FROM_S,
    until_s: int = TRAIN_UNTIL_S,
) -> Positions:
    """A member's positions over the recorded prices of [from_s, until_s), in order of opening."""
    draw = np.random.Generator(np.random.PCG64([seed, *member.name.encode()]))
    count = int(draw.integers(MIN_POSITIONS, MAX_POSITIONS + 1))
    shares = draw.dirichlet(np.full(len(member.symbols), 8.0))
    per_symbol = draw.multinomial(count, shares)
    rows: list[_Row] = []
    for symbol, number in zip(member.symbols, per_symbol.tolist(), strict=True):
        market = candles[member.venue, symbol].between(0, until_s)
        rows += _simulate_market(member, market, number, draw, from_s, until_s)
    rows.sort(key=lambda row: (row.opened_s, row.symbol, row.entry_price))
    return Positions(
        tuple(f"sim-{member.name}-{i:05d}" for i in range(1, len(rows) + 1)),
        tuple(member.venue for _ in rows),
        tuple(row.symbol for row in rows),
        np.array([row.side for row in rows], np.int8),
        np.array([row.opened_s for row in rows], np.int64),
        np.array([row.closed_s for row in rows], np.int64),
        np.array([row.entry_price for row in rows]),
        np.array([row.quantity_base for row in rows]),
        np.array([row.leverage for row in rows]),
    )


def csv_text(positions: Positions) -> str:
    """The positions as a member's CSV file (schema v1 of `fedtrade.learning.positions`)."""
    lines = [",".join(COLUMNS)]
    for i, name in enumerate(positions.position_id):
        closed_s = int(positions.closed_s[i])
        cells = (
            name,
            positions.venue[i],
            positions.symbol[i],
            "long" if positions.side[i] > 0 else "short",
            _iso(int(positions.opened_s[i])),
            "" if closed_s == STILL_OPEN else _iso(closed_s),
            f"{positions.entry_price[i]:.10g}",
            f"{positions.quantity_base[i]:.10g}",
            f"{positions.leverage[i]:.10g}",
        )
        lines.append(",".join(cells))
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class _Row:
    symbol: str
    side: int
    opened_s: int
    closed_s: int
    entry_price: float
    quantity_base: float
    leverage: float


def _simulate_market(
    member: SimulatedMember, market: Candles, count: int, draw: _Random, from_s: int, until_s: int
) -> list[_Row]:
    style = _STYLES[member.style]
    hours = np.flatnonzero(market.start_s >= from_s)
    weights, trend = _appetite(member.style, market, hours)
    opening = draw.choice(len(hours), size=count, p=weights / weights.sum())
    rows = []
    for pick in opening.tolist():
        h = int(hours[pick])
        with_trend = draw.random() < style.agreement
        side = int(trend[pick]) if with_trend else -int(trend[pick])
        low, high = float(market.low[h]), float(market.high[h])
        entry = low + float(draw.random()) * (high - low)
        leverage = round(float(draw.uniform(*style.leverage)), 1)
        opened_s = int(market.start_s[h]) + int(draw.integers(HOUR_S))
        holding_h = style.holding_h * float(np.exp(style.holding_spread * draw.standard_normal()))
        closed_s = opened_s + max(60, int(holding_h * HOUR_S))
        notional = MEDIAN_NOTIONAL_USD * float(np.exp(1.0 * draw.standard_normal()))
        liquidated_s = _liquidation(market, h, side, entry, leverage, int(draw.integers(HOUR_S)))
        closed_s = min(closed_s, liquidated_s) if liquidated_s is not None else closed_s
        quantity = float(f"{notional / entry:.6g}")
        ending = STILL_OPEN if closed_s >= until_s else closed_s
        rows.append(
            _Row(market.symbol, side, opened_s, ending, float(f"{entry:.8g}"), quantity, leverage)
        )
    return rows


def _appetite(
    style: StyleName, market: Candles, hours: NDArray[np.intp]
) -> tuple[Floats, NDArray[np.int8]]:
    """Weight of opening in each hour, and the side of the trend, from the hours before it."""
    log_close = np.log(market.close)
    span = {"directional": 168, "momentum": 24}.get(style, 24)
    before = np.maximum(hours - 1, 0)
    move = log_close[before] - log_close[np.maximum(before - span, 0)]
    trend = np.where(move >= 0, 1, -1).astype(np.int8)
    if style == "hedger":
        variance = parkinson_variance(market.high, market.low)
        total = np.concatenate([[0.0], np.cumsum(variance)])
        recent = total[hours] - total[np.maximum(hours - 24, 0)]
        return recent, np.full(len(hours), -1, np.int8)
    if style == "momentum":
        return np.abs(move) + 1e-4, trend
    return np.ones(len(hours)), trend


def _liquidation(
    market: Candles, opening: int, side: int, entry: float, leverage: float, second: int
) -> int | None:
    """When the recorded range first reaches the liquidation price after the opening hour."""
    price = entry * (1.0 - side * (1.0 / leverage - MAINTENANCE_MARGIN))
    after = slice(opening + 1, opening + 1 + 30 * 24)
    hit = market.low[after] <= price if side > 0 else market.high[after] >= price
    first = int(hit.argmax()) if hit.any() else None
    return None if first is None else int(market.start_s[after][first]) + second


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
