"""The compiled part of the features: one row from the last 168 hour blocks, and what is usual.

Variance has a weekly rhythm that differs by market and drifts, so a forecast of the next hour needs
to know what that hour of the week usually brings. A *profile* is the exponentially weighted mean,
per hour of the day or of the week, of how far the log of an hour's variance (or notional) lay from
its mean over the 168 h before. The *surprise* of an hour is what remains after the profile as it was
known before that hour: means of surprises are HAR's regressors with the rhythm taken out.

Windows are sums of sums: 6 h are 3 h and the 3 h before them, and so on to 24 h; 168 h are seven
days. An hour costs about a dozen additions a column, and nothing is ever subtracted, so that no
rounding stays behind: a sum is exact to 12 roundings of its own terms, however large the block that
has just left it. Exponential means are the same sums with the older part faded.

Batch and stream make the same additions in the same order, so they agree to the bit where their
blocks do: the batch hour by hour, the stream anew from the last 168 blocks.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

HOUR_S = 3600
WEEK_S = 168 * HOUR_S
MEMORY_H = 168
VARIANCE_FLOOR = 1e-10
"""Per hour (a range of 0.17 bp): below it a block counts as flat, so that its log exists."""
VOLUME_FLOOR = 1e-3
"""Relative to the trailing mean."""
NOTIONAL_FLOOR_USD = 1.0

(
    CLOSE,
    ASYMMETRY,
    VARIANCE,
    NOTIONAL,
    LOG_VARIANCE,
    LOG_NOTIONAL,
    SURPRISE,
    VOLUME_SURPRISE,
) = range(8)
"""Columns of a block; CLOSE is a log."""
WIDTH = 8

DAY, WEEK_4, WEEK_10, WEEK_26, VOLUME_WEEK = range(5)
"""Profiles: an hour of the day with a half-life of 28 days, and hours of the week in weeks."""
_KEEP = 0.5 ** (1.0 / np.array([28.0, 4.0, 10.0, 26.0, 10.0]))
_SHRINK = 0.15
"""Weight of "no rhythm": two to four observations of an hour of the week outweigh it."""

_SQUARE, _SEMIVARIANCE, _SMOOTH, _COLUMNS = 8, 9, 10, 13
"""More columns of sums: squared moves of the close, the same with their signs, and smooth logs."""
_HALF_LIVES_H = np.array([2.0, 6.0, 18.0])
_FADE = 0.5 ** (np.arange(MEMORY_H)[:, None] / _HALF_LIVES_H)
_SMOOTH_WEIGHT = _FADE.sum(0)
_3H, _6H, _12H, _24H = range(1, 5)
"""Sums over so many hours that end at each hour; at 0 are the hours themselves."""
_LAST = 255
"""The last of the 256 places of a ring: of the last 168 hours none is overwritten yet."""

compiled = njit(cache=True, error_model="numpy")
part = njit(cache=True, error_model="numpy", forceinline=True)
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Week = tuple[float, float, float, float]


def new_profiles() -> Floats:
    """Profiles (5, 168, 2) before anything is known: weighted sum and weight of each hour."""
    return np.zeros((5, MEMORY_H, 2))


def new_past() -> Floats:
    """Rings (5, 256, 13) of hours and of sums over 3, 6, 12 and 24 h, before anything is known."""
    return np.zeros((5, _LAST + 1, _COLUMNS))


@part
def usual(profiles: Floats, which: int, start_s: int) -> float:
    """What the profile expects of the hour that begins at `start_s`, between two hours linearly."""
    hour = start_s // HOUR_S
    value = _expected(profiles, which, hour)
    if start_s != hour * HOUR_S:
        share = (start_s - hour * HOUR_S) / HOUR_S
        value += share * (_expected(profiles, which, hour + 1) - value)
    return value


@part
def _expected(profiles: Floats, which: int, hour: int) -> float:
    at = hour % 24 if which == DAY else hour % MEMORY_H
    return float(profiles[which, at, 0] / (profiles[which, at, 1] + _SHRINK))


@compiled
def describe(
    opening: float, high: float, low: float, close: float, notional: float, block: Floats
) -> None:
    """The block of bars with these prices: variance, notional, asymmetry and log close.

    Asymmetry is (up − down) / (up + down) of the log range round the open, 0 for a flat bar.
    """
    width = math.log(high / low)
    block[VARIANCE] = width * width / (4.0 * math.log(2.0))
    block[NOTIONAL] = notional
    block[ASYMMETRY] = 1.0 - 2.0 * math.log(opening / low) / width if width > 0.0 else 0.0
    block[CLOSE] = math.log(close)


@part
def take_block(known: int, week: Week, end_s: int, block: Floats, profiles: Floats) -> None:
    """Fill in a new block's logs and surprises; where it ends on the hour, move the profiles.

    `week` is `week_of` the `known` blocks before it, an hour apart.
    """
    block[LOG_VARIANCE] = math.log(max(block[VARIANCE], VARIANCE_FLOOR))
    block[LOG_NOTIONAL] = math.log(max(block[NOTIONAL], NOTIONAL_FLOOR_USD))
    block[SURPRISE] = block[VOLUME_SURPRISE] = 0.0
    if known == 0:
        return
    variance = block[LOG_VARIANCE] - week[2] / known
    notional = block[LOG_NOTIONAL] - week[3] / known
    block[SURPRISE] = variance - usual(profiles, WEEK_10, end_s - HOUR_S)
    block[VOLUME_SURPRISE] = notional - usual(profiles, VOLUME_WEEK, end_s - HOUR_S)
    if end_s % HOUR_S == 0:
        hour = end_s // HOUR_S - 1
        for which in range(5):
            at = hour % 24 if which == DAY else hour % MEMORY_H
            keep, found = _KEEP[which], notional if which == VOLUME_WEEK else variance
            profiles[which, at, 0] = keep * profiles[which, at, 0] + (1.0 - keep) * found
            profiles[which, at, 1] = keep * profiles[which, at, 1] + (1.0 - keep)


@part
def _move(past: Floats, t: int) -> None:
    """The close's move over hour t. (The first hour's is wrong, and in no window that is used.)"""
    here = past[0, t & _LAST]
    move = here[CLOSE] - past[0, (t - 1) & _LAST, CLOSE]
    here[_SQUARE] = move * move
    here[_SEMIVARIANCE] = -move * abs(move)


@part
def _add(past: Floats, t: int) -> None:
    """Sums over the 3, 6, 12 and 24 h that end at hour t."""
    h, h1, h2 = past[0, t & _LAST], past[0, (t - 1) & _LAST], past[0, (t - 2) & _LAST]
    three, six, twelve, day = past[_3H], past[_6H], past[_12H], past[_24H]
    at, at_3, at_6, at_12 = t & _LAST, (t - 3) & _LAST, (t - 6) & _LAST, (t - 12) & _LAST
    for c in range(VARIANCE, _SMOOTH):
        three[at, c] = h[c] + h1[c] + h2[c]
        six[at, c] = three[at, c] + three[at_3, c]
        twelve[at, c] = six[at, c] + six[at_6, c]
        day[at, c] = twelve[at, c] + twelve[at_12, c]
    for i in range(3):
        c = _SMOOTH + i
        late = h[LOG_VARIANCE] + _FADE[1, i] * h1[LOG_VARIANCE]
        three[at, c] = late + _FADE[2, i] * h2[LOG_VARIANCE]
        six[at, c] = three[at, c] + _FADE[3, i] * three[at_3, c]
        twelve[at, c] = six[at, c] + _FADE[6, i] * six[at_6, c]
        day[at, c] = twelve[at, c] + _FADE[12, i] * twelve[at_12, c]


@part
def week_of(past: Floats, t: int) -> Week:
    """Sums over the 168 hours up to t of variance, notional and their logs."""
    day = past[_24H, t & _LAST]
    v, n, lv, ln = day[VARIANCE], day[NOTIONAL], day[LOG_VARIANCE], day[LOG_NOTIONAL]
    for back in range(24, MEMORY_H, 24):
        day = past[_24H, (t - back) & _LAST]
        v, n = v + day[VARIANCE], n + day[NOTIONAL]
        lv, ln = lv + day[LOG_VARIANCE], ln + day[LOG_NOTIONAL]
    return v, n, lv, ln


@compiled
def look_back(ends: Ints, blocks: Floats, count: int, at_s: int, past: Floats) -> int:
    """Blocks at `at_s`, an hour before, and so on, into hours 167, 166, … of `past`, and their sums.

    Gives how many are known (up to 168); the hours before them are zero. Between the ends of bars
    a block is the linear interpolation of its neighbours.
    """
    known = 0
    if count and at_s >= ends[0]:
        known = min((at_s - ends[0]) // HOUR_S + 1, MEMORY_H)
    place, step = count, 1
    for lag in range(known):
        when, before = at_s - lag * HOUR_S, place
        place -= step  # right where bars of one width follow another
        if place < 0 or ends[place] < when or (place > 0 and ends[place - 1] >= when):
            place = int(np.searchsorted(ends[:count], when))
            step = before - place
        here, share = place, 0.0
        if ends[place] > when:
            here, share = place - 1, (when - ends[place - 1]) / (ends[place] - ends[place - 1])
        for c in range(WIDTH):
            low = blocks[here, c]
            past[0, MEMORY_H - 1 - lag, c] = low + share * (blocks[place, c] - low)
    for t in range(MEMORY_H - known):
        for c in range(WIDTH):
            past[0, t, c] = 0.0
    for t in range(MEMORY_H):
        _move(past, t)
    for t in range(2, MEMORY_H, 3):
        _add(past, t)
    return known


@part
def fill_row(past: Floats, t: int, week: Week, end_s: int, profiles: Floats, row: Floats) -> None:
    """The features (51,) at hour t, in the order of `features.CANDLE_FEATURES`, but the clock's.

    `past` holds the 168 hours up to t and their sums, `week` is `week_of` them.
    """
    at, hours = t & _LAST, past[0]
    here = hours[at]
    variance = week[0] / 168
    level, deviation = _log_variance(variance), math.sqrt(max(variance, VARIANCE_FLOOR))
    _variances(past, t, level, row)
    row[27] = week[2] / 168 - level
    _volumes(past, t, week[1] / 168, week[3] / 168, row)
    row[7] = (here[CLOSE] - hours[(t - 1) & _LAST, CLOSE]) / deviation
    row[8] = (here[CLOSE] - hours[(t - 6) & _LAST, CLOSE]) / (deviation * math.sqrt(6.0))
    row[9] = (here[CLOSE] - hours[(t - 24) & _LAST, CLOSE]) / (deviation * math.sqrt(24.0))
    row[10] = here[ASYMMETRY]
    row[31] = _log_variance(past[_6H, at, _SQUARE] / 6) - level
    row[32] = past[_24H, at, _SEMIVARIANCE] / max(past[_24H, at, _SQUARE], VARIANCE_FLOOR)
    for which in range(5):
        row[37 + which] = usual(profiles, which, end_s)
    row[42] = here[SURPRISE]
    row[43] = (here[SURPRISE] + hours[(t - 1) & _LAST, SURPRISE]) / 2
    row[44], row[45] = past[_3H, at, SURPRISE] / 3, past[_6H, at, SURPRISE] / 6
    row[46], row[47] = past[_12H, at, SURPRISE] / 12, past[_24H, at, SURPRISE] / 24
    row[48], row[49] = here[VOLUME_SURPRISE], past[_3H, at, VOLUME_SURPRISE] / 3
    row[50] = past[_6H, at, VOLUME_SURPRISE] / 6


@part
def _variances(past: Floats, t: int, level: float, row: Floats) -> None:
    """Logs of mean variances and means of log variances, less the level over 168 h."""
    at, hours = t & _LAST, past[0]
    h2 = hours[at, VARIANCE] + hours[(t - 1) & _LAST, VARIANCE]
    h48 = past[_24H, at, VARIANCE] + past[_24H, (t - 24) & _LAST, VARIANCE]
    h72 = h48 + past[_24H, (t - 48) & _LAST, VARIANCE]
    six = _log_variance(past[_6H, at, VARIANCE] / 6)
    day = _log_variance(past[_24H, at, VARIANCE] / 24)
    row[0], row[1], row[2] = hours[at, LOG_VARIANCE] - six, six - day, day - level
    row[3] = level
    row[18] = _log_variance(h2 / 2) - level
    row[19] = _log_variance(past[_3H, at, VARIANCE] / 3) - level
    row[20] = _log_variance(past[_12H, at, VARIANCE] / 12) - level
    row[21] = _log_variance(h48 / 48) - level
    row[22] = _log_variance(h72 / 72) - level
    row[25] = past[_6H, at, LOG_VARIANCE] / 6 - level
    row[26] = past[_24H, at, LOG_VARIANCE] / 24 - level
    for i in range(3):
        smooth = 0.0
        for day_h in range(144, -1, -24):
            smooth += _FADE[day_h, i] * past[_24H, (t - day_h) & _LAST, _SMOOTH + i]
        row[28 + i] = smooth / _SMOOTH_WEIGHT[i] - level
    same_hour = 0.0
    for day_h in range(24, 169, 24):
        same_hour += hours[(t + 1 - day_h) & _LAST, LOG_VARIANCE]
    row[35] = hours[(t - 23) & _LAST, LOG_VARIANCE] - level
    row[36] = same_hour / 7 - level


@part
def _volumes(past: Floats, t: int, mean: float, mean_log: float, row: Floats) -> None:
    """Logs of mean notionals and means of log notionals, relative to those of 168 h."""
    at = t & _LAST
    h72 = past[_24H, at, NOTIONAL] + past[_24H, (t - 24) & _LAST, NOTIONAL]
    h72 += past[_24H, (t - 48) & _LAST, NOTIONAL]
    row[4], row[5] = past[0, at, NOTIONAL], past[_6H, at, NOTIONAL] / 6
    row[6], row[24] = past[_24H, at, NOTIONAL] / 24, h72 / 72
    row[23] = past[_3H, at, NOTIONAL] / 3
    least, level = VOLUME_FLOOR * mean, math.log(mean) if mean > 0.0 else 0.0
    for c in (4, 5, 6, 23, 24):
        row[c] = math.log(max(row[c], least)) - level if mean > 0.0 else 0.0
    row[33] = past[_6H, at, LOG_NOTIONAL] / 6 - mean_log
    row[34] = past[_24H, at, LOG_NOTIONAL] / 24 - mean_log


@part
def _log_variance(variance: float) -> float:
    return math.log(max(variance, VARIANCE_FLOOR))


@part
def fill_clock(end_s: int, row: Floats) -> None:
    """The clock's features of the hour that begins at `end_s`; they repeat every week."""
    middle_s = (end_s + HOUR_S / 2) % WEEK_S
    day, week = 2 * math.pi * middle_s / 86_400, 2 * math.pi * middle_s / WEEK_S
    row[11], row[12] = math.sin(day), math.cos(day)
    row[13], row[14] = math.sin(2 * day), math.cos(2 * day)
    row[15], row[16] = math.sin(week), math.cos(week)
    weekday = (middle_s // 86_400 + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0
    row[17] = 1.0 if weekday >= 5 else 0.0


@compiled
def close_block(
    ends: Ints, blocks: Floats, count: int, end_s: int, past: Floats, profiles: Floats
) -> None:
    """Complete the block that was begun behind the `count` of a stream; `end_s` is its end."""
    known = look_back(ends, blocks, count, end_s - HOUR_S, past)
    week = week_of(past, MEMORY_H - 1)
    take_block(known, week, end_s, blocks[count], profiles)
    ends[count] = end_s


@compiled
def last_row(
    ends: Ints, blocks: Floats, count: int, past: Floats, profiles: Floats, row: Floats
) -> None:
    """The features (51,) at the end of a stream that knows 168 hours."""
    end_s = ends[count - 1]
    look_back(ends, blocks, count, end_s, past)
    week = week_of(past, MEMORY_H - 1)
    fill_row(past, MEMORY_H - 1, week, end_s, profiles, row)
    fill_clock(end_s, row)


@compiled
def rows_of(first_end_s: int, bars: Floats, past: Floats, profiles: Floats, rows: Floats) -> None:
    """Rows (N − 167, ≥ 51) of N contiguous hours; moves the profiles.

    `bars` (N, 5) are open, high, low, close and notional; `past` is new.
    """
    week = (0.0, 0.0, 0.0, 0.0)
    for t in range(len(bars)):
        end_s, block, bar = first_end_s + t * HOUR_S, past[0, t & _LAST], bars[t]
        describe(bar[0], bar[1], bar[2], bar[3], bar[4], block)
        take_block(min(t, MEMORY_H), week, end_s, block, profiles)
        _move(past, t)
        _add(past, t)
        week = week_of(past, t)
        n = t - MEMORY_H + 1
        if n < 0:
            continue
        fill_row(past, t, week, end_s, profiles, rows[n])
        if n < MEMORY_H:
            fill_clock(end_s, rows[n])
        else:
            for c in range(11, 18):
                rows[n, c] = rows[n - MEMORY_H, c]
