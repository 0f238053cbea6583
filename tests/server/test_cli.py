"""The coordinator's command."""

import subprocess
import sys


def coordinator(*words):
    return subprocess.run(
        [sys.executable, "-m", "server.cli", *map(str, words)], capture_output=True, text=True
    )


def test_init_makes_a_key_once(tmp_path):
    made = coordinator("init", tmp_path / "c")
    assert made.returncode == 0
    assert made.stdout.startswith("address  0x")
    again = coordinator("init", tmp_path / "c")
    assert again.returncode == 2
    assert "coordinator.key" in again.stderr


def test_an_unreachable_node_is_one_sentence(tmp_path):
    gone = coordinator("live", "--deployment", tmp_path / "none.json")
    assert gone.returncode == 2
    assert gone.stderr.startswith("fedtrade-coordinator: ")
    assert "Traceback" not in gone.stderr
