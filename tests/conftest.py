"""Local chains for tests, started once per module and put back after each; and wrong clocks."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from fedtrade.chain.deployment import ChainDeployment
    from fedtrade.chain.rpc import Rpc
    from fedtrade.devnet.anvil import Anvil
    from fedtrade.devnet.net import Devnet

settings.register_profile("fedtrade", deadline=None)  # a loaded machine is no failure
settings.load_profile("fedtrade")


@dataclass(frozen=True)
class LocalChain:
    """One chain of the module's devnet, for one test."""

    deployment: ChainDeployment
    anvil: Anvil
    rpc: Rpc
    devnet: Devnet


@pytest.fixture(scope="module")
def devnet() -> Iterator[Devnet]:
    """Three chains with everything deployed. Whoever uses it directly puts back what it changes.

    New for each module: a node that has put back many blocks forgets the history of new ones that
    are equal to old ones.
    """
    from fedtrade.devnet.net import Devnet  # only runs with chain tests pay for it

    with Devnet.up() as running:
        yield running


@pytest.fixture
def chains(devnet: Devnet) -> Iterator[Devnet]:
    """All three chains, automining; they are put back afterwards."""
    deployment = devnet.deployment
    names = [chain.name for chain in deployment.chains]
    before = {name: devnet.anvil(name).snapshot() for name in names}
    yield devnet
    devnet.deployment = deployment
    for name in names:
        devnet.anvil(name).automine(True)
        devnet.anvil(name).revert(before[name])


@pytest.fixture
def chain(devnet: Devnet) -> Iterator[LocalChain]:
    """The home chain alone, automining; it is put back afterwards."""
    home = devnet.deployment.chain(devnet.deployment.home)
    anvil = devnet.anvil(home.name)
    before = anvil.snapshot()
    yield LocalChain(home, anvil, anvil.rpc, devnet)
    anvil.automine(True)
    anvil.revert(before)


ClockOff = Callable[[float], contextlib.AbstractContextManager[None]]


@pytest.fixture
def clock_off(monkeypatch: pytest.MonkeyPatch) -> ClockOff:
    """`with clock_off(400.0)`: what is started within has a clock that is 400 s ahead.

    Only the time of day is moved: durations are measured by the monotonic clock.
    """
    if shutil.which("faketime") is None:
        pytest.skip("needs faketime (Debian package)")

    @contextlib.contextmanager
    def within(off_s: float) -> Iterator[None]:
        if not off_s:
            yield
            return
        told = subprocess.run(
            ["faketime", "-f", f"{off_s:+g}s", "env"], capture_output=True, text=True, check=True
        ).stdout
        given = dict(line.partition("=")[::2] for line in told.splitlines())
        with monkeypatch.context() as change:
            for name in ("LD_PRELOAD", "FAKETIME"):
                change.setenv(name, given[name])
            # The times of files stay, too: with others every module would be compiled anew.
            for name in ("DONT_FAKE_MONOTONIC", "FAKETIME_DONT_FAKE_MONOTONIC", "NO_FAKE_STAT"):
                change.setenv(name, "1")
            yield

    return within
