"""The kinds of evidence that a moment is unlike the past of its series: each a number, which then is learned.

`share` is 1 / age, the part of the newest moment in a mean of all; each mean has a least pace of its own.
"""

from array import array
from math import log
from typing import Final

from iotistica.domain.alerts import band
from iotistica.domain.alerts.detector_state import (
    HIGHEST,
    INTERVAL,
    LEVEL,
    LONG_CHANGE,
    LONG_MEAN,
    LOWEST,
    PREVIOUS,
    PROFILE,
    SHORT_CHANGE,
    SHORT_MEAN,
    DetectorState,
)
from iotistica.domain.alerts.tail_counts import WARM

USUAL_INTERVAL: Final = 300.0  # seconds between the moments that the paces of level and profile are made for
LEVEL_PACE: Final = 1 / 1000
PROFILE_PACE: Final = 1 / 10  # of the visits of a half hour
MOST_VISITS: Final = 100  # counted; the slowest profile pace is reached at 60
SHORT_PACE, LONG_PACE = 1 / 32, 1 / 4000
SHORT_CHANGE_PACE, LONG_CHANGE_PACE = 1 / 16, 1 / 256
INTERVAL_PACE: Final = 1 / 32
LEAST_CHANGE: Final = 0.05  # of the usual change, added to both: keeps the ratio of changes from 0
GAP: Final = 12.0  # intervals: a change over a longer time says nothing about activity
RECORD_UNIT: Final = 0.02  # share of the range seen so far that a record exceeds it by, to be worth ln 2
FIRST_MOVE: Final = 3.0  # nats that the first change of a constant is worth as a record
GROWN_UP: Final = 1000  # moments; from this age a record has its full worth
LARGEST_RATIO: Final = 1e300


def residual(state: DetectorState, half_hour: int, mean: float, low: float, high: float, share: float) -> float:
    """Return the distance of the most distant value from level and day profile, which then learn the mean."""
    numbers, visits = state.numbers, state.visits[half_hour]
    level, usual, interval = numbers[LEVEL], numbers[PROFILE + half_hour], numbers[INTERVAL]
    distance = mean - level
    residual = up = distance - usual
    if low != high:
        up, down = high - level - usual, low - level - usual
        residual = up if up > -down else down
    slower = interval / USUAL_INTERVAL if interval < USUAL_INTERVAL else 1.0
    level_pace, profile_pace = LEVEL_PACE * slower, PROFILE_PACE * slower
    if visits < MOST_VISITS:
        state.visits[half_hour] = visits = visits + 1
        profile_pace = max(1.0 / visits, profile_pace)
    numbers[PROFILE + half_hour] = usual + (distance - usual) * profile_pace
    band.learn(numbers, residual, share)
    numbers[LEVEL] = level + distance * (share if share > level_pace else level_pace)
    return residual


def shift(numbers: "array[float]", mean: float, share: float) -> float:
    """Return the short mean less the long mean."""
    short, long = numbers[SHORT_MEAN], numbers[LONG_MEAN]
    numbers[SHORT_MEAN] = short = short + (mean - short) * (share if share > SHORT_PACE else SHORT_PACE)
    numbers[LONG_MEAN] = long = long + (mean - long) * (share if share > LONG_PACE else LONG_PACE)
    return short - long


def activity(numbers: "array[float]", seconds: float, mean: float, share: float) -> float:
    """Return ln of the recent mean change over the usual one. A change over a gap is not learned."""
    recent, usual, interval = numbers[SHORT_CHANGE], numbers[LONG_CHANGE], numbers[INTERVAL]
    if seconds != interval:
        interval = interval or seconds
        numbers[INTERVAL] = interval + (min(seconds, 4.0 * interval) - interval) * max(share, INTERVAL_PACE)
    if seconds <= GAP * interval:
        change = abs(mean - numbers[PREVIOUS])
        numbers[SHORT_CHANGE] = recent = recent + (change - recent) * (
            share if share > SHORT_CHANGE_PACE else SHORT_CHANGE_PACE
        )
        numbers[LONG_CHANGE] = usual = usual + (change - usual) * (
            share if share > LONG_CHANGE_PACE else LONG_CHANGE_PACE
        )
    numbers[PREVIOUS] = mean
    least = LEAST_CHANGE * usual
    return log((recent + least) / (usual + least)) if least > 0.0 else 0.0


def record(numbers: "array[float]", low: float, high: float, age: float) -> float:
    """Return what a value outside the range seen so far is worth, in nats, and widen the range."""
    lowest, highest = numbers[LOWEST], numbers[HIGHEST]
    excess, unit = max(high - highest, lowest - low), RECORD_UNIT * (highest - lowest)
    numbers[LOWEST], numbers[HIGHEST] = min(low, lowest), max(high, highest)
    if age <= WARM:
        return 0.0
    worth = log(1.0 + min(excess / unit, LARGEST_RATIO)) if unit > 0.0 else FIRST_MOVE
    return worth * min(1.0, age / GROWN_UP)
