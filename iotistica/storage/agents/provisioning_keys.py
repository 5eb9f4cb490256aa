"""Provisioning keys: each lets a limited number of agents register themselves."""

from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.storage.history import audit
from iotistica.storage.history.audit import Actor
from iotistica.storage.postgres import Page, Tx, fetch_page, fetch_row


class ProvisioningKey(msgspec.Struct, frozen=True, kw_only=True):
    key_id: UUID
    fleet_uuid: UUID | None
    hint: str
    description: str | None
    max_uses: int
    uses: int
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None


class KeyOwner(msgspec.Struct, frozen=True, kw_only=True):
    """The tenant and fleet of a provisioning key, which may have expired or have no uses left."""

    key_id: UUID
    tenant_id: TenantId
    fleet_uuid: UUID | None


_COLUMNS: Final = "key_id, fleet_uuid, hint, description, max_uses, uses, created_at, expires_at, last_used_at"

ADD: Final = f"""
INSERT INTO provisioning_keys (tenant_id, fleet_uuid, digest, hint, description, max_uses, expires_at)
VALUES (%(tenant)s, %(fleet)s, %(digest)s, %(hint)s, %(description)s, %(max_uses)s, %(expires)s)
RETURNING {_COLUMNS}
"""


async def add(
    tx: Tx,
    tenant: TenantId,
    *,
    digest: bytes,
    hint: str,
    fleet: UUID | None,
    description: str | None,
    max_uses: int,
    expires: datetime,
    by: Actor,
) -> ProvisioningKey:
    """Store a key with which `max_uses` agents can register; they join `fleet`, if there is one."""
    parameters = {"tenant": tenant, "digest": digest, "hint": hint, "fleet": fleet, "description": description}
    row = await fetch_row(tx, ProvisioningKey, ADD, parameters | {"max_uses": max_uses, "expires": expires})
    assert row is not None  # noqa: S101 the row was inserted
    after = {"fleet": fleet, "max_uses": max_uses, "expires": expires, "description": description}
    await audit.record(tx, tenant, by, "provisioning_key.added", ("provisioning_key", row.key_id), after=after)
    return row


PAGE: Final = f"""
SELECT {_COLUMNS} FROM provisioning_keys
WHERE tenant_id = %(tenant)s AND revoked_at IS NULL AND (%(fleet)s::uuid IS NULL OR fleet_uuid = %(fleet)s)
  AND (%(after)s::uuid IS NULL OR key_id > %(after)s)
ORDER BY key_id LIMIT %(limit)s
"""


async def page(
    tx: Tx, tenant: TenantId, *, fleet: UUID | None, after: UUID | None, limit: int
) -> Page[ProvisioningKey]:
    """Return one page of a tenant's keys that are not revoked, ordered by id; only those of `fleet`, if given."""
    parameters = {"tenant": tenant, "fleet": fleet, "after": after, "limit": limit}
    return await fetch_page(tx, ProvisioningKey, PAGE, parameters, cursor=("after",))


REVOKE: Final = """
UPDATE provisioning_keys SET revoked_at = now()
WHERE tenant_id = %(tenant)s AND key_id = %(key)s AND revoked_at IS NULL RETURNING uses, max_uses
"""


async def revoke(tx: Tx, tenant: TenantId, key: UUID, *, by: Actor) -> bool:
    """Revoke a key; False if the tenant has no such key, or it is revoked already."""
    row = await (await tx.execute(REVOKE, {"tenant": tenant, "key": key})).fetchone()
    if row is None:
        return False
    before = {"uses": row[0], "max_uses": row[1]}
    await audit.record(tx, tenant, by, "provisioning_key.revoked", ("provisioning_key", key), before=before)
    return True


FIND: Final = """
SELECT key_id, tenant_id, fleet_uuid FROM provisioning_keys JOIN tenants USING (tenant_id)
WHERE digest = %(digest)s AND revoked_at IS NULL AND enabled
"""


async def find(tx: Tx, digest: bytes) -> KeyOwner | None:
    """Return the owner of the key with this digest, among all enabled tenants; None if it is unknown or revoked."""
    return await fetch_row(tx, KeyOwner, FIND, {"digest": digest})


# The row is locked until the commit, so concurrent uses are counted one after the other.
USE: Final = """
UPDATE provisioning_keys SET uses = uses + 1, last_used_at = now()
WHERE tenant_id = %(tenant)s AND key_id = %(key)s AND revoked_at IS NULL AND uses < max_uses
  AND expires_at > now()
"""


async def use(tx: Tx, tenant: TenantId, key: UUID) -> bool:
    """Count one use of a key; False if it has no uses left, has expired or is revoked."""
    cursor = await tx.execute(USE, {"tenant": tenant, "key": key})
    return cursor.rowcount == 1
