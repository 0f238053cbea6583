"""The member's command: bad input is one clear sentence, exit code ≠ 0, nothing half-written."""

import subprocess
import sys

import pytest

HEADER = "position_id,venue,symbol,side,opened_at,closed_at,entry_price,quantity_base,leverage"
GOOD = "a1,binance,ETH,long,2025-04-02T03:00:00Z,2025-04-02T09:00:00Z,1800.5,2,3"


def member(*words):
    return subprocess.run(
        [sys.executable, "-m", "clients.cli", *map(str, words)], capture_output=True, text=True
    )


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


def test_a_torn_ledger_is_a_fault(tmp_path):
    (tmp_path / "ledger.jsonl").write_text('{"release":1')
    done = member("ledger", tmp_path)
    assert done.returncode == 4
    assert "torn" in done.stderr


def test_help_teaches():
    for words in ((), ("check",), ("trade",)):
        shown = member(*words, "--help")
        assert shown.returncode == 0
    assert "SIGTERM" in shown.stdout
