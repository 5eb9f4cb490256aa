"""Finds the moments at which a series is unlike its own past: streaming, untrained, each judged as it comes.

What is ordinary is a slow level, and a day profile on top of it. Three kinds of evidence make up the surprise:

    residual   how far the value is from level and day profile
    shift      how far the mean of the last 32 or so moments is from that of the last 4000: small, but one-sided
    activity   how much the value changes from moment to moment, compared with usual: restless, or stuck

A record, a value outside all that was seen before, adds to their sum, and the alarm stage decides.

A moment is a reading. Only readings that come faster than once in 50 s are put together to moments: their mean is
learned, the most distant one is judged. A series that only rises is a counter: its increase a second is judged.
"""

from array import array
from math import exp
from typing import Final, NamedTuple

from iotistica.domain.alerts import band, counter, evidence, tail_counts
from iotistica.domain.alerts.alarm_stage import THRESHOLD, is_alarm
from iotistica.domain.alerts.detector_state import (
    ABOVE,
    AGE,
    BEGAN,
    BELOW,
    DAY_BINS,
    EARLIEST,
    HELD,
    HELD_HIGH,
    HELD_LOW,
    HELD_MEAN,
    HIGHEST,
    IS_COUNTER,
    JUDGED_TIME,
    JUDGED_VALUE,
    LAST_TIME,
    LAST_VALUE,
    LEVEL,
    LONG_MEAN,
    LOWEST,
    PREVIOUS,
    PROFILE,
    SHORT_MEAN,
    UNIT,
    USUAL_SIZE,
    WARM,
    DetectorState,
)
from iotistica.domain.alerts.tail_counts import ACTIVITY_COUNTS, REFRESH, RESIDUAL_COUNTS, SHIFT_COUNTS

DAY: Final = 86_400.0  # seconds
BINS_A_SECOND: Final = DAY_BINS / DAY
LARGEST_VALUE: Final = 1e300
LATEST: Final = 1e12  # epoch seconds: whatever is later is a mistake
MOMENT: Final = 50.0  # seconds: less than a minute, so that an unpunctual minute is still one moment
FIRST_DAYS: Final = 2 * DAY  # seconds; alarms in them are only counted: what recurs daily has not recurred yet

# How much the evidences count: 1, 1 and 0.6, so that the squares add up to 1
RESIDUAL_WEIGHT, SHIFT_WEIGHT, ACTIVITY_WEIGHT = (weight / (1 + 1 + 0.6**2) ** 0.5 for weight in (1, 1, 0.6))
DAMPED: Final = 0.5  # what a score is multiplied by that is no alarm: one high point an episode remains

_new: Final = tuple.__new__  # makes a Verdict in half the time that its constructor takes


class Verdict(NamedTuple):
    """What the detector says of a reading; all but the score is in the unit of the series.

    score            0 to 1: how surprising the reading was; above 0.5 only at an alarm
    expected         level and day profile
    low, high        the band of ordinary values: about 1 in 1000 is lower, 1 in 1000 higher
    """

    score: float
    expected: float
    low: float
    high: float


def observe(state: DetectorState, at: float, value: float) -> Verdict | None:
    """Judge a reading by what came before, and learn from it; `at` is in epoch seconds UTC.

    A value that is no number, or not later than the last one, is left alone: None, and the state is not touched.
    """
    numbers = state.numbers
    last, last_value = numbers[LAST_TIME], numbers[LAST_VALUE]
    if not (last < at < LATEST and abs(value) < LARGEST_VALUE):
        return None
    if last == EARLIEST:
        last_value = value
    half_hour = int(at % DAY * BINS_A_SECOND) % DAY_BINS  # rounding may lead to the next day
    if numbers[IS_COUNTER]:
        verdict = _observe_counter(state, at, value, half_hour)
    elif value != last_value and counter.has_become_one(numbers, at, last_value, value):
        _judge_from_now(state, at, value)
        verdict = Verdict(0.0, value, value, value)
    else:
        verdict = _observe_level(state, at, value, half_hour)
    numbers[LAST_TIME] = at
    numbers[LAST_VALUE] = value
    return verdict


def _observe_level(state: DetectorState, at: float, value: float, half_hour: int) -> Verdict:
    numbers = state.numbers
    age, held = numbers[AGE], numbers[HELD]
    mean = low = high = expected = band_low = band_high = value
    if age:
        expected, band_low, band_high = band.around(numbers, age, numbers[LEVEL] + numbers[PROFILE + half_hour])
    if held:
        numbers[HELD] = 0.0
        if at - numbers[LAST_TIME] < MOMENT:  # or what was held is of before a gap
            mean = numbers[HELD_MEAN] + (value - numbers[HELD_MEAN]) / (held + 1.0)
            low, high = numbers[HELD_LOW], numbers[HELD_HIGH]
            low, high = (value if value < low else low), (value if value > high else high)
    seconds = at - numbers[JUDGED_TIME]
    if seconds < MOMENT and age:
        numbers[HELD], numbers[HELD_MEAN], numbers[HELD_LOW], numbers[HELD_HIGH] = held + 1.0, mean, low, high
        return _new(Verdict, (0.0, expected, band_low, band_high))
    numbers[JUDGED_TIME] = at
    score = _score(state, age, half_hour, expected, seconds, mean, low, high)
    return _new(Verdict, (score, expected, band_low, band_high))


def _observe_counter(state: DetectorState, at: float, value: float, half_hour: int) -> Verdict:
    """Judge the increase a second since the last moment; a reset has none, and any other fall ends the counter."""
    numbers = state.numbers
    before, seconds, fell = numbers[JUDGED_VALUE], at - numbers[JUDGED_TIME], value < numbers[LAST_VALUE]
    if fell and counter.is_reset(numbers[LAST_VALUE], value):
        numbers[JUDGED_TIME], numbers[JUDGED_VALUE] = at, value
        return Verdict(0.0, value, value, value)
    expected = low = high = value
    rates, age = (0.0, 0.0, 0.0), numbers[AGE]
    if age:
        rates = band.around(numbers, age, numbers[LEVEL] + numbers[PROFILE + half_hour])
        expected, low, high = [_risen(before, seconds * rate) for rate in rates]
    if seconds < MOMENT and not fell:
        return Verdict(0.0, expected, low, high)
    rate = counter.increase(before, value, max(seconds, 1.0), numbers[PREVIOUS])
    numbers[JUDGED_TIME], numbers[JUDGED_VALUE] = at, value
    score = _score(state, age, half_hour, rates[0], seconds, rate, rate, rate)
    if fell:
        counter.is_none(numbers)
        _judge_from_now(state, at, value)
    return Verdict(score, expected, low, high)


def _judge_from_now(state: DetectorState, at: float, value: float) -> None:
    state.forget()
    state.numbers[JUDGED_TIME], state.numbers[JUDGED_VALUE] = at, value


def _risen(total: float, increase: float) -> float:
    """Return a total after an increase; it never falls, and has an end."""
    risen = total + increase if increase > 0.0 else total
    return risen if risen < LARGEST_VALUE else LARGEST_VALUE


def _begin(numbers: "array[float]", mean: float, low: float, high: float) -> None:
    numbers[LEVEL] = numbers[SHORT_MEAN] = numbers[LONG_MEAN] = numbers[PREVIOUS] = mean
    numbers[LOWEST], numbers[HIGHEST], numbers[BEGAN] = low, high, numbers[JUDGED_TIME]
    numbers[ABOVE] = numbers[BELOW] = band.FIRST_REACH


def _score(
    state: DetectorState,
    age: float,
    half_hour: int,
    expected: float,
    seconds: float,
    mean: float,
    low: float,
    high: float,
) -> float:
    """Judge a moment, `seconds` after the one before, whose values have this mean, minimum and maximum."""
    numbers, counts = state.numbers, state.counts
    if not age:
        _begin(numbers, mean, low, high)
        expected, seconds = mean, 0.0
    elif not age % REFRESH:
        tail_counts.refresh(state)
        band.narrow(numbers, REFRESH)
    numbers[AGE] = age = age + 1.0
    share = 1.0 / age
    above, below = high - expected, low - expected
    residual = above if above > -below else below
    size = numbers[USUAL_SIZE]
    most = band.OUTLIER * size
    learned = mean if -most < mean - expected < most else band.tamed(age, most, expected, mean)
    activity, shift, lowest, highest = evidence.learn(state, half_hour, seconds, learned, share)
    band.learn(numbers, age, size, residual, share)
    if numbers[UNIT]:
        of_residual = RESIDUAL_COUNTS.count(numbers, counts, residual)
    else:
        of_residual = tail_counts.first_residual(state, residual)
    surprise = (
        RESIDUAL_WEIGHT * of_residual
        + SHIFT_WEIGHT * SHIFT_COUNTS.count(numbers, counts, shift)
        + ACTIVITY_WEIGHT * ACTIVITY_COUNTS.count(numbers, counts, activity)
    )
    if high > highest or low < lowest:
        surprise += evidence.record(numbers, low, high, age)
    score = 1.0 - exp(-0.5 * surprise)
    if surprise < THRESHOLD or age <= WARM or not is_alarm(numbers, surprise):
        return DAMPED * score
    return score if numbers[JUDGED_TIME] - numbers[BEGAN] >= FIRST_DAYS else DAMPED * score
