"""Keeps readings within their budget of bytes, and foresees when the disk or the budget is full."""

from datetime import datetime
from typing import Final

from iotistica.background import retention
from iotistica.background.retention import RetentionLimits
from iotistica.disk_space import DiskSpace
from iotistica.domain.telemetry.disk_budget import ALARM_DAYS, forecast
from iotistica.process_health import ProcessHealth, StorageForecast
from iotistica.storage.postgres import Database

ALARM: Final = "disk_soon_full"


async def look(
    database: Database, ages: RetentionLimits, process_health: ProcessHealth, disk_space: DiskSpace, now: datetime
) -> None:
    """Do it once; `process_health` show it."""
    found = await retention.keep_within(database, ages.bytes, now, forced=disk_space.level() != "ok")
    seen = forecast(found.days, found.rollups, disk_space.free, now.date(), ages.bytes)
    process_health.storage[:] = [
        StorageForecast(
            readings=found.total - found.rollups,
            rollups=found.rollups,
            free=disk_space.free,
            bytes_a_day=seen.bytes_a_day,
            days_left=None if seen.days_left is None else round(seen.days_left, 1),
            full=seen.full,
        )
    ]
    # Where the budget is full first, the oldest days make room in time.
    soon = seen.days_left is not None and seen.days_left < ALARM_DAYS and seen.full == "disk"
    process_health.alarms.set(
        ALARM,
        f"the disk is full in {seen.days_left or 0:.0f} days: make it larger, or set IOTISTICA_BUDGET_GB"
        " or a shorter IOTISTICA_RETENTION_DAYS"
        if soon
        else None,
    )
