"""Routes for the tags of one agent and of many at once, and for the definitions of tag keys."""

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
    """Agents, by their UUIDs or by a selector, and the tags to set and to remove."""

    agent_uuids: Annotated[list[UUID], Meta(max_length=AGENTS_LIMIT)] = []
    device_uuids: Annotated[list[UUID], Meta(max_length=AGENTS_LIMIT)] = []
    """The older name of `agentUuids`."""
    selector: str | None = None
    tag_selectors: dict[str, str | list[str]] = {}
    tags: dict[str, Any] = {}
    remove: Annotated[list[str], Meta(max_length=rules.TAGS_LIMIT)] = []


class TagDefinitionBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    description: Text | None = None
    values: Annotated[list[Annotated[str, Meta(max_length=rules.VALUE_LENGTH)]], Meta(max_length=1000)] = []
    """The values that the key can have; empty: any value."""


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
    """Keys or values in use with the number of agents that have each; the first 1000."""

    values: dict[str, int]


@get("/agents/{agent:uuid}/tags", opt=READ)
async def get_tags(request: ApiRequest, database: DatabaseDep, agent: FromPath[UUID]) -> TagsView:
    """Return the tags of an agent."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        if await agents.get(tx, tenant, agent) is None:
            raise NotFound
        return TagsView(agent_uuid=agent, tags=await tags.get(tx, tenant, agent))


@put("/agents/{agent:uuid}/tags", opt=WRITE)
async def put_tags(
    request: ApiRequest, data: JSONBody[Tags], database: DatabaseDep, agent: FromPath[UUID]
) -> TagsView:
    """Replace all tags of an agent."""
    return await _tag(request, database, agent, data.tags, whole=True)


@post("/agents/{agent:uuid}/tags", opt=WRITE, status_code=200)
async def post_tag(
    request: ApiRequest, data: JSONBody[Tag], database: DatabaseDep, agent: FromPath[UUID]
) -> TagsView:
    """Set one tag of an agent; a previous value of its key is replaced."""
    return await _tag(request, database, agent, {data.key: data.value})


@delete("/agents/{agent:uuid}/tags/{key:str}", opt=WRITE, status_code=200)
async def delete_tag(
    request: ApiRequest, database: DatabaseDep, agent: FromPath[UUID], key: FromPath[str]
) -> TagsView:
    """Remove a tag from an agent."""
    return await _tag(request, database, agent, {}, removed=[key])


@post("/agents/tags/bulk", opt=WRITE, status_code=200)
async def tag_many(request: ApiRequest, data: JSONBody[BulkTags], database: DatabaseDep) -> BulkResults:
    """Set and remove tags of many agents in one transaction.

    Choose the agents by `agentUuids` or by `selector`. The answer has a result for each agent; unknown agents are
    `not_found`.
    """
    tenant, wanted = tenant_of(request), rules.checked_tags(data.tags)
    listed, selector = data.agent_uuids or data.device_uuids, selector_of(data.selector, data.tag_selectors)
    if bool(listed) == bool(selector):
        raise Invalid("must be given if there is no selector, and only then", "agentUuids")
    if not wanted and not data.remove:
        raise Invalid("must not be empty if remove is empty", "tags")
    async with database.transaction(tenant) as tx:
        await _check_values(tx, tenant, wanted)
        agent_uuids = listed or await agent_search.ids(
            tx, tenant, AgentFilter(selector=selector), most=AGENTS_LIMIT + 1
        )
        if len(agent_uuids) > AGENTS_LIMIT:
            raise Invalid(f"must match at most {AGENTS_LIMIT} agents", "selector")
        changed = await tags.change(tx, tenant, agent_uuids, wanted, removed=data.remove, by=actor_of(request))
    return results(agent_uuids, changed)


@get("/tags/keys", opt=READ)
async def list_keys(request: ApiRequest, database: DatabaseDep) -> TagsInUse:
    """List the tag keys in use, with the number of agents that have each."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        return TagsInUse(values=await tags.keys(tx, tenant))


@get("/tags/values/{key:str}", opt=READ)
async def list_values(request: ApiRequest, database: DatabaseDep, key: FromPath[str]) -> TagsInUse:
    """List the values of a tag key, with the number of agents that have each; 404 if no agent has it."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        counts = await tags.values(tx, tenant, key)
    if not counts:
        raise NotFound
    return TagsInUse(values=counts)


@get("/tags/definitions", opt=READ)
async def list_definitions(request: ApiRequest, database: DatabaseDep) -> TagDefinitions:
    """List the definitions of tag keys: what each means, and its allowed values."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        rows = await tags.definitions(tx, tenant)
    return TagDefinitions(definitions=[_view(row) for row in rows], count=len(rows))


@post("/tags/definitions", opt=WRITE, status_code=201)
async def add_definition(
    request: ApiRequest, data: JSONBody[NewTagDefinition], database: DatabaseDep
) -> TagDefinitionView:
    """Define a tag key.

    Answers 409 if the key is already defined, or if an agent has a value for it that is not among `values`.
    """
    return await _define(request, database, data.key, data, replace=False)


@put("/tags/definitions/{key:str}", opt=WRITE)
async def put_definition(
    request: ApiRequest, data: JSONBody[TagDefinitionBody], database: DatabaseDep, key: FromPath[str]
) -> TagDefinitionView:
    """Replace the definition of a tag key.

    Answers 409 if an agent has a value for the key that is not among `values`.
    """
    return await _define(request, database, key, data, replace=True)


@delete("/tags/definitions/{key:str}", opt=WRITE, status_code=204)
async def delete_definition(request: ApiRequest, database: DatabaseDep, key: FromPath[str]) -> None:
    """Delete the definition of a tag key; the tags of agents stay as they are."""
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
        allowed = {row.key: row.values for row in await tags.definitions(tx, tenant, list(wanted))}
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


def _view(definition: tags.TagDefinition) -> TagDefinitionView:
    return TagDefinitionView(**msgspec.structs.asdict(definition))


router = Router(
    "/",
    route_handlers=[
        *(get_tags, put_tags, post_tag, delete_tag, tag_many, list_keys, list_values),
        *(list_definitions, add_definition, put_definition, delete_definition),
    ],
    tags=["tags"],
)
