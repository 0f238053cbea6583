"""The compiled part of the features: one row from the last 168 hour blocks, and what is usual.

Variance has a weekly rhythm that differs by market and drifts, so a forecast of the next hour needs
to know what that hour of the week usually brings. A *profile* is the exponentially weighted mean,
per hour of the day or of the week, of how far the log of an hour's variance (or notional) lay from
its mean over the 168 h before. The *surprise* of an hour is what remains after the profile as it was
known before that hour: means of surprises are HAR's regressors with the rhythm taken out.

Batch and stream call the same `fill_row`, in the same order of additions, so they agree to the bit
where their blocks do. All is O(168) a row.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

HOUR_S = 3600
MEMORY_H = 168
VARIANCE_FLOOR = 1e-10
"""Per hour (a range of 0.17 bp): below it a block counts as flat, so that its log exists."""
VOLUME_FLOOR = 1e-3
"""Relative to the trailing mean."""
NOTIONAL_FLOOR_USD = 1.0

VARIANCE, NOTIONAL, LOG_VARIANCE, LOG_NOTIONAL, SURPRISE, VOLUME_SURPRISE, CLOSE, ASYMMETRY = range(
    8
)
"""Columns of a block; CLOSE is a log."""
WIDTH = 8

DAY, WEEK_4, WEEK_10, WEEK_26, VOLUME_WEEK = range(5)
"""Profiles: an hour of the day with a half-life of 28 days, and hours of the week in weeks."""
_PERIOD_H = np.array([24, 168, 168, 168, 168])
_KEEP = 0.5 ** (1.0 / np.array([28.0, 4.0, 10.0, 26.0, 10.0]))
_SHRINK = 0.15
"""Weight of "no rhythm": two to four observations of an hour of the week outweigh it."""
_WINDOWS = (1, 2, 3, 6, 12, 24, 48, 72, 168)
_SMOOTH = 0.5 ** (np.arange(MEMORY_H)[:, None] / np.array([2.0, 6.0, 18.0]))
_SMOOTH /= _SMOOTH.sum(0)
"""Weights (168, 3) of exponential means with half-lives of 2, 6 and 18 h."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def new_profiles() -> Floats:
    """Profiles (5, 168, 2) before anything is known: weighted sum and weight of each hour."""
    return np.zeros((5, MEMORY_H, 2))


@njit(cache=True)
def usual(profiles: Floats, which: int, start_s: float) -> float:
    """What the profile expects of the hour that begins at `start_s`, between two hours linearly."""
    hours = start_s / HOUR_S
    whole = math.floor(hours)
    share = hours - whole
    period = _PERIOD_H[which]
    here = profiles[which, int(whole) % period]
    value = here[0] / (here[1] + _SHRINK)
    if share > 0.0:
        after = profiles[which, int(whole + 1) % period]
        value += share * (after[0] / (after[1] + _SHRINK) - value)
    return float(value)


@njit(cache=True)
def means_of_logs(blocks: Floats, start: int, step: int, known: int) -> tuple[float, float]:
    """Mean log variance and log notional of up to 168 blocks, newest first (see `fill_row`)."""
    variance = notional = 0.0
    for lag in range(known):
        variance += blocks[start + step * lag, LOG_VARIANCE]
        notional += blocks[start + step * lag, LOG_NOTIONAL]
    return variance / max(known, 1), notional / max(known, 1)


@njit(cache=True)
def take_block(
    known: int, means: tuple[float, float], end_s: int, block: Floats, profiles: Floats
) -> None:
    """Fill in a new block's surprises and, where it ends on the hour, move the profiles.

    `means` are `means_of_logs` of the `known` blocks before it, an hour apart.
    """
    block[LOG_VARIANCE] = math.log(max(block[VARIANCE], VARIANCE_FLOOR))
    block[LOG_NOTIONAL] = math.log(max(block[NOTIONAL], NOTIONAL_FLOOR_USD))
    if known == 0:
        block[SURPRISE] = block[VOLUME_SURPRISE] = 0.0
        return
    variance = block[LOG_VARIANCE] - means[0]
    notional = block[LOG_NOTIONAL] - means[1]
    block[SURPRISE] = variance - usual(profiles, WEEK_10, end_s - HOUR_S)
    block[VOLUME_SURPRISE] = notional - usual(profiles, VOLUME_WEEK, end_s - HOUR_S)
    if end_s % HOUR_S == 0:
        for which in range(5):
            slot = profiles[which, (end_s // HOUR_S - 1) % _PERIOD_H[which]]
            keep = _KEEP[which]
            found = notional if which == VOLUME_WEEK else variance
            slot[0] = keep * slot[0] + (1.0 - keep) * found
            slot[1] = keep * slot[1] + (1.0 - keep)


@njit(cache=True)
def lagged(ends: Floats, blocks: Floats, at_s: float, out: Floats) -> int:
    """Blocks at `at_s`, an hour before, and so on, into `out`; how many are known (up to 168).

    Between the ends of bars a block is the linear interpolation of its neighbours.
    """
    last = len(ends) - 1
    for lag in range(MEMORY_H):
        when = at_s - lag * HOUR_S
        if last < 0 or when < ends[0]:
            return lag
        place = last - lag  # where all bars are hours
        if place < 0 or ends[place] != when:
            place = int(np.searchsorted(ends, when))
        if ends[place] == when:
            out[lag] = blocks[place]
        else:
            share = (when - ends[place - 1]) / (ends[place] - ends[place - 1])
            for c in range(WIDTH):
                low = blocks[place - 1, c]
                out[lag, c] = low + share * (blocks[place, c] - low)
    return MEMORY_H


@njit(cache=True)
def fill_row(
    blocks: Floats, start: int, step: int, end_s: int, profiles: Floats, row: Floats
) -> tuple[float, float]:
    """The features (51,) from 168 blocks, in the order of `features.CANDLE_FEATURES`.

    `blocks[start + step·l]` is the block of l hours ago. Gives their `means_of_logs`.
    """
    v = n = lv = ln = e = ne = 0.0
    s0 = s1 = s2 = 0.0
    begin = 0
    for hours in _WINDOWS:
        for lag in range(begin, hours):
            at = start + step * lag
            v += blocks[at, VARIANCE]
            n += blocks[at, NOTIONAL]
            log_v = blocks[at, LOG_VARIANCE]
            lv += log_v
            ln += blocks[at, LOG_NOTIONAL]
            s0 += _SMOOTH[lag, 0] * log_v
            s1 += _SMOOTH[lag, 1] * log_v
            s2 += _SMOOTH[lag, 2] * log_v
            e += blocks[at, SURPRISE]
            ne += blocks[at, VOLUME_SURPRISE]
        begin = hours
        if hours == 1:
            row[0], row[4], row[42], row[48] = v, n, e, ne
        elif hours == 2:
            row[18], row[43] = v / 2, e / 2
        elif hours == 3:
            row[19], row[44], row[23], row[49] = v / 3, e / 3, n / 3, ne / 3
        elif hours == 6:
            row[1], row[5], row[25], row[33] = v / 6, n / 6, lv / 6, ln / 6
            row[45], row[50] = e / 6, ne / 6
        elif hours == 12:
            row[20], row[46] = v / 12, e / 12
        elif hours == 24:
            row[2], row[6], row[26], row[34] = v / 24, n / 24, lv / 24, ln / 24
            row[47] = e / 24
        elif hours == 48:
            row[21] = v / 48
        elif hours == 72:
            row[22], row[24] = v / 72, n / 72
    squares = up = down = 0.0
    for lag in range(24):
        at = start + step * lag
        move = blocks[at, CLOSE] - blocks[at + step, CLOSE]
        squares += move * move
        if move > 0.0:
            up += move * move
        else:
            down += move * move
        if lag == 5:
            row[31] = squares / 6
    daily = 0.0
    for day in range(1, 8):
        daily += blocks[start + step * (24 * day - 1), LOG_VARIANCE]
    row[35] = blocks[start + step * 23, LOG_VARIANCE]
    v, n, lv, ln = v / MEMORY_H, n / MEMORY_H, lv / MEMORY_H, ln / MEMORY_H
    level = math.log(max(v, VARIANCE_FLOOR))
    v1 = math.log(max(row[0], VARIANCE_FLOOR))
    v6 = math.log(max(row[1], VARIANCE_FLOOR))
    v24 = math.log(max(row[2], VARIANCE_FLOOR))
    row[0], row[1], row[2], row[3] = v1 - v6, v6 - v24, v24 - level, level
    for i in (18, 19, 20, 21, 22, 31):
        row[i] = math.log(max(row[i], VARIANCE_FLOOR)) - level
    for i in (4, 5, 6, 23, 24):
        row[i] = math.log(max(row[i] / n, VOLUME_FLOOR)) if n > 0.0 else 0.0
    deviation = math.sqrt(max(v, VARIANCE_FLOOR))
    row[7] = (blocks[start, CLOSE] - blocks[start + step, CLOSE]) / deviation
    row[8] = (blocks[start, CLOSE] - blocks[start + step * 6, CLOSE]) / (deviation * math.sqrt(6.0))
    row[9] = (blocks[start, CLOSE] - blocks[start + step * 24, CLOSE]) / (
        deviation * math.sqrt(24.0)
    )
    row[10] = blocks[start, ASYMMETRY]
    _clock(end_s, row)
    row[25], row[26], row[27] = row[25] - level, row[26] - level, lv - level
    row[28], row[29], row[30] = s0 - level, s1 - level, s2 - level
    row[32] = (down - up) / max(squares, VARIANCE_FLOOR)
    row[33], row[34] = row[33] - ln, row[34] - ln
    row[35], row[36] = row[35] - level, daily / 7.0 - level
    for which in range(5):
        row[37 + which] = usual(profiles, which, end_s)
    return lv, ln


@njit(cache=True)
def _clock(end_s: int, row: Floats) -> None:
    middle_s = end_s + HOUR_S / 2  # of the hour that is forecast
    day, week = 2 * math.pi * middle_s / 86_400, 2 * math.pi * middle_s / 604_800
    row[11], row[12], row[13], row[14] = (
        math.sin(day),
        math.cos(day),
        math.sin(2 * day),
        math.cos(2 * day),
    )
    row[15], row[16] = math.sin(week), math.cos(week)
    weekday = (middle_s // 86_400 + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0
    row[17] = 1.0 if weekday >= 5 else 0.0


@njit(cache=True)
def rows_of(first_end_s: int, blocks: Floats, profiles: Floats, rows: Floats) -> None:
    """Rows (N − 167, ≥ 51) of N contiguous hours; fills in the surprises, moves the profiles."""
    means = (0.0, 0.0)
    for t in range(len(blocks)):
        end_s = first_end_s + t * HOUR_S
        if t < MEMORY_H:
            means = means_of_logs(blocks, t - 1, -1, t)
        take_block(min(t, MEMORY_H), means, end_s, blocks[t], profiles)
        if t >= MEMORY_H - 1:
            means = fill_row(blocks, t, -1, end_s, profiles, rows[t - MEMORY_H + 1])
