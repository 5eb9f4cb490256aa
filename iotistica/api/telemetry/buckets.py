"""Aggregates of one series in buckets: planned, asked for, and what every answer says of its sources."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from iotistica.api.telemetry.ranges import Part, of_agent, parts
from iotistica.domain import time_ranges
from iotistica.domain.ids import TenantId
from iotistica.domain.telemetry.aggregates import Aggregate
from iotistica.domain.telemetry.query_plans import Plan, longest, plan
from iotistica.domain.telemetry.rollup_sources import Segment, Source
from iotistica.storage.postgres import Database
from iotistica.storage.telemetry import aggregates
from iotistica.storage.telemetry.aggregates import Bucket

LONGEST: Final = 20_000  # rows of an answer; buckets are fewer, apart from the pieces at the ends


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked, and the sources that answered; `source` is that of the longest part."""

    agent_uuid: UUID
    metric: str
    start: datetime
    end: datetime
    source: str
    sources: list[Part]
    count: int


class Span(NamedTuple):
    """A series and a range of it, as the caller wrote it."""

    agent: UUID
    metric: str
    start: str | None
    end: str | None


class By(NamedTuple):
    """The buckets, as the caller wrote them."""

    interval: str
    tz: str | None
    source: Source | None


async def bucketed(
    database: Database, tenant: TenantId, span: Span, by: By, asked: Sequence[Aggregate]
) -> tuple[Plan, list[Bucket]]:
    """The buckets that have readings, and how they were found; raises `Invalid` and `NotFound`."""
    width, zone = time_ranges.interval(by.interval), time_ranges.zone(by.tz)
    async with database.transaction(tenant) as tx:
        range_ = await of_agent(tx, tenant, span.agent, span.start, span.end, zone=zone)
        how = plan(width, range_.start, range_.end, asked, range_.kept, zone=zone, only=by.source)
        series = [(span.agent, span.metric)]
        rows = await aggregates.buckets(tx, tenant, series, how.grid, how.segments, asked, limit=LONGEST)
    return how, rows


def answer(agent: UUID, metric: str, start: datetime, end: datetime, segments: list[Segment]) -> dict[str, Any]:
    """What every answer begins with."""
    return {
        "agent_uuid": agent,
        "metric": metric,
        "start": start,
        "end": end,
        "source": longest(segments),
        "sources": parts(segments),
    }
