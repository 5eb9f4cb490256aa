"""Tags of agents, one by one and of many at once, and what their keys mean."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Router, delete, get, post, put
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from iotistica.api.agents.agent_search import selector_of
from iotistica.api.http.bulk import AGENTS_LIMIT, BulkResults, results
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import actor_of, tenant_of
from iotistica.api.http.inputs import Text
from iotistica.domain.agents import tag_selectors as rules
from iotistica.domain.ids import TenantId
from iotistica.errors import Invalid, NotFound
from iotistica.storage.agents import agent_search, agents, tags
from iotistica.storage.agents.agent_search import AgentFilter
from iotistica.storage.postgres import Database, Tx

READ, WRITE = {"permission": "agents.read"}, {"permission": "agents.write"}


class Tag(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    key: str
    value: Any


class Tags(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    tags: dict[str, Any]


class TagsView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    agent_uuid: UUID
    tags: dict[str, str]


class BulkTags(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Agents by their uuids, or all that a selector means."""

    agent_uuids: Annotated[list[UUID], Meta(max_length=AGENTS_LIMIT)] = []
    device_uuids: Annotated[list[UUID], Meta(max_length=AGENTS_LIMIT)] = []
    """The same by its older name."""
    selector: str | None = None
    tag_selectors: dict[str, str | list[str]] = {}
    tags: dict[str, Any] = {}
    remove: Annotated[list[str], Meta(max_length=rules.TAGS_LIMIT)] = []


class TagDefinitionBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    description: Text | None = None
    values: Annotated[list[Annotated[str, Meta(max_length=rules.VALUE_LENGTH)]], Meta(max_length=1000)] = []
    """The only values that the key takes; none: any."""


class NewTagDefinition(TagDefinitionBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    key: str


class TagDefinitionView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    key: str
    description: str | None
    values: list[str]
    created_at: datetime


class TagDefinitions(msgspec.Struct, frozen=True, kw_only=True):
    definitions: list[TagDefinitionView]
    count: int


class TagsInUse(msgspec.Struct, frozen=True, kw_only=True):
    """Keys or values that agents have, with how many have each; the first thousand."""

    values: dict[str, int]


@get("/agents/{agent:uuid}/tags", opt=READ)
async def get_tags(request: ApiRequest, database: DatabaseDep, agent: FromPath[UUID]) -> TagsView:
    """The tags of an agent."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        if await agents.get(tx, tenant, agent) is None:
            raise NotFound
        return TagsView(agent_uuid=agent, tags=await tags.get(tx, tenant, agent))


@put("/agents/{agent:uuid}/tags", opt=WRITE)
async def put_tags(
    request: ApiRequest, data: JSONBody[Tags], database: DatabaseDep, agent: FromPath[UUID]
) -> TagsView:
    """Give an agent these tags, and no others."""
    return await _tag(request, database, agent, data.tags, whole=True)


@post("/agents/{agent:uuid}/tags", opt=WRITE, status_code=200)
async def post_tag(
    request: ApiRequest, data: JSONBody[Tag], database: DatabaseDep, agent: FromPath[UUID]
) -> TagsView:
    """Give an agent one more tag, or another value for it."""
    return await _tag(request, database, agent, {data.key: data.value})


@delete("/agents/{agent:uuid}/tags/{key:str}", opt=WRITE, status_code=200)
async def delete_tag(
    request: ApiRequest, database: DatabaseDep, agent: FromPath[UUID], key: FromPath[str]
) -> TagsView:
    """Take a tag from an agent."""
    return await _tag(request, database, agent, {}, removed=[key])


@post("/agents/tags/bulk", opt=WRITE, status_code=200)
async def tag_many(request: ApiRequest, data: JSONBody[BulkTags], database: DatabaseDep) -> BulkResults:
    """Give tags to many agents, or take them, in one transaction; each one's result is answered."""
    tenant, wanted = tenant_of(request), rules.checked_tags(data.tags)
    named, chosen = data.agent_uuids or data.device_uuids, selector_of(data.selector, data.tag_selectors)
    if bool(named) == bool(chosen):
        raise Invalid("name agents by agentUuids, or choose them by selector", "agentUuids")
    if not wanted and not data.remove:
        raise Invalid("tags to give, or keys to remove", "tags")
    async with database.transaction(tenant) as tx:
        await _check_values(tx, tenant, wanted)
        asked = named or await agent_search.ids(tx, tenant, AgentFilter(selector=chosen), most=AGENTS_LIMIT + 1)
        if len(asked) > AGENTS_LIMIT:
            raise Invalid(f"more than {AGENTS_LIMIT} agents: choose fewer at a time", "selector")
        done = await tags.change(tx, tenant, asked, wanted, removed=data.remove, by=actor_of(request))
    return results(asked, done)


@get("/tags/keys", opt=READ)
async def list_keys(request: ApiRequest, database: DatabaseDep) -> TagsInUse:
    """The keys that agents have."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        return TagsInUse(values=await tags.keys(tx, tenant))


@get("/tags/values/{key:str}", opt=READ)
async def list_values(request: ApiRequest, database: DatabaseDep, key: FromPath[str]) -> TagsInUse:
    """The values of a key that agents have; 404 if none has it."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        found = await tags.values(tx, tenant, key)
    if not found:
        raise NotFound
    return TagsInUse(values=found)


@get("/tags/definitions", opt=READ)
async def list_definitions(request: ApiRequest, database: DatabaseDep) -> TagDefinitions:
    """What the keys mean, and the values that some of them are confined to."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        found = await tags.definitions(tx, tenant)
    return TagDefinitions(definitions=[_view(one) for one in found], count=len(found))


@post("/tags/definitions", opt=WRITE, status_code=201)
async def add_definition(
    request: ApiRequest, data: JSONBody[NewTagDefinition], database: DatabaseDep
) -> TagDefinitionView:
    """Define a key; 409 if it is defined, or an agent has a value that is none of these."""
    return await _define(request, database, data.key, data, replace=False)


@put("/tags/definitions/{key:str}", opt=WRITE)
async def put_definition(
    request: ApiRequest, data: JSONBody[TagDefinitionBody], database: DatabaseDep, key: FromPath[str]
) -> TagDefinitionView:
    """Change what a key means, or the values it takes."""
    return await _define(request, database, key, data, replace=True)


@delete("/tags/definitions/{key:str}", opt=WRITE, status_code=204)
async def delete_definition(request: ApiRequest, database: DatabaseDep, key: FromPath[str]) -> None:
    """Remove a definition; tags stay as they are."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        await tags.undefine(tx, tenant, key, by=actor_of(request))


async def _tag(
    request: ApiRequest,
    database: Database,
    agent: UUID,
    wanted: dict[str, Any],
    *,
    removed: list[str] | None = None,
    whole: bool = False,
) -> TagsView:
    tenant, checked = tenant_of(request), rules.checked_tags(wanted)
    async with database.transaction(tenant) as tx:
        await _check_values(tx, tenant, checked)
        by = actor_of(request)
        if not await tags.change(tx, tenant, [agent], checked, removed=removed or [], whole=whole, by=by):
            raise NotFound
        return TagsView(agent_uuid=agent, tags=await tags.get(tx, tenant, agent))


async def _check_values(tx: Tx, tenant: TenantId, wanted: dict[str, str]) -> None:
    if wanted:
        allowed = {one.key: one.values for one in await tags.definitions(tx, tenant, list(wanted))}
        rules.check_values(wanted.items(), allowed)


async def _define(
    request: ApiRequest, database: Database, key: str, data: TagDefinitionBody, *, replace: bool
) -> TagDefinitionView:
    tenant, by = tenant_of(request), actor_of(request)
    rules.check_key(key)
    async with database.transaction(tenant) as tx:
        return _view(
            await tags.define(
                *(tx, tenant, key), description=data.description, values=data.values, replace=replace, by=by
            )
        )


def _view(one: tags.TagDefinition) -> TagDefinitionView:
    return TagDefinitionView(**msgspec.structs.asdict(one))


router = Router(
    "/",
    route_handlers=[
        *(get_tags, put_tags, post_tag, delete_tag, tag_many, list_keys, list_values),
        *(list_definitions, add_definition, put_definition, delete_definition),
    ],
    tags=["tags"],
)
