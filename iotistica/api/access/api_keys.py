"""Routes for the API keys of integrations, which are shown once, can be scoped, and expire."""

from datetime import datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from litestar import Router, delete, get, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from iotistica.api.http.access_tokens import now
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep, ServerContextDep
from iotistica.api.http.guard import actor_of, tenant_of
from iotistica.api.http.inputs import NamedBody, ShortName
from iotistica.domain.access import credentials
from iotistica.domain.access.permissions import PERMISSIONS, is_allowed, is_at_least
from iotistica.errors import Forbidden, Invalid, NotFound
from iotistica.storage.access import api_keys


class NewApiKey(NamedBody, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """`scopes` are permissions such as `readings.read`; without them the key has all permissions of its role."""

    name: ShortName
    role: Literal["viewer", "operator", "manager", "admin"] = "viewer"
    scopes: Annotated[list[str], Meta(min_length=1, max_length=50)] | None = None
    expires_in_days: Annotated[int, Meta(ge=1, le=3650)] = 365


class ApiKeyView(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    id: UUID
    name: str
    hint: str
    role: str
    scopes: list[str] | None
    created_by: str | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    key: str | None = None
    """Returned only by the call that created it."""


class ApiKeys(msgspec.Struct, frozen=True, kw_only=True):
    keys: list[ApiKeyView]


@post("/", opt={"permission": "keys.manage"}, status_code=201)
async def add_key(
    request: ApiRequest, data: JSONBody[NewApiKey], database: DatabaseDep, context: ServerContextDep
) -> ApiKeyView:
    """Create an API key, and return the key, which cannot be retrieved later."""
    if not is_at_least(request.auth.role, data.role):
        raise Forbidden("You cannot assign a role above your own.")
    if unknown := [
        scope for scope in data.scopes or () if scope not in PERMISSIONS or not PERMISSIONS[scope].api_keys
    ]:
        known = ", ".join(name for name, rule in PERMISSIONS.items() if rule.api_keys)
        raise Invalid(f"contains the unknown scope {unknown[0][:50]!r}; the scopes are {known}", "scopes")
    if excess := [scope for scope in data.scopes or () if not is_allowed(scope, data.role)]:
        minimum_role = PERMISSIONS[excess[0]].minimum_role
        raise Invalid(
            f"contains {excess[0]}, which needs the role {minimum_role}; the key has the role {data.role}", "scopes"
        )
    tenant, secret = tenant_of(request), context.secret(credentials.INTEGRATION)
    async with database.transaction(tenant) as tx:
        created = await api_keys.add(
            *(tx, tenant, data.name),
            digest=secret.digest,
            hint=secret.hint,
            role=data.role,
            scopes=data.scopes,
            expires=now() + timedelta(days=data.expires_in_days),
            by=actor_of(request),
        )
    return _view(created, secret.text)


@get("/", opt={"permission": "keys.manage"})
async def list_keys(request: ApiRequest, database: DatabaseDep) -> ApiKeys:
    """List the API keys of the tenant that are not revoked."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        rows = await api_keys.all_of(tx, tenant)
    return ApiKeys(keys=[_view(key) for key in rows])


@delete("/{key:uuid}", opt={"permission": "keys.manage"}, status_code=204)
async def revoke_key(request: ApiRequest, database: DatabaseDep, key: FromPath[UUID]) -> None:
    """Revoke an API key."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        if not await api_keys.revoke(tx, tenant, key, by=actor_of(request)):
            raise NotFound


def _view(key: api_keys.ApiKey, text: str | None = None) -> ApiKeyView:
    return ApiKeyView(
        id=key.key_id,
        name=key.name,
        hint=key.hint,
        role=key.role,
        scopes=key.scopes,
        created_by=key.created_by,
        created_at=key.created_at,
        expires_at=key.expires_at,
        last_used_at=key.last_used_at,
        key=text,
    )


router = Router("/auth/api-keys", route_handlers=[add_key, list_keys, revoke_key], tags=["users"])
