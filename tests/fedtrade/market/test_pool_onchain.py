"""The replica against the deployed contract: over 10,000 fuzzed swaps, none off by a unit.

Eight pools (fees 0.01 to 2 %, dense and sparse, with gaps, near both ends of the price domain) are
made by the real factory and position manager. Two kinds of swaps are compared, see `REAL` and
`QUOTED` below for how many:

* *real*: SwapRouter.multicall of exactInputSingle and exactOutputSingle, with and without a price
  limit, and a few straight into the pool. Each Swap log must equal what the replica predicted, and
  a second replica that sees nothing but the logs (`apply`) must end in the same state.
* *quoted*: QuoterV2 by eth_call at the states in between; amount and final price must be equal, and
  where QuoterV2 reverts (it cannot report an exact output filled in part, or a swap that moves no
  token) the replica must say that the fill is partial or empty.

Sizes run from one unit to more than the pool can take, and include those that end on a tick or on
the end of a bitmap word exactly, a unit short, and a unit past. Mints and burns come in between.
At the end the whole state is read from the chain: slot0, liquidity, global fee growth, every tick
with its growth outside, the bitmap, and the fees of every position.
"""

from __future__ import annotations

import json
import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from math import ceil
from typing import Any

import pytest
import requests
from eth_abi import decode, encode
from eth_utils import keccak, to_checksum_address

from fedtrade.errors import Refusal
from fedtrade.market.events import LiquidityChanged, PoolSnapshot, Swapped
from fedtrade.market.instruments import PoolKey, Token
from fedtrade.market.ladder import word_ends
from fedtrade.market.pool import Pool, SwapResult
from fedtrade.market.tick_math import (
    MAX_SQRT_RATIO,
    MAX_TICK,
    MIN_SQRT_RATIO,
    MIN_TICK,
    liquidity_for_amounts,
    sqrt_ratio_at_tick,
    tick_at_sqrt_ratio,
)

pytestmark = [pytest.mark.chain, pytest.mark.timeout(300)]

REAL = 7_000
QUOTED = 3_500
ROUNDS = 10
VOID_SWAPS = 12
"""At most so many real swaps a pool that move no token: each needs a transaction of its own."""
HUGE = 2**120
SUPPLY = 2**200
DEADLINE = 2**40
GAS = 4 * 10**9


@cache
def selector(signature: str) -> bytes:
    return keccak(text=signature)[:4]


def words(*values: int | str) -> bytes:
    """ABI-encode values of static types: numbers, booleans and addresses, one word each."""
    numbers = (int(value, 16) if isinstance(value, str) else value for value in values)
    return b"".join((number % 2**256).to_bytes(32) for number in numbers)


def topic(signature: str) -> str:
    return "0x" + keccak(text=signature).hex()


SWAP = topic("Swap(address,address,int256,int256,uint160,uint128,int24)")
MINT = topic("Mint(address,address,int24,int24,uint128,uint256,uint256)")
BURN = topic("Burn(address,int24,int24,uint128,uint256,uint256)")
INCREASE = topic("IncreaseLiquidity(uint256,uint128,uint256,uint256)")


class Node:
    """JSON-RPC to one local chain whose accounts the node itself signs for."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.trust_env = False  # no proxy between us and our own machine
        self.account = self.rpc("eth_accounts")[0]

    def rpc(self, method: str, *params: Any) -> Any:
        return self._result(self._post(self._request(method, params)))

    def call(self, to: str, data: bytes, returns: list[str], sender: str | None = None) -> Any:
        answer = self.rpc("eth_call", self._call(to, data, sender), "latest")
        return decode(returns, bytes.fromhex(answer[2:]))

    def calls(self, to: str, datas: list[bytes]) -> list[bytes | None]:
        """Many eth_calls in one request; None where the call reverts."""
        batch = [
            self._request("eth_call", [self._call(to, data), "latest"], number)
            for number, data in enumerate(datas)
        ]
        answers: list[bytes | None] = [None] * len(datas)
        for answer in self._post(batch) if batch else []:
            if "result" in answer:
                answers[answer["id"]] = bytes.fromhex(answer["result"][2:])
            else:
                assert "revert" in answer["error"]["message"], answer
        return answers

    def send(self, to: str | None, data: bytes, sender: str | None = None) -> Any:
        """Send, have it mined, and return the receipt of a success."""
        request = {"from": sender or self.account, "data": "0x" + data.hex(), "gas": hex(GAS)}
        if to is not None:
            request["to"] = to
        receipt = self.rpc("eth_sendTransactionSync", request)
        assert receipt["status"] == "0x1", receipt
        return receipt

    def _call(self, to: str, data: bytes, sender: str | None = None) -> dict[str, str]:
        sender = sender or self.account
        return {"from": sender, "to": to, "data": "0x" + data.hex(), "gas": hex(GAS)}

    def _request(self, method: str, params: Any, number: int = 0) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": number, "method": method, "params": list(params)}

    def _post(self, body: Any) -> Any:
        return self.session.post(self.url, json=body, timeout=120).json()

    def _result(self, answer: Any) -> Any:
        assert "error" not in answer, answer
        return answer["result"]


@dataclass(frozen=True)
class Scenario:
    name: str
    fee_pips: int
    tick_spacing: int
    centre: int
    ranges: tuple[tuple[int, int], ...]
    """(offset of the middle, half width), in tick spacings from the centre."""
    liquidity_bits: int
    digits: int
    """Sizes are drawn up to 10**digits; a few are huge whatever this says."""
    share: int
    """Weight in the number of swaps."""


FULL = 10**6
GRID = tuple((offset, half) for offset in range(-9, 10, 3) for half in (1, 4, 20))
SCENARIOS = (
    Scenario("dense", 3000, 60, 0, GRID, 64, 22, 3),
    Scenario("dense in full range", 500, 10, -200_000, ((0, FULL), (3, 2), (-5, 9)), 60, 23, 2),
    Scenario("sparse, words apart", 500, 10, 70_000, ((0, 700), (900, 520), (-1500, 300)), 62, 19, 2),
    Scenario("finest ticks", 100, 1, 0, ((0, 1000), (0, 40), (3000, 900), (-2500, 800)), 66, 18, 1),
    Scenario("gaps", 10000, 200, 0, ((0, 2), (12, 3), (-15, 4), (700, 5), (-900, 2)), 60, 21, 2),
    Scenario("price far below one", 3000, 60, -640_000, ((0, 50), (30, 10), (400, 99)), 74, 36, 1),
    Scenario("price near the highest", 10000, 200, 870_000, ((0, 20), (-30, 10)), 40, 30, 1),
    # One step may span the whole domain: products pass 256 bits and the contract divides first.
    Scenario("widest spacing", 20000, 16000, 860_000, ((0, FULL), (-40, 9)), 118, 36, 1),
)  # fmt: skip


@dataclass
class Position:
    token_id: int
    lower: int
    upper: int
    liquidity: int
    marks: tuple[int, int]
    owed: tuple[int, int]


@dataclass
class Rig:
    """One pool on the chain, the replica that predicts, and the replica that only sees logs."""

    node: Node
    venue: Any
    scenario: Scenario
    key: PoolKey
    pool: Pool
    follower: Pool
    positions: list[Position] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    # Liquidity.

    def mint(self, lower: int, upper: int, liquidity: int) -> None:
        spacing = self.key.tick_spacing
        edge = MAX_TICK // spacing
        lower, upper = max(lower, -edge) * spacing, min(upper, edge) * spacing
        pool = Pool(self.key, self.pool.snapshot(0))
        offer = pool.change_liquidity(lower, upper, liquidity)
        wanted = liquidity_for_amounts(pool.sqrt_price_x96, lower, upper, *offer)
        if wanted == 0:
            return
        shape = (
            "(address,address,uint24,int24,int24,uint256,uint256,uint256,uint256,address,uint256)"
        )
        tokens, owner = self.tokens(True), self.node.account
        asked = words(*tokens, self.key.fee_pips, lower, upper, *offer, 0, 0, owner, DEADLINE)
        data = selector(f"mint({shape})") + asked
        receipt = self.node.send(self.venue.position_manager, data)
        amounts = self.pool.change_liquidity(lower, upper, wanted)
        [event] = self.follow(receipt)
        assert (event.liquidity_delta, event.amount0, event.amount1) == (wanted, *amounts)
        [token_id] = [
            int(log["topics"][1], 16) for log in receipt["logs"] if log["topics"][0] == INCREASE
        ]
        marks = self.pool.fee_growth_inside(lower, upper)
        self.positions.append(Position(token_id, lower, upper, wanted, marks, (0, 0)))

    def burn(self, position: Position, liquidity: int) -> None:
        shape = "(uint256,uint128,uint256,uint256,uint256)"
        asked = words(position.token_id, liquidity, 0, 0, DEADLINE)
        data = selector(f"decreaseLiquidity({shape})") + asked
        receipt = self.node.send(self.venue.position_manager, data)
        inside = self.pool.fee_growth_inside(position.lower, position.upper)
        fees = self.pool.fees_owed(
            position.lower, position.upper, position.liquidity, *position.marks
        )
        amounts = self.pool.change_liquidity(position.lower, position.upper, -liquidity)
        [event] = self.follow(receipt)
        assert (event.liquidity_delta, event.amount0, event.amount1) == (-liquidity, *amounts)
        position.liquidity -= liquidity
        position.marks = inside
        position.owed = (
            (position.owed[0] + fees[0] + amounts[0]) % 2**128,
            (position.owed[1] + fees[1] + amounts[1]) % 2**128,
        )

    # What the chain says.

    def follow(self, receipt: Any) -> list[Any]:
        """Decode the logs of this pool in a receipt and replay them on the follower."""
        events: list[Any] = []
        for log in receipt["logs"]:
            if to_checksum_address(log["address"]) != self.key.address:
                continue
            kind, data = log["topics"][0], bytes.fromhex(log["data"][2:])
            where = (int(log["blockNumber"], 16), int(log["logIndex"], 16), self.key.address)
            if kind == SWAP:
                amount0, amount1, price, liquidity, tick = decode(
                    ["int256", "int256", "uint160", "uint128", "int24"], data
                )
                events.append(Swapped(*where, amount0, amount1, price, liquidity, tick))
            elif kind in (MINT, BURN):
                lower, upper = (
                    decode(["int24"], bytes.fromhex(word[2:]))[0] for word in log["topics"][2:]
                )
                liquidity, amount0, amount1 = decode(["uint128", "uint256", "uint256"], data[-96:])
                delta = liquidity if kind == MINT else -liquidity
                events.append(
                    LiquidityChanged(
                        *where, self.node.account, lower, upper, delta, amount0, amount1
                    )
                )
        for event in events:
            self.follower.apply(event)
        return events

    # Swaps.

    def single(self, ask: Ask) -> bytes:
        """Encode one call of the router."""
        name, kind = ("exactInputSingle", 0) if ask.amount > 0 else ("exactOutputSingle", SUPPLY)
        shape = "(address,address,uint24,address,uint256,uint256,uint256,uint160)"
        sold, bought = self.tokens(ask.zero_for_one)
        values = (
            sold,
            bought,
            self.key.fee_pips,
            self.node.account,
            DEADLINE,
            abs(ask.amount),
            kind,
            ask.limit or 0,
        )
        return selector(f"{name}({shape})") + words(*values)

    def question(self, ask: Ask) -> bytes:
        """Encode one call of QuoterV2."""
        name = "quoteExactInputSingle" if ask.amount > 0 else "quoteExactOutputSingle"
        shape = "(address,address,uint256,uint24,uint160)"
        sold, bought = self.tokens(ask.zero_for_one)
        values = (sold, bought, abs(ask.amount), self.key.fee_pips, ask.limit or 0)
        return selector(f"{name}({shape})") + words(*values)

    def tokens(self, zero_for_one: bool) -> tuple[str, str]:
        pair = (self.key.token0.address, self.key.token1.address)
        return pair if zero_for_one else pair[::-1]

    def swap_batch(self, dice: random.Random, size: int) -> None:
        """Predict, send in one transaction, and compare log by log."""
        calls: list[bytes] = []
        predicted: list[SwapResult] = []
        for _ in range(size):
            ask = draw(dice, self.pool, self.scenario.digits)
            quoted = quote(self.pool, ask)
            while is_void(quoted) and self.counts["void"] >= VOID_SWAPS:
                ask = draw(dice, self.pool, self.scenario.digits)
                quoted = quote(self.pool, ask)
            if is_void(quoted):
                self.send_batch(calls, predicted)
                self.void_swap(ask)
                calls, predicted = [], []
                continue
            if is_short(quoted, ask):
                # The router insists on the full output unless there is a limit: give the last one.
                last = MIN_SQRT_RATIO + 1 if ask.zero_for_one else MAX_SQRT_RATIO - 1
                ask = Ask(ask.zero_for_one, ask.amount, last)
            result = self.pool.swap(ask.zero_for_one, ask.amount, ask.limit)
            assert result == quoted
            self.counts["exhausted"] += (
                not MIN_SQRT_RATIO + 1 < result.sqrt_price_x96 < MAX_SQRT_RATIO - 1
            )
            self.counts["limited"] += result.sqrt_price_x96 == ask.limit
            self.counts["exact output"] += ask.amount < 0
            self.counts["crossings"] += result.ticks_crossed
            calls.append(self.single(ask))
            predicted.append(result)
        self.send_batch(calls, predicted)

    def send_batch(self, calls: list[bytes], predicted: list[SwapResult]) -> None:
        if not calls:
            return
        data = selector("multicall(bytes[])") + encode(["bytes[]"], [calls])
        events = self.follow(self.node.send(self.venue.swap_router, data))
        assert [seen(event) for event in events] == [seen(result) for result in predicted]
        self.counts["real"] += len(calls)

    def void_swap(self, ask: Ask) -> None:
        """Swap straight into the pool where no token moves, which router and quoter cannot."""
        data = selector("swap(address,bool,int256,uint160,bytes)") + encode(
            ["address", "bool", "int256", "uint160", "bytes"],
            [
                self.node.account,
                ask.zero_for_one,
                ask.amount,
                ask.limit or (MIN_SQRT_RATIO + 1 if ask.zero_for_one else MAX_SQRT_RATIO - 1),
                b"",
            ],
        )
        [event] = self.follow(self.node.send(self.key.address, data, sender=VOID))
        result = self.pool.swap(ask.zero_for_one, ask.amount, ask.limit)
        assert seen(event) == seen(result)
        self.counts["real"] += 1
        self.counts["void"] += 1

    def quote_batch(self, dice: random.Random, size: int) -> None:
        asks = [draw(dice, self.pool, self.scenario.digits) for _ in range(size)]
        answers = self.node.calls(self.venue.quoter, [self.question(ask) for ask in asks])
        for ask, answer in zip(asks, answers, strict=True):
            result = quote(self.pool, ask)
            if is_void(result) or is_short(result, ask):
                assert answer is None, (ask, result)
                self.counts["quoter reverts"] += 1
            else:
                assert answer is not None, (ask, result)
                amount, price, _, _ = decode(["uint256", "uint160", "uint32", "uint256"], answer)
                flow = (result.amount0, result.amount1)
                expected = -min(flow) if ask.amount > 0 else max(flow)
                assert (amount, price) == (expected, result.sqrt_price_x96), ask
        self.counts["quoted"] += size

    # The whole state.

    def compare_state(self) -> None:
        view = self.pool.snapshot(0)
        assert self.follower.snapshot(0) == view
        ask = self.node.call
        address = self.key.address
        slot0 = ["uint160", "int24", "uint16", "uint16", "uint16", "uint8", "bool"]
        price, tick, _, _, _, fee_protocol, _ = ask(address, selector("slot0()"), slot0)
        assert (price, tick, fee_protocol) == (view.sqrt_price_x96, view.tick, 0)
        for name, value in (
            ("liquidity()", view.liquidity),
            ("feeGrowthGlobal0X128()", view.fee_growth_global0_x128),
            ("feeGrowthGlobal1X128()", view.fee_growth_global1_x128),
            ("maxLiquidityPerTick()", self.pool.max_liquidity_per_tick),
        ):
            assert ask(address, selector(name), ["uint256"])[0] == value
        shape = ["uint128", "int128", "uint256", "uint256", "int56", "uint160", "uint32", "bool"]
        data = [selector("ticks(int24)") + words(row[0]) for row in view.ticks]
        for row, answer in zip(view.ticks, self.node.calls(address, data), strict=True):
            gross, net, outside0, outside1, _, _, _, initialised = decode(shape, answer or b"")
            assert (row[0], gross, net, outside0, outside1) == row
            assert initialised
        self.compare_bitmap(view)
        self.compare_fees()

    def compare_bitmap(self, view: PoolSnapshot) -> None:
        spacing = self.key.tick_spacing
        bits: Counter[int] = Counter()
        for at, *_ in view.ticks:
            bits[at // spacing >> 8] |= 1 << (at // spacing & 255)
        lowest, highest = MIN_TICK // spacing >> 8, MAX_TICK // spacing >> 8
        places = list(range(lowest, highest + 1)) if spacing > 1 else sorted(bits)
        data = [selector("tickBitmap(int16)") + words(word) for word in places]
        for word, answer in zip(places, self.node.calls(self.key.address, data), strict=True):
            assert int.from_bytes(answer or b"") == bits[word]

    def compare_fees(self) -> None:
        for position in self.positions:
            fees = self.pool.fees_owed(
                position.lower, position.upper, position.liquidity, *position.marks
            )
            asked = words(position.token_id, self.node.account, 2**128 - 1, 2**128 - 1)
            data = selector("collect((uint256,address,uint128,uint128))") + asked
            collected = self.node.call(self.venue.position_manager, data, ["uint256", "uint256"])
            owed = tuple((was + fee) % 2**128 for was, fee in zip(position.owed, fees, strict=True))
            assert collected == owed
            self.counts["positions with fees"] += any(fees)


VOID = "0x" + "5a" * 20
"""An account whose code is STOP: it answers the pool's callback and pays nothing."""


@dataclass(frozen=True)
class Ask:
    zero_for_one: bool
    amount: int
    """Positive: exact input; negative: exact output."""
    limit: int | None


def quote(pool: Pool, ask: Ask) -> SwapResult:
    way = pool.quote_exact_input if ask.amount > 0 else pool.quote_exact_output
    return way(ask.zero_for_one, abs(ask.amount), ask.limit)


def seen(swap: Swapped | SwapResult) -> tuple[int, ...]:
    return swap.amount0, swap.amount1, swap.sqrt_price_x96, swap.liquidity, swap.tick


def is_void(result: SwapResult) -> bool:
    return result.amount0 == 0 == result.amount1


def is_short(result: SwapResult, ask: Ask) -> bool:
    """An exact output without a limit that liquidity could not fill."""
    bought = -min(result.amount0, result.amount1)
    return ask.amount < 0 and ask.limit is None and bought < -ask.amount


def draw(dice: random.Random, pool: Pool, digits: int) -> Ask:
    """Draw a swap that the pool would accept in its present state."""
    while True:
        zero_for_one = dice.random() < 0.5
        ask = draw_towards(dice, pool, zero_for_one, digits)
        try:
            quote(pool, ask)
        except Refusal:  # the limit is on the wrong side: draw again
            continue
        return ask


def draw_towards(dice: random.Random, pool: Pool, zero_for_one: bool, digits: int) -> Ask:
    sign = dice.choice((1, 1, -1))
    amount = int(10 ** dice.uniform(0, digits)) * sign
    kind = dice.random()
    if kind < 0.35:
        return Ask(zero_for_one, amount, None)
    if kind < 0.355:
        return Ask(zero_for_one, HUGE * sign, None)
    if kind < 0.57:
        ticks = int(10 ** dice.uniform(0, 3)) * pool.key.tick_spacing
        tick = pool.tick - ticks if zero_for_one else pool.tick + ticks
        limit = sqrt_ratio_at_tick(min(max(tick, MIN_TICK + 1), MAX_TICK - 1))
        limit += dice.choice((0, 0, 1, -1, dice.randrange(10**8)))
        return Ask(zero_for_one, dice.choice((amount, HUGE * sign)), limit)
    if kind < 0.75:
        # Home again, so that the next swaps meet liquidity.
        ticks = [row[0] for row in pool.snapshot(0).ticks]
        limit = sqrt_ratio_at_tick(dice.choice(ticks)) + dice.randrange(10**6)
        return Ask(limit < pool.sqrt_price_x96, HUGE * sign, limit)
    return draw_edge(dice, pool, zero_for_one, sign)


def draw_edge(dice: random.Random, pool: Pool, zero_for_one: bool, sign: int) -> Ask:
    """A size that ends exactly on a stop (tick or end of a word), or a unit beside it."""
    ends = word_ends(pool.key.tick_spacing, zero_for_one)
    here = bisect_right(ends, pool.tick)
    stops = sorted(
        {*ends[max(here - 6, 0) : here + 6], *(row[0] for row in pool.snapshot(0).ticks)}
    )
    ahead = [stop for stop in stops if (stop <= pool.tick if zero_for_one else stop > pool.tick)]
    if zero_for_one:
        ahead.reverse()
    stop = dice.choice(ahead[:6] or [0])
    limit = sqrt_ratio_at_tick(stop)
    try:
        there = quote(pool, Ask(zero_for_one, HUGE * sign, limit))
    except Refusal:
        return Ask(zero_for_one, sign, None)
    flow = (there.amount0, there.amount1)
    exact = max(flow) if sign > 0 else -min(flow)
    exact += dice.choice((0, 0, 1, -1))
    return Ask(zero_for_one, max(exact, 1) * sign, dice.choice((None, None, limit)))


def deploy_token(node: Node, symbol: str, spenders: tuple[str, ...]) -> str:
    """Deploy the stand-in token, mint a supply that no swap exhausts, and approve the spenders."""
    artifact = json.loads((files("fedtrade.chain") / "abi" / "DevToken.json").read_text())
    data = bytes.fromhex(artifact["bytecode"].removeprefix("0x"))
    data += encode(["string", "string", "uint8"], [symbol, symbol, 18])
    token: str = node.send(None, data)["contractAddress"]
    node.send(token, selector("mint(address,uint256)") + words(node.account, SUPPLY))
    for spender in spenders:
        node.send(token, selector("approve(address,uint256)") + words(spender, 2**256 - 1))
    return to_checksum_address(token)


def enable_fee(node: Node, factory: str, fee_pips: int, tick_spacing: int) -> None:
    """Enable a fee as governance does: 0.01 % came that way, and any other may."""
    [known] = node.call(
        factory, selector("feeAmountTickSpacing(uint24)") + words(fee_pips), ["int24"]
    )
    if known:
        return
    [owner] = node.call(factory, selector("owner()"), ["address"])
    node.rpc("anvil_impersonateAccount", owner)
    node.rpc("anvil_setBalance", owner, hex(10**21))
    data = selector("enableFeeAmount(uint24,int24)") + words(fee_pips, tick_spacing)
    node.send(factory, data, sender=owner)


def open_rig(node: Node, venue: Any, scenario: Scenario) -> Rig:
    spenders = (venue.position_manager, venue.swap_router)
    pair = sorted((deploy_token(node, name, spenders) for name in ("AAA", "BBB")), key=str.lower)
    # Near a tick, on neither side of it exactly.
    price = sqrt_ratio_at_tick(scenario.centre) + 12_345
    data = words(*pair, scenario.fee_pips, price)
    signature = "createAndInitializePoolIfNecessary(address,address,uint24,uint160)"
    node.send(venue.position_manager, selector(signature) + data)
    lookup = selector("getPool(address,address,uint24)") + words(*pair, scenario.fee_pips)
    address = to_checksum_address(node.call(venue.factory, lookup, ["address"])[0])
    tokens = [Token(token, name, 18) for token, name in zip(pair, ("AAA", "BBB"), strict=True)]
    key = PoolKey(address, *tokens, scenario.fee_pips, scenario.tick_spacing, True)
    bare = PoolSnapshot(0, address, price, tick_at_sqrt_ratio(price), 0, 0, 0, ())
    return Rig(node, venue, scenario, key, Pool(key, bare), Pool(key, bare))


@pytest.fixture(scope="module")
def bench(devnet: Any) -> Iterator[tuple[Node, Any]]:
    """The first local chain with room for long transactions; everything is taken back afterwards."""
    venue = devnet.deployment.chains[0]
    node = Node(venue.rpc_url)
    before = node.rpc("evm_snapshot")
    limit = node.rpc("eth_getBlockByNumber", "latest", False)["gasLimit"]
    node.rpc("evm_setBlockGasLimit", hex(2 * GAS))
    node.rpc("anvil_setBalance", node.account, hex(10**24))
    node.rpc("anvil_setCode", VOID, "0x00")
    node.rpc("anvil_setBalance", VOID, hex(10**24))
    node.rpc("anvil_impersonateAccount", VOID)
    for scenario in SCENARIOS:
        enable_fee(node, venue.factory, scenario.fee_pips, scenario.tick_spacing)
    yield node, venue
    node.rpc("evm_revert", before)
    node.rpc("evm_setBlockGasLimit", limit)
    node.session.close()


def fuzz(node: Node, venue: Any, scenario: Scenario) -> Counter[str]:
    """Fuzz one pool, compare its whole state, and return what was covered."""
    rig = open_rig(node, venue, scenario)
    dice = random.Random(f"swap fuzz 1: {scenario.name}")
    centre = scenario.centre // scenario.tick_spacing
    for offset, half in scenario.ranges:
        liquidity = dice.getrandbits(scenario.liquidity_bits) + 2**20
        rig.mint(centre + offset - half, centre + offset + half, liquidity)
    part = scenario.share / sum(each.share for each in SCENARIOS) / ROUNDS
    for number in range(ROUNDS):
        rig.quote_batch(dice, ceil(QUOTED * part))
        rig.swap_batch(dice, ceil(REAL * part))
        if number % 3 == 0:
            middle = rig.pool.tick // scenario.tick_spacing + dice.randint(-5, 5)
            half = dice.randint(1, min(300, MAX_TICK // scenario.tick_spacing // 8))
            rig.mint(middle - half, middle + half, dice.getrandbits(scenario.liquidity_bits) + 1)
        elif number % 3 == 1:
            position = dice.choice([each for each in rig.positions if each.liquidity])
            rig.burn(position, max(position.liquidity // dice.choice((1, 2)), 1))
    rig.compare_state()
    return rig.counts


def test_ten_thousand_swaps_without_a_unit_of_difference(bench: tuple[Node, Any]) -> None:
    """One test, so that its count holds however tests are spread over processes."""
    total: Counter[str] = Counter()
    for scenario in SCENARIOS:
        total.update(fuzz(*bench, scenario))
    assert total["real"] >= REAL
    assert total["quoted"] >= QUOTED
    assert total["real"] + total["quoted"] >= 10_000
    # Each hard case is among them, and often.
    assert total["crossings"] > 10_000
    assert total["exact output"] > 2_000
    assert total["limited"] > 2_000
    assert total["exhausted"] > 100
    assert total["void"] > 50
    assert total["quoter reverts"] > 100
    assert total["positions with fees"] > 40
