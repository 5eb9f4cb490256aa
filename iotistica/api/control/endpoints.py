"""Routes for single endpoints of an agent (the devices that it connects to), which are part of its target."""

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
    """An endpoint of the effective target, secrets masked; `source` is the layer that has it."""

    endpoint: dict[str, Any]
    source: Literal["own", "fleet", "both"]


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    devices: list[EndpointView]
    count: int


class ValidatedEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The endpoint as it would be stored, secrets masked."""

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
    """List the endpoints of the agent's own target and its fleet's; with `draft`, of its own newest version."""
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
    """Return one endpoint; with `draft`, from the newest version of the agent's own target."""
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
    """Add an endpoint to the agent's own target; 409 if the agent or its fleet has an endpoint with this name."""
    endpoint = rules.validate_endpoint(data, "")
    own, fleet = await _targets(database, tenant_of(request), agent, draft=draft)
    names = [e["name"] for e in _endpoints(own) + _endpoints(fleet)]
    if endpoint["name"] in names:
        raise Conflict(f"The endpoint {endpoint['name']!r} exists already: use PUT or PATCH to change it.")
    if validate_only:
        return ValidatedEndpoint(valid=True, endpoint=document_secrets.mask(endpoint))

    def edit(old: Target) -> Target:
        if endpoint["name"] in [e["name"] for e in _endpoints(old)]:
            raise Conflict(f"The endpoint {endpoint['name']!r} exists already: use PUT or PATCH to change it.")
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
    """Add or replace an endpoint of the agent's own target; its uuid stays, and another `name` renames it."""
    return await _replace(request, database, context, agent, name, lambda _: data, draft)


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
    """Change settings of an endpoint; null removes a setting.

    Changes to an endpoint of the fleet are stored in the agent's own target as overrides.
    """
    _, fleet = await _targets(database, tenant_of(request), agent)
    inherited = _named(fleet, name)

    def edit(old: Json | None) -> Json:
        if old is None and inherited is None:
            raise NotFound
        # An override repeats the protocol, so that the agent's own target is valid without its fleet's.
        base = old or {
            key: inherited[key] for key in ("uuid", "name", "protocol") if inherited and key in inherited
        }
        return rules.merge_objects(base, data)

    return await _replace(request, database, context, agent, name, edit, draft)


@delete("/{agent:uuid}/devices/{name:str}", opt=WRITE, status_code=200)
async def delete_endpoint(
    request: ApiRequest,
    database: DatabaseDep,
    context: ServerContextDep,
    agent: FromPath[UUID],
    name: FromPath[str],
    draft: FromQuery[bool] = False,
) -> Response[TargetView]:
    """Remove an endpoint from the agent's own target.

    The public agent never removes its last endpoint; disable that endpoint instead.
    """
    _, fleet = await _targets(database, tenant_of(request), agent)

    def edit(old: Target) -> Target:
        rest = [e for e in _endpoints(old) if e["name"] != name]
        if len(rest) < len(_endpoints(old)):
            return _with_endpoints(old, rest)
        if _named(fleet, name):
            raise Conflict('The endpoint comes from the fleet: delete it there, or PATCH {"enabled": false} here.')
        raise NotFound

    return await change(request, database, context, TargetOwner("agent", agent), edit, draft=draft)


async def _replace(
    request: ApiRequest,
    database: Database,
    context: ServerContextDep,
    agent: UUID,
    name: str,
    edit: Any,
    draft: bool,
) -> Response[TargetView]:
    def replaced(old: Target) -> Target:
        before = _named(old, name)
        entry = {"name": name, **({"uuid": before["uuid"]} if before else {}), **edit(before)}
        endpoint = rules.validate_endpoint(entry, "")
        endpoints = _endpoints(old)
        at = endpoints.index(before) if before else len(endpoints)
        return _with_endpoints(old, [*endpoints[:at], endpoint, *endpoints[at + 1 :]])

    return await change(request, database, context, TargetOwner("agent", agent), replaced, draft=draft)


async def _targets(
    database: Database, tenant: TenantId, agent: UUID, *, draft: bool = False
) -> tuple[Target, Target]:
    """Return the agent's own target (deployed, or the newest draft) and its fleet's, sealed; raises `NotFound`."""
    async with database.transaction(tenant, snapshot=True) as tx:
        layers = await targets.layers(tx, tenant, agent)
        if not draft:
            return layers.own, layers.fleet
        owner = TargetOwner("agent", agent)
        head = await targets.head(tx, tenant, owner)
        return await targets.document_of(tx, tenant, owner, head.latest), layers.fleet


def _endpoints(target: Target) -> list[Json]:
    return list(target.config.get("endpoints") or ())


def _named(target: Target, name: str) -> Json | None:
    return next((e for e in _endpoints(target) if e["name"] == name), None)


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
