"""Incidents that targets must be told of: opened ones, ended ones, and those that nobody has acknowledged."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from iotistica.domain.alerts.scopes import AgentFacts
from iotistica.domain.ids import TenantId
from iotistica.storage.alerts.incidents import COLUMNS, Incident
from iotistica.storage.jsonb import jsonb
from iotistica.storage.postgres import Tx, fetch_rows

MOST: Final = 100  # incidents of one kind that are announced in one round
MEMBERS_LIMIT: Final = 1000  # active members of an incident that a silence is compared with


class Announced(Incident, frozen=True, kw_only=True):
    """An incident with its tenant, what its rule says of telling, and what was told."""

    tenant_id: TenantId
    labels: dict[str, str]
    told_at: datetime | None
    escalation_steps: int
    rule_labels: dict[str, str]
    rule_targets: list[UUID]
    """The targets that the rule names instead of the routes of targets."""
    policy_id: UUID | None


_SELECT: Final = f"""
SELECT {COLUMNS}, i.tenant_id, i.labels, i.told_at, i.escalation_steps,
       coalesce(r.definition->'labels', '{{}}') AS rule_labels,
       coalesce(r.definition->'targets', '[]') AS rule_targets,
       (r.definition->>'escalation')::uuid AS policy_id
FROM incidents i JOIN tenants t ON t.tenant_id = i.tenant_id AND t.enabled
LEFT JOIN alert_rules r ON r.tenant_id = i.tenant_id AND r.rule_id = i.rule_id
"""
UNTOLD: Final = (
    _SELECT
    + """
WHERE i.status = 'open' AND i.needs_telling AND coalesce(i.look_again_at, i.opened_at) <= %(now)s
ORDER BY coalesce(i.look_again_at, i.opened_at) LIMIT %(most)s FOR UPDATE OF i
"""
)
END_UNTOLD: Final = (
    _SELECT
    + """
WHERE i.status = 'resolved' AND i.told_at IS NOT NULL AND i.end_told_at IS NULL
ORDER BY i.resolved_at LIMIT %(most)s FOR UPDATE OF i
"""
)
ESCALATING: Final = (
    _SELECT
    + """
WHERE i.status = 'open' AND i.escalates_at <= %(now)s
  AND (i.look_again_at IS NULL OR i.look_again_at <= %(now)s)
ORDER BY i.escalates_at LIMIT %(most)s FOR UPDATE OF i
"""
)


async def untold(tx: Tx, now: datetime) -> list[Announced]:
    """Return open incidents that are new, have grown or become worse, and lock them until the commit."""
    return await fetch_rows(tx, Announced, UNTOLD, {"most": MOST, "now": now})


async def end_untold(tx: Tx) -> list[Announced]:
    """Return incidents that were told when they opened, and whose end has not been told."""
    return await fetch_rows(tx, Announced, END_UNTOLD, {"most": MOST})


async def escalating(tx: Tx, now: datetime) -> list[Announced]:
    """Return incidents that nobody has acknowledged until their next escalation step is due."""
    return await fetch_rows(tx, Announced, ESCALATING, {"most": MOST, "now": now})


class AboutMember(msgspec.Struct, frozen=True, kw_only=True):
    """A member of an incident with its agent; None for what concerns the tenant as a whole."""

    agent_uuid: UUID | None
    agent_name: str | None
    fleet_uuid: UUID | None
    tags: dict[str, str]
    metric_name: str
    value: float | None
    since: datetime
    bound: float | None
    is_active: bool

    @property
    def agent(self) -> AgentFacts | None:
        """What a silence asks of the agent."""
        if self.agent_uuid is None:
            return None
        return AgentFacts(
            agent_uuid=self.agent_uuid, name=self.agent_name or "", fleet_uuid=self.fleet_uuid, tags=self.tags
        )


MEMBERS: Final = """
SELECT m.agent_uuid, a.name AS agent_name, a.fleet_uuid, m.metric_name, m.value, m.since,
       (m.details->>'bound')::float8 AS bound, m.ended_at IS NULL AS is_active,
       coalesce((SELECT jsonb_object_agg(key, value) FROM agent_tags t
                 WHERE t.tenant_id = m.tenant_id AND t.agent_uuid = m.agent_uuid), '{}') AS tags
FROM incident_members m LEFT JOIN agents a USING (tenant_id, agent_uuid)
WHERE m.tenant_id = %(tenant)s AND m.incident_id = %(incident)s
ORDER BY (m.ended_at IS NOT NULL), m.id LIMIT %(most)s
"""


async def members(tx: Tx, tenant: TenantId, incident: UUID) -> list[AboutMember]:
    """Return the members of an incident, the active ones first, at most `MEMBERS_LIMIT`."""
    parameters = {"tenant": tenant, "incident": incident, "most": MEMBERS_LIMIT}
    return await fetch_rows(tx, AboutMember, MEMBERS, parameters)


MARK_TOLD: Final = """
UPDATE incidents SET told_at = coalesce(told_at, %(now)s), labels = %(labels)s::jsonb, needs_telling = false,
    look_again_at = NULL, escalates_at = CASE WHEN told_at IS NULL THEN %(escalates_at)s ELSE escalates_at END
WHERE tenant_id = %(tenant)s AND incident_id = %(incident)s
"""


async def mark_told(
    tx: Tx,
    tenant: TenantId,
    incident: UUID,
    now: datetime,
    *,
    labels: Mapping[str, str],
    escalates_at: datetime | None,
) -> None:
    """Note that the targets of an incident have been told; if for the first time, when it is escalated."""
    parameters = _scope(tenant, incident, now) | {"labels": jsonb(labels), "escalates_at": escalates_at}
    await tx.execute(MARK_TOLD, parameters)


LOOK_AGAIN: Final = """
UPDATE incidents SET look_again_at = %(now)s WHERE tenant_id = %(tenant)s AND incident_id = %(incident)s
"""


async def look_again(tx: Tx, tenant: TenantId, incident: UUID, at: datetime) -> None:
    """Note that an incident is silent, and when to look at it again."""
    await tx.execute(LOOK_AGAIN, _scope(tenant, incident, at))


MARK_END_TOLD: Final = """
UPDATE incidents SET end_told_at = %(now)s, escalates_at = NULL
WHERE tenant_id = %(tenant)s AND incident_id = %(incident)s
"""


async def mark_end_told(tx: Tx, tenant: TenantId, incident: UUID, now: datetime) -> None:
    """Note that the end of an incident has been told."""
    await tx.execute(MARK_END_TOLD, _scope(tenant, incident, now))


MARK_ESCALATED: Final = """
UPDATE incidents SET escalation_steps = %(steps)s, escalates_at = %(next_at)s
WHERE tenant_id = %(tenant)s AND incident_id = %(incident)s
"""


async def mark_escalated(
    tx: Tx, tenant: TenantId, incident: UUID, now: datetime, *, steps: int, next_at: datetime | None
) -> None:
    """Note that an escalation step was taken, and when the next is due."""
    await tx.execute(MARK_ESCALATED, _scope(tenant, incident, now) | {"steps": steps, "next_at": next_at})


def _scope(tenant: TenantId, incident: UUID, now: datetime) -> dict[str, Any]:
    return {"tenant": tenant, "incident": incident, "now": now}


def tenants_of(incidents: Sequence[Announced]) -> list[TenantId]:
    """Return the tenants of these incidents."""
    return sorted({incident.tenant_id for incident in incidents})
