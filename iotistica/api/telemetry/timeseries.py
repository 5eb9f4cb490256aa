"""The route for one series over time: raw readings, fewer points, or one value per bucket."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Final, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from litestar import Router, get
from litestar.params import FromPath, FromQuery, QueryParameter

from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import tenant_of
from iotistica.api.telemetry import series_names
from iotistica.api.telemetry.buckets import BucketSpec, QueryAnswer, SeriesRange, answer_head, bucketed
from iotistica.api.telemetry.ranges import Metric, SourceChoice, Time, Width, Zone, of_agent, raw_part
from iotistica.domain import time_ranges
from iotistica.domain.ids import TenantId
from iotistica.domain.telemetry import aggregates as rules
from iotistica.domain.telemetry.downsampling import LEAST, Method, silences, thin_out
from iotistica.domain.telemetry.gap_filling import Fill, fill
from iotistica.domain.telemetry.query_plans import QueryPlan
from iotistica.errors import Invalid
from iotistica.storage.postgres import Database
from iotistica.storage.telemetry import timeseries as table
from iotistica.storage.telemetry.aggregates import Bucket
from iotistica.storage.telemetry.timeseries import ReadingsPage, StoredReading

P = TypeVar("P")

POINTS: Final = 200_000  # raw readings that a query with `max_points` reads at most

Limit = Annotated[int, QueryParameter(ge=1, le=10_000)]
Agg = Annotated[str, QueryParameter(max_length=16, description=", ".join(rules.NAMES))]
Most = Annotated[
    int | None, QueryParameter(ge=LEAST, le=10_000, description="the maximum number of points in the answer")
]


class Timeseries(QueryAnswer, frozen=True, kw_only=True):
    """Raw readings, the oldest first."""

    readings: list[StoredReading]
    next: datetime | None
    """Pass it as `start` to get the rest; null if the answer is complete."""


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A reading, or with null the start of a gap: a silence of more than five times the usual step."""

    time: datetime
    value: float | None


class Points(QueryAnswer, frozen=True, kw_only=True):
    """Good and uncertain readings that keep the shape of the line and its gaps, the oldest first.

    `total` counts all of them.
    """

    readings: list[Point]
    total: int


class BucketView(msgspec.Struct, frozen=True, kw_only=True):
    """`count` is the number of all readings, whatever their quality."""

    time: datetime
    value: float | None
    count: int


class Buckets(QueryAnswer, frozen=True, kw_only=True):
    """One value per interval, the oldest first."""

    readings: list[BucketView]
    interval: str
    agg: str
    tz: str


@get("/{agent:uuid}/timeseries", opt={"permission": "readings.read"})
async def timeseries(
    request: ApiRequest,
    database: DatabaseDep,
    agent: FromPath[UUID],
    metric: Metric,
    start: Time = None,
    end: Time = None,
    interval: Width = None,
    agg: Agg = "avg",
    tz: Zone = None,
    fill: FromQuery[Fill] = "none",
    max_points: Most = None,
    downsample: FromQuery[Method] = "lttb",
    source: SourceChoice = None,
    limit: Limit = 10_000,
) -> Timeseries | Points | Buckets:
    """Return readings of one series, the oldest first; with `interval`, their aggregate in each bucket.

    The default range is the last hour. `max_points` returns fewer points that draw the same line, with a null at
    the start of each gap.
    """
    tenant, span, aggregate = tenant_of(request), SeriesRange(agent, metric, start, end), rules.named(agg)
    if interval is not None:
        metric, plan, rows = await bucketed(database, tenant, span, BucketSpec(interval, tz, source), [aggregate])
        views = _filled(plan, rows, fill)
        if max_points is not None:
            views = await asyncio.to_thread(_fewer_buckets, views, max_points, downsample)
        head = answer_head(agent, metric, plan.grid.start, plan.grid.end, plan.segments)
        return Buckets(**head, readings=views, count=len(views), interval=interval, agg=agg, tz=tz or "UTC")
    if fill != "none":
        raise Invalid("needs an interval: only buckets can be filled", "fill")
    if source not in (None, "raw"):
        raise Invalid("must be `raw`, unless `interval` is set", "source")
    if max_points is not None:
        return await _points(database, tenant, span, time_ranges.parse_zone(tz), max_points, downsample)
    return await _raw(database, tenant, span, time_ranges.parse_zone(tz), limit)


async def _raw(
    database: Database, tenant: TenantId, span: SeriesRange, zone: ZoneInfo | None, limit: int
) -> Timeseries:
    async with database.transaction(tenant) as tx:
        raw_range = raw_part(await of_agent(tx, tenant, span.agent, span.start, span.end, zone=zone))

        async def read(metric: str) -> ReadingsPage:
            return await table.raw_readings(
                tx, tenant, span.agent, metric, start=raw_range.start, end=raw_range.end, limit=limit
            )

        metric, page = await series_names.read_named(
            tx, tenant, span.agent, span.metric, read, lambda found: found.values
        )
    return Timeseries(
        **answer_head(span.agent, metric, raw_range.start, raw_range.end, [raw_range]),
        count=len(page.values),
        readings=page.values,
        next=page.next,
    )


async def _points(
    database: Database, tenant: TenantId, span: SeriesRange, zone: ZoneInfo | None, most: int, method: Method
) -> Points:
    async with database.transaction(tenant) as tx:
        raw_range = raw_part(await of_agent(tx, tenant, span.agent, span.start, span.end, zone=zone))

        async def read(metric: str) -> list[tuple[datetime, float]]:
            return await table.usable_points(
                tx, tenant, span.agent, metric, start=raw_range.start, end=raw_range.end, limit=POINTS + 1
            )

        metric, points = await series_names.read_named(tx, tenant, span.agent, span.metric, read)
    if len(points) > POINTS:
        raise Invalid(f"works on at most {POINTS} readings: set `interval`, or a shorter range", "max_points")
    kept = await asyncio.to_thread(_fewer_points, points, most, method)
    return Points(
        **answer_head(span.agent, metric, raw_range.start, raw_range.end, [raw_range]),
        count=len(kept),
        readings=kept,
        total=len(points),
    )


def _filled(plan: QueryPlan, rows: list[Bucket], by: Fill) -> list[BucketView]:
    if by == "none":
        return [BucketView(time=row.time, value=row.values[0], count=row.readings) for row in rows]
    readings = {row.time: row.readings for row in rows}
    values = fill(plan.grid.starts(), {row.time: row.values[0] for row in rows}, by)
    return [BucketView(time=time, value=value, count=readings.get(time, 0)) for time, value in values]


def _fewer_buckets(views: list[BucketView], most: int, method: Method) -> list[BucketView]:
    line = with_gaps([view.time for view in views], views, lambda time: BucketView(time=time, value=None, count=0))
    kept = thin_out([view.time.timestamp() for view in line], [view.value for view in line], most, method)
    return [line[at] for at in kept]


def _fewer_points(points: list[tuple[datetime, float]], most: int, method: Method) -> list[Point]:
    line = with_gaps(
        [time for time, _ in points],
        [Point(time=time, value=value) for time, value in points],
        lambda time: Point(time=time, value=None),
    )
    kept = thin_out([point.time.timestamp() for point in line], [point.value for point in line], most, method)
    return [line[at] for at in kept]


def with_gaps(times: list[datetime], points: list[P], gap: Callable[[datetime], P]) -> list[P]:
    """Return the points of a line with one more at the start of each gap."""
    missing = silences([time.timestamp() for time in times])
    line: list[P] = []
    for at, point in enumerate(points):
        if at in missing:
            line.append(gap(datetime.fromtimestamp(missing[at], UTC)))
        line.append(point)
    return line


router = Router("/readings", route_handlers=[timeseries], tags=["readings"])
