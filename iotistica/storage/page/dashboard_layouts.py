"""Stores layouts of dashboards; whoever owns a layout sees it, and everyone in the tenant if it is shared."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.domain.page.dashboard_layouts import LayoutContent
from iotistica.errors import Conflict, NotFound
from iotistica.storage.history import audit
from iotistica.storage.history.audit import Actor
from iotistica.storage.jsonb import jsonb
from iotistica.storage.postgres import Page, Tx, fetch_page, fetch_row

OWN_LIMIT: Final = 100  # layouts of one user that are not shared
SHARED_LIMIT: Final = 1000  # layouts of a tenant that are shared


class LayoutSummary(msgspec.Struct, frozen=True, kw_only=True):
    layout_id: UUID
    name: str
    owner_id: UUID | None
    is_shared: bool
    version: int
    author: dict[str, Any]
    updated_at: datetime
    panels: int


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    layout_id: UUID
    name: str
    owner_id: UUID | None
    is_shared: bool
    content: LayoutContent
    version: int
    author: dict[str, Any]
    created_at: datetime
    updated_at: datetime


_COLUMNS: Final = "layout_id, name, owner_id, is_shared, content, version, author, created_at, updated_at"
_VISIBLE: Final = "tenant_id = %(tenant)s AND (is_shared OR owner_id = %(user)s)"
PAGE: Final = f"""
SELECT layout_id, name, owner_id, is_shared, version, author, updated_at,
       jsonb_array_length(content -> 'panels') AS panels
FROM dashboard_layouts
WHERE {_VISIBLE} AND (%(after)s::text IS NULL OR (name, layout_id) > (%(after)s, %(id)s))
ORDER BY name, layout_id LIMIT %(limit)s
"""


async def page(
    tx: Tx, tenant: TenantId, user: UUID, *, after: tuple[str, UUID] | None, limit: int
) -> Page[LayoutSummary]:
    """Return a page of the layouts that a user sees, by name."""
    name, id_ = after or (None, None)
    parameters = {"tenant": tenant, "user": user, "after": name, "id": id_, "limit": limit}
    return await fetch_page(tx, LayoutSummary, PAGE, parameters, cursor=("after", "id"))


GET: Final = f"SELECT {_COLUMNS} FROM dashboard_layouts WHERE {_VISIBLE} AND layout_id = %(id)s"


async def get(tx: Tx, tenant: TenantId, user: UUID, layout: UUID) -> Layout:
    """Return a layout that a user sees; raises `NotFound`."""
    row = await fetch_row(tx, Layout, GET, {"tenant": tenant, "user": user, "id": layout})
    if row is None:
        raise NotFound
    return row


LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('dashboard_layouts ' || %(tenant)s, 0))"
COUNT: Final = """
SELECT count(*) FROM dashboard_layouts
WHERE tenant_id = %(tenant)s AND is_shared = %(shared)s AND (is_shared OR owner_id = %(owner)s)
"""
ADD: Final = f"""
INSERT INTO dashboard_layouts (layout_id, tenant_id, name, owner_id, is_shared, content, author)
VALUES (%(id)s, %(tenant)s, %(name)s, %(owner)s, %(shared)s, %(content)s::jsonb, %(author)s::jsonb)
RETURNING {_COLUMNS}
"""


async def add(
    tx: Tx,
    tenant: TenantId,
    *,
    owner: UUID | None,
    name: str,
    shared: bool,
    content: LayoutContent,
    by: Actor,
) -> Layout:
    """Add a layout; one without an owner must be shared. Raises `Conflict` if there are too many."""
    await _check_room(tx, tenant, owner=owner, shared=shared)
    parameters = {"id": uuid4(), "tenant": tenant, "name": name, "owner": owner, "shared": shared}
    parameters |= {"content": jsonb(content), "author": jsonb(by.author)}
    stored = await fetch_row(tx, Layout, ADD, parameters)
    assert stored is not None  # noqa: S101 the id is new
    await audit.record(
        tx, tenant, by, "dashboard.added", ("dashboard", stored.layout_id), after={"name": name, "shared": shared}
    )
    return stored


async def _check_room(tx: Tx, tenant: TenantId, *, owner: UUID | None, shared: bool) -> None:
    await tx.execute(LOCK, {"tenant": tenant})
    row = await (await tx.execute(COUNT, {"tenant": tenant, "owner": owner, "shared": shared})).fetchone()
    limit, whose = (SHARED_LIMIT, "shared dashboards") if shared else (OWN_LIMIT, "dashboards of your own")
    if row is not None and row[0] >= limit:
        raise Conflict(f"There are {limit} {whose}, as many as there can be. Delete some first.")


CHANGE: Final = f"""
UPDATE dashboard_layouts
SET name = %(name)s, is_shared = %(shared)s, content = %(content)s::jsonb, author = %(author)s::jsonb,
    version = version + 1, updated_at = now()
WHERE tenant_id = %(tenant)s AND layout_id = %(id)s AND version = %(version)s
RETURNING {_COLUMNS}
"""


async def change(
    tx: Tx,
    tenant: TenantId,
    old: Layout,
    *,
    version: int,
    name: str,
    shared: bool,
    content: LayoutContent,
    by: Actor,
) -> Layout:
    """Replace a layout whose version is still `version`.

    Raises `Conflict` if somebody has changed it since, or if there are too many of the kind that it becomes.
    """
    if shared != old.is_shared:
        await _check_room(tx, tenant, owner=old.owner_id, shared=shared)
    parameters = {"tenant": tenant, "id": old.layout_id, "version": version, "name": name, "shared": shared}
    parameters |= {"content": jsonb(content), "author": jsonb(by.author)}
    stored = await fetch_row(tx, Layout, CHANGE, parameters)
    if stored is None:
        raise Conflict("The dashboard was changed or deleted meanwhile. Read it again, then make your changes.")
    await audit.record(
        *(tx, tenant, by, "dashboard.changed", ("dashboard", old.layout_id)),
        before={"name": old.name, "shared": old.is_shared},
        after={"name": name, "shared": shared},
    )
    return stored


DELETE: Final = "DELETE FROM dashboard_layouts WHERE tenant_id = %(tenant)s AND layout_id = %(id)s"


async def delete(tx: Tx, tenant: TenantId, layout: Layout, *, by: Actor) -> None:
    """Delete a layout."""
    await tx.execute(DELETE, {"tenant": tenant, "id": layout.layout_id})
    await audit.record(
        *(tx, tenant, by, "dashboard.deleted", ("dashboard", layout.layout_id)),
        before={"name": layout.name, "shared": layout.is_shared},
    )
