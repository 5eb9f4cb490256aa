"""Parses the times, time ranges, time zones and bucket widths in queries."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from iotistica.errors import Invalid

Unit = Literal["s", "d", "mo"]
"""Seconds have a fixed length; the length of a day or a month depends on the time zone."""

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_INTERVAL: Final = re.compile(r"([1-9]\d{0,6})(s|m|h|d|w|mo|M)")
_AGO: Final = re.compile(r"([1-9]\d{0,5})([smhdw])(?:-ago)?")
_WORDS: Final = {"hourly": "1h", "daily": "1d", "weekly": "1w", "monthly": "1mo"}
_NO_TIME: Final = (
    "must be an ISO 8601 time such as 2026-01-31T12:00:00Z, `now`, or a time ago in s, m, h, d or w such as 6h"
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
    """Parse ISO 8601 (in `zone` or UTC if it has no offset), `now`, or `6h` or `6h-ago` for that long before `now`.

    Returns a time in UTC, `default` for no text; raises `Invalid`.
    """
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
        raise Invalid(_OUT_OF_RANGE, path) from None
    except ValueError:
        raise Invalid(_NO_TIME, path) from None
    when = when if when.tzinfo else when.replace(tzinfo=zone or UTC)
    if not EARLIEST <= when.year <= LATEST:
        raise Invalid(_OUT_OF_RANGE, path)
    return when.astimezone(UTC)


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
