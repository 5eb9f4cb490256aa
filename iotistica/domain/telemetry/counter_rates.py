"""Computes the change per second between the points of a series."""

import itertools
from collections.abc import Sequence
from datetime import datetime

import msgspec

Point = tuple[datetime, float | None]


class RateOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to handle counters: a counter that falls was reset to 0, or has wrapped around at `counter_max`.

    `counter_max` is one more than the largest value of the counter. If wrapping around would mean a rate above
    `reset_value` a second, the counter is taken to have been reset.
    """

    counter: bool = False
    counter_max: float | None = None
    reset_value: float | None = None


def rates(points: Sequence[Point], options: RateOptions) -> list[Point]:
    """Return the change per second from each point with a value to the next; for counters it is never negative."""
    valid = [(time, value) for time, value in points if value is not None]
    out: list[Point] = []
    for (t0, v0), (t1, v1) in itertools.pairwise(valid):
        seconds = (t1 - t0).total_seconds()
        change: float | None = v1 - v0
        if options.counter and v1 < v0:
            change = _increase(v0, v1, seconds, options)
        out.append((t1, None if change is None else change / seconds))
    return [point for point in out if point[1] is not None]


def _increase(before: float, after: float, seconds: float, options: RateOptions) -> float | None:
    """Return the increase of a counter whose value fell, or None if it is unknown."""
    if options.counter_max is not None:
        wrapped = options.counter_max - before + after
        if wrapped >= 0 and (options.reset_value is None or wrapped / seconds <= options.reset_value):
            return wrapped
    return after if after >= 0 else None
