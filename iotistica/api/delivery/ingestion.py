"""The ledgers of what was taken in."""

import time
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from litestar import Router, get
from litestar.params import FromQuery

from iotistica.api.delivery import dead_letters
from iotistica.api.http.dependencies import Call, Data, Here, Streams
from iotistica.api.http.guard import tenant_of
from iotistica.errors import NotFound
from iotistica.storage.agents import agents
from iotistica.storage.delivery import ledger, stream_stats

LATE: Final = 60.0  # seconds that a message waits before this is no longer well


class PayloadsView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """takenIn = processed + waiting + deadLettered."""

    taken_in: int
    processed: int
    waiting: int
    dead_lettered: int


class ReadingsView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """found = stored + duplicate + rejected; a conflict is a duplicate with another value."""

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
    request: Call,
    database: Data,
    redis: Streams,
    agent: FromQuery[UUID | None] = None,
) -> LedgerView:
    """What was taken in and what became of it, of your tenant or one of its agents."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        if agent is not None and await agents.get(tx, tenant, agent) is None:
            raise NotFound
        balance = await ledger.balance(tx, tenant, agent)
        reasons = await ledger.rejected(tx, tenant, agent)
        payloads = await ledger.payloads(tx, tenant)
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
    (stream,) = await stream_stats.states(redis, [tenant], now=time.time())
    view = PayloadsView(
        taken_in=stream.taken,
        processed=payloads.processed,
        waiting=stream.waiting,
        dead_lettered=payloads.dead + stream.refused,
    )
    return LedgerView(readings=readings, payloads=view)


class HealthView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What waits of your tenant: in streams, parked for a dictionary, on disks; and what was put aside."""

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
async def get_health(request: Call, redis: Streams, site: Here) -> HealthView:
    """How far the ingestion of your tenant is behind."""
    (state,) = await stream_stats.states(redis, [tenant_of(request)], now=time.time())
    mark = site.settings.stream_mark
    is_late = state.oldest_seconds > LATE or state.spooled > 0 or state.entries >= mark or state.dead_unkept > 0
    return HealthView(
        status="degraded" if is_late else "ok",
        waiting_messages=state.waiting,
        parked_messages=state.parked,
        spooled_messages=state.spooled,
        oldest_seconds=round(state.oldest_seconds, 3),
        stream_entries=state.entries,
        stream_mark=mark,
        dead_letters=state.dead,
        dead_letter_bytes=state.dead_bytes,
        dead_letters_not_kept=state.dead_unkept,
    )


router = Router("/ingestion", route_handlers=[get_ledger, get_health, dead_letters.router], tags=["ingestion"])
