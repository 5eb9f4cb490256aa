"""The disk: how long it will do, and what stops first when it does not."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Final, Literal, NamedTuple

FORECAST_DAYS: Final = 7  # days that a forecast looks back on
SHARE: Final = 0.03  # of the disk that is left free: the database needs some to clean up
LEAST: Final = 256 << 20  # bytes of that
MOST: Final = 2 << 30
ALARM_DAYS: Final = 14  # days before it is full that are an alarm

DiskLevel = Literal["ok", "low", "short"]
"""low: rollups stop, and readings are still stored. short: readings wait where they are durable already."""


class Forecast(NamedTuple):
    """Bytes a day, and the days until what is `full` first; None where nothing can be said."""

    bytes_a_day: int
    days_left: float | None
    full: Literal["disk", "budget"] | None


def reserve(total: int) -> int:
    """Bytes of a disk of so many that readings are not stored into."""
    return min(max(LEAST, int(total * SHARE)), MOST)


def disk_level(free: int, kept: int) -> DiskLevel:
    """What still goes on with so many bytes free, of which some are to be kept."""
    if free < kept:
        return "short"
    return "low" if free < 2 * kept else "ok"


def forecast(
    days: Sequence[tuple[date, int]], rollups: int, free: int | None, today: date, most: int = 0
) -> Forecast:
    """By the last week of whole days, rollups in proportion; `free` bytes are left, `most` may be taken, 0: all."""
    recent = [size for day, size in days if today - timedelta(days=FORECAST_DAYS) <= day < today]
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
    """The day before which readings must go so that no more than `most` bytes are taken; today's always stay."""
    over = sum(size for _, size in days) + rollups - most
    first = None
    for day, size in sorted(days):
        if over <= 0 or day >= today:
            break
        over -= size
        first = day + timedelta(days=1)
    return first
