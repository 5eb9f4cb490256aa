"""Joins lines on one grid into one."""

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
    """Of each time that a line has a value for, what the values make; `last` is that of the last such line."""
    found: defaultdict[datetime, list[float]] = defaultdict(list)
    for line in lines:
        for time, value in line.items():
            if value is not None:
                found[time].append(value)
    return {time: _JOIN[how](values) for time, values in found.items()}
