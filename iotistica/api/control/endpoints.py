"""Endpoints of an agent, one by one: what it connects to; they live in its target."""

from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from litestar import Response, Router, delete, get, patch, post, put
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from iotistica.api.control.target_versions import TargetView, change
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep, ServerContextDep
from iotistica.api.http.guard import tenant_of
from iotistica.domain.access import document_secrets
from iotistica.domain.control import targets as rules
from iotistica.domain.control.targets import Json, Target
from iotistica.domain.ids import TenantId
from iotistica.errors import Conflict, NotFound
from iotistica.storage.control import targets
from iotistica.storage.control.targets import TargetOwner
from iotistica.storage.postgres import Database

Body = JSONBody[dict[str, Any]]
Protocol = Annotated[str | None, QueryParameter(max_length=32)]
WRITE: Final = {"permission": "targets.write"}


class EndpointView(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint as it is told, secrets masked; `source` says whose target has it."""

    endpoint: dict[str, Any]
    source: Literal["own", "fleet", "both"]


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    devices: list[EndpointView]
    count: int


class ValidatedEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What would be written, secrets masked."""

    valid: bool
    endpoint: dict[str, Any]


@get("/{agent:uuid}/devices", opt={"permission": "targets.read"})
async def list_endpoints(
    request: ApiRequest,
    database: DatabaseDep,
    agent: FromPath[UUID],
    protocol: Protocol = None,
    draft: FromQuery[bool] = False,
) -> Endpoints:
    """The endpoints that the agent is told, its fleet's among them; with `draft` those of its newest version."""
    own, fleet = await _targets(database, tenant_of(request), agent, draft=draft)
    views = [
        EndpointView(endpoint=document_secrets.mask(endpoint), source=_source(endpoint, own, fleet))
        for endpoint in rules.effective_target(fleet, own).config.get("endpoints") or ()
        if protocol in (None, endpoint.get("protocol"))
    ]
    return Endpoints(devices=views, count=len(views))


@get("/{agent:uuid}/devices/{name:str}", opt={"permission": "targets.read"})
async def get_endpoint(
    request: ApiRequest,
    database: DatabaseDep,
    agent: FromPath[UUID],
    name: FromPath[str],
    draft: FromQuery[bool] = False,
) -> EndpointView:
    """One endpoint."""
    own, fleet = await _targets(database, tenant_of(request), agent, draft=draft)
    for endpoint in rules.effective_target(fleet, own).config.get("endpoints") or ():
        if endpoint["name"] == name:
            return EndpointView(endpoint=document_secrets.mask(endpoint), source=_source(endpoint, own, fleet))
    raise NotFound


@post("/{agent:uuid}/devices", opt=WRITE, status_code=200)
async def add_endpoint(
    request: ApiRequest,
    data: Body,
    database: DatabaseDep,
    context: ServerContextDep,
    agent: FromPath[UUID],
    draft: FromQuery[bool] = False,
    validate_only: Annotated[bool, QueryParameter(name="validateOnly")] = False,
) -> Response[TargetView] | ValidatedEndpoint:
    """Add an endpoint to the agent's own target; 409 if there is one of that name."""
    endpoint = rules.validate_endpoint(data, "")
    own, fleet = await _targets(database, tenant_of(request), agent, draft=draft)
    names = [one["name"] for one in _endpoints(own) + _endpoints(fleet)]
    if endpoint["name"] in names:
        raise Conflict(f"there is an endpoint {endpoint['name']!r} already: PUT or PATCH changes it")
    if validate_only:
        return ValidatedEndpoint(valid=True, endpoint=document_secrets.mask(endpoint))

    def edit(old: Target) -> Target:
        if endpoint["name"] in [one["name"] for one in _endpoints(old)]:
            raise Conflict(f"there is an endpoint {endpoint['name']!r} already: PUT or PATCH changes it")
        return _with_endpoints(old, [*_endpoints(old), endpoint])

    return await change(request, database, context, TargetOwner("agent", agent), edit, draft=draft)


@put("/{agent:uuid}/devices/{name:str}", opt=WRITE)
async def put_endpoint(
    request: ApiRequest,
    data: Body,
    database: DatabaseDep,
    context: ServerContextDep,
    agent: FromPath[UUID],
    name: FromPath[str],
    draft: FromQuery[bool] = False,
) -> Response[TargetView]:
    """Add an endpoint to the agent's own target, or replace it; its uuid stays, another `name` renames it."""
    return await _replaced(request, database, context, agent, name, lambda _: data, draft)


@patch("/{agent:uuid}/devices/{name:str}", opt=WRITE)
async def patch_endpoint(
    request: ApiRequest,
    data: Body,
    database: DatabaseDep,
    context: ServerContextDep,
    agent: FromPath[UUID],
    name: FromPath[str],
    draft: FromQuery[bool] = False,
) -> Response[TargetView]:
    """Change some settings of an endpoint, null takes one away; of one of the fleet they become the agent's own."""
    _, fleet = await _targets(database, tenant_of(request), agent)
    inherited = _named(fleet, name)

    def edit(old: Json | None) -> Json:
        if old is None and inherited is None:
            raise NotFound
        # An override says again which protocol it is for: an agent's own target is complete in itself.
        base = old or {
            key: inherited[key] for key in ("uuid", "name", "protocol") if inherited and key in inherited
        }
        return rules.merge_objects(base, data)

    return await _replaced(request, database, context, agent, name, edit, draft)


@delete("/{agent:uuid}/devices/{name:str}", opt=WRITE, status_code=200)
async def delete_endpoint(
    request: ApiRequest,
    database: DatabaseDep,
    context: ServerContextDep,
    agent: FromPath[UUID],
    name: FromPath[str],
    draft: FromQuery[bool] = False,
) -> Response[TargetView]:
    """Take an endpoint out of the agent's own target. The public agent keeps its last one: disable that instead."""
    _, fleet = await _targets(database, tenant_of(request), agent)

    def edit(old: Target) -> Target:
        rest = [one for one in _endpoints(old) if one["name"] != name]
        if len(rest) < len(_endpoints(old)):
            return _with_endpoints(old, rest)
        if _named(fleet, name):
            raise Conflict('it comes from the fleet: delete it there, or PATCH {"enabled": false} here')
        raise NotFound

    return await change(request, database, context, TargetOwner("agent", agent), edit, draft=draft)


async def _replaced(
    request: ApiRequest,
    database: Database,
    context: ServerContextDep,
    agent: UUID,
    name: str,
    edit: Any,
    draft: bool,
) -> Response[TargetView]:
    def whole(old: Target) -> Target:
        before = _named(old, name)
        entry = {"name": name, **({"uuid": before["uuid"]} if before else {}), **edit(before)}
        endpoint = rules.validate_endpoint(entry, "")
        endpoints = _endpoints(old)
        at = endpoints.index(before) if before else len(endpoints)
        return _with_endpoints(old, [*endpoints[:at], endpoint, *endpoints[at + 1 :]])

    return await change(request, database, context, TargetOwner("agent", agent), whole, draft=draft)


async def _targets(
    database: Database, tenant: TenantId, agent: UUID, *, draft: bool = False
) -> tuple[Target, Target]:
    """The agent's own target, deployed or the newest, and that of its fleet; sealed. Raises `NotFound`."""
    async with database.transaction(tenant) as tx:
        found = await targets.sources(tx, tenant, agent)
        if not draft:
            return found.own, found.fleet
        whose = TargetOwner("agent", agent)
        head = await targets.head(tx, tenant, whose)
        return await targets.document_of(tx, tenant, whose, head.latest), found.fleet


def _endpoints(target: Target) -> list[Json]:
    return list(target.config.get("endpoints") or ())


def _named(target: Target, name: str) -> Json | None:
    return next((one for one in _endpoints(target) if one["name"] == name), None)


def _with_endpoints(old: Target, endpoints: list[Json]) -> Target:
    return Target(apps=old.apps, config=old.config | {"endpoints": endpoints})


def _source(endpoint: Json, own: Target, fleet: Target) -> Literal["own", "fleet", "both"]:
    keys = endpoint["uuid"], endpoint["name"]
    mine, theirs = (any(e["uuid"] == keys[0] or e["name"] == keys[1] for e in _endpoints(t)) for t in (own, fleet))
    return "both" if mine and theirs else "own" if mine else "fleet"


router = Router(
    "/agents",
    route_handlers=[list_endpoints, get_endpoint, add_endpoint, put_endpoint, patch_endpoint, delete_endpoint],
    tags=["endpoints"],
)
