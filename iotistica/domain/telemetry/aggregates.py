"""Aggregates: what each needs to know of the values in a bucket, and what it makes of that.

Only good and uncertain values enter, apart from `count`, which counts every reading.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from iotistica.errors import Invalid

Values = Sequence[float | None]
Totals = Mapping[str, Sequence[Any]]
"""Of many buckets, column by column, by the names of the partials."""


class Aggregate(NamedTuple):
    """`needs` are partials that every source has; where `raw_only` is set only single readings will do."""

    needs: tuple[str, ...]
    finish: Callable[[Totals], Values]
    raw_only: float | None = None
    """The fraction of a percentile."""


def _avg(totals: Totals) -> Values:
    return [total / n if n else None for total, n in zip(totals["sum"], totals["n"], strict=True)]


def _stddev(totals: Totals) -> Values:
    """Of a sample, from sums: None where it is so small beside the mean (1e-6) that no digits of it are left."""
    if "stddev" in totals:
        return totals["stddev"]
    return [_spread(*of) for of in zip(*(totals[name] for name in AGGREGATES["stddev"].needs), strict=True)]


def _spread(n: int | None, total: float, total_sq: float, least: float, greatest: float) -> float | None:
    if not n or n < 2:
        return None
    if least == greatest:
        return 0.0
    mean_sq = total / n * total
    spread = total_sq - mean_sq
    return math.sqrt(spread / (n - 1)) if spread > 1e-12 * mean_sq else None


def _plain(name: str) -> Callable[[Totals], Values]:
    return lambda totals: totals[name]


AGGREGATES: Final[dict[str, Aggregate]] = {
    "avg": Aggregate(("n", "sum"), _avg),
    "min": Aggregate(("min",), _plain("min")),
    "max": Aggregate(("max",), _plain("max")),
    "sum": Aggregate(("sum",), _plain("sum")),
    "count": Aggregate((), lambda totals: [float(count) for count in totals["count"]]),
    "first": Aggregate(("first",), _plain("first")),
    "last": Aggregate(("last",), _plain("last")),
    "stddev": Aggregate(("n", "sum", "sum_sq", "min", "max"), _stddev),
}
_PERCENTILE: Final = re.compile(r"p(\d{1,2}(?:\.\d{1,3})?)")
NAMES: Final = (*AGGREGATES, "median", "p1 … p99.9")


def named(name: str, path: str = "agg") -> Aggregate:
    """The aggregate of that name; raises `Invalid`."""
    if name in AGGREGATES:
        return AGGREGATES[name]
    match = _PERCENTILE.fullmatch("p50" if name == "median" else name)
    if not match or not 0 < float(match[1]) < 100:
        raise Invalid(f"an aggregate is one of {', '.join(NAMES)}", path)
    fraction = float(match[1]) / 100
    return Aggregate((f"p{fraction}",), _plain(f"p{fraction}"), fraction)


def finish(aggregate: Aggregate, totals: Totals) -> Values:
    """The value of each bucket; None where there is none that a double can hold."""
    values = aggregate.finish(totals)
    return [value if value is not None and math.isfinite(value) else None for value in values]
