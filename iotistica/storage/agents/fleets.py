"""Fleets: named groups of agents."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.errors import Conflict, NotFound
from iotistica.storage.history import audit
from iotistica.storage.history.audit import Actor
from iotistica.storage.jsonb import jsonb
from iotistica.storage.postgres import Page, Tx, fetch_page, fetch_row


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    fleet_uuid: UUID
    name: str
    description: str | None
    tags: dict[str, str]
    created_at: datetime

    def facts(self) -> dict[str, Any]:
        """Return the fields that the audit log records."""
        return {"name": self.name, "description": self.description, "tags": self.tags}


_COLUMNS: Final = "fleet_uuid, name, description, tags, created_at"
ADD: Final = f"""
INSERT INTO fleets (tenant_id, name, description, tags)
VALUES (%(tenant)s, %(name)s, %(description)s, %(tags)s::jsonb)
ON CONFLICT DO NOTHING RETURNING {_COLUMNS}
"""


async def add(
    tx: Tx,
    tenant: TenantId,
    name: str,
    *,
    description: str | None = None,
    tags: dict[str, str] | None = None,
    by: Actor,
) -> Fleet:
    """Store a fleet; raises `Conflict` if the tenant has a fleet of this name."""
    parameters = {"tenant": tenant, "name": name, "description": description, "tags": jsonb(tags or {})}
    row = await fetch_row(tx, Fleet, ADD, parameters)
    if row is None:
        raise Conflict(f"A fleet {name!r} already exists.")
    await audit.record(tx, tenant, by, "fleet.added", ("fleet", row.fleet_uuid), after=row.facts())
    return row


PAGE: Final = f"""
SELECT {_COLUMNS} FROM fleets
WHERE tenant_id = %(tenant)s AND (%(after)s::uuid IS NULL OR fleet_uuid > %(after)s)
ORDER BY fleet_uuid LIMIT %(limit)s
"""


async def page(tx: Tx, tenant: TenantId, *, after: UUID | None, limit: int) -> Page[Fleet]:
    """Return one page of a tenant's fleets, ordered by id."""
    return await fetch_page(tx, Fleet, PAGE, {"tenant": tenant, "after": after, "limit": limit}, cursor=("after",))


FIND: Final = f"""
SELECT {_COLUMNS} FROM fleets
WHERE tenant_id = %(tenant)s AND (name = %(key)s OR fleet_uuid::text = %(key)s) LIMIT 1
"""


async def find(tx: Tx, tenant: TenantId, key: str) -> Fleet | None:
    """Return the fleet with this id or name."""
    return await fetch_row(tx, Fleet, FIND, {"tenant": tenant, "key": key})


GET_FOR_UPDATE: Final = f"""
SELECT {_COLUMNS} FROM fleets WHERE tenant_id = %(tenant)s AND fleet_uuid = %(fleet)s FOR NO KEY UPDATE
"""


async def get_for_update(tx: Tx, tenant: TenantId, fleet: UUID) -> Fleet:
    """Return the fleet with this id, locked until the commit; raises `NotFound`."""
    row = await fetch_row(tx, Fleet, GET_FOR_UPDATE, {"tenant": tenant, "fleet": fleet})
    if row is None:
        raise NotFound
    return row


UPDATE: Final = f"""
UPDATE fleets SET name = %(name)s, description = %(description)s, tags = %(tags)s::jsonb
WHERE tenant_id = %(tenant)s AND fleet_uuid = %(fleet)s
  AND NOT EXISTS (SELECT FROM fleets WHERE tenant_id = %(tenant)s AND name = %(name)s AND fleet_uuid <> %(fleet)s)
RETURNING {_COLUMNS}
"""


async def update(tx: Tx, tenant: TenantId, old: Fleet, new: Fleet, *, by: Actor) -> Fleet:
    """Store a new name, description or tags; raises `Conflict` if another fleet has this name."""
    parameters = {"tenant": tenant, "fleet": old.fleet_uuid, "name": new.name, "description": new.description}
    row = await fetch_row(tx, Fleet, UPDATE, parameters | {"tags": jsonb(new.tags)})
    if row is None:
        raise Conflict(f"A fleet {new.name!r} already exists.")
    subject = ("fleet", old.fleet_uuid)
    await audit.record(tx, tenant, by, "fleet.changed", subject, before=old.facts(), after=row.facts())
    return row


RELEASE_AGENTS: Final = """
UPDATE agents SET fleet_uuid = NULL WHERE tenant_id = %(tenant)s AND fleet_uuid = %(fleet)s
"""
RELEASE_KEYS: Final = """
UPDATE provisioning_keys SET fleet_uuid = NULL WHERE tenant_id = %(tenant)s AND fleet_uuid = %(fleet)s
"""
DELETE: Final = "DELETE FROM fleets WHERE tenant_id = %(tenant)s AND fleet_uuid = %(fleet)s"


async def delete(tx: Tx, tenant: TenantId, old: Fleet, *, by: Actor) -> None:
    """Delete a fleet with its target; its agents then are in no fleet and inherit nothing."""
    parameters = {"tenant": tenant, "fleet": old.fleet_uuid}
    for statement in (RELEASE_AGENTS, RELEASE_KEYS, DELETE):
        await tx.execute(statement, parameters)
    await audit.record(tx, tenant, by, "fleet.deleted", ("fleet", old.fleet_uuid), before=old.facts())


class FleetStats(msgspec.Struct, frozen=True, kw_only=True):
    """Number of agents of a fleet, in total and by presence."""

    agents: int
    online: int
    silent: int
    offline: int


STATS: Final = """
SELECT count(*) AS agents, count(*) FILTER (WHERE p.status = 'online') AS online,
       count(*) FILTER (WHERE p.status = 'silent') AS silent,
       count(*) FILTER (WHERE p.status = 'offline') AS offline
FROM agents a LEFT JOIN agent_presence p USING (agent_uuid)
WHERE a.tenant_id = %(tenant)s AND a.fleet_uuid = %(fleet)s
"""


async def stats(tx: Tx, tenant: TenantId, fleet: UUID) -> FleetStats:
    """Return the number of agents of a fleet, in total and by presence."""
    row = await fetch_row(tx, FleetStats, STATS, {"tenant": tenant, "fleet": fleet})
    return row or FleetStats(agents=0, online=0, silent=0, offline=0)
