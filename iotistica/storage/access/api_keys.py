"""API keys of integrations, stored as digests, with scopes and an expiry."""

from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.errors import Conflict, Invalid
from iotistica.storage.history import audit
from iotistica.storage.history.audit import Actor
from iotistica.storage.postgres import Tx, fetch_row, fetch_rows


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    key_id: UUID
    tenant_id: TenantId
    name: str
    hint: str
    role: str
    scopes: list[str] | None
    created_by: str | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


_COLUMNS: Final = "key_id, tenant_id, name, hint, role, scopes, created_by, created_at, expires_at, last_used_at"

TENANT_LIMIT: Final = 500  # keys of a tenant that are not revoked

LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('api keys ' || %(tenant)s, 0))"
ADD: Final = f"""
INSERT INTO api_keys (tenant_id, name, digest, hint, role, scopes, expires_at, created_by)
VALUES (%(tenant)s, %(name)s, %(digest)s, %(hint)s, %(role)s, %(scopes)s, %(expires)s, %(by)s)
ON CONFLICT DO NOTHING RETURNING {_COLUMNS}
"""


async def add(
    tx: Tx,
    tenant: TenantId,
    name: str,
    *,
    digest: bytes,
    hint: str,
    role: str,
    scopes: list[str] | None,
    expires: datetime | None,
    by: Actor,
) -> ApiKey:
    """Add a key; raises `Conflict` if the name is in use, and `Invalid` if there are `TENANT_LIMIT` keys."""
    parameters = {"tenant": tenant, "name": name, "digest": digest, "hint": hint, "role": role, "scopes": scopes}
    await tx.execute(LOCK, {"tenant": tenant})
    if len(await all_of(tx, tenant)) >= TENANT_LIMIT:
        raise Invalid(
            f"cannot be added: a tenant has at most {TENANT_LIMIT} API keys; revoke an unused one", "name"
        )
    row = await fetch_row(tx, ApiKey, ADD, parameters | {"expires": expires, "by": by.name})
    if row is None:
        raise Conflict(f"An API key named {name!r} exists already.")
    after = {"name": name, "role": role, "scopes": scopes, "expires": expires}
    await audit.record(tx, tenant, by, "api_key.added", ("api_key", row.key_id), after=after)
    return row


PAGE: Final = f"""
SELECT {_COLUMNS} FROM api_keys WHERE tenant_id = %(tenant)s AND revoked_at IS NULL
ORDER BY created_at, key_id LIMIT 1000
"""


async def all_of(tx: Tx, tenant: TenantId) -> list[ApiKey]:
    """Return a tenant's keys that are not revoked, including expired ones."""
    return await fetch_rows(tx, ApiKey, PAGE, {"tenant": tenant})


REVOKE: Final = """
UPDATE api_keys SET revoked_at = now()
WHERE tenant_id = %(tenant)s AND key_id = %(key)s AND revoked_at IS NULL RETURNING name
"""


async def revoke(tx: Tx, tenant: TenantId, key: UUID, *, by: Actor) -> bool:
    """Revoke a key; return False if the tenant has no such key or it is revoked already."""
    row = await (await tx.execute(REVOKE, {"tenant": tenant, "key": key})).fetchone()
    if row is None:
        return False
    await audit.record(tx, tenant, by, "api_key.revoked", ("api_key", key), before={"name": row[0]})
    return True


# Updates `last_used_at` at most once a minute, so that not every request causes a write.
FIND: Final = f"""
WITH found AS (
    SELECT {_COLUMNS} FROM api_keys
    WHERE digest = %(digest)s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
      AND EXISTS (SELECT FROM tenants t WHERE t.tenant_id = api_keys.tenant_id AND enabled)
), seen AS (
    UPDATE api_keys k SET last_used_at = now() FROM found f
    WHERE k.key_id = f.key_id AND (k.last_used_at IS NULL OR k.last_used_at < now() - interval '1 minute')
)
SELECT * FROM found
"""


async def find(tx: Tx, digest: bytes) -> ApiKey | None:
    """Return the valid key with this digest, of any enabled tenant, or None."""
    return await fetch_row(tx, ApiKey, FIND, {"digest": digest})
