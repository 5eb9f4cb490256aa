"""Apps of a target, one by one: each write is a version of the whole."""

from typing import Any, Final
from uuid import UUID

import msgspec
from litestar import Response, Router, delete, get, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery, JSONBody

from iotistica.api.control.target_versions import TargetView, change
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep, ServerContextDep
from iotistica.api.http.guard import tenant_of
from iotistica.domain.access import document_secrets
from iotistica.domain.control import targets as rules
from iotistica.domain.control.targets import Target
from iotistica.domain.ids import TenantId
from iotistica.errors import Conflict, Invalid, NotFound
from iotistica.storage.control import targets
from iotistica.storage.control.targets import TargetOwner
from iotistica.storage.postgres import Database

Body = JSONBody[dict[str, Any]]


class Apps(msgspec.Struct, frozen=True, kw_only=True):
    """The apps of a target, secrets masked; null takes away what the fleet has."""

    apps: dict[str, Any]
    count: int


def _routes(kind: Any) -> list[HTTPRouteHandler]:
    """The routes of the apps of agents, or of fleets."""
    read, write = {"permission": "targets.read"}, {"permission": "targets.write"}

    async def own(database: Database, tenant: TenantId, subject: UUID, draft: bool) -> dict[str, Any]:
        async with database.transaction(tenant) as tx:
            head = await targets.head(tx, tenant, TargetOwner(kind, subject))
            version = head.latest if draft else head.deployed
            return (await targets.document_of(tx, tenant, TargetOwner(kind, subject), version)).apps

    @get("/{subject:uuid}/apps", opt=read)
    async def list_apps(
        request: ApiRequest, database: DatabaseDep, subject: FromPath[UUID], draft: FromQuery[bool] = False
    ) -> Apps:
        """The apps of its own target by their ids; with `draft` those of the newest version."""
        apps = await own(database, tenant_of(request), subject, draft)
        return Apps(apps=document_secrets.mask(apps), count=len(apps))

    @get("/{subject:uuid}/apps/{app:str}", opt=read)
    async def get_app(
        request: ApiRequest,
        database: DatabaseDep,
        subject: FromPath[UUID],
        app: FromPath[str],
        draft: FromQuery[bool] = False,
    ) -> dict[str, Any]:
        """One app, secrets masked."""
        found: dict[str, Any] = document_secrets.mask(
            _app(await own(database, tenant_of(request), subject, draft), app)
        )
        return found

    @post("/{subject:uuid}/apps", opt=write, status_code=200)
    async def add_app(
        request: ApiRequest,
        data: Body,
        database: DatabaseDep,
        context: ServerContextDep,
        subject: FromPath[UUID],
        draft: FromQuery[bool] = False,
    ) -> Response[TargetView]:
        """Add an app to the target; 409 if its `appId` is there already."""
        id_ = data.get("appId")
        if isinstance(id_, bool) or not isinstance(id_, (int, str)):
            raise Invalid("an app has an appId, a number or a text", "appId")

        def edit(old: Target) -> Target:
            if old.apps.get(str(id_)) is not None:
                raise Conflict(f"there is an app {id_} already: PUT replaces it")
            return _with_app(old, str(id_), data)

        return await change(request, database, context, TargetOwner(kind, subject), edit, draft=draft)

    @put("/{subject:uuid}/apps/{app:str}", opt=write)
    async def put_app(
        request: ApiRequest,
        data: Body,
        database: DatabaseDep,
        context: ServerContextDep,
        subject: FromPath[UUID],
        app: FromPath[str],
        draft: FromQuery[bool] = False,
    ) -> Response[TargetView]:
        """Add an app, or replace it; `********` keeps the secret that stands there."""
        whose = TargetOwner(kind, subject)
        return await change(request, database, context, whose, lambda old: _with_app(old, app, data), draft=draft)

    @delete("/{subject:uuid}/apps/{app:str}", opt=write, status_code=200)
    async def delete_app(
        request: ApiRequest,
        database: DatabaseDep,
        context: ServerContextDep,
        subject: FromPath[UUID],
        app: FromPath[str],
        draft: FromQuery[bool] = False,
    ) -> Response[TargetView]:
        """Take an app out of the target."""

        def edit(old: Target) -> Target:
            _app(old.apps, app)
            return Target(apps={key: one for key, one in old.apps.items() if key != app}, config=old.config)

        return await change(request, database, context, TargetOwner(kind, subject), edit, draft=draft)

    @put("/{subject:uuid}/apps/{app:str}/services/{service:str}", opt=write)
    async def put_service(
        request: ApiRequest,
        data: Body,
        database: DatabaseDep,
        context: ServerContextDep,
        subject: FromPath[UUID],
        app: FromPath[str],
        service: FromPath[str],
        draft: FromQuery[bool] = False,
    ) -> Response[TargetView]:
        """Add a service to an app, or replace it."""

        def edit(old: Target) -> Target:
            whole = _app(old.apps, app)
            own = _numbered(service)
            if str(data.get("serviceId", service)) != service:
                raise Invalid(f"the service says that it is {data['serviceId']!r}", "serviceId")
            services = whole.get("services", [])
            known = [str(one["serviceId"]) for one in services]
            entry = data | {"serviceId": own}
            at = known.index(service) if service in known else len(known)
            return _with_app(old, app, whole | {"services": [*services[:at], entry, *services[at + 1 :]]})

        return await change(request, database, context, TargetOwner(kind, subject), edit, draft=draft)

    @delete("/{subject:uuid}/apps/{app:str}/services/{service:str}", opt=write, status_code=200)
    async def delete_service(
        request: ApiRequest,
        database: DatabaseDep,
        context: ServerContextDep,
        subject: FromPath[UUID],
        app: FromPath[str],
        service: FromPath[str],
        draft: FromQuery[bool] = False,
    ) -> Response[TargetView]:
        """Take a service out of an app."""

        def edit(old: Target) -> Target:
            whole = _app(old.apps, app)
            services = whole.get("services", [])
            rest = [one for one in services if str(one["serviceId"]) != service]
            if len(rest) == len(services):
                raise NotFound
            return _with_app(old, app, whole | {"services": rest})

        return await change(request, database, context, TargetOwner(kind, subject), edit, draft=draft)

    return [list_apps, get_app, add_app, put_app, delete_app, put_service, delete_service]


def _app(apps: dict[str, Any], id_: str) -> dict[str, Any]:
    """One app; raises `NotFound`, also for one that only takes away the fleet's."""
    found = apps.get(id_)
    if not isinstance(found, dict):
        raise NotFound
    return found


def _with_app(old: Target, id_: str, app: dict[str, Any]) -> Target:
    return Target(apps=old.apps | {id_: rules.validate_app(id_, app)}, config=old.config)


def _numbered(id_: str) -> int | str:
    return int(id_) if id_.isdecimal() and len(id_) < 16 else id_


agents_router: Final = Router("/agents", route_handlers=_routes("agent"), tags=["apps"])
fleets_router: Final = Router("/fleets", route_handlers=_routes("fleet"), tags=["apps"])
