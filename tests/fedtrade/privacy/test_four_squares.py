"""Lagrange: every number up to 2^64 is found as four squares."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fedtrade.privacy.four_squares import LARGEST, four_squares


@given(st.one_of(st.integers(0, 2**44), st.integers(0, LARGEST)))
@example(0)
@example(7)
@example(7 * 4**20)
@example(4**20 - 1)
@example(2**44)
@example(LARGEST)
def test_any_number_is_four_squares(number):
    parts = four_squares(number)
    assert len(parts) == 4
    assert min(parts) >= 0
    assert sum(p * p for p in parts) == number


def test_small_numbers_are_all_found():
    for number in range(3000):
        assert sum(p * p for p in four_squares(number)) == number


@pytest.mark.parametrize("number", [-1, LARGEST + 1])
def test_numbers_outside_are_refused(number):
    with pytest.raises(ValueError, match="within"):
        four_squares(number)
