"""Agents: made, renamed, moved, set aside."""

from uuid import UUID, uuid4

import msgspec
from litestar import Router, delete, patch, post
from litestar.params import FromPath, JSONBody
from msgspec import UNSET, UnsetType

from iotistica.api.agents.agent_search import AgentView, view
from iotistica.api.agents.identities import IdentityState
from iotistica.api.http.dependencies import ApiRequest, BrokerSyncDep, DatabaseDep, ServerContextDep
from iotistica.api.http.guard import actor_of, tenant_of
from iotistica.api.http.inputs import Name
from iotistica.domain.agents import broker_connection
from iotistica.domain.agents.broker_connection import MqttConnection
from iotistica.domain.agents.broker_passwords import mqtt_password
from iotistica.domain.ids import AgentId, TenantId
from iotistica.errors import Invalid, NotFound
from iotistica.storage.agents import agent_search, agents, broker_accounts, fleets, identities
from iotistica.storage.postgres import Database, Tx


class NewAgent(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    name: Name
    uuid: UUID | None = None
    fleet_uuid: UUID | None = None


class AgentChange(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What is absent stays as it is."""

    name: Name | UnsetType = UNSET
    fleet_uuid: UUID | UnsetType | None = UNSET
    active: bool | UnsetType = UNSET


class Activity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    is_active: bool


class MadeAgent(msgspec.Struct, frozen=True, kw_only=True):
    agent: AgentView
    mqtt: MqttConnection


@post("/", opt={"permission": "agents.write"}, status_code=201)
async def add_agent(
    request: ApiRequest,
    data: JSONBody[NewAgent],
    database: DatabaseDep,
    broker_sync: BrokerSyncDep,
    context: ServerContextDep,
) -> MadeAgent:
    """Make an agent that connects with what this answers; agents that register themselves need no such call."""
    tenant, agent = tenant_of(request), AgentId(data.uuid or uuid4())
    async with database.transaction(tenant) as tx:
        await _check_fleet(tx, tenant, data.fleet_uuid)
        await agents.add(tx, tenant, agent, data.name, key=context.key, by=actor_of(request), fleet=data.fleet_uuid)
        made = await _shown(tx, tenant, agent)
        since = await broker_accounts.database_now(tx)
    await broker_sync.wait_until_current(since)
    password = mqtt_password(context.key, tenant, agent, 1)
    return MadeAgent(agent=made, mqtt=broker_connection.mqtt_connection(context.broker, tenant, agent, password))


@patch("/{agent:uuid}", opt={"permission": "agents.write"})
async def change_agent(
    request: ApiRequest, data: JSONBody[AgentChange], database: DatabaseDep, agent: FromPath[UUID]
) -> AgentView:
    """Give an agent another name or fleet, or set it aside."""
    return await _change(request, database, agent, data)


@patch("/{agent:uuid}/active", opt={"permission": "agents.write"})
async def set_active(
    request: ApiRequest, data: JSONBody[Activity], database: DatabaseDep, agent: FromPath[UUID]
) -> AgentView:
    """Set an agent aside, or take it back: one that is not active is left out of rollouts, and is not healed."""
    return await _change(request, database, agent, AgentChange(active=data.is_active))


@delete("/{agent:uuid}", opt={"permission": "agents.identity"}, status_code=200)
async def delete_agent(
    request: ApiRequest, database: DatabaseDep, context: ServerContextDep, agent: FromPath[UUID]
) -> IdentityState:
    """The same as `POST …/retire`: out of service for good; its readings stay, and are erased by themselves."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        await identities.retire(tx, tenant, agent, server_key=context.key, by=actor_of(request))
    return IdentityState(uuid=agent, state="retired")


async def _change(request: ApiRequest, database: Database, agent: UUID, data: AgentChange) -> AgentView:
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        old = await agents.get_for_update(tx, tenant, agent)
        fleet = old.fleet_uuid if data.fleet_uuid is UNSET else data.fleet_uuid
        await _check_fleet(tx, tenant, fleet)
        await agents.update(
            *(tx, tenant, old),
            name=old.name if data.name is UNSET else data.name,
            fleet=fleet,
            active=old.active if data.active is UNSET else data.active,
            by=actor_of(request),
        )
        return await _shown(tx, tenant, agent)


async def _shown(tx: Tx, tenant: TenantId, agent: UUID) -> AgentView:
    found = await agent_search.get(tx, tenant, agent)
    if found is None:
        raise NotFound
    return view(found)


async def _check_fleet(tx: Tx, tenant: TenantId, fleet: UUID | None) -> None:
    if fleet is not None and await fleets.find(tx, tenant, str(fleet)) is None:
        raise Invalid("there is no such fleet", "fleetUuid")


router = Router("/agents", route_handlers=[add_agent, change_agent, set_active, delete_agent], tags=["agents"])
