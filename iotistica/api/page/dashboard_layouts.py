"""Routes for layouts of dashboards."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar import Router, delete, get, post, put
from litestar.params import FromPath, JSONBody

from iotistica.api.http import cursors
from iotistica.api.http.cursors import TimeCursor, cut_page
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import actor_of, tenant_of
from iotistica.api.http.inputs import Limit, Name, NamedBody
from iotistica.domain.access.permissions import is_allowed
from iotistica.domain.page import dashboard_layouts as rules
from iotistica.domain.page.dashboard_layouts import LayoutContent
from iotistica.errors import Forbidden
from iotistica.storage.page import dashboard_layouts as table
from iotistica.storage.page.dashboard_layouts import Layout, LayoutSummary

READ = {"permission": "dashboards.read"}
WRITE = {"permission": "dashboards.write"}
SHARE = "dashboards.share"


class LayoutBody(NamedBody, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    name: Name
    shared: bool = False
    """Whether everyone in the tenant sees it; otherwise only the user who created it."""
    content: LayoutContent


class LayoutChange(LayoutBody, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    version: int
    """The version that was changed; 409 if it is not the newest any more."""


class _LayoutHead(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    layout_id: UUID
    name: str
    shared: bool
    is_mine: bool
    """Whether the caller created it."""
    may_change: bool
    """Whether the caller may change and delete it."""
    version: int
    author: dict[str, str | None]
    """Who changed it last."""
    updated_at: datetime


class LayoutLine(_LayoutHead, frozen=True, kw_only=True, rename="camel"):
    """A dashboard in the list, with the number of its panels."""

    panels: int


class LayoutView(_LayoutHead, frozen=True, kw_only=True, rename="camel"):
    """A dashboard with its panels."""

    created_at: datetime
    content: LayoutContent


class Layouts(msgspec.Struct, frozen=True, kw_only=True):
    layouts: list[LayoutLine]
    count: int
    total: int
    next: str | None


@get("/", opt=READ)
async def list_layouts(
    request: ApiRequest, database: DatabaseDep, limit: Limit = 100, cursor: TimeCursor = None
) -> Layouts:
    """List the caller's own dashboards and those that are shared, by name."""
    tenant, user, after = tenant_of(request), request.auth.id, cursors.parse_name_and_uuid(cursor)
    async with database.transaction(tenant) as tx:
        rows = await table.page(tx, tenant, user, after=after, limit=limit + 1)
    page, more = cut_page(rows, limit, lambda row: cursors.of_name(row.name, row.layout_id))
    lines = [LayoutLine(**_head(request, row), panels=row.panels) for row in page]
    return Layouts(layouts=lines, count=len(page), total=rows.total, next=more)


@post("/", opt=WRITE, status_code=201)
async def add_layout(request: ApiRequest, data: JSONBody[LayoutBody], database: DatabaseDep) -> LayoutView:
    """Create a dashboard; sharing it requires the permission dashboards.share."""
    tenant, is_user = tenant_of(request), request.auth.kind == "user"
    rules.check(data.content)
    if data.shared:
        _require_share(request)
    elif not is_user:
        raise Forbidden("An API key can only create dashboards that are shared: set `shared` to true.")
    async with database.transaction(tenant) as tx:
        stored = await table.add(
            *(tx, tenant),
            owner=request.auth.id if is_user else None,
            name=data.name,
            shared=data.shared,
            content=data.content,
            by=actor_of(request),
        )
    return _view(request, stored)


@get("/{layout:uuid}", opt=READ)
async def get_layout(request: ApiRequest, database: DatabaseDep, layout: FromPath[UUID]) -> LayoutView:
    """Return one dashboard."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        return _view(request, await table.get(tx, tenant, request.auth.id, layout))


@put("/{layout:uuid}", opt=WRITE)
async def put_layout(
    request: ApiRequest, data: JSONBody[LayoutChange], database: DatabaseDep, layout: FromPath[UUID]
) -> LayoutView:
    """Replace a dashboard: its owner may, and for shared ones everyone with the permission dashboards.share."""
    tenant = tenant_of(request)
    rules.check(data.content)
    async with database.transaction(tenant) as tx:
        old = await table.get(tx, tenant, request.auth.id, layout)
        if data.shared or old.is_shared:
            _require_share(request)
        if not data.shared and old.owner_id != request.auth.id:
            raise Forbidden("Only the user who created a dashboard can stop sharing it.")
        stored = await table.change(
            *(tx, tenant, old),
            version=data.version,
            name=data.name,
            shared=data.shared,
            content=data.content,
            by=actor_of(request),
        )
    return _view(request, stored)


@delete("/{layout:uuid}", opt=WRITE, status_code=204)
async def delete_layout(request: ApiRequest, database: DatabaseDep, layout: FromPath[UUID]) -> None:
    """Delete a dashboard; of shared ones, this requires the permission dashboards.share."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        old = await table.get(tx, tenant, request.auth.id, layout)
        if old.is_shared:
            _require_share(request)
        await table.delete(tx, tenant, old, by=actor_of(request))


def _may_share(request: ApiRequest) -> bool:
    return is_allowed(SHARE, request.auth.role, request.auth.scopes)


def _require_share(request: ApiRequest) -> None:
    if not _may_share(request):
        raise Forbidden(f"Sharing dashboards, and changing those that are shared, requires the permission {SHARE}.")


def _head(request: ApiRequest, row: Layout | LayoutSummary) -> dict[str, Any]:
    facts = {name: getattr(row, name) for name in ("layout_id", "name", "version", "author", "updated_at")}
    is_mine, may_change = row.owner_id == request.auth.id, not row.is_shared or _may_share(request)
    return {**facts, "shared": row.is_shared, "is_mine": is_mine, "may_change": may_change}


def _view(request: ApiRequest, row: Layout) -> LayoutView:
    return LayoutView(**_head(request, row), created_at=row.created_at, content=row.content)


router = Router(
    "/dashboard-layouts",
    route_handlers=[list_layouts, add_layout, get_layout, put_layout, delete_layout],
    tags=["dashboards"],
)
