"""Values as parameters of type jsonb."""

from typing import overload

import msgspec


@overload
def jsonb(value: None) -> None: ...


@overload
def jsonb(value: object) -> str: ...


def jsonb(value: object) -> str | None:
    """Return a value as JSON text, for a parameter that the statement casts to jsonb; None is SQL's NULL."""
    return None if value is None else msgspec.json.encode(value).decode()
