"""What a tenant may have at most; nothing set means no bound."""

from typing import Any, Final

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.errors import Conflict
from iotistica.storage.history import audit
from iotistica.storage.history.audit import Actor
from iotistica.storage.postgres import Tx, fetch_row


class Quotas(msgspec.Struct, frozen=True, kw_only=True):
    """Agents that are not retired, stored series, readings a minute; None is unbounded."""

    agents: int | None = None
    series: int | None = None
    readings_minute: int | None = None

    def facts(self) -> dict[str, Any]:
        """What the audit shows."""
        return msgspec.structs.asdict(self)


GET: Final = """
SELECT quota_agents AS agents, quota_series AS series, quota_readings_minute AS readings_minute
FROM tenants WHERE tenant_id = %(tenant)s
"""


async def get(tx: Tx, tenant: TenantId) -> Quotas:
    """The quotas of a tenant."""
    return await fetch_row(tx, Quotas, GET, {"tenant": tenant}) or Quotas()


SET: Final = """
UPDATE tenants SET quota_agents = %(agents)s, quota_series = %(series)s,
                   quota_readings_minute = %(readings_minute)s
WHERE tenant_id = %(tenant)s
"""


async def put(tx: Tx, tenant: TenantId, new: Quotas, *, by: Actor) -> None:
    """Set the quotas of a tenant; what is there already stays, whatever they say."""
    old = await get(tx, tenant)
    await tx.execute(SET, {"tenant": tenant, **new.facts()})
    await audit.record(
        tx, tenant, by, "tenant.quotas_changed", ("tenant", tenant), before=old.facts(), after=new.facts()
    )


# Held until the commit: of two who take the last place one must wait, and then not find it.
LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('quotas ' || %(tenant)s, 0))"
AGENTS: Final = "SELECT count(*) FROM agents WHERE tenant_id = %(tenant)s AND state <> 'retired'"


async def check_agents(tx: Tx, tenant: TenantId) -> None:
    """Raise `Conflict` if the tenant may have no further agent."""
    most = (await get(tx, tenant)).agents
    if most is None:
        return
    await tx.execute(LOCK, {"tenant": tenant})
    row = await (await tx.execute(AGENTS, {"tenant": tenant})).fetchone()
    if row is not None and row[0] >= most:
        raise Conflict(f"this tenant may have {most} agents and has {row[0]}; retire one, or ask for more")


SERIES: Final = "SELECT count(*) FROM series WHERE tenant_id = %(tenant)s"


async def series_left(tx: Tx, tenant: TenantId, most: int) -> int:
    """How many further series a tenant may have; nobody else adds one until we commit."""
    await tx.execute(LOCK, {"tenant": tenant})
    row = await (await tx.execute(SERIES, {"tenant": tenant})).fetchone()
    return max(most - (int(row[0]) if row else 0), 0)
