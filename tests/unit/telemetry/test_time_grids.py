"""Buckets hold what lies in them by the clock of the zone, across every change of it."""

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
    """The days on which a zone's clock jumps, since 1970."""
    where = ZoneInfo(name)
    found = []
    for low in (START + timedelta(days=n) for n in range(0, 365 * 68, 20)):
        before = low.astimezone(where).utcoffset()
        if before != (low + timedelta(days=20)).astimezone(where).utcoffset():
            days = (low + timedelta(days=n) for n in range(20))
            found.append(next(d for d in days if (d + timedelta(days=1)).astimezone(where).utcoffset() != before))
    return found


def slot(buckets: Fixed | Calendar, when: datetime) -> datetime:
    """The bucket of a moment, as the database finds it."""
    if isinstance(buckets, Fixed):
        return when - (when - buckets.origin) % buckets.width
    at = max(n for n, edge in enumerate(buckets.edges) if edge <= when)
    return buckets.labels[at]


def first_date(text: str, day: date) -> date:
    """What a bucket is called by people."""
    if text == "1w":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if text == "1mo" else day


@pytest.mark.parametrize("part", range(8))
def test_days_weeks_and_months_are_those_of_the_zone(part: int) -> None:
    """In every zone, around every kind of change: two moments share a bucket if and only if they share a date."""
    chance = random.Random(part)
    for name in ZONES[part::8]:
        where, found = ZoneInfo(name), changes(name)
        for change in chance.sample(found, min(len(found), 3)):
            start = change - timedelta(days=chance.randint(1, 40), seconds=chance.randrange(86_400))
            end = change + timedelta(days=chance.randint(2, 40), seconds=chance.randrange(86_400))
            moments = [change + timedelta(minutes=10 * n) for n in range(-150, 300)]
            moments = [when for when in moments if start <= when < end]
            for text in ("1d", "1w", "1mo"):
                buckets = grid(parse_interval(text), start, end, where)
                by_date: dict[date, set[datetime]] = {}
                for when in moments:
                    day = first_date(text, when.astimezone(where).date())
                    by_date.setdefault(day, set()).add(slot(buckets, when))
                assert all(len(slots) == 1 for slots in by_date.values()), (name, text, change)
                assert len({next(iter(slots)) for slots in by_date.values()}) == len(by_date), (name, text, change)
                starts = buckets.starts()
                assert starts == sorted(set(starts))


def test_days_of_a_change_have_23_and_25_hours() -> None:
    """And begin at midnight by the clock."""
    zurich = ZoneInfo("Europe/Zurich")
    for month, hours in ((3, 23), (10, 25)):
        start = datetime(2026, month, 1, tzinfo=zurich)
        starts = grid(
            parse_interval("1d"), start.astimezone(UTC), (start + timedelta(days=35)).astimezone(UTC), zurich
        )
        lengths = {b - a for a, b in zip(starts.starts(), starts.starts()[1:], strict=False)}
        assert lengths == {timedelta(hours=24), timedelta(hours=hours)}
        assert all(when.astimezone(zurich).hour == 0 for when in starts.starts())
        assert starts.sources() == ("1h", "1m", "raw")


def test_an_hour_that_comes_twice_is_two_buckets() -> None:
    """A quarter of a day is by the clock, and so has five or seven hours."""
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
    """A zone of half an hour cannot be answered from hours."""
    start = datetime(2026, 5, 5, 3, 7, 11, tzinfo=UTC)
    found = grid(
        parse_interval(text),
        start,
        start + timedelta(days=1 if text in ("1h", "90m", "2h", "45s") else 60),
        parse_zone(name),
    )
    assert found.sources() == sources


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
    """Parts follow each other without a gap; no rollup is used for what it cuts, does not have, or has wrong."""
    since = start.replace(tzinfo=UTC)
    until = since + timedelta(microseconds=length)
    base = datetime(2020, 1, 1, tzinfo=UTC)
    stale = tuple(sorted({base + timedelta(hours=hour) for hour in late}))
    kept = Coverage(rolled_until=rolled.replace(tzinfo=UTC), late_hours=stale)
    order = [source for source in WIDTHS if source in sources[:used]] + ["raw"]
    parts = split_by_source(since, until, kept, order)  # type: ignore[arg-type]
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
    """Days in the middle, then what is left at the ends by finer and finer values."""
    start = datetime(2025, 1, 1, 10, 30, 15, tzinfo=UTC)
    parts = split_by_source(
        start, start + timedelta(days=365), Coverage(rolled_until=datetime(2027, 1, 1, tzinfo=UTC))
    )
    assert [part.source for part in parts] == ["raw", "1m", "1h", "daily", "1h", "1m", "raw"]


def test_where_readings_are_gone_the_range_is_widened() -> None:
    """To what is kept there, so that the answer is exact for what it says it is of."""
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
    """A number and a unit, of a second to a year."""
    with pytest.raises(Invalid):
        parse_interval(text)


def test_a_grid_is_bounded() -> None:
    """Before it is made."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(Invalid, match=str(BUCKETS)):
        grid(parse_interval("1s"), start, start + timedelta(seconds=10**9), ZoneInfo("Europe/Zurich"))
