"""The states that agents report: one row per agent, read and written for many agents at a time."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from iotistica.domain.agents.reported_state import VOLATILE_KEYS, ReportedState
from iotistica.domain.control import explanation
from iotistica.domain.ids import TenantId
from iotistica.storage.jsonb import jsonb
from iotistica.storage.postgres import Tx, fetch_row, fetch_rows

FAULTS_LIMIT: Final = 10_000  # faults of one agent that are counted


class StateRow(msgspec.Struct, frozen=True, kw_only=True):
    agent_uuid: UUID
    state: dict[str, Any]
    lively: dict[str, Any]
    stamps: dict[str, int]
    reported_at: datetime | None

    @property
    def merged(self) -> ReportedState:
        return ReportedState(values=self.state | self.lively, stamps=self.stamps)


LOAD: Final = """
SELECT agent_uuid, state, lively, stamps, reported_at FROM agent_states
WHERE tenant_id = %(tenant)s AND agent_uuid = ANY(%(agents)s) ORDER BY agent_uuid FOR UPDATE
"""


async def load_for_update(tx: Tx, tenant: TenantId, agents: Collection[UUID]) -> dict[UUID, StateRow]:
    """Return the stored states of these agents, with encrypted secrets, locked until the commit."""
    rows = await fetch_rows(tx, StateRow, LOAD, {"tenant": tenant, "agents": list(agents)})
    return {row.agent_uuid: row for row in rows}


ADD: Final = """
INSERT INTO agent_states (tenant_id, agent_uuid, state, lively, stamps, reported_at, faults)
SELECT %(tenant)s, agent_uuid, state, lively, stamps, reported_at, faults
FROM unnest(%(agents)s::uuid[], %(states)s::jsonb[], %(livelies)s::jsonb[], %(stamps)s::jsonb[],
            %(reported)s::timestamptz[], %(faults)s::smallint[])
     AS n (agent_uuid, state, lively, stamps, reported_at, faults)
"""
UPDATE: Final = """
UPDATE agent_states s
SET state = coalesce(n.state, s.state), lively = n.lively, stamps = n.stamps,
    reported_at = greatest(s.reported_at, n.reported_at), stored_at = now(), faults = n.faults
FROM unnest(%(agents)s::uuid[], %(states)s::jsonb[], %(livelies)s::jsonb[], %(stamps)s::jsonb[],
            %(reported)s::timestamptz[], %(faults)s::smallint[])
     AS n (agent_uuid, state, lively, stamps, reported_at, faults)
WHERE s.tenant_id = %(tenant)s AND s.agent_uuid = n.agent_uuid
"""
VERSIONS: Final = """
UPDATE agents a SET agent_version = coalesce(left(n.agent_version, 100), a.agent_version),
                    os_version = coalesce(left(n.os_version, 200), a.os_version)
FROM unnest(%(agents)s::uuid[], %(agent_versions)s::text[], %(os_versions)s::text[])
     AS n (agent_uuid, agent_version, os_version)
WHERE a.tenant_id = %(tenant)s AND a.agent_uuid = n.agent_uuid
  AND (a.agent_version, a.os_version) IS DISTINCT FROM (n.agent_version, n.os_version)
"""


async def save(tx: Tx, tenant: TenantId, new: Mapping[UUID, ReportedState], old: Mapping[UUID, StateRow]) -> None:
    """Store the states of these agents, with encrypted secrets; `old` holds the rows as they were loaded."""
    for statement, agents in (
        (ADD, [agent for agent in new if agent not in old]),
        (UPDATE, [agent for agent in new if agent in old]),
    ):
        if agents:
            await tx.execute(statement, {"tenant": tenant} | _columns(agents, new, old))
    with_versions = [agent for agent, state in new.items() if {"agent_version", "os_version"} & state.stamps.keys()]
    if with_versions:
        columns = {name: [_text(new[agent].values.get(name)) for agent in with_versions] for name in _VERSIONS}
        parameters = {"agent_versions": columns["agent_version"], "os_versions": columns["os_version"]}
        await tx.execute(VERSIONS, {"tenant": tenant, "agents": with_versions} | parameters)


_VERSIONS: Final = ("agent_version", "os_version")


def _columns(
    agents: list[UUID], new: Mapping[UUID, ReportedState], old: Mapping[UUID, StateRow]
) -> dict[str, list[Any]]:
    """Return one list per column; an unchanged `state` is None, which the UPDATE leaves as it is."""
    columns: dict[str, list[Any]] = {
        name: [] for name in ("agents", "states", "livelies", "stamps", "reported", "faults")
    }
    for agent in agents:
        values, stamps = new[agent].values, new[agent].stamps
        state = {key: value for key, value in values.items() if key not in VOLATILE_KEYS}
        before = old[agent].state if agent in old else None
        newest = max(stamps.values(), default=0)
        columns["agents"].append(agent)
        columns["states"].append(None if state == before else jsonb(state))
        columns["livelies"].append(jsonb({key: value for key, value in values.items() if key in VOLATILE_KEYS}))
        columns["stamps"].append(jsonb(stamps))
        columns["faults"].append(len(explanation.faults(values)[:FAULTS_LIMIT]))
        columns["reported"].append(datetime.fromtimestamp(newest / 1e6, UTC) if newest else None)
    return columns


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


GET: Final = """
SELECT agent_uuid, state, lively, stamps, reported_at FROM agent_states
WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s
"""


async def get(tx: Tx, tenant: TenantId, agent: UUID) -> StateRow | None:
    """Return the reported state of an agent, with encrypted secrets; None before its first report."""
    return await fetch_row(tx, StateRow, GET, {"tenant": tenant, "agent": agent})
