"""Pages of lists, and the cursors that name where the next page begins."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, TypeVar
from uuid import UUID

from litestar.params import QueryParameter

from iotistica.errors import Invalid

TimeCursor = Annotated[str | None, QueryParameter(max_length=128)]
Row = TypeVar("Row")
Key = TypeVar("Key")

_UUID_LENGTH = 36  # characters


def cut_page(rows: Sequence[Row], limit: int, cursor: Callable[[Row], str]) -> tuple[list[Row], str | None]:
    """Return the first `limit` rows, and the cursor after the last of them if there are more rows.

    The caller fetches `limit + 1` rows, so that it is known whether another page follows.
    """
    page = list(rows[:limit])
    return page, cursor(page[-1]) if len(rows) > limit else None


def parse_uuid(cursor: str | None) -> UUID | None:
    """Parse the cursor of a list ordered by UUID: the last UUID of the page before.

    Raises `Invalid`, like every parser of this module.
    """
    return _parse(cursor, UUID)


def parse_number(cursor: str | None) -> int | None:
    """Parse the cursor of a list ordered by number."""
    return _parse(cursor, _number)


def parse_time(cursor: str | None) -> datetime | None:
    """Parse the cursor of a list ordered by times that are never equal."""
    return _parse(cursor, datetime.fromisoformat)


def of_time(time: datetime, id_: int | UUID) -> str:
    """Return the cursor after a row with this time and id."""
    return urlsafe_b64encode(f"{time.isoformat()} {id_}".encode()).decode()


def parse_time_and_number(cursor: str | None) -> tuple[datetime, int] | None:
    """Parse the cursor of a list ordered by time, with numbers as ids."""
    return _parse(cursor, lambda text: _time_and_id(text, int))


def parse_time_and_uuid(cursor: str | None) -> tuple[datetime, UUID] | None:
    """Parse the cursor of a list ordered by time, with UUIDs as ids."""
    return _parse(cursor, lambda text: _time_and_id(text, UUID))


def of_name(name: str, id_: UUID) -> str:
    """Return the cursor after a row with this name and id; only the first 200 characters of the name are used."""
    return urlsafe_b64encode(f"{id_}{name[:200]}".encode()).decode()


def parse_name_and_uuid(cursor: str | None) -> tuple[str, UUID] | None:
    """Parse the cursor of a list ordered by name."""
    return _parse(cursor, _name_and_uuid)


def of_series(agent: UUID, metric_name: str) -> str:
    """Return the cursor after a series."""
    return f"{agent}/{metric_name}"


def parse_series(cursor: str | None) -> tuple[UUID, str] | None:
    """Parse the cursor of a list of series, ordered by agent and metric name."""
    return _parse(cursor, lambda text: (UUID(text[:_UUID_LENGTH]), text[_UUID_LENGTH + 1 :]))


def _parse(cursor: str | None, decode: Callable[[str], Key]) -> Key | None:
    if not cursor:
        return None
    try:
        return decode(cursor)
    except (ValueError, binascii.Error):
        raise Invalid("is not a cursor of this list", "cursor") from None


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise ValueError
    return int(text)


def _time_and_id(text: str, parse_id: Callable[[str], Key]) -> tuple[datetime, Key]:
    time, _, id_ = urlsafe_b64decode(text.encode()).decode().partition(" ")
    return datetime.fromisoformat(time), parse_id(id_)


def _name_and_uuid(text: str) -> tuple[str, UUID]:
    text = urlsafe_b64decode(text.encode()).decode()
    return text[_UUID_LENGTH:].replace("\0", ""), UUID(text[:_UUID_LENGTH])
