"""Change per second between the points of a line."""

import itertools
from collections.abc import Sequence
from datetime import datetime

import msgspec

Point = tuple[datetime, float | None]


class RateOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A counter only rises: where it falls it has gone round at `counter_max`, or begun anew.

    A rate above `reset_value` that going round would make means that it has begun anew, and there is none.
    """

    counter: bool = False
    counter_max: float = 2.0**53 - 1
    reset_value: float | None = None


def rates(points: Sequence[Point], options: RateOptions) -> list[Point]:
    """The change per second from each point with a value to the next; counters never have a negative one."""
    known = [(time, value) for time, value in points if value is not None]
    out: list[Point] = []
    for (t0, v0), (t1, v1) in itertools.pairwise(known):
        seconds = (t1 - t0).total_seconds()
        change: float | None = v1 - v0
        if options.counter and v1 < v0:
            change = options.counter_max - v0 + v1
            beyond = options.reset_value is not None and change / seconds > options.reset_value
            if beyond or change < 0:
                change = None
        out.append((t1, None if change is None else change / seconds))
    return [point for point in out if point[1] is not None]
