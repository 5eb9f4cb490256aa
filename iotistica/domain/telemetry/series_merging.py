"""Merges several series on the same time grid into one."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, Literal

Merge = Literal["avg", "sum", "min", "max", "last", "count"]
_JOIN: Final[dict[Merge, Callable[[Sequence[float]], float]]] = {
    "avg": lambda values: sum(values) / len(values),
    "sum": sum,
    "min": min,
    "max": max,
    "last": lambda values: values[-1],
    "count": lambda values: float(len(values)),
}


def merge(lines: Sequence[Mapping[datetime, float | None]], how: Merge) -> dict[datetime, float | None]:
    """Merge lines into one value for each time; with `last`, that of the last line that has a value then."""
    values_by_time: defaultdict[datetime, list[float]] = defaultdict(list)
    for line in lines:
        for time, value in line.items():
            if value is not None:
                values_by_time[time].append(value)
    return {time: _JOIN[how](values) for time, values in values_by_time.items()}
