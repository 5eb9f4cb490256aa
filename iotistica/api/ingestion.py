"""The ledgers of what was taken in."""

import time
from datetime import datetime
from uuid import UUID

import msgspec
from litestar import Router, get
from litestar.params import FromQuery

from iotistica.api.given import Call, Data, Streams
from iotistica.api.guard import tenant_of
from iotistica.errors import NotFound
from iotistica.storage import agents, ledger, streams


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
    (stream,) = await streams.states(redis, [tenant], now=time.time())
    view = PayloadsView(
        taken_in=stream.taken,
        processed=payloads.processed,
        waiting=stream.waiting,
        dead_lettered=payloads.dead + stream.refused,
    )
    return LedgerView(readings=readings, payloads=view)


router = Router("/ingestion", route_handlers=[get_ledger], tags=["ingestion"])
