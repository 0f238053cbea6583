"""Planted leaks are caught, each by the check that is for it; honest features and models pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fedtrade.learning import leaks
from fedtrade.learning.baseline import HAR_FEATURES, fit_linear
from fedtrade.learning.features import PUBLIC_FEATURES, parkinson_variance, public_rows
from fedtrade.learning.leaks import Finding, LeakFound
from fedtrade.learning.tables import HOUR_S, Candles, candles
from fedtrade.learning.windows import market_table

MARKETS = (("binance", "BTC"), ("binance", "HYPE"), ("bybit", "SOL"))
DATA = Path(__file__).parents[4] / "shared" / "data"


def honest(of: Candles) -> tuple[np.ndarray, np.ndarray]:
    return public_rows(of, with_context=False)


def peeking(of: Candles) -> tuple[np.ndarray, np.ndarray]:
    """The variance of an hour under the name of the hour before."""
    end_s, rows = honest(of)
    after = np.roll(np.log(parkinson_variance(of.high, of.low) + 1e-10), -1)
    rows[:, 0] = after[np.searchsorted(of.end_s, end_s)]
    return end_s, rows


def normalised_by_all_time(of: Candles) -> tuple[np.ndarray, np.ndarray]:
    """The classical accident: a mean over the whole sample."""
    end_s, rows = honest(of)
    rows[:, 3] -= rows[:, 3].mean()
    return end_s, rows


@pytest.mark.parametrize("market", MARKETS)
def test_honest_features_do_not_move_with_the_future(market: tuple[str, str]) -> None:
    assert leaks.future(honest, candles(*market), seed=1, names=PUBLIC_FEATURES).passed
    assert leaks.future(public_rows, candles(*market), seed=2).passed  # with what is beside them


@pytest.mark.parametrize(("rows", "column"), [(peeking, 0), (normalised_by_all_time, 3)])
def test_features_that_see_ahead_are_named(rows: leaks.Rows, column: int) -> None:
    found = leaks.future(rows, candles("binance", "BTC"), seed=1, names=PUBLIC_FEATURES)
    assert not found.passed
    assert PUBLIC_FEATURES[column] in found.detail


def test_rows_that_come_with_later_bars_are_caught() -> None:
    def survivors(of: Candles) -> tuple[np.ndarray, np.ndarray]:
        end_s, rows = honest(of)
        keep = slice(None) if of.close[-1] > np.median(of.close) else slice(1, None)
        return end_s[keep], rows[keep]

    found = [
        leaks.future(survivors, candles("binance", "BTC"), seed=seed).passed for seed in range(4)
    ]
    assert not all(found)


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("head", [0, 1])
def test_honest_columns_pass(market: tuple[str, str], head: int) -> None:
    table = market_table(candles(*market), 2**40)
    found = leaks.columns(
        table.end_s, table.features, PUBLIC_FEATURES, table.targets[:, head], "honest"
    )
    assert [f for f in found if not f.passed] == []
    assert float(found[0].detail.split("more than ")[1][:4]) < leaks.TELLING


@pytest.mark.parametrize("noise", [0.0, 1.0, 2.0])
def test_a_column_that_peeks_is_caught_in_the_table_even_through_noise(noise: float) -> None:
    table = market_table(candles("binance", "BTC"), 2**40)
    draw = np.random.default_rng(0).standard_normal(len(table.end_s))
    planted = table.features.copy()
    planted[:, 7] = table.targets[:, 0] + noise * draw
    found = leaks.columns(table.end_s, planted, PUBLIC_FEATURES, table.targets[:, 0], "BTC")
    assert [f.passed for f in found] == [False]
    assert PUBLIC_FEATURES[7] in found[0].detail
    late = planted.copy()  # the same column an hour later is honest
    late[1:, 7] = planted[:-1, 7]
    found = leaks.columns(table.end_s, late, PUBLIC_FEATURES, table.targets[:, 0], "BTC")
    assert found[0].passed


def test_a_column_that_sees_two_hours_is_caught_too() -> None:
    table = market_table(candles("binance", "BTC"), 2**40)
    planted = table.features.copy()
    target = table.targets[:, 0]
    planted[:, 7] = target + np.roll(target, -1)
    found = leaks.columns(table.end_s, planted, PUBLIC_FEATURES, target, "BTC")
    assert [f.passed for f in found] == [False]


@pytest.mark.parametrize("weeks", [4, 8])
def test_the_mean_of_past_weeks_is_honest(weeks: int) -> None:
    """Also on two months of rows, where each hour of the week has come only eight times."""
    table = market_table(candles("binance", "BTC"), 2**40)
    target = table.targets[:, 0]
    usual = np.mean([np.roll(target, 168 * week) for week in range(1, weeks + 1)], axis=0)
    for rows in (slice(168 * weeks, None), slice(-1_440, None)):
        found = leaks.columns(
            table.end_s[rows], usual[rows, None], ["usual"], target[rows], "two months"
        )
        assert found[0].passed
        assert "too few" not in found[0].detail


@pytest.mark.parametrize("market", MARKETS)
def test_an_honest_forecast_passes_and_a_peeking_one_does_not(market: tuple[str, str]) -> None:
    table = market_table(candles(*market), 2**40)
    har = fit_linear([table], "log_variance", HAR_FEATURES).predict(table.features)
    target = table.targets[:, 0]
    checks = {f.check: f for f in leaks.forecast(table.end_s, har, target, "HAR")}
    assert checks["forecast"].passed
    assert checks["ceiling"].passed
    half = {f.check: f for f in leaks.forecast(table.end_s, (har + target) / 2, target, "half")}
    assert not half["forecast"].passed
    assert not half["ceiling"].passed
    with pytest.raises(LeakFound, match="forecast check failed for half") as caught:
        leaks.refuse([*checks.values(), *half.values()])
    assert len(caught.value.findings) == 2
    leaks.refuse(checks.values())


def test_a_forecast_that_has_learnt_nothing_is_no_leak() -> None:
    """By chance it moves with the next hour as much as with the last one."""
    table = market_table(candles("binance", "BTC"), 2**40)
    target = table.targets[:, 0]
    ahead = 0
    for seed in range(8):
        noise = np.random.default_rng(seed).standard_normal(len(target))
        checks = leaks.forecast(table.end_s, noise, target, "noise")
        ahead += float(checks[0].detail[12:16]) > float(checks[0].detail.split(", ")[1][:4])
        leaks.refuse(checks)
    assert ahead > 0


def test_a_target_of_the_last_hour_is_the_hour_off_forecast_that_passes() -> None:
    table = market_table(candles("binance", "BTC"), 2**40)
    persistence = np.roll(table.targets[:, 0], 1)
    assert all(
        f.passed for f in leaks.forecast(table.end_s, persistence, table.targets[:, 0], "last")
    )


def test_too_little_is_said_to_be_too_little() -> None:
    table = market_table(candles("binance", "BTC"), 2**40)
    few = slice(0, 200)
    args = (table.end_s[few], table.targets[few, 0], table.targets[few, 0], "few")
    assert leaks.forecast(*args) == [Finding("forecast", "few", True, "too few rows to tell (199)")]
    assert "too little" in leaks.alignment(np.zeros(50), np.zeros(50), "few").detail


def test_alignment_knows_ahead_from_behind() -> None:
    truth = np.cumsum(np.random.default_rng(0).standard_normal(2000))
    noisy = truth + 0.2 * np.random.default_rng(1).standard_normal(2000)
    assert leaks.alignment(noisy, truth, "same").passed
    assert leaks.alignment(np.roll(noisy, 2), truth, "late").passed
    ahead = leaks.alignment(np.roll(noisy, -1), truth, "early")
    assert not ahead.passed
    assert "+1 h" in ahead.detail


@pytest.mark.data
@pytest.mark.parametrize("coin", ["BTC", "ETH", "SOL"])
def test_the_misaligned_funding_of_the_data_card_is_caught(coin: str) -> None:
    """Its Hyperliquid samples carry the hour that they are for, and settle an hour later."""
    if not DATA.is_dir():
        pytest.skip("the data pack is not here (shared/data)")
    both = []
    for name, symbol in (("cross_venue", coin), ("hyperliquid_1h", f"{coin}-USD")):
        frame = pl.read_parquet(DATA / "funding" / f"{name}.parquet")
        own = pl.col("symbol").is_in([symbol, coin])
        if "venue" in frame.columns:
            own &= pl.col("venue") == "hyperliquid"
        own_frame = frame.filter(own).select(
            pl.col("ts").dt.epoch("s") // HOUR_S, pl.col("funding_rate")
        )
        both.append(dict(own_frame.unique("ts").iter_rows()))
    hours = range(min(both[0]), max(both[0]) + 1)
    series, settled = (np.array([one.get(h, np.nan) for h in hours], float) for one in both)
    as_published = leaks.alignment(series, settled, f"hyperliquid/{coin} of cross_venue")
    assert not as_published.passed
    assert "+1 h" in as_published.detail
    shifted = np.concatenate([[np.nan], series[:-1]])  # as the package uses it
    assert leaks.alignment(shifted, settled, "an hour late").passed
