"""Computes the rollups of plain PostgreSQL two minutes behind the clock, and recomputes late hours."""

import time
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Final

from loguru import logger

from iotistica.background.late_refreshes import LateRefreshes
from iotistica.disk_space import DiskSpace
from iotistica.domain.telemetry.rollup_sources import floor
from iotistica.platform_alarms import Alarms
from iotistica.storage.postgres import Database
from iotistica.storage.telemetry import late_readings, partitions, rollups
from iotistica.storage.telemetry.rollups import DAY, MINUTE, RollupProgress

EVERY: Final = 5.0  # seconds
BEHIND: Final = timedelta(minutes=2)  # younger readings are queried directly
SLOW: Final = 5.0  # seconds of a step after which the next steps are shorter
# Seconds between checks for late hours: an hour that late readings arrive for is recomputed a few times at most.
LATE_EVERY: Final = 20.0
TURN: Final = 20.0  # seconds of work on new readings, and on late hours, before the other one continues
LATE: Final = timedelta(minutes=10)  # delay of the rollups above which an alarm is raised
FAILING: Final = ". TimescaleDB's refresh jobs do not succeed: see timescaledb_information.job_errors"


class RollupTask:
    """Rolls up new readings at each call, in steps; slow steps become shorter and fast steps longer."""

    def __init__(self, database: Database, alarms: Alarms, disk_space: DiskSpace) -> None:
        self._database = database
        self._alarms = alarms
        self._disk_space = disk_space
        self._step = MINUTE
        self._recomputed = 0.0
        self._refreshes = LateRefreshes()

    async def __call__(self) -> None:
        """Catch up for a while, unless the disk is nearly full; raise an alarm if the rollups are `LATE`."""
        at = await _progress(self._database)
        if at.engine != "plain":
            await self._refreshes.settle(self._database)
            _raise_alarm(self._alarms, self._refreshes.behind(datetime.now(UTC)), FAILING)
            return
        if self._disk_space.level() == "ok":
            late = time.monotonic() - self._recomputed > LATE_EVERY
            self._recomputed = time.monotonic() if late else self._recomputed
            self._step = await catch_up(self._database, datetime.now(UTC), self._step, late=late)
        at = await _progress(self._database)
        _raise_alarm(self._alarms, datetime.now(UTC) - at.rolled_until, "")


async def catch_up(database: Database, now: datetime, step: timedelta, *, late: bool = True) -> timedelta:
    """Roll up closed minutes and late hours, about `TURN` seconds each; return the step for the next call."""
    if (await _progress(database)).engine != "plain":
        return step
    await rollups.close_until(database, floor(now - BEHIND, MINUTE))
    until = time.monotonic() + TURN
    while time.monotonic() < until:
        at = await _progress(database)
        if at.rolled_until < at.closed_until:
            await _partitions(database, at, step)
        began = time.monotonic()
        left = await rollups.advance(database, step)
        took = time.monotonic() - began
        step = max(step / 2, MINUTE) if took > SLOW else min(step * 2, DAY)
        if late:
            await _recompute_late(database)
        if not left:
            break
    return step


async def _recompute_late(database: Database) -> None:
    """Recompute late hours from the newest day backwards, so that an upload of old days does not delay today."""
    began, before = time.monotonic(), datetime.max.replace(tzinfo=UTC)
    while time.monotonic() - began < TURN:
        async with database.transaction() as tx:
            newest = await late_readings.newest_hour(tx, before)
            at = await rollups.progress(tx)
        if newest is None:
            return
        day = floor(newest, DAY)
        await partitions.create(database, {day.date()}, "readings_1h")
        if day + DAY > at.minutes_since:
            await partitions.create(database, {day.date()}, "readings_1m")
        marks = await late_readings.recompute_hours(database, day)
        before = day if marks < late_readings.HOURS_LIMIT else before
        logger.bind(marks=marks, day=str(day.date())).debug("late hours were recomputed")


async def _progress(database: Database) -> RollupProgress:
    async with database.transaction() as tx:
        return await rollups.progress(tx)


async def _partitions(database: Database, at: RollupProgress, step: timedelta) -> None:
    until = min(at.rolled_until + step, at.closed_until)
    await partitions.create(database, _days(at.rolled_until, until), "readings_1h")
    if until > at.minutes_since:
        await partitions.create(database, _days(max(at.rolled_until, at.minutes_since), until), "readings_1m")


def _days(start: datetime, end: datetime) -> Iterable[date]:
    return (start.date(), end.date())


def _raise_alarm(alarms: Alarms, behind: timedelta, help_: str) -> None:
    alarms.set(
        "rollups_behind",
        f"the rollups are {behind} behind: queries read the readings themselves instead, and take longer{help_}"
        if behind > LATE
        else None,
    )
