"""Routes by which agents register with a provisioning key."""

from datetime import datetime
from typing import Annotated, Final
from uuid import UUID, uuid4

import msgspec
from litestar import Router, post
from litestar.params import HeaderParameter, JSONBody
from msgspec import Meta

from iotistica.api.agents.key_exchange import make_challenge
from iotistica.api.http.access_tokens import now
from iotistica.api.http.dependencies import (
    ApiRequest,
    BrokerSyncDep,
    DatabaseDep,
    PlatformDatabaseDep,
    RateLimiterDep,
    ServerContext,
    ServerContextDep,
)
from iotistica.api.http.guard import address_of, source_of
from iotistica.api.http.inputs import Secret
from iotistica.domain.access import credentials
from iotistica.domain.access.permissions import PUBLIC
from iotistica.domain.agents import broker_connection, key_proofs
from iotistica.domain.agents.broker_connection import MqttConnection, printable
from iotistica.domain.agents.broker_passwords import mqtt_password
from iotistica.domain.ids import AgentId, TenantId
from iotistica.errors import Conflict, Invalid, Unauthorized
from iotistica.storage.access.rate_limits import RateLimit, RateLimiter
from iotistica.storage.agents import agents, broker_accounts, identities, provisioning_keys
from iotistica.storage.agents.provisioning_keys import KeyOwner
from iotistica.storage.history import audit
from iotistica.storage.history.audit import Actor
from iotistica.storage.postgres import Database, Tx

REFUSED_REGISTRATIONS: Final = 3
"""The limit of refused registrations per minute from one address, as a multiple of its limit of logins."""

AgentText = Annotated[str, Meta(max_length=2000)]
"""Text that an agent reports about itself; it is truncated, and unprintable characters are removed."""
Header = Annotated[str, HeaderParameter(name="X-Provisioning-Key", max_length=credentials.LONGEST)]


class AgentRegistration(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    uuid: UUID
    device_api_key: Secret
    device_public_key: Annotated[str, Meta(max_length=2000)]
    device_name: AgentText | None = None
    device_type: AgentText | None = None
    mac_address: AgentText | None = None
    os_version: AgentText | None = None
    agent_version: AgentText | None = None


class Tls(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    verify_certificate: bool = msgspec.field(default=True)
    ca_cert: str | None = None


class ApiConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    tls_config: Tls


class RegisteredAgent(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    id: UUID
    uuid: UUID
    name: str
    device_name: str
    device_type: str | None
    tenant_id: str
    fleet_uuid: UUID | None
    challenge: str
    challenge_expires_at: datetime
    created_at: datetime
    mqtt: MqttConnection
    api: ApiConfig


class AgentRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    agent_name: AgentText | None = None
    key: Annotated[str, Meta(max_length=credentials.LONGEST)] = ""
    agent_type: AgentText | None = None


class ProvisionedAgent(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    api_key: str
    """Returned only this once."""
    agent_uuid: UUID
    tenant_id: str
    fleet_uuid: UUID | None
    mqtt: MqttConnection


@post("/agent/register", opt={"permission": PUBLIC}, status_code=200)
async def register(
    request: ApiRequest,
    data: JSONBody[AgentRegistration],
    database: DatabaseDep,
    platform_database: PlatformDatabaseDep,
    rate_limiter: RateLimiterDep,
    context: ServerContextDep,
    key: Header = "",
) -> RegisteredAgent:
    """Register an agent with a provisioning key.

    Repeating the same call changes nothing and returns the same answer with another challenge. A UUID that is
    registered with another key is answered 409.
    """
    try:
        key_proofs.public_key(data.device_public_key)
    except ValueError as exc:
        raise Invalid(str(exc), "devicePublicKey") from exc
    claim = identities.Claim(
        agent=AgentId(data.uuid),
        name=printable(data.device_name, 200) or f"agent-{str(data.uuid)[:8]}",
        kind=printable(data.device_type, 100),
        digest=credentials.digest(context.key, data.device_api_key),
        public_key=data.device_public_key,
        mac_address=printable(data.mac_address, 100),
        os_version=printable(data.os_version, 200),
        agent_version=printable(data.agent_version, 100),
    )
    by = Actor(kind="agent", id=str(data.uuid), name=claim.name, address=address_of(request))
    owner = await _owner(request, platform_database, rate_limiter, context, key)
    try:
        async with database.transaction(owner.tenant_id) as tx:
            identity = await identities.register(tx, claim, owner, server_key=context.key, now=now(), by=by)
            challenge = await make_challenge(tx, owner.tenant_id, claim.agent)
            mqtt = await _mqtt(tx, owner.tenant_id, claim.agent, context)
    except (Conflict, Unauthorized) as exc:
        await _refuse(platform_database, owner, by, str(exc))
        await rate_limiter.hit(_refusal_limit(context), source_of(request))
        raise
    return RegisteredAgent(
        id=identity.agent_uuid,
        uuid=identity.agent_uuid,
        name=identity.name,
        device_name=identity.name,
        device_type=identity.kind,
        tenant_id=owner.tenant_id,
        fleet_uuid=identity.fleet_uuid,
        challenge=challenge.challenge,
        challenge_expires_at=challenge.expires_at,
        created_at=identity.created_at,
        mqtt=mqtt,
        api=ApiConfig(tls_config=Tls(ca_cert=context.broker.ca)),
    )


@post("/provision/agent", opt={"permission": PUBLIC}, status_code=201)
async def provision(
    request: ApiRequest,
    data: JSONBody[AgentRequest],
    database: DatabaseDep,
    platform_database: PlatformDatabaseDep,
    rate_limiter: RateLimiterDep,
    broker_sync: BrokerSyncDep,
    context: ServerContextDep,
    key: Header = "",
) -> ProvisionedAgent:
    """Create an agent and generate its API key, for hardware that cannot generate one itself."""
    agent = AgentId(uuid4())
    secret = context.secret(credentials.AGENT)
    claim = identities.Claim(
        agent=agent,
        name=printable(data.agent_name, 200) or f"agent-{str(agent)[:8]}",
        kind=printable(data.agent_type, 100),
        digest=secret.digest,
        public_key=None,
    )
    by = Actor(kind="agent", id=str(agent), name=claim.name, address=address_of(request))
    owner = await _owner(request, platform_database, rate_limiter, context, key or data.key)
    try:
        async with database.transaction(owner.tenant_id) as tx:
            await identities.register(tx, claim, owner, server_key=context.key, now=now(), by=by)
            mqtt = await _mqtt(tx, owner.tenant_id, agent, context)
            since = await broker_accounts.database_now(tx)
    except (Conflict, Unauthorized) as exc:
        await _refuse(platform_database, owner, by, str(exc))
        await rate_limiter.hit(_refusal_limit(context), source_of(request))
        raise
    await broker_sync.wait_until_current(since)
    return ProvisionedAgent(
        api_key=secret.text, agent_uuid=agent, tenant_id=owner.tenant_id, fleet_uuid=owner.fleet_uuid, mqtt=mqtt
    )


async def _owner(
    request: ApiRequest, platform_database: Database, rate_limiter: RateLimiter, context: ServerContext, key: str
) -> KeyOwner:
    """Return the owner of a provisioning key; raises `Unauthorized`.

    A refusal counts against the client's address; a valid key is never delayed by such refusals.
    """
    if key:
        async with platform_database.transaction() as tx:
            owner = await provisioning_keys.find(tx, credentials.digest(context.key, key))
        if owner is not None:
            return owner
    await rate_limiter.hit(_refusal_limit(context), source_of(request))
    raise Unauthorized("this provisioning key is missing, unknown or revoked; send it as X-Provisioning-Key")


async def _refuse(platform_database: Database, owner: KeyOwner, by: Actor, reason: str) -> None:
    """Record a refusal in the audit logs of the key's tenant and, if it is another one, of the agent's tenant."""
    async with platform_database.transaction() as tx:
        holders = (await agents.tenants_of(tx, [UUID(by.id)])).values() if by.id else ()
        for tenant in {owner.tenant_id, *holders}:
            is_key_owner = tenant == owner.tenant_id
            facts = {"reason": reason} | ({"provisioning_key": owner.key_id} if is_key_owner else {})
            # Another tenant must not see the name that a stranger gives itself.
            actor = by if is_key_owner else Actor(kind="anybody", address=by.address)
            await audit.record(tx, tenant, actor, "agent.registration_refused", ("agent", by.id), after=facts)


def _refusal_limit(context: ServerContext) -> RateLimit:
    return RateLimit("refused", context.settings.login_limit * REFUSED_REGISTRATIONS)


async def _mqtt(tx: Tx, tenant: TenantId, agent: AgentId, context: ServerContext) -> MqttConnection:
    number = await broker_accounts.generation(tx, tenant, agent)
    return broker_connection.mqtt_connection(
        context.broker, tenant, agent, mqtt_password(context.key, tenant, agent, number)
    )


router = Router("/", route_handlers=[register, provision], tags=["provisioning"])
