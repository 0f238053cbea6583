"""How a figure is taken: ours and theirs in turn, in one process, on one thread, by medians.

A machine that is slow for a while is slow for both sides that way. Nothing is ever compared with a
figure from another run. What only computes is taken in CPU time, so that other work on the machine
does not count; it equals the time on the clock of a machine that is idle. What talks to a node or
writes to disk is taken by the clock. Each row's environment says which.
"""

from __future__ import annotations

import gc
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any, Literal

from fedtrade.errors import Fault

Unit = Literal["ms", "us", "s", "/s", "B", "1"]
PER_SECOND: Mapping[str, float] = {"s": 1.0, "ms": 1e3, "us": 1e6}


class DataAbsent(Fault):
    """The research data pack, or a file of it, is not beside the checkout."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path.name} is not in {path.parent}. Put the recorded data there.")
        self.path = path


@dataclass(frozen=True, slots=True)
class Row:
    """One line of `out/bench.json`."""

    name: str
    counterpart: str
    ours: float
    theirs: float
    unit: Unit
    ratio: float
    """How many times better ours is: theirs/ours, for rates ours/theirs."""
    environment: str


def row(
    name: str,
    counterpart: str,
    ours: float,
    theirs: float,
    unit: Unit,
    packages: tuple[str, ...] = (),
    clock: str = "CPU time",
) -> Row:
    """A row; `packages` are named with their versions beside the machine."""
    ratio = ours / theirs if unit == "/s" else theirs / ours
    return Row(name, counterpart, ours, theirs, unit, ratio, environment(*packages, clock=clock))


def as_dict(found: Row | Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON has it, with the environment where a module left it out."""
    data = asdict(found) if isinstance(found, Row) else dict(found)
    data.setdefault("environment", environment(clock="by the clock"))
    return data


def alternate(
    sides: Mapping[str, Callable[[], object]],
    repetitions: int,
    inner: Mapping[str, int] | None = None,
    clock: Callable[[], float] = process_time,
) -> dict[str, float]:
    """Median seconds of one call of each side, after a warm-up of each, one after the other.

    `inner` says how often a cheap side is called in each repetition.
    """
    for call in sides.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in sides}
    gc.collect()
    gc.disable()
    try:
        for _ in range(repetitions):
            for name, call in sides.items():
                for _ in range((inner or {}).get(name, 1)):
                    begin = clock()
                    call()
                    times[name].append(clock() - begin)
    finally:
        gc.enable()
    return {name: median(values) for name, values in times.items()}


def environment(*packages: str, clock: str = "") -> str:
    """Machine, Python and the packages compared: what a figure depends on besides the code."""
    parts = [
        f"{_processor()}, {os.cpu_count()} cores, 1 thread",
        f"Python {platform.python_version()}",
    ]
    for package in packages:
        try:
            parts.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            parts.append(f"{package} not installed")
    return "; ".join([*parts, clock] if clock else parts)


def _processor() -> str:
    """The processor's name as Linux has it, or the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
