"""Fleets: agents that belong together."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.errors import Conflict, NotFound
from iotistica.storage.history import audit
from iotistica.storage.history.audit import Actor
from iotistica.storage.postgres import Tx, fetch_row, fetch_rows


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    fleet_uuid: UUID
    name: str
    description: str | None
    tags: dict[str, str]
    created_at: datetime

    def facts(self) -> dict[str, Any]:
        """What the audit shows."""
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
    """Make a fleet; raises `Conflict`."""
    parameters = {"tenant": tenant, "name": name, "description": description, "tags": _json(tags or {})}
    row = await fetch_row(tx, Fleet, ADD, parameters)
    if row is None:
        raise Conflict(f"there is a fleet {name!r} already")
    await audit.record(tx, tenant, by, "fleet.added", ("fleet", row.fleet_uuid), after=row.facts())
    return row


PAGE: Final = f"""
SELECT {_COLUMNS} FROM fleets
WHERE tenant_id = %(tenant)s AND (%(after)s::uuid IS NULL OR fleet_uuid > %(after)s)
ORDER BY fleet_uuid LIMIT %(limit)s
"""


async def page(tx: Tx, tenant: TenantId, *, after: UUID | None, limit: int) -> list[Fleet]:
    """A tenant's fleets in order of their ids."""
    return await fetch_rows(tx, Fleet, PAGE, {"tenant": tenant, "after": after, "limit": limit})


FIND: Final = f"""
SELECT {_COLUMNS} FROM fleets
WHERE tenant_id = %(tenant)s AND (name = %(key)s OR fleet_uuid::text = %(key)s) LIMIT 1
"""


async def find(tx: Tx, tenant: TenantId, key: str) -> Fleet | None:
    """The fleet of that id or name."""
    return await fetch_row(tx, Fleet, FIND, {"tenant": tenant, "key": key})


GET_FOR_UPDATE: Final = f"""
SELECT {_COLUMNS} FROM fleets WHERE tenant_id = %(tenant)s AND fleet_uuid = %(fleet)s FOR NO KEY UPDATE
"""


async def get_for_update(tx: Tx, tenant: TenantId, fleet: UUID) -> Fleet:
    """The fleet of that id, and nobody else changes it before the commit; raises `NotFound`."""
    found = await fetch_row(tx, Fleet, GET_FOR_UPDATE, {"tenant": tenant, "fleet": fleet})
    if found is None:
        raise NotFound
    return found


UPDATE: Final = f"""
UPDATE fleets SET name = %(name)s, description = %(description)s, tags = %(tags)s::jsonb
WHERE tenant_id = %(tenant)s AND fleet_uuid = %(fleet)s
  AND NOT EXISTS (SELECT FROM fleets WHERE tenant_id = %(tenant)s AND name = %(name)s AND fleet_uuid <> %(fleet)s)
RETURNING {_COLUMNS}
"""


async def update(tx: Tx, tenant: TenantId, old: Fleet, new: Fleet, *, by: Actor) -> Fleet:
    """Write another name, description or tags; raises `Conflict`."""
    parameters = {"tenant": tenant, "fleet": old.fleet_uuid, "name": new.name, "description": new.description}
    row = await fetch_row(tx, Fleet, UPDATE, parameters | {"tags": _json(new.tags)})
    if row is None:
        raise Conflict(f"there is a fleet {new.name!r} already")
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
    """Delete a fleet with its target; its agents are in none then, and inherit nothing."""
    parameters = {"tenant": tenant, "fleet": old.fleet_uuid}
    for statement in (RELEASE_AGENTS, RELEASE_KEYS, DELETE):
        await tx.execute(statement, parameters)
    await audit.record(tx, tenant, by, "fleet.deleted", ("fleet", old.fleet_uuid), before=old.facts())


class FleetStats(msgspec.Struct, frozen=True, kw_only=True):
    """How many agents a fleet has, by their presence."""

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
    """How many agents a fleet has."""
    found = await fetch_row(tx, FleetStats, STATS, {"tenant": tenant, "fleet": fleet})
    return found or FleetStats(agents=0, online=0, silent=0, offline=0)


def _json(tags: dict[str, str]) -> str:
    return msgspec.json.encode(tags).decode()
