"""Makes partitions ahead, and drops those of readings and rollups that are past their age."""

from datetime import UTC, date, datetime, timedelta
from typing import Final

import msgspec
from loguru import logger

from iotistica.storage import kept, partitions
from iotistica.storage.partitions import Table
from iotistica.storage.postgres import Database

TABLES: Final[tuple[Table, ...]] = ("readings", "readings_1m", "readings_1h")


class Ages(msgspec.Struct, frozen=True, kw_only=True):
    """Days that readings and their rollups by the minute and the hour are kept; those by the day stay."""

    raw: int
    minutes: int
    hours: int


async def keep(database: Database, ages: Ages, now: datetime) -> None:
    """Do it once."""
    today = now.date()
    ahead = {today + timedelta(days=days) for days in range(-1, partitions.AHEAD)}
    for table in TABLES:
        async with database.transaction() as tx:
            missing = {partitions.first_day(table, day) for day in ahead} - await partitions.existing(tx, table)
        await partitions.make(database, missing, table)
    for table, age in zip(TABLES, (ages.raw, ages.minutes, ages.hours), strict=True):
        await _drop(database, table, today - timedelta(days=age))


async def _drop(database: Database, table: Table, before: date) -> None:
    """Say first that it is gone, so that no query counts on it, then drop it."""
    since = partitions.first_day(table, before)
    async with database.transaction() as tx:
        await kept.drop(tx, table, datetime(since.year, since.month, since.day, tzinfo=UTC))
    if dropped := await partitions.drop_before(database, since, table):
        logger.bind(table=table, partitions=len(dropped), before=str(since)).info("dropped what is past its age")
