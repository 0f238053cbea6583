"""Which rows may train and which are judged: nothing that trains has seen what is judged.

A row at time t has a label that is known at t + horizon, and features that reach back over a memory.
Against a block of judged rows [a, b] two things are dropped from training (López de Prado 2018,
chapters 7 and 12):

    purge      a − horizon < t < b + horizon     its label overlaps a judged label
    embargo    b + horizon ≤ t < b + horizon + embargo     its features look back on judged labels

With an embargo of the features' memory no training row sees a judged hour, neither as its label nor
among its features. Time alone decides, never the market: markets move together, so the same hour of
another market leaks too.

Splits are masks over rows of any order, because a table of several markets is not sorted by time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Ints = NDArray[np.int64]
MAX_SPLITS = 5_000


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Masks (N,) over rows. No row is in both; some are in neither."""

    train: Mask
    test: Mask
    groups: tuple[int, ...] = ()
    """Which groups of time are judged (combinatorial splits)."""


def walk_forward(
    end_s: Ints, edges_s: Sequence[int], horizon_s: int, embargo_s: int = 0
) -> Iterator[Split]:
    """One split for each [edge, next edge): judged inside, trained on labels known before it.

    `embargo_s` leaves that much more out before the block, for labels that are known late.
    A split without training or without judged rows is left out.
    """
    _check(horizon_s, embargo_s)
    if list(edges_s) != sorted(set(edges_s)):
        raise ValueError("the edges must rise")
    for start_s, stop_s in pairwise(edges_s):
        test = (end_s >= start_s) & (end_s < stop_s)
        train = end_s + horizon_s + embargo_s <= start_s
        if test.any() and train.any():
            yield Split(train, test)


def combinatorial(
    end_s: Ints, groups: int, tested: int, horizon_s: int, embargo_s: int
) -> Iterator[Split]:
    """Every choice of `tested` out of `groups` spans of time as the judged part, purged, embargoed.

    Every row is judged C(groups − 1, tested − 1) times: so many whole paths through time can be put
    together (`paths`). Groups hold equally many distinct times.
    """
    _check(horizon_s, embargo_s)
    times = np.unique(end_s)
    if not 1 <= tested < groups <= len(times):
        raise ValueError("choose 1 ≤ tested < groups ≤ number of distinct times")
    if math.comb(groups, tested) > MAX_SPLITS:
        raise ValueError(f"more than {MAX_SPLITS} splits: take fewer groups")
    spans = np.array_split(times, groups)
    group = np.searchsorted([span[0] for span in spans], end_s, side="right") - 1
    for chosen in combinations(range(groups), tested):
        test = np.isin(group, chosen)
        train = ~test
        for g in chosen:
            train &= ~_touches(end_s, int(spans[g][0]), int(spans[g][-1]), horizon_s, embargo_s)
        yield Split(train, test, chosen)


def paths(splits: Sequence[Split], groups: int) -> list[list[int]]:
    """For each backtest path the split whose forecast it takes in each group, in order of time."""
    judged = [[i for i, split in enumerate(splits) if g in split.groups] for g in range(groups)]
    if len({len(row) for row in judged}) != 1:
        raise ValueError("every group must be judged equally often: give all the splits")
    return [list(path) for path in zip(*judged, strict=True)]


def _touches(end_s: Ints, first_s: int, last_s: int, horizon_s: int, embargo_s: int) -> Mask:
    return np.asarray(
        (end_s > first_s - horizon_s) & (end_s < last_s + horizon_s + embargo_s), np.bool_
    )


def _check(horizon_s: int, embargo_s: int) -> None:
    if horizon_s <= 0 or embargo_s < 0:
        raise ValueError("the horizon must be positive and the embargo at least 0")
