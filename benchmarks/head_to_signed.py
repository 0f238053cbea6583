"""New head → signed transaction: our agent's own path beside a plain web3.py loop, on one node.

A real position stands in a real Uniswap v3 pool on a local chain. Each repetition makes one block in
which a large swap drives the price out of the position's range, and both sides withdraw:

    ours    websocket head, logs of the block, replica, features, forecast, range decision, breakers,
            journal fsynced, promise in SQLite, gas estimate and nonce from the node, signature,
            signed bytes fsynced: `clients.execution.Execution`, as it runs in production
    theirs  the same reads, decision and withdrawal by web3.py calls over one HTTP connection, signed
            by eth-account with coincurve; no replica, forecast, breakers, journal or outbox

The clock runs from the head's arrival to the signed bytes. Neither is sent on, and the chain is put
back, so that every repetition is the same. The model is a stand-in whose forecast is constant. One
pool an agent is what there is today; the design's row speaks of thirty.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

import numpy as np
import polars as pl

from benchmarks.measure import Row, row
from benchmarks.plain_loop import PlainLoop
from clients.execution import Execution
from clients.keys import MemberKeys
from clients.node import Node
from clients.settings import ExecutionSettings
from fedtrade import artifact
from fedtrade.artifact import Manifest, NetworkShape
from fedtrade.chain.contracts import Membership, ModelRegistry
from fedtrade.chain.conversation import ask
from fedtrade.chain.deployment import ChainDeployment, Deployment
from fedtrade.chain.pools import holdings, pool_snapshot
from fedtrade.devnet.accounts import ARBITRAGEUR, OPERATOR
from fedtrade.devnet.anvil import Anvil
from fedtrade.devnet.net import Devnet
from fedtrade.errors import Fault
from fedtrade.learning.features import FEATURES
from fedtrade.learning.windows import HEADS, HORIZON_S
from fedtrade.venues.price_feed import encode_push
from fedtrade.venues.uniswap_v3 import encode_swap

REPETITIONS: Final = 30
WARM_UP: Final = 2
LIMIT_S: Final = 30.0
BLOCKS_TO_PROVIDE: Final = 30
PACKAGES = ("web3", "eth-account", "coincurve", "aiohttp")

HISTORY_H = 170
SWAP_QUOTE = 800_000
"""Worth of the swap that drives the price out of the range."""


class NothingSigned(Fault):
    """A side did not come to a signed transaction."""

    def __init__(self, side: str, seen: str) -> None:
        super().__init__(f"{side} signed nothing within {LIMIT_S:.0f} s: {seen}.")
        self.side = side
        self.seen = seen


class _Watched(Node):
    """A node that notes when a head arrives, and keeps transactions to itself once told to."""

    arrived_s = 0.0
    holds = False

    def _route(self, message: Any) -> None:
        if isinstance(message, dict) and message.get("method") == "eth_subscription":
            self.arrived_s = perf_counter()
        super()._route(message)

    async def call(self, method: str, *params: object) -> Any:
        if self.holds and method == "eth_sendRawTransaction":
            return "0x" + "00" * 32
        return await super().call(method, *params)


@dataclass
class Scene:
    """One chain with a live model, and an account that agents of this benchmark share."""

    devnet: Devnet
    chain: ChainDeployment
    folder: Path
    keys: MemberKeys
    now_s: int = 0

    @property
    def anvil(self) -> Anvil:
        return self.devnet.anvil(self.chain.name)

    def price(self) -> float:
        key, block = self.chain.pool_key(), self.anvil.latest().number
        return key.price(
            ask(self.devnet.rpc(self.chain.name), pool_snapshot(key, block)).sqrt_price_x96
        )

    def positions(self) -> int:
        block = self.anvil.latest().number
        talk = holdings(
            self.chain.pool_key(), self.chain.position_manager, self.keys.address, block
        )
        return len(ask(self.devnet.rpc(self.chain.name), talk).positions)

    def mine(self) -> None:
        """One block, a minute after the last."""
        self.now_s += 60
        self.anvil.mine(self.now_s)

    def queue(self, sender: str, to: str, data: bytes) -> None:
        body = {"from": sender, "to": to, "data": "0x" + data.hex(), "gas": hex(2_000_000)}
        self.devnet.rpc(self.chain.name).call("eth_sendTransaction", body)

    def minute(self) -> None:
        """A quiet block: the price feed says what the pool says."""
        call = encode_push(self.chain.price_feed, round(self.price() * 10**8))
        self.queue(OPERATOR, call.to, call.data)
        self.mine()

    def queue_sale(self) -> None:
        key = self.chain.pool_key()
        amount = int(SWAP_QUOTE / self.price() * 10**key.base.decimals)
        data = encode_swap(key, ARBITRAGEUR, key.base_is_token0, amount)
        self.queue(ARBITRAGEUR, self.chain.swap_router, data)

    def settings(self, run: str) -> ExecutionSettings:
        """An agent in a folder of its own; the account is everybody's."""
        lines = [
            'deployment = "deployment.json"',
            f'chain = "{self.chain.name}"',
            'keys = "keys"',
            'artifact = "model.safetensors"',
            f'folder = "{run}"',
            "[agent]",
            "capital_quote = 100000.0",
            "native_price_quote = 2700.0",
            "[history]",
            'candles = "history.parquet"',
            "notional_scale = 2.0",
            "[limits]",
            "action_notional_max_quote = 200000",
        ]
        path = self.folder / f"{run}.toml"
        path.write_text("\n".join(lines) + "\n")
        return ExecutionSettings.load(path)


def rows() -> list[Row]:
    """Median of both sides, and the slowest of either."""
    with Devnet.up() as devnet, TemporaryDirectory() as folder:
        chain = devnet.deployment.chain(devnet.deployment.home)
        scene = _prepare(
            Scene(devnet, chain, Path(folder), MemberKeys.create(Path(folder, "keys")))
        )
        loop = PlainLoop(chain, scene.keys)
        ours, theirs = asyncio.run(_measure(scene, loop))
    what = "a plain web3.py loop over HTTP, one pool"
    clock = "by the clock"
    return [
        row(
            "head_to_signed",
            f"{what}, median of {len(ours)}",
            statistics.median(ours) * 1e3,
            statistics.median(theirs) * 1e3,
            "ms",
            PACKAGES,
            clock,
        ),
        row(
            "head_to_signed_slowest",
            f"{what}, slowest of {len(ours)}",
            max(ours) * 1e3,
            max(theirs) * 1e3,
            "ms",
            PACKAGES,
            clock,
        ),
    ]


def constant_model(variance: float) -> bytes:
    """A stand-in artifact of a usual size that always forecasts this hourly variance, and demand 1."""
    shape = NetworkShape(inputs=len(FEATURES), hidden=(64, 32), outputs=2, activation="tanh")
    sizes = {**artifact.trainable_shapes(shape), **artifact.fixed_shapes(shape)}
    arrays = {name: np.zeros(size, np.float32) for name, size in sizes.items()}
    arrays["fixed.feature_scale"] += 1.0
    arrays["fixed.baseline_bias"] += np.log([variance, 1.0]).astype(np.float32)
    manifest = Manifest(
        network=shape,
        features=FEATURES,
        heads=HEADS,
        horizon_s=HORIZON_S,
        release=1,
        rounds=1,
        parent_sha256="",
        policy_sha256="",
        epsilon_micro=0,
        delta=0.0,
        unit="position",
        adjacency="zero-out",
        trained_until_s=0,
        standins=("a constant",),
    )
    return artifact.pack(arrays, manifest)


def _prepare(scene: Scene) -> Scene:
    """Publish the model, fund the account, write the files that an agent reads."""
    chain, transact = scene.chain, scene.devnet.transact
    data = constant_model(1e-6)
    member = MemberKeys.ephemeral()
    membership, registry = Membership(chain.membership), ModelRegistry(chain.model_registry)
    for call in (
        membership.admit(member.address, member.address, b"\0" * 32, 1),
        membership.admit(OPERATOR, OPERATOR, b"\0" * 32, 4),
    ):
        scene.devnet.govern(chain.name, call)
    transact(chain.name, OPERATOR, registry.open_release(1, b"\1" * 32, "00" * 32, 5, [1], []))
    sha256 = artifact.sha256_of(data)
    digest = ask(scene.devnet.rpc(chain.name), registry.digest(1, 1, sha256, "file:a", 1000))
    signed = {member.address: member.sign_digest(bytes(digest))}
    transact(chain.name, OPERATOR, registry.publish(1, 1, sha256, "file:a", 1000, signed))
    scene.devnet.fund(chain.name, scene.keys.address, native_wei=10**20, base=20.0, quote=80_000.0)
    (scene.folder / "model.safetensors").write_bytes(data)
    Deployment(chains=(chain,), home=chain.name).save(scene.folder / "deployment.json")
    scene.anvil.mine()
    price, now_s = scene.price(), scene.anvil.latest().timestamp_s // 3600 * 3600
    scene.anvil.automine(False)
    pl.DataFrame(
        {
            "start_s": [now_s + 3600 - 3600 * (HISTORY_H - i) for i in range(HISTORY_H)],
            "width_s": [3600] * HISTORY_H,
            "open": [price] * HISTORY_H,
            "high": [price * 1.002] * HISTORY_H,
            "low": [price * 0.999] * HISTORY_H,
            "close": [price] * HISTORY_H,
            "notional_usd": [2e6 + i for i in range(HISTORY_H)],
        }
    ).write_parquet(scene.folder / "history.parquet")
    scene.now_s = now_s + 3660
    scene.anvil.mine(scene.now_s)
    scene.minute()
    return scene


async def _measure(scene: Scene, loop: PlainLoop) -> tuple[list[float], list[float]]:
    await _provide(scene)
    ours, theirs = [], []
    for number in range(WARM_UP + REPETITIONS):
        before, now_s = scene.anvil.snapshot(), scene.now_s
        taken, calls = await _ours(scene, f"run-{number}", loop)
        scene.anvil.revert(before)
        scene.now_s = now_s
        if number >= WARM_UP:
            ours.append(taken)
            theirs.append(calls)
    return ours, theirs


async def _provide(scene: Scene) -> None:
    """Let an agent put its position into the pool, in earnest."""
    execution, stop = Execution(scene.settings("provide")), asyncio.Event()
    async with Node(scene.chain.ws_url) as node:
        task = asyncio.create_task(execution._on_connection(node, stop))
        for _ in range(BLOCKS_TO_PROVIDE):
            if execution._phase == "live":
                await _until(lambda: _dealt(execution, scene), task, "the agent")
            if scene.positions():
                break
            scene.minute()
            await asyncio.sleep(0.2)
        await _end(task, stop, execution)
    if not scene.positions():
        raise NothingSigned("the agent", "no position in the pool")


async def _ours(scene: Scene, run: str, loop: PlainLoop) -> tuple[float, float]:
    """Seconds of one repetition: ours, then theirs at the same block."""
    execution, stop = Execution(scene.settings(run)), asyncio.Event()
    signed_s: list[float] = []
    store = execution._outbox.signed

    def signed(*arguments: Any) -> None:
        store(*arguments)
        signed_s.append(perf_counter())

    execution._outbox.signed = signed  # type: ignore[method-assign,assignment]
    async with _Watched(scene.chain.ws_url) as node:
        node.holds = True
        task = asyncio.create_task(execution._on_connection(node, stop))
        await _until(lambda: _dealt(execution, scene), task, "the agent")
        if signed_s:
            raise NothingSigned("the agent", "it acted before the block that is measured")
        scene.queue_sale()
        await asyncio.to_thread(scene.mine)
        await _until(lambda: bool(signed_s), task, "the agent")
        taken = signed_s[0] - node.arrived_s
        await _end(task, stop, execution)
    begin = perf_counter()
    if not loop.on_head():
        raise NothingSigned("the web3.py loop", "its position is still in range")
    return taken, perf_counter() - begin


def _dealt(execution: Execution, scene: Scene) -> bool:
    """Whether the agent is live and has decided on the newest block."""
    agent = execution._agent
    receipt = agent.last_receipt if agent is not None else None
    newest = scene.anvil.latest().number
    return execution._phase == "live" and receipt is not None and receipt.block == newest


async def _until(met: Callable[[], bool], task: asyncio.Task[None], side: str) -> None:
    """Wait for something; raises what the task raised, or NothingSigned."""
    limit_s = perf_counter() + LIMIT_S
    while not met():
        if task.done():
            task.result()
        if perf_counter() > limit_s:
            raise NothingSigned(side, "time is over")
        await asyncio.sleep(0.005)


async def _end(task: asyncio.Task[None], stop: asyncio.Event, execution: Execution) -> None:
    stop.set()
    await task
    execution.close()
