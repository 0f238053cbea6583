"""The coordinator's command."""

import io
import logging
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest

from clients.keys import MemberKeys
from consortium.rehearsal import small_base
from server.certificates import TlsFiles
from server.cli import main as server_main


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


def one_sentence(done, *words):
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("fedtrade-coordinator: ")
    for word in words:
        assert word in done.stderr


@pytest.fixture
def folder(tmp_path):
    """A coordinator's folder with settings that are filled in, for a consortium without a chain."""
    made = coordinator("init", tmp_path / "c", "--host", "127.0.0.1")
    assert made.returncode == 0, made.stderr
    folder = tmp_path / "c"
    text = (folder / "coordinator.toml").read_text()
    text = text.replace('deployment = "deployment.json"', "#")
    text = text.replace('agreement = "chain"', 'agreement = "certificate"')
    for seat in range(1, 5):
        keys = MemberKeys.ephemeral()
        own = f', signer = "{keys.address.lower()}", x25519 = "{keys.x25519_public.hex()}" }}'
        for end in (" },\n", " }, {", " }]"):
            text = text.replace(f"id = {seat}{end}", f"id = {seat}{own}{end[2:]}")
            text = text.replace(f"id = {seat}, positions = 100{end}",
                                f"id = {seat}, positions = 100{own}{end[2:]}")  # fmt: skip
    (folder / "coordinator.toml").write_text(text)
    (folder / "base.safetensors").write_bytes(small_base())
    return folder


def test_init_makes_a_key_and_certificates_once(tmp_path):
    made = coordinator("init", tmp_path / "c", "--host", "127.0.0.1", "--host", "c.example")
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("address  0x")
    assert "127.0.0.1, c.example" in made.stdout
    TlsFiles.within(tmp_path / "c" / "tls").server_context()
    for key in ("coordinator.key", "tls/server.key", "tls/ca.key"):
        assert (tmp_path / "c" / key).stat().st_mode & 0o077 == 0
    again = coordinator("init", tmp_path / "c", "--host", "127.0.0.1")
    one_sentence(again, "coordinator.key")


def test_terms_gives_the_policy_hash_and_opens_nothing(folder):
    before = sorted(folder.rglob("*"))
    first = coordinator("terms", folder / "coordinator.toml")
    assert first.returncode == 0, first.stderr
    assert len(first.stdout.split()[0]) == 64
    for word in ("4 members", "3 helpers", "100 rounds", "q = 0.05", "z = 1.2"):
        assert word in first.stdout
    assert coordinator("terms", folder / "coordinator.toml").stdout == first.stdout
    text = (folder / "coordinator.toml").read_text()
    (folder / "coordinator.toml").write_text(text.replace("clip_norm = 1.0", "clip_norm = 1.5"))
    other = coordinator("terms", folder / "coordinator.toml")
    assert other.stdout.split()[0] != first.stdout.split()[0]
    assert sorted(folder.rglob("*")) == before


def test_bad_settings_are_one_sentence(folder):
    path = folder / "coordinator.toml"
    one_sentence(coordinator("run", folder / "none.toml"), "none.toml")
    one_sentence(coordinator("up", path), "superlink")
    one_sentence(coordinator("run", path, "--over", "flower"), "no SuperLink")
    good = path.read_text()
    path.write_text(good.replace("rounds = 100", "rounds = 0"))
    one_sentence(coordinator("run", path), "release.parameters.rounds")
    path.write_text(good.replace("rounds = 100", "rounds = 1000"))
    one_sentence(coordinator("terms", path), "cap")


def test_nobody_there_is_said_and_the_release_can_be_started_again(folder):
    path = folder / "coordinator.toml"
    text = path.read_text().replace("port = 9443", "port = 0")
    path.write_text(text.replace("release_timeout_s = 600.0", "release_timeout_s = 0.1"))
    done = coordinator("run", path)
    assert done.returncode == 3
    assert "0 members have joined and 3 are needed" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unreachable_node_is_one_sentence(tmp_path):
    gone = coordinator("live", "--deployment", tmp_path / "none.json")
    assert gone.returncode == 2
    assert gone.stderr.startswith("fedtrade-coordinator: ")
    assert "Traceback" not in gone.stderr


def test_deploy_prints_a_template_and_names_what_is_missing(tmp_path):
    printed = coordinator("deploy", "--template")
    assert printed.stdout.startswith("# The plan of a deployment")
    one_sentence(coordinator("deploy"), "--plan", "--template")
    plan = tmp_path / "deployment.toml"
    plan.write_text(printed.stdout)
    one_sentence(coordinator("deploy", "--plan", plan), "seats.0", "zero address")
    one_sentence(coordinator("deploy", "--plan", tmp_path / "none"), "cannot read")


def test_help_teaches_and_loads_nothing_heavy():
    for words in ((), ("init",), ("terms",), ("run",), ("up",), ("live",), ("deploy",), ("gov",)):
        assert coordinator(*words, "--help").returncode == 0
    code = (
        "import sys, server.cli; "
        "heavy = {'torch', 'flwr', 'numpy', 'aiohttp', 'pydantic'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
