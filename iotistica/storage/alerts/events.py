"""Stores and lists the events of agents."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from iotistica.domain.alerts.events import Event, Severity
from iotistica.domain.ids import TenantId
from iotistica.storage.jsonb import jsonb
from iotistica.storage.postgres import Page, Tx, fetch_page

KEEP_DAYS: Final = 90  # days that events are kept
DELETE_LIMIT: Final = 20_000  # rows deleted in one transaction


class NewEvent(NamedTuple):
    agent: UUID
    received_at: datetime
    event: Event


# An event that was stored before is skipped, and so is one of an agent that does not belong to the tenant.
ADD: Final = """
INSERT INTO events (tenant_id, agent_uuid, message_id, type, time, received_at, severity, text, metric_name,
    device_name, device_uuid, fingerprint, window_start, window_end, value, score, confidence, expected_low,
    expected_high, baseline, cooldown_seconds, is_suppressed, content)
SELECT a.tenant_id, a.agent_uuid, n.message_id, n.type, n.time, n.received_at, n.severity, n.text, n.metric_name,
    n.device_name, n.device_uuid, n.fingerprint, n.window_start, n.window_end, n.value, n.score, n.confidence,
    n.expected_low, n.expected_high, n.baseline, n.cooldown_seconds, n.is_suppressed, n.content
FROM jsonb_to_recordset(%(events)s::jsonb) AS n (agent_uuid uuid, message_id text, type text, time timestamptz,
    received_at timestamptz, severity text, text text, metric_name text, device_name text, device_uuid uuid,
    fingerprint text, window_start timestamptz, window_end timestamptz, value float8, score float8,
    confidence float8, expected_low float8, expected_high float8, baseline jsonb, cooldown_seconds float8,
    is_suppressed boolean, content jsonb)
JOIN agents a USING (agent_uuid) WHERE a.tenant_id = %(tenant)s ORDER BY a.agent_uuid, n.message_id
ON CONFLICT (tenant_id, agent_uuid, message_id) DO NOTHING RETURNING agent_uuid, message_id
"""


async def add(tx: Tx, tenant: TenantId, sent: Sequence[NewEvent]) -> list[NewEvent]:
    """Store events of agents of a tenant; return those that were not stored before."""
    if not sent:
        return []
    first: dict[tuple[UUID, str], NewEvent] = {}
    for new in sent:
        first.setdefault((new.agent, new.event.message_id), new)
    rows = [
        {"agent_uuid": new.agent, "received_at": new.received_at} | msgspec.structs.asdict(new.event)
        for new in first.values()
    ]
    cursor = await tx.execute(ADD, {"tenant": tenant, "events": jsonb(rows)})
    stored = {(agent, message_id) for agent, message_id in await cursor.fetchall()}
    return [new for key, new in first.items() if key in stored]


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    agent_uuid: UUID
    message_id: str
    type: str
    time: datetime
    received_at: datetime
    severity: Severity
    text: str | None
    metric_name: str | None
    device_name: str | None
    device_uuid: UUID | None
    fingerprint: str | None
    window_start: datetime | None
    window_end: datetime | None
    value: float | None
    score: float | None
    confidence: float | None
    expected_low: float | None
    expected_high: float | None
    baseline: dict[str, Any] | None
    cooldown_seconds: float | None
    is_suppressed: bool
    content: dict[str, Any]


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events match; None is any, and suppressed ones only match where they are asked for."""

    agent: UUID | None = None
    type: str | None = None
    severities: tuple[Severity, ...] | None = None
    fingerprint: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    suppressed: bool = False


PAGE: Final = """
SELECT id, agent_uuid, message_id, type, time, received_at, severity, text, metric_name, device_name, device_uuid,
       fingerprint, window_start, window_end, value, score, confidence, expected_low, expected_high, baseline,
       cooldown_seconds, is_suppressed, content
FROM events
WHERE tenant_id = %(tenant)s AND is_suppressed = %(suppressed)s
  AND (%(agent)s::uuid IS NULL OR agent_uuid = %(agent)s)
  AND (%(type)s::text IS NULL OR type = %(type)s)
  AND (%(severities)s::text[] IS NULL OR severity = ANY(%(severities)s))
  AND (%(fingerprint)s::text IS NULL OR fingerprint = %(fingerprint)s)
  AND (%(start)s::timestamptz IS NULL OR time >= %(start)s) AND (%(end)s::timestamptz IS NULL OR time < %(end)s)
  AND (%(at)s::timestamptz IS NULL OR (time, id) < (%(at)s, %(id)s))
ORDER BY time DESC, id DESC LIMIT %(limit)s
"""


async def page(
    tx: Tx, tenant: TenantId, wanted: EventFilter, *, before: tuple[datetime, int] | None, limit: int
) -> Page[StoredEvent]:
    """Return up to `limit` events older than `before`, the newest first."""
    at, id_ = before or (None, None)
    parameters = {"tenant": tenant, "at": at, "id": id_, "limit": limit} | msgspec.structs.asdict(wanted)
    parameters["severities"] = list(wanted.severities) if wanted.severities else None
    return await fetch_page(tx, StoredEvent, PAGE, parameters, cursor=("at", "id"))


DELETE_OLD: Final = """
DELETE FROM events WHERE id = ANY(ARRAY(
    SELECT id FROM events WHERE received_at < %(before)s ORDER BY received_at LIMIT %(most)s))
"""


async def delete_old(tx: Tx, *, before: datetime) -> None:
    """Delete up to `DELETE_LIMIT` of the oldest events that were received before `before`."""
    await tx.execute(DELETE_OLD, {"before": before, "most": DELETE_LIMIT})
