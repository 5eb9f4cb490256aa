"""What a query of readings asks for, and the plan by which it is answered."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from iotistica.domain.telemetry.aggregates import Aggregate
from iotistica.domain.telemetry.rollup_sources import WIDTHS, Coverage, Source, SourceRange, split_by_source, widen
from iotistica.domain.telemetry.time_grids import Grid, grid
from iotistica.domain.time_ranges import Interval
from iotistica.errors import Invalid

NAMES: Final[dict[Source, str]] = {
    "raw": "single readings",
    "1m": "values by the minute",
    "1h": "values by the hour",
    "daily": "values by the day",
}


class QueryPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Buckets, and the parts of their range with the source of each."""

    grid: Grid
    segments: list[SourceRange]


def main_source(segments: Sequence[SourceRange]) -> Source:
    """The source that answers for the most of a range."""
    spans = {
        source: sum((s.end - s.start).total_seconds() for s in segments if s.source == source) for source in WIDTHS
    }
    return max(spans, key=lambda source: spans[source])


def plan_query(
    interval: Interval,
    start: datetime,
    end: datetime,
    aggregates: Sequence[Aggregate],
    coverage: Coverage,
    *,
    zone: ZoneInfo | None = None,
    only: Source | None = None,
) -> QueryPlan:
    """How to answer exactly at the least cost, with `only` from that source; raises `Invalid` where it cannot be.

    Where the single readings are gone, a range is widened to the values that are kept.
    """
    if any(aggregate.raw_only is not None for aggregate in aggregates):
        if only not in (None, "raw"):
            raise Invalid(f"a percentile needs single readings, which {NAMES[only or 'raw']} no longer tell", "agg")
        if start < coverage.raw_since:
            raise Invalid(
                f"a percentile needs single readings, which are kept since {coverage.raw_since.isoformat()}",
                "start",
            )
        only = "raw"
    start, end = widen(start, end, coverage)
    buckets = grid(interval, start, end, zone)
    usable = buckets.sources()
    if only is not None:
        if only not in usable:
            raise Invalid(
                f"{NAMES[only]} do not answer this exactly: they begin by UTC, and are no shorter;"
                f" there are {', '.join(usable)}",
                "source",
            )
        usable = usable[usable.index(only) :]
    segments = split_by_source(start, end, coverage, usable)
    for segment in segments:
        if segment.start < coverage.since(segment.source):
            coarser = coverage.finest(segment.start)
            raise Invalid(
                f"{NAMES[segment.source]} are kept since {coverage.since(segment.source).isoformat()}, before it"
                f" {NAMES[coarser]}: take an interval of those, in a zone that does not cut them, or a later start",
                "interval",
            )
    return QueryPlan(grid=buckets, segments=segments)
