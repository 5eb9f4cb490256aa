"""Daily partitions of the readings, made ahead and on demand, dropped by age."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Final

import psycopg
from psycopg import sql

from iotistica.storage.postgres import Database, Tx

AHEAD: Final = 3  # days made before they are needed
EPOCH_DAY: Final = date(1970, 1, 1)
LOCK: Final = 0x10716  # any constant that nothing else takes an advisory lock on
DAY_US: Final = 86_400_000_000

EXISTING: Final = """
SELECT right(c.relname, 8) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'readings'::regclass
"""


async def existing(tx: Tx) -> set[date]:
    """The days that have a partition."""
    cursor = await tx.execute(EXISTING)
    return {datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC).date() for (text,) in await cursor.fetchall()}


async def make(database: Database, days: Iterable[date]) -> None:
    """Make the partitions of these days where they are missing, a transaction each.

    CREATE, then ATTACH: `PARTITION OF` would lock the parent against every reader and writer.
    """
    for day in sorted(days):
        name = sql.Identifier(_name(day))
        start, end = (
            sql.Literal(day.isoformat() + "Z"),
            sql.Literal((day + timedelta(days=1)).isoformat() + "Z"),
        )
        async with database.transaction() as tx:
            # Two workers may want the same day; the lock is held until the commit, so one of them waits.
            await tx.execute("SELECT pg_advisory_xact_lock(%(lock)s)", {"lock": LOCK})
            if day in await existing(tx):
                continue
            await tx.execute(
                sql.SQL("CREATE TABLE {} (LIKE readings INCLUDING DEFAULTS INCLUDING INDEXES)").format(name)
            )
            await tx.execute(
                sql.SQL("ALTER TABLE readings ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
                    name, start, end
                )
            )


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
                    await tx.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(_name(found))))
            except psycopg.errors.LockNotAvailable:
                break
        dropped.append(found)
    return dropped


def day_of(us: int) -> date:
    """The UTC day of a time in us since the epoch."""
    return EPOCH_DAY + timedelta(days=us // DAY_US)


def _name(day: date) -> str:
    return f"readings_p{day:%Y%m%d}"
