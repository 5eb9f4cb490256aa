"""Cursors of lists that go back in time: the time and the id of the last one shown."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, TypeVar
from uuid import UUID

from litestar.params import QueryParameter

from iotistica.errors import Invalid

Cursor = Annotated[str | None, QueryParameter(max_length=128)]
Id = TypeVar("Id", int, UUID)


def cursor(at: datetime, id_: int | UUID) -> str:
    """The cursor after a row of that time and id."""
    return urlsafe_b64encode(f"{at.isoformat()} {id_}".encode()).decode()


def parse(text: str | None) -> tuple[datetime, int] | None:
    """The time and the id that a list goes on before; raises `Invalid`."""
    return _parse(text, int)


def parse_uuid(text: str | None) -> tuple[datetime, UUID] | None:
    """The same of a list whose ids are UUIDs."""
    return _parse(text, UUID)


def _parse(text: str | None, of: Callable[[str], Id]) -> tuple[datetime, Id] | None:
    if text is None:
        return None
    try:
        at, _, id_ = urlsafe_b64decode(text.encode()).decode().partition(" ")
        return datetime.fromisoformat(at), of(id_)
    except (ValueError, binascii.Error):
        raise Invalid("not a cursor of this list", "cursor") from None
