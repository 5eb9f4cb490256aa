"""Times as devices, files and people write them."""

import contextlib
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from iotistica.domain import timestamps, written_times
from iotistica.domain.time_ranges import parse_time
from iotistica.errors import Invalid, InvalidMessage

TEN = datetime(2026, 11, 26, 10, tzinfo=UTC)
NEXT_DAY = datetime(2026, 11, 27, tzinfo=UTC)
MILLISECONDS = datetime(2026, 11, 18, 14, 18, 32, 345_000, tzinfo=UTC)
NOW = datetime(2026, 11, 26, 10, 30, 15, tzinfo=UTC)
ZURICH = ZoneInfo("Europe/Zurich")


def time_of(stamp: Any) -> datetime:
    return timestamps.EPOCH + timedelta(microseconds=timestamps.parse_us(stamp))


@pytest.mark.parametrize(
    "text", ["1795011512345", " 1795011512345 ", "1795011512.345", "1.795011512345e12", "1795011512345000"]
)
def test_text_of_digits_is_a_number(text: str) -> None:
    """A number as text means the same as the number, even where its digits could be a date."""
    assert time_of(text) == MILLISECONDS == time_of(float(text))


@given(st.integers(10**11, 4 * 10**12), st.integers(0, 999))
@example(1795011512345, 0)
def test_milliseconds_as_text_are_the_milliseconds(milliseconds: int, micros: int) -> None:
    """No number of milliseconds is read as a date, with or without a fraction."""
    assert timestamps.parse_us(str(milliseconds)) == milliseconds * 1000
    assert abs(timestamps.parse_us(f"{milliseconds}.{micros:03}") - milliseconds * 1000 - micros) <= 1


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("2026-11-26t10:00:00z", TEN),
        ("2026-11-26T23:59:60Z", NEXT_DAY),
        ("2026-11-26T23:59:60.5Z", NEXT_DAY + timedelta(seconds=0.5)),
        ("2026-11-27T05:29:60+05:30", NEXT_DAY),
        ("2026-11-26T24:00:00Z", NEXT_DAY),
        ("2026-11-26 24:00", NEXT_DAY),
        ("\t2026-11-26T10:00:00Z ", TEN),
        ("2026-11-26T10:00:00 UTC", TEN),
        ("2026-11-26 10:00:00 GMT", TEN),
        ("2026-11-26 11:00:00 +0100", TEN),
        ("2026-11-26 10:00:00.000000999 +0000 UTC", TEN),
        ("2026-11-26T05:00:00\u221205:00", TEN),
        ("2026-11-26T11:00:00+01:00[Europe/Zurich]", TEN),
        ("2026-11-26T10:00:00,5Z", TEN + timedelta(seconds=0.5)),
        ("20261126T100000Z", TEN),
        ("2026/11/26 10:00:00", TEN),
        ("2026-W48-4T10:00", TEN),
        ("Thu, 26 Nov 2026 11:00:00 +0100", TEN),
        ("26 Nov 2026 05:00 EST", TEN),
        ("Thu, 26 Nov 2026 23:59:60 +0000 (UTC)", NEXT_DAY),
        ("Thursday, 26-Nov-26 10:00:00 GMT", TEN),
        ("Thu Nov 26 2026 11:00:00 GMT+0100 (Central European Standard Time)", TEN),
        ("Thu Nov 26 10:00:00 2026", TEN),
        ("Thu Nov 26 10:00:00 UTC 2026", TEN),
    ],
)
def test_a_time_that_can_mean_one_thing_only_is_understood(text: str, when: datetime) -> None:
    """Agents and queries understand the same written times."""
    assert time_of(text) == when
    assert parse_time(text, now=NOW, default=NOW, path="start") == when


@pytest.mark.parametrize(
    "text",
    [
        "11/12/2026 10:00",
        "Thu Nov 26 10:00:00 CST 2026",
        "Thu, 26 Nov 2026 10:00:00 CET",
        "Nov 26, 2026 10:00 PM",
        "26 Mayo 2026 10:00",
        "1795011512345Z",
        "17950115 1234",
        "2026-11-26-10:00",
        "2026-11-26T10:00:61Z",
        "2026-11-26T24:00:01Z",
        "2026-02-30T10:00:00Z",
        "2026-11-26T10:00:00+99:00",
        "9999-12-31T24:00:00Z",
        "\u0661\u0667\u0669\u0665\u0660\u0661\u0661\u0665\u0661\u0662",
        "1_795_011_512",
        "Infinity",
        "",
        " ",
    ],
)
def test_a_time_that_can_mean_two_things_is_refused(text: str) -> None:
    """Nothing is guessed, and nothing but `InvalidMessage` is raised."""
    with pytest.raises(InvalidMessage, match="bad_time"):
        timestamps.parse_us(text)


@given(
    st.text(max_size=70)
    | st.from_regex(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?([Zz]|[+-]\d\d:?\d\d)?", fullmatch=True)
)
def test_any_text_is_a_time_or_refused(text: str) -> None:
    """Any text is parsed or raises the error that callers expect."""
    for parse in (timestamps.parse_us, lambda text: parse_time(text, now=NOW, default=NOW, path="end")):
        with contextlib.suppress(InvalidMessage, Invalid):
            parse(text)


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-9, minutes=-30))])))
def test_what_python_writes_is_read_back(when: datetime) -> None:
    """The ISO 8601 text of a time gives the time, also in lower case and with a blank before its offset."""
    for text in (when.isoformat(), when.isoformat().lower(), f"{when:%Y-%m-%d %H:%M:%S.%f %z}".rjust(32, "0")):
        if when.year >= 1000:  # strftime does not pad years
            assert written_times.parse(text) == when


def test_messagepack_has_a_timestamp_of_its_own() -> None:
    """A decoded MessagePack timestamp is a time, too."""
    assert time_of(TEN) == TEN


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("1795011512345", MILLISECONDS, MILLISECONDS),
        ("1795011512", MILLISECONDS.replace(microsecond=0), MILLISECONDS.replace(microsecond=0)),
        ("now-1h", NOW - timedelta(hours=1), NOW - timedelta(hours=1)),
        ("now - 90s", NOW - timedelta(seconds=90), NOW - timedelta(seconds=90)),
        ("now+2d", NOW + timedelta(days=2), NOW + timedelta(days=2)),
        ("now-1M", NOW.replace(month=10), NOW.replace(month=10)),
        ("now/d", datetime(2026, 11, 25, 23, tzinfo=UTC), datetime(2026, 11, 26, 23, tzinfo=UTC)),
        ("now-1w/w", datetime(2026, 11, 15, 23, tzinfo=UTC), datetime(2026, 11, 22, 23, tzinfo=UTC)),
        ("now-1M/M", datetime(2026, 9, 30, 22, tzinfo=UTC), datetime(2026, 10, 31, 23, tzinfo=UTC)),
        ("now/y", datetime(2025, 12, 31, 23, tzinfo=UTC), datetime(2026, 12, 31, 23, tzinfo=UTC)),
        ("now/h", datetime(2026, 11, 26, 10, tzinfo=UTC), datetime(2026, 11, 26, 11, tzinfo=UTC)),
        ("20261126", datetime(2026, 11, 25, 23, tzinfo=UTC), datetime(2026, 11, 25, 23, tzinfo=UTC)),
        ("2026-11-26T11:00:00 01:00", TEN, TEN),
        ("0", timestamps.EPOCH, timestamps.EPOCH),
    ],
)
def test_queries_take_what_grafana_sends(text: str, start: datetime, end: datetime) -> None:
    """Epoch numbers, `now-1h` and `now/d`, by the calendar of the query's zone; an end is rounded up."""
    assert parse_time(text, now=NOW, default=NOW, path="start", zone=ZURICH) == start
    assert parse_time(text, now=NOW, default=NOW, path="end", zone=ZURICH) == end


@pytest.mark.parametrize("text", ["2026", "99999999", "now-1x", "now-999999y", "9" * 30, "1e40", "-5", "nan"])
def test_queries_refuse_numbers_that_are_no_times(text: str) -> None:
    """A year alone, a number beyond all years, and an unknown unit are told, not guessed."""
    with pytest.raises(Invalid):
        parse_time(text, now=NOW, default=NOW, path="start")
