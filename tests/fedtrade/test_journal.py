"""The journal: exact encoding, torn tails cut and said, every alteration named, replay equal."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.errors import Fault, Stale, Unavailable
from fedtrade.journal import (
    GENESIS,
    Journal,
    JournalAltered,
    JournalDiffers,
    Reader,
    canonical,
    link,
    replay,
)
from fedtrade.market.actions import Action, SwapExactInput
from fedtrade.market.events import Event, Head, Reorganised, Swapped


class Note:
    """A receipt of one number."""

    def __init__(self, total: int) -> None:
        self.total = total

    def body(self) -> Mapping[str, Any]:
        return {"total": self.total}


class Summer:
    """A small deterministic agent: adds up what is swapped and acts at each even total."""

    def __init__(self, first: int = 0) -> None:
        self.total = first
        self.last_receipt: Note | None = None

    def on(self, event: Event) -> list[Action]:
        self.last_receipt = None
        if isinstance(event, Reorganised):
            raise Stale("a block was replaced")
        if isinstance(event, Swapped):
            self.total += event.amount0
        if not isinstance(event, Head):
            return []
        self.last_receipt = Note(self.total)
        if self.total % 2:
            return []
        return [SwapExactInput(f"a{event.number}", "0xp", True, self.total, 1, 99, True)]


def head(number: int) -> Head:
    return Head(number, f"0x{number:064x}", f"0x{number - 1:064x}", 60 * number, 7)


def swapped(block: int, amount: int) -> Swapped:
    return Swapped(block, 0, "0xp", amount, -1, 2**96, 10**18, 0)


def written(path: Path, blocks: int = 6) -> Journal:
    journal = Journal(path)
    journal.append("start", {"first": 3})
    agent = Summer(3)
    for number in range(1, blocks + 1):
        journal.run(agent, swapped(number, 2**200 + number))
        if number == 3:
            with pytest.raises(Stale):
                journal.run(agent, Reorganised(2))
        journal.run(agent, head(number))
    journal.append("note", {"why": "test"})
    return journal


def from_start(body: Mapping[str, Any]) -> Summer:
    return Summer(body["first"])


def test_replay_reproduces_every_action_and_the_head_hash(tmp_path: Path) -> None:
    with written(tmp_path / "j") as journal:
        pass
    result = replay(tmp_path / "j", from_start)
    assert result.head_hash == journal.head_hash != GENESIS
    assert (result.records, result.events, result.receipts) == (journal.count, 13, 6)
    assert result.actions > 0
    assert result.torn_bytes == result.unfinished == 0


@given(data=st.data())
def test_any_altered_byte_is_found_and_named(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("j")
    written(folder / "j", 3).close()
    content = bytearray((folder / "j").read_bytes())
    at = data.draw(st.integers(0, len(content) - 2))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    (folder / "k").write_bytes(content)
    with pytest.raises(JournalAltered) as found:
        replay(folder / "k", from_start)
    hit = bytes((folder / "j").read_bytes())[:at].count(b"\n")
    assert found.value.seq == hit
    assert f"record {hit} " in str(found.value)


def forge(path: Path, change: Mapping[int, Mapping[str, Any]]) -> None:
    """Rewrite bodies and every hash after them, as one who knows the format would."""
    prev, lines = GENESIS, []
    for line in path.read_text().splitlines():
        record = json.loads(line)
        record["body"] |= change.get(record["seq"], {})
        record["prev"] = prev
        record["hash"] = prev = link(prev, record["seq"], record["kind"], record["body"])
        lines.append(canonical(record))
    path.write_text("\n".join(lines) + "\n")


def test_a_forged_chain_is_found_by_what_the_event_no_longer_leads_to(tmp_path: Path) -> None:
    path = tmp_path / "j"
    written(path).close()
    records = list(Reader(path))
    victim = next(r for r in records if r.kind == "event" and r.body["type"] == "Swapped")
    forge(path, {victim.seq: {"amount0": 1}})
    assert [r.kind for r in Reader(path)] == [r.kind for r in records]  # the chain is whole
    with pytest.raises(JournalDiffers, match="total is") as found:
        replay(path, from_start)
    assert found.value.seq == next(r.seq for r in records if r.kind == "receipt")


def test_a_forged_action_is_named(tmp_path: Path) -> None:
    path = tmp_path / "j"
    written(path).close()
    action = next(r for r in Reader(path) if r.kind == "action")
    forge(path, {action.seq: {"amount_in": 5}})
    with pytest.raises(JournalDiffers, match="amount_in") as found:
        replay(path, from_start)
    assert found.value.seq == action.seq


def test_a_removed_or_swapped_record_is_named(tmp_path: Path) -> None:
    path = tmp_path / "j"
    written(path).close()
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:4] + lines[5:]))
    with pytest.raises(JournalAltered, match="record 4 "):
        list(Reader(path))
    path.write_text("".join([*lines[:2], lines[3], lines[2], *lines[4:]]))
    with pytest.raises(JournalAltered, match="record 2 "):
        list(Reader(path))


def test_a_torn_tail_is_cut_off_and_said_at_every_length(tmp_path: Path) -> None:
    path = tmp_path / "j"
    written(path, 2).close()
    whole = path.read_bytes()
    start = whole.rstrip(b"\n").rindex(b"\n") + 1
    count = len(list(Reader(path)))
    for cut in range(start + 1, len(whole)):
        path.write_bytes(whole[:cut])
        reader = Reader(path)
        assert len(list(reader)) == count - 1
        assert reader.torn_bytes == cut - start
    with Journal(path) as journal:
        assert journal.torn_bytes == len(whole) - 1 - start
        assert len(journal.found) == count - 1
    last = list(Reader(path))[-1]
    assert (last.kind, last.body) == ("note", {"torn_bytes": len(whole) - 1 - start})
    assert replay(path, from_start).torn_bytes == 0


def test_an_altered_journal_is_not_opened_and_not_repaired(tmp_path: Path) -> None:
    path = tmp_path / "j"
    written(path).close()
    content = path.read_bytes().replace(b'"amount1":-1', b'"amount1":-2', 1)
    path.write_bytes(content)
    with pytest.raises(JournalAltered):
        Journal(path)
    assert path.read_bytes() == content


def test_it_goes_on_where_it_ended_and_a_new_start_makes_a_new_agent(tmp_path: Path) -> None:
    path = tmp_path / "j"
    written(path).close()
    with Journal(path) as journal:
        journal.append("start", {"first": 8})
        agent = Summer(8)
        journal.run(agent, head(9))
    result = replay(path, from_start)
    assert result.head_hash == journal.head_hash
    assert result.receipts == 7


def test_what_a_crash_left_unwritten_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path) as journal:
        journal.append("start", {"first": 2})
        journal.run(Summer(2), head(1))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3]))  # event and receipt, not the action
    assert replay(path, from_start).unfinished == 1


def test_outcomes_without_an_event_are_named(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path) as journal:
        journal.append("start", {"first": 2})
        journal.append("action", {"type": "SwapExactInput"})
    with pytest.raises(JournalDiffers, match="nothing leads to it"):
        replay(path, from_start)


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with Journal(tmp_path / "j"), pytest.raises(Unavailable, match="another process"):
        Journal(tmp_path / "j")


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(Fault, match="cannot read"):
        replay(tmp_path / "none", from_start)


def test_actions_are_on_disk_before_run_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bytes] = []
    journal = Journal(tmp_path / "j")
    monkeypatch.setattr(
        "fedtrade.journal.os.fsync", lambda fd: synced.append((tmp_path / "j").read_bytes())
    )
    journal.append("start", {"first": 2})
    journal.run(Summer(1), head(1))
    assert synced == []
    journal.run(Summer(2), head(2))
    assert b'"kind":"action"' in synced[-1]
    journal.close()


def test_nothing_that_json_cannot_carry_gets_in() -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical({"x": math.nan})
