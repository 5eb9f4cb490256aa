"""Queries for raw readings of one series over time."""

from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
from psycopg.rows import dict_row

from iotistica.domain.ids import TenantId
from iotistica.storage.postgres import Tx


class StoredReading(msgspec.Struct, frozen=True, kw_only=True):
    """A reading as the API returns it."""

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

SLICE_ROWS: Final = 500  # readings fetched by one statement
PAGE_BYTES: Final = 4 << 20  # bytes of `extra` after which no further slice is fetched; one slice can hold as much

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
    """Readings in order, and the time from which there can be more; None at the end of the range."""

    values: list[StoredReading]
    next: datetime | None


async def raw_readings(
    tx: Tx, tenant: TenantId, agent: UUID, metric: str, *, start: datetime, end: datetime, limit: int
) -> ReadingsPage:
    """Return up to `limit` readings of one series in [start, end), the oldest first; fewer if they are large."""
    parameters = {"tenant": tenant, "agent": agent, "metric": metric, "end": end}
    values: list[StoredReading] = []
    size = 0
    async with tx.cursor(row_factory=dict_row) as cursor:
        while len(values) <= limit and size <= PAGE_BYTES:
            slice_limit = min(limit + 1 - len(values), SLICE_ROWS)
            await cursor.execute(RAW, parameters | {"start": start, "limit": slice_limit}, prepare=False)
            rows = await cursor.fetchall()
            values += msgspec.convert(rows, list[StoredReading], strict=False)
            if len(rows) < slice_limit:
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
    """Return up to `limit` good and uncertain values of one series in [start, end), the oldest first."""
    parameters = {"tenant": tenant, "agent": agent, "metric": metric, "start": start, "end": end, "limit": limit}
    return await (await tx.execute(POINTS, parameters, prepare=False)).fetchall()
