"""Routes for single apps and services of a target; each change stores a new version of the whole target."""

from typing import Any, Final

import msgspec
from litestar import Controller, Response, delete, get, post, put
from litestar.di import Provide
from litestar.params import FromPath, FromQuery, JSONBody

from iotistica.api.control.target_owners import OwnerDep, agent_owner, fleet_owner
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


READ: Final = {"permission": "targets.read"}
WRITE: Final = {"permission": "targets.write"}


class AppRoutes(Controller):
    """The routes of apps, whether of agents or of fleets."""

    @get("/apps", opt=READ)
    async def list_apps(
        self, request: ApiRequest, database: DatabaseDep, owner: OwnerDep, draft: FromQuery[bool] = False
    ) -> Apps:
        """List the apps of the deployed version of the target; with `draft`, of the newest version."""
        apps = await _stored_apps(database, tenant_of(request), owner, draft=draft)
        return Apps(apps=document_secrets.mask(apps), count=len(apps))

    @get("/apps/{app:str}", opt=READ)
    async def get_app(
        self,
        request: ApiRequest,
        database: DatabaseDep,
        owner: OwnerDep,
        app: FromPath[str],
        draft: FromQuery[bool] = False,
    ) -> dict[str, Any]:
        """Return one app, secrets masked; with `draft`, from the newest version."""
        masked: dict[str, Any] = document_secrets.mask(
            _app(await _stored_apps(database, tenant_of(request), owner, draft=draft), app)
        )
        return masked

    @post("/apps", opt=WRITE, status_code=200)
    async def add_app(
        self,
        request: ApiRequest,
        data: Body,
        database: DatabaseDep,
        context: ServerContextDep,
        owner: OwnerDep,
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

        return await change(request, database, context, owner, edit, draft=draft)

    @put("/apps/{app:str}", opt=WRITE)
    async def put_app(
        self,
        request: ApiRequest,
        data: Body,
        database: DatabaseDep,
        context: ServerContextDep,
        owner: OwnerDep,
        app: FromPath[str],
        draft: FromQuery[bool] = False,
    ) -> Response[TargetView]:
        """Add or replace an app; `********` keeps the stored secret at that place."""
        return await change(request, database, context, owner, lambda old: _with_app(old, app, data), draft=draft)

    @delete("/apps/{app:str}", opt=WRITE, status_code=200)
    async def delete_app(
        self,
        request: ApiRequest,
        database: DatabaseDep,
        context: ServerContextDep,
        owner: OwnerDep,
        app: FromPath[str],
        draft: FromQuery[bool] = False,
    ) -> Response[TargetView]:
        """Remove an app from the target."""

        def edit(old: Target) -> Target:
            _app(old.apps, app)
            return Target(apps={key: value for key, value in old.apps.items() if key != app}, config=old.config)

        return await change(request, database, context, owner, edit, draft=draft)

    @put("/apps/{app:str}/services/{service:str}", opt=WRITE)
    async def put_service(
        self,
        request: ApiRequest,
        data: Body,
        database: DatabaseDep,
        context: ServerContextDep,
        owner: OwnerDep,
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

        return await change(request, database, context, owner, edit, draft=draft)

    @delete("/apps/{app:str}/services/{service:str}", opt=WRITE, status_code=200)
    async def delete_service(
        self,
        request: ApiRequest,
        database: DatabaseDep,
        context: ServerContextDep,
        owner: OwnerDep,
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

        return await change(request, database, context, owner, edit, draft=draft)


async def _stored_apps(database: Database, tenant: TenantId, owner: TargetOwner, *, draft: bool) -> dict[str, Any]:
    async with database.transaction(tenant, snapshot=True) as tx:
        head = await targets.head(tx, tenant, owner)
        version = head.latest if draft else head.deployed
        return (await targets.document_of(tx, tenant, owner, version)).apps


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


class AgentApps(AppRoutes):
    """The apps of agents."""

    path = "/agents/{subject:uuid}"
    tags = ("apps",)
    dependencies = {"owner": Provide(agent_owner)}  # noqa: RUF012 Litestar's type


class FleetApps(AppRoutes):
    """The apps of fleets."""

    path = "/fleets/{subject:uuid}"
    tags = ("apps",)
    dependencies = {"owner": Provide(fleet_owner)}  # noqa: RUF012 Litestar's type
