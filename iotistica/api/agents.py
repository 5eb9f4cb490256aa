"""Agents: listed, made, renamed."""

from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

import msgspec
from litestar import Router, get, patch, post
from litestar.params import FromPath, JSONBody
from msgspec import UNSET, UnsetType

from iotistica.api.explanations import explain
from iotistica.api.gaps import get_gaps
from iotistica.api.given import Accounts, Call, Data, Here
from iotistica.api.guard import actor_of, tenant_of
from iotistica.api.health import get_health
from iotistica.api.inputs import Cursor, Limit, Name, after_uuid
from iotistica.api.states import get_current_state, get_devices, get_interfaces
from iotistica.api.timelines import get_timeline
from iotistica.domain import connections
from iotistica.domain.accounts import mqtt_password
from iotistica.domain.connections import Mqtt
from iotistica.domain.ids import AgentId, TenantId, agent_topic
from iotistica.errors import Invalid, NotFound
from iotistica.storage import agents, broker_accounts, fleets
from iotistica.storage.postgres import Tx

ONLINE: Final = timedelta(minutes=5)  # since it last sent something


class AgentView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    uuid: UUID
    name: str
    online: bool
    last_seen: datetime | None
    created_at: datetime
    topic: str
    state: str
    kind: str | None
    fleet_uuid: UUID | None
    agent_version: str | None
    os_version: str | None
    replaced_by: UUID | None


class NewAgent(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    name: Name
    uuid: UUID | None = None
    fleet_uuid: UUID | None = None


class AgentChange(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What is absent stays as it is."""

    name: Name | UnsetType = UNSET
    fleet_uuid: UUID | UnsetType | None = UNSET


class MadeAgent(msgspec.Struct, frozen=True, kw_only=True):
    agent: AgentView
    mqtt: Mqtt


class AgentPage(msgspec.Struct, frozen=True, kw_only=True):
    agents: list[AgentView]
    count: int
    next: str | None
    """Give it as `cursor` for the page after this one."""


@get("/", opt={"permission": "agents.read"})
async def list_agents(
    request: Call,
    database: Data,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> AgentPage:
    """The agents of your tenant, in order of their ids."""
    async with database.transaction(tenant_of(request)) as tx:
        found = await agents.page(tx, tenant_of(request), after=after_uuid(cursor), limit=limit + 1)
    views = [_view(agent) for agent in found[:limit]]
    more = str(views[-1].uuid) if len(found) > limit else None
    return AgentPage(agents=views, count=len(views), next=more)


@get("/{agent:uuid}", opt={"permission": "agents.read"})
async def get_agent(request: Call, database: Data, agent: FromPath[UUID]) -> AgentView:
    """One agent."""
    async with database.transaction(tenant_of(request)) as tx:
        found = await agents.get(tx, tenant_of(request), agent)
    if found is None:
        raise NotFound
    return _view(found)


@post("/", opt={"permission": "agents.write"}, status_code=201)
async def add_agent(
    request: Call, data: JSONBody[NewAgent], database: Data, rendering: Accounts, site: Here
) -> MadeAgent:
    """Make an agent that connects with what this answers; agents that register themselves need no such call."""
    tenant, agent = tenant_of(request), AgentId(data.uuid or uuid4())
    async with database.transaction(tenant) as tx:
        await _check_fleet(tx, tenant, data.fleet_uuid)
        made = await agents.add(
            tx, tenant, agent, data.name, key=site.key, by=actor_of(request), fleet=data.fleet_uuid
        )
        since = await broker_accounts.moment(tx)
    await rendering.awaited(since)
    password = mqtt_password(site.key, tenant, agent, 1)
    return MadeAgent(agent=_view(made), mqtt=connections.mqtt(site.broker, tenant, agent, password))


@patch("/{agent:uuid}", opt={"permission": "agents.write"})
async def change_agent(
    request: Call, data: JSONBody[AgentChange], database: Data, agent: FromPath[UUID]
) -> AgentView:
    """Give an agent another name or fleet."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        old = await agents.get(tx, tenant, agent)
        if old is None:
            raise NotFound
        name = old.name if data.name is UNSET else data.name
        fleet = old.fleet_uuid if data.fleet_uuid is UNSET else data.fleet_uuid
        await _check_fleet(tx, tenant, fleet)
        await agents.update(tx, tenant, old, name=name, fleet=fleet, by=actor_of(request))
        new = await agents.get(tx, tenant, agent)
    if new is None:
        raise NotFound
    return _view(new)


async def _check_fleet(tx: Tx, tenant: TenantId, fleet: UUID | None) -> None:
    if fleet is not None and await fleets.find(tx, tenant, str(fleet)) is None:
        raise Invalid("there is no such fleet", "fleetUuid")


def _view(agent: agents.Agent) -> AgentView:
    seen = agent.last_seen
    return AgentView(
        uuid=agent.agent_uuid,
        name=agent.name,
        online=seen is not None and datetime.now(UTC) - seen < ONLINE,
        last_seen=seen,
        created_at=agent.created_at,
        topic=agent_topic(agent.tenant_id, agent.agent_uuid),
        state=agent.state,
        kind=agent.kind,
        fleet_uuid=agent.fleet_uuid,
        agent_version=agent.agent_version,
        os_version=agent.os_version,
        replaced_by=agent.replaced_by,
    )


router = Router(
    "/agents",
    route_handlers=[
        *(list_agents, get_agent, add_agent, change_agent),
        *(get_gaps, get_timeline, get_current_state, get_interfaces, get_devices, get_health, explain),
    ],
    tags=["agents"],
)
