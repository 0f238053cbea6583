"""A member's SuperNode: its key, what it is started with, and that it ends."""

import os
import stat
import sys
import time
import tomllib

import pytest
import tomli_w
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from clients import supernode
from clients.settings import MEMBER_TEMPLATE
from clients.supernode import SETTINGS_VARIABLE, SuperNode, create_node_key
from fedtrade.errors import BadInput, Unavailable


def test_a_node_key_is_p384_for_its_owner_alone_and_made_once(tmp_path):
    path = tmp_path / "own" / "node.key"
    public = create_node_key(path)
    key = load_ssh_private_key(path.read_bytes(), None)
    assert isinstance(key.curve, ec.SECP384R1)
    assert load_ssh_public_key(public.read_bytes()) == key.public_key()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    with pytest.raises(BadInput, match=r"node\.key"):
        create_node_key(path)
    assert path.read_bytes() == before


def settings_in(folder, *, key=True, ca=True, section=True):
    settings = tomllib.loads(MEMBER_TEMPLATE)
    settings["coordinator"] |= {"address": f"0x{1:040x}", "url": "https://127.0.0.1:1"}
    settings["home_chain"] |= {"membership": f"0x{2:040x}", "registry": f"0x{3:040x}"}
    if section:
        settings["supernode"] = {"address": "127.0.0.1:1", "node_key": "node.key"}
    if key:
        create_node_key(folder / "node.key")
    if ca:
        (folder / settings["coordinator"]["ca_file"]).write_text("x")
    (folder / "member.toml").write_text(tomli_w.dumps(settings))
    return folder / "member.toml"


@pytest.mark.parametrize(
    ("missing", "named"), [("section", "supernode"), ("key", r"node\.key"), ("ca", "no authority")]
)
def test_what_is_missing_is_named_before_anything_starts(tmp_path, monkeypatch, missing, named):
    started = []
    monkeypatch.setattr(supernode, "_popen", lambda *a: started.append(a))
    with pytest.raises(BadInput, match=named):
        SuperNode.start(settings_in(tmp_path, **{missing: False}))
    assert started == []


def test_a_node_key_that_others_can_read_is_refused(tmp_path):
    path = settings_in(tmp_path)
    (tmp_path / "node.key").chmod(0o644)
    with pytest.raises(BadInput, match="others can read"):
        SuperNode.start(path)


class Sleeper:
    """A child that does nothing, in the place of Flower's programs."""

    def __init__(self, tmp_path, monkeypatch, code="import time; time.sleep(60)"):
        self.started, self.code = [], code
        real = supernode._popen

        def popen(command, environment, log, folder):
            self.started.append((command, environment))
            return real([sys.executable, "-c", self.code], environment, log, folder)

        monkeypatch.setattr(supernode, "_popen", popen)
        self.settings = settings_in(tmp_path)


def test_flower_gets_an_environment_and_a_path_of_ours_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/evil")
    monkeypatch.setenv("FLWR_HOME", "/evil")
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv(SETTINGS_VARIABLE, "/evil")
    sleeper = Sleeper(tmp_path, monkeypatch)
    with SuperNode.start(sleeper.settings) as node:
        assert node.running
        (command, environment), (executor, same) = sleeper.started
    assert environment == same
    assert set(environment) <= {
        *(*supernode.PASSED_ON, *supernode.QUIET, "FLWR_HOME", "PATH", SETTINGS_VARIABLE),
    }
    assert environment["PATH"] == str(node.folder / "doors")
    assert environment["FLWR_HOME"] == str(node.folder / "home")
    assert environment[SETTINGS_VARIABLE] == str(sleeper.settings)
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert os.path.basename(command[0]) == "flower-supernode"
    assert os.path.basename(executor[0]) == "flower-superexec"
    assert command[command.index("--isolation") + 1] == "process"
    assert "--insecure" not in command  # only the executor's own hop on loopback is
    assert not any("allow-runtime-dependency" in word for word in [*command, *executor])
    secrets = {c[c.index("--superexec-auth-secret-file") + 1] for c in (command, executor)}
    assert len(secrets) == 1


def test_it_ends_and_takes_along_what_it_started(tmp_path, monkeypatch):
    code = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print('child', child.pid, flush=True); time.sleep(60)\n"
    )
    monkeypatch.setattr(supernode, "STOP_LIMIT_S", 0.3)
    sleeper = Sleeper(tmp_path, monkeypatch, code)
    with SuperNode.start(sleeper.settings) as node:
        while node.log.read_text().count("child") < 2:
            assert node.running
    pids = [int(line.split()[1]) for line in node.log.read_text().splitlines()]
    assert len(pids) == 2
    deadline = time.monotonic() + 20
    while any(map(alive, pids)):  # killed; the kernel may take a moment
        assert time.monotonic() < deadline
    node.stop()  # twice is harmless


def alive(pid):
    """Whether a process runs; one that ended and was not yet reaped does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_whether_it_got_in_is_read_from_this_start_alone(tmp_path, monkeypatch):
    sleeper = Sleeper(tmp_path, monkeypatch, "print('SuperNode ID: 42', flush=True)")
    with SuperNode.start(sleeper.settings) as node:
        assert node.await_connected(20) == "42"
    sleeper.code = "pass"
    with (
        SuperNode.start(sleeper.settings) as node,
        pytest.raises(Unavailable, match="clock"),
    ):
        node.await_connected(20)


def test_a_gate_that_is_not_there_is_told_after_the_limit(tmp_path, monkeypatch):
    sleeper = Sleeper(tmp_path, monkeypatch)
    with (
        SuperNode.start(sleeper.settings) as node,
        pytest.raises(Unavailable, match="coordinator's address"),
    ):
        node.await_connected(0.3)


def test_a_log_of_an_earlier_start_is_kept(tmp_path, monkeypatch):
    sleeper = Sleeper(tmp_path, monkeypatch, "print('said', flush=True)")
    for _ in range(2):
        with SuperNode.start(sleeper.settings) as node:
            while node.running:
                pass
    assert node.log.read_text().count("said") >= 2
