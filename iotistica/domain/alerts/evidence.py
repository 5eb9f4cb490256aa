"""The evidence that a moment is unlike the past of its series: numbers, and the means that they come from.

`share` is 1 / age, the part of the newest moment in a mean of all; each mean has a least pace of its own.
"""

from array import array
from math import inf, log
from typing import Final

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
LEAST_CHANGE: Final = 0.05  # of the usual change, added to both: keeps the ratio of changes from 0
GAP: Final = 12.0  # intervals: a change over a longer time says nothing about activity
RECORD_UNIT: Final = 0.02  # share of the range seen so far that a record exceeds it by, to be worth ln 2
FIRST_MOVE: Final = 3.0  # nats that the first change of a constant is worth as a record
GROWN_UP: Final = 1000  # moments; from this age a record has its full worth
LARGEST_RATIO: Final = 1e300  # of a record to its unit, which may be tiny


def learn_expected(state: DetectorState, half_hour: int, value: float, share: float) -> None:
    """Let the level and what this half hour adds to it learn a value."""
    numbers, visits = state.numbers, state.visits[half_hour]
    level, usual, interval = numbers[LEVEL], numbers[PROFILE + half_hour], numbers[INTERVAL]
    slower = interval / USUAL_INTERVAL if interval < USUAL_INTERVAL else 1.0
    level_pace, profile_pace = LEVEL_PACE * slower, PROFILE_PACE * slower
    if visits < MOST_VISITS:
        state.visits[half_hour] = visits = visits + 1
        profile_pace = max(1.0 / visits, profile_pace)
    numbers[PROFILE + half_hour] = usual + (value - level - usual) * profile_pace
    numbers[LEVEL] = level + (value - level) * (share if share > level_pace else level_pace)


def shift(numbers: "array[float]", value: float, share: float) -> float:
    """Return the short mean less the long mean."""
    short, long = numbers[SHORT_MEAN], numbers[LONG_MEAN]
    numbers[SHORT_MEAN] = short = short + (value - short) * (share if share > SHORT_PACE else SHORT_PACE)
    numbers[LONG_MEAN] = long = long + (value - long) * (share if share > LONG_PACE else LONG_PACE)
    return short - long


def activity(numbers: "array[float]", seconds: float, value: float, share: float) -> float:
    """Return ln of the recent mean change over the usual one. A change over a gap is not learned."""
    recent, usual, interval = numbers[SHORT_CHANGE], numbers[LONG_CHANGE], numbers[INTERVAL]
    if seconds != interval:
        interval = interval or seconds
        numbers[INTERVAL] = interval + (min(seconds, 4.0 * interval) - interval) * max(share, INTERVAL_PACE)
    if seconds <= GAP * interval:
        change = abs(value - numbers[PREVIOUS])
        numbers[SHORT_CHANGE] = recent = recent + (change - recent) * (
            share if share > SHORT_CHANGE_PACE else SHORT_CHANGE_PACE
        )
        numbers[LONG_CHANGE] = usual = usual + (change - usual) * (
            share if share > LONG_CHANGE_PACE else LONG_CHANGE_PACE
        )
    numbers[PREVIOUS] = value
    least = LEAST_CHANGE * usual
    return log((recent + least) / (usual + least)) if least > 0.0 else 0.0


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
