"""Limits: hard bounds hold whoever asks, and what is received can only tighten."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.risk.limits import HARD, LimitRefused, Limits


@pytest.mark.parametrize("name", list(HARD))
def test_no_limit_leaves_its_hard_bounds(name: str) -> None:
    least, most = HARD[name]
    for bad in (least - 1, most + 1, 1.5, True, None):
        with pytest.raises(LimitRefused, match=name):
            replace(Limits(), **{name: bad})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bad",
    [
        {"drawdown_reduce_bps": 900, "drawdown_halt_bps": 800},
        {"drawdown_halt_bps": 1600},
        {"oracle_deviation_halt_bps": 100},
        {"oracle_age_halt_s": 60},
        {"epoch_notional_max_quote": 10},
    ],
)
def test_limits_that_contradict_each_other_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(LimitRefused, match="above"):
        Limits(**bad)


received = st.dictionaries(st.sampled_from(list(HARD)), st.integers(1, 10**12))


@given(first=received, second=received)
def test_received_limits_only_tighten(first: dict[str, int], second: dict[str, int]) -> None:
    own = Limits()
    once = own.tightened(first)
    for name, value in asdict(once).items():
        assert value <= asdict(own)[name]
        if name in first:
            assert value <= first[name]
    twice = once.tightened(second)
    assert all(asdict(twice)[n] <= v for n, v in asdict(once).items())
    assert once.tightened(first) == once


@pytest.mark.parametrize(
    "bad",
    [
        {"drawdown_halt": 1},
        {"drawdown_halt_bps": 0},
        {"gas_price_max_wei": 1.0},
        {"drawdown_halt_bps": True},
    ],
)
def test_what_is_no_limit_is_refused(bad: dict[str, int]) -> None:
    with pytest.raises(LimitRefused):
        Limits().tightened(bad)
