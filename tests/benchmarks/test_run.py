"""`python -m benchmarks.run` is ours, and its rows have the agreed fields and no other.

In processes of their own: the test's own path may find the `benchmarks` that Opacus installs.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_the_module_that_runs_is_ours_and_not_the_one_that_opacus_installs():
    done = run("-m", "benchmarks.run", "--help")
    assert done.returncode == 0, done.stderr
    assert "out/bench.json" in done.stdout


def test_a_row_with_other_fields_or_another_unit_is_refused():
    code = """
from benchmarks.measure import as_dict, row
from benchmarks.run import FIELDS, _checked
good = as_dict(row("a", "b", 2.0, 8.0, "ms"))
assert tuple(_checked("part", good)) == FIELDS
assert good["ratio"] == 4.0 and row("a", "b", 8.0, 2.0, "/s").ratio == 4.0
assert as_dict({"name": "a"})["environment"]
for bad in ({**good, "note": 1}, {**good, "unit": "minutes"}):
    try:
        _checked("part", bad)
    except ValueError:
        continue
    raise SystemExit("taken: " + str(bad))
"""
    done = run("-c", code)
    assert done.returncode == 0, done.stderr


def test_a_part_that_cannot_run_is_named_and_the_others_stand():
    code = """
import sys, types
from rich.console import Console
from benchmarks.measure import row
from benchmarks.run import collect
from fedtrade.errors import Fault
def fails():
    raise Fault("no node here")
for name, rows in (("good", lambda: [row("a", "b", 1.0, 2.0, "ms")]), ("bad", fails)):
    sys.modules["benchmarks." + name] = types.SimpleNamespace(rows=rows)
found, left_out = collect(["bad", "good"], Console(quiet=True))
assert [r["name"] for r in found] == ["a"]
assert {part: why.message for part, why in left_out.items()} == {"bad": "no node here"}
"""
    done = run("-c", code)
    assert done.returncode == 0, done.stderr


def test_only_data_that_is_no_part_of_the_project_may_be_missing(tmp_path):
    code = f"""
import sys, types
from pathlib import Path
from benchmarks import run
from benchmarks.measure import DataAbsent
from fedtrade.errors import Fault
def absent():
    raise DataAbsent(Path("shared/frames"))
def fails():
    raise Fault("no node here")
sys.modules["benchmarks.signing"] = types.SimpleNamespace(rows=absent)
sys.modules["benchmarks.bfv"] = types.SimpleNamespace(rows=fails)
out = ["--out", {str(tmp_path / "bench.json")!r}]
assert run.main(["signing", *out]) == 0
assert run.main(["signing", "bfv", *out]) == 1
"""
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("benchmarks.signing was left out: frames is not in shared") == 2
