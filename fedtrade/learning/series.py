"""A series of values with the times at which they became known, and as-of look-ups into it.

Nothing is carried further than `max_age_s`, and nothing is differenced across a silence that is
longer than that: a hole in the source (all of the data pack lacks 2022-11-01 to 2022-11-20) gives
NaN, never a made-up bar.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Values (N,) in the order in which they became known; empty where the source has none."""

    known_s: Ints
    """Unix seconds, rising: from here on the value may be used."""
    value: Floats
    max_age_s: int

    def __post_init__(self) -> None:
        if self.known_s.shape != self.value.shape or (np.diff(self.known_s) <= 0).any():
            raise ValueError("a series has one value for each known time, and the times rise")

    def __len__(self) -> int:
        return len(self.known_s)

    def at(self, at_s: Ints) -> Floats:
        """The newest value known at each time (N,); NaN where it is older than `max_age_s`."""
        index, fresh = self._newest(at_s)
        return np.where(fresh, self.value[index], np.nan) if len(self) else _unknown(at_s)

    def change(self, at_s: Ints, lag_s: int) -> Floats:
        """`at(t) - at(t - lag_s)`; NaN where a silence over `max_age_s` lies between the two.

        NaN too where nothing has become known between them: that would be a made-up calm.
        """
        if not len(self):
            return _unknown(at_s)
        stretch = np.concatenate([[0], np.cumsum(np.diff(self.known_s) > self.max_age_s)])
        now, fresh_now = self._newest(at_s)
        before, fresh_before = self._newest(at_s - lag_s)
        whole = fresh_now & fresh_before & (now > before) & (stretch[now] == stretch[before])
        return np.where(whole, self.value[now] - self.value[before], np.nan)

    def _newest(self, at_s: Ints) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        index = np.searchsorted(self.known_s, at_s, side="right") - 1
        safe = np.maximum(index, 0)
        if not len(self):
            return safe, np.zeros(at_s.shape, np.bool_)
        return safe, (index >= 0) & (at_s - self.known_s[safe] <= self.max_age_s)


def spread(series: tuple[Series, ...], at_s: Ints) -> Floats:
    """Highest less lowest of what is known at each time; NaN where fewer than two are known."""
    if len(series) < 2:
        return _unknown(at_s)
    stacked = np.stack([s.at(at_s) for s in series])
    known = ~np.isnan(stacked)
    width = np.where(known, stacked, -np.inf).max(0) - np.where(known, stacked, np.inf).min(0)
    enough = known.sum(0) >= 2
    return np.where(enough, np.where(enough, width, 0.0), np.nan)


def _unknown(at_s: Ints) -> Floats:
    return np.full(at_s.shape, np.nan)
