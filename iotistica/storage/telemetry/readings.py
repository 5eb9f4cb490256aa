"""Storing of readings by binary COPY through a staging table."""

import struct
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

import msgspec

from iotistica.domain import timestamps
from iotistica.domain.ids import TenantId
from iotistica.domain.telemetry.readings import Reading
from iotistica.errors import Unavailable
from iotistica.storage.postgres import Tx
from iotistica.storage.telemetry import late_readings

STAGING: Final = """
CREATE TEMP TABLE IF NOT EXISTS staging (
    agent_uuid uuid, metric_name text COLLATE "C", time timestamptz, value float8, quality text, unit text,
    protocol text, extra jsonb, anomaly_score float8, anomaly_threshold float8
) ON COMMIT DELETE ROWS
"""
COPY: Final = "COPY staging FROM STDIN (FORMAT BINARY)"

_INSERT: Final = """
    INSERT INTO readings (agent_uuid, metric_name, time, value, quality, unit, protocol, extra,
                          anomaly_score, anomaly_threshold)
    SELECT agent_uuid, metric_name, time, value, quality, unit, protocol, coalesce(extra, '{}'),
           anomaly_score, anomaly_threshold
    FROM staging WHERE """
# Sorted, so that two workers with the same rows lock them in the same order and never deadlock.
STORE: Final = (
    "WITH stored AS ("
    + _INSERT
    + """%(horizon)s::timestamptz IS NULL OR time >= %(horizon)s
    ORDER BY agent_uuid, metric_name, time
    ON CONFLICT DO NOTHING RETURNING agent_uuid, time
), late AS ("""
    + late_readings.MARK_HOURS
    + """), kept AS (
    SELECT agent_uuid, sum(rows)::int AS rows, min(first_time) AS first_time, max(last_time) AS last_time FROM (
        SELECT agent_uuid, count(*) AS rows, min(time) AS first_time, max(time) AS last_time
        FROM stored GROUP BY agent_uuid
        UNION ALL
        SELECT * FROM unnest(%(old)s::uuid[], %(old_rows)s::bigint[], %(old_first)s::timestamptz[],
                             %(old_last)s::timestamptz[])
    ) both_ways GROUP BY agent_uuid
)
INSERT INTO readings_ledger (tenant_id, agent_uuid, found, stored, duplicate, rejected, first_time, last_time)
SELECT f.tenant_id, f.agent_uuid, f.found, coalesce(kept.rows, 0),
       f.found - f.rejected - coalesce(kept.rows, 0), f.rejected, kept.first_time, kept.last_time
FROM unnest(%(tenants)s::text[], %(agents)s::uuid[], %(found)s::int[], %(rejected)s::int[])
     AS f (tenant_id, agent_uuid, found, rejected)
LEFT JOIN kept USING (agent_uuid)
RETURNING id, agent_uuid, stored, duplicate
"""
)

# Held shared until the commit, so that the rollups move no watermark while readings are being stored. A separate
# statement reads the watermark, since a statement that waits for the lock still sees the value before the wait.
LOCK_SHARED: Final = "SELECT pg_advisory_xact_lock_shared(67351)"
# TimescaleDB's refresh of minutes stays two minutes behind the clock. A transaction takes less than one of them, so
# that a reading younger than a minute is committed before a refresh passes it.
CLOSED_UNTIL: Final = """
SELECT CASE WHEN engine = 'timescaledb' THEN now() - interval '1 minute' ELSE closed_until END,
       now() - make_interval(days => compress_days) FROM rollup_progress
"""

# Readings as old as TimescaleDB's compressed chunks are stored by a separate statement and then verified: some
# versions were seen to stop silently at the first conflict in a compressed chunk.
UNLIMITED: Final = "SET LOCAL timescaledb.max_tuples_decompressed_per_dml_transaction = 0"
STORE_OLD: Final = (
    "WITH stored AS ("
    + _INSERT
    + """time < %(horizon)s ORDER BY agent_uuid, metric_name, time
    ON CONFLICT DO NOTHING RETURNING agent_uuid, time
), late AS ("""
    + late_readings.MARK_HOURS
    + """)
SELECT agent_uuid, count(*), min(time), max(time) FROM stored GROUP BY agent_uuid
"""
)
MISSING: Final = """
SELECT count(*) FROM staging s WHERE s.time < %(horizon)s AND NOT EXISTS (
    SELECT FROM readings r WHERE r.agent_uuid = s.agent_uuid AND r.metric_name = s.metric_name AND r.time = s.time
      AND r.time >= %(start)s AND r.time < %(horizon)s)
"""

CONFLICTS: Final = """
UPDATE readings_ledger l SET conflict = c.rows FROM (
    SELECT s.agent_uuid, count(*) AS rows FROM staging s JOIN readings r USING (agent_uuid, metric_name, time)
    WHERE (r.value, r.extra->'text', r.extra->'raw') IS DISTINCT FROM (s.value, s.extra->'text', s.extra->'raw')
      AND r.time >= %(start)s AND r.time <= %(end)s GROUP BY s.agent_uuid
) c WHERE l.id = ANY(%(ids)s) AND l.agent_uuid = c.agent_uuid RETURNING c.rows
"""
# The same for readings that were left out of the staging table, because another of the batch has their key.
REPEAT_CONFLICTS: Final = """
UPDATE readings_ledger l SET conflict = l.conflict + c.rows FROM (
    SELECT agent_uuid, count(*) AS rows
    FROM unnest(%(agents)s::uuid[], %(metric_names)s::text[], %(times)s::timestamptz[], %(values)s::float8[],
                %(extras)s::jsonb[]) AS s (agent_uuid, metric_name, time, value, extra)
    JOIN readings r USING (agent_uuid, metric_name, time)
    WHERE (r.value, r.extra->'text', r.extra->'raw') IS DISTINCT FROM (s.value, s.extra->'text', s.extra->'raw')
      AND r.time >= %(start)s AND r.time <= %(end)s GROUP BY agent_uuid
) c WHERE l.id = ANY(%(ids)s) AND l.agent_uuid = c.agent_uuid RETURNING c.rows
"""


NO_READINGS: Final[Mapping[UUID, Collection[Reading]]] = MappingProxyType({})


class AgentCounts(msgspec.Struct):
    """How many readings one agent's payloads of a batch contained, and how many of them were rejected."""

    tenant: TenantId
    found: int = 0
    rejected: int = 0


class StoreResult(msgspec.Struct, frozen=True):
    stored: int
    duplicate: int
    conflict: int


async def create_staging_table(tx: Tx) -> None:
    """Create the staging table of a new connection."""
    await tx.execute(STAGING)


async def store(
    tx: Tx,
    rows: Mapping[UUID, Collection[Reading]],
    counts: Mapping[UUID, AgentCounts],
    repeats: Mapping[UUID, Collection[Reading]] = NO_READINGS,
) -> StoreResult:
    """Store the readings that do not exist yet, and their ledger rows, in the caller's transaction.

    No series and time may occur twice in `rows`; further readings with the same key are `repeats`, which are only
    compared. `counts` also has the agents whose readings were all rejected.
    """
    size = sum(map(len, rows.values()))
    if size:
        async with tx.cursor() as cursor, cursor.copy(COPY) as copy:
            await copy.write(_pack_rows(rows))
    await tx.execute(LOCK_SHARED)
    closed, horizon = await (await tx.execute(CLOSED_UNTIL)).fetchone() or (None, None)
    old = [] if horizon is None else await _store_old(tx, _span(rows)[0], horizon, closed)
    cursor = await tx.execute(
        STORE,
        {
            "closed": closed,
            "horizon": horizon,
            "old": [row[0] for row in old],
            "old_rows": [row[1] for row in old],
            "old_first": [row[2] for row in old],
            "old_last": [row[3] for row in old],
            "tenants": [count.tenant for count in counts.values()],
            "agents": list(counts),
            "found": [count.found for count in counts.values()],
            "rejected": [count.rejected for count in counts.values()],
        },
    )
    ledger_rows = await cursor.fetchall()
    stored, duplicate = sum(row[2] for row in ledger_rows), sum(row[3] for row in ledger_rows)
    conflict = 0
    if stored < size:  # some keys existed already: count those with another value
        start, end = _span(rows)
        parameters = {"ids": [row[0] for row in ledger_rows if row[3]], "start": start, "end": end}
        # Not prepared: a plan made without the bounds would open and lock every partition.
        cursor = await tx.execute(CONFLICTS, parameters, prepare=False)
        conflict = sum(row[0] for row in await cursor.fetchall())
    if repeats:
        conflict += await _count_conflicts(tx, repeats, [row[0] for row in ledger_rows])
    return StoreResult(stored, duplicate, conflict)


async def _count_conflicts(tx: Tx, repeats: Mapping[UUID, Collection[Reading]], ids: list[int]) -> int:
    """Count, also in these rows of the ledger, the repeats that differ from the stored reading."""
    listed = [(agent, reading) for agent, readings in repeats.items() for reading in readings]
    start, end = _span(repeats)
    parameters = {
        "agents": [agent for agent, _ in listed],
        "metric_names": [reading.metric_name for _, reading in listed],
        "times": [timestamps.EPOCH + timedelta(microseconds=reading.time) for _, reading in listed],
        "values": [reading.value for _, reading in listed],
        "extras": [msgspec.json.encode(reading.extra or {}).decode() for _, reading in listed],
        "ids": ids,
        "start": start,
        "end": end,
    }
    cursor = await tx.execute(REPEAT_CONFLICTS, parameters, prepare=False)
    return sum(row[0] for row in await cursor.fetchall())


def _span(rows: Mapping[UUID, Collection[Reading]]) -> tuple[datetime, datetime]:
    """Return the first and the last time of the readings; twice the current time if there are none."""
    spans = [(min(r.time for r in batch), max(r.time for r in batch)) for batch in rows.values() if batch]
    if not spans:
        return (datetime.now(UTC),) * 2
    first, last = min(span[0] for span in spans), max(span[1] for span in spans)
    return timestamps.EPOCH + timedelta(microseconds=first), timestamps.EPOCH + timedelta(microseconds=last)


async def _store_old(
    tx: Tx, start: datetime, horizon: datetime, closed: datetime | None
) -> list[tuple[UUID, int, datetime, datetime]]:
    """Store the readings before the horizon; return agent, rows, first and last time of the new ones.

    Raises `Unavailable` if some are missing afterwards.
    """
    if start >= horizon:
        return []
    await tx.execute(UNLIMITED)
    old = await (await tx.execute(STORE_OLD, {"horizon": horizon, "closed": closed})).fetchall()
    parameters = {"start": start, "horizon": horizon}
    row = await (await tx.execute(MISSING, parameters, prepare=False)).fetchone()
    if row is None or row[0]:
        raise Unavailable(f"{row[0] if row else 'Some'} old readings were not stored in compressed chunks.")
    return old


# PostgreSQL's binary COPY: a header, then per row the number of fields and each as length and bytes
# (documentation of COPY, "Binary Format"). Packed here: a fifth of the time of the driver's row by row.
_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_TRAILER: Final = struct.pack(">h", -1)
_NULL: Final = struct.pack(">i", -1)
_COLUMNS: Final = struct.pack(">h", 10)
_EPOCH_2000: Final = 946_684_800_000_000  # microseconds; PostgreSQL counts times from 2000-01-01
_TIME_VALUE: Final[Callable[..., bytes]] = struct.Struct(">iqid").pack
_TIME_NULL: Final[Callable[..., bytes]] = struct.Struct(">iqi").pack
_DOUBLE: Final[Callable[..., bytes]] = struct.Struct(">id").pack
_NO_DETAILS: Final = _NULL * 3


@lru_cache(maxsize=20_000)
def _metric_name(metric_name: str) -> bytes:
    return _text(metric_name)


@lru_cache(maxsize=10_000)
def _labels(quality: str, unit: str | None, protocol: str) -> bytes:
    return _text(quality) + _text(unit) + _text(protocol)


def _text(value: str | None) -> bytes:
    if value is None:
        return _NULL
    raw = value.encode()
    return struct.pack(">i", len(raw)) + raw


def _json(value: dict[str, Any] | None) -> bytes:
    if value is None:
        return _NULL
    raw = msgspec.json.encode(value)
    return struct.pack(">i", len(raw) + 1) + b"\x01" + raw  # jsonb's version byte


def _pack_rows(rows: Mapping[UUID, Collection[Reading]]) -> bytes:
    parts = [_HEADER]
    add = parts.append
    for agent, readings in rows.items():
        start = _COLUMNS + struct.pack(">i", 16) + agent.bytes
        for reading in readings:
            add(start)
            add(_metric_name(reading.metric_name))
            if reading.value is None:
                add(_TIME_NULL(8, reading.time - _EPOCH_2000, -1))
            else:
                add(_TIME_VALUE(8, reading.time - _EPOCH_2000, 8, reading.value))
            add(_labels(reading.quality, reading.unit, reading.protocol))
            if reading.extra is None and reading.anomaly_score is None and reading.anomaly_threshold is None:
                add(_NO_DETAILS)
            else:
                add(_json(reading.extra))
                add(_NULL if reading.anomaly_score is None else _DOUBLE(8, reading.anomaly_score))
                add(_NULL if reading.anomaly_threshold is None else _DOUBLE(8, reading.anomaly_threshold))
    add(_TRAILER)
    return b"".join(parts)
