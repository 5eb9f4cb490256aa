"""One change of many agents: a result for each of them."""

from collections.abc import Collection, Sequence
from typing import Final, Literal
from uuid import UUID

import msgspec

AGENTS_LIMIT: Final = 10_000  # agents of one call


class BulkResult(msgspec.Struct, frozen=True, kw_only=True):
    uuid: UUID
    status: Literal["ok", "not_found"]


class BulkResults(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    results: list[BulkResult]
    changed: int
    not_found: int


def results(asked: Sequence[UUID], done: Collection[UUID]) -> BulkResults:
    """The answer, in the order in which agents were named, each once."""
    rows = [BulkResult(uuid=one, status="ok" if one in done else "not_found") for one in dict.fromkeys(asked)]
    changed = sum(row.status == "ok" for row in rows)
    return BulkResults(results=rows, changed=changed, not_found=len(rows) - changed)
