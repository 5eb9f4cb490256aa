"""Fleets: agents that belong together."""

from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.errors import Conflict
from iotistica.storage import audit
from iotistica.storage.audit import Actor
from iotistica.storage.postgres import Tx, row_as, rows_as


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    fleet_uuid: UUID
    name: str
    created_at: datetime


ADD: Final = """
INSERT INTO fleets (tenant_id, name) VALUES (%(tenant)s, %(name)s)
ON CONFLICT DO NOTHING RETURNING fleet_uuid, name, created_at
"""


async def add(tx: Tx, tenant: TenantId, name: str, *, by: Actor) -> Fleet:
    """Make a fleet; raises `Conflict`."""
    row = await row_as(tx, Fleet, ADD, {"tenant": tenant, "name": name})
    if row is None:
        raise Conflict(f"there is a fleet {name!r} already")
    await audit.record(tx, tenant, by, "fleet.added", ("fleet", row.fleet_uuid), after={"name": name})
    return row


PAGE: Final = """
SELECT fleet_uuid, name, created_at FROM fleets
WHERE tenant_id = %(tenant)s AND (%(after)s::uuid IS NULL OR fleet_uuid > %(after)s)
ORDER BY fleet_uuid LIMIT %(limit)s
"""


async def page(tx: Tx, tenant: TenantId, *, after: UUID | None, limit: int) -> list[Fleet]:
    """A tenant's fleets in order of their ids."""
    return await rows_as(tx, Fleet, PAGE, {"tenant": tenant, "after": after, "limit": limit})


FIND: Final = """
SELECT fleet_uuid, name, created_at FROM fleets
WHERE tenant_id = %(tenant)s AND (name = %(key)s OR fleet_uuid::text = %(key)s) LIMIT 1
"""


async def find(tx: Tx, tenant: TenantId, key: str) -> Fleet | None:
    """The fleet of that id or name."""
    return await row_as(tx, Fleet, FIND, {"tenant": tenant, "key": key})
