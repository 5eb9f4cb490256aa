"""Routes that accept the log lines of agents, and routes that search them."""

import asyncio
import hashlib
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal
from uuid import UUID, uuid4

import msgspec
from litestar import Response, Router, get, post
from litestar.params import FromPath, FromQuery, HeaderParameter, JSONBody, QueryParameter

from iotistica.api.http import cursors
from iotistica.api.http.cursors import cut_page
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep, InboxDep
from iotistica.api.http.guard import tenant_of
from iotistica.api.http.inputs import Cursor, Limit
from iotistica.domain import time_ranges
from iotistica.domain.access.permissions import AGENT
from iotistica.domain.agents import log_lines as rules
from iotistica.domain.agents.log_levels import LEVELS
from iotistica.domain.agents.log_lines import LogBatch
from iotistica.domain.codec import PAYLOAD_CAP
from iotistica.domain.ids import AgentId, TenantId, agent_topic
from iotistica.errors import Invalid, InvalidMessage, NotFound, Unavailable
from iotistica.storage.agents import agents, logs
from iotistica.storage.agents.logs import LogFilter, LogRow
from iotistica.storage.history import timeline
from iotistica.storage.history.timeline import TimelineEvent
from iotistica.storage.postgres import Database, Tx

BODY: Final = 8 << 20  # bytes of a request body, decompressed
MESSAGE: Final = PAYLOAD_CAP // 2  # bytes of one stream message; a longer batch becomes several
PATIENCE: Final = 1.0  # seconds to wait for the database when looking for an earlier copy of a batch
DROPPED: Final = "logs.dropped"
"""The event kind for log lines that the agent reports as discarded."""
Level = Literal["trace", "debug", "info", "warn", "error", "fatal"]
Text = Annotated[str | None, QueryParameter(max_length=200)]


class AcceptedLogs(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The public agent sends a batch again until the returned `batchId` equals its own."""

    batch_id: str
    accepted: bool
    queued: bool | None = None
    duplicate: bool | None = None
    lines: int | None = None
    dropped: int | None = None
    """The number of lines without a message or older than the retention of logs."""


class DroppedSummary(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    total_count: Annotated[int, msgspec.Meta(ge=0, le=1 << 53)] = 0


class DroppedSummaries(msgspec.Struct, frozen=True, kw_only=True):
    summaries: Annotated[list[DroppedSummary], msgspec.Meta(max_length=1000)]


class ReceivedSummaries(msgspec.Struct, frozen=True, kw_only=True):
    status: Literal["ok"] = "ok"
    received: int


class LogLineView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    timestamp: datetime
    service: str
    level: Level
    message: str
    is_system: bool
    is_stderr: bool
    meta: dict[str, Any] | None


class LogLines(msgspec.Struct, frozen=True, kw_only=True):
    logs: list[LogLineView]
    count: int
    next: str | None
    """Pass it as `cursor` to get older lines; null on the last page."""


class Services(msgspec.Struct, frozen=True, kw_only=True):
    services: list[str]


@post(
    "/device/{agent:uuid}/logs",
    opt={"permission": AGENT},
    status_code=202,
    tags=["agent-facing"],
    request_max_body_size=BODY,
)
async def take(
    request: ApiRequest,
    database: DatabaseDep,
    inbox: InboxDep,
    agent: FromPath[UUID],
    batch: Annotated[str | None, HeaderParameter(name="X-Batch-Id", max_length=1000)] = None,
) -> Response[AcceptedLogs]:
    """Accept log lines as JSON lines, a JSON array or text; answers 202 once they are durable.

    `X-Batch-Id` is returned as `batchId`. A batch that was stored within the last two days is answered 200 and is
    not stored again.
    """
    tenant, shown_id = tenant_of(request), batch or uuid4().hex
    batch_key = _batch_key(batch) if batch else None
    if batch_key and await _is_stored(database, tenant, agent, batch_key):
        return Response(AcceptedLogs(batch_id=shown_id, accepted=True, duplicate=True), status_code=200)
    payload, received = await request.body(), time.time_ns() // 1000
    try:
        parsed = (
            await asyncio.to_thread(rules.parse_lines, payload, received) if payload.strip() else LogBatch(lines=[])
        )
    except InvalidMessage as exc:
        raise Invalid(str(exc)) from exc
    keyed = msgspec.structs.replace(parsed, id=batch_key)
    topic = f"{agent_topic(tenant, AgentId(agent))}/logs/{rules.HTTP}".encode()
    if messages := rules.encode(keyed, cap=MESSAGE):
        await inbox.accept([(topic, message) for message in messages])
    return Response(
        AcceptedLogs(
            batch_id=shown_id, accepted=True, queued=True, lines=len(parsed.lines), dropped=parsed.dropped
        ),
        status_code=202,
    )


def _batch_key(batch: str) -> str:
    """Return the id under which a batch is stored."""
    plain = len(batch) <= rules.BATCH and batch.isprintable() and "#" not in batch
    return batch if plain else hashlib.sha256(batch.encode("utf-8", "replace")).hexdigest()


async def _is_stored(database: Database, tenant: TenantId, agent: UUID, batch: str) -> bool:
    """Whether the batch is known to be stored; while the database is unavailable the consumer checks."""
    with suppress(Unavailable):
        async with database.transaction(tenant, patience=PATIENCE) as tx:
            return await logs.is_stored(tx, tenant, agent, batch)
    return False


@post(
    "/device/{agent:uuid}/logs/dropped-summaries", opt={"permission": AGENT}, status_code=200, tags=["agent-facing"]
)
async def take_summaries(
    request: ApiRequest, database: DatabaseDep, agent: FromPath[UUID], data: JSONBody[DroppedSummaries]
) -> ReceivedSummaries:
    """Record on an agent's timeline how many log lines it has discarded."""
    tenant, lines = tenant_of(request), sum(summary.total_count for summary in data.summaries)
    if lines:
        event = TimelineEvent(agent=agent, at=datetime.now(UTC), kind=DROPPED, details={"lines": lines})
        async with database.transaction(tenant) as tx:
            await timeline.add(tx, tenant, [event])
    return ReceivedSummaries(received=len(data.summaries))


@get("/{agent:uuid}/logs", opt={"permission": "logs.read"})
async def list_lines(
    request: ApiRequest,
    database: DatabaseDep,
    agent: FromPath[UUID],
    service: Text = None,
    level: FromQuery[Level | None] = None,
    search: Text = None,
    start: Annotated[str | None, QueryParameter(name="from", max_length=64)] = None,
    end: Annotated[str | None, QueryParameter(name="to", max_length=64)] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> LogLines:
    """List the log lines of an agent from `from` to `to`, by default of the last day, the newest first.

    `level` is the lowest level returned. `search` is a part of the message, in upper or lower case.
    """
    tenant, before = tenant_of(request), cursors.parse_time_and_number(cursor)
    since, until = time_ranges.parse_range(start, end, now=datetime.now(UTC), default=timedelta(days=1))
    lowest = LEVELS.index(level) if level else None
    wanted = LogFilter(start=since, end=until, service=service, level=lowest, text=search)
    async with database.transaction(tenant) as tx:
        await _check_agent(tx, tenant, agent)
        found = await logs.page(tx, tenant, agent, wanted, before=before, limit=limit + 1)
    rows, more = cut_page(found, limit, lambda row: cursors.of_time(row.time, row.id))
    return LogLines(logs=[_view(row) for row in rows], count=len(rows), next=more)


@get("/{agent:uuid}/logs/services", opt={"permission": "logs.read"})
async def list_services(request: ApiRequest, database: DatabaseDep, agent: FromPath[UUID]) -> Services:
    """List the services from which an agent has sent log lines within 90 days."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        await _check_agent(tx, tenant, agent)
        return Services(services=await logs.services(tx, tenant, agent))


async def _check_agent(tx: Tx, tenant: TenantId, agent: UUID) -> None:
    if await agents.get(tx, tenant, agent) is None:
        raise NotFound


def _view(row: LogRow) -> LogLineView:
    return LogLineView(
        timestamp=row.time,
        service=row.service,
        level=LEVELS[row.level],
        message=row.message,
        is_system=row.is_system,
        is_stderr=row.is_stderr,
        meta=row.meta,
    )


agent_facing: Final = Router("/", route_handlers=[take, take_summaries])
router: Final = Router("/agents", route_handlers=[list_lines, list_services], tags=["logs"])
