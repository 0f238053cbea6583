"""The ledger of ε: nothing is forgotten, nothing overspent, nothing paid twice."""

import json
import os

import pytest

from clients.budget import Budget, LedgerDamaged, RoundAlreadyPaid
from fedtrade.errors import Unavailable
from fedtrade.privacy.accounting import Overspent, Spend, epsilon

Q, Z = 0.2, 1.0


def pay(path, rounds, limit=20.0, start=1):
    with Budget(path, limit, 1e-6) as budget:
        for n in range(start, start + rounds):
            budget.spend(1, n, Q, Z)
        return budget.epsilon()


def test_what_is_spent_survives_a_restart(tmp_path):
    path = tmp_path / "ledger.jsonl"
    spent = pay(path, 3)
    with Budget(path, 20.0, 1e-6) as again:
        assert again.spends == (Spend(Q, Z, 3),)
        assert again.epsilon() == spent == epsilon([Spend(Q, Z, 3)], 1e-6)
        with pytest.raises(RoundAlreadyPaid):
            again.spend(1, 3, Q, Z)


def test_it_refuses_the_round_that_would_pass_the_limit_and_writes_nothing(tmp_path):
    path = tmp_path / "ledger.jsonl"
    limit = epsilon([Spend(Q, Z, 2)], 1e-6).rdp + 0.01
    pay(path, 2, limit)
    before = path.read_bytes()
    with Budget(path, limit, 1e-6) as budget:
        with pytest.raises(Overspent) as caught:
            budget.spend(1, 3, Q, Z)
        assert caught.value.would_be > limit
        with pytest.raises(Overspent):  # another release does not help
            budget.spend(2, 1, Q, Z)
    assert path.read_bytes() == before


def test_a_round_is_on_the_disk_before_spend_returns(tmp_path, monkeypatch):
    """The whole line is synced: what a power cut leaves behind is what was spent."""
    path = tmp_path / "ledger.jsonl"
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(path.read_bytes()), real(fd)))
    with Budget(path, 20.0, 1e-6) as budget:
        budget.spend(1, 1, Q, Z)
    assert synced == [path.read_bytes()]
    assert synced[0].endswith(b"\n")


def test_every_altered_byte_is_found(tmp_path):
    path = tmp_path / "ledger.jsonl"
    pay(path, 2)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(LedgerDamaged):
            Budget(path, 20.0, 1e-6)


def test_every_cut_is_refused_or_loses_whole_lines_only(tmp_path):
    """A cut inside a line is refused. A cut between lines cannot be seen locally (SECURITY.md)."""
    path = tmp_path / "ledger.jsonl"
    pay(path, 2)
    whole = path.read_bytes()
    ends = {0, *(i + 1 for i, b in enumerate(whole) if b == 10)}
    for at in range(len(whole)):
        path.write_bytes(whole[:at])
        if at in ends:
            Budget(path, 20.0, 1e-6).close()
        else:
            with pytest.raises(LedgerDamaged):
                Budget(path, 20.0, 1e-6)


def test_a_line_taken_out_of_the_middle_is_found(tmp_path):
    path = tmp_path / "ledger.jsonl"
    pay(path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[2])
    with pytest.raises(LedgerDamaged) as caught:
        Budget(path, 20.0, 1e-6)
    assert caught.value.line == 2


def test_one_ledger_has_one_spender(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Budget(path, 20.0, 1e-6), pytest.raises(Unavailable, match="another process"):
        Budget(path, 20.0, 1e-6)


def test_the_file_is_private_and_holds_no_more_than_what_happened(tmp_path):
    path = tmp_path / "ledger.jsonl"
    pay(path, 1)
    assert path.stat().st_mode & 0o077 == 0
    fields = set(json.loads(path.read_text()))
    assert fields == {"release", "round", "sampling_rate", "noise_multiplier", "previous", "hash"}


def test_a_folder_that_cannot_be_written_is_one_clear_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="ledger"):
        Budget(tmp_path / "file" / "ledger.jsonl", 8.0, 1e-6)
