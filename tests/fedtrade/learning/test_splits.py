"""Nothing that trains has seen what is judged, and everything is judged as often as was said."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrade.learning.splits import combinatorial, paths, walk_forward

HOUR = 3600


@st.composite
def times(draw: st.DrawFn) -> np.ndarray:
    """Hours of several markets in any order, with gaps and repeats."""
    hours = draw(st.lists(st.integers(0, 400), min_size=12, max_size=120))
    return np.array(hours, np.int64) * HOUR


def seen(end_s: np.ndarray, row: int, embargo_s: int) -> tuple[int, int]:
    """The span of time that a training row looks at: features back to, label up to."""
    return int(end_s[row]) - embargo_s, int(end_s[row]) + HOUR


@settings(deadline=None, max_examples=60)
@given(times(), st.integers(2, 6), st.data())
def test_no_training_row_overlaps_a_judged_label(
    end_s: np.ndarray, groups: int, data: st.DataObject
) -> None:
    groups = min(groups, len(np.unique(end_s)) - 1) if len(np.unique(end_s)) > 2 else 2
    if groups < 2 or len(np.unique(end_s)) < groups:
        return
    tested = data.draw(st.integers(1, groups - 1))
    embargo_s = data.draw(st.integers(0, 30)) * HOUR
    for split in combinatorial(end_s, groups, tested, HOUR, embargo_s):
        assert not (split.train & split.test).any()
        for row in np.flatnonzero(split.train):
            from_s, until_s = seen(end_s, int(row), embargo_s)
            after = end_s[split.test]
            # Labels are (t, t + 1 h]. One after the row may only begin where the row's label ends;
            # one before it must have ended where the row's features begin.
            ahead, behind = after[after >= end_s[row]], after[after < end_s[row]]
            assert (ahead >= until_s).all()
            assert (behind + HOUR <= from_s).all()


@settings(deadline=None, max_examples=40)
@given(times(), st.integers(3, 6), st.integers(1, 2))
def test_every_row_is_judged_the_same_number_of_times(
    end_s: np.ndarray, groups: int, tested: int
) -> None:
    if len(np.unique(end_s)) < groups:
        return
    splits = list(combinatorial(end_s, groups, tested, HOUR, 5 * HOUR))
    assert len(splits) == math.comb(groups, tested)
    judged = np.sum([split.test for split in splits], axis=0)
    assert (judged == math.comb(groups - 1, tested - 1)).all()
    for path in paths(splits, groups):  # each path covers every row exactly once
        covered = np.zeros(len(end_s), int)
        for group, split in enumerate(path):
            assert group in splits[split].groups
        for group in range(groups):
            alone = next(
                s for s in combinatorial(end_s, groups, 1, HOUR, 0) if s.groups == (group,)
            )
            covered += alone.test & splits[path[group]].test
        assert (covered == 1).all()


def test_the_purge_is_no_wider_than_it_must_be() -> None:
    end_s = np.arange(100) * HOUR
    split = next(s for s in combinatorial(end_s, 10, 1, HOUR, 7 * HOUR) if s.groups == (5,))
    left_out = np.flatnonzero(~split.train & ~split.test)
    # 50..59 are judged; 49 ends its label where 50's begins; 60 + 6 looks back on 59's label.
    assert left_out.tolist() == list(range(60, 67))
    wide = next(s for s in combinatorial(end_s, 10, 1, 3 * HOUR, 0) if s.groups == (5,))
    assert np.flatnonzero(~wide.train & ~wide.test).tolist() == [48, 49, 60, 61]


@given(times(), st.integers(0, 10))
def test_walking_forward_only_the_past_trains(end_s: np.ndarray, embargo_h: int) -> None:
    edges = [100 * HOUR, 200 * HOUR, 300 * HOUR, 401 * HOUR]
    for split in walk_forward(end_s, edges, HOUR, embargo_h * HOUR):
        first = end_s[split.test].min()
        assert (end_s[split.train] + HOUR + embargo_h * HOUR <= first).all()
    judged = sum((s.test.astype(int) for s in walk_forward(end_s, edges, HOUR)), np.zeros(1, int))
    assert judged.max(initial=0) <= 1


def test_walking_forward_trains_up_to_the_edge() -> None:
    end_s = np.arange(10) * HOUR
    (split,) = walk_forward(end_s, [6 * HOUR, 8 * HOUR], HOUR)
    assert np.flatnonzero(split.train).tolist() == [0, 1, 2, 3, 4, 5]
    assert np.flatnonzero(split.test).tolist() == [6, 7]


def test_impossible_splits_are_refused() -> None:
    end_s = np.arange(30) * HOUR
    with pytest.raises(ValueError, match="groups"):
        next(combinatorial(end_s, 4, 4, HOUR, 0))
    with pytest.raises(ValueError, match="splits"):
        next(combinatorial(end_s, 30, 15, HOUR, 0))
    with pytest.raises(ValueError, match="horizon"):
        next(combinatorial(end_s, 4, 2, 0, 0))
    with pytest.raises(ValueError, match="rise"):
        next(walk_forward(end_s, [5, 3], HOUR))
