"""A model judged on folders that are whole, torn, foreign or from another year."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from fedtrade.artifact import ArtifactInvalid, ArtifactMismatch, load, pack, sha256_of
from fedtrade.cli import app
from fedtrade.dashboard.scorecard import as_json
from fedtrade.errors import BadInput
from fedtrade.learning import baseline, rivals
from fedtrade.learning.contenders import WARM_UP_H, as_before, table_of
from fedtrade.learning.features import MEMORY_H
from fedtrade.learning.folder import DataFolder
from fedtrade.learning.scorecard import (
    EVER_S,
    SCHEMA,
    Scorecard,
    day_s,
    evaluate_folder,
    read_artifact,
)
from fedtrade.learning.tables import HOUR_S

BYTES = baseline.base_artifact((4,), seed=1)
MODEL = load(BYTES, sha256_of(BYTES))
START_S = int(datetime(2031, 3, 1, tzinfo=UTC).timestamp())
CUT_S = START_S + 1500 * HOUR_S
HOURS = 2600


def bars(symbol: str, seed: int, hours: int = HOURS, start_s: int = START_S) -> pl.DataFrame:
    """Hourly bars whose variance is persistent and has a daily rhythm, so that HAR has a hold."""
    draw = np.random.default_rng(seed)
    level = np.zeros(hours)
    for i in range(1, hours):
        level[i] = 0.97 * level[i - 1] + 0.25 * draw.standard_normal()
    deviation = 0.004 * np.exp(level / 2 + 0.3 * np.sin(2 * np.pi * np.arange(hours) / 24))
    steps = draw.standard_normal((hours, 12)) * deviation[:, None] / np.sqrt(12)
    path = np.concatenate([np.zeros((hours, 1)), np.cumsum(steps, axis=1)], axis=1)
    path += np.concatenate([[0.0], np.cumsum(steps.sum(1))[:-1]])[:, None]
    price = 100.0 * np.exp(path)
    return pl.DataFrame(
        {
            "ts": pl.from_epoch(
                pl.Series(start_s + HOUR_S * np.arange(hours))
            ).dt.replace_time_zone("UTC"),
            "symbol": [symbol] * hours,
            "open": price[:, 0],
            "high": price.max(1),
            "low": price.min(1),
            "close": price[:, -1],
            "volume": 1e4 * np.exp(0.7 * level + 0.3 * draw.standard_normal(hours)),
        }
    )


def write(folder: Path, frame: pl.DataFrame, name: str = "binance_usdm_1h") -> Path:
    (folder / "perp_ohlcv").mkdir(parents=True, exist_ok=True)
    frame.write_parquet(folder / "perp_ohlcv" / f"{name}.parquet")
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two coins that nobody has heard of, in a year that is to come, and nothing but candles."""
    folder = tmp_path_factory.mktemp("plain")
    return write(folder, pl.concat([bars("AAAUSDT", 1), bars("BBBUSDT", 2)]))


@pytest.fixture(scope="module")
def card(plain: Path) -> Scorecard:
    return evaluate_folder(MODEL, plain, CUT_S, EVER_S, with_rivals=False)


def test_unknown_coins_of_another_year_are_judged_on_candles_alone(card: Scorecard) -> None:
    assert [(m.venue, m.symbol, m.hours) for m in card.markets] == [
        ("binance", "AAA", 1100),
        ("binance", "BBB", 1100),
    ]
    names = [window.name for window in card.pooled]
    assert names == ["all", "2031-05", "2031-06"]
    whole = card.pooled[0]
    assert whole.metrics["model"].hours == 2200
    assert sum(w.metrics["model"].hours for w in card.pooled[1:]) == 2200
    assert whole.metrics["har"].r2 > 0.3 > whole.metrics["seasonal"].r2
    assert whole.metrics["model"].qlike < whole.metrics["persistence"].qlike
    assert whole.coverage.variance == pytest.approx(0.9, abs=0.02)
    assert whole.coverage.demand == pytest.approx(0.9, abs=0.02)
    assert all(finding.passed for finding in card.gate)
    assert {finding.check for finding in card.gate} == {"future", "column", "forecast", "ceiling"}
    assert card.notes == ()
    assert card.better["persistence"] == 1.0
    assert {t.loss for t in card.tests["persistence"]} == {
        "qlike",
        "squared_error",
        "demand_squared_error",
    }
    assert all(t.statistic < 0 and t.p < 1e-4 for t in card.tests["persistence"])


def test_every_forecast_is_scored_against_the_hour_after(plain: Path, card: Scorecard) -> None:
    """By hand: persistence of the first market from its bars."""
    frame = bars("AAAUSDT", 1)
    variance = np.log(frame["high"] / frame["low"]).to_numpy() ** 2 / (4 * np.log(2))
    log_v = np.log(variance)[1499:]
    truth, last = log_v[1:], log_v[:-1]
    own = card.markets[0].windows[0].metrics["persistence"]
    assert own.mse == pytest.approx(np.square(truth - last).mean())
    assert own.qlike == pytest.approx((np.exp(truth - last) - (truth - last) - 1).mean())


def test_as_before_is_the_same_hour_of_another_day(plain: Path) -> None:
    folder = DataFolder(plain)
    table = table_of(folder, folder.candles("binance", "AAA"), EVER_S)
    week = as_before(table, 168 * HOUR_S)
    assert np.isnan(week[:168]).all()
    assert (week[168:] == table.targets[:-168]).all()


def test_har_is_fitted_on_the_past_only(tmp_path: Path, card: Scorecard) -> None:
    """Other bars after the cut: what HAR forecasts for the first hour of the period stays."""
    frame = pl.concat([bars("AAAUSDT", 1), bars("BBBUSDT", 2)])
    cut = datetime.fromtimestamp(CUT_S + 30 * 24 * HOUR_S, UTC)
    wild = frame.with_columns(
        *(
            pl.when(pl.col("ts") < cut).then(pl.col(n)).otherwise(pl.col(n) * f)
            for n, f in (("high", 1.2), ("low", 0.8), ("open", 1.0), ("close", 1.0))
        )
    )
    other = evaluate_folder(MODEL, write(tmp_path, wild), CUT_S, EVER_S, with_rivals=False)
    first, first_other = (c.pooled[1].metrics["har"] for c in (card, other))
    assert first.mse == first_other.mse
    assert card.pooled[0].metrics["har"].mse != other.pooled[0].metrics["har"].mse


def test_a_folder_without_any_past_borrows_har_and_warms_its_intervals_up(plain: Path) -> None:
    card = evaluate_folder(MODEL, plain, START_S, EVER_S, with_rivals=True)
    assert card.markets[0].hours == HOURS - MEMORY_H  # 167 to warm up, and the last has no next one
    assert card.pooled[0].coverage.hours == 2 * (HOURS - MEMORY_H - WARM_UP_H)
    assert any("of the artifact" in note for note in card.notes)
    assert "lightgbm" not in card.pooled[0].metrics  # nothing to fit it on
    har, model = (card.pooled[0].metrics[n] for n in ("har", "model"))
    assert har.mse == pytest.approx(model.mse, rel=1e-5)  # an untrained model is its baseline


def test_a_gap_is_counted_and_never_bridged(tmp_path: Path) -> None:
    frame = bars("AAAUSDT", 1)
    hole = slice(2000, 2050)
    torn = pl.concat([frame[: hole.start], frame[hole.stop :]])
    one = evaluate_folder(MODEL, write(tmp_path, torn), CUT_S, EVER_S, with_rivals=False).markets[0]
    # Without the hour before the hole, whose next one is missing, and until 168 h are there again.
    assert one.hours == 1100 - 50 - MEMORY_H
    assert one.missing_hours == 50 + MEMORY_H


def test_the_crash_windows_are_found_where_the_data_has_them(tmp_path: Path) -> None:
    start_s = int(datetime(2024, 5, 20, tzinfo=UTC).timestamp())
    folder = write(tmp_path, bars("AAAUSDT", 1, start_s=start_s))
    card = evaluate_folder(MODEL, folder, day_s("2024-07-20", 0), EVER_S, with_rivals=False)
    crash = next(w for w in card.pooled if w.name.startswith("crash"))
    assert crash.name == "crash 2024-08-05"
    assert crash.metrics["model"].hours == 24
    assert any("not out of sample" in note for note in card.notes)


@pytest.mark.parametrize(
    ("venues", "symbols", "from_s", "sentence"),
    [
        ((), ("XRP",), CUT_S, "no hourly bars of this symbol. It has them of AAA, BBB"),
        (("kraken",), (), CUT_S, "no hourly bars of this venue. It has them of binance"),
        ((), (), CUT_S + 20_000 * HOUR_S, "Its bars run from 2031-03-01 01:00 to 2031-06-17"),
        ((), (), EVER_S, "Choose an earlier day"),
    ],
)
def test_what_is_not_there_is_said_in_a_sentence(
    plain: Path, venues: tuple[str, ...], symbols: tuple[str, ...], from_s: int, sentence: str
) -> None:
    with pytest.raises(BadInput, match=sentence):
        evaluate_folder(MODEL, plain, from_s, EVER_S, venues, symbols, with_rivals=False)


def test_a_market_that_cannot_be_judged_does_not_spoil_the_others(tmp_path: Path) -> None:
    folder = write(tmp_path, bars("AAAUSDT", 1))
    write(folder, bars("BBB", 2, hours=500), "bybit_1h")  # ends before the period
    write(folder, bars("CCC", 3, hours=100, start_s=CUT_S), "okx_1h")  # never warm
    card = evaluate_folder(MODEL, folder, CUT_S, EVER_S, with_rivals=False)
    assert [m.symbol for m in card.markets] == ["AAA"]
    assert card.skipped["bybit/BBB"] == "no bars in the period"
    assert f"{MEMORY_H} hours" in card.skipped["okx/CCC"]


def test_an_empty_folder_and_an_unreadable_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no hourly bars"):
        evaluate_folder(MODEL, tmp_path, CUT_S, EVER_S)
    with pytest.raises(BadInput, match="no such folder"):
        evaluate_folder(MODEL, tmp_path / "nowhere", CUT_S, EVER_S)
    (tmp_path / "perp_ohlcv").mkdir()
    (tmp_path / "perp_ohlcv" / "binance_1h.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(BadInput, match="binance_1h"):
        evaluate_folder(MODEL, tmp_path, CUT_S, EVER_S)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("moon_phase", *MODEL.manifest.features[1:]), "cannot compute .moon_phase"),
        (MODEL.manifest.features[::-1], "an order of their own"),
    ],
)
def test_a_model_with_features_of_another_version_is_refused(
    plain: Path, names: tuple[str, ...], sentence: str
) -> None:
    data = pack(MODEL.arrays, MODEL.manifest.model_copy(update={"features": names}))
    with pytest.raises(ArtifactInvalid, match=sentence):
        evaluate_folder(load(data, sha256_of(data)), plain, CUT_S, EVER_S)


def test_the_rivals_are_fitted_where_they_are_installed(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if rivals.missing():
        pytest.skip(f"not installed: {rivals.missing()}")
    card = evaluate_folder(MODEL, plain, CUT_S, EVER_S, symbols=("AAA",))
    metrics = card.pooled[0].metrics
    assert 0.1 < metrics["garch"].r2 < metrics["har"].r2
    assert metrics["garch"].demand_r2 is None
    assert metrics["lightgbm"].r2 > 0.25
    monkeypatch.setattr(rivals, "missing", lambda: ("lightgbm", "arch"))
    without = evaluate_folder(MODEL, plain, CUT_S, EVER_S, symbols=("AAA",))
    assert "garch" not in without.pooled[0].metrics
    assert any("lightgbm and arch" in note for note in without.notes)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[int, str, dict[str, object]]]:
    path = tmp_path / "artifact.safetensors"
    path.write_bytes(BYTES)

    def command(data: Path, *options: str) -> tuple[int, str, dict[str, object]]:
        out = tmp_path / "out" / "card.json"
        args = ["evaluate", "--artifact", str(path), "--data", str(data), "--no-rivals"]
        outcome = CliRunner().invoke(app, [*args, "--json", str(out), *options])
        error = outcome.exception
        said = outcome.output + (str(error) if error else "")
        code = getattr(error, "exit_code", outcome.exit_code)
        return code, said, json.loads(out.read_text()) if out.is_file() else {}

    return command


def test_the_command_says_it_in_tables_and_in_json(
    plain: Path, run: Callable[..., tuple[int, str, dict[str, object]]], card: Scorecard
) -> None:
    code, said, written = run(plain, "--from", "2031-05-02T12:00")
    assert code == 0, said
    assert written["schema"] == SCHEMA
    assert json.dumps(written) == json.dumps(json.loads(as_json(card)))
    for word in ("binance/AAA", "2031-05", "Leak gate", "persistence", "QLIKE", "beaten"):
        assert word in said


def test_the_command_ends_with_2_where_the_gate_finds_a_leak(
    tmp_path: Path, run: Callable[..., tuple[int, str, dict[str, object]]]
) -> None:
    """A folder whose cross-venue funding runs three hours ahead of what settled."""
    folder = write(tmp_path / "leaky", bars("BTC", 1))
    (folder / "funding").mkdir()
    ts = bars("BTC", 1)["ts"]
    rate = 1e-5 * np.random.default_rng(0).standard_normal(HOURS)
    frame = pl.DataFrame({"ts": ts, "symbol": ["BTC"] * HOURS, "funding_rate": rate})
    frame.write_parquet(folder / "funding" / "hyperliquid_1h.parquet")
    ahead = frame.with_columns(
        pl.Series("funding_rate", np.roll(rate, -3)), pl.lit("hyperliquid").alias("venue")
    )
    ahead.write_parquet(folder / "funding" / "cross_venue.parquet")
    code, said, written = run(folder, "--from", "2031-05-02T12:00")
    assert code == 2
    assert "alignment check failed" in said
    assert any(not f["passed"] for f in written["gate"])  # and the figures are there all the same


def test_the_command_refuses_with_a_sentence(
    plain: Path, run: Callable[..., tuple[int, str, dict[str, object]]], tmp_path: Path
) -> None:
    code, said, _ = run(plain, "--from", "May")
    assert (code, "Write it as 2025-01-01" in said) == (2, True)
    code, said, _ = run(plain, "--expect", "0" * 64)
    assert (code, "expected 0000" in said) == (2, True)
    with pytest.raises(BadInput, match="cannot be read"):
        read_artifact(tmp_path / "none")
    with pytest.raises(ArtifactMismatch):
        read_artifact(tmp_path / "artifact.safetensors", "1" * 64)
