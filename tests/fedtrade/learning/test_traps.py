"""Every trap of the recorded data that has fooled somebody, each with a test.

| trap | test |
|---|---|
| receive clocks 1.3–1.5 s behind the exchange's | `test_a_receive_clock_behind_the_venues_…` (the books and the order of events: `tests/fedtrade/market/feeds/test_binance.py`) |
| Hyperliquid funding 8-hourly until 2023-06-08 and hourly since | `test_hyperliquid_…` |
| a Hyperliquid funding series an hour off the settled rate | `test_the_early_sample_…` |
| funding periods that differ by venue and coin, and change | `test_periods_…`, `test_a_missing_print_…` |
| base and quote volume exchanged | `test_folder.py::test_base_and_quote_volume_…`, and here on the real file |
| Aave USD values off by 1e20 | `test_liquidations_off_by_1e20_…` |
| gas of 2^64 − 1 (and of 1) | `test_gas_that_cannot_be_…` |
| the 20-day hole of November 2022 | `test_folder.py::test_the_hole_of_november_2022_…`, `…_not_differenced_across_a_silence`, and here for funding and rows |
| bars stamped at their close | `test_folder.py::test_bars_stamped_at_their_close_…` |
| a shared file with 0.43 of a venue's volume | `test_folder.py::test_the_pack_gives_…` |
| kBONK, kPEPE are 1000 coins | `test_a_thousand_coins_…` |
"""  # noqa: E501

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fedtrade.learning import context
from fedtrade.learning.folder import DataFolder
from fedtrade.learning.tables import HOUR_S

PACK = Path(__file__).parents[4] / "shared" / "data"
SWITCH = datetime(2023, 6, 8, tzinfo=UTC)
SWITCH_S = int(SWITCH.timestamp())
UNKNOWN_GAS = 2**64 - 1


@pytest.fixture(scope="module")
def pack():
    if not PACK.is_dir():
        pytest.skip("the research pack is not here (shared/data)")
    return DataFolder(PACK)


def settled(hours, rate=1.25e-5, since=SWITCH):
    ts = [since + timedelta(hours=h, milliseconds=254) for h in hours]
    frame = pl.DataFrame({"ts": ts, "funding_rate": [rate] * len(ts)})
    return frame.with_columns(pl.col("ts").cast(pl.Datetime("ms", "UTC")))


def write(path, frame):
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(path)


# -- clocks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "behind_s"),
    [("binance_usdm_btcusdt_20240808", 1.27), ("binance_usdm_btcusdt_20240718", 1.52)],
)
def test_a_receive_clock_behind_the_venues_is_no_latency(pack, name, behind_s):
    """Both clocks come out of the feed as they are: nothing is "fresh" by their difference."""
    import zstandard

    from fedtrade.market.feeds.binance import Binance
    from fedtrade.market.feeds.events import Market, Traded

    feed, seen = Binance("usdm", [Market("binance usdm", "BTCUSDT")], "0ms"), []
    feed.connected(0)
    with zstandard.open(PACK / "ws_frames" / f"{name}.jsonl.zst", "rb") as file:
        lines = io.BufferedReader(file)
        for line in [next(lines) for _ in range(3000)]:
            at, _, frame = line.partition(b" ")
            if b'"lastUpdateId"' not in frame[:20]:
                seen += [e for e in feed.received(frame, int(at)) if isinstance(e, Traded)]
    behind = np.array([e.venue_ns - e.at_ns for e in seen]) / 1e9
    assert len(seen) > 50
    assert (behind > 0).all(), "received before it was sent, were the clocks one"
    assert np.median(behind) == pytest.approx(behind_s, abs=0.2)


# -- funding ------------------------------------------------------------------------------------


def test_hyperliquid_settles_every_8_hours_until_june_2023_and_hourly_since(pack):
    rates = pack.funding("hyperliquid", "ETH")
    raw = pl.read_parquet(PACK / "funding" / "hyperliquid_1h.parquet").filter(symbol="ETH-USD")
    first = context.funding_per_8h(raw, "hyperliquid")
    factor = first["funding_rate"].to_numpy() / raw.sort("ts")["funding_rate"].to_numpy()
    before = first["known_s"].to_numpy() <= SWITCH_S
    assert 10 < before.sum() < 100
    assert np.allclose(factor[before], 1.0, equal_nan=True)
    assert np.allclose(factor[~before], 8.0, equal_nan=True)
    common = rates.value[rates.known_s > SWITCH_S]
    assert np.isclose(common, 1e-4).mean() > 0.2, "0.01 % per 8 h is the venue's resting rate"


def test_a_missing_print_does_not_make_an_hourly_rate_a_slower_one():
    rates = context.funding_per_8h(settled([1, 2, 4, 6, 7]), "hyperliquid")
    assert rates["funding_rate"].to_list() == pytest.approx([1e-4] * 5)
    rates = context.funding_per_8h(settled([0, 4, 8, 16, 20, 24], 5e-5), "binance")
    assert rates["funding_rate"].to_list() == pytest.approx([1e-4] * 6)


def test_periods_of_a_coin_that_changes_them_are_seen():
    hours = [0, 8, 16, 24, 28, 32, 36, 37, 38, 39]
    period = context.periods_h(SWITCH_S + np.array(hours) * HOUR_S, "binance")
    assert period.tolist() == [8, 8, 8, 8, 4, 4, 4, 1, 1, 1]
    after_a_hole = [0, 8, 16, 16 + 2224, 24 + 2224, 32 + 2224]
    assert (context.periods_h(SWITCH_S + np.array(after_a_hole) * HOUR_S, "binance") == 8).all()
    assert context.periods_h(np.array([SWITCH_S]), "bybit").tolist() == [8]
    assert context.periods_h(np.array([SWITCH_S]), "dydx").tolist() == [1]


def test_periods_differ_by_venue_and_coin_in_the_pack(pack):
    raw = pl.read_parquet(PACK / "funding" / "cross_venue.parquet")
    for venue, symbol, per_8h in [
        ("binance", "BTC", 1),
        ("binance", "HYPE", 2),
        ("bybit", "HYPE", 1),
        ("hyperliquid", "HYPE", 8),
    ]:
        own = raw.filter(venue=venue, symbol=symbol).sort("ts")
        made = context.funding_per_8h(own, venue)["funding_rate"].to_numpy()
        assert np.allclose(made, own["funding_rate"].to_numpy() * per_8h)
    ena = pl.read_parquet(PACK / "funding" / "binance_usdm.parquet").filter(symbol="ENAUSDT")
    made = context.funding_per_8h(ena, "binance")["funding_rate"].to_numpy()
    assert np.allclose(made, ena.sort("ts")["funding_rate"].to_numpy() * 2)


def test_the_early_sample_is_known_an_hour_later_and_gives_way_to_what_settled(pack):
    raw = pl.read_parquet(PACK / "funding" / "cross_venue.parquet")
    raw = raw.filter(venue="hyperliquid", symbol="BTC")
    own = pl.read_parquet(PACK / "funding" / "hyperliquid_1h.parquet").filter(symbol="BTC-USD")
    truth = context.merged_funding(context.funding_per_8h(own, "hyperliquid"), None)
    sample = context.merged_funding(None, context.funding_per_8h(raw, "hyperliquid"))
    hours = np.arange(sample.known_s[0] + 48 * HOUR_S, truth.known_s[-1] - 48 * HOUR_S, HOUR_S)

    def agreement(shift_h):
        return np.corrcoef(sample.at(hours - shift_h * HOUR_S), truth.at(hours))[0, 1]

    assert agreement(1) > 0.95
    assert agreement(1) > agreement(0) + 0.05, "it peeks: it is an hour ahead of what settles"
    used = pack.funding("hyperliquid", "BTC")
    printed = hours[np.isin(hours, truth.known_s)]
    assert len(printed) > 0.99 * len(hours)
    assert np.array_equal(used.at(printed), truth.at(printed)), "what settled comes first"
    later = used.known_s > truth.known_s[-1]
    first_s = int(raw["ts"].min().timestamp())
    assert later.sum() > 1000
    assert used.known_s[later].max() == int(raw["ts"].max().timestamp()) + HOUR_S
    early = context.funding_per_8h(raw, "hyperliquid", HOUR_S)
    assert early["known_s"].min() == first_s + HOUR_S


# -- amounts ------------------------------------------------------------------------------------


def test_base_and_quote_volume_of_the_real_file_are_the_right_way_round(pack, tmp_path):
    name = "spot_ohlcv/btcusd_1h_2018_2022.parquet"
    good = pl.read_parquet(PACK / name)
    odd = pl.int_range(pl.len()) % 7 == 3
    swapped = good.with_columns(
        pl.when(odd).then("volume_usd").otherwise("volume").alias("volume"),
        pl.when(odd).then("volume").otherwise("volume_usd").alias("volume_usd"),
    )
    write(tmp_path / name, swapped)
    made = DataFolder(tmp_path).candles("unnamed_spot", "BTC").notional_usd
    expected = pack.candles("unnamed_spot", "BTC").notional_usd
    assert (made == expected).mean() > 0.9995, "but for the bars that traded nothing"
    assert np.median(expected) > 1e5


def test_liquidations_off_by_1e20_are_left_out(pack, tmp_path):
    name = "liquidations/aave_v2_ethereum.parquet"
    good = pl.read_parquet(PACK / name)
    broken = pl.int_range(pl.len()) % 2 == 0
    off = pl.when(broken).then(pl.col("collateral_usd") * 1e20).otherwise("collateral_usd")
    write(tmp_path / name, good.with_columns(off.alias("collateral_usd")))
    half = DataFolder(tmp_path).liquidations("aave", "ETH").value.sum()
    whole = pack.liquidations("aave", "ETH").value.sum()
    assert 0.1 * whole < half < 0.9 * whole
    assert 1e7 < whole < 1e9


def test_gas_that_cannot_be_is_unknown(pack, tmp_path):
    import zstandard

    with zstandard.open(PACK / "mev" / "blocks_with_traces.jsonl.zst", "rb") as file:
        blocks = [json.loads(line) for line in file.read().splitlines()]
    used = [r["gas_used"] for block in blocks for r in block["receipts"]]
    used = [int(g, 16) if isinstance(g, str) else g for g in used]
    known = [g for g in used if g is not None]
    assert known.count(UNKNOWN_GAS) == 42
    frame = pl.DataFrame(
        {
            "block": range(len(known) + 3),
            "tx_index": [0] * (len(known) + 3),
            "gas_used": pl.Series([*known, UNKNOWN_GAS, 1, 21_000], dtype=pl.UInt64),
        }
    )
    write(tmp_path / "mev" / "block_receipts.parquet", frame)
    made = DataFolder(tmp_path).receipts()["gas_used"]
    assert made[-3:].to_list() == [None, None, 21_000]
    assert made.drop_nulls().max() < 30_000_000
    assert made.drop_nulls().min() == 21_000
    real = pack.receipts()["gas_used"]
    assert real.drop_nulls().min() >= 21_000
    assert 0 < real.null_count() < len(real)


def test_a_gas_price_of_2_to_the_64_is_unknown(tmp_path):
    days = pl.Series([SWITCH + timedelta(days=d) for d in range(3)]).cast(pl.Datetime("ms", "UTC"))
    gwei = [20.0, UNKNOWN_GAS / 1e9, 30.0]
    frame = pl.DataFrame({"ts": days, "avg_gas_price_gwei": gwei})
    write(tmp_path / "gas" / "ethereum_daily_gas.parquet", frame)
    gas = DataFolder(tmp_path).gas()
    assert gas.value.tolist() == [20.0, 30.0]
    assert gas.known_s[0] == SWITCH_S + 24 * HOUR_S, "a day's mean is known when it is over"


def test_a_thousand_coins_are_priced_as_a_thousand(pack):
    """Daily turnover of kPEPE on Hyperliquid was tens of millions, not thousands or billions."""
    for symbol in ("kPEPE", "kBONK"):
        daily = pack.candles("hyperliquid", symbol).notional_usd.mean() * 24
        assert 1e7 < daily < 1e9


# -- the hole -----------------------------------------------------------------------------------


def test_no_row_and_no_funding_reaches_across_november_2022(pack):
    from fedtrade.learning.windows import market_table

    back_s = int(datetime(2022, 11, 21, tzinfo=UTC).timestamp())
    candles = pack.candles("binance", "BTC").between(back_s - 60 * 24 * HOUR_S, 2**40)
    ends = market_table(candles, back_s + 30 * 24 * HOUR_S, with_context=False).end_s
    first = ends[ends > back_s - 20 * 24 * HOUR_S].min()
    assert first == back_s + 168 * HOUR_S
    before_hole = ends[ends < back_s - 20 * 24 * HOUR_S]
    assert len(before_hole) > 100
    hole = np.arange(back_s - 17 * 24 * HOUR_S, back_s, HOUR_S)
    assert np.isnan(pack.funding_spread("BTC", hole)).all()
    assert np.isnan(pack.dvol("BTC").at(hole)).all()
    assert np.isnan(pack.gas().at(hole)).all()
    assert np.isfinite(pack.gas().at(hole - 20 * 24 * HOUR_S)).all()
