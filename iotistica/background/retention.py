"""Creates partitions in advance, and drops old partitions of readings, rollups and log lines."""

from datetime import UTC, date, datetime, timedelta
from typing import Final

import msgspec
from loguru import logger

from iotistica.background.periodic_task import for_each
from iotistica.domain.agents import log_lines
from iotistica.domain.telemetry import disk_budget
from iotistica.storage.postgres import Database
from iotistica.storage.telemetry import coverage, disk_usage, late_readings, partitions, refreshes, rollups
from iotistica.storage.telemetry.continuous_aggregates import KEPT_DAYS
from iotistica.storage.telemetry.disk_usage import DiskUsage
from iotistica.storage.telemetry.partitions import Table

LOGS: Final[Table] = "agent_logs"
TABLES: Final[tuple[Table, ...]] = ("readings", "readings_1m", "readings_1h")


class RetentionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How many days readings, minute rollups and hour rollups are kept; day rollups are never deleted."""

    raw: int
    minutes: int
    hours: int
    bytes: int = 0
    """The size that readings and rollups can have together; 0 means no limit."""


async def keep(database: Database, ages: RetentionLimits, now: datetime) -> None:
    """Create the partitions of the next days, and drop the partitions that are older than their retention."""
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
    """Drop the oldest days of readings until at most `most` bytes are used (0: no limit); return the usage.

    The minute rollups, which are as large, are dropped too. Hour and day rollups are kept, so readings that they do
    not include yet are not dropped, unless `forced`: on a nearly full disk the rollups themselves wait for space.
    """
    usage = await _sizes(database)
    if most and (drop_before := disk_budget.drop_before(usage.days, usage.rollups, most, now.date())):
        before = drop_before if forced else min(drop_before, await _rolled_up_until(database))
        async with database.transaction() as tx:
            is_plain = (await rollups.progress(tx)).engine == "plain"
        if is_plain:
            await _drop(database, "readings", before)
            await _drop(database, "readings_1m", before)
        else:
            await _drop_chunks(database, min(before, now.date() - timedelta(days=KEPT_DAYS - 1)))
        usage = await _sizes(database)
    return usage


async def _rolled_up_until(database: Database) -> date:
    """Return the day before which the rollups include every reading, late ones too.

    Late readings that no refresh reaches will never be included: they do not keep their day from being dropped.
    """
    async with database.transaction() as tx:
        rolled = await refreshes.days_rolled_until(tx)
        is_plain = (await rollups.progress(tx)).engine == "plain"
        late = await late_readings.oldest_hour(tx, None if is_plain else await refreshes.reached(tx))
    return min(rolled, late or rolled).date()


async def _drop_chunks(database: Database, before: date) -> None:
    """Drop TimescaleDB's chunks before a day, in one transaction: where that fails, all readings stay shown."""
    since = datetime(before.year, before.month, before.day, tzinfo=UTC)
    async with database.transaction(unbounded=True) as tx:
        at = await rollups.progress(tx)
        if since <= at.raw_since:
            return
        await coverage.set_dropped_before(tx, "readings", since)
        await coverage.set_dropped_before(tx, "readings_1m", since)
        await partitions.drop_chunks_before(tx, before)
    logger.bind(before=str(before)).info("old chunks were dropped")


async def _sizes(database: Database) -> DiskUsage:
    async with database.transaction() as tx:
        return await disk_usage.measure(tx)


async def _drop(database: Database, table: Table, before: date) -> None:
    """Mark the days as dropped first, so that no query reads them, then drop their partitions."""
    since = partitions.first_day(table, before)
    async with database.transaction() as tx:
        await coverage.set_dropped_before(tx, table, datetime(since.year, since.month, since.day, tzinfo=UTC))
    if dropped := await partitions.drop_before(database, since, table):
        logger.bind(table=table, partitions=len(dropped), before=str(since)).info("old partitions were dropped")
