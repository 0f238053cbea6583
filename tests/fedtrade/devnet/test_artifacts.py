"""Fetching with a scripted npm: hash checked before use, listed members only, clear failures."""

import base64
import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile

import pytest

from fedtrade.devnet import artifacts
from fedtrade.devnet.artifacts import Contract, PackageAltered, Pin, package_folder
from fedtrade.errors import Unavailable

PACKAGE = "@scope/thing@1.0.0"


def archive(members):
    """A package as npm packs it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def integrity(content):
    return "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()


CONTENT = archive(
    {
        "package/bin/run": b"program",
        "package/a.json": b"{}",
        "package/unlisted": b"no",
        "package/../../escape": b"no",
        "elsewhere/a.json": b"later members of the same name would win",
    }
)


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """`serve(script)` puts an npm on the PATH; returns the store."""
    programs = tmp_path / "bin"
    programs.mkdir()

    def serve(script, npm=True, node=True):
        for name, wanted in (("npm", npm), ("node", node)):
            if wanted:
                path = programs / name
                path.write_text(f"#!/bin/sh\n{script}\n")
                path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}/usr/bin{os.pathsep}/bin")
        found = artifacts.shutil.which
        monkeypatch.setattr(artifacts.shutil, "which", lambda name: found(name, path=str(programs)))

    monkeypatch.setattr(artifacts, "_anvil_package", lambda: None)
    monkeypatch.setattr(artifacts, "_anvil_binary", lambda store, package: store / "anvil")
    monkeypatch.setattr(
        artifacts, "pins", lambda: {PACKAGE: Pin(integrity(CONTENT), ("bin/run", "a.json"))}
    )
    return serve


def packing(tmp_path, content=CONTENT):
    """A script that delivers an archive where npm is told to, and counts its runs."""
    (tmp_path / "served.tgz").write_bytes(content)
    return (
        f'echo run >> {tmp_path}/runs; while [ "$1" != --pack-destination ]; do shift; done; '
        f'cp {tmp_path}/served.tgz "$2/thing.tgz"'
    )


def left(tmp_path):
    """What a failed run left in the store."""
    store = tmp_path / "cache" / "packages"
    return list(store.iterdir()) if store.exists() else []


def test_listed_members_and_nothing_else(tmp_path, registry):
    registry(packing(tmp_path))
    found = artifacts.fetch(tmp_path / "cache")
    folder = package_folder(found.folder, PACKAGE)
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert files == {"bin/run", "a.json"}
    assert (folder / "a.json").read_bytes() == b"{}"
    assert (folder / "bin/run").stat().st_mode & stat.S_IXUSR
    assert not (folder / "a.json").stat().st_mode & stat.S_IXUSR
    assert not list(tmp_path.rglob("escape"))


def test_the_second_run_needs_no_npm(tmp_path, registry):
    registry(packing(tmp_path))
    first = artifacts.fetch(tmp_path / "cache")
    assert artifacts.fetch(tmp_path / "cache") == first
    assert (tmp_path / "runs").read_text() == "run\n"


def test_another_content_is_deleted_and_said(tmp_path, registry):
    altered = archive({"package/bin/run": b"evil", "package/a.json": b"{}"})
    registry(packing(tmp_path, altered))
    with pytest.raises(PackageAltered, match="It was deleted") as e:
        artifacts.fetch(tmp_path / "cache")
    assert (e.value.expected, e.value.got) == (integrity(CONTENT), integrity(altered))
    assert left(tmp_path) == []


def test_a_missing_member_is_an_error(tmp_path, registry, monkeypatch):
    registry(packing(tmp_path))
    pin = Pin(integrity(CONTENT), ("bin/run", "b.json"))
    monkeypatch.setattr(artifacts, "pins", lambda: {PACKAGE: pin})
    with pytest.raises(Unavailable, match=r"has no b\.json"):
        artifacts.fetch(tmp_path / "cache")
    assert left(tmp_path) == []


@pytest.mark.parametrize("have", [{"npm": False}, {"node": False}])
def test_no_node_says_what_to_install(tmp_path, registry, have):
    registry(packing(tmp_path), **have)
    with pytest.raises(Unavailable, match="Install Node 20"):
        artifacts.fetch(tmp_path / "cache")
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'npm error code ENOTFOUND' >&2; exit 1", "only the first run needs it"),
        ("echo 'npm error code ENOSPC' >&2; exit 1", "full while fetching"),
        ("echo 'npm error 404 nowhere' >&2; exit 1", "404 nowhere"),
        ("exit 0", "it says no reason"),
    ],
)
def test_what_npm_says_becomes_a_sentence(tmp_path, registry, script, said):
    registry(script)
    with pytest.raises(Unavailable, match=said):
        artifacts.fetch(tmp_path / "cache")
    assert left(tmp_path) == []


def test_a_stalled_npm_is_given_up(tmp_path, registry, monkeypatch):
    registry("exec sleep 30")
    monkeypatch.setattr(artifacts, "NPM_LIMIT_S", 0.2)
    with pytest.raises(Unavailable, match="did not deliver"):
        artifacts.fetch(tmp_path / "cache")
    assert left(tmp_path) == []


def test_a_full_disk_stops_before_the_download(tmp_path, registry, monkeypatch):
    registry(packing(tmp_path))
    monkeypatch.setattr(
        "fedtrade.devnet.cache.shutil.disk_usage", lambda _: type("D", (), {"free": 1000})
    )
    with pytest.raises(Unavailable, match="MB are free"):
        artifacts.fetch(tmp_path / "cache")
    assert not (tmp_path / "runs").exists()


def test_platforms_without_a_pin_use_what_is_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(artifacts.platform, "machine", lambda: "arm64")
    assert artifacts._anvil_package() is None
    monkeypatch.setattr(artifacts.shutil, "which", lambda _: None)
    with pytest.raises(Unavailable, match="Install Foundry"):
        artifacts._anvil_binary(tmp_path, None)
    monkeypatch.setattr(artifacts.shutil, "which", lambda _: "/opt/anvil")
    assert str(artifacts._anvil_binary(tmp_path, None)) == "/opt/anvil"


def test_libraries_are_linked_where_the_compiler_says():
    references = {"L.sol": {"Lib": [{"start": 1, "length": 20}]}}
    contract = Contract("0xff" + "__" * 20 + "ee", references)
    assert contract.linked(Lib="0x" + "Ab" * 20) == bytes.fromhex("ff" + "ab" * 20 + "ee")
    assert Contract("0x6001", {}).code == b"\x60\x01"


def test_the_committed_lock_is_complete():
    pins = artifacts.pins()
    assert {artifacts.CORE, artifacts.PERIPHERY} < set(pins)
    assert json.loads(artifacts.lock_bytes()).keys() == pins.keys()
    for pin in pins.values():
        assert len(base64.b64decode(pin.integrity.removeprefix("sha512-"))) == 64


@pytest.mark.chain
def test_what_was_fetched_runs_and_is_what_it_says(devnet):
    fetched = artifacts.fetch()
    version = subprocess.run([fetched.anvil, "--version"], capture_output=True, text=True)
    assert artifacts.ANVIL_VERSION in version.stdout
    assert len(fetched.contract(artifacts.CORE, "UniswapV3Factory.sol").code) > 20_000


def test_typechain_factories_are_read_and_not_run(tmp_path):
    folder = tmp_path / "some__pkg@1.0.0" / "dist/typechain/factories/contracts/hooks"
    folder.mkdir(parents=True)
    found = artifacts.Artifacts(tmp_path, tmp_path / "anvil")
    path = folder / "Thing__factory.js"
    path.write_text('throw 1;\nconst _bytecode = "0x6001ab";\n')
    assert found.factory("some/pkg@1.0.0", "hooks/Thing").code == bytes.fromhex("6001ab")
    for wrong in ('const _bytecode = "0x600";', 'const _bytecode = "0x__$lib$__";', "", "x"):
        path.write_text(wrong)
        with pytest.raises(Unavailable, match="no bytecode"):
            found.factory("some/pkg@1.0.0", "hooks/Thing")
