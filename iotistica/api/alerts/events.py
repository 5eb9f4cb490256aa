"""The route that lists the events of agents."""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Router, get
from litestar.params import FromQuery, QueryParameter

from iotistica.api.http import cursors
from iotistica.api.http.cursors import TimeCursor, cut_page
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import tenant_of
from iotistica.api.http.inputs import Limit
from iotistica.domain import time_ranges
from iotistica.domain.alerts.events import SEVERITIES, Severity
from iotistica.errors import Invalid
from iotistica.storage.alerts import events
from iotistica.storage.alerts.events import EventFilter, StoredEvent

Filter = Annotated[str | None, QueryParameter(max_length=200)]
Time = Annotated[str | None, QueryParameter(max_length=64)]


class EventView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An event as the agent sent it; `content` has the fields that have no name here."""

    id: int
    agent_uuid: UUID
    message_id: str
    type: str
    time: datetime
    received_at: datetime
    severity: Severity
    text: str | None
    metric_name: str | None
    device_name: str | None
    device_uuid: UUID | None
    fingerprint: str | None
    window_start: datetime | None
    window_end: datetime | None
    value: float | None
    score: float | None
    confidence: float | None
    expected_low: float | None
    expected_high: float | None
    baseline: dict[str, Any] | None
    cooldown_seconds: float | None
    is_suppressed: bool
    content: dict[str, Any]


class Events(msgspec.Struct, frozen=True, kw_only=True):
    events: list[EventView]
    count: int
    total: int
    next: str | None
    """Pass it as `cursor` to get older events; null on the last page."""


@get("/", opt={"permission": "alerts.read"})
async def list_events(
    request: ApiRequest,
    database: DatabaseDep,
    agent: FromQuery[UUID | None] = None,
    type_: Annotated[str | None, QueryParameter(name="type", max_length=64)] = None,
    severity: Filter = None,
    fingerprint: Filter = None,
    suppressed: FromQuery[bool] = False,
    start: Time = None,
    end: Time = None,
    limit: Limit = 100,
    cursor: TimeCursor = None,
) -> Events:
    """List the events that agents sent within 90 days, the newest first.

    `severity` is one or several of info, warning and critical, separated by commas. Events that the agent itself
    suppressed are listed only with `suppressed=true`.
    """
    now, tenant = datetime.now(UTC), tenant_of(request)
    wanted = EventFilter(
        agent=agent,
        type=type_,
        severities=parse_severities(severity),
        fingerprint=fingerprint,
        start=time_ranges.parse_time(start, now=now, default=now, path="start") if start else None,
        end=time_ranges.parse_time(end, now=now, default=now, path="end") if end else None,
        suppressed=suppressed,
    )
    before = cursors.parse_time_and_number(cursor)
    async with database.transaction(tenant) as tx:
        found = await events.page(tx, tenant, wanted, before=before, limit=limit + 1)
    rows, more = cut_page(found, limit, lambda row: cursors.of_time(row.time, row.id))
    return Events(events=[_view(row) for row in rows], count=len(rows), total=found.total, next=more)


def parse_severities(text: str | None) -> tuple[Severity, ...] | None:
    """Return the severities in a list separated by commas; raises `Invalid`."""
    if text is None:
        return None
    wanted = tuple(severity for severity in SEVERITIES if severity in {word.strip() for word in text.split(",")})
    if len(wanted) != len({word.strip() for word in text.split(",")}):
        raise Invalid(f"must be one or several of {', '.join(SEVERITIES)}", "severity")
    return wanted


def _view(row: StoredEvent) -> EventView:
    return EventView(**msgspec.structs.asdict(row))


router = Router("/events", route_handlers=[list_events], tags=["alerts"])
