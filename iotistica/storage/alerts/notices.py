"""The outbox: notices that wait to be delivered, and how each attempt ended."""

import secrets
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from iotistica.domain.alerts.notices import Kind, NoticeFacts
from iotistica.domain.ids import TenantId
from iotistica.storage.jsonb import jsonb
from iotistica.storage.postgres import Tx, fetch_rows

KEEP_DAYS: Final = 90  # days that notices are kept
DELETE_LIMIT: Final = 20_000  # rows deleted in one transaction
ERROR_LENGTH: Final = 300  # characters of an error that are kept


def new_id() -> str:
    """Return a new id of a notice, which is also the id of the webhook's message."""
    return f"msg_{secrets.token_urlsafe(16)}"


ADD: Final = """
INSERT INTO notices (notice_id, tenant_id, incident_id, target_id, kind, step, facts, created_at, due_at,
                     expires_at, give_up_seconds)
SELECT n.id, %(tenant)s, %(incident)s, n.target, %(kind)s, %(step)s, %(facts)s::jsonb, %(now)s, n.due,
       n.due + make_interval(secs => n.seconds), n.seconds
FROM unnest(%(ids)s::text[], %(targets)s::uuid[], %(due)s::timestamptz[], %(seconds)s::float8[])
     AS n (id, target, due, seconds)
JOIN notification_targets t ON t.tenant_id = %(tenant)s AND t.target_id = n.target
ON CONFLICT DO NOTHING RETURNING notice_id
"""


class Recipient(NamedTuple):
    """A target that is told, when, and for how long that is tried."""

    target: UUID
    due_at: datetime
    give_up_seconds: float


async def add(
    tx: Tx,
    tenant: TenantId,
    facts: NoticeFacts,
    recipients: Sequence[Recipient],
    now: datetime,
    *,
    incident: UUID | None,
    step: int = 0,
) -> list[str]:
    """Add a notice for each recipient, and return their ids; what was written before is not written again."""
    if not recipients:
        return []
    parameters: dict[str, Any] = {
        "ids": [new_id() for _ in recipients],
        "tenant": tenant,
        "incident": incident,
        "kind": facts.kind,
        "step": step,
        "facts": jsonb(facts),
        "now": now,
        "targets": [recipient.target for recipient in recipients],
        "due": [recipient.due_at for recipient in recipients],
        "seconds": [recipient.give_up_seconds for recipient in recipients],
    }
    return [row[0] for row in await (await tx.execute(ADD, parameters)).fetchall()]


class ToldTarget(msgspec.Struct, frozen=True, kw_only=True):
    """A target that has notices of an incident; `waits` if they have not been tried and are not due yet."""

    target_id: UUID
    waits: bool
    failed: bool


TOLD: Final = """
SELECT target_id, bool_and(status = 'pending' AND attempts = 0 AND due_at > %(now)s) AS waits,
       bool_and(status IN ('dead', 'canceled')) AS failed
FROM notices WHERE tenant_id = %(tenant)s AND incident_id = %(incident)s AND kind IN ('opened', 'escalated')
GROUP BY target_id ORDER BY target_id
"""


async def told(tx: Tx, tenant: TenantId, incident: UUID, now: datetime) -> list[ToldTarget]:
    """Return the targets that were told that an incident was opened or escalated, or are about to be."""
    return await fetch_rows(tx, ToldTarget, TOLD, {"tenant": tenant, "incident": incident, "now": now})


CANCEL: Final = """
UPDATE notices SET status = 'canceled', last_error = %(reason)s
WHERE tenant_id = %(tenant)s AND incident_id = %(incident)s AND status = 'pending'
  AND (kind = 'escalated' OR (attempts = 0 AND due_at > %(now)s))
"""


async def cancel_waiting(tx: Tx, tenant: TenantId, incident: UUID, now: datetime, *, reason: str) -> None:
    """Cancel the notices of an incident that need not be told any more: of escalations, and those not due yet."""
    parameters = {"tenant": tenant, "incident": incident, "now": now, "reason": reason}
    await tx.execute(CANCEL, parameters)


SENT_WITHIN_HOUR: Final = """
SELECT count(*) FROM notices
WHERE tenant_id = %(tenant)s AND created_at > %(now)s - interval '1 hour' AND kind <> 'test'
"""


async def count_of_hour(tx: Tx, tenant: TenantId, now: datetime) -> int:
    """Return how many notices a tenant has had within the last hour."""
    row = await (await tx.execute(SENT_WITHIN_HOUR, {"tenant": tenant, "now": now})).fetchone()
    return int(row[0]) if row else 0


class DueNotice(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    notice_id: str
    tenant_id: TenantId
    incident_id: UUID | None
    target_id: UUID
    kind: Kind
    facts: NoticeFacts
    created_at: datetime
    expires_at: datetime
    attempts: int


# In the order of their transitions: a notice waits for those of the same incident before it that have been tried
# and are tried again. Targets that wait longest come first.
DUE: Final = """
WITH ready AS MATERIALIZED (
    SELECT d.id, d.target_id, d.due_at, row_number() OVER (PARTITION BY d.target_id ORDER BY d.id) AS place
    FROM notices d JOIN tenants USING (tenant_id)
    WHERE d.status = 'pending' AND d.due_at <= %(now)s AND tenants.enabled
      AND d.target_id <> ALL(%(busy)s) AND d.tenant_id <> ALL(%(full)s)
      AND NOT EXISTS (SELECT FROM notices e WHERE e.target_id = d.target_id AND e.incident_id = d.incident_id
                      AND e.status = 'pending' AND e.id < d.id AND e.attempts > 0 AND e.due_at > %(now)s)
), chosen AS (
    SELECT target_id FROM ready GROUP BY target_id ORDER BY min(due_at) LIMIT %(targets)s
)
SELECT n.id, n.notice_id, n.tenant_id, n.incident_id, n.target_id, n.kind, n.facts, n.created_at, n.expires_at,
       n.attempts
FROM ready JOIN chosen USING (target_id) JOIN notices n ON n.id = ready.id
WHERE ready.place <= %(each)s ORDER BY n.id
"""


async def due(
    tx: Tx, now: datetime, *, busy: Collection[UUID], full: Collection[TenantId], targets: int, each: int
) -> list[DueNotice]:
    """Return the notices that are due, in order: up to `each` for up to `targets` targets that are not busy.

    Those of the `full` tenants, which have enough targets at work, wait.
    """
    parameters = {"now": now, "busy": list(busy), "full": list(full), "targets": targets, "each": each}
    return await fetch_rows(tx, DueNotice, DUE, parameters)


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended; `error` is None for success."""

    at: datetime
    seconds: float
    status_code: int | None
    error: str | None


RECORD: Final = """
WITH changed AS (
    UPDATE notices SET attempts = attempts + 1, last_attempt_at = %(at)s, last_error = %(error)s,
        status = CASE WHEN status = 'canceled' AND %(status)s <> 'delivered' THEN status ELSE %(status)s END,
        due_at = coalesce(%(due)s, due_at), delivered_at = CASE WHEN %(status)s = 'delivered' THEN now() END
    WHERE notice_id = %(id)s AND tenant_id = %(tenant)s AND status IN ('pending', 'canceled')
    RETURNING notice_id, tenant_id, attempts)
INSERT INTO notice_attempts (notice_id, tenant_id, number, at, seconds, status_code, error)
SELECT notice_id, tenant_id, attempts, %(at)s, %(seconds)s, %(code)s, %(error)s FROM changed
"""


async def record(
    tx: Tx, tenant: TenantId, notice_id: str, attempt: Attempt, *, status: str, due_at: datetime | None
) -> None:
    """Record an attempt, and what becomes of its notice: delivered, dead, or pending until `due_at`."""
    error = attempt.error[:ERROR_LENGTH] if attempt.error else None
    parameters: dict[str, Any] = {"id": notice_id, "tenant": tenant, "status": status, "due": due_at}
    parameters |= {"at": attempt.at, "seconds": attempt.seconds, "code": attempt.status_code, "error": error}
    await tx.execute(RECORD, parameters)


DELETE_OLD: Final = """
DELETE FROM notices WHERE id = ANY(ARRAY(
    SELECT id FROM notices WHERE created_at < %(before)s AND status <> 'pending'
    ORDER BY created_at LIMIT %(most)s))
"""


async def delete_old(tx: Tx, *, before: datetime) -> None:
    """Delete up to `DELETE_LIMIT` of the oldest notices that do not wait any more."""
    await tx.execute(DELETE_OLD, {"before": before, "most": DELETE_LIMIT})


POSTPONE: Final = """
UPDATE notices SET due_at = %(due)s WHERE notice_id = ANY(%(ids)s) AND tenant_id = %(tenant)s AND status = 'pending'
"""


async def postpone(tx: Tx, tenant: TenantId, ids: Sequence[str], due_at: datetime) -> None:
    """Make notices due later; this is not an attempt."""
    await tx.execute(POSTPONE, {"tenant": tenant, "ids": list(ids), "due": due_at})
