"""A member's private positions: the file format (schema v1) and its strict importer.

A file is CSV (UTF-8, comma, with a header) or Parquet. One row is one position over its whole life:
resizes and hedges of a position belong to its row, because the row is the unit of privacy.

| column | type | meaning |
|---|---|---|
| `position_id` | text, 1–64 characters | unique in the file; never leaves the member |
| `venue` | text | a venue with public candles, for example `binance` |
| `symbol` | text | a symbol of that venue, for example `ETH` |
| `side` | `long` or `short` | |
| `opened_at` | ISO-8601 or Unix seconds | UTC where no offset is given |
| `closed_at` | the same, or empty | empty: still open |
| `entry_price` | number > 0 | average entry price in the quote currency |
| `quantity_base` | number > 0 | largest size held, in base coin |
| `leverage` | number from 1 to 1000 | 1 for a position without borrowing |

All columns are required and no others are allowed. A file is taken whole or not at all: every bad
row is found, and one error lists the first MAX_LISTED of them by number (the first row after the
header is row 1) and counts the rest. The error names rows, columns and rules, never values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fedtrade.errors import BadInput
from fedtrade.learning.tables import markets

SCHEMA_VERSION = 1
COLUMNS = (
    "position_id",
    "venue",
    "symbol",
    "side",
    "opened_at",
    "closed_at",
    "entry_price",
    "quantity_base",
    "leverage",
)
MAX_LISTED = 20
MAX_FILE_BYTES = 256 * 2**20
MAX_ROWS = 1_000_000
MAX_LEVERAGE = 1000.0
STILL_OPEN = -1
"""In place of a closing time."""
_LAST_S = 32_503_680_000  # the year 3000: beyond it a number is no time in seconds


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Positions:
    """Positions as columns of equal length. Private: shows only its size."""

    position_id: tuple[str, ...]
    venue: tuple[str, ...]
    symbol: tuple[str, ...]
    side: NDArray[np.int8]
    """+1 long, −1 short."""
    opened_s: NDArray[np.int64]
    closed_s: NDArray[np.int64]
    """Unix seconds, or STILL_OPEN."""
    entry_price: NDArray[np.float64]
    quantity_base: NDArray[np.float64]
    leverage: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.position_id)

    def __repr__(self) -> str:
        return f"Positions({len(self)} positions)"


class _Rows:
    """The bad rows of one file, first problem first."""

    def __init__(self) -> None:
        self.problems: dict[int, str] = {}

    def add(self, index: int, problem: str) -> None:
        self.problems.setdefault(index, problem)

    def refuse(self, where: str) -> None:
        """Raise one error for all bad rows, or return where there is none."""
        if not self.problems:
            return
        listed = [f"row {i + 1}: {text}" for i, text in sorted(self.problems.items())]
        shown = "; ".join(listed[:MAX_LISTED])
        more = len(listed) - MAX_LISTED
        tail = f"; and {more} more bad rows" if more > 0 else ""
        raise BadInput(where, f"{shown}{tail}", "Nothing was loaded; correct the rows and repeat.")


def read_positions(
    path: Path, now_s: int, known_markets: Collection[tuple[str, str]] | None = None
) -> Positions:
    """The positions of a CSV or Parquet file; one BadInput names all that is wrong with it."""
    where = path.name
    frame = _read_frame(path)
    unknown = [name for name in frame.columns if name not in COLUMNS]
    missing = [name for name in COLUMNS if name not in frame.columns]
    if unknown or missing:
        problem = "; ".join(
            f"{what} {', '.join(names)}"
            for what, names in (("unknown columns", unknown), ("missing columns", missing))
            if names
        )
        raise BadInput(where, problem, f"The columns must be {', '.join(COLUMNS)}.")
    if frame.is_empty():
        raise BadInput(where, "it holds no positions", "Give at least one row after the header.")
    if frame.height > MAX_ROWS:
        raise BadInput(where, f"more than {MAX_ROWS} rows", "Split the file by period.")
    cells = {name: [(v or "").strip() for v in frame[name].to_list()] for name in COLUMNS}
    return _parse(cells, now_s, set(markets() if known_markets is None else known_markets), where)


def _read_frame(path: Path) -> pl.DataFrame:
    """All cells as text, whatever the file's own types are."""
    remedy = "Give a readable, non-empty CSV or Parquet file of positions."
    try:
        size = path.stat().st_size
        if size == 0:
            raise BadInput(path.name, "the file is empty", remedy)
        if size > MAX_FILE_BYTES:
            raise BadInput(path.name, f"larger than {MAX_FILE_BYTES} bytes", "Split the file.")
        if path.suffix.lower() == ".csv":
            return pl.read_csv(path, infer_schema=False)
        if path.suffix.lower() == ".parquet":
            with path.open("rb") as file:
                head = file.read(4)
                file.seek(-4, 2)
                if size < 12 or head != b"PAR1" or file.read(4) != b"PAR1":
                    raise BadInput(path.name, "it is not a Parquet file", remedy)
            frame = pl.read_parquet(path)
            return frame.select(pl.all().cast(pl.String))
        raise BadInput(path.name, "the name must end in .csv or .parquet", remedy)
    except FileNotFoundError as error:
        raise BadInput(path.name, "there is no such file", remedy) from error
    except (OSError, UnicodeDecodeError, pl.exceptions.PolarsError) as error:
        first_line = str(error).partition("\n")[0]
        kind = type(error).__name__
        detail = first_line if isinstance(error, OSError) else kind
        raise BadInput(path.name, f"cannot be read ({detail})", remedy) from error


def _parse(
    cells: dict[str, list[str]], now_s: int, known: set[tuple[str, str]], where: str
) -> Positions:
    bad = _Rows()
    ids = cells["position_id"]
    seen: dict[str, int] = {}
    for i, name in enumerate(ids):
        if not 1 <= len(name) <= 64 or not name.isprintable():
            bad.add(i, "position_id must have 1 to 64 printable characters")
        elif name in seen:
            bad.add(i, f"position_id repeats that of row {seen[name] + 1}")
        seen.setdefault(name, i)
    for i, market in enumerate(zip(cells["venue"], cells["symbol"], strict=True)):
        if market not in known:
            bad.add(i, "venue and symbol are not a known market")
    sides = {"long": 1, "short": -1}
    side = _column(cells["side"], lambda text: sides[text], bad, "side must be long or short")
    opened = _column(cells["opened_at"], _time, bad, "opened_at is not a time")
    closed = _column(
        cells["closed_at"], lambda t: _time(t) if t else STILL_OPEN, bad, "closed_at is not a time"
    )
    for i, (start, end) in enumerate(zip(opened, closed, strict=True)):
        if start > now_s or end > now_s:
            bad.add(i, "opened_at or closed_at lies in the future")
        elif end != STILL_OPEN and end < start:
            bad.add(i, "closed_at is before opened_at")
    numbers = {
        name: _column(cells[name], _positive, bad, f"{name} must be a positive number")
        for name in ("entry_price", "quantity_base", "leverage")
    }
    for i, leverage in enumerate(numbers["leverage"]):
        if not 1.0 <= leverage <= MAX_LEVERAGE:
            bad.add(i, f"leverage must be from 1 to {MAX_LEVERAGE:.0f}")
    bad.refuse(where)
    return Positions(
        tuple(ids),
        tuple(cells["venue"]),
        tuple(cells["symbol"]),
        np.array(side, np.int8),
        np.array(opened, np.int64),
        np.array(closed, np.int64),
        *(np.array(numbers[n]) for n in ("entry_price", "quantity_base", "leverage")),
    )


def _column(
    cells: list[str], parse: Callable[[str], float], bad: _Rows, problem: str
) -> list[float]:
    """The parsed cells; where one does not parse, its row is bad and 1 stands in."""
    values: list[float] = []
    for i, text in enumerate(cells):
        try:
            values.append(parse(text))
        except (ValueError, KeyError, OverflowError):
            bad.add(i, problem)
            values.append(1)
    return values


def _positive(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise ValueError("not a positive number")
    return value


def _time(text: str) -> int:
    """Unix seconds from Unix seconds or ISO-8601; UTC where no offset is given."""
    try:
        seconds = float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = moment.timestamp()
    if not 0 <= seconds < _LAST_S:
        raise ValueError("not a time in seconds")
    return int(seconds)
