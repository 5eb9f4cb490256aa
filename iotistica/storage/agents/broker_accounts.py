"""Accounts of the broker: the agents', and a tenant's own users; rendered by whoever runs beside the broker."""

import secrets
from datetime import datetime
from typing import Any, Final

import msgspec

from iotistica.domain.agents.broker_passwords import SALT_BYTES, mqtt_password, password_line
from iotistica.domain.agents.topic_filters import Access
from iotistica.domain.ids import AgentId, TenantId, agent_user, tenant_user
from iotistica.errors import Conflict, Invalid
from iotistica.storage.history import audit
from iotistica.storage.history.audit import Actor
from iotistica.storage.postgres import Tx, fetch_row, fetch_rows

CHANNEL: Final = "broker_accounts"
"""Notified by a trigger at every change."""

USERS_LIMIT: Final = 100  # of a tenant: Mosquitto's time for a block of rules each grows with their square


class TopicRule(msgspec.Struct, frozen=True, kw_only=True):
    """What a user may: `topic` is a filter below `i/{tenant}/`."""

    topic: str
    access: Access = "read"


class MqttUser(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    username: str
    rules: list[TopicRule]
    enabled: bool
    created_at: datetime


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What the broker must know of an account."""

    username: str
    line: str
    tenant_id: TenantId | None
    rules: list[TopicRule] | None


class _Generation(msgspec.Struct, frozen=True):
    generation: int
    enabled: bool


ADD_AGENT: Final = """
INSERT INTO broker_accounts (username, tenant_id, agent_uuid, line, enabled)
VALUES (%(username)s, %(tenant)s, %(agent)s, %(line)s, %(enabled)s)
"""


async def add_agent(tx: Tx, tenant: TenantId, agent: AgentId, *, key: bytes, enabled: bool) -> None:
    """Make an agent's account; its password is derived from the server's `key`."""
    line = _line(key, tenant, agent, 1)
    parameters = {"username": agent_user(tenant, agent), "tenant": tenant, "agent": agent}
    await tx.execute(ADD_AGENT, parameters | {"line": line, "enabled": enabled})


GENERATION: Final = """
SELECT generation, enabled FROM broker_accounts WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s
"""


async def generation(tx: Tx, tenant: TenantId, agent: AgentId) -> int:
    """Which of its derived passwords an agent has."""
    row = await fetch_row(tx, _Generation, GENERATION, {"tenant": tenant, "agent": agent})
    return row.generation if row else 1


ENABLE: Final = """
UPDATE broker_accounts SET enabled = %(enabled)s
WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s AND enabled <> %(enabled)s
"""


async def enable_agent(tx: Tx, tenant: TenantId, agent: AgentId, *, enabled: bool) -> None:
    """Let an agent connect, or not; the broker drops it at its next look."""
    await tx.execute(ENABLE, {"tenant": tenant, "agent": agent, "enabled": enabled})


RENEW_AGENT: Final = """
UPDATE broker_accounts SET generation = %(generation)s, line = %(line)s, enabled = false
WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s
"""


async def reset_agent_password(tx: Tx, tenant: TenantId, agent: AgentId, *, key: bytes) -> None:
    """Give an agent another password, and lock it out until it has proved itself again."""
    number = await generation(tx, tenant, agent) + 1
    parameters = {"tenant": tenant, "agent": agent, "generation": number}
    await tx.execute(RENEW_AGENT, parameters | {"line": _line(key, tenant, agent, number)})


def _line(key: bytes, tenant: TenantId, agent: AgentId, number: int) -> str:
    return password_line(
        agent_user(tenant, agent), mqtt_password(key, tenant, agent, number), secrets.token_bytes(SALT_BYTES)
    )


COUNT_USERS: Final = """
SELECT count(*) FROM broker_accounts WHERE tenant_id = %(tenant)s AND name IS NOT NULL
"""
LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('mqtt users ' || %(tenant)s, 0))"
ADD_USER: Final = """
INSERT INTO broker_accounts (username, tenant_id, name, line, rules)
VALUES (%(username)s, %(tenant)s, %(name)s, %(line)s, %(rules)s::jsonb)
ON CONFLICT DO NOTHING RETURNING name, username, rules, enabled, created_at
"""


async def add_user(
    tx: Tx, tenant: TenantId, name: str, password: str, rules: list[TopicRule], *, by: Actor
) -> MqttUser:
    """Make a user of the tenant's own; raises `Conflict`, and `Invalid` when there are `USERS_LIMIT`."""
    await tx.execute(LOCK, {"tenant": tenant})
    row = await (await tx.execute(COUNT_USERS, {"tenant": tenant})).fetchone()
    if row is not None and row[0] >= USERS_LIMIT:
        raise Invalid(f"a tenant has at most {USERS_LIMIT} MQTT users: remove one that nobody needs", "name")
    username = tenant_user(tenant, name)
    line = password_line(username, password, secrets.token_bytes(SALT_BYTES))
    parameters = {"username": username, "tenant": tenant, "name": name, "line": line, "rules": _json(rules)}
    user = await fetch_row(tx, MqttUser, ADD_USER, parameters)
    if user is None:
        raise Conflict(f"there is an MQTT user {name!r} already")
    await audit.record(tx, tenant, by, "mqtt_user.added", ("mqtt_user", name), after=_facts(user))
    return user


USERS: Final = """
SELECT name, username, rules, enabled, created_at FROM broker_accounts
WHERE tenant_id = %(tenant)s AND name IS NOT NULL ORDER BY name
"""


async def users(tx: Tx, tenant: TenantId) -> list[MqttUser]:
    """A tenant's own users, by name."""
    return await fetch_rows(tx, MqttUser, USERS, {"tenant": tenant})


GET_USER: Final = """
SELECT name, username, rules, enabled, created_at FROM broker_accounts
WHERE tenant_id = %(tenant)s AND name = %(name)s FOR UPDATE
"""


async def user(tx: Tx, tenant: TenantId, name: str) -> MqttUser | None:
    """One of them, locked until the commit."""
    return await fetch_row(tx, MqttUser, GET_USER, {"tenant": tenant, "name": name})


UPDATE_USER: Final = """
UPDATE broker_accounts SET rules = %(rules)s::jsonb, enabled = %(enabled)s, line = coalesce(%(line)s, line)
WHERE tenant_id = %(tenant)s AND name = %(name)s RETURNING name, username, rules, enabled, created_at
"""


async def update_user(
    tx: Tx,
    tenant: TenantId,
    old: MqttUser,
    rules: list[TopicRule],
    *,
    enabled: bool,
    password: str | None,
    by: Actor,
) -> MqttUser:
    """Change what a user may, whether it may connect, and its password if one is given."""
    line = password_line(old.username, password, secrets.token_bytes(SALT_BYTES)) if password else None
    parameters = {"tenant": tenant, "name": old.name, "rules": _json(rules), "enabled": enabled, "line": line}
    new = await fetch_row(tx, MqttUser, UPDATE_USER, parameters)
    assert new is not None  # noqa: S101 it is locked
    after = _facts(new) | ({"password": "changed"} if password else {})
    await audit.record(
        tx, tenant, by, "mqtt_user.changed", ("mqtt_user", old.name), before=_facts(old), after=after
    )
    return new


DELETE_USER: Final = "DELETE FROM broker_accounts WHERE tenant_id = %(tenant)s AND name = %(name)s"


async def delete_user(tx: Tx, tenant: TenantId, old: MqttUser, *, by: Actor) -> None:
    """Remove a user of the tenant's own."""
    await tx.execute(DELETE_USER, {"tenant": tenant, "name": old.name})
    await audit.record(tx, tenant, by, "mqtt_user.deleted", ("mqtt_user", old.name), before=_facts(old))


def _json(rules: list[TopicRule]) -> str:
    return msgspec.json.encode(rules).decode()


def _facts(found: MqttUser) -> dict[str, Any]:
    rules = [{"topic": rule.topic, "access": rule.access} for rule in found.rules]
    return {"name": found.name, "rules": rules, "enabled": found.enabled}


_LIVE: Final = """
FROM broker_accounts b LEFT JOIN tenants t USING (tenant_id) WHERE b.enabled AND t.enabled IS NOT FALSE
"""
PASSWORD_LINES: Final = f"SELECT line {_LIVE} ORDER BY username"
USERS_WITH_RULES: Final = (
    f"SELECT username, line, tenant_id, rules {_LIVE} AND b.name IS NOT NULL ORDER BY username"
)
FIND: Final = f"SELECT username, line, tenant_id, rules {_LIVE} AND username = %(username)s"


async def password_lines(tx: Tx) -> list[str]:
    """The password lines of every account that may connect."""
    return [line for (line,) in await (await tx.execute(PASSWORD_LINES)).fetchall()]


async def users_with_rules(tx: Tx) -> list[Account]:
    """Every tenant's own users that may connect; agents need no rules of their own."""
    return await fetch_rows(tx, Account, USERS_WITH_RULES)


async def find(tx: Tx, username: str) -> Account | None:
    """An account that may connect, of all tenants."""
    return await fetch_row(tx, Account, FIND, {"username": username})


DATABASE_NOW: Final = "SELECT clock_timestamp()"


async def database_now(tx: Tx) -> datetime:
    """The database's clock."""
    row = await (await tx.execute(DATABASE_NOW)).fetchone()
    assert row is not None  # noqa: S101 a clock always answers
    found: datetime = row[0]
    return found


RECORD_RENDER: Final = """
INSERT INTO broker_renders (at, accounts, seconds) VALUES (%(at)s, %(accounts)s, %(seconds)s)
ON CONFLICT (one) DO UPDATE SET at = excluded.at, accounts = excluded.accounts, seconds = excluded.seconds
"""


async def record_render(tx: Tx, *, at: datetime, accounts: int, seconds: float) -> None:
    """Write down that the broker was given the accounts as they were then."""
    await tx.execute(RECORD_RENDER, {"at": at, "accounts": accounts, "seconds": seconds})


class LastRender(msgspec.Struct, frozen=True):
    at: datetime
    accounts: int
    seconds: float


LAST_RENDER: Final = "SELECT at, accounts, seconds FROM broker_renders"


async def last_render(tx: Tx) -> LastRender | None:
    """When the broker was last given accounts that had changed."""
    return await fetch_row(tx, LastRender, LAST_RENDER)


class AccountTotals(msgspec.Struct, frozen=True, kw_only=True):
    agents: int
    users: int
    locked: int


TOTALS: Final = """
SELECT count(*) FILTER (WHERE agent_uuid IS NOT NULL AND enabled) AS agents,
       count(*) FILTER (WHERE name IS NOT NULL AND enabled) AS users, count(*) FILTER (WHERE NOT enabled) AS locked
FROM broker_accounts WHERE tenant_id = %(tenant)s
"""


async def totals(tx: Tx, tenant: TenantId) -> AccountTotals:
    """How many accounts a tenant has that may connect, and that may not."""
    return await fetch_row(tx, AccountTotals, TOTALS, {"tenant": tenant}) or AccountTotals(
        agents=0, users=0, locked=0
    )
