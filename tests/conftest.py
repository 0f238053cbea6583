"""Local chains for tests: started once per module, put back after each test."""

from __future__ import annotations

from collections.abc import Iterator
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
    names = [chain.name for chain in devnet.deployment.chains]
    before = {name: devnet.anvil(name).snapshot() for name in names}
    yield devnet
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
