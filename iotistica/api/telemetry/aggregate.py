"""The route that returns all aggregates of one series, in buckets."""

from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from litestar import Router, get
from litestar.params import FromPath

from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import tenant_of
from iotistica.api.telemetry.buckets import BucketSpec, QueryAnswer, SeriesRange, answer_head, bucketed
from iotistica.api.telemetry.ranges import Metric, SourceChoice, Time, Width, Zone
from iotistica.domain.telemetry import aggregates as rules

ALL: Final = ("avg", "min", "max", "sum", "stddev", "first", "last")


class AggregateRow(msgspec.Struct, frozen=True, kw_only=True):
    """One bucket. The values are computed from good and uncertain readings; `sample_count` counts all readings."""

    bucket: datetime
    sample_count: int
    avg_value: float | None
    min_value: float | None
    max_value: float | None
    sum_value: float | None
    stddev_value: float | None
    first_value: float | None
    last_value: float | None


class Aggregates(QueryAnswer, frozen=True, kw_only=True):
    """All aggregates of each interval, the oldest first."""

    interval: str
    tz: str
    aggregates: list[AggregateRow]


@get("/{agent:uuid}/aggregate", opt={"permission": "readings.read"})
async def aggregate(
    request: ApiRequest,
    database: DatabaseDep,
    agent: FromPath[UUID],
    metric: Metric,
    start: Time = None,
    end: Time = None,
    granularity: Width = None,
    interval: Width = None,
    tz: Zone = None,
    source: SourceChoice = None,
) -> Aggregates:
    """Return all aggregates of one series for each interval, the oldest first.

    The range is the last hour and the interval `hourly` by default. `granularity` is the older name of `interval`.
    """
    width = interval or granularity or "hourly"
    wanted = [rules.named(name) for name in ALL]
    span = SeriesRange(agent, metric, start, end)
    metric, plan, rows = await bucketed(database, tenant_of(request), span, BucketSpec(width, tz, source), wanted)
    views = [
        AggregateRow(
            bucket=row.time,
            sample_count=row.readings,
            **{f"{name}_value": value for name, value in zip(ALL, row.values, strict=True)},
        )
        for row in rows
    ]
    head = answer_head(agent, metric, plan.grid.start, plan.grid.end, plan.segments)
    return Aggregates(**head, count=len(views), aggregates=views, interval=width, tz=tz or "UTC")


router = Router("/readings", route_handlers=[aggregate], tags=["readings"])
