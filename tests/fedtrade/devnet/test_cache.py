"""The cache: nothing half-written, one builder at a time, disk errors as sentences."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from fedtrade.devnet import cache
from fedtrade.errors import BadInput, Unavailable


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FEDTRADE_CACHE", str(tmp_path / "a"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cache.cache_folder() == tmp_path / "a"
    monkeypatch.delenv("FEDTRADE_CACHE")
    assert cache.cache_folder() == tmp_path / "b" / "fedtrade"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_folder() == Path.home() / ".cache" / "fedtrade"


def test_a_finished_folder_appears_whole(tmp_path):
    with cache.new_folder(tmp_path / "x" / "final") as building:
        (building / "file").write_text("done")
        assert not (tmp_path / "x" / "final").exists()
    assert (tmp_path / "x" / "final" / "file").read_text() == "done"
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["final"]


def test_a_failed_folder_leaves_nothing(tmp_path):
    def fail():
        with cache.new_folder(tmp_path / "final") as building:
            (building / "file").write_text("half")
            raise BadInput("a", "b", "c")

    with pytest.raises(BadInput):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_came_first_is_kept(tmp_path):
    with cache.new_folder(tmp_path / "final") as building:
        (building / "file").write_text("second")
        (tmp_path / "final").mkdir()
        (tmp_path / "final" / "file").write_text("first")
    assert (tmp_path / "final" / "file").read_text() == "first"


HOLD = """
import sys, pathlib
from fedtrade.devnet.cache import exclusive
with exclusive(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_only_one_process_fills_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "LOCK_LIMIT_S", 0.05)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Unavailable, match="another process"), cache.exclusive(tmp_path):
            pass
        holder.stdin.close()
        holder.wait()
        with cache.exclusive(tmp_path):
            pass


def test_too_little_space_is_said_before_anything_is_fetched(tmp_path):
    with pytest.raises(Unavailable, match=r"MB are needed\. Free some space"):
        cache.require_space(tmp_path, 2**62)
    cache.require_space(tmp_path, 1)


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSPC, "disk is full. Free some space"), (errno.EACCES, "cannot be written")],
)
def test_disk_errors_say_what_to_do(tmp_path, number, said):
    with pytest.raises(Unavailable, match=said), cache.disk_errors(tmp_path):
        raise OSError(number, "x")


def test_a_file_in_the_way_is_an_error_and_no_crash(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="FEDTRADE_CACHE"), cache.exclusive(tmp_path / "file"):
        pass
