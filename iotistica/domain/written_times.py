"""Parses times that are written as text: ISO 8601, what RFC 3339 allows beyond Python's parser, and RFC 2822.

A form is accepted where it can mean one time only. `11/12/2026` and `10:00 CST` in the style of `date` are not.
"""

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

_MONTHS: Final = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_US_ZONES: Final = {"est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7, "mdt": -6, "pst": -8, "pdt": -7}
"""Hours from UTC (RFC 2822, 4.3)."""
_CLOCK: Final = r"(?P<hour>\d\d?):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<fraction>\d+))?)?"
_ZONE: Final = (
    r"(?:\s*(?:(?P<utc>z|utc|gmt|ut)"
    r"|(?:utc|gmt)?(?P<sign>[-+\u2212])(?P<offset_hours>\d\d):?(?P<offset_minutes>\d\d)?(?:\s+[a-z]{1,5})?)"
    r"(?:\[[^\]]*\])?)?"  # the zone's name (RFC 9557); the offset counts
)
_COMMENT: Final = r"(?:\s*\([^()]*\))?"
_DAY: Final = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]{0,6},?\s+)?"
_MONTH: Final = r"(?P<month>[a-z]{3,9})"
_FORMS: Final = tuple(
    re.compile(form, re.ASCII | re.IGNORECASE)
    for form in (
        # ISO 8601, extended and basic
        rf"(?P<year>\d{{4}})([-/.])(?P<month>\d\d?)\2(?P<day>\d\d?)(?:(?:t|[ _]+){_CLOCK}{_ZONE})?",
        r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)t(?P<hour>\d\d)(?P<minute>\d\d)"
        rf"(?:(?P<second>\d\d)(?:[.,](?P<fraction>\d+))?)?{_ZONE}",
        # RFC 2822 and RFC 850: Thu, 26 Nov 2026 10:00:00 +0100
        rf"{_DAY}(?P<day>\d\d?)[\s-]{_MONTH}[\s-](?P<year>\d{{4}}|\d\d)\s+{_CLOCK}"
        rf"(?:\s*(?P<us>{'|'.join(_US_ZONES)})|{_ZONE}){_COMMENT}",
        # JavaScript: Thu Nov 26 2026 10:00:00 GMT+0100 (Central European Standard Time)
        rf"{_DAY}{_MONTH}\s+(?P<day>\d\d?)\s+(?P<year>\d{{4}})\s+{_CLOCK}{_ZONE}{_COMMENT}",
        # asctime and date: Thu Nov 26 10:00:00 UTC 2026
        rf"{_DAY}{_MONTH}\s+(?P<day>\d\d?)\s+{_CLOCK}{_ZONE}\s+(?P<year>\d{{4}})",
    )
)


def parse(text: str) -> datetime:
    """Return the time that a text says, without a zone if it names none; raises `ValueError`.

    The second 60 is the start of the next minute, and 24:00 the start of the next day (RFC 3339, 5.7; ISO 8601).
    Digits beyond microseconds are cut off.
    """
    # Python's parser allows any character between date and time: it reads 1795011512345 as the year 1795.
    if text[10:11] in ("T", " "):
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            pass
    text = text.strip()
    for form in _FORMS:
        if match := form.fullmatch(text):
            return _time(match.groupdict())
    if re.fullmatch(r"\d{4}-?W\d\d(?:-?[1-7])?", text, re.ASCII):  # a week of ISO 8601
        return datetime.fromisoformat(text)
    raise ValueError("not a time")


def _time(parts: dict[str, str | None]) -> datetime:
    hour, minute, second = (int(parts[name] or 0) for name in ("hour", "minute", "second"))
    microsecond = int((parts.get("fraction") or "")[:6].ljust(6, "0"))
    is_midnight = hour == 24 and not (minute or second or microsecond)
    is_leap = second == 60
    day = datetime(_year(parts["year"] or ""), _month(parts["month"] or ""), int(parts["day"] or 0))
    clock = day.replace(
        hour=0 if is_midnight else hour,
        minute=minute,
        second=59 if is_leap else second,
        microsecond=microsecond,
        tzinfo=_zone(parts),
    )
    try:
        return clock + timedelta(days=is_midnight, seconds=is_leap)
    except OverflowError:
        raise ValueError("after the year 9999") from None


def _year(text: str) -> int:
    year = int(text)
    return year if len(text) == 4 else year + (2000 if year < 50 else 1900)  # RFC 2822, 4.3


def _month(text: str) -> int:
    if text.isdigit():
        return int(text)
    word = text.lower()
    for number, name in enumerate(_MONTHS, 1):
        if word in (name, name[:3]):
            return number
    raise ValueError("not a month")


def _zone(parts: dict[str, str | None]) -> timezone | None:
    if parts.get("utc"):
        return UTC
    if us := parts.get("us"):
        return timezone(timedelta(hours=_US_ZONES[us.lower()]))
    if sign := parts.get("sign"):
        minutes = int(parts["offset_minutes"] or 0)
        if minutes > 59:
            raise ValueError("not an offset")
        offset = timedelta(hours=int(parts["offset_hours"] or 0), minutes=minutes)
        return timezone(offset if sign == "+" else -offset)
    return None
