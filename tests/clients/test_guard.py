"""The guard: code that came with a bundle is not run, not imported, not even opened.

Every attack runs in a process of its own, leaves a mark if a byte of the foreign code runs, and is
made once without the guard, where the mark must appear: so an attack that could not work is no proof.
"""

import hashlib
import io
import os
import py_compile
import stat
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.guard.commands import CLIENT_COMMAND, OTHER_COMMANDS
from clients.guard.fence import Fence, ForeignCode
from clients.supernode import make_doors
from fedtrade.bundle import LISTING, bundle_files

MARK = "open(__import__('os').environ['MARK'], 'w').write('ran')\n"


def python(code, home, *arguments, isolated=True):
    """Run code in a new process; gives its exit code, its errors, and whether the mark appeared."""
    mark = home / "mark"
    mark.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, *(["-I"] if isolated else []), "-c", code, *map(str, arguments)],
        env={"PATH": os.defpath, "FLWR_HOME": str(home), "MARK": str(mark), "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr, mark.exists()


# the fence


@pytest.fixture
def planted(tmp_path):
    """A Flower home in which foreign code already lies, in every form that Python can run."""
    app = tmp_path / "apps" / "fedtrade.fedtrade.0.1.0.12345678"
    (app / "package").mkdir(parents=True)
    (app / "module.py").write_text(MARK)
    (app / "package" / "__init__.py").write_text(MARK)
    (app / "LICENSE").write_text(MARK)
    (app / "pyproject.toml").write_text("[project]\n")
    with zipfile.ZipFile(app / "zipped.zip", "w") as archive:
        archive.writestr("inside.py", MARK)
    py_compile.compile(str(app / "module.py"), str(app / "bytes.pyc"))
    link = tmp_path / "elsewhere"
    link.symlink_to(app)
    return app


ATTACKS = {
    "import": "import sys; sys.path.insert(0, APP); import module",
    "package": "import sys; sys.path.insert(0, APP); import package",
    "bytecode": "import importlib.machinery as m, importlib.util as u\n"
    "l = m.SourcelessFileLoader('b', APP + '/bytes.pyc')\n"
    "s = u.spec_from_loader('b', l); l.exec_module(u.module_from_spec(s))",
    "zip": "import sys; sys.path.insert(0, APP + '/zipped.zip'); import inside",
    "run_path": "import runpy; runpy.run_path(APP + '/module.py')",
    "exec": "exec(open(APP + '/module.py').read())",
    "os.open": "import os; exec(os.read(os.open(APP + '/module.py', os.O_RDONLY), 999))",
    "bytes path": "exec(open((APP + '/module.py').encode()).read())",
    "relative": "import os; os.chdir(APP); exec(open('module.py').read())",
    "dots": "exec(open(APP + '/../../apps/' + APP.split('/')[-1] + '/./module.py').read())",
    "link": "import sys; sys.path.insert(0, LINK); import module",
    "io": "import io; exec(io.open_code(APP + '/module.py').read())",
    "thread": "import threading as t, runpy\n"
    "t = t.Thread(target=runpy.run_path, args=(APP + '/module.py',)); t.start(); t.join()",
}
BOUND = "import sys; APP, LINK = sys.argv[1], sys.argv[2]\n"
FENCED = "from pathlib import Path; from clients.guard.fence import raise_fence; import os\n"
FENCED += "raise_fence(Path(os.environ['FLWR_HOME']))\n"


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_way_in_is_open(planted, attack):
    home = planted.parents[1]
    arguments = (planted, home / "elsewhere")
    assert python(BOUND + ATTACKS[attack], home, *arguments)[2], "the control did not run"
    _, errors, ran = python(FENCED + BOUND + ATTACKS[attack], home, *arguments)
    assert not ran
    assert "ForeignCode" in errors
    assert "came with a bundle" in errors


def test_an_extension_module_is_not_loaded(planted):
    """A real shared library of Python's own, as a bundle could carry it under another name."""
    import _decimal

    home = planted.parents[1]
    library = planted / "_decimal.so"
    library.write_bytes(Path(_decimal.__file__).read_bytes())
    load = (
        "import importlib.machinery as m, importlib.util as u\n"
        f"l = m.ExtensionFileLoader('_decimal', {str(library)!r})\n"
        "u.module_from_spec(u.spec_from_loader('_decimal', l))\n"
        "open(__import__('os').environ['MARK'], 'w').write('ran')\n"
    )
    assert python(load, home)[2]
    _, errors, ran = python(FENCED + load, home)
    assert not ran
    assert "ForeignCode" in errors
    _, errors, ran = python(FENCED + f"import ctypes; ctypes.CDLL({str(library)!r})", home)
    assert "ForeignCode" in errors


def test_the_fence_cannot_be_taken_away(planted):
    home = planted.parents[1]
    attempt = "import sys; sys.meta_path.clear; sys.path_hooks.clear(); sys.addaudithook(print)\n"
    _, errors, ran = python(FENCED + attempt + BOUND + ATTACKS["exec"], home, planted, "")
    assert not ran
    assert "ForeignCode" in errors


def test_text_of_a_bundle_and_everything_else_can_be_read(planted):
    home = planted.parents[1]
    code = (
        "open(sys.argv[1] + '/pyproject.toml').read(); open(sys.argv[1] + '/LICENSE').read()\n"
        "import json, sqlite3, ctypes; open(os.environ['MARK'], 'w').write('')\n"
    )
    returned, errors, ran = python(FENCED + BOUND + code, home, planted, "")
    assert (returned, ran) == (0, True), errors


@given(
    parts=st.lists(
        st.sampled_from(
            ["apps", "runtime-envs", "x", "..", ".", "LICENSE", "pyproject.toml", "a.py"]
        ),
        max_size=6,
    )
)
def test_the_fence_is_around_exactly_its_folders(parts):
    home = Path("/nowhere/at/all")
    path = os.path.join(home, *parts)
    inside = os.path.relpath(os.path.normpath(path), home).split(os.sep)
    text = len(inside) == 3 and inside[0] == "apps" and inside[2] in ("LICENSE", "pyproject.toml")
    expected = len(inside) > 1 and inside[0] in ("apps", "runtime-envs") and not text
    assert (Fence(home).forbids(path) is not None) == expected


@pytest.mark.parametrize("odd", [3, None, b"\xff\xfe", "a\0b", object(), ""])
def test_the_fence_takes_whatever_python_calls_a_path(odd):
    assert Fence(Path("/nowhere")).forbids(odd) is None


def test_the_error_tells_the_coordinator_no_path_of_this_machine():
    assert "secret" not in str(ForeignCode("/home/secret/apps/x.py"))


# the check in front of Flower's installer


def bundle(files):
    listing = "\n".join(
        f"{name},{hashlib.sha256(data).hexdigest()},{8 * len(data)}" for name, data in files.items()
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**files, LISTING: listing.encode()}.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


OURS = dict(sorted(bundle_files(version("fedtrade")).items(), reverse=True))
INSTALL = """
import sys
from pathlib import Path
import flwr.supernode.runtime.run_clientapp
process = sys.modules["flwr.supernode.runtime.run_clientapp"]
if sys.argv[2] == "guarded":
    from importlib.metadata import version
    from clients.guard.__main__ import guard_installer, _log_to_stderr
    _log_to_stderr()
    guard_installer(version("fedtrade"))
folder = process.install_from_fab(Path(sys.argv[1]).read_bytes(), skip_prompt=True)
sys.path.insert(0, str(folder))
import decimal_rules
"""


def install(tmp_path, content, guarded):
    path = tmp_path / "received.fab"
    path.write_bytes(content)
    return python(INSTALL, tmp_path, path, "guarded" if guarded else "plain")


def test_a_bundle_with_code_is_refused_before_anything_of_it_is_written(tmp_path):
    """Flower's own installer, its own process module; only the sending is left out."""
    evil = bundle(OURS | {"decimal_rules.py": MARK.encode(), "clients/__init__.py": b""})
    assert install(tmp_path, evil, guarded=False)[2], "the control did not run"
    for left in sorted((tmp_path / "apps").rglob("*"), reverse=True):
        left.rmdir() if left.is_dir() else left.unlink()
    _, errors, ran = install(tmp_path, evil, guarded=True)
    assert not ran
    assert list((tmp_path / "apps").iterdir()) == []
    assert "ERROR fedtrade.guard: bundle " + hashlib.sha256(evil).hexdigest() in errors
    assert "'clients/__init__.py', 'decimal_rules.py'" in errors


def test_our_bundle_is_installed_and_brings_no_module(tmp_path):
    returned, errors, ran = install(tmp_path, bundle(OURS), guarded=True)
    assert (returned, ran) == (1, False)
    assert "No module named 'decimal_rules'" in errors
    (folder,) = (tmp_path / "apps").iterdir()
    assert {path.name for path in folder.iterdir()} == {"LICENSE", "pyproject.toml"}


def test_code_that_lies_where_our_bundle_goes_is_found(tmp_path):
    """Flower takes a folder of that name for the bundle, whatever is in it."""
    install(tmp_path, bundle(OURS), guarded=True)
    (folder,) = (tmp_path / "apps").iterdir()
    (folder / "decimal_rules.py").write_text(MARK)
    assert install(tmp_path, bundle(OURS), guarded=False)[2], "the control did not run"
    _, errors, ran = install(tmp_path, bundle(OURS), guarded=True)
    assert not ran
    assert "its folder holds foreign files: '__pycache__', 'decimal_rules.py'" in errors


def test_an_older_bundle_that_lies_there_is_not_taken_for_ours(tmp_path):
    install(tmp_path, bundle(OURS), guarded=True)
    (folder,) = (tmp_path / "apps").iterdir()
    (folder / "pyproject.toml").write_bytes(bundle_files("0.0.1")["pyproject.toml"])
    _, errors, _ = install(tmp_path, bundle(OURS), guarded=True)
    assert "is not that of fedtrade" in errors


def test_a_flower_that_keeps_its_installer_elsewhere_is_refused(tmp_path):
    moved = INSTALL.replace("if sys.argv", "del process.install_from_fab\nif sys.argv", 1)
    path = tmp_path / "received.fab"
    path.write_bytes(bundle(OURS))
    returned, errors, _ = python(moved, tmp_path, path, "guarded")
    assert returned == 1
    assert "GuardBlind" in errors


# the doors


def test_every_name_that_flower_may_start_is_the_guard(tmp_path):
    """The names as the installed Flower has them: a new one would not be covered."""
    from flwr.supercore.constant import TASK_TYPE_TO_COMMAND

    doors = make_doors(tmp_path / "doors")
    assert {path.name for path in doors.iterdir()} == set(TASK_TYPE_TO_COMMAND.values())
    assert {CLIENT_COMMAND, *OTHER_COMMANDS} == set(TASK_TYPE_TO_COMMAND.values())
    for door in doors.iterdir():
        assert stat.S_IMODE(door.stat().st_mode) == 0o700
        assert f"-I -m clients.guard {door.name} " in door.read_text()


def test_what_else_lies_among_the_doors_is_removed(tmp_path):
    doors = make_doors(tmp_path / "doors")
    (doors / "flwr-clientapp").write_text("#!/bin/sh\necho evil\n")
    (doors / "python").write_text("evil")
    make_doors(doors)
    assert "evil" not in (doors / "flwr-clientapp").read_text()
    assert not (doors / "python").exists()


def door(tmp_path, name, *arguments, home=True):
    doors = make_doors(tmp_path / "doors")
    environment = {"PATH": str(doors)} | ({"FLWR_HOME": str(tmp_path)} if home else {})
    return subprocess.run(
        [name, *arguments],
        executable=doors / name,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )


@pytest.mark.parametrize("name", ["flwr-agentapp", "flwr-simulation"])
def test_other_kinds_of_app_are_not_started(tmp_path, name):
    done = door(tmp_path, name, "--token", "x")
    assert done.returncode == 2
    assert "a member runs a ClientApp and nothing else" in done.stderr


def test_a_client_app_is_started_behind_the_guard(tmp_path):
    """As far as Flower's own command line: a wrong option is its complaint, not ours."""
    done = door(tmp_path, CLIENT_COMMAND, "--no-such-option")
    assert done.returncode == 2
    assert "usage: flwr-clientapp" in done.stderr


def test_without_a_home_to_fence_off_nothing_starts(tmp_path):
    done = door(tmp_path, CLIENT_COMMAND, "--no-such-option", home=False)
    assert done.returncode == 4
    assert "FLWR_HOME" in done.stderr


def test_the_working_folder_and_the_environment_bring_no_module(tmp_path):
    (tmp_path / "clients.py").write_text(MARK)
    (tmp_path / "logging.py").write_text(MARK)
    doors = make_doors(tmp_path / "doors")
    mark = tmp_path / "mark"
    subprocess.run(
        [doors / CLIENT_COMMAND],
        env={"PYTHONPATH": str(tmp_path), "MARK": str(mark)},
        capture_output=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert not mark.exists()
