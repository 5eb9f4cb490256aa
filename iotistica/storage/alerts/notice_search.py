"""Lists notices with their attempts, and replays those that could not be delivered."""

from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from iotistica.domain.alerts.notices import Kind, NoticeFacts
from iotistica.domain.ids import TenantId
from iotistica.errors import Conflict, NotFound
from iotistica.storage.history import audit
from iotistica.storage.history.audit import Actor
from iotistica.storage.postgres import Page, Tx, fetch_page, fetch_row, fetch_rows

ATTEMPTS_SHOWN: Final = 100  # attempts of a notice that are returned


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    notice_id: str
    incident_id: UUID | None
    target_id: UUID
    target_name: str
    kind: Kind
    facts: NoticeFacts
    status: str
    created_at: datetime
    due_at: datetime
    attempts: int
    last_attempt_at: datetime | None
    last_error: str | None
    delivered_at: datetime | None


_SELECT: Final = """
SELECT n.id, n.notice_id, n.incident_id, n.target_id, t.name AS target_name, n.kind, n.facts, n.status,
       n.created_at, n.due_at, n.attempts, n.last_attempt_at, n.last_error, n.delivered_at
FROM notices n JOIN notification_targets t USING (tenant_id, target_id)
"""
PAGE: Final = (
    _SELECT
    + """
WHERE n.tenant_id = %(tenant)s AND (%(status)s::text IS NULL OR n.status = %(status)s)
  AND (%(incident)s::uuid IS NULL OR n.incident_id = %(incident)s)
  AND (%(target)s::uuid IS NULL OR n.target_id = %(target)s)
  AND (%(at)s::timestamptz IS NULL OR (n.created_at, n.id) < (%(at)s, %(id)s))
ORDER BY n.created_at DESC, n.id DESC LIMIT %(limit)s
"""
)


async def page(
    tx: Tx,
    tenant: TenantId,
    *,
    status: str | None,
    incident: UUID | None,
    target: UUID | None,
    before: tuple[datetime, int] | None,
    limit: int,
) -> Page[Notice]:
    """Return a page of a tenant's notices, the newest first."""
    at, id_ = before or (None, None)
    parameters = {"tenant": tenant, "status": status, "incident": incident, "target": target}
    return await fetch_page(
        tx, Notice, PAGE, parameters | {"at": at, "id": id_, "limit": limit}, cursor=("at", "id")
    )


GET: Final = _SELECT + "WHERE n.tenant_id = %(tenant)s AND n.notice_id = %(id)s"


async def get(tx: Tx, tenant: TenantId, notice_id: str) -> Notice:
    """Return one notice; raises `NotFound`."""
    row = await fetch_row(tx, Notice, GET, {"tenant": tenant, "id": notice_id})
    if row is None:
        raise NotFound
    return row


class PastAttempt(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    at: datetime
    seconds: float
    status_code: int | None
    error: str | None


ATTEMPTS: Final = """
SELECT number, at, seconds, status_code, error FROM notice_attempts
WHERE tenant_id = %(tenant)s AND notice_id = %(id)s ORDER BY number DESC LIMIT %(limit)s
"""


async def attempts(tx: Tx, tenant: TenantId, notice_id: str) -> list[PastAttempt]:
    """Return the attempts of a notice, the newest first."""
    parameters = {"tenant": tenant, "id": notice_id, "limit": ATTEMPTS_SHOWN}
    return await fetch_rows(tx, PastAttempt, ATTEMPTS, parameters)


REPLAY: Final = """
UPDATE notices
SET status = 'pending', due_at = %(now)s, expires_at = %(now)s + make_interval(secs => give_up_seconds)
WHERE tenant_id = %(tenant)s AND notice_id = %(id)s AND status = 'dead'
"""


async def replay(tx: Tx, tenant: TenantId, notice_id: str, now: datetime, *, by: Actor) -> Notice:
    """Try a notice again that could not be delivered, under its id; raises `NotFound`, and `Conflict` otherwise."""
    old = await get(tx, tenant, notice_id)
    changed = await tx.execute(REPLAY, {"tenant": tenant, "id": notice_id, "now": now})
    if not changed.rowcount:
        raise Conflict(f"The notice is {old.status}. Only one that could not be delivered can be replayed.")
    await audit.record(tx, tenant, by, "notice.replayed", ("notice", notice_id))
    return await get(tx, tenant, notice_id)
