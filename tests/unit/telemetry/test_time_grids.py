"""Buckets follow the local clock of a time zone across all its changes; sources are selected exactly."""

import itertools
import random
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotistica.domain.telemetry.rollup_sources import WIDTHS, Coverage, ceiling, floor, split_by_source, widen
from iotistica.domain.telemetry.time_grids import BUCKETS, Calendar, Fixed, grid
from iotistica.domain.time_ranges import parse_interval, parse_zone
from iotistica.errors import Invalid

ZONES = sorted(available_timezones() - {"localtime", "Factory"})
START = datetime(1970, 1, 1, tzinfo=UTC)


def changes(name: str) -> list[datetime]:
    """Return the days on which a zone's offset changes, since 1970."""
    zone = ZoneInfo(name)
    change_days = []
    for low in (START + timedelta(days=n) for n in range(0, 365 * 68, 20)):
        before = low.astimezone(zone).utcoffset()
        if before != (low + timedelta(days=20)).astimezone(zone).utcoffset():
            days = (low + timedelta(days=n) for n in range(20))
            later = (day for day in days if (day + timedelta(days=1)).astimezone(zone).utcoffset() != before)
            change_days.append(next(later))
    return change_days


def slot(buckets: Fixed | Calendar, when: datetime) -> datetime:
    """Return the bucket of an instant, as the database computes it."""
    if isinstance(buckets, Fixed):
        return when - (when - buckets.origin) % buckets.width
    at = max(n for n, edge in enumerate(buckets.edges) if edge <= when)
    return buckets.labels[at]


def first_date(text: str, day: date) -> date:
    """Return the first local date of the bucket that contains a day."""
    if text == "1w":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if text == "1mo" else day


@pytest.mark.parametrize("part", range(8))
def test_days_weeks_and_months_are_those_of_the_zone(part: int) -> None:
    """In every zone, around its changes: two instants share a bucket if and only if they share a date."""
    chance = random.Random(part)
    for name in ZONES[part::8]:
        zone, change_days = ZoneInfo(name), changes(name)
        for change in chance.sample(change_days, min(len(change_days), 3)):
            start = change - timedelta(days=chance.randint(1, 40), seconds=chance.randrange(86_400))
            end = change + timedelta(days=chance.randint(2, 40), seconds=chance.randrange(86_400))
            moments = [change + timedelta(minutes=10 * n) for n in range(-150, 300)]
            moments = [when for when in moments if start <= when < end]
            for text in ("1d", "1w", "1mo"):
                buckets = grid(parse_interval(text), start, end, zone)
                by_date: dict[date, set[datetime]] = {}
                for when in moments:
                    day = first_date(text, when.astimezone(zone).date())
                    by_date.setdefault(day, set()).add(slot(buckets, when))
                assert all(len(slots) == 1 for slots in by_date.values()), (name, text, change)
                assert len({next(iter(slots)) for slots in by_date.values()}) == len(by_date), (name, text, change)
                starts = buckets.starts()
                assert starts == sorted(set(starts))


def test_days_of_a_change_have_23_and_25_hours() -> None:
    """On days of a clock change, buckets of a day have 23 or 25 hours and begin at local midnight."""
    zurich = ZoneInfo("Europe/Zurich")
    for month, hours in ((3, 23), (10, 25)):
        start = datetime(2026, month, 1, tzinfo=zurich)
        buckets = grid(
            parse_interval("1d"), start.astimezone(UTC), (start + timedelta(days=35)).astimezone(UTC), zurich
        )
        lengths = {b - a for a, b in zip(buckets.starts(), buckets.starts()[1:], strict=False)}
        assert lengths == {timedelta(hours=24), timedelta(hours=hours)}
        assert all(when.astimezone(zurich).hour == 0 for when in buckets.starts())
        assert buckets.sources() == ("1h", "1m", "raw")


def test_an_hour_that_comes_twice_is_two_buckets() -> None:
    """The repeated hour is two buckets of 1h; a 6h bucket follows the clock and so can have five or seven hours."""
    zurich = ZoneInfo("Europe/Zurich")
    start, end = datetime(2026, 10, 24, 22, tzinfo=UTC), datetime(2026, 10, 25, 23, tzinfo=UTC)
    assert len(grid(parse_interval("1h"), start, end, zurich).starts()) == 25
    quarters = grid(parse_interval("6h"), start, end, zurich).starts()
    assert [b - a for a, b in zip(quarters, [*quarters[1:], end], strict=True)] == [
        timedelta(hours=hours) for hours in (7, 6, 6, 6)
    ]


@pytest.mark.parametrize(
    ("text", "name", "sources"),
    [
        ("1d", None, ("daily", "1h", "1m", "raw")),
        ("1mo", None, ("daily", "1h", "1m", "raw")),
        ("1w", "Asia/Tokyo", ("1h", "1m", "raw")),
        ("1d", "Asia/Kolkata", ("1m", "raw")),
        ("1h", "Asia/Kolkata", ("1m", "raw")),
        ("90m", None, ("1m", "raw")),
        ("2h", None, ("1h", "1m", "raw")),
        ("45s", None, ("raw",)),
    ],
)
def test_a_source_whose_values_a_bucket_would_cut_is_not_used(
    text: str, name: str | None, sources: tuple[str, ...]
) -> None:
    """For example, a zone with a half-hour offset cannot be answered from hour rollups."""
    start = datetime(2026, 5, 5, 3, 7, 11, tzinfo=UTC)
    buckets = grid(
        parse_interval(text),
        start,
        start + timedelta(days=1 if text in ("1h", "90m", "2h", "45s") else 60),
        parse_zone(name),
    )
    assert buckets.sources() == sources


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2020, 3, 1)),
    st.integers(1, 5_000_000_000_000),
    st.datetimes(datetime(2019, 12, 1), datetime(2020, 4, 1)),
    st.lists(st.integers(0, 24 * 90), max_size=5),
    st.permutations(["daily", "1h", "1m"]),
    st.integers(0, 3),
)
def test_a_cover_is_whole_and_of_whole_values(
    start: datetime, length: int, rolled: datetime, late: list[int], sources: list[str], used: int
) -> None:
    """Parts follow each other without a gap; rollups are used only for whole values that exist and are up to date."""
    since = start.replace(tzinfo=UTC)
    until = since + timedelta(microseconds=length)
    base = datetime(2020, 1, 1, tzinfo=UTC)
    stale = tuple(sorted({base + timedelta(hours=hour) for hour in late}))
    kept = Coverage(rolled_until=rolled.replace(tzinfo=UTC), late_hours=stale)
    order = [source for source in WIDTHS if source in sources[:used]] + ["raw"]
    parts = split_by_source(since, until, kept, order)
    assert parts[0].start == since
    assert parts[-1].end == until
    assert all(a.end == b.start for a, b in itertools.pairwise(parts))
    for source, low, high in parts:
        assert low < high
        if source != "raw":
            assert floor(low, WIDTHS[source]) == low
            assert floor(high, WIDTHS[source]) == high
            assert high <= kept.rolled_until
            assert not any(low < hour + WIDTHS["1h"] and hour < high for hour in stale)


def test_the_cheapest_sources_cover_a_year() -> None:
    """Day rollups answer the middle of the range, and finer and finer sources its ends."""
    start = datetime(2025, 1, 1, 10, 30, 15, tzinfo=UTC)
    parts = split_by_source(
        start, start + timedelta(days=365), Coverage(rolled_until=datetime(2027, 1, 1, tzinfo=UTC))
    )
    assert [part.source for part in parts] == ["raw", "1m", "1h", "daily", "1h", "1m", "raw"]


def test_where_readings_are_gone_the_range_is_widened() -> None:
    """The range is widened to whole rollups, so that the answer is exact for the range that it states."""
    day = datetime(2026, 1, 1, tzinfo=UTC)
    kept = Coverage(rolled_until=day, raw_since=day - timedelta(days=10), minutes_since=day - timedelta(days=20))
    start = day - timedelta(days=15, seconds=30)
    assert widen(start, day, kept) == (start - timedelta(seconds=30), day)
    start = day - timedelta(days=30, minutes=-5)
    assert widen(start, day, kept) == (start - timedelta(minutes=5), day)
    assert ceiling(start, WIDTHS["1h"]) == start + timedelta(minutes=55)


@pytest.mark.parametrize(
    "text", ["", "0s", "5", "1y", "-1m", "1.5h", "1 h", "400d", "13mo", "99999999s", "1m; DROP"]
)
def test_a_bad_interval_is_refused(text: str) -> None:
    """An interval is a whole number and a unit, from a second to a year."""
    with pytest.raises(Invalid):
        parse_interval(text)


def test_a_grid_is_bounded() -> None:
    """A grid with too many buckets is refused before it is built."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(Invalid, match=str(BUCKETS)):
        grid(parse_interval("1s"), start, start + timedelta(seconds=10**9), ZoneInfo("Europe/Zurich"))
