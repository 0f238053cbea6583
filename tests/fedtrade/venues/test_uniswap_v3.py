"""Uniswap v3: encodings by round trip, and every call and log against the real contracts."""

import math
from types import SimpleNamespace

import pytest
from eth_abi import encode
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.chain.conversation import ask
from fedtrade.chain.pools import holdings, pool_snapshot
from fedtrade.chain.rpc import NodeRefused
from fedtrade.devnet.accounts import NOISE_TRADER
from fedtrade.devnet.deploy import Reverted, send
from fedtrade.market.actions import ProvideLiquidity, SwapExactInput, WithdrawLiquidity
from fedtrade.market.events import LiquidityChanged, Swapped
from fedtrade.market.instruments import PoolKey, Token
from fedtrade.market.pool import Pool
from fedtrade.venues import uniswap_v3 as v3
from fedtrade.venues.codec import LogUnreadable

TOKEN0 = Token("0x" + "11" * 20, "AAA", 18)
TOKEN1 = Token("0x" + "22" * 20, "BBB", 6)
KEY = PoolKey("0x" + "33" * 20, TOKEN0, TOKEN1, 500, 10, True)
VENUE = SimpleNamespace(position_manager="0x" + "44" * 20, swap_router="0x" + "55" * 20)
ACCOUNT = "0x" + "66" * 20
FAR_S = 2**40

uint128 = st.integers(0, 2**128 - 1)
uint256 = st.integers(0, 2**256 - 1)
int256 = st.integers(-(2**255), 2**255 - 1)
ticks = st.integers(-887272, 887272)


def log(shape, indexed, data, address=KEY.address):
    """A log as a node would give it."""
    topics = [shape.topic] + ["0x" + value.hex() for value in indexed]
    return {
        "address": address,
        "blockNumber": "0x10",
        "logIndex": "0x2",
        "topics": topics,
        "data": "0x" + data.hex(),
    }


def word(kind, value):
    return encode([kind], [value])


@given(int256, int256, st.integers(0, 2**160 - 1), uint128, ticks)
def test_swap_logs_decode_to_what_was_encoded(amount0, amount1, sqrt_price, liquidity, tick):
    data = encode(
        ["int256", "int256", "uint160", "uint128", "int24"],
        [amount0, amount1, sqrt_price, liquidity, tick],
    )
    seen = log(v3.SWAP, [word("address", ACCOUNT)] * 2, data)
    assert v3.decode(seen) == Swapped(
        16, 2, KEY.address, amount0, amount1, sqrt_price, liquidity, tick
    )


@given(ticks, ticks, st.integers(1, 2**128 - 1), uint256, uint256)
def test_mint_and_burn_logs_are_liquidity_with_a_sign(lower, upper, amount, paid0, paid1):
    indexed = [word("address", ACCOUNT), word("int24", lower), word("int24", upper)]
    mint = encode(["address", "uint128", "uint256", "uint256"], [ACCOUNT, amount, paid0, paid1])
    burn = encode(["uint128", "uint256", "uint256"], [amount, paid0, paid1])
    rest = (lower, upper)
    place = (16, 2, KEY.address, ACCOUNT)
    assert v3.decode(log(v3.MINT, indexed, mint)) == LiquidityChanged(
        *place, *rest, amount, paid0, paid1
    )
    assert v3.decode(log(v3.BURN, indexed, burn)) == LiquidityChanged(
        *place, *rest, -amount, paid0, paid1
    )


def test_a_burn_of_nothing_and_foreign_logs_are_no_events():
    indexed = [word("address", ACCOUNT), word("int24", -10), word("int24", 10)]
    burn = encode(["uint128", "uint256", "uint256"], [0, 0, 0])
    assert v3.decode(log(v3.BURN, indexed, burn)) is None
    collect = "0x70935338e69775456a85ddef226c395fb668b63fa0115f5f20610b388e6ca9c0"
    assert v3.decode({**log(v3.BURN, indexed, burn), "topics": [collect]}) is None


def test_a_cut_log_is_stale_and_not_an_event():
    with pytest.raises(LogUnreadable):
        v3.decode(log(v3.SWAP, [word("address", ACCOUNT)] * 2, b"\0" * 64))


def test_an_action_for_another_pool_is_refused():
    action = SwapExactInput("a", "0x" + "77" * 20, True, 1, 1, FAR_S, True)
    with pytest.raises(v3.WrongPool, match="Give it to that chain's agent"):
        v3.encode_call(action, KEY, VENUE, ACCOUNT)


@given(ticks, ticks, uint256, uint256, uint256, uint256, st.integers(0, 2**64))
def test_provide_round_trip(lower, upper, amount0, amount1, minimum0, minimum1, deadline_s):
    action = ProvideLiquidity(
        "a", KEY.address, lower, upper, amount0, amount1, minimum0, minimum1, deadline_s
    )
    call = v3.encode_call(action, KEY, VENUE, ACCOUNT)
    assert (call.to, call.value_wei) == (VENUE.position_manager, 0)
    (arguments,) = v3.PROVIDE.decode_input(call.data)
    assert arguments == (
        *(TOKEN0.address, TOKEN1.address, 500, lower, upper),
        *(amount0, amount1, minimum0, minimum1, ACCOUNT, deadline_s),
    )


@given(uint256, st.integers(1, 2**128 - 1), uint256, uint256, st.integers(0, 2**64))
def test_withdraw_is_decrease_collect_burn(token_id, liquidity, minimum0, minimum1, deadline_s):
    action = WithdrawLiquidity(
        "a", KEY.address, token_id, liquidity, minimum0, minimum1, deadline_s
    )
    call = v3.encode_call(action, KEY, VENUE, ACCOUNT)
    ((decrease, collect, burn),) = v3.MULTICALL.decode_input(call.data)
    expected = (token_id, liquidity, minimum0, minimum1, deadline_s)
    assert v3.DECREASE.decode_input(decrease) == (expected,)
    everything = (token_id, ACCOUNT, v3.UINT128_MAX, v3.UINT128_MAX)
    assert v3.COLLECT.decode_input(collect) == (everything,)
    assert v3.BURN_TOKEN.decode_input(burn) == (token_id,)


@given(st.booleans(), uint256, uint256, st.integers(0, 2**64))
def test_swap_round_trip(sell_token0, amount_in, minimum, deadline_s):
    action = SwapExactInput("a", KEY.address, sell_token0, amount_in, minimum, deadline_s, True)
    call = v3.encode_call(action, KEY, VENUE, ACCOUNT)
    pair = (TOKEN0.address, TOKEN1.address)
    assert call.to == VENUE.swap_router
    assert v3.SWAP_EXACT_INPUT.decode_input(call.data) == (
        (*(pair if sell_token0 else pair[::-1]), 500, ACCOUNT, deadline_s, amount_in, minimum, 0),
    )


@given(st.floats(1e-6, 1e9), st.integers(0, 18), st.integers(0, 18), st.booleans())
def test_prices_go_to_the_chain_and_back(price, base_decimals, quote_decimals, base_is_token0):
    base, quote = Token("0x" + "11" * 20, "B", base_decimals), Token("0x2", "Q", quote_decimals)
    pair = (base, quote) if base_is_token0 else (quote, base)
    key = PoolKey("0x", *pair, 500, 10, base_is_token0)
    sqrt_price = v3.sqrt_price_x96(price, base_decimals, quote_decimals, base_is_token0)
    # Rounded down to a unit of sqrt price: the error is that of the integer itself.
    assert math.isclose(key.price(sqrt_price), price, rel_tol=max(1e-9, 4 / max(sqrt_price, 1)))


@pytest.mark.parametrize(("spacing", "edge"), [(1, 887272), (10, 887270), (60, 887220)])
def test_full_range_is_the_widest_on_the_grid(spacing, edge):
    assert v3.full_range(spacing) == (-edge, edge)


@pytest.mark.chain
class TestOnChain:
    """Each action through the real contracts, and each log back into the replica."""

    def number(self, chain):
        return chain.anvil.latest().number

    def replica(self, chain):
        key = chain.deployment.pool_key()
        return Pool(key, ask(chain.rpc, pool_snapshot(key, self.number(chain))))

    def events(self, receipt):
        return [event for entry in receipt["logs"] if (event := v3.decode(entry)) is not None]

    def act(self, chain, action):
        key = chain.deployment.pool_key()
        call = v3.encode_call(action, key, chain.deployment, NOISE_TRADER)
        return send(chain.rpc, NOISE_TRADER, call)

    def held(self, chain):
        key, manager = chain.deployment.pool_key(), chain.deployment.position_manager
        return ask(chain.rpc, holdings(key, manager, NOISE_TRADER, self.number(chain)))

    def test_a_position_lives_earns_and_ends(self, chain):
        key, replica = chain.deployment.pool_key(), self.replica(chain)
        middle = replica.tick // 10 * 10
        before = self.held(chain)
        provide = ProvideLiquidity(
            "p", key.address, middle - 500, middle + 500, 10**12, 10**20, 0, 0, FAR_S
        )
        for event in self.events(self.act(chain, provide)):
            replica.apply(event)
        (position,) = self.held(chain).positions
        assert (position.tick_lower, position.tick_upper) == (middle - 500, middle + 500)
        for sell_token0, amount in ((True, 10**11), (False, 10**19)):
            swap = SwapExactInput("s", key.address, sell_token0, amount, 1, FAR_S, False)
            (event,) = self.events(self.act(chain, swap))
            assert (event.amount0 if sell_token0 else event.amount1) == amount
            replica.apply(event)
        (position,) = self.held(chain).positions
        assert position.owed0 > 0
        assert position.owed1 > 0
        assert replica.fees_owed(
            position.tick_lower, position.tick_upper, position.liquidity, 0, 0
        ) == pytest.approx((position.owed0, position.owed1), abs=1)
        withdraw = WithdrawLiquidity(
            "w", key.address, position.token_id, position.liquidity, 0, 0, FAR_S
        )
        for event in self.events(self.act(chain, withdraw)):
            replica.apply(event)
        after = self.held(chain)
        assert after.positions == ()
        assert after.amount0 != before.amount0
        again = self.replica(chain)
        assert replica.snapshot(0) == again.snapshot(0)

    @pytest.mark.parametrize("deadline_s", [0, 1_749_686_000])
    def test_the_chain_enforces_deadlines(self, chain, deadline_s):
        key = chain.deployment.pool_key()
        swap = SwapExactInput("s", key.address, True, 10**6, 0, deadline_s, False)
        with pytest.raises(Reverted, match="Transaction too old"):
            self.act(chain, swap)

    def test_the_chain_enforces_minima(self, chain):
        key = chain.deployment.pool_key()
        swap = SwapExactInput("s", key.address, True, 10**6, 2**100, FAR_S, False)
        with pytest.raises(Reverted, match="Too little received"):
            self.act(chain, swap)

    def test_a_position_without_liquidity_can_be_ended(self, chain):
        key, tick = chain.deployment.pool_key(), self.replica(chain).tick // 10 * 10
        provide = ProvideLiquidity(
            "p", key.address, tick - 10, tick + 10, 10**9, 10**18, 0, 0, FAR_S
        )
        self.act(chain, provide)
        (position,) = self.held(chain).positions
        parts = v3.encode_removal(position.token_id, position.liquidity, NOISE_TRADER)
        manager = chain.deployment.position_manager
        send(chain.rpc, NOISE_TRADER, v3.Call(manager, v3.MULTICALL.encode(parts)))
        (empty,) = self.held(chain).positions
        assert (empty.liquidity, empty.owed0, empty.owed1) == (0, 0, 0)
        self.act(chain, WithdrawLiquidity("w", key.address, empty.token_id, 0, 0, 0, FAR_S))
        assert self.held(chain).positions == ()

    def test_approval_lets_the_spender_take(self, chain):
        token, spender = chain.deployment.quote.address, chain.deployment.swap_router
        owner = chain.rpc.call("eth_accounts")[9]
        send(chain.rpc, owner, v3.encode_approval(token, spender, 5))
        answer = chain.rpc.eth_call(token, v3.ALLOWANCE.encode(owner, spender))
        assert v3.ALLOWANCE.decode(answer) == (5,)

    def test_a_revert_of_the_quoter_is_a_refusal(self, chain):
        tokens = (chain.deployment.base.address, chain.deployment.quote.address)
        data = v3.QUOTE_EXACT_INPUT.encode((*tokens, 0, 500, 0))
        with pytest.raises(NodeRefused):
            chain.rpc.eth_call(chain.deployment.quoter, data)
