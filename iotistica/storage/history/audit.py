"""The append-only audit log: every change, its author and address, and the values before and after."""

from datetime import UTC, datetime
from typing import Any, Final, Literal
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.storage.history import timeline
from iotistica.storage.history.timeline import TimelineEvent
from iotistica.storage.jsonb import jsonb
from iotistica.storage.postgres import Page, Tx, fetch_page


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """The author of a change, and the address that the change came from."""

    kind: Literal["user", "key", "agent", "link", "command", "platform", "anybody"]
    id: str | None = None
    name: str | None = None
    address: str | None = None

    @property
    def author(self) -> dict[str, str | None]:
        """Who wrote a version, a job or an update, as it is stored beside it."""
        return {"kind": self.kind, "id": self.id, "name": self.name}


PLATFORM: Final = Actor(kind="platform")
HIDDEN_FACTS: Final = ("changes",)
"""Facts omitted from the timeline, because they are long and the history of targets contains them."""


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    at: datetime
    actor_kind: str
    actor_id: str | None
    actor_name: str | None
    address: str | None
    action: str
    subject_kind: str
    subject_id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


RECORD: Final = """
INSERT INTO audit_events (tenant_id, actor_kind, actor_id, actor_name, address, action, subject_kind, subject_id,
                          before, after)
VALUES (%(tenant)s, %(actor_kind)s, %(actor_id)s, %(actor_name)s, %(address)s, %(action)s, %(subject_kind)s,
        %(subject_id)s, %(before)s::jsonb, %(after)s::jsonb)
"""


async def record(
    tx: Tx,
    tenant: TenantId,
    by: Actor,
    action: str,
    subject: tuple[str, object],
    *,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> None:
    """Record a change in the transaction that makes it; changes of an agent are also added to its timeline.

    `subject` is a kind and an id. Never pass secrets or their digests.
    """
    await tx.execute(
        RECORD,
        {
            "tenant": tenant,
            "actor_kind": by.kind,
            "actor_id": by.id,
            "actor_name": by.name,
            "address": by.address,
            "action": action,
            "subject_kind": subject[0],
            "subject_id": str(subject[1]),
            "before": jsonb(before),
            "after": jsonb(after),
        },
    )
    if subject[0] == "agent":
        facts = {key: value for key, value in (after or {}).items() if key not in HIDDEN_FACTS}
        event = TimelineEvent(
            agent=UUID(str(subject[1])), at=datetime.now(UTC), kind=action, details=timeline_details(by, facts)
        )
        await timeline.add(tx, tenant, [event])


def timeline_details(by: Actor, facts: dict[str, Any]) -> dict[str, Any]:
    """Return the details of a timeline event: the author of the change and its facts."""
    return {"by": {"kind": by.kind, "name": by.name}, **facts}


PAGE: Final = """
SELECT id, at, actor_kind, actor_id, actor_name, address, action, subject_kind, subject_id, before, after
FROM audit_events
WHERE tenant_id = %(tenant)s AND (%(before)s::bigint IS NULL OR id < %(before)s)
  AND (%(action)s::text IS NULL OR action = %(action)s OR starts_with(action, %(action)s || '.'))
  AND (%(actor)s::text IS NULL OR actor_id = %(actor)s)
  AND (%(subject)s::text IS NULL OR subject_id = %(subject)s)
  AND (%(since)s::timestamptz IS NULL OR at >= %(since)s) AND (%(until)s::timestamptz IS NULL OR at < %(until)s)
ORDER BY id DESC LIMIT %(limit)s
"""


async def page(
    tx: Tx,
    tenant: TenantId,
    *,
    before: int | None,
    limit: int,
    action: str | None = None,
    actor: str | None = None,
    subject: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Page[AuditEvent]:
    """Return up to `limit` events of a tenant older than the id `before`, the newest first.

    `action` is a whole action or its part before a dot.
    """
    parameters: dict[str, Any] = {"tenant": tenant, "before": before, "limit": limit, "action": action}
    parameters |= {"actor": actor, "subject": subject, "since": since, "until": until}
    return await fetch_page(tx, AuditEvent, PAGE, parameters, cursor=("before",))
