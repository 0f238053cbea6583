"""What an agent's intervals are: those of a table of the same hours, and none across a gap."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from fedtrade.artifact import load, sha256_of
from fedtrade.learning.baseline import base_artifact
from fedtrade.learning.conformal import LEAST_RESIDUALS, AdaptiveInterval
from fedtrade.learning.features import FeatureStream, neutral_rows
from fedtrade.learning.forecast import MAX_LOG_VARIANCE, Forecast, Forecaster
from fedtrade.learning.hindsight import Hindsight, Intervals
from fedtrade.learning.tables import HOUR_S, Candles, candles
from fedtrade.learning.windows import market_table
from fedtrade.market.events import BarClosed

DATA = base_artifact((4,), seed=1)
FORECASTER = Forecaster(load(DATA, sha256_of(DATA)))
HOURS = 500


def some(first: int = 0, hours: int = HOURS) -> Candles:
    whole = candles("binance", "ETH")
    return whole.between(int(whole.start_s[first]), int(whole.start_s[first]) + hours * HOUR_S)


def told(bars: list[BarClosed]) -> dict[int, Intervals | None]:
    """End of each bar at which there is a forecast -> the intervals round it."""
    features, hindsight, found = FeatureStream(), Hindsight(FORECASTER), {}
    for bar in bars:
        features.observe(bar)
        hindsight.observe(features)
        row = features.row()
        if row is not None:
            found[bar.start_s + bar.width_s] = hindsight.around(FORECASTER.predict(row))
    return found


def test_a_stream_gives_the_intervals_of_a_table_of_the_same_hours() -> None:
    known = some()
    table = market_table(known, int(known.end_s[-1]), with_context=False)
    forecasts = [FORECASTER.predict(row) for row in neutral_rows(table.features)]
    found = told(list(known.bars()))
    for head, name in enumerate(("variance_per_hour", "demand_ratio")):
        logs = np.array([(f.log_variance, f.log_demand)[head] for f in forecasts])
        target = table.targets[:, head]
        start = AdaptiveInterval.fitted((target - logs)[:LEAST_RESIDUALS])
        rest = slice(LEAST_RESIDUALS, None)
        lower, upper, _ = start.track(logs[rest], target[rest])
        assert all(found[int(t)] is None for t in table.end_s[:LEAST_RESIDUALS])
        late = table.end_s[rest].tolist()
        assert len(late) > 150
        own = np.array([getattr(found[t], name) for t in late])
        assert np.allclose(np.log(own), np.stack([lower, upper], axis=1), atol=1e-9)
        assert (own[:, 0] < own[:, 1]).all()


def test_the_hours_that_come_move_what_follows_and_nothing_before() -> None:
    bars = list(some().bars())
    honest = told(bars)
    place = 400
    wild = replace(bars[place], high=bars[place].high * 1.5)
    moved = told([*bars[:place], wild, *bars[place + 1 :]])
    ended_s = wild.start_s + wild.width_s
    assert all(moved[t] == honest[t] for t in honest if t < ended_s)
    before, after = honest[ended_s], moved[ended_s]
    assert before is not None
    assert after is not None
    width = [
        math.log(one.variance_per_hour[1] / one.variance_per_hour[0]) for one in (before, after)
    ]
    assert width[1] > width[0] + 0.1
    assert told(bars) == honest


@pytest.mark.parametrize(
    ("widths_s", "learnt_at_s"),
    [
        ([60] * 180, [3600, 7200, 10_800]),
        ([1800, 3600, 3600], [9000]),  # no bar ends with the first hour: it is not known
    ],
)
def test_a_residual_is_of_the_hour_that_begins_where_its_forecast_was_made(
    widths_s: list[int], learnt_at_s: list[int]
) -> None:
    hours = list(some(hours=300).bars())
    price, features, hindsight = hours[-1].close, FeatureStream(), Hindsight(FORECASTER)
    begin_s = end_s = hours[-1].start_s + HOUR_S
    later = []
    for width_s in widths_s:
        bar = BarClosed(end_s, width_s, price, price * 1.0005, price * 0.9995, price, 1e3 * width_s)
        later.append(bar)
        end_s += width_s
    seen = []
    for bar in (*hours, *later):
        features.observe(bar)
        before = hindsight._variance._interval
        hindsight.observe(features)
        if bar in later and hindsight._variance._interval != before:
            seen.append(bar.start_s + bar.width_s - begin_s)
    assert seen == learnt_at_s


@pytest.mark.parametrize("missing", [1, 30])
def test_an_hour_with_a_gap_is_no_residual_and_what_was_learnt_stays(missing: int) -> None:
    """After a gap features are cold for 168 h; the hour after the first forecast is the next known."""
    bars = list(some().bars())
    features, hindsight = FeatureStream(), Hindsight(FORECASTER)
    changed = []
    for place, bar in enumerate((*bars[:300], *bars[300 + missing :])):
        features.observe(bar)
        before = hindsight._variance._interval
        hindsight.observe(features)
        if before is not None and hindsight._variance._interval != before:
            changed.append(place)
    assert changed == [*range(168 + LEAST_RESIDUALS, 300), *range(300 + 168, HOURS - missing)]


def test_bars_beyond_all_measure_break_nothing() -> None:
    """Notionals whose sum overflows make rows that no model forecasts from."""
    bars = list(some(hours=300).bars())
    features, hindsight = FeatureStream(), Hindsight(FORECASTER)
    for place, bar in enumerate(bars):
        features.observe(replace(bar, notional_usd=1.7e308) if place in (290, 291) else bar)
        with np.errstate(over="ignore", invalid="ignore"):
            hindsight.observe(features)
    assert hindsight._noted is None  # the row is not finite
    found = hindsight.around(Forecast(-9.0, 0.0, 1e-4, 1.0))
    assert found is not None
    assert np.isfinite((*found.variance_per_hour, *found.demand_ratio)).all()
    for head in (hindsight._variance, hindsight._demand):
        learnt = head._interval
        head.observe(math.nan)
        head.observe(math.inf)
        assert head._interval == learnt


def test_bounds_are_cut_to_what_can_be_forecast() -> None:
    hindsight = Hindsight(FORECASTER)
    wild = AdaptiveInterval(-500.0, 500.0, 0.0, 1.0, 0.0, 1.0, 1.0)
    hindsight._variance._interval = hindsight._demand._interval = wild
    found = hindsight.around(Forecast(-9.0, 0.0, 1e-4, 1.0))
    assert found is not None
    assert found.variance_per_hour == (pytest.approx(1e-12), math.exp(MAX_LOG_VARIANCE))
    assert found.demand_ratio == (pytest.approx(1e-3), pytest.approx(1e3))
