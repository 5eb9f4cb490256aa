"""What happened to each agent, in the order of time."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.storage.postgres import Tx, rows_as

DAYS: Final = 90  # kept
PORTION: Final = 20_000  # rows forgotten in one transaction


class Happening(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to an agent; no secret is ever in its details."""

    agent: UUID
    at: datetime
    kind: str
    details: dict[str, Any]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    at: datetime
    kind: str
    details: dict[str, Any]


ADD: Final = """
INSERT INTO agent_timeline (tenant_id, agent_uuid, at, kind, details)
SELECT %(tenant)s, * FROM unnest(%(agents)s::uuid[], %(at)s::timestamptz[], %(kinds)s::text[], %(details)s::jsonb[])
"""


async def add(tx: Tx, tenant: TenantId, happened: Sequence[Happening]) -> None:
    """Write down what happened to agents of a tenant."""
    if not happened:
        return
    await tx.execute(
        ADD,
        {
            "tenant": tenant,
            "agents": [one.agent for one in happened],
            "at": [one.at for one in happened],
            "kinds": [one.kind for one in happened],
            "details": [msgspec.json.encode(one.details).decode() for one in happened],
        },
    )


PAGE: Final = """
SELECT id, at, kind, details FROM agent_timeline
WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s
  AND (%(at)s::timestamptz IS NULL OR (at, id) < (%(at)s, %(id)s))
  AND (%(kinds)s::text[] IS NULL OR kind = ANY(%(kinds)s))
ORDER BY at DESC, id DESC LIMIT %(limit)s
"""


async def page(
    tx: Tx,
    tenant: TenantId,
    agent: UUID,
    *,
    before: tuple[datetime, int] | None,
    kinds: Sequence[str] | None,
    limit: int,
) -> list[Row]:
    """What happened to an agent, the newest first, older than `before`."""
    at, id_ = before or (None, None)
    parameters = {"tenant": tenant, "agent": agent, "at": at, "id": id_, "limit": limit}
    return await rows_as(tx, Row, PAGE, parameters | {"kinds": list(kinds) if kinds else None})


FORGET: Final = """
DELETE FROM agent_timeline WHERE id = ANY(ARRAY(
    SELECT id FROM agent_timeline WHERE at < %(before)s ORDER BY at LIMIT %(most)s))
"""


async def forget(tx: Tx, *, before: datetime) -> int:
    """Forget some of what is older; how much."""
    return (await tx.execute(FORGET, {"before": before, "most": PORTION})).rowcount
