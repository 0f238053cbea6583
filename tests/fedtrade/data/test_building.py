"""Training tables: causal, whole or not at all, and the same when a cut-off build is taken up."""

import hashlib
import json
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from fedtrade.cli import app
from fedtrade.data import building
from fedtrade.errors import BadInput
from fedtrade.learning.features import PUBLIC_FEATURES
from fedtrade.learning.folder import DataFolder
from fedtrade.learning.tables import HOUR_S

START = datetime(2024, 3, 1, tzinfo=UTC)
START_S = int(START.timestamp())
HOURS = 400
END_S = START_S + HOURS * HOUR_S


def write(path, frame):
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.with_columns(pl.col("ts").cast(pl.Datetime("ms", "UTC"))).write_parquet(path)


def walk(seed, symbol, hours=HOURS):
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, hours)))
    opening = np.concatenate([[100.0], close[:-1]])
    high = np.maximum(opening, close) * (1 + rng.uniform(0.001, 0.01, hours))
    low = np.minimum(opening, close) * (1 - rng.uniform(0.001, 0.01, hours))
    return pl.DataFrame(
        {
            "ts": [START + timedelta(hours=i) for i in range(hours)],
            "symbol": [symbol] * hours,
            "open": opening,
            "high": high,
            "low": low,
            "close": close,
            "volume": rng.uniform(10, 20, hours),
        }
    )


@pytest.fixture
def data(tmp_path):
    root = tmp_path / "data"
    bars = pl.concat([walk(1, "BTCUSDT"), walk(2, "ETHUSDT")])
    write(root / "perp_ohlcv" / "binance_usdm_1h.parquet", bars)
    rng = np.random.default_rng(3)
    for venue, every_h in (("binance_usdm", 8), ("hyperliquid_1h", 1)):
        hours = range(0, HOURS, every_h)
        table = pl.DataFrame(
            {
                "ts": [START + timedelta(hours=h) for h in hours],
                "symbol": ["BTCUSDT"] * len(hours),
                "funding_rate": rng.normal(0, 1e-4, len(hours)),
            }
        )
        write(root / "funding" / f"{venue}.parquet", table)
    days = pl.DataFrame(
        {
            "ts": [START + timedelta(days=d) for d in range(16)],
            "symbol": ["BTC"] * 16,
            "dvol": rng.uniform(40, 60, 16),
        }
    )
    write(root / "options" / "dvol_btc_daily.parquet", days)
    gas = days.rename({"dvol": "avg_gas_price_gwei"}).drop("symbol")
    write(root / "gas" / "ethereum_daily_gas.parquet", gas)
    return root


def built(data, out, **options):
    window = {"from_s": 0, "until_s": END_S} | options
    return building.build(DataFolder(data), out, **window)


def test_a_table_has_a_row_for_each_hour_that_has_a_week_behind_and_an_hour_before_it(
    data, tmp_path
):
    out = tmp_path / "train.parquet"
    manifest = built(data, out)
    table = pl.read_parquet(out)
    assert manifest["rows"] == table.height == 2 * (HOURS - 168)
    assert table["end_s"].min() == START_S + 168 * HOUR_S
    assert table["end_s"].max() == END_S - HOUR_S
    assert table.columns == [
        *("venue", "symbol", "end_s"),
        *PUBLIC_FEATURES,
        *("close", "mean_notional", *building.EXTRAS, *building.TARGETS),
    ]
    assert hashlib.sha256(out.read_bytes()).hexdigest() == manifest["sha256"]
    bars = (data / "perp_ohlcv" / "binance_usdm_1h.parquet").read_bytes()
    assert manifest["inputs"]["perp_ohlcv/binance_usdm_1h.parquet"] == (
        hashlib.sha256(bars).hexdigest()
    )
    bitcoin = table.filter(symbol="BTC")
    assert (bitcoin["funding_known"] == 1).all()
    assert bitcoin["funding_spread"].std() > 0
    assert (table.filter(symbol="ETH")["funding_known"] == 0).all()
    assert bitcoin["dvol_percent"].is_not_null().all()
    assert table.filter(symbol="ETH")["dvol_percent"].is_null().all()


def test_nothing_before_a_time_changes_when_all_that_comes_after_it_does(data, tmp_path):
    """Targets aside: the last of them lies in the hour after."""
    built(data, tmp_path / "a.parquet")
    now_s = START_S + 300 * HOUR_S
    now = datetime.fromtimestamp(now_s, UTC)
    rng = np.random.default_rng(9)
    for path in data.rglob("*.parquet"):
        frame = pl.read_parquet(path)
        width = {"perp_ohlcv": 1, "funding": 0, "options": 24, "gas": 24}[path.parent.name]
        after = pl.Series(frame["ts"].dt.offset_by(f"{width}h") > now)
        numbers = [c for c in frame.columns if frame[c].dtype == pl.Float64]
        factor = pl.Series(rng.uniform(2, 9, frame.height))  # one a row: bars stay bars
        changed = [pl.when(after).then(pl.col(c) * factor).otherwise(pl.col(c)) for c in numbers]
        frame.with_columns(changed).write_parquet(path)
    built(data, tmp_path / "b.parquet")
    a, b = (pl.read_parquet(tmp_path / f"{n}.parquet") for n in "ab")
    before = a["end_s"] <= now_s
    known = pl.exclude(building.TARGETS)
    assert a.filter(before).select(known).equals(b.filter(before).select(known))
    assert not a.filter(~before).select(known).equals(b.filter(~before).select(known))


def test_no_row_stands_on_hours_across_a_gap(data, tmp_path):
    path = data / "perp_ohlcv" / "binance_usdm_1h.parquet"
    bars = pl.read_parquet(path)
    gone = pl.col("ts").is_between(START + timedelta(hours=190), START + timedelta(hours=199))
    bars.filter(~gone).write_parquet(path)
    manifest = built(data, tmp_path / "t.parquet", symbols=["BTC"])
    ends = (pl.read_parquet(tmp_path / "t.parquet")["end_s"].to_numpy() - START_S) // HOUR_S
    assert ends.tolist() == [*range(168, 190), *range(200 + 168, HOURS)]
    gap = [START_S + 190 * HOUR_S, START_S + 200 * HOUR_S]
    assert [list(g) for g in manifest["per_market"][0]["gaps_s"]] == [gap]


def test_a_build_that_was_cut_off_goes_on_to_the_same_bytes(data, tmp_path):
    whole, cut = tmp_path / "whole.parquet", tmp_path / "cut.parquet"
    expected = built(data, whole)

    def only_the_first(markets):
        yield markets[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        built(data, cut, each=only_the_first)
    assert not cut.exists()
    parts = tmp_path / "cut.parquet.parts"
    first = (parts / "binance-BTC.parquet").stat().st_mtime_ns
    (parts / "binance-ETH.parquet.tmp").write_bytes(b"PAR1 torn")
    seen = []

    def watched(markets):
        for market in markets:
            yield market
            seen.append((parts / "binance-BTC.parquet").stat().st_mtime_ns)

    assert built(data, cut, each=watched)["sha256"] == expected["sha256"]
    assert set(seen) == {first}, "what was done is not done again"
    assert cut.read_bytes() == whole.read_bytes()
    assert not parts.exists()


def test_a_table_of_another_build_or_a_torn_one_is_refused(data, tmp_path):
    out = tmp_path / "t.parquet"
    built(data, out)
    assert built(data, out)["rows"] == 2 * (HOURS - 168), "the same build is done already"
    with pytest.raises(BadInput, match="is not what this build would give"):
        built(data, out, symbols=["BTC"])
    out.write_bytes(out.read_bytes()[:-100])
    with pytest.raises(BadInput, match="cut short"):
        built(data, out)
    other = tmp_path / "u.parquet"
    with pytest.raises(RuntimeError):
        built(data, other, each=lambda markets: (_ for _ in ()).throw(RuntimeError()))
    with pytest.raises(BadInput, match="parts of another build"):
        built(data, other, symbols=["BTC"])


def test_an_unknown_symbol_and_an_empty_window_are_one_sentence(data, tmp_path):
    with pytest.raises(BadInput, match=r"no bars of an hour or less for XYZ.*BTC, ETH"):
        built(data, tmp_path / "t.parquet", symbols=["BTC", "XYZ"])
    with pytest.raises(BadInput, match="168 hours without a gap"):
        built(data, tmp_path / "t.parquet", from_s=END_S + 1, until_s=END_S + 2)


def test_the_command_builds_from_an_export_of_the_user(tmp_path):
    export = tmp_path / "ETH export.csv"
    walk(5, "ETH").drop("symbol").rename({"ts": "Date", "volume": "Volume"}).write_csv(export)
    folder, out = tmp_path / "mine", tmp_path / "t.parquet"
    run = CliRunner().invoke
    taken = run(
        app,
        [
            "data",
            "import",
            str(export),
            "--data",
            str(folder),
            "--venue",
            "kraken",
            "--symbol",
            "ETH",
        ],
    )
    assert taken.exit_code == 0, taken.output
    made = run(
        app, ["data", "build", "--data", str(folder), "--out", str(out), "--from", "2024-03-10"]
    )
    assert made.exit_code == 0, made.output
    assert "of 1 markets, 0 gaps" in made.output
    table = pl.read_parquet(out)
    assert table["venue"].unique().to_list() == ["kraken"]
    assert table["end_s"].min() == START_S + 9 * 24 * HOUR_S
    manifest = json.loads((tmp_path / "t.parquet.manifest.json").read_text())
    assert list(manifest["inputs"]) == ["perp_ohlcv/kraken_1h_ETH.parquet"]
