"""Routes for the latest readings of an agent, and for a summary of its series."""

from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Router, get
from litestar.params import FromPath, QueryParameter

from iotistica.api.http.cursors import cut_page
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import tenant_of
from iotistica.api.telemetry.ranges import Exactly, Names, SourcePart, Time, names, of_agent, source_parts
from iotistica.api.telemetry.series_names import UnknownName, named, suggest
from iotistica.domain.telemetry.rollup_sources import LONG_AGO, split_by_source, widen
from iotistica.errors import NotFound
from iotistica.storage.telemetry import coverage, summaries
from iotistica.storage.telemetry import latest as table
from iotistica.storage.telemetry.summaries import Summary
from iotistica.storage.telemetry.timeseries import StoredReading

Limit = Annotated[int, QueryParameter(ge=1, le=1000)]
After = Annotated[str | None, QueryParameter(max_length=512, description="`next` of the previous page")]


class Latest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A reading without a quality is the last good value of a series that has been silent for a long time."""

    agent_uuid: UUID
    count: int
    readings: list[StoredReading]
    next: str | None
    """Pass it as `after` to get the following series; null on the last page."""
    unknown: list[UnknownName] = []
    """Names of the request that no series of the agent has, with the nearest ones."""


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
    """Return the newest reading of each series of an agent, by measured time.

    A reading that a fast clock dated in the future is returned only once that time has come.
    """
    tenant, now = tenant_of(request), datetime.now(UTC)
    async with database.transaction(tenant) as tx:
        store = await coverage.of_agent(tx, tenant, agent, LONG_AGO, now)
        if store is None:
            raise NotFound
        only, missing = await named(tx, tenant, agent, names(metrics, exactly))
        found = await table.series_names(tx, tenant, agent, only=only, after=after, limit=limit + 1)
        page, more = cut_page(found, limit, str)
        since = store.shown_since(now)
        rows = await table.latest(tx, tenant, agent, page, now=now, since=since, late_hours=store.late_hours)
    return Latest(
        agent_uuid=agent,
        count=len(rows),
        readings=rows,
        next=more,
        unknown=await suggest(missing),
    )


class SummaryView(msgspec.Struct, frozen=True, kw_only=True):
    agent_uuid: UUID
    start: datetime
    end: datetime
    sources: list[SourcePart]
    total_metrics: int
    metrics: list[Summary]
    next: str | None
    """Pass it as `after` to get the following series; null on the last page."""


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
    """Return for each series of an agent the number of readings, the first and last time, and the range of values.

    The default range is the last day.
    """
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        query_range = await of_agent(tx, tenant, agent, start, end, timedelta(days=1))
        since, until = widen(query_range.start, query_range.end, query_range.coverage)
        segments = split_by_source(since, until, query_range.coverage)
        found = await table.series_names(tx, tenant, agent, only=None, after=after, limit=limit + 1)
        page, more = cut_page(found, limit, str)
        rows = await summaries.summarise(tx, tenant, agent, page, segments)
    return SummaryView(
        agent_uuid=agent,
        start=since,
        end=until,
        sources=source_parts(segments),
        total_metrics=len(rows),
        metrics=rows,
        next=more,
    )


router = Router("/readings", route_handlers=[latest, summary], tags=["readings"])
