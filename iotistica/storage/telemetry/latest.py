"""Query for the newest reading of each series, by measured time."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.domain.telemetry.rollup_sources import floor
from iotistica.storage.postgres import Tx, fetch_rows
from iotistica.storage.telemetry.timeseries import SERIES_EXTRA, StoredReading

WINDOWS: Final = (timedelta(hours=6), timedelta(days=7))  # searched before the daily rollup
DAY: Final = timedelta(days=1)
# Days that are searched for the last readings of silent series. The remaining series show the rollup's value.
DAYS_LIMIT: Final = 30

NEWEST: Final = (
    "SELECT r.time, s.metric_name, r.value, r.quality, r.unit, r.protocol, r.anomaly_score, r.anomaly_threshold,"
    + SERIES_EXTRA
    + """
FROM agents a JOIN series s USING (agent_uuid)
CROSS JOIN LATERAL (
    SELECT * FROM readings r
    WHERE r.agent_uuid = s.agent_uuid AND r.metric_name = s.metric_name
      AND r.time >= %(start)s AND r.time < %(end)s
    ORDER BY r.time DESC LIMIT 1
) r
WHERE a.tenant_id = %(tenant)s AND a.agent_uuid = %(agent)s AND s.metric_name = ANY(%(metrics)s)
"""
)
NAMES: Final = """
SELECT s.metric_name FROM agents a JOIN series s USING (agent_uuid)
WHERE a.tenant_id = %(tenant)s AND a.agent_uuid = %(agent)s
  AND (%(only)s::text[] IS NULL OR s.metric_name = ANY(%(only)s::text[])) AND s.metric_name > %(after)s
ORDER BY s.metric_name LIMIT %(limit)s
"""
SILENT: Final = """
SELECT s.metric_name, s.unit, s.protocol, d.bucket, coalesce(v.last_time, d.bucket) AS time, v.last AS value,
       jsonb_strip_nulls(jsonb_build_object('device_name', s.device_name, 'device_uuid', s.device_uuid,
           'endpoint_uuid', s.endpoint_uuid, 'metric', s.metric)) AS extra
FROM agents a JOIN series s USING (agent_uuid)
CROSS JOIN LATERAL (
    SELECT bucket FROM readings_daily d WHERE d.agent_uuid = s.agent_uuid AND d.metric_name = s.metric_name
      AND d.bucket >= %(start)s AND d.bucket < %(end)s
    ORDER BY bucket DESC LIMIT 1
) d
LEFT JOIN LATERAL (
    SELECT last, last_time FROM readings_daily v WHERE v.agent_uuid = s.agent_uuid
      AND v.metric_name = s.metric_name AND v.bucket = d.bucket
) v ON true
WHERE a.tenant_id = %(tenant)s AND a.agent_uuid = %(agent)s AND s.metric_name = ANY(%(metrics)s)
"""


class _Silent(msgspec.Struct, frozen=True):
    """A series without recent readings, and the rollup of its last day."""

    metric_name: str
    unit: str | None
    protocol: str
    bucket: datetime
    time: datetime
    value: float | None
    extra: dict[str, Any]


async def series_names(
    tx: Tx, tenant: TenantId, agent: UUID, *, only: Sequence[str] | None, after: str | None, limit: int
) -> list[str]:
    """Return up to `limit` names of an agent's series after `after`, in order; of `only` these unless None."""
    parameters = {"tenant": tenant, "agent": agent, "only": only if only is None else list(only)}
    rows = await (await tx.execute(NAMES, parameters | {"after": after or "", "limit": limit})).fetchall()
    return [name for (name,) in rows]


async def latest(
    tx: Tx,
    tenant: TenantId,
    agent: UUID,
    metrics: Sequence[str],
    *,
    now: datetime,
    since: datetime,
    late_hours: Sequence[datetime],
) -> list[StoredReading]:
    """Return the newest reading of each of these series in [since, now), ordered by name.

    `late_hours` are hours with late readings, which the rollups do not contain yet. The newest partitions are
    searched first. For series without readings there, the daily rollup holds their last day, whose partition is
    searched next. Where the readings of that day are gone, or there are more such days than `DAYS_LIMIT`, the
    rollup's last usable value is returned, without a quality.
    """
    scope = {"tenant": tenant, "agent": agent}
    missing = set(metrics)
    readings: dict[str, StoredReading] = {}
    end = now
    for window in WINDOWS:
        await _search(tx, scope, readings, missing, max(now - window, since), end)
        end = max(now - window, since)
    if missing:
        parameters = scope | {"start": floor(since, DAY), "end": end, "metrics": sorted(missing)}
        silent = [series for series in await fetch_rows(tx, _Silent, SILENT, parameters) if series.time >= since]
        days: defaultdict[datetime, set[str]] = defaultdict(set)
        for series in silent:
            days[series.bucket].add(series.metric_name)
        for hour in late_hours:  # readings that the rollup does not contain yet
            days[floor(hour, DAY)] |= missing
        for day in sorted(days, reverse=True)[:DAYS_LIMIT]:
            await _search(tx, scope, readings, days[day] - readings.keys(), max(day, since), min(day + DAY, end))
        readings |= {
            series.metric_name: _from_rollup(series) for series in silent if series.metric_name not in readings
        }
    return [readings[name] for name in sorted(readings)]


async def _search(
    tx: Tx,
    scope: dict[str, Any],
    readings: dict[str, StoredReading],
    missing: set[str],
    start: datetime,
    end: datetime,
) -> None:
    if missing and start < end:
        parameters = scope | {"start": start, "end": end, "metrics": sorted(missing)}
        for value in await fetch_rows(tx, StoredReading, NEWEST, parameters, prepare=False):
            readings[value.metric_name] = value
            missing.discard(value.metric_name)


def _from_rollup(series: _Silent) -> StoredReading:
    return StoredReading(
        time=series.time,
        metric_name=series.metric_name,
        value=series.value,
        quality=None,
        unit=series.unit,
        protocol=series.protocol,
        extra=series.extra,
    )
