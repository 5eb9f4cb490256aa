"""Routes for fleets: groups of agents that inherit one target."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Router, delete, get, patch, post, put
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import UNSET, Meta, UnsetType

from iotistica.api.http import cursors
from iotistica.api.http.bulk import AGENTS_LIMIT, BulkResults, results
from iotistica.api.http.cursors import cut_page
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import actor_of, tenant_of
from iotistica.api.http.inputs import Cursor, Limit, Name, NamedBody, Text
from iotistica.domain.agents.tag_selectors import checked_tags
from iotistica.errors import Conflict, NotFound
from iotistica.storage.agents import agents, fleets
from iotistica.storage.agents.fleets import FleetStats
from iotistica.storage.postgres import Database

WRITE = {"permission": "fleets.write"}


class NewFleet(NamedBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Name
    description: Text | None = None
    tags: dict[str, Any] = msgspec.field(default_factory=dict)


class FleetChange(NamedBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Absent fields stay unchanged."""

    name: Name | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET
    tags: dict[str, Any] | UnsetType = UNSET


class FleetView(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    fleet_uuid: UUID
    name: str
    description: str | None
    tags: dict[str, str]
    created_at: datetime
    stats: FleetStats | None = None
    """The number of agents in the fleet, by presence; present only in the answer of `GET /fleets/{fleet}`."""


class Fleets(msgspec.Struct, frozen=True, kw_only=True):
    fleets: list[FleetView]
    count: int
    total: int
    next: str | None


class FleetMembers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    agents: Annotated[list[UUID], Meta(min_length=1, max_length=AGENTS_LIMIT)]


@get("/", opt={"permission": "fleets.read"})
async def list_fleets(
    request: ApiRequest, database: DatabaseDep, limit: Limit = 100, cursor: Cursor = None
) -> Fleets:
    """List the fleets of the tenant, ordered by id."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        found = await fleets.page(tx, tenant, after=cursors.parse_uuid(cursor), limit=limit + 1)
    page, more = cut_page(found, limit, lambda fleet: str(fleet.fleet_uuid))
    return Fleets(fleets=[_view(fleet) for fleet in page], count=len(page), total=found.total, next=more)


@post("/", opt=WRITE, status_code=201)
async def add_fleet(request: ApiRequest, data: JSONBody[NewFleet], database: DatabaseDep) -> FleetView:
    """Create a fleet."""
    tenant, tags, by = tenant_of(request), checked_tags(data.tags), actor_of(request)
    async with database.transaction(tenant) as tx:
        return _view(await fleets.add(tx, tenant, data.name, description=data.description, tags=tags, by=by))


@get("/{fleet:uuid}", opt={"permission": "fleets.read"})
async def get_fleet(request: ApiRequest, database: DatabaseDep, fleet: FromPath[UUID]) -> FleetView:
    """Return one fleet with the number of its agents by presence; `GET /agents?fleet=` lists the agents."""
    tenant = tenant_of(request)
    async with database.transaction(tenant, snapshot=True) as tx:
        stored = await fleets.find(tx, tenant, str(fleet))
        if stored is None:
            raise NotFound
        return _view(stored, await fleets.stats(tx, tenant, fleet))


@put("/{fleet:uuid}", opt=WRITE)
async def put_fleet(
    request: ApiRequest, data: JSONBody[NewFleet], database: DatabaseDep, fleet: FromPath[UUID]
) -> FleetView:
    """Replace the name, description and tags of a fleet."""
    whole = FleetChange(name=data.name, description=data.description, tags=data.tags)
    return await _change(request, database, fleet, whole)


@patch("/{fleet:uuid}", opt=WRITE)
async def patch_fleet(
    request: ApiRequest, data: JSONBody[FleetChange], database: DatabaseDep, fleet: FromPath[UUID]
) -> FleetView:
    """Change the name, description or tags of a fleet; absent fields stay unchanged."""
    return await _change(request, database, fleet, data)


@delete("/{fleet:uuid}", opt=WRITE, status_code=204)
async def delete_fleet(
    request: ApiRequest, database: DatabaseDep, fleet: FromPath[UUID], release: FromQuery[bool] = False
) -> None:
    """Delete a fleet and its target.

    A fleet that still has agents is deleted only with `release=true`; its agents then inherit no target.
    """
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        stored = await fleets.get_for_update(tx, tenant, fleet)
        agent_count = (await fleets.stats(tx, tenant, fleet)).agents
        if agent_count and not release:
            raise Conflict(f"The fleet has {agent_count} agents: move them first, or delete it with ?release=true.")
        await fleets.delete(tx, tenant, stored, by=actor_of(request))


@post("/{fleet:uuid}/agents", opt=WRITE, status_code=200)
async def add_members(
    request: ApiRequest, data: JSONBody[FleetMembers], database: DatabaseDep, fleet: FromPath[UUID]
) -> BulkResults:
    """Put agents into a fleet, in one transaction.

    The answer has a result for each agent; unknown agents are `not_found`.
    """
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        await fleets.get_for_update(tx, tenant, fleet)
        moved = await agents.move_to_fleet(tx, tenant, data.agents, fleet, by=actor_of(request))
    return results(data.agents, moved)


@post("/{fleet:uuid}/agents/remove", opt=WRITE, status_code=200)
async def remove_members(
    request: ApiRequest, data: JSONBody[FleetMembers], database: DatabaseDep, fleet: FromPath[UUID]
) -> BulkResults:
    """Take agents out of a fleet, in one transaction.

    The answer has a result for each agent; agents that are not in this fleet are `not_found`.
    """
    return await _remove_agents(request, database, fleet, data.agents)


@delete("/{fleet:uuid}/agents/{agent:uuid}", opt=WRITE, status_code=204)
async def remove_member(
    request: ApiRequest, database: DatabaseDep, fleet: FromPath[UUID], agent: FromPath[UUID]
) -> None:
    """Take one agent out of a fleet."""
    if not (await _remove_agents(request, database, fleet, [agent])).changed:
        raise NotFound


async def _remove_agents(
    request: ApiRequest, database: Database, fleet: UUID, agent_uuids: list[UUID]
) -> BulkResults:
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        await fleets.get_for_update(tx, tenant, fleet)
        moved = await agents.move_to_fleet(tx, tenant, agent_uuids, None, only=fleet, by=actor_of(request))
    return results(agent_uuids, moved)


async def _change(request: ApiRequest, database: DatabaseDep, fleet: UUID, data: FleetChange) -> FleetView:
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        stored = await fleets.get_for_update(tx, tenant, fleet)
        changed = msgspec.structs.replace(
            stored,
            name=stored.name if data.name is UNSET else data.name,
            description=stored.description if data.description is UNSET else data.description,
            tags=stored.tags if data.tags is UNSET else checked_tags(data.tags),
        )
        return _view(await fleets.update(tx, tenant, stored, changed, by=actor_of(request)))


def _view(fleet: fleets.Fleet, stats: FleetStats | None = None) -> FleetView:
    return FleetView(**msgspec.structs.asdict(fleet), stats=stats)


router = Router(
    "/fleets",
    route_handlers=[
        *(list_fleets, add_fleet, get_fleet, put_fleet, patch_fleet, delete_fleet),
        *(add_members, remove_members, remove_member),
    ],
    tags=["fleets"],
)
