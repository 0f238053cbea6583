"""The second half of the demo: three agents, three chains, and a recorded crash.

Each agent is a process of its own (`python -m clients.execution`), with keys, journal and
transactions in its own folder. What it trades with lies in a Safe of three members: its key sends
orders to the breaker before it, and holds nothing but gas. The market of `crash` plays recorded
minutes; after each block the driver waits until every agent has dealt with it, and mines what they
sent before the next minute's market, so that a slow machine does not change who acts first.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import polars as pl

from clients.custody import Wallet
from clients.keys import MemberKeys
from consortium.carriers import Carriers
from consortium.crash import Amounts, Market, MarketSettings, MinutePlayed
from fedtrade.devnet.accounts import GUARDIAN
from fedtrade.devnet.artifacts import CUSTODY, fetch_packages
from fedtrade.devnet.custody import CustodyPlan, set_up, shared_code
from fedtrade.devnet.deploy import ChainPlan
from fedtrade.devnet.net import Devnet
from fedtrade.errors import Fault, Unavailable
from fedtrade.learning.tables import Candles
from fedtrade.venues.safe import BreakerLimits

CAPITAL_QUOTE: Final = 250_000.0
"""What each agent has: half in the quote, half in the volatile asset at the first price."""
NATIVE_PRICE_QUOTE: Final = 2_700.0
NATIVE_WEI: Final = 10**19
AGENT_WAIT_S: Final = 20.0
"""An agent that has not dealt with a block by then is a fault of the run, not of the market."""
POLL_S: Final = 0.002
LOOK_EVERY: Final = 10
"""Minutes between two looks of validators and relayer, while nothing is on its way."""
STATIC_EVERY: Final = 5
"""Minutes between two valuations on the chain: the resolution of the report's series."""

LIMITS: Final[Mapping[str, Mapping[str, int]]] = {
    "aster": {"drawdown_reduce_bps": 150, "drawdown_halt_bps": 300, "drawdown_unwind_bps": 600},
    "birch": {"drawdown_reduce_bps": 250, "drawdown_halt_bps": 450, "drawdown_unwind_bps": 900},
    "cedar": {"drawdown_reduce_bps": 200, "drawdown_halt_bps": 400, "drawdown_unwind_bps": 500},
}
"""Three treasuries, three appetites. All three are inside the hard bounds."""
ACTION_NOTIONAL_MAX_QUOTE: Final = 300_000
EPOCH_NOTIONAL_MAX_QUOTE: Final = 5_000_000
OWNERS, OWNERS_NEEDED = 3, 2
"""Of each Safe: so many members own it, and so many of them sign together."""
SAFE_LIMITS: Final = BreakerLimits(
    action_notional_max=ACTION_NOTIONAL_MAX_QUOTE,
    epoch_notional_max=EPOCH_NOTIONAL_MAX_QUOTE,
    slippage_max_bps=100,
    oracle_deviation_max_bps=300,
    oracle_age_max_s=3_600,
    model_age_max_s=7 * 86_400,
    mirror_age_max_s=4 * 3_600,
)
"""What the owners allow on each chain; in force is the tighter of these and the governed ones.

A sale in the 0.3 % pool gives up to 0.7 % less than the feed says: the fee, as much again by which
arbitrage leaves the pool's price off, and what the feed itself may be off. With the default of 50 bps
an agent that has to unwind there is refused for hours while the price falls.
"""

Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class Sampled:
    """One chain's series of the replay, every STATIC_EVERY minutes."""

    times_s: list[int] = field(default_factory=list)
    true_price: list[float] = field(default_factory=list)
    pool_price: list[float] = field(default_factory=list)
    static_quote: list[float] = field(default_factory=list)
    hold_quote: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Desk:
    """One agent: its chain, its folder, its key's address, its process."""

    chain: str
    folder: Path
    key: str
    process: subprocess.Popen[bytes]

    def status(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.folder / "status.json").read_text()))
        except FileNotFoundError:
            return {}


@dataclass(frozen=True, slots=True)
class Traded:
    """What the replay leaves behind."""

    series: Mapping[str, Sampled]
    keys: Mapping[str, str]
    """Chain to the address that sends the agent's orders."""
    folders: Mapping[str, Path]


class Floor:
    """The agents' processes. Use as a context manager: none outlives it."""

    def __init__(self, desks: Sequence[Desk]) -> None:
        self.desks = desks

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for desk in self.desks:
            if desk.process.poll() is None:
                desk.process.send_signal(signal.SIGTERM)
        for desk in self.desks:
            try:
                desk.process.wait(10)
            except subprocess.TimeoutExpired:
                desk.process.kill()
                desk.process.wait(10)

    def await_block(self, blocks: Mapping[str, int]) -> bool:
        """Wait until each agent has dealt with its chain's block; whether any has sent something."""
        waiting = False
        for desk in self.desks:
            until = time.monotonic() + AGENT_WAIT_S
            while True:
                status = desk.status()
                if status.get("phase") == "live" and status["block"] >= blocks[desk.chain]:
                    waiting = waiting or bool(status["waiting"])
                    break
                if desk.process.poll() is not None:
                    raise Fault(
                        f"the agent on {desk.chain} ended with code {desk.process.returncode}: "
                        f"{_last_line(desk.folder / 'agent.log')}. See {desk.folder}/agent.log"
                    )
                if time.monotonic() > until:
                    raise Fault(
                        f"the agent on {desk.chain} has not dealt with block "
                        f"{blocks[desk.chain]} in {AGENT_WAIT_S:.0f} s; see {desk.folder}/agent.log"
                    )
                time.sleep(POLL_S)
        return waiting

    def start_up(self, devnet: Devnet) -> None:
        """Wait until every agent is live, making the blocks that its approvals need."""
        until = time.monotonic() + 3 * AGENT_WAIT_S
        while not all(desk.status().get("phase") == "live" for desk in self.desks):
            for desk in self.desks:
                if desk.process.poll() is not None:
                    raise Fault(
                        f"the agent on {desk.chain} did not start: "
                        f"{_last_line(desk.folder / 'agent.log')}"
                    )
            if time.monotonic() > until:
                raise Fault("the agents did not start in time; see their agent.log")
            for desk in self.desks:
                devnet.mine(desk.chain)
            time.sleep(0.2)


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def set_up_safes(folder: Path, devnet: Devnet, owners: Sequence[MemberKeys]) -> None:
    """A Safe behind Roles and breaker on every chain, with the agent's capital in it.

    The agents' keys pay for the set-up; afterwards they can do nothing but send orders.
    """
    shared, chains = shared_code(fetch_packages(CUSTODY)), []
    for chain in devnet.deployment.chains:
        rpc, keys = (
            devnet.rpc(chain.name),
            MemberKeys.create(folder / "agents" / chain.name / "keys"),
        )
        devnet.fund(chain.name, keys.address, native_wei=NATIVE_WEI)
        plan = CustodyPlan(
            owners=tuple(owner.address for owner in owners),
            threshold=OWNERS_NEEDED,
            agent=keys.address,
            guardian=GUARDIAN,
            parameters=chain.parameters,
            models=chain.registry,
            limits=SAFE_LIMITS,
        )
        wallet = Wallet(rpc, keys, chain.chain_id)
        custody = set_up(rpc, wallet.send, keys.address, chain, plan, shared)
        base = CAPITAL_QUOTE / 2 / _pool_price(devnet, chain.name)
        devnet.fund(chain.name, custody.safe, base=base, quote=CAPITAL_QUOTE / 2)
        chains.append(chain.model_copy(update={"custody": custody}))
    devnet.deployment = devnet.deployment.model_copy(update={"chains": tuple(chains)})


def open_floor(
    folder: Path, devnet: Devnet, artifact: Path, history: Sequence[Candles], scale: float
) -> Floor:
    """Start the agents' processes, each with its own key."""
    deployment = folder / "deployment.json"
    devnet.deployment.save(deployment)
    candles = folder / "history.parquet"
    _write_history(candles, history)
    desks = []
    for chain in devnet.deployment.chains:
        own = folder / "agents" / chain.name
        settings = own / "agent.toml"
        settings.write_text(_settings(chain.name, deployment, artifact, candles, scale))
        key = MemberKeys.load(own / "keys").address
        desks.append(Desk(chain.name, own, key, _spawn(settings, own)))
    return Floor(desks)


def _settings(chain: str, deployment: Path, artifact: Path, candles: Path, scale: float) -> str:
    limits = {
        **LIMITS[chain],
        "action_notional_max_quote": ACTION_NOTIONAL_MAX_QUOTE,
        "epoch_notional_max_quote": EPOCH_NOTIONAL_MAX_QUOTE,
    }
    lines = [
        f'deployment = "{deployment.resolve()}"',
        f'chain = "{chain}"',
        'keys = "keys"',
        f'artifact = "{artifact.resolve()}"',
        'folder = "."',
        "[agent]",
        f"capital_quote = {CAPITAL_QUOTE}",
        f"native_price_quote = {NATIVE_PRICE_QUOTE}",
        "[history]",
        f'candles = "{candles.resolve()}"',
        f"notional_scale = {scale}",
        "[limits]",
        *(f"{name} = {value}" for name, value in limits.items()),
    ]
    return "\n".join(lines) + "\n"


def _spawn(settings: Path, folder: Path) -> subprocess.Popen[bytes]:
    log = (folder / "agent.log").open("wb")
    command = [sys.executable, "-m", "clients.execution", "--settings", str(settings)]
    try:
        return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise Unavailable("agent", f"cannot be started ({error})", "See the message") from None
    finally:
        log.close()


def _write_history(path: Path, parts: Sequence[Candles]) -> None:
    """Recorded candles of before the replay, hours first and then minutes, as the agents read."""
    frames = [
        pl.DataFrame(
            {
                "start_s": part.start_s,
                "width_s": [part.width_s] * len(part.start_s),
                "open": part.open,
                "high": part.high,
                "low": part.low,
                "close": part.close,
                "notional_usd": part.notional_usd,
            }
        )
        for part in parts
    ]
    pl.concat(frames).write_parquet(path)


def _pool_price(devnet: Devnet, chain: str) -> float:
    from fedtrade.chain.conversation import ask, read
    from fedtrade.venues.uniswap_v3 import SLOT0

    known = devnet.deployment.chain(chain)
    ((sqrt_price, *_),) = ask(devnet.rpc(chain), read([(known.pool, SLOT0, ())], "latest"))
    return known.pool_key().price(sqrt_price)


def replay_crash(
    floor: Floor,
    devnet: Devnet,
    minutes: Candles,
    settings: MarketSettings,
    seed: int,
    carriers: Carriers,
    progress: Progress,
) -> Traded:
    """Play the minutes on every chain, with the agents in between and the mirrors kept fresh."""
    names = [chain.name for chain in devnet.deployment.chains]
    series = {name: Sampled() for name in names}
    floor.start_up(devnet)
    with Market(devnet.deployment, dict.fromkeys(names, minutes), seed, settings) as market:
        held = market.open_static(CAPITAL_QUOTE)
        total, on_its_way = len(market.minutes), False
        for number in range(total):
            played = market.step()
            sent = floor.await_block({name: minute.block for name, minute in played.items()})
            if sent and number + 1 < total:
                market.include()
                floor.await_block(_heads(devnet, names))
            if on_its_way or number % LOOK_EVERY == 0:
                on_its_way = carriers.look()
            if number % STATIC_EVERY == 0 or number + 1 == total:
                for name in names:
                    _sample(series[name], market, played[name], held[name])
            progress("minutes of the crash", number + 1, total)
    return Traded(
        series,
        {desk.chain: desk.key for desk in floor.desks},
        {desk.chain: desk.folder for desk in floor.desks},
    )


def _heads(devnet: Devnet, names: Sequence[str]) -> dict[str, int]:
    return {name: devnet.anvil(name).latest().number for name in names}


def _sample(series: Sampled, market: Market, minute: MinutePlayed, held: Amounts) -> None:
    series.times_s.append(minute.start_s + 59)
    series.true_price.append(minute.true_price)
    series.pool_price.append(minute.pool_price)
    series.static_quote.append(market.static(minute.chain).value(minute.true_price))
    series.hold_quote.append(held.value(minute.true_price))


def plans(price: float) -> tuple[ChainPlan, ...]:
    """Three markets of one pair on three chains, with different fees and token orders."""
    return (
        ChainPlan("aster", 31101, "WETH", 18, 500, 10, False, price),
        ChainPlan("birch", 31102, "WETH", 18, 500, 10, True, price),
        ChainPlan("cedar", 31103, "WETH", 18, 3000, 60, True, price),
    )


def clear(folder: Path) -> None:
    """Remove what an earlier run left in the folder, and nothing that is not a run's."""
    for name in ("members", "coordinator", "relayer", "agents", "model"):
        shutil.rmtree(folder / name, ignore_errors=True)
