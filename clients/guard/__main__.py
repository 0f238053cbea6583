"""`python -I -m clients.guard COMMAND …`: the only door through which Flower starts an app here.

Flower's executor starts a process by a bare name, `flwr-clientapp`, and four others for kinds of app
that no member runs. A member's SuperNode gets a `PATH` on which these names are all this module (see
`clients.supernode`). It runs a ClientApp alone, and in this order:

1. the fence goes up, so that no file of a bundle can be opened as code;
2. Flower's installer is replaced by one that first holds the bundle to `check_bundle`: three files,
   none of them code, and the one component that we installed;
3. what lies in the bundle's folder after that is held to the same again.

Any Flower in which the installer is not where 1.41 has it is refused: without a sight of the bundle
this process does not start.

`-I` keeps the environment, the working folder and user packages out of the import path, and this
module's own package is imported before Flower puts a bundle's folder at the front of it.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib.metadata import version
from pathlib import Path

from clients.guard.commands import CLIENT_COMMAND
from clients.guard.fence import raise_fence
from fedtrade.bundle import FILES, ForeignBundle, check_bundle, check_files
from fedtrade.errors import Fault, FedtradeError, Refusal

log = logging.getLogger("fedtrade.guard")


class NoSuchApp(Refusal):
    """The coordinator asked for a kind of app that members do not run."""

    def __init__(self, command: str) -> None:
        super().__init__(
            f"{command!r} is not started: a member runs a ClientApp and nothing else. "
            "Ask the coordinator what it meant to run"
        )
        self.command = command


class GuardBlind(Fault):
    """This Flower unpacks bundles elsewhere than the guard knows."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"{problem}. Install flwr 1.41, which this fedtrade was tested with")
        self.problem = problem


def check_installed(folder: Path, installed: str, digest: str) -> None:
    """Hold an unpacked bundle to ours: its two files and nothing else. Raises ForeignBundle."""
    found = tuple(sorted(entry.name for entry in folder.iterdir()))
    foreign = tuple(name for name in found if name not in FILES)
    if foreign:
        raise ForeignBundle(digest, "its folder holds foreign files", foreign)
    check_files({name: (folder / name).read_bytes() for name in found}, installed, digest)


def guard_installer(installed: str) -> None:
    """Put the check in front of Flower's installer. Raises GuardBlind where it is not found."""
    import flwr.supernode.runtime.run_clientapp  # noqa: F401  (loads what the next lines look at)
    from flwr.cli import install

    process = sys.modules["flwr.supernode.runtime.run_clientapp"]
    flower_install = install.install_from_fab
    if getattr(process, "install_from_fab", None) is not flower_install:
        raise GuardBlind("Flower's ClientApp process has no installer where the guard looks for it")

    def install_checked(content: bytes | Path, *options: object, **named: object) -> Path:
        if not isinstance(content, bytes):
            raise GuardBlind("Flower gave its installer something other than a bundle's bytes")
        try:
            digest = check_bundle(content, installed)
            folder: Path = flower_install(content, *options, **named)
            check_installed(folder, installed, digest)
        except ForeignBundle as refused:
            log.error("%s", refused)
            raise
        return folder

    # not an assignment to the module: a type checker would take the name for Flower's own
    vars(process)["install_from_fab"] = install_checked


def _log_to_stderr() -> None:
    """Ours alone: the SuperNode's log already has what Flower says."""
    ours = logging.getLogger("fedtrade")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    ours.addHandler(handler)
    ours.propagate = False


def main(arguments: list[str]) -> None:
    """Run Flower's ClientApp process behind the guard. `arguments`: the command and its options."""
    _log_to_stderr()
    try:
        if not arguments or arguments[0] != CLIENT_COMMAND:
            raise NoSuchApp(arguments[0] if arguments else "")
        home = os.environ.get("FLWR_HOME")
        if not home:
            raise GuardBlind("FLWR_HOME is not set, so there is no folder to fence off")
        raise_fence(Path(home))
        guard_installer(version("fedtrade"))
    except FedtradeError as error:
        log.error("%s", error)
        sys.exit(error.exit_code)
    from flwr.supernode.cli import flwr_clientapp

    sys.argv = arguments
    flwr_clientapp()


if __name__ == "__main__":
    main(sys.argv[1:])
