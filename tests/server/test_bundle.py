"""The bundle as Flower's own builder makes it: two files, none of them code, the same each time."""

import hashlib
import io
import zipfile
from importlib.metadata import version

import pytest

from fedtrade.bundle import LICENSE, LISTING, check_bundle
from fedtrade.errors import Fault
from server import bundle
from server.bundle import build_bundle, start_run


@pytest.fixture(scope="module")
def built():
    return build_bundle()


def test_it_holds_a_licence_and_metadata_and_nothing_else(built):
    with zipfile.ZipFile(io.BytesIO(built)) as archive:
        assert sorted(archive.namelist()) == sorted([LISTING, "LICENSE", "pyproject.toml"])
        assert archive.read("LICENSE") == LICENSE
        assert b"/" not in archive.read("pyproject.toml").replace(b'"/LICENSE"', b"")


def test_members_accept_it(built):
    assert len(check_bundle(built, version("fedtrade"))) == 64


def test_it_is_the_same_bytes_each_time(built):
    assert build_bundle() == built


class Link:
    """What `start_run` needs of a SuperLink."""

    def __init__(self, **told):
        self.told, self.asked = told, []

    def control(self, *arguments):
        self.asked.append(arguments)
        return self.told


def test_a_run_is_known_by_its_id_and_its_bundle(monkeypatch):
    monkeypatch.setattr(bundle, "_build", lambda scratch: b"the bundle")
    digest = hashlib.sha256(b"the bundle").hexdigest()
    run = start_run(Link(**{"run-id": "7", "fab-hash": digest[:8]}))
    assert (run.id, run.bundle_sha256) == ("7", digest)


@pytest.mark.parametrize("told", [{"run-id": "7", "fab-hash": "00000000"}, {"run-id": "7"}, {}])
def test_another_bundle_than_was_built_is_a_fault(monkeypatch, told):
    monkeypatch.setattr(bundle, "_build", lambda scratch: b"the bundle")
    with pytest.raises(Fault, match="where"):
        start_run(Link(**told))
