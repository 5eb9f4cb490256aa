"""Routes by which an agent proves its private key, reads its own record and rotates its API key."""

import secrets
from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Router, get, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from iotistica.api.http.access_tokens import now
from iotistica.api.http.dependencies import ApiRequest, BrokerSyncDep, DatabaseDep, ServerContextDep
from iotistica.api.http.guard import actor_of, tenant_of
from iotistica.api.http.inputs import Secret
from iotistica.domain.access import credentials
from iotistica.domain.access.permissions import AGENT
from iotistica.domain.ids import AgentId, TenantId, base64url
from iotistica.errors import NotFound
from iotistica.storage.agents import agent_keys, agents, broker_accounts, identities
from iotistica.storage.postgres import Tx


class Challenge(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    challenge: str
    expires_at: datetime


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    signature: Annotated[str, Meta(min_length=1, max_length=512)]
    """The signature of `<uuid>:<challenge>`, in base64."""
    uuid: UUID | None = None


class Device(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    id: UUID
    uuid: UUID
    device_name: str


class Exchanged(msgspec.Struct, frozen=True, kw_only=True):
    status: str
    message: str
    device: Device


class Rotation(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    device_api_key: Secret | None = None
    """The new key, if the agent generated it."""
    grace_hours: Annotated[float, Meta(ge=0, le=720)] | None = None


class Rotated(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    old_key_valid_until: datetime
    """The old key works until this time or until the new key is used, whichever comes first."""
    api_key: str | None = None
    """The new key, if the platform generated it; returned only this once."""


class AgentFacts(msgspec.Struct, frozen=True, kw_only=True):
    uuid: UUID
    name: str
    status: str


@post("/device/{agent:uuid}/challenge", opt={"permission": AGENT, "unproven": True}, status_code=200)
async def challenge(request: ApiRequest, database: DatabaseDep, agent: FromPath[UUID]) -> Challenge:
    """Create another challenge for an agent; earlier ones stay valid until they expire."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        return await make_challenge(tx, tenant, AgentId(agent))


@post("/device/{agent:uuid}/key-exchange", opt={"permission": AGENT, "unproven": True}, status_code=200)
async def exchange(
    request: ApiRequest,
    data: JSONBody[Exchange],
    database: DatabaseDep,
    broker_sync: BrokerSyncDep,
    agent: FromPath[UUID],
) -> Exchanged:
    """Prove that the agent holds its private key; from then on it may connect.

    A wrong signature does not use up a challenge.
    """
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        identity = await identities.prove(tx, tenant, agent, data.signature, by=actor_of(request))
        since = await broker_accounts.database_now(tx)
    if identity.state == "registered":  # its state before this call
        await broker_sync.wait_until_current(since)
    device = Device(id=identity.agent_uuid, uuid=identity.agent_uuid, device_name=identity.name)
    return Exchanged(status="ok", message="key exchange successful", device=device)


@post("/device/{agent:uuid}/rotate-key", opt={"permission": "agents.rotate"}, status_code=200)
async def rotate(
    request: ApiRequest,
    database: DatabaseDep,
    context: ServerContextDep,
    agent: FromPath[UUID],
    data: JSONBody[Rotation | None] = None,
) -> Rotated:
    """Replace the API key of an agent.

    The old key works until the new key is used or the grace period ends. The MQTT password does not change.
    """
    rotation = data or Rotation()
    generated = context.secret(credentials.AGENT) if rotation.device_api_key is None else None
    hours = context.settings.key_grace_hours if rotation.grace_hours is None else rotation.grace_hours
    until, tenant = now() + timedelta(hours=hours), tenant_of(request)
    digest = generated.digest if generated else credentials.digest(context.key, rotation.device_api_key or "")
    async with database.transaction(tenant) as tx:
        await identities.rotate(tx, tenant, agent, digest, until=until, by=actor_of(request))
    return Rotated(old_key_valid_until=until, api_key=generated.text if generated else None)


@get("/devices/{agent:uuid}", opt={"permission": AGENT})
async def device(request: ApiRequest, database: DatabaseDep, agent: FromPath[UUID]) -> AgentFacts:
    """Return an agent's own record; the public agent requests it at a factory reset."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        stored = await agents.get(tx, tenant, agent)
    if stored is None:
        raise NotFound
    return AgentFacts(uuid=stored.agent_uuid, name=stored.name, status=stored.state)


async def make_challenge(tx: Tx, tenant: TenantId, agent: AgentId) -> Challenge:
    """Store and return a new challenge that the agent can answer."""
    text, expires = base64url(secrets.token_bytes(credentials.ENTROPY)), now() + agent_keys.CHALLENGE_LIFETIME
    await agent_keys.add_challenge(tx, tenant, agent, text, expires=expires)
    return Challenge(challenge=text, expires_at=expires)


router = Router("/", route_handlers=[challenge, exchange, rotate, device], tags=["provisioning"])
