"""A real Flower SuperLink as a child process: on loopback, behind the gate, with nothing left open.

One port of it serves the fleet, the control of runs and the handing out of tasks, and only the first
asks anyone for a key (Flower 1.41). So it listens on 127.0.0.1 with TLS under an authority of its
own, made at each start and known to nobody but the gate; ServerApps run in processes that
`flower-superexec` starts, and tasks are handed out only to whoever knows a secret of 32 random bytes
(mode 0600); no run may install packages; nothing is reported to Flower's makers. Other users of the
same machine can still start runs: a coordinator's machine has none.

Its state is in memory: a run does not survive it (the transcript of a release does), and nodes are
registered anew from the operator's list of keys at each start.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final, Self

from fedtrade.errors import Unavailable
from server.certificates import TlsFiles, create_authority, issue

HOST: Final = "127.0.0.1"
START_LIMIT_S: Final = 60.0
STOP_LIMIT_S: Final = 10.0
CONTROL_LIMIT_S: Final = 120.0
SECRET_BYTES: Final = 32
CONNECTION: Final = "gated"
"""The SuperLink's name in the folder of Flower's own command line."""
QUIET: Final = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
    "RAY_USAGE_STATS_ENABLED": "0",
    "NO_COLOR": "1",
}
PASSED_ON: Final = ("HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "OMP_NUM_THREADS")
"""What of this process's environment a child gets; everything else stays here."""


class SuperLink:
    """A running SuperLink with its executor. Use as a context manager, or call `stop`."""

    def __init__(self, folder: Path, port: int, environment: Mapping[str, str]) -> None:
        self.url = f"https://{HOST}:{port}"
        self.port = port
        self.tls = TlsFiles.within(folder / "tls")
        self._folder = folder
        self._environment = environment
        self._processes: list[subprocess.Popen[bytes]] = []

    @classmethod
    def start(
        cls, folder: Path, port: int = 0, environment: Mapping[str, str] | None = None
    ) -> Self:
        """Start one in its own folder and wait until it is healthy (at most 60 s).

        `port` 0 takes a free one. `environment` is added to that of its ServerApps. Raises
        Unavailable with the last line of its log.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        link = cls(folder, port or _free_port(), environment or {})
        shutil.rmtree(folder / "tls", ignore_errors=True)
        now = datetime.now(UTC)
        create_authority(folder / "tls", "fedtrade loopback", now)
        issue(folder / "tls", [HOST, "localhost"], now)
        secret = folder / "superexec.secret"
        secret.unlink(missing_ok=True)
        with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(os.urandom(SECRET_BYTES))
        try:
            link._spawn(
                "flower-superlink",
                *("--ssl-ca-certfile", str(link.tls.ca)),
                *("--ssl-certfile", str(link.tls.certificate)),
                *("--ssl-keyfile", str(link.tls.key)),
                *("--host", HOST, "--port", str(link.port)),
                *("--isolation", "process", "--superexec-auth-secret-file", str(secret)),
                "--enable-supernode-auth",
                "--disable-runtime-dependency-installation",
            )
            link._await_health()
            link._spawn(
                "flower-superexec",
                *("--runtime-api-address", f"{HOST}:{link.port}"),
                *("--root-certificates", str(link.tls.ca)),
                *("--superexec-auth-secret-file", str(secret)),
                *("--parent-pid", str(link._processes[0].pid)),
            )
        except BaseException:
            link.stop()
            raise
        return link

    @property
    def running(self) -> bool:
        """Whether the SuperLink and its executor are both there."""
        return len(self._processes) == 2 and all(p.poll() is None for p in self._processes)

    @property
    def healthy(self) -> bool:
        """Whether the SuperLink answers over its own TLS."""
        connection = http.client.HTTPSConnection(
            HOST, self.port, timeout=2.0, context=self.tls.client_context()
        )
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def register(self, public_key: Path) -> None:
        """Let the node with this public key (OpenSSH, P-384) in. Raises Unavailable."""
        self.control("supernode", "register", str(public_key), CONNECTION)

    def status(self, run: str) -> str:
        """Flower's word on a run, such as `running` or `finished:completed`. Raises Unavailable."""
        listed = self.control("ls", CONNECTION, "--run-id", run)
        found = [r["status"] for r in listed.get("runs", []) if str(r["run-id"]) == run]
        if len(found) != 1:
            raise Unavailable(f"run {run}", "the SuperLink does not know it", "Start it again")
        return str(found[0])

    def nodes(self) -> dict[str, str]:
        """Node id -> `online`, `offline` or another word of Flower's. Raises Unavailable."""
        listed = self.control("supernode", "ls", CONNECTION)
        return {str(node["node-id"]): str(node["status"]) for node in listed.get("nodes", [])}

    def control(self, *arguments: str) -> dict[str, Any]:
        """Run Flower's own command line against this SuperLink; gives its JSON."""
        home = self._folder / "control"
        home.mkdir(mode=0o700, exist_ok=True)
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
            f'address = "{HOST}:{self.port}"\n'
            f"root-certificates = {json.dumps(str(self.tls.ca))}\n"
        )
        return flower_command(home, *arguments, "--format", "json")

    def stop(self) -> None:
        """End both processes and whatever they started; harmless when they have ended."""
        for process in reversed(self._processes):
            _end(process)
        self._processes.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _log(self) -> Path:
        return self._folder / "superlink.log"

    def _spawn(self, name: str, *arguments: str) -> None:
        with self._log().open("ab") as log:
            self._processes.append(
                _popen(
                    [tool(name), *arguments],
                    child_environment(self._folder / "home") | dict(self._environment),
                    log,
                    self._folder,
                )
            )

    def _await_health(self) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            if self._processes[0].poll() is not None:
                last = self._log().read_text(errors="replace").strip().splitlines()[-1:]
                raise Unavailable(
                    "SuperLink", f"it ended at once ({''.join(last)[:200]})", f"See {self._log()}"
                )
            if self.healthy:
                return
            time.sleep(0.1)
        raise Unavailable(
            "SuperLink", f"not healthy within {START_LIMIT_S:.0f} s", f"See {self._log()}"
        )


def tool(name: str) -> str:
    """The path of a command of this Python environment. Raises Unavailable."""
    path = Path(sys.executable).parent / name
    if not path.is_file():
        raise Unavailable(
            name, f"it is not beside {sys.executable}", "Install fedtrade[coordinator]"
        )
    return str(path)


def child_environment(home: Path) -> dict[str, str]:
    """The whole environment of a Flower process whose FLWR_HOME is `home`."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}"
    return kept | QUIET | {"FLWR_HOME": str(home), "PATH": path}


def flower_command(home: Path, *arguments: str) -> dict[str, Any]:
    """Run `flwr` to its end; gives the JSON it prints, empty where it prints none.

    Raises Unavailable with what it said instead.
    """
    try:
        done = subprocess.run(
            [tool("flwr"), *arguments],
            env=child_environment(home),
            cwd=home,
            capture_output=True,
            text=True,
            timeout=CONTROL_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(
            f"flwr {arguments[0]}", f"no answer within {CONTROL_LIMIT_S:.0f} s", "Try again"
        ) from None
    start = done.stdout.find("{")
    found: dict[str, Any] = {}
    if start >= 0:
        try:
            found = json.JSONDecoder().raw_decode(done.stdout[start:])[0]
        except json.JSONDecodeError:
            found = {}
    if done.returncode != 0 or found.get("success") is False:
        said = str(found.get("error-message") or done.stderr or done.stdout)
        raise Unavailable(
            f"flwr {arguments[0]}",
            f"it failed ({' '.join(said.split())[-300:] or done.returncode})",
            "See the SuperLink's log",
        )
    return found


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
