"""Routes for job templates."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Router, delete, get, patch, post, put
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import UNSET, UnsetType

from iotistica.api.http import cursors
from iotistica.api.http.cursors import cut_page
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import actor_of, tenant_of
from iotistica.api.http.inputs import Cursor, Limit, Name, NamedBody, ShortName, Text
from iotistica.domain.control.jobs import validate_document
from iotistica.storage.control import job_templates as table
from iotistica.storage.control.job_templates import Template, TemplateSpec
from iotistica.storage.postgres import Database

READ = {"permission": "jobs.read"}
WRITE = {"permission": "jobs.write"}


class NewTemplate(NamedBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Name
    description: Text | None = None
    category: ShortName | None = None
    extends: UUID | None = None
    """Another template; this template's document is merged into its document (RFC 7396)."""
    job_document: dict[str, Any]
    is_active: bool = True


class TemplateChange(NamedBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Absent fields stay unchanged."""

    name: Name | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET
    category: ShortName | UnsetType | None = UNSET
    extends: UUID | UnsetType | None = UNSET
    job_document: dict[str, Any] | UnsetType = UNSET
    is_active: bool | UnsetType = UNSET


class Templates(msgspec.Struct, frozen=True, kw_only=True):
    templates: list[Template]
    count: int
    total: int
    next: str | None


@get("/", opt=READ)
async def list_templates(
    request: ApiRequest,
    database: DatabaseDep,
    category: Annotated[str | None, QueryParameter(max_length=100)] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Templates:
    """List the job templates of the tenant, ordered by id."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        rows = await table.page(tx, tenant, after=cursors.parse_uuid(cursor), category=category, limit=limit + 1)
    page, more = cut_page(rows, limit, lambda template: str(template.template_id))
    return Templates(templates=page, count=len(page), total=rows.total, next=more)


@post("/", opt=WRITE, status_code=201)
async def add_template(request: ApiRequest, data: JSONBody[NewTemplate], database: DatabaseDep) -> Template:
    """Create a job template."""
    return await _put(request, database, data, None)


@get("/{template:uuid}", opt=READ)
async def get_template(request: ApiRequest, database: DatabaseDep, template: FromPath[UUID]) -> Template:
    """Return one job template."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        return await table.get(tx, tenant, template)


@put("/{template:uuid}", opt=WRITE)
async def put_template(
    request: ApiRequest, data: JSONBody[NewTemplate], database: DatabaseDep, template: FromPath[UUID]
) -> Template:
    """Replace a job template; jobs that were started from it keep their documents."""
    return await _put(request, database, data, template)


@patch("/{template:uuid}", opt=WRITE)
async def patch_template(
    request: ApiRequest, data: JSONBody[TemplateChange], database: DatabaseDep, template: FromPath[UUID]
) -> Template:
    """Change a job template; absent fields stay unchanged, and a new document replaces the old one."""
    return await _put(request, database, data, template)


@delete("/{template:uuid}", opt=WRITE, status_code=204)
async def delete_template(request: ApiRequest, database: DatabaseDep, template: FromPath[UUID]) -> None:
    """Delete a job template; 409 if other templates extend it."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        await table.delete(tx, tenant, template, by=actor_of(request))


async def _put(
    request: ApiRequest, database: Database, data: NewTemplate | TemplateChange, template: UUID | None
) -> Template:
    tenant = tenant_of(request)
    changes = {name: value for name, value in msgspec.structs.asdict(data).items() if value is not UNSET}
    if "job_document" in changes:
        validate_document(changes["job_document"])
    async with database.transaction(tenant) as tx:
        old = await table.get(tx, tenant, template) if template else None
        facts: dict[str, Any] = {name: getattr(old, name, None) for name in TemplateSpec.__struct_fields__}
        return await table.put(tx, tenant, TemplateSpec(**facts | changes), old=old, by=actor_of(request))


router = Router(
    "/jobs/templates",
    route_handlers=[list_templates, add_template, get_template, put_template, patch_template, delete_template],
    tags=["jobs"],
)
