"""Readings: a series over time, the latest values, a summary."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from litestar import Request, Router, get
from litestar.params import Parameter

from iotistica.api.auth import tenant_of
from iotistica.api.tokens import Claims
from iotistica.domain import intervals
from iotistica.errors import Invalid, NotFound
from iotistica.storage import agents, readings
from iotistica.storage.postgres import Database, Tx
from iotistica.storage.readings import Bucket, Summary, Value

BUCKETS: Final = 10_000  # in one answer at most
WINDOWS: Final = (
    timedelta(days=1),
    timedelta(days=7),
    timedelta(days=60),
)  # looked into for the latest values

Metric = Annotated[str, Parameter(min_length=1, max_length=512)]
Time = Annotated[str | None, Parameter(max_length=64)]
Limit = Annotated[int, Parameter(ge=1, le=10_000)]


class Timeseries(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    agent_uuid: UUID
    metric: str
    start: datetime
    end: datetime
    source: str
    count: int
    readings: list[Value] | list[Bucket]
    interval: str | None = None
    agg: str | None = None
    next: datetime | None = None
    """Give it as `start` for the rest, when the answer was cut at `limit`."""


@get("/{agent:uuid}/timeseries", opt={"permission": "read"})
async def timeseries(
    request: Request[Any, Claims, Any],
    database: Database,
    agent: UUID,
    metric: Metric,
    start: Time = None,
    end: Time = None,
    interval: Annotated[str | None, Parameter(max_length=16)] = None,
    agg: Literal["avg", "min", "max", "sum", "count", "first", "last"] = "avg",
    limit: Limit = 10_000,
) -> Timeseries:
    """Readings of one series, the oldest first; with `interval`, their aggregate in each bucket."""
    since, until = intervals.time_range(start, end, now=datetime.now(UTC))
    seconds = intervals.bucket_seconds(interval) if interval else 0
    if seconds and (until - since).total_seconds() / seconds > BUCKETS:
        raise Invalid(f"more than {BUCKETS} buckets: take a longer interval or a shorter range", "interval")
    tenant = tenant_of(request)
    rows: list[Value] | list[Bucket]
    async with database.transaction() as tx:
        await _own(tx, request, agent)
        if seconds:
            rows = await readings.buckets(
                tx, tenant, agent, metric, start=since, end=until, seconds=seconds, aggregate=agg, limit=BUCKETS + 1
            )
        else:
            rows = await readings.raw(tx, tenant, agent, metric, start=since, end=until, limit=limit + 1)
    more = rows[limit].time if not seconds and len(rows) > limit else None
    rows = rows if seconds else rows[:limit]
    return Timeseries(
        agent_uuid=agent,
        metric=metric,
        start=since,
        end=until,
        source="raw",
        count=len(rows),
        readings=rows,
        interval=interval,
        agg=agg if seconds else None,
        next=more,
    )


class Latest(msgspec.Struct, frozen=True, kw_only=True):
    agent_uuid: UUID
    count: int
    readings: list[Value]


@get("/{agent:uuid}/latest", opt={"permission": "read"})
async def latest(
    request: Request[Any, Claims, Any],
    database: Database,
    agent: UUID,
    metrics: Annotated[str | None, Parameter(max_length=8192, description="names, separated by commas")] = None,
    limit: Limit = 1000,
) -> Latest:
    """The newest reading of each series by measured time; what a fast clock dated ahead waits for its time."""
    only = [name for name in metrics.split(",") if name] if metrics else None
    now = datetime.now(UTC)
    edges = [now, *(now - window for window in WINDOWS), datetime(1971, 1, 1, tzinfo=UTC)]
    async with database.transaction() as tx:
        await _own(tx, request, agent)
        windows = [(edges[i + 1], edges[i]) for i in range(len(edges) - 1)]
        rows = await readings.latest(tx, tenant_of(request), agent, windows=windows, only=only, limit=limit)
    return Latest(agent_uuid=agent, count=len(rows), readings=rows)


class SummaryView(msgspec.Struct, frozen=True, kw_only=True):
    agent_uuid: UUID
    start: datetime
    end: datetime
    total_metrics: int
    metrics: list[Summary]


@get("/{agent:uuid}/summary", opt={"permission": "read"})
async def summary(
    request: Request[Any, Claims, Any],
    database: Database,
    agent: UUID,
    start: Time = None,
    end: Time = None,
    limit: Limit = 1000,
) -> SummaryView:
    """Per series the number of readings, the first, the last and the range; of the last day unless asked."""
    since, until = intervals.time_range(start, end, now=datetime.now(UTC), default=timedelta(days=1))
    async with database.transaction() as tx:
        await _own(tx, request, agent)
        rows = await readings.summary(tx, tenant_of(request), agent, start=since, end=until, limit=limit)
    return SummaryView(agent_uuid=agent, start=since, end=until, total_metrics=len(rows), metrics=rows)


async def _own(tx: Tx, request: Request[Any, Claims, Any], agent: UUID) -> None:
    if await agents.get(tx, tenant_of(request), agent) is None:
        raise NotFound


router = Router("/readings", route_handlers=[timeseries, latest, summary], tags=["readings"])
