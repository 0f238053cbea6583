"""A process that waits ends when it is told to, whatever it is doing at that moment."""

import subprocess
import sys
import time

import pytest

from fedtrade.console import Stop

EVERYWHERE = """
import signal, sys, threading
from fedtrade.console import Stop

signal.signal(signal.SIGTERM, lambda *_: stop.set())
for place in range(60):  # the signal comes at each call and each return within a wait, one by one
    stop, seen = {kind}(), 0

    def at(frame, event, argument):
        global seen
        seen += 1
        if seen == place:
            signal.raise_signal(signal.SIGTERM)

    sys.setprofile(at)
    stop.wait(0.001)
    sys.setprofile(None)
print("waited everywhere")
"""


def waits_everywhere(kind):
    command = [sys.executable, "-c", EVERYWHERE.format(kind=kind)]
    return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout


def test_a_signal_may_come_at_any_moment_of_a_wait():
    assert waits_everywhere("Stop") == "waited everywhere\n"


def test_an_event_of_threading_would_wait_for_its_own_lock():
    """The control: why there is a class for this."""
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(
            [sys.executable, "-c", EVERYWHERE.format(kind="threading.Event")],
            capture_output=True, timeout=5,
        )  # fmt: skip


def test_a_wait_is_cut_short_and_then_never_waits():
    stop = Stop()
    assert not stop.wait(0.001)
    stop.set()
    begun = time.monotonic()
    assert all(stop.wait(60.0) for _ in range(3))
    assert stop.is_set()
    assert time.monotonic() - begun < 30.0
