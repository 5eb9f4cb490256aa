"""Makes partitions ahead, and drops those of readings and rollups that are past their age."""

from datetime import UTC, date, datetime, timedelta
from typing import Final

import msgspec
from loguru import logger

from iotistica.background.periodic_task import for_each
from iotistica.domain.agents import log_lines
from iotistica.domain.telemetry import disk_budget
from iotistica.storage.postgres import Database
from iotistica.storage.telemetry import coverage, disk_usage, partitions, rollups
from iotistica.storage.telemetry.disk_usage import DiskUsage
from iotistica.storage.telemetry.partitions import Table

LOGS: Final[Table] = "agent_logs"
TABLES: Final[tuple[Table, ...]] = ("readings", "readings_1m", "readings_1h")


class RetentionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Days that readings and their rollups by the minute and the hour are kept; those by the day stay."""

    raw: int
    minutes: int
    hours: int
    bytes: int = 0
    """That readings and rollups may take together; 0 is no bound."""


async def keep(database: Database, ages: RetentionLimits, now: datetime) -> None:
    """Create the partitions of the next days, and drop those that are older than their table keeps."""
    today = now.date()
    ahead = {today + timedelta(days=days) for days in range(-1, partitions.DAYS_AHEAD)}
    days = dict(zip(TABLES, (ages.raw, ages.minutes, ages.hours), strict=True))

    async def create(table: Table) -> None:
        async with database.transaction() as tx:
            missing = {partitions.first_day(table, day) for day in ahead} - await partitions.existing(tx, table)
        await partitions.create(database, missing, table)

    async def drop(table: Table) -> None:
        if table == LOGS:
            await partitions.drop_before(database, today - log_lines.RETENTION, LOGS)
        else:
            await _drop(database, table, today - timedelta(days=days[table]))

    await for_each((*TABLES, LOGS), create)
    await for_each((*TABLES, LOGS), drop)


async def keep_within(database: Database, most: int, now: datetime, *, forced: bool = False) -> DiskUsage:
    """Drop the oldest days of readings until no more than `most` bytes are taken (0: no bound); returns what is.

    Values by the minute, which take as much, go with them; by the hour and the day they stay, so nothing goes
    that these do not hold yet, unless `forced`: where the disk is nearly full they wait for room themselves.
    """
    found = await _sizes(database)
    if most and (beyond := disk_budget.drop_before(found.days, found.rollups, most, now.date())):
        before = beyond if forced else min(beyond, await _held(database))
        await _drop(database, "readings", before)
        await _drop(database, "readings_1m", before)
        await partitions.drop_chunks_before(database, before)
        found = await _sizes(database)
    return found


async def _held(database: Database) -> date:
    """The day before which the rollups hold every reading, those that came late too."""
    async with database.transaction() as tx:
        at = await rollups.progress(tx)
        late = await rollups.oldest_late_hour(tx)
    return min(at.rolled_until, late or at.rolled_until).date() if at.engine == "plain" else date.max


async def _sizes(database: Database) -> DiskUsage:
    async with database.transaction() as tx:
        return await disk_usage.measure(tx)


async def _drop(database: Database, table: Table, before: date) -> None:
    """Say first that it is gone, so that no query counts on it, then drop it."""
    since = partitions.first_day(table, before)
    async with database.transaction() as tx:
        await coverage.set_dropped_before(tx, table, datetime(since.year, since.month, since.day, tzinfo=UTC))
    if dropped := await partitions.drop_before(database, since, table):
        logger.bind(table=table, partitions=len(dropped), before=str(since)).info("dropped what is past its age")
