"""The folder in which fetched artifacts and built chain states are kept between runs.

Everything in it can be rebuilt, nothing in it is ever committed, and nothing in it is half-written:
a folder or file appears under its final name only when it is complete (temporary name beside it,
then one rename). Processes that want to build the same thing wait for each other on a file lock, so
parallel test workers fetch and deploy once.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fedtrade.errors import FedtradeError, Unavailable

LOCK_LIMIT_S: Final = 300.0
"""The longest wait for another process that is filling the cache."""

SPACE_NEEDED_BYTES: Final = 200 * 2**20
"""Free space asked for before anything is fetched: download, extracted files and states."""


def cache_folder() -> Path:
    """`$FEDTRADE_CACHE`, or `fedtrade` in `$XDG_CACHE_HOME`, or `~/.cache/fedtrade`."""
    if chosen := os.environ.get("FEDTRADE_CACHE"):
        return Path(chosen).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "fedtrade"
    return Path.home() / ".cache" / "fedtrade"


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the cache's lock; other processes that fill the same cache wait."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    with lock:
        deadline = time.monotonic() + LOCK_LIMIT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"cache {folder}",
                        f"another process has been filling it for {LOCK_LIMIT_S:.0f} s",
                        "End that process, or choose another folder with FEDTRADE_CACHE.",
                    ) from None
                time.sleep(0.05)
        yield  # closing the file releases the lock


def require_space(folder: Path, needed_bytes: int = SPACE_NEEDED_BYTES) -> None:
    """Refuse to begin where the disk cannot hold the result."""
    with disk_errors(folder):
        free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise Unavailable(
            f"cache {folder}",
            f"only {free // 2**20} MB are free, {needed_bytes // 2**20} MB are needed",
            "Free some space, or choose another folder with FEDTRADE_CACHE.",
        )


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """A temporary folder that becomes `final` if the block succeeds, and vanishes if not."""
    with disk_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
        try:
            yield building
            if final.exists():  # another process was first; its result is the same
                return
            building.chmod(0o755)
            building.rename(final)
        finally:
            shutil.rmtree(building, ignore_errors=True)


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn an operating-system error on the cache into a sentence with a remedy."""
    try:
        yield
    except FedtradeError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise Unavailable(
            f"cache {folder}",
            "the disk is full" if full else f"cannot be written ({error.strerror or error})",
            f"{'Free some space' if full else 'Make it writable'}, "
            "or choose another folder with FEDTRADE_CACHE.",
        ) from error
