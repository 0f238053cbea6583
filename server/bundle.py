"""The bundle without code, and the Flower run that it starts.

`flwr build` takes a whole repository by default. Ours is built in a scratch folder that holds two
files (`fedtrade.bundle`), and is held to the same check that members make. Building it twice gives
the same bytes; another machine's zlib may pack them otherwise, which is why members compare contents.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from fedtrade.bundle import bundle_files, check_bundle
from fedtrade.errors import Fault
from server.superlink import CONNECTION, SuperLink, flower_command


@dataclass(frozen=True, slots=True)
class Run:
    """A run that the SuperLink has taken."""

    id: str
    bundle_sha256: str


def build_bundle() -> bytes:
    """The bundle of the installed fedtrade. Raises Unavailable where Flower cannot build it."""
    with tempfile.TemporaryDirectory(prefix="fedtrade-bundle-") as scratch:
        return _build(Path(scratch))


def start_run(link: SuperLink) -> Run:
    """Start a run with that bundle. Raises Unavailable, and Fault if Flower sent another one."""
    with tempfile.TemporaryDirectory(prefix="fedtrade-bundle-") as scratch:
        content = _build(Path(scratch))
        digest = hashlib.sha256(content).hexdigest()
        started = link.control("run", str(Path(scratch) / "fedtrade"), CONNECTION)
    # `flwr run` builds it once more and tells eight digits of what it sent
    if started.get("fab-hash") != digest[:8] or not started.get("run-id"):
        raise Fault(
            f"Flower sent a bundle {started.get('fab-hash')} where {digest[:8]} was built. "
            "Stop the run, and install flwr 1.41"
        )
    return Run(str(started["run-id"]), digest)


def _build(scratch: Path) -> bytes:
    installed = version("fedtrade")
    app = scratch / "fedtrade"  # Flower wants a folder's name without an underscore
    app.mkdir()
    for name, content in bundle_files(installed).items():
        (app / name).write_bytes(content)
    flower_command(scratch, "build", "--app", str(app))
    (built,) = scratch.glob("*.fab")
    content = built.read_bytes()
    check_bundle(content, installed)
    return content
