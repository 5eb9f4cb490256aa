"""The timeline: the events of each agent in order of time."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.storage.jsonb import jsonb
from iotistica.storage.postgres import Page, Tx, fetch_page

MESSAGE_REFUSED: Final = "message.refused"
"""The kind of the event for a message that could not be processed."""
KEEP_DAYS: Final = 90  # days that events are kept
DELETE_LIMIT: Final = 20_000  # rows deleted in one transaction


class TimelineEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of an agent; its details never contain a secret."""

    agent: UUID
    at: datetime
    kind: str
    details: dict[str, Any]
    dedupe_key: str | None = None
    """Events with the same key share one row, with the time of the first and the details of the last."""
    times: int = 1


class TimelineRow(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    at: datetime
    kind: str
    details: dict[str, Any]
    times: int
    last_at: datetime | None
    """The time of the last event, if there was more than one."""


# Events of agents that do not belong to the tenant are skipped.
ADD: Final = """
INSERT INTO agent_timeline AS t (tenant_id, agent_uuid, at, kind, details, times, once)
SELECT a.tenant_id, n.*
FROM unnest(%(agents)s::uuid[], %(at)s::timestamptz[], %(kinds)s::text[], %(details)s::jsonb[], %(times)s::int[],
            %(once)s::text[]) AS n (agent_uuid, at, kind, details, times, once)
JOIN agents a USING (agent_uuid) WHERE a.tenant_id = %(tenant)s ORDER BY agent_uuid, at
ON CONFLICT (agent_uuid, kind, once) WHERE once IS NOT NULL
DO UPDATE SET times = t.times + excluded.times, last_at = greatest(t.last_at, excluded.at),
              details = excluded.details
"""


async def add(tx: Tx, tenant: TenantId, happened: Sequence[TimelineEvent]) -> None:
    """Add events of agents of a tenant."""
    rows = _merge_repeated(happened)
    if not rows:
        return
    await tx.execute(
        ADD,
        {
            "tenant": tenant,
            "agents": [row.agent for row in rows],
            "at": [row.at for row in rows],
            "kinds": [row.kind for row in rows],
            "details": [jsonb(row.details) for row in rows],
            "times": [row.times for row in rows],
            "once": [row.dedupe_key for row in rows],
        },
    )


ADD_TO_FLEET: Final = """
INSERT INTO agent_timeline (tenant_id, agent_uuid, at, kind, details)
SELECT tenant_id, agent_uuid, now(), %(kind)s, %(details)s::jsonb FROM agents
WHERE tenant_id = %(tenant)s AND fleet_uuid = %(fleet)s
"""


async def add_to_fleet(tx: Tx, tenant: TenantId, fleet: UUID, kind: str, details: dict[str, Any]) -> None:
    """Add an event to the timeline of every agent of a fleet."""
    parameters = {"tenant": tenant, "fleet": fleet, "kind": kind}
    await tx.execute(ADD_TO_FLEET, parameters | {"details": jsonb(details)})


def _merge_repeated(happened: Sequence[TimelineEvent]) -> list[TimelineEvent]:
    """Return the events with those of the same agent, kind and key merged into one."""
    single = [event for event in happened if event.dedupe_key is None]
    merged: dict[tuple[UUID, str, str | None], TimelineEvent] = {}
    for event in happened:
        if event.dedupe_key is not None:
            key = event.agent, event.kind, event.dedupe_key
            times = merged[key].times + event.times if key in merged else event.times
            merged[key] = msgspec.structs.replace(event, times=times)
    return [*single, *merged.values()]


def hourly_key(word: str, at: datetime) -> str:
    """Return the key of events that are counted hour by hour."""
    return f"{word} {at.astimezone(UTC):%Y-%m-%dT%H}"


PAGE: Final = """
SELECT id, at, kind, details, times, last_at FROM agent_timeline
WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s
  AND (%(at)s::timestamptz IS NULL OR (at, id) < (%(at)s, %(id)s))
  AND (%(kinds)s::text[] IS NULL OR kind = ANY(%(kinds)s) OR split_part(kind, '.', 1) = ANY(%(kinds)s))
ORDER BY at DESC, id DESC LIMIT %(limit)s
"""


async def page(
    tx: Tx,
    tenant: TenantId,
    agent: UUID,
    *,
    before: tuple[datetime, int] | None,
    kinds: Sequence[str] | None,
    limit: int,
) -> Page[TimelineRow]:
    """Return up to `limit` events of an agent older than `before`, the newest first.

    An entry of `kinds` is a whole kind or its part before a dot, such as `job`.
    """
    at, id_ = before or (None, None)
    parameters = {"tenant": tenant, "agent": agent, "at": at, "id": id_, "limit": limit}
    parameters |= {"kinds": list(kinds) if kinds else None}
    return await fetch_page(tx, TimelineRow, PAGE, parameters, cursor=("at", "id"))


DELETE_OLD: Final = """
DELETE FROM agent_timeline WHERE id = ANY(ARRAY(
    SELECT id FROM agent_timeline WHERE at < %(before)s ORDER BY at LIMIT %(most)s))
"""


async def delete_old(tx: Tx, *, before: datetime) -> None:
    """Delete up to `DELETE_LIMIT` of the oldest events before `before`."""
    await tx.execute(DELETE_OLD, {"before": before, "most": DELETE_LIMIT})


DEAD_LETTER_CURSOR: Final = "SELECT last_id FROM dead_letters_told WHERE tenant_id = %(tenant)s FOR UPDATE"


async def dead_letter_cursor(tx: Tx, tenant: TenantId) -> str | None:
    """Return the id of the last dead letter on the timelines of a tenant, or None; locks it until the commit."""
    row = await (await tx.execute(DEAD_LETTER_CURSOR, {"tenant": tenant})).fetchone()
    return str(row[0]) if row else None


SAVE_DEAD_LETTER_CURSOR: Final = """
INSERT INTO dead_letters_told (tenant_id, last_id) VALUES (%(tenant)s, %(id)s)
ON CONFLICT (tenant_id) DO UPDATE SET last_id = excluded.last_id
"""


async def save_dead_letter_cursor(tx: Tx, tenant: TenantId, id_: str) -> None:
    """Store the id of the last dead letter that was added to the timelines."""
    await tx.execute(SAVE_DEAD_LETTER_CURSOR, {"tenant": tenant, "id": id_})
