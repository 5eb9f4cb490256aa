"""The route that lists the catalog of metrics."""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Router, get
from litestar.params import QueryParameter

from iotistica.api.http import cursors
from iotistica.api.http.cursors import cut_page
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import tenant_of
from iotistica.api.http.inputs import Limit
from iotistica.api.telemetry.series_names import spellings
from iotistica.domain.names import clean_name
from iotistica.storage.telemetry import catalog as table
from iotistica.storage.telemetry import coverage
from iotistica.storage.telemetry.catalog import CatalogEntry


class Catalog(msgspec.Struct, frozen=True, kw_only=True):
    count: int
    total: int
    """The number of series on all pages."""
    metrics: list[CatalogEntry]
    next: str | None
    """Pass it as `cursor` to get the next page; null on the last page."""


@get("/catalog", opt={"permission": "readings.read"})
async def catalog(
    request: ApiRequest,
    database: DatabaseDep,
    agent_uuid: Annotated[UUID | None, QueryParameter(name="agentUuid")] = None,
    device_uuid: Annotated[UUID | None, QueryParameter(name="deviceUuid")] = None,
    protocol: Annotated[str | None, QueryParameter(max_length=64)] = None,
    metric_name: Annotated[str | None, QueryParameter(name="metricName", max_length=512)] = None,
    search: Annotated[str | None, QueryParameter(max_length=200)] = None,
    limit: Limit = 100,
    cursor: Annotated[str | None, QueryParameter(max_length=600)] = None,
) -> Catalog:
    """List the series of the tenant by agent and name, with the times of their first and last readings.

    `metricName` is the whole name of a series, or the metric of any device; each word of
    `search` is a part of the whole name or of the agent's.
    """
    tenant = tenant_of(request)
    filters: dict[str, Any] = {"agent": agent_uuid, "device": device_uuid, "protocol": protocol}
    filters |= {
        "metrics": None if metric_name is None else spellings(metric_name),
        "text": clean_name(search) if search else None,
    }
    now, after = datetime.now(UTC), cursors.parse_series(cursor)
    async with database.transaction(tenant) as tx:
        since = (await coverage.of_agents(tx, tenant, [], now, now)).shown_since(now)
        rows = await table.page(tx, tenant, filters, after=after, now=now, since=since, limit=limit + 1)
    page, more = cut_page(rows, limit, lambda series: cursors.of_series(series.agent_uuid, series.metric_name))
    return Catalog(count=len(page), total=rows.total, metrics=page, next=more)


router = Router("/metrics", route_handlers=[catalog], tags=["readings"])
