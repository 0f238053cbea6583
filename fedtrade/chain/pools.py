"""The state of a Uniswap v3 pool, a price feed and an account, each read whole at one block.

A pool's ticks are found through its bitmap: one word holds 256 ticks of the pool's spacing, and all
words are read, so that no initialised tick can be missed. All calls of a snapshot name the same
block number; a node that has replaced that block meanwhile is found by the reader of heads.
"""

from __future__ import annotations

from typing import Any

from fedtrade.chain.conversation import Conversation, Read, read, view_call
from fedtrade.chain.rpc import from_hex
from fedtrade.errors import Stale
from fedtrade.market.events import Holdings, OracleUpdated, PoolSnapshot, PositionHeld
from fedtrade.market.instruments import PoolKey
from fedtrade.market.pool import refuse_protocol_fee
from fedtrade.venues.codec import quantity
from fedtrade.venues.price_feed import LATEST_ROUND
from fedtrade.venues.uniswap_v3 import (
    BALANCE_OF,
    COLLECT,
    FEE_GROWTH0,
    FEE_GROWTH1,
    LIQUIDITY,
    MAX_TICK,
    POSITIONS,
    SLOT0,
    TICK_BITMAP,
    TICKS,
    TOKEN_OF_OWNER,
    UINT128_MAX,
)

POSITIONS_MAX = 256
"""Positions of one account that are looked at; an account of ours has a handful."""


class TooManyPositions(Stale):
    """An account holds more positions than we read: its value would be understated."""

    def __init__(self, account: str, count: int) -> None:
        super().__init__(
            f"{account} holds {count} positions, {POSITIONS_MAX} are read at most. "
            "Burn the empty ones."
        )
        self.account = account
        self.count = count


def pool_snapshot(key: PoolKey, block: int) -> Conversation[PoolSnapshot]:
    """The whole state of a pool at `block`; raises ProtocolFeeOn where the replica cannot follow."""
    words = range(*_word_range(key.tick_spacing))
    views = (SLOT0, LIQUIDITY, FEE_GROWTH0, FEE_GROWTH1)
    reads: list[Read] = [(key.address, view, ()) for view in views]
    reads += [(key.address, TICK_BITMAP, (word,)) for word in words]
    slot0, (liquidity,), (growth0,), (growth1,), *bitmap = yield from read(reads, block)
    refuse_protocol_fee(key.address, slot0[5])
    ticks = [
        (256 * word + bit) * key.tick_spacing
        for word, (bits,) in zip(words, bitmap, strict=True)
        for bit in range(256)
        if bits >> bit & 1
    ]
    rows = yield from read([(key.address, TICKS, (tick,)) for tick in ticks], block)
    return PoolSnapshot(
        block,
        key.address,
        slot0[0],
        slot0[1],
        liquidity,
        growth0,
        growth1,
        tuple((tick, *row[:4]) for tick, row in zip(ticks, rows, strict=True)),
    )


def holdings(
    key: PoolKey, position_manager: str, account: str, block: int
) -> Conversation[Holdings]:
    """What an account has at `block`: both tokens, native token, and its positions in this pool."""
    tokens: list[Read] = [
        (key.token0.address, BALANCE_OF, (account,)),
        (key.token1.address, BALANCE_OF, (account,)),
        (position_manager, BALANCE_OF, (account,)),
    ]
    (amount0,), (amount1,), (count,) = yield from read(tokens, block)
    if count > POSITIONS_MAX:
        raise TooManyPositions(account, count)
    (native,) = yield [("eth_getBalance", [account, hex(block)])]
    ids = yield from read(
        [(position_manager, TOKEN_OF_OWNER, (account, place)) for place in range(count)], block
    )
    token_ids = [token_id for (token_id,) in ids]
    found = yield from read(
        [(position_manager, POSITIONS, (token_id,)) for token_id in token_ids], block
    )
    ours = [
        (token_id, row)
        for token_id, row in zip(token_ids, found, strict=True)
        if _is_in_pool(row, key)
    ]
    owed = yield [_collect_call(position_manager, token_id, account, block) for token_id, _ in ours]
    positions = tuple(
        PositionHeld(token_id, row[5], row[6], row[7], *COLLECT.decode(from_hex(answer)))
        for (token_id, row), answer in zip(ours, owed, strict=True)
    )
    return Holdings(block, amount0, amount1, quantity(native), positions)


def oracle_answer(feed: str, decimals: int, block: int) -> Conversation[OracleUpdated]:
    """The feed's answer at `block`, as the event that made it (its log index is not known: -1)."""
    ((_, answer, _, updated_at_s, _),) = yield from read([(feed, LATEST_ROUND, ())], block)
    return OracleUpdated(block, -1, feed, answer, decimals, updated_at_s)


def _word_range(tick_spacing: int) -> tuple[int, int]:
    """The first word of a pool's bitmap, and the one after the last."""
    edge = MAX_TICK // tick_spacing
    return -edge >> 8, (edge >> 8) + 1


def _is_in_pool(row: tuple[Any, ...], key: PoolKey) -> bool:
    pair = (key.token0.address.lower(), key.token1.address.lower())
    return (row[2].lower(), row[3].lower()) == pair and row[4] == key.fee_pips


def _collect_call(manager: str, token_id: int, account: str, block: int) -> tuple[str, list[Any]]:
    """What `collect` would pay now: it counts fees up to this block, unlike the stored `owed`."""
    everything = (token_id, account, UINT128_MAX, UINT128_MAX)
    method, params = view_call(manager, COLLECT, (everything,), block, account)
    return method, list(params)
