"""Series: the properties shared by all readings of one metric of one device."""

from collections.abc import Collection, Sequence
from typing import Final
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.storage.postgres import Tx, fetch_rows


class Series(msgspec.Struct, frozen=True, kw_only=True):
    agent_uuid: UUID
    metric_name: str
    tenant_id: TenantId
    metric: str
    device_name: str | None
    device_uuid: UUID | None
    endpoint_uuid: UUID | None
    unit: str | None
    protocol: str


ADD: Final = """
INSERT INTO series (agent_uuid, metric_name, tenant_id, metric, device_name, device_uuid, endpoint_uuid, unit,
                    protocol)
SELECT * FROM unnest(%(agents)s::uuid[], %(names)s::text[], %(tenants)s::text[], %(metrics)s::text[],
    %(devices)s::text[], %(device_uuids)s::uuid[], %(endpoints)s::uuid[], %(units)s::text[], %(protocols)s::text[])
ON CONFLICT DO NOTHING
"""
UPDATE: Final = """
UPDATE series s SET unit = n.unit, protocol = n.protocol
FROM unnest(%(agents)s::uuid[], %(names)s::text[], %(units)s::text[], %(protocols)s::text[])
     AS n (agent_uuid, metric_name, unit, protocol)
WHERE s.agent_uuid = n.agent_uuid AND s.metric_name = n.metric_name
  AND (s.unit IS DISTINCT FROM n.unit OR s.protocol IS DISTINCT FROM n.protocol)
"""
GET: Final = """
SELECT s.* FROM series s JOIN unnest(%(agents)s::uuid[], %(names)s::text[]) AS n (agent_uuid, metric_name)
    USING (agent_uuid, metric_name)
"""


async def get(tx: Tx, keys: Collection[tuple[UUID, str]]) -> list[Series]:
    """Return those of the given series that are stored."""
    return await fetch_rows(tx, Series, GET, {"agents": [k[0] for k in keys], "names": [k[1] for k in keys]})


async def add(tx: Tx, series: Sequence[Series]) -> None:
    """Insert series, skipping those that exist, in the order of their keys so that two workers never deadlock."""
    rows = sorted(series, key=lambda s: (s.agent_uuid.bytes, s.metric_name.encode()))
    await tx.execute(
        ADD,
        {
            "agents": [s.agent_uuid for s in rows],
            "names": [s.metric_name for s in rows],
            "tenants": [s.tenant_id for s in rows],
            "metrics": [s.metric for s in rows],
            "devices": [s.device_name for s in rows],
            "device_uuids": [s.device_uuid for s in rows],
            "endpoints": [s.endpoint_uuid for s in rows],
            "units": [s.unit for s in rows],
            "protocols": [s.protocol for s in rows],
        },
    )


async def update(tx: Tx, series: Sequence[Series]) -> int:
    """Update the unit and protocol of series; return how many changed."""
    rows = sorted(series, key=lambda s: (s.agent_uuid.bytes, s.metric_name.encode()))
    cursor = await tx.execute(
        UPDATE,
        {
            "agents": [s.agent_uuid for s in rows],
            "names": [s.metric_name for s in rows],
            "units": [s.unit for s in rows],
            "protocols": [s.protocol for s in rows],
        },
    )
    return cursor.rowcount
