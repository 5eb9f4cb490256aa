"""Plans and runs bucketed queries of one series, and holds the fields that all answers share."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from iotistica.api.telemetry import series_names
from iotistica.api.telemetry.ranges import SourcePart, of_agent, source_parts
from iotistica.domain import time_ranges
from iotistica.domain.ids import TenantId
from iotistica.domain.telemetry.aggregates import Aggregate
from iotistica.domain.telemetry.query_plans import QueryPlan, main_source, plan_query
from iotistica.domain.telemetry.rollup_sources import Source, SourceRange
from iotistica.storage.postgres import Database
from iotistica.storage.telemetry import aggregates
from iotistica.storage.telemetry.aggregates import Bucket

LONGEST: Final = 20_000  # rows of an answer; it has at most 10,000 buckets, and pieces of buckets at the ends


class QueryAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The series and range of the query, and the sources of the answer; `source` is that of the longest part."""

    agent_uuid: UUID
    metric: str
    start: datetime
    end: datetime
    source: str
    sources: list[SourcePart]
    count: int


class SeriesRange(NamedTuple):
    """A series and a time range, as the caller wrote them."""

    agent: UUID
    metric: str
    start: str | None
    end: str | None


class BucketSpec(NamedTuple):
    """The width, time zone and source of the buckets, as the caller wrote them."""

    interval: str
    tz: str | None
    source: Source | None


class BucketedSeries(NamedTuple):
    """The whole name of the series, the plan of the query, and the buckets that have readings."""

    metric: str
    plan: QueryPlan
    rows: list[Bucket]


async def bucketed(
    database: Database, tenant: TenantId, span: SeriesRange, by: BucketSpec, asked: Sequence[Aggregate]
) -> BucketedSeries:
    """Run a query of one series by its whole name or its metric; raises `Invalid` and `NotFound`."""
    width, zone = time_ranges.parse_interval(by.interval), time_ranges.parse_zone(by.tz)
    async with database.transaction(tenant) as tx:
        range_ = await of_agent(tx, tenant, span.agent, span.start, span.end, zone=zone)
        plan = plan_query(width, range_.start, range_.end, asked, range_.coverage, zone=zone, only=by.source)

        async def read(metric: str) -> list[Bucket]:
            series = [(span.agent, metric)]
            return await aggregates.buckets(tx, tenant, series, plan.grid, plan.segments, asked, limit=LONGEST)

        metric, rows = await series_names.read_named(tx, tenant, span.agent, span.metric, read)
    return BucketedSeries(metric, plan, rows)


def answer_head(
    agent: UUID, metric: str, start: datetime, end: datetime, segments: list[SourceRange]
) -> dict[str, Any]:
    """Return the fields that every answer begins with."""
    return {
        "agent_uuid": agent,
        "metric": metric,
        "start": start,
        "end": end,
        "source": main_source(segments),
        "sources": source_parts(segments),
    }
