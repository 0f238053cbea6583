"""Three chains as one object."""

import pytest

from fedtrade.chain.conversation import ask
from fedtrade.chain.pools import holdings
from fedtrade.devnet.accounts import GOVERNOR, OPERATOR
from fedtrade.devnet.artifacts import fetch
from fedtrade.devnet.deploy import MARKETS, Genesis
from fedtrade.devnet.net import Devnet
from fedtrade.errors import BadInput, Unavailable
from fedtrade.venues.price_feed import encode_push

pytestmark = pytest.mark.chain
ACCOUNT = "0x" + "ab" * 20


def test_three_chains_with_their_own_ids_nodes_and_prices(devnet):
    assert [chain.name for chain in devnet.deployment.chains] == ["aster", "birch", "cedar"]
    for chain in devnet.deployment.chains:
        assert int(devnet.rpc(chain.name).call("eth_chainId"), 16) == chain.chain_id
        assert devnet.anvil(chain.name).url == chain.rpc_url
        assert devnet.anvil(chain.name).ws_url == chain.ws_url
    assert devnet.running


def test_time_goes_on_from_the_genesis(chains):
    for chain in chains.deployment.chains:
        chains.mine(chain.name)
        assert 0 <= chains.anvil(chain.name).latest().timestamp_s - Genesis().start_s < 3600
    chains.automine(False)
    chains.mine("birch", Genesis().start_s + 10**6)
    assert chains.anvil("birch").latest().timestamp_s == Genesis().start_s + 10**6


def test_fund_gives_native_and_tokens(chains):
    chains.fund("cedar", ACCOUNT, native_wei=7, base=1.5, quote=2)
    chains.fund("cedar", ACCOUNT, base=0.5)
    known = chains.deployment.chain("cedar")
    block = chains.anvil("cedar").latest().number
    key = known.pool_key()
    held = ask(chains.rpc("cedar"), holdings(key, known.position_manager, ACCOUNT, block))
    assert held.native_wei == 7
    amounts = (2 * 10**9, 2 * 10**6)
    assert (held.amount0, held.amount1) == (amounts if key.base_is_token0 else amounts[::-1])


def test_transact_refuses_what_would_revert(chain):
    before = chain.anvil.latest()
    push = encode_push(chain.deployment.price_feed, 5)
    with pytest.raises(Exception, match="is not the feed's operator"):
        chain.devnet.transact("aster", GOVERNOR, push)
    assert chain.anvil.latest() == before
    assert chain.devnet.transact("aster", OPERATOR, push)["status"] == "0x1"


def test_unknown_chains_are_named(devnet):
    with pytest.raises(BadInput, match="Choose one of: aster, birch, cedar"):
        devnet.rpc("doge")


def test_ports_are_one_per_chain(devnet):
    with pytest.raises(BadInput, match="2 for 3 chains"):
        Devnet.up(ports=[1, 2])


def test_all_chains_or_none(devnet, monkeypatch):
    taken = devnet.anvil("aster").port
    started = []
    start = Devnet.up.__globals__["Anvil"].start

    def counting(*args, **kwargs):
        kwargs["port"] = taken if len(started) == 1 else None
        started.append(start(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr("fedtrade.devnet.net.Anvil.start", counting)
    with pytest.raises(Unavailable, match=f"port {taken}"):
        Devnet.up(plans=MARKETS)
    assert len(started) == 1
    assert not started[0].running


def test_it_stops_as_a_whole(devnet):
    fetch()
    with Devnet.up(plans=MARKETS[:1]) as one:
        chain = one.anvil("aster")
        assert one.running
    assert not chain.running
    assert not one.running
