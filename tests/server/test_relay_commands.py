"""The relayer's commands and its settings file."""

import io
import logging
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest

from fedtrade.errors import BadInput
from server.cli import main as server_main
from server.relay_settings import RELAY_TEMPLATE, RelayFees, RelaySettings


def coordinator(*words):
    """Run the command in this process, as its entry point would."""
    out, err = io.StringIO(), io.StringIO()
    argv, handlers = sys.argv, logging.root.handlers[:]
    sys.argv, code = ["x", *map(str, words)], 0
    try:
        with redirect_stdout(out), redirect_stderr(err):
            server_main()
    except SystemExit as left:
        code = left.code or 0
    finally:
        sys.argv, logging.root.handlers[:] = argv, handlers
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def settings_at(folder, text=RELAY_TEMPLATE):
    path = folder / "relay.toml"
    path.write_text(text.replace("https://<host>/checkpoints", "https://a.example/checkpoints"))
    return path


def test_init_makes_a_key_and_settings_once(tmp_path):
    made = coordinator("relay", "init", tmp_path / "r")
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("address  0x")
    assert (tmp_path / "r" / "coordinator.key").stat().st_mode & 0o077 == 0
    assert (tmp_path / "r" / "relay.toml").read_text() == RELAY_TEMPLATE
    assert coordinator("relay", "init", tmp_path / "r").returncode == 2


def test_the_template_is_good_and_its_values_are_the_defaults(tmp_path):
    loaded = RelaySettings.load(settings_at(tmp_path))
    assert loaded.keys == tmp_path
    assert loaded.deployment == tmp_path / "deployment.json"
    assert loaded.fees == RelayFees()
    assert loaded.storages == ("https://a.example/checkpoints",)
    plain = RelaySettings(keys=tmp_path, deployment=tmp_path / "deployment.json",
                          storages=loaded.storages)  # fmt: skip
    assert loaded == plain


def test_every_field_is_in_the_template():
    for model in (RelaySettings, RelayFees):
        for name in model.model_fields:
            assert re.search(rf"^(# )?\[?{name}\b", RELAY_TEMPLATE, re.MULTILINE), name


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("poll_s = 5.0", "poll_s = 0.0", "poll_s"),
        ("heartbeat_s = 21600.0", "heartbeat_s = 1e9", "heartbeat_s"),
        ("https://<host>", "ftp://a", "storages"),
        ("tip_gwei = 1.0", "tip_gwei = 1.0\nfree = true", "fees.free"),
        ("attempts_max = 5 ", "attempts_max = 1000 ", "attempts_max"),
    ],
)
def test_wrong_settings_are_named(tmp_path, old, new, named):
    assert old in RELAY_TEMPLATE
    with pytest.raises(BadInput, match=named):
        RelaySettings.load(settings_at(tmp_path, RELAY_TEMPLATE.replace(old, new)))


def test_errors_are_one_sentence(tmp_path):
    for command in ("run", "status"):
        for path in (tmp_path / "none.toml", settings_at(tmp_path)):
            done = coordinator("relay", command, path)
            assert done.returncode == 2
            assert done.stderr.startswith("fedtrade-coordinator: ")
            assert "Traceback" not in done.stderr


def test_help_teaches():
    told = coordinator("relay", "--help")
    assert told.returncode == 0
    for word in ("init", "run", "status", "validators"):
        assert word in told.stdout
    for command in ("init", "run", "status"):
        assert coordinator("relay", command, "--help").returncode == 0
