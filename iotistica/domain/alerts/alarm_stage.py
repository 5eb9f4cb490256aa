"""Decides which surprising moments become alarms: one an episode, and the fewer the more a series has had."""

from array import array
from math import exp, log
from typing import Final

from iotistica.domain.alerts.detector_state import AGE, ALARMS, LAST_ALARM

THRESHOLD: Final = 4.5  # nats, of a series without alarms
FOR_EACH_ALARM: Final = 0.2  # nats more
AFTER_ALARM: Final = 1.5  # nats more right after one; they fade with its relative age to the power of FADING
FADING: Final = 5
HOLD_OFF: Final = 0.03  # share of the age without a second alarm
OLDEST: Final = 12_000  # moments; from this age on all periods are those of a series of this age


def is_alarm(numbers: "array[float]", surprise: float) -> bool:
    """Tell whether a surprise of at least `THRESHOLD` is an alarm, and remember it if so.

    The older a series, the slower its clock: between two alarms, a day is long in the first week and short later.
    `since` is how old the series was at its last alarm, as a share of how old it is now; alarms fade with it.
    """
    age, last, alarms = numbers[AGE], numbers[LAST_ALARM], numbers[ALARMS]
    if alarms:
        if age - last <= HOLD_OFF * min(age, OLDEST):
            return False
        since = last / age if age <= OLDEST else exp(_clock(last) - _clock(age))
        alarms *= since
        if surprise < THRESHOLD + FOR_EACH_ALARM * alarms + AFTER_ALARM * since**FADING:
            return False
    numbers[ALARMS], numbers[LAST_ALARM] = alarms + 1.0, age
    return True


def _clock(age: float) -> float:
    return log(age) if age < OLDEST else log(OLDEST) + (age - OLDEST) / OLDEST
