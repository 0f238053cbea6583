"""A file that cannot be shortened unnoticed: every cut and every altered byte is mended or refused."""

import json
import os

import pytest

from clients.ledger import Ledger, LedgerDamaged
from fedtrade.errors import Unavailable


def write(path, entries, start=0):
    with Ledger(path) as ledger:
        for n in range(start, start + entries):
            ledger.append({"n": n})
        return ledger.head


def entries(path):
    with Ledger(path) as ledger:
        return [e["n"] for e in ledger.entries]


def put(path, data, head):
    path.write_bytes(data)
    head_path = path.with_name(path.name + ".head")
    if head is None:
        head_path.unlink(missing_ok=True)
    else:
        head_path.write_bytes(head)


def test_what_was_written_is_there_after_a_restart(tmp_path):
    path = tmp_path / "a.jsonl"
    assert entries(path) == []
    head = write(path, 3)
    assert entries(path) == [0, 1, 2]
    assert write(path, 1, start=3) != head
    assert entries(path) == [0, 1, 2, 3]


def test_the_line_is_synced_before_its_head_is_written(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    order = []
    fsync, pwrite = os.fsync, os.pwrite
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append(path.read_bytes()), fsync(fd)))
    monkeypatch.setattr(os, "pwrite", lambda *a: (order.append("head"), pwrite(*a)))
    write(path, 1)
    assert order == [path.read_bytes(), "head"]


def test_a_power_cut_at_every_byte_is_mended_or_refused_and_never_forgets(tmp_path):
    """The disk keeps a prefix of what was written, in the order of the syncs: line, then head.

    Whatever `append` had returned for must still be there, or the file must be refused.
    """
    path = tmp_path / "a.jsonl"
    head_path = tmp_path / "a.jsonl.head"
    states = []  # (file, head, entries that were acted on)
    write(path, 1)
    states.append((path.read_bytes(), head_path.read_bytes(), [0]))
    write(path, 1, start=1)
    states.append((path.read_bytes(), head_path.read_bytes(), [0, 1]))
    (old, old_head, acted), (new, _, _) = states
    for size in range(len(old), len(new) + 1):  # the second line is being written
        put(path, new[:size], old_head)
        found = entries(path)
        assert found[: len(acted)] == acted
        assert path.read_bytes().endswith(b"\n")
    cuts = 0
    for data, head, _ in states:  # lost after it was acted on
        for size in range(len(data)):
            put(path, data[:size], head)
            with pytest.raises(LedgerDamaged):
                Ledger(path)
            cuts += 1
    assert cuts > 300


def test_every_altered_byte_of_file_or_head_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    head_path = tmp_path / "a.jsonl.head"
    write(path, 2)
    data, head = path.read_bytes(), head_path.read_bytes()
    for at in range(len(data)):
        put(path, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], head)
        with pytest.raises(LedgerDamaged):
            Ledger(path)
    for at in range(len(head)):
        put(path, data, head[:at] + bytes([head[at] ^ 1]) + head[at + 1 :])
        try:
            found = entries(path)
        except LedgerDamaged:
            continue
        assert found == [0, 1]  # a smaller count is no loss: the lines are there


def test_a_lost_head_a_line_taken_out_and_lines_of_another_file_are_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    write(path, 3)
    data, head = path.read_bytes(), (tmp_path / "a.jsonl.head").read_bytes()
    lines = data.splitlines(keepends=True)
    put(path, data, None)
    with pytest.raises(LedgerDamaged, match="gone"):
        Ledger(path)
    put(path, lines[0] + lines[2], head)
    with pytest.raises(LedgerDamaged) as caught:
        Ledger(path)
    assert caught.value.line == 2
    other = tmp_path / "other.jsonl"
    with Ledger(other) as ledger:
        for n in range(7, 10):
            ledger.append({"n": n})
    put(path, other.read_bytes(), head)
    with pytest.raises(LedgerDamaged, match=r"\.head names"):
        Ledger(path)


def test_one_file_has_one_writer_and_is_private(tmp_path):
    path = tmp_path / "a.jsonl"
    with Ledger(path) as ledger:
        ledger.append({"n": 1})
        with pytest.raises(Unavailable, match="another process"):
            Ledger(path)
    assert path.stat().st_mode & 0o077 == 0
    assert (tmp_path / "a.jsonl.head").stat().st_mode & 0o077 == 0
    assert json.loads(path.read_text())["n"] == 1


def test_a_folder_that_cannot_be_written_is_one_clear_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match=r"ledger\.jsonl"):
        Ledger(tmp_path / "file" / "ledger.jsonl")
