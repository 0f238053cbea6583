"""The soak sees a leak where there is one, and finds none in a short run.

In processes of their own: the test's own path may find the `benchmarks` that Opacus installs.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_a_short_soak_opens_nothing_that_it_does_not_close(tmp_path):
    """Memory of so few steps says nothing; files and threads do."""
    done = run("-m", "benchmarks.soak", "--rounds=6", "--ticks=300", f"--out={tmp_path}")
    assert done.returncode in (0, 1), done.stderr
    found = json.loads((tmp_path / "soak.json").read_text())
    assert [(part["what"], part["steps"]) for part in found["parts"]] == [
        ("decisions", 300),
        ("rounds", 6),
    ]
    assert found["actions"] > 10  # the agent was at work
    for part in found["parts"]:
        assert part["files"][0] == part["files"][1]
        assert part["threads"][0] == part["threads"][1]
        assert not any("memory" not in problem for problem in part["problems"])
    page = (tmp_path / "soak.html").read_text()
    assert "resident memory" in page
    assert 'src="http' not in page


def test_the_control_memory_files_and_threads_that_leak_are_named():
    code = """
import os, threading
from benchmarks.soak import watch

kept, never = [], threading.Event()
def leak(size, files=False, threads=False):
    for _ in range(60):
        kept.append(bytearray(os.urandom(size)))
        if files:
            kept.append(os.open("/dev/null", os.O_RDONLY))
        if threads:
            threading.Thread(target=never.wait, daemon=True).start()
        yield

course = watch("rounds", 100, leak(2**18))
assert 20 < course.slope_mb < 30, course.slope_mb  # 0.25 MB a step
(said,) = course.problems()
assert "memory grows" in said
assert "files went from" in watch("rounds", 100, leak(0, files=True)).problems()[-1]
assert "threads went from" in watch("rounds", 100, leak(0, threads=True)).problems()[-1]
assert watch("rounds", 100, leak(0)).problems() == []
"""
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
