"""All agents of a tenant in brief, for a map that shows each as a tile."""

from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from iotistica.domain.ids import TenantId
from iotistica.storage.postgres import Tx

MAP_LIMIT: Final = 10_000  # agents on a map


class MappedAgent(NamedTuple):
    """An agent on the map; `status` None is an agent that was never heard of, `value` that of the chosen tag."""

    agent: UUID
    name: str
    status: str | None
    since: datetime | None
    fleet: UUID | None
    value: str | None
    incident: str | None
    """The worst severity of the open incidents that the agent is a member of."""
    faults: int
    """How many of its devices and services the agent reports as failing."""


# The worst severity is the smallest of the three words' ranks.
MAP: Final = """
WITH troubled AS (
    SELECT m.agent_uuid, min(array_position('{critical,warning,info}', i.severity)) AS rank
    FROM incidents i JOIN incident_members m USING (tenant_id, incident_id)
    WHERE i.tenant_id = %(tenant)s AND i.status <> 'resolved' AND m.ended_at IS NULL AND m.agent_uuid IS NOT NULL
    GROUP BY m.agent_uuid)
SELECT a.agent_uuid, a.name, p.status, p.since, a.fleet_uuid, t.value, ('{critical,warning,info}'::text[])[rank],
       coalesce(s.faults, 0)
FROM agents a LEFT JOIN agent_presence p USING (tenant_id, agent_uuid)
LEFT JOIN agent_tags t ON t.tenant_id = a.tenant_id AND t.agent_uuid = a.agent_uuid AND t.key = %(tag)s
LEFT JOIN agent_states s ON s.tenant_id = a.tenant_id AND s.agent_uuid = a.agent_uuid AND s.faults > 0
LEFT JOIN troubled ON troubled.agent_uuid = a.agent_uuid
WHERE a.tenant_id = %(tenant)s AND a.active AND a.state <> 'retired'
ORDER BY lower(a.name), a.agent_uuid LIMIT %(most)s
"""


async def mapped(tx: Tx, tenant: TenantId, *, tag: str | None) -> list[MappedAgent]:
    """Return up to `MAP_LIMIT` agents that are in service, by name, each with its value of a tag."""
    parameters = {"tenant": tenant, "tag": tag, "most": MAP_LIMIT}
    return [MappedAgent(*row) for row in await (await tx.execute(MAP, parameters)).fetchall()]
