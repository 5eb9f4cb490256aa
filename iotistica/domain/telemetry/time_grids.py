"""Grids: a time range in buckets, of a fixed length or by the calendar of a zone.

A bucket of days, weeks or months holds what lies on its dates by the clock of the zone, so a day has 23 or 25 hours
twice a year. One below a day holds what lies in it by that clock; the hour that a clock goes through twice is two.
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

BUCKETS: Final = 10_000  # in one answer at most
ORIGIN: Final = datetime(2001, 1, 1, tzinfo=UTC)  # a Monday
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR: Final = timedelta(hours=1)


class Fixed(NamedTuple):
    """Buckets of one length, counted from `origin`."""

    start: datetime
    end: datetime
    width: timedelta
    origin: datetime

    def starts(self) -> list[datetime]:
        """The start of each bucket; the first may lie before the range."""
        first = self.start - (self.start - self.origin) % self.width
        return [first + n * self.width for n in range(-((first - self.end) // self.width))]

    def sources(self) -> tuple[Source, ...]:
        """Those none of whose values lies in two buckets, the coarsest first."""
        offset = self.origin - _EPOCH
        return tuple(s for s in COARSEST_FIRST if not self.width % WIDTHS[s] and not offset % WIDTHS[s])


class Calendar(NamedTuple):
    """Pieces from `edges` on, each of the bucket that begins at its label; a bucket may have several."""

    start: datetime
    end: datetime
    edges: list[datetime]
    labels: list[datetime]

    def starts(self) -> list[datetime]:
        """The start of each bucket; the first may lie before the range."""
        return sorted(set(self.labels))

    def sources(self) -> tuple[Source, ...]:
        """Those none of whose values lies in two buckets, the coarsest first."""
        offsets = [edge - _EPOCH for edge in self.edges[1:]]
        return tuple(s for s in COARSEST_FIRST if not any(offset % WIDTHS[s] for offset in offsets))


Grid = Fixed | Calendar


def grid(interval: Interval, start: datetime, end: datetime, zone: ZoneInfo | None = None) -> Grid:
    """[start, end) in buckets of the interval, by the clock of the zone (UTC unless given); raises `Invalid`."""
    if (end - start).total_seconds() / interval.seconds > BUCKETS:
        least = math.ceil((end - start).total_seconds() / BUCKETS)
        raise Invalid(
            f"more than {BUCKETS} buckets: take an interval of {least}s or longer, or a shorter range", "interval"
        )
    if interval.unit != "mo" and zone is None:
        return Fixed(start, end, timedelta(seconds=interval.seconds), ORIGIN)
    if interval.unit == "s" and zone is not None:
        return _by_clock(interval, start, end, zone)
    return _by_date(interval, start, end, zone)


def _by_clock(interval: Interval, start: datetime, end: datetime, zone: ZoneInfo) -> Grid:
    if DAY % interval.seconds:
        raise Invalid(
            "in a zone, an interval of hours divides a day, such as 6h; longer ones are of days, such as 2d",
            "interval",
        )
    width = timedelta(seconds=interval.seconds)
    offsets = _offsets(start, end, zone)
    if len(offsets) == 1:
        return Fixed(start, end, width, ORIGIN - offsets[0][1])
    return _by_width(width, start, end, zone, twice=width <= _HOUR)


def _by_date(interval: Interval, start: datetime, end: datetime, zone: ZoneInfo | None) -> Calendar:
    if interval.unit == "mo":
        first = partial(_month_floor, months=interval.size)
        # A month has up to 31 days: a tenth more than so many times thirty lies in the next one.
        longer = timedelta(seconds=interval.seconds) * 1.1
        return _by_pieces(start, end, zone, first, lambda wall: first(wall + longer))
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
    """Walk by the clock, in each stretch of one offset; local times are written as if they were of UTC.

    What the clock shows again after it was put back is the same bucket as before, or with `twice` another.
    """
    edges: list[datetime] = []
    labels: list[datetime] = []
    known: dict[tuple[datetime, int], datetime] = {}
    offsets = _offsets(start, end, zone)
    for number, (since, offset) in enumerate(offsets):
        until = offsets[number + 1][0] if number + 1 < len(offsets) else end
        cut, wall = since, floor(since + offset)
        while cut < until:
            key = wall, number if twice else 0
            if key not in known:  # only the first bucket may have begun before its cut
                known[key] = cut if known else min(_instant(wall, zone), cut)
            if not labels or labels[-1] != known[key]:
                edges.append(cut)
                labels.append(known[key])
            wall = following(wall)
            cut = wall - offset
    return Calendar(start, end, edges, labels)


def _instant(wall: datetime, zone: ZoneInfo | None) -> datetime:
    """When the clock shows that time, first."""
    return wall.replace(tzinfo=zone or UTC).astimezone(UTC)


def _offsets(start: datetime, end: datetime, zone: ZoneInfo | None) -> list[tuple[datetime, timedelta]]:
    """The stretches of a range in which the zone's clock does not jump: when each begins, and its offset."""
    if zone is None:
        return [(start, timedelta())]
    changes = [change for year in range(start.year, end.year + 1) for change in _changes(zone, year)]
    return [(when, _offset(zone, when)) for when in (start, *(c for c in changes if start < c < end))]


@lru_cache(maxsize=4096)
def _changes(zone: ZoneInfo, year: int) -> tuple[datetime, ...]:
    """The moments of a year (of UTC) at which the zone's clock jumps, to the second."""
    first = datetime(year, 1, 1, tzinfo=UTC)
    days = [first + timedelta(days=n) for n in range(-1, 367)]
    found = []
    for low, high in itertools.pairwise(days):
        before = _offset(zone, low)
        if before == _offset(zone, high):
            continue
        seconds, most = 0, DAY
        while most - seconds > 1:
            middle = (seconds + most) // 2
            if _offset(zone, low + timedelta(seconds=middle)) == before:
                seconds = middle
            else:
                most = middle
        change = low + timedelta(seconds=most)
        if change.year == year:
            found.append(change)
    return tuple(found)


def _offset(zone: ZoneInfo, when: datetime) -> timedelta:
    return when.astimezone(zone).utcoffset() or timedelta()
