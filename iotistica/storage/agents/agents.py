"""Agents: their names, states, fleets and tenants."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from iotistica.domain.ids import AgentId, TenantId
from iotistica.errors import Conflict, NotFound
from iotistica.storage.access import quotas
from iotistica.storage.agents import broker_accounts
from iotistica.storage.history import audit
from iotistica.storage.history.audit import Actor
from iotistica.storage.postgres import Tx, fetch_row, fetch_rows


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
    active: bool

    def facts(self) -> dict[str, Any]:
        """Return the fields that the audit log records."""
        facts = {"name": self.name, "state": self.state, "kind": self.kind, "fleet": self.fleet_uuid}
        return facts | {"active": self.active}


COLUMNS: Final = """agent_uuid, a.tenant_id, a.name, a.state, a.kind, a.fleet_uuid, a.agent_version, a.os_version,
a.replaced_by, a.created_at, a.active"""

ADD: Final = f"""
INSERT INTO agents AS a (agent_uuid, tenant_id, name, fleet_uuid)
VALUES (%(agent)s, %(tenant)s, %(name)s, %(fleet)s)
ON CONFLICT DO NOTHING RETURNING {COLUMNS}
"""


async def add(
    tx: Tx, tenant: TenantId, agent: AgentId, name: str, *, key: bytes, by: Actor, fleet: UUID | None = None
) -> Agent:
    """Store an agent that is configured by hand; its MQTT password derives from the server's `key`.

    Raises `Conflict` if any tenant has an agent with this uuid, or if the tenant's quota is reached.
    """
    await quotas.check_agents(tx, tenant)
    row = await fetch_row(tx, Agent, ADD, {"tenant": tenant, "agent": agent, "name": name, "fleet": fleet})
    if row is None:
        raise Conflict(f"An agent {agent} already exists; `iotistica agents show` prints how it connects.")
    await broker_accounts.add_agent(tx, tenant, agent, key=key, enabled=True)
    await audit.record(tx, tenant, by, "agent.added", ("agent", agent), after=row.facts())
    return row


UPDATE: Final = f"""
UPDATE agents a SET name = %(name)s, fleet_uuid = %(fleet)s, active = %(active)s
WHERE a.tenant_id = %(tenant)s AND agent_uuid = %(agent)s RETURNING {COLUMNS}
"""


async def update(
    tx: Tx, tenant: TenantId, old: Agent, *, name: str, fleet: UUID | None, active: bool, by: Actor
) -> Agent:
    """Change the name or fleet of an agent, or activate or deactivate it; raises `NotFound`."""
    parameters = {"tenant": tenant, "agent": old.agent_uuid, "name": name, "fleet": fleet, "active": active}
    row = await fetch_row(tx, Agent, UPDATE, parameters)
    if row is None:
        raise NotFound
    await audit.record(
        tx, tenant, by, "agent.changed", ("agent", old.agent_uuid), before=old.facts(), after=row.facts()
    )
    return row


GET: Final = f"SELECT {COLUMNS} FROM agents a WHERE a.tenant_id = %(tenant)s AND agent_uuid = %(agent)s"


async def get(tx: Tx, tenant: TenantId, agent: UUID) -> Agent | None:
    """Return one agent of a tenant; None if the tenant has no such agent."""
    return await fetch_row(tx, Agent, GET, {"tenant": tenant, "agent": agent})


GET_FOR_UPDATE: Final = f"{GET} FOR NO KEY UPDATE"


async def get_for_update(tx: Tx, tenant: TenantId, agent: UUID) -> Agent:
    """Return one agent, locked until the commit; raises `NotFound`."""
    row = await fetch_row(tx, Agent, GET_FOR_UPDATE, {"tenant": tenant, "agent": agent})
    if row is None:
        raise NotFound
    return row


MOVE_TO_FLEET: Final = f"""
UPDATE agents a SET fleet_uuid = %(fleet)s WHERE a.tenant_id = %(tenant)s AND agent_uuid = ANY(%(agents)s)
  AND (%(only)s::uuid IS NULL OR fleet_uuid = %(only)s) RETURNING {COLUMNS}
"""


async def move_to_fleet(
    tx: Tx, tenant: TenantId, agents: Sequence[UUID], fleet: UUID | None, *, only: UUID | None = None, by: Actor
) -> set[UUID]:
    """Move agents to a fleet, or to none (`fleet` None); return the uuids of the agents that were moved.

    With `only`, agents of other fleets are left where they are.
    """
    parameters = {"tenant": tenant, "agents": sorted(agents), "fleet": fleet, "only": only}
    moved = await fetch_rows(tx, Agent, MOVE_TO_FLEET, parameters)
    after = {"fleet": fleet, "agents": [agent.agent_uuid for agent in moved[:1000]], "count": len(moved)}
    await audit.record(tx, tenant, by, "agents.moved", ("fleet", fleet or only), after=after)
    return {agent.agent_uuid for agent in moved}


TENANTS_OF: Final = """
SELECT a.agent_uuid, a.tenant_id FROM agents a JOIN tenants USING (tenant_id)
WHERE a.agent_uuid = ANY(%(agents)s) AND enabled
"""


async def tenants_of(tx: Tx, agents: Sequence[UUID]) -> dict[UUID, TenantId]:
    """Return the tenant of each of these agents; agents that are unknown or of a disabled tenant are left out."""
    cursor = await tx.execute(TENANTS_OF, {"agents": list(agents)})
    return {agent: TenantId(tenant) for agent, tenant in await cursor.fetchall()}
