"""What people do to incidents: acknowledge and resolve them, and leave notes."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from iotistica.domain.ids import TenantId
from iotistica.errors import Conflict
from iotistica.storage.alerts import incident_history, incident_search, notices
from iotistica.storage.alerts.incidents import LOCK as LOCK_CAUSE
from iotistica.storage.alerts.incidents import Incident
from iotistica.storage.history import audit
from iotistica.storage.history.audit import Actor
from iotistica.storage.jsonb import jsonb
from iotistica.storage.postgres import Tx

LOCK: Final = """
SELECT status FROM incidents WHERE tenant_id = %(tenant)s AND incident_id = %(incident)s FOR UPDATE
"""
ACKNOWLEDGE: Final = """
UPDATE incidents SET status = 'acknowledged', acknowledged_at = %(now)s, acknowledged_by = %(author)s::jsonb
WHERE tenant_id = %(tenant)s AND incident_id = %(incident)s AND status = 'open'
"""


async def acknowledge(
    tx: Tx, tenant: TenantId, incident: UUID, *, note: str | None, by: Actor, now: datetime
) -> Incident:
    """Acknowledge an incident: somebody looks after it. Raises `NotFound`, and `Conflict` if it is resolved.

    An incident that was acknowledged before stays as it is, with the note added.
    """
    old = await _locked(tx, tenant, incident)
    if old.status == "resolved":
        raise Conflict("The incident is resolved already.")
    scope: dict[str, Any] = {"tenant": tenant, "incident": incident, "now": now, "author": jsonb(by.author)}
    if old.status == "open":
        await tx.execute(ACKNOWLEDGE, scope)
        await notices.cancel_waiting(tx, tenant, incident, now, reason="somebody looks after it")
        await audit.record(tx, tenant, by, "incident.acknowledged", ("incident", incident))
    kind = "acknowledged" if old.status == "open" else "note"
    if old.status == "open" or note:
        await incident_history.add(tx, tenant, incident, kind, at=now, author=by.author, note=note)
    return await incident_search.get(tx, tenant, incident)


END_MEMBERS: Final = """
UPDATE incident_members SET ended_at = %(now)s
WHERE tenant_id = %(tenant)s AND incident_id = %(incident)s AND ended_at IS NULL
"""
RESOLVE: Final = """
UPDATE incidents SET status = 'resolved', resolved_at = %(now)s, resolved_by = %(author)s::jsonb, active_members = 0
WHERE tenant_id = %(tenant)s AND incident_id = %(incident)s
"""


async def resolve(
    tx: Tx, tenant: TenantId, incident: UUID, *, note: str | None, by: Actor, now: datetime
) -> Incident:
    """Resolve an incident although its condition may last; nothing is told until it has ended and begins anew.

    Raises `NotFound`, and `Conflict` if it is resolved.
    """
    old = await _locked(tx, tenant, incident)
    if old.status == "resolved":
        raise Conflict("The incident is resolved already.")
    scope: dict[str, Any] = {"tenant": tenant, "incident": incident, "now": now, "author": jsonb(by.author)}
    await tx.execute(END_MEMBERS, scope)
    await tx.execute(RESOLVE, scope)
    await incident_history.add(tx, tenant, incident, "resolved", at=now, author=by.author, note=note)
    await audit.record(tx, tenant, by, "incident.resolved", ("incident", incident))
    return await incident_search.get(tx, tenant, incident)


async def add_note(tx: Tx, tenant: TenantId, incident: UUID, note: str, *, by: Actor, now: datetime) -> Incident:
    """Add a note to an incident, resolved or not; raises `NotFound`."""
    found = await _locked(tx, tenant, incident)
    await incident_history.add(tx, tenant, incident, "note", at=now, author=by.author, note=note)
    return found


async def _locked(tx: Tx, tenant: TenantId, incident: UUID) -> Incident:
    """Lock an incident, after its cause: in the order in which the process that applies rules does."""
    found = await incident_search.get(tx, tenant, incident)
    await tx.execute(LOCK_CAUSE, {"tenant": tenant, "cause": found.cause})
    await tx.execute(LOCK, {"tenant": tenant, "incident": incident})
    return await incident_search.get(tx, tenant, incident)
