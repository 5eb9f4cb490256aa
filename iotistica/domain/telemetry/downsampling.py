"""Downsampling that keeps the shape of a line: largest triangles (LTTB), or the extremes of each part.

A gap stays a gap: the line is thinned out between the gaps, and each keeps a point without a value.
"""

import itertools
import statistics
from collections.abc import Sequence
from typing import Final, Literal

Method = Literal["lttb", "minmax"]
LEAST: Final = 3  # minimum number of points to downsample to
GAP: Final = 5
"""A silence of more than this multiple of a series' usual step (the median) is a gap."""


def silences(times: Sequence[float]) -> dict[int, float]:
    """Return the gaps: the position of the point after each, and the time at which the next point was missing."""
    if len(times) < 3:
        return {}
    step = statistics.median(after - before for before, after in itertools.pairwise(times))
    pairs = enumerate(itertools.pairwise(times), 1)
    return {at: before + step for at, (before, after) in pairs if after - before > GAP * step}


def thin_out(times: Sequence[float], values: Sequence[float | None], most: int, method: Method) -> list[int]:
    """Return the ascending positions of at most `most` points to keep; None among the values is a gap.

    Of each gap the first position is kept; of more gaps than a third of `most`, only the longest ones.
    """
    runs = [
        (is_gap, [at for at, _ in run])
        for is_gap, run in itertools.groupby(enumerate(values), lambda item: item[1] is None)
    ]
    gaps = [run for is_gap, run in runs if is_gap]
    if len(gaps) > (most_gaps := (most - 2) // 3):
        ends = [min(run[-1] + 1, len(times) - 1) for run in gaps]
        lengths = [times[end] - times[max(run[0] - 1, 0)] for run, end in zip(gaps, ends, strict=True)]
        longest = sorted(range(len(gaps)), key=lengths.__getitem__)[len(gaps) - most_gaps :]
        gaps = [gaps[at] for at in sorted(longest)]
    marks = {run[0] for run in gaps}
    lines: list[list[int]] = [[]]
    for is_gap, run in runs:
        if not is_gap:
            lines[-1] += run
        elif run[0] in marks:
            lines.append([])
    kept = set(marks)
    for line, count in zip(lines, _shares([len(line) for line in lines], most - len(marks)), strict=True):
        points = [values[at] or 0.0 for at in line]
        kept |= {line[at] for at in downsample([times[at] for at in line], points, count, method)}
    return sorted(kept)


def _shares(sizes: Sequence[int], most: int) -> list[int]:
    """Divide `most` points among lines of these sizes: at least both ends of each, and the rest by size."""
    if sum(sizes) <= most:
        return list(sizes)
    ends = [min(size, 2) for size in sizes]
    left, rest = most - sum(ends), max(sum(sizes) - sum(ends), 1)
    return [end + left * (size - end) // rest for size, end in zip(sizes, ends, strict=True)]


def downsample(times: Sequence[float], values: Sequence[float], most: int, method: Method) -> list[int]:
    """Return the ascending positions of at most `most` points to keep, the first and the last among them."""
    if len(times) <= most:
        return list(range(len(times)))
    if most < LEAST:
        return [0, len(times) - 1][:most]
    return _lttb(times, values, most) if method == "lttb" else _minmax(values, most)


def _lttb(times: Sequence[float], values: Sequence[float], most: int) -> list[int]:
    """Largest triangle three buckets (S. Steinarsson, 2013): each part keeps the point of the largest triangle."""
    size = len(times)
    chosen = [0]
    width = (size - 2) / (most - 2)
    for part in range(most - 2):
        low, high = int(part * width) + 1, int((part + 1) * width) + 1
        after = min(int((part + 2) * width) + 1, size)
        count = max(after - high, 1)
        mean_time = sum(times[high:after]) / count if after > high else times[-1]
        mean_value = sum(values[high:after]) / count if after > high else values[-1]
        t0, v0 = times[chosen[-1]], values[chosen[-1]]
        dt, dv = t0 - mean_time, mean_value - v0
        best, area = low, -1.0
        for at in range(low, high):
            triangle = abs(dt * (values[at] - v0) - (t0 - times[at]) * dv)
            if triangle > area:
                best, area = at, triangle
        chosen.append(best)
    chosen.append(size - 1)
    return chosen


def _minmax(values: Sequence[float], most: int) -> list[int]:
    """Keep both ends, and the lowest and the highest value of each part."""
    size = len(values)
    parts = max((most - 2) // 2, 1) if most > LEAST else 1
    chosen = {0, size - 1}
    for part in range(parts):
        span = range(1 + part * (size - 2) // parts, 1 + (part + 1) * (size - 2) // parts)
        if span:
            chosen.add(max(span, key=values.__getitem__))
            if most > LEAST:
                chosen.add(min(span, key=values.__getitem__))
    return sorted(chosen)
