"""Single readings of a series over time."""

from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
from psycopg.rows import dict_row

from iotistica.domain.ids import TenantId
from iotistica.storage.postgres import Tx


class StoredReading(msgspec.Struct, frozen=True, kw_only=True):
    """A reading as the API shows it."""

    time: datetime
    metric_name: str
    value: float | None
    quality: str | None
    unit: str | None
    protocol: str
    extra: dict[str, Any]
    anomaly_score: float | None = None
    anomaly_threshold: float | None = None


SERIES_EXTRA: Final = """
jsonb_strip_nulls(jsonb_build_object('device_name', s.device_name, 'device_uuid', s.device_uuid,
    'endpoint_uuid', s.endpoint_uuid, 'metric', s.metric)) || coalesce(r.extra, '{}') AS extra
"""

SLICE_ROWS: Final = 500  # readings that are fetched at a time
PAGE_BYTES: Final = 4 << 20  # bytes of `extra` after which no further slice is: one may hold as much

RAW: Final = (
    "SELECT r.time, r.metric_name, r.value, r.quality, r.unit, r.protocol, r.anomaly_score, r.anomaly_threshold,"
    + SERIES_EXTRA
    + """, octet_length(r.extra::text) AS bytes
FROM agents a JOIN readings r USING (agent_uuid)
LEFT JOIN series s ON s.agent_uuid = r.agent_uuid AND s.metric_name = r.metric_name
WHERE a.tenant_id = %(tenant)s AND a.agent_uuid = %(agent)s AND r.metric_name = %(metric)s
  AND r.time >= %(start)s AND r.time < %(end)s
ORDER BY r.time LIMIT %(limit)s
"""
)


class ReadingsPage(NamedTuple):
    """Readings, and from when on there may be more."""

    values: list[StoredReading]
    next: datetime | None


async def raw_readings(
    tx: Tx, tenant: TenantId, agent: UUID, metric: str, *, start: datetime, end: datetime, limit: int
) -> ReadingsPage:
    """At most `limit` readings of one series in [start, end), fewer where they are large, the oldest first."""
    asked = {"tenant": tenant, "agent": agent, "metric": metric, "end": end}
    values: list[StoredReading] = []
    size = 0
    async with tx.cursor(row_factory=dict_row) as cursor:
        while len(values) <= limit and size <= PAGE_BYTES:
            most = min(limit + 1 - len(values), SLICE_ROWS)
            await cursor.execute(RAW, asked | {"start": start, "limit": most}, prepare=False)
            rows = await cursor.fetchall()
            values += msgspec.convert(rows, list[StoredReading], strict=False)
            if len(rows) < most:
                return ReadingsPage(values, None)
            start = rows[-1]["time"] + timedelta(microseconds=1)
            size += sum(row["bytes"] or 0 for row in rows)
    return ReadingsPage(values[:limit], values[limit].time if len(values) > limit else start)


POINTS: Final = """
SELECT r.time, r.value FROM agents a JOIN readings r USING (agent_uuid)
WHERE a.tenant_id = %(tenant)s AND a.agent_uuid = %(agent)s AND r.metric_name = %(metric)s
  AND r.time >= %(start)s AND r.time < %(end)s AND r.value IS NOT NULL AND r.quality IN ('good', 'uncertain')
ORDER BY r.time LIMIT %(limit)s
"""


async def usable_points(
    tx: Tx, tenant: TenantId, agent: UUID, metric: str, *, start: datetime, end: datetime, limit: int
) -> list[tuple[datetime, float]]:
    """The usable values of one series in [start, end), the oldest first."""
    parameters = {"tenant": tenant, "agent": agent, "metric": metric, "start": start, "end": end, "limit": limit}
    return await (await tx.execute(POINTS, parameters, prepare=False)).fetchall()
