"""Selects the stored sources (raw readings and rollups) that answer a query exactly at the least cost."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple

import msgspec

Source = Literal["raw", "1m", "1h", "daily"]
COARSEST_FIRST: Final[tuple[Source, ...]] = ("daily", "1h", "1m", "raw")
WIDTHS: Final[dict[Source, timedelta]] = {
    "daily": timedelta(days=1),
    "1h": timedelta(hours=1),
    "1m": timedelta(minutes=1),
    "raw": timedelta(microseconds=1),
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
LONG_AGO: Final = datetime(1900, 1, 1, tzinfo=UTC)


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """The time ranges that the sources cover.

    Rollups are complete before `rolled_until`; a source has no values older than its `since`. The rollups of the
    hours in `late_hours`, in ascending order, are not up to date yet: they lack late readings.
    """

    rolled_until: datetime
    raw_since: datetime = LONG_AGO
    minutes_since: datetime = LONG_AGO
    hours_since: datetime = LONG_AGO
    late_hours: tuple[datetime, ...] = ()

    def since(self, source: Source) -> datetime:
        """Return the time from which on a source has all its values."""
        return {
            "raw": self.raw_since,
            "1m": self.minutes_since,
            "1h": self.hours_since,
            "daily": LONG_AGO,
        }[source]

    def finest(self, at: datetime) -> Source:
        """Return the finest source that reaches back to a time."""
        return next((source for source in reversed(COARSEST_FIRST) if at >= self.since(source)), "daily")


class SourceRange(NamedTuple):
    """A half-open part of a time range, and the source that answers it."""

    source: Source
    start: datetime
    end: datetime


def split_by_source(
    start: datetime, end: datetime, coverage: Coverage, sources: Sequence[Source] = COARSEST_FIRST
) -> list[SourceRange]:
    """Split [start, end) into parts, in order, each with the coarsest source whose values lie wholly inside it.

    `sources` are ordered from coarse to fine. Times that a rollup does not cover yet, and ends that would cut one
    of its values, go to the finer sources.
    """
    if start >= end or not sources:
        return []
    source, *finer = sources
    if not finer:
        return [SourceRange(source, start, end)]
    width = WIDTHS[source]
    since = max(ceiling(start, width), ceiling(coverage.since(source), width))
    until = floor(end if source == "raw" else min(end, coverage.rolled_until), width)
    segments, at = [], start
    for low, high in _up_to_date(since, until, width, coverage.late_hours):
        segments += [*split_by_source(at, low, coverage, finer), SourceRange(source, low, high)]
        at = high
    return [*segments, *split_by_source(at, end, coverage, finer)]


def _up_to_date(
    since: datetime, until: datetime, width: timedelta, late_hours: Sequence[datetime]
) -> Iterator[tuple[datetime, datetime]]:
    """Yield the parts of a range, in whole values of `width`, that contain no late hour."""
    for hour in late_hours:
        low, high = floor(hour, width), ceiling(hour + WIDTHS["1h"], width)
        if since < min(low, until):
            yield since, min(low, until)
        since = max(since, high)
    if since < until:
        yield since, until


def widen(start: datetime, end: datetime, coverage: Coverage) -> tuple[datetime, datetime]:
    """Return the range with its ends moved outwards to whole values of the finest source that is kept there."""
    return floor(start, WIDTHS[coverage.finest(start)]), ceiling(end, WIDTHS[coverage.finest(end)])


def floor(when: datetime, width: timedelta) -> datetime:
    """Return the last multiple of `width` since the epoch that is not after `when`."""
    return when - (when - _EPOCH) % width


def ceiling(when: datetime, width: timedelta) -> datetime:
    """Return the first multiple of `width` since the epoch that is not before `when`."""
    return when + (_EPOCH - when) % width
