"""One of three nodes lies to who founds a consortium and to the steward: each thing is done once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from blocks import sent_by
from lying import Proxy

sys.path.insert(0, str(Path(__file__).parents[1] / "fedtrade" / "chain"))
sys.path.insert(0, str(Path(__file__).parents[1] / "server"))

from test_deploying import TRANSACTIONS, Ground
from test_deploying import empty as empty  # fixtures
from test_deploying import ground as ground
from test_steward import QUIET, Scene

from fedtrade.chain import agreement
from fedtrade.chain.deployment import Deployment

pytestmark = [pytest.mark.chain, pytest.mark.timeout(300)]

LIES = ("stale head", "corrupt", "fake receipt", "nonce", "huge gas")


@pytest.fixture(autouse=True)
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "REST_S", 0.05)
    monkeypatch.setattr(agreement, "REST_MAX_S", 0.05)


@pytest.fixture
def chain(chains: Any) -> Any:
    """The home chain, put back after each test: what the steward did stays in force for days."""
    home = chains.deployment.chain(chains.deployment.home)
    anvil = chains.anvil(home.name)
    return SimpleNamespace(deployment=home, anvil=anvil, rpc=anvil.rpc, devnet=chains)


@pytest.fixture
def proxies() -> Iterator[Any]:
    """Makes two proxies before a chain, of which the first is to lie."""
    with ExitStack() as stack:
        yield lambda url: [stack.enter_context(Proxy(url, seed)) for seed in range(2)]


@pytest.mark.parametrize("lie", LIES)
def test_a_consortium_is_founded_once(ground: Ground, proxies: Any, lie: str) -> None:
    liar, other = proxies(ground.anvil.url)
    more = f'["{other.url}", "{ground.anvil.url}"]'
    plan = ground.plan(rpc_url=f'"{liar.url}"', more_rpc_urls=more)
    liar.lie = lie
    deployed = ground.deploy(plan)
    assert liar.told > 0
    assert Deployment.load(ground.out) == deployed
    assert ground.nonce == TRANSACTIONS
    assert ground.deploy(plan) == deployed
    assert ground.nonce == TRANSACTIONS


@pytest.mark.parametrize("lie", LIES)
def test_the_steward_steers_once(chain: Any, proxies: Any, tmp_path: Path, lie: str) -> None:
    scene = Scene(chain, tmp_path)
    scene.push(60, QUIET)
    scene.push(12, 6 * QUIET)
    before = scene.in_force()
    liar, other = proxies(chain.anvil.url)
    seen = scene.home.model_copy(
        update={"rpc_url": liar.url, "more_rpc_urls": (other.url, chain.anvil.url)}
    )
    Deployment(chains=(seen,), home=seen.name).save(tmp_path / "deployment.json")
    liar.lie = lie
    with scene.steward() as steward:
        outcome = steward.look()
        again = steward.look()
        assert len(sent_by(chain.rpc, steward.address)) == 1
    assert liar.told > 0
    assert outcome.assessment.stress > 1.5
    assert scene.in_force().epoch_notional_max < before.epoch_notional_max
    assert "epochNotionalMax" not in again.assessment.changes
