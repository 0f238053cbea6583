"""Feeds a parser with mutants and measures it: what the fuzz tests of this folder share.

The bar for every parser: nothing comes out but a value or a refusal of its own kind, no input takes
more than SLOWEST_MAX_S of the processor, and memory stays flat. Times are the thread's own processor
time, so a loaded machine is no failure; whatever looks too slow is measured three times again.

    FEDTRADE_FUZZ      inputs a parser, the slow ones too (for the bar: 1000000)
    FEDTRADE_FUZZ_S    the most seconds a parser may take; what it reached by then is reported
    FEDTRADE_FUZZ_OUT  a folder: one JSON file of figures a parser
"""

import ctypes
import gc
import json
import os
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fedtrade.errors import FedtradeError

INPUTS = 400
"""A parser, where the environment asks for nothing else; a slow one names fewer."""
SLOWEST_MAX_S = 0.1
_LIBC = ctypes.CDLL(None)
RSS_GROWTH_MAX_BYTES = 8 * 2**20
"""From the end of the first third to the end of a run."""
TRIES = 3
PAGE = os.sysconf("SC_PAGE_SIZE")


def rss_bytes():
    """Resident memory, without what the allocator keeps back of what was freed."""
    _LIBC.malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


@contextmanager
def only_new_garbage():
    """A pass of the collector over all that the tests hold would count as the parser's time."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _took_s(parse, data, refusals):
    start = time.thread_time()
    with suppress(refusals):
        parse(data)
    return time.thread_time() - start


def fuzz(name, parse, mutate, few=INPUTS, refusals=FedtradeError):
    """Feed a parser. Any other exception, a slow input or growing memory fails the test.

    `few`: how many inputs it gets where the environment names no number. Gives the figures.
    """
    wanted = int(os.environ.get("FEDTRADE_FUZZ", "0")) or few
    until_s = time.monotonic() + float(os.environ.get("FEDTRADE_FUZZ_S", "inf"))
    clock = time.thread_time
    refused, slowest_s, memory = 0, 0.0, [rss_bytes()]
    index = -1
    with only_new_garbage():
        started, started_s = time.perf_counter(), clock()
        for index in range(wanted):
            data = mutate()
            begun_s = clock()
            try:
                parse(data)
            except refusals:
                refused += 1
            except BaseException as error:
                raise pytest.fail.Exception(
                    f"{name}, input {index}: {type(error).__name__}: {error}; {data[:400]!r}"
                ) from error
            took_s = clock() - begun_s
            if took_s > slowest_s:
                if took_s > SLOWEST_MAX_S:
                    gc.collect()
                    took_s = min(_took_s(parse, data, refusals) for _ in range(TRIES))
                    assert took_s <= SLOWEST_MAX_S, f"{name}: {took_s:.3f} s for {data[:400]!r}"
                slowest_s = max(slowest_s, took_s)
            if index % 256 == 255:
                memory.append(rss_bytes())
                if time.monotonic() > until_s:
                    break
    memory.append(rss_bytes())
    took, used_s = time.perf_counter() - started, max(1e-9, clock() - started_s)
    begin, third, end, done = memory[0], memory[len(memory) // 3], memory[-1], index + 1
    figures = {
        "parser": name,
        "inputs": done,
        "wanted": wanted,
        "refused": refused,
        "accepted": done - refused,
        "per_s": round(done / took),
        "per_processor_s": round(done / used_s),
        "slowest_ms": round(1e3 * slowest_s, 2),
        "rss_begin_mib": round(begin / 2**20, 1),
        "rss_third_mib": round(third / 2**20, 1),
        "rss_end_mib": round(end / 2**20, 1),
    }
    _report(figures)
    assert end - third < RSS_GROWTH_MAX_BYTES, f"{name}: memory grows: {figures}"
    assert refused > 0, f"{name}: nothing was refused, so nothing was tried"
    return figures


def _report(figures):
    print("\n" + " ".join(f"{name} {value}" for name, value in figures.items()), end="")
    folder = os.environ.get("FEDTRADE_FUZZ_OUT")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        path = Path(folder) / f"{figures['parser'].replace(' ', '-').replace('/', '-')}.json"
        path.write_text(json.dumps(figures) + "\n")
