"""Local chains that outlive the command that started them, and end together.

A supervising process in a session of its own owns the chains: they end with it, however it ends. In
the devnet's folder it keeps `deployment.json` (for whoever uses the chains), `pid`, `log` and
`lock`. Whether it runs is whether the lock is held, so neither a crash nor a reused process id can
mislead `down`.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from fedtrade.chain.conversation import ask, read
from fedtrade.chain.deployment import ChainDeployment, Deployment
from fedtrade.chain.rpc import Rpc
from fedtrade.devnet.artifacts import fetch
from fedtrade.devnet.cache import cache_folder, disk_errors
from fedtrade.devnet.net import Devnet
from fedtrade.errors import Fault, FedtradeError, Refusal, Unavailable
from fedtrade.venues.uniswap_v3 import SLOT0

UP_LIMIT_S: Final = 60.0
DOWN_LIMIT_S: Final = 20.0
WATCH_INTERVAL_S: Final = 0.2


class AlreadyUp(Refusal):
    """Local chains run in this folder already."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"Local chains are up already in {folder}. Use them, or end them with "
            "`fedtrade devnet down`."
        )
        self.folder = folder


class NotUp(Refusal):
    """No local chains run in this folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"No local chains run in {folder}. Start them with `fedtrade devnet up`.")
        self.folder = folder


class DidNotStart(Fault):
    """The supervisor ended before its chains were up."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Local chains did not start. {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ChainStatus:
    """One running chain at its newest block."""

    deployment: ChainDeployment
    block: int
    timestamp_s: int
    price: float
    """Quote per base in the pool."""


def start(folder: Path, ports: Sequence[int] | None = None) -> Deployment:
    """Start the supervisor and wait until its chains answer."""
    if _is_running(folder):
        raise AlreadyUp(folder)
    fetch()  # here, where its progress and its errors can be seen
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "deployment.json").unlink(missing_ok=True)  # of a supervisor that was killed
    with disk_errors(folder), (folder / "log").open("wb") as log:
        command = [sys.executable, "-m", "fedtrade.devnet.detached", str(folder.resolve())]
        command += [str(port) for port in ports or ()]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    # Should we live longer than the supervisor, it is reaped when it ends.
    threading.Thread(target=process.wait, daemon=True).start()
    deadline = time.monotonic() + UP_LIMIT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise _why_it_ended(folder)
        if (folder / "deployment.json").exists():
            return Deployment.load(folder / "deployment.json")
        time.sleep(0.02)
    process.terminate()
    raise Unavailable(
        "local chains", f"not up within {UP_LIMIT_S:.0f} s", f"Look into {folder / 'log'}."
    )


def stop(folder: Path) -> None:
    """End the supervisor and with it the chains."""
    if not _is_running(folder):
        raise NotUp(folder)
    pid = int((folder / "pid").read_text())
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_LIMIT_S
    while _is_running(folder):
        if time.monotonic() > deadline:
            raise Unavailable(
                "local chains",
                f"still up {DOWN_LIMIT_S:.0f} s after they were asked to end",
                f"End process {pid} by hand.",
            )
        time.sleep(0.02)


def status(folder: Path) -> list[ChainStatus]:
    """Every chain at its newest block."""
    if not _is_running(folder):
        raise NotUp(folder)
    found = []
    for chain in Deployment.load(folder / "deployment.json").chains:
        with Rpc(chain.rpc_url) as rpc:
            block = rpc.call("eth_getBlockByNumber", "latest", False)
            number = int(block["number"], 16)
            ((sqrt_price, *_),) = ask(rpc, read([(chain.pool, SLOT0, ())], number))
        price = chain.pool_key().price(sqrt_price)
        found.append(ChainStatus(chain, number, int(block["timestamp"], 16), price))
    return found


def supervise(folder: Path, ports: Sequence[int] | None) -> None:
    """Run the chains until asked to end, or until one of them ends."""
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _: asked.append(received))
    with (folder / "lock").open("w") as lock:
        if not _take(lock):
            raise AlreadyUp(folder)
        (folder / "pid").write_text(str(os.getpid()))
        deployment = folder / "deployment.json"
        try:
            with Devnet.up(cache_folder(), ports or None) as devnet:
                devnet.deployment.save(deployment)
                while not asked:
                    if not devnet.running:
                        raise Unavailable("local chains", "one of them ended", "Start them again.")
                    time.sleep(WATCH_INTERVAL_S)
        finally:
            deployment.unlink(missing_ok=True)
            (folder / "pid").unlink(missing_ok=True)


def _is_running(folder: Path) -> bool:
    if not (folder / "lock").exists():
        return False
    with disk_errors(folder), (folder / "lock").open("a") as lock:
        return not _take(lock)


def _take(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _why_it_ended(folder: Path) -> DidNotStart:
    said = (folder / "log").read_text(errors="replace").strip().splitlines()
    return DidNotStart(said[-1] if said else f"Nothing was said in {folder / 'log'}.")


def main() -> None:
    """The supervising process: FOLDER [PORT…]."""
    folder, *ports = sys.argv[1:]
    try:
        supervise(Path(folder), [int(port) for port in ports])
    except FedtradeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
