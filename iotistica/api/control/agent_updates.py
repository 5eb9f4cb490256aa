"""Routes for updates of agents' software: command an update, and list updates."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from litestar import Router, get, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from iotistica.api.http import cursors
from iotistica.api.http.cursors import cut_page
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep, RedisDep, ServerContextDep
from iotistica.api.http.guard import actor_of, tenant_of
from iotistica.api.http.inputs import Cursor, Limit
from iotistica.domain.control import agent_updates as rules
from iotistica.domain.control.agent_updates import Status, UpdateCommand
from iotistica.domain.ids import AgentId, agent_topic
from iotistica.errors import Conflict, Invalid, NotFound
from iotistica.storage.agents import agents
from iotistica.storage.control import agent_updates as table
from iotistica.storage.delivery import outbound
from iotistica.storage.delivery.outbound import OutboundMessage

SCHEDULE_LIMIT: Final = timedelta(days=30)  # between now and the scheduled time


class NewUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: Annotated[str, Meta(max_length=100)]
    """For example `1.0.548`, or `latest`."""
    scheduled_time: datetime | None = None
    force: bool = False
    """Update even to an older version or to the same one."""
    expires_hours: Annotated[float, Meta(gt=0, le=720)] = 24
    """The command expires after this time; an agent that receives it later ignores it."""


class UpdateView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    update_id: UUID
    agent_uuid: UUID
    version: str
    from_version: str | None
    force: bool
    scheduled_at: datetime | None
    issued_at: datetime
    expires_at: datetime
    author: dict[str, Any]
    status: Status
    reason: str | None
    changed_at: datetime


class Updates(msgspec.Struct, frozen=True, kw_only=True):
    updates: list[UpdateView]
    count: int
    total: int
    next: str | None


@post("/{agent:uuid}/update-agent", opt={"permission": "agents.update"}, status_code=202)
async def command_update(
    request: ApiRequest,
    data: JSONBody[NewUpdate],
    database: DatabaseDep,
    redis: RedisDep,
    context: ServerContextDep,
    agent: FromPath[UUID],
) -> UpdateView:
    """Command an agent over MQTT to update itself; an update that is still open is superseded.

    The command is signed if an update secret is configured. An agent that is not connected does not receive it.
    """
    tenant, now = tenant_of(request), _whole_ms(datetime.now(UTC))
    command = _command(data, now)
    async with database.transaction(tenant) as tx:
        row = await agents.get(tx, tenant, agent)
        if row is None:
            raise NotFound
        if row.state != "active":
            raise Conflict(f"The agent is {row.state}: only active agents receive commands.")
        update = await table.add(tx, tenant, agent, command, by=actor_of(request))
        message = OutboundMessage(
            f"{agent_topic(tenant, AgentId(agent))}/agent/update",
            rules.payload(command, context.settings.update_secret),
            command.expires_at.timestamp(),
        )
        # Before the commit: answers to a command without a row are ignored, but a row without a command never ends.
        await outbound.enqueue(redis, tenant, [message])
    return _view(update)


@get("/{agent:uuid}/updates", opt={"permission": "agents.read"})
async def list_updates(
    request: ApiRequest, database: DatabaseDep, agent: FromPath[UUID], limit: Limit = 20, cursor: Cursor = None
) -> Updates:
    """List the updates of an agent, newest first."""
    tenant = tenant_of(request)
    before = cursors.parse_time(cursor)
    async with database.transaction(tenant) as tx:
        if await agents.get(tx, tenant, agent) is None:
            raise NotFound
        rows = await table.page(tx, tenant, agent, before=before, limit=limit + 1)
    page, more = cut_page(rows, limit, lambda update: update.issued_at.isoformat())
    views = [_view(update) for update in page]
    return Updates(updates=views, count=len(views), total=rows.total, next=more)


def _command(data: NewUpdate, now: datetime) -> UpdateCommand:
    if not rules.VERSION.fullmatch(data.version):
        raise Invalid("must be a version such as 1.0.548, or latest", "version")
    at, expires = data.scheduled_time, now + timedelta(hours=data.expires_hours)
    if at is not None:
        at = _whole_ms(at if at.tzinfo else at.replace(tzinfo=UTC))
        if not now < at <= now + SCHEDULE_LIMIT:
            raise Invalid(
                f"must be in the future, and at most {SCHEDULE_LIMIT.days} days from now", "scheduled_time"
            )
    return UpdateCommand(
        version=data.version, issued_at=now, expires_at=_whole_ms(expires), scheduled_at=at, force=data.force
    )


def _whole_ms(when: datetime) -> datetime:
    return when.replace(microsecond=when.microsecond // 1000 * 1000)


def _view(update: table.AgentUpdate) -> UpdateView:
    return UpdateView(**msgspec.structs.asdict(update))


router = Router("/agents", route_handlers=[command_update, list_updates], tags=["agents"])
