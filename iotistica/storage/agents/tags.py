"""Tags of agents, one row per tag, and the definitions of tag keys."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from iotistica.domain.agents.tag_selectors import TAGS_LIMIT
from iotistica.domain.ids import TenantId
from iotistica.errors import Conflict, Invalid, NotFound
from iotistica.storage.history import audit
from iotistica.storage.history.audit import Actor
from iotistica.storage.postgres import Tx, fetch_row, fetch_rows

GET: Final = (
    "SELECT key, value FROM agent_tags WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s ORDER BY key"
)


async def get(tx: Tx, tenant: TenantId, agent: UUID) -> dict[str, str]:
    """Return the tags of an agent."""
    cursor = await tx.execute(GET, {"tenant": tenant, "agent": agent})
    return dict(await cursor.fetchall())


LOCK: Final = """
SELECT agent_uuid FROM agents WHERE tenant_id = %(tenant)s AND agent_uuid = ANY(%(agents)s)
ORDER BY agent_uuid FOR NO KEY UPDATE
"""
REMOVE: Final = """
DELETE FROM agent_tags WHERE tenant_id = %(tenant)s AND agent_uuid = ANY(%(agents)s)
  AND (key = ANY(%(removed)s) OR %(whole)s AND key <> ALL(%(keys)s))
"""
SET: Final = """
INSERT INTO agent_tags AS t (tenant_id, agent_uuid, key, value)
SELECT %(tenant)s, agent_uuid, key, value
FROM unnest(%(agents)s::uuid[]) agent_uuid, unnest(%(keys)s::text[], %(values)s::text[]) AS n (key, value)
ON CONFLICT (agent_uuid, key) DO UPDATE SET value = excluded.value WHERE t.value <> excluded.value
"""
TOO_MANY: Final = """
SELECT agent_uuid FROM agent_tags WHERE tenant_id = %(tenant)s AND agent_uuid = ANY(%(agents)s)
GROUP BY agent_uuid HAVING count(*) > %(most)s LIMIT 1
"""


async def change(
    tx: Tx,
    tenant: TenantId,
    agents: Sequence[UUID],
    tags: Mapping[str, str],
    *,
    removed: Sequence[str] = (),
    whole: bool = False,
    by: Actor,
) -> set[UUID]:
    """Set tags of agents and remove the keys `removed`, or all other keys if `whole`; return the agents that exist.

    Raises `Invalid` if an agent would have more than `TAGS_LIMIT` tags.
    """
    parameters: dict[str, Any] = {"tenant": tenant, "agents": list(agents)}
    known = {row[0] for row in await (await tx.execute(LOCK, parameters)).fetchall()}
    if not known:
        return known
    parameters |= {"agents": sorted(known), "removed": list(removed), "whole": whole}
    parameters |= {"keys": list(tags), "values": list(tags.values()), "most": TAGS_LIMIT}
    await tx.execute(REMOVE, parameters)
    await tx.execute(SET, parameters)
    if row := await (await tx.execute(TOO_MANY, parameters)).fetchone():
        raise Invalid(f"must not give agent {row[0]} more than {TAGS_LIMIT} tags", "tags")
    after = {"tags": dict(tags), "removed": list(removed), "whole": whole}
    subject = ("agent", next(iter(known))) if len(known) == 1 else ("agents", len(known))
    await audit.record(tx, tenant, by, "agents.tagged", subject, after=after)
    return known


KEYS: Final = """
SELECT key, count(*) AS agents FROM agent_tags WHERE tenant_id = %(tenant)s GROUP BY key ORDER BY key LIMIT 1000
"""
VALUES: Final = """
SELECT value, count(*) AS agents FROM agent_tags WHERE tenant_id = %(tenant)s AND key = %(key)s
GROUP BY value ORDER BY value LIMIT 1000
"""


async def keys(tx: Tx, tenant: TenantId) -> dict[str, int]:
    """Return the keys in use, with the number of agents that have each."""
    return dict(await (await tx.execute(KEYS, {"tenant": tenant})).fetchall())


async def values(tx: Tx, tenant: TenantId, key: str) -> dict[str, int]:
    """Return the values of a key in use, with the number of agents that have each."""
    return dict(await (await tx.execute(VALUES, {"tenant": tenant, "key": key})).fetchall())


class TagDefinition(msgspec.Struct, frozen=True, kw_only=True):
    key: str
    description: str | None
    values: list[str]
    created_at: datetime


DEFINITIONS: Final = """
SELECT key, description, values, created_at FROM tag_definitions
WHERE tenant_id = %(tenant)s AND (%(keys)s::text[] IS NULL OR key = ANY(%(keys)s)) ORDER BY key LIMIT 1000
"""
DEFINE: Final = """
INSERT INTO tag_definitions (tenant_id, key, description, values)
VALUES (%(tenant)s, %(key)s, %(description)s, %(values)s)
ON CONFLICT DO NOTHING RETURNING key, description, values, created_at
"""
REDEFINE: Final = """
UPDATE tag_definitions SET description = %(description)s, values = %(values)s
WHERE tenant_id = %(tenant)s AND key = %(key)s RETURNING key, description, values, created_at
"""
UNDEFINED_VALUE: Final = """
SELECT value FROM agent_tags WHERE tenant_id = %(tenant)s AND key = %(key)s AND value <> ALL(%(values)s) LIMIT 1
"""
UNDEFINE: Final = "DELETE FROM tag_definitions WHERE tenant_id = %(tenant)s AND key = %(key)s"


async def definitions(tx: Tx, tenant: TenantId, keys: Sequence[str] | None = None) -> list[TagDefinition]:
    """Return the definitions of a tenant's keys, or of these `keys` only."""
    return await fetch_rows(
        tx, TagDefinition, DEFINITIONS, {"tenant": tenant, "keys": list(keys) if keys else None}
    )


async def define(
    tx: Tx,
    tenant: TenantId,
    key: str,
    *,
    description: str | None,
    values: Sequence[str],
    replace: bool,
    by: Actor,
) -> TagDefinition:
    """Define a key, or `replace` its definition; if `values` is not empty, the key accepts only these values.

    Raises `Conflict` if the key is already defined or an agent has another value, and `NotFound` if `replace` is
    set and the key is not defined.
    """
    parameters = {"tenant": tenant, "key": key, "description": description, "values": list(values)}
    if replace and not await definitions(tx, tenant, [key]):
        raise NotFound
    if values and (row := await (await tx.execute(UNDEFINED_VALUE, parameters)).fetchone()):
        raise Conflict(f"An agent has {key}={row[0]!r}, which is not one of these values; change that tag first.")
    definition = await fetch_row(tx, TagDefinition, REDEFINE if replace else DEFINE, parameters)
    if definition is None:
        raise Conflict(f"The key {key!r} is already defined; use PUT to change it.")
    after = {"description": description, "values": list(values)}
    await audit.record(tx, tenant, by, "tag.defined", ("tag", key), after=after)
    return definition


async def undefine(tx: Tx, tenant: TenantId, key: str, *, by: Actor) -> None:
    """Delete a definition; tags stay as they are. Raises `NotFound`."""
    if not (await tx.execute(UNDEFINE, {"tenant": tenant, "key": key})).rowcount:
        raise NotFound
    await audit.record(tx, tenant, by, "tag.undefined", ("tag", key))


INHERIT: Final = """
INSERT INTO agent_tags (tenant_id, agent_uuid, key, value)
SELECT tenant_id, %(new)s, key, value FROM agent_tags WHERE tenant_id = %(tenant)s AND agent_uuid = %(old)s
ON CONFLICT DO NOTHING
"""


async def inherit(tx: Tx, tenant: TenantId, old: UUID, new: UUID) -> None:
    """Copy to the agent `new` the tags of the agent `old` whose keys it does not have."""
    await tx.execute(INHERIT, {"tenant": tenant, "old": old, "new": new})
