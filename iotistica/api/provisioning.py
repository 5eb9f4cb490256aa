"""How agents get in: registered with a provisioning key, proven by a signature, given another key."""

import secrets
from datetime import datetime, timedelta
from typing import Annotated, Final
from uuid import UUID, uuid4

import msgspec
from litestar import Router, get, post
from litestar.params import FromPath, HeaderParameter, JSONBody
from msgspec import Meta

from iotistica.api.given import Call, Data, Here, Limiter, Lookups, Site
from iotistica.api.guard import actor_of, address_of, tenant_of
from iotistica.api.tokens import now
from iotistica.domain import connections, credentials, proofs
from iotistica.domain.accounts import mqtt_password
from iotistica.domain.connections import Mqtt, plain
from iotistica.domain.ids import AgentId, TenantId, base64url
from iotistica.domain.permissions import AGENT, PUBLIC
from iotistica.errors import Conflict, Invalid, NotFound, Unauthorized
from iotistica.storage import agent_keys, agents, audit, broker_accounts, identities, provisioning_keys
from iotistica.storage.audit import Actor
from iotistica.storage.limits import Limit, Limits
from iotistica.storage.postgres import Database, Tx
from iotistica.storage.provisioning_keys import Owner

REFUSED: Final = 3
"""Refused registrations from one address a minute, in times the log-ins that it may try."""

Said = Annotated[str, Meta(max_length=2000)]
"""What a device says of itself; cut, and cleaned of what does not print."""
Secret = Annotated[str, Meta(min_length=credentials.SHORTEST, max_length=credentials.LONGEST)]
Header = Annotated[str, HeaderParameter(name="X-Provisioning-Key", max_length=credentials.LONGEST)]


class Registration(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    uuid: UUID
    device_api_key: Secret
    device_public_key: Annotated[str, Meta(max_length=2000)]
    device_name: Said | None = None
    device_type: Said | None = None
    mac_address: Said | None = None
    os_version: Said | None = None
    agent_version: Said | None = None


class Tls(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    verify_certificate: bool = msgspec.field(default=True)
    ca_cert: str | None = None


class ApiConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    tls_config: Tls


class Registered(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
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
    mqtt: Mqtt
    api: ApiConfig


class Challenge(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    challenge: str
    expires_at: datetime


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    signature: Annotated[str, Meta(min_length=1, max_length=512)]
    """Base64, over `<uuid>:<challenge>`."""
    uuid: UUID | None = None


class Device(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    id: UUID
    uuid: UUID
    device_name: str


class Exchanged(msgspec.Struct, frozen=True, kw_only=True):
    status: str
    message: str
    device: Device


class AgentRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    agent_name: Said | None = None
    key: Annotated[str, Meta(max_length=credentials.LONGEST)] = ""
    agent_type: Said | None = None


class Provisioned(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    api_key: str
    """Shown only now."""
    agent_uuid: UUID
    tenant_id: str
    fleet_uuid: UUID | None
    mqtt: Mqtt


class Rotation(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    device_api_key: Secret | None = None
    """The new key, if the agent has made one."""
    grace_hours: Annotated[float, Meta(ge=0, le=720)] | None = None


class Rotated(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    old_key_valid_until: datetime
    """Or until the new key is used, whichever comes first."""
    api_key: str | None = None
    """The new key, if it was made here; shown only now."""


class AgentFacts(msgspec.Struct, frozen=True, kw_only=True):
    uuid: UUID
    name: str
    status: str


@post("/agent/register", opt={"permission": PUBLIC}, status_code=200)
async def register(
    request: Call,
    data: JSONBody[Registration],
    database: Data,
    lookups: Lookups,
    limits: Limiter,
    site: Here,
    key: Header = "",
) -> Registered:
    """Register an agent with a provisioning key; the same call again is answered alike, with another challenge."""
    try:
        proofs.public_key(data.device_public_key)
    except ValueError as exc:
        raise Invalid(str(exc), "devicePublicKey") from exc
    claim = identities.Claim(
        agent=AgentId(data.uuid),
        name=plain(data.device_name, 200) or f"agent-{str(data.uuid)[:8]}",
        kind=plain(data.device_type, 100),
        digest=credentials.digest(site.key, data.device_api_key),
        public_key=data.device_public_key,
        mac_address=plain(data.mac_address, 100),
        os_version=plain(data.os_version, 200),
        agent_version=plain(data.agent_version, 100),
    )
    by = Actor(kind="agent", id=str(data.uuid), name=claim.name, address=address_of(request))
    owner = await _owner(lookups, limits, site, key, by)
    try:
        async with database.transaction(owner.tenant_id) as tx:
            found = await identities.register(tx, claim, owner, server_key=site.key, now=now(), by=by)
            challenge = await _challenge(tx, owner.tenant_id, claim.agent)
            mqtt = await _mqtt(tx, owner.tenant_id, claim.agent, site)
    except (Conflict, Unauthorized) as exc:
        await _refuse(lookups, limits, site, owner, by, str(exc))
        raise
    return Registered(
        id=found.agent_uuid,
        uuid=found.agent_uuid,
        name=found.name,
        device_name=found.name,
        device_type=found.kind,
        tenant_id=owner.tenant_id,
        fleet_uuid=found.fleet_uuid,
        challenge=challenge.challenge,
        challenge_expires_at=challenge.expires_at,
        created_at=found.created_at,
        mqtt=mqtt,
        api=ApiConfig(tls_config=Tls(ca_cert=site.broker.ca)),
    )


@post("/device/{agent:uuid}/challenge", opt={"permission": AGENT, "unproven": True}, status_code=200)
async def challenge(request: Call, database: Data, agent: FromPath[UUID]) -> Challenge:
    """Another challenge, beside those before it."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        return await _challenge(tx, tenant, AgentId(agent))


@post("/device/{agent:uuid}/key-exchange", opt={"permission": AGENT, "unproven": True}, status_code=200)
async def exchange(request: Call, data: JSONBody[Exchange], database: Data, agent: FromPath[UUID]) -> Exchanged:
    """Prove the private key; from then on the agent may connect. A wrong signature uses no challenge up."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        found = await identities.prove(tx, tenant, agent, data.signature, by=actor_of(request))
    device = Device(id=found.agent_uuid, uuid=found.agent_uuid, device_name=found.name)
    return Exchanged(status="ok", message="key exchange successful", device=device)


@post("/provision/agent", opt={"permission": PUBLIC}, status_code=201)
async def provision(
    request: Call,
    data: JSONBody[AgentRequest],
    database: Data,
    lookups: Lookups,
    limits: Limiter,
    site: Here,
    key: Header = "",
) -> Provisioned:
    """Make an agent whose API key is made here, for devices that cannot make one themselves."""
    agent = AgentId(uuid4())
    text = credentials.secret(credentials.AGENT, secrets.token_bytes(credentials.ENTROPY))
    claim = identities.Claim(
        agent=agent,
        name=plain(data.agent_name, 200) or f"agent-{str(agent)[:8]}",
        kind=plain(data.agent_type, 100),
        digest=credentials.digest(site.key, text),
        public_key=None,
    )
    by = Actor(kind="agent", id=str(agent), name=claim.name, address=address_of(request))
    owner = await _owner(lookups, limits, site, key or data.key, by)
    try:
        async with database.transaction(owner.tenant_id) as tx:
            await identities.register(tx, claim, owner, server_key=site.key, now=now(), by=by)
            mqtt = await _mqtt(tx, owner.tenant_id, agent, site)
    except (Conflict, Unauthorized) as exc:
        await _refuse(lookups, limits, site, owner, by, str(exc))
        raise
    return Provisioned(
        api_key=text, agent_uuid=agent, tenant_id=owner.tenant_id, fleet_uuid=owner.fleet_uuid, mqtt=mqtt
    )


@post("/device/{agent:uuid}/rotate-key", opt={"permission": "agents.rotate"}, status_code=200)
async def rotate(
    request: Call, database: Data, site: Here, agent: FromPath[UUID], data: JSONBody[Rotation | None] = None
) -> Rotated:
    """Give an agent another API key; the one it has stays good until the new one is used, or its grace ends."""
    wanted = data or Rotation()
    made = None
    if wanted.device_api_key is None:
        made = credentials.secret(credentials.AGENT, secrets.token_bytes(credentials.ENTROPY))
    hours = site.settings.key_grace_hours if wanted.grace_hours is None else wanted.grace_hours
    until, tenant = now() + timedelta(hours=hours), tenant_of(request)
    digest = credentials.digest(site.key, wanted.device_api_key or made or "")
    async with database.transaction(tenant) as tx:
        await identities.rotate(tx, tenant, agent, digest, until=until, by=actor_of(request))
    return Rotated(old_key_valid_until=until, api_key=made)


@get("/devices/{agent:uuid}", opt={"permission": AGENT})
async def device(request: Call, database: Data, agent: FromPath[UUID]) -> AgentFacts:
    """An agent as it sees itself; the real one asks at a factory reset."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        found = await agents.get(tx, tenant, agent)
    if found is None:
        raise NotFound
    return AgentFacts(uuid=found.agent_uuid, name=found.name, status=found.state)


async def _owner(lookups: Database, limits: Limits, site: Site, key: str, by: Actor) -> Owner:
    """Whose provisioning key it is; an address that was refused too often must wait."""
    await limits.hit(_refused(site), by.address or "", count=0)
    if key:
        async with lookups.transaction() as tx:
            owner = await provisioning_keys.find(tx, credentials.digest(site.key, key))
        if owner is not None:
            return owner
    await limits.hit(_refused(site), by.address or "")
    raise Unauthorized("send the header X-Provisioning-Key with a key that is neither unknown nor revoked")


async def _refuse(lookups: Database, limits: Limits, site: Site, owner: Owner, by: Actor, reason: str) -> None:
    """Write a refusal down for the key's tenant, and for the agent's if that is another, then count it."""
    async with lookups.transaction() as tx:
        holders = (await agents.owners(tx, [UUID(by.id)])).values() if by.id else ()
        for tenant in {owner.tenant_id, *holders}:
            facts = {"reason": reason} | ({"provisioning_key": owner.key_id} if tenant == owner.tenant_id else {})
            await audit.record(tx, tenant, by, "agent.registration_refused", ("agent", by.id), after=facts)
    await limits.hit(_refused(site), by.address or "")


def _refused(site: Site) -> Limit:
    return Limit("refused", site.settings.login_limit * REFUSED)


async def _challenge(tx: Tx, tenant: TenantId, agent: AgentId) -> Challenge:
    text, expires = base64url(secrets.token_bytes(credentials.ENTROPY)), now() + agent_keys.CHALLENGE_LIFE
    await agent_keys.challenge(tx, tenant, agent, text, expires=expires)
    return Challenge(challenge=text, expires_at=expires)


async def _mqtt(tx: Tx, tenant: TenantId, agent: AgentId, site: Site) -> Mqtt:
    number = await broker_accounts.generation(tx, tenant, agent)
    return connections.mqtt(site.broker, tenant, agent, mqtt_password(site.key, agent, number))


router = Router(
    "/", route_handlers=[register, challenge, exchange, provision, rotate, device], tags=["provisioning"]
)
