"""Blocks are replaced under each act of governance, 1 to 12 deep: each is done once, and for good.

`FEDTRADE_REORG_MATRIX=1` runs every depth with every fate of a transaction; otherwise a few.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from blocks import How, Miner, sent_by
from lying import Proxy

sys.path.insert(0, str(Path(__file__).parents[1] / "fedtrade"))

from test_voting import FIFTH_S, Assembly, member

from clients.cli import main as member_main
from fedtrade.chain import agreement, transacting
from fedtrade.chain.deployment import Deployment
from fedtrade.chain.governing import Change, Governance, NotNow
from fedtrade.chain.transacting import NotDeep, NotMined, Reverted
from fedtrade.devnet.accounts import GUARDIAN
from fedtrade.devnet.deploy import Genesis
from fedtrade.errors import BadInput
from fedtrade.venues.governance import ProposalState, Support

pytestmark = [pytest.mark.chain, pytest.mark.timeout(600)]

DEEP: Final = 13
SAMPLE: Final[tuple[tuple[int, How], ...]] = (
    (1, "waiting"), (1, "dropped"), (5, "included"), (12, "dropped"), (12, "included"),
)  # fmt: skip
APART: Final = itertools.count(1)
HOWS: Final[tuple[How, ...]] = ("dropped", "included", "waiting")
MATRIX: Final = (
    [(depth, how) for depth in range(1, DEEP) for how in HOWS]
    if os.environ.get("FEDTRADE_REORG_MATRIX")
    else SAMPLE
)


class Senate(Assembly):
    """An assembly that waits for depth, on a chain whose newest blocks are replaced."""

    def __init__(self, chain: Any, folder: Path) -> None:
        super().__init__(chain, folder)
        self.deep = chain.deployment.model_copy(update={"confirmations": DEEP})
        self.begun = chain.anvil.latest().number + 1
        self.calm()

    def calm(self) -> None:
        """So many blocks that no reorganisation reaches what was before."""
        self.chain.rpc.call("anvil_mine", hex(DEEP))

    def later(self, seconds: int) -> None:
        super().later(seconds)
        self.calm()

    @property
    def g(self) -> Governance:
        return Governance(self.deep, self.chain.rpc)

    def under(
        self, who: str, depth: int, how: How, act: Callable[[], Any], most: int = 1_000
    ) -> Miner:
        """Do something while each transaction of an account is undone once."""
        with Miner(self.chain.anvil, who, depth, how, most) as miner:
            act()
        self.chain.anvil.automine(True)
        return miner

    def sent(self, who: str) -> list[dict[str, Any]]:
        return sent_by(self.chain.rpc, who, self.begun)

    def once(self, who: str, count: int) -> None:
        """An account has sent so many transactions, no two alike, and each had its effect."""
        sent = self.sent(who)
        assert len(sent) == count
        assert len({tx["input"] for tx in sent}) == count
        for tx in sent:
            receipt = self.chain.rpc.call("eth_getTransactionReceipt", tx["hash"])
            assert receipt["status"] == "0x1"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks come every few milliseconds here."""
    monkeypatch.setattr(transacting, "RESEND_S", 0.05)
    monkeypatch.setattr(transacting, "POLL_MAX_S", 0.05)
    monkeypatch.setattr(transacting, "BLOCK_WAIT_S", 1.0)
    monkeypatch.setattr(agreement, "REST_S", 0.05)
    monkeypatch.setattr(agreement, "REST_MAX_S", 0.05)


@pytest.fixture
def senate(chains: Any, tmp_path: Path) -> Iterator[Senate]:
    """The home chain is put back afterwards."""
    from types import SimpleNamespace

    home = chains.deployment.chain(chains.deployment.home)
    anvil = chains.anvil(home.name)
    # Blocks that no test before had: a node that was put back has lost the states of equal ones.
    anvil.mine(anvil.latest().timestamp_s + next(APART))
    chain = SimpleNamespace(deployment=home, anvil=anvil, rpc=anvil.rpc, devnet=chains)
    yield Senate(chain, tmp_path)
    anvil.automine(True)


@pytest.mark.parametrize(("depth", "how"), MATRIX)
def test_every_act_is_done_once_whatever_is_undone(senate: Senate, depth: int, how: How) -> None:
    """Proposed, voted on by three members and by a ballot, queued, executed; another one canceled.

    Each transaction is undone once, and each command returns when its end is final.
    """
    s, undone = senate, 0
    first, second, third = (member(keys) for keys in s.members[:3])

    def under(who: Any, act: Callable[[], Any]) -> None:
        nonlocal undone
        undone += len(s.under(who.address, depth, how, act).undone)

    drafted = s.g.draft(Change(parameters={"cohortMin": 5}), "because")
    other = s.g.draft(Change(parameters={"cohortMin": 6}), "because not")
    under(first, lambda: s.g.propose(drafted, first))
    under(first, lambda: s.g.propose(other, first))
    s.later(FIFTH_S + 1)
    number = f"{drafted.id:064x}"
    for one in (first, second):
        under(one, lambda one=one: s.g.vote(s.g.find(number), Support.FOR, one))
    ballot = s.g.sign_vote(s.g.find(number), Support.FOR, member(s.members[4]))
    under(third, lambda: s.g.hand_in(ballot, third))
    found = s.g.find(number)
    assert (found.in_favour, found.state) == (3, ProposalState.ACTIVE)
    under(s.guardian, lambda: s.g.cancel(s.g.find(f"{other.id:064x}"), s.guardian))
    assert s.g.find(f"{other.id:064x}").state is ProposalState.CANCELED
    s.later(Genesis().voting_s + FIFTH_S)
    under(third, lambda: s.g.queue(s.g.find(number), third))
    assert s.g.find(number).state is ProposalState.QUEUED
    s.later(FIFTH_S)
    under(second, lambda: s.g.execute(s.g.find(number), second))
    assert s.g.find(number).state is ProposalState.EXECUTED
    assert s.parameters.cohort_min == 5
    assert undone == 8  # the control: every single one was undone
    s.once(first.address, 3)
    s.once(second.address, 2)
    s.once(third.address, 2)
    s.once(GUARDIAN, 1)


@pytest.mark.parametrize("depth", [1, 12])
def test_a_command_that_was_killed_is_run_again(senate: Senate, depth: int) -> None:
    """Its transaction is out, or in a block, and then undone: the second run does it, once."""
    s, first = senate, member(senate.members[0])
    drafted = s.g.draft(Change(parameters={"cohortMin": 5}), "because")
    s.chain.anvil.automine(False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transacting, "_await", lambda *_: 1 / 0)
        for tip in (10**9, 10**9, 10**9 + 10**7):  # the same bytes again; then others
            patch.setattr(transacting, "TIP_WEI", tip)
            with pytest.raises(ZeroDivisionError):
                s.g.propose(drafted, first)
    (waiting,) = s.chain.rpc.call("txpool_content")["pending"].values()
    assert len(waiting) == 1  # one nonce
    s.chain.anvil.mine()
    with (
        Miner(s.chain.anvil, first.address),
        pytest.raises(BadInput, match="the same was proposed before"),
    ):
        s.g.propose(drafted, first)
    s.once(first.address, 1)
    s.later(FIFTH_S + 1)
    number = f"{drafted.id:064x}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transacting, "_await", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            s.g.vote(s.g.find(number), Support.FOR, first)
    s.chain.rpc.call("anvil_mine", hex(depth))  # it stands, but not deep
    assert s.g.find(number).in_favour == 1
    s.chain.anvil.automine(False)
    done = threading.Event()

    def again() -> None:
        s.g.vote(s.g.find(number), Support.FOR, first)
        done.set()

    thread = threading.Thread(target=again)
    thread.start()
    thread.join(0.3)
    assert thread.is_alive()  # it waits for depth, and says neither yes nor no
    s.chain.anvil.reorg(depth)
    with Miner(s.chain.anvil, first.address):
        thread.join(60)
    assert done.is_set()
    assert s.g.find(number).in_favour == 1
    s.once(first.address, 2)
    with pytest.raises(BadInput, match="it has voted already"):
        s.g.vote(s.g.find(number), Support.FOR, first)


def test_what_stands_and_stays_is_refused_as_done(senate: Senate) -> None:
    """Queued by somebody a moment ago: whoever comes later waits, and then is told."""
    s, fourth = senate, member(senate.members[3])
    number = s.passed(Change(parameters={"cohortMin": 5}))
    block = s.governance.queue(s.governance.find(number), s.outsider).block
    s.chain.anvil.automine(False)
    with (
        Miner(s.chain.anvil, fourth.address),
        pytest.raises(NotNow, match="is queued, so it cannot be queued"),
    ):
        s.g.queue(s.g.find(number), fourth)
    assert s.chain.anvil.latest().number - block + 1 >= DEEP
    s.once(fourth.address, 0)


def test_no_blocks_are_no_end(senate: Senate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a block, and without enough of them, a sentence says what to do; a second run does it."""
    s, first = senate, member(senate.members[0])
    drafted = s.g.draft(Change(parameters={"cohortMin": 5}), "because")
    s.chain.anvil.automine(False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transacting, "RECEIPT_WAIT_S", 0.2)
        patch.setattr(transacting, "BLOCK_WAIT_S", 0.0)
        with pytest.raises(NotMined, match="is not mined after 0 s"):
            s.g.propose(drafted, first)
        s.chain.rpc.call("anvil_mine", "0x3")
        with pytest.raises(NotDeep, match="not 13 blocks deep in the time that this should take"):
            s.g.propose(drafted, first)
    s.chain.anvil.reorg(4)
    with Miner(s.chain.anvil, first.address):
        s.g.propose(drafted, first)
    s.once(first.address, 1)


def until(s: Senate, thread: threading.Thread) -> None:
    """Wait until a transaction lies in the pool."""
    for _ in range(2_000):
        assert thread.is_alive()
        if s.chain.rpc.call("txpool_content")["pending"]:
            return
        thread.join(0.01)
    raise AssertionError("nothing was sent")


def test_one_that_comes_too_late_on_the_new_branch_says_so(senate: Senate) -> None:
    """The vote's block is replaced by later ones, after the end: it reverts, which is told at depth."""
    s, first, second = senate, *(member(keys) for keys in senate.members[:2])
    with Miner(s.chain.anvil, first.address):
        drafted = s.g.draft(Change(parameters={"cohortMin": 5}), "because")
        s.g.propose(drafted, first)
    s.later(FIFTH_S + 1)
    number = f"{drafted.id:064x}"
    s.chain.anvil.automine(False)
    errors: list[Exception] = []

    def vote() -> None:
        try:
            s.g.vote(s.g.find(number), Support.FOR, second)
        except Reverted as error:
            errors.append(error)

    thread = threading.Thread(target=vote)
    thread.start()
    until(s, thread)
    s.chain.anvil.mine()
    s.chain.anvil.reorg(1)
    until(s, thread)  # it is sent again
    s.chain.anvil.mine(s.chain.anvil.latest().timestamp_s + 2 * Genesis().voting_s)
    with Miner(s.chain.anvil, second.address):
        thread.join(60)
    (error,) = errors
    assert "or blocks were replaced. Look at what stands on-chain" in str(error)
    with pytest.raises(NotNow, match="is defeated, so it cannot be voted on"):
        s.g.vote(s.g.find(number), Support.FOR, second)


def test_deeper_than_the_confirmations_a_second_run_does_it(senate: Senate) -> None:
    """What was told as done is undone: nothing is hidden, and the command does it again, once."""
    s, first = senate, member(senate.members[0])
    drafted = s.g.draft(Change(parameters={"cohortMin": 5}), "because")
    with Miner(s.chain.anvil, first.address):
        block = s.g.propose(drafted, first).block
    newest = s.chain.anvil.latest().number
    assert newest - block + 1 >= DEEP
    s.chain.anvil.reorg(newest - block + 1)
    assert s.g.proposals() == []
    with Miner(s.chain.anvil, first.address):
        s.g.propose(drafted, first)
    s.once(first.address, 1)


def test_control_a_first_receipt_is_not_the_end(senate: Senate) -> None:
    """Who takes the first receipt for the end tells of a vote that nobody counts."""
    s, first = senate, member(senate.members[0])
    with Miner(s.chain.anvil, first.address):
        drafted = s.g.draft(Change(parameters={"cohortMin": 5}), "because")
        s.g.propose(drafted, first)
    s.later(FIFTH_S + 1)
    number = f"{drafted.id:064x}"
    with Miner(s.chain.anvil, first.address, 3) as miner:
        s.governance.vote(s.governance.find(number), Support.FOR, first)
        while not miner.undone:
            continue
    assert s.g.find(number).in_favour == 0


@pytest.mark.parametrize("lie", ["stale head", "corrupt", "fake receipt", "nonce", "huge gas"])
def test_the_commands_end_right_with_one_lying_node_of_three(senate: Senate, lie: str) -> None:
    """From a proposal to a vote, from the command line, through three nodes of which one lies."""
    s = senate
    with Proxy(s.chain.anvil.url, 1) as liar, Proxy(s.chain.anvil.url, 2) as other:
        seen = s.chain.deployment.model_copy(
            update={
                "rpc_url": liar.url,
                "more_rpc_urls": (other.url, s.chain.anvil.url),
                "confirmations": 2,
            }
        )
        Deployment(chains=(seen,), home=seen.name).save(s.file)
        liar.lie = lie
        with Miner(s.chain.anvil, s.members[0].address, 1):
            told = s.good(0, "propose", "--set", "cohortMin=5", "--why", "because")
        number = re.search(r"^proposal (0x[0-9a-f]{64})", told, re.M)
        assert number is not None
        s.later(FIFTH_S + 1)
        with Miner(s.chain.anvil, s.members[0].address, 1):
            s.good(0, "vote", number[1], "for")
        assert "1 for, 0 against" in s.run(member_main, "gov", "show", number[1]).stdout
        assert liar.told > 0
    assert s.g.find(number[1]).in_favour == 1
    sent = s.sent(s.members[0].address)
    assert len(sent) == 2
    assert max(int(tx["gas"], 16) for tx in sent) < 600_000
