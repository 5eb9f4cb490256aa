"""Which sources hold a tenant's readings, and for which times; every query of readings reads this first."""

import itertools
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.domain.telemetry.rollup_sources import LONG_AGO, Coverage
from iotistica.storage.postgres import Tx, fetch_row
from iotistica.storage.telemetry.partitions import Table

_COLUMNS: Final = "p.rolled_until, p.raw_since, p.minutes_since, p.hours_since"


class TenantCoverage(Coverage, frozen=True, kw_only=True):
    """How far each source reaches, and how many days of readings the tenant can see; None means all days."""

    retention_days: int | None

    def shown_since(self, now: datetime) -> datetime:
        """Return the time before which a tenant's readings are hidden."""
        return now - timedelta(days=self.retention_days) if self.retention_days else LONG_AGO


HOUR: Final = timedelta(hours=1)
# Gaps in the rollups that one query reads around. With more of them, late readings of the older gaps show only once
# they are rolled up.
GAPS_LIMIT: Final = 8

OF_AGENT: Final = f"""
SELECT {_COLUMNS}, t.retention_days, ARRAY(
    SELECT m.hour FROM rollup_marks m
    WHERE m.agent_uuid = a.agent_uuid AND m.hour >= %(start)s AND m.hour < %(end)s
    GROUP BY 1 ORDER BY 1) AS late_hours
FROM rollup_progress p, agents a JOIN tenants t USING (tenant_id)
WHERE a.tenant_id = %(tenant)s AND a.agent_uuid = %(agent)s
"""


async def of_agent(tx: Tx, tenant: TenantId, agent: UUID, start: datetime, end: datetime) -> TenantCoverage | None:
    """Return the coverage of one agent's readings in a range, or None if the tenant does not have this agent."""
    parameters = {"tenant": tenant, "agent": agent, "start": start - HOUR, "end": end}
    row = await fetch_row(tx, TenantCoverage, OF_AGENT, parameters)
    return None if row is None else msgspec.structs.replace(row, late_hours=_of_newest_gaps(row.late_hours))


OF_AGENTS: Final = f"""
SELECT {_COLUMNS}, t.retention_days, ARRAY(
    SELECT m.hour FROM rollup_marks m JOIN agents a USING (agent_uuid)
    WHERE a.tenant_id = %(tenant)s AND (%(agents)s::uuid[] IS NULL OR m.agent_uuid = ANY(%(agents)s::uuid[]))
      AND m.hour >= %(start)s AND m.hour < %(end)s GROUP BY 1 ORDER BY 1) AS late_hours
FROM rollup_progress p, tenants t WHERE t.tenant_id = %(tenant)s
"""


async def of_agents(
    tx: Tx, tenant: TenantId, agents: Sequence[UUID] | None, start: datetime, end: datetime
) -> TenantCoverage:
    """Return the coverage of readings of these agents in a range; `agents` None means all agents of the tenant."""
    parameters = {"tenant": tenant, "start": start - HOUR, "end": end}
    row = await fetch_row(
        tx, TenantCoverage, OF_AGENTS, parameters | {"agents": agents if agents is None else list(agents)}
    )
    assert row is not None  # noqa: S101 the caller belongs to this tenant, so it exists
    return msgspec.structs.replace(row, late_hours=_of_newest_gaps(row.late_hours))


def _of_newest_gaps(hours: Sequence[datetime]) -> tuple[datetime, ...]:
    """Return the late hours of the newest `GAPS_LIMIT` gaps; adjacent hours are one gap."""
    starts = [at for at, (before, after) in enumerate(itertools.pairwise(hours), 1) if after - before > HOUR]
    return tuple(hours[starts[-GAPS_LIMIT] :] if len(starts) >= GAPS_LIMIT else hours)


_SINCE: Final[dict[Table, str]] = {
    "readings": "UPDATE rollup_progress SET raw_since = %(since)s WHERE raw_since < %(since)s",
    "readings_1m": "UPDATE rollup_progress SET minutes_since = %(since)s WHERE minutes_since < %(since)s",
    "readings_1h": "UPDATE rollup_progress SET hours_since = %(since)s WHERE hours_since < %(since)s",
}


async def set_dropped_before(tx: Tx, table: Table, since: datetime) -> None:
    """Record that this table no longer holds anything older than `since`, so that queries skip it."""
    await tx.execute(_SINCE[table], {"since": since})
