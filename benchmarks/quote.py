"""Exact quotes a second: our replica beside QuoterV2 on a local node, and beside pyrevm.

One run, one pool state, the same questions. The pool is a real Uniswap v3 pool on a local chain with
thirty further positions of random widths, so that a quote crosses about six initialised ticks. All
three sides answer the same exact-input questions; every answer of ours that a counterpart also gave
must equal it to the last unit, or the benchmark fails.

What is timed: ours, from a fresh replica (its tables are built within the time); QuoterV2, one
eth_call after another over one kept-alive HTTP connection, calldata prepared beforehand; pyrevm, the
same calldata on a fork of the node whose state has been fetched by a first, untimed pass.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from fedtrade.chain.conversation import ask
from fedtrade.chain.deployment import ChainDeployment
from fedtrade.chain.pools import pool_snapshot
from fedtrade.chain.rpc import Rpc
from fedtrade.devnet.accounts import BACKGROUND_LP
from fedtrade.devnet.net import Devnet
from fedtrade.errors import Fault
from fedtrade.market.events import PoolSnapshot
from fedtrade.market.instruments import PoolKey
from fedtrade.market.pool import Pool
from fedtrade.venues.codec import Call
from fedtrade.venues.uniswap_v3 import QUOTE_EXACT_INPUT, encode_provide

POSITIONS = 30
QUESTIONS = 3_000
ASKED_OF_QUOTER = 400
PASSES = 7
CALL_GAS = 30_000_000


class Mismatch(Fault):
    """A counterpart and the replica disagree."""

    def __init__(self, question: Question, ours: int, theirs: int) -> None:
        super().__init__(f"{question}: the replica says {ours}, the counterpart {theirs}.")
        self.question = question
        self.ours = ours
        self.theirs = theirs


@dataclass(frozen=True)
class Question:
    zero_for_one: bool
    amount_in: int


@dataclass(frozen=True)
class Scene:
    """One pool state and what is asked of it."""

    rpc: Rpc
    chain: ChainDeployment
    key: PoolKey
    snapshot: PoolSnapshot
    questions: list[Question]
    calldata: list[bytes]


def rows() -> list[dict[str, Any]]:
    """Measure and return one row per counterpart; raises Mismatch."""
    with Devnet.up() as devnet:
        scene = _build(devnet)
        ours, answers, crossed = _replica(scene)
        what = f"{crossed:.1f} initialised ticks crossed on average"
        theirs = _quoter(scene, answers)
        found = [_row("v3_quote", f"QuoterV2 by eth_call over HTTP, {what}", ours, theirs)]
        if (warm := _pyrevm(scene, answers)) is not None:
            found.append(_row("v3_quote_pyrevm", f"QuoterV2 in pyrevm, {what}", ours, warm))
    return found


def _row(name: str, counterpart: str, ours: float, theirs: float) -> dict[str, Any]:
    return {
        "name": name,
        "counterpart": counterpart,
        "ours": ours,
        "theirs": theirs,
        "unit": "/s",
        "ratio": ours / theirs,
    }


def _build(devnet: Devnet) -> Scene:
    """Add positions to the home pool, read it whole, and draw the questions."""
    chain = devnet.deployment.chain(devnet.deployment.home)
    rpc, key = devnet.rpc(chain.name), chain.pool_key()
    dice = random.Random(7)
    block = int(rpc.call("eth_blockNumber"), 16)
    pool = Pool(key, ask(rpc, pool_snapshot(key, block)))
    spacing = key.tick_spacing
    for _ in range(POSITIONS):
        middle = pool.tick // spacing + dice.randint(-60, 60)
        half = dice.choice((2, 5, 10, 20, 50, 200))
        ticks = ((middle - half) * spacing, (middle + half) * spacing)
        offer = [round(dice.uniform(0.1, 3) * 10**6 * unit) for unit in _units(key, pool)]
        data = encode_provide(key, BACKGROUND_LP, ticks, (offer[0], offer[1]))
        devnet.transact(chain.name, BACKGROUND_LP, Call(chain.position_manager, data))
    block = int(rpc.call("eth_blockNumber"), 16)
    snapshot = ask(rpc, pool_snapshot(key, block))
    questions = []
    for _ in range(QUESTIONS):
        zero_for_one = dice.random() < 0.5
        size = 10 ** dice.uniform(5.85, 7.28)
        questions.append(Question(zero_for_one, round(size * _units(key, pool)[not zero_for_one])))
    pair = (key.token0.address, key.token1.address)
    calldata = []
    for question in questions:
        sold, bought = pair if question.zero_for_one else pair[::-1]
        asked = (sold, bought, question.amount_in, key.fee_pips, 0)
        calldata.append(QUOTE_EXACT_INPUT.encode(asked))
    return Scene(rpc, chain, key, snapshot, questions, calldata)


def _units(key: PoolKey, pool: Pool) -> tuple[float, float]:
    """Return how many smallest units of token0 and token1 are worth one of the quote."""
    base = 10**key.base.decimals / key.price(pool.sqrt_price_x96)
    quote = float(10**key.quote.decimals)
    return (base, quote) if key.base_is_token0 else (quote, base)


def _replica(scene: Scene) -> tuple[float, list[int], float]:
    """Return (quotes a second, the amounts out, mean ticks crossed)."""
    asked = [(each.zero_for_one, each.amount_in) for each in scene.questions]
    seconds = []
    for _ in range(PASSES):
        pool = Pool(scene.key, scene.snapshot)
        quote = pool.quote_exact_input
        begin = perf_counter()
        results = [quote(zero_for_one, amount) for zero_for_one, amount in asked]
        seconds.append(perf_counter() - begin)
    outs = [-min(result.amount0, result.amount1) for result in results]
    crossed = statistics.fmean(result.ticks_crossed for result in results)
    return len(asked) / statistics.median(seconds), outs, crossed


def _quoter(scene: Scene, answers: list[int]) -> float:
    asked = scene.calldata[:ASKED_OF_QUOTER]
    to, call = scene.chain.quoter, scene.rpc.eth_call
    begin = perf_counter()
    replies = [call(to, data) for data in asked]
    seconds = perf_counter() - begin
    _compare(scene, answers, replies)
    return len(asked) / seconds


def _pyrevm(scene: Scene, answers: list[int]) -> float | None:
    """Return the warm rate of pyrevm, or None where it is not installed."""
    try:
        import pyrevm
    except ImportError:
        return None
    machine = pyrevm.EVM(fork_url=scene.rpc.url)
    call: Callable[..., bytes] = machine.message_call
    asked = scene.calldata[:ASKED_OF_QUOTER]

    def run() -> list[bytes]:
        return [
            call(caller=BACKGROUND_LP, to=scene.chain.quoter, calldata=data, gas=CALL_GAS)
            for data in asked
        ]

    _compare(scene, answers, run())
    begin = perf_counter()
    run()
    return len(asked) / (perf_counter() - begin)


def _compare(scene: Scene, answers: list[int], replies: list[bytes]) -> None:
    for question, ours, reply in zip(scene.questions, answers, replies, strict=False):
        theirs = QUOTE_EXACT_INPUT.decode(bytes(reply))[0]
        if ours != theirs:
            raise Mismatch(question, ours, theirs)


if __name__ == "__main__":
    for row in rows():
        print(
            f"{row['name']:<16} ours {row['ours']:>10,.0f}{row['unit']}   "
            f"theirs {row['theirs']:>8,.0f}{row['unit']}   {row['ratio']:>6,.0f} times   "
            f"{row['counterpart']}"
        )
