"""Routes for what the first page of the dashboard shows: the state of the tenant, and a map of its agents."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import get
from litestar.params import QueryParameter

from iotistica.api.http.dependencies import ApiRequest, DatabaseDep, OverviewsDep
from iotistica.api.http.guard import tenant_of
from iotistica.api.http.overviews import Overview
from iotistica.storage.agents import agent_map
from iotistica.storage.agents.agent_map import MAP_LIMIT


class AgentMap(msgspec.Struct, frozen=True, kw_only=True):
    """Up to 10,000 agents in service, by name; each field is a list with one entry an agent, to keep it small."""

    uuid: list[UUID]
    name: list[str]
    status: list[str]
    """online, silent, offline or new."""
    since: list[datetime | None]
    fleet: list[UUID | None]
    tag: list[str | None]
    """The agent's value of the tag that the request names."""
    incident: list[str | None]
    """The worst severity of the open incidents about the agent."""
    faults: list[int]
    """How many of its devices and services the agent reports as failing."""
    cut: bool
    """Whether there are more agents than these."""


@get("/overview", opt={"permission": "agents.read"}, tags=["overview"])
async def get_overview(request: ApiRequest, database: DatabaseDep, overviews: OverviewsDep) -> Overview:
    """Return the state of the tenant: agents by presence, readings a second, incidents, and what waits."""
    return await overviews.of_tenant(database, tenant_of(request))


@get("/overview/map", opt={"permission": "agents.read"}, tags=["overview"])
async def get_map(
    request: ApiRequest,
    database: DatabaseDep,
    tag: Annotated[str | None, QueryParameter(max_length=63)] = None,
) -> AgentMap:
    """Return all agents in brief, for a map of tiles; `tag` is a tag key by which they can be grouped."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        agents = await agent_map.mapped(tx, tenant, tag=tag)
    return AgentMap(
        uuid=[agent.agent for agent in agents],
        name=[agent.name for agent in agents],
        status=[agent.status or "new" for agent in agents],
        since=[agent.since for agent in agents],
        fleet=[agent.fleet for agent in agents],
        tag=[agent.value for agent in agents],
        incident=[agent.incident for agent in agents],
        faults=[agent.faults for agent in agents],
        cut=len(agents) == MAP_LIMIT,
    )
