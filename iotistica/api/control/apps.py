"""Routes for single apps and services of a target; each change stores a new version of the whole target."""

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
    """The apps of a target by id, secrets masked; null removes an app of the fleet."""

    apps: dict[str, Any]
    count: int


def _routes(kind: Any) -> list[HTTPRouteHandler]:
    """Return the routes for the apps of agents, or of fleets."""
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
        """List the apps of the deployed version of the target; with `draft`, of the newest version."""
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
        """Return one app, secrets masked; with `draft`, from the newest version."""
        masked: dict[str, Any] = document_secrets.mask(
            _app(await own(database, tenant_of(request), subject, draft), app)
        )
        return masked

    @post("/{subject:uuid}/apps", opt=write, status_code=200)
    async def add_app(
        request: ApiRequest,
        data: Body,
        database: DatabaseDep,
        context: ServerContextDep,
        subject: FromPath[UUID],
        draft: FromQuery[bool] = False,
    ) -> Response[TargetView]:
        """Add an app to the target; 409 if the target has an app with this `appId`."""
        id_ = data.get("appId")
        if isinstance(id_, bool) or not isinstance(id_, (int, str)):
            raise Invalid("must be a number or a string", "appId")

        def edit(old: Target) -> Target:
            if old.apps.get(str(id_)) is not None:
                raise Conflict(f"The app {id_} exists already: use PUT to replace it.")
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
        """Add or replace an app; `********` keeps the stored secret at that place."""
        owner = TargetOwner(kind, subject)
        return await change(request, database, context, owner, lambda old: _with_app(old, app, data), draft=draft)

    @delete("/{subject:uuid}/apps/{app:str}", opt=write, status_code=200)
    async def delete_app(
        request: ApiRequest,
        database: DatabaseDep,
        context: ServerContextDep,
        subject: FromPath[UUID],
        app: FromPath[str],
        draft: FromQuery[bool] = False,
    ) -> Response[TargetView]:
        """Remove an app from the target."""

        def edit(old: Target) -> Target:
            _app(old.apps, app)
            return Target(apps={key: value for key, value in old.apps.items() if key != app}, config=old.config)

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
        """Add or replace a service of an app."""

        def edit(old: Target) -> Target:
            whole = _app(old.apps, app)
            id_ = _numbered(service)
            if str(data.get("serviceId", service)) != service:
                raise Invalid(f"must be {service}, as in the path; it is {data['serviceId']!r}", "serviceId")
            services = whole.get("services", [])
            ids = [str(item["serviceId"]) for item in services]
            entry = data | {"serviceId": id_}
            at = ids.index(service) if service in ids else len(ids)
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
        """Remove a service from an app."""

        def edit(old: Target) -> Target:
            whole = _app(old.apps, app)
            services = whole.get("services", [])
            rest = [item for item in services if str(item["serviceId"]) != service]
            if len(rest) == len(services):
                raise NotFound
            return _with_app(old, app, whole | {"services": rest})

        return await change(request, database, context, TargetOwner(kind, subject), edit, draft=draft)

    return [list_apps, get_app, add_app, put_app, delete_app, put_service, delete_service]


def _app(apps: dict[str, Any], id_: str) -> dict[str, Any]:
    """Return one app; raises `NotFound`, also for a null, which only removes the app of the fleet."""
    app = apps.get(id_)
    if not isinstance(app, dict):
        raise NotFound
    return app


def _with_app(old: Target, id_: str, app: dict[str, Any]) -> Target:
    return Target(apps=old.apps | {id_: rules.validate_app(id_, app)}, config=old.config)


def _numbered(id_: str) -> int | str:
    return int(id_) if id_.isdecimal() and len(id_) < 16 else id_


agents_router: Final = Router("/agents", route_handlers=_routes("agent"), tags=["apps"])
fleets_router: Final = Router("/fleets", route_handlers=_routes("fleet"), tags=["apps"])
