"""What agents and fleets are to be: read, written as versions, deployed, compared, taken back."""

from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from litestar import Response, Router, delete, get, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from msgspec import UNSET, UnsetType

from iotistica.api.control.target_versions import TargetView, change, check_seen, masked, opened, view
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep, ServerContextDep
from iotistica.api.http.guard import actor_of, tenant_of
from iotistica.api.http.inputs import Limit, Text
from iotistica.domain.control import targets as rules
from iotistica.domain.control.targets import Target
from iotistica.errors import Conflict, Invalid
from iotistica.storage.control import targets
from iotistica.storage.control.targets import TargetOwner


class TargetDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole target, apps and config or one of them; `********` keeps the secret that stands there."""

    apps: dict[str, Any] | list[Any] | UnsetType = UNSET
    config: dict[str, Any] | UnsetType = UNSET
    note: Text | None = None

    @property
    def target(self) -> Target:
        """Raises `Invalid` for one that says nothing: what is empty must be said to be."""
        if self.apps is UNSET and self.config is UNSET:
            raise Invalid('apps, config or both; DELETE, or {"config": {}}, takes everything away', "config")
        apps, config = ({} if part is UNSET else part for part in (self.apps, self.config))
        return Target(apps=apps, config=config)  # type: ignore[arg-type]  # checked when it is written


class VersionChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: int | UnsetType = UNSET
    """The newest unless given."""
    note: Text | None = None


class TargetVersionView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    version: int
    at: datetime
    author: dict[str, Any]
    note: str | None
    restores: int | None
    """The version that this one brings back."""
    deployed: bool
    changes: list[dict[str, Any]]
    """What is different from the version that it was made of, secrets masked."""


class TargetHistory(msgspec.Struct, frozen=True, kw_only=True):
    versions: list[TargetVersionView]
    count: int
    next: str | None


class TargetComparison(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    from_version: int = msgspec.field(name="from")
    to_version: int = msgspec.field(name="to")
    changes: list[dict[str, Any]]


def _routes(kind: Any) -> list[HTTPRouteHandler]:
    """The routes of the targets of agents, or of fleets."""
    read, write = {"permission": "targets.read"}, {"permission": "targets.write"}

    @get("/{subject:uuid}/target-state", opt=read)
    async def get_target(
        request: ApiRequest, database: DatabaseDep, subject: FromPath[UUID], version: FromQuery[int | None] = None
    ) -> Response[TargetView]:
        """The newest version, or the one asked for; its ETag is for `If-Match`."""
        tenant = tenant_of(request)
        async with database.transaction(tenant) as tx:
            return await view(tx, tenant, TargetOwner(kind, subject), version)

    async def _write(
        request: ApiRequest,
        data: JSONBody[TargetDocument],
        database: DatabaseDep,
        context: ServerContextDep,
        subject: FromPath[UUID],
        draft: FromQuery[bool] = False,
    ) -> Response[TargetView]:
        """Write a new version, and deploy it unless it is a draft. `If-Match` guards against other writers."""
        wanted, whose = data.target, TargetOwner(kind, subject)
        how = {"draft": draft, "whole": True}
        return await change(request, database, context, whose, lambda _: wanted, note=data.note, **how)

    @delete("/{subject:uuid}/target-state", opt=write, status_code=200)
    async def clear(
        request: ApiRequest, database: DatabaseDep, context: ServerContextDep, subject: FromPath[UUID]
    ) -> Response[TargetView]:
        """Deploy an empty version; the earlier ones stay in the history."""
        return await change(request, database, context, TargetOwner(kind, subject), lambda _: rules.EMPTY_TARGET)

    @post("/{subject:uuid}/target-state/deploy", opt=write, status_code=200)
    async def deploy(
        request: ApiRequest,
        database: DatabaseDep,
        subject: FromPath[UUID],
        data: JSONBody[VersionChoice | None] = None,
    ) -> Response[TargetView]:
        """Tell a version from now on, the newest unless another is named."""
        tenant, whose = tenant_of(request), TargetOwner(kind, subject)
        async with database.transaction(tenant) as tx:
            head = await targets.lock(tx, tenant, whose)
            await check_seen(tx, tenant, whose, head, request.headers.get("if-match"))
            version = head.latest if data is None or data.version is UNSET else data.version
            if not version:
                raise Conflict("there is no version to deploy: PUT a target first")
            await targets.get(tx, tenant, whose, version)
            if version != head.deployed:
                await targets.deploy(tx, tenant, whose, version, by=actor_of(request))
            return await view(tx, tenant, whose, None)

    @post("/{subject:uuid}/target-state/rollback", opt=write, status_code=200)
    async def roll_back(
        request: ApiRequest,
        database: DatabaseDep,
        context: ServerContextDep,
        subject: FromPath[UUID],
        data: JSONBody[VersionChoice],
    ) -> Response[TargetView]:
        """Write a new version that says what an earlier one said, and deploy it."""
        if data.version is UNSET:
            raise Invalid("say which version to go back to", "version")
        tenant, whose = tenant_of(request), TargetOwner(kind, subject)
        async with database.transaction(tenant) as tx:
            earlier = opened(context, tenant, (await targets.get(tx, tenant, whose, data.version)).target)
        return await change(
            *(request, database, context, whose, lambda _: earlier), note=data.note, restores=data.version
        )

    @get("/{subject:uuid}/target-state/history", opt=read)
    async def history(
        request: ApiRequest,
        database: DatabaseDep,
        subject: FromPath[UUID],
        limit: Limit = 20,
        cursor: Annotated[str | None, QueryParameter(max_length=10)] = None,
    ) -> TargetHistory:
        """The versions there are, the newest first, with who wrote them and what they changed."""
        if cursor is not None and not (cursor.isascii() and cursor.isdecimal()):
            raise Invalid("not a cursor of this list", "cursor")
        tenant, whose = tenant_of(request), TargetOwner(kind, subject)
        async with database.transaction(tenant) as tx:
            head = await targets.head(tx, tenant, whose)
            before = int(cursor) if cursor else None
            found = await targets.page(tx, tenant, whose, before=before, limit=limit + 1)
        views = [
            TargetVersionView(
                version=one.version,
                at=one.at,
                author=one.author,
                note=one.note,
                restores=one.restores,
                deployed=one.version == head.deployed,
                changes=one.changes,
            )
            for one in found[:limit]
        ]
        more = str(views[-1].version) if len(found) > limit else None
        return TargetHistory(versions=views, count=len(views), next=more)

    @get("/{subject:uuid}/target-state/compare", opt=read)
    async def compare(
        request: ApiRequest,
        database: DatabaseDep,
        subject: FromPath[UUID],
        older: Annotated[int, QueryParameter(name="from", ge=0, le=2_000_000_000)],
        newer: Annotated[int, QueryParameter(name="to", ge=0, le=2_000_000_000)],
    ) -> TargetComparison:
        """What is different between two versions, secrets masked; 0 is the empty one before the first."""
        tenant, whose = tenant_of(request), TargetOwner(kind, subject)
        async with database.transaction(tenant) as tx:
            await targets.head(tx, tenant, whose)
            old = await targets.document_of(tx, tenant, whose, older)
            new = await targets.document_of(tx, tenant, whose, newer)
        changes = [msgspec.to_builtins(one) for one in masked(old, new)]
        return TargetComparison(from_version=older, to_version=newer, changes=changes)

    path, id_ = "/{subject:uuid}/target-state", f"{kind.capitalize()}Target"
    replace = put(path, opt=write, operation_id=f"Replace{id_}")(_write)
    create = post(path, opt=write, status_code=200, operation_id=f"Create{id_}")(_write)
    return [get_target, replace, create, clear, deploy, roll_back, history, compare]


agents_router: Final = Router("/agents", route_handlers=_routes("agent"), tags=["target state"])
fleets_router: Final = Router("/fleets", route_handlers=_routes("fleet"), tags=["target state"])
