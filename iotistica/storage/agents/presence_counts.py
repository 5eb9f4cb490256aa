"""How many agents of a tenant have each presence."""

from typing import Final

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.storage.postgres import Tx, fetch_row


class PresenceCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Agents in service by presence; `new` ones were never heard of.

    `flapping` and `failing` ones are counted twice; a failing one reports that a device or a service fails.
    """

    online: int
    silent: int
    offline: int
    new: int
    flapping: int
    failing: int


COUNT: Final = """
SELECT count(*) FILTER (WHERE p.status = 'online') AS online, count(*) FILTER (WHERE p.status = 'silent') AS silent,
       count(*) FILTER (WHERE p.status = 'offline') AS offline, count(*) FILTER (WHERE p.status IS NULL) AS new,
       count(*) FILTER (WHERE p.flapping) AS flapping, count(s.agent_uuid) AS failing
FROM agents a LEFT JOIN agent_presence p USING (tenant_id, agent_uuid)
LEFT JOIN agent_states s ON s.tenant_id = a.tenant_id AND s.agent_uuid = a.agent_uuid AND s.faults > 0
WHERE a.tenant_id = %(tenant)s AND a.active AND a.state <> 'retired'
"""


async def count(tx: Tx, tenant: TenantId) -> PresenceCounts:
    """Return the numbers of a tenant's agents that are in service."""
    found = await fetch_row(tx, PresenceCounts, COUNT, {"tenant": tenant})
    assert found is not None  # noqa: S101 an aggregate always has a row
    return found
