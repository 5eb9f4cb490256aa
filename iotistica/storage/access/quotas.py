"""Quotas of tenants; a quota that is not set does not limit anything."""

from collections.abc import Collection
from typing import Any, Final

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.errors import Conflict
from iotistica.storage.history import audit
from iotistica.storage.history.audit import Actor
from iotistica.storage.postgres import Tx, fetch_row


class Quotas(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a tenant: agents that are not retired, stored series, readings per minute, alert rules, series that
    they watch, and messages about incidents per hour; None means unlimited, or the default for alerts.
    """

    agents: int | None = None
    series: int | None = None
    readings_minute: int | None = None
    alert_rules: int | None = None
    alert_series: int | None = None
    alert_messages_hour: int | None = None

    def facts(self) -> dict[str, Any]:
        """Return the values for the audit log."""
        return msgspec.structs.asdict(self)


GET: Final = """
SELECT quota_agents AS agents, quota_series AS series, quota_readings_minute AS readings_minute,
       quota_alert_rules AS alert_rules, quota_alert_series AS alert_series,
       quota_alert_messages_hour AS alert_messages_hour
FROM tenants WHERE tenant_id = %(tenant)s
"""


async def get(tx: Tx, tenant: TenantId) -> Quotas:
    """Return the quotas of a tenant."""
    return await fetch_row(tx, Quotas, GET, {"tenant": tenant}) or Quotas()


ALERT_SERIES: Final = """
SELECT tenant_id, quota_alert_series FROM tenants
WHERE tenant_id = ANY(%(tenants)s) AND quota_alert_series IS NOT NULL
"""


async def alert_series(tx: Tx, tenants: Collection[TenantId]) -> dict[TenantId, int]:
    """Return how many series the alert rules of these tenants can watch; tenants without a limit are left out."""
    cursor = await tx.execute(ALERT_SERIES, {"tenants": list(tenants)})
    return {TenantId(tenant): most for tenant, most in await cursor.fetchall()}


SET: Final = """
UPDATE tenants SET quota_agents = %(agents)s, quota_series = %(series)s,
                   quota_readings_minute = %(readings_minute)s, quota_alert_rules = %(alert_rules)s,
                   quota_alert_series = %(alert_series)s, quota_alert_messages_hour = %(alert_messages_hour)s
WHERE tenant_id = %(tenant)s
"""


async def put(tx: Tx, tenant: TenantId, new: Quotas, *, by: Actor) -> None:
    """Set the quotas of a tenant; existing agents and series are kept even if they exceed a quota."""
    before = await get(tx, tenant)
    await tx.execute(SET, {"tenant": tenant, **new.facts()})
    await audit.record(
        tx, tenant, by, "tenant.quotas_changed", ("tenant", tenant), before=before.facts(), after=new.facts()
    )


# Held until the commit, so that two concurrent requests cannot both use the last place of a quota.
LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('quotas ' || %(tenant)s, 0))"
AGENTS: Final = "SELECT count(*) FROM agents WHERE tenant_id = %(tenant)s AND state <> 'retired'"


async def check_agents(tx: Tx, tenant: TenantId) -> None:
    """Raise `Conflict` if the tenant has reached its quota of agents."""
    limit = (await get(tx, tenant)).agents
    if limit is None:
        return
    await tx.execute(LOCK, {"tenant": tenant})
    row = await (await tx.execute(AGENTS, {"tenant": tenant})).fetchone()
    if row is not None and row[0] >= limit:
        raise Conflict(
            f"This tenant can have {limit} agents and has {row[0]}. Retire an agent, or request a higher quota."
        )


SERIES: Final = "SELECT count(*) FROM series WHERE tenant_id = %(tenant)s"


async def series_left(tx: Tx, tenant: TenantId, most: int) -> int:
    """Return how many more series a tenant can have; other transactions cannot add series until the commit."""
    await tx.execute(LOCK, {"tenant": tenant})
    row = await (await tx.execute(SERIES, {"tenant": tenant})).fetchone()
    return max(most - (int(row[0]) if row else 0), 0)
