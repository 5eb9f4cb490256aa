"""Divides a time range into buckets, of a fixed length or by the calendar of a time zone.

A bucket of days, weeks or months holds the readings of its local dates, so a day can have 23 or 25 hours when the
clock changes. Shorter buckets follow the local clock too; an hour that the clock repeats is two buckets of an hour.
"""

import itertools
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from iotistica.domain.telemetry.rollup_sources import COARSEST_FIRST, WIDTHS, Source
from iotistica.domain.time_ranges import DAY, Interval
from iotistica.errors import Invalid

BUCKETS: Final = 10_000  # maximum number of buckets in one answer
ORIGIN: Final = datetime(2001, 1, 1, tzinfo=UTC)  # a Monday
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR: Final = timedelta(hours=1)


class Fixed(NamedTuple):
    """Buckets of equal length, counted from `origin`."""

    start: datetime
    end: datetime
    width: timedelta
    origin: datetime

    def starts(self) -> list[datetime]:
        """Return the start of each bucket; the first can lie before the range."""
        first = self.start - (self.start - self.origin) % self.width
        return [first + n * self.width for n in range(-((first - self.end) // self.width))]

    def sources(self) -> tuple[Source, ...]:
        """Return the sources whose values never span two buckets, the coarsest first."""
        offset = self.origin - _EPOCH
        return tuple(s for s in COARSEST_FIRST if not self.width % WIDTHS[s] and not offset % WIDTHS[s])


class Calendar(NamedTuple):
    """Buckets of unequal length: the piece from each of `edges` on belongs to the bucket that starts at its label.

    A bucket can have several pieces.
    """

    start: datetime
    end: datetime
    edges: list[datetime]
    labels: list[datetime]

    def starts(self) -> list[datetime]:
        """Return the start of each bucket; the first can lie before the range."""
        return sorted(set(self.labels))

    def sources(self) -> tuple[Source, ...]:
        """Return the sources whose values never span two buckets, the coarsest first."""
        offsets = [edge - _EPOCH for edge in self.edges[1:]]
        return tuple(s for s in COARSEST_FIRST if not any(offset % WIDTHS[s] for offset in offsets))


Grid = Fixed | Calendar


def grid(interval: Interval, start: datetime, end: datetime, zone: ZoneInfo | None = None) -> Grid:
    """Divide [start, end) into buckets of an interval by the clock of a zone (default UTC); raises `Invalid`."""
    if (end - start).total_seconds() / interval.seconds > BUCKETS:
        shortest = math.ceil((end - start).total_seconds() / BUCKETS)
        raise Invalid(
            f"would give more than {BUCKETS} buckets: choose {shortest}s or longer, or a shorter range", "interval"
        )
    if interval.unit != "mo" and zone is None:
        return Fixed(start, end, timedelta(seconds=interval.seconds), ORIGIN)
    if interval.unit == "s" and zone is not None:
        return _by_local_time(interval, start, end, zone)
    return _by_local_date(interval, start, end, zone)


def _by_local_time(interval: Interval, start: datetime, end: datetime, zone: ZoneInfo) -> Grid:
    if DAY % interval.seconds:
        raise Invalid(
            "must divide a day if a time zone is set, such as 6h, or be a number of days, such as 2d",
            "interval",
        )
    width = timedelta(seconds=interval.seconds)
    offsets = _offsets(start, end, zone)
    if len(offsets) == 1:
        return Fixed(start, end, width, ORIGIN - offsets[0][1])
    return _by_width(width, start, end, zone, twice=width <= _HOUR)


def _by_local_date(interval: Interval, start: datetime, end: datetime, zone: ZoneInfo | None) -> Calendar:
    if interval.unit == "mo":
        floor = partial(_month_floor, months=interval.size)
        # `Interval.seconds` counts 30 days a month; a tenth more always reaches into the next bucket, not past it.
        longer = timedelta(seconds=interval.seconds) * 1.1
        return _by_pieces(start, end, zone, floor, lambda wall: floor(wall + longer))
    return _by_width(timedelta(seconds=interval.seconds), start, end, zone)


def _by_width(
    width: timedelta, start: datetime, end: datetime, zone: ZoneInfo | None, *, twice: bool = False
) -> Calendar:
    return _by_pieces(
        start,
        end,
        zone,
        lambda wall: wall - (wall - ORIGIN) % width,
        lambda wall: wall + width,
        twice=twice,
    )


def _month_floor(wall: datetime, *, months: int) -> datetime:
    month = wall.year * 12 + wall.month - 1
    month -= month % months
    return datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC)


def _by_pieces(
    start: datetime,
    end: datetime,
    zone: ZoneInfo | None,
    floor: Callable[[datetime], datetime],
    following: Callable[[datetime], datetime],
    *,
    twice: bool = False,
) -> Calendar:
    """Walk along the local clock through each stretch of one UTC offset; local times are held as if they were UTC.

    When the clock is put back, repeated local times go into the same bucket again, or with `twice` into another.
    """
    edges: list[datetime] = []
    labels: list[datetime] = []
    starts: dict[tuple[datetime, int], datetime] = {}  # of buckets, by local start and, with `twice`, stretch
    offsets = _offsets(start, end, zone)
    for number, (since, offset) in enumerate(offsets):
        until = offsets[number + 1][0] if number + 1 < len(offsets) else end
        cut, wall = since, floor(since + offset)
        while cut < until:
            key = wall, number if twice else 0
            if key not in starts:  # only the first bucket can have begun before its cut
                starts[key] = cut if starts else min(_instant(wall, zone), cut)
            if not labels or labels[-1] != starts[key]:
                edges.append(cut)
                labels.append(starts[key])
            wall = following(wall)
            cut = wall - offset
    return Calendar(start, end, edges, labels)


def _instant(wall: datetime, zone: ZoneInfo | None) -> datetime:
    """Return the instant at which the clock first shows a local time."""
    return wall.replace(tzinfo=zone or UTC).astimezone(UTC)


def _offsets(start: datetime, end: datetime, zone: ZoneInfo | None) -> list[tuple[datetime, timedelta]]:
    """Return the start and the UTC offset of each stretch of a range in which the zone's offset does not change."""
    if zone is None:
        return [(start, timedelta())]
    changes = [change for year in range(start.year, end.year + 1) for change in _changes(zone, year)]
    return [(when, _offset(zone, when)) for when in (start, *(c for c in changes if start < c < end))]


@lru_cache(maxsize=4096)
def _changes(zone: ZoneInfo, year: int) -> tuple[datetime, ...]:
    """Return the instants of a UTC year at which the zone's offset changes, to the second."""
    first = datetime(year, 1, 1, tzinfo=UTC)
    days = [first + timedelta(days=n) for n in range(-1, 367)]
    changes = []
    for low, high in itertools.pairwise(days):
        before = _offset(zone, low)
        if before == _offset(zone, high):
            continue
        unchanged, changed = 0, DAY  # seconds after `low`
        while changed - unchanged > 1:
            middle = (unchanged + changed) // 2
            if _offset(zone, low + timedelta(seconds=middle)) == before:
                unchanged = middle
            else:
                changed = middle
        change = low + timedelta(seconds=changed)
        if change.year == year:
            changes.append(change)
    return tuple(changes)


def _offset(zone: ZoneInfo, when: datetime) -> timedelta:
    return when.astimezone(zone).utcoffset() or timedelta()
