"""Keeps readings within their budget of bytes, and forecasts when the disk or the budget is full."""

from datetime import datetime
from typing import Final

from iotistica.background import retention
from iotistica.background.retention import RetentionLimits
from iotistica.disk_space import DiskSpace
from iotistica.domain.telemetry.disk_budget import ALARM_DAYS, forecast
from iotistica.process_health import ProcessHealth, StorageForecast
from iotistica.storage.postgres import Database

ALARM: Final = "disk_soon_full"


async def check(
    database: Database, ages: RetentionLimits, process_health: ProcessHealth, disk_space: DiskSpace, now: datetime
) -> None:
    """Drop the oldest readings if they exceed the budget, and put the forecast into `process_health`."""
    usage = await retention.keep_within(database, ages.bytes, now, forced=disk_space.level() != "ok")
    outlook = forecast(usage.filled, usage.rollups, disk_space.free, now.date(), ages.bytes)
    process_health.storage[:] = [
        StorageForecast(
            readings=usage.total - usage.rollups,
            rollups=usage.rollups,
            free=disk_space.free,
            bytes_a_day=outlook.bytes_a_day,
            days_left=None if outlook.days_left is None else round(outlook.days_left, 1),
            full=outlook.full,
        )
    ]
    # If the budget is full first, dropping the oldest days frees disk space in time.
    soon = outlook.days_left is not None and outlook.days_left < ALARM_DAYS and outlook.full == "disk"
    process_health.alarms.set(
        ALARM,
        f"the disk is full in {outlook.days_left or 0:.0f} days: make it larger, or set IOTISTICA_BUDGET_GB"
        " or a shorter IOTISTICA_RETENTION_DAYS"
        if soon
        else None,
    )
