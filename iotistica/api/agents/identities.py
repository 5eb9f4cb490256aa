"""Routes by which administrators revoke, re-enrol, retire and replace an agent."""

from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Router, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from iotistica.api.http.access_tokens import now
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep, ServerContextDep
from iotistica.api.http.guard import actor_of, tenant_of
from iotistica.api.http.inputs import Text
from iotistica.storage.agents import identities


class Revocation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: Text | None = None


class Enrolment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    hours: Annotated[float, Meta(gt=0, le=720)] = 24


class Replacement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    by: UUID
    """The UUID of the new hardware, which must have registered itself."""


class IdentityState(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    uuid: UUID
    state: str
    enrol_until: datetime | None = None
    replaced_by: UUID | None = None


@post("/{agent:uuid}/revoke", opt={"permission": "agents.identity"}, status_code=200)
async def revoke(
    request: ApiRequest,
    database: DatabaseDep,
    context: ServerContextDep,
    agent: FromPath[UUID],
    data: JSONBody[Revocation | None] = None,
) -> IdentityState:
    """Lock an agent out of HTTP and MQTT at once.

    Its readings stay, and `POST …/re-enrol` lets it register again.
    """
    tenant, reason = tenant_of(request), data.reason if data else None
    async with database.transaction(tenant) as tx:
        await identities.revoke(tx, tenant, agent, reason=reason, server_key=context.key, by=actor_of(request))
    return IdentityState(uuid=agent, state="revoked")


@post("/{agent:uuid}/re-enrol", opt={"permission": "agents.identity"}, status_code=200)
async def re_enrol(
    request: ApiRequest,
    database: DatabaseDep,
    context: ServerContextDep,
    agent: FromPath[UUID],
    data: JSONBody[Enrolment | None] = None,
) -> IdentityState:
    """Let an agent register again with a provisioning key, for example after a factory reset.

    It keeps its UUID and its history. Its present keys stop working now, and it must register within `hours`.
    """
    tenant, until = tenant_of(request), now() + timedelta(hours=(data or Enrolment()).hours)
    async with database.transaction(tenant) as tx:
        await identities.re_enrol(tx, tenant, agent, until=until, server_key=context.key, by=actor_of(request))
    return IdentityState(uuid=agent, state="new", enrol_until=until)


@post("/{agent:uuid}/retire", opt={"permission": "agents.identity"}, status_code=200)
async def retire(
    request: ApiRequest, database: DatabaseDep, context: ServerContextDep, agent: FromPath[UUID]
) -> IdentityState:
    """Take an agent out of service for good; its readings stay."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        await identities.retire(tx, tenant, agent, server_key=context.key, by=actor_of(request))
    return IdentityState(uuid=agent, state="retired")


@post("/{agent:uuid}/replace", opt={"permission": "agents.identity"}, status_code=200)
async def replace(
    request: ApiRequest,
    data: JSONBody[Replacement],
    database: DatabaseDep,
    context: ServerContextDep,
    agent: FromPath[UUID],
) -> IdentityState:
    """Replace an agent with new hardware that has registered itself; the old agent is retired.

    The new hardware takes over the name and the fleet, the tags that it does not have, and the agent's own
    target if it has none.
    """
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        await identities.replace(tx, tenant, agent, data.by, server_key=context.key, by=actor_of(request))
    return IdentityState(uuid=agent, state="retired", replaced_by=data.by)


router = Router("/agents", route_handlers=[revoke, re_enrol, retire, replace], tags=["provisioning"])
