"""Routes by which administrators create, list and revoke provisioning keys."""

from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Router, delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import Meta

from iotistica.api.http import cursors
from iotistica.api.http.access_tokens import now
from iotistica.api.http.cursors import cut_page
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep, ServerContextDep
from iotistica.api.http.guard import actor_of, tenant_of
from iotistica.api.http.inputs import Cursor, Limit, Text
from iotistica.domain.access import credentials
from iotistica.errors import Invalid, NotFound
from iotistica.storage.agents import fleets, provisioning_keys
from iotistica.storage.agents.provisioning_keys import ProvisioningKey


class NewProvisioningKey(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    fleet_uuid: UUID | None = None
    max_devices: Annotated[int, Meta(ge=1, le=100_000)] = 100
    expires_in_days: Annotated[int, Meta(ge=1, le=3650)] = 365
    description: Text | None = None


class ProvisioningKeyView(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    id: UUID
    fleet_uuid: UUID | None
    hint: str
    description: str | None
    max_devices: int
    used: int
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    key: str | None = None
    """Returned only by the call that created it."""


class ProvisioningKeys(msgspec.Struct, frozen=True, kw_only=True):
    keys: list[ProvisioningKeyView]
    count: int
    total: int
    next: str | None


@post("/", opt={"permission": "provisioning.manage"}, status_code=201)
async def add_key(
    request: ApiRequest,
    database: DatabaseDep,
    context: ServerContextDep,
    data: JSONBody[NewProvisioningKey | None] = None,
) -> ProvisioningKeyView:
    """Create a provisioning key with which at most `maxDevices` agents can register.

    The key cannot be retrieved later.
    """
    wanted = data or NewProvisioningKey()
    tenant, secret = tenant_of(request), context.secret(credentials.PROVISIONING)
    async with database.transaction(tenant) as tx:
        if wanted.fleet_uuid and await fleets.find(tx, tenant, str(wanted.fleet_uuid)) is None:
            raise Invalid("must be the UUID of an existing fleet", "fleetUuid")
        created = await provisioning_keys.add(
            *(tx, tenant),
            digest=secret.digest,
            hint=secret.hint,
            fleet=wanted.fleet_uuid,
            description=wanted.description,
            max_uses=wanted.max_devices,
            expires=now() + timedelta(days=wanted.expires_in_days),
            by=actor_of(request),
        )
    return _view(created, secret.text)


@get("/", opt={"permission": "provisioning.manage"})
async def list_keys(
    request: ApiRequest,
    database: DatabaseDep,
    fleet: FromQuery[UUID | None] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> ProvisioningKeys:
    """List the provisioning keys of the tenant that are not revoked."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        found = await provisioning_keys.page(
            tx, tenant, fleet=fleet, after=cursors.parse_uuid(cursor), limit=limit + 1
        )
    page, more = cut_page(found, limit, lambda key: str(key.key_id))
    return ProvisioningKeys(keys=[_view(key) for key in page], count=len(page), total=found.total, next=more)


@delete("/{key:uuid}", opt={"permission": "provisioning.manage"}, status_code=204)
async def revoke_key(request: ApiRequest, database: DatabaseDep, key: FromPath[UUID]) -> None:
    """Revoke a provisioning key; the agents that registered with it stay registered."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        if not await provisioning_keys.revoke(tx, tenant, key, by=actor_of(request)):
            raise NotFound


def _view(key: ProvisioningKey, text: str | None = None) -> ProvisioningKeyView:
    return ProvisioningKeyView(
        id=key.key_id,
        fleet_uuid=key.fleet_uuid,
        hint=key.hint,
        description=key.description,
        max_devices=key.max_uses,
        used=key.uses,
        created_at=key.created_at,
        expires_at=key.expires_at,
        last_used_at=key.last_used_at,
        key=text,
    )


router = Router("/provision/keys", route_handlers=[add_key, list_keys, revoke_key], tags=["provisioning"])
alias = Router(
    "/provisioning-keys",
    route_handlers=[add_key, list_keys, revoke_key],
    tags=["provisioning"],
    include_in_schema=False,
)
