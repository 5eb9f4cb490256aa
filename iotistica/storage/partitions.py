"""Daily partitions of the readings, made ahead and on demand, dropped by age."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Final

import psycopg

from iotistica.storage.postgres import Database, Tx

AHEAD: Final = 3  # days made before they are needed
EPOCH_DAY: Final = date(1970, 1, 1)
DAY_US: Final = 86_400_000_000

EXISTING: Final = """
SELECT right(c.relname, 8) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'readings'::regclass
"""


async def existing(tx: Tx) -> set[date]:
    """The days that have a partition."""
    cursor = await tx.execute(EXISTING)
    return {datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC).date() for (text,) in await cursor.fetchall()}


MAKE: Final = "SELECT make_readings_partition(%(day)s)"
"""A function of the tables' owner: the worker may not make tables."""


async def make(database: Database, days: Iterable[date]) -> None:
    """Make the partitions of these days where they are missing, a transaction each."""
    for day in sorted(days):
        async with database.transaction() as tx:
            await tx.execute(MAKE, {"day": day})


DROP: Final = "SELECT drop_readings_partition(%(day)s)"


async def drop_before(database: Database, day: date) -> list[date]:
    """Drop the partitions of all days before this one; returns them."""
    async with database.transaction() as tx:
        old = sorted(found for found in await existing(tx) if found < day)
    dropped = []
    for found in old:
        async with database.transaction() as tx:
            await tx.execute("SET LOCAL lock_timeout = '2s'")  # never queue everybody behind us
            try:
                async with tx.transaction():
                    await tx.execute(DROP, {"day": found})
            except psycopg.errors.LockNotAvailable:
                break
        dropped.append(found)
    return dropped


def day_of(us: int) -> date:
    """The UTC day of a time in us since the epoch."""
    return EPOCH_DAY + timedelta(days=us // DAY_US)
