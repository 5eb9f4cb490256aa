"""One change of many agents: a result for each of them."""

from collections.abc import Collection, Sequence
from typing import Final, Literal
from uuid import UUID

import msgspec

MOST: Final = 10_000  # agents of one call


class Result(msgspec.Struct, frozen=True, kw_only=True):
    uuid: UUID
    status: Literal["ok", "not_found"]


class Results(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    results: list[Result]
    changed: int
    not_found: int


def results(asked: Sequence[UUID], done: Collection[UUID]) -> Results:
    """The answer, in the order in which agents were named, each once."""
    rows = [Result(uuid=one, status="ok" if one in done else "not_found") for one in dict.fromkeys(asked)]
    changed = sum(row.status == "ok" for row in rows)
    return Results(results=rows, changed=changed, not_found=len(rows) - changed)
