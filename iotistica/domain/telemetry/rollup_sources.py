"""Which of the stored sources answer a query exactly, and at the least cost."""

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
    """Rollups are complete before `rolled_until`; what is older than a source's `since` is not kept there.

    Of the `late_hours` hours, in order, readings came late: their rollups are not to be believed yet.
    """

    rolled_until: datetime
    raw_since: datetime = LONG_AGO
    minutes_since: datetime = LONG_AGO
    hours_since: datetime = LONG_AGO
    late_hours: tuple[datetime, ...] = ()

    def since(self, source: Source) -> datetime:
        """From when on a source has everything."""
        return {
            "raw": self.raw_since,
            "1m": self.minutes_since,
            "1h": self.hours_since,
            "daily": LONG_AGO,
        }[source]

    def finest(self, at: datetime) -> Source:
        """The finest source that reaches back to then."""
        return next((source for source in reversed(COARSEST_FIRST) if at >= self.since(source)), "daily")


class SourceRange(NamedTuple):
    """A part of a time range, half-open, and the source that answers for it."""

    source: Source
    start: datetime
    end: datetime


def split_by_source(
    start: datetime, end: datetime, coverage: Coverage, sources: Sequence[Source] = COARSEST_FIRST
) -> list[SourceRange]:
    """[start, end) in order, each part by the coarsest of these sources whose values lie wholly inside it.

    What no rollup has yet, and the ends that cut a value of theirs, fall to the finer ones.
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
    for low, high in _sound(since, until, width, coverage.late_hours):
        segments += [*split_by_source(at, low, coverage, finer), SourceRange(source, low, high)]
        at = high
    return [*segments, *split_by_source(at, end, coverage, finer)]


def _sound(
    since: datetime, until: datetime, width: timedelta, late_hours: Sequence[datetime]
) -> Iterator[tuple[datetime, datetime]]:
    """The parts of a range of whole values of that width that hold no stale hour."""
    for hour in late_hours:
        low, high = floor(hour, width), ceiling(hour + WIDTHS["1h"], width)
        if since < min(low, until):
            yield since, min(low, until)
        since = max(since, high)
    if since < until:
        yield since, until


def widen(start: datetime, end: datetime, coverage: Coverage) -> tuple[datetime, datetime]:
    """The range, its ends moved outwards to what is kept where the single readings are gone."""
    return floor(start, WIDTHS[coverage.finest(start)]), ceiling(end, WIDTHS[coverage.finest(end)])


def floor(when: datetime, width: timedelta) -> datetime:
    """The last multiple of `width` since the epoch that is not after `when`."""
    return when - (when - _EPOCH) % width


def ceiling(when: datetime, width: timedelta) -> datetime:
    """The first multiple of `width` since the epoch that is not before `when`."""
    return when + (_EPOCH - when) % width
