"""A dump is reused as long as nothing that it follows from has changed."""

from dataclasses import replace

import pytest

from fedtrade.devnet import states
from fedtrade.devnet.artifacts import fetch
from fedtrade.devnet.deploy import MARKETS, Genesis

PLANS = (MARKETS[0],)


def test_the_key_follows_everything(monkeypatch):
    key = states._key(PLANS, Genesis())
    assert key == states._key(PLANS, Genesis())
    assert key != states._key(PLANS, Genesis(depth_quote=1))
    assert key != states._key((replace(PLANS[0], price=1.0),), Genesis())
    assert key != states._key(MARKETS, Genesis())
    monkeypatch.setattr(states, "lock_bytes", lambda: b"another")
    assert key != states._key(PLANS, Genesis())
    monkeypatch.undo()
    monkeypatch.setattr(states, "contract_files", lambda: {"Membership": b"another"})
    assert key != states._key(PLANS, Genesis())


@pytest.mark.chain
def test_a_state_is_built_once_and_a_failed_one_leaves_nothing(devnet, tmp_path, monkeypatch):
    artifacts = fetch()
    with monkeypatch.context() as broken:
        broken.setattr(states, "deploy_site", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            states.deployed_states(tmp_path, artifacts, PLANS, Genesis())
    assert list((tmp_path / "states").iterdir()) == []
    folder = states.deployed_states(tmp_path, artifacts, PLANS, Genesis())
    assert {path.name for path in folder.iterdir()} == {"aster.json", "sites.json"}
    (site,) = states.sites_of(folder)
    assert (site.name, site.chain_id) == ("aster", PLANS[0].chain_id)
    monkeypatch.setattr(states, "_build", lambda *_: 1 / 0)
    assert states.deployed_states(tmp_path, artifacts, PLANS, Genesis()) == folder
