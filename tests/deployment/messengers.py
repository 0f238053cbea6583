"""Processes of our own commands, and among them those that carry the home chain's word to mirrors."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from clients.keys import MemberKeys
from server.keys import CoordinatorKeys
from server.relay_settings import RELAY_TEMPLATE

ROOT = Path(__file__).parents[2]
WAIT_S = 40.0


@dataclass
class Party:
    """A process of one of our commands, its output in a file."""

    name: str
    command: list
    log: Path
    process: subprocess.Popen | None = None

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.command],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )

    def end(self, number=signal.SIGTERM):
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(number)
            process.wait(20)
            return process.returncode
        return None


def until(what, holds, parties=(), wait_s=WAIT_S):
    """Wait; gives the seconds that it took. Where it does not happen, the parties' logs are shown."""
    begun = time.monotonic()
    while not holds():
        if time.monotonic() - begun > wait_s:
            logs = "\n".join(f"{p.name}: {p.log.read_text()[-1500:]}" for p in parties)
            raise AssertionError(f"{what} did not happen\n{logs}")
        time.sleep(0.02)
    return time.monotonic() - begun


def connect(devnet, folder, heartbeat_s=21600.0):
    """Beacon, mirrors, three validators of which two must sign, and a relayer, none started yet.

    Gives (deployment, the members that validate, parties by name).
    """
    members = [MemberKeys.create(folder / f"v{n}") for n in range(3)]
    deployment = devnet.link([m.address for m in members], 2)
    deployment.save(folder / "deployment.json")
    home, parties = deployment.chain(deployment.home), {}
    for n in range(3):
        own = folder / f"v{n}"
        (own / "member.toml").write_text(_member_toml(own, home, n))
        command = ["clients.cli", "validate", str(own / "member.toml")]
        parties[f"v{n}"] = Party(f"v{n}", command, folder / f"v{n}.log")
    relayer = CoordinatorKeys.create(folder / "relay")
    for chain in deployment.chains:
        devnet.fund(chain.name, relayer.address, native_wei=10**20)
    places = "\n".join(f'    "file://{folder}/v{n}/public",' for n in range(3))
    text = RELAY_TEMPLATE.replace('    "https://<host>/checkpoints",', places)
    text = text.replace('"deployment.json"', '"../deployment.json"').replace("5.0   ", "0.05  ")
    text = text.replace('# final_block = "finalized"', 'final_block = "latest"')
    text = text.replace("heartbeat_s = 21600.0 ", f"heartbeat_s = {heartbeat_s} ")
    assert f"heartbeat_s = {heartbeat_s} " in text
    (folder / "relay" / "relay.toml").write_text(text)
    command = ["server.cli", "relay", "run", str(folder / "relay" / "relay.toml")]
    parties["relay"] = Party("relay", command, folder / "relay.log")
    return deployment, members, parties


def _member_toml(folder, home, number):
    return f"""
folder = "."
keys = "."
[seats]
helper = {number + 1}
[coordinator]
address = "0x{"00" * 20}"
url = "https://127.0.0.1:1"
ca_file = "ca.crt"
[home_chain]
rpc_url = "{home.rpc_url}"
chain_id = {home.chain_id}
final_block = "latest"
membership = "{home.membership.lower()}"
registry = "{home.model_registry.lower()}"
[validator]
merkle_tree_hook = "{home.messages.merkle_tree_hook.lower()}"
from_block = 0
storage = "public"
location = "file://{folder}/public"
poll_s = 0.05
"""
