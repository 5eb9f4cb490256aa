"""Time ranges and bucket widths as people write them in a query."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from iotistica.errors import Invalid

Unit = Literal["s", "d", "mo"]
"""Seconds are the same everywhere; days and months are the zone's."""

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_INTERVAL: Final = re.compile(r"([1-9]\d{0,6})(s|m|h|d|w|mo|M)")
_AGO: Final = re.compile(r"([1-9]\d{0,5})([smhdw])(?:-ago)?")
_WORDS: Final = {"hourly": "1h", "daily": "1d", "weekly": "1w", "monthly": "1mo"}
_NO_TIME: Final = (
    "a time is ISO 8601, such as 2026-01-31T12:00:00Z, or `now`, or so many s, m, h, d or w ago, such as 6h"
)
EARLIEST: Final = 1900  # years
LATEST: Final = 2500
LONGEST: Final = timedelta(days=366 * 200)
DAY: Final = 86_400  # seconds


class Interval(NamedTuple):
    """So many of a unit."""

    size: int
    unit: Unit

    @property
    def seconds(self) -> int:
        """Its usual length."""
        return self.size * {"s": 1, "d": DAY, "mo": 30 * DAY}[self.unit]


def parse_interval(text: str, path: str = "interval") -> Interval:
    """`30s`, `5m`, `1h`, `1d`, `1w`, `1mo` or `daily`; raises `Invalid`."""
    match = _INTERVAL.fullmatch(_WORDS.get(text, text))
    if not match:
        raise Invalid(
            "an interval is a whole number above 0 and one of s, m, h, d, w, mo, such as 5m or 1mo; a year is 12mo",
            path,
        )
    count, unit = int(match[1]), match[2]
    if unit in ("mo", "M"):
        found = Interval(count, "mo")
    elif unit in ("d", "w"):
        found = Interval(count * (7 if unit == "w" else 1), "d")
    else:
        found = Interval(count * _UNITS[unit], "s")
    if found.seconds > 366 * DAY:
        raise Invalid("an interval is a year at most", path)
    return found


def parse_zone(name: str | None) -> ZoneInfo | None:
    """The IANA zone of that name, None for UTC; raises `Invalid`."""
    if not name or name.upper() in ("UTC", "Z", "ETC/UTC"):
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Invalid("a zone is a name of the tz database, such as Europe/Zurich", "tz") from None


def parse_time(
    text: str | None, *, now: datetime, default: datetime, path: str, zone: ZoneInfo | None = None
) -> datetime:
    """A time: ISO 8601, of `zone` (or UTC) unless it says otherwise; `now`; `6h` or `6h-ago` for that long ago."""
    if not text:
        return default
    try:
        if match := _AGO.fullmatch(text):
            when = now - timedelta(seconds=int(match[1]) * _UNITS[match[2]])
        elif text == "now":
            when = now
        else:
            # A plus sign that was not percent-encoded arrives as a space.
            when = datetime.fromisoformat(text.replace(" ", "+") if text.count(" ") == 1 and "T" in text else text)
    except OverflowError:
        raise Invalid("that time is out of range", path) from None
    except ValueError:
        raise Invalid(_NO_TIME, path) from None
    when = when if when.tzinfo else when.replace(tzinfo=zone or UTC)
    if not EARLIEST <= when.year <= LATEST:
        raise Invalid("that time is out of range", path)
    return when.astimezone(UTC)


def parse_range(
    start: str | None,
    end: str | None,
    *,
    now: datetime,
    default: timedelta = timedelta(hours=1),
    zone: ZoneInfo | None = None,
) -> tuple[datetime, datetime]:
    """A half-open range; without an end it ends now, without a start it begins `default` before its end."""
    until = parse_time(end, now=now, default=now, path="end", zone=zone)
    since = parse_time(start, now=now, default=until - default, path="start", zone=zone)
    if since >= until:
        raise Invalid("the start must be before the end", "start")
    if until - since > LONGEST:
        raise Invalid("the range is too long", "start")
    return since, until
