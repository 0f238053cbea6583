"""The main job, end to end: `fedtrade demo`.

Three local chains with real Uniswap v3; eight members who train one model on private positions and
show nobody a number of them; a hash that each of them has recomputed, published on the home chain and
carried to the mirrors on the others; a proposal that tightens a limit everywhere; three agents who
act through Safes, accept only that model, and go through a recorded crash with it; and a report.

What is simulated is said in `STANDINS`, in the report and in summary.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from rich.console import Console

from consortium import learn, tell, trade
from consortium.carriers import Carriers, Vouching
from consortium.crash import MarketSettings
from consortium.govern import decide, pass_until
from consortium.stages import Stages
from consortium.tell_governance import tell_governance
from fedtrade.dashboard import Report, render, summary_table
from fedtrade.devnet.deploy import Genesis
from fedtrade.devnet.net import Devnet
from fedtrade.errors import BadInput, Fault, FedtradeError, Refusal, Stale
from fedtrade.learning.baseline import base_artifact
from fedtrade.learning.tables import candles, crash_minutes
from fedtrade.learning.training import DEFAULTS, DEMO_HIDDEN, DEMO_SEED, FEDERATED_NOISE_MULTIPLIER
from fedtrade.parameters import PrivacyParameters
from fedtrade.simulation.positions import STANDIN

CRASH_FROM_S: Final = 1_749_758_400
"""2025-06-12 20:00 UTC, four hours before the fall of 13 June 2025."""
CRASH_MINUTES: Final = 600
EARLIER_S: Final = 3_600
"""The chains begin this long before the crash window: time for rounds, publication and a vote."""
GAS_MONEY_WEI: Final = 10**20
VOLUME_SCALE: Final = 0.001
SEED: Final = 20250613

PARAMETERS: Final = PrivacyParameters(
    sampling_rate=DEFAULTS.sampling_rate,
    noise_multiplier=FEDERATED_NOISE_MULTIPLIER,
    clip_norm=DEFAULTS.clip_norm,
    rounds=DEFAULTS.rounds,
    delta=1e-6,
    epsilon_cap=8.0,
    cohort_min=5,
    helpers=5,
    corrupt=2,
    learning_rate=DEFAULTS.optimiser.learning_rate,
    beta1=DEFAULTS.optimiser.beta1,
    beta2=DEFAULTS.optimiser.beta2,
)

TIGHTENED: Final = {"epochNotionalMax": 2_000_000}
"""What the members decide before the crash: the most that an agent's orders of a day send out."""
WHY: Final = "Before the weekend: no Safe sends out more than two million a day"

STANDINS: Final = (
    STANDIN,
    "the price feed has one operator in place of an oracle committee",
    "the tokens are mintable test tokens on local chains",
    f"gas is counted at a stated price of {trade.NATIVE_PRICE_QUOTE:,.0f} USDC",
    f"noise traders trade {VOLUME_SCALE:.1%} of the recorded volume in random directions",
    "the pools' other liquidity is one full-range position: a concentrated range earns more here "
    "than it would among concentrated rivals",
    "all members, helpers, the coordinator, the members' validators and the relayer share one "
    "process; the agents have their own",
    "members vote by a script, and the chains' clocks are moved on instead of waiting for a vote",
    "each Safe belongs to three members whose keys lie on this machine",
)


def run(out: Path, rounds: int | None, minutes: int, console: Console) -> Report:
    """The whole demo into `out`; gives the report that it wrote."""
    parameters = PARAMETERS.model_copy(update={"rounds": rounds or PARAMETERS.rounds})
    day = crash_minutes()
    window = day.between(CRASH_FROM_S, CRASH_FROM_S + 60 * minutes)
    if len(window.start_s) != minutes:
        most = int((day.end_s[-1] - CRASH_FROM_S) // 60)
        raise BadInput("--minutes", f"{minutes} are not recorded", f"Give 10 to {most}")
    out.mkdir(parents=True, exist_ok=True)
    trade.clear(out)
    stages = Stages(console)
    price = float(window.open[0])
    with stages.stage("members") as progress:
        progress("keys and simulated books", 0, 1)
        books, coordinator, seats = learn.found(out, SEED, parameters.helpers)
        members = [book.party.keys for book in books]
        progress("keys and simulated books", 1, 1)
    with stages.stage("chains") as progress:
        progress("three local chains, a consortium, two mirrors", 0, 1)
        genesis = Genesis(
            start_s=CRASH_FROM_S - EARLIER_S, slippage_max_bps=trade.SAFE_LIMITS.slippage_max_bps
        )
        devnet = Devnet.up(plans=trade.plans(price), genesis=genesis, seats=seats)
        progress("three local chains, a consortium, two mirrors", 1, 1)
    with devnet, ExitStack() as stack:
        home = devnet.deployment.home
        for address in (coordinator.address, *(member.address for member in members)):
            devnet.fund(home, address, native_wei=GAS_MONEY_WEI)
        base = base_artifact(DEMO_HIDDEN, DEMO_SEED, standins=(STANDIN,))
        with stages.stage("training") as progress:
            trained = learn.train(out, devnet, books, coordinator, parameters, base, progress)
        with stages.stage("judging") as progress:
            artifact = trained.finished.artifact
            judged = learn.judge(books, base, artifact, parameters, SEED, progress)
        with stages.stage("governance") as progress:
            progress("mirrors, a proposal, Safes", 0, 4)
            vouching = [Vouching(book.party.keys, book.party.folder) for book in books]
            carriers = stack.enter_context(Carriers(out, devnet, vouching))
            model_seconds = carriers.carry()
            progress("mirrors, a proposal, Safes", 1, 4)
            decided = decide(devnet, members, TIGHTENED, WHY)
            progress("mirrors, a proposal, Safes", 2, 4)
            parameters_seconds = carriers.carry()
            progress("mirrors, a proposal, Safes", 3, 4)
            trade.set_up_safes(out, devnet, members[: trade.OWNERS])
            progress("mirrors, a proposal, Safes", 4, 4)
        pass_until(devnet, CRASH_FROM_S - 60)
        registries = tell.check_hashes(devnet, trained.finished.artifact_sha256)
        with stages.stage("crash") as progress:
            history = (
                candles(tell.VENUE, tell.SYMBOL).between(0, int(day.start_s[0])),
                day.between(0, CRASH_FROM_S - 60),
            )
            path = out / "model" / "artifact.safetensors"
            with trade.open_floor(out, devnet, path, history, VOLUME_SCALE) as floor:
                settings = MarketSettings(volume_scale=VOLUME_SCALE)
                traded = trade.replay_crash(
                    floor, devnet, window, settings, SEED, carriers, progress
                )
        with stages.stage("report") as progress:
            chains = []
            names = [chain.name for chain in devnet.deployment.chains]
            for place, name in enumerate(names):
                progress("replaying journals, checking chains", place, len(names))
                known, told = devnet.deployment.chain(name), tell.read_journal(traded.folders[name])
                tell.check_halt(told, known, devnet.rpc(name), traded.keys[name])
                chains.append(tell.tell_chain(known, traded.series[name], told, registries[name]))
            progress("replaying journals, checking chains", len(names), len(names))
            seconds = dict(stages.seconds)
            report = Report(
                title="fedtrade: one private model, three chains, one crash",
                subtitle="ETH, 12 and 13 June 2025, as recorded minute by minute",
                artifact_sha256=trained.finished.artifact_sha256,
                release=learn.RELEASE,
                rounds=parameters.rounds,
                standins=list(STANDINS),
                seconds=seconds,
                training=list(trained.points),
                epsilon=trained.epsilon,
                metrics=dict(judged.metrics),
                solo=list(judged.solo),
                forecasts={
                    tell.SYMBOL: tell.forecasts(artifact, CRASH_FROM_S, CRASH_FROM_S + 60 * minutes)
                },
                chains=chains,
                governance=tell_governance(
                    devnet, decided, model_seconds, parameters_seconds, traded.keys
                ),
                verdict=tell.verdict(judged, chains),
            )
            (out / "report.html").write_text(render(report), encoding="utf-8")
    _write_summary(out, report.model_copy(update={"seconds": stages.seconds}))
    return report


def _write_summary(out: Path, report: Report) -> None:
    summary = {
        "chains": [
            {"name": c.name, "chain_id": c.chain_id, "registry_hash": c.registry_hash}
            for c in report.chains
        ],
        "artifact_sha256": report.artifact_sha256,
        "rounds": report.rounds,
        "epsilon": report.epsilon.model_dump(),
        "metrics": {name: s.model_dump() for name, s in report.metrics.items()},
        "agents": {
            c.name: {
                "actions": len(c.actions),
                "transactions": c.transactions,
                "pnl": c.pnl,
                "pnl_static_lp": c.pnl_static_lp,
                "pnl_hold": c.pnl_hold,
                "breakers": [p.model_dump() for p in c.levels if p.level != "NORMAL"],
            }
            for c in report.chains
        },
        "governance": report.governance.model_dump() if report.governance else None,
        "seconds": report.seconds,
        "standins": report.standins,
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; gives the exit code."""
    parser = argparse.ArgumentParser(prog="fedtrade demo", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for the report")
    parser.add_argument("--rounds", type=int, help="fewer rounds, for a quick look")
    parser.add_argument("--minutes", type=int, default=CRASH_MINUTES, help="of the crash to play")
    given = parser.parse_args(arguments)
    console = Console()
    given.out.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=given.out / "demo.log", filemode="w", level=logging.INFO)
    try:
        report = run(given.out, given.rounds, given.minutes, console)
    except Refusal as error:
        return _leave(error)
    except Stale as error:
        return _leave(error)
    except Fault as error:
        return _leave(error)
    console.print(summary_table(report))
    console.print(f"\nReport: [bold]{(given.out / 'report.html').resolve()}[/bold]")
    return 0


def _leave(error: FedtradeError) -> int:
    print(f"fedtrade demo: {error}", file=sys.stderr)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
