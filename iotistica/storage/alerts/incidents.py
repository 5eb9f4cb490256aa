"""Opens incidents, lets their members come and go, and resolves them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4

import msgspec

from iotistica.domain.alerts import incidents as rules
from iotistica.domain.alerts.events import Severity
from iotistica.domain.alerts.incidents import Cause, NewMember, OpenIncident, Placement, Status, Subject
from iotistica.domain.ids import TenantId
from iotistica.storage.alerts import incident_history
from iotistica.storage.jsonb import jsonb
from iotistica.storage.postgres import Tx, fetch_rows

AGENTS_LIMIT: Final = 1000  # agents of an incident that live listeners are told of


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    incident_id: UUID
    cause: str
    rule_id: UUID | None
    title: str
    severity: Severity
    status: Status
    opened_at: datetime
    grown_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: dict[str, Any] | None
    resolved_at: datetime | None
    resolved_by: dict[str, Any] | None
    members: int
    active_members: int


COLUMNS: Final = """i.incident_id, i.cause, i.rule_id, i.title, i.severity, i.status, i.opened_at, i.grown_at,
i.acknowledged_at, i.acknowledged_by, i.resolved_at, i.resolved_by, i.members, i.active_members"""

SAME_SUBJECT: Final = """coalesce(m.agent_uuid, '00000000-0000-0000-0000-000000000000')
      = coalesce(n.agent_uuid, '00000000-0000-0000-0000-000000000000') AND m.metric_name = n.metric_name"""
# Two processes write incidents, one that applies rules and one that stores the events of agents.
LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('incidents ' || %(tenant)s || %(cause)s, 0))"
SEEN_AGAIN: Final = (
    """
UPDATE incident_members m SET seen_at = %(now)s, times = least(times + 1, 1 << 30),
    ends_at = greatest(m.ends_at, n.ends_at)
FROM unnest(%(agents)s::uuid[], %(names)s::text[], %(ends)s::timestamptz[]) AS n (agent_uuid, metric_name, ends_at),
     incidents i
WHERE m.tenant_id = %(tenant)s AND m.cause = %(cause)s AND i.incident_id = m.incident_id
  AND (m.ended_at IS NULL OR (i.resolved_by IS NOT NULL AND m.ends_at > %(now)s))
  AND """
    + SAME_SUBJECT
    + """
RETURNING m.agent_uuid, m.metric_name, m.incident_id
"""
)
RAISE: Final = """
UPDATE incidents SET severity = %(severity)s, needs_telling = true
WHERE tenant_id = %(tenant)s AND incident_id = ANY(%(ids)s) AND status <> 'resolved'
  AND array_position(ARRAY['info', 'warning', 'critical'], severity)
    < array_position(ARRAY['info', 'warning', 'critical'], %(severity)s)
"""
# The incidents in which these subjects were members before, so that members come and go within one incident.
OPENED: Final = """
SELECT i.incident_id, i.grown_at, i.members,
       array(SELECT DISTINCT m.agent_uuid FROM incident_members m
             WHERE m.incident_id = i.incident_id AND m.agent_uuid = ANY(%(agents)s)) AS agents
FROM incidents i WHERE i.tenant_id = %(tenant)s AND i.cause = %(cause)s AND i.status <> 'resolved'
"""
FORMER: Final = (
    """
SELECT DISTINCT ON (m.agent_uuid, m.metric_name) m.agent_uuid, m.metric_name, m.incident_id
FROM unnest(%(agents)s::uuid[], %(names)s::text[]) AS n (agent_uuid, metric_name)
JOIN incident_members m ON """
    + SAME_SUBJECT
    + """
JOIN incidents i USING (incident_id)
WHERE m.tenant_id = %(tenant)s AND i.cause = %(cause)s AND i.status <> 'resolved' AND m.ended_at > %(since)s
ORDER BY m.agent_uuid, m.metric_name, m.id DESC
"""
)


async def open_members(
    tx: Tx, tenant: TenantId, cause: Cause, members: Sequence[NewMember], now: datetime
) -> list[Incident]:
    """Open incidents for new members, or add them to those that they belong to; return the opened ones.

    A subject that is an open member of the cause already stays the one it is, and counts once more. So does one
    whose incident was resolved by hand, until it has not been seen for as long as it would have lasted.
    """
    if not members:
        return []
    await tx.execute(LOCK, {"tenant": tenant, "cause": cause.key})
    scope: dict[str, Any] = {"tenant": tenant, "cause": cause.key}
    subjects = _subjects(members)
    ends = {"ends": [member.ends_at for member in members], "now": now}
    again = await (await tx.execute(SEEN_AGAIN, scope | subjects | ends)).fetchall()
    seen = {(agent, name) for agent, name, _ in again}
    if again:
        await tx.execute(RAISE, scope | {"severity": cause.severity, "ids": [incident for *_, incident in again]})
    fresh = list({m.subject: m for m in members if tuple(m.subject) not in seen}.values())
    if not fresh:
        return []
    former = {
        Subject(agent, name): incident
        for agent, name, incident in await (
            await tx.execute(FORMER, scope | _subjects(fresh) | {"since": now - rules.COMES_BACK})
        ).fetchall()
    }
    known = await fetch_rows(tx, OpenIncident, OPENED, scope | _subjects(fresh))
    back: dict[UUID, list[NewMember]] = {}
    for member in fresh:
        if member.subject in former:
            back.setdefault(former[member.subject], []).append(member)
    new = [member for member in fresh if member.subject not in former]
    placed = [Placement(incident, group) for incident, group in back.items()]
    opened = []
    for incident, group in [*placed, *rules.place(new, known, cause.grouping, now)]:
        if incident is None:
            id_ = await _open(tx, tenant, cause, now)
            opened.append(id_)
        else:
            id_ = incident
        await _add_members(tx, tenant, cause.key, id_, group, now)
    return await by_ids(tx, tenant, opened)


def _subjects(members: Sequence[NewMember]) -> dict[str, Any]:
    return {"agents": [m.subject.agent for m in members], "names": [m.subject.metric_name for m in members]}


OPEN: Final = """
INSERT INTO incidents (incident_id, tenant_id, cause, rule_id, is_of_rule, title, severity, status, opened_at,
                       grown_at)
VALUES (%(id)s, %(tenant)s, %(cause)s,
        (SELECT rule_id FROM alert_rules WHERE tenant_id = %(tenant)s AND rule_id = %(rule)s),
        %(rule)s::uuid IS NOT NULL, %(title)s, %(severity)s, 'open', %(now)s, %(now)s)
"""


async def _open(tx: Tx, tenant: TenantId, cause: Cause, now: datetime) -> UUID:
    id_ = uuid4()
    facts = {"rule": cause.rule_id, "title": cause.title, "severity": cause.severity}
    await tx.execute(OPEN, {"id": id_, "tenant": tenant, "cause": cause.key, "now": now} | facts)
    await incident_history.add(tx, tenant, id_, "opened", at=now)
    return id_


ADD_MEMBERS: Final = """
INSERT INTO incident_members (incident_id, tenant_id, cause, agent_uuid, metric_name, opened_at, since, value,
                              details, seen_at, ends_at)
SELECT %(id)s, %(tenant)s, %(cause)s, n.agent_uuid, n.metric_name, %(now)s, n.since, n.value, n.details, %(now)s,
       n.ends_at
FROM unnest(%(agents)s::uuid[], %(names)s::text[], %(since)s::timestamptz[], %(values)s::float8[],
            %(details)s::jsonb[], %(ends)s::timestamptz[])
     AS n (agent_uuid, metric_name, since, value, details, ends_at)
LEFT JOIN agents a ON a.tenant_id = %(tenant)s AND a.agent_uuid = n.agent_uuid
WHERE n.agent_uuid IS NULL OR a.agent_uuid IS NOT NULL
ORDER BY n.agent_uuid, n.metric_name
ON CONFLICT DO NOTHING
"""
GROW: Final = """
UPDATE incidents i SET grown_at = %(now)s, needs_telling = true, members = c.members, active_members = c.active
FROM (SELECT count(DISTINCT (agent_uuid, metric_name)) AS members,
             count(*) FILTER (WHERE ended_at IS NULL) AS active
      FROM incident_members WHERE tenant_id = %(tenant)s AND incident_id = %(id)s) c
WHERE i.tenant_id = %(tenant)s AND i.incident_id = %(id)s
"""


async def _add_members(
    tx: Tx, tenant: TenantId, cause: str, incident: UUID, members: Sequence[NewMember], now: datetime
) -> None:
    facts = {
        "since": [member.since for member in members],
        "values": [member.value for member in members],
        "details": [jsonb(member.details) for member in members],
        "ends": [member.ends_at for member in members],
    }
    scope = {"id": incident, "tenant": tenant, "cause": cause, "now": now}
    await tx.execute(ADD_MEMBERS, scope | _subjects(members) | facts)
    await tx.execute(GROW, scope)


BY_IDS: Final = f"""
SELECT {COLUMNS} FROM incidents i WHERE i.tenant_id = %(tenant)s AND i.incident_id = ANY(%(ids)s)
ORDER BY i.opened_at, i.incident_id
"""


async def by_ids(tx: Tx, tenant: TenantId, ids: Sequence[UUID]) -> list[Incident]:
    """Return incidents by their ids; those that do not exist are left out."""
    return await fetch_rows(tx, Incident, BY_IDS, {"tenant": tenant, "ids": list(ids)}) if ids else []


AGENTS_OF: Final = """
SELECT DISTINCT agent_uuid FROM incident_members
WHERE tenant_id = %(tenant)s AND incident_id = %(incident)s AND agent_uuid IS NOT NULL LIMIT %(most)s
"""


async def agents_of(tx: Tx, tenant: TenantId, incident: UUID) -> list[UUID]:
    """Return the agents that an incident is about, at most `AGENTS_LIMIT`."""
    parameters = {"tenant": tenant, "incident": incident, "most": AGENTS_LIMIT}
    return [row[0] for row in await (await tx.execute(AGENTS_OF, parameters)).fetchall()]


EVENT_CAUSES: Final = """
SELECT DISTINCT cause FROM incident_members
WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s AND ended_at IS NULL AND ends_at IS NOT NULL LIMIT %(most)s
"""


async def event_causes(tx: Tx, tenant: TenantId, agent: UUID, *, most: int) -> set[str]:
    """Return the causes of open incidents from events of an agent, at most `most`."""
    parameters = {"tenant": tenant, "agent": agent, "most": most}
    return {row[0] for row in await (await tx.execute(EVENT_CAUSES, parameters)).fetchall()}


class OpenMember(NamedTuple):
    """An open member of an incident that a rule opened."""

    tenant: TenantId
    cause: str
    title: str
    severity: Severity
    subject: Subject


OPEN_MEMBERS: Final = """
SELECT m.tenant_id, m.cause, i.title, i.severity, m.agent_uuid, m.metric_name
FROM incident_members m JOIN incidents i USING (incident_id)
WHERE m.ended_at IS NULL AND i.is_of_rule AND (%(tenant)s::text IS NULL OR m.tenant_id = %(tenant)s)
"""


async def open_of_rules(tx: Tx, tenant: TenantId | None) -> list[OpenMember]:
    """Return the open members of the incidents that rules opened, of one tenant or of all."""
    cursor = await tx.execute(OPEN_MEMBERS, {"tenant": tenant})
    return [
        OpenMember(TenantId(owner), cause, title, severity, Subject(agent, name))
        for owner, cause, title, severity, agent, name in await cursor.fetchall()
    ]
