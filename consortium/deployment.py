"""A rehearsal of a deployment: one machine, but real processes, files, keys and TLS between them.

`LocalDeployment.write` makes a folder for the coordinator and for every member and helper, with what
each of them would have on a machine of its own and nothing more. `start` runs their own commands
(`fedtrade-coordinator run`, `fedtrade-member train`, `fedtrade-member committee`); `stop` ends
exactly the processes that it started, by their ids.

There is no chain: manifests are final by the helpers' certificate, and every party has approved the
policy hash in its own file. Positions are simulated over real prices, and say so.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

from clients.keys import MemberKeys
from clients.positions import PrivatePositions
from fedtrade.errors import Unavailable
from fedtrade.learning.baseline import base_artifact
from fedtrade.learning.tables import TRAIN_UNTIL_S, candles, markets
from fedtrade.parameters import PrivacyParameters
from fedtrade.protocol import ReleaseTerms
from fedtrade.simulation.positions import CONSORTIUM, STANDIN, csv_text, simulate_positions
from server.certificates import create_authority, issue
from server.keys import CoordinatorKeys
from server.operation import Operation
from server.settings import CoordinatorSettings

HOST: Final = "127.0.0.1"
STOP_S: Final = 15.0
COORDINATOR: Final = "coordinator"


@dataclass(frozen=True, slots=True)
class Party:
    """One member or helper, as the others know it."""

    name: str
    seat: int
    role: str
    folder: Path
    address: str
    x25519: bytes
    positions: int
    """How many it brings; 0 for a helper."""

    @property
    def settings(self) -> Path:
        return self.folder / "member.toml"


@dataclass(slots=True)
class LocalDeployment:
    """Everybody's folders below one, and the processes that were started on them."""

    folder: Path
    parties: tuple[Party, ...]
    port: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @classmethod
    def write(
        cls,
        folder: Path,
        members: int,
        parameters: PrivacyParameters,
        hidden: Sequence[int] = (8,),
        seed: int = 1,
        round_timeout_s: float = 60.0,
    ) -> Self:
        """Make every folder. `parameters.helpers` says how many helpers there are.

        Members have seats from 1 on, helpers those after them; at most eight members have a book.
        """
        parties = tuple(
            [_make_member(folder, seat, seed) for seat in range(1, members + 1)]
            + [_make_helper(folder, members + 1 + i) for i in range(parameters.helpers)]
        )
        own = folder / COORDINATOR
        coordinator = CoordinatorKeys.create(own)
        now = datetime.now(UTC)
        create_authority(own / "tls", "rehearsal", now)
        ca = issue(own / "tls", [HOST], now).ca.read_bytes()
        (own / "base.safetensors").write_bytes(
            base_artifact(tuple(hidden), seed, standins=(STANDIN,))
        )
        port = _free_port()
        settings = own / "coordinator.toml"
        settings.write_text(_coordinator_toml(parties, parameters, port, round_timeout_s))
        with Operation(CoordinatorSettings.load(settings), lambda *_: None) as operation:
            terms = operation.terms
        for party in parties:
            (party.folder / "ca.crt").write_bytes(ca)
            party.settings.write_text(_member_toml(party, terms, coordinator.address.lower(), port))
        return cls(folder, parties, port)

    @property
    def release_folder(self) -> Path:
        """Where the coordinator leaves transcript and artifact."""
        return self.folder / COORDINATOR / "releases" / "release-1"

    def start_parties(self) -> None:
        """Start every member and helper."""
        for party in self.parties:
            self.start(party.name)

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Start one party's or the coordinator's own command; its output goes to its log."""
        if name == COORDINATOR:
            words = ["server.cli", "run", str(self.folder / COORDINATOR / "coordinator.toml")]
        else:
            party = next(p for p in self.parties if p.name == name)
            verb = "train" if party.role == "member" else "committee"
            words = ["clients.cli", verb, str(party.settings)]
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        self.processes[name] = process
        return process

    def log(self, name: str) -> Path:
        """What a process said."""
        return self.folder / name / "process.log"

    def wait(self, name: str, limit_s: float) -> None:
        """Wait for a process to end well. Raises Unavailable with its last line otherwise."""
        try:
            code = self.processes[name].wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
        if code != 0:
            last = self.log(name).read_text(errors="replace").strip().splitlines()[-1:]
            raise Unavailable(
                name,
                f"it has not ended within {limit_s:g} s" if code is None else f"exit code {code}",
                f"Its last line: {''.join(last)}",
            )

    def kill(self, name: str) -> None:
        """End one process at once, as a power cut would."""
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes[name].wait(STOP_S)

    def stop(self) -> None:
        """End every process that was started and is still there; harmless when none is."""
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        until = time.monotonic() + STOP_S
        for process in self.processes.values():
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _make_member(folder: Path, seat: int, seed: int) -> Party:
    name = f"member-{seat}"
    own = folder / name
    keys = MemberKeys.create(own)
    who = CONSORTIUM[seat - 1]
    table = {(who.venue, symbol): candles(who.venue, symbol) for symbol in who.symbols}
    path = own / "positions.csv"
    path.write_text(csv_text(simulate_positions(who, table, seed)))
    path.chmod(0o600)
    known = {market: candles(*market) for market in markets()}
    count = PrivatePositions.load(path, known, TRAIN_UNTIL_S).count
    return Party(name, seat, "member", own, keys.address.lower(), keys.x25519_public, count)


def _make_helper(folder: Path, seat: int) -> Party:
    name = f"helper-{seat}"
    keys = MemberKeys.create(folder / name)
    return Party(name, seat, "helper", folder / name, keys.address.lower(), keys.x25519_public, 0)


def _coordinator_toml(
    parties: Sequence[Party], parameters: PrivacyParameters, port: int, round_timeout_s: float
) -> str:
    def row(party: Party) -> str:
        books = f", positions = {party.positions}" if party.role == "member" else ""
        return (
            f'    {{ id = {party.seat}, signer = "{party.address}", '
            f'x25519 = "{party.x25519.hex()}"{books} }},\n'
        )

    chosen = parameters.model_copy(update={"agreement": "certificate"})
    fields = chosen.model_dump(exclude_none=True)
    return (
        'folder = "releases"\nkeys = "."\ntls = "tls"\n'
        f'[channel]\nhost = "{HOST}"\nport = {port}\n'
        '[release]\nnumber = 1\nversion = 1\nbase = "base.safetensors"\n'
        f"round_timeout_s = {round_timeout_s}\nrelease_timeout_s = 300.0\n"
        f"members = [\n{''.join(row(p) for p in parties if p.role == 'member')}]\n"
        f"helpers = [\n{''.join(row(p) for p in parties if p.role == 'helper')}]\n"
        "[release.parameters]\n"
        + "".join(f"{name} = {_toml(value)}\n" for name, value in fields.items())
    )


def _member_toml(party: Party, terms: ReleaseTerms, coordinator: str, port: int) -> str:
    positions = 'positions = "positions.csv"\n' if party.role == "member" else ""
    until = datetime.fromtimestamp(TRAIN_UNTIL_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    p = terms.parameters
    return (
        f'folder = "."\nkeys = "."\n{positions}until = {until}\n'
        f'approved_terms = ["{terms.digest.hex()}"]\n'
        f"[seats]\n{party.role} = {party.seat}\n"
        f'[coordinator]\naddress = "{coordinator}"\nurl = "https://{HOST}:{port}"\n'
        'ca_file = "ca.crt"\n'
        f"[floor]\nepsilon_limit = {p.epsilon_cap}\ncohort_min = {p.cohort_min}\n"
        f"[helper]\ncohort_min = {p.cohort_min}\n"
    )


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])
