"""The deployment file: strict at the door, whole on disk."""

import json

import pytest

from fedtrade.chain.deployment import ChainDeployment, ConsortiumAt, Deployment, TokenAt
from fedtrade.errors import BadInput


def address(number):
    return f"0x{number:040x}"


def chain(name="aster", chain_id=31101, base=1, quote=2, **changes):
    fields = {
        "name": name,
        "chain_id": chain_id,
        "rpc_url": "http://127.0.0.1:1",
        "ws_url": "ws://127.0.0.1:1",
        "feed_decimals": 8,
        "base": TokenAt(address=address(base), symbol="WETH", decimals=18),
        "quote": TokenAt(address=address(quote), symbol="USDC", decimals=6),
        "fee_pips": 500,
        "tick_spacing": 10,
    }
    contracts = (
        *("registry", "parameters", "price_feed", "pool"),
        *("factory", "position_manager", "swap_router", "quoter"),
    )
    fields |= {name: address(100 + place) for place, name in enumerate(contracts)}
    names = ("membership", "parameter_store", "model_registry", "timelock", "governor")
    fields["consortium"] = ConsortiumAt(**{n: address(200 + i) for i, n in enumerate(names)})
    return ChainDeployment(**(fields | changes))


@pytest.mark.parametrize(("base", "quote", "first"), [(1, 2, True), (2, 1, False)])
def test_token0_is_the_smaller_address(base, quote, first):
    key = chain(base=base, quote=quote).pool_key()
    assert key.base_is_token0 is first
    assert (key.base.symbol, key.quote.symbol) == ("WETH", "USDC")
    assert int(key.token0.address, 16) < int(key.token1.address, 16)


def test_what_is_saved_is_what_is_loaded(tmp_path):
    deployment = Deployment(chains=(chain(), chain("birch", 31102)), home="birch")
    path = tmp_path / "deep" / "deployment.json"
    deployment.save(path)
    deployment.save(path)
    assert Deployment.load(path) == deployment
    assert [file.name for file in path.parent.iterdir()] == ["deployment.json"]


def test_addresses_are_checksummed():
    lower = "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266"
    assert chain(pool=lower).pool == "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"


def test_only_where_the_store_itself_is_read_news_do_not_grow_old():
    store = address(201)
    assert not chain(parameters=store).follows
    assert chain(parameters=address(300)).follows
    assert chain(parameters=store, consortium=None).follows


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"unknown": 1}, "unknown"),
        ({"pool": "0x12"}, "pool"),
        ({"chain_id": 0}, "chain_id"),
        ({"rpc_url": "ftp://x"}, "rpc_url"),
        ({"fee_pips": -1}, "fee_pips"),
        ({"feed_decimals": "many"}, "feed_decimals"),
    ],
)
def test_a_broken_field_is_named(tmp_path, change, named):
    content = json.loads(Deployment(chains=(chain(),), home="aster").model_dump_json())
    content["chains"][0] |= change
    path = tmp_path / "deployment.json"
    path.write_text(json.dumps(content))
    with pytest.raises(BadInput, match=named):
        Deployment.load(path)


@pytest.mark.parametrize(
    ("chains", "home", "said"),
    [
        ((chain(), chain()), "aster", "same name"),
        ((chain(), chain("birch")), "aster", "same name or chain id"),
        ((chain(),), "cedar", "not among"),
    ],
)
def test_chains_are_told_apart(chains, home, said):
    with pytest.raises(ValueError, match=said):
        Deployment(chains=chains, home=home)


def test_one_token_is_no_pair():
    with pytest.raises(ValueError, match="same token"):
        chain(base=1, quote=1)


def test_no_file_and_no_json_say_what_to_do(tmp_path):
    with pytest.raises(BadInput, match="fedtrade devnet up"):
        Deployment.load(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(BadInput, match="Invalid JSON"):
        Deployment.load(tmp_path / "broken.json")


def test_an_unknown_chain_is_refused_with_the_known_ones():
    with pytest.raises(BadInput, match=r"Choose one of: aster\."):
        Deployment(chains=(chain(),), home="aster").chain("mainnet")
