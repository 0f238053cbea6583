"""The agent's process against a real node: refusals send nothing, decisions arrive once, restarts."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from eth_account import Account

from clients.execution import ModelRefused, main, refuse_model
from clients.keys import MemberKeys
from fedtrade import artifact
from fedtrade.agent import Agent, agent_of
from fedtrade.artifact import Manifest, NetworkShape
from fedtrade.chain.contracts import Membership, ModelRegistry
from fedtrade.chain.conversation import ask, read
from fedtrade.chain.deployment import Custody, Deployment
from fedtrade.chain.pools import holdings, pool_snapshot
from fedtrade.devnet.accounts import ARBITRAGEUR, GOVERNOR, GUARDIAN, OPERATOR
from fedtrade.devnet.artifacts import CUSTODY, fetch_packages
from fedtrade.devnet.custody import CustodyPlan, set_up, shared_code
from fedtrade.devnet.deploy import send
from fedtrade.journal import Reader, replay
from fedtrade.learning.features import FEATURES
from fedtrade.learning.windows import HEADS, HORIZON_S
from fedtrade.market.events import ModelPublished
from fedtrade.market.world import Models
from fedtrade.venues.codec import Call, Function
from fedtrade.venues.price_feed import encode_push
from fedtrade.venues.safe import EXECUTE, NEXT_NONCE, BreakerLimits, encode_order
from fedtrade.venues.uniswap_v3 import BURN_TOKEN, COLLECT, DECREASE, MULTICALL, encode_swap

ROOT = Path(__file__).parents[2]


def model(variance: float = 1e-6, demand_ratio: float = 1.0) -> bytes:
    """An artifact that always forecasts the same."""
    shape = NetworkShape(inputs=len(FEATURES), hidden=(2,), outputs=2, activation="tanh")
    sizes = {**artifact.trainable_shapes(shape), **artifact.fixed_shapes(shape)}
    arrays = {name: np.zeros(size, np.float32) for name, size in sizes.items()}
    arrays["fixed.feature_scale"] += 1.0
    arrays["fixed.baseline_bias"] += np.log([variance, demand_ratio]).astype(np.float32)
    manifest = Manifest(
        network=shape, features=FEATURES, heads=HEADS, horizon_s=HORIZON_S, release=1, rounds=1,
        parent_sha256="", policy_sha256="", epsilon_micro=0, delta=0.0, unit="position",
        adjacency="zero-out", trained_until_s=0, standins=("a constant",),
    )  # fmt: skip
    return artifact.pack(arrays, manifest)


def test_no_training_library_is_imported() -> None:
    code = (
        "import clients.execution, sys; "
        "print({'torch', 'tenseal', 'flwr', 'opacus', 'web3', 'ray'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_only_a_published_model_passes_the_gate() -> None:
    models = Models()
    with pytest.raises(ModelRefused, match="unpublished; live there is no model"):
        refuse_model("0xR", models, "a" * 64, 100)
    models.published = {v: ModelPublished(1, v, str(v) * 64, 10 * v, 0) for v in (1, 2, 3)}
    refuse_model("0xR", models, "2" * 64, 25)
    refuse_model("0xR", models, "3" * 64, 25)  # published, live later: it waits
    with pytest.raises(ModelRefused, match="superseded; live there is version 2"):
        refuse_model("0xR", models, "1" * 64, 25)
    models.revoked.add(2)
    with pytest.raises(ModelRefused, match="revoked"):
        refuse_model("0xR", models, "2" * 64, 25)


def test_bad_settings_end_with_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--settings", str(tmp_path / "none.toml")]) == 2
    assert "cannot read the settings" in capsys.readouterr().err
    (tmp_path / "bad.toml").write_text("x = ")
    assert main(["--settings", str(tmp_path / "bad.toml")]) == 2
    said = capsys.readouterr().err
    assert "not TOML" in said
    assert "Traceback" not in said


@dataclass
class Desk:
    """One chain with a published model, and what an agent needs on disk."""

    chain: Any
    folder: Path
    keys: MemberKeys
    data: bytes
    account: str
    """What holds tokens and positions: the key's own account, or a Safe."""
    process: subprocess.Popen[str] | None = None
    now_s: int = 0

    def settings(self, **agent: Any) -> Path:
        own = {"capital_quote": 100_000.0, "native_price_quote": 2_700.0, "cooldown_s": 60, **agent}
        limits = {"drawdown_reduce_bps": 100, "drawdown_halt_bps": 200, "drawdown_unwind_bps": 3000,
                  "action_notional_max_quote": 200_000, "oracle_deviation_reduce_bps": 500,
                  "oracle_deviation_halt_bps": 1000}  # fmt: skip
        lines = [
            'deployment = "deployment.json"', f'chain = "{self.chain.deployment.name}"',
            'keys = "keys"', 'artifact = "model.safetensors"', 'folder = "run"', "[agent]",
            *(f"{k} = {v}" for k, v in own.items()),
            "[history]", 'candles = "history.parquet"', "notional_scale = 2.0", "[limits]",
            *(f"{k} = {v}" for k, v in limits.items()),
        ]  # fmt: skip
        path = self.folder / "agent.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "clients.execution", "--settings", str(self.settings())],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def status(self) -> Mapping[str, Any]:
        path = self.folder / "run" / "status.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def wait(self, block: int, phase: str = "live") -> Mapping[str, Any]:
        assert self.process is not None
        until = time.monotonic() + 40
        while time.monotonic() < until:
            status = self.status()
            ours = status.get("pid") == self.process.pid
            if ours and status["phase"] == phase and status["block"] >= block:
                return status
            if self.process.poll() is not None:
                raise AssertionError(self.process.communicate()[1])
            time.sleep(0.01)
        raise AssertionError(f"agent did not reach block {block}: {self.status()}")

    def stop(self) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=20)
        assert "Traceback" not in said, said
        return self.process.returncode

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.communicate()

    def price(self) -> float:
        known = self.chain.deployment
        block = self.chain.anvil.latest().number
        state = ask(self.chain.rpc, pool_snapshot(known.pool_key(), block))
        return float(known.pool_key().price(state.sqrt_price_x96))

    def trade(self, sell_base: bool, quote: float) -> None:
        """Queue a swap of this worth, and the oracle's view of the price now."""
        known = self.chain.deployment
        key = known.pool_key()
        amount = int(quote * 1e6) if not sell_base else int(quote / self.price() * 1e18)
        data = encode_swap(key, ARBITRAGEUR, sell_base == key.base_is_token0, amount)
        self._queue(ARBITRAGEUR, known.swap_router, data)

    def push(self) -> None:
        call = encode_push(self.chain.deployment.price_feed, round(self.price() * 10**8))
        self._queue(OPERATOR, call.to, call.data)

    def _queue(self, sender: str, to: str, data: bytes) -> None:
        body = {"from": sender, "to": to, "data": "0x" + data.hex(), "gas": hex(2_000_000)}
        self.chain.rpc.call("eth_sendTransaction", body)

    def mine(self) -> int:
        self.now_s += 60
        self.chain.anvil.mine(self.now_s)
        return int(self.chain.anvil.latest().number)

    def step(self, sell_base: bool = True, quote: float = 1000.0) -> Mapping[str, Any]:
        """A minute: trades and an honest oracle, one block for each, dealt with by the agent."""
        self.trade(sell_base, quote)
        self.wait(self.mine())
        self.push()
        return self.wait(self.mine())

    def steps(self, count: int) -> Mapping[str, Any]:
        for n in range(count):
            status = self.step(n % 2 == 0)
        return status

    def held(self) -> Any:
        known = self.chain.deployment
        block = self.chain.anvil.latest().number
        talk = holdings(known.pool_key(), known.position_manager, self.account, block)
        return ask(self.chain.rpc, talk)

    def nonce(self) -> int:
        return int(self.chain.rpc.call("eth_getTransactionCount", self.keys.address, "latest"), 16)

    def replay(self) -> Any:
        def make(body: Mapping[str, Any]) -> Agent:
            kept = self.folder / "run" / "artifacts" / f"{body['artifact_sha256']}.safetensors"
            return agent_of(body, kept.read_bytes())

        return replay(self.folder / "run" / "journal.jsonl", make)

    def records(self, kind: str) -> list[Mapping[str, Any]]:
        reader = Reader(self.folder / "run" / "journal.jsonl")
        return [record.body for record in reader if record.kind == kind]


def publish(chain: Any, member: Any, release: int, sha256: str) -> None:
    """A release of one member, signed and published as anybody may."""
    known, send, name = chain.deployment, chain.devnet.transact, chain.deployment.name
    registry = ModelRegistry(known.model_registry)
    send(name, OPERATOR, registry.open_release(release, b"\1" * 32, "00" * 32, 5, [1], []))
    digest = ask(chain.rpc, registry.digest(release, release, sha256, "file:a", 1000))
    signature = bytes(member.unsafe_sign_hash(digest).signature)
    signed = {member.address: signature}
    send(name, OPERATOR, registry.publish(release, release, sha256, "file:a", 1000, signed))


def in_custody(chain: Any, agent: str) -> Custody:
    """A Safe for this agent, set up as an operator would."""
    known = chain.deployment
    parameters = Function("parameterStore()", "(address)")
    ((store,),) = ask(chain.rpc, read([(known.model_registry, parameters, ())], "latest"))
    plan = CustodyPlan(
        (Account.create().address,), 1, agent, OPERATOR, store, known.model_registry,
        BreakerLimits(200_000, 1_000_000, 100, 300, 3_600, 7 * 86_400, 3_600),
    )  # fmt: skip
    shared = shared_code(fetch_packages(CUSTODY))
    return set_up(
        chain.rpc, lambda call: send(chain.rpc, GOVERNOR, call), GOVERNOR, known, plan, shared
    )


BOTH_WAYS = pytest.mark.parametrize("desk", ["key", "safe"], indirect=True)


@pytest.fixture
def desk(request: pytest.FixtureRequest, chain: Any, tmp_path: Path) -> Iterator[Desk]:
    """An agent that holds everything itself, or (`BOTH_WAYS`) acts for a Safe."""
    known, data = chain.deployment, model()
    member = Account.create()
    membership = Membership(known.membership)
    admit = [
        membership.admit(member.address, member.address, b"\0" * 32, 1),
        membership.admit(OPERATOR, OPERATOR, b"\0" * 32, 4),
    ]
    for call in admit:
        chain.devnet.govern(known.name, call)
    publish(chain, member, 1, artifact.sha256_of(data))
    keys = MemberKeys.create(tmp_path / "keys")
    account = keys.address
    if getattr(request, "param", "key") == "safe":
        known = known.model_copy(update={"custody": in_custody(chain, keys.address)})
        account = known.custody.safe
    chain.devnet.fund(known.name, keys.address, native_wei=10**20)
    chain.devnet.fund(known.name, account, base=20.0, quote=80_000.0)
    (tmp_path / "model.safetensors").write_bytes(data)
    Deployment(chains=(known,), home=known.name).save(tmp_path / "deployment.json")
    found = Desk(chain, tmp_path, keys, data, account)
    chain.anvil.mine()
    price, now_s = found.price(), chain.anvil.latest().timestamp_s // 3600 * 3600
    chain.anvil.automine(False)
    found.now_s = now_s + 3660
    start = [now_s + 3600 - 3600 * (170 - i) for i in range(170)]
    pl.DataFrame(
        {
            "start_s": start, "width_s": [3600] * 170, "open": [price] * 170,
            "high": [price * 1.002] * 170, "low": [price * 0.999] * 170, "close": [price] * 170,
            "notional_usd": [2e6 + i for i in range(170)],
        }
    ).write_parquet(tmp_path / "history.parquet")  # fmt: skip
    found.push()  # the chain's clock may have gone on for hours in other tests
    chain.anvil.mine(found.now_s)
    found.member = member  # type: ignore[attr-defined]
    yield found
    if found.process is not None and found.process.poll() is None:
        found.kill()


def begin(desk: Desk) -> None:
    """Start the process and make the blocks in which its approvals are mined."""
    desk.start()
    until = time.monotonic() + 40
    while desk.status().get("phase") != "live":
        assert desk.process is not None
        assert desk.process.poll() is None, desk.process.communicate()[1]
        assert time.monotonic() < until, desk.status()
        if desk.status().get("waiting"):
            desk.mine()
        time.sleep(0.1)


@pytest.mark.chain
@BOTH_WAYS
def test_it_provides_stops_cleanly_and_replays_bit_for_bit(desk: Desk) -> None:
    begin(desk)
    status = desk.steps(4)
    (position,) = desk.held().positions
    assert position.liquidity > 0
    assert status["actions"] >= 1
    assert status["level"] == "NORMAL"
    assert status["model"] == "live"
    assert desk.stop() == 0
    result = desk.replay()
    last = json.loads((desk.folder / "run" / "status.json").read_text())
    assert result.actions == last["actions"]
    assert result.head_hash == last["journal_hash"]
    outcomes = [b["outcome"] for b in desk.records("event") if b["type"] == "ActionSettled"]
    assert outcomes.count("confirmed") >= 1


@pytest.mark.chain
@BOTH_WAYS
def test_in_a_crash_it_halts_withdraws_and_no_transaction_adds_risk_after(desk: Desk) -> None:
    begin(desk)
    desk.steps(3)
    assert desk.held().positions
    for _ in range(6):
        status = desk.step(True, 200_000.0)
    for n in range(4):
        status = desk.step(n % 2 == 0)
    assert status["level"] in ("HALT", "UNWIND")
    assert not desk.held().positions
    block = next(b["block"] for b in desk.records("receipt") if b["level"] >= 2)
    adding = {b["action_id"] for b in desk.records("action") if b["type"] != "WithdrawLiquidity"}
    after = [b["action_id"] for b in actions_after(desk, block)]
    assert after
    assert not adding & set(after)
    sent = transactions_of(desk, block + 1)
    allowed = [MULTICALL] if desk.account == desk.keys.address else [EXECUTE]
    assert {bytes.fromhex(data[2:10]) for data in sent} <= {f.selector for f in allowed}
    for order in (bytes.fromhex(data[2:]) for data in sent if allowed == [EXECUTE]):
        ((*_, calls),) = EXECUTE.decode_input(order)
        selectors = [call[:4] for _, call in calls]
        assert selectors == [f.selector for f in (DECREASE, COLLECT, BURN_TOKEN)]
    assert desk.stop() == 0
    assert desk.replay().unfinished == 0


def actions_after(desk: Desk, block: int) -> list[Mapping[str, Any]]:
    reader = Reader(desk.folder / "run" / "journal.jsonl")
    found, halted = [], False
    for record in reader:
        halted = halted or (record.kind == "receipt" and record.body["block"] >= block)
        if halted and record.kind == "action":
            found.append(record.body)
    return found


def transactions_of(desk: Desk, first: int) -> list[str]:
    """Calldata of every transaction of the agent from a block on, as the chain has it."""
    found = []
    for number in range(first, desk.chain.anvil.latest().number + 1):
        block = desk.chain.rpc.call("eth_getBlockByNumber", hex(number), True)
        found += [
            tx["input"]
            for tx in block["transactions"]
            if tx["from"].lower() == desk.keys.address.lower()
        ]
    return found


@pytest.mark.chain
@pytest.mark.parametrize("case", ["altered byte", "older version", "no quorum", "revoked"])
def test_a_model_that_is_not_the_live_one_sends_nothing(desk: Desk, case: str) -> None:
    path = desk.folder / "model.safetensors"
    desk.chain.anvil.automine(True)
    if case == "altered byte":
        data = bytearray(desk.data)
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))
        said = "unpublished"
    elif case == "older version":
        publish(desk.chain, desk.member, 2, "cd" * 32)  # type: ignore[attr-defined]
        desk.chain.anvil.mine(desk.chain.anvil.latest().timestamp_s + 60)
        said = "superseded; live there is version 2"
    elif case == "no quorum":
        path.write_bytes(model(variance=2e-6))
        said = "unpublished"
    else:
        call = ModelRegistry(desk.chain.deployment.model_registry).revoke(1)
        desk.chain.devnet.transact(desk.chain.deployment.name, GUARDIAN, call)
        said = "revoked; live there is no model"
    desk.start()
    assert desk.process is not None
    out, err = desk.process.communicate(timeout=40)
    assert desk.process.returncode == 2
    assert said in err
    assert err.count("\n") == 1
    assert out == ""
    assert desk.nonce() == 0
    assert desk.chain.rpc.call("txpool_status")["pending"] == "0x0"


@pytest.mark.chain
def test_an_unreachable_node_is_one_sentence_and_a_code(desk: Desk) -> None:
    nowhere = desk.chain.deployment.model_copy(update={"ws_url": "ws://127.0.0.1:9"})
    Deployment(chains=(nowhere,), home=nowhere.name).save(desk.folder / "deployment.json")
    desk.start()
    assert desk.process is not None
    _, err = desk.process.communicate(timeout=40)
    assert desk.process.returncode == 4
    assert "ws://127.0.0.1:9: cannot connect" in err
    assert err.count("\n") == 1


def keep_time(desk: Desk, ahead_s: int = 0) -> int:
    """From here on the chain keeps the time of day: gives its newest block, made now."""
    known = desk.chain.deployment.model_copy(update={"keeps_time": True})
    Deployment(chains=(known,), home=known.name).save(desk.folder / "deployment.json")
    desk.chain.anvil.mine(int(time.time()) + ahead_s)
    return int(desk.chain.anvil.latest().number)


@pytest.mark.chain
@pytest.mark.parametrize("off_s", [400.0, -400.0])
def test_a_clock_that_is_far_off_the_chain_ends_the_process_before_anything_is_sent(
    desk: Desk, clock_off: Any, off_s: float
) -> None:
    keep_time(desk)
    with clock_off(off_s):
        desk.start()
    assert desk.process is not None
    out, err = desk.process.communicate(timeout=40)
    assert (desk.process.returncode, out) == (3, "")
    told = re.fullmatch(
        r"fedtrade: .* is (\d+) s (behind|ahead of) this machine's clock; .*\n", err
    )
    assert told, err
    assert told[2] == ("behind" if off_s > 0 else "ahead of")
    assert abs(int(told[1]) - 400) < 40
    assert desk.nonce() == 0
    assert desk.chain.rpc.call("txpool_status")["pending"] == "0x0"
    assert not desk.records("start")


@pytest.mark.chain
def test_a_clock_that_is_a_little_off_trades_until_its_node_is_ahead(
    desk: Desk, clock_off: Any
) -> None:
    """Then it says so, decides nothing on what is ahead, and tries again a limited number of times."""
    keep_time(desk)
    with clock_off(3.0):
        desk.start()
    until = time.monotonic() + 40
    while desk.status().get("phase") != "live":
        assert desk.process is not None
        assert desk.process.poll() is None, desk.process.communicate()[1]
        assert time.monotonic() < until, desk.status()
        if desk.status().get("waiting"):
            keep_time(desk)
        time.sleep(0.1)
    last = desk.wait(keep_time(desk))["block"]
    ahead = keep_time(desk, ahead_s=400)
    assert desk.process is not None
    assert desk.process.stderr is not None
    said = desk.process.stderr.readline()
    assert f"block {ahead} is " in said
    assert said.endswith("nothing was decided on this block. Attempt 1 of 8.\n")
    assert desk.stop() == 0
    heads = [b["number"] for b in desk.records("event") if b["type"] == "Head"]
    assert heads
    assert max(heads) == last < ahead


@pytest.mark.chain
@BOTH_WAYS
def test_killed_and_started_again_it_goes_on_and_doubles_nothing(desk: Desk) -> None:
    begin(desk)
    for round_number in range(3):
        desk.trade(True, 1000.0)
        desk.mine()
        time.sleep(0.02 * round_number)  # wherever it happens to be
        desk.kill()
        desk.mine()
        begin(desk)
        desk.steps(2)
    desk.steps(2)
    assert desk.stop() == 0
    assert len(desk.held().positions) == 1
    actions = [b["action_id"] for b in desk.records("action")]
    assert len(actions) == len(set(actions))
    settled = [b for b in desk.records("event") if b["type"] == "ActionSettled"]
    assert {b["action_id"] for b in settled} == set(actions)
    mined = sum(b["outcome"] in ("confirmed", "reverted") for b in settled)
    approvals = 4 if desk.account == desk.keys.address else 0
    assert desk.nonce() == approvals + len({b["action_id"] for b in settled if b["outcome"] in (
        "confirmed", "reverted")})  # fmt: skip
    assert mined >= 1
    result = desk.replay()
    assert len([b for b in desk.records("start")]) == 4
    assert result.actions == len(actions)


@pytest.mark.chain
def test_a_second_process_on_the_same_folder_is_refused(desk: Desk) -> None:
    begin(desk)
    second = subprocess.run(
        [sys.executable, "-m", "clients.execution", "--settings", str(desk.folder / "agent.toml")],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=40,
    )  # fmt: skip
    assert second.returncode == 4
    assert "another process writes this journal" in second.stderr
    assert desk.stop() == 0


class Line:
    """A TCP relay to the node that can be cut and mended."""

    def __init__(self, port: int) -> None:
        self.upstream = port
        self.cut = False
        self.open: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            if self.cut:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self.upstream))
            self.open += [near, far]
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            return
        finally:
            self._end(sink)

    def _end(self, one: socket.socket) -> None:
        try:
            one.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def cut_now(self) -> None:
        self.cut = True
        for one in self.open:
            self._end(one)

    def close(self) -> None:
        self.cut_now()
        self.listener.close()
        for one in self.open:
            one.close()


@pytest.mark.chain
@BOTH_WAYS
def test_a_lost_connection_is_made_again_and_the_gap_read_back(desk: Desk) -> None:
    line = Line(desk.chain.anvil.port)
    through = f"ws://127.0.0.1:{line.port}"
    known = Deployment.load(desk.folder / "deployment.json").chains[0]
    known = known.model_copy(update={"ws_url": through})
    Deployment(chains=(known,), home=known.name).save(desk.folder / "deployment.json")
    try:
        begin(desk)
        before = desk.steps(3)["block"]
        line.cut_now()
        for n in range(3):
            desk.trade(n % 2 == 0, 5000.0)
            desk.mine()
        time.sleep(0.5)
        line.cut = False
        status = desk.wait(before + 3)
        assert status["level"] == "NORMAL"
        desk.steps(2)
        assert desk.stop() == 0
        events = desk.records("event")
        gap = next(n for n, b in enumerate(events) if b == {"type": "Reorganised", "block": before})
        told = [b for b in events[gap:] if b["type"] in ("Swapped", "Head")][:5]
        assert [b["type"] for b in told] == ["Swapped", "Head", "Swapped", "Head", "Swapped"]
        assert desk.replay().head_hash == desk.status()["journal_hash"]
    finally:
        line.close()


@pytest.mark.chain
@BOTH_WAYS
def test_a_reorganisation_is_survived(desk: Desk) -> None:
    begin(desk)
    desk.steps(3)
    before = desk.records("start")
    desk.chain.anvil.reorg(2)
    status = desk.steps(3)
    assert status["phase"] == "live"
    assert any(b["type"] == "Reorganised" and b["block"] > 0 for b in desk.records("event")[-400:])
    assert len(desk.records("start")) == len(before)
    assert desk.stop() == 0
    assert desk.replay().actions == status["actions"]


ANOTHER = "0x" + "ab" * 20
IN_A_SAFE = pytest.mark.parametrize("desk", ["safe"], indirect=True)


@pytest.mark.chain
@IN_A_SAFE
def test_a_breaker_that_takes_other_orders_gets_none(desk: Desk) -> None:
    known = Deployment.load(desk.folder / "deployment.json").chains[0]
    desk.chain.anvil.automine(True)
    other = in_custody(desk.chain, ANOTHER)
    Deployment(chains=(known.model_copy(update={"custody": other}),), home=known.name).save(
        desk.folder / "deployment.json"
    )
    desk.start()
    assert desk.process is not None
    out, err = desk.process.communicate(timeout=40)
    assert (desk.process.returncode, out) == (2, "")
    assert f"its agent is {ANOTHER}, not {desk.keys.address}" in err
    assert desk.nonce() == 0


@pytest.mark.chain
@IN_A_SAFE
def test_orders_that_somebody_else_sent_with_its_key_stop_the_agent(desk: Desk) -> None:
    """A thief that shares the key is found out at the agent's next action."""
    begin(desk)
    desk.steps(3)
    assert desk.held().positions
    known = Deployment.load(desk.folder / "deployment.json").chains[0]
    breaker = known.custody.breaker
    reads = [(breaker, NEXT_NONCE, ())]
    swap = encode_swap(known.pool_key(), desk.account, not known.pool_key().base_is_token0, 10**6)
    for _ in range(2):
        ((nonce,),) = ask(desk.chain.rpc, read(reads, "latest"))
        order = encode_order(
            breaker, nonce, artifact.sha256_of(desk.data), desk.now_s + 600,
            [Call(known.swap_router, swap)],
        )  # fmt: skip
        desk.chain.rpc.call("anvil_impersonateAccount", desk.keys.address)
        desk._queue(desk.keys.address, order.to, order.data)
        desk.push()
        desk.mine()
    for _ in range(6):  # a crash, so that the agent acts again
        desk.trade(True, 200_000.0)
        desk.mine()
        desk.push()
        desk.mine()
        time.sleep(0.3)
    assert desk.process is not None
    _, err = desk.process.communicate(timeout=40)
    assert desk.process.returncode == 4, err
    assert "Somebody else sends orders with this key: have the guardian halt the breaker" in err
