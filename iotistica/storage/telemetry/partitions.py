"""Partitions of readings, rollups and logs: created ahead and on demand, dropped by age."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal

import psycopg

from iotistica.storage.postgres import Database, Tx

DAYS_AHEAD: Final = 3  # days for which partitions are created in advance
EPOCH_DAY: Final = date(1970, 1, 1)
DAY_US: Final = 86_400_000_000

Table = Literal["readings", "readings_1m", "readings_1h", "agent_logs"]
"""Partitioned by day, month, year and day, so that partitions are of about the same size."""


def first_day(table: Table, day: date) -> date:
    """Return the first day of the partition that contains this day."""
    months = {"readings_1m": day.replace(day=1), "readings_1h": day.replace(month=1, day=1)}
    return months.get(table, day)


def next_day(table: Table, day: date) -> date:
    """Return the first day of the partition after the one that contains this day."""
    widest = {"readings_1m": 31, "readings_1h": 366}.get(table, 1)
    return first_day(table, first_day(table, day) + timedelta(days=widest))


EXISTING: Final = r"""
SELECT right(c.relname, 8) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = %(table)s::regclass AND c.relname ~ '_p\d{8}$'
"""


async def existing(tx: Tx, table: Table = "readings") -> set[date]:
    """Return the first days of the existing partitions; none for tables that TimescaleDB splits into chunks."""
    cursor = await tx.execute(EXISTING, {"table": table})
    return {datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC).date() for (text,) in await cursor.fetchall()}


CREATE: Final = "SELECT make_partition(%(table)s, %(first)s, %(next)s)"
"""Calls a function of the tables' owner, because the worker role cannot create tables."""


async def create(database: Database, days: Iterable[date], table: Table = "readings") -> None:
    """Create the missing partitions that contain these days, each in its own transaction."""
    for first in sorted({first_day(table, day) for day in days}):
        async with database.transaction() as tx:
            await tx.execute(CREATE, {"table": table, "first": first, "next": next_day(table, first)})


DROP: Final = "SELECT drop_partition(%(table)s, %(first)s)"


async def drop_before(database: Database, day: date, table: Table = "readings") -> list[date]:
    """Drop the partitions that end on or before this day; return their first days.

    Stops at a partition whose lock it does not get within 2 s.
    """
    async with database.transaction() as tx:
        expired = sorted(first for first in await existing(tx, table) if next_day(table, first) <= day)
    dropped = []
    for first in expired:
        async with database.transaction() as tx:
            # While this statement waits for its lock, it blocks all later queries of the table.
            await tx.execute("SET LOCAL lock_timeout = '2s'")
            try:
                async with tx.transaction():
                    await tx.execute(DROP, {"table": table, "first": first})
            except psycopg.errors.LockNotAvailable:
                break
        dropped.append(first)
    return dropped


DROP_CHUNKS: Final = "SELECT drop_chunks_before(%(day)s)"


async def drop_chunks_before(tx: Tx, day: date) -> None:
    """Drop TimescaleDB's chunks of readings older than this day, and end its refreshes there."""
    await tx.execute(DROP_CHUNKS, {"day": day})


def day_of(us: int) -> date:
    """Return the UTC day of a time in microseconds since the epoch."""
    return EPOCH_DAY + timedelta(days=us // DAY_US)
