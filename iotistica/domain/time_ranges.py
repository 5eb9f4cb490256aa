"""Parses the times, time ranges, time zones and bucket widths in queries."""

import calendar
import re
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from iotistica.domain import timestamps, written_times
from iotistica.errors import Invalid, InvalidMessage

Unit = Literal["s", "d", "mo"]
"""Seconds have a fixed length; the length of a day or a month depends on the time zone."""

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_INTERVAL: Final = re.compile(r"([1-9]\d{0,6})(s|m|h|d|w|mo|M)")
_AGO: Final = re.compile(r"([1-9]\d{0,5})([smhdw])(?:-ago)?", re.ASCII)
_FROM_NOW: Final = re.compile(r"now(?:\s*([-+])\s*(\d{1,6})\s*([smhdwMy]|mo))?(?:/([smhdwMy]|mo))?", re.ASCII)
_DATE: Final = re.compile(r"\d{8}", re.ASCII)
_NUMBER: Final = re.compile(r"\d+(?:\.\d*)?(?:[eE]\+?\d+)?", re.ASCII)
_SMALLEST: Final = 10**8
"""Epoch seconds before 1973-03-03 are refused: such a number is a year or a date more often. 0 is the epoch."""
_LOST_PLUS: Final = re.compile(r"(:\d\d(?:[.,]\d+)?) (\d\d:?\d\d)$", re.ASCII)
_WORDS: Final = {"hourly": "1h", "daily": "1d", "weekly": "1w", "monthly": "1mo"}
_NO_TIME: Final = (
    "must be an ISO 8601 time such as 2026-01-31T12:00:00Z, epoch seconds or milliseconds, `now`, `now-6h`, or a"
    " time ago in s, m, h, d or w such as 6h"
)
EARLIEST: Final = 1900  # year
LATEST: Final = 2500  # year
_OUT_OF_RANGE: Final = f"is out of range; must be in the years {EARLIEST} to {LATEST}"
LONGEST: Final = timedelta(days=366 * 200)
DAY: Final = 86_400  # seconds


class Interval(NamedTuple):
    """A number of units of time."""

    size: int
    unit: Unit

    @property
    def seconds(self) -> int:
        """The nominal length in seconds; a month counts as 30 days."""
        return self.size * {"s": 1, "d": DAY, "mo": 30 * DAY}[self.unit]


def parse_interval(text: str, path: str = "interval") -> Interval:
    """Parse `30s`, `5m`, `1h`, `1d`, `1w`, `1mo` or a word such as `daily`; raises `Invalid`."""
    match = _INTERVAL.fullmatch(_WORDS.get(text, text))
    if not match:
        raise Invalid(
            "must be a whole number above 0 and one of s, m, h, d, w, mo, such as 5m or 1mo; a year is 12mo",
            path,
        )
    count, unit = int(match[1]), match[2]
    if unit in ("mo", "M"):
        interval = Interval(count, "mo")
    elif unit in ("d", "w"):
        interval = Interval(count * (7 if unit == "w" else 1), "d")
    else:
        interval = Interval(count * _UNITS[unit], "s")
    if interval.seconds > 366 * DAY:
        raise Invalid("must be at most a year", path)
    return interval


def parse_zone(name: str | None) -> ZoneInfo | None:
    """Return the IANA time zone with this name, None for UTC; raises `Invalid`."""
    if not name or name.upper() in ("UTC", "Z", "ETC/UTC"):
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Invalid("must be a time zone of the IANA database, such as Europe/Zurich", "tz") from None


def parse_time(
    text: str | None, *, now: datetime, default: datetime, path: str, zone: ZoneInfo | None = None
) -> datetime:
    """Parse a time of a query; `zone` (default UTC) is that of times without an offset and of calendar units.

    Written times (see `written_times`), epoch seconds to nanoseconds, `6h` or `6h-ago` for that long before `now`,
    and what Grafana sends: `now`, `now-1h`, `now-1M/M`. As there, `/d` is the start of the day; as `end`, its end.
    Returns a time in UTC, `default` for no text; raises `Invalid`.
    """
    text = (text or "").strip()
    if not text:
        return default
    try:
        if match := _AGO.fullmatch(text):
            when = now - timedelta(seconds=int(match[1]) * _UNITS[match[2]])
        elif match := _FROM_NOW.fullmatch(text):
            when = _from_now(match, now.astimezone(zone or UTC), rounds_up=path == "end")
        elif _NUMBER.fullmatch(text) and not _DATE.fullmatch(text):
            when = _epoch(text, path)
        else:
            when = _written(text)
    except OverflowError:
        raise Invalid(_OUT_OF_RANGE, path) from None
    except ValueError:
        raise Invalid(_NO_TIME, path) from None
    when = when if when.tzinfo else when.replace(tzinfo=zone or UTC)
    if not EARLIEST <= when.year <= LATEST:
        raise Invalid(_OUT_OF_RANGE, path)
    return when.astimezone(UTC)


def _written(text: str) -> datetime:
    if _DATE.fullmatch(text):
        return datetime.fromisoformat(text)
    try:
        return written_times.parse(text)
    except ValueError:  # a plus sign that was not percent-encoded arrives as a space
        return written_times.parse(_LOST_PLUS.sub(r"\1+\2", text))


def _epoch(text: str, path: str) -> datetime:
    if 0 < float(text) < _SMALLEST:
        raise Invalid(f"a number must be epoch seconds or milliseconds, and at least {_SMALLEST}", path)
    try:
        return timestamps.EPOCH + timedelta(microseconds=timestamps.parse_us(text))
    except InvalidMessage:
        raise Invalid(_OUT_OF_RANGE, path) from None


def _from_now(match: re.Match[str], now: datetime, *, rounds_up: bool) -> datetime:
    sign, count, unit, rounding = match.groups()
    when = now
    if sign:
        when = _shift(now, int(count) * (1 if sign == "+" else -1), unit)
    if rounding:
        when = _floor(when, rounding)
        if rounds_up:
            up = _floor(_shift(when, 1, rounding), rounding)
            # Where the clock goes back by half an hour, the next full hour on the clock can be in the past.
            when = up if up > now or sign else _floor(_shift(up, 1, rounding), rounding)
    return when


def _shift(when: datetime, count: int, unit: str) -> datetime:
    """Return the time `count` units later: hours and less by elapsed time, days and more by the wall clock."""
    if unit in ("s", "m", "h"):
        return (when.astimezone(UTC) + timedelta(seconds=count * _UNITS[unit])).astimezone(when.tzinfo)
    if unit in ("d", "w"):
        return when + timedelta(seconds=count * _UNITS[unit])
    year, month = divmod(when.year * 12 + when.month - 1 + count * (12 if unit == "y" else 1), 12)
    if not EARLIEST <= year <= LATEST:
        raise OverflowError
    return when.replace(
        year=year, month=month + 1, day=min(when.day, calendar.monthrange(year, month + 1)[1]), fold=0
    )


def _floor(when: datetime, unit: str) -> datetime:
    """Return the start of the second, minute, ... or year by the wall clock; weeks start on Monday."""
    when = when.replace(microsecond=0)
    if unit == "s":
        return when
    when = when.replace(second=0)
    if unit == "m":
        return when
    when = when.replace(minute=0)
    if unit == "h":
        return when
    when = when.replace(hour=0, fold=0)
    if unit == "w":
        return when - timedelta(days=when.weekday())
    if unit == "y":
        return when.replace(month=1, day=1)
    return when if unit == "d" else when.replace(day=1)


def parse_range(
    start: str | None,
    end: str | None,
    *,
    now: datetime,
    default: timedelta = timedelta(hours=1),
    zone: ZoneInfo | None = None,
) -> tuple[datetime, datetime]:
    """Parse a half-open range; by default it ends now and starts `default` before its end. Raises `Invalid`."""
    until = parse_time(end, now=now, default=now, path="end", zone=zone)
    since = parse_time(start, now=now, default=until - default, path="start", zone=zone)
    if since >= until:
        raise Invalid("must be before the end", "start")
    if until - since > LONGEST:
        raise Invalid("must be at most 200 years before the end", "start")
    return since, until
