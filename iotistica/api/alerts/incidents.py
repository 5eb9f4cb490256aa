"""Routes for incidents."""

from datetime import UTC, datetime
from typing import Annotated, Final, get_args
from uuid import UUID

import msgspec
from litestar import Router, get, patch, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from iotistica.api.alerts.events import Filter, Time, parse_severities
from iotistica.api.alerts.incident_views import (
    HistoryView,
    IncidentDetails,
    Incidents,
    IncidentView,
    Members,
    details,
    sample,
    view,
)
from iotistica.api.http import cursors
from iotistica.api.http.cursors import TimeCursor, cut_page
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import actor_of, tenant_of
from iotistica.api.http.inputs import Limit
from iotistica.domain import time_ranges
from iotistica.domain.alerts.incidents import Status
from iotistica.errors import Invalid
from iotistica.storage.alerts import incident_actions, incident_history, incident_search
from iotistica.storage.alerts.incident_search import IncidentFilter

READ = {"permission": "alerts.read"}
ACT = {"permission": "alerts.acknowledge"}
STATUSES: Final[tuple[Status, ...]] = get_args(Status)
LISTED_MEMBERS: Final = 3  # members of each incident in a list
SHOWN_MEMBERS: Final = 100  # members of one incident; the rest are on further pages


Note = Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """`notes` and `resolvedBy` are what earlier clients send; the author is whoever is logged in."""

    note: Note | None = None
    notes: Note | None = None
    resolved_by: str | None = msgspec.field(default=None, name="resolvedBy")

    @property
    def text(self) -> str | None:
        return self.note or self.notes


class NewNote(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    note: Note


@get("/", opt=READ)
async def list_incidents(
    request: ApiRequest,
    database: DatabaseDep,
    status: Filter = None,
    severity: Filter = None,
    agent: FromQuery[UUID | None] = None,
    rule: FromQuery[UUID | None] = None,
    metric: Annotated[str | None, QueryParameter(max_length=512)] = None,
    start: Time = None,
    end: Time = None,
    limit: Limit = 50,
    cursor: TimeCursor = None,
) -> Incidents:
    """List incidents, the newest first.

    `status` is one or several of open, acknowledged and resolved, separated by commas; `active` is the first two.
    """
    now, tenant = datetime.now(UTC), tenant_of(request)
    wanted = IncidentFilter(
        statuses=_statuses(status),
        severities=parse_severities(severity),
        agent=agent,
        rule=rule,
        metric=metric,
        start=time_ranges.parse_time(start, now=now, default=now, path="start") if start else None,
        end=time_ranges.parse_time(end, now=now, default=now, path="end") if end else None,
    )
    before = cursors.parse_time_and_uuid(cursor)
    async with database.transaction(tenant, snapshot=True) as tx:
        found = await incident_search.page(tx, tenant, wanted, before=before, limit=limit + 1)
        rows, more = cut_page(found, limit, lambda row: cursors.of_time(row.opened_at, row.incident_id))
        ids = [row.incident_id for row in rows]
        about = await incident_search.first_members(tx, tenant, ids, limit=LISTED_MEMBERS)
    views = [view(row, about.get(row.incident_id, [])) for row in rows]
    return Incidents(incidents=views, count=len(views), total=found.total, next=more)


@get("/{incident:uuid}", opt=READ)
async def get_incident(request: ApiRequest, database: DatabaseDep, incident: FromPath[UUID]) -> IncidentDetails:
    """Return an incident with its first 100 members, their evidence, and its history."""
    tenant = tenant_of(request)
    async with database.transaction(tenant, snapshot=True) as tx:
        found = await incident_search.get(tx, tenant, incident)
        members = await incident_search.members(tx, tenant, incident, limit=SHOWN_MEMBERS)
        history = await incident_history.of_incident(tx, tenant, incident)
    about = [sample(incident, member) for member in members[:LISTED_MEMBERS]]
    return IncidentDetails(
        **msgspec.structs.asdict(view(found, about)),
        details=[details(member) for member in members],
        history=[HistoryView(**msgspec.structs.asdict(entry)) for entry in history],
    )


@get("/{incident:uuid}/members", opt=READ)
async def list_members(
    request: ApiRequest,
    database: DatabaseDep,
    incident: FromPath[UUID],
    active: FromQuery[bool] = False,
    limit: Limit = 100,
    cursor: Annotated[str | None, QueryParameter(max_length=32)] = None,
) -> Members:
    """List what an incident is about, those members that have not ended first; with `active=true` only those."""
    tenant, after = tenant_of(request), _member_cursor(cursor)
    async with database.transaction(tenant, snapshot=True) as tx:
        await incident_search.get(tx, tenant, incident)
        found = await incident_search.members(tx, tenant, incident, active=active, after=after, limit=limit + 1)
    rows, more = cut_page(found, limit, lambda row: f"{int(row.ended_at is not None)}.{row.id}")
    return Members(members=[details(row) for row in rows], count=len(rows), total=found.total, next=more)


@post("/{incident:uuid}/acknowledge", opt=ACT, status_code=200)
async def acknowledge(
    request: ApiRequest, data: JSONBody[Action], database: DatabaseDep, incident: FromPath[UUID]
) -> IncidentView:
    """Acknowledge an incident: somebody looks after it, and it is not escalated any further."""
    tenant, now = tenant_of(request), datetime.now(UTC)
    async with database.transaction(tenant) as tx:
        found = await incident_actions.acknowledge(
            tx, tenant, incident, note=data.text, by=actor_of(request), now=now
        )
        about = await incident_search.first_members(tx, tenant, [incident], limit=LISTED_MEMBERS)
    return view(found, about.get(incident, []))


@post("/{incident:uuid}/resolve", opt=ACT, status_code=200)
async def resolve(
    request: ApiRequest, data: JSONBody[Action], database: DatabaseDep, incident: FromPath[UUID]
) -> IncidentView:
    """Resolve an incident by hand; nothing more is told of it until its condition has ended and begins anew."""
    return await _resolve(request, data, database, incident)


@patch("/{incident:uuid}/resolve", opt=ACT)
async def patch_resolve(
    request: ApiRequest, data: JSONBody[Action], database: DatabaseDep, incident: FromPath[UUID]
) -> IncidentView:
    """Resolve an incident, as earlier clients do."""
    return await _resolve(request, data, database, incident)


async def _resolve(request: ApiRequest, data: Action, database: DatabaseDep, incident: UUID) -> IncidentView:
    tenant, now = tenant_of(request), datetime.now(UTC)
    async with database.transaction(tenant) as tx:
        found = await incident_actions.resolve(tx, tenant, incident, note=data.text, by=actor_of(request), now=now)
        about = await incident_search.first_members(tx, tenant, [incident], limit=LISTED_MEMBERS)
    return view(found, about.get(incident, []))


@post("/{incident:uuid}/notes", opt=ACT, status_code=201)
async def add_note(
    request: ApiRequest, data: JSONBody[NewNote], database: DatabaseDep, incident: FromPath[UUID]
) -> HistoryView:
    """Add a note to an incident, resolved or not."""
    tenant, now, by = tenant_of(request), datetime.now(UTC), actor_of(request)
    async with database.transaction(tenant) as tx:
        await incident_actions.add_note(tx, tenant, incident, data.note, by=by, now=now)
    return HistoryView(at=now, kind="note", author=dict(by.author), note=data.note, details={})


def _statuses(text: str | None) -> tuple[Status, ...] | None:
    if text is None:
        return None
    words = {word.strip() for word in text.split(",")}
    if "active" in words:
        words = (words - {"active"}) | {"open", "acknowledged"}
    if words - set(STATUSES):
        raise Invalid(f"must be active, or one or several of {', '.join(STATUSES)}", "status")
    return tuple(status for status in STATUSES if status in words)


def _member_cursor(cursor: str | None) -> tuple[bool, int] | None:
    if not cursor:
        return None
    ended, _, id_ = cursor.partition(".")
    number = cursors.parse_number(id_)
    if ended not in ("0", "1") or number is None:
        raise Invalid("is not a cursor of this list", "cursor")
    return ended == "1", number


HANDLERS: Final = [list_incidents, get_incident, list_members, acknowledge, resolve, patch_resolve, add_note]
router = Router("/anomaly/incidents", route_handlers=HANDLERS, tags=["alerts"])
aliases = Router("/anomaly-incidents", route_handlers=HANDLERS, tags=["alerts"], include_in_schema=False)
