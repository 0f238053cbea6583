"""The rehearsal over forked processes: the same messages, and absent seats where one of them ends.

In an interpreter of its own: a fork of a test process would copy locks that its threads hold.
"""

import subprocess
import sys

CODE = """
import multiprocessing
import sys
from pathlib import Path

from clients.keys import MemberKeys
from consortium.rehearsal import SMALL, rehearse
from server.rounds import RoundAbandoned

folder = Path(sys.argv[1])
parameters = SMALL.model_copy(update={"agreement": "certificate"})
keys = [MemberKeys.ephemeral() for _ in range(7)]

def made(name):
    return rehearse(
        folder / name, parameters=parameters, keys=keys[:6], coordinator_keys=keys[6]
    )

plain, forked, killed = made("plain"), made("forked"), made("killed")
for _ in range(2):
    plain.release.run_round(plain.direct())

def run(exchange):
    assert len(multiprocessing.active_children()) == 2
    for _ in range(2):
        assert forked.release.run_round(exchange).cohort == (1, 2, 3, 4, 5, 6)

forked.over_flower(run, processes=2)
assert not multiprocessing.active_children()
assert forked.release.finish().artifact_sha256 == plain.release.finish().artifact_sha256

def lose(exchange):
    assert len(killed.release.run_round(exchange).cohort) == 6
    multiprocessing.active_children()[0].kill()
    try:
        killed.release.run_round(exchange)
    except RoundAbandoned as abandoned:
        assert "3 members uploaded" in abandoned.message
        print("abandoned")

killed.over_flower(lose, processes=2)
assert not multiprocessing.active_children()
for consortium in (plain, forked, killed):
    consortium.close()
"""


def test_forked_processes_end_in_the_same_hash_and_a_dead_one_is_absent_seats(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "abandoned\n"
