"""The route that lists the audit log."""

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from litestar import Router, get
from litestar.params import QueryParameter

from iotistica.api.http import cursors
from iotistica.api.http.cursors import cut_page
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import tenant_of
from iotistica.api.http.inputs import Limit
from iotistica.domain import time_ranges
from iotistica.storage.history import audit

Filter = Annotated[str | None, QueryParameter(max_length=200)]
Time = Annotated[str | None, QueryParameter(max_length=64)]


class AuditEventView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    id: int
    at: datetime
    actor_kind: str
    actor_id: str | None
    actor_name: str | None
    address: str | None
    action: str
    subject_kind: str
    subject_id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class AuditEvents(msgspec.Struct, frozen=True, kw_only=True):
    events: list[AuditEventView]
    count: int
    total: int
    next: str | None
    """Pass it as `cursor` to get older events; null on the last page."""


@get("/events", opt={"permission": "audit.read"})
async def list_events(
    request: ApiRequest,
    database: DatabaseDep,
    action: Filter = None,
    actor: Filter = None,
    subject: Filter = None,
    start: Time = None,
    end: Time = None,
    limit: Limit = 100,
    cursor: Annotated[str | None, QueryParameter(max_length=20)] = None,
) -> AuditEvents:
    """List who changed what, the newest first.

    `action` is one action, or a group of actions such as `agent`; `actor` and `subject` are ids.
    """
    now = datetime.now(UTC)
    since = time_ranges.parse_time(start, now=now, default=now, path="start") if start else None
    until = time_ranges.parse_time(end, now=now, default=now, path="end") if end else None
    before = cursors.parse_number(cursor)
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        found = await audit.page(
            *(tx, tenant),
            before=before,
            limit=limit + 1,
            action=action,
            actor=actor,
            subject=subject,
            since=since,
            until=until,
        )
    page, more = cut_page(found, limit, lambda event: str(event.id))
    events = [AuditEventView(**msgspec.structs.asdict(event)) for event in page]
    return AuditEvents(events=events, count=len(events), total=found.total, next=more)


router = Router("/audit", route_handlers=[list_events], tags=["audit"])
