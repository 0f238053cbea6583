"""A member's positions out of chain logs: Uniswap v3, Perp v2 and Aave v3 accounts.

Every importer takes logs as `eth_getLogs` gives them, with the time of their block in
`blockTimestamp` (many nodes add it), in any order, and gives lifecycles: the rows of the file of
positions (`learning.positions`, schema v1). What a log cannot say is said by the caller: which
market's public candles a token is read against, and its decimals. All bad logs are found, and one
error lists them by row.

Public interfaces: Uniswap v3 core 1.0.1 and periphery 1.4.4, Perp Curie (v2) `IClearingHouse` and
`IVault`, Aave v3 `IPool`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeVar

import polars as pl

from fedtrade.errors import BadInput
from fedtrade.learning.positions import MAX_LEVERAGE, MAX_LISTED, STILL_OPEN
from fedtrade.market.events import LiquidityChanged, Swapped
from fedtrade.market.instruments import PoolKey
from fedtrade.market.tick_math import sqrt_ratio_at_tick
from fedtrade.venues import uniswap_v3
from fedtrade.venues.codec import AnswerUnreadable, LogShape, LogUnreadable, index, place_of

Market = tuple[str, str]
Log = Mapping[str, Any]
T = TypeVar("T")

INCREASED: Final = LogShape(
    "IncreaseLiquidity(uint256,uint128,uint256,uint256)", "(uint256)", "(uint128,uint256,uint256)"
)
DECREASED: Final = LogShape(
    "DecreaseLiquidity(uint256,uint128,uint256,uint256)", "(uint256)", "(uint128,uint256,uint256)"
)
POSITION_CHANGED: Final = LogShape(
    "PositionChanged(address,address,int256,int256,uint256,int256,int256,uint256)",
    "(address,address)",
    "(int256,int256,uint256,int256,int256,uint256)",
)
DEPOSITED: Final = LogShape("Deposited(address,address,uint256)", "(address,address)", "(uint256)")
WITHDRAWN: Final = LogShape("Withdrawn(address,address,uint256)", "(address,address)", "(uint256)")
SUPPLY: Final = LogShape(
    "Supply(address,address,address,uint256,uint16)",
    "(address,address,uint16)",
    "(address,uint256)",
)
WITHDRAW: Final = LogShape(
    "Withdraw(address,address,address,uint256)", "(address,address,address)", "(uint256)"
)
BORROW: Final = LogShape(
    "Borrow(address,address,address,uint256,uint8,uint256,uint16)",
    "(address,address,uint16)",
    "(address,uint256,uint8,uint256)",
)
REPAY: Final = LogShape(
    "Repay(address,address,address,uint256,bool)", "(address,address,address)", "(uint256,bool)"
)
LIQUIDATION: Final = LogShape(
    "LiquidationCall(address,address,address,uint256,uint256,address,bool)",
    "(address,address,address)",
    "(uint256,uint256,address,bool)",
)
_E18: Final = 10**18
_DUST: Final = 1e-6
"""Debt below this share of the largest that an account had counts as repaid: interest rounds."""


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """One position from its opening to its close: a row of the file of positions."""

    position_id: str
    market: Market
    side: int
    opened_s: int
    closed_s: int
    """Or STILL_OPEN."""
    entry_price: float
    quantity_base: float
    """The largest size that it had."""
    leverage: float


@dataclass(frozen=True, slots=True)
class AaveAsset:
    """A reserve: its decimals, and the market that prices it; None for a coin worth one dollar."""

    decimals: int
    market: Market | None


@dataclass(slots=True)
class LiquidityLife:
    """The liquidity of one position in one pool, from its first mint to the burn of its last."""

    key: str
    tick_lower: int
    tick_upper: int
    opened_s: int
    closed_s: int = STILL_OPEN
    liquidity: int = 0
    peak: int = 0


class Shrunk(BadInput):
    """A position gives more than it has: the logs before it are missing."""


def liquidity_lives(changes: Iterable[tuple[int, str, LiquidityChanged]]) -> list[LiquidityLife]:
    """Lifecycles from (time, position, change) in chain order; a reopened position is a new one.

    Raises Shrunk where a position would have less than nothing: its first logs are missing.
    """
    lives: list[LiquidityLife] = []
    current: dict[tuple[str, int, int], LiquidityLife] = {}
    for at_s, owner, change in changes:
        key = (owner, change.tick_lower, change.tick_upper)
        life = current.get(key)
        if life is None:
            life = LiquidityLife(owner, change.tick_lower, change.tick_upper, at_s)
            current[key] = life
            lives.append(life)
        life.liquidity += change.liquidity_delta
        if life.liquidity < 0:
            raise Shrunk(
                f"block {change.block}, log {change.log_index}",
                "a position gives more liquidity than it was given",
                "Take the logs from the pool's first block on.",
            )
        life.peak = max(life.peak, life.liquidity)
        if life.liquidity == 0:
            life.closed_s = at_s
            del current[key]
    return lives


def uniswap_v3_positions(
    logs: Sequence[Log], key: PoolKey, market: Market, owners: Collection[str] | None = None
) -> list[Lifecycle]:
    """Lifecycles of the liquidity positions of one pool.

    `logs`: of the pool and of the position manager (whose logs name the token of what the manager
    holds: they follow the pool's in the same transaction). `owners`: token id or address to keep,
    all where None. A position counts as long its base coin, without borrowing, at the pool's price
    when it was opened: the last swap's, or what the first mint's two amounts tell.
    """
    rows = _Rows(logs)
    changes: list[tuple[int, str, LiquidityChanged]] = []
    price_at: dict[int, int] = {}
    sqrt_price, waiting = 0, -1
    for row, at_s, log in rows.ordered:
        token = rows.read(row, _token_of, log)
        if token is not None:
            number, delta = token
            if waiting >= 0 and changes[waiting][2].liquidity_delta == delta:
                then_s, _, change = changes[waiting]
                changes[waiting] = (then_s, f"token-{number}", change)
            waiting = -1
            continue
        event = rows.read(row, uniswap_v3.decode, log)
        if isinstance(event, Swapped):
            sqrt_price = event.sqrt_price_x96
        elif event is not None:
            waiting = len(changes)
            price_at[waiting] = sqrt_price or _implied_sqrt_price(event)
            changes.append((at_s, event.owner, event))
    rows.refuse()
    kept = [
        (i, change) for i, change in enumerate(changes) if owners is None or change[1] in owners
    ]
    lives = liquidity_lives(change for _, change in kept)
    opened = {}
    for i, (at_s, owner, change) in reversed(kept):
        opened[owner, change.tick_lower, change.tick_upper, at_s] = price_at[i]
    found = []
    for n, life in enumerate(lives):
        sqrt_at = opened[life.key, life.tick_lower, life.tick_upper, life.opened_s]
        price = key.price(sqrt_at)
        amounts = _amounts(sqrt_at, life)
        whole = [a / 10**t.decimals for a, t in zip(amounts, (key.token0, key.token1), strict=True)]
        base, quote = whole if key.base_is_token0 else whole[::-1]
        found.append(
            Lifecycle(
                f"{life.key}:{life.tick_lower}:{life.tick_upper}:{n}"[-64:],
                market,
                1,
                life.opened_s,
                life.closed_s,
                price,
                base + quote / price,
                1.0,
            )
        )
    return found


def perp_v2_positions(
    logs: Sequence[Log],
    trader: str,
    markets: Mapping[str, Market],
    collateral_decimals: Mapping[str, int],
) -> list[Lifecycle]:
    """Lifecycles of one trader's perpetual positions on Perp v2.

    `logs`: PositionChanged of the clearing house, Deposited and Withdrawn of the vault, from the
    account's first deposit on. `markets`: base token to market; `collateral_decimals`: collateral
    token, worth one dollar, to decimals. A position through zero closes one life and opens another.
    Leverage is open notional over collateral with what was realised, where it was highest.
    """
    rows = _Rows(logs)
    markets = {a.lower(): m for a, m in markets.items()}
    decimals = {a.lower(): d for a, d in collateral_decimals.items()}
    balance, lives = 0.0, _Lives()
    for row, at_s, log in rows.ordered:
        for shape, sign in ((DEPOSITED, 1), (WITHDRAWN, -1)):
            if shape.matches(log):
                read = rows.read(row, shape.decode, log)
                if read is None or read[0][1].lower() != trader.lower():
                    continue
                if read[0][0].lower() not in decimals:
                    rows.add(row, "its collateral token's decimals are not given")
                    continue
                balance += sign * read[1][0] / 10 ** decimals[read[0][0].lower()]
        if not POSITION_CHANGED.matches(log):
            continue
        read = rows.read(row, POSITION_CHANGED.decode, log)
        if read is None or read[0][0].lower() != trader.lower():
            continue
        token, (size, notional, _, open_notional, realised, _) = read[0][1].lower(), read[1]
        market = markets.get(token)
        if market is None or size == 0:
            rows.add(row, "its base token's market is not given" if size else "it changes nothing")
            continue
        balance += realised / _E18
        equity = max(balance, 1e-9)
        leverage = abs(open_notional) / _E18 / equity
        lives.change(token, market, at_s, size / _E18, abs(notional / size), leverage)
    rows.refuse()
    return lives.done


def aave_positions(
    logs: Sequence[Log],
    account: str,
    assets: Mapping[str, AaveAsset],
    price: Callable[[Market, int], float],
) -> list[Lifecycle]:
    """Lifecycles of one account's borrowing on Aave v3, from its first deposit on.

    A life lasts from the first debt to its repayment. Its market is that of the coin with the
    largest net worth (supplied less owed) when it opens, its side the sign of that, its leverage
    what is supplied over what is left after the debt. `price`: USD of a market's coin at a time.
    Interest is not in the logs: debts and deposits count as what was moved, and what is repaid over
    a debt closes it.
    """
    rows = _Rows(logs)
    known = {a.lower(): asset for a, asset in assets.items()}
    held: dict[str, float] = {}
    owed: dict[str, float] = {}
    most_owed = 0.0
    life: Lifecycle | None = None
    done: list[Lifecycle] = []
    for row, at_s, log in rows.ordered:
        moves = rows.read(row, partial(_aave_moves, account.lower()), log)
        for token, supplied, borrowed in moves or ():
            if token not in known:
                rows.add(row, "its reserve is not given")
                continue
            unit = 10 ** known[token].decimals
            held[token] = max(held.get(token, 0.0) + supplied / unit, 0.0)
            owed[token] = max(owed.get(token, 0.0) + borrowed / unit, 0.0)
        if not moves or rows.problems:
            continue
        usd = {t: 1.0 if (m := known[t].market) is None else price(m, at_s) for t in held}
        debt = sum(owed[t] * usd[t] for t in owed)
        most_owed = max(most_owed, debt)
        if life is None and debt > 0:
            life = _aave_life(f"{account[:42]}:{len(done)}", at_s, held, owed, usd, known)
            if life is None:
                rows.add(row, "it borrows against what has no market, or against nothing")
        if life is not None:
            token = next(t for t, a in known.items() if a.market == life.market and t in held)
            size = abs(held[token] - owed[token])
            life = replace(life, quantity_base=max(size, life.quantity_base))
            if debt <= _DUST * most_owed:
                done.append(replace(life, closed_s=at_s))
                life, most_owed = None, 0.0
    rows.refuse()
    return done if life is None else [*done, life]


def as_table(lifecycles: Iterable[Lifecycle]) -> pl.DataFrame:
    """The file of positions (schema v1) that `learning.positions.read_positions` takes."""
    return pl.DataFrame(
        [
            {
                "position_id": life.position_id,
                "venue": life.market[0],
                "symbol": life.market[1],
                "side": "long" if life.side > 0 else "short",
                "opened_at": str(life.opened_s),
                "closed_at": "" if life.closed_s == STILL_OPEN else str(life.closed_s),
                "entry_price": repr(life.entry_price),
                "quantity_base": repr(life.quantity_base),
                "leverage": repr(min(max(life.leverage, 1.0), MAX_LEVERAGE)),
            }
            for life in lifecycles
        ]
    )


# -- parts --------------------------------------------------------------------------------------


class _Rows:
    """The logs in chain order with their row (from 1) and time, and what is wrong with them."""

    def __init__(self, logs: Sequence[Log]) -> None:
        self.problems: dict[int, str] = {}
        placed = []
        for row, log in enumerate(logs, 1):
            place = self.read(row, _place, log)
            if place is not None and not log.get("removed", False):
                placed.append((*place, row, log))
        placed.sort(key=lambda p: p[0])
        single = {at: (row, at_s, log) for at, at_s, row, log in placed}
        self.ordered: list[tuple[int, int, Log]] = list(single.values())
        """(row, time, log); a log that is there twice counts once."""

    def add(self, row: int, problem: str) -> None:
        self.problems.setdefault(row, problem)

    def read(self, row: int, decode: Callable[[Log], T], log: Log) -> T | None:
        """What a log says; where it cannot be read its row is bad, and None stands in."""
        try:
            return decode(log)
        except (AnswerUnreadable, LogUnreadable, KeyError, TypeError) as error:
            missing = f"no {error}" if isinstance(error, KeyError) else str(error)
            self.add(row, missing)
            return None

    def refuse(self) -> None:
        if not self.problems:
            return
        listed = [f"row {row}: {text}" for row, text in sorted(self.problems.items())]
        more = f"; and {len(listed) - MAX_LISTED} more" if len(listed) > MAX_LISTED else ""
        remedy = "Nothing was taken; correct the logs and repeat."
        raise BadInput("logs", "; ".join(listed[:MAX_LISTED]) + more, remedy)


class _Lives:
    """Signed sizes by instrument, as lifecycles: opened from zero, closed at zero or through it."""

    def __init__(self) -> None:
        self.done: list[Lifecycle] = []
        self._size: dict[str, float] = {}
        self._open: dict[str, int] = {}

    def change(
        self, key: str, market: Market, at_s: int, delta: float, price: float, leverage: float
    ) -> None:
        """Take a trade; `done` holds every life, those still open with STILL_OPEN."""
        before = self._size.get(key, 0.0)
        after = before + delta
        if abs(after) <= _DUST * max(abs(before), abs(delta)):
            after = 0.0
        if before and (after == 0.0 or (after > 0) != (before > 0)):
            at = self._open.pop(key)
            self.done[at] = replace(self.done[at], closed_s=at_s)
        self._size[key] = after
        if after == 0.0:
            return
        side = 1 if after > 0 else -1
        if key not in self._open:
            self._open[key] = len(self.done)
            name = f"{key[:42]}:{len(self.done)}"
            life = Lifecycle(name, market, side, at_s, STILL_OPEN, price, abs(after), leverage)
            self.done.append(life)
            return
        at = self._open[key]
        life = self.done[at]
        if abs(after) > abs(before):  # the entry price is the mean of what was bought
            entry = (life.entry_price * abs(before) + price * abs(delta)) / abs(after)
            life = replace(life, entry_price=entry)
        self.done[at] = replace(
            life,
            quantity_base=max(life.quantity_base, abs(after)),
            leverage=max(life.leverage, leverage),
        )


def _place(log: Log) -> tuple[tuple[int, int], int]:
    block, log_index, _ = place_of(log)
    return (block, log_index), index(log["blockTimestamp"])


def _token_of(log: Log) -> tuple[int, int] | None:
    """(token id, change of liquidity) of a log of the position manager; None for other logs."""
    for shape, sign in ((INCREASED, 1), (DECREASED, -1)):
        if shape.matches(log):
            (token,), (liquidity, _, _) = shape.decode(log)
            return int(token), sign * int(liquidity)
    return None


def _implied_sqrt_price(change: LiquidityChanged) -> int:
    """The price at which a change of liquidity took its two amounts (white paper, 6.29 and 6.30)."""
    lower, upper = (sqrt_ratio_at_tick(t) for t in (change.tick_lower, change.tick_upper))
    if change.amount1 == 0:
        return lower
    if change.amount0 == 0:
        return upper
    return min(max(lower + (change.amount1 << 96) // abs(change.liquidity_delta), lower), upper)


def _amounts(sqrt_price: int, life: LiquidityLife) -> tuple[float, float]:
    """What the peak liquidity of a life is made of at a price, in the tokens' smallest units."""
    lower, upper = (sqrt_ratio_at_tick(t) for t in (life.tick_lower, life.tick_upper))
    here = min(max(sqrt_price, lower), upper)
    amount0 = life.peak * 2.0**96 * (upper - here) / (float(here) * upper)
    return amount0, life.peak * (here - lower) / 2.0**96


def _aave_moves(account: str, log: Log) -> list[tuple[str, int, int]]:
    """(reserve, change of what is supplied, change of what is owed) of one account in one log."""
    if SUPPLY.matches(log):
        (reserve, holder, _), (_, amount) = SUPPLY.decode(log)
        moves = [(holder, reserve, amount, 0)]
    elif WITHDRAW.matches(log):
        (reserve, holder, _), (amount,) = WITHDRAW.decode(log)
        moves = [(holder, reserve, -amount, 0)]
    elif BORROW.matches(log):
        (reserve, holder, _), (_, amount, _, _) = BORROW.decode(log)
        moves = [(holder, reserve, 0, amount)]
    elif REPAY.matches(log):
        (reserve, holder, _), (amount, from_supplied) = REPAY.decode(log)
        moves = [(holder, reserve, -amount if from_supplied else 0, -amount)]
    elif LIQUIDATION.matches(log):
        (collateral, debt, holder), (covered, taken, _, _) = LIQUIDATION.decode(log)
        moves = [(holder, collateral, -taken, 0), (holder, debt, 0, -covered)]
    else:
        return []
    return [(r.lower(), s, b) for holder, r, s, b in moves if holder.lower() == account]


def _aave_life(
    name: str,
    at_s: int,
    held: Mapping[str, float],
    owed: Mapping[str, float],
    usd: Mapping[str, float],
    assets: Mapping[str, AaveAsset],
) -> Lifecycle | None:
    net = {t: held[t] - owed[t] for t in held if assets[t].market is not None}
    supplied = sum(held[t] * usd[t] for t in held)
    equity = supplied - sum(owed[t] * usd[t] for t in owed)
    token = max(net, key=lambda t: abs(net[t]) * usd[t], default=None)
    market = assets[token].market if token is not None else None
    if token is None or market is None or net[token] == 0 or equity <= 0:
        return None
    side = 1 if net[token] > 0 else -1
    size, leverage = abs(net[token]), supplied / equity
    return Lifecycle(name, market, side, at_s, STILL_OPEN, usd[token], size, leverage)
