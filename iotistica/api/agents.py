"""Agents: list, and one."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final
from uuid import UUID

import msgspec
from litestar import Router, get
from litestar.params import FromPath, FromQuery, QueryParameter

from iotistica.api.auth import tenant_of
from iotistica.api.given import Call, Data
from iotistica.domain.ids import agent_topic
from iotistica.errors import Invalid, NotFound
from iotistica.storage import agents

ONLINE: Final = timedelta(minutes=5)  # since it last sent something

Limit = Annotated[int, QueryParameter(ge=1, le=1000)]


class AgentView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    uuid: UUID
    name: str
    online: bool
    last_seen: datetime | None
    created_at: datetime
    topic: str


class AgentPage(msgspec.Struct, frozen=True, kw_only=True):
    agents: list[AgentView]
    count: int
    next: str | None
    """Give it as `cursor` for the page after this one."""


@get("/", opt={"permission": "read"})
async def list_agents(
    request: Call,
    database: Data,
    limit: Limit = 100,
    cursor: FromQuery[str | None] = None,
) -> AgentPage:
    """The agents of your tenant, in order of their ids."""
    async with database.transaction() as tx:
        found = await agents.page(tx, tenant_of(request), after=_after(cursor), limit=limit + 1)
    views = [_view(agent) for agent in found[:limit]]
    more = str(views[-1].uuid) if len(found) > limit else None
    return AgentPage(agents=views, count=len(views), next=more)


@get("/{agent:uuid}", opt={"permission": "read"})
async def get_agent(request: Call, database: Data, agent: FromPath[UUID]) -> AgentView:
    """One agent."""
    async with database.transaction() as tx:
        found = await agents.get(tx, tenant_of(request), agent)
    if found is None:
        raise NotFound
    return _view(found)


def _after(cursor: str | None) -> UUID | None:
    try:
        return UUID(cursor) if cursor else None
    except ValueError:
        raise Invalid("not a cursor of this list", "cursor") from None


def _view(agent: agents.Agent) -> AgentView:
    seen = agent.last_seen
    return AgentView(
        uuid=agent.agent_uuid,
        name=agent.name,
        online=seen is not None and datetime.now(UTC) - seen < ONLINE,
        last_seen=seen,
        created_at=agent.created_at,
        topic=agent_topic(agent.tenant_id, agent.agent_uuid),
    )


router = Router("/agents", route_handlers=[list_agents, get_agent], tags=["agents"])
