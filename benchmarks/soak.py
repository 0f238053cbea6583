"""Does anything grow? Hundreds of rounds and thousands of decisions in one process.

`python -m benchmarks.soak` -> a table, `out/soak.json` and `out/soak.html`; some minutes, so it is no
part of `make bench`. First one agent decides over and over, on its journal, in an exact market that
moves about one price, with a resync now and then; then a whole consortium of ten members (five of
them helpers) runs one long release over Flower messages on the in-process grid. After each step the
resident memory, open files and threads of this process are read. Memory is fitted by a line after the
first tenth, in which caches fill. (An agent remembers seven days of minutes, so some 40 bytes a
decision are still to be seen up to the 10,080th; a member remembers each round that it has paid.)

Ends with exit code 1 where memory grows by more than SLOPE_MAX_MB, or files or threads do not stay
as they were.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are imported

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.head_to_signed import constant_model
from benchmarks.measure import environment
from consortium.rehearsal import SMALL, rehearse, small_base
from fedtrade import artifact
from fedtrade.agent import Agent, AgentSettings
from fedtrade.errors import Fault
from fedtrade.governed import Governed
from fedtrade.journal import Journal
from fedtrade.market.actions import Action, ProvideLiquidity, SwapExactInput, WithdrawLiquidity
from fedtrade.market.events import (
    ActionSettled,
    BarClosed,
    Event,
    Head,
    Holdings,
    LiquidityChanged,
    ModelPublished,
    OracleUpdated,
    ParametersSeen,
    PoolSnapshot,
    PositionHeld,
    Reorganised,
    Swapped,
)
from fedtrade.market.instruments import PoolKey, Token
from fedtrade.market.pool import Pool, SwapResult, liquidity_for_amounts, sqrt_ratio_at_tick
from fedtrade.risk.limits import Limits
from server.release import Exchange

ROUNDS: Final = 500
TICKS: Final = 10_000
MEMBERS: Final = 10
HIDDEN: Final = (100, 50)
SLOPE_MAX_MB: Final = 1.0
"""MB in 100 rounds, or in 1,000 decisions."""
RESYNC_EVERY: Final = 500
WARM_SHARE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Sample:
    """This process after a step."""

    rss_mb: float
    files: int
    threads: int


@dataclass(frozen=True, slots=True)
class Course:
    """One part of the soak, from its first step to its last."""

    what: str
    per: int
    """Steps to which a slope is stated."""
    samples: tuple[Sample, ...]
    seconds: float

    def rss_mb(self, share: float) -> float:
        """Resident memory after this share of the steps."""
        return self.samples[max(0, math.ceil(share * len(self.samples)) - 1)].rss_mb

    @property
    def warm(self) -> tuple[Sample, ...]:
        return self.samples[math.floor(WARM_SHARE * len(self.samples)) :]

    @property
    def slope_mb(self) -> float:
        """Least squares over what follows the first tenth, in MB per `per` steps."""
        rss = [sample.rss_mb for sample in self.warm]
        return float(np.polyfit(np.arange(len(rss)), rss, 1)[0]) * self.per

    def problems(self) -> list[str]:
        """What has grown."""
        found = []
        if self.slope_mb > SLOPE_MAX_MB:
            found.append(f"{self.what}: memory grows by {self.slope_mb:.2f} MB in {self.per}")
        for name in ("files", "threads"):
            seen = [getattr(sample, name) for sample in self.warm]
            if seen[-1] > seen[0]:
                found.append(f"{self.what}: {name} went from {seen[0]} to {seen[-1]}")
        return found


def sample() -> Sample:
    """This process now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Sample(
        pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        len(os.listdir("/proc/self/fd")),
        len(os.listdir("/proc/self/task")),
    )


def watch(what: str, per: int, steps: Iterator[None]) -> Course:
    """Read this process after each step."""
    start = time.perf_counter()
    samples = tuple(sample() for _ in steps)
    return Course(what, per, samples, time.perf_counter() - start)


# rounds


def soak_rounds(rounds: int, folder: Path) -> Course:
    """One release over Flower messages, in which every member and helper takes part in each round."""
    parameters = SMALL.model_copy(
        update={"rounds": rounds, "noise_multiplier": 40.0, "cohort_min": MEMBERS}
    )
    held: list[Course] = []
    consortium = rehearse(folder, MEMBERS, parameters, small_base(hidden=HIDDEN))

    def run(exchange: Exchange) -> None:
        def steps() -> Iterator[None]:
            while consortium.release.rounds_left:
                if len(consortium.release.run_round(exchange).cohort) != MEMBERS:
                    raise Fault("somebody was left out of a round. Look at the log")
                yield

        held.append(watch("rounds", 100, steps()))

    try:
        consortium.over_flower(run)
    finally:
        consortium.close()
    return held[0]


# decisions

POOL, FEED = "0xP", "0xF"
KEY: Final = PoolKey(POOL, Token("0xA", "WETH", 18), Token("0xB", "USDC", 6), 500, 10, True)
TICK, DEPTH = -197_100, 2 * 10**17
START_S: Final = 1_750_000_020 // 60 * 60
HISTORY_H: Final = 170


@dataclass
class Market:
    """A chain with one exact pool; it carries the agent's actions out and tells everything."""

    rng: np.random.Generator
    amount0: int = 4 * 10**18
    amount1: int = 60_000 * 10**6
    now_s: int = START_S
    number: int = 100
    pool: Pool = field(init=False)
    held: dict[int, tuple[PositionHeld, tuple[int, int]]] = field(default_factory=dict)
    """token -> position, and the fee growth inside it at its start."""
    tokens: int = 0

    def __post_init__(self) -> None:
        ticks = ((-887_270, DEPTH, DEPTH, 0, 0), (887_270, DEPTH, -DEPTH, 0, 0))
        self.pool = Pool(
            KEY,
            PoolSnapshot(self.number, POOL, sqrt_ratio_at_tick(TICK), TICK, DEPTH, 0, 0, ticks),
        )

    def history(self) -> list[Event]:
        price = KEY.price(self.pool.sqrt_price_x96)
        starts = [START_S - 3600 * (HISTORY_H - i) for i in range(HISTORY_H)]
        return [BarClosed(s, 3600, price, price * 1.004, price * 0.998, price, 2e6) for s in starts]

    def state(self) -> list[Event]:
        governed = ParametersSeen(self.number, Governed().values, False, self.now_s, False)
        return [self.pool.snapshot(self.number), self.holdings(), self.oracle(), governed]

    def oracle(self) -> Event:
        answer = round(KEY.price(self.pool.sqrt_price_x96) * 1e8)
        return OracleUpdated(self.number, 99, FEED, answer, 8, self.now_s)

    def holdings(self) -> Event:
        held = []
        for p, marks in self.held.values():
            fees = self.pool.fees_owed(p.tick_lower, p.tick_upper, p.liquidity, *marks)
            held.append(replace(p, owed0=fees[0], owed1=fees[1]))
        return Holdings(self.number, self.amount0, self.amount1, 10**18, tuple(held))

    def head(self) -> Head:
        return Head(self.number, f"0x{self.number}", f"0x{self.number - 1}", self.now_s, 10**9)

    def block(self, actions: Sequence[Action]) -> list[Event]:
        """A minute later: the agent's actions, somebody's trade, the oracle, how actions ended."""
        self.number += 1
        self.now_s += 60
        events = [self._carry_out(action, index) for index, action in enumerate(actions)]
        # The price returns to where it began, so that no drawdown ends the agent's work.
        away = self.pool.tick - TICK
        target = sqrt_ratio_at_tick(TICK + round(0.9 * away + 6 * self.rng.standard_normal()))
        if target != self.pool.sqrt_price_x96:
            done = self.pool.swap(target < self.pool.sqrt_price_x96, 10**40, target)
            events.append(self._swapped(len(events), done))
        events.append(self.oracle())
        events += [ActionSettled(self.number, a.action_id, "confirmed", 10**14) for a in actions]
        return [*events, self.holdings()] if actions else events

    def _swapped(self, index: int, done: SwapResult) -> Event:
        moved, after = (
            (done.amount0, done.amount1),
            (done.sqrt_price_x96, done.liquidity, done.tick),
        )
        return Swapped(self.number, index, POOL, *moved, *after)

    def _carry_out(self, action: Action, index: int) -> Event:
        match action:
            case SwapExactInput():
                done = self.pool.swap(action.sell_token0, action.amount_in)
                self.amount0 -= done.amount0
                self.amount1 -= done.amount1
                return self._swapped(index, done)
            case ProvideLiquidity():
                ticks = (action.tick_lower, action.tick_upper)
                liquidity = liquidity_for_amounts(
                    self.pool.sqrt_price_x96, *ticks, action.amount0, action.amount1
                )
                self.tokens += 1
                position = PositionHeld(self.tokens, *ticks, liquidity, 0, 0)
                change = self._liquidity(index, ticks, liquidity)
                self.held[self.tokens] = (position, self.pool.fee_growth_inside(*ticks))
                return change
            case WithdrawLiquidity():
                position, marks = self.held.pop(action.token_id)
                ticks = (position.tick_lower, position.tick_upper)
                fees = self.pool.fees_owed(*ticks, position.liquidity, *marks)
                self.amount0 += fees[0]
                self.amount1 += fees[1]
                return self._liquidity(index, ticks, -position.liquidity)

    def _liquidity(self, index: int, ticks: tuple[int, int], liquidity: int) -> Event:
        a0, a1 = self.pool.change_liquidity(*ticks, liquidity)
        sign = 1 if liquidity > 0 else -1
        self.amount0 -= sign * a0
        self.amount1 -= sign * a1
        return LiquidityChanged(self.number, index, POOL, "0xM", *ticks, liquidity, a0, a1)


def soak_decisions(ticks: int, folder: Path) -> tuple[Course, int]:
    """One agent with its journal; gives also how many actions it took."""
    data = constant_model(1e-5)
    sha256 = artifact.sha256_of(data)
    told = AgentSettings(
        chain="aster",
        key=KEY,
        feed=FEED,
        limits=Limits(epoch_notional_max_quote=5_000_000),
        capital_quote=50_000.0,
        native_price_quote=2_700.0,
        cooldown_s=1800,
    )
    agent, market = Agent(told, data, sha256), Market(np.random.default_rng(1))
    with Journal(folder / "journal.jsonl") as journal:

        def decide(events: Sequence[Event]) -> list[Action]:
            for event in events:
                journal.run(agent, event)
            return journal.run(agent, market.head())

        published: Event = ModelPublished(market.number, 1, sha256, START_S - 3600, 1)

        def steps() -> Iterator[None]:
            actions = decide([*market.history(), *market.state(), published])
            for number in range(1, ticks + 1):
                events = market.block(actions)
                if number % RESYNC_EVERY == 0:  # as after a lost connection
                    events += [Reorganised(market.number - 1), *market.state(), published]
                actions = decide(events)
                yield

        course = watch("decisions", 1000, steps())
    return course, agent.actions


# what is told


def page(courses: Sequence[Course], note: str) -> go.Figure:
    """Resident memory over the steps of each part."""
    shown = make_subplots(rows=1, cols=len(courses), subplot_titles=[c.what for c in courses])
    for place, course in enumerate(courses, start=1):
        rss = [one.rss_mb for one in course.samples]
        shown.add_scatter(
            x=list(range(1, len(rss) + 1)),
            y=rss,
            mode="lines",
            line_color="#0b6e4f",
            name=f"{course.what}: {course.slope_mb:+.2f} MB in {course.per}",
            row=1,
            col=place,
        )
        shown.update_yaxes(title_text="resident memory, MB", rangemode="tozero", row=1, col=place)
        shown.update_xaxes(title_text=course.what, row=1, col=place)
    shown.update_layout(
        template="plotly_white",
        title=f"fedtrade: memory of one process at work<br><sup>{note}</sup>",
        legend={"orientation": "h", "y": -0.2},
    )
    return shown


def table(courses: Sequence[Course]) -> Table:
    heads = ("", "10 %", "50 %", "100 %", "slope", "files", "threads", "s")
    shown = Table(*heads, box=box.SIMPLE_HEAD, title="memory in MB after so many of all steps")
    for course in courses:
        first, last = course.warm[0], course.samples[-1]
        shown.add_row(
            f"{len(course.samples)} {course.what}",
            *(f"{course.rss_mb(share):.1f}" for share in (0.1, 0.5, 1.0)),
            f"{course.slope_mb:+.2f} in {course.per}",
            f"{first.files}→{last.files}",
            f"{first.threads}→{last.threads}",
            f"{course.seconds:.0f}",
        )
    return shown


def write(out: Path, courses: Sequence[Course], actions: int) -> None:
    """`soak.json` and `soak.html`."""
    out.mkdir(parents=True, exist_ok=True)
    machine = environment("flwr", "numpy", "torch", clock="by the clock")
    body = {
        "environment": machine,
        "members": MEMBERS,
        "actions": actions,
        "parts": [
            {
                "what": course.what,
                "steps": len(course.samples),
                "rss_mb": {str(share): course.rss_mb(share) for share in (0.1, 0.5, 1.0)},
                "slope_mb": course.slope_mb,
                "slope_per_steps": course.per,
                "files": [course.warm[0].files, course.samples[-1].files],
                "threads": [course.warm[0].threads, course.samples[-1].threads],
                "seconds": course.seconds,
                "problems": course.problems(),
            }
            for course in courses
        ],
    }
    (out / "soak.json").write_text(json.dumps(body, indent=1) + "\n")
    page(courses, machine).write_html(out / "soak.html", include_plotlyjs=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; gives the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.soak", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--ticks", type=int, default=TICKS)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="fedtrade-soak-") as name:
        decisions, actions = soak_decisions(given.ticks, Path(name))
        rounds = soak_rounds(given.rounds, Path(name) / "consortium")
    courses = (decisions, rounds)
    write(given.out, courses, actions)
    Console().print(table(courses))
    problems = [problem for course in courses for problem in course.problems()]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
