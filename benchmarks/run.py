"""All benchmarks in one run: a table, and `out/bench.json`. `python -m benchmarks.run [NAME…]`

Each module of this folder that measures something has `rows()`. A part that cannot run here is left
out, named with its reason, and makes the exit code 1, unless all that is missing is recorded data
that is no part of the project; the rows of the others stand. Nothing is skipped in silence and no
figure comes from an earlier run.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are imported

import argparse
import importlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.measure import DataAbsent, as_dict
from fedtrade.errors import FedtradeError

PARTS: Final = (
    "signing",
    "dpsgd",
    "bfv",
    "rounds",
    "simulation",
    "quote",
    "feeds",
    "head_to_signed",
    "features",
)
FIELDS: Final = ("name", "counterpart", "ours", "theirs", "unit", "ratio", "environment")
UNITS: Final = {"ms", "us", "s", "/s", "B", "1"}

Found = dict[str, Any]


def collect(
    parts: Iterable[str], console: Console
) -> tuple[list[Found], dict[str, FedtradeError | ImportError]]:
    """The rows of all parts, and why others could not run."""
    found: list[Found] = []
    left_out: dict[str, FedtradeError | ImportError] = {}
    for part in parts:
        begin = perf_counter()
        console.print(f"[dim]measuring {part} …[/dim]")
        try:
            rows = importlib.import_module(f"benchmarks.{part}").rows()
        except (FedtradeError, ImportError) as error:
            left_out[part] = error
        else:
            found += [_checked(part, as_dict(row)) for row in rows]
        console.print(f"[dim]{part}: {perf_counter() - begin:.1f} s[/dim]")
    return found, left_out


def _checked(part: str, row: Mapping[str, Any]) -> Found:
    """A row with exactly the agreed fields in their order."""
    if set(row) != set(FIELDS) or row["unit"] not in UNITS:
        raise ValueError(f"{part}: a row has {sorted(row)} and unit {row.get('unit')!r}")
    return {field: row[field] for field in FIELDS}


def write(rows: Sequence[Found], path: Path) -> None:
    """Write the rows whole: readers see the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    os.replace(draft, path)


def table(rows: Sequence[Found]) -> Table:
    """The rows for the terminal."""
    shown = Table(title="Ours beside counterparts, one run", title_justify="left", pad_edge=False)
    shown.add_column("row", no_wrap=True)
    shown.add_column("ours", justify="right", no_wrap=True)
    shown.add_column("theirs", justify="right", no_wrap=True)
    shown.add_column("unit", no_wrap=True)
    shown.add_column("ratio", justify="right", no_wrap=True)
    shown.add_column("counterpart")
    for row in rows:
        shown.add_row(
            escape(row["name"]),
            _figure(row["ours"]),
            _figure(row["theirs"]),
            row["unit"],
            f"{_figure(row['ratio'])}×",
            escape(row["counterpart"]),
        )
    return shown


def _figure(value: float) -> str:
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2
    return f"{value:,.{digits}f}".replace(",", "\u202f")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; gives the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.run", description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="all if none is named")
    parser.add_argument("--out", type=Path, default=Path("out/bench.json"))
    given = parser.parse_args(arguments)
    console = Console()
    rows, left_out = collect(given.parts or PARTS, console)
    write(rows, given.out)
    console.print(table(rows))
    console.print(f"ratio: how many times better ours is. {len(rows)} rows in {given.out}")
    for part, why in left_out.items():
        said = (
            why.message if isinstance(why, FedtradeError) else f"{why}. Install the research extra"
        )
        print(f"benchmarks.{part} was left out: {said}", file=sys.stderr)
    return 0 if all(isinstance(why, DataAbsent) for why in left_out.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
