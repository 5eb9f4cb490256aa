"""Keeps readings within their budget of bytes, and foresees when the disk or the budget is full."""

from datetime import datetime
from typing import Final

from iotistica.background import retention
from iotistica.background.retention import Ages
from iotistica.disk_space import Room
from iotistica.domain.telemetry.disk_budget import SOON, forecast
from iotistica.process_health import Storage, Vitals
from iotistica.storage.postgres import Database

ALARM: Final = "disk_soon_full"


async def look(database: Database, ages: Ages, vitals: Vitals, room: Room, now: datetime) -> None:
    """Do it once; `vitals` show it."""
    found = await retention.keep_within(database, ages.bytes, now, forced=room.level() != "ok")
    seen = forecast(found.days, found.rollups, room.free, now.date(), ages.bytes)
    vitals.storage[:] = [
        Storage(
            readings=found.total - found.rollups,
            rollups=found.rollups,
            free=room.free,
            bytes_a_day=seen.bytes_a_day,
            days_left=None if seen.days_left is None else round(seen.days_left, 1),
            full=seen.full,
        )
    ]
    # Where the budget is full first, the oldest days make room in time.
    soon = seen.days_left is not None and seen.days_left < SOON and seen.full == "disk"
    vitals.alarms.set(
        ALARM,
        f"the disk is full in {seen.days_left or 0:.0f} days: make it larger, or set IOTISTICA_BUDGET_GB"
        " or a shorter IOTISTICA_RETENTION_DAYS"
        if soon
        else None,
    )
