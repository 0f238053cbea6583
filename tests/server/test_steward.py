"""The steward against a real store and feed: what it proposes is taken, and it never acts blindly."""

import os
import signal
import subprocess
import sys
import time
from threading import Event

import pytest

from fedtrade.chain.contracts import ContractRefused
from fedtrade.chain.conversation import ask
from fedtrade.chain.deployment import Deployment
from fedtrade.chain.parameter_store import ParameterStore
from fedtrade.devnet.accounts import OPERATOR
from fedtrade.errors import FedtradeError
from fedtrade.governed import Governed
from fedtrade.journal import Reader
from fedtrade.steering import StorePaused
from fedtrade.stewarding import InputsUnusable
from fedtrade.venues.price_feed import LATEST_ROUND, encode_push
from server.keys import CoordinatorKeys
from server.steward import (
    JOURNAL_FILE,
    STEWARD_FILE,
    STEWARD_TEMPLATE,
    Steward,
    StewardSettings,
    in_words,
)

pytestmark = pytest.mark.chain

STEP_S = 300
QUIET = 0.0005


class Scene:
    """One chain with a feed that has a history, and a steward that governance has appointed."""

    def __init__(self, chain, folder):
        self.chain = chain
        self.home = chain.deployment
        self.store = ParameterStore(self.home.decided_here.parameter_store)
        keys = CoordinatorKeys.create(folder)
        chain.devnet.fund(self.home.name, keys.address, native_wei=10**20)
        chain.devnet.govern(self.home.name, self.store.set_steward(keys.address))
        Deployment(chains=(self.home,), home=self.home.name).save(folder / "deployment.json")
        self.file = folder / STEWARD_FILE
        self.file.write_text(STEWARD_TEMPLATE.replace("600.0", "10.0"))
        self.journal = folder / JOURNAL_FILE
        answer = LATEST_ROUND.decode(
            chain.rpc.eth_call(self.home.price_feed, LATEST_ROUND.encode())
        )[1]
        self.answer, self.up = answer, True

    def push(self, count, move, step_s=STEP_S):
        """So many answers, each a share higher or lower than the one before."""
        for _ in range(count):
            now_s = self.chain.anvil.latest().timestamp_s
            self.chain.rpc.call("evm_setNextBlockTimestamp", now_s + step_s)
            self.answer = round(self.answer * ((1 + move) if self.up else 1 / (1 + move)))
            self.up = not self.up
            call = encode_push(self.home.price_feed, self.answer)
            self.chain.devnet.transact(self.home.name, OPERATOR, call)

    def in_force(self):
        return ask(self.chain.rpc, self.store.parameters()).governed

    def steward(self):
        return Steward(StewardSettings.load(self.file))

    def notes(self):
        return [record.body for record in Reader(self.journal)]


@pytest.fixture
def scene(chain, tmp_path):
    made = Scene(chain, tmp_path)
    made.push(60, QUIET)  # five quiet hours
    return made


def test_in_quiet_times_sizes_stay_and_what_was_seen_is_kept(scene):
    with scene.steward() as steward:
        outcome = steward.look()
    before = scene.in_force()
    assert outcome.assessment.stress == pytest.approx(1.0, abs=0.1)
    assert not {"leverageMaxBps", "epochNotionalMax"} & set(outcome.assessment.changes)
    (first, *_) = scene.notes()
    assert first["markets"][0]["name"] == scene.home.name
    assert first["assessment"]["findings"][0]["parameter"] == "leverageMaxBps"
    assert before.leverage_max_bps == Governed().leverage_max_bps


def test_a_storm_moves_the_store_and_the_journal_says_why(scene):
    before = scene.in_force()
    scene.push(12, 6 * QUIET)
    with scene.steward() as steward:
        outcome = steward.look()
        assert outcome.assessment.stress > 1.5
        after = scene.in_force()
        assert after.epoch_notional_max < before.epoch_notional_max
        assert after.leverage_max_bps == before.leverage_max_bps * 9 // 10
        assert outcome.receipt is not None
        assert "epochNotionalMax" in in_words(outcome)
        again = steward.look()  # within the cool-down
        assert not {"leverageMaxBps", "epochNotionalMax"} & set(again.assessment.changes)
    kept = [note for note in scene.notes() if "steered" in note]
    assert kept[0]["transaction"] == outcome.receipt.transaction
    assert kept[0]["steered"] == dict(outcome.assessment.changes)


@pytest.mark.parametrize("silent_s", [10_000])
def test_a_silent_feed_moves_nothing(scene, silent_s):
    before = scene.in_force()
    scene.chain.anvil.mine(scene.chain.anvil.latest().timestamp_s + silent_s)
    with scene.steward() as steward, pytest.raises(InputsUnusable, match="feed is"):
        steward.look()
    assert scene.in_force() == before
    assert scene.notes()[-1]["error"] == "InputsUnusable"


def test_a_feed_without_a_past_moves_nothing(chain, tmp_path):
    scene = Scene(chain, tmp_path)
    scene.push(5, QUIET)
    with scene.steward() as steward, pytest.raises(InputsUnusable, match="remembers less"):
        steward.look()


def test_it_rests_while_everything_is_paused(scene):
    scene.chain.devnet.govern(scene.home.name, scene.store.pause())
    with scene.steward() as steward, pytest.raises(StorePaused):
        steward.look()


def test_an_account_that_nobody_appointed_is_refused_and_the_reason_kept(scene):
    scene.chain.devnet.govern(scene.home.name, scene.store.set_steward(OPERATOR))
    scene.push(12, 6 * QUIET)
    before = scene.in_force()
    with scene.steward() as steward, pytest.raises(ContractRefused, match="steward"):
        steward.look()
    assert scene.in_force() == before
    assert scene.notes()[-1]["error"] == "ContractRefused"


def test_a_chain_that_is_away_is_reported_and_the_steward_goes_on(scene):
    heard, stop = [], Event()

    def report(what):
        heard.append(what)
        stop.set()

    with scene.steward() as steward:
        steward._rpcs[scene.home.name].call = lambda *_: (_ for _ in ()).throw(
            InputsUnusable("aster", "away")
        )
        steward.run(stop, report)
    assert isinstance(heard[0], FedtradeError)


def test_killed_and_started_again_it_moves_nothing_twice(scene):
    scene.push(12, 6 * QUIET)
    command = [sys.executable, "-m", "server.cli", "steward", str(scene.file)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def started():
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)

    process = started()
    until = time.monotonic() + 60
    while not any("steered" in note for note in scene.notes()) if scene.journal.exists() else True:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    moved = scene.in_force()
    process = started()
    while sum("assessment" in note for note in scene.notes()) < 2:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.wait(20)
    process.stderr.close()
    assert process.returncode == 0
    assert scene.in_force() == moved
