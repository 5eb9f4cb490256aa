"""What happened to an agent, in one list."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Router, get
from litestar.params import FromPath, QueryParameter

from iotistica.api.http import cursors
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
    """Of what came more than once within an hour."""


class Timeline(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    agent_uuid: UUID
    happenings: list[TimelineEventView]
    count: int
    next: str | None
    """Give it as `cursor` for the older ones."""


@get("/{agent:uuid}/timeline", opt={"permission": "agents.read"})
async def get_timeline(
    request: ApiRequest,
    database: DatabaseDep,
    agent: FromPath[UUID],
    kind: Kinds = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Timeline:
    """What happened to an agent within 90 days, the newest first; `kind` names kinds or groups, by commas."""
    tenant, kinds = tenant_of(request), [word.strip() for word in kind.split(",")] if kind else None
    before = cursors.parse(cursor)
    async with database.transaction(tenant) as tx:
        if await agents.get(tx, tenant, agent) is None:
            raise NotFound
        found = await timeline.page(tx, tenant, agent, before=before, kinds=kinds, limit=limit + 1)
    views = [_view(row) for row in found[:limit]]
    last = found[limit - 1] if len(found) > limit else None
    more = cursors.cursor(last.at, last.id) if last else None
    return Timeline(agent_uuid=agent, happenings=views, count=len(views), next=more)


def _view(row: timeline.TimelineRow) -> TimelineEventView:
    return TimelineEventView(at=row.at, kind=row.kind, details=row.details, times=row.times, last_at=row.last_at)


router = Router("/agents", route_handlers=[get_timeline], tags=["agents"])
