"""Rules for disk space: when to stop storing, when the disk will be full, and which days to drop first."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Final, Literal, NamedTuple

FORECAST_DAYS: Final = 7  # days before today that a forecast is based on
SHARE: Final = 0.03  # share of the disk to keep free: the database needs free space to clean up
LEAST: Final = 256 << 20  # minimum bytes to keep free
MOST: Final = 2 << 30  # maximum bytes to keep free
ALARM_DAYS: Final = 14  # raise an alarm if the disk will be full in fewer days

DiskLevel = Literal["ok", "low", "short"]
"""low: rollups stop, readings are still stored. short: readings wait in Redis, the spool or the broker."""


class Forecast(NamedTuple):
    """The growth in bytes a day, and the days left until the limit in `full` is reached; None if unknown."""

    bytes_a_day: int
    days_left: float | None
    full: Literal["disk", "budget"] | None


def reserve(total: int) -> int:
    """Return the bytes to keep free on a disk of `total` bytes."""
    return min(max(LEAST, int(total * SHARE)), MOST)


def disk_level(free: int, kept: int) -> DiskLevel:
    """Return the level of a disk with `free` bytes free, of which `kept` must stay free."""
    if free < kept:
        return "short"
    return "low" if free < 2 * kept else "ok"


def forecast(
    days: Sequence[tuple[date, int]], rollups: int, free: int | None, today: date, most: int = 0
) -> Forecast:
    """Forecast from the last week of whole days when the disk or the budget will be full.

    The first day with readings is not a whole one, so there is no forecast before the third day.
    `days` holds the bytes of readings of each day, `rollups` the bytes of all rollups, which grow in proportion.
    `free` is the free bytes of the disk (None if unknown), `most` the budget in bytes (0: none).
    """
    first = min((day for day, _ in days), default=today)
    recent = [size for day, size in days if max(first, today - timedelta(days=FORECAST_DAYS + 1)) < day < today]
    readings = sum(size for _, size in days)
    if not recent or not readings:
        return Forecast(0, None, None)
    a_day = int(sum(recent) / len(recent) * (1 + rollups / readings))
    left = most - readings - rollups if most else None
    if not a_day or (free is None and left is None):
        return Forecast(a_day, None, None)
    if left is not None and (free is None or left < free):
        return Forecast(a_day, max(left, 0) / a_day, "budget")
    return Forecast(a_day, max(free or 0, 0) / a_day, "disk")


def drop_before(days: Sequence[tuple[date, int]], rollups: int, most: int, today: date) -> date | None:
    """Return the day before which to drop readings so that at most `most` bytes are used; today's always stay."""
    excess = sum(size for _, size in days) + rollups - most
    first_kept = None
    for day, size in sorted(days):
        if excess <= 0 or day >= today:
            break
        excess -= size
        first_kept = day + timedelta(days=1)
    return first_kept
