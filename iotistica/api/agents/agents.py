"""Routes that create, rename, move, deactivate and retire agents."""

from uuid import UUID, uuid4

import msgspec
from litestar import Router, delete, patch, post
from litestar.params import FromPath, JSONBody
from msgspec import UNSET, UnsetType

from iotistica.api.agents.agent_search import AgentView, view
from iotistica.api.agents.identities import IdentityState
from iotistica.api.http.dependencies import ApiRequest, BrokerSyncDep, DatabaseDep, ServerContextDep
from iotistica.api.http.guard import actor_of, tenant_of
from iotistica.api.http.inputs import Name, NamedBody
from iotistica.domain.agents import broker_connection
from iotistica.domain.agents.broker_connection import MqttConnection
from iotistica.domain.agents.broker_passwords import mqtt_password
from iotistica.domain.ids import AgentId, TenantId
from iotistica.errors import Invalid, NotFound
from iotistica.storage.agents import agent_search, agents, broker_accounts, fleets, identities
from iotistica.storage.postgres import Database, Tx


class NewAgent(NamedBody, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    name: Name
    uuid: UUID | None = None
    fleet_uuid: UUID | None = None


class AgentChange(NamedBody, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Absent fields stay unchanged."""

    name: Name | UnsetType = UNSET
    fleet_uuid: UUID | UnsetType | None = UNSET
    active: bool | UnsetType = UNSET


class Activity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    is_active: bool


class CreatedAgent(msgspec.Struct, frozen=True, kw_only=True):
    agent: AgentView
    mqtt: MqttConnection


@post("/", opt={"permission": "agents.write"}, status_code=201)
async def add_agent(
    request: ApiRequest,
    data: JSONBody[NewAgent],
    database: DatabaseDep,
    broker_sync: BrokerSyncDep,
    context: ServerContextDep,
) -> CreatedAgent:
    """Create an agent that is configured by hand, and return the MQTT settings it connects with.

    Agents that register themselves do not need this call. Answers 409 if the UUID is taken or the tenant's quota of
    agents is used up.
    """
    tenant, agent = tenant_of(request), AgentId(data.uuid or uuid4())
    async with database.transaction(tenant) as tx:
        await _check_fleet(tx, tenant, data.fleet_uuid)
        await agents.add(tx, tenant, agent, data.name, key=context.key, by=actor_of(request), fleet=data.fleet_uuid)
        created = await _get_view(tx, tenant, agent)
        since = await broker_accounts.database_now(tx)
    await broker_sync.wait_until_current(since)
    password = mqtt_password(context.key, tenant, agent, 1)
    return CreatedAgent(
        agent=created, mqtt=broker_connection.mqtt_connection(context.broker, tenant, agent, password)
    )


@patch("/{agent:uuid}", opt={"permission": "agents.write"})
async def change_agent(
    request: ApiRequest, data: JSONBody[AgentChange], database: DatabaseDep, agent: FromPath[UUID]
) -> AgentView:
    """Change the name or fleet of an agent, or activate or deactivate it; absent fields stay unchanged."""
    return await _change(request, database, agent, data)


@patch("/{agent:uuid}/active", opt={"permission": "agents.write"})
async def set_active(
    request: ApiRequest, data: JSONBody[Activity], database: DatabaseDep, agent: FromPath[UUID]
) -> AgentView:
    """Activate or deactivate an agent. Inactive agents are left out of rollouts and are not healed."""
    return await _change(request, database, agent, AgentChange(active=data.is_active))


@delete("/{agent:uuid}", opt={"permission": "agents.identity"}, status_code=200)
async def delete_agent(
    request: ApiRequest, database: DatabaseDep, context: ServerContextDep, agent: FromPath[UUID]
) -> IdentityState:
    """Take an agent out of service for good; the same as `POST …/retire`.

    Its readings stay; delete them with `DELETE /readings/{agent}`.
    """
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        await identities.retire(tx, tenant, agent, server_key=context.key, by=actor_of(request))
    return IdentityState(uuid=agent, state="retired")


async def _change(request: ApiRequest, database: Database, agent: UUID, data: AgentChange) -> AgentView:
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        stored = await agents.get_for_update(tx, tenant, agent)
        fleet = stored.fleet_uuid if data.fleet_uuid is UNSET else data.fleet_uuid
        await _check_fleet(tx, tenant, fleet)
        await agents.update(
            *(tx, tenant, stored),
            name=stored.name if data.name is UNSET else data.name,
            fleet=fleet,
            active=stored.active if data.active is UNSET else data.active,
            by=actor_of(request),
        )
        return await _get_view(tx, tenant, agent)


async def _get_view(tx: Tx, tenant: TenantId, agent: UUID) -> AgentView:
    summary = await agent_search.get(tx, tenant, agent)
    if summary is None:
        raise NotFound
    return view(summary)


async def _check_fleet(tx: Tx, tenant: TenantId, fleet: UUID | None) -> None:
    if fleet is not None and await fleets.find(tx, tenant, str(fleet)) is None:
        raise Invalid("must be the UUID of an existing fleet", "fleetUuid")


router = Router("/agents", route_handlers=[add_agent, change_agent, set_active, delete_agent], tags=["agents"])
