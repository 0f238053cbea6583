"""Publish at home, and every mirror shows it: validators and relayer as processes of their own.

Real Hyperlane contracts on three chains, 2 of 3 validators, keys and settings from files, `kill -9`.
"""

import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from messengers import ROOT, connect, until

from fedtrade.chain.contracts import COORDINATOR, MEMBER, Membership, ModelRegistry
from fedtrade.chain.conversation import ask
from fedtrade.chain.mirrors import RegistryMirror
from fedtrade.chain.parameter_store import ParameterStore
from fedtrade.devnet.accounts import OPERATOR
from fedtrade.protocol import publication_digest
from fedtrade.venues.hyperlane import read_checkpoint

pytestmark = [pytest.mark.chain, pytest.mark.timeout(300)]

MIRRORS = ("birch", "cedar")


@dataclass
class Scene:
    devnet: object
    deployment: object
    folder: Path
    members: list
    parties: dict

    @property
    def home(self):
        return self.deployment.chain("aster")

    def shown(self, name):
        """(version, hash, slippage, paused, as of) of a mirror, or of the registry at home."""
        rpc, chain = self.devnet.rpc(name), self.deployment.chain(name)
        mirror = RegistryMirror(chain.messages.mirror)
        live, values = ask(rpc, mirror.live()), ask(rpc, mirror.parameters())
        return live.version, live.sha256, values.values[15], values.paused, values.as_of_s

    def until(self, what, holds):
        return until(what, holds, self.parties.values())

    def everywhere(self, what, place, value):
        return self.until(what, lambda: all(self.shown(name)[place] == value for name in MIRRORS))

    def checkpoints(self, number):
        files = (self.folder / f"v{number}" / "public").glob("*_with_id.json")
        return {f.name: f.read_bytes() for f in files}

    def publish(self, version):
        """A release of nothing but its publication, signed by all members; gives the hash."""
        home, rpc = self.home, self.devnet.rpc("aster")
        registry = ModelRegistry(home.model_registry)
        seats = [ask(rpc, Membership(home.membership).id_of_signer(m.address))
                 for m in self.members]  # fmt: skip
        sha256 = f"{version:02x}" * 32
        opening = registry.open_release(version, b"\1" * 32, "00" * 32, 1, seats, [])
        self.devnet.transact("aster", OPERATOR, opening)
        digest = publication_digest(
            home.chain_id, home.model_registry, version, version, bytes.fromhex(sha256), "x", 1000
        )
        signed = {m.address: m.sign_digest(digest) for m in self.members}
        self.devnet.transact(
            "aster", OPERATOR, registry.publish(version, version, sha256, "x", 1000, signed)
        )
        return sha256

    def later(self, seconds):
        """Move every chain's clock on alike."""
        now = max(self.devnet.anvil(c.name).latest().timestamp_s for c in self.deployment.chains)
        for chain in self.deployment.chains:
            self.devnet.mine(chain.name, now + seconds)

    def govern(self, call):
        self.devnet.govern("aster", call)

    @property
    def store(self):
        registry = ModelRegistry(self.home.model_registry)
        return ParameterStore(ask(self.devnet.rpc("aster"), registry.parameter_store()))


@pytest.fixture(scope="module")
def scene(devnet, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mirrors")
    deployment, members, parties = connect(devnet, folder)
    scene = Scene(devnet, deployment, folder, members, parties)
    membership = Membership(scene.home.membership)
    for member in members:
        scene.govern(membership.admit(member.address, member.address, bytes(32), MEMBER))
    scene.govern(membership.admit(OPERATOR, OPERATOR, bytes(32), COORDINATOR))
    for party in scene.parties.values():
        party.start()
    yield scene
    for party in scene.parties.values():
        party.end()


def test_what_is_published_at_home_is_shown_everywhere(scene, record_property):
    scene.until("first message", lambda: all(scene.shown(n)[4] > 0 for n in MIRRORS))
    assert scene.shown("birch")[:4] == (0, "00" * 32, 50, False)
    begun = time.monotonic()
    sha256 = scene.publish(1)
    seen = scene.until(
        "publication",
        lambda: all(
            [m.version for m in ask(scene.devnet.rpc(n), RegistryMirror(
                scene.deployment.chain(n).messages.mirror).listed())] == [1]
            for n in MIRRORS
        ),
    )  # fmt: skip
    record_property("seconds_publish_to_mirrors", round(time.monotonic() - begun, 2))
    print(f"\npublication to both mirrors: {seen:.2f} s")
    assert scene.shown("birch")[0] == 0  # the activation delay runs there, too
    scene.later(31)
    assert all(scene.shown(name)[:2] == (1, sha256) for name in MIRRORS)
    scene.govern(scene.store.set({"slippageMaxBps": 40}))
    took = scene.everywhere("parameters", 2, 40)
    print(f"parameters to both mirrors: {took:.2f} s")


def test_a_revocation_follows(scene):
    scene.publish(2)
    scene.later(31)
    scene.everywhere("version 2", 0, 2)
    registry = ModelRegistry(scene.home.model_registry)
    scene.govern(registry.revoke(2))
    took = scene.everywhere("revocation", 0, 1)
    print(f"\nrevocation to both mirrors: {took:.2f} s")
    scene.govern(scene.store.pause())
    scene.everywhere("pause", 3, True)
    scene.govern(scene.store.unpause())
    scene.everywhere("the end of the pause", 3, False)


def test_without_validators_mirrors_age_and_nothing_else(scene):
    before = [scene.shown(name) for name in MIRRORS]
    scene.parties["v0"].end(signal.SIGKILL)
    scene.parties["v1"].end(signal.SIGKILL)
    sent = len(scene.checkpoints(2))
    scene.govern(scene.store.set({"slippageMaxBps": 30}))
    scene.later(3_600)
    scene.until("the third one's checkpoint", lambda: len(scene.checkpoints(2)) > sent)
    time.sleep(0.5)  # ten looks of the relayer
    assert [scene.shown(name) for name in MIRRORS] == before
    now = scene.devnet.anvil("birch").latest().timestamp_s
    assert now - scene.shown("birch")[4] >= 3_600  # asOf says how old it is
    scene.parties["v0"].start()
    scene.everywhere("parameters", 2, 30)


def test_killed_validators_and_relayer_go_on_and_contradict_nothing(scene):
    before = scene.checkpoints(0)
    for round_number in range(2):
        for name in ("v0", "v1", "relay"):
            scene.parties[name].end(signal.SIGKILL)
        scene.govern(scene.store.set({"slippageMaxBps": 31 + round_number}))
        for name in ("v1", "relay", "v0"):
            scene.parties[name].start()
        scene.everywhere("parameters", 2, 31 + round_number)
    after = scene.checkpoints(0)
    assert {name: after[name] for name in before} == before
    scene.until("everybody's checkpoints", lambda: len(scene.checkpoints(1)) >= len(after))
    for name in after.keys() & scene.checkpoints(1).keys() & scene.checkpoints(2).keys():
        said = {read_checkpoint(scene.checkpoints(n)[name]).checkpoint for n in range(3)}
        assert len(said) == 1


def test_processes_end_when_told_and_say_what_they_did(scene):
    assert scene.parties["v2"].end() == 0
    assert scene.parties["relay"].end() == 0
    log = scene.parties["relay"].log.read_text()
    assert re.search(r"birch: message \d+ mined, \d+ gas, [\d.]+ s after it was seen", log)
    assert re.search(r"aster: nothing to post \| birch: at \d+ \| cedar: at \d+", log)
    assert "Traceback" not in log
    told = scene.parties["v2"].log.read_text()
    assert "checkpoints signed, home chain read to block" in told
    assert "Traceback" not in told
    status = subprocess.run(
        [sys.executable, "-m", "server.cli", "relay", "status",
         str(scene.folder / "relay" / "relay.toml")],
        capture_output=True, text=True, cwd=ROOT, timeout=60,
    )  # fmt: skip
    assert status.returncode == 0, status.stderr
    assert re.search(r"birch +\d+ taken", status.stdout)
