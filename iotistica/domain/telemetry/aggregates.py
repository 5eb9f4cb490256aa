"""The aggregates of a bucket: the partial values that each one needs, and how it is computed from them.

Only values of good or uncertain quality are aggregated, except that `count` counts every reading.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from iotistica.errors import Invalid

Values = Sequence[float | None]
Totals = Mapping[str, Sequence[Any]]
"""The partial values of many buckets: one column for each partial, by its name."""


class Aggregate(NamedTuple):
    """An aggregate: `needs` names the partials that `finish` computes it from.

    Every source has these partials, unless `raw_only` is set: then only raw readings can answer.
    """

    needs: tuple[str, ...]
    finish: Callable[[Totals], Values]
    raw_only: float | None = None
    """The fraction of a percentile, from 0 to 1; None for other aggregates."""


def _avg(totals: Totals) -> Values:
    return [total / n if n else None for total, n in zip(totals["sum"], totals["n"], strict=True)]


def _stddev(totals: Totals) -> Values:
    """Return sample standard deviations; None where rounding leaves no digits (below about 1e-6 of the mean)."""
    if "stddev" in totals:
        return totals["stddev"]
    return [
        _sample_stddev(*bucket)
        for bucket in zip(*(totals[name] for name in AGGREGATES["stddev"].needs), strict=True)
    ]


def _sample_stddev(n: int | None, total: float, total_sq: float, least: float, greatest: float) -> float | None:
    if not n or n < 2:
        return None
    if least == greatest:
        return 0.0
    mean_sq = total / n * total
    squares = total_sq - mean_sq  # the sum of squared deviations from the mean
    return math.sqrt(squares / (n - 1)) if squares > 1e-12 * mean_sq else None


def _column(name: str) -> Callable[[Totals], Values]:
    return lambda totals: totals[name]


AGGREGATES: Final[dict[str, Aggregate]] = {
    "avg": Aggregate(("n", "sum"), _avg),
    "min": Aggregate(("min",), _column("min")),
    "max": Aggregate(("max",), _column("max")),
    "sum": Aggregate(("sum",), _column("sum")),
    "count": Aggregate((), lambda totals: [float(count) for count in totals["count"]]),
    "first": Aggregate(("first",), _column("first")),
    "last": Aggregate(("last",), _column("last")),
    "stddev": Aggregate(("n", "sum", "sum_sq", "min", "max"), _stddev),
}
_PERCENTILE: Final = re.compile(r"p(\d{1,2}(?:\.\d{1,3})?)")
NAMES: Final = (*AGGREGATES, "median", "p1 … p99.9")


def named(name: str, path: str = "agg") -> Aggregate:
    """Return the aggregate of a name; raises `Invalid` for an unknown name."""
    if name in AGGREGATES:
        return AGGREGATES[name]
    match = _PERCENTILE.fullmatch("p50" if name == "median" else name)
    if not match or not 0 < float(match[1]) < 100:
        raise Invalid(f"must be one of {', '.join(NAMES)}; it is {name[:50]!r}", path)
    fraction = float(match[1]) / 100
    return Aggregate((f"p{fraction}",), _column(f"p{fraction}"), fraction)


def finish(aggregate: Aggregate, totals: Totals) -> Values:
    """Return the value of each bucket; None if it has no value, or none that a double can hold."""
    values = aggregate.finish(totals)
    return [value if value is not None and math.isfinite(value) else None for value in values]
