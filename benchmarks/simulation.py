"""Simulated rounds of 50 members, beside Flower's simulation with Ray.

Ours is the whole private protocol: every member takes its steps, masks,
seals and signs, and a committee of five unmasks the sum. Theirs is FedAvg of 50 clients with as many
plain SGD steps, nothing private: the same network, the same loss, as many windows a step. Each side
runs in a process of its own. Two sizes:

sim_round_50        8 local DP-SGD steps with the member's own noise, 1,490 parameters (the demo's)
grid_round_50x50k   one step with the committee's noise, 49,794 parameters

Both are Flower apps and messages. Ours run on the embedded grid with two processes beside the
coordinator's, as Ray's; manifests become final by certificate.

50 members have 50 disks, and one machine has one, so the folders of the rehearsal lie in memory. A
start is what comes before the second round less one round, imports left out on both sides. All times
are by the clock, since Ray works in many processes.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are imported

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Row, row
from fedtrade.artifact import NetworkShape
from fedtrade.errors import Fault
from fedtrade.learning.baseline import initial_arrays

MEMBERS, ROUNDS, WINDOWS = 50, 6, 4
RATE = 0.1
LIMIT_S = 180
PACKAGES = ("flwr", "ray", "torch", "numpy")
IN_MEMORY: Final = Path("/dev/shm")

QUIET: Final = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass(frozen=True, slots=True)
class Work:
    """What a round of either side computes."""

    steps: int
    features: int
    hidden: tuple[int, ...]
    parameters: int
    positions: int
    sampling: float
    local: bool
    """Whether ours adds the member's own noise in every step, or the committee's to the sum."""

    def changes(self) -> dict[str, object]:
        """What differs from the rehearsal's small parameters."""
        common: dict[str, object] = {"sampling_rate": self.sampling, "agreement": "certificate"}
        if not self.local:
            return common
        common |= {"local_steps": self.steps, "local_learning_rate": RATE}
        return common | {"server_optimiser": "momentum", "beta1": 0.0, "learning_rate": RATE}


WORK: Final = {
    "sim_round_50": Work(8, 28, (32, 16), 1_490, positions=40, sampling=0.2, local=True),
    "grid_round_50x50k": Work(1, 64, (256, 128), 49_794, positions=100, sampling=0.05, local=False),
}


class NotARound(Fault):
    """A side whose rounds did not do what is compared."""

    def __init__(self, side: str, problem: str) -> None:
        super().__init__(f"{side}: {problem}. Its time would say nothing")
        self.side = side
        self.problem = problem


def rows() -> list[Row]:
    """Seconds of a round and of the start, ours beside Ray's."""
    found = []
    for name, work in WORK.items():
        ours, theirs = _apart("ours", name), _apart("theirs", name)
        named = f"Flower simulation with Ray, {MEMBERS} clients × {work.steps} plain SGD steps"
        clock = f"by the clock, {work.parameters} parameters, both in two processes, ours with DP"
        found.append(row(name, f"{named}, FedAvg", ours[0], theirs[0], "s", PACKAGES, clock))
        if work.local:
            start = ours[1], theirs[1]
            found.append(row("sim_start_50", f"{named}: start", *start, "s", PACKAGES, clock))
    return found


def _apart(side: str, name: str) -> tuple[float, float]:
    """(seconds of a round, of the start) of one side, in processes that end with this call.

    Raises NotARound.
    """
    with TemporaryDirectory(prefix="sim") as folder:
        home = f"{folder}/flwr"
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.simulation", side, name, folder],
            env={**os.environ, **QUIET, "FLWR_HOME": home},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            out, log = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            raise NotARound(side, f"it took longer than {LIMIT_S} s") from None
        finally:
            _end(home)
            process.wait()
    if process.returncode:
        raise NotARound(side, f"it ended with {process.returncode}: {log[-400:]}")
    round_s, start_s = json.loads(out.splitlines()[-1])
    return float(round_s), float(start_s)


def _end(home: str) -> None:
    """End every process that was started with this FLWR_HOME: Ray gives its own ones other groups."""
    mark = f"FLWR_HOME={home}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:  # it has ended, or is not ours to look at
            continue


def _result(begin: float, ends: Sequence[float]) -> tuple[float, float]:
    """(median round, start) from when the first of `ends` and each round after it ended."""
    taken = [b - a for a, b in pairwise(ends)]
    one = median(taken)
    return one, ends[0] - begin - one


def ours(work: Work, _folder: str) -> tuple[float, float]:
    """The private protocol, on the embedded grid."""
    import dp_accounting.rdp  # noqa: F401 - imports are no part of the start, on either side

    from consortium.rehearsal import SMALL, rehearse, small_base
    from fedtrade.parameters import PrivacyParameters
    from server.release import Exchange

    parameters = PrivacyParameters.model_validate({**SMALL.model_dump(), **work.changes()})
    ends: list[float] = []
    memory = IN_MEMORY if IN_MEMORY.is_dir() else None
    begin = perf_counter()
    with TemporaryDirectory(dir=memory) as folder:
        consortium = rehearse(
            Path(folder),
            members=MEMBERS,
            parameters=parameters,
            base=small_base(work.features, work.hidden),
            positions_each=work.positions,
        )
        if consortium.terms.dimension != work.parameters:
            raise NotARound("ours", f"{consortium.terms.dimension} parameters")

        def run(exchange: Exchange) -> None:
            for _ in range(1 + ROUNDS):
                report = consortium.release.run_round(exchange)
                if len(report.cohort) != MEMBERS:
                    raise NotARound("ours", f"a cohort of {len(report.cohort)}")
                ends.append(perf_counter())

        consortium.over_flower(run, processes=2)
        consortium.close()
    return _result(begin, ends)


def theirs(work: Work, folder: str) -> tuple[float, float]:
    """FedAvg of plain SGD on Flower's simulation with Ray."""
    from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    client, server = ClientApp(), ServerApp()
    ends: list[float] = []
    drift: list[float] = []

    @client.train()
    def train(message: Message, context: Context) -> Message:
        import torch

        from benchmarks.simulation import plain_steps

        torch.set_num_threads(1)
        seed = int(context.node_config["partition-id"])
        arrays = message.content.array_records["arrays"].to_numpy_ndarrays()
        trained = ArrayRecord(plain_steps(work, [np.asarray(a) for a in arrays], seed))
        weight = MetricRecord({"num-examples": work.positions})
        return Message(RecordDict({"arrays": trained, "metrics": weight}), reply_to=message)

    @server.main()
    def main(grid: Grid, _context: Context) -> None:
        start = initial(work)

        def after(number: int, arrays: ArrayRecord) -> MetricRecord | None:
            if number:
                ends.append(perf_counter())
                moved = zip(arrays.to_numpy_ndarrays(), start, strict=True)
                drift.append(float(sum(np.abs(a - b).sum() for a, b in moved)))
            return None

        strategy = FedAvg(
            fraction_evaluate=0.0, min_train_nodes=MEMBERS, min_available_nodes=MEMBERS
        )
        strategy.start(
            grid, ArrayRecord(start), 1 + ROUNDS, train_config=ConfigRecord(), evaluate_fn=after
        )

    begin = perf_counter()
    run_simulation(
        server,
        client,
        MEMBERS,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": 2, "_temp_dir": f"{folder}/ray", "include_dashboard": False},
        },
    )
    if len(ends) != 1 + ROUNDS or not all(0 < d < 1e6 for d in drift):
        raise NotARound("theirs", f"{len(ends)} rounds, moved by {drift}")
    return _result(begin, ends)


def initial(work: Work) -> list[NDArray[np.float32]]:
    """Weights and biases of the network that ours starts from, layer by layer."""
    arrays = initial_arrays(
        NetworkShape(inputs=work.features, hidden=work.hidden, outputs=2), seed=1
    )
    layers = [*(f"dense{i}" for i in range(len(work.hidden))), "head"]
    return [arrays[f"{layer}.{part}"] for layer in layers for part in ("weight", "bias")]


def plain_steps(
    work: Work, arrays: Sequence[NDArray[np.float32]], seed: int
) -> list[NDArray[np.float32]]:
    """Steps of plain SGD on one batch of a client's own, with torch's layers and our loss."""
    import torch
    from torch import nn

    from fedtrade.learning.network import window_losses

    sizes = (work.features, *work.hidden, 2)
    layers: list[nn.Module] = []
    for width, height in pairwise(sizes):
        layers += [nn.Linear(width, height), nn.Tanh()]
    model = nn.Sequential(*layers[:-1])
    with torch.no_grad():
        for parameter, array in zip(model.parameters(), arrays, strict=True):
            parameter.copy_(torch.from_numpy(array.copy()))
    optimiser = torch.optim.SGD(model.parameters(), lr=RATE)
    rng = np.random.default_rng(seed)
    rows = int(work.positions * work.sampling) * WINDOWS
    features = torch.from_numpy(rng.standard_normal((rows, work.features)).astype(np.float32))
    targets = torch.from_numpy(rng.standard_normal((rows, 2)).astype(np.float32))
    for _ in range(work.steps):
        optimiser.zero_grad()
        window_losses(model(features), targets)[0].mean().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return [parameter.detach().numpy() for parameter in model.parameters()]


def main(arguments: Sequence[str] | None = None) -> int:
    """One side, in this process; prints its seconds of a round and of the start."""
    parser = argparse.ArgumentParser(prog="benchmarks.simulation")
    parser.add_argument("side", choices=("ours", "theirs"))
    parser.add_argument("work", choices=WORK)
    parser.add_argument("folder", help="an empty folder for what the side writes")
    given = parser.parse_args(arguments)
    print(json.dumps({"ours": ours, "theirs": theirs}[given.side](WORK[given.work], given.folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
