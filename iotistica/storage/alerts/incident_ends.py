"""Ends members of incidents, and resolves incidents that have none left."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from iotistica.domain.alerts.incidents import Subject
from iotistica.domain.ids import TenantId
from iotistica.storage.alerts import incident_history
from iotistica.storage.alerts.incidents import LOCK, SAME_SUBJECT, Incident, by_ids
from iotistica.storage.postgres import Tx

KEEP_DAYS: Final = 400  # days that resolved incidents are kept, more than a year, with their members and history
DELETE_LIMIT: Final = 2000  # incidents deleted in one transaction

END_MEMBERS: Final = (
    """
UPDATE incident_members m SET ended_at = %(now)s
FROM unnest(%(agents)s::uuid[], %(names)s::text[]) AS n (agent_uuid, metric_name)
WHERE m.tenant_id = %(tenant)s AND m.cause = %(cause)s AND m.ended_at IS NULL
  AND """
    + SAME_SUBJECT
    + """
RETURNING m.incident_id
"""
)


async def end_members(
    tx: Tx, tenant: TenantId, cause: str, subjects: Sequence[Subject], now: datetime, *, reason: str
) -> list[Incident]:
    """End the open members of a cause with these subjects; return the incidents that thereby are resolved."""
    if not subjects:
        return []
    await tx.execute(LOCK, {"tenant": tenant, "cause": cause})
    parameters = {"tenant": tenant, "cause": cause, "now": now, "agents": [s.agent for s in subjects]}
    cursor = await tx.execute(END_MEMBERS, parameters | {"names": [s.metric_name for s in subjects]})
    touched = sorted({row[0] for row in await cursor.fetchall()})
    return await _settle(tx, tenant, touched, now, reason)


EXPIRED: Final = """
SELECT m.tenant_id, m.cause, m.agent_uuid, m.metric_name FROM incident_members m
WHERE m.ended_at IS NULL AND m.ends_at <= %(now)s ORDER BY m.tenant_id, m.cause LIMIT 10000
"""


async def expired(tx: Tx, now: datetime) -> dict[tuple[TenantId, str], list[Subject]]:
    """Return the members of all tenants that nothing has renewed in time, by tenant and cause."""
    found: dict[tuple[TenantId, str], list[Subject]] = {}
    for tenant, cause, agent, name in await (await tx.execute(EXPIRED, {"now": now})).fetchall():
        found.setdefault((TenantId(tenant), cause), []).append(Subject(agent, name))
    return found


EMPTY: Final = """
SELECT i.tenant_id, i.incident_id FROM incidents i
WHERE i.status <> 'resolved' AND (%(tenant)s::text IS NULL OR i.tenant_id = %(tenant)s)
  AND NOT EXISTS (SELECT FROM incident_members m WHERE m.incident_id = i.incident_id AND m.ended_at IS NULL)
"""


async def resolve_empty(tx: Tx, tenant: TenantId | None, now: datetime) -> list[tuple[TenantId, Incident]]:
    """Resolve open incidents without members, whose agents were deleted; of one tenant or of all."""
    touched: dict[TenantId, list[UUID]] = {}
    for owner, incident in await (await tx.execute(EMPTY, {"tenant": tenant})).fetchall():
        touched.setdefault(TenantId(owner), []).append(incident)
    return [
        (owner, incident)
        for owner, ids in touched.items()
        for incident in await _settle(tx, owner, ids, now, "what it was about is gone")
    ]


SETTLE: Final = """
UPDATE incidents i SET active_members = c.active,
    status = CASE WHEN c.active = 0 THEN 'resolved' ELSE i.status END,
    resolved_at = CASE WHEN c.active = 0 THEN %(now)s END
FROM (SELECT n.incident_id, count(m.id) FILTER (WHERE m.ended_at IS NULL) AS active
      FROM unnest(%(ids)s::uuid[]) AS n (incident_id) LEFT JOIN incident_members m
          ON m.incident_id = n.incident_id AND m.tenant_id = %(tenant)s
      GROUP BY n.incident_id) c
WHERE i.tenant_id = %(tenant)s AND i.incident_id = c.incident_id AND i.status <> 'resolved'
RETURNING i.incident_id, i.status
"""


async def _settle(tx: Tx, tenant: TenantId, ids: Sequence[UUID], now: datetime, reason: str) -> list[Incident]:
    """Count the active members of incidents again, and resolve those that have none left; return these."""
    cursor = await tx.execute(SETTLE, {"tenant": tenant, "ids": list(ids), "now": now})
    resolved = [incident for incident, status in await cursor.fetchall() if status == "resolved"]
    for incident in resolved:
        await incident_history.add(tx, tenant, incident, "resolved", at=now, details={"reason": reason})
    return await by_ids(tx, tenant, resolved)


DELETE_OLD: Final = """
DELETE FROM incidents WHERE incident_id = ANY(ARRAY(
    SELECT incident_id FROM incidents WHERE status = 'resolved' AND resolved_at < %(before)s LIMIT %(most)s))
"""


async def delete_old(tx: Tx, *, before: datetime) -> None:
    """Delete up to `DELETE_LIMIT` incidents that were resolved before `before`."""
    await tx.execute(DELETE_OLD, {"before": before, "most": DELETE_LIMIT})
