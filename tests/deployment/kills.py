"""SIGKILL at random moments, everybody, over and over: the release ends in the very same bytes.

Processes are forked from this one after everything is imported, so that a restart costs
milliseconds; what a killed process knew is gone, and only its files are left. A first run without
kills gives the bytes to expect: members rebuild the same uploads, helpers the same shares, and the
coordinator asks for the same manifests, so the transcript of the killed run must be identical.

A script of its own, since a fork must not inherit threads: `python tests/deployment/kills.py FOLDER N`.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

from consortium.deployment import COORDINATOR, LocalDeployment
from fedtrade.parameters import PrivacyParameters
from fedtrade.privacy.transcript import MAGIC, RoundRecord, read_frames, verify_file
from fedtrade.protocol import decode

LIMIT_S = 300.0
GAP_S = 0.35
KILLS_A_RELEASE = 25
PARAMETERS = PrivacyParameters(
    sampling_rate=0.02,
    noise_multiplier=1.0,
    clip_norm=1.0,
    rounds=8,
    delta=1e-6,
    epsilon_cap=8.0,
    cohort_min=4,  # all of them: whoever is killed must come back with its upload
    helpers=3,
    corrupt=1,
    learning_rate=0.01,
    agreement="certificate",
)


class Child:
    """A forked process, with as much of Popen as the deployment uses."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def wait(self, limit_s: float) -> int:
        until = time.monotonic() + limit_s
        while self.poll() is None:
            if time.monotonic() > until:
                raise TimeoutError(f"process {self.pid} has not ended in {limit_s} s")
            time.sleep(0.005)
        return self._code

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forked(LocalDeployment):
    """A deployment whose processes are forks of this one."""

    def start(self, name: str) -> Child:
        if name == COORDINATOR:
            words = ["run", str(self.folder / COORDINATOR / "coordinator.toml")]
        else:
            party = next(p for p in self.parties if p.name == name)
            words = ["train" if party.role == "member" else "committee", str(party.settings)]
        pid = os.fork()
        if pid == 0:
            _become(name, words, self.log(name))
        self.processes[name] = Child(pid)
        return self.processes[name]


def _become(name, words, log):
    """In the child: run the command as if it had been started afresh, and never come back."""
    code = 70
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout = os.fdopen(1, "w", buffering=1)
        sys.stderr = os.fdopen(2, "w", buffering=1)
        from clients.cli import app as member
        from server.cli import app as coordinator

        app = coordinator if name == COORDINATOR else member
        app(words, standalone_mode=False)
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(folder, seed, kills):
    """Run a deployment to its end with up to `kills` SIGKILLs; gives how many there were."""
    draw = random.Random(seed)
    done = {}
    with reopen(folder) as deployment:
        names = [COORDINATOR, *(p.name for p in deployment.parties)]
        for name in names:
            deployment.start(name)
        until = time.monotonic() + LIMIT_S
        while deployment.processes[COORDINATOR].poll() is None:
            assert time.monotonic() < until, deployment.log(COORDINATOR).read_text()[-2000:]
            if sum(done.values()) >= kills:
                time.sleep(0.02)
                continue
            time.sleep(draw.expovariate(1 / GAP_S))
            for name in draw.sample(names, draw.choice((1, 1, 1, 2, 3))):
                if deployment.processes[name].poll() is None:
                    deployment.processes[name].kill()
                    deployment.processes[name].wait(10)
                    role = name.split("-")[0]
                    done[role] = done.get(role, 0) + 1
                deployment.start(name)
        deployment.wait(COORDINATOR, 1.0)
    return done


def reopen(folder):
    kept = json.loads((folder / "deployment.json").read_text())
    from consortium.deployment import Party

    parties = tuple(
        Party(**{**p, "folder": folder / p["name"], "x25519": bytes.fromhex(p["x25519"])})
        for p in kept["parties"]
    )
    return Forked(folder, parties, kept["port"])


def write(folder, seed):
    made = LocalDeployment.write(folder, 4, PARAMETERS, seed=seed)
    parties = [
        {
            "name": p.name,
            "seat": p.seat,
            "role": p.role,
            "folder": "",
            "address": p.address,
            "x25519": p.x25519.hex(),
            "positions": p.positions,
        }
        for p in made.parties
    ]
    (folder / "deployment.json").write_text(json.dumps({"parties": parties, "port": made.port}))


def in_a_fork(act):
    """Polars keeps threads, and a fork of a process with threads hangs: nothing here may use it."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            act()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def copy(source, target):
    """The same parties in another place: settings have paths relative to themselves."""
    shutil.copytree(source, target)
    return target


def check(folder, expected):
    """One answer a round, no lost line, the same bytes as the run that nobody disturbed."""
    deployment = reopen(folder)
    path = deployment.release_folder / "transcript.bin"
    proved = verify_file(path)
    assert path.read_bytes() == expected.read_bytes()
    assert proved.rounds_spent == proved.steps == PARAMETERS.rounds
    frames = [body for _, body in read_frames(path.read_bytes())][2:-1]
    assert path.read_bytes().startswith(MAGIC)
    records = [decode(RoundRecord, body) for body in frames]
    manifests = {r.question.manifest.round: r.question.manifest.content().hex() for r in records}
    for party in deployment.parties:
        if party.role == "helper":
            lines = (party.folder / f"signed-{party.seat}.jsonl").read_text().splitlines()
            signed = [(json.loads(x)["round"], json.loads(x)["manifest"]) for x in lines]
            assert len({number for number, _ in signed}) == len(signed)
            assert all(manifests[number] == content for number, content in signed)
        else:
            text = (party.folder / "ledger.jsonl").read_text()
            lines = [x for x in map(json.loads, text.splitlines()) if x["pool"] == "rounds"]
            assert [x["round"] for x in lines] == list(range(1, PARAMETERS.rounds + 1))
            heads = {
                r.question.manifest.round: u.statement.ledger.hex()
                for r in records
                for u in r.uploads
                if u.statement.member == party.seat
            }
            assert heads == {x["round"]: x["hash"] for x in lines}


def campaign(folder, wanted):
    """Kill until there were `wanted` SIGKILLs; gives how many of each role."""
    import server.cli
    import server.operation  # noqa: F401 - imported here, so that the forks need not

    total = {}
    seed = 0
    while sum(total.values()) < wanted:
        seed += 1
        assert seed < 200
        origin = folder / f"origin-{seed}"
        in_a_fork(lambda to=origin, of=seed: write(to, of))
        quiet = copy(origin, folder / f"quiet-{seed}")
        run(quiet, seed, kills=0)
        expected = reopen(quiet).release_folder / "transcript.bin"
        for attempt in range(4 if wanted > KILLS_A_RELEASE else 1):
            broken = copy(origin, folder / f"broken-{seed}-{attempt}")
            left = wanted - sum(total.values())
            done = run(broken, 1000 * seed + attempt, kills=min(KILLS_A_RELEASE, left))
            check(broken, expected)
            for role, count in done.items():
                total[role] = total.get(role, 0) + count
    return total


if __name__ == "__main__":
    found = campaign(Path(sys.argv[1]), int(sys.argv[2]))
    print(f"{sum(found.values())} SIGKILLs, {found}: all bytes the same")
