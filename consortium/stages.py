"""The stages of a long command: named, timed, each with a bar."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class Stages:
    """Names the stages, times them, and shows a bar for each."""

    def __init__(self, console: Console) -> None:
        self.seconds: dict[str, float] = {}
        self._console = console

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[str, int, int], None]]:
        """Gives `progress(what is going on, done, of how many)`."""
        began = time.perf_counter()
        columns = (
            TextColumn("[bold]{task.description}", justify="left"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console) as bar:
            tasks = {}

            def progress(what: str, done: int, of: int) -> None:
                if what not in tasks:
                    tasks[what] = bar.add_task(f"{name}: {what}", total=of)
                bar.update(tasks[what], completed=done, total=of)

            yield progress
        self.seconds[name] = time.perf_counter() - began
