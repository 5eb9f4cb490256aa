"""Stores escalation policies."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

import msgspec
import psycopg

from iotistica.domain.alerts.escalations import Policy, Step
from iotistica.domain.alerts.escalations import check_chain as check
from iotistica.domain.ids import TenantId
from iotistica.errors import Conflict, Invalid, NotFound
from iotistica.storage.alerts import targets
from iotistica.storage.history import audit
from iotistica.storage.history.audit import Actor
from iotistica.storage.jsonb import jsonb
from iotistica.storage.postgres import Page, Tx, fetch_page, fetch_row, fetch_rows

POLICIES_LIMIT: Final = 100  # policies of a tenant


class StoredPolicy(Policy, frozen=True, kw_only=True):
    author: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class TenantPolicy(Policy, frozen=True, kw_only=True):
    tenant_id: TenantId


_COLUMNS: Final = "policy_id, name, steps, next_id, author, created_at, updated_at"
LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('escalation_policies ' || %(tenant)s, 0))"
PUT: Final = f"""
INSERT INTO escalation_policies AS p (policy_id, tenant_id, name, steps, next_id, author)
VALUES (%(id)s, %(tenant)s, %(name)s, %(steps)s::jsonb, %(next)s, %(author)s::jsonb)
ON CONFLICT (policy_id) DO UPDATE
SET name = excluded.name, steps = excluded.steps, next_id = excluded.next_id, updated_at = now()
WHERE p.tenant_id = %(tenant)s
RETURNING {_COLUMNS}
"""


async def put(
    tx: Tx,
    tenant: TenantId,
    *,
    name: str,
    steps: Sequence[Step],
    next_id: UUID | None,
    old: StoredPolicy | None,
    by: Actor,
) -> StoredPolicy:
    """Create a policy, or replace `old`; raises `Conflict`, and `Invalid` for a circle or unknown ids."""
    await tx.execute(LOCK, {"tenant": tenant})  # no concurrent writes can make two policies continue each other
    known = {policy.policy_id: policy for policy in await of_tenants(tx, [tenant])}
    if old is None and len(known) >= POLICIES_LIMIT:
        raise Conflict(f"The tenant has {POLICIES_LIMIT} escalation policies, as many as it can have.")
    id_ = old.policy_id if old else uuid4()
    check(id_, name, next_id, known, "next")
    for number, step in enumerate(steps):
        await targets.check_exist(tx, tenant, step.targets, f"steps[{number}].targets")
    parameters = {"id": id_, "tenant": tenant, "name": name, "steps": jsonb(list(steps)), "next": next_id}
    try:
        stored = await fetch_row(tx, StoredPolicy, PUT, parameters | {"author": jsonb(by.author)})
    except psycopg.errors.UniqueViolation:
        raise Conflict(f"An escalation policy {name!r} exists already. Choose another name.") from None
    assert stored is not None  # noqa: S101 the id is new, or the row was read before
    action = "escalation_policy.changed" if old else "escalation_policy.added"
    await audit.record(
        *(tx, tenant, by, action, ("escalation_policy", id_)),
        before=_facts(old) if old else None,
        after=_facts(stored),
    )
    return stored


def _facts(policy: Policy) -> dict[str, Any]:
    return {"name": policy.name, "steps": msgspec.to_builtins(policy.steps), "next": policy.next_id}


GET: Final = f"SELECT {_COLUMNS} FROM escalation_policies WHERE tenant_id = %(tenant)s AND policy_id = %(id)s"


async def get(tx: Tx, tenant: TenantId, policy: UUID) -> StoredPolicy:
    """Return one policy; raises `NotFound`."""
    row = await fetch_row(tx, StoredPolicy, GET, {"tenant": tenant, "id": policy})
    if row is None:
        raise NotFound
    return row


async def check_exists(tx: Tx, tenant: TenantId, policy: UUID, path: str) -> None:
    """Raise `Invalid` unless the tenant has this policy."""
    if await fetch_row(tx, StoredPolicy, GET, {"tenant": tenant, "id": policy}) is None:
        raise Invalid("must be the id of an existing escalation policy", path)


PAGE: Final = f"""
SELECT {_COLUMNS} FROM escalation_policies
WHERE tenant_id = %(tenant)s AND (%(after)s::uuid IS NULL OR policy_id > %(after)s)
ORDER BY policy_id LIMIT %(limit)s
"""


async def page(tx: Tx, tenant: TenantId, *, after: UUID | None, limit: int) -> Page[StoredPolicy]:
    """Return a page of a tenant's policies, ordered by id."""
    parameters = {"tenant": tenant, "after": after, "limit": limit}
    return await fetch_page(tx, StoredPolicy, PAGE, parameters, cursor=("after",))


OF_TENANTS: Final = """
SELECT policy_id, tenant_id, name, steps, next_id FROM escalation_policies WHERE tenant_id = ANY(%(tenants)s)
"""


async def of_tenants(tx: Tx, tenants: Sequence[TenantId]) -> list[TenantPolicy]:
    """Return all policies of these tenants."""
    return await fetch_rows(tx, TenantPolicy, OF_TENANTS, {"tenants": list(tenants)})


DELETE: Final = "DELETE FROM escalation_policies WHERE tenant_id = %(tenant)s AND policy_id = %(id)s"


USED: Final = (
    "SELECT name FROM alert_rules WHERE tenant_id = %(tenant)s AND definition->>'escalation' = %(text)s LIMIT 1"
)


async def delete(tx: Tx, tenant: TenantId, policy: UUID, *, by: Actor) -> None:
    """Delete a policy; raises `NotFound`, and `Conflict` if a rule names it or another policy continues with it."""
    old = await get(tx, tenant, policy)
    used = await (await tx.execute(USED, {"tenant": tenant, "text": str(policy)})).fetchone()
    if used is not None:
        raise Conflict(f"The policy is named by the rule {used[0]}. Change that first.")
    try:
        await tx.execute(DELETE, {"tenant": tenant, "id": policy})
    except psycopg.errors.ForeignKeyViolation:
        raise Conflict("Other policies continue with this one. Change or delete them first.") from None
    await audit.record(
        tx, tenant, by, "escalation_policy.deleted", ("escalation_policy", policy), before=_facts(old)
    )
