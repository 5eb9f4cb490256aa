"""What is kept of a tenant's readings, and where: asked before every query of them."""

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
    """How far the sources reach, and how many days of them the tenant is shown; None is all."""

    retention_days: int | None

    def shown_since(self, now: datetime) -> datetime:
        """The age at which a tenant's readings are no longer shown."""
        return now - timedelta(days=self.retention_days) if self.retention_days else LONG_AGO


HOUR: Final = timedelta(hours=1)
GAPS_LIMIT: Final = (
    8  # in the rollups that one query goes round; with more, late readings show once they are rolled up
)

OF_AGENT: Final = f"""
SELECT {_COLUMNS}, t.retention_days, ARRAY(
    SELECT m.hour FROM rollup_marks m
    WHERE m.agent_uuid = a.agent_uuid AND m.hour >= %(start)s AND m.hour < %(end)s
    GROUP BY 1 ORDER BY 1) AS late_hours
FROM rollup_progress p, agents a JOIN tenants t USING (tenant_id)
WHERE a.tenant_id = %(tenant)s AND a.agent_uuid = %(agent)s
"""


async def of_agent(tx: Tx, tenant: TenantId, agent: UUID, start: datetime, end: datetime) -> TenantCoverage | None:
    """For readings of one agent in a range, None if the tenant has none of that id."""
    asked = {"tenant": tenant, "agent": agent, "start": start - HOUR, "end": end}
    row = await fetch_row(tx, TenantCoverage, OF_AGENT, asked)
    return None if row is None else msgspec.structs.replace(row, late_hours=_unless_too_many_gaps(row.late_hours))


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
    """For readings of these agents in a range, or of all."""
    asked = {"tenant": tenant, "start": start - HOUR, "end": end}
    row = await fetch_row(
        tx, TenantCoverage, OF_AGENTS, asked | {"agents": agents if agents is None else list(agents)}
    )
    assert row is not None  # noqa: S101 who asks is of this tenant
    return msgspec.structs.replace(row, late_hours=_unless_too_many_gaps(row.late_hours))


def _unless_too_many_gaps(hours: Sequence[datetime]) -> tuple[datetime, ...]:
    """Hours side by side are one gap in the rollups; too many are not gone round."""
    gaps = sum(after - before > HOUR for before, after in itertools.pairwise(hours))
    return tuple(hours) if gaps < GAPS_LIMIT else ()


_SINCE: Final[dict[Table, str]] = {
    "readings": "UPDATE rollup_progress SET raw_since = %(since)s WHERE raw_since < %(since)s",
    "readings_1m": "UPDATE rollup_progress SET minutes_since = %(since)s WHERE minutes_since < %(since)s",
    "readings_1h": "UPDATE rollup_progress SET hours_since = %(since)s WHERE hours_since < %(since)s",
}


async def set_dropped_before(tx: Tx, table: Table, since: datetime) -> None:
    """Say that from now on nothing before then is to be asked of this table."""
    await tx.execute(_SINCE[table], {"since": since})
