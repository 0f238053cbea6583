"""Signatures, calldata and logs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.venues.codec import Function, LogShape, LogUnreadable, quantity, types_of

TRANSFER = Function("transfer(address,uint256)", "(bool)")
ANSWER = LogShape("AnswerUpdated(int256,uint256,uint256)", "(int256,uint256)", "(uint256)")


def word(value):
    return (value % 2**256).to_bytes(32, "big").hex()


def log(topics, data=""):
    return {"topics": ["0x" + topic for topic in topics], "data": "0x" + data}


def test_selectors_and_topics_are_the_published_ones():
    assert TRANSFER.selector.hex() == "a9059cbb"
    transfer = LogShape("Transfer(address,address,uint256)", "(address,address)", "(uint256)")
    assert transfer.topic == "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"


@pytest.mark.parametrize(
    ("signature", "types"),
    [
        ("f()", ()),
        ("f(uint256)", ("uint256",)),
        ("f((address,(int24,bytes)),bytes[])", ("(address,(int24,bytes))", "bytes[]")),
        ("(uint8,bool)", ("uint8", "bool")),
    ],
)
def test_top_level_types(signature, types):
    assert types_of(signature) == types


@given(st.integers(0, 2**160 - 1), st.integers(0, 2**256 - 1))
def test_calldata_round_trip(address, amount):
    to = f"0x{address:040x}"
    assert TRANSFER.decode_input(TRANSFER.encode(to, amount)) == (to, amount)


def test_calldata_of_another_function_is_refused():
    with pytest.raises(ValueError, match="not a call of transfer"):
        TRANSFER.decode_input(Function("approve(address,uint256)").encode("0x" + "00" * 20, 1))


@given(st.integers(-(2**255), 2**255 - 1), st.integers(0, 2**256 - 1), st.integers(0, 2**64))
def test_log_round_trip(answer, number, at_s):
    seen = log([ANSWER.topic[2:], word(answer), word(number)], word(at_s))
    assert ANSWER.matches(seen)
    assert ANSWER.decode(seen) == ((answer, number), (at_s,))


@pytest.mark.parametrize(
    "seen",
    [
        log([ANSWER.topic[2:], word(1)], word(1)),
        log([ANSWER.topic[2:], word(1), word(1)], "00"),
        log([ANSWER.topic[2:], word(1), word(1)], "zz"),
    ],
)
def test_a_log_of_another_shape_is_stale(seen):
    with pytest.raises(LogUnreadable, match="AnswerUpdated"):
        ANSWER.decode(seen)


def test_anonymous_logs_match_nothing():
    assert not ANSWER.matches(log([]))


def test_quantities_come_as_hex_or_numbers():
    assert (quantity("0x10"), quantity(16)) == (16, 16)
