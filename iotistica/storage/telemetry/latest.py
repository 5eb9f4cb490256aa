"""The newest reading of each series, by measured time."""

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

WINDOWS: Final = (timedelta(hours=6), timedelta(days=7))  # looked into before the daily rollup is asked
DAY: Final = timedelta(days=1)
DAYS_LIMIT: Final = (
    30  # on which the last readings of silent series are looked for; the others show the rollup's value
)

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
    """What the rollup of its last day says of a series."""

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
    """`limit` names of an agent's series, or of `only` these, in order, after that one."""
    asked = {"tenant": tenant, "agent": agent, "only": only if only is None else list(only)}
    rows = await (await tx.execute(NAMES, asked | {"after": after or "", "limit": limit})).fetchall()
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
    """The newest reading of each of these series in [since, now), by name.

    Of the `late_hours` hours readings came late, which the rollups do not know yet.
    Looks into the newest partitions, and for series that are silent there into that of their last day, which the
    daily rollup knows. Where its readings are gone, or those days are too many, the rollup's last good value is
    shown, without a quality.
    """
    own = {"tenant": tenant, "agent": agent}
    missing = set(metrics)
    found: dict[str, StoredReading] = {}
    end = now
    for window in WINDOWS:
        await _look(tx, own, found, missing, max(now - window, since), end)
        end = max(now - window, since)
    if missing:
        asked = own | {"start": floor(since, DAY), "end": end, "metrics": sorted(missing)}
        silent = [one for one in await fetch_rows(tx, _Silent, SILENT, asked) if one.time >= since]
        days: defaultdict[datetime, set[str]] = defaultdict(set)
        for one in silent:
            days[one.bucket].add(one.metric_name)
        for hour in late_hours:  # what the rollup does not know yet
            days[floor(hour, DAY)] |= missing
        for day in sorted(days, reverse=True)[:DAYS_LIMIT]:
            await _look(tx, own, found, days[day] - found.keys(), max(day, since), min(day + DAY, end))
        found |= {one.metric_name: _of_rollup(one) for one in silent if one.metric_name not in found}
    return [found[name] for name in sorted(found)]


async def _look(
    tx: Tx, own: dict[str, Any], found: dict[str, StoredReading], missing: set[str], start: datetime, end: datetime
) -> None:
    if missing and start < end:
        asked = own | {"start": start, "end": end, "metrics": sorted(missing)}
        for value in await fetch_rows(tx, StoredReading, NEWEST, asked, prepare=False):
            found[value.metric_name] = value
            missing.discard(value.metric_name)


def _of_rollup(one: _Silent) -> StoredReading:
    return StoredReading(
        time=one.time,
        metric_name=one.metric_name,
        value=one.value,
        quality=None,
        unit=one.unit,
        protocol=one.protocol,
        extra=one.extra,
    )
