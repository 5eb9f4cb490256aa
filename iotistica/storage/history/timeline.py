"""What happened to each agent, in the order of time."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.storage.postgres import Tx, fetch_rows

KEEP_DAYS: Final = 90  # kept
DELETE_LIMIT: Final = 20_000  # rows forgotten in one transaction


class TimelineEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to an agent; no secret is ever in its details."""

    agent: UUID
    at: datetime
    kind: str
    details: dict[str, Any]
    dedupe_key: str | None = None
    """What comes again under the same word is one row, that of the first, with the details of the last."""
    times: int = 1


class TimelineRow(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    at: datetime
    kind: str
    details: dict[str, Any]
    times: int
    last_at: datetime | None
    """Of what came more than once."""


# What is said of an agent that is not the tenant's is left out.
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
    """Write down what happened to agents of a tenant."""
    rows = _joined(happened)
    if not rows:
        return
    await tx.execute(
        ADD,
        {
            "tenant": tenant,
            "agents": [one.agent for one in rows],
            "at": [one.at for one in rows],
            "kinds": [one.kind for one in rows],
            "details": [msgspec.json.encode(one.details).decode() for one in rows],
            "times": [one.times for one in rows],
            "once": [one.dedupe_key for one in rows],
        },
    )


ADD_TO_FLEET: Final = """
INSERT INTO agent_timeline (tenant_id, agent_uuid, at, kind, details)
SELECT tenant_id, agent_uuid, now(), %(kind)s, %(details)s::jsonb FROM agents
WHERE tenant_id = %(tenant)s AND fleet_uuid = %(fleet)s
"""


async def add_to_fleet(tx: Tx, tenant: TenantId, fleet: UUID, kind: str, details: dict[str, Any]) -> None:
    """Write down what happened to all agents of a fleet."""
    parameters = {"tenant": tenant, "fleet": fleet, "kind": kind}
    await tx.execute(ADD_TO_FLEET, parameters | {"details": msgspec.json.encode(details).decode()})


def _joined(happened: Sequence[TimelineEvent]) -> list[TimelineEvent]:
    """What comes again within one call as one."""
    single = [one for one in happened if one.dedupe_key is None]
    again: dict[tuple[UUID, str, str | None], TimelineEvent] = {}
    for one in happened:
        if one.dedupe_key is not None:
            key = one.agent, one.kind, one.dedupe_key
            times = again[key].times + one.times if key in again else one.times
            again[key] = msgspec.structs.replace(one, times=times)
    return [*single, *again.values()]


def hourly_key(word: str, at: datetime) -> str:
    """The word for what is counted hour by hour."""
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
) -> list[TimelineRow]:
    """What happened to an agent, the newest first, older than `before`; of `kinds` some may be groups, as `job`."""
    at, id_ = before or (None, None)
    parameters = {"tenant": tenant, "agent": agent, "at": at, "id": id_, "limit": limit}
    return await fetch_rows(tx, TimelineRow, PAGE, parameters | {"kinds": list(kinds) if kinds else None})


DELETE_OLD: Final = """
DELETE FROM agent_timeline WHERE id = ANY(ARRAY(
    SELECT id FROM agent_timeline WHERE at < %(before)s ORDER BY at LIMIT %(most)s))
"""


async def delete_old(tx: Tx, *, before: datetime) -> int:
    """Forget some of what is older; how much."""
    return (await tx.execute(DELETE_OLD, {"before": before, "most": DELETE_LIMIT})).rowcount


DEAD_LETTER_CURSOR: Final = "SELECT last_id FROM dead_letters_told WHERE tenant_id = %(tenant)s FOR UPDATE"


async def dead_letter_cursor(tx: Tx, tenant: TenantId) -> str | None:
    """The last dead letter of a tenant that is on the timeline; nobody else tells any before the commit."""
    row = await (await tx.execute(DEAD_LETTER_CURSOR, {"tenant": tenant})).fetchone()
    return str(row[0]) if row else None


SAVE_DEAD_LETTER_CURSOR: Final = """
INSERT INTO dead_letters_told (tenant_id, last_id) VALUES (%(tenant)s, %(id)s)
ON CONFLICT (tenant_id) DO UPDATE SET last_id = excluded.last_id
"""


async def save_dead_letter_cursor(tx: Tx, tenant: TenantId, id_: str) -> None:
    """Note which dead letter was told last."""
    await tx.execute(SAVE_DEAD_LETTER_CURSOR, {"tenant": tenant, "id": id_})
