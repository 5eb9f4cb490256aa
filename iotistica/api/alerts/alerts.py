"""Routes for alerts: the messages about incidents, how their delivery went, and its repetition."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from litestar import Router, get, post
from litestar.params import FromPath, FromQuery

from iotistica.api.http import cursors
from iotistica.api.http.cursors import TimeCursor, cut_page
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import actor_of, tenant_of
from iotistica.api.http.inputs import Limit
from iotistica.domain.alerts.notices import Kind
from iotistica.storage.alerts import notice_search
from iotistica.storage.alerts.notice_search import Notice

READ = {"permission": "alerts.read"}
WRITE = {"permission": "alerts.write"}
NoticeId = Annotated[str, msgspec.Meta(max_length=64)]


class AlertView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A message about an incident to one target; `alertId` is the id that the receiver sees."""

    alert_id: str
    incident_id: UUID | None
    target_id: UUID
    target_name: str
    kind: Kind
    title: str
    severity: str
    summary: str
    status: str
    """`pending`, `delivered`, `dead` (given up; it can be replayed) or `canceled` (not needed any more)."""
    created_at: datetime
    due_at: datetime
    attempts: int
    last_attempt_at: datetime | None
    last_error: str | None
    delivered_at: datetime | None


class AttemptView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    number: int
    at: datetime
    seconds: float
    status_code: int | None
    error: str | None


class AlertDetails(AlertView, frozen=True, kw_only=True):
    facts: dict[str, Any]
    log: list[AttemptView]
    """The attempts, the newest first."""


class Alerts(msgspec.Struct, frozen=True, kw_only=True):
    alerts: list[AlertView]
    count: int
    total: int
    next: str | None
    """Pass it as `cursor` to get older alerts; null on the last page."""


@get("/", opt=READ)
async def list_alerts(
    request: ApiRequest,
    database: DatabaseDep,
    status: FromQuery[Literal["pending", "delivered", "dead", "canceled"] | None] = None,
    incident: FromQuery[UUID | None] = None,
    target: FromQuery[UUID | None] = None,
    limit: Limit = 100,
    cursor: TimeCursor = None,
) -> Alerts:
    """List the messages about incidents within 90 days, the newest first."""
    tenant, before = tenant_of(request), cursors.parse_time_and_number(cursor)
    async with database.transaction(tenant) as tx:
        rows = await notice_search.page(
            tx, tenant, status=status, incident=incident, target=target, before=before, limit=limit + 1
        )
    page, more = cut_page(rows, limit, lambda row: cursors.of_time(row.created_at, row.id))
    views = [AlertView(**_fields(row)) for row in page]
    return Alerts(alerts=views, count=len(page), total=rows.total, next=more)


@get("/{alert:str}", opt=READ)
async def get_alert(request: ApiRequest, database: DatabaseDep, alert: FromPath[NoticeId]) -> AlertDetails:
    """Return one message with what it says and the attempts to deliver it."""
    tenant = tenant_of(request)
    async with database.transaction(tenant, snapshot=True) as tx:
        found = await notice_search.get(tx, tenant, alert)
        attempts = await notice_search.attempts(tx, tenant, alert)
    log = [AttemptView(**msgspec.structs.asdict(attempt)) for attempt in attempts]
    return AlertDetails(**_fields(found), facts=found.facts.builtins(), log=log)


@post("/{alert:str}/replay", opt=WRITE, status_code=200)
async def replay_alert(request: ApiRequest, database: DatabaseDep, alert: FromPath[NoticeId]) -> AlertView:
    """Try a message again that was given up; it keeps its id."""
    tenant, now = tenant_of(request), datetime.now(UTC)
    async with database.transaction(tenant) as tx:
        found = await notice_search.replay(tx, tenant, alert, now, by=actor_of(request))
    return AlertView(**_fields(found))


def _fields(notice: Notice) -> dict[str, Any]:
    return {
        "alert_id": notice.notice_id,
        "incident_id": notice.incident_id,
        "target_id": notice.target_id,
        "target_name": notice.target_name,
        "kind": notice.kind,
        "title": notice.facts.title,
        "severity": notice.facts.severity,
        "summary": notice.facts.summary,
        "status": notice.status,
        "created_at": notice.created_at,
        "due_at": notice.due_at,
        "attempts": notice.attempts,
        "last_attempt_at": notice.last_attempt_at,
        "last_error": notice.last_error,
        "delivered_at": notice.delivered_at,
    }


HANDLERS: Final = [list_alerts, get_alert, replay_alert]
router = Router("/anomaly/alerts", route_handlers=HANDLERS, tags=["alerts"])
aliases = Router("/anomaly-alerts", route_handlers=HANDLERS, tags=["alerts"], include_in_schema=False)
