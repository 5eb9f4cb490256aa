"""Stores alert rules."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

import msgspec
import psycopg
from loguru import logger
from psycopg.rows import dict_row

from iotistica.domain.alerts.events import Severity
from iotistica.domain.alerts.rules import Rule, RuleSpec
from iotistica.domain.ids import TenantId
from iotistica.errors import Conflict, NotFound
from iotistica.storage.alerts import escalations, targets
from iotistica.storage.history import audit
from iotistica.storage.history.audit import Actor
from iotistica.storage.jsonb import jsonb
from iotistica.storage.postgres import Page, Tx, fetch_page, fetch_row

RULES_LIMIT: Final = 1000  # rules of a tenant, unless its quota says otherwise


class StoredRule(msgspec.Struct, frozen=True, kw_only=True):
    rule_id: UUID
    name: str
    definition: RuleSpec
    severity: Severity
    is_enabled: bool
    author: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class NewRule(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a new or changed rule."""

    name: str
    definition: RuleSpec
    severity: Severity
    is_enabled: bool


_COLUMNS: Final = "rule_id, name, definition, severity, is_enabled, author, created_at, updated_at"
LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('alert_rules ' || %(tenant)s, 0))"
COUNT: Final = "SELECT count(*) FROM alert_rules WHERE tenant_id = %(tenant)s"
PUT: Final = f"""
INSERT INTO alert_rules AS r (rule_id, tenant_id, name, definition, severity, is_enabled, author)
VALUES (%(id)s, %(tenant)s, %(name)s, %(definition)s::jsonb, %(severity)s, %(is_enabled)s, %(author)s::jsonb)
ON CONFLICT (rule_id) DO UPDATE
SET name = excluded.name, definition = excluded.definition, severity = excluded.severity,
    is_enabled = excluded.is_enabled, updated_at = now(),
    generation = r.generation + ((NOT r.is_enabled AND excluded.is_enabled)
        OR r.definition->'condition'->>'kind' <> excluded.definition->'condition'->>'kind')::int
WHERE r.tenant_id = %(tenant)s
RETURNING {_COLUMNS}
"""


async def put(
    tx: Tx, tenant: TenantId, wanted: NewRule, *, old: StoredRule | None, most: int | None, by: Actor
) -> StoredRule:
    """Create a rule, or replace `old`; raises `Conflict` for a name in use, and above `most` rules."""
    await tx.execute(LOCK, {"tenant": tenant})
    if old is None:
        row = await (await tx.execute(COUNT, {"tenant": tenant})).fetchone()
        limit = RULES_LIMIT if most is None else most
        if row is not None and row[0] >= limit:
            raise Conflict(f"The tenant has {limit} alert rules, as many as it can have. Delete some first.")
    parameters = {"id": old.rule_id if old else uuid4(), "tenant": tenant, "author": jsonb(by.author)}
    parameters |= {"name": wanted.name, "severity": wanted.severity, "is_enabled": wanted.is_enabled}
    try:
        stored = await fetch_row(tx, StoredRule, PUT, parameters | {"definition": jsonb(wanted.definition)})
    except psycopg.errors.UniqueViolation:
        raise Conflict(f"A rule {wanted.name!r} exists already. Choose another name.") from None
    assert stored is not None  # noqa: S101 the id is new, or the row was read before
    await targets.check_exist(tx, tenant, wanted.definition.targets, "targets")
    if wanted.definition.escalation is not None:
        await escalations.check_exists(tx, tenant, wanted.definition.escalation, "escalation")
    action = "alert_rule.changed" if old else "alert_rule.added"
    await audit.record(
        *(tx, tenant, by, action, ("alert_rule", stored.rule_id)),
        before=_facts(old) if old else None,
        after=_facts(stored),
    )
    return stored


def _facts(rule: StoredRule) -> dict[str, Any]:
    return {
        "name": rule.name,
        "severity": rule.severity,
        "enabled": rule.is_enabled,
        "definition": msgspec.to_builtins(rule.definition),
    }


GET: Final = f"SELECT {_COLUMNS} FROM alert_rules WHERE tenant_id = %(tenant)s AND rule_id = %(id)s"


async def get(tx: Tx, tenant: TenantId, rule: UUID) -> StoredRule:
    """Return one rule; raises `NotFound`."""
    row = await fetch_row(tx, StoredRule, GET, {"tenant": tenant, "id": rule})
    if row is None:
        raise NotFound
    return row


PAGE: Final = f"""
SELECT {_COLUMNS} FROM alert_rules
WHERE tenant_id = %(tenant)s AND (%(after)s::uuid IS NULL OR rule_id > %(after)s)
  AND (%(enabled)s::boolean IS NULL OR is_enabled = %(enabled)s)
ORDER BY rule_id LIMIT %(limit)s
"""


async def page(
    tx: Tx, tenant: TenantId, *, after: UUID | None, enabled: bool | None, limit: int
) -> Page[StoredRule]:
    """Return a page of a tenant's rules, ordered by id."""
    parameters = {"tenant": tenant, "after": after, "enabled": enabled, "limit": limit}
    return await fetch_page(tx, StoredRule, PAGE, parameters, cursor=("after",))


DELETE: Final = "DELETE FROM alert_rules WHERE tenant_id = %(tenant)s AND rule_id = %(id)s"


async def delete(tx: Tx, tenant: TenantId, rule: UUID, *, by: Actor) -> None:
    """Delete a rule; its open incidents are resolved by the process that applies rules. Raises `NotFound`."""
    old = await get(tx, tenant, rule)
    await tx.execute(DELETE, {"tenant": tenant, "id": rule})
    await audit.record(tx, tenant, by, "alert_rule.deleted", ("alert_rule", rule), before=_facts(old))


# The transaction that wrote a row tells its versions apart; one that is not committed yet is not seen.
REVISION: Final = """
SELECT coalesce(md5(string_agg(r.rule_id::text || r.xmin::text, '' ORDER BY r.rule_id)), '')
FROM alert_rules r JOIN tenants t USING (tenant_id) WHERE r.is_enabled AND t.enabled
"""


async def revision(tx: Tx) -> str:
    """Return a text that differs after every change of the enabled rules of all enabled tenants."""
    row = await (await tx.execute(REVISION)).fetchone()
    return str(row[0]) if row else ""


ENABLED: Final = """
SELECT r.rule_id, r.tenant_id, r.name, r.severity, r.generation, r.definition,
       w.generation IS DISTINCT FROM r.generation AS is_new
FROM alert_rules r JOIN tenants t USING (tenant_id) LEFT JOIN watched_rules w USING (tenant_id, rule_id)
WHERE r.is_enabled AND t.enabled ORDER BY r.rule_id
"""


async def enabled(tx: Tx) -> list[Rule]:
    """Return the enabled rules of all enabled tenants; one that this version cannot read is left out and logged."""
    found = []
    async with tx.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(ENABLED)
        for row in await cursor.fetchall():
            try:
                found.append(msgspec.convert(row, Rule))
            except msgspec.ValidationError as exc:
                logger.bind(rule=row["rule_id"], reason=str(exc)).error("an alert rule cannot be read")
    return found


RECORD_APPLIED: Final = """
INSERT INTO watched_rules (rule_id, tenant_id, generation)
SELECT r.rule_id, r.tenant_id, n.generation
FROM unnest(%(rules)s::uuid[], %(tenants)s::text[], %(generations)s::int[]) AS n (rule_id, tenant_id, generation)
JOIN alert_rules r USING (tenant_id, rule_id)
FOR KEY SHARE OF r
ON CONFLICT (rule_id) DO UPDATE SET generation = excluded.generation
"""


async def record_applied(tx: Tx, applied: Sequence[Rule]) -> None:
    """Note that these rules have been applied to what was stored until now."""
    if applied:
        await tx.execute(
            RECORD_APPLIED,
            {
                "rules": [rule.rule_id for rule in applied],
                "tenants": [rule.tenant_id for rule in applied],
                "generations": [rule.generation for rule in applied],
            },
        )
