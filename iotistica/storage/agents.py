"""Agents and the broker accounts that come with them."""

import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from iotistica.domain.accounts import SALT_BYTES, mqtt_password, password_line
from iotistica.domain.ids import AgentId, TenantId, agent_user
from iotistica.errors import Conflict
from iotistica.storage.postgres import Tx, row_as, rows_as


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    agent_uuid: AgentId
    tenant_id: TenantId
    name: str
    created_at: datetime
    last_seen: datetime | None = None


ADD: Final = """
INSERT INTO agents (agent_uuid, tenant_id, name) VALUES (%(agent)s, %(tenant)s, %(name)s)
ON CONFLICT DO NOTHING RETURNING agent_uuid, tenant_id, name, created_at
"""
ADD_ACCOUNT: Final = """
INSERT INTO broker_accounts (username, tenant_id, agent_uuid, line)
VALUES (%(username)s, %(tenant)s, %(agent)s, %(line)s)
"""


async def add(tx: Tx, tenant: TenantId, agent: AgentId, name: str, *, key: bytes) -> Agent:
    """Make an agent with its broker account; raises `Conflict` if the uuid is taken, by any tenant."""
    row = await row_as(tx, Agent, ADD, {"tenant": tenant, "agent": agent, "name": name})
    if row is None:
        raise Conflict(f"there is an agent {agent} already; `iotistica agents show` prints how it connects")
    username = agent_user(tenant, agent)
    line = password_line(username, mqtt_password(key, agent, 1), secrets.token_bytes(SALT_BYTES))
    await tx.execute(ADD_ACCOUNT, {"username": username, "tenant": tenant, "agent": agent, "line": line})
    return row


# Seen: the newest row of its ledger, which is folded into the totals after a minute.
_SEEN: Final = """
LEFT JOIN (
    SELECT agent_uuid, max(at) AS last_seen FROM (
        SELECT agent_uuid, at FROM readings_ledger WHERE tenant_id = %(tenant)s
        UNION ALL
        SELECT agent_uuid, last_at FROM readings_ledger_totals WHERE tenant_id = %(tenant)s
    ) ledger GROUP BY agent_uuid
) seen USING (agent_uuid)
"""
PAGE: Final = (
    "SELECT agent_uuid, a.tenant_id, a.name, a.created_at, seen.last_seen FROM agents a"
    + _SEEN
    + """WHERE a.tenant_id = %(tenant)s AND (%(after)s::uuid IS NULL OR agent_uuid > %(after)s)
ORDER BY agent_uuid LIMIT %(limit)s"""
)


async def page(tx: Tx, tenant: TenantId, *, after: UUID | None, limit: int) -> list[Agent]:
    """A tenant's agents in order of their ids, `limit` after the given one."""
    return await rows_as(tx, Agent, PAGE, {"tenant": tenant, "after": after, "limit": limit})


GET: Final = (
    "SELECT agent_uuid, a.tenant_id, a.name, a.created_at, seen.last_seen FROM agents a"
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


LINES: Final = """
SELECT line FROM broker_accounts b LEFT JOIN tenants t USING (tenant_id)
WHERE b.enabled AND t.enabled IS NOT FALSE ORDER BY username
"""


async def broker_lines(tx: Tx) -> list[str]:
    """The password lines of every account that may connect."""
    cursor = await tx.execute(LINES)
    return [line for (line,) in await cursor.fetchall()]
