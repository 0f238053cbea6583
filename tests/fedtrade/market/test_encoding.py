"""Encoding: exact both ways for every event and action, and nothing else decodes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.market.actions import ProvideLiquidity, SwapExactInput, WithdrawLiquidity
from fedtrade.market.encoding import canonical, decode, encode, plain
from fedtrade.market.events import (
    ActionSettled,
    BarClosed,
    Head,
    Holdings,
    LiquidityChanged,
    ModelPublished,
    ModelRevoked,
    OracleUpdated,
    ParametersSeen,
    PoolSnapshot,
    PositionHeld,
    Reorganised,
    Swapped,
)

whole = st.integers(-(2**256), 2**256)
number = st.floats(allow_nan=False)
text = st.text(max_size=20)
position = st.builds(PositionHeld, whole, whole, whole, whole, whole, whole)
VALUES = st.one_of(
    st.builds(Head, whole, text, text, whole, whole),
    st.builds(
        PoolSnapshot, whole, text, whole, whole, whole, whole, whole,
        st.lists(st.tuples(whole, whole, whole, whole, whole), max_size=3).map(tuple),
    ),
    st.builds(Swapped, whole, whole, text, whole, whole, whole, whole, whole),
    st.builds(LiquidityChanged, whole, whole, text, text, whole, whole, whole, whole, whole),
    st.builds(OracleUpdated, whole, whole, text, whole, whole, whole),
    st.builds(ModelPublished, whole, whole, text, whole, whole),
    st.builds(ModelRevoked, whole, whole),
    st.builds(
        ParametersSeen, whole, st.lists(whole, max_size=4).map(tuple), st.booleans(), whole,
        st.booleans(),
    ),
    st.builds(BarClosed, whole, whole, number, number, number, number, number),
    st.builds(Holdings, whole, whole, whole, whole, st.lists(position, max_size=3).map(tuple)),
    st.builds(
        ActionSettled, whole, text,
        st.sampled_from(["confirmed", "reverted", "dropped", "refused"]), whole,
    ),
    st.builds(Reorganised, whole),
    st.builds(ProvideLiquidity, text, text, whole, whole, whole, whole, whole, whole, whole),
    st.builds(WithdrawLiquidity, text, text, whole, whole, whole, whole, whole),
    st.builds(SwapExactInput, text, text, st.booleans(), whole, whole, whole, st.booleans()),
)  # fmt: skip


@given(value=VALUES)
def test_what_went_in_comes_out(value: Any) -> None:
    line = canonical(encode(value))
    assert decode(json.loads(line)) == value
    assert canonical(encode(decode(json.loads(line)))) == line


def test_a_number_that_is_none_survives() -> None:
    bar = BarClosed(0, 60, float("nan"), float("inf"), float("-inf"), 1.0, 2.0)
    line = canonical(encode(bar))
    assert canonical(encode(decode(json.loads(line)))) == line


def test_large_integers_are_text() -> None:
    body = encode(Swapped(1, 2, "p", 2**255, -5, 2**53, 2**53 + 1, 0))
    assert body["amount0"] == str(2**255)
    assert body["sqrt_price_x96"] == 2**53
    assert body["liquidity"] == str(2**53 + 1)


GOOD = encode(ModelRevoked(1, 2))


@pytest.mark.parametrize(
    "bad",
    [
        {**GOOD, "type": "Path"},
        {**GOOD, "type": "PositionHeld"},
        {**GOOD, "type": None},
        {**GOOD, "more": 1},
        {"type": "ModelRevoked", "block": 1},
        {**GOOD, "version": 2.0},
        {**GOOD, "version": True},
        {**GOOD, "version": "2"},
        {**GOOD, "version": " 9007199254740993"},
        {**GOOD, "version": "1" * 200},
        {**GOOD, "version": None},
        {**encode(ActionSettled(1, "a", "dropped", 0)), "outcome": "lost"},
        {**encode(BarClosed(0, 60, 1.0, 1.0, 1.0, 1.0, 0.0)), "open": 1},
        {**encode(BarClosed(0, 60, 1.0, 1.0, 1.0, 1.0, 0.0)), "open": "NaN"},
        {**encode(Holdings(1, 0, 0, 0, ())), "positions": [[1, 2, 3, 4, 5, 6]]},
    ],
)
def test_what_encode_would_not_write_does_not_decode(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(bad)


def test_only_events_and_actions_have_an_encoding() -> None:
    with pytest.raises(TypeError, match="PositionHeld"):
        encode(PositionHeld(1, 2, 3, 4, 5, 6))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="object"):
        plain(object())
