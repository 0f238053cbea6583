"""A deployment on one machine, measured: `python -m benchmarks.deployment --out out/deployment`

SuperLink behind its gate, SuperNodes with registered keys, helpers as processes, all over TLS on
loopback; a release of many rounds of a 50k-parameter model, opened over Flower, with its rounds on
the round channel. On the way a helper and two members are killed and started again. Beside it:

* the same parties, from copies of the same folders, over Flower messages on the in-process grid: the
  transcript must be the same, byte for byte;
* (`--messages N`) N rounds as Flower messages over the deployed SuperLink, which is stock Flower's way.

Leaves `deployment.json`: rounds a minute, memory over time, kills, hashes. It is a campaign of
minutes and no part of `make bench`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from clients.app import make_app
from clients.desk import Desk
from clients.settings import MemberSettings
from clients.supernode import create_node_key
from consortium.deployment import COORDINATOR, HOST, LocalDeployment
from consortium.grid import LocalGrid, run_in_process
from fedtrade.errors import Fault, Unavailable
from fedtrade.parameters import PrivacyParameters
from fedtrade.privacy.transcript import MAGIC, verify_file
from server.app import make_app as make_coordinator
from server.operation import Operation
from server.release import Exchange
from server.settings import CoordinatorSettings

MEMBERS: Final = 5
HIDDEN: Final = (205, 205)
LIMIT_S: Final = 900.0
SAMPLE_S: Final = 2.0
KILLS: Final = {"helper-6": 0.3, "member-2": 0.5, "member-4": 0.7}
"""Who is killed, after which share of the rounds."""


def parameters(rounds: int) -> PrivacyParameters:
    """Five helpers, two of them possibly bad; every member in every cohort."""
    return PrivacyParameters(
        sampling_rate=0.02,
        noise_multiplier=1.0,
        clip_norm=1.0,
        rounds=rounds,
        delta=1e-6,
        epsilon_cap=20.0,
        cohort_min=MEMBERS,
        helpers=5,
        corrupt=2,
        learning_rate=0.002,
        agreement="certificate",
    )


def prepare(folder: Path, rounds: int) -> LocalDeployment:
    """Folders, keys and settings of everybody, with a SuperLink and a node key for each member."""
    made = LocalDeployment.write(
        folder, MEMBERS, parameters(rounds), hidden=HIDDEN, round_timeout_s=120.0
    )
    gate = _free_port()
    members = [p for p in made.parties if p.role == "member"]
    for party in members:
        create_node_key(party.folder / "node.key")
        with party.settings.open("a") as file:
            file.write(f'[supernode]\naddress = "{HOST}:{gate}"\nnode_key = "node.key"\n')
    keys = ", ".join(f'"../{p.name}/node.key.pub"' for p in members)
    settings = folder / COORDINATOR / "coordinator.toml"
    text = settings.read_text().replace(
        "[release]\n",
        f'[superlink]\ngate_host = "{HOST}"\ngate_port = {gate}\nnode_keys = [{keys}]\n[release]\n',
        1,
    )
    settings.write_text(text)
    return made


class Fleet:
    """The processes of one run, each with its children in a group of its own."""

    def __init__(self, made: LocalDeployment) -> None:
        self.made = made
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *words: str, **environment: str) -> None:
        with (self.made.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", **environment},
                start_new_session=True,
            )

    def said(self, name: str) -> str:
        return (self.made.folder / f"{name}.log").read_text(errors="replace")

    def wait_for(self, name: str, word: str, limit_s: float = 180.0) -> None:
        until = time.monotonic() + limit_s
        while word not in self.said(name):
            if self.running[name].poll() is not None or time.monotonic() > until:
                raise Unavailable(name, f"it has not said {word!r}", self.said(name)[-500:])
            time.sleep(0.1)

    def kill(self, name: str) -> None:
        """A power cut: the process and all that it started, at once."""
        for process in self._tree(self.running[name].pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.running[name].wait(10)

    @staticmethod
    def _tree(root: int) -> set[int]:
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError, IndexError):  # it has ended while we looked
                parents[int(stat.parent.name)] = int(stat.read_text().rsplit(") ", 1)[1].split()[1])
        tree = {root}
        while more := {p for p, of in parents.items() if of in tree} - tree:
            tree |= more
        return tree

    def stop(self) -> None:
        for process in self.running.values():
            if process.poll() is None:
                process.terminate()
        until = time.monotonic() + 15
        for process in self.running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):  # its whole group is ended below
                process.wait(max(0.1, until - time.monotonic()))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def memory_kib(self) -> dict[str, int]:
        """Resident memory of each process with all that it started."""
        found = {}
        for name, running in self.running.items():
            if running.poll() is None:
                found[name] = sum(map(_resident_kib, self._tree(running.pid)))
        return found


def _resident_kib(process: int) -> int:
    try:
        return 4 * int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0  # it has ended while we looked


def over_channel(made: LocalDeployment, say: Callable[[str], None]) -> dict[str, Any]:
    """The release opened over Flower, its rounds over the channel, through three kills."""
    fleet = Fleet(made)
    settings = str(made.folder / COORDINATOR / "coordinator.toml")
    transcript = made.release_folder / "transcript.bin"
    growing = _Growing(transcript)
    memory: list[tuple[float, dict[str, int]]] = []
    try:
        begin = time.monotonic()
        fleet.start("superlink", "server.cli", "up", settings)
        fleet.wait_for("superlink", "SuperNodes connect to")
        for party in made.parties:
            words = ("train", "--over", "flower") if party.role == "member" else ("committee",)
            fleet.start(party.name, "clients.cli", *words, str(party.settings))
        for party in made.parties:
            if party.role == "member":
                _await_node(party.folder)
        say(f"SuperLink, {MEMBERS} SuperNodes and the helpers are up")
        fleet.start(COORDINATOR, "server.cli", "run", settings, "--over", "flower")
        rounds = made_rounds(made)
        left = dict(KILLS)
        seen: list[float] = []
        sampled = 0.0
        until = time.monotonic() + LIMIT_S
        while fleet.running[COORDINATOR].poll() is None:
            now = time.monotonic()
            if now > until:
                raise Unavailable(COORDINATOR, "too slow", fleet.said(COORDINATOR)[-500:])
            done = min(growing.rounds(), rounds)  # the last frame closes the release
            seen += [now] * (done - len(seen))
            for name, share in list(left.items()):
                if done >= share * rounds:
                    fleet.kill(name)
                    party = next(p for p in made.parties if p.name == name)
                    verb = "committee" if party.role == "helper" else "train"
                    fleet.start(name, "clients.cli", verb, str(party.settings))
                    say(f"{name} was killed after round {done} and started again")
                    del left[name]
            if now - sampled >= SAMPLE_S:
                memory.append((now - begin, fleet.memory_kib()))
                sampled = now
            time.sleep(0.05)
        if fleet.running[COORDINATOR].returncode != 0:
            raise Unavailable(COORDINATOR, "it failed", fleet.said(COORDINATOR)[-800:])
    finally:
        fleet.stop()
    proved = verify_file(transcript)
    per_minute = 60 * (len(seen) - 1) / (seen[-1] - seen[0])
    quick = sorted(b - a for a, b in pairwise(seen))[len(seen) // 2]
    return {
        "rounds": proved.rounds_spent,
        "steps": proved.steps,
        "rounds_per_minute_with_kills": round(per_minute, 1),
        "median_round_s": round(quick, 3),
        "artifact_sha256": proved.artifact_sha256,
        "memory_kib": [{"at_s": round(at, 1), **found} for at, found in memory],
    }


def over_messages_in_process(made: LocalDeployment) -> dict[str, Any]:
    """The same release over Flower messages on the in-process grid, from the same files."""
    desks = [Desk.open(MemberSettings.load(p.settings)) for p in made.parties]
    by_node = dict(enumerate(desks, start=2))
    app = make_app(lambda context: by_node[context.node_id])
    grid = LocalGrid(app, nodes=len(desks))
    settings = CoordinatorSettings.load(made.folder / COORDINATOR / "coordinator.toml")
    begin = time.monotonic()
    with Operation(settings, lambda *_: None) as operation:

        def drive(exchange: Exchange) -> None:
            operation.drive(exchange)

        run_in_process(make_coordinator(drive, 120.0), grid)
    took_s = time.monotonic() - begin
    for desk in desks:
        desk.close()
    proved = verify_file(made.release_folder / "transcript.bin")
    return {
        "rounds": proved.rounds_spent,
        "seconds_a_round": round(took_s / proved.rounds_spent, 3),
        "artifact_sha256": proved.artifact_sha256,
    }


def over_messages_deployed(made: LocalDeployment, say: Callable[[str], None]) -> dict[str, Any]:
    """Rounds as Flower messages through the deployed SuperLink; helpers sit at SuperNodes, too."""
    for party in made.parties:  # helpers reach nothing but the gate here
        if party.role == "helper":
            create_node_key(party.folder / "node.key")
    settings = made.folder / COORDINATOR / "coordinator.toml"
    found = re.search(r"gate_port = (\d+)", settings.read_text())
    if found is None:
        raise Fault("the deployment was prepared without a gate")
    gate = found[1]
    helpers = [p for p in made.parties if p.role == "helper"]
    for party in helpers:
        with party.settings.open("a") as file:
            file.write(f'[supernode]\naddress = "{HOST}:{gate}"\nnode_key = "node.key"\n')
    more = "".join(f', "../{p.name}/node.key.pub"' for p in helpers)
    settings.write_text(re.sub(r"(node_keys = \[[^\]]*)\]", rf"\1{more}]", settings.read_text()))
    fleet = Fleet(made)
    try:
        fleet.start("superlink", "server.cli", "up", str(settings), "--rounds", "messages")
        fleet.wait_for("superlink", "SuperNodes connect to")
        for party in made.parties:
            fleet.start(party.name, "clients.cli", "train", "--over", "flower", str(party.settings))
        for party in made.parties:
            _await_node(party.folder)
        say("every party sits at a SuperNode")
        growing = _Growing(made.release_folder / "transcript.bin")
        begin = time.monotonic()
        fleet.start(COORDINATOR, "server.cli", "run", str(settings), "--over", "messages")
        seen: list[float] = []
        rounds = made_rounds(made)
        while len(seen) < rounds:
            done = min(growing.rounds(), rounds)
            seen += [time.monotonic()] * (done - len(seen))
            if time.monotonic() - begin > LIMIT_S:
                raise Unavailable("SuperLink", "too slow", fleet.said("superlink")[-500:])
            time.sleep(0.2)
    finally:
        fleet.stop()
    gaps = [b - a for a, b in pairwise([begin, *seen])]
    return {
        "rounds": rounds,
        "first_round_s": round(gaps[0], 1),
        "rounds_s": [round(g, 1) for g in gaps],
    }


def made_rounds(made: LocalDeployment) -> int:
    """Rounds of the release."""
    return CoordinatorSettings.load(
        made.folder / COORDINATOR / "coordinator.toml"
    ).release.parameters.rounds


def _await_node(folder: Path) -> None:
    log = folder / "supernode" / "supernode.log"
    until = time.monotonic() + 180
    while not (log.exists() and "SuperNode ID" in log.read_text(errors="replace")):
        if time.monotonic() > until:
            raise Unavailable(folder.name, "its SuperNode has not connected", f"See {log}")
        time.sleep(0.2)


class _Growing:
    """Counts the rounds of a transcript that is being written, from where it was last looked at."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = len(MAGIC)
        self._frames = 0

    def rounds(self) -> int:
        """Whole frames so far, less terms and base."""
        if not self._path.exists():
            return 0
        size = self._path.stat().st_size
        with self._path.open("rb") as file:
            while True:
                file.seek(self._at)
                end = self._at + 4 + int.from_bytes(file.read(4), "big")
                if self._at + 4 > size or end > size:
                    return max(0, self._frames - 2)
                self._at, self._frames = end, self._frames + 1


def _free_port() -> int:
    import socket

    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.deployment", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/deployment"))
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--messages", type=int, default=0, help="rounds over deployed messages")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)

    def say(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    work = given.out / "parties"
    shutil.rmtree(work, ignore_errors=True)
    result: dict[str, Any] = {}
    made = prepare(work / "channel", given.rounds)
    shutil.copytree(made.folder, work / "grid")
    grid = LocalDeployment(work / "grid", _moved(made, work / "grid"), made.port)
    result["channel"] = over_channel(made, say)
    say(f"channel: {result['channel']['rounds_per_minute_with_kills']} rounds a minute")
    result["messages_in_process"] = over_messages_in_process(grid)
    result["same_hash"] = (
        result["channel"]["artifact_sha256"] == result["messages_in_process"]["artifact_sha256"]
    )
    say(f"the same hash over both: {result['same_hash']}")
    if given.messages:
        slow = prepare(work / "messages", given.messages)
        result["messages_deployed"] = over_messages_deployed(slow, say)
        say(f"deployed messages: {result['messages_deployed']['rounds_s']} s")
    (given.out / "deployment.json").write_text(json.dumps(result, indent=1) + "\n")


def _moved(made: LocalDeployment, folder: Path) -> tuple[Any, ...]:
    from dataclasses import replace

    return tuple(replace(party, folder=folder / party.name) for party in made.parties)


if __name__ == "__main__":
    main()
