"""Weekly windows by wall clock in a named time zone: active hours, and hours of maintenance."""

import re
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from iotistica.domain import time_ranges
from iotistica.errors import Invalid

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

DAYS: Final[tuple[Day, ...]] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MIDNIGHT: Final = 24 * 60  # minutes
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|24:00", re.ASCII)


class Window(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """From one time of the clock up to another, on some days; a window that ends before it starts ends a day later.

    On the nights when clocks change, a window covers what a clock on the wall shows: 02:00 to 04:00 lasts one hour
    when clocks go forward at 02:00, and three when they go back at 03:00.
    """

    start: str
    end: str
    days: Annotated[tuple[Day, ...], Meta(min_length=1, max_length=7)] = DAYS
    """The days on which it starts."""


class Schedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    windows: Annotated[tuple[Window, ...], Meta(min_length=1, max_length=20)]
    zone: str = "UTC"

    def check(self, path: str) -> None:
        """Raise `Invalid` for an unknown zone and for times that no clock shows."""
        try:
            time_ranges.parse_zone(self.zone)
        except Invalid as exc:
            raise Invalid(str(exc), f"{path}.zone") from None
        for number, window in enumerate(self.windows):
            for name, text in (("start", window.start), ("end", window.end)):
                if not _CLOCK.fullmatch(text):
                    raise Invalid("must be a time such as 08:30", f"{path}.windows[{number}].{name}")
            if window.start in ("24:00", window.end):
                raise Invalid("must differ from the end, and be before 24:00", f"{path}.windows[{number}].start")


def covers(schedule: Schedule, at: datetime) -> bool:
    """Whether one of the windows covers a moment, by the wall clock of the schedule's zone."""
    local = at.astimezone(_zone(schedule.zone))
    minute, today = local.hour * 60 + local.minute, local.weekday()
    return any(
        (DAYS[today - back] in window.days and start <= minute + back * MIDNIGHT < end)
        for window in schedule.windows
        for start, end in (_minutes(window.start, window.end),)
        for back in (0, 1)
    )


def next_covered(schedule: Schedule, at: datetime) -> datetime | None:
    """Return a moment if a window covers it, otherwise when the next window starts; None if none ever does."""
    if covers(schedule, at):
        return at
    zone = _zone(schedule.zone)
    today = at.astimezone(zone).date()
    starts = []
    for ahead in range(9):
        day = today + timedelta(days=ahead)
        for window in schedule.windows:
            if DAYS[day.weekday()] in window.days:
                clock = time(int(window.start[:2]), int(window.start[3:]))
                # A clock time that is skipped when clocks go forward begins as far after the change.
                start = datetime.combine(day, clock, zone).astimezone(UTC)
                if start > at and covers(schedule, start):
                    starts.append(start)
    return min(starts, default=None)


@lru_cache(maxsize=1024)
def _minutes(start: str, end: str) -> tuple[int, int]:
    """Return the minutes of the day at which a window starts and ends; the end can be on the next day."""
    first, last = (int(text[:2]) * 60 + int(text[3:]) for text in (start, end))
    return first, last if last > first else last + MIDNIGHT


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    try:
        return time_ranges.parse_zone(name) or ZoneInfo("UTC")
    except Invalid:  # it was known when the schedule was stored
        return ZoneInfo("UTC")
