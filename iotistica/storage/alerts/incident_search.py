"""Lists incidents, and the members of one."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from iotistica.domain.alerts.events import Severity
from iotistica.domain.alerts.incidents import Status
from iotistica.domain.ids import TenantId
from iotistica.errors import NotFound
from iotistica.storage.alerts.incidents import COLUMNS, Incident, by_ids
from iotistica.storage.postgres import Page, Tx, fetch_page, fetch_rows


class IncidentFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which incidents match; None is any."""

    statuses: tuple[Status, ...] | None = None
    severities: tuple[Severity, ...] | None = None
    agent: UUID | None = None
    rule: UUID | None = None
    metric: str | None = None
    start: datetime | None = None
    end: datetime | None = None


PAGE: Final = f"""
SELECT {COLUMNS} FROM incidents i
WHERE i.tenant_id = %(tenant)s
  AND (%(statuses)s::text[] IS NULL OR i.status = ANY(%(statuses)s))
  AND (%(severities)s::text[] IS NULL OR i.severity = ANY(%(severities)s))
  AND (%(rule)s::uuid IS NULL OR i.rule_id = %(rule)s)
  AND (%(start)s::timestamptz IS NULL OR i.opened_at >= %(start)s)
  AND (%(end)s::timestamptz IS NULL OR i.opened_at < %(end)s)
  AND ((%(agent)s::uuid IS NULL AND %(metric)s::text IS NULL) OR EXISTS (
      SELECT FROM incident_members m WHERE m.tenant_id = %(tenant)s AND m.incident_id = i.incident_id
        AND (%(agent)s::uuid IS NULL OR m.agent_uuid = %(agent)s)
        AND (%(metric)s::text IS NULL OR m.metric_name = %(metric)s)))
  AND (%(at)s::timestamptz IS NULL OR (i.opened_at, i.incident_id) < (%(at)s, %(id)s))
ORDER BY i.opened_at DESC, i.incident_id DESC LIMIT %(limit)s
"""


async def page(
    tx: Tx, tenant: TenantId, wanted: IncidentFilter, *, before: tuple[datetime, UUID] | None, limit: int
) -> Page[Incident]:
    """Return up to `limit` incidents that were opened before those of an earlier page, the newest first."""
    at, id_ = before or (None, None)
    parameters = {"tenant": tenant, "at": at, "id": id_, "limit": limit} | msgspec.structs.asdict(wanted)
    for name in ("statuses", "severities"):
        parameters[name] = list(parameters[name]) if parameters[name] else None
    return await fetch_page(tx, Incident, PAGE, parameters, cursor=("at", "id"))


async def get(tx: Tx, tenant: TenantId, incident: UUID) -> Incident:
    """Return one incident; raises `NotFound`."""
    found = await by_ids(tx, tenant, [incident])
    if not found:
        raise NotFound
    return found[0]


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """What an incident is or was about; `agent_uuid` is None for what concerns the tenant as a whole."""

    id: int
    agent_uuid: UUID | None
    agent_name: str | None
    metric_name: str
    opened_at: datetime
    since: datetime
    """Since when the condition held, by measured time."""
    value: float | None
    details: dict[str, Any]
    times: int
    seen_at: datetime
    ended_at: datetime | None


MEMBERS: Final = """
SELECT m.id, m.agent_uuid, a.name AS agent_name, m.metric_name, m.opened_at, m.since, m.value, m.details, m.times,
       m.seen_at, m.ended_at
FROM incident_members m LEFT JOIN agents a USING (tenant_id, agent_uuid)
WHERE m.tenant_id = %(tenant)s AND m.incident_id = %(incident)s
  AND (NOT %(active)s OR m.ended_at IS NULL)
  AND (%(ended)s::boolean IS NULL OR (m.ended_at IS NOT NULL, m.id) > (%(ended)s, %(id)s))
ORDER BY (m.ended_at IS NOT NULL), m.id LIMIT %(limit)s
"""


async def members(
    tx: Tx,
    tenant: TenantId,
    incident: UUID,
    *,
    active: bool = False,
    after: tuple[bool, int] | None = None,
    limit: int,
) -> Page[Member]:
    """Return up to `limit` members of an incident, those that have not ended first, or only those."""
    ended, id_ = after or (None, None)
    parameters = {
        "tenant": tenant,
        "incident": incident,
        "active": active,
        "ended": ended,
        "id": id_,
        "limit": limit,
    }
    return await fetch_page(tx, Member, MEMBERS, parameters, cursor=("ended", "id"))


class MemberSample(msgspec.Struct, frozen=True, kw_only=True):
    incident_id: UUID
    agent_uuid: UUID | None
    agent_name: str | None
    metric_name: str
    value: float | None
    ended: bool


FIRST_MEMBERS: Final = """
SELECT i.incident_id, m.agent_uuid, a.name AS agent_name, m.metric_name, m.value, m.ended_at IS NOT NULL AS ended
FROM unnest(%(ids)s::uuid[]) AS i (incident_id)
CROSS JOIN LATERAL (
    SELECT * FROM incident_members m WHERE m.tenant_id = %(tenant)s AND m.incident_id = i.incident_id
    ORDER BY (m.ended_at IS NOT NULL), m.id LIMIT %(limit)s) m
LEFT JOIN agents a ON a.tenant_id = m.tenant_id AND a.agent_uuid = m.agent_uuid
"""


async def first_members(
    tx: Tx, tenant: TenantId, incidents: Sequence[UUID], *, limit: int
) -> dict[UUID, list[MemberSample]]:
    """Return the first members of each incident, those that have not ended before the others."""
    found: dict[UUID, list[MemberSample]] = {}
    parameters = {"tenant": tenant, "ids": list(incidents), "limit": limit}
    for row in await fetch_rows(tx, MemberSample, FIRST_MEMBERS, parameters):
        found.setdefault(row.incident_id, []).append(row)
    return found
