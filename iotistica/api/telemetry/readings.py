"""Readings of an agent: the latest values and a summary; what else there is of them has files of its own."""

from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Router, get
from litestar.params import FromPath, QueryParameter

from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import tenant_of
from iotistica.api.telemetry.ranges import Exactly, Names, SourcePart, Time, names, of_agent, source_parts
from iotistica.domain.telemetry.rollup_sources import LONG_AGO, split_by_source, widen
from iotistica.errors import NotFound
from iotistica.storage.telemetry import coverage, summaries
from iotistica.storage.telemetry import latest as table
from iotistica.storage.telemetry.summaries import Summary
from iotistica.storage.telemetry.timeseries import StoredReading

Limit = Annotated[int, QueryParameter(ge=1, le=1000)]
After = Annotated[str | None, QueryParameter(max_length=512, description="`next` of the page before")]


class Latest(msgspec.Struct, frozen=True, kw_only=True):
    """One that has no quality is the last good value of a series that is silent for long."""

    agent_uuid: UUID
    count: int
    readings: list[StoredReading]
    next: str | None
    """Give it as `after` for the following series."""


@get("/{agent:uuid}/latest", opt={"permission": "readings.read"})
async def latest(
    request: ApiRequest,
    database: DatabaseDep,
    agent: FromPath[UUID],
    metrics: Names = None,
    exactly: Exactly = None,
    limit: Limit = 1000,
    after: After = None,
) -> Latest:
    """The newest reading of each series by measured time; what a fast clock dated ahead waits for its time."""
    tenant, now = tenant_of(request), datetime.now(UTC)
    async with database.transaction(tenant) as tx:
        store = await coverage.of_agent(tx, tenant, agent, LONG_AGO, now)
        if store is None:
            raise NotFound
        some = await table.series_names(
            tx, tenant, agent, only=names(metrics, exactly), after=after, limit=limit + 1
        )
        since = store.shown_since(now)
        rows = await table.latest(
            tx, tenant, agent, some[:limit], now=now, since=since, late_hours=store.late_hours
        )
    return Latest(
        agent_uuid=agent,
        count=len(rows),
        readings=rows,
        next=some[limit - 1] if len(some) > limit else None,
    )


class SummaryView(msgspec.Struct, frozen=True, kw_only=True):
    agent_uuid: UUID
    start: datetime
    end: datetime
    sources: list[SourcePart]
    total_metrics: int
    metrics: list[Summary]
    next: str | None
    """Give it as `after` for the following series."""


@get("/{agent:uuid}/summary", opt={"permission": "readings.read"})
async def summary(
    request: ApiRequest,
    database: DatabaseDep,
    agent: FromPath[UUID],
    start: Time = None,
    end: Time = None,
    limit: Limit = 1000,
    after: After = None,
) -> SummaryView:
    """Per series the number of readings, the first, the last and the range; of the last day unless asked."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        asked = await of_agent(tx, tenant, agent, start, end, timedelta(days=1))
        since, until = widen(asked.start, asked.end, asked.coverage)
        segments = split_by_source(since, until, asked.coverage)
        some = await table.series_names(tx, tenant, agent, only=None, after=after, limit=limit + 1)
        rows = await summaries.summarise(tx, tenant, agent, some[:limit], segments)
    return SummaryView(
        agent_uuid=agent,
        start=since,
        end=until,
        sources=source_parts(segments),
        total_metrics=len(rows),
        metrics=rows,
        next=some[limit - 1] if len(some) > limit else None,
    )


router = Router("/readings", route_handlers=[latest, summary], tags=["readings"])
