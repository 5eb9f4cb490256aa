"""Stores the targets of notifications, encrypted."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

import msgspec
import psycopg

from iotistica.domain.access.document_secrets import SecretBox
from iotistica.domain.alerts.targets import TargetSpec
from iotistica.domain.ids import TenantId
from iotistica.errors import Conflict, Invalid, NotFound
from iotistica.storage.history import audit
from iotistica.storage.history.audit import Actor
from iotistica.storage.jsonb import jsonb
from iotistica.storage.postgres import Page, Tx, fetch_page, fetch_row, fetch_rows

TARGETS_LIMIT: Final = 200  # targets of a tenant


class SealedTarget(msgspec.Struct, frozen=True, kw_only=True):
    """A target as it is stored; its definition is encrypted for the tenant."""

    target_id: UUID
    tenant_id: TenantId
    name: str
    kind: str
    is_enabled: bool
    sealed: bytes
    author: dict[str, Any]
    created_at: datetime
    updated_at: datetime

    def open(self, box: SecretBox) -> TargetSpec | None:
        """Return the definition; None for one of another version, and of another key of the server."""
        content = box.open_bytes(self.sealed, self.tenant_id)
        try:
            return None if content is None else msgspec.json.decode(content, type=TargetSpec)
        except msgspec.MsgspecError:
            return None


_COLUMNS: Final = "target_id, tenant_id, name, kind, is_enabled, sealed, author, created_at, updated_at"
COUNT: Final = "SELECT count(*) FROM notification_targets WHERE tenant_id = %(tenant)s"
PUT: Final = f"""
INSERT INTO notification_targets AS t (target_id, tenant_id, name, kind, is_enabled, sealed, author)
VALUES (%(id)s, %(tenant)s, %(name)s, %(kind)s, %(is_enabled)s, %(sealed)s, %(author)s::jsonb)
ON CONFLICT (target_id) DO UPDATE
SET name = excluded.name, kind = excluded.kind, is_enabled = excluded.is_enabled, sealed = excluded.sealed,
    updated_at = now()
WHERE t.tenant_id = %(tenant)s
RETURNING {_COLUMNS}
"""


async def put(
    tx: Tx,
    tenant: TenantId,
    box: SecretBox,
    definition: TargetSpec,
    *,
    name: str,
    is_enabled: bool,
    old: SealedTarget | None,
    by: Actor,
) -> SealedTarget:
    """Create a target, or replace `old`; raises `Conflict` for a name in use and above `TARGETS_LIMIT`."""
    if old is None:
        row = await (await tx.execute(COUNT, {"tenant": tenant})).fetchone()
        if row is not None and row[0] >= TARGETS_LIMIT:
            raise Conflict(f"The tenant has {TARGETS_LIMIT} targets, as many as it can have. Delete some first.")
    kind = str(msgspec.to_builtins(definition.channel)["kind"])
    parameters: dict[str, Any] = {
        "id": old.target_id if old else uuid4(),
        "tenant": tenant,
        "name": name,
        "kind": kind,
        "is_enabled": is_enabled,
        "sealed": box.seal_bytes(msgspec.json.encode(definition), tenant),
        "author": jsonb(by.author),
    }
    try:
        stored = await fetch_row(tx, SealedTarget, PUT, parameters)
    except psycopg.errors.UniqueViolation:
        raise Conflict(f"A target {name!r} exists already. Choose another name.") from None
    assert stored is not None  # noqa: S101 the id is new, or the row was read before
    action = "notification_target.changed" if old else "notification_target.added"
    before = {"name": old.name, "kind": old.kind, "enabled": old.is_enabled} if old else None
    after = {"name": name, "kind": kind, "enabled": is_enabled}
    await audit.record(
        tx, tenant, by, action, ("notification_target", stored.target_id), before=before, after=after
    )
    return stored


GET: Final = f"SELECT {_COLUMNS} FROM notification_targets WHERE tenant_id = %(tenant)s AND target_id = %(id)s"


async def get(tx: Tx, tenant: TenantId, target: UUID) -> SealedTarget:
    """Return one target; raises `NotFound`."""
    row = await fetch_row(tx, SealedTarget, GET, {"tenant": tenant, "id": target})
    if row is None:
        raise NotFound
    return row


PAGE: Final = f"""
SELECT {_COLUMNS} FROM notification_targets
WHERE tenant_id = %(tenant)s AND (%(after)s::uuid IS NULL OR target_id > %(after)s)
ORDER BY target_id LIMIT %(limit)s
"""


async def page(tx: Tx, tenant: TenantId, *, after: UUID | None, limit: int) -> Page[SealedTarget]:
    """Return a page of a tenant's targets, ordered by id."""
    parameters = {"tenant": tenant, "after": after, "limit": limit}
    return await fetch_page(tx, SealedTarget, PAGE, parameters, cursor=("after",))


ENABLED: Final = f"""
SELECT {_COLUMNS} FROM notification_targets WHERE tenant_id = ANY(%(tenants)s) AND is_enabled ORDER BY target_id
"""


async def enabled(tx: Tx, tenants: Sequence[TenantId]) -> list[SealedTarget]:
    """Return the enabled targets of these tenants."""
    return await fetch_rows(tx, SealedTarget, ENABLED, {"tenants": list(tenants)})


EXISTING: Final = """
SELECT target_id FROM notification_targets WHERE tenant_id = %(tenant)s AND target_id = ANY(%(ids)s)
"""


async def check_exist(tx: Tx, tenant: TenantId, ids: Sequence[UUID], path: str) -> None:
    """Raise `Invalid` unless the tenant has a target with each of these ids."""
    cursor = await tx.execute(EXISTING, {"tenant": tenant, "ids": list(ids)})
    found = {row[0] for row in await cursor.fetchall()}
    for number, id_ in enumerate(ids):
        if id_ not in found:
            raise Invalid("must be the id of an existing target", f"{path}[{number}]")


DELETE: Final = "DELETE FROM notification_targets WHERE tenant_id = %(tenant)s AND target_id = %(id)s"


USED: Final = """
SELECT 'the rule ' || name FROM alert_rules
WHERE tenant_id = %(tenant)s AND definition->'targets' ? %(text)s
UNION ALL
SELECT 'the escalation policy ' || name FROM escalation_policies
WHERE tenant_id = %(tenant)s
  AND jsonb_path_exists(steps, '$[*].targets[*] ? (@ == $id)', jsonb_build_object('id', %(text)s::text))
LIMIT 1
"""


async def delete(tx: Tx, tenant: TenantId, target: UUID, *, by: Actor) -> None:
    """Delete a target with its notices; raises `NotFound`, and `Conflict` if a rule or a policy names it."""
    old = await get(tx, tenant, target)
    used = await (await tx.execute(USED, {"tenant": tenant, "text": str(target)})).fetchone()
    if used is not None:
        raise Conflict(f"The target is named by {used[0]}. Change that first, or disable the target.")
    await tx.execute(DELETE, {"tenant": tenant, "id": target})
    await audit.record(
        *(tx, tenant, by, "notification_target.deleted", ("notification_target", target)),
        before={"name": old.name, "kind": old.kind},
    )
