"""How cost grows with members and with parameters -> `out/growth.html`, `out/growth.json`.

`python -m benchmarks.growth`; some minutes, so it is no part of `make bench`. Ours is the real path
(see `benchmarks.rounds`), lane B and lane C; beside it stands Flower's SecAgg+, each point of it in a
process of its own that is ended after CAP_S seconds of CPU time. What was cut is said in both files,
and no larger point of that kind is tried. All times are CPU time of one thread.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are imported

import argparse
import json
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final, Literal

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from benchmarks.flower_secagg import FlowerRound
from benchmarks.measure import environment
from benchmarks.rounds import PACKAGES, bench, flower_unmask
from fedtrade.errors import Fault

CAP_S = 60
BY_MEMBERS = (10, 20, 50, 100, 200)
FEATURES = 63
HIDDEN: Final = {
    10_000: (100, 35),
    100_000: (230, 366),
    1_000_000: (1000, 933),
    5_000_000: (2000, 2431),
}
"""Hidden layers that give about so many parameters."""
BFV_MEMBERS, BFV_PARAMETERS = (10, 20, 50), (10_000, 100_000)
"""Lane C is for small models: a helper gets half of every ciphertext, some 8 B a parameter and
member, in one message, and no message is over 64 MiB."""
FEW, MANY = 10, 100_000
"""Members while parameters grow, parameters while members grow."""

Side = Literal["lane B", "lane C", "SecAgg+"]
TITLES: Final[dict[Side, str]] = {
    "lane B": "fedtrade, mask committee",
    "lane C": "fedtrade, collective-key BFV",
    "SecAgg+": "Flower SecAgg+",
}
COLOURS: Final[dict[Side, str]] = {"lane B": "#0b6e4f", "lane C": "#3a6ea5", "SecAgg+": "#c1440e"}
PANELS: Final = (
    ("member_ms", "a member's work, ms"),
    ("unmask_ms", "unmasking, ms (slowest helper; Flower: server)"),
    ("upload_bytes", "an upload, bytes"),
)


@dataclass(frozen=True, slots=True)
class Point:
    """What a round of one size costs on one side."""

    side: Side
    members: int
    parameters: int
    member_ms: float
    unmask_ms: float
    upload_bytes: int


@dataclass(frozen=True, slots=True)
class Cut:
    """A point of Flower's that took longer than CAP_S."""

    members: int
    parameters: int


def ours(side: Side, members: int, parameters: int) -> Point:
    """One of our points: medians over a few rounds, the sums checked."""
    hidden = HIDDEN[parameters]
    repetitions = 3 if members * parameters < 5 * 10**6 else 2
    lane: Literal["mask", "bfv"] = "bfv" if side == "lane C" else "mask"
    with bench(members, FEATURES, hidden, aggregation=lane) as rounds:
        member_s = rounds.member_s(2 * repetitions)
        unmask_s = rounds.unmasking(repetitions).helper_s
        size = rounds.terms.dimension
        return Point(side, members, size, member_s * 1e3, unmask_s * 1e3, rounds.upload_bytes)


def theirs(members: int, parameters: int) -> Point:
    """One point of Flower's, in this process."""
    flower = FlowerRound(members, parameters)
    flower.share()
    before = dict(flower.member_s)
    unmask_s, _ = flower_unmask(flower)  # in which every member masks once, and reveals
    member_s = median(flower.member_s[i] for i in before)
    upload = flower.message_bytes(flower.mask(flower.ids[0]))
    return Point("SecAgg+", members, parameters, member_s * 1e3, unmask_s * 1e3, upload)


def theirs_within(members: int, parameters: int) -> Point | Cut:
    """The same in a process that the kernel ends after CAP_S seconds of CPU time."""
    command = [sys.executable, "-m", "benchmarks.growth", "--flower", str(members), str(parameters)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == -signal.SIGXCPU:
        return Cut(members, parameters)
    if done.returncode:
        raise Fault(f"Flower, {members} × {parameters}: {done.stderr[-400:]}")
    return Point(**json.loads(done.stdout.splitlines()[-1]))


def measure() -> tuple[list[Point], list[Cut]]:
    """All points, and those of Flower's that were cut."""
    by_members = [(members, MANY) for members in BY_MEMBERS]
    by_parameters = [(FEW, parameters) for parameters in HIDDEN if parameters != MANY]
    points, cuts = [], []
    for members, parameters in (*by_members, *by_parameters):
        points.append(ours("lane B", members, parameters))
        if members in BFV_MEMBERS and parameters in BFV_PARAMETERS:
            points.append(ours("lane C", members, parameters))
        print(f"{members} members, {parameters} parameters: ours taken", file=sys.stderr)
    for series in (by_members, by_parameters):
        for members, parameters in series:
            found = theirs_within(members, parameters)
            print(f"{members} members, {parameters} parameters: {found}", file=sys.stderr)
            if isinstance(found, Cut):
                cuts.append(found)
                break
            points.append(found)
    return points, cuts


def figure(points: Sequence[Point], cuts: Sequence[Cut], where: str) -> go.Figure:
    """Two rows (by members, by parameters) of three panels, all axes logarithmic."""
    page = make_subplots(
        rows=2,
        cols=len(PANELS),
        vertical_spacing=0.16,
        horizontal_spacing=0.07,
        subplot_titles=[title for _ in range(2) for _, title in PANELS],
    )
    for line, (axis, fixed, value) in enumerate(
        (("members", "parameters", MANY), ("parameters", "members", FEW)), start=1
    ):
        held = f"{value:,} {fixed}".replace(",", "\u202f")
        chosen = [p for p in points if getattr(p, fixed) == value]
        for column, (field, _) in enumerate(PANELS, start=1):
            for side, title in TITLES.items():
                drawn = sorted(
                    (getattr(p, axis), getattr(p, field)) for p in chosen if p.side == side
                )
                page.add_scatter(
                    x=[x for x, _ in drawn],
                    y=[y for _, y in drawn],
                    name=title,
                    legendgroup=side,
                    showlegend=line == column == 1,
                    line={"color": COLOURS[side], "width": 2},
                    marker={"size": 7},
                    row=line,
                    col=column,
                )
            ticks = BY_MEMBERS if axis == "members" else tuple(HIDDEN)
            page.update_xaxes(
                title_text=f"{axis} ({held})",
                type="log",
                tickvals=ticks,
                ticktext=[_short(t) for t in ticks],
                row=line,
                col=column,
            )
    page.update_yaxes(type="log", exponentformat="SI", dtick="D2")
    page.update_xaxes(tickangle=0)
    page.update_annotations(font_size=13)
    page.update_layout(
        template="plotly_white",
        title={
            "text": "What a round costs as it grows<br><sup>" + _note(cuts, where) + "</sup>",
            "y": 0.97,
        },
        legend={"orientation": "h", "y": -0.1, "x": 0.5, "xanchor": "center"},
        margin={"t": 130, "b": 90, "l": 60, "r": 30},
        height=860,
    )
    return page


def _short(count: float) -> str:
    """A count as an axis has room for: 50, 100k, 5M."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:g}"


def _note(cuts: Sequence[Cut], where: str) -> str:
    cut = "; ".join(f"{c.members} members × {_short(c.parameters)}" for c in cuts)
    ended = f"Flower's points were given {CAP_S} s of CPU time each"
    stopped = f" and stop before {cut}, which took longer" if cut else ""
    lane_c = "Lane C is for small models: its messages would be too long beyond its line"
    return f"{where}<br>{ended}{stopped}. {lane_c}."


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; gives the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.growth", description=__doc__.split("\n")[0])
    parser.add_argument("--flower", nargs=2, type=int, metavar=("MEMBERS", "PARAMETERS"))
    parser.add_argument("--out", type=Path, default=Path("out"))
    given = parser.parse_args(arguments)
    if given.flower:
        resource.setrlimit(resource.RLIMIT_CPU, (CAP_S, resource.RLIM_INFINITY))
        print(json.dumps(asdict(theirs(*given.flower))))
        return 0
    points, cuts = measure()
    write(given.out, points, cuts)
    print(f"{len(points)} points in {given.out / 'growth.html'}")
    return 0


def write(folder: Path, points: Sequence[Point], cuts: Sequence[Cut]) -> None:
    """Both files."""
    folder.mkdir(parents=True, exist_ok=True)
    where = environment(*PACKAGES, "tenseal", clock="CPU time")
    data: dict[str, Any] = {
        "environment": where,
        "cap_s": CAP_S,
        "points": [asdict(p) for p in points],
        "cut": [asdict(c) for c in cuts],
    }
    (folder / "growth.json").write_text(json.dumps(data, indent=1) + "\n")
    page = figure(points, cuts, where)
    page.write_html(folder / "growth.html", include_plotlyjs=True, full_html=True)


if __name__ == "__main__":
    sys.exit(main())
