"""The command's shell: errors as one sentence and an exit code, and a help that is quick to load."""

import subprocess
import sys

import pytest

from fedtrade import cli
from fedtrade.errors import BadInput, Stale, Unavailable


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadInput("file", "broken", "Mend it."), 2),
        (Stale("Old view. Read again."), 3),
        (Unavailable("node", "gone", "Start it."), 4),
    ],
)
def test_each_group_of_errors_has_its_exit_code(monkeypatch, capsys, error, code):
    def failing():
        raise error

    monkeypatch.setattr(cli, "app", failing)
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == code
    assert capsys.readouterr().err == f"fedtrade: {error}\n"


def test_other_errors_are_not_hidden(monkeypatch):
    def failing():
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "app", failing)
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from fedtrade import cli; "
        "heavy = {'numpy', 'pydantic', 'eth_abi', 'aiohttp', 'torch', 'polars'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_names_the_commands():
    shown = subprocess.run(
        [sys.executable, "-m", "fedtrade.cli", "devnet", "--help"], capture_output=True, text=True
    )
    assert shown.returncode == 0
    for word in ("up", "down", "status", "stand-ins"):
        assert word in shown.stdout


def test_a_port_outside_the_range_is_refused():
    asked = [sys.executable, "-m", "fedtrade.cli", "devnet", "up", "--port", "65535"]
    refused = subprocess.run(asked, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "65533" in refused.stderr
