"""Folders in the layout of the research pack: whole, partial, dirty, and the real one."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fedtrade.errors import BadInput
from fedtrade.learning import tables
from fedtrade.learning.folder import DataFolder, coin
from fedtrade.learning.tables import HOUR_S

PACK = Path(__file__).parents[4] / "shared" / "data"
START = datetime(2024, 3, 1, tzinfo=UTC)
START_S = int(START.timestamp())


@pytest.fixture(scope="module")
def pack():
    if not PACK.is_dir():
        pytest.skip("the research pack is not here (shared/data)")
    return DataFolder(PACK)


def bars(n, width_s=HOUR_S, start=START, symbol="BTCUSDT", price=100.0, **columns):
    """n bars that rise by 1 each; `columns` replace or add."""
    opens = [price + i for i in range(n)]
    table = {
        "ts": [start + timedelta(seconds=i * width_s) for i in range(n)],
        "symbol": [symbol] * n,
        "open": opens,
        "high": [o + 2.0 for o in opens],
        "low": [o - 1.0 for o in opens],
        "close": [o + 1.0 for o in opens],
        "volume": [10.0] * n,
    } | columns
    return pl.DataFrame({k: v for k, v in table.items() if v is not None})


def put(root, name, frame):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.with_columns(pl.col("ts").cast(pl.Datetime("ms", "UTC"))).write_parquet(path)
    return DataFolder(root)


def settlements(hours, rate=0.0001, **columns):
    ts = [START + timedelta(hours=h, milliseconds=388) for h in hours]
    return pl.DataFrame({"ts": ts, "funding_rate": [rate] * len(ts)} | columns)


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        ("BTCUSDT", "BTC"),
        ("BTC-USD", "BTC"),
        ("BTC-PERP", "BTC"),
        ("BTCUSD", "BTC"),
        ("BTC", "BTC"),
        ("TUSD", "TUSD"),
        ("TUSDUSDT", "TUSD"),
        ("BTC-USDT-SWAP", "BTC"),
        ("USDCUSDT", "USDC"),
        ("1000PEPEUSDT", "kPEPE"),
        ("kPEPE-USD", "kPEPE"),
        ("1INCHUSDT", "1INCH"),
    ],
)
def test_a_coin_has_one_name(symbol, expected):
    assert coin(symbol) == expected


def test_notional_is_in_usd_whatever_the_file_gives(tmp_path):
    put(tmp_path, "perp_ohlcv/binance_usdm_1h.parquet", bars(3))
    both = bars(3, volume_usd=[1005.0, 1015.0, 1025.0])
    put(tmp_path, "perp_ohlcv/bybit_1h.parquet", both)
    folder = put(
        tmp_path, "perp_ohlcv/okx_1h.parquet", bars(3, volume=None, volume_usd=[7.0, 8.0, 9.0])
    )
    base = folder.candles("binance", "BTCUSDT")
    assert base.notional_usd.tolist() == [10 * 100.5, 10 * 101.5, 10 * 102.5]
    assert folder.candles("bybit", "BTC").notional_usd.tolist() == [1005.0, 1015.0, 1025.0]
    assert folder.candles("okx", "BTC").notional_usd.tolist() == [7.0, 8.0, 9.0]
    assert base.start_s.tolist() == [START_S, START_S + HOUR_S, START_S + 2 * HOUR_S]
    assert folder.notes == []


def test_base_and_quote_volume_that_were_exchanged_are_exchanged_back(tmp_path):
    usd = [10 * 100.5, 10 * 101.5, 10 * 102.5]
    swapped = bars(3, volume=[10.0, usd[1], 10.0], volume_usd=[usd[0], 10.0, usd[2]])
    folder = put(tmp_path, "spot_ohlcv/btcusd_1h.parquet", swapped)
    assert folder.candles("unnamed_spot", "BTC").notional_usd.tolist() == usd
    assert folder.notes == [
        "spot_ohlcv/btcusd_1h.parquet, unnamed_spot/BTC: "
        "1 bars whose base and quote volume were exchanged."
    ]


def test_wider_bars_are_made_only_of_complete_ones(tmp_path):
    frame = bars(8, 1800).filter(pl.int_range(pl.len()) != 3)  # the second hour lacks its half
    folder = put(tmp_path, "perp_ohlcv/binance_usdm_30m.parquet", frame)
    hourly = folder.candles("binance", "BTC")
    assert hourly.start_s.tolist() == [START_S, START_S + 2 * HOUR_S, START_S + 3 * HOUR_S]
    assert hourly.open.tolist() == [100.0, 104.0, 106.0]
    assert hourly.close.tolist() == [102.0, 106.0, 108.0]
    assert hourly.high.tolist() == [103.0, 107.0, 109.0]
    assert hourly.low.tolist() == [99.0, 103.0, 105.0]
    assert hourly.notional_usd[0] == pytest.approx(10 * 100.5 + 10 * 101.5)
    assert folder.markets(600) == ()


def test_a_bar_that_cannot_be_becomes_a_gap_and_is_counted(tmp_path):
    frame = bars(6)
    dirty = frame.with_columns(
        pl.when(pl.int_range(pl.len()) == 1).then(0.0).otherwise("low").alias("low"),
        pl.when(pl.int_range(pl.len()) == 2).then(1e9).otherwise("close").alias("close"),
        pl.when(pl.int_range(pl.len()) == 3).then(float("nan")).otherwise("volume").alias("volume"),
    )
    twice = frame.with_columns(pl.col("volume") + 1.0)[4:5]
    same = frame[5:6]
    folder = put(tmp_path, "perp_ohlcv/binance_usdm_1h.parquet", pl.concat([dirty, twice, same]))
    assert folder.candles("binance", "BTC").start_s.tolist() == [START_S, START_S + 5 * HOUR_S]
    assert "3 bars left out that cannot be" in folder.notes[0]
    assert "2 bars left out that share their time" in folder.notes[0]


def test_rows_in_any_order_give_the_same_candles(tmp_path):
    folder = put(tmp_path, "perp_ohlcv/a_1h.parquet", bars(50).sample(50, shuffle=True, seed=1))
    assert folder.candles("a", "BTC").open.tolist() == [100.0 + i for i in range(50)]


def test_the_venues_own_file_comes_before_the_shared_one(tmp_path):
    shared = bars(5, symbol="BTC", price=500.0, venue=["binance"] * 5)
    put(tmp_path, "perp_ohlcv/cross_venue_1h.parquet", shared)
    assert DataFolder(tmp_path).candles("binance", "BTC").open[0] == 500.0
    folder = put(tmp_path, "perp_ohlcv/binance_usdm_1h.parquet", bars(3))
    own = folder.candles("binance", "BTC")
    assert own.open.tolist() == [100.0, 101.0, 102.0]


def test_a_market_that_is_not_there_is_one_sentence_with_what_is(tmp_path):
    folder = put(tmp_path, "perp_ohlcv/binance_usdm_1h.parquet", bars(3))
    with pytest.raises(BadInput, match=r"no bars of 3600 s for it.*binance/BTC"):
        folder.candles("binance", "XYZ")
    with pytest.raises(BadInput, match=r"no bars of 60 s for it.*no market"):
        folder.candles("binance", "BTC", 60)
    with pytest.raises(BadInput, match="no such folder"):
        DataFolder(tmp_path / "absent")


def test_an_empty_folder_knows_nothing_and_says_so_quietly(tmp_path):
    folder = DataFolder(tmp_path)
    at = START_S + np.arange(5) * HOUR_S
    assert folder.markets() == ()
    assert np.isnan(folder.funding_spread("BTC", at)).all()
    assert np.isnan(folder.open_interest_change("BTC", at)).all()
    assert np.isnan(folder.dvol("BTC").at(at)).all()
    assert np.isnan(folder.gas().at(at)).all()
    assert np.isnan(folder.liquidations("aave", "ETH").at(at)).all()


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all, but long enough"])
def test_a_torn_file_is_named(tmp_path, content):
    (tmp_path / "perp_ohlcv").mkdir()
    (tmp_path / "perp_ohlcv" / "binance_usdm_1h.parquet").write_bytes(content)
    with pytest.raises(BadInput, match=r"perp_ohlcv/binance_usdm_1h\.parquet: it cannot be read"):
        DataFolder(tmp_path).markets()


def test_a_missing_column_is_named(tmp_path):
    folder = put(tmp_path, "perp_ohlcv/binance_usdm_1h.parquet", bars(3, close=None, volume=None))
    with pytest.raises(BadInput, match="no column close, volume or volume_usd"):
        folder.markets()


def test_a_column_of_words_is_named(tmp_path):
    folder = put(tmp_path, "perp_ohlcv/binance_usdm_1h.parquet", bars(3, close=["a", "b", "c"]))
    with pytest.raises(BadInput, match="its close is not a number"):
        folder.markets()
    dated = bars(3).with_columns(pl.col("ts").dt.date())
    dated.write_parquet(tmp_path / "perp_ohlcv" / "binance_usdm_1h.parquet")
    with pytest.raises(BadInput, match="its ts is not a date with a time"):
        DataFolder(tmp_path).markets()


def test_times_of_any_zone_and_unit_and_rows_without_a_symbol_are_taken_as_they_should(tmp_path):
    frame = bars(4).with_columns(pl.when(pl.int_range(4) != 1).then("symbol").alias("symbol"))
    there = pl.col("ts").dt.convert_time_zone("Asia/Tokyo").dt.cast_time_unit("ns")
    naive = pl.col("ts").dt.replace_time_zone(None)
    (tmp_path / "perp_ohlcv").mkdir()
    frame.with_columns(there).write_parquet(tmp_path / "perp_ohlcv" / "binance_a_1h.parquet")
    later = bars(2, start=START + timedelta(hours=4), volume=[3, 3]).with_columns(naive)
    later.write_parquet(tmp_path / "perp_ohlcv" / "binance_b_1h.parquet")
    folder = DataFolder(tmp_path)
    assert folder.markets() == (("binance", "BTC"),)
    hours = (folder.candles("binance", "BTC").start_s - START_S) // HOUR_S
    assert hours.tolist() == [0, 2, 3, 4, 5]


def test_a_file_without_a_width_in_its_name_tells_it_by_its_bars(tmp_path):
    folder = put(tmp_path, "perp_ohlcv/binance.parquet", bars(20, 900))
    assert folder.widths("binance", "BTC") == (900,)
    assert len(folder.candles("binance", "BTC").start_s) == 5


def test_open_interest_is_not_differenced_across_a_silence(tmp_path):
    days = [d for d in range(60) if not 20 <= d < 40]
    table = pl.DataFrame(
        {
            "ts": [START + timedelta(days=d) for d in days],
            "symbol": ["BTC"] * len(days),
            "contract": ["BTCUSD_PERP.A"] * len(days),
            "oi_close": [float(np.exp(d / 100)) for d in days],
        }
    )
    folder = put(tmp_path, "open_interest/coinalyze_daily.parquet", table)
    at = START_S + np.arange(62 * 24) * HOUR_S
    change = folder.open_interest_change("BTC", at)
    known = np.isfinite(change)
    assert np.allclose(change[known], 0.01)
    day = np.arange(62 * 24) / 24
    assert not known[(day >= 21) & (day < 42)].any()
    assert known[(day >= 2) & (day < 21)].all()
    assert known[(day >= 42) & (day < 61)].all()


# -- the real pack ------------------------------------------------------------------------------


def test_the_pack_gives_the_packaged_candles_but_for_the_thin_hyperliquid(pack):
    """The package has Hyperliquid from the shared file, whose volume is 0.43 of the venue's."""
    for venue, symbol in tables.markets():
        packaged, own = tables.candles(venue, symbol), pack.candles(venue, symbol)
        here = np.searchsorted(own.start_s, packaged.start_s)
        assert (own.start_s[here] == packaged.start_s).all()
        share = packaged.notional_usd / own.notional_usd[here]
        if venue == "hyperliquid":
            assert 0.2 < np.median(share) < 0.7
        else:
            assert np.abs(own.close[here] / packaged.close - 1).max() < 1e-6
            assert np.abs(share - 1).max() < 1e-6


def test_the_hole_of_november_2022_is_a_gap_in_every_market(pack):
    hole_s = (int(datetime(2022, 11, 1, tzinfo=UTC).timestamp()), 1_668_988_800)
    spans = 0
    for venue, symbol in pack.markets():
        candles = pack.candles(venue, symbol)
        assert not ((candles.end_s > hole_s[0]) & (candles.start_s < hole_s[1])).any()
        spans += candles.start_s[0] < hole_s[0] < candles.start_s[-1]
    assert spans >= 15
    at = np.arange(hole_s[0] - 90 * HOUR_S, hole_s[1] + 90 * HOUR_S, HOUR_S)
    change = pack.open_interest_change("BTC", at)
    inside = (at > hole_s[0] + 48 * HOUR_S) & (at < hole_s[1] + 48 * HOUR_S)
    assert np.isnan(change[inside]).all()
    assert np.isfinite(change[~inside]).sum() > 100


def test_bars_stamped_at_their_close_are_shifted(pack):
    """With the shift their hours are nearer those of another venue than without it."""
    raw = pl.read_parquet(PACK / "perp_ohlcv" / "btc_perp_1m_202201.parquet").sort("ts")
    minutes, binance = pack.candles("unnamed", "BTC", 60), pack.candles("binance", "BTC")
    stamped_s = raw["ts"].dt.epoch("s").to_numpy()
    assert (minutes.end_s == stamped_s).all()
    apart = {}
    for shift_s in (0, 60):
        hour = pl.Series((stamped_s - shift_s) // HOUR_S * HOUR_S)
        hours = raw.group_by(hour.alias("hour"), maintain_order=True).agg(
            pl.col("close").last(), pl.len()
        )
        whole = hours.filter(pl.col("len") == 60)
        here = np.searchsorted(binance.start_s, whole["hour"].to_numpy())
        apart[shift_s] = np.log(whole["close"].to_numpy() / binance.close[here]).std()
    assert apart[60] < 0.85 * apart[0]


def test_hours_made_of_five_minutes_are_the_hours_of_the_venue(pack, tmp_path):
    name = "perp_ohlcv/binance_usdm_5m.parquet"
    (tmp_path / "perp_ohlcv").mkdir()
    (tmp_path / name).symlink_to(PACK / name)
    made, own = DataFolder(tmp_path).candles("binance", "ETH"), pack.candles("binance", "ETH")
    here = np.searchsorted(own.start_s, made.start_s)
    assert (own.start_s[here] == made.start_s).all()
    assert (own.high[here] == made.high).all()
    assert (own.low[here] == made.low).all()
    apart = np.abs(own.notional_usd[here] / made.notional_usd - 1)  # of the mean price only
    assert np.median(apart) < 0.002
    assert apart.max() < 0.15
