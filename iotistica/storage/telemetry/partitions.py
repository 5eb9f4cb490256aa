"""Partitions of the readings and their rollups, made ahead and on demand, dropped by age."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal

import psycopg

from iotistica.storage.postgres import Database, Tx

DAYS_AHEAD: Final = 3  # days made before they are needed
EPOCH_DAY: Final = date(1970, 1, 1)
DAY_US: Final = 86_400_000_000

Table = Literal["readings", "readings_1m", "readings_1h", "agent_logs"]
"""By the day, the month, the year and the day: what one holds is of about the same size."""


def first_day(table: Table, day: date) -> date:
    """The first day of the partition that this day lies in."""
    months = {"readings_1m": day.replace(day=1), "readings_1h": day.replace(month=1, day=1)}
    return months.get(table, day)


def next_day(table: Table, day: date) -> date:
    """The first day of the partition after the one that this day lies in."""
    widest = {"readings_1m": 31, "readings_1h": 366}.get(table, 1)
    return first_day(table, first_day(table, day) + timedelta(days=widest))


EXISTING: Final = r"""
SELECT right(c.relname, 8) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = %(table)s::regclass AND c.relname ~ '_p\d{8}$'
"""


async def existing(tx: Tx, table: Table = "readings") -> set[date]:
    """The first days of the partitions there are; none where TimescaleDB has chunks of its own."""
    cursor = await tx.execute(EXISTING, {"table": table})
    return {datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC).date() for (text,) in await cursor.fetchall()}


CREATE: Final = "SELECT make_partition(%(table)s, %(first)s, %(next)s)"
"""A function of the tables' owner: the worker may not make tables."""


async def create(database: Database, days: Iterable[date], table: Table = "readings") -> None:
    """Make the partitions that these days lie in where they are missing, a transaction each."""
    for first in sorted({first_day(table, day) for day in days}):
        async with database.transaction() as tx:
            await tx.execute(CREATE, {"table": table, "first": first, "next": next_day(table, first)})


DROP: Final = "SELECT drop_partition(%(table)s, %(first)s)"


async def drop_before(database: Database, day: date, table: Table = "readings") -> list[date]:
    """Drop the partitions that end at this day or before; returns their first days."""
    async with database.transaction() as tx:
        old = sorted(first for first in await existing(tx, table) if next_day(table, first) <= day)
    dropped = []
    for first in old:
        async with database.transaction() as tx:
            await tx.execute("SET LOCAL lock_timeout = '2s'")  # never queue everybody behind us
            try:
                async with tx.transaction():
                    await tx.execute(DROP, {"table": table, "first": first})
            except psycopg.errors.LockNotAvailable:
                break
        dropped.append(first)
    return dropped


DROP_CHUNKS: Final = "SELECT drop_chunks_before(%(day)s)"


async def drop_chunks_before(database: Database, day: date) -> int:
    """The same of TimescaleDB's chunks of readings; returns how many."""
    async with database.transaction(unbounded=True) as tx:
        row = await (await tx.execute(DROP_CHUNKS, {"day": day})).fetchone()
        return int(row[0]) if row else 0


def day_of(us: int) -> date:
    """The UTC day of a time in us since the epoch."""
    return EPOCH_DAY + timedelta(days=us // DAY_US)
