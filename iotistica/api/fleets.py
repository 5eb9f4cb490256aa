"""Fleets: agents that belong together."""

from datetime import datetime
from uuid import UUID

import msgspec
from litestar import Router, get, post
from litestar.params import FromPath, JSONBody

from iotistica.api.given import Call, Data
from iotistica.api.guard import actor_of, tenant_of
from iotistica.api.inputs import Cursor, Limit, Name, after_uuid
from iotistica.errors import NotFound
from iotistica.storage import fleets


class NewFleet(msgspec.Struct, frozen=True, kw_only=True):
    name: Name


class Fleet(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    fleet_uuid: UUID
    name: str
    created_at: datetime


class Fleets(msgspec.Struct, frozen=True, kw_only=True):
    fleets: list[Fleet]
    count: int
    next: str | None


@get("/", opt={"permission": "fleets.read"})
async def list_fleets(request: Call, database: Data, limit: Limit = 100, cursor: Cursor = None) -> Fleets:
    """The fleets of your tenant, in order of their ids."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        found = await fleets.page(tx, tenant, after=after_uuid(cursor), limit=limit + 1)
    more = str(found[limit - 1].fleet_uuid) if len(found) > limit else None
    return Fleets(fleets=[_view(fleet) for fleet in found[:limit]], count=len(found[:limit]), next=more)


@post("/", opt={"permission": "fleets.write"}, status_code=201)
async def add_fleet(request: Call, data: JSONBody[NewFleet], database: Data) -> Fleet:
    """Make a fleet."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        return _view(await fleets.add(tx, tenant, data.name, by=actor_of(request)))


@get("/{fleet:uuid}", opt={"permission": "fleets.read"})
async def get_fleet(request: Call, database: Data, fleet: FromPath[UUID]) -> Fleet:
    """One fleet."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        found = await fleets.find(tx, tenant, str(fleet))
    if found is None:
        raise NotFound
    return _view(found)


def _view(fleet: fleets.Fleet) -> Fleet:
    return Fleet(**msgspec.structs.asdict(fleet))


router = Router("/fleets", route_handlers=[list_fleets, add_fleet, get_fleet], tags=["fleets"])
