"""The evidence that a moment is unlike the past of its series: numbers, and the means that they come from.

`share` is 1 / age, the part of the newest moment in a mean of all; each mean has a least pace of its own.
"""

from array import array
from math import inf, log
from struct import Struct
from typing import Final

from iotistica.domain.alerts.detector_state import (
    HIGHEST,
    INTERVAL,
    LOWEST,
    PROFILE,
    WARM,
    DetectorState,
)

USUAL_INTERVAL: Final = 300.0  # seconds between the moments that the paces of level and profile are made for
LEVEL_PACE: Final = 1 / 1000
PROFILE_PACE: Final = 1 / 10  # of the visits of a half hour
MOST_VISITS: Final = 100  # counted; the slowest profile pace is reached at 60
SHORT_PACE, LONG_PACE = 1 / 32, 1 / 4000
SHORT_CHANGE_PACE, LONG_CHANGE_PACE = 1 / 16, 1 / 256
INTERVAL_PACE: Final = 1 / 32
LONGEST_INTERVAL: Final = 4.0  # usual ones: what is learned at most of the time since the last moment
LEAST_CHANGE: Final = 0.05  # of the usual change, added to both: keeps the ratio of changes from 0
GAP: Final = 12.0  # intervals: a change over a longer time says nothing about activity
RECORD_UNIT: Final = 0.02  # share of the range seen so far that a record exceeds it by, to be worth ln 2
FIRST_MOVE: Final = 3.0  # nats that the first change of a constant is worth as a record
GROWN_UP: Final = 1000  # moments; from this age a record has its full worth
LARGEST_RATIO: Final = 1e300  # of a record to its unit, which may be tiny

# The numbers from INTERVAL to LONG_CHANGE, read and written together: each alone would take twice the time
_MEANS: Final = Struct("9d")
_MEANS_AT: Final = 8 * INTERVAL  # bytes
_read_means, _write_means = _MEANS.unpack_from, _MEANS.pack_into


def learn(
    state: DetectorState, half_hour: int, seconds: float, value: float, share: float
) -> tuple[float, float, float, float]:
    """Let all means learn the value of a moment; return activity and shift, and the range of values seen before.

    activity   ln of the recent mean change over the usual one; a change over a gap is not learned
    shift      the short mean less the long mean
    """
    numbers, visits = state.numbers, state.visits[half_hour]
    interval, level, lowest, highest, previous, short, long, recent, usual = _read_means(numbers, _MEANS_AT)
    if not interval:
        interval = seconds
    is_gap = seconds > GAP * interval
    if seconds != interval:
        most = LONGEST_INTERVAL * interval
        interval += ((seconds if seconds < most else most) - interval) * (
            share if share > INTERVAL_PACE else INTERVAL_PACE
        )
    if not is_gap:
        change = abs(value - previous)
        recent += (change - recent) * (share if share > SHORT_CHANGE_PACE else SHORT_CHANGE_PACE)
        usual += (change - usual) * (share if share > LONG_CHANGE_PACE else LONG_CHANGE_PACE)
    short += (value - short) * (share if share > SHORT_PACE else SHORT_PACE)
    long += (value - long) * (share if share > LONG_PACE else LONG_PACE)

    slower = interval / USUAL_INTERVAL if interval < USUAL_INTERVAL else 1.0
    level_pace, profile_pace = LEVEL_PACE * slower, PROFILE_PACE * slower
    if visits < MOST_VISITS:
        state.visits[half_hour] = visits = visits + 1
        profile_pace = profile_pace if profile_pace > 1.0 / visits else 1.0 / visits
    added = numbers[PROFILE + half_hour]
    numbers[PROFILE + half_hour] = added + (value - level - added) * profile_pace
    level += (value - level) * (share if share > level_pace else level_pace)
    _write_means(numbers, _MEANS_AT, interval, level, lowest, highest, value, short, long, recent, usual)
    least = LEAST_CHANGE * usual
    activity = log((recent + least) / (usual + least)) if least > 0.0 else 0.0
    return activity, short - long, lowest, highest


def record(numbers: "array[float]", low: float, high: float, age: float) -> float:
    """Return what a value outside the range seen so far is worth, in nats, and let the range take it in.

    The range at most doubles to each side, or a single nonsense value, such as 65535, would be the last record.
    """
    lowest, highest = numbers[LOWEST], numbers[HIGHEST]
    span = highest - lowest
    most = span if span > 0.0 and age > WARM else inf
    numbers[LOWEST], numbers[HIGHEST] = (
        max(min(low, lowest), lowest - most),
        min(max(high, highest), highest + most),
    )
    if age <= WARM:
        return 0.0
    excess, unit = max(high - highest, lowest - low), RECORD_UNIT * span
    worth = log(1.0 + min(excess / unit, LARGEST_RATIO)) if unit > 0.0 else FIRST_MOVE
    return worth * min(1.0, age / GROWN_UP)
