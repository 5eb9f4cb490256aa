"""Readings: a series over time, the latest values, a summary."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec
from litestar import Router, get
from litestar.params import FromPath, FromQuery, QueryParameter

from iotistica.api.given import Call, Data
from iotistica.api.guard import tenant_of
from iotistica.api.writing import write
from iotistica.domain import intervals
from iotistica.errors import Invalid, NotFound
from iotistica.storage import agents
from iotistica.storage import timeseries as table
from iotistica.storage.postgres import Tx
from iotistica.storage.timeseries import Bucket, Summary, Value

BUCKETS: Final = 10_000  # in one answer at most
WINDOWS: Final = (
    timedelta(days=1),
    timedelta(days=7),
    timedelta(days=60),
)  # looked into for the latest values

Metric = Annotated[str, QueryParameter(min_length=1, max_length=512)]
Time = Annotated[str | None, QueryParameter(max_length=64)]
Limit = Annotated[int, QueryParameter(ge=1, le=10_000)]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked, and the source that served it."""

    agent_uuid: UUID
    metric: str
    start: datetime
    end: datetime
    source: str
    count: int


class Timeseries(Answer, frozen=True, kw_only=True):
    """Single readings, the oldest first."""

    readings: list[Value]
    next: datetime | None
    """Give it as `start` for the rest, when the answer was cut at `limit`."""


class Buckets(Answer, frozen=True, kw_only=True):
    """One value an interval, the oldest first."""

    readings: list[Bucket]
    interval: str
    agg: str


@get("/{agent:uuid}/timeseries", opt={"permission": "readings.read"})
async def timeseries(
    request: Call,
    database: Data,
    agent: FromPath[UUID],
    metric: Metric,
    start: Time = None,
    end: Time = None,
    interval: Annotated[str | None, QueryParameter(max_length=16)] = None,
    agg: FromQuery[Literal["avg", "min", "max", "sum", "count", "first", "last"]] = "avg",
    limit: Limit = 10_000,
) -> Timeseries | Buckets:
    """Readings of one series, the oldest first; with `interval`, their aggregate in each bucket."""
    since, until = intervals.time_range(start, end, now=datetime.now(UTC))
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        await _own(tx, request, agent)
        if interval is not None:
            seconds = _bucket_seconds(interval, since, until)
            buckets = await table.buckets(
                tx, tenant, agent, metric, start=since, end=until, seconds=seconds, aggregate=agg, limit=BUCKETS + 1
            )
            return Buckets(
                agent_uuid=agent,
                metric=metric,
                start=since,
                end=until,
                source="raw",
                count=len(buckets),
                readings=buckets,
                interval=interval,
                agg=agg,
            )
        rows = await table.raw(tx, tenant, agent, metric, start=since, end=until, limit=limit + 1)
    return Timeseries(
        agent_uuid=agent,
        metric=metric,
        start=since,
        end=until,
        source="raw",
        count=len(rows[:limit]),
        readings=rows[:limit],
        next=rows[limit].time if len(rows) > limit else None,
    )


def _bucket_seconds(interval: str, since: datetime, until: datetime) -> int:
    seconds = intervals.bucket_seconds(interval)
    if (until - since).total_seconds() / seconds > BUCKETS:
        raise Invalid(f"more than {BUCKETS} buckets: take a longer interval or a shorter range", "interval")
    return seconds


class Latest(msgspec.Struct, frozen=True, kw_only=True):
    agent_uuid: UUID
    count: int
    readings: list[Value]


@get("/{agent:uuid}/latest", opt={"permission": "readings.read"})
async def latest(
    request: Call,
    database: Data,
    agent: FromPath[UUID],
    metrics: Annotated[str | None, QueryParameter(max_length=8192, description="names by commas")] = None,
    limit: Limit = 1000,
) -> Latest:
    """The newest reading of each series by measured time; what a fast clock dated ahead waits for its time."""
    only = [name for name in metrics.split(",") if name] if metrics else None
    now = datetime.now(UTC)
    edges = [now, *(now - window for window in WINDOWS), datetime(1971, 1, 1, tzinfo=UTC)]
    async with database.transaction(tenant_of(request)) as tx:
        await _own(tx, request, agent)
        windows = [(edges[i + 1], edges[i]) for i in range(len(edges) - 1)]
        rows = await table.latest(tx, tenant_of(request), agent, windows=windows, only=only, limit=limit)
    return Latest(agent_uuid=agent, count=len(rows), readings=rows)


class SummaryView(msgspec.Struct, frozen=True, kw_only=True):
    agent_uuid: UUID
    start: datetime
    end: datetime
    total_metrics: int
    metrics: list[Summary]


@get("/{agent:uuid}/summary", opt={"permission": "readings.read"})
async def summary(
    request: Call,
    database: Data,
    agent: FromPath[UUID],
    start: Time = None,
    end: Time = None,
    limit: Limit = 1000,
) -> SummaryView:
    """Per series the number of readings, the first, the last and the range; of the last day unless asked."""
    since, until = intervals.time_range(start, end, now=datetime.now(UTC), default=timedelta(days=1))
    async with database.transaction(tenant_of(request)) as tx:
        await _own(tx, request, agent)
        rows = await table.summary(tx, tenant_of(request), agent, start=since, end=until, limit=limit)
    return SummaryView(agent_uuid=agent, start=since, end=until, total_metrics=len(rows), metrics=rows)


async def _own(tx: Tx, request: Call, agent: UUID) -> None:
    if await agents.get(tx, tenant_of(request), agent) is None:
        raise NotFound


router = Router("/readings", route_handlers=[timeseries, latest, summary, write], tags=["readings"])
