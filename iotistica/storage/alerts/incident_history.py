"""The history of incidents: what happened to each, by whom, and the notes that people left."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.storage.jsonb import jsonb
from iotistica.storage.postgres import Tx, fetch_rows

SHOWN: Final = 500  # entries of the history of one incident that are returned


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True):
    at: datetime
    kind: str
    author: dict[str, Any] | None
    note: str | None
    details: dict[str, Any]


ADD: Final = """
INSERT INTO incident_history (tenant_id, incident_id, at, kind, author, note, details)
VALUES (%(tenant)s, %(incident)s, %(at)s, %(kind)s, %(author)s::jsonb, %(note)s, %(details)s::jsonb)
"""


async def add(
    tx: Tx,
    tenant: TenantId,
    incident: UUID,
    kind: str,
    *,
    at: datetime,
    author: dict[str, Any] | None = None,
    note: str | None = None,
    details: dict[str, Any] | None = None,
) -> None:
    """Add an entry to the history of an incident; `author` is None for what the platform did."""
    parameters = {"tenant": tenant, "incident": incident, "at": at, "kind": kind, "note": note}
    await tx.execute(ADD, parameters | {"author": jsonb(author), "details": jsonb(details or {})})


LIST: Final = """
SELECT at, kind, author, note, details FROM (
    SELECT * FROM incident_history WHERE tenant_id = %(tenant)s AND incident_id = %(incident)s
    ORDER BY id DESC LIMIT %(limit)s) newest ORDER BY id
"""


async def of_incident(tx: Tx, tenant: TenantId, incident: UUID) -> list[HistoryEntry]:
    """Return the newest `SHOWN` entries of an incident's history, the oldest of them first."""
    return await fetch_rows(tx, HistoryEntry, LIST, {"tenant": tenant, "incident": incident, "limit": SHOWN})
