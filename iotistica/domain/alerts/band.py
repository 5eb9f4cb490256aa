"""The band of ordinary values: the usual size of a residual in the last day, times what is seldom exceeded.

It is apart from the tail counts, which never forget the residuals of the first days, when the season was unknown.
"""

from array import array
from typing import Final

from iotistica.domain.alerts.detector_state import (
    ABOVE,
    BELOW,
    HIGHEST,
    INTERVAL,
    IS_OUTSIDE,
    LOWEST,
    USUAL_SIZE,
    WARM,
)

MEMORY: Final = 86_400.0  # seconds: after a change for good, the band is wide enough within a day
FIRST_REACH: Final = 4.0  # usual sizes; of normally distributed residuals, 1 in 1400 is farther to one side
LEAST_REACH: Final = 2.0
MOST_REACH: Final = 100.0
OUTLIER: Final = 100.0  # usual sizes: a single nonsense value, such as 65535, must not spoil the means for weeks
WIDER: Final = 0.1  # share that the reach grows by when values leave the band
SELDOM: Final = 1 / 1000  # share of moments, for each side, at which values may leave the band


def around(numbers: "array[float]", age: float, expected: float) -> tuple[float, float, float]:
    """Return what is expected, and the lowest and highest ordinary value; while few were seen, of all seen."""
    if age < WARM:
        return expected, numbers[LOWEST], numbers[HIGHEST]
    size = numbers[USUAL_SIZE]
    return expected, expected - numbers[BELOW] * size, expected + numbers[ABOVE] * size


def tamed(age: float, most: float, expected: float, value: float) -> float:
    """Return what is to be learned of a value: not farther than `most` from what is expected."""
    if -most <= value - expected <= most or age <= WARM or most == 0.0:
        return value
    return expected + most if value > expected else expected - most


def learn(numbers: "array[float]", age: float, size: float, residual: float, share: float) -> None:
    """Learn a residual, at least a `share` of it, after a usual `size`.

    While values stay outside, the size grows, the reach but once.
    """
    far, side = residual, ABOVE
    if residual < 0.0:
        far, side = -residual, BELOW
    if far > numbers[side] * size:
        far = tamed(age, OUTLIER * size, 0.0, far)
        if not numbers[IS_OUTSIDE]:
            numbers[IS_OUTSIDE] = 1.0
            if age > WARM:
                numbers[side] = min(MOST_REACH, numbers[side] * (1.0 + WIDER))
    elif numbers[IS_OUTSIDE]:
        numbers[IS_OUTSIDE] = 0.0
    pace = numbers[INTERVAL] / MEMORY
    if pace < share or pace > 1.0:
        pace = share if pace < share else 1.0
    numbers[USUAL_SIZE] = size + (far - size) * pace


def narrow(numbers: "array[float]", moments: float) -> None:
    """Let the reach shrink, as is due after so many moments."""
    for side in (ABOVE, BELOW):
        numbers[side] = max(LEAST_REACH, numbers[side] * (1.0 - WIDER * SELDOM * moments))
