"""Routes for target states of agents and fleets: read, write, deploy, compare and roll back versions."""

from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from litestar import Controller, Response, delete, get, post, put
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromQuery, JSONBody, QueryParameter
from litestar.types import Method, OperationIDCreator
from litestar.types.internal_types import PathParameterDefinition
from msgspec import UNSET, UnsetType

from iotistica.api.control.target_owners import OwnerDep, agent_owner, fleet_owner
from iotistica.api.control.target_versions import TargetView, change, check_seen, masked, view
from iotistica.api.http import cursors
from iotistica.api.http.cursors import cut_page
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep, ServerContextDep
from iotistica.api.http.guard import actor_of, tenant_of
from iotistica.api.http.inputs import Limit, Text
from iotistica.domain.control import targets as rules
from iotistica.domain.control.sealed_targets import open_target
from iotistica.domain.control.targets import Target
from iotistica.errors import Conflict, Invalid
from iotistica.storage.control import targets


class TargetDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole target: apps, config or both; `********` keeps the stored secret at that place."""

    apps: dict[str, Any] | list[Any] | UnsetType = UNSET
    config: dict[str, Any] | UnsetType = UNSET
    note: Text | None = None

    @property
    def target(self) -> Target:
        """The target; raises `Invalid` if both are absent, since an empty target must be explicit."""
        if self.apps is UNSET and self.config is UNSET:
            raise Invalid(
                'must be given if there are no apps; use DELETE or {"config": {}} for an empty target', "config"
            )
        apps, config = ({} if part is UNSET else part for part in (self.apps, self.config))
        return Target(apps=apps, config=config)  # type: ignore[arg-type]  # validated when it is stored


class VersionChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: int | UnsetType = UNSET
    """The version; for a deployment, the newest one by default."""
    note: Text | None = None


class TargetVersionView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    version: int
    at: datetime
    author: dict[str, Any]
    note: str | None
    restores: int | None
    """The version that this one restores, if a rollback created it."""
    deployed: bool
    changes: list[dict[str, Any]]
    """The differences from the version that it was based on, secrets masked."""


class TargetHistory(msgspec.Struct, frozen=True, kw_only=True):
    versions: list[TargetVersionView]
    count: int
    total: int
    next: str | None


class TargetComparison(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    from_version: int = msgspec.field(name="from")
    to_version: int = msgspec.field(name="to")
    changes: list[dict[str, Any]]


READ: Final = {"permission": "targets.read"}
WRITE: Final = {"permission": "targets.write"}


def _operation_id(verb: str) -> OperationIDCreator:
    """Return a function that names an operation after its verb and the owner of the target."""

    def name(_handler: HTTPRouteHandler, _method: Method, path: list[str | PathParameterDefinition]) -> str:
        return f"{verb}{'Agent' if 'agents' in path else 'Fleet'}Target"

    return name


class TargetRoutes(Controller):
    """The routes of targets, whether of agents or of fleets."""

    @get("/target-state", opt=READ)
    async def get_target(
        self, request: ApiRequest, database: DatabaseDep, owner: OwnerDep, version: FromQuery[int | None] = None
    ) -> Response[TargetView]:
        """Return the newest version of the target, or `version`; the ETag is the newest version, for `If-Match`."""
        tenant = tenant_of(request)
        async with database.transaction(tenant, snapshot=True) as tx:
            return await view(tx, tenant, owner, version)

    async def _write(
        self,
        request: ApiRequest,
        data: JSONBody[TargetDocument],
        database: DatabaseDep,
        context: ServerContextDep,
        owner: OwnerDep,
        draft: FromQuery[bool] = False,
    ) -> Response[TargetView]:
        """Store a new version, and deploy it unless `draft` is set.

        With `If-Match`, the request fails with 412 if another writer has stored a version meanwhile.
        """
        target = data.target
        options = {"draft": draft, "whole": True}
        return await change(request, database, context, owner, lambda _: target, note=data.note, **options)

    @delete("/target-state", opt=WRITE, status_code=200)
    async def clear(
        self, request: ApiRequest, database: DatabaseDep, context: ServerContextDep, owner: OwnerDep
    ) -> Response[TargetView]:
        """Deploy an empty target as a new version; earlier versions stay in the history."""
        return await change(request, database, context, owner, lambda _: rules.EMPTY_TARGET)

    @post("/target-state/deploy", opt=WRITE, status_code=200)
    async def deploy(
        self,
        request: ApiRequest,
        database: DatabaseDep,
        owner: OwnerDep,
        data: JSONBody[VersionChoice | None] = None,
    ) -> Response[TargetView]:
        """Deploy a version, by default the newest."""
        tenant = tenant_of(request)
        async with database.transaction(tenant) as tx:
            head = await targets.lock(tx, tenant, owner)
            await check_seen(tx, tenant, owner, head, request.headers.get("if-match"))
            version = head.latest if data is None or data.version is UNSET else data.version
            if not version:
                raise Conflict("There is no version to deploy: PUT a target first.")
            await targets.get(tx, tenant, owner, version)
            if version != head.deployed:
                await targets.deploy(tx, tenant, owner, version, by=actor_of(request))
            return await view(tx, tenant, owner, None)

    @post("/target-state/rollback", opt=WRITE, status_code=200)
    async def roll_back(
        self,
        request: ApiRequest,
        database: DatabaseDep,
        context: ServerContextDep,
        owner: OwnerDep,
        data: JSONBody[VersionChoice],
    ) -> Response[TargetView]:
        """Store the content of an earlier version as a new version, and deploy it."""
        if data.version is UNSET:
            raise Invalid("must be the version to restore", "version")
        tenant = tenant_of(request)
        async with database.transaction(tenant) as tx:
            earlier = open_target(context.box, (await targets.get(tx, tenant, owner, data.version)).target, tenant)
        return await change(
            *(request, database, context, owner, lambda _: earlier), note=data.note, restores=data.version
        )

    @get("/target-state/history", opt=READ)
    async def history(
        self,
        request: ApiRequest,
        database: DatabaseDep,
        owner: OwnerDep,
        limit: Limit = 20,
        cursor: Annotated[str | None, QueryParameter(max_length=10)] = None,
    ) -> TargetHistory:
        """List the versions, newest first, with their authors and changes."""
        before = cursors.parse_number(cursor)
        tenant = tenant_of(request)
        async with database.transaction(tenant, snapshot=True) as tx:
            head = await targets.head(tx, tenant, owner)
            rows = await targets.page(tx, tenant, owner, before=before, limit=limit + 1)
        page, more = cut_page(rows, limit, lambda version: str(version.version))
        views = [
            TargetVersionView(
                version=row.version,
                at=row.at,
                author=row.author,
                note=row.note,
                restores=row.restores,
                deployed=row.version == head.deployed,
                changes=row.changes,
            )
            for row in page
        ]
        return TargetHistory(versions=views, count=len(views), total=rows.total, next=more)

    @get("/target-state/compare", opt=READ)
    async def compare(
        self,
        request: ApiRequest,
        database: DatabaseDep,
        owner: OwnerDep,
        older: Annotated[int, QueryParameter(name="from", ge=0, le=2_000_000_000)],
        newer: Annotated[int, QueryParameter(name="to", ge=0, le=2_000_000_000)],
    ) -> TargetComparison:
        """Return the differences between two versions, secrets masked; version 0 is the empty target."""
        tenant = tenant_of(request)
        async with database.transaction(tenant, snapshot=True) as tx:
            await targets.head(tx, tenant, owner)
            old = await targets.document_of(tx, tenant, owner, older)
            new = await targets.document_of(tx, tenant, owner, newer)
        changes = [msgspec.to_builtins(item) for item in masked(old, new)]
        return TargetComparison(from_version=older, to_version=newer, changes=changes)

    replace = put("/target-state", opt=WRITE, operation_id=_operation_id("Replace"))(_write)
    create = post("/target-state", opt=WRITE, status_code=200, operation_id=_operation_id("Create"))(_write)


class AgentTargets(TargetRoutes):
    """The targets of agents."""

    path = "/agents/{subject:uuid}"
    tags = ("target state",)
    dependencies = {"owner": Provide(agent_owner)}  # noqa: RUF012 Litestar's type


class FleetTargets(TargetRoutes):
    """The targets of fleets."""

    path = "/fleets/{subject:uuid}"
    tags = ("target state",)
    dependencies = {"owner": Provide(fleet_owner)}  # noqa: RUF012 Litestar's type
