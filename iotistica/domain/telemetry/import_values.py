"""Cells of imported tables: numbers with a decimal comma, dates in national order, and words for no value."""

import re
from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from iotistica.domain import exact_numbers, written_times
from iotistica.errors import InvalidMessage

DateOrder = Literal["us", "german"]
"""Month before day, or day before month; other dates are understood without being told."""
Decimals = Literal[".", ","]
NOTHING: Final = frozenset(
    ("", "null", "none", "nil", "na", "n/a", "#n/a", "undefined", "unavailable", "unknown", "-", "\\n")
)
"""What programs write, in lower case, where there is no value."""
TRUTHS: Final = {"true": True, "false": False}
_PLAIN: Final = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?", re.ASCII)
_WITH_COMMA: Final = re.compile(r"[-+]?\d+,\d+(?:[eE][-+]?\d+)?", re.ASCII)
_GROUPED: Final = re.compile(r"[-+]?[1-9]\d{0,2}(?:\.\d{3})+(?:,\d+)?", re.ASCII)
_ENGLISH: Final = re.compile(r"[-+]?[1-9]\d{0,2}(?:(?:,\d{3})+\.\d+|(?:,\d{3}){2,})", re.ASCII)
"""English groups, which no number with a decimal comma looks like."""
_WITH_POINT: Final = re.compile(r"[-+]?\d+\.\d+", re.ASCII)
_WITH_UNIT: Final = re.compile(
    r"([-+]?\d+(?:[.,]\d+)?)(?:\s+([^\d\s.,;:+-]\S{0,15})|([°%‰µμΩ€$£][^\d\s]{0,15}))", re.ASCII
)
"""A unit stands behind a blank, unless it begins with a sign: `12ab` and `0xFF` are no numbers."""
_DATE: Final = re.compile(
    r"(\d{1,2})([./-])(\d{1,2})\2(\d{4}|\d{2})"
    r"(?:[ T,]+(\d{1,2}):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?(?:\s*([ap])\.?m\.?)?)?",
    re.ASCII | re.IGNORECASE,
)


def decimals_of(cells: Iterable[str]) -> Decimals:
    """Return the decimal mark of these cells: a comma, unless one of them has a point before its decimals."""
    commas = False
    for cell in cells:
        text = cell.strip()
        if _ENGLISH.fullmatch(text) or (_WITH_POINT.fullmatch(text) and not _GROUPED.fullmatch(text)):
            return "."
        commas = commas or ("," in text and bool(_WITH_COMMA.fullmatch(text) or _GROUPED.fullmatch(text)))
    return "," if commas else "."


def value_of(cell: Any, decimals: Decimals) -> Any:
    """Return what a cell says: None, a truth, a number (exactly, see `exact_numbers`) or text."""
    if isinstance(cell, Decimal):
        return exact_numbers.of_json(str(cell)) if cell.is_finite() else str(cell)
    if isinstance(cell, (datetime, date)):
        return cell.isoformat()
    if not isinstance(cell, str):
        return cell
    text = cell.strip()
    if text.lower() in NOTHING:
        return None
    if text.lower() in TRUTHS:
        return TRUTHS[text.lower()]
    if decimals == ",":
        if _GROUPED.fullmatch(text):
            text = text.replace(".", "").replace(",", ".")
        elif _WITH_COMMA.fullmatch(text):
            text = text.replace(",", ".")
    elif _ENGLISH.fullmatch(text):
        text = text.replace(",", "")
    if match := _PLAIN.fullmatch(text):
        return exact_numbers.of_json(text) if match[1] or len(text) > exact_numbers.DIGITS else int(text)
    return text if text != cell.strip() else cell


def split_unit(cell: str) -> tuple[str, str] | None:
    """Return number and unit of a cell such as `21.5 °C`; None if it is not one."""
    match = _WITH_UNIT.fullmatch(cell.strip())
    return (match[1], match[2] or match[3]) if match else None


def order_of(cells: Iterable[str]) -> DateOrder | None:
    """Return the order of day and month in these dates; None where they could be read both ways, or disagree.

    A year of two digits says nothing, since it could come first.
    """
    orders: set[DateOrder] = set()
    for cell in cells:
        match = _DATE.fullmatch(cell.strip())
        if (match and match[2] == ".") or (match and len(match[4]) == 4 and int(match[1]) > 12):
            orders.add("german")
        elif match and len(match[4]) == 4 and int(match[3]) > 12:
            orders.add("us")
    return orders.pop() if len(orders) == 1 else None


def is_bare_date(cell: str) -> bool:
    """Whether a cell is a date without a time of day."""
    match = _DATE.fullmatch(cell.strip())
    return match[5] is None if match else re.fullmatch(r"\d{4}[-/.]\d\d?[-/.]\d\d?", cell.strip()) is not None


def is_clock(cell: str) -> bool:
    """Whether a cell is a time of day."""
    return re.fullmatch(r"\d{1,2}:\d\d(:\d\d([.,]\d+)?)?(\s*[ap]\.?m\.?)?", cell.strip(), re.IGNORECASE) is not None


def time_of(cell: Any, order: DateOrder | None, zone: ZoneInfo | None) -> Any:
    """Return a cell as a timestamp that `parse_us` understands; times without a zone are in `zone` (default UTC).

    Raises `InvalidMessage("bad_time")` for a date whose order is not known.
    """
    if isinstance(cell, datetime):
        return _in_zone(cell, zone)
    if isinstance(cell, date):
        return datetime(cell.year, cell.month, cell.day, tzinfo=zone)
    if not isinstance(cell, str):
        return cell
    text = cell.strip()
    if match := _DATE.fullmatch(text):
        if order is None:
            raise InvalidMessage(
                "bad_time", f"{text[:30]} can be read in two ways: give --date-format us or german"
            )
        return _in_zone(_national(match, order), zone)
    if zone is None:
        return text
    try:
        return _in_zone(written_times.parse(text), zone)
    except ValueError:
        return text


def _national(match: re.Match[str], order: DateOrder) -> datetime:
    first, second = int(match[1]), int(match[3])
    day, month = (second, first) if order == "us" else (first, second)
    year = int(match[4]) if len(match[4]) == 4 else 2000 + int(match[4])
    hour = int(match[5] or 0)
    if match[9]:
        hour = hour % 12 + (12 if match[9].lower() == "p" else 0)
    micros = int((match[8] or "0").ljust(6, "0")[:6])
    try:
        return datetime(year, month, day, hour, int(match[6] or 0), int(match[7] or 0), micros)
    except ValueError as exc:
        raise InvalidMessage("bad_time", f"{match[0][:30]}: {exc}") from None


def _in_zone(when: datetime, zone: ZoneInfo | None) -> datetime:
    """Return a time in a zone; raises `InvalidMessage` for one that a change of clocks has twice or never."""
    if when.tzinfo or zone is None:
        return when
    local = when.replace(tzinfo=zone)
    if local.utcoffset() != local.replace(fold=1).utcoffset():
        raise InvalidMessage("bad_time", f"{when} is not one time in {zone}: its clocks change then")
    return local
