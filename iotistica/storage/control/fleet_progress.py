"""The progress of a fleet's agents towards their target state, judged by version numbers."""

from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

import msgspec

from iotistica.domain.ids import AgentId, TenantId
from iotistica.storage.postgres import Tx, fetch_rows

Stage = Literal["locked_out", "silent", "polling_off", "polling_stopped", "not_fetched", "not_reported", "reported"]
"""Named like the verdicts of an explanation, which also compares contents; `reported`: the version is reported."""
STAGES: Final[tuple[Stage, ...]] = (
    *("reported", "not_reported", "not_fetched", "polling_stopped", "polling_off", "silent", "locked_out"),
)

# One counter numbers the versions of an agent's effective target (its own and its fleet's); the agent reports it.
STAGED: Final = """
SELECT a.agent_uuid, a.name, s.counter AS version, p.fetched, p.polled_at, r.reported_at,
       CASE WHEN a.state NOT IN ('registered', 'active') THEN 'locked_out'
            WHEN coalesce(h.status, 'offline') = 'offline' AND (p.polled_at >= now() - %(quiet)s) IS NOT TRUE
                THEN 'silent'
            WHEN p.polled_at IS NULL THEN 'polling_off'
            WHEN p.polled_at < now() - %(quiet)s THEN 'polling_stopped'
            WHEN p.fetched IS NULL OR p.fetched < s.counter THEN 'not_fetched'
            WHEN jsonb_typeof(r.state -> 'version') = 'number' AND (r.state -> 'version')::numeric >= s.counter
                THEN 'reported'
            ELSE 'not_reported' END AS stage
FROM agents a JOIN agent_sync s USING (agent_uuid) LEFT JOIN agent_polls p USING (agent_uuid)
LEFT JOIN agent_states r USING (agent_uuid) LEFT JOIN agent_presence h USING (agent_uuid)
WHERE a.tenant_id = %(tenant)s AND a.fleet_uuid = %(fleet)s
"""
COUNTS: Final = f"SELECT stage, count(*) AS agents FROM ({STAGED}) staged GROUP BY stage"


class StageCount(msgspec.Struct, frozen=True, kw_only=True):
    stage: Stage
    agents: int


async def counts(tx: Tx, tenant: TenantId, fleet: UUID, *, quiet: timedelta) -> dict[Stage, int]:
    """Return the number of agents by stage; an agent without a poll for `quiet` has stopped polling."""
    rows = await fetch_rows(tx, StageCount, COUNTS, {"tenant": tenant, "fleet": fleet, "quiet": quiet})
    by_stage = {row.stage: row.agents for row in rows}
    return {stage: by_stage.get(stage, 0) for stage in STAGES}


class AgentProgress(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of one agent: the version of its target, and the version that it fetched last."""

    agent_uuid: AgentId
    name: str
    stage: Stage
    version: int
    fetched: int | None
    polled_at: datetime | None
    reported_at: datetime | None


PAGE: Final = f"""
SELECT * FROM ({STAGED}) staged
WHERE stage = ANY(%(stages)s) AND (%(after)s::uuid IS NULL OR agent_uuid > %(after)s)
ORDER BY agent_uuid LIMIT %(limit)s
"""


async def page(
    tx: Tx,
    tenant: TenantId,
    fleet: UUID,
    *,
    stages: tuple[Stage, ...],
    quiet: timedelta,
    after: UUID | None,
    limit: int,
) -> list[AgentProgress]:
    """Return a page of the agents in these stages, ordered by id."""
    parameters = {"tenant": tenant, "fleet": fleet, "quiet": quiet, "stages": list(stages)}
    return await fetch_rows(tx, AgentProgress, PAGE, parameters | {"after": after, "limit": limit})
