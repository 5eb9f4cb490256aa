"""Fills the buckets of a grid that have no value."""

import itertools
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

Fill = Literal["none", "null", "previous", "linear"]


def fill(
    starts: Sequence[datetime], values: Mapping[datetime, float | None], how: Fill
) -> list[tuple[datetime, float | None]]:
    """Return a value for each start, filled from the previous value or by linear interpolation.

    Empty buckets before the first value stay empty; with "linear", also those after the last value. `starts` must
    be in ascending order.
    """
    filled = [(start, values.get(start)) for start in starts]
    if how == "previous":
        return _previous(filled)
    if how == "linear":
        return _linear(filled)
    return filled


def _previous(filled: list[tuple[datetime, float | None]]) -> list[tuple[datetime, float | None]]:
    out, last = [], None
    for start, value in filled:
        last = last if value is None else value
        out.append((start, last))
    return out


def _linear(filled: list[tuple[datetime, float | None]]) -> list[tuple[datetime, float | None]]:
    out = list(filled)
    with_value = [at for at, (_, value) in enumerate(filled) if value is not None]
    for left, right in itertools.pairwise(with_value):
        (t0, v0), (t1, v1) = filled[left], filled[right]
        for at in range(left + 1, right):
            share = (filled[at][0] - t0) / (t1 - t0)
            out[at] = filled[at][0], (v0 or 0.0) * (1 - share) + (v1 or 0.0) * share
    return out
