"""One local chain: a native anvil process that cannot outlive us, with control of time and blocks.

Facts that this module rests on, each seen to matter:

* anvil is executed directly, never through npm's wrapper, which leaves the real process behind.
* On Linux the child asks the kernel to be killed when its parent dies. That bond is to the *thread*
  that started it, so a chain is started from the main thread and nowhere else.
* With `--port 0` anvil takes a free port itself and prints it, so no other process can come between.
* `--prune-history` keeps old states out of the user's home folder (gigabytes otherwise).
* A loaded chain's next block would carry the wall clock's time; whoever loads sets the next time.
"""

from __future__ import annotations

import ctypes
import gzip
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from fedtrade.chain.rpc import Rpc, from_hex
from fedtrade.errors import Fault, Unavailable

START_LIMIT_S: Final = 20.0
STOP_LIMIT_S: Final = 10.0
HARDFORK: Final = "cancun"
BASE_FEE_WEI: Final = 10**9
STATES_KEPT: Final = 256
"""Blocks whose state can still be read."""

_PR_SET_PDEATHSIG: Final = 1
_LISTENING: Final = re.compile(rb"Listening on [^\s:]+:(\d+)")


class WrongThread(Fault):
    """A chain was to be started from a thread other than the main one."""

    def __init__(self) -> None:
        super().__init__(
            "A local chain ends with the thread that starts it. Start it from the main thread."
        )


@dataclass(frozen=True, slots=True)
class BlockStamp:
    """Number and time of a block."""

    number: int
    timestamp_s: int


class Anvil:
    """A running chain. Use as a context manager, or call `stop`."""

    def __init__(self, process: subprocess.Popen[bytes], chain_id: int, port: int) -> None:
        self._process = process
        self.chain_id = chain_id
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.ws_url = f"ws://127.0.0.1:{port}"
        self.rpc = Rpc(self.url)

    @classmethod
    def start(
        cls,
        binary: Path,
        chain_id: int,
        *,
        timestamp_s: int,
        port: int | None = None,
        state: Path | None = None,
    ) -> Anvil:
        """Start a chain whose time begins at `timestamp_s`, empty or from a dumped state.

        Raises Unavailable where the port is taken or the binary does not run.
        """
        if sys.platform == "linux" and threading.current_thread() is not threading.main_thread():
            raise WrongThread()
        command = [str(binary), "--host", "127.0.0.1", "--port", str(port or 0)]
        command += ["--chain-id", str(chain_id), "--hardfork", HARDFORK, "--timestamp"]
        command += [str(timestamp_s), "--base-fee", str(BASE_FEE_WEI), "--color", "never"]
        command += ["--prune-history", str(STATES_KEPT), "--no-request-size-limit"]
        if state is not None:
            command += ["--load-state", str(state)]
        with tempfile.TemporaryFile() as output:
            process = _spawn(command, output.fileno())
            try:
                found = _await_port(process, output.fileno(), chain_id, port)
                chain = cls(process, chain_id, found)
                chain.rpc.call("anvil_setLoggingEnabled", False)
            except BaseException:
                process.kill()
                process.wait()
                raise
        return chain

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """End the process; harmless when it has ended already."""
        self.rpc.close()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def latest(self) -> BlockStamp:
        """The newest block."""
        block = self.rpc.call("eth_getBlockByNumber", "latest", False)
        return BlockStamp(int(block["number"], 16), int(block["timestamp"], 16))

    def automine(self, on: bool) -> None:
        """Whether each transaction makes a block at once, or waits for `mine`."""
        self.rpc.call("evm_setAutomine", on)

    def next_timestamp(self, timestamp_s: int) -> None:
        """The time of the next block; later blocks count on from it."""
        self.rpc.call("evm_setNextBlockTimestamp", timestamp_s)

    def mine(self, timestamp_s: int | None = None) -> None:
        """Make one block of whatever waits, at this time (default: the chain's own clock)."""
        if timestamp_s is not None:
            self.next_timestamp(timestamp_s)
        self.rpc.call("evm_mine")

    def set_base_fee(self, base_fee_wei: int) -> None:
        """The base fee of the next block only; say it again for each block."""
        self.rpc.call("anvil_setNextBlockBaseFeePerGas", hex(base_fee_wei))

    def set_balance(self, address: str, native_wei: int) -> None:
        """Give an account this much of the native token."""
        self.rpc.call("anvil_setBalance", address, hex(native_wei))

    def impersonate(self, address: str) -> None:
        """Accept unsigned transactions of this account from now on."""
        self.rpc.call("anvil_impersonateAccount", address)

    def reorg(self, depth: int) -> None:
        """Replace the newest `depth` blocks by empty ones with other hashes."""
        self.rpc.call("anvil_reorg", depth, [])

    def snapshot(self) -> str:
        """Remember the whole chain; give the answer to `revert` once."""
        return str(self.rpc.call("evm_snapshot"))

    def revert(self, snapshot: str) -> None:
        """Go back to a remembered chain, its time included."""
        if not self.rpc.call("evm_revert", snapshot):
            raise Fault(f"The chain {self.chain_id} has no snapshot {snapshot}. Take one first.")

    def dump_state(self, path: Path) -> None:
        """Write the chain's state so that `start` can load it."""
        path.write_bytes(gzip.decompress(from_hex(self.rpc.call("anvil_dumpState"))))


def _spawn(command: list[str], output: int) -> subprocess.Popen[bytes]:
    bind = None
    if sys.platform == "linux":
        prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

        def bind() -> None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died between fork and prctl
                os._exit(1)

    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=bind,
        )
    except OSError as error:
        raise Unavailable(
            f"anvil {command[0]}",
            f"does not run ({error.strerror})",
            "Delete it from the cache to have it fetched again.",
        ) from error


def _await_port(
    process: subprocess.Popen[bytes], output: int, chain_id: int, asked: int | None
) -> int:
    """The port that anvil prints; raises Unavailable with what it printed instead."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        printed = os.pread(output, 2**16, 0)
        if match := _LISTENING.search(printed):
            return int(match[1])
        if process.poll() is not None:
            printed = os.pread(output, 2**16, 0)
            if b"Address already in use" in printed:
                raise Unavailable(
                    f"port {asked}",
                    "another program is listening on it",
                    "End that program, or choose other ports with --port.",
                )
            last = printed.decode(errors="replace").strip().splitlines()[-1:]
            raise Unavailable(
                f"chain {chain_id}",
                f"anvil ended at once ({''.join(last)[:200] or 'it printed nothing'})",
                "If it was fetched for another machine or is damaged, clear the cache.",
            )
        time.sleep(0.005)
    raise Unavailable(
        f"chain {chain_id}",
        f"anvil did not listen within {START_LIMIT_S:.0f} s",
        "The machine may be overloaded; try again.",
    )
