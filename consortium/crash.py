"""The market of the rehearsal: a recorded price path played on the local chains, minute by minute.

On each chain and in each minute, in one block:

* An arbitrageur takes the pool along the recorded minute: open, then low and high (low first if the
  minute closed up), then close. It trades as long as it earns, so the pool ends within the fee of
  each price: selling base pays down to true / (1 − fee), buying up to true · (1 − fee).
* Noise traders trade in between: a stated share of the minute's recorded notional, cut into a few
  swaps of random sizes and directions.
* The operator of the price feed pushes the minute's close when it is off the last answer by more
  than the deviation, or when the last answer is as old as the heartbeat.

Then one block is mined with the time of the minute's last second. Transactions of others that wait
are mined in it too, behind the market's own (an arbitrageur outbids everybody), which is pessimistic
for them; `include` mines them alone and earlier.

The market's accounts are unlocked and never run out; their gas is not accounted. Randomness is
numpy's PCG64, one stream per chain, so a seed gives the same orders again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from fedtrade.chain.conversation import ask, read, view_call
from fedtrade.chain.deployment import ChainDeployment, Deployment
from fedtrade.chain.rpc import Rpc, RpcCall, from_hex
from fedtrade.devnet.accounts import ARBITRAGEUR, NOISE_TRADER, OPERATOR, STATIC_LP
from fedtrade.errors import BadInput
from fedtrade.learning.tables import Candles
from fedtrade.market.tick_math import price_after_input
from fedtrade.venues.codec import Call, quantity
from fedtrade.venues.price_feed import encode_push
from fedtrade.venues.uniswap_v3 import (
    COLLECT,
    LIQUIDITY,
    MULTICALL,
    POSITIONS,
    SLOT0,
    TOKEN_OF_OWNER,
    encode_provide,
    encode_removal,
    encode_swap,
    full_range,
    sqrt_price_x96,
)

MINUTE_S: Final = 60
BLOCK_OFFSET_S: Final = 59
"""The market's block is the last of its minute: its swaps belong to the minute's bar."""

SWAP_GAS: Final = 1_500_000
PUSH_GAS: Final = 150_000
MAX_FEE_WEI: Final = 5_000 * 10**9
TIP_WEI: Final = 100 * 10**9
"""Tip of the market's first transaction in a block; each later one offers a wei less, which fixes
their order across accounts."""

UNBOUNDED: Final = 2**120
"""What the arbitrageur offers; the price limit says how much of it is taken."""


@dataclass(frozen=True, slots=True)
class MarketSettings:
    """How the recorded market is scaled to the local pools."""

    volume_scale: float = 0.001
    """Share of the recorded notional that noise traders trade."""
    noise_swaps: float = 3.0
    """Mean number of their swaps in a minute (Poisson)."""
    feed_deviation: float = 0.001
    feed_heartbeat_s: int = 600
    base_fee_wei: int = 2 * 10**9
    """Base fee of every block."""


@dataclass(frozen=True, slots=True)
class MinutePlayed:
    """What happened on one chain in one minute. Prices are quote per base, volumes in quote."""

    chain: str
    start_s: int
    block: int
    true_price: float
    """The recorded close."""
    pool_price: float
    noise_quote: float
    noise_swaps: int
    arbitrage_swaps: int
    feed_pushed: bool


@dataclass(frozen=True, slots=True)
class Amounts:
    """Base and quote in whole units."""

    base: float
    quote: float

    def value(self, price: float) -> float:
        """Worth in quote."""
        return self.base * price + self.quote


class Market:
    """The recorded minutes, played on all chains at once. Use as a context manager.

    While it is open, blocks are made by it and nobody else.
    """

    def __init__(
        self,
        deployment: Deployment,
        minutes: Mapping[str, Candles],
        seed: int,
        settings: MarketSettings = MarketSettings(),
    ) -> None:
        self.minutes = _checked(deployment, minutes)
        self.played = 0
        self._venues = {
            chain.name: _Venue(chain, minutes[chain.name], seed, settings)
            for chain in deployment.chains
        }
        self._pool = ThreadPoolExecutor(len(self._venues), thread_name_prefix="market")

    def __enter__(self) -> Self:
        try:
            for venue in self._venues.values():
                venue.own_time()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for venue in self._venues.values():
            venue.release_time()
        self._pool.shutdown()

    @property
    def now_s(self) -> int:
        """Start of the next minute to be played."""
        return int(self.minutes[min(self.played, len(self.minutes) - 1)])

    def open_static(self, capital_quote: float) -> dict[str, Amounts]:
        """Mint a full-range position of this worth on each chain; gives what went into each.

        Half of it in each token at the pool's price, by the static LP's account: the baseline that
        never acts. The returned amounts are the baseline that only holds.
        """
        return {
            name: venue.open_static(capital_quote, self.now_s)
            for name, venue in self._venues.items()
        }

    def static(self, chain: str) -> Amounts:
        """What the static position would pay out now, fees included (asked of the chain)."""
        return self._venues[chain].static()

    def include(self, offset_s: int = 12) -> None:
        """Mine what waits, on every chain, this long into the coming minute and before its market."""
        at_s = self.now_s + offset_s
        list(self._pool.map(lambda venue: venue.mine(at_s), self._venues.values()))

    def step(self) -> dict[str, MinutePlayed]:
        """Play the next minute on every chain."""
        if self.played >= len(self.minutes):
            raise BadInput("market", "all its minutes are played", "Make a new one.")
        number = self.played
        done = self._pool.map(lambda venue: venue.play(number), self._venues.values())
        self.played += 1
        return {minute.chain: minute for minute in done}


Order = tuple[str, Call, int]
"""Sender, call and gas limit of a transaction to send."""


class _Minute:
    """The orders of one minute, with the pool price that each is expected to leave.

    The price is followed with the liquidity at the start of the minute. Should an agent's range end
    on the way, it is a little off; a swap that is then on the wrong side of its limit reverts, which
    costs nothing and is made good in the next minute.
    """

    def __init__(self, chain: ChainDeployment, sqrt_price: int, liquidity: int) -> None:
        self.orders: list[Order] = []
        self.noise_quote = 0.0
        self._router = chain.swap_router
        self._key = chain.pool_key()
        self._sqrt_price = sqrt_price
        self._liquidity = liquidity

    def arbitrage(self, true_price: float) -> None:
        """Trade the pool to where the next unit would earn nothing after the fee."""
        fee, pool_price = self._key.fee_pips / 1e6, self._key.price(self._sqrt_price)
        ceiling, floor = true_price / (1 - fee), true_price * (1 - fee)
        if floor <= pool_price <= ceiling:
            return
        sell_base = pool_price > ceiling
        key = self._key
        limit = sqrt_price_x96(
            ceiling if sell_base else floor,
            key.base.decimals,
            key.quote.decimals,
            key.base_is_token0,
        )
        if limit != self._sqrt_price:
            self._swap(ARBITRAGEUR, sell_base, UNBOUNDED, limit)
            self._sqrt_price = limit

    def noise(self, sell_base: bool, notional_quote: float) -> None:
        """Trade this worth at the market."""
        key = self._key
        units = notional_quote / key.price(self._sqrt_price) if sell_base else notional_quote
        amount = int(units * 10 ** (key.base if sell_base else key.quote).decimals)
        if amount == 0:
            return
        self._swap(NOISE_TRADER, sell_base, amount, 0)
        self.noise_quote += notional_quote
        self._sqrt_price = price_after_input(
            self._sqrt_price,
            self._liquidity,
            amount * (10**6 - key.fee_pips) // 10**6,
            sell_base == key.base_is_token0,
        )

    def _swap(self, account: str, sell_base: bool, amount: int, limit: int) -> None:
        sell_token0 = sell_base == self._key.base_is_token0
        data = encode_swap(self._key, account, sell_token0, amount, sqrt_price_limit_x96=limit)
        self.orders.append((account, Call(self._router, data), SWAP_GAS))


class _Venue:
    """One chain's pool, feed and market accounts."""

    def __init__(
        self, chain: ChainDeployment, minutes: Candles, seed: int, settings: MarketSettings
    ) -> None:
        self.rpc = Rpc(chain.rpc_url)
        self._chain = chain
        self._key = chain.pool_key()
        self._minutes = minutes
        self._settings = settings
        self._dice = np.random.Generator(
            np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(chain.chain_id,)))
        )
        self._nonces: dict[str, int] = {}
        self._answer = 0.0
        self._answered_s = 0
        self._static_id = 0

    def own_time(self) -> None:
        """Stop mining by itself; the chain must not be later than the first minute."""
        latest = self.rpc.call("eth_getBlockByNumber", "latest", False)
        first_s = int(self._minutes.start_s[0])
        if quantity(latest["timestamp"]) >= first_s:
            raise BadInput(
                f"minutes of {self._chain.name}",
                f"they begin at {first_s}, the chain is at {quantity(latest['timestamp'])}",
                "Start the chains anew, with an earlier time.",
            )
        self.rpc.call("evm_setAutomine", False)

    def release_time(self) -> None:
        """Let the chain mine by itself again."""
        self.rpc.call("evm_setAutomine", True)
        self.rpc.close()

    def play(self, number: int) -> MinutePlayed:
        """One minute: plan from the pool's state, send the orders, mine, read again."""
        start_s, close = int(self._minutes.start_s[number]), float(self._minutes.close[number])
        minute = self._plan(number)
        swaps = len(minute.orders)
        arbitrage_swaps = sum(sender == ARBITRAGEUR for sender, _, _ in minute.orders)
        pushed = self._answer_is_due(close, start_s)
        if pushed:
            answer = round(close * 10**self._chain.feed_decimals)
            push = encode_push(self._chain.price_feed, answer)
            minute.orders.append((OPERATOR, push, PUSH_GAS))
            self._answer, self._answered_s = close, start_s
        self._send(minute.orders)
        self.mine(start_s + BLOCK_OFFSET_S)
        block, sqrt_price, _ = self._state()
        return MinutePlayed(
            chain=self._chain.name,
            start_s=start_s,
            block=block,
            true_price=close,
            pool_price=self._key.price(sqrt_price),
            noise_quote=minute.noise_quote,
            noise_swaps=swaps - arbitrage_swaps,
            arbitrage_swaps=arbitrage_swaps,
            feed_pushed=pushed,
        )

    def _plan(self, number: int) -> _Minute:
        """Arbitrage to open, extremes and close, with noise before each but the first."""
        data, dice = self._minutes, self._dice
        opened, closed = float(data.open[number]), float(data.close[number])
        extremes = [float(data.low[number]), float(data.high[number])]
        if closed < opened:
            extremes.reverse()
        _, sqrt_price, liquidity = self._state()
        minute = _Minute(self._chain, sqrt_price, liquidity)
        minute.arbitrage(opened)
        count = int(dice.poisson(self._settings.noise_swaps))
        volume = float(data.notional_usd[number]) * self._settings.volume_scale
        sizes = dice.dirichlet(np.ones(count)) * volume if count else np.zeros(0)
        legs = dice.integers(3, size=count)
        sells = dice.integers(2, size=count)
        for leg, price in enumerate([*extremes, closed]):
            for order in np.flatnonzero(legs == leg):
                minute.noise(bool(sells[order]), float(sizes[order]))
            minute.arbitrage(price)
        return minute

    def _answer_is_due(self, price: float, now_s: int) -> bool:
        if now_s - self._answered_s >= self._settings.feed_heartbeat_s:
            return True
        return abs(price / self._answer - 1) > self._settings.feed_deviation

    def mine(self, at_s: int) -> None:
        """One block of what waits, at this time."""
        fee = hex(self._settings.base_fee_wei)
        self.rpc.batch(
            [("evm_setNextBlockTimestamp", [at_s]), ("anvil_setNextBlockBaseFeePerGas", [fee])]
        )
        self.rpc.call("evm_mine")

    def open_static(self, capital_quote: float, at_s: int) -> Amounts:
        """Mint the static position in a block of its own."""
        key, chain = self._key, self._chain
        _, sqrt_price, _ = self._state()
        quote = round(capital_quote / 2 * 10**key.quote.decimals)
        base = round(capital_quote / 2 / key.price(sqrt_price) * 10**key.base.decimals)
        amounts = (base, quote) if key.base_is_token0 else (quote, base)
        data = encode_provide(key, STATIC_LP, full_range(key.tick_spacing), amounts)
        self._send([(STATIC_LP, Call(chain.position_manager, data), SWAP_GAS)])
        self.mine(at_s)
        asked = [(chain.position_manager, TOKEN_OF_OWNER, (STATIC_LP, 0))]
        ((self._static_id,),) = ask(self.rpc, read(asked, "latest"))
        return self.static()

    def static(self) -> Amounts:
        """The payout of removing everything now, by a call that changes nothing."""
        manager, key = self._chain.position_manager, self._key
        (row,) = ask(self.rpc, read([(manager, POSITIONS, (self._static_id,))], "latest"))
        data = MULTICALL.encode(encode_removal(self._static_id, row[7], STATIC_LP))
        (parts,) = MULTICALL.decode(self.rpc.eth_call(manager, data, sender=STATIC_LP))
        paid = COLLECT.decode(parts[-1])
        base, quote = paid if key.base_is_token0 else paid[::-1]
        return Amounts(base / 10**key.base.decimals, quote / 10**key.quote.decimals)

    def _state(self) -> tuple[int, int, int]:
        """Newest block, sqrt price and liquidity in range; nobody else makes blocks."""
        pool = self._chain.pool
        number, slot0, liquidity = self.rpc.batch(
            [
                ("eth_blockNumber", []),
                view_call(pool, SLOT0, (), "latest"),
                view_call(pool, LIQUIDITY, (), "latest"),
            ]
        )
        sqrt_price = SLOT0.decode(from_hex(slot0))[0]
        return quantity(number), sqrt_price, LIQUIDITY.decode(from_hex(liquidity))[0]

    def _send(self, orders: Sequence[Order]) -> None:
        """Queue transactions of unlocked accounts; falling tips keep their order in the block."""
        unknown = sorted({sender for sender, _, _ in orders} - self._nonces.keys())
        counts = self.rpc.batch([("eth_getTransactionCount", [a, "latest"]) for a in unknown])
        self._nonces.update(zip(unknown, map(quantity, counts), strict=True))
        calls: list[RpcCall] = []
        for place, (sender, call, gas) in enumerate(orders):
            nonce = self._nonces[sender]
            self._nonces[sender] = nonce + 1
            body = {
                "from": sender,
                "to": call.to,
                "data": "0x" + call.data.hex(),
                "gas": hex(gas),
                "nonce": hex(nonce),
                "maxFeePerGas": hex(MAX_FEE_WEI),
                "maxPriorityFeePerGas": hex(TIP_WEI - place),
            }
            calls.append(("eth_sendTransaction", [body]))
        self.rpc.batch(calls)


def _checked(deployment: Deployment, minutes: Mapping[str, Candles]) -> NDArray[np.int64]:
    """The common minutes of all chains; raises BadInput where they differ or are no candles."""
    names = {chain.name for chain in deployment.chains}
    if set(minutes) != names:
        raise BadInput("minutes", f"given for {sorted(minutes)}", f"Give {sorted(names)}.")
    first = next(iter(minutes.values())).start_s
    for name, data in minutes.items():
        prices = np.stack([data.low, data.open, data.close, data.high])
        sound = (
            len(first) > 0
            and np.array_equal(data.start_s, first)
            and bool((np.diff(data.start_s) == MINUTE_S).all())
            and bool(np.isfinite(prices).all() and np.isfinite(data.notional_usd).all())
            and bool((prices > 0).all() and (data.notional_usd >= 0).all())
            and bool((prices >= prices[0]).all() and (prices <= prices[3]).all())
        )
        if not sound:
            raise BadInput(
                f"minutes of {name}",
                "not the same unbroken minutes as the others, or no possible candles",
                "Take them from fedtrade.learning.tables.crash_minutes.",
            )
    return first
