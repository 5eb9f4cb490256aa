"""Routes that list agents by name, fleet, tags and presence, page by page."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Router, get, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from iotistica.api.http import cursors
from iotistica.api.http.cursors import cut_page
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import tenant_of
from iotistica.api.http.inputs import Limit
from iotistica.domain.agents import tag_selectors
from iotistica.domain.ids import agent_topic
from iotistica.domain.names import clean_name
from iotistica.errors import Invalid, NotFound
from iotistica.storage.agents import agent_search
from iotistica.storage.agents.agent_search import AgentFilter, AgentSummary, Order, SortKey

FreeText = Annotated[str | None, QueryParameter(max_length=200)]
SelectorText = Annotated[str | None, QueryParameter(max_length=tag_selectors.SELECTOR_LENGTH)]
CursorText = Annotated[str | None, QueryParameter(max_length=400)]
Page = Annotated[int | None, QueryParameter(ge=1, le=10_000)]
Presence = Literal["online", "silent", "offline", "new"]
State = Literal["new", "registered", "active", "revoked", "retired"]


class AgentView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    uuid: UUID
    name: str
    online: bool
    status: Presence
    """`silent`: the agent polls or logs but sends no data. `new`: it has never contacted the platform."""
    since: datetime | None
    """When the agent got this status."""
    flapping: bool
    last_seen: datetime | None
    created_at: datetime
    topic: str
    state: str
    active: bool
    kind: str | None
    fleet_uuid: UUID | None
    agent_version: str | None
    os_version: str | None
    replaced_by: UUID | None
    tags: dict[str, str]
    faults: int
    """How many of its devices and services the agent reports as failing."""


class Pagination(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    page: int
    limit: int
    total_devices: int
    total_pages: int


class AgentPage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    agents: list[AgentView]
    count: int
    total: int
    """The number of agents on all pages."""
    next: str | None
    """Pass it as `cursor` to get the next page; null on the last page."""
    pagination: Pagination | None = None
    """Present only if the request has a `page`."""


class TagQuery(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The tags that an agent must have, each with a value or a list of allowed values."""

    tag_selectors: dict[str, str | list[str]]
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    cursor: Annotated[str, msgspec.Meta(max_length=400)] | None = None


@get("/", opt={"permission": "agents.read"})
async def list_agents(
    request: ApiRequest,
    database: DatabaseDep,
    search_: Annotated[str | None, QueryParameter(name="search", max_length=200)] = None,
    selector: SelectorText = None,
    fleet: Annotated[str | None, QueryParameter(max_length=36)] = None,
    status: FromQuery[Presence | None] = None,
    online: FromQuery[bool | None] = None,
    identity: Annotated[State | None, QueryParameter(name="state")] = None,
    filter_: Annotated[Literal["all", "active", "inactive"], QueryParameter(name="filter")] = "all",
    version: FreeText = None,
    failing: FromQuery[bool | None] = None,
    sort: FromQuery[SortKey] = "id",
    order: FromQuery[Order | None] = None,
    limit: Limit = 100,
    cursor: CursorText = None,
    page: Page = None,
) -> AgentPage:
    """List the agents of the tenant that match all the given filters, sorted by `sort`.

    The default order is `asc`, and for `last_seen` `desc`: those seen last come first.
    `search` is a part of the name or the beginning of the UUID. `selector` filters by tags, for example
    `site=berlin,line in (1,2),!spare`. `fleet=none` lists the agents that are in no fleet.
    `failing=true` lists those that report a device or a service of theirs as failing.
    """
    wanted = AgentFilter(
        text=clean_name(search_) if search_ else None,
        fleet=_fleet(fleet),
        no_fleet=fleet == "none",
        status=_statuses(status, online),
        state=identity,
        active=None if filter_ == "all" else filter_ == "active",
        version=version,
        failing=failing,
        selector=tag_selectors.parse(selector) if selector else (),
    )
    by = sort, order or ("desc" if sort == "last_seen" else "asc")
    return await _page(request, database, wanted, by=by, limit=limit, cursor=cursor, number=page)


@post("/query", opt={"permission": "agents.read"}, status_code=200)
async def query_agents(request: ApiRequest, data: JSONBody[TagQuery], database: DatabaseDep) -> AgentPage:
    """List the agents of the tenant that have all the given tags."""
    wanted = AgentFilter(selector=tag_selectors.from_tags(data.tag_selectors))
    return await _page(request, database, wanted, limit=data.limit, cursor=data.cursor)


@get("/{agent:uuid}", opt={"permission": "agents.read"})
async def get_agent(request: ApiRequest, database: DatabaseDep, agent: FromPath[UUID]) -> AgentView:
    """Return one agent with its presence and its tags."""
    async with database.transaction(tenant_of(request)) as tx:
        summary = await agent_search.get(tx, tenant_of(request), agent)
    if summary is None:
        raise NotFound
    return view(summary)


async def _page(
    request: ApiRequest,
    database: DatabaseDep,
    wanted: AgentFilter,
    *,
    by: tuple[SortKey, Order] = ("id", "asc"),
    limit: int,
    cursor: str | None,
    number: int | None = None,
) -> AgentPage:
    tenant = tenant_of(request)
    offset = (number - 1) * limit if number else 0
    async with database.transaction(tenant, snapshot=True) as tx:
        found = await agent_search.page(
            *(tx, tenant, wanted),
            sort=by[0],
            order=by[1],
            after=_after(cursor, by[0]),
            limit=limit + 1,
            offset=offset,
        )
    rows, more = cut_page(found, limit, lambda agent: cursors.of_name(agent.sort_key, agent.agent_uuid))
    views = [view(agent) for agent in rows]
    pagination = (
        Pagination(page=number, limit=limit, total_devices=found.total, total_pages=-(-found.total // limit))
        if number
        else None
    )
    return AgentPage(agents=views, count=len(views), total=found.total, next=more, pagination=pagination)


def _after(cursor: str | None, sort: SortKey) -> tuple[str, UUID] | None:
    after = cursors.parse_name_and_uuid(cursor)
    if after is not None and sort == "last_seen" and after[0] != "-infinity":
        try:
            datetime.fromisoformat(after[0])
        except ValueError:
            raise Invalid("is not a cursor of this list", "cursor") from None
    return after


def view(agent: AgentSummary) -> AgentView:
    """Return the API representation of an agent."""
    return AgentView(
        uuid=agent.agent_uuid,
        name=agent.name,
        online=agent.status == "online",
        status=agent.status or "new",
        since=agent.since,
        flapping=agent.flapping,
        last_seen=agent.last_seen,
        created_at=agent.created_at,
        topic=agent_topic(agent.tenant_id, agent.agent_uuid),
        state=agent.state,
        active=agent.active,
        kind=agent.kind,
        fleet_uuid=agent.fleet_uuid,
        agent_version=agent.agent_version,
        os_version=agent.os_version,
        replaced_by=agent.replaced_by,
        tags=agent.tags,
        faults=agent.faults,
    )


def _statuses(status: Presence | None, online: bool | None) -> tuple[str, ...] | None:
    if online is not None and status is not None:
        raise Invalid("cannot be combined with status", "online")
    if online is not None:
        return ("online",) if online else ("silent", "offline", "new")
    return (status,) if status else None


def _fleet(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text not in (None, "none") else None
    except ValueError:
        raise Invalid("must be the UUID of a fleet, or none", "fleet") from None


def selector_of(text: str | None, tags: Mapping[str, Any] | None) -> tag_selectors.Selector:
    """Return the conditions of a selector and of a tag object as one selector; raises `Invalid`."""
    return (tag_selectors.parse(text) if text else ()) + (tag_selectors.from_tags(tags) if tags else ())


router = Router("/agents", route_handlers=[list_agents, query_agents, get_agent], tags=["agents"])
