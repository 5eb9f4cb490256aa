"""Routes for alert rules."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar import Router, delete, get, patch, post, put
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import UNSET

from iotistica.api.http import cursors
from iotistica.api.http.cursors import cut_page
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import actor_of, tenant_of
from iotistica.api.http.inputs import Cursor, Limit, Name, convert
from iotistica.domain import names
from iotistica.domain.alerts.events import Severity
from iotistica.domain.alerts.rules import RuleSpec
from iotistica.domain.control.jobs import merge_patch
from iotistica.storage.access import quotas
from iotistica.storage.alerts import rules
from iotistica.storage.alerts.rules import NewRule, StoredRule
from iotistica.storage.postgres import Database

READ = {"permission": "alerts.read"}
WRITE = {"permission": "alerts.write"}


class RuleBody(RuleSpec, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An alert rule: what it watches, its condition, and how it behaves."""

    name: Name
    severity: Severity = "warning"
    enabled: bool = True


class RuleView(RuleSpec, frozen=True, kw_only=True, omit_defaults=False):
    rule_id: UUID
    name: str
    severity: Severity
    enabled: bool
    author: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    rules: list[RuleView]
    count: int
    total: int
    next: str | None


@get("/", opt=READ)
async def list_rules(
    request: ApiRequest,
    database: DatabaseDep,
    enabled: FromQuery[bool | None] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Rules:
    """List the alert rules of the tenant, ordered by id."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        rows = await rules.page(tx, tenant, after=cursors.parse_uuid(cursor), enabled=enabled, limit=limit + 1)
    page, more = cut_page(rows, limit, lambda rule: str(rule.rule_id))
    return Rules(rules=[view(rule) for rule in page], count=len(page), total=rows.total, next=more)


@post("/", opt=WRITE, status_code=201)
async def add_rule(request: ApiRequest, data: JSONBody[RuleBody], database: DatabaseDep) -> RuleView:
    """Create an alert rule; it is applied within seconds. Try it with `…/preview` first."""
    return await _put(request, database, data, None)


@get("/{rule:uuid}", opt=READ)
async def get_rule(request: ApiRequest, database: DatabaseDep, rule: FromPath[UUID]) -> RuleView:
    """Return one alert rule."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        return view(await rules.get(tx, tenant, rule))


@put("/{rule:uuid}", opt=WRITE)
async def put_rule(
    request: ApiRequest, data: JSONBody[RuleBody], database: DatabaseDep, rule: FromPath[UUID]
) -> RuleView:
    """Replace an alert rule. Its open incidents last until the new condition ends; a disabled rule has none."""
    return await _put(request, database, data, rule)


@patch("/{rule:uuid}", opt=WRITE)
async def patch_rule(
    request: ApiRequest, data: JSONBody[dict[str, Any]], database: DatabaseDep, rule: FromPath[UUID]
) -> RuleView:
    """Change an alert rule by a merge patch (RFC 7396): absent fields stay, null removes one."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        old = await rules.get(tx, tenant, rule)
    body = {"name": old.name, "severity": old.severity, "enabled": old.is_enabled}
    merged = merge_patch(body | msgspec.to_builtins(old.definition), data)
    return await _put(request, database, parse(merged), rule)


@delete("/{rule:uuid}", opt=WRITE, status_code=204)
async def delete_rule(request: ApiRequest, database: DatabaseDep, rule: FromPath[UUID]) -> None:
    """Delete an alert rule; its open incidents are resolved."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        await rules.delete(tx, tenant, rule, by=actor_of(request))


def parse(body: object) -> RuleBody:
    """Return a rule from decoded JSON; raises `Invalid` with the path of the field at fault."""
    return convert(body, RuleBody)


async def _put(request: ApiRequest, database: Database, data: RuleBody, rule: UUID | None) -> RuleView:
    tenant = tenant_of(request)
    wanted = checked(data)
    async with database.transaction(tenant) as tx:
        old = await rules.get(tx, tenant, rule) if rule else None
        most = (await quotas.get(tx, tenant)).alert_rules
        return view(await rules.put(tx, tenant, wanted, old=old, most=most, by=actor_of(request)))


def checked(data: RuleBody) -> NewRule:
    """Return the rule to store; raises `Invalid` for fields that contradict each other."""
    facts = {name: getattr(data, name) for name in RuleSpec.__struct_fields__}
    definition = RuleSpec(**{name: value for name, value in facts.items() if value is not UNSET})
    definition.check()
    return NewRule(
        name=names.composed(data.name), definition=definition, severity=data.severity, is_enabled=data.enabled
    )


def view(rule: StoredRule) -> RuleView:
    """Return a rule as the API shows it."""
    return RuleView(
        **{name: getattr(rule.definition, name) for name in RuleSpec.__struct_fields__},
        rule_id=rule.rule_id,
        name=rule.name,
        severity=rule.severity,
        enabled=rule.is_enabled,
        author=rule.author,
        created_at=rule.created_at,
        updated_at=rule.updated_at,
    )


router = Router(
    "/anomaly/rules",
    route_handlers=[list_rules, add_rule, get_rule, put_rule, patch_rule, delete_rule],
    tags=["alerts"],
)
