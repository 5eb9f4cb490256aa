"""What happened to an agent, in one list."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import get
from litestar.params import FromPath, QueryParameter

from iotistica.api.given import Call, Data
from iotistica.api.guard import tenant_of
from iotistica.api.inputs import Cursor, Limit
from iotistica.errors import Invalid, NotFound
from iotistica.storage import agents, timeline

Kinds = Annotated[str | None, QueryParameter(max_length=200)]


class HappeningView(msgspec.Struct, frozen=True, kw_only=True):
    at: datetime
    kind: str
    details: dict[str, Any]


class Timeline(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    agent_uuid: UUID
    happenings: list[HappeningView]
    count: int
    next: str | None
    """Give it as `cursor` for the older ones."""


@get("/{agent:uuid}/timeline", opt={"permission": "agents.read"})
async def get_timeline(
    request: Call,
    database: Data,
    agent: FromPath[UUID],
    kind: Kinds = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Timeline:
    """What happened to an agent within 90 days, the newest first; `kind` names some kinds, by commas."""
    tenant, kinds = tenant_of(request), kind.split(",") if kind else None
    before = _before(cursor)
    async with database.transaction(tenant) as tx:
        if await agents.get(tx, tenant, agent) is None:
            raise NotFound
        found = await timeline.page(tx, tenant, agent, before=before, kinds=kinds, limit=limit + 1)
    views = [HappeningView(at=row.at, kind=row.kind, details=row.details) for row in found[:limit]]
    more = _cursor(found[limit - 1]) if len(found) > limit else None
    return Timeline(agent_uuid=agent, happenings=views, count=len(views), next=more)


def _cursor(row: timeline.Row) -> str:
    return urlsafe_b64encode(f"{row.at.isoformat()} {row.id}".encode()).decode()


def _before(cursor: str | None) -> tuple[datetime, int] | None:
    if cursor is None:
        return None
    try:
        at, _, id_ = urlsafe_b64decode(cursor.encode()).decode().partition(" ")
        return datetime.fromisoformat(at), int(id_)
    except (ValueError, binascii.Error):
        raise Invalid("not a cursor of this list", "cursor") from None
