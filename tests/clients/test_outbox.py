"""The outbox: its table of steps, its durability, and whom it belongs to."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from clients.outbox import ENDS, TABLE, Attempt, IllegalStep, Outbox, Promise, State
from fedtrade.errors import BadInput, Unavailable

WAY: dict[State, list[State]] = {
    "planned": ["planned"],
    "signed": ["planned", "signed"],
    "sent": ["planned", "signed", "sent"],
    "mined": ["planned", "signed", "sent", "mined"],
    "confirmed": ["planned", "signed", "sent", "mined", "confirmed"],
    "reverted": ["planned", "signed", "sent", "mined", "reverted"],
    "dropped": ["planned", "dropped"],
    "refused": ["planned", "refused"],
}


def attempt(nonce: int = 0, number: int = 0, fee: int = 100) -> Attempt:
    return Attempt(f"0x{nonce}{number}{fee}", nonce, number, False, b"raw", fee, 10, 21_000, 1)


def promise(outbox: Outbox, action_id: str = "a") -> Promise:
    found = outbox.get(action_id)
    assert found is not None
    return found


def taken_to(outbox: Outbox, state: State, action_id: str = "a") -> Promise:
    outbox.plan(action_id, {"type": "approval"}, "0xt", "0xd", 99)
    for _, after in pairwise(WAY[state]):
        if after == "signed":
            outbox.signed(promise(outbox, action_id), attempt(fee=hash(action_id) % 10**9))
        else:
            outbox.move(promise(outbox, action_id), after)
    return promise(outbox, action_id)


@pytest.mark.parametrize("before", list(TABLE))
@pytest.mark.parametrize("after", list(TABLE))
def test_only_steps_of_the_table_are_taken(tmp_path: Path, before: State, after: State) -> None:
    outbox = Outbox(tmp_path / "db", 1, "0xme")
    current = taken_to(outbox, before)
    if after in TABLE[before]:
        outbox.move(current, after)
        assert promise(outbox).state == after
    else:
        with pytest.raises(IllegalStep, match=f"{before} to {after}"):
            outbox.move(current, after)
        assert promise(outbox) == current
    outbox.close()


def test_ends_have_no_way_out() -> None:
    assert {"confirmed", "reverted", "dropped", "refused"} == ENDS


def test_an_id_is_used_once(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "db", 1, "0xme")
    taken_to(outbox, "confirmed")
    outbox.plan("a", {"type": "other"}, "0xother", "0x", 1)
    assert (promise(outbox).state, promise(outbox).target) == ("confirmed", "0xt")
    outbox.close()


def test_a_step_from_an_old_view_is_refused(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "db", 1, "0xme")
    old = taken_to(outbox, "planned")
    outbox.signed(old, attempt())
    with pytest.raises(IllegalStep):
        outbox.signed(old, attempt(number=1, fee=200))
    assert len(outbox.attempts("a")) == 1  # the second one was rolled back as a whole
    outbox.close()


def test_nonces_and_fees_of_what_may_still_be_mined_are_kept(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "db", 1, "0xme")
    assert outbox.next_nonce(4) == 4
    outbox.plan("a", {"type": "approval"}, "0xt", "0xd", 99)
    outbox.signed(promise(outbox), attempt(nonce=4, fee=100))
    assert outbox.next_nonce(4) == 5
    assert outbox.next_nonce(9) == 9
    outbox.signed(promise(outbox), attempt(nonce=4, number=1, fee=120))
    assert outbox.fee_floor(4) == (120, 10)
    assert outbox.fee_floor(5) == (0, 0)
    outbox.move(promise(outbox), "planned")
    assert promise(outbox).nonce is None
    assert outbox.attempts("a") == []
    assert outbox.next_nonce(4) == 4
    assert outbox.fee_floor(4) == (120, 10)  # the old bytes may lie in a mempool still
    outbox.close()


def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "db", 1, "0xme")
    taken_to(outbox, "sent")
    outbox.plan("b", {"type": "approval"}, "0xt", "0xd", 99)
    outbox.close()
    outbox = Outbox(tmp_path / "db", 1, "0xme")
    assert [(p.action_id, p.state) for p in outbox.open()] == [("a", "sent"), ("b", "planned")]
    assert outbox.attempts("a")[0].raw == b"raw"
    outbox.move(promise(outbox, "b"), "refused", note="why")
    assert [(p.action_id, p.note) for p in outbox.unreported()] == [("b", "why")]
    outbox.reported("b")
    assert outbox.unreported() == []
    outbox.close()


def test_it_serves_one_account_on_one_chain(tmp_path: Path) -> None:
    Outbox(tmp_path / "db", 1, "0xme").close()
    for chain_id, account in ((2, "0xme"), (1, "0xyou")):
        with pytest.raises(BadInput, match="belongs to 0xme on chain 1"):
            Outbox(tmp_path / "db", chain_id, account)


def test_a_file_that_is_no_database_is_said(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"x" * 4096)
    with pytest.raises(Unavailable, match="outbox"):
        Outbox(tmp_path / "db", 1, "0xme")
