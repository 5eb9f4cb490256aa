"""Routes for silences."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Router, delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody

from iotistica.api.http import cursors
from iotistica.api.http.cursors import TimeCursor, cut_page
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import actor_of, tenant_of
from iotistica.api.http.inputs import Limit, NamedBody, Text
from iotistica.domain.alerts.silences import LONGEST_DAYS, Matches
from iotistica.errors import Invalid
from iotistica.storage.alerts import silences
from iotistica.storage.alerts.silences import Silence

READ = {"permission": "alerts.read"}
ACT = {"permission": "alerts.acknowledge"}
Time = Annotated[datetime, msgspec.Meta(tz=True)]


class SilenceBody(NamedBody, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Incidents of which nobody is told for a time, and why; at its end what still fires is told once."""

    matches: Matches
    starts_at: Time | None = None
    """Now, unless given."""
    ends_at: Time
    reason: Annotated[Text, msgspec.Meta(min_length=1)]


class SilenceView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    silence_id: UUID
    matches: Matches
    starts_at: datetime
    ends_at: datetime
    reason: str
    author: dict[str, Any]
    created_at: datetime


class Silences(msgspec.Struct, frozen=True, kw_only=True):
    silences: list[SilenceView]
    count: int
    total: int
    next: str | None


@get("/", opt=READ)
async def list_silences(
    request: ApiRequest,
    database: DatabaseDep,
    active: FromQuery[bool] = False,
    limit: Limit = 100,
    cursor: TimeCursor = None,
) -> Silences:
    """List silences, those that end last first; with `active=true` only those that are in force now."""
    tenant, before = tenant_of(request), cursors.parse_time_and_uuid(cursor)
    async with database.transaction(tenant) as tx:
        rows = await silences.page(tx, tenant, active=active, before=before, limit=limit + 1)
    page, more = cut_page(rows, limit, lambda row: cursors.of_time(row.ends_at, row.silence_id))
    return Silences(silences=[_view(row) for row in page], count=len(page), total=rows.total, next=more)


@post("/", opt=ACT, status_code=201)
async def add_silence(request: ApiRequest, data: JSONBody[SilenceBody], database: DatabaseDep) -> SilenceView:
    """Silence incidents for a time; they are opened and shown, but nobody is told of them."""
    tenant, now = tenant_of(request), datetime.now(UTC)
    starts_at = data.starts_at or now
    if data.ends_at <= max(starts_at, now):
        raise Invalid("must be in the future, and after the start", "endsAt")
    if data.ends_at - starts_at > timedelta(days=LONGEST_DAYS):
        raise Invalid(f"must be at most {LONGEST_DAYS} days after the start", "endsAt")
    data.matches.scope.check("matches.scope")
    async with database.transaction(tenant) as tx:
        stored = await silences.add(
            *(tx, tenant, data.matches),
            starts_at=starts_at,
            ends_at=data.ends_at,
            reason=data.reason,
            by=actor_of(request),
        )
    return _view(stored)


@get("/{silence:uuid}", opt=READ)
async def get_silence(request: ApiRequest, database: DatabaseDep, silence: FromPath[UUID]) -> SilenceView:
    """Return one silence."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        return _view(await silences.get(tx, tenant, silence))


@delete("/{silence:uuid}", opt=ACT, status_code=204)
async def end_silence(request: ApiRequest, database: DatabaseDep, silence: FromPath[UUID]) -> None:
    """End a silence now; what still fires is told."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        await silences.end(tx, tenant, silence, datetime.now(UTC), by=actor_of(request))


def _view(silence: Silence) -> SilenceView:
    return SilenceView(
        silence_id=silence.silence_id,
        matches=silence.matches,
        starts_at=silence.starts_at,
        ends_at=silence.ends_at,
        reason=silence.reason,
        author=silence.author,
        created_at=silence.created_at,
    )


router = Router(
    "/anomaly/silences", route_handlers=[list_silences, add_silence, get_silence, end_silence], tags=["alerts"]
)
