"""Templates of jobs; one may be written upon another."""

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
from iotistica.storage.postgres import Tx, fetch_row, fetch_rows


class Template(msgspec.Struct, frozen=True, kw_only=True):
    template_id: UUID
    name: str
    description: str | None
    category: str | None
    extends: UUID | None
    """The template whose document this one is written upon."""
    job_document: dict[str, Any]
    is_active: bool
    author: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class TemplateSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a template is to be."""

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
    """Make a template, or write an `old` one anew; raises `Conflict`, and `Invalid` if it extends itself."""
    await tx.execute(LOCK, {"tenant": tenant})  # two that extend each other are not written at once
    id_ = old.template_id if old else uuid4()
    if wanted.extends is not None:
        await resolve(tx, tenant, wanted.extends, path="extends", above=(id_, wanted.name))
    author = msgspec.json.encode({"kind": by.kind, "id": by.id, "name": by.name}).decode()
    parameters = {"id": id_, "tenant": tenant, "author": author} | msgspec.structs.asdict(wanted)
    parameters["job_document"] = msgspec.json.encode(wanted.job_document).decode()
    try:
        made = await fetch_row(tx, Template, PUT, parameters)
    except psycopg.errors.UniqueViolation:
        raise Conflict(f"there is a template {wanted.name!r} already") from None
    assert made is not None  # noqa: S101 the id is new, or the row was read
    action = "job_template.changed" if old else "job_template.added"
    before = {"name": old.name, "active": old.is_active} if old else None
    after = {"name": made.name, "active": made.is_active}
    await audit.record(tx, tenant, by, action, ("job_template", id_), before=before, after=after)
    return made


GET: Final = f"SELECT {_COLUMNS} FROM job_templates WHERE tenant_id = %(tenant)s AND template_id = %(id)s"


async def get(tx: Tx, tenant: TenantId, template: UUID) -> Template:
    """One template; raises `NotFound`."""
    found = await fetch_row(tx, Template, GET, {"tenant": tenant, "id": template})
    if found is None:
        raise NotFound
    return found


PAGE: Final = f"""
SELECT {_COLUMNS} FROM job_templates
WHERE tenant_id = %(tenant)s AND (%(after)s::uuid IS NULL OR template_id > %(after)s)
  AND (%(category)s::text IS NULL OR category = %(category)s)
ORDER BY template_id LIMIT %(limit)s
"""


async def page(tx: Tx, tenant: TenantId, *, after: UUID | None, category: str | None, limit: int) -> list[Template]:
    """A tenant's templates in order of their ids."""
    parameters = {"tenant": tenant, "after": after, "category": category, "limit": limit}
    return await fetch_rows(tx, Template, PAGE, parameters)


async def resolve(
    tx: Tx, tenant: TenantId, template: UUID, *, path: str, above: tuple[UUID, str] | None = None
) -> dict[str, Any]:
    """The document of a template with those it extends below it; raises `Invalid` naming the chain.

    `above` is one that is to extend it.
    """
    seen, names = ({above[0]}, [above[1]]) if above else (set[UUID](), list[str]())
    documents: list[dict[str, Any]] = []
    next_: UUID | None = template
    while next_ is not None:
        found = await fetch_row(tx, Template, GET, {"tenant": tenant, "id": next_})
        if found is None:
            raise Invalid("there is no such template", path)
        names.append(found.name)
        if next_ in seen:
            raise Invalid(f"templates extend each other in a circle: {' → '.join(names)}", path)
        if len(names) > rules.TEMPLATE_CHAIN_LIMIT:
            raise Invalid(
                f"more than {rules.TEMPLATE_CHAIN_LIMIT} templates upon each other: {' → '.join(names)}", path
            )
        if not found.is_active and not above:
            raise Invalid(f"the template {found.name!r} is not active", path)
        seen.add(next_)
        documents.append(found.job_document)
        next_ = found.extends
    made: dict[str, Any] = {}
    for document in reversed(documents):
        made = rules.merge_patch(made, document)
    return made


DELETE: Final = "DELETE FROM job_templates WHERE tenant_id = %(tenant)s AND template_id = %(id)s"


async def delete(tx: Tx, tenant: TenantId, template: UUID, *, by: Actor) -> None:
    """Delete a template; jobs keep their documents. Raises `NotFound`, and `Conflict` if others extend it."""
    old = await get(tx, tenant, template)
    try:
        await tx.execute(DELETE, {"tenant": tenant, "id": template})
    except psycopg.errors.ForeignKeyViolation:
        raise Conflict("other templates extend this one") from None
    await audit.record(
        tx, tenant, by, "job_template.deleted", ("job_template", template), before={"name": old.name}
    )
