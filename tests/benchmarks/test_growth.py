"""The page of growth: every side's line, what was cut, and nothing from the network.

In processes of their own: the test's own path may find the `benchmarks` that Opacus installs.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_both_files_say_every_point_and_what_was_cut(tmp_path):
    code = """
import sys
from pathlib import Path
from benchmarks.growth import MANY, FEW, Cut, Point, figure, write
points = [Point(s, n, MANY, 1.0 * n, 2.0 * n, 3 * n) for s in ("lane B", "SecAgg+") for n in (10, 20)]
points += [Point("lane C", FEW, d, 1.0, 2.0, 3) for d in (10_007, MANY)]
write(Path(sys.argv[1]), points, [Cut(50, MANY)])
drawn = figure(points, [], "").data
assert [tuple(t.x) for t in drawn[:3]] == [(10, 20), (10,), (10, 20)], drawn[:3]
assert tuple(drawn[0].y) == (10.0, 20.0)
assert [tuple(t.x) for t in drawn[9:12]] == [(MANY,), (10_007, MANY), (MANY,)], drawn[9:12]
"""
    done = run(code, str(tmp_path))
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "growth.json").read_text())
    assert len(data["points"]) == 6
    assert data["cut"] == [{"members": 50, "parameters": 100_000}]
    page = (tmp_path / "growth.html").read_text()
    assert "stop before 50 members \\u00d7 100k" in page  # as JSON has it
    assert 'src="http' not in page


def test_a_point_of_flower_that_takes_too_long_is_cut_by_the_kernel():
    code = """
import benchmarks.growth as growth
found = growth.theirs_within(3, 100)
assert found.side == "SecAgg+" and found.members == 3 and found.member_ms > 0, found
import subprocess, types, signal
growth.subprocess = types.SimpleNamespace(
    run=lambda *a, **k: subprocess.run(
        ["sh", "-c", "ulimit -S -t 1; while :; do :; done"], capture_output=True, text=True
    )
)
assert growth.theirs_within(4, 5) == growth.Cut(4, 5)
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
