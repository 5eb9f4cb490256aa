"""The route that lists the timeline of an agent."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Router, get
from litestar.params import FromPath, QueryParameter

from iotistica.api.http import cursors
from iotistica.api.http.cursors import cut_page
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import tenant_of
from iotistica.api.http.inputs import Cursor, Limit
from iotistica.errors import NotFound
from iotistica.storage.agents import agents
from iotistica.storage.history import timeline

Kinds = Annotated[str | None, QueryParameter(max_length=200)]


class TimelineEventView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    at: datetime
    kind: str
    details: dict[str, Any]
    times: int
    last_at: datetime | None
    """The last time of an event that occurred more than once within an hour; `at` is the first time."""


class Timeline(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    agent_uuid: UUID
    happenings: list[TimelineEventView]
    count: int
    total: int
    next: str | None
    """Pass it as `cursor` to get older events; null on the last page."""


@get("/{agent:uuid}/timeline", opt={"permission": "agents.read"})
async def get_timeline(
    request: ApiRequest,
    database: DatabaseDep,
    agent: FromPath[UUID],
    kind: Kinds = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Timeline:
    """List the events of an agent within 90 days, the newest first.

    `kind` is a comma-separated list of event kinds, or of groups of kinds such as `target`.
    """
    tenant, kinds = tenant_of(request), [word.strip() for word in kind.split(",")] if kind else None
    before = cursors.parse_time_and_number(cursor)
    async with database.transaction(tenant) as tx:
        if await agents.get(tx, tenant, agent) is None:
            raise NotFound
        found = await timeline.page(tx, tenant, agent, before=before, kinds=kinds, limit=limit + 1)
    rows, more = cut_page(found, limit, lambda row: cursors.of_time(row.at, row.id))
    views = [_view(row) for row in rows]
    return Timeline(agent_uuid=agent, happenings=views, count=len(views), total=found.total, next=more)


def _view(row: timeline.TimelineRow) -> TimelineEventView:
    return TimelineEventView(at=row.at, kind=row.kind, details=row.details, times=row.times, last_at=row.last_at)


router = Router("/agents", route_handlers=[get_timeline], tags=["agents"])
