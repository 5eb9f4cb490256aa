"""Recognises counters, such as energy meters: they only rise, except when they are reset or wrap around to 0."""

from array import array
from typing import Final

from iotistica.domain.alerts.detector_state import IS_COUNTER, RISES, RISING_SINCE

ENOUGH_RISES: Final = 100  # without a fall between them
ENOUGH_SECONDS: Final = 86_400.0  # a day without a fall: a level that has a daily season falls within it
NEAR_ZERO: Final = 0.1  # of the value before: a counter that falls below was reset, or wrapped, or was replaced
ROUNDING: Final = 1e-14  # of the total: what float64 may add to or take from an increase
CLOCK_ROUNDING: Final = 1e-6  # seconds: the same for times


def has_become_one(numbers: "array[float]", at: float, last: float, value: float) -> bool:
    """Take note of a value after another `last` one of what is no counter yet; tell whether it has become one."""
    rises = numbers[RISES]
    if value < last:
        if rises:
            numbers[RISES] = 0.0
        return False
    numbers[RISES] = rises + 1.0
    if not rises:
        numbers[RISING_SINCE] = at
    if rises < ENOUGH_RISES or at - numbers[RISING_SINCE] < ENOUGH_SECONDS:
        return False
    numbers[IS_COUNTER] = 1.0
    return True


def is_none(numbers: "array[float]") -> None:
    """Take note that what was a counter is none."""
    numbers[IS_COUNTER] = numbers[RISES] = 0.0


def is_reset(last: float, value: float) -> bool:
    """Tell whether a counter that has fallen from `last` starts anew. Signed ones wrap to a negative number."""
    return value <= NEAR_ZERO * last and last > 0.0


def increase(before: float, after: float, seconds: float, usual: float) -> float:
    """Return the increase a second; exactly the `usual` one if only rounding tells them apart.

    Or a perfectly regular counter would be judged by its rounding errors, which double now and then as it grows.
    """
    rate = (after - before) / seconds
    rounding = (abs(after) * ROUNDING + abs(rate) * CLOCK_ROUNDING) / seconds
    return usual if abs(rate - usual) <= rounding else rate
