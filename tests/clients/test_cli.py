"""The member's command: bad input is one clear sentence, exit code ≠ 0, nothing half-written."""

import io
import logging
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime

import pytest

from clients.budget import Budget
from clients.cli import main as clients_main
from fedtrade.privacy.accounting import Spend
from server.certificates import create_authority

HEADER = "position_id,venue,symbol,side,opened_at,closed_at,entry_price,quantity_base,leverage"
GOOD = "a1,binance,ETH,long,2025-04-02T03:00:00Z,2025-04-02T09:00:00Z,1800.5,2,3"


def member(*words):
    """Run the command in this process, as its entry point would."""
    out, err = io.StringIO(), io.StringIO()
    argv, handlers = sys.argv, logging.root.handlers[:]
    sys.argv, code = ["x", *map(str, words)], 0
    try:
        with redirect_stdout(out), redirect_stderr(err):
            clients_main()
    except SystemExit as left:
        code = left.code or 0
    finally:
        sys.argv, logging.root.handlers[:] = argv, handlers
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def one_sentence(done, *words):
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("fedtrade-member: ")
    for word in words:
        assert word in done.stderr


def test_init_makes_keys_once_and_says_what_to_back_up(tmp_path):
    made = member("init", tmp_path / "me")
    assert made.returncode == 0
    assert "Back up" in made.stdout
    assert (tmp_path / "me" / "keys.json").stat().st_mode & 0o077 == 0
    before = (tmp_path / "me" / "keys.json").read_bytes()
    assert before not in made.stdout.encode()
    one_sentence(member("init", tmp_path / "me"), "keys.json")
    assert (tmp_path / "me" / "keys.json").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["empty"]),
        (HEADER.replace("side", "colour") + "\n" + GOOD, ["colour"]),
        (HEADER + "\n" + GOOD.replace(",2,3", ",-2,3"), ["row 1", "quantity_base"]),
        (HEADER + "\n" + GOOD.replace("1800.5", "NaN"), ["row 1", "entry_price"]),
        (HEADER + "\n" + GOOD + "\n" + GOOD, ["row 2", "position_id"]),
        (HEADER + "\n" + GOOD.replace("2025-04-02T03", "2199-04-02T03"), ["row 1", "opened_at"]),
    ],
)
def test_a_broken_file_of_positions_is_named_by_row_and_column(tmp_path, text, words):
    path = tmp_path / "positions.csv"
    path.write_text(text + "\n" if text else "")
    one_sentence(member("check", path), *words)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["positions.csv"]


def test_a_good_file_is_counted_and_not_shown(tmp_path):
    path = tmp_path / "positions.csv"
    path.write_text(HEADER + "\n" + GOOD + "\n")
    done = member("check", path, "--at", "2025-06-12T00:00:00Z")
    assert done.returncode == 0, done.stderr
    assert "1 positions" in done.stdout
    assert "1800" not in done.stdout


def test_the_example_file_is_good(tmp_path):
    done = member("check", "examples/positions.csv")
    assert done.returncode == 0, done.stderr


def test_missing_files_and_settings_are_one_sentence(tmp_path):
    one_sentence(member("check", tmp_path / "none.csv"), "none.csv")
    one_sentence(member("ledger", tmp_path), "no ledger")
    one_sentence(member("trade", "--settings", tmp_path / "none.toml"), "none.toml")
    (tmp_path / "bad.toml").write_text("chain = ")
    one_sentence(member("trade", "--settings", tmp_path / "bad.toml"), "TOML")
    one_sentence(member("check", tmp_path / "none.csv", "--at", "yesterday"), "yesterday")


def test_a_damaged_ledger_is_a_fault_and_is_left_as_it_is(tmp_path):
    damaged = '{"release":1}\n{"release":2}\n'
    (tmp_path / "ledger.jsonl").write_text(damaged)
    done = member("ledger", tmp_path)
    assert done.returncode == 4
    assert "restore it" in done.stderr
    assert (tmp_path / "ledger.jsonl").read_text() == damaged
    assert [p.name for p in tmp_path.iterdir()] == ["ledger.jsonl"]


def test_a_ledger_can_be_looked_at_while_it_is_held(tmp_path):
    with Budget(tmp_path / "ledger.jsonl", 8.0, 1e-6) as budget:
        budget.spend(3, 7, Spend(0.05, 1.0, 1), bytes(32))
        done = member("ledger", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 rounds; ")


def test_help_teaches_and_loads_nothing_heavy():
    for words in (
        (),
        ("check",),
        ("train",),
        ("committee",),
        ("validate",),
        ("status",),
        ("trade",),
    ):
        shown = member(*words, "--help")
        assert shown.returncode == 0
    assert "SIGTERM" in shown.stdout
    code = (
        "import sys, clients.cli; "
        "heavy = {'torch', 'flwr', 'numpy', 'aiohttp', 'pydantic'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def party(tmp_path):
    """A member's folder with settings that are filled in; nobody listens on port 1."""
    made = member("init", tmp_path / "me")
    assert made.returncode == 0, made.stderr
    folder = tmp_path / "me"
    create_authority(folder, "test", datetime.now(UTC))
    (folder / "positions.csv").write_text(HEADER + "\n" + GOOD + "\n")
    text = (folder / "member.toml").read_text()
    text = text.replace("<40 hex digits>", "ab" * 20).replace("<host>:<port>", "127.0.0.1:1")
    (folder / "member.toml").write_text(text.replace("127.0.0.1:8545", "127.0.0.1:1"))
    return folder


def test_init_writes_settings_to_fill_in_and_a_nodes_key(tmp_path):
    assert member("init", tmp_path).returncode == 0
    assert (tmp_path / "node.key").stat().st_mode & 0o077 == 0
    one_sentence(member("check", tmp_path / "member.toml"), "coordinator.address", "registry")


def test_check_reads_settings_and_all_that_they_name(party):
    done = member("check", party / "member.toml", "--at", "2025-06-12T00:00:00Z")
    assert done.returncode == 0, done.stderr
    for word in ("member seat 1", "0x", "ε ≤ 8", "1 positions"):
        assert word in done.stdout
    assert "1800" not in done.stdout
    (party / "positions.csv").write_text(HEADER + "\n" + GOOD.replace(",2,3", ",-2,3") + "\n")
    one_sentence(member("check", party / "member.toml"), "row 1", "quantity_base")
    (party / "keys.json").chmod(0o644)
    one_sentence(member("check", party / "member.toml"), "keys.json", "0644")


def test_status_says_what_is_there_and_what_is_not(party):
    with Budget(party / "ledger.jsonl", 8.0, 1e-6) as budget:
        budget.spend(3, 7, Spend(0.05, 1.0, 1), bytes(32))
        done = member("status", party / "member.toml")
    assert done.returncode == 0, done.stderr
    for word in ("member seat 1", "1 rounds", "of 8 left", "round 7 of release 3", "no answer"):
        assert word in done.stdout
    assert done.stdout.count("no answer") == 2


def test_a_validator_needs_its_section(party):
    one_sentence(member("validate", party / "member.toml"), "validator or home_chain")


def test_a_committee_needs_a_helper_seat(party):
    one_sentence(member("committee", party / "member.toml"), "seats.helper")
    one_sentence(member("train", party / "none.toml"), "none.toml")
    one_sentence(member("train", party / "member.toml", "--over", "flower"), "supernode")
