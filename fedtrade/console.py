"""How every command ends: one clear sentence on stderr, and an exit code that says what to do.

2: accept it or fix the input; 3: resync and try again; 4: stop and look (`fedtrade.errors`).
A command that runs on until it is told to end waits on a `Stop`.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Self

from fedtrade.errors import Fault, FedtradeError, Refusal, Stale


class Stop:
    """What a loop waits on between two turns, and SIGTERM or SIGINT sets.

    No threading.Event: its lock may be held by the very `wait` that the signal interrupts, and a
    handler that sets it then waits for ever. A SimpleQueue may be written to from a handler.
    """

    def __init__(self) -> None:
        self._asked = False
        self._wake: SimpleQueue[None] = SimpleQueue()

    @classmethod
    def on_signals(cls) -> Self:
        """Set by SIGTERM and SIGINT from now on; in the main thread."""
        stop = cls()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        return stop

    def set(self) -> None:
        self._asked = True
        self._wake.put(None)

    def is_set(self) -> bool:
        return self._asked

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is set, at most this long; whether it is."""
        if not self._asked:
            with suppress(Empty):
                self._wake.get(timeout=timeout_s)
        return self._asked


def leave_cleanly(name: str, run: Callable[[], object]) -> None:
    """Run a command line; an error of ours becomes its sentence and its exit code."""
    try:
        run()
    except Refusal as error:
        _leave(name, error)
    except Stale as error:
        _leave(name, error)
    except Fault as error:
        _leave(name, error)


def _leave(name: str, error: FedtradeError) -> None:
    print(f"{name}: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
