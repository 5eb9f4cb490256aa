"""Change per second between the points of a line."""

import itertools
from collections.abc import Sequence
from datetime import datetime

import msgspec

Point = tuple[datetime, float | None]


class RateOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A counter only rises: where it falls it has begun anew at 0, or gone round at `counter_max`.

    That is one more than the largest it can show. A rate above `reset_value` that going round would make means
    that it has begun anew all the same.
    """

    counter: bool = False
    counter_max: float | None = None
    reset_value: float | None = None


def rates(points: Sequence[Point], options: RateOptions) -> list[Point]:
    """The change per second from each point with a value to the next; counters never have a negative one."""
    known = [(time, value) for time, value in points if value is not None]
    out: list[Point] = []
    for (t0, v0), (t1, v1) in itertools.pairwise(known):
        seconds = (t1 - t0).total_seconds()
        change: float | None = v1 - v0
        if options.counter and v1 < v0:
            change = _risen(v0, v1, seconds, options)
        out.append((t1, None if change is None else change / seconds))
    return [point for point in out if point[1] is not None]


def _risen(before: float, after: float, seconds: float, options: RateOptions) -> float | None:
    """What a counter has counted where it fell; None where that cannot be told."""
    if options.counter_max is not None:
        round_ = options.counter_max - before + after
        if round_ >= 0 and (options.reset_value is None or round_ / seconds <= options.reset_value):
            return round_
    return after if after >= 0 else None
