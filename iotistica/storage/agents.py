"""Agents: who they are, and when they were last seen."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from iotistica.domain.ids import AgentId, TenantId
from iotistica.errors import Conflict, NotFound
from iotistica.storage import audit, broker_accounts, quotas
from iotistica.storage.audit import Actor
from iotistica.storage.postgres import Tx, row_as, rows_as


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    agent_uuid: AgentId
    tenant_id: TenantId
    name: str
    state: str
    kind: str | None
    fleet_uuid: UUID | None
    agent_version: str | None
    os_version: str | None
    replaced_by: UUID | None
    created_at: datetime
    last_seen: datetime | None = None

    def facts(self) -> dict[str, Any]:
        """What the audit shows."""
        return {"name": self.name, "state": self.state, "kind": self.kind, "fleet": self.fleet_uuid}


_COLUMNS: Final = """agent_uuid, a.tenant_id, a.name, a.state, a.kind, a.fleet_uuid, a.agent_version, a.os_version,
a.replaced_by, a.created_at"""

ADD: Final = f"""
INSERT INTO agents AS a (agent_uuid, tenant_id, name, fleet_uuid)
VALUES (%(agent)s, %(tenant)s, %(name)s, %(fleet)s)
ON CONFLICT DO NOTHING RETURNING {_COLUMNS}
"""


async def add(
    tx: Tx, tenant: TenantId, agent: AgentId, name: str, *, key: bytes, by: Actor, fleet: UUID | None = None
) -> Agent:
    """Make an agent that connects with what it is told by hand; its password derives from the server's `key`.

    Raises `Conflict` if the uuid is taken, by any tenant, or the tenant's quota is reached.
    """
    await quotas.check_agents(tx, tenant)
    row = await row_as(tx, Agent, ADD, {"tenant": tenant, "agent": agent, "name": name, "fleet": fleet})
    if row is None:
        raise Conflict(f"there is an agent {agent} already; `iotistica agents show` prints how it connects")
    await broker_accounts.add_agent(tx, tenant, agent, key=key, enabled=True)
    await audit.record(tx, tenant, by, "agent.added", ("agent", agent), after=row.facts())
    return row


UPDATE: Final = f"""
UPDATE agents a SET name = %(name)s, fleet_uuid = %(fleet)s
WHERE a.tenant_id = %(tenant)s AND agent_uuid = %(agent)s RETURNING {_COLUMNS}
"""


async def update(tx: Tx, tenant: TenantId, old: Agent, *, name: str, fleet: UUID | None, by: Actor) -> Agent:
    """Give an agent another name or fleet; raises `NotFound`."""
    row = await row_as(tx, Agent, UPDATE, {"tenant": tenant, "agent": old.agent_uuid, "name": name, "fleet": fleet})
    if row is None:
        raise NotFound
    await audit.record(
        tx, tenant, by, "agent.changed", ("agent", old.agent_uuid), before=old.facts(), after=row.facts()
    )
    return row


# Seen: its newest report, or the newest row of its ledger, which is folded into the totals after a minute.
_SEEN: Final = """
LEFT JOIN agent_states reported USING (tenant_id, agent_uuid)
LEFT JOIN (
    SELECT agent_uuid, max(at) AS last_seen FROM (
        SELECT agent_uuid, at FROM readings_ledger WHERE tenant_id = %(tenant)s
        UNION ALL
        SELECT agent_uuid, last_at FROM readings_ledger_totals WHERE tenant_id = %(tenant)s
    ) ledger GROUP BY agent_uuid
) seen USING (agent_uuid)
"""
PAGE: Final = (
    f"SELECT {_COLUMNS}, greatest(seen.last_seen, reported.reported_at) AS last_seen FROM agents a"
    + _SEEN
    + """WHERE a.tenant_id = %(tenant)s AND (%(after)s::uuid IS NULL OR agent_uuid > %(after)s)
ORDER BY agent_uuid LIMIT %(limit)s"""
)


async def page(tx: Tx, tenant: TenantId, *, after: UUID | None, limit: int) -> list[Agent]:
    """A tenant's agents in order of their ids, `limit` after the given one."""
    return await rows_as(tx, Agent, PAGE, {"tenant": tenant, "after": after, "limit": limit})


GET: Final = (
    f"SELECT {_COLUMNS}, greatest(seen.last_seen, reported.reported_at) AS last_seen FROM agents a"
    + _SEEN
    + "WHERE a.tenant_id = %(tenant)s AND agent_uuid = %(agent)s"
)


async def get(tx: Tx, tenant: TenantId, agent: UUID) -> Agent | None:
    """One agent of a tenant."""
    return await row_as(tx, Agent, GET, {"tenant": tenant, "agent": agent})


OWNERS: Final = """
SELECT a.agent_uuid, a.tenant_id FROM agents a JOIN tenants USING (tenant_id)
WHERE a.agent_uuid = ANY(%(agents)s) AND enabled
"""


async def owners(tx: Tx, agents: Sequence[UUID]) -> dict[UUID, TenantId]:
    """The enabled tenant of each of these agents; those nobody has are left out."""
    cursor = await tx.execute(OWNERS, {"agents": list(agents)})
    return {agent: TenantId(tenant) for agent, tenant in await cursor.fetchall()}
