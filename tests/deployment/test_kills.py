"""SIGKILL at random moments changes no byte (`kills.py`). `FEDTRADE_KILLS=300` asks for a campaign."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

WANTED = int(os.environ.get("FEDTRADE_KILLS", "12"))


@pytest.mark.timeout(3600)
def test_sigkill_at_random_moments_changes_no_byte(tmp_path, capsys):
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("kills.py")), str(tmp_path), str(WANTED)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    count = re.match(r"(\d+) SIGKILLs", done.stdout)
    assert count
    assert int(count[1]) >= WANTED
    with capsys.disabled():
        if WANTED > 50:
            print("\n" + done.stdout)
