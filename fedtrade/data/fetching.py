"""The shell that fetches public history: paged, paced, retried within limits, and resumable.

Every page that has come is a line of `<target>.pages`, so a fetch that was cut off goes on behind
the last whole line. Candles that lack in a page are asked for once more, since a page may have come
cut short; what lacks twice is a gap of the venue, and stays one.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
import polars as pl

from fedtrade.data.exports import write_bars
from fedtrade.data.histories import AnswerOdd, History, Kind, Question, Row
from fedtrade.errors import BadInput, Unavailable
from fedtrade.learning.folder import WIDTHS_S, coin

TRIES: Final = 6
LONGEST_WAIT_S: Final = 60.0
MAX_ANSWER_BYTES: Final = 16 * 2**20
TIMEOUT: Final = aiohttp.ClientTimeout(total=30)


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one fetch left behind."""

    path: Path
    rows: int
    missing: int
    """Bars that the venue does not have inside the window; always 0 for funding."""


async def fetch(
    source: History,
    kind: Kind,
    symbol: str,
    width: str,
    window_s: tuple[int, int],
    folder: Path,
    session: aiohttp.ClientSession,
    url: str | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Fetched:
    """Fetch rows that start in [from, until) into a data folder, as its other files are.

    `width`: 1m, 5m, 15m, 30m, 1h or 4h. `window_s` must be over: a bar that is still forming would
    be taken for a whole one. Raises Unavailable where the venue does not answer as documented
    within TRIES, BadInput where the file exists or the venue has nothing.
    """
    width_s = WIDTHS_S.get(width, 0)
    if not 0 < width_s <= 14_400:
        raise BadInput("width", f"{width!r} is none that all venues serve", "Use 1m to 4h.")
    bare = coin(symbol)
    if not bare.isalnum():
        raise BadInput("symbol", "letters and digits only", "For example BTC.")
    name = (
        f"{source.file_stem}_{width}_{bare}" if kind == "candles" else f"{source.file_stem}_{bare}"
    )
    target = folder / ("perp_ohlcv" if kind == "candles" else "funding") / f"{name}.parquet"
    if target.exists():
        raise BadInput(str(folder), f"{target.name} exists", "Remove it to fetch it again.")
    from_s, until_s = (-(-at // width_s) * width_s for at in window_s)
    pages = _Pages(target.with_suffix(".pages"), [kind, bare, width, from_s, until_s])
    line = _Line(source, session, url or source.url, sleep)
    named = source.symbol(bare)
    for first_s, last_s in source.windows(kind, width_s, from_s, until_s):
        if first_s in pages.done:
            continue
        rows = await line.rows(kind, named, width_s, first_s, last_s)
        lacking = _lacking(rows, first_s, last_s, width_s) if kind == "candles" else []
        if lacking:
            again = await line.rows(kind, named, width_s, lacking[0], lacking[-1] + width_s)
            rows |= again
        pages.add(first_s, list(rows.values()))
    merged = dict(sorted((int(row[0]), row) for page in pages.done.values() for row in page))
    if not merged:
        problem = f"{source.venue} has no {kind} of {named} in that time"
        raise BadInput(symbol, problem, "Correct the symbol or the time.")
    write_bars(_frame(kind, named, list(merged.values())), target)
    pages.path.unlink()
    missing = len(_lacking(merged, from_s, until_s, width_s)) if kind == "candles" else 0
    return Fetched(target, len(merged), missing)


def _lacking(rows: dict[int, Row], from_s: int, until_s: int, width_s: int) -> list[int]:
    return [at for at in range(from_s, until_s, width_s) if at * 1000 not in rows]


def _frame(kind: Kind, symbol: str, rows: list[Row]) -> pl.DataFrame:
    ts = pl.Series([int(row[0]) for row in rows]).cast(pl.Datetime("ms", "UTC"))
    names = ("open", "high", "low", "close", "volume") if kind == "candles" else ("funding_rate",)
    columns = {n: [float(row[i]) for row in rows] for i, n in enumerate(names, 1)}
    return pl.DataFrame({"ts": ts, "symbol": [symbol] * len(rows), **columns})


class _Line:
    """Requests to one venue, one after another."""

    def __init__(
        self,
        source: History,
        session: aiohttp.ClientSession,
        url: str,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._source, self._session, self._url, self._sleep = source, session, url, sleep

    async def rows(
        self, kind: Kind, symbol: str, width_s: int, from_s: int, until_s: int
    ) -> dict[int, Row]:
        """The rows of one window; what fails is asked again, later each time."""
        question = self._source.ask(kind, symbol, width_s, from_s * 1000, until_s * 1000)
        problem, wait_s = "", self._source.pause_s
        for _ in range(TRIES):
            await self._sleep(wait_s)
            wait_s = min(max(2 * wait_s, 1.0), LONGEST_WAIT_S)
            try:
                status, told_s, answer = await self._ask(question)
                if status == 200:
                    return self._source.read(kind, json.loads(answer), from_s, until_s)
                problem = f"status {status}"
                wait_s = min(max(wait_s, told_s), LONGEST_WAIT_S)
            except AnswerOdd as error:
                problem = error.problem
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                problem = f"an answer that cannot be read ({type(error).__name__})"
            if problem.startswith("status 4") and problem not in ("status 418", "status 429"):
                break  # it will say the same again
        remedy = "Repeat later: what has come is kept."
        raise Unavailable(self._source.venue, f"it answered with {problem}", remedy)

    async def _ask(self, question: Question) -> tuple[int, float, bytes]:
        """(status, seconds to wait as told, body)."""
        method = "GET" if question.body is None else "POST"
        body: Any = question.body
        async with self._session.request(
            method,
            self._url + question.path,
            params=dict(question.params),
            json=body,
            timeout=TIMEOUT,
        ) as answer:
            content = await answer.content.read(MAX_ANSWER_BYTES + 1)
            while len(content) <= MAX_ANSWER_BYTES and (more := await answer.content.readany()):
                content += more
            if len(content) > MAX_ANSWER_BYTES:
                raise ValueError("the answer is too long")
            told = answer.headers.get("Retry-After", "")
            return answer.status, float(told) if told.isdecimal() else 0.0, content


class _Pages:
    """Pages that have come, one JSON line each behind a line that says what was asked."""

    def __init__(self, path: Path, asked: list[Any]) -> None:
        self.path = path
        self.done: dict[int, list[Row]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = 0
        if path.exists():
            lines = path.read_bytes().splitlines(keepends=True)
            whole = [line for line in lines if line.endswith(b"\n")]
            try:
                held, *parts = [json.loads(line) for line in whole] or [asked]
                self.done = {first_s: [tuple(row) for row in rows] for first_s, rows in parts}
            except (ValueError, TypeError) as error:
                raise BadInput(path.name, "it is damaged", "Remove it and repeat.") from error
            if held != asked:
                problem = "it holds pages of another fetch"
                raise BadInput(path.name, problem, "Remove it, or repeat that fetch first.")
            kept = sum(map(len, whole))
        with path.open("ab") as file:
            file.truncate(kept)
        if not kept:
            self._write(asked)

    def add(self, first_s: int, rows: list[Row]) -> None:
        self._write([first_s, rows])
        self.done[first_s] = rows

    def _write(self, content: list[Any]) -> None:
        with self.path.open("ab") as file:
            file.write(json.dumps(content).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


async def fetch_all(
    source: History,
    symbols: list[str],
    width: str,
    window_s: tuple[int, int],
    folder: Path,
    tell: Callable[[str], None],
) -> None:
    """Candles and funding of several coins; `tell` is given a line for each file."""
    now_s = int(datetime.now(UTC).timestamp())
    if window_s[1] > now_s:
        raise BadInput("--to", "it lies in the future", "Only closed bars can be fetched.")
    async with aiohttp.ClientSession() as session:
        for symbol in symbols:
            for kind in ("candles", "funding"):
                made = await fetch(source, kind, symbol, width, window_s, folder, session)
                gaps = f", {made.missing} missing at the venue" if made.missing else ""
                tell(f"{made.path}: {made.rows} rows{gaps}")
