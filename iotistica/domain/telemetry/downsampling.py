"""Downsampling that keeps the shape of a line: largest triangles (LTTB), or the extremes of each part."""

from collections.abc import Sequence
from typing import Literal

Method = Literal["lttb", "minmax"]
LEAST = 3  # minimum number of points to downsample to


def downsample(times: Sequence[float], values: Sequence[float], most: int, method: Method) -> list[int]:
    """Return the ascending positions of at most `most` points to keep, the first and the last among them."""
    if len(times) <= most:
        return list(range(len(times)))
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
