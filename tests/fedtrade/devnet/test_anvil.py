"""One chain: its time, its blocks, its end."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fedtrade.devnet.anvil import Anvil, WrongThread
from fedtrade.devnet.artifacts import fetch
from fedtrade.errors import Fault, Unavailable

START_S = 1_700_000_000


@pytest.fixture(scope="module")
def binary(devnet):
    return fetch().anvil


@pytest.fixture
def alone(binary):
    """An empty chain of this test's own."""
    with Anvil.start(binary, 777, timestamp_s=START_S) as chain:
        yield chain


pytestmark = pytest.mark.chain


def test_it_starts_where_it_is_told(alone):
    assert int(alone.rpc.call("eth_chainId"), 16) == 777
    assert alone.latest().timestamp_s == START_S
    assert alone.running


def test_blocks_come_at_given_times(alone):
    alone.mine(START_S + 60)
    alone.mine(START_S + 3600)
    assert (alone.latest().number, alone.latest().timestamp_s) == (2, START_S + 3600)
    alone.mine()
    assert START_S + 3600 <= alone.latest().timestamp_s < START_S + 3700


def test_without_automining_transactions_wait(alone):
    sender, to = alone.rpc.call("eth_accounts")[:2]
    alone.automine(False)
    offer = {"from": sender, "to": to, "value": "0x1", "maxFeePerGas": hex(10**11)}
    digest = alone.rpc.call("eth_sendTransaction", offer)
    assert alone.rpc.call("eth_getTransactionReceipt", digest) is None
    alone.set_base_fee(7 * 10**9)
    alone.mine(START_S + 12)
    receipt = alone.rpc.call("eth_getTransactionReceipt", digest)
    block = alone.rpc.call("eth_getBlockByNumber", receipt["blockNumber"], False)
    assert (int(block["timestamp"], 16), int(block["baseFeePerGas"], 16)) == (
        START_S + 12,
        7 * 10**9,
    )


def test_revert_takes_time_and_balances_back(alone):
    account = "0x" + "12" * 20
    before = alone.snapshot()
    alone.mine(START_S + 10**6)
    alone.set_balance(account, 5)
    assert alone.rpc.call("eth_getBalance", account, "latest") == "0x5"
    alone.revert(before)
    assert alone.rpc.call("eth_getBalance", account, "latest") == "0x0"
    alone.mine()
    assert alone.latest().timestamp_s < START_S + 100
    with pytest.raises(Fault, match="no snapshot"):
        alone.revert("0x99")


def test_reorg_replaces_blocks(alone):
    for _ in range(3):
        alone.mine()
    old = alone.rpc.call("eth_getBlockByNumber", "0x2", False)["hash"]
    alone.reorg(2)
    assert alone.latest().number == 3
    assert alone.rpc.call("eth_getBlockByNumber", "0x2", False)["hash"] != old


def test_impersonated_accounts_need_no_key(alone):
    account = "0x" + "34" * 20
    alone.set_balance(account, 10**18)
    alone.impersonate(account)
    receipt = alone.rpc.call("eth_sendTransactionSync", {"from": account, "to": account})
    assert receipt["status"] == "0x1"


def test_state_survives_in_a_file(alone, binary, tmp_path):
    account = "0x" + "12" * 20
    alone.set_balance(account, 42)
    alone.mine(START_S + 60)
    alone.dump_state(tmp_path / "state.json")
    state = tmp_path / "state.json"
    with Anvil.start(binary, 777, timestamp_s=START_S, state=state) as loaded:
        assert loaded.latest() == alone.latest()
        assert loaded.rpc.call("eth_getBalance", account, "latest") == "0x2a"


def test_a_taken_port_is_named_with_the_remedy(alone, binary):
    with pytest.raises(Unavailable, match=f"port {alone.port}: .*choose other ports"):
        Anvil.start(binary, 778, timestamp_s=START_S, port=alone.port)


def test_a_given_port_is_used(alone, binary):
    port = alone.port
    alone.stop()
    with Anvil.start(binary, 778, timestamp_s=START_S, port=port) as again:
        assert again.port == port


def test_what_does_not_run_is_said(tmp_path, binary):
    with pytest.raises(Unavailable, match="does not run"):
        Anvil.start(tmp_path / "none", 1, timestamp_s=START_S)
    with pytest.raises(Unavailable, match="ended at once"):
        Anvil.start(Path("/bin/true"), 1, timestamp_s=START_S)
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(Unavailable, match="ended at once"):
        Anvil.start(binary, 1, timestamp_s=START_S, state=tmp_path / "bad.json")


def test_stopping_twice_is_harmless(alone):
    alone.stop()
    assert not alone.running
    alone.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="the bond to the parent is Linux's")
def test_other_threads_may_not_start_chains(binary):
    raised = []

    def attempt():
        try:
            Anvil.start(binary, 1, timestamp_s=START_S)
        except WrongThread as error:
            raised.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert len(raised) == 1


PARENT = """
import sys, time
from pathlib import Path
from fedtrade.devnet.anvil import Anvil
print(Anvil.start(Path(sys.argv[1]), 1, timestamp_s=1).pid, flush=True)
time.sleep(60)
"""


def is_alive(pid):
    """Whether a process runs; a zombie that nobody has reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="the bond to the parent is Linux's")
def test_it_ends_when_its_parent_is_killed(binary):
    command = [sys.executable, "-c", PARENT, str(binary)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=os.getcwd()) as parent:
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    deadline = time.monotonic() + 10
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(pid)
