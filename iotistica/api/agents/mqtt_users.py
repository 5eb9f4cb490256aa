"""Routes for a tenant's own MQTT users, and for the state of its broker accounts."""

import secrets
from datetime import datetime
from typing import Annotated

import msgspec
from litestar import Router, delete, get, patch, post, put
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from iotistica.api.http.dependencies import (
    ApiRequest,
    BrokerSyncDep,
    DatabaseDep,
    PlatformDatabaseDep,
    ServerContext,
    ServerContextDep,
)
from iotistica.api.http.guard import actor_of, tenant_of
from iotistica.domain.access import credentials
from iotistica.domain.agents import topic_filters
from iotistica.domain.ids import TenantId, base64url, encode_tenant
from iotistica.errors import Invalid, NotFound
from iotistica.storage.agents import broker_accounts
from iotistica.storage.agents.broker_accounts import MqttUser, TopicRule
from iotistica.storage.postgres import Tx

MOST_RULES = 20
EVERYTHING = (TopicRule(topic="#", access="read"),)
"""The default rules of a user: it can read all topics of its tenant."""

UserName = Annotated[str, Meta(pattern=rf"^{topic_filters.NAME.pattern}(?![\s\S])")]
Rules = Annotated[list[TopicRule], Meta(min_length=1, max_length=MOST_RULES)]


class NewMqttUser(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`rules` are topic filters below `i/{tenant}/`; without them the user can read all topics and write none."""

    name: UserName
    rules: Rules | None = None


class MqttUserChange(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Absent fields stay unchanged."""

    rules: Rules | None = None
    enabled: bool | None = None
    new_password: bool = False


class MqttUserView(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    name: str
    username: str
    rules: list[TopicRule]
    root: str
    """The prefix of all topics in the rules."""
    enabled: bool
    created_at: datetime
    broker: str | None = None
    password: str | None = None
    """Returned only by the call that generated it."""


class MqttUsers(msgspec.Struct, frozen=True, kw_only=True):
    users: list[MqttUserView]


class BrokerStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Numbers of accounts that may connect or are locked, and when the broker last received changed ones."""

    broker: str
    agents: int
    users: int
    locked: int
    rendered_at: datetime | None
    rendered_seconds: float | None


@get("/mqtt-users", opt={"permission": "mqtt.manage"})
async def list_users(request: ApiRequest, database: DatabaseDep, context: ServerContextDep) -> MqttUsers:
    """List the tenant's own MQTT users."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        found = await broker_accounts.users(tx, tenant)
    return MqttUsers(users=[_view(user, tenant, context) for user in found])


@post("/mqtt-users", opt={"permission": "mqtt.manage"}, status_code=201)
async def add_user(
    request: ApiRequest,
    data: JSONBody[NewMqttUser],
    database: DatabaseDep,
    broker_sync: BrokerSyncDep,
    context: ServerContextDep,
) -> MqttUserView:
    """Create an MQTT user, and return its generated password, which cannot be retrieved later.

    The user can have one connection at a time.
    """
    tenant, password = tenant_of(request), base64url(secrets.token_bytes(credentials.ENTROPY))
    rules = _checked(list(data.rules or EVERYTHING), tenant)
    async with database.transaction(tenant) as tx:
        user = await broker_accounts.add_user(tx, tenant, data.name, password, rules, by=actor_of(request))
        since = await broker_accounts.database_now(tx)
    await broker_sync.wait_until_current(since)
    return _view(user, tenant, context, password)


@get("/mqtt-users/{name:str}", opt={"permission": "mqtt.manage"})
async def get_user(
    request: ApiRequest, database: DatabaseDep, context: ServerContextDep, name: FromPath[str]
) -> MqttUserView:
    """Return one MQTT user."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        return _view(await _get(tx, tenant, name), tenant, context)


async def change_user(
    request: ApiRequest,
    data: JSONBody[MqttUserChange],
    database: DatabaseDep,
    context: ServerContextDep,
    name: FromPath[str],
) -> MqttUserView:
    """Change the rules of an MQTT user, whether it may connect, or its password; absent fields stay unchanged.

    A live connection ends if the change requires it.
    """
    tenant = tenant_of(request)
    rules = None if data.rules is None else _checked(data.rules, tenant)
    password = base64url(secrets.token_bytes(credentials.ENTROPY)) if data.new_password else None
    async with database.transaction(tenant) as tx:
        stored = await _get(tx, tenant, name)
        changed = await broker_accounts.update_user(
            *(tx, tenant, stored, stored.rules if rules is None else rules),
            enabled=stored.enabled if data.enabled is None else data.enabled,
            password=password,
            by=actor_of(request),
        )
    return _view(changed, tenant, context, password)


@delete("/mqtt-users/{name:str}", opt={"permission": "mqtt.manage"}, status_code=204)
async def delete_user(request: ApiRequest, database: DatabaseDep, name: FromPath[str]) -> None:
    """Delete an MQTT user; its connection ends."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        await broker_accounts.delete_user(tx, tenant, await _get(tx, tenant, name), by=actor_of(request))


@get("/mqtt/status", opt={"permission": "mqtt.read"})
async def status(
    request: ApiRequest, database: DatabaseDep, platform_database: PlatformDatabaseDep, context: ServerContextDep
) -> BrokerStatus:
    """Return the number of the tenant's broker accounts, and when the broker last received changed accounts."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        totals = await broker_accounts.totals(tx, tenant)
    async with platform_database.transaction() as tx:
        render = await broker_accounts.last_render(tx)
    return BrokerStatus(
        broker=_url(context),
        agents=totals.agents,
        users=totals.users,
        locked=totals.locked,
        rendered_at=render.at if render else None,
        rendered_seconds=render.seconds if render else None,
    )


async def _get(tx: Tx, tenant: TenantId, name: str) -> MqttUser:
    user = await broker_accounts.user(tx, tenant, name)
    if user is None:
        raise NotFound
    return user


def _checked(rules: list[TopicRule], tenant: TenantId) -> list[TopicRule]:
    """Return the rules with a pasted prefix `i/{tenant}/` removed from their topics; raises `Invalid`."""
    checked = []
    for number, rule in enumerate(rules):
        topic = rule.topic.removeprefix(_root(tenant))
        path = f"rules[{number}].topic"
        if topic.startswith("i/"):
            raise Invalid(f"must be below {_root(tenant)}, for example a/+/endpoints/#", path)
        if problem := topic_filters.problem(topic):
            raise Invalid(problem, path)
        checked.append(TopicRule(topic=topic, access=rule.access))
    return checked


def _root(tenant: TenantId) -> str:
    return f"i/{encode_tenant(tenant)}/"


def _url(context: ServerContext) -> str:
    return f"{context.broker.protocol}://{context.broker.host}:{context.broker.port}"


def _view(user: MqttUser, tenant: TenantId, context: ServerContext, password: str | None = None) -> MqttUserView:
    return MqttUserView(
        name=user.name,
        username=user.username,
        rules=user.rules,
        root=_root(tenant),
        enabled=user.enabled,
        created_at=user.created_at,
        broker=_url(context),
        password=password,
    )


router = Router(
    "/",
    route_handlers=[
        *(list_users, add_user, get_user, delete_user, status),
        put("/mqtt-users/{name:str}", opt={"permission": "mqtt.manage"}, operation_id="PutMqttUser")(change_user),
        patch("/mqtt-users/{name:str}", opt={"permission": "mqtt.manage"}, operation_id="PatchMqttUser")(
            change_user
        ),
    ],
    tags=["mqtt"],
)
