"""Finds the agents and series that rules watch, and reads what was stored of them since."""

from collections.abc import AsyncIterator, Collection, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from iotistica.domain.alerts.scopes import AgentFacts
from iotistica.domain.ids import TenantId
from iotistica.storage.postgres import Tx, fetch_rows

SERIES_PER_READ: Final = 1000  # series that one statement lists


class WatchedAgent(AgentFacts, frozen=True, kw_only=True):
    tenant_id: TenantId


AGENTS: Final = """
SELECT a.agent_uuid, a.tenant_id, a.name, a.fleet_uuid,
       coalesce((SELECT jsonb_object_agg(key, value) FROM agent_tags t
                 WHERE t.tenant_id = a.tenant_id AND t.agent_uuid = a.agent_uuid), '{}') AS tags
FROM agents a WHERE a.tenant_id = ANY(%(tenants)s) AND a.state IN ('registered', 'active')
  AND (%(agents)s::uuid[] IS NULL OR a.agent_uuid = ANY(%(agents)s))
ORDER BY a.agent_uuid
"""


async def agents(tx: Tx, tenants: Collection[TenantId], ids: Sequence[UUID] | None) -> list[WatchedAgent]:
    """Return the agents of these tenants that are neither revoked nor retired: all, or those with these ids."""
    parameters = {"tenants": list(tenants), "agents": None if ids is None else list(ids)}
    return await fetch_rows(tx, WatchedAgent, AGENTS, parameters)


AGENTS_REVISION: Final = """
SELECT md5(concat(
    (SELECT string_agg(concat(agent_uuid, fleet_uuid, state), '' ORDER BY agent_uuid) FROM agents
     WHERE tenant_id = ANY(%(tenants)s)),
    (SELECT string_agg(concat(agent_uuid, key, '=', value), '' ORDER BY agent_uuid, key) FROM agent_tags
     WHERE tenant_id = ANY(%(tenants)s))))
"""


async def agents_revision(tx: Tx, tenants: Collection[TenantId]) -> str:
    """Return a text that differs after every change of what scopes ask of the agents of these tenants."""
    row = await (await tx.execute(AGENTS_REVISION, {"tenants": list(tenants)})).fetchone()
    return str(row[0]) if row else ""


class SeriesRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    agent_uuid: UUID
    metric_name: str
    metric: str
    device_name: str | None


SERIES: Final = """
SELECT agent_uuid, metric_name, metric, device_name FROM series
WHERE tenant_id = ANY(%(tenants)s)
  AND (%(agent)s::uuid IS NULL OR (agent_uuid, metric_name) > (%(agent)s, %(name)s))
ORDER BY agent_uuid, metric_name LIMIT %(limit)s
"""


async def series(tx: Tx, tenants: Collection[TenantId]) -> AsyncIterator[list[SeriesRow]]:
    """Yield all series of these tenants, `SERIES_PER_READ` at a time."""
    agent: UUID | None = None
    name = ""
    while True:
        parameters = {"tenants": list(tenants), "agent": agent, "name": name, "limit": SERIES_PER_READ}
        rows = await fetch_rows(tx, SeriesRow, SERIES, parameters)
        yield rows
        if len(rows) < SERIES_PER_READ:
            return
        agent, name = rows[-1].agent_uuid, rows[-1].metric_name


NEW_SERIES: Final = """
SELECT agent_uuid, metric_name, metric, device_name FROM series
WHERE first_seen >= %(since)s AND tenant_id = ANY(%(tenants)s) LIMIT 100000
"""


async def new_series(tx: Tx, tenants: Collection[TenantId], since: datetime) -> list[SeriesRow]:
    """Return the series of these tenants that were first seen since a moment."""
    return await fetch_rows(tx, SeriesRow, NEW_SERIES, {"tenants": list(tenants), "since": since})
