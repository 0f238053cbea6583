"""Features are causal, the same in a stream and in a batch, and refuse torn input."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedtrade.errors import BadInput
from fedtrade.learning.features import (
    CANDLE_FEATURES,
    CONTEXT,
    FEATURES,
    MEMORY_H,
    PRIVATE_NEUTRAL,
    PUBLIC_FEATURES,
    SLOW_FEATURES,
    VARIANCE_FLOOR,
    VOLUME_FLOOR,
    FeatureStream,
    context_columns,
    neutral_rows,
    parkinson_variance,
    public_rows,
)
from fedtrade.learning.folder import DataFolder
from fedtrade.learning.tables import HOUR_S, Candles, candles, crash_minutes
from fedtrade.market.events import BarClosed

START_S = 1_741_824_000
PACK = Path(__file__).parents[4] / "shared" / "data"


def random_candles(seed: int, count: int, width_s: int = HOUR_S, start_s: int = START_S) -> Candles:
    draw = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(0.01 * draw.standard_normal(count)))
    opening = np.concatenate([[100.0], close[:-1]])
    up, down = np.exp(0.01 * draw.random((2, count)))
    return Candles(
        "venue",
        "COIN",
        width_s,
        start_s + width_s * np.arange(count),
        opening,
        np.maximum(opening, close) * up,
        np.minimum(opening, close) / down,
        close,
        1e6 * draw.random(count),
    )


def coarse(table: Candles, factor: int) -> Candles:
    """The same path in bars `factor` times as wide."""
    n = len(table.start_s) // factor

    def grouped(name: str) -> np.ndarray:
        series: np.ndarray = getattr(table, name)[: n * factor]
        return series.reshape(n, factor)

    return Candles(
        table.venue,
        table.symbol,
        table.width_s * factor,
        grouped("start_s")[:, 0],
        grouped("open")[:, 0],
        grouped("high").max(1),
        grouped("low").min(1),
        grouped("close")[:, -1],
        grouped("notional_usd").sum(1),
    )


def stream_rows(table: Candles) -> tuple[list[int], np.ndarray]:
    stream, ends, rows = FeatureStream(), [], []
    for bar in table.bars():
        stream.observe(bar)
        row = stream.row()
        if row is not None:
            assert stream.end_s is not None
            ends.append(stream.end_s)
            rows.append(row)
    return ends, np.array(rows)


def test_names_are_distinct_and_counted() -> None:
    assert len(set(FEATURES)) == len(FEATURES)
    assert len(PUBLIC_FEATURES[CONTEXT]) == 4
    assert set(SLOW_FEATURES) <= set(PUBLIC_FEATURES)


def test_parkinson_is_the_variance_of_a_random_walk() -> None:
    draw = np.random.default_rng(0)
    paths = np.cumsum(0.001 * draw.standard_normal((4000, 2000)), axis=1)
    high, low = np.exp(paths.max(1)), np.exp(paths.min(1))
    expected = 2000 * 0.001**2
    assert parkinson_variance(high, low).mean() == pytest.approx(expected, rel=0.05)


def test_streaming_equals_batch_on_real_candles() -> None:
    table = candles("binance", "ETH").between(0, START_S + 40 * 86_400)
    ends, rows = public_rows(table, with_context=False)
    streamed_ends, streamed = stream_rows(table)
    assert streamed_ends == ends.tolist()
    assert len(ends) > 700
    assert np.abs(streamed - neutral_rows(rows)).max() <= 1e-12


def test_streaming_equals_batch_on_recorded_candles() -> None:
    """To the bit, on whole histories with holes; with FEDTRADE_EVERY_SERIES set, on all of them."""
    if not (PACK / "perp_ohlcv").is_dir():
        pytest.skip("the data pack is not here (shared/data)")
    folder = DataFolder(PACK)
    some = (("lighter", "BTC"), ("bybit", "HYPE"), ("binance", "COMP"))
    for market in folder.markets() if "FEDTRADE_EVERY_SERIES" in os.environ else some:
        table = folder.candles(*market)
        ends, rows = public_rows(table, with_context=False)
        streamed_ends, streamed = stream_rows(table)
        assert streamed_ends == ends.tolist(), market
        assert np.array_equal(np.reshape(streamed, (-1, len(FEATURES))), neutral_rows(rows)), market


def test_streaming_equals_batch_across_a_gap() -> None:
    table = random_candles(1, 500)
    torn = replace(
        table,
        **{
            name: np.delete(getattr(table, name), slice(200, 203))
            for name in ("start_s", "open", "high", "low", "close", "notional_usd")
        },
    )
    ends, rows = public_rows(torn, with_context=False)
    streamed_ends, streamed = stream_rows(torn)
    assert streamed_ends == ends.tolist()
    assert np.abs(streamed - neutral_rows(rows)).max() <= 1e-12
    gap_s = int(table.end_s[199])
    assert not [end for end in streamed_ends if gap_s < end < gap_s + (3 + MEMORY_H) * HOUR_S]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(MEMORY_H, 219))
def test_the_future_changes_nothing(seed: int, known: int) -> None:
    """Replace and shuffle all bars after the first `known`: rows up to there stay, bit for bit."""
    table = random_candles(3, 220)
    other = random_candles(seed, 220)
    order = known + np.random.default_rng(seed).permutation(220 - known)
    names = ("open", "high", "low", "close", "notional_usd")
    changed = replace(
        table,
        **{n: np.concatenate([getattr(table, n)[:known], getattr(other, n)[order]]) for n in names},
    )
    _, before = public_rows(table, with_context=False)
    _, after = public_rows(changed, with_context=False)
    rows = known - MEMORY_H + 1
    assert np.array_equal(before[:rows], after[:rows])
    stream = FeatureStream()
    for bar in list(changed.bars())[:known]:
        stream.observe(bar)
    assert stream.row() is not None
    assert np.abs(stream.row()[: len(PUBLIC_FEATURES)] - before[rows - 1]).max() <= 1e-12  # type: ignore[index]


@pytest.mark.parametrize("factor", [60, 12, 4])
def test_fine_bars_give_the_rows_of_hours_on_the_hour(factor: int) -> None:
    fine = random_candles(5, 175 * factor, width_s=HOUR_S // factor)
    ends, rows = public_rows(coarse(fine, factor), with_context=False)
    fine_ends, fine_rows = stream_rows(fine)
    on_the_hour = {end: row for end, row in zip(fine_ends, fine_rows, strict=True)}
    for end, row in zip(ends.tolist(), neutral_rows(rows), strict=True):
        assert np.abs(on_the_hour[end] - row).max() <= 1e-10


def assert_volumes_are_prorated(
    hours: Candles, minutes: list[BarClosed], row: NDArray[np.float64]
) -> None:
    """Between hours, a mean over n of them is what was traded since a time inside a bar, by share:
    the running total, interpolated between the ends of bars."""
    past = hours.end_s <= minutes[0].start_s
    at_s = [*hours.end_s[past].tolist(), *(bar.start_s + 60 for bar in minutes)]
    traded = [*hours.notional_usd[past].tolist(), *(bar.notional_usd for bar in minutes)]
    total = np.cumsum(traded)

    def mean(n: int) -> float:
        return float((total[-1] - np.interp(at_s[-1] - n * HOUR_S, at_s, total)) / n)

    for n in (1, 3, 6, 24, 72):
        wanted = math.log(mean(n) / mean(168))
        assert row[FEATURES.index(f"log_volume_{n}h")] == pytest.approx(wanted, abs=1e-12), n


def test_hours_and_minutes_mix() -> None:
    """History in hours, then minutes: on the hour it is as if all had been hours, and between hours
    the trailing hour is the minutes so far and the prorated rest of the hour before."""
    fine = random_candles(6, 180 * 60, width_s=60)
    hours = coarse(fine, 60)
    switch = 172
    stream = FeatureStream()
    for bar in hours.between(0, int(hours.end_s[switch - 1])).bars():
        stream.observe(bar)
    ends, rows = public_rows(hours, with_context=False)
    expected = dict(zip(ends.tolist(), neutral_rows(rows), strict=True))
    checked = 0
    minutes = list(fine.between(int(hours.end_s[switch - 1]), int(fine.end_s[-1])).bars())
    for n, bar in enumerate(minutes, 1):
        stream.observe(bar)
        row = stream.row()
        assert row is not None
        assert np.isfinite(row).all()
        if stream.end_s in expected:
            assert np.abs(row - expected[stream.end_s]).max() <= 1e-10
            checked += 1
        if n % 20 == 7:
            assert_volumes_are_prorated(hours, minutes[:n], row)
        if n == 15:
            so_far = minutes[:15]
            fresh = parkinson_variance(max(b.high for b in so_far), min(b.low for b in so_far))
            before = parkinson_variance(hours.high[switch - 1], hours.low[switch - 1])
            assert stream.last_hour_variance() == pytest.approx(float(fresh + 0.75 * before))
    assert checked == 8


def test_real_minutes_after_real_hours() -> None:
    minutes = crash_minutes()
    history = candles("binance", "ETH").between(0, int(minutes.start_s[0]))
    stream = FeatureStream()
    for bar in [*history.bars(), *minutes.bars()]:
        stream.observe(bar)
    ends, rows = public_rows(candles("binance", "ETH"), with_context=False)
    row = stream.row()
    assert row is not None
    wanted = rows[ends == stream.end_s][0]
    assert np.abs(row[:4] - wanted[:4]).max() < 1e-9  # variances; volumes differ by the mean price
    assert np.abs(row[: len(wanted)] - wanted).max() < 0.01


def test_volume_has_no_scale() -> None:
    table = random_candles(7, 200)
    larger = replace(table, notional_usd=table.notional_usd * 1e4)
    _, rows = public_rows(table, with_context=False)
    _, scaled = public_rows(larger, with_context=False)
    assert np.abs(rows - scaled).max() < 1e-9


def test_a_flat_silent_market_is_finite() -> None:
    table = random_candles(8, 170)
    flat = replace(
        table,
        **{n: np.full(170, 5.0) for n in ("open", "high", "low", "close")},
        notional_usd=np.zeros(170),
    )
    _, rows = public_rows(flat, with_context=False)
    assert np.isfinite(rows).all()
    assert np.isfinite(stream_rows(flat)[1]).all()


def test_cold_until_a_week_is_known() -> None:
    table = random_candles(9, MEMORY_H)
    stream = FeatureStream()
    assert stream.row() is None
    assert stream.end_s is None
    assert stream.last_hour_variance() is None
    for bar in list(table.bars())[:-1]:
        stream.observe(bar)
        assert stream.row() is None
        assert stream.trailing_mean_notional() is None
    stream.observe(list(table.bars())[-1])
    assert stream.warm
    mean = stream.trailing_mean_notional()
    assert mean == pytest.approx(table.notional_usd.mean())


def test_context_has_a_flag_and_a_neutral_value() -> None:
    stream = FeatureStream()
    for bar in random_candles(10, MEMORY_H).bars():
        stream.observe(bar)
    for given_, wanted in (
        ((None, None), [0, 0, 0, 0]),
        ((2.0, None), [math.asinh(2.0), 1, 0, 0]),
        ((None, -0.1), [0, 0, -0.1, 1]),
        ((None, -9.0), [0, 0, -0.5, 1]),
    ):
        stream.set_context(*given_)
        row = stream.row()
        assert row is not None
        assert np.allclose(row[CONTEXT], wanted)
        assert np.array_equal(row[len(PUBLIC_FEATURES) :], PRIVATE_NEUTRAL)
    assert context_columns(np.array([np.nan]), np.array([np.inf])).tolist() == [[0, 0, 0, 0]]


def test_memory_is_bounded_and_forgetting_changes_nothing() -> None:
    table = random_candles(11, 3000)
    ends, rows = public_rows(table, with_context=False)
    streamed_ends, streamed = stream_rows(table)
    assert streamed_ends == ends.tolist()
    assert np.abs(streamed - neutral_rows(rows)).max() <= 1e-12
    stream = FeatureStream()
    for bar in random_candles(12, 20_000, width_s=900).bars():
        stream.observe(bar)
    assert len(stream._ends) <= 2048


def test_bars_go_forward_only() -> None:
    stream = FeatureStream()
    first, second = list(random_candles(13, 2).bars())
    stream.observe(first)
    stream.observe(second)
    for again in (first, second, replace_bar(second, start_s=second.start_s + 60, width_s=60)):
        with pytest.raises(BadInput, match="in time order"):
            stream.observe(again)


def replace_bar(bar: BarClosed, **changes: float) -> BarClosed:
    return replace(bar, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"width_s": 7},
        {"width_s": 0},
        {"width_s": 7200},
        {"close": math.nan},
        {"open": math.inf},
        {"low": 0.0},
        {"low": 101.0},
        {"high": 99.0},
        {"notional_usd": -1.0},
        {"notional_usd": math.nan},
    ],
)
def test_a_bad_bar_is_refused_and_leaves_the_stream_as_it_was(changes: dict[str, float]) -> None:
    stream = FeatureStream()
    good = BarClosed(START_S, HOUR_S, 100.0, 101.0, 99.0, 100.0, 1.0)
    with pytest.raises(BadInput):
        stream.observe(replace_bar(good, **changes))
    assert stream.end_s is None
    stream.observe(good)
    assert stream.end_s == START_S + HOUR_S


def test_batch_takes_hours_only() -> None:
    with pytest.raises(ValueError, match="hourly"):
        public_rows(random_candles(0, 10, width_s=60))


def test_the_rhythm_is_learnt_and_surprises_are_what_it_leaves() -> None:
    """A market whose 14:00 is ten times as variable: what is usual for it shows, and only then."""
    table = random_candles(14, 24 * 7 * 30)
    hour = table.start_s // HOUR_S % 24
    width = np.where(hour == 14, 0.02 * math.sqrt(10.0), 0.02)
    flat = np.full(len(hour), 100.0)
    rhythmic = replace(
        table, open=flat, close=flat, high=flat * np.exp(width / 2), low=flat / np.exp(width / 2)
    )
    ends, rows = public_rows(rhythmic, with_context=False)
    late = slice(-24 * 7, None)
    before_two = ends[late] // HOUR_S % 24 == 14  # the hour from 14:00 is the one forecast
    for name in ("usual_day", "usual_4w", "usual_10w"):
        usual = rows[late, PUBLIC_FEATURES.index(name)]
        assert usual[before_two].min() > 1.5
        assert np.abs(usual[~before_two]).max() < 0.3
    surprise = rows[late, PUBLIC_FEATURES.index("surprise_1h")]
    raw = rows[late, PUBLIC_FEATURES.index("log_variance_1h_over_6h")]
    after_two = ends[late] // HOUR_S % 24 == 15
    assert raw[after_two].min() > 1.0
    assert np.abs(surprise[after_two]).max() < 0.4


def test_the_rhythm_outlives_a_gap_and_nothing_else_does() -> None:
    table = random_candles(15, 900)
    names = ("start_s", "open", "high", "low", "close", "notional_usd")
    torn = replace(table, **{n: np.delete(getattr(table, n), slice(500, 524)) for n in names})
    ends, rows = public_rows(torn, with_context=False)
    alone_ends, alone = public_rows(torn.between(int(table.start_s[524]), 2**40), False)
    shared = np.isin(ends, alone_ends)
    differs = np.abs(rows[shared] - alone).max(0) > 1e-9
    touched = {n for n, d in zip(PUBLIC_FEATURES, differs, strict=True) if d}
    assert "usual_10w" in touched
    assert {
        n for n in touched if not n.startswith(("usual", "surprise", "volume_surprise"))
    } == set()


def by_definition(candles: Candles) -> dict[str, float]:
    """The last row of hourly candles, each column from the words of its name: plain, and slow."""
    h, w = np.arange(len(candles.start_s)), np.log(candles.close)
    variance = np.log(candles.high / candles.low) ** 2 / (4 * math.log(2))
    log_v = np.log(np.maximum(variance, VARIANCE_FLOOR))
    log_n = np.log(np.maximum(candles.notional_usd, 1.0))
    deviation = math.sqrt(max(variance[-168:].mean(), VARIANCE_FLOOR))
    level = 2 * math.log(deviation)

    def log_mean(series: NDArray[np.float64], n: int) -> float:
        return math.log(max(math.fsum(series[-n:]) / n, VARIANCE_FLOOR))

    found: dict[str, float] = {"log_variance_168h": level}
    for short, long in ((1, 6), (6, 24), (24, 168)):
        apart = log_mean(variance, short) - log_mean(variance, long)
        found[f"log_variance_{short}h_over_{long}h"] = apart
    for n in (2, 3, 12, 48, 72):
        found[f"log_variance_{n}h_over_168h"] = log_mean(variance, n) - level
    for n in (1, 3, 6, 24, 72):
        recent, week = (math.fsum(candles.notional_usd[-m:]) / m for m in (n, 168))
        found[f"log_volume_{n}h"] = math.log(max(recent / week, VOLUME_FLOOR))
    for n in (1, 6, 24):
        found[f"return_{n}h"] = (w[-1] - w[-1 - n]) / (deviation * math.sqrt(n))
    for n in (6, 24, 168):
        found[f"mean_log_variance_{n}h"] = log_v[-n:].mean() - level
    for n in (6, 24):
        found[f"mean_log_volume_{n}h"] = log_n[-n:].mean() - log_n[-168:].mean()
    for n in (2, 6, 18):
        weights = 0.5 ** (np.arange(168) / n)
        found[f"smooth_log_variance_{n}h"] = weights @ log_v[:-169:-1] / weights.sum() - level
    squares = np.diff(w) ** 2
    found["squared_return_6h"] = log_mean(squares, 6) - level
    signs = np.sign(np.diff(w))[-24:]
    found["semivariance_24h"] = -(signs @ squares[-24:]) / max(squares[-24:].sum(), 1e-10)
    found["same_hour_1d"] = log_v[-24] - level
    found["same_hour_7d"] = log_v[[-24 * day for day in range(1, 8)]].mean() - level
    up, down = np.log(candles.high / candles.open)[-1], np.log(candles.open / candles.low)[-1]
    found["range_asymmetry_1h"] = (up - down) / (up + down)
    end_s = int(candles.end_s[-1])
    for name, period_s in (("hour", 86_400), ("half_day", 43_200), ("week", 604_800)):
        angle = 2 * math.pi * ((end_s + 1800) % period_s) / period_s
        found[f"{name}_sin"], found[f"{name}_cos"] = math.sin(angle), math.cos(angle)
    found["weekend"] = float(datetime.fromtimestamp(end_s, UTC).weekday() >= 5)

    def rhythm(series: NDArray[np.float64], hours: int, half_life: float) -> list[float]:
        """What was usual before each hour, and for the hour after the last."""
        sums, usual, keep = np.zeros((hours, 2)), [], 0.5 ** (1 / half_life)
        for t in h:
            slot = sums[(candles.start_s[t] // 3600) % hours]
            usual.append(slot[0] / (slot[1] + 0.15))
            if t:
                away = series[t] - series[max(0, t - 168) : t].mean()
                slot[:] = keep * slot + (1 - keep) * np.array([away, 1.0])
        slot = sums[(end_s // 3600) % hours]
        return [*usual, slot[0] / (slot[1] + 0.15)]

    for name, hours, life in (("day", 24, 28), ("4w", 168, 4), ("10w", 168, 10), ("26w", 168, 26)):
        found[f"usual_{name}"] = rhythm(log_v, hours, life)[-1]
    found["usual_volume"] = rhythm(log_n, 168, 10)[-1]
    for name, series, spans in (
        ("surprise", log_v, (1, 2, 3, 6, 12, 24)),
        ("volume_surprise", log_n, (1, 3, 6)),
    ):
        usual = rhythm(series, 168, 10)
        left = [series[t] - series[max(0, t - 168) : t].mean() - usual[t] for t in h[1:]]
        for n in spans:
            found[f"{name}_{n}h"] = float(np.mean(left[-n:]))
    return found


def test_each_column_is_what_its_name_says() -> None:
    told = random_candles(5, 700)
    end_s, rows = public_rows(told, with_context=False)
    assert end_s[-1] == told.end_s[-1]
    wanted = by_definition(told)
    assert set(wanted) == set(CANDLE_FEATURES)
    for name, value in wanted.items():
        assert rows[-1, PUBLIC_FEATURES.index(name)] == pytest.approx(value, abs=1e-9), name


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(MEMORY_H, 399))
def test_nothing_stays_behind_of_a_block_that_left(seed: int, at: int) -> None:
    """Hours 1e12 times their neighbours enter and leave: every row is the definition's to 1e-12."""
    draw = np.random.default_rng(seed)
    n, spikes = 400, draw.integers(0, 400, 3)
    spikes[0] = at - draw.choice([0, 1, 5, 6, 23, 24, 71, 72, 167, MEMORY_H])
    notional = 10.0 ** np.interp(np.arange(n), [0, n / 2, n], draw.uniform(0, 10, 3))
    notional *= draw.uniform(0.1, 1, n)
    width = np.repeat(10 ** draw.uniform(-4.8, -3, n // 20), 20)  # variances of 1e-10 to 1e-6 …
    notional[spikes] *= 1e12
    width[spikes] = 1.0  # … and of 0.36
    close = np.exp(0.4 * width * draw.uniform(-1, 1, n))
    opening = np.concatenate([[1.0], close[:-1]])
    high, low = np.maximum(opening, close), np.minimum(opening, close)
    stretch = np.exp(width / 2)
    start_s = START_S + HOUR_S * np.arange(n)
    told = Candles(
        "v", "COIN", HOUR_S, start_s, opening, high * stretch, low / stretch, close, notional
    )
    ends, rows = public_rows(told, with_context=False)
    wanted = by_definition(told.between(0, int(told.end_s[at])))
    row = rows[ends == told.end_s[at]][0]
    for name, value in wanted.items():
        if name != "range_asymmetry_1h":  # a ratio of two logs: as exact as the prices are
            assert row[PUBLIC_FEATURES.index(name)] == pytest.approx(value, abs=1e-12), name
