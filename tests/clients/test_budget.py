"""The ledger of ε: nothing is forgotten, nothing overspent, nothing paid twice."""

import json

import pytest

from clients.budget import Budget, RoundAlreadyPaid
from clients.ledger import Ledger, LedgerDamaged
from fedtrade.privacy.accounting import Overspent, Spend, epsilon

ONE = Spend(0.2, 1.0, 1)
LOCAL = Spend(0.2, 1.0, 4)
A, B = b"a" * 32, b"b" * 32


def pay(path, rounds, limit=20.0, start=1):
    with Budget(path, limit, 1e-6) as budget:
        for n in range(start, start + rounds):
            budget.spend(1, n, ONE, A)
        return budget.epsilon()


def test_what_is_spent_survives_a_restart(tmp_path):
    path = tmp_path / "ledger.jsonl"
    spent = pay(path, 3)
    with Budget(path, 20.0, 1e-6) as again:
        assert again.spends == (Spend(0.2, 1.0, 3),)
        assert again.epsilon() == spent == epsilon([Spend(0.2, 1.0, 3)], 1e-6)
        assert again.last == (1, 3)
        assert again.rounds == 3


def test_the_same_upload_is_paid_once_and_another_one_is_refused(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Budget(path, 20.0, 1e-6) as budget:
        head = budget.spend(1, 1, ONE, A)
        budget.spend(1, 2, ONE, A)
    with Budget(path, 20.0, 1e-6) as again:
        assert again.spend(1, 1, ONE, A) == head  # the head as it was then
        with pytest.raises(RoundAlreadyPaid):
            again.spend(1, 1, ONE, B)
        assert again.rounds == 2


def test_local_steps_count_each(tmp_path):
    with Budget(tmp_path / "ledger.jsonl", 20.0, 1e-6) as budget:
        budget.spend(1, 1, LOCAL, A)
        assert budget.spends == (Spend(0.2, 1.0, 4),)
        assert budget.rounds_left(LOCAL) == budget.rounds_left(ONE) // 4


def test_it_refuses_the_round_that_would_pass_the_limit_and_writes_nothing(tmp_path):
    path = tmp_path / "ledger.jsonl"
    limit = epsilon([Spend(0.2, 1.0, 2)], 1e-6).rdp + 0.01
    pay(path, 2, limit)
    before = path.read_bytes()
    with Budget(path, limit, 1e-6) as budget:
        with pytest.raises(Overspent) as caught:
            budget.spend(1, 3, ONE, A)
        assert caught.value.would_be > limit
        with pytest.raises(Overspent):  # another release does not help
            budget.spend(2, 1, ONE, A)
        budget.check(1, 2, ONE)  # what is paid may be sent again
    assert path.read_bytes() == before


def test_rounds_that_the_chain_knows_and_the_ledger_forgot_are_charged(tmp_path):
    """An old copy of ledger and head looks whole; the home chain shows what is missing."""
    path = tmp_path / "ledger.jsonl"
    head = path.with_name("ledger.jsonl.head")
    pay(path, 2)
    old = path.read_bytes(), head.read_bytes()
    true = pay(path, 3, start=3)
    path.write_bytes(old[0])
    head.write_bytes(old[1])
    with Budget(path, 20.0, 1e-6) as restored:
        assert restored.epsilon().rdp < true.rdp  # the control: alone, it does not know
        assert restored.presume(1, range(1, 6), ONE) == 3
        assert restored.epsilon() == true
        with pytest.raises(RoundAlreadyPaid):
            restored.spend(1, 4, ONE, A)
        assert restored.presume(1, range(1, 6), ONE) == 0


def test_every_altered_byte_is_found(tmp_path):
    path = tmp_path / "ledger.jsonl"
    pay(path, 2)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(LedgerDamaged):
            Budget(path, 20.0, 1e-6)


def test_a_line_that_is_none_of_a_ledger_of_epsilon_is_refused(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.append({"release": 1})
    with pytest.raises(LedgerDamaged, match="no line"):
        Budget(path, 20.0, 1e-6)


def test_the_file_holds_no_more_than_what_happened(tmp_path):
    path = tmp_path / "ledger.jsonl"
    pay(path, 1)
    what = {"release", "round", "sampling_rate", "noise_multiplier", "sums", "upload", "pool"}
    assert set(json.loads(path.read_text())) == what | {"previous", "hash"}


def test_a_judgement_is_paid_by_the_held_out_positions_and_once(tmp_path):
    """No position is in both pools, so a position's ε is the larger of the two, not their sum."""
    one = Spend(1.0, 4.0, 1)
    with Budget(tmp_path / "ledger.jsonl", 20.0, 1e-6) as budget:
        budget.spend(1, 1, ONE, A)
        trained = budget.epsilon()
        budget.judge(1, one, B)
        budget.judge(1, one, B)
        assert budget.judgements == (one,)
        assert budget.epsilon() == trained
        assert budget.rounds == 1
    with Budget(tmp_path / "ledger.jsonl", 3.0, 1e-6) as again:
        again.judge(1, one, B)
        assert again.judgements == (one,)
        for n in range(40):
            try:
                again.judge(1, one, bytes([n]) * 32)
            except Overspent:
                break
        else:
            raise AssertionError("the limit holds for judgements, too")
        assert epsilon(again.judgements, 1e-6).rdp <= 3.0
