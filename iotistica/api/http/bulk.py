"""Results of bulk changes: one result for each agent."""

from collections.abc import Collection, Sequence
from typing import Final, Literal
from uuid import UUID

import msgspec

AGENTS_LIMIT: Final = 10_000  # agents in one request


class BulkResult(msgspec.Struct, frozen=True, kw_only=True):
    uuid: UUID
    status: Literal["ok", "not_found"]


class BulkResults(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    results: list[BulkResult]
    changed: int
    not_found: int


def results(asked: Sequence[UUID], done: Collection[UUID]) -> BulkResults:
    """Return the results in the order of the request, each agent once."""
    rows = [BulkResult(uuid=agent, status="ok" if agent in done else "not_found") for agent in dict.fromkeys(asked)]
    changed = sum(row.status == "ok" for row in rows)
    return BulkResults(results=rows, changed=changed, not_found=len(rows) - changed)
