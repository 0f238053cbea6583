"""A member's Flower SuperNode as a child process, with the guard as the only door to an app.

How Flower 1.41 starts an app: the SuperNode pulls a message and the run's bundle from the SuperLink
and keeps them; `flower-superexec` asks the SuperNode for the task on loopback and starts a process by
a bare name, `flwr-clientapp`, which it finds on `PATH`; that process unpacks the bundle, puts its
folder at the front of `sys.path`, imports the module that the bundle names and calls it.

So the executor is started here, not by the SuperNode, with a `PATH` of one folder of ours. In it each
of the six names that Flower may start leads to `clients.guard`. Tasks are handed out only to whoever
knows a fresh secret of 32 bytes, so no other program of this machine can take one. The whole
environment is made here: nothing of the caller's but home, language and time zone goes on.

The member's settings reach the app by an environment variable of these processes: neither the run
config nor the bundle can name another file.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final, Self

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from clients.guard.commands import CLIENT_COMMAND, OTHER_COMMANDS
from clients.settings import MemberSettings
from fedtrade.errors import BadInput, Unavailable

SETTINGS_VARIABLE: Final = "FEDTRADE_MEMBER_SETTINGS"
"""Path of this member's own `member.toml`, for the app."""
HOST: Final = "127.0.0.1"
CONNECT_LIMIT_S: Final = 60.0
STOP_LIMIT_S: Final = 10.0
SECRET_BYTES: Final = 32
QUIET: Final = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
    "NO_COLOR": "1",
}
PASSED_ON: Final = ("HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "OMP_NUM_THREADS")

_CONNECTED: Final = re.compile(r"SuperNode ID: (\d+)")


def create_node_key(path: Path) -> Path:
    """Make a SuperNode's key: P-384, OpenSSH, mode 0600; gives the path of its public key.

    Refuses where there is one. Raises BadInput.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    public = path.with_name(path.name + ".pub")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
            file.flush()
            os.fsync(descriptor)
        public.write_bytes(
            key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b"\n"
        )
    except OSError as error:
        raise BadInput(
            str(path),
            f"the node's key cannot be written ({error.strerror})",
            "Choose a folder that you own and that has no key yet",
        ) from None
    return public


class SuperNode:
    """A running SuperNode with its executor. Use as a context manager, or call `stop`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "supernode.log"
        """What the SuperNode, the guard and the app say; a refused bundle is named here."""
        self._log_start = 0
        self._processes: list[subprocess.Popen[bytes]] = []

    @classmethod
    def start(cls, settings_file: Path) -> Self:
        """Start the SuperNode of a member's settings. Raises BadInput and Unavailable.

        It connects in the background and goes on trying; see `await_connected`.
        """
        settings = MemberSettings.load(settings_file)
        if settings.supernode is None:
            raise BadInput(
                str(settings_file), "supernode: the section is missing", "Give address and node_key"
            )
        _check_key(settings.supernode.node_key)
        if not settings.coordinator.ca_file.is_file():
            raise BadInput(
                str(settings.coordinator.ca_file), "no authority is there", "Ask the coordinator"
            )
        node = cls(settings.folder / "supernode")
        (node.folder / "home").mkdir(mode=0o700, parents=True, exist_ok=True)
        node._log_start = node.log.stat().st_size if node.log.exists() else 0
        secret = node.folder / "superexec.secret"
        secret.unlink(missing_ok=True)
        with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(os.urandom(SECRET_BYTES))
        port = _free_port()
        environment = node._environment(settings_file)
        guarded = ("--isolation", "process", "--superexec-auth-secret-file", str(secret))
        try:
            node._spawn(
                environment,
                "flower-supernode",
                *("--superlink", settings.supernode.address),
                *("--root-certificates", str(settings.coordinator.ca_file)),
                *("--auth-supernode-private-key", str(settings.supernode.node_key)),
                *("--host", HOST, "--port", str(port)),
                *guarded,
            )
            node._spawn(
                environment,
                "flower-superexec",
                *("--runtime-api-address", f"{HOST}:{port}", "--insecure"),  # loopback
                *guarded[2:],
                *("--parent-pid", str(node._processes[0].pid)),
            )
        except BaseException:
            node.stop()
            raise
        return node

    @property
    def running(self) -> bool:
        """Whether the SuperNode and its executor are both there."""
        return len(self._processes) == 2 and all(p.poll() is None for p in self._processes)

    def await_connected(self, limit_s: float = CONNECT_LIMIT_S) -> str:
        """Wait until the coordinator's gate has let this node in; its id. Raises Unavailable."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if found := _CONNECTED.search(self._said()):
                return found[1]
            if self._processes and self._processes[0].poll() is not None:
                raise Unavailable(
                    "SuperNode",
                    "the coordinator's gate did not let it in",
                    "Give the coordinator your node's .pub file, and check this machine's clock "
                    f"(it may be 300 s behind or 5 s ahead, no more); see {self.log}",
                )
            time.sleep(0.1)
        raise Unavailable(
            "SuperNode",
            f"no connection within {limit_s:.0f} s",
            f"Check the coordinator's address; see {self.log}",
        )

    def stop(self) -> None:
        """End both processes and whatever they started; harmless when they have ended."""
        for process in self._processes:  # the SuperNode first: it tells the coordinator
            _end(process)
        self._processes.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _said(self) -> str:
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode(errors="replace")

    def _environment(self, settings_file: Path) -> dict[str, str]:
        kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        doors = make_doors(self.folder / "doors")
        return (
            kept
            | QUIET
            | {
                "FLWR_HOME": str(self.folder / "home"),
                "PATH": str(doors),
                SETTINGS_VARIABLE: str(settings_file.resolve()),
            }
        )

    def _spawn(self, environment: Mapping[str, str], name: str, *arguments: str) -> None:
        with self.log.open("ab") as log:
            self._processes.append(_popen([_tool(name), *arguments], environment, log, self.folder))


def make_doors(folder: Path) -> Path:
    """A folder in which every name that Flower may start is the guard; gives the folder.

    Whatever else lies in it is removed.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for command in (CLIENT_COMMAND, *OTHER_COMMANDS):
        door = folder / command
        python, name = shlex.quote(sys.executable), shlex.quote(command)
        door.write_text(f'#!/bin/sh\nexec {python} -I -m clients.guard {name} "$@"\n')
        door.chmod(0o700)
    return folder


def _check_key(path: Path) -> None:
    try:
        if path.is_symlink() or stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise BadInput(
                str(path), "others can read this key, or it is a link", f"chmod 600 {path}"
            )
    except OSError as error:
        raise BadInput(
            str(path), f"no node key can be read ({error.strerror})", "Make one, or give its path"
        ) from None


def _tool(name: str) -> str:
    path = Path(sys.executable).parent / name
    if not path.is_file():
        raise Unavailable(name, f"it is not beside {sys.executable}", "Install fedtrade[member]")
    return str(path)


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


def _popen(
    command: Sequence[str], environment: Mapping[str, str], log: IO[bytes], folder: Path
) -> subprocess.Popen[bytes]:
    """A child in a session of its own, so that it and what it starts can be ended together."""
    return subprocess.Popen(
        command,
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the process to end, then end its whole session."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
