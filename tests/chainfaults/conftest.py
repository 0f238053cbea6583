"""`lying`, the proxy that lies, is imported by its tests; here are three nodes of one chain."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from lying import Proxy


@pytest.fixture
def chain(devnet: Any) -> Iterator[Any]:
    """The home chain, not put back afterwards: a node that puts hundreds of blocks back forgets
    the states of those that follow. Every test brings an account of its own."""
    home = devnet.deployment.chain(devnet.deployment.home)
    anvil = devnet.anvil(home.name)
    yield SimpleNamespace(deployment=home, anvil=anvil, rpc=anvil.rpc, devnet=devnet)
    anvil.automine(True)


@pytest.fixture
def nodes(chain: Any) -> Iterator[list[Proxy]]:
    """Three nodes of the home chain, of which any may be told to lie."""
    with ExitStack() as stack:
        yield [stack.enter_context(Proxy(chain.anvil.url, seed)) for seed in range(3)]


@pytest.fixture
def seen_by_three(chain: Any, nodes: list[Proxy]) -> Any:
    """The home chain's deployment, with three nodes."""
    return chain.deployment.model_copy(
        update={
            "rpc_url": nodes[0].url,
            "more_rpc_urls": tuple(node.url for node in nodes[1:]),
            "ws_url": nodes[0].ws_url,
            "more_ws_urls": tuple(node.ws_url for node in nodes[1:]),
        }
    )
