"""Stores job templates; a template can extend another one."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

import msgspec
import psycopg

from iotistica.domain.control import jobs as rules
from iotistica.domain.ids import TenantId
from iotistica.errors import Conflict, Invalid, NotFound
from iotistica.storage.history import audit
from iotistica.storage.history.audit import Actor
from iotistica.storage.jsonb import jsonb
from iotistica.storage.postgres import Page, Tx, fetch_page, fetch_row


class Template(msgspec.Struct, frozen=True, kw_only=True):
    template_id: UUID
    name: str
    description: str | None
    category: str | None
    extends: UUID | None
    """The template that this template's document is merged into."""
    job_document: dict[str, Any]
    is_active: bool
    author: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class TemplateSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a new or changed template."""

    name: str
    description: str | None
    category: str | None
    extends: UUID | None
    job_document: dict[str, Any]
    is_active: bool


_COLUMNS: Final = """template_id, name, description, category, extends, job_document, is_active, author, created_at,
updated_at"""
LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('job_templates ' || %(tenant)s, 0))"
PUT: Final = f"""
INSERT INTO job_templates AS t (template_id, tenant_id, name, description, category, extends, job_document,
                                is_active, author)
VALUES (%(id)s, %(tenant)s, %(name)s, %(description)s, %(category)s, %(extends)s, %(job_document)s::jsonb,
        %(is_active)s, %(author)s::jsonb)
ON CONFLICT (template_id) DO UPDATE
SET name = excluded.name, description = excluded.description, category = excluded.category,
    extends = excluded.extends, job_document = excluded.job_document, is_active = excluded.is_active,
    updated_at = now()
WHERE t.tenant_id = %(tenant)s
RETURNING {_COLUMNS}
"""


async def put(tx: Tx, tenant: TenantId, wanted: TemplateSpec, *, old: Template | None, by: Actor) -> Template:
    """Create a template, or replace `old`; raises `Conflict`, and `Invalid` if it extends itself."""
    await tx.execute(LOCK, {"tenant": tenant})  # no concurrent writes can make two templates extend each other
    id_ = old.template_id if old else uuid4()
    if wanted.extends is not None:
        await resolve(tx, tenant, wanted.extends, path="extends", above=(id_, wanted.name))
    author = jsonb(by.author)
    parameters = {"id": id_, "tenant": tenant, "author": author} | msgspec.structs.asdict(wanted)
    parameters["job_document"] = jsonb(wanted.job_document)
    try:
        stored = await fetch_row(tx, Template, PUT, parameters)
    except psycopg.errors.UniqueViolation:
        raise Conflict(f"A template {wanted.name!r} exists already. Choose another name.") from None
    assert stored is not None  # noqa: S101 the id is new, or the row was read before
    action = "job_template.changed" if old else "job_template.added"
    before = {"name": old.name, "active": old.is_active} if old else None
    after = {"name": stored.name, "active": stored.is_active}
    await audit.record(tx, tenant, by, action, ("job_template", id_), before=before, after=after)
    return stored


GET: Final = f"SELECT {_COLUMNS} FROM job_templates WHERE tenant_id = %(tenant)s AND template_id = %(id)s"


async def get(tx: Tx, tenant: TenantId, template: UUID) -> Template:
    """Return one template; raises `NotFound`."""
    row = await fetch_row(tx, Template, GET, {"tenant": tenant, "id": template})
    if row is None:
        raise NotFound
    return row


PAGE: Final = f"""
SELECT {_COLUMNS} FROM job_templates
WHERE tenant_id = %(tenant)s AND (%(after)s::uuid IS NULL OR template_id > %(after)s)
  AND (%(category)s::text IS NULL OR category = %(category)s)
ORDER BY template_id LIMIT %(limit)s
"""


async def page(tx: Tx, tenant: TenantId, *, after: UUID | None, category: str | None, limit: int) -> Page[Template]:
    """Return a page of a tenant's templates, ordered by id."""
    parameters = {"tenant": tenant, "after": after, "category": category, "limit": limit}
    return await fetch_page(tx, Template, PAGE, parameters, cursor=("after",))


async def resolve(
    tx: Tx, tenant: TenantId, template: UUID, *, path: str, above: tuple[UUID, str] | None = None
) -> dict[str, Any]:
    """Return a template's document merged into the documents that it extends; raises `Invalid` for a bad chain.

    `above` is the id and name of a template that will extend it; inactive templates are then allowed.
    """
    seen, names = ({above[0]}, [above[1]]) if above else (set[UUID](), list[str]())
    documents: list[dict[str, Any]] = []
    next_: UUID | None = template
    while next_ is not None:
        row = await fetch_row(tx, Template, GET, {"tenant": tenant, "id": next_})
        if row is None:
            raise Invalid("must be the id of an existing template", path)
        names.append(row.name)
        if next_ in seen:
            raise Invalid(f"must not extend templates in a circle: {' → '.join(names)}", path)
        if len(names) > rules.TEMPLATE_CHAIN_LIMIT:
            raise Invalid(
                f"must have at most {rules.TEMPLATE_CHAIN_LIMIT} templates in a chain: {' → '.join(names)}", path
            )
        if not row.is_active and not above:
            raise Invalid(f"must not use the template {row.name!r}, which is not active", path)
        seen.add(next_)
        documents.append(row.job_document)
        next_ = row.extends
    merged: dict[str, Any] = {}
    for document in reversed(documents):
        merged = rules.merge_patch(merged, document)
    return merged


DELETE: Final = "DELETE FROM job_templates WHERE tenant_id = %(tenant)s AND template_id = %(id)s"


async def delete(tx: Tx, tenant: TenantId, template: UUID, *, by: Actor) -> None:
    """Delete a template; jobs keep their documents. Raises `NotFound`, and `Conflict` if others extend it."""
    old = await get(tx, tenant, template)
    try:
        await tx.execute(DELETE, {"tenant": tenant, "id": template})
    except psycopg.errors.ForeignKeyViolation:
        raise Conflict("Other templates extend this template. Change or delete them first.") from None
    await audit.record(
        tx, tenant, by, "job_template.deleted", ("job_template", template), before={"name": old.name}
    )
