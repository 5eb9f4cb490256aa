"""Disk usage of readings, by day, and of rollups, on either engine."""

from datetime import UTC, date, datetime
from typing import Final, NamedTuple

import msgspec

from iotistica.storage.postgres import Tx, fetch_rows


class DayUsage(NamedTuple):
    """The bytes of one day of readings, indexes included."""

    day: date
    bytes: int


class DiskUsage(msgspec.Struct, frozen=True, kw_only=True):
    """The usage of each day, in order, and the bytes of all rollups together.

    `filled` are the days that hold readings; a partition that was made ahead has only empty indexes.
    """

    days: list[DayUsage]
    filled: list[DayUsage]
    rollups: int

    @property
    def total(self) -> int:
        return self.rollups + sum(day.bytes for day in self.days)


class _DayRow(msgspec.Struct, frozen=True):
    day: datetime
    bytes: int
    is_filled: bool


class _SumRow(msgspec.Struct, frozen=True):
    bytes: int


ENGINE: Final = "SELECT engine FROM rollup_progress"
DAYS: Final = r"""
SELECT to_date(right(c.relname, 8), 'YYYYMMDD')::timestamp AT TIME ZONE 'UTC' AS day,
       pg_total_relation_size(c.oid) AS bytes, pg_relation_size(c.oid) > 0 AS is_filled
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'readings'::regclass AND c.relname ~ '_p\d{8}$' ORDER BY 1
"""
ROLLUPS: Final = """
SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint AS bytes FROM (
    SELECT inhrelid AS oid FROM pg_inherits WHERE inhparent IN ('readings_1m'::regclass, 'readings_1h'::regclass)
    UNION ALL SELECT 'readings_daily'::regclass
) rollups
"""
CHUNKS: Final = """
SELECT c.range_start AS day, sum(s.total_bytes)::bigint AS bytes, true AS is_filled
FROM timescaledb_information.chunks c JOIN chunks_detailed_size('readings') s USING (chunk_schema, chunk_name)
WHERE c.hypertable_name = 'readings' GROUP BY 1 ORDER BY 1
"""
AGGREGATES: Final = """
SELECT coalesce(sum(hypertable_size(format('%I.%I', materialization_hypertable_schema,
                                           materialization_hypertable_name)::regclass)), 0)::bigint AS bytes
FROM timescaledb_information.continuous_aggregates
WHERE view_name IN ('readings_1m', 'readings_1h', 'readings_daily')
"""


async def measure(tx: Tx) -> DiskUsage:
    """Return the current disk usage."""
    row = await (await tx.execute(ENGINE)).fetchone()
    plain = row is not None and row[0] == "plain"
    days = await fetch_rows(tx, _DayRow, DAYS if plain else CHUNKS)
    (rollups,) = await fetch_rows(tx, _SumRow, ROLLUPS if plain else AGGREGATES)
    usage = [(DayUsage(part.day.astimezone(UTC).date(), part.bytes), part.is_filled) for part in days]
    return DiskUsage(
        days=[day for day, _ in usage], filled=[day for day, filled in usage if filled], rollups=rollups.bytes
    )
