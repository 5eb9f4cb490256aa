"""Routes for the ledger of accepted payloads and readings, and for the health of ingestion."""

import time
from datetime import datetime
from uuid import UUID

import msgspec
from litestar import Router, get
from litestar.params import FromQuery

from iotistica.api.http.dependencies import ApiRequest, DatabaseDep, RedisDep, ServerContextDep
from iotistica.api.http.guard import tenant_of
from iotistica.errors import NotFound
from iotistica.storage.agents import agents
from iotistica.storage.delivery import ledger, stream_stats


class PayloadsView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """takenIn = processed + waiting + deadLettered."""

    taken_in: int
    processed: int
    waiting: int
    dead_lettered: int


class ReadingsView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """found = stored + duplicate + rejected; a conflict is a duplicate with a different value."""

    found: int
    stored: int
    duplicate: int
    rejected: int
    conflict: int
    rejected_by_reason: dict[str, int]
    first_time: datetime | None
    last_time: datetime | None


class LedgerView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    readings: ReadingsView
    payloads: PayloadsView | None = None
    agent_uuid: UUID | None = None


@get("/ledger", opt={"permission": "ingestion.read"})
async def get_ledger(
    request: ApiRequest,
    database: DatabaseDep,
    redis: RedisDep,
    agent: FromQuery[UUID | None] = None,
) -> LedgerView:
    """Return how many payloads and readings of the tenant were accepted, and what became of them.

    With `agent`, only the readings of that agent are counted.
    """
    tenant = tenant_of(request)
    async with database.transaction(tenant, snapshot=True) as tx:
        if agent is not None and await agents.get(tx, tenant, agent) is None:
            raise NotFound
        balance = await ledger.readings_balance(tx, tenant, agent)
        reasons = await ledger.rejections_by_reason(tx, tenant, agent)
        payloads = await ledger.payload_totals(tx, tenant)
    readings = ReadingsView(
        found=balance.found,
        stored=balance.stored,
        duplicate=balance.duplicate,
        rejected=balance.rejected,
        conflict=balance.conflict,
        rejected_by_reason=reasons,
        first_time=balance.first_time,
        last_time=balance.last_time,
    )
    if agent is not None:
        return LedgerView(readings=readings, agent_uuid=agent)
    (stream,) = await stream_stats.stream_stats(redis, [tenant], now=time.time())
    view = PayloadsView(
        taken_in=stream.taken,
        processed=payloads.processed,
        waiting=stream.waiting,
        dead_lettered=payloads.dead + stream.refused,
    )
    return LedgerView(readings=readings, payloads=view)


class IngestionHealth(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The tenant's messages that wait in streams, for a dictionary or in a spool, and its dead letters."""

    status: str
    waiting_messages: int
    parked_messages: int
    spooled_messages: int
    oldest_seconds: float
    stream_entries: int
    stream_mark: int
    dead_letters: int
    dead_letter_bytes: int
    dead_letters_not_kept: int


@get("/health", opt={"permission": "ingestion.read"})
async def get_health(request: ApiRequest, redis: RedisDep, context: ServerContextDep) -> IngestionHealth:
    """Return how far the ingestion of the tenant's messages is behind.

    `status` is `degraded` if a message has waited for more than a minute, messages are spooled on disk, the streams
    hold `streamMark` entries, or dead letters could not be kept.
    """
    (state,) = await stream_stats.stream_stats(redis, [tenant_of(request)], now=time.time())
    high_water_mark = context.settings.stream_mark
    is_late = (
        state.oldest_seconds > stream_stats.LAG_LIMIT
        or state.spooled > 0
        or state.entries >= high_water_mark
        or state.dead_unkept > 0
    )
    return IngestionHealth(
        status="degraded" if is_late else "ok",
        waiting_messages=state.waiting,
        parked_messages=state.parked,
        spooled_messages=state.spooled,
        oldest_seconds=round(state.oldest_seconds, 3),
        stream_entries=state.entries,
        stream_mark=high_water_mark,
        dead_letters=state.dead,
        dead_letter_bytes=state.dead_bytes,
        dead_letters_not_kept=state.dead_unkept,
    )


router = Router("/ingestion", route_handlers=[get_ledger, get_health], tags=["ingestion"])
