"""Positions out of chain logs: real mints and burns, and each protocol's own lifecycles."""

import json
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from eth_abi import encode
from typer.testing import CliRunner

from fedtrade.cli import app
from fedtrade.data import onchain
from fedtrade.data.log_files import read_logs, read_settings
from fedtrade.errors import BadInput
from fedtrade.learning.positions import STILL_OPEN, read_positions
from fedtrade.market.events import LiquidityChanged
from fedtrade.market.instruments import PoolKey, Token
from fedtrade.market.tick_math import (
    amounts_for_liquidity,
    liquidity_for_amounts,
    sqrt_ratio_at_tick,
)
from fedtrade.market.tick_table import TickTable
from fedtrade.venues import uniswap_v3

PACK = Path(__file__).parents[4] / "shared" / "data" / "dex_swaps"
POOL, MANAGER, OWNER = ("0x" + f"{n:040x}" for n in (0xA1, 0xB2, 0xC3))
USDC, WETH = Token("0x" + f"{1:040x}", "USDC", 6), Token("0x" + f"{2:040x}", "WETH", 18)
KEY = PoolKey(POOL, USDC, WETH, 3000, 60, base_is_token0=False)
ETH = ("binance", "ETH")
E18 = 10**18


def log(shape, indexed, data, block, log_index=0, address=POOL, at_s=None):
    """A log as a node gives it."""
    words = [encode([kind], [value]) for kind, value in zip(shape._indexed, indexed, strict=True)]
    return {
        "address": address,
        "topics": [shape.topic, *("0x" + word.hex() for word in words)],
        "data": "0x" + encode(shape._data, data).hex(),
        "blockNumber": hex(block),
        "logIndex": hex(log_index),
        "blockTimestamp": hex(1_700_000_000 + 12 * block if at_s is None else at_s),
    }


def mint(block, i, liquidity, amounts, ticks=(192180, 193380), owner=OWNER, **more):
    data = (OWNER, liquidity, *amounts)
    return log(uniswap_v3.MINT, (owner, *ticks), data, block, i, **more)


def burn(block, i, liquidity, amounts, ticks=(192180, 193380), owner=OWNER, **more):
    return log(uniswap_v3.BURN, (owner, *ticks), (liquidity, *amounts), block, i, **more)


# -- the real events ----------------------------------------------------------------------------


def mainnet():
    """(type, liquidity, amounts, ticks, place, time) of every recorded event; it names no owners."""
    file = PACK / "uniswap_v3_mainnet_usdc_weth_3000_liquidity_events.parquet"
    if not file.is_file():
        pytest.skip("the recorded mints and burns are not here (shared/data/dex_swaps)")
    return pl.read_parquet(file).with_columns(pl.col("ts").dt.epoch("s")).to_dicts()


def base():
    file = PACK / "base_v3_pool_liquidity_events.parquet"
    if not file.is_file():
        pytest.skip("the recorded mints and burns are not here (shared/data/dex_swaps)")
    frame = pl.read_parquet(file).filter(pl.col("event") != "collect")
    return (
        frame.sort("block_number", "log_index").with_columns(pl.col("ts").dt.epoch("s")).to_dicts()
    )


def direct(changes):
    """Net liquidity by tick and by range, by plain sums."""
    ticks, ranges = defaultdict(int), defaultdict(int)
    for lower, upper, delta in changes:
        ticks[lower] += delta
        ticks[upper] -= delta
        ranges[lower, upper] += delta
    return {t: n for t, n in ticks.items() if n}, {r: n for r, n in ranges.items() if n}


def check_against_the_pool(lives, raw, spacing):
    """Open lives sum to the pool's ticks; what was closed gave back all that it took."""
    nets, ranges = direct(raw)
    open_lives = [life for life in lives if life.closed_s == STILL_OPEN]
    assert all(life.liquidity > 0 for life in open_lives)
    assert all(life.liquidity == 0 for life in lives if life.closed_s != STILL_OPEN)
    assert all(life.closed_s == STILL_OPEN or life.closed_s >= life.opened_s for life in lives)
    assert all(life.peak >= life.liquidity >= 0 and life.peak > 0 for life in lives)
    sums, gross = defaultdict(int), defaultdict(int)
    for life in open_lives:
        sums[life.tick_lower] += life.liquidity
        sums[life.tick_upper] -= life.liquidity
        gross[life.tick_lower] += life.liquidity
        gross[life.tick_upper] += life.liquidity
    assert {t: n for t, n in sums.items() if n} == nets
    table = TickTable(spacing, [(t, gross[t], sums[t], 0, 0) for t in sorted(gross)])
    assert table.flaw() == ""
    for tick in range(-887220, 887220, 60 * 97):
        covering = sum(n for (lower, upper), n in ranges.items() if lower <= tick < upper)
        assert table.active(tick) == covering >= 0


def changed(event):
    """(time, owner, change) of a recorded event of mainnet; the record names no owner."""
    change = LiquidityChanged(
        *(event["block_number"], event["log_index"], POOL, OWNER),
        *(event["tick_lower"], event["tick_upper"]),
        int(event["liquidity"]) * (1 if event["type"] == 1 else -1),
        *(int(event["amount0"]), int(event["amount1"])),
    )
    return event["ts"], "", change


def test_23537_real_events_of_mainnet_are_whole_lifecycles():
    events = mainnet()
    assert len(events) == 23_537
    changes = [changed(e) for e in events if int(e["liquidity"])]
    assert len(events) - len(changes) == 3_101, "burns of nothing, to have fees counted"
    lives = onchain.liquidity_lives(changes)
    raw = [(c.tick_lower, c.tick_upper, c.liquidity_delta) for _, _, c in changes]
    check_against_the_pool(lives, raw, 60)
    assert sum(life.closed_s == STILL_OPEN for life in lives) == 1867
    assert len(lives) > 4809, "ranges are used again"


def test_the_first_real_events_as_logs_give_the_same_lifecycles_at_prices_of_that_month():
    events = mainnet()[:1000]
    logs = [
        (mint if e["type"] == 1 else burn)(
            *(e["block_number"], e["log_index"], int(e["liquidity"])),
            (int(e["amount0"]), int(e["amount1"])),
            (e["tick_lower"], e["tick_upper"]),
            at_s=e["ts"],
        )
        for e in events
    ]
    found = onchain.uniswap_v3_positions(logs, KEY, ETH)
    lives = onchain.liquidity_lives(changed(e) for e in events if int(e["liquidity"]))
    assert [(p.opened_s, p.closed_s) for p in found] == [(x.opened_s, x.closed_s) for x in lives]
    prices = sorted(p.entry_price for p in found)
    assert 3000 < prices[len(prices) // 2] < 4200, "ether in the first days of May 2021"


def test_real_events_of_base_are_whole_lifecycles():
    events = base()
    assert len(events) == 1_463
    changes = [
        (
            e["ts"],
            e["owner"],
            LiquidityChanged(
                *(e["block_number"], e["log_index"], POOL, e["owner"]),
                *(e["tickLower"], e["tickUpper"]),
                int(e["amount"]) * (1 if e["event"] == "mint" else -1),
                *(int(e["amount0"]), int(e["amount1"])),
            ),
        )
        for e in events
        if e["amount"] is not None and int(e["amount"])
    ]
    lives = onchain.liquidity_lives(changes)
    raw = [(c.tick_lower, c.tick_upper, c.liquidity_delta) for _, _, c in changes]
    check_against_the_pool(lives, raw, 200)
    assert sum(life.closed_s != STILL_OPEN for life in lives) > 100


def test_logs_that_begin_too_late_are_refused():
    events = [e for e in mainnet() if int(e["liquidity"])][2000:4000]
    changes = [changed(e) for e in events]
    with pytest.raises(onchain.Shrunk, match="gives more liquidity than it was given"):
        onchain.liquidity_lives(changes)


# -- Uniswap v3 ---------------------------------------------------------------------------------


def test_tokens_of_the_manager_are_positions_of_their_own():
    """Two tokens of one range are one position of the pool, and two lifecycles."""
    by_manager = {"owner": MANAGER}
    logs = [
        mint(1, 0, 100, (5, 7), **by_manager),
        log(onchain.INCREASED, (7,), (100, 5, 7), 1, 1, MANAGER),
        mint(2, 0, 50, (5, 7), **by_manager),
        log(onchain.INCREASED, (8,), (50, 5, 7), 2, 1, MANAGER),
        burn(3, 0, 100, (5, 7), **by_manager),
        log(onchain.DECREASED, (7,), (100, 5, 7), 3, 1, MANAGER),
    ]
    found = onchain.uniswap_v3_positions(list(reversed(logs)), KEY, ETH)
    names = [p.position_id.partition(":")[0] for p in found]
    assert names == ["token-7", "token-8"]
    assert found[0].closed_s == found[0].opened_s + 24
    assert found[1].closed_s == STILL_OPEN
    mine = onchain.uniswap_v3_positions(logs, KEY, ETH, {"token-8"})
    assert [p.opened_s for p in mine] == [found[1].opened_s]


def test_entry_price_and_size_follow_from_the_amounts():
    lower, upper, here = 192180, 201060, 196260
    amounts = (20_000 * 10**6, 8 * E18)
    liquidity = liquidity_for_amounts(sqrt_ratio_at_tick(here), lower, upper, *amounts)
    taken = amounts_for_liquidity(sqrt_ratio_at_tick(here), lower, upper, liquidity, round_up=True)
    (position,) = onchain.uniswap_v3_positions(
        [mint(1, 0, liquidity, taken, (lower, upper))], KEY, ETH
    )
    price = 1e12 / 1.0001**here
    assert position.entry_price == pytest.approx(price, rel=1e-6)
    expected = taken[1] / 1e18 + taken[0] / 1e6 / price
    assert position.quantity_base == pytest.approx(expected, rel=1e-6)
    swap = log(
        uniswap_v3.SWAP,
        (OWNER, OWNER),
        (1, -1, sqrt_ratio_at_tick(here + 600), 1, here + 600),
        0,
    )
    (position,) = onchain.uniswap_v3_positions(
        [swap, mint(1, 0, liquidity, taken, (lower, upper))], KEY, ETH
    )
    assert position.entry_price == pytest.approx(1e12 / 1.0001 ** (here + 600), rel=1e-6)


def test_bad_logs_are_named_by_row_and_nothing_is_taken():
    good = mint(1, 0, 100, (5, 7))
    torn = good | {"data": "0x1234", "logIndex": "0x9"}
    timeless = {k: v for k, v in good.items() if k != "blockTimestamp"}
    with pytest.raises(BadInput, match=r"row 2: .*; row 3: no 'blockTimestamp'"):
        onchain.uniswap_v3_positions([good, torn, timeless], KEY, ETH)


def test_a_log_that_is_there_twice_or_was_removed_counts_as_it_should():
    logs = [mint(1, 0, 100, (5, 7)), mint(1, 0, 100, (5, 7)), burn(2, 0, 100, (5, 7))]
    (position,) = onchain.uniswap_v3_positions(logs, KEY, ETH)
    assert position.closed_s != STILL_OPEN
    (position,) = onchain.uniswap_v3_positions([*logs[:1], logs[2] | {"removed": True}], KEY, ETH)
    assert position.closed_s == STILL_OPEN


# -- Perp v2 ------------------------------------------------------------------------------------

TRADER, VETH = "0x" + "d4" * 20, "0x" + "e5" * 20


def deposited(block, usd):
    return log(onchain.DEPOSITED, (USDC.address, TRADER), (usd * 10**6,), block)


def traded(block, size, price, open_notional, realised=0, trader=TRADER, token=VETH):
    data = (
        int(size * E18),
        int(-size * price * E18),
        0,
        int(open_notional * E18),
        realised * E18,
        1,
    )
    return log(onchain.POSITION_CHANGED, (trader, token), data, block, 1)


def perp(logs):
    return onchain.perp_v2_positions(logs, TRADER, {VETH: ETH}, {USDC.address: 6})


def test_a_perp_position_opens_grows_turns_and_closes():
    found = perp(
        [
            deposited(1, 1000),
            traded(2, 1.0, 2000.0, -2000),
            traded(3, 1.0, 2200.0, -4200),
            traded(4, -5.0, 2000.0, 6000, realised=-200),
            traded(5, 3.0, 1900.0, 0, realised=300),
            traded(6, 9.0, 1900.0, 0, trader=OWNER),
        ]
    )
    long, short = found
    assert (long.side, long.quantity_base, long.entry_price) == (1, 2.0, 2100.0)
    assert long.leverage == pytest.approx(4.2)
    assert long.closed_s == short.opened_s == 1_700_000_000 + 48
    assert (short.side, short.quantity_base, short.entry_price) == (-1, 3.0, 2000.0)
    assert short.leverage == pytest.approx(6000 / 800)
    assert short.closed_s == 1_700_000_000 + 60


def test_what_perp_logs_do_not_tell_must_be_given():
    other = "0x" + "f6" * 20
    logs = [
        log(onchain.DEPOSITED, (other, TRADER), (1,), 1),
        traded(2, 1.0, 2000.0, -2000, token=other),
    ]
    with pytest.raises(BadInput, match=r"row 1: its collateral.*row 2: its base token's market"):
        perp(logs)


# -- Aave v3 ------------------------------------------------------------------------------------

ASSETS = {
    WETH.address: onchain.AaveAsset(18, ETH),
    USDC.address: onchain.AaveAsset(6, None),
}


def supply(block, token, amount):
    return log(onchain.SUPPLY, (token.address, TRADER, 0), (TRADER, amount), block)


def borrow(block, token, amount):
    return log(onchain.BORROW, (token.address, TRADER, 0), (TRADER, amount, 2, 0), block)


def repay(block, token, amount, from_supplied=False):
    return log(onchain.REPAY, (token.address, TRADER, TRADER), (amount, from_supplied), block)


def aave(logs, price=2000.0):
    return onchain.aave_positions(logs, TRADER, ASSETS, lambda market, at_s: price)


def test_an_aave_loan_against_ether_is_a_leveraged_long():
    (life,) = aave(
        [
            supply(1, WETH, 10 * E18),
            borrow(2, USDC, 10_000 * 10**6),
            supply(3, WETH, 2 * E18),
            repay(4, USDC, 10_050 * 10**6),  # with interest
        ]
    )
    assert (life.side, life.entry_price, life.quantity_base) == (1, 2000.0, 12.0)
    assert life.leverage == pytest.approx(20_000 / 10_000)
    assert (life.opened_s, life.closed_s) == (1_700_000_024, 1_700_000_048)


def test_an_aave_loan_of_ether_against_dollars_is_a_short_and_a_liquidation_may_close_it():
    taken = log(
        onchain.LIQUIDATION,
        (USDC.address, WETH.address, TRADER),
        (2 * E18, 4_400 * 10**6, OWNER, False),
        4,
    )
    logs = [supply(1, USDC, 10_000 * 10**6), borrow(2, WETH, 2 * E18)]
    (life,) = aave(logs)
    assert (life.side, life.quantity_base, life.closed_s) == (-1, 2.0, STILL_OPEN)
    assert life.leverage == pytest.approx(10_000 / 6_000)
    (life,) = aave([*logs, taken])
    assert life.closed_s == 1_700_000_048


def test_aave_logs_of_unknown_reserves_and_loans_against_nothing_are_named():
    with pytest.raises(BadInput, match="row 1: its reserve is not given"):
        aave([supply(1, Token(OWNER, "X", 18), 5)])
    with pytest.raises(BadInput, match="row 1: it borrows against"):
        aave([borrow(1, USDC, 10**9)])


# -- the file -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_table_is_what_members_read(tmp_path, suffix):
    lives = perp([deposited(1, 1000), traded(2, 1.0, 2000.0, -2000), traded(9, -1.0, 2100.0, 0)])
    lives += aave([supply(1, WETH, E18), borrow(2, USDC, 10**9)])
    table, path = onchain.as_table(lives), tmp_path / f"positions.{suffix}"
    if suffix == "csv":
        table.write_csv(path)
    else:
        table.write_parquet(path)
    positions = read_positions(path, now_s=1_800_000_000)
    assert positions.side.tolist() == [1, 1]
    assert positions.closed_s.tolist() == [1_700_000_108, STILL_OPEN]
    assert positions.leverage.tolist() == [2.0, 2.0]
    assert positions.entry_price.tolist() == [2000.0, 2000.0]


def test_the_command_makes_a_file_of_positions_from_a_file_of_logs(tmp_path):
    hours = [datetime.fromtimestamp(1_699_999_200 + 3600 * i, UTC) for i in range(3)]
    bars = {"ts": hours, "symbol": ["ETHUSDT"] * 3} | {
        name: [1999.0, 2000.0, 2001.0] for name in ("open", "high", "low", "close", "volume")
    }
    data = tmp_path / "data"
    (data / "perp_ohlcv").mkdir(parents=True)
    pl.DataFrame(bars).with_columns(pl.col("ts").cast(pl.Datetime("ms", "UTC"))).write_parquet(
        data / "perp_ohlcv" / "binance_usdm_1h.parquet"
    )
    logs, settings, out = (tmp_path / n for n in ("logs.jsonl", "aave.json", "positions.csv"))
    made = [supply(300, WETH, 10 * E18), borrow(301, USDC, 10_000 * 10**6)]
    logs.write_text("\n".join(map(json.dumps, made)))
    reserves = {
        WETH.address: {"decimals": 18, "market": ETH},
        USDC.address: {"decimals": 6, "market": None},
    }
    content = {"protocol": "aave_v3", "account": TRADER, "reserves": reserves}
    settings.write_text(json.dumps(content))
    asked = ["data", "positions", str(logs), "--settings", str(settings), "--out", str(out)]
    missing = CliRunner().invoke(app, asked)
    assert "carry no prices" in str(missing.exception)
    done = CliRunner().invoke(app, [*asked, "--data", str(data)])
    assert done.exit_code == 0, done.output
    assert "1 positions, 1 of them open" in done.output
    positions = read_positions(out, now_s=1_800_000_000)
    assert positions.entry_price.tolist() == [1999.0], "the close of the hour that is over"
    out.write_text("mine")
    kept = CliRunner().invoke(app, [*asked, "--data", str(data)])
    assert "exists" in str(kept.exception)
    assert out.read_text() == "mine"


def test_files_that_are_no_logs_and_no_settings_are_one_sentence(tmp_path):
    path = tmp_path / "x.json"
    for text, problem in [("{}\nnot", "line 2 is not JSON"), ("", "no logs"), ("[1]", "no logs")]:
        path.write_text(text)
        with pytest.raises(BadInput, match=problem):
            read_logs(path)
    for text, problem in [("{", "JSON"), ("{}", "protocol"), ('{"protocol":"perp_v2"}', "trader")]:
        path.write_text(text)
        with pytest.raises(BadInput, match=problem):
            read_settings(path)
