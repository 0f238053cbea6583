"""Chains that outlive a command, through the command itself."""

import os
import signal
import subprocess
import sys
import time

import pytest

from fedtrade.chain.deployment import Deployment
from fedtrade.chain.rpc import Rpc
from fedtrade.devnet import detached
from fedtrade.devnet.detached import AlreadyUp, DidNotStart, NotUp

pytestmark = pytest.mark.chain


@pytest.fixture
def folder(tmp_path, devnet):
    """A devnet folder whose chains are down at the end. `devnet` has filled the cache."""
    yield tmp_path / "net"
    if detached._is_running(tmp_path / "net"):
        detached.stop(tmp_path / "net")


def answers(deployment):
    with Rpc(deployment.chains[0].rpc_url) as rpc:
        return int(rpc.call("eth_chainId"), 16) == deployment.chains[0].chain_id


def test_up_status_down(folder):
    deployment = detached.start(folder)
    assert answers(deployment)
    assert Deployment.load(folder / "deployment.json") == deployment
    with pytest.raises(AlreadyUp, match="fedtrade devnet down"):
        detached.start(folder)
    seen = detached.status(folder)
    assert [row.deployment for row in seen] == list(deployment.chains)
    assert seen[1].price == pytest.approx(107_800)
    assert seen[0].block > 30
    detached.stop(folder)
    assert not (folder / "deployment.json").exists()
    for gone in (detached.stop, detached.status):
        with pytest.raises(NotUp, match="fedtrade devnet up"):
            gone(folder)


def test_a_killed_supervisor_takes_its_chains_and_can_be_replaced(folder):
    first = detached.start(folder)
    os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
    deadline = time.monotonic() + 10
    while detached._is_running(folder) and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(NotUp):
        detached.status(folder)
    second = detached.start(folder)
    assert second.chains[0].rpc_url != first.chains[0].rpc_url
    assert answers(second)


def test_a_lost_chain_ends_the_others(folder):
    deployment = detached.start(folder)
    port = deployment.chains[2].rpc_url.rpartition(":")[2]
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", (folder / "pid").read_text()], capture_output=True, text=True
    )
    assert len(children.stdout.split()) == 3
    os.kill(int(children.stdout.split()[2]), signal.SIGKILL)
    deadline = time.monotonic() + 10
    while detached._is_running(folder) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "one of them ended" in (folder / "log").read_text()
    assert port


def test_a_taken_port_is_said_and_nothing_is_left(folder, devnet):
    taken = devnet.anvil("birch").port
    with pytest.raises(DidNotStart, match=f"port {taken}: another program"):
        detached.start(folder, [taken, taken, taken])
    assert not detached._is_running(folder)
    assert {path.name for path in folder.iterdir()} == {"lock", "log"}


def test_status_of_nothing_makes_no_folder(tmp_path):
    with pytest.raises(NotUp):
        detached.status(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_the_command(folder):
    def fedtrade(*words):
        command = [sys.executable, "-m", "fedtrade.cli", "devnet", *words, "--folder", str(folder)]
        return subprocess.run(command, capture_output=True, text=True)

    none = fedtrade("status")
    assert (none.returncode, none.stdout) == (2, "")
    assert none.stderr.startswith("fedtrade: No local chains run in")
    up = fedtrade("up")
    assert up.returncode == 0, up.stderr
    for word in ("aster", "WBTC/USDC", "107,800", "deployment.json"):
        assert word in up.stdout
    assert fedtrade("up").returncode == 2
    assert fedtrade("status").returncode == 0
    down = fedtrade("down")
    assert (down.returncode, down.stdout) == (0, "Local chains are down.\n")
