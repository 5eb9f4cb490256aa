"""Routes for escalation policies."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Router, delete, get, post, put
from litestar.params import FromPath, JSONBody

from iotistica.api.http import cursors
from iotistica.api.http.cursors import cut_page
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import actor_of, tenant_of
from iotistica.api.http.inputs import Cursor, Limit, Name, NamedBody
from iotistica.domain.alerts.escalations import Step
from iotistica.storage.alerts import escalations
from iotistica.storage.alerts.escalations import StoredPolicy
from iotistica.storage.postgres import Database

READ = {"permission": "alerts.read"}
WRITE = {"permission": "alerts.write"}


class PolicyBody(NamedBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Steps that are taken one after another while nobody acknowledges an incident."""

    name: Name
    steps: Annotated[list[Step], msgspec.Meta(min_length=1, max_length=20)]
    next: UUID | None = None
    """The policy that continues after the last step."""


class PolicyView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    policy_id: UUID
    name: str
    steps: list[Step]
    next: UUID | None
    author: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class Policies(msgspec.Struct, frozen=True, kw_only=True):
    policies: list[PolicyView]
    count: int
    total: int
    next: str | None


@get("/", opt=READ)
async def list_policies(
    request: ApiRequest, database: DatabaseDep, limit: Limit = 100, cursor: Cursor = None
) -> Policies:
    """List the escalation policies of the tenant, ordered by id."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        rows = await escalations.page(tx, tenant, after=cursors.parse_uuid(cursor), limit=limit + 1)
    page, more = cut_page(rows, limit, lambda row: str(row.policy_id))
    return Policies(policies=[_view(row) for row in page], count=len(page), total=rows.total, next=more)


@post("/", opt=WRITE, status_code=201)
async def add_policy(request: ApiRequest, data: JSONBody[PolicyBody], database: DatabaseDep) -> PolicyView:
    """Create an escalation policy; a rule names it as `escalation`."""
    return await _put(request, database, data, None)


@get("/{policy:uuid}", opt=READ)
async def get_policy(request: ApiRequest, database: DatabaseDep, policy: FromPath[UUID]) -> PolicyView:
    """Return one escalation policy."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        return _view(await escalations.get(tx, tenant, policy))


@put("/{policy:uuid}", opt=WRITE)
async def put_policy(
    request: ApiRequest, data: JSONBody[PolicyBody], database: DatabaseDep, policy: FromPath[UUID]
) -> PolicyView:
    """Replace an escalation policy; incidents that are being escalated go on with its steps from where they are."""
    return await _put(request, database, data, policy)


@delete("/{policy:uuid}", opt=WRITE, status_code=204)
async def delete_policy(request: ApiRequest, database: DatabaseDep, policy: FromPath[UUID]) -> None:
    """Delete an escalation policy; 409 if others continue with it."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        await escalations.delete(tx, tenant, policy, by=actor_of(request))


async def _put(request: ApiRequest, database: Database, data: PolicyBody, policy: UUID | None) -> PolicyView:
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        old = await escalations.get(tx, tenant, policy) if policy else None
        stored = await escalations.put(
            tx, tenant, name=data.name, steps=data.steps, next_id=data.next, old=old, by=actor_of(request)
        )
    return _view(stored)


def _view(policy: StoredPolicy) -> PolicyView:
    return PolicyView(
        policy_id=policy.policy_id,
        name=policy.name,
        steps=list(policy.steps),
        next=policy.next_id,
        author=policy.author,
        created_at=policy.created_at,
        updated_at=policy.updated_at,
    )


router = Router(
    "/notifications/escalations",
    route_handlers=[list_policies, add_policy, get_policy, put_policy, delete_policy],
    tags=["alerts"],
)
