"""Readings read back: a series over time, the latest values, a summary."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.storage.postgres import Tx, row_as, rows_as


class Value(msgspec.Struct, frozen=True, kw_only=True):
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


_SERIES_EXTRA: Final = """
jsonb_strip_nulls(jsonb_build_object('device_name', s.device_name, 'device_uuid', s.device_uuid,
    'endpoint_uuid', s.endpoint_uuid, 'metric', s.metric)) || coalesce(r.extra, '{}') AS extra
"""

RAW: Final = (
    "SELECT r.time, r.metric_name, r.value, r.quality, r.unit, r.protocol, r.anomaly_score, r.anomaly_threshold,"
    + _SERIES_EXTRA
    + """
FROM agents a JOIN readings r USING (agent_uuid)
LEFT JOIN series s ON s.agent_uuid = r.agent_uuid AND s.metric_name = r.metric_name
WHERE a.tenant_id = %(tenant)s AND a.agent_uuid = %(agent)s AND r.metric_name = %(metric)s
  AND r.time >= %(start)s AND r.time < %(end)s
ORDER BY r.time LIMIT %(limit)s
"""
)

# Time bounds must be known when the statement is planned, or every partition is opened and locked.
CONSTANT_PLAN: Final = "SET LOCAL plan_cache_mode = force_custom_plan"


async def raw(
    tx: Tx, tenant: TenantId, agent: UUID, metric: str, *, start: datetime, end: datetime, limit: int
) -> list[Value]:
    """Readings of one series in [start, end), the oldest first."""
    await tx.execute(CONSTANT_PLAN)
    return await rows_as(
        tx,
        Value,
        RAW,
        {"tenant": tenant, "agent": agent, "metric": metric, "start": start, "end": end, "limit": limit},
    )


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    time: datetime
    value: float | None
    count: int


# Only good and uncertain values enter an aggregate; `count` counts every reading.
_USABLE: Final = "FILTER (WHERE r.value IS NOT NULL AND r.quality IN ('good', 'uncertain'))"
# Beyond this a sum may overflow, which would cost the answer for every other series too.
_SUMMABLE: Final = _USABLE.replace("WHERE", "WHERE abs(r.value) < 1e290 AND")
AGGREGATES: Final = {
    "avg": f"avg(r.value) {_SUMMABLE}",
    "min": f"min(r.value) {_USABLE}",
    "max": f"max(r.value) {_USABLE}",
    "sum": f"sum(r.value) {_SUMMABLE}",
    "count": "count(*)::float8",
    "first": f"(array_agg(r.value ORDER BY r.time) {_USABLE})[1]",
    "last": f"(array_agg(r.value ORDER BY r.time DESC) {_USABLE})[1]",
}
BUCKETS: Final = """
SELECT date_bin(make_interval(secs => %(seconds)s), r.time, '2001-01-01T00:00Z') AS time,
       {aggregate} AS value, count(*) AS count
FROM agents a JOIN readings r USING (agent_uuid)
WHERE a.tenant_id = %(tenant)s AND a.agent_uuid = %(agent)s AND r.metric_name = %(metric)s
  AND r.time >= %(start)s AND r.time < %(end)s
GROUP BY 1 ORDER BY 1 LIMIT %(limit)s
"""
_BUCKETS: Final = {name: BUCKETS.replace("{aggregate}", column) for name, column in AGGREGATES.items()}


async def buckets(
    tx: Tx,
    tenant: TenantId,
    agent: UUID,
    metric: str,
    *,
    start: datetime,
    end: datetime,
    seconds: int,
    aggregate: str,
    limit: int,
) -> list[Bucket]:
    """One series in [start, end) by intervals of `seconds`, counted from a Monday, 00:00 UTC."""
    await tx.execute(CONSTANT_PLAN)
    return await rows_as(
        tx,
        Bucket,
        _BUCKETS[aggregate],
        {
            "tenant": tenant,
            "agent": agent,
            "metric": metric,
            "start": start,
            "end": end,
            "seconds": seconds,
            "limit": limit,
        },
    )


LATEST: Final = (
    "SELECT r.time, s.metric_name, r.value, r.quality, r.unit, r.protocol, r.anomaly_score, r.anomaly_threshold,"
    + _SERIES_EXTRA
    + """
FROM agents a JOIN series s USING (agent_uuid)
CROSS JOIN LATERAL (
    SELECT * FROM readings r
    WHERE r.agent_uuid = s.agent_uuid AND r.metric_name = s.metric_name
      AND r.time >= %(start)s AND r.time < %(end)s
    ORDER BY r.time DESC LIMIT 1
) r
WHERE a.tenant_id = %(tenant)s AND a.agent_uuid = %(agent)s
  AND s.metric_name <> ALL(%(known)s::text[])
  AND (%(only)s::text[] IS NULL OR s.metric_name = ANY(%(only)s::text[]))
ORDER BY s.metric_name LIMIT %(limit)s
"""
)


async def latest(
    tx: Tx,
    tenant: TenantId,
    agent: UUID,
    *,
    windows: Sequence[tuple[datetime, datetime]],
    only: Sequence[str] | None,
    limit: int,
) -> list[Value]:
    """The newest reading of each series of an agent, by measured time.

    Looks into one window after another, the newest first, so that old partitions are opened only for
    series that were silent meanwhile.
    """
    await tx.execute(CONSTANT_PLAN)
    found: dict[str, Value] = {}
    for start, end in windows:
        parameters = {"tenant": tenant, "agent": agent, "start": start, "end": end, "limit": limit}
        parameters |= {"known": list(found), "only": list(only) if only is not None else None}
        for value in await rows_as(tx, Value, LATEST, parameters):
            found[value.metric_name] = value
        if len(found) >= limit or len(found) == await _series(tx, tenant, agent, only):
            break
    return sorted(found.values(), key=lambda value: value.metric_name)[:limit]


SERIES: Final = """
SELECT count(*) AS count FROM agents a JOIN series s USING (agent_uuid)
WHERE a.tenant_id = %(tenant)s AND a.agent_uuid = %(agent)s
  AND (%(only)s::text[] IS NULL OR s.metric_name = ANY(%(only)s::text[]))
"""


class _Count(msgspec.Struct):
    count: int


async def _series(tx: Tx, tenant: TenantId, agent: UUID, only: Sequence[str] | None) -> int:
    row = await row_as(
        tx, _Count, SERIES, {"tenant": tenant, "agent": agent, "only": list(only) if only is not None else None}
    )
    return row.count if row else 0


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    metric_name: str
    protocol: str
    unit: str | None
    total_readings: int
    first_reading_time: datetime
    last_reading_time: datetime
    min: float | None
    max: float | None
    avg: float | None


SUMMARY: Final = f"""
SELECT s.metric_name, s.protocol, s.unit, count(*) AS total_readings, min(r.time) AS first_reading_time,
       max(r.time) AS last_reading_time, min(r.value) {_USABLE} AS min, max(r.value) {_USABLE} AS max,
       avg(r.value) {_SUMMABLE} AS avg
FROM agents a JOIN series s USING (agent_uuid) JOIN readings r USING (agent_uuid, metric_name)
WHERE a.tenant_id = %(tenant)s AND a.agent_uuid = %(agent)s AND r.time >= %(start)s AND r.time < %(end)s
GROUP BY s.agent_uuid, s.metric_name ORDER BY s.metric_name LIMIT %(limit)s
"""


async def summary(
    tx: Tx, tenant: TenantId, agent: UUID, *, start: datetime, end: datetime, limit: int
) -> list[Summary]:
    """Per series: how many readings in [start, end), when, and their range."""
    await tx.execute(CONSTANT_PLAN)
    return await rows_as(
        tx,
        Summary,
        SUMMARY,
        {"tenant": tenant, "agent": agent, "start": start, "end": end, "limit": limit},
    )
