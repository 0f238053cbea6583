"""Blocks are replaced under the whole agent, 1 to 12 deep: its journal and the chain agree in the end.

Its transaction is waiting, mined or final then; it comes back in another block or in none; prices
differ on the new branch. `FEDTRADE_REORG_MATRIX=1` runs every depth with all of these.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, Literal

import pytest
from blocks import How, sent_by

sys.path.insert(0, str(Path(__file__).parents[1] / "clients"))

from test_execution import Desk, begin, model, publish
from test_execution import desk as desk  # a fixture

from fedtrade import artifact
from fedtrade.chain.conversation import ask, read
from fedtrade.chain.deployment import Deployment
from fedtrade.venues.safe import NEXT_NONCE

pytestmark = [pytest.mark.chain, pytest.mark.timeout(1200)]

DEEP: Final = 13
When = Literal["waiting", "mined", "final"]
Case = tuple[int, When, How]
SAMPLE: Final[tuple[Case, ...]] = ((12, "mined", "dropped"), (6, "mined", "included"))
EVERY: Final[tuple[tuple[When, How], ...]] = (
    ("waiting", "dropped"), ("mined", "dropped"), ("mined", "included"), ("final", "dropped"),
)  # fmt: skip
FULL: Final = bool(os.environ.get("FEDTRADE_REORG_MATRIX"))
MATRIX: Final[tuple[Case, ...]] = (
    tuple((depth, when, how) for depth in range(1, DEEP) for when, how in EVERY) if FULL else SAMPLE
)


@pytest.fixture
def chain(devnet: Any) -> Any:
    """A chain of its own for each test where there are enough: none is put back."""
    home = devnet.deployment.chain(devnet.deployment.home)
    anvil = devnet.anvil(home.name)
    yield SimpleNamespace(deployment=home, anvil=anvil, rpc=anvil.rpc, devnet=devnet)
    anvil.automine(True)


@pytest.fixture
def devnet() -> Any:
    """New for each test: a publication is made once, and a chain that is put back forgets states."""
    from fedtrade.devnet.net import Devnet

    with Devnet.up() as running:
        yield running


def settle(desk: Desk, confirmations: int = DEEP) -> None:
    """The agent waits so deep, and what was set up lies deeper than any reorganisation here."""
    (known,) = Deployment.load(desk.folder / "deployment.json").chains
    seen = known.model_copy(update={"confirmations": confirmations})
    Deployment(chains=(seen,), home=seen.name).save(desk.folder / "deployment.json")
    for _ in range(DEEP + 2):
        desk.mine()
    desk.push()
    desk.mine()


def waiting(desk: Desk) -> str:
    """Go on until the agent has sent a transaction that is in no block; gives its hash."""
    for n in range(16):
        pool = desk.chain.rpc.call("txpool_content")["pending"]
        ours = [v for k, v in pool.items() if k.lower() == desk.keys.address.lower()]
        if ours:
            (tx,) = ours[0].values()
            return str(tx["hash"])
        if n % 2:
            desk.push()
        else:
            desk.trade(n % 4 == 0, 1_000.0)
        desk.wait(desk.mine())
    raise AssertionError(f"no action: {desk.status()}")


def blocks(desk: Desk, count: int, quote: float = 3_000.0) -> None:
    """So many blocks, each with a trade that the next branch will not have."""
    for _ in range(count):
        desk.trade(True, quote)
        desk.wait(desk.mine())


def receipt(desk: Desk, transaction: str) -> Any:
    return desk.chain.rpc.call("eth_getTransactionReceipt", transaction)


def replaced(desk: Desk, depth: int, raw: str | None = None) -> None:
    """Replace so many blocks, and make one that the agent must have seen."""
    desk.chain.rpc.call("anvil_reorg", depth, [[raw, depth // 2]] if raw else [])
    desk.push()
    desk.wait(desk.mine())


def agree(desk: Desk) -> dict[str, str]:
    """End the agent and compare its journal and outbox with the chain; gives its actions' ends."""
    for n in range(5 * DEEP):
        desk.push()
        if not desk.wait(desk.mine())["waiting"] and n > DEEP:
            break
    assert desk.stop() == 0
    me, rpc = desk.keys.address, desk.chain.rpc
    mined: dict[tuple[str, str], list[bool]] = {}
    for tx in sent_by(rpc, me):
        good = receipt(desk, tx["hash"])["status"] == "0x1"
        mined.setdefault((tx["to"].lower(), tx["input"]), []).append(good)
    with sqlite3.connect(desk.folder / "run" / "transactions.sqlite") as db:
        rows = db.execute("select action_id, target, data, state, reported from actions").fetchall()
    db.close()
    ends = {}
    for action_id, target, data, state, reported in rows:
        times = mined.get((target.lower(), data), [])
        assert len(times) <= 1, f"{action_id} was mined {len(times)} times"
        if state in ("confirmed", "reverted"):
            assert times == [state == "confirmed"], action_id
        elif state in ("dropped", "refused"):
            assert times == [], action_id
        assert reported or state not in ("confirmed", "reverted", "dropped", "refused")
        ends[action_id] = state
    actions = [body["action_id"] for body in desk.records("action")]
    assert len(actions) == len(set(actions))
    told = {b["action_id"]: b["outcome"] for b in desk.records("event")
            if b["type"] == "ActionSettled"}  # fmt: skip
    assert told == {a: s for a, s in ends.items() if a in told}
    assert set(actions) == {a for a in ends if not a.startswith("approve-")}
    (known,) = Deployment.load(desk.folder / "deployment.json").chains
    if known.custody is not None:
        ((nonce,),) = ask(rpc, read([(known.custody.breaker, NEXT_NONCE, ())], "latest"))
        assert nonce == sum(good for (_, data), (good,) in mined.items() if data != "0x")
    assert len(desk.held().positions) <= 1
    replayed = desk.replay()
    assert (replayed.actions, replayed.unfinished) == (len(actions), 0)
    return ends


@pytest.mark.parametrize("desk", ["safe", "key"] if FULL else ["safe"], indirect=True)
@pytest.mark.parametrize(("depth", "when", "how"), MATRIX)
def test_its_own_transaction_is_undone_and_nothing_is_doubled_or_lost(
    desk: Desk, depth: int, when: When, how: How
) -> None:
    settle(desk)
    begin(desk)
    transaction = waiting(desk)
    raw = desk.chain.rpc.call("eth_getRawTransactionByHash", transaction)
    if when != "waiting":
        blocks(desk, depth if when == "mined" else DEEP + 1)
        assert receipt(desk, transaction) is not None
    price = desk.price()
    replaced(desk, depth, raw if how == "included" else None)
    assert when != "mined" or desk.price() != price
    desk.steps(2)
    ends = agree(desk)
    assert "confirmed" in {state for name, state in ends.items() if not name.startswith("approve")}
    assert desk.held().positions


@pytest.mark.parametrize("desk", ["safe"], indirect=True)
@pytest.mark.parametrize("depth", range(8, DEEP) if FULL else [12])
def test_a_model_whose_publication_is_undone_is_not_acted_on(desk: Desk, depth: int) -> None:
    """The action that was mined under it goes, too, and is not sent again; published again it acts."""
    settle(desk)
    data = model(variance=2e-6)
    (desk.folder / "model.safetensors").write_bytes(data)
    desk.chain.anvil.automine(True)
    first = desk.chain.anvil.latest().number + 1
    publish(desk.chain, desk.member, 2, artifact.sha256_of(data))  # type: ignore[attr-defined]
    desk.chain.anvil.automine(False)
    desk.push()
    desk.mine()
    begin(desk)
    transaction = waiting(desk)
    blocks(desk, depth - (desk.chain.anvil.latest().number - first + 1), 100.0)
    assert receipt(desk, transaction)["status"] == "0x1"
    assert desk.status()["model"] == "live"
    replaced(desk, desk.chain.anvil.latest().number - first + 1)
    assert desk.status()["model"] == "unpublished"
    for n in range(4):
        status = desk.step(n % 2 == 0)
        assert status["model"] == "unpublished"
    assert receipt(desk, transaction) is None
    assert not desk.held().positions
    desk.chain.anvil.automine(True)
    publish(desk.chain, desk.member, 2, artifact.sha256_of(data))  # type: ignore[attr-defined]
    desk.chain.anvil.automine(False)
    desk.now_s = desk.chain.anvil.latest().timestamp_s
    status = desk.steps(6)
    assert status["model"] == "live"
    ends = agree(desk)
    assert "dropped" in ends.values()
    assert "confirmed" in ends.values()
    assert desk.held().positions


@pytest.mark.parametrize("desk", ["safe", "key"] if FULL else ["safe"], indirect=True)
def test_deeper_than_its_confirmations_it_stops_and_says_why(desk: Desk) -> None:
    """An action that counted as done is gone: a named end, a note in the journal, and a new start."""
    settle(desk, confirmations=3)
    begin(desk)
    transaction = waiting(desk)
    blocks(desk, 5)
    (action,) = [b["action_id"] for b in desk.records("event") if b["type"] == "ActionSettled"]
    number = int(receipt(desk, transaction)["blockNumber"], 16)
    desk.chain.rpc.call("anvil_reorg", desk.chain.anvil.latest().number - number + 1, [])
    desk.push()
    desk.mine()
    assert desk.process is not None
    _, err = desk.process.communicate(timeout=40)
    assert desk.process.returncode == 4, err
    assert f"Action {action} was confirmed in block {number}, 3 deep, and the chain has" in err
    assert desk.records("note")[-1] == {"undone": action, "block": number}
    decided = len(desk.records("receipt"))
    begin(desk)  # whoever starts it again has read that
    for n in range(6):
        desk.step(n % 2 == 0)
    assert len(desk.records("receipt")) > decided
    assert desk.stop() == 0
    assert len(desk.held().positions) == 1
    mined = [(tx["to"], tx["input"]) for tx in sent_by(desk.chain.rpc, desk.keys.address)]
    assert len(mined) == len(set(mined))
