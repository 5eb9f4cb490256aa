"""How many incidents of a tenant are not over."""

from typing import Final

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.storage.postgres import Tx, fetch_row


class IncidentCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Incidents that nobody has acknowledged, by severity, and those that somebody has."""

    critical: int
    warning: int
    info: int
    acknowledged: int


COUNT: Final = """
SELECT count(*) FILTER (WHERE status = 'open' AND severity = 'critical') AS critical,
       count(*) FILTER (WHERE status = 'open' AND severity = 'warning') AS warning,
       count(*) FILTER (WHERE status = 'open' AND severity = 'info') AS info,
       count(*) FILTER (WHERE status = 'acknowledged') AS acknowledged
FROM incidents WHERE tenant_id = %(tenant)s AND status <> 'resolved'
"""


async def count(tx: Tx, tenant: TenantId) -> IncidentCounts:
    """Return the numbers of a tenant's incidents that are open or acknowledged."""
    found = await fetch_row(tx, IncidentCounts, COUNT, {"tenant": tenant})
    assert found is not None  # noqa: S101 an aggregate always has a row
    return found
