"""Log lines of agents: stored in batches, and searched by service, level, time and text."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from iotistica.domain.agents.log_lines import RETENTION, LogBatch, LogLine
from iotistica.domain.ids import TenantId
from iotistica.storage.jsonb import jsonb
from iotistica.storage.postgres import Tx, fetch_rows

BATCH_LIFETIME: Final = timedelta(days=2)
"""How long the id of a batch is kept, so that the same batch is not stored twice."""
DELETE_LIMIT: Final = 50_000  # batch ids deleted in one transaction
SERVICES_LIMIT: Final = 500  # services listed of one agent

TAKE_BATCHES: Final = """
INSERT INTO agent_log_batches (tenant_id, agent_uuid, batch)
SELECT %(tenant)s, * FROM unnest(%(agents)s::uuid[], %(batches)s::text[])
ON CONFLICT DO NOTHING RETURNING agent_uuid, batch
"""
ADD: Final = """
INSERT INTO agent_logs (time, tenant_id, agent_uuid, service, level, is_system, is_stderr, message, meta)
SELECT time, %(tenant)s, agent_uuid, service, level, is_system, is_stderr, message, meta
FROM unnest(%(agents)s::uuid[], %(times)s::timestamptz[], %(services)s::text[], %(levels)s::smallint[],
            %(systems)s::boolean[], %(stderrs)s::boolean[], %(messages)s::text[], %(metas)s::jsonb[])
     AS n (agent_uuid, time, service, level, is_system, is_stderr, message, meta)
"""
SAVE_SERVICES: Final = """
INSERT INTO agent_log_services AS s (tenant_id, agent_uuid, service, last_at)
SELECT %(tenant)s, * FROM unnest(%(agents)s::uuid[], %(services)s::text[], %(times)s::timestamptz[])
ON CONFLICT (agent_uuid, service) DO UPDATE SET last_at = excluded.last_at
WHERE excluded.last_at > s.last_at + interval '1 minute'
"""


async def store(tx: Tx, tenant: TenantId, batches: Sequence[tuple[UUID, LogBatch]]) -> int:
    """Store log batches of a tenant's agents, each batch id once; return the number of lines stored."""
    fresh = await _fresh(tx, tenant, batches)
    rows = [(agent, line) for agent, batch in fresh for line in batch.lines]
    if not rows:
        return 0
    await tx.execute(ADD, {"tenant": tenant} | _columns(rows))
    newest: dict[tuple[UUID, str], int] = {}
    for agent, line in rows:
        key = agent, line.service
        newest[key] = max(line.time, newest.get(key, 0))
    keys = sorted(newest, key=lambda key: (key[0].bytes, key[1]))
    await tx.execute(
        SAVE_SERVICES,
        {
            "tenant": tenant,
            "agents": [agent for agent, _ in keys],
            "services": [service for _, service in keys],
            "times": [_time(newest[key]) for key in keys],
        },
    )
    return len(rows)


async def _fresh(tx: Tx, tenant: TenantId, batches: Sequence[tuple[UUID, LogBatch]]) -> list[tuple[UUID, LogBatch]]:
    """Return the batches that were not stored before; of two with the same id, only the first."""
    first: dict[tuple[UUID, str], LogBatch] = {}
    for agent, batch in batches:
        if batch.id is not None:
            first.setdefault((agent, batch.id), batch)
    if not first:
        return list(batches)
    keys = sorted(first, key=lambda key: (key[0].bytes, key[1]))
    parameters = {"agents": [agent for agent, _ in keys], "batches": [id_ for _, id_ in keys]}
    taken = set(await (await tx.execute(TAKE_BATCHES, {"tenant": tenant} | parameters)).fetchall())
    return [
        (agent, batch)
        for agent, batch in batches
        if batch.id is None or ((agent, batch.id) in taken and first[agent, batch.id] is batch)
    ]


def _columns(rows: Sequence[tuple[UUID, LogLine]]) -> dict[str, list[Any]]:
    return {
        "agents": [agent for agent, _ in rows],
        "times": [_time(line.time) for _, line in rows],
        "services": [line.service for _, line in rows],
        "levels": [line.level for _, line in rows],
        "systems": [line.is_system for _, line in rows],
        "stderrs": [line.is_stderr for _, line in rows],
        "messages": [line.message for _, line in rows],
        "metas": [jsonb(line.meta or None) for _, line in rows],
    }


def _time(us: int) -> datetime:
    return datetime.fromtimestamp(us / 1e6, UTC)


def days_of(batches: Sequence[tuple[UUID, LogBatch]]) -> set[date]:
    """Return the days (UTC) of the lines' times."""
    return {_time(line.time).date() for _, batch in batches for line in batch.lines}


IS_STORED: Final = """
SELECT 1 FROM agent_log_batches WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s AND batch = %(batch)s
"""


async def is_stored(tx: Tx, tenant: TenantId, agent: UUID, batch: str) -> bool:
    """Whether a batch with this id was stored within `BATCH_LIFETIME`."""
    parameters = {"tenant": tenant, "agent": agent, "batch": batch}
    return await (await tx.execute(IS_STORED, parameters)).fetchone() is not None


class LogRow(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    time: datetime
    service: str
    level: int
    is_system: bool
    is_stderr: bool
    message: str
    meta: dict[str, Any] | None


class LogFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which lines match; None is any. `level` is the lowest one, `text` a part of the message, ignoring case."""

    start: datetime
    end: datetime
    service: str | None = None
    level: int | None = None
    text: str | None = None


PAGE: Final = """
SELECT id, time, service, level, is_system, is_stderr, message, meta FROM agent_logs
WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s AND time >= %(start)s AND time < %(end)s
  AND (%(before)s::timestamptz IS NULL OR (time, id) < (%(before)s, %(id)s))
  AND (%(service)s::text IS NULL OR service = %(service)s) AND (%(level)s::int IS NULL OR level >= %(level)s)
  AND (%(text)s::text IS NULL OR position(%(text)s IN lower(message)) > 0)
ORDER BY time DESC, id DESC LIMIT %(limit)s
"""


async def page(
    tx: Tx, tenant: TenantId, agent: UUID, wanted: LogFilter, *, before: tuple[datetime, int] | None, limit: int
) -> list[LogRow]:
    """Return at most `limit` lines of an agent older than `before` (time and id), newest first."""
    at, id_ = before or (None, None)
    parameters: Mapping[str, Any] = msgspec.structs.asdict(wanted) | {
        "tenant": tenant,
        "agent": agent,
        "text": wanted.text.lower() if wanted.text else None,
        "before": at,
        "id": id_,
        "limit": limit,
    }
    return await fetch_rows(tx, LogRow, PAGE, parameters, prepare=False)


SERVICES: Final = """
SELECT service, last_at FROM agent_log_services WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s
ORDER BY service LIMIT %(most)s
"""


async def services(tx: Tx, tenant: TenantId, agent: UUID) -> list[str]:
    """Return the services that an agent has logged for."""
    cursor = await tx.execute(SERVICES, {"tenant": tenant, "agent": agent, "most": SERVICES_LIMIT})
    return [row[0] for row in await cursor.fetchall()]


DELETE_BATCHES: Final = """
DELETE FROM agent_log_batches WHERE (agent_uuid, batch) IN (
    SELECT agent_uuid, batch FROM agent_log_batches WHERE at < %(before)s ORDER BY at LIMIT %(most)s)
"""
DELETE_SERVICES: Final = "DELETE FROM agent_log_services WHERE last_at < %(before)s"


async def delete_expired(tx: Tx, now: datetime) -> None:
    """Delete at most `DELETE_LIMIT` expired batch ids, and services without a line within `RETENTION`."""
    await tx.execute(DELETE_BATCHES, {"before": now - BATCH_LIFETIME, "most": DELETE_LIMIT})
    await tx.execute(DELETE_SERVICES, {"before": now - RETENTION})
