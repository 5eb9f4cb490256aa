"""Statements for tenants."""

import secrets
from datetime import datetime
from typing import Final

import msgspec

from iotistica.domain.ids import TENANT_BYTES, TenantId
from iotistica.errors import Conflict
from iotistica.storage.history import audit
from iotistica.storage.history.audit import Actor
from iotistica.storage.postgres import Tx, fetch_row, fetch_rows


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    tenant_id: TenantId
    name: str
    enabled: bool
    created_at: datetime
    quota_agents: int | None
    quota_series: int | None
    quota_readings_minute: int | None
    quota_alert_rules: int | None
    quota_alert_series: int | None
    quota_alert_messages_hour: int | None
    retention_days: int | None
    """Days of readings that queries return; None means the retention of the deployment."""
    erased_until: datetime | None


_COLUMNS: Final = (
    "tenant_id, name, enabled, created_at, quota_agents, quota_series, quota_readings_minute,"
    " quota_alert_rules, quota_alert_series, quota_alert_messages_hour, retention_days, erased_until"
)

ADD: Final = f"""
INSERT INTO tenants (tenant_id, name) VALUES (%(tenant)s, %(name)s) ON CONFLICT DO NOTHING RETURNING {_COLUMNS}
"""


async def add(tx: Tx, name: str, tenant: TenantId | None = None, *, by: Actor) -> Tenant:
    """Add a tenant with the given id or a new random one; raises `Conflict` if the name or id is taken."""
    tenant = tenant or TenantId(secrets.token_hex(TENANT_BYTES))
    row = await fetch_row(tx, Tenant, ADD, {"tenant": tenant, "name": name})
    if row is None:
        raise Conflict(f"A tenant with the name {name!r} or this id exists already. See `iotistica tenants list`.")
    await audit.record(tx, tenant, by, "tenant.added", ("tenant", tenant), after={"name": name})
    return row


ALL: Final = f"SELECT {_COLUMNS} FROM tenants ORDER BY created_at, tenant_id LIMIT 10000"


async def all_tenants(tx: Tx) -> list[Tenant]:
    """Return every tenant, the oldest first."""
    return await fetch_rows(tx, Tenant, ALL)


FIND: Final = f"""
SELECT {_COLUMNS} FROM tenants WHERE name = %(key)s OR tenant_id = %(key)s
ORDER BY tenant_id = %(key)s DESC LIMIT 1
"""


async def find(tx: Tx, key: str) -> Tenant | None:
    """Return the tenant with this id or name, or None."""
    return await fetch_row(tx, Tenant, FIND, {"key": key})


ENABLE: Final = "UPDATE tenants SET enabled = %(enabled)s WHERE tenant_id = %(tenant)s"


async def enable(tx: Tx, tenant: TenantId, *, enabled: bool, by: Actor) -> None:
    """Enable a tenant, or lock out all its users, keys and agents; no data is deleted."""
    await tx.execute(ENABLE, {"tenant": tenant, "enabled": enabled})
    action = "tenant.enabled" if enabled else "tenant.disabled"
    await audit.record(tx, tenant, by, action, ("tenant", tenant))


SET_RETENTION: Final = (
    f"UPDATE tenants SET retention_days = %(days)s WHERE tenant_id = %(tenant)s RETURNING {_COLUMNS}"
)


async def set_retention(tx: Tx, tenant: TenantId, days: int | None, *, by: Actor) -> None:
    """Limit the readings that a tenant sees to `days` days, or show all (None).

    Older readings are deleted gradually.
    """
    current = await find(tx, tenant)
    await tx.execute(SET_RETENTION, {"tenant": tenant, "days": days})
    before = {"days": current.retention_days if current else None}
    subject = "tenant", tenant
    await audit.record(tx, tenant, by, "tenant.retention_changed", subject, before=before, after={"days": days})
