"""Plans which stored sources answer a query of aggregated readings."""

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
    "raw": "raw readings",
    "1m": "minute rollups",
    "1h": "hour rollups",
    "daily": "day rollups",
}


class QueryPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The buckets of a query, and the parts of its time range with the source that answers each."""

    grid: Grid
    segments: list[SourceRange]


def main_source(segments: Sequence[SourceRange]) -> Source:
    """Return the source that answers the largest part of a time range."""
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
    """Return the cheapest plan that answers a query exactly; raises `Invalid` if there is none.

    `only` is the coarsest source to use; finer sources answer the parts that it does not cover. Where raw readings
    were dropped, the range is widened to whole values of the finest rollups that are kept.
    """
    if any(aggregate.raw_only is not None for aggregate in aggregates):
        if only not in (None, "raw"):
            raise Invalid(
                f"must not be a percentile of {NAMES[only or 'raw']}: percentiles need raw readings", "agg"
            )
        if start < coverage.raw_since:
            raise Invalid(
                f"must be {coverage.raw_since.isoformat()} or later for a percentile, which needs raw readings",
                "start",
            )
        only = "raw"
    start, end = widen(start, end, coverage)
    buckets = grid(interval, start, end, zone)
    usable = buckets.sources()
    if only is not None:
        if only not in usable:
            raise Invalid(
                f"must be one of {', '.join(usable)} for these buckets: {NAMES[only]} start by UTC and can span"
                " several buckets",
                "source",
            )
        usable = usable[usable.index(only) :]
    segments = split_by_source(start, end, coverage, usable)
    for segment in segments:
        if segment.start < coverage.since(segment.source):
            coarser = coverage.finest(segment.start)
            raise Invalid(
                f"needs {NAMES[segment.source]}, which are kept since {coverage.since(segment.source).isoformat()};"
                f" for earlier times there are {NAMES[coarser]}: choose a multiple of their length, in a time zone"
                " whose offset does not split them, or a later start",
                "interval",
            )
    return QueryPlan(grid=buckets, segments=segments)
