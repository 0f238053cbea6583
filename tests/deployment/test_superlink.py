"""The deployed Flower side, as it is: SuperLink, gate, two SuperNodes, TLS, node keys, a real run.

One deployment for the module. It is slow because Flower is: every command and every message starts
a Python process, and nodes poll every three seconds.
"""

import json
import re
import shutil
import subprocess
import sys
import time
import tomllib
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest
import tomli_w

from clients import supernode
from clients.settings import MEMBER_TEMPLATE
from clients.supernode import SuperNode, create_node_key
from fedtrade.bundle import bundle_files
from fedtrade.errors import Unavailable
from server.bundle import start_run
from server.certificates import create_authority, issue
from server.flower import PURPOSE_VARIABLE, ROLL_FILE, SETTINGS_VARIABLE
from server.gate import Gate, read_node_keys, serving
from server.settings import COORDINATOR_TEMPLATE
from server.superlink import CONNECTION, SuperLink, flower_command

pytestmark = pytest.mark.timeout(300)
PATIENCE_S = 150.0
BIN = Path(sys.executable).parent
"""Where this environment's commands are: it need not be on the PATH."""


@dataclass
class Deployment:
    folder: Path
    link: SuperLink
    gate: str
    tls: object
    nodes: list

    @property
    def roll_file(self):
        return self.folder / "releases" / ROLL_FILE

    def roll(self):
        """The roll call that comes next."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.roll_file.exists():
            assert time.monotonic() < deadline, self.link._log().read_text()[-3000:]
            time.sleep(0.2)
        found = json.loads(self.roll_file.read_text())
        self.roll_file.unlink()
        return found

    def member(self, name):
        """A member's folder with its settings; gives the settings and the public key."""
        folder = self.folder / name
        public = create_node_key(folder / "node.key")
        settings = tomllib.loads(MEMBER_TEMPLATE)
        settings["coordinator"] |= {"address": f"0x{1:040x}", "url": "https://127.0.0.1:1"}
        settings["coordinator"]["ca_file"] = str(self.tls.ca)
        settings["home_chain"] |= {"membership": f"0x{2:040x}", "registry": f"0x{3:040x}"}
        settings["supernode"] = {"address": self.gate, "node_key": "node.key"}
        (folder / "member.toml").write_text(tomli_w.dumps(settings))
        return folder / "member.toml", public


def coordinator_settings(folder):
    settings = tomllib.loads(COORDINATOR_TEMPLATE)
    settings["release"]["round_timeout_s"] = PATIENCE_S
    (folder / "coordinator.toml").write_text(tomli_w.dumps(settings))
    return folder / "coordinator.toml"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deployment")
    create_authority(folder / "tls", "test", datetime.now(UTC))
    tls = issue(folder / "tls", ["127.0.0.1"], datetime.now(UTC))
    environment = {
        PURPOSE_VARIABLE: "roll-call",
        SETTINGS_VARIABLE: str(coordinator_settings(folder)),
    }
    keys = set()
    with ExitStack() as running:
        link = running.enter_context(SuperLink.start(folder / "superlink", 0, environment))
        gate = Gate(link.url, link.tls.client_context(), keys.__contains__)
        port = running.enter_context(serving(gate, "127.0.0.1", 0, tls.server_context()))
        there = Deployment(folder, link, f"127.0.0.1:{port}", tls, [])
        members = [there.member(f"member{number}") for number in (1, 2)]
        keys |= read_node_keys(public for _, public in members)
        for settings, public in members:
            link.register(public)
            there.nodes.append(running.enter_context(SuperNode.start(settings)))
        for node in there.nodes:
            node.await_connected(PATIENCE_S)
        yield there
    assert not link.running
    assert not any(node.running for node in there.nodes)


def test_a_query_goes_to_every_node_and_back_with_a_bundle_without_code(deployment):
    run = start_run(deployment.link)
    roll = deployment.roll()
    print(f"an empty deployed round took {roll['took_s']} s")
    assert sorted(roll["nodes"].values()) == [version("fedtrade")] * 2
    for node in deployment.nodes:
        (installed,) = (node.folder / "home" / "apps").iterdir()
        assert installed.name.endswith(run.bundle_sha256[:8])
        assert {path.name for path in installed.iterdir()} == {"LICENSE", "pyproject.toml"}


def test_secrets_are_for_their_owner_alone_and_differ(deployment):
    folders = [deployment.link._folder, *(node.folder for node in deployment.nodes)]
    secrets = [folder / "superexec.secret" for folder in folders]
    assert [path.stat().st_mode & 0o777 for path in secrets] == [0o600] * 3
    assert len({path.read_bytes() for path in secrets}) == 3
    assert all(len(path.read_bytes()) == 32 for path in secrets)


def test_nobody_gets_a_task_without_the_secret(deployment):
    """A stranger's executor on the same machine, aimed at the SuperLink itself, behind the gate."""
    link = deployment.link
    stranger = subprocess.run(
        [
            *(str(BIN / "flower-superexec"), "--runtime-api-address", f"127.0.0.1:{link.port}"),
            *("--root-certificates", link.tls.ca),
        ],
        env={"PATH": str(BIN), "FLWR_HOME": str(deployment.folder / "stranger")}
        | {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "terminated" in stranger.stdout + stranger.stderr  # one with the secret runs on
    assert '"POST /v1/runtime/acquire-task HTTP/1.1" 401' in link._log().read_text()
    assert link.running


def test_a_node_that_nobody_registered_does_not_get_in(deployment):
    settings, _ = deployment.member("stranger")
    with (
        SuperNode.start(settings) as node,
        pytest.raises(Unavailable, match="did not let it in"),
    ):
        node.await_connected(PATIENCE_S)


def test_a_bundle_that_carries_code_is_refused_by_every_member_and_logged(deployment):
    """What a bad coordinator can do: our components, and `clients/` under them."""
    mark = deployment.folder / "mark"
    foreign = f"open({str(mark)!r}, 'a').write('ran')\nfrom flwr.clientapp import ClientApp\n"
    foreign += "app = ClientApp()\n"
    app = deployment.folder / "evil"
    for name, content in bundle_files(version("fedtrade")).items():
        (app / name).parent.mkdir(exist_ok=True)
        (app / name).write_bytes(content.replace(b'fab-include = ["/LICENSE"]\n', b""))
    for name in ("clients/__init__.py", "clients/flower.py", "msgspec.py"):
        (app / name).parent.mkdir(exist_ok=True)
        (app / name).write_text(foreign if name == "clients/flower.py" else "")
    told = deployment.link.control("run", str(app), CONNECTION)
    deadline = time.monotonic() + PATIENCE_S
    wanted = re.compile(
        f"ERROR fedtrade.guard: bundle {told['fab-hash']}[0-9a-f]{{56}} is refused, nothing of it "
        "was imported"
    )
    for node in deployment.nodes:
        while not wanted.search(node.log.read_text()):
            assert time.monotonic() < deadline, node.log.read_text()[-3000:]
            time.sleep(0.2)
        assert "'clients/__init__.py', 'clients/flower.py', 'msgspec.py'" in node.log.read_text()
        assert not [p for p in (node.folder / "home").rglob("*.py")]
    assert not mark.exists()


def test_a_run_started_through_the_gate_is_refused(deployment):
    home = deployment.folder / "attacker"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "gate"\n\n[superlink.gate]\naddress = "{deployment.gate}"\n'
        f"root-certificates = {json.dumps(str(deployment.tls.ca))}\n"
    )
    app = home / "fedtrade"
    app.mkdir()
    for name, content in bundle_files(version("fedtrade")).items():
        (app / name).write_bytes(content)
    control = deployment.link._log().read_text().count("/v1/control/")
    with pytest.raises(Unavailable, match="404"):
        flower_command(home, "run", str(app), "gate", "--format", "json")
    assert deployment.link._log().read_text().count("/v1/control/") == control


@pytest.mark.skipif(shutil.which("faketime") is None, reason="needs faketime (Debian package)")
@pytest.mark.parametrize(("off", "let_in"), [("+400s", False), ("-400s", False), ("-60s", True)])
def test_a_node_whose_clock_is_off_is_refused_with_a_reason(deployment, monkeypatch, off, let_in):
    """The node of member 1 is stopped for it, and started again by the next test that needs it."""
    faked = subprocess.run(
        ["faketime", "-f", off, "env"], capture_output=True, text=True, check=True
    ).stdout
    for line in faked.splitlines():
        name, _, value = line.partition("=")
        if name in ("LD_PRELOAD", "FAKETIME"):
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(supernode, "PASSED_ON", (*supernode.PASSED_ON, "LD_PRELOAD", "FAKETIME"))
    deployment.nodes[0].stop()
    with SuperNode.start(deployment.folder / "member1" / "member.toml") as node:
        if let_in:
            assert node.await_connected(PATIENCE_S)
        else:
            with pytest.raises(Unavailable, match="clock"):
                node.await_connected(PATIENCE_S)
