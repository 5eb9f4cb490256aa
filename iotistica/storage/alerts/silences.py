"""Stores silences."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

import msgspec

from iotistica.domain.alerts.silences import Matches
from iotistica.domain.ids import TenantId
from iotistica.errors import Conflict, NotFound
from iotistica.storage.history import audit
from iotistica.storage.history.audit import Actor
from iotistica.storage.jsonb import jsonb
from iotistica.storage.postgres import Page, Tx, fetch_page, fetch_row, fetch_rows

SILENCES_LIMIT: Final = 1000  # silences of a tenant that have not ended


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    silence_id: UUID
    tenant_id: TenantId
    matches: Matches
    starts_at: datetime
    ends_at: datetime
    reason: str
    author: dict[str, Any]
    created_at: datetime


_COLUMNS: Final = "silence_id, tenant_id, matches, starts_at, ends_at, reason, author, created_at"
COUNT: Final = "SELECT count(*) FROM silences WHERE tenant_id = %(tenant)s AND ends_at > now()"
ADD: Final = f"""
INSERT INTO silences (silence_id, tenant_id, matches, starts_at, ends_at, reason, author)
VALUES (%(id)s, %(tenant)s, %(matches)s::jsonb, %(starts_at)s, %(ends_at)s, %(reason)s, %(author)s::jsonb)
RETURNING {_COLUMNS}
"""


async def add(
    tx: Tx,
    tenant: TenantId,
    matches: Matches,
    *,
    starts_at: datetime,
    ends_at: datetime,
    reason: str,
    by: Actor,
) -> Silence:
    """Add a silence; raises `Conflict` above `SILENCES_LIMIT`."""
    row = await (await tx.execute(COUNT, {"tenant": tenant})).fetchone()
    if row is not None and row[0] >= SILENCES_LIMIT:
        raise Conflict(f"The tenant has {SILENCES_LIMIT} silences, as many as it can have. End some first.")
    parameters = {"id": uuid4(), "tenant": tenant, "matches": jsonb(matches), "author": jsonb(by.author)}
    times = {"starts_at": starts_at, "ends_at": ends_at, "reason": reason}
    stored = await fetch_row(tx, Silence, ADD, parameters | times)
    assert stored is not None  # noqa: S101 the id is new
    await audit.record(
        tx, tenant, by, "silence.added", ("silence", stored.silence_id), after=msgspec.to_builtins(stored)
    )
    return stored


GET: Final = f"SELECT {_COLUMNS} FROM silences WHERE tenant_id = %(tenant)s AND silence_id = %(id)s"


async def get(tx: Tx, tenant: TenantId, silence: UUID) -> Silence:
    """Return one silence; raises `NotFound`."""
    row = await fetch_row(tx, Silence, GET, {"tenant": tenant, "id": silence})
    if row is None:
        raise NotFound
    return row


PAGE: Final = f"""
SELECT {_COLUMNS} FROM silences
WHERE tenant_id = %(tenant)s AND (NOT %(active)s OR (starts_at <= now() AND ends_at > now()))
  AND (%(at)s::timestamptz IS NULL OR (ends_at, silence_id) < (%(at)s, %(id)s))
ORDER BY ends_at DESC, silence_id DESC LIMIT %(limit)s
"""


async def page(
    tx: Tx, tenant: TenantId, *, active: bool, before: tuple[datetime, UUID] | None, limit: int
) -> Page[Silence]:
    """Return a page of a tenant's silences, those that end last first."""
    at, id_ = before or (None, None)
    parameters = {"tenant": tenant, "active": active, "at": at, "id": id_, "limit": limit}
    return await fetch_page(tx, Silence, PAGE, parameters, cursor=("at", "id"))


ACTIVE: Final = f"""
SELECT {_COLUMNS} FROM silences
WHERE tenant_id = ANY(%(tenants)s) AND starts_at <= %(now)s AND ends_at > %(now)s
"""


async def active(tx: Tx, tenants: Sequence[TenantId], now: datetime) -> list[Silence]:
    """Return the silences of these tenants that are in force at a moment."""
    return await fetch_rows(tx, Silence, ACTIVE, {"tenants": list(tenants), "now": now})


END: Final = """
UPDATE silences SET ends_at = greatest(%(now)s, starts_at + interval '1 microsecond')
WHERE tenant_id = %(tenant)s AND silence_id = %(id)s AND ends_at > %(now)s
"""


async def end(tx: Tx, tenant: TenantId, silence: UUID, now: datetime, *, by: Actor) -> None:
    """End a silence now; what still fires is told then. Raises `NotFound`."""
    await get(tx, tenant, silence)
    await tx.execute(END, {"tenant": tenant, "id": silence, "now": now})
    await audit.record(tx, tenant, by, "silence.ended", ("silence", silence))


DELETE_OLD: Final = "DELETE FROM silences WHERE ends_at < %(before)s"


async def delete_old(tx: Tx, *, before: datetime) -> None:
    """Delete the silences that ended before `before`."""
    await tx.execute(DELETE_OLD, {"before": before})
