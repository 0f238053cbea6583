"""What stands on a fresh chain is what the plan says."""

import pytest

from clients.keys import MemberKeys
from fedtrade.chain.contracts import Membership, ModelRegistry
from fedtrade.chain.conversation import ask, read
from fedtrade.chain.mirrors import RegistryMirror
from fedtrade.chain.parameter_store import ParameterStore
from fedtrade.chain.plan import SeatPlan
from fedtrade.chain.pools import oracle_answer, pool_snapshot
from fedtrade.chain.verification import verify_mirror
from fedtrade.devnet import accounts
from fedtrade.devnet.deploy import MARKETS, Genesis, Reverted, _created, send
from fedtrade.devnet.net import Devnet
from fedtrade.errors import BadInput
from fedtrade.governed import Governed
from fedtrade.venues.codec import Call, Function
from fedtrade.venues.hyperlane import VALIDATORS_AND_THRESHOLD
from fedtrade.venues.price_feed import encode_push
from fedtrade.venues.uniswap_v3 import full_range

pytestmark = pytest.mark.chain
PLANS = {plan.name: plan for plan in MARKETS}


@pytest.fixture(params=sorted(PLANS))
def place(request, devnet):
    """(plan, deployment, rpc, newest block) of each chain; nothing is changed."""
    name = request.param
    block = devnet.anvil(name).latest().number
    return PLANS[name], devnet.deployment.chain(name), devnet.rpc(name), block


def test_the_pool_stands_at_the_plans_price(place):
    plan, known, rpc, block = place
    key = known.pool_key()
    assert key.base_is_token0 is plan.base_is_token0
    snapshot = ask(rpc, pool_snapshot(key, block))
    assert key.price(snapshot.sqrt_price_x96) == pytest.approx(plan.price, rel=1e-9)
    ((lower, *_), (upper, *_)) = snapshot.ticks
    assert (lower, upper) == full_range(plan.tick_spacing)


def test_depth_is_the_same_on_both_sides(place):
    plan, known, rpc, block = place
    balance = Function("balanceOf(address)", "(uint256)")
    (base,), (quote,) = ask(
        rpc,
        read([(t.address, balance, (known.pool,)) for t in (known.base, known.quote)], block),
    )
    depth = Genesis().depth_quote
    assert quote / 10**known.quote.decimals == pytest.approx(depth, rel=1e-6)
    assert base / 10**known.base.decimals * plan.price == pytest.approx(depth, rel=1e-6)


def test_tokens_and_feed_are_as_described(place):
    plan, known, rpc, block = place
    symbol, decimals = Function("symbol()", "(string)"), Function("decimals()", "(uint8)")
    described = ask(
        rpc,
        read([(known.base.address, symbol, ()), (known.base.address, decimals, ())], block),
    )
    assert described == [(plan.symbol,), (plan.decimals,)]
    answer = ask(rpc, oracle_answer(known.price_feed, known.feed_decimals, block))
    assert answer.answer == round(plan.price * 10**8)


def test_our_contracts_are_empty_and_governed(devnet):
    known = devnet.deployment.chain("aster")
    rpc, block = devnet.rpc("aster"), devnet.anvil("aster").latest().number
    owner = Function("owner()", "(address)")
    registry = ModelRegistry(known.model_registry)
    store = ParameterStore(ask(rpc, registry.parameter_store()))
    (first,), (second,), (third,) = ask(
        rpc,
        read(
            [(at, owner, ()) for at in (known.membership, known.model_registry, store.address)],
            block,
        ),
    )
    assert first == second == third == known.decided_here.timelock.lower()
    assert store.address == known.parameters
    standing = ask(rpc, store.parameters())
    assert not standing.paused
    assert standing.governed == Governed(
        quorum_bps=6667, activation_delay_s=30, epsilon_total_micro=20_000_000
    )
    assert ask(rpc, registry.live()).version == 0
    assert ask(rpc, registry.epsilon_micro()) == (0, 20_000_000)
    assert ask(rpc, Membership(known.membership).member_count()) == 0


def test_other_chains_follow_and_decide_nothing(devnet):
    home = devnet.deployment.chain("aster")
    for name in ("birch", "cedar"):
        known, rpc = devnet.deployment.chain(name), devnet.rpc(name)
        assert known.consortium is None
        assert known.registry == known.parameters == known.messages.mirror
        verify_mirror(rpc, devnet.rpc("aster"), name, known.messages, home.messages)
        assert ask(rpc, RegistryMirror(known.registry).state()).sequence == 0
        with pytest.raises(BadInput, match="does not decide on this chain"):
            devnet.govern(name, encode_push(known.price_feed, 5))


def test_founding_seats_them_and_makes_them_the_validators():
    keys = [MemberKeys.ephemeral() for _ in range(4)]
    seats = [
        SeatPlan(account=k.address, signer=k.address, x25519="0x" + k.x25519_public.hex(),
                 roles=("member",) if n else ("coordinator",))
        for n, k in enumerate(keys)
    ]  # fmt: skip
    with Devnet.up(seats=seats) as net:
        at = net.deployment.chain("aster").decided_here
        seated = ask(net.rpc("aster"), Membership(at.membership).seats([1, 2, 3, 4]))
        assert [seat.signer for seat in seated] == [k.address for k in keys]
        rpc, mirror = net.rpc("birch"), RegistryMirror(net.deployment.chain("birch").registry)
        module = ask(rpc, mirror.state()).security_module
        reads = [(module, VALIDATORS_AND_THRESHOLD, (b"",))]
        ((validators, threshold),) = ask(rpc, read(reads, "latest"))
        assert set(validators) == {k.address.lower() for k in keys[1:]}
        assert threshold == 2


def test_uniswap_knows_the_pool_and_its_parts_know_each_other(place):
    plan, known, rpc, block = place
    key = known.pool_key()
    pair = (key.token0.address, key.token1.address, plan.fee_pips)
    get_pool = Function("getPool(address,address,uint24)", "(address)")
    factory = Function("factory()", "(address)")
    reads = [(known.factory, get_pool, pair)]
    reads += [(a, factory, ()) for a in (known.position_manager, known.swap_router, known.quoter)]
    (pool,), *factories = ask(rpc, read(reads, block))
    assert pool == known.pool.lower()
    assert set(factories) == {(known.factory.lower(),)}


def test_accounts_are_the_nodes_own(place):
    _, _, rpc, _ = place
    unlocked = {account.lower() for account in rpc.call("eth_accounts")}
    named = {value.lower() for name, value in vars(accounts).items() if name.isupper()}
    assert named < unlocked
    assert len(named) == 8


@pytest.mark.parametrize(
    ("nonce", "address"),
    [
        (0, "cd234a471b72ba2f1ccf0a70fcaba648a5eecd8d"),
        (1, "343c43a37d37dff08ae8c4a11544c718abb4fcf8"),
        (2, "f778b86fa74e846c4f0a1fbd1335fe81c00a0c91"),
    ],
)
def test_addresses_of_contracts_are_foreseen(nonce, address):
    # The example of Ethereum's own documentation of CREATE.
    assert _created("0x6ac7ea33f8831ea9dcc53393aaa88b25a785dbf0", nonce).hex() == address


def test_a_failed_transaction_is_not_passed_over(chain):
    feed = Call(chain.deployment.price_feed, Function("push(int256)").encode(1))
    with pytest.raises(Reverted, match="failed on-chain"):
        send(chain.rpc, accounts.GOVERNOR, feed)
