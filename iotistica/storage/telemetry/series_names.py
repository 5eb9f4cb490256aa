"""The names of series as people write them: the whole name, or the metric alone."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.storage.postgres import Tx, fetch_rows

KNOWN_LIMIT: Final = 1000  # names that a mistyped one is compared with


class NamedSeries(msgspec.Struct, frozen=True, kw_only=True):
    """The name of a series, and the metric in it."""

    metric_name: str
    metric: str


MATCHING: Final = """
SELECT s.metric_name, s.metric FROM agents a JOIN series s USING (agent_uuid)
WHERE a.tenant_id = %(tenant)s AND a.agent_uuid = %(agent)s
  AND (s.metric_name = ANY(%(names)s::text[]) OR s.metric = ANY(%(names)s::text[]))
ORDER BY s.metric_name = ANY(%(names)s::text[]) DESC, s.metric_name LIMIT %(limit)s
"""


async def matching(tx: Tx, tenant: TenantId, agent: UUID, names: Sequence[str], *, limit: int) -> list[NamedSeries]:
    """Return the series of an agent whose whole name or metric is one of these, those with the whole name first."""
    parameters = {"tenant": tenant, "agent": agent, "names": list(names), "limit": limit}
    return await fetch_rows(tx, NamedSeries, MATCHING, parameters)


KNOWN: Final = """
SELECT DISTINCT s.metric_name, s.metric FROM agents a JOIN series s USING (agent_uuid)
WHERE a.tenant_id = %(tenant)s AND (%(agents)s::uuid[] IS NULL OR a.agent_uuid = ANY(%(agents)s::uuid[]))
ORDER BY s.metric_name LIMIT %(limit)s
"""


async def known(tx: Tx, tenant: TenantId, agents: Sequence[UUID] | None) -> list[NamedSeries]:
    """Return names of the series of these agents, or of all (None), at most `KNOWN_LIMIT`."""
    parameters = {"tenant": tenant, "agents": agents if agents is None else list(agents), "limit": KNOWN_LIMIT}
    return await fetch_rows(tx, NamedSeries, KNOWN, parameters)
