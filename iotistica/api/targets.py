"""What agents and fleets are to be: read, written as versions, deployed, compared, taken back."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from litestar import Response, Router, delete, get, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from msgspec import UNSET, UnsetType

from iotistica.api.given import Call, Data, Here, Site
from iotistica.api.guard import actor_of, tenant_of
from iotistica.api.inputs import Limit, Text
from iotistica.domain import documents, secrets
from iotistica.domain import targets as rules
from iotistica.domain.ids import TenantId
from iotistica.domain.targets import Target
from iotistica.errors import Conflict, Invalid, Outdated
from iotistica.storage import targets
from iotistica.storage.postgres import Database, Tx
from iotistica.storage.targets import Head, Subject

Number = Annotated[int, QueryParameter(ge=0, le=2_000_000_000)]
Edit = Callable[[Target], Target]
"""What a writer makes of the target as it is, secrets open."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A whole target; `********` keeps the secret that stands there."""

    apps: dict[str, Any] | list[Any] = msgspec.field(default_factory=dict)
    config: dict[str, Any] = msgspec.field(default_factory=dict)
    note: Text | None = None


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    version: int | UnsetType = UNSET
    """The newest unless given."""
    note: Text | None = None


class TargetView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A target, secrets masked. What is deployed is `deployedVersion`; the document is that of `version`."""

    uuid: UUID
    version: int
    apps: dict[str, Any]
    config: dict[str, Any]
    needs_deployment: bool
    """Whether a newer version than the one deployed is written."""
    deployed_version: int | None
    deployed_at: datetime | None
    deployed_by: dict[str, Any] | None
    updated_at: datetime | None
    updated_by: dict[str, Any] | None


class VersionView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    version: int
    at: datetime
    author: dict[str, Any]
    note: str | None
    restores: int | None
    """The version that this one brings back."""
    deployed: bool
    changes: list[dict[str, Any]]
    """What is different from the version before, secrets masked."""


class History(msgspec.Struct, frozen=True, kw_only=True):
    versions: list[VersionView]
    count: int
    next: str | None


class Comparison(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    from_version: int = msgspec.field(name="from")
    to_version: int = msgspec.field(name="to")
    changes: list[dict[str, Any]]


async def change(
    request: Call,
    database: Database,
    site: Site,
    subject: Subject,
    edit: Edit,
    *,
    draft: bool = False,
    note: str | None = None,
    restores: int | None = None,
) -> Response[TargetView]:
    """Write what `edit` makes of the newest version, and deploy it unless it is a draft.

    What changes nothing is no version. Raises `Outdated` if the caller has seen another version than the newest.
    """
    tenant, by, box = tenant_of(request), actor_of(request), site.box
    async with database.transaction(tenant) as tx:
        head = await targets.locked(tx, tenant, subject)
        await _check_seen(tx, tenant, subject, head, request.headers.get("if-match"))
        sealed = await targets.target_of(tx, tenant, subject, head.latest)
        old = _opened(site, tenant, sealed)
        new = _kept(edit(old), old)
        new = Target(apps=box.seal(new.apps, tenant), config=box.seal(new.config, tenant))
        version = head.latest
        if new != sealed or version == 0:
            changes = _masked(sealed, new)
            version = await targets.write(
                *(tx, tenant, subject, head, new), changes=changes, by=by, note=note, restores=restores
            )
        if not draft and version != head.deployed:
            await targets.deploy(tx, tenant, subject, version, by=by)
        return await _view(tx, tenant, subject, None)


async def _check_seen(tx: Tx, tenant: TenantId, subject: Subject, head: Head, if_match: str | None) -> None:
    if if_match is None or rules.matches(if_match, f'"{head.latest}"'):
        return
    current: dict[str, Any] = {"version": head.latest}
    if head.latest:
        newest = await targets.get(tx, tenant, subject, head.latest)
        current |= {"author": newest.author, "at": newest.at}
        seen = if_match.strip().removeprefix("W/").strip('"')
        if seen.isdecimal() and int(seen) < head.latest:
            before = await targets.target_of(tx, tenant, subject, int(seen))
            current["changes"] = msgspec.to_builtins(_masked(before, newest.target))
    raise Outdated(
        f"version {head.latest} has been written meanwhile: read it, and write again with its ETag", current
    )


def _kept(new: Target, old: Target) -> Target:
    """The document checked, with the secrets that its masks stand for."""
    whole = rules.checked(new.apps, new.config)
    kept = secrets.keep_masked(msgspec.to_builtins(whole), msgspec.to_builtins(old))
    return msgspec.convert(kept, Target)


def _opened(site: Site, tenant: TenantId, target: Target) -> Target:
    return Target(apps=site.box.open(target.apps, tenant), config=site.box.open(target.config, tenant))


def _masked(old: Target, new: Target) -> list[documents.Change]:
    """What changed between two sealed targets, secrets masked."""
    found = documents.differences(msgspec.to_builtins(old), msgspec.to_builtins(new))
    return [msgspec.convert(secrets.mask(msgspec.to_builtins(one)), documents.Change) for one in found]


async def _view(tx: Tx, tenant: TenantId, subject: Subject, version: int | None) -> Response[TargetView]:
    head = await targets.head(tx, tenant, subject)
    shown = await targets.get(tx, tenant, subject, version or head.latest) if version or head.latest else None
    view = TargetView(
        uuid=subject.id,
        version=shown.version if shown else 0,
        apps=secrets.mask(shown.apps) if shown else {},
        config=secrets.mask(shown.config) if shown else {},
        needs_deployment=head.latest != (head.deployed or 0),
        deployed_version=head.deployed,
        deployed_at=head.deployed_at,
        deployed_by=head.deployed_by,
        updated_at=shown.at if shown else None,
        updated_by=shown.author if shown else None,
    )
    return Response(view, headers={"ETag": f'"{head.latest}"'})


def _routes(kind: Any) -> list[HTTPRouteHandler]:
    """The routes of the targets of agents, or of fleets."""
    read, write = {"permission": "targets.read"}, {"permission": "targets.write"}

    @get("/{subject:uuid}/target-state", opt=read)
    async def get_target(
        request: Call, database: Data, subject: FromPath[UUID], version: FromQuery[int | None] = None
    ) -> Response[TargetView]:
        """The newest version, or the one asked for; its ETag is for `If-Match`."""
        tenant = tenant_of(request)
        async with database.transaction(tenant) as tx:
            return await _view(tx, tenant, Subject(kind, subject), version)

    async def _write(
        request: Call,
        data: JSONBody[Wanted],
        database: Data,
        site: Here,
        subject: FromPath[UUID],
        draft: FromQuery[bool] = False,
    ) -> Response[TargetView]:
        """Write a new version, and deploy it unless it is a draft. `If-Match` guards against other writers."""
        wanted = Target(apps=data.apps, config=data.config)  # type: ignore[arg-type]
        whose = Subject(kind, subject)
        return await change(request, database, site, whose, lambda _: wanted, draft=draft, note=data.note)

    @delete("/{subject:uuid}/target-state", opt=write, status_code=200)
    async def clear(request: Call, database: Data, site: Here, subject: FromPath[UUID]) -> Response[TargetView]:
        """Deploy an empty version; the earlier ones stay in the history."""
        return await change(request, database, site, Subject(kind, subject), lambda _: rules.NONE)

    @post("/{subject:uuid}/target-state/deploy", opt=write, status_code=200)
    async def deploy(
        request: Call, database: Data, subject: FromPath[UUID], data: JSONBody[Choice | None] = None
    ) -> Response[TargetView]:
        """Tell a version from now on, the newest unless another is named."""
        tenant, whose = tenant_of(request), Subject(kind, subject)
        async with database.transaction(tenant) as tx:
            head = await targets.locked(tx, tenant, whose)
            await _check_seen(tx, tenant, whose, head, request.headers.get("if-match"))
            version = head.latest if data is None or data.version is UNSET else data.version
            if not version:
                raise Conflict("there is no version to deploy: PUT a target first")
            await targets.get(tx, tenant, whose, version)
            if version != head.deployed:
                await targets.deploy(tx, tenant, whose, version, by=actor_of(request))
            return await _view(tx, tenant, whose, None)

    @post("/{subject:uuid}/target-state/rollback", opt=write, status_code=200)
    async def roll_back(
        request: Call, database: Data, site: Here, subject: FromPath[UUID], data: JSONBody[Choice]
    ) -> Response[TargetView]:
        """Write a new version that says what an earlier one said, and deploy it."""
        if data.version is UNSET:
            raise Invalid("say which version to go back to", "version")
        tenant, whose = tenant_of(request), Subject(kind, subject)
        async with database.transaction(tenant) as tx:
            earlier = _opened(site, tenant, (await targets.get(tx, tenant, whose, data.version)).target)
        return await change(
            *(request, database, site, whose, lambda _: earlier), note=data.note, restores=data.version
        )

    @get("/{subject:uuid}/target-state/history", opt=read)
    async def history(
        request: Call,
        database: Data,
        subject: FromPath[UUID],
        limit: Limit = 20,
        cursor: Annotated[str | None, QueryParameter(max_length=10)] = None,
    ) -> History:
        """The versions there are, the newest first, with who wrote them and what they changed."""
        if cursor is not None and not (cursor.isascii() and cursor.isdecimal()):
            raise Invalid("not a cursor of this list", "cursor")
        tenant, whose = tenant_of(request), Subject(kind, subject)
        async with database.transaction(tenant) as tx:
            head = await targets.head(tx, tenant, whose)
            before = int(cursor) if cursor else None
            found = await targets.page(tx, tenant, whose, before=before, limit=limit + 1)
        views = [
            VersionView(
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
        return History(versions=views, count=len(views), next=more)

    @get("/{subject:uuid}/target-state/compare", opt=read)
    async def compare(
        request: Call,
        database: Data,
        subject: FromPath[UUID],
        older: Annotated[int, QueryParameter(name="from", ge=0, le=2_000_000_000)],
        newer: Annotated[int, QueryParameter(name="to", ge=0, le=2_000_000_000)],
    ) -> Comparison:
        """What is different between two versions, secrets masked; 0 is the empty one before the first."""
        tenant, whose = tenant_of(request), Subject(kind, subject)
        async with database.transaction(tenant) as tx:
            await targets.head(tx, tenant, whose)
            old = await targets.target_of(tx, tenant, whose, older)
            new = await targets.target_of(tx, tenant, whose, newer)
        changes = [msgspec.to_builtins(one) for one in _masked(old, new)]
        return Comparison(from_version=older, to_version=newer, changes=changes)

    path, id_ = "/{subject:uuid}/target-state", f"{kind.capitalize()}Target"
    replace = put(path, opt=write, operation_id=f"Replace{id_}")(_write)
    create = post(path, opt=write, status_code=200, operation_id=f"Create{id_}")(_write)
    return [get_target, replace, create, clear, deploy, roll_back, history, compare]


agents_router: Final = Router("/agents", route_handlers=_routes("agent"), tags=["target state"])
fleets_router: Final = Router("/fleets", route_handlers=_routes("fleet"), tags=["target state"])
