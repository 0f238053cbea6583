"""Both sides of the simulation train the same network, and nothing of Ray's is left behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_counterpart_trains_the_network_that_ours_does():
    code = """
import numpy as np
from benchmarks.simulation import WORK, initial, plain_steps
work = WORK["sim_round_50"]
start = initial(work)
assert sum(a.size for a in start) == work.parameters
assert sum(a.size for a in initial(WORK["grid_round_50x50k"])) == 49_794
trained = plain_steps(work, start, seed=1)
assert [a.shape for a in trained] == [a.shape for a in start]
assert all(np.isfinite(a).all() for a in trained)
assert any((a != b).any() for a, b in zip(trained, start, strict=True))
assert any((a != b).any() for a, b in zip(trained, plain_steps(work, start, seed=2), strict=True))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_only_processes_of_the_run_are_ended(tmp_path):
    homes = {name: f"{tmp_path}/{name}" for name in ("ours", "another")}
    started = {
        name: subprocess.Popen(
            ["sleep", "60"], env={**os.environ, "FLWR_HOME": home}, start_new_session=True
        )
        for name, home in homes.items()
    }
    try:
        time.sleep(0.2)  # until exec has put the environment in place
        code = f"from benchmarks.simulation import _end; _end({homes['ours']!r})"
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
        assert started["ours"].wait(10) == -9
        assert started["another"].poll() is None
    finally:
        for process in started.values():
            process.kill()
            process.wait()
