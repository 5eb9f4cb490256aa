"""Cursors of lists that go back in time: the time and the id of the last one shown."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime

from iotistica.errors import Invalid


def cursor(at: datetime, id_: int) -> str:
    """The cursor after a row of that time and id."""
    return urlsafe_b64encode(f"{at.isoformat()} {id_}".encode()).decode()


def parse(text: str | None) -> tuple[datetime, int] | None:
    """The time and the id that a list goes on before; raises `Invalid`."""
    if text is None:
        return None
    try:
        at, _, id_ = urlsafe_b64decode(text.encode()).decode().partition(" ")
        return datetime.fromisoformat(at), int(id_)
    except (ValueError, binascii.Error):
        raise Invalid("not a cursor of this list", "cursor") from None
