"""Snapshots of a real pool: complete, of one block, and equal to a replica that saw every log."""

import pytest

from fedtrade.chain import pools
from fedtrade.chain.conversation import ask
from fedtrade.chain.pools import TooManyPositions, holdings, pool_snapshot
from fedtrade.devnet.accounts import BACKGROUND_LP, GOVERNOR, NOISE_TRADER
from fedtrade.devnet.deploy import send
from fedtrade.market.pool import Pool, ProtocolFeeOn
from fedtrade.venues.codec import Call, Function
from fedtrade.venues.uniswap_v3 import MAX_TICK, decode, encode_provide, encode_swap

pytestmark = pytest.mark.chain


def snapshot(chain, block=None):
    key = chain.deployment.pool_key()
    return ask(chain.rpc, pool_snapshot(key, block or chain.anvil.latest().number))


def provide(chain, lower, upper, amounts=(10**10, 10**18)):
    key = chain.deployment.pool_key()
    data = encode_provide(key, NOISE_TRADER, (lower, upper), amounts)
    return send(chain.rpc, NOISE_TRADER, Call(chain.deployment.position_manager, data))


def test_all_ticks_are_found_to_the_ends_of_the_bitmap(chain):
    middle = snapshot(chain).tick // 10 * 10
    ranges = [(-887270, middle - 10), (middle, middle + 10), (middle + 2560, 887270), (-10, 0)]
    for lower, upper in ranges:
        provide(chain, lower, upper)
    assert [row[0] for row in snapshot(chain).ticks] == sorted({t for r in ranges for t in r})


@pytest.mark.parametrize("spacing", [1, 10, 60, 200])
def test_the_words_cover_every_tick_of_the_grid(spacing):
    first, end = pools._word_range(spacing)
    edge = MAX_TICK // spacing
    assert 256 * first <= -edge
    assert edge < 256 * end
    assert 256 * (first + 1) > -edge
    assert edge >= 256 * (end - 1)


def test_a_snapshot_is_of_its_block(chain):
    key, start = chain.deployment.pool_key(), chain.anvil.latest().number
    replica = Pool(key, snapshot(chain, start))
    before = snapshot(chain, start)
    receipts = [provide(chain, 190_000, 200_000)]
    for sell_token0, amount in ((True, 10**13), (False, 3 * 10**21), (True, 1)):
        data = encode_swap(key, NOISE_TRADER, sell_token0, amount)
        receipts.append(send(chain.rpc, NOISE_TRADER, Call(chain.deployment.swap_router, data)))
    assert snapshot(chain, start) == before
    for receipt in receipts:
        for event in filter(None, map(decode, receipt["logs"])):
            replica.apply(event)
        block = int(receipt["blockNumber"], 16)
        assert replica.snapshot(block) == snapshot(chain, block)


def test_a_pool_that_pays_the_protocol_is_refused(chain):
    fee = Function("setFeeProtocol(uint8,uint8)").encode(4, 4)
    send(chain.rpc, GOVERNOR, Call(chain.deployment.pool, fee))
    with pytest.raises(ProtocolFeeOn):
        snapshot(chain)


def test_holdings_are_of_this_pool_and_this_block(chain):
    key, manager = chain.deployment.pool_key(), chain.deployment.position_manager
    block = chain.anvil.latest().number
    before = ask(chain.rpc, holdings(key, manager, NOISE_TRADER, block))
    assert before.positions == ()
    provide(chain, 190_000, 200_000)
    after = ask(chain.rpc, holdings(key, manager, NOISE_TRADER, block + 1))
    (position,) = after.positions
    assert (position.tick_lower, position.tick_upper) == (190_000, 200_000)
    assert (after.amount0, after.native_wei) < (before.amount0, before.native_wei)
    assert ask(chain.rpc, holdings(key, manager, NOISE_TRADER, block)) == before
    (background,) = ask(chain.rpc, holdings(key, manager, BACKGROUND_LP, block)).positions
    assert background.liquidity == snapshot(chain, block).liquidity


def test_positions_in_other_pools_are_not_counted(chain):
    create = Function("createAndInitializePoolIfNecessary(address,address,uint24,uint160)")
    key, manager = chain.deployment.pool_key(), chain.deployment.position_manager
    pair = (key.token0.address, key.token1.address)
    price = snapshot(chain).sqrt_price_x96
    send(chain.rpc, GOVERNOR, Call(manager, create.encode(*pair, 3000, price)))
    mint = Function(
        "mint((address,address,uint24,int24,int24,uint256,uint256,uint256,uint256,address,uint256))"
    ).encode((*pair, 3000, 180_000, 210_000, 10**10, 10**18, 0, 0, NOISE_TRADER, 2**40))
    send(chain.rpc, NOISE_TRADER, Call(manager, mint))
    block = chain.anvil.latest().number
    assert ask(chain.rpc, holdings(key, manager, NOISE_TRADER, block)).positions == ()


def test_more_positions_than_are_read_is_an_error(chain, monkeypatch):
    provide(chain, 190_000, 200_000)
    monkeypatch.setattr(pools, "POSITIONS_MAX", 0)
    key, manager = chain.deployment.pool_key(), chain.deployment.position_manager
    with pytest.raises(TooManyPositions, match="Burn the empty ones"):
        ask(
            chain.rpc,
            holdings(key, manager, NOISE_TRADER, chain.anvil.latest().number),
        )
