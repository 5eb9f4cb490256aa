"""Keeps the rollups of plain PostgreSQL two minutes behind the clock, and computes late hours anew."""

import time
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Final

from loguru import logger

from iotistica.alarms import Alarms
from iotistica.disk_space import DiskSpace
from iotistica.domain.telemetry.rollup_sources import floor
from iotistica.storage.postgres import Database
from iotistica.storage.telemetry import partitions, rollups
from iotistica.storage.telemetry.rollups import DAY, MINUTE, RollupProgress

EVERY: Final = 5.0  # seconds
BEHIND: Final = timedelta(minutes=2)  # what is younger is answered from single readings
SLOW: Final = 5.0  # seconds of a step; the next ones are shorter
LATE_EVERY: Final = (
    20.0  # seconds between looks for late hours: one that is sent for a while is computed a few times
)
TURN: Final = 20.0  # seconds of what is new, and of late hours, before the other has its turn
LATE: Final = timedelta(minutes=10)  # beyond which the rollups are an alarm


class RollupTask:
    """Rolls up what is new at each call, in steps whose length follows how long the last one took."""

    def __init__(self, database: Database, alarms: Alarms, disk_space: DiskSpace) -> None:
        self._database = database
        self._alarms = alarms
        self._disk_space = disk_space
        self._step = MINUTE
        self._recomputed = 0.0

    async def __call__(self) -> None:
        """Catch up for a while, unless the disk is nearly full, and raise an alarm if that is not enough."""
        if self._disk_space.level() == "ok":
            late = time.monotonic() - self._recomputed > LATE_EVERY
            self._recomputed = time.monotonic() if late else self._recomputed
            self._step = await catch_up(self._database, datetime.now(UTC), self._step, late=late)
        await _raise_alarm(self._database, self._alarms)


async def catch_up(database: Database, now: datetime, step: timedelta, *, late: bool = True) -> timedelta:
    """Roll up what is closed, and what came late, for a while; returns the step that the next should begin with."""
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
    """Day by day backwards, so that an agent that sends old days for long keeps nobody's today waiting."""
    began, before = time.monotonic(), datetime.max.replace(tzinfo=UTC)
    while time.monotonic() - began < TURN:
        async with database.transaction() as tx:
            newest = await rollups.newest_late_hour(tx, before)
            at = await rollups.progress(tx)
        if newest is None:
            return
        day = floor(newest, DAY)
        await partitions.create(database, {day.date()}, "readings_1h")
        if day + DAY > at.minutes_since:
            await partitions.create(database, {day.date()}, "readings_1m")
        marks = await rollups.recompute_late_hours(database, day)
        before = day if marks < rollups.LATE_HOURS_LIMIT else before
        logger.bind(marks=marks, day=str(day.date())).debug("late hours computed anew")


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


async def _raise_alarm(database: Database, alarms: Alarms) -> None:
    at = await _progress(database)
    behind = datetime.now(UTC) - at.rolled_until if at.engine == "plain" else timedelta()
    alarms.set(
        "rollups_behind",
        f"the rollups are {behind} behind: queries read single readings instead, and take longer"
        if behind > LATE
        else None,
    )
