"""Broker accounts of agents and of tenants' MQTT users; the process beside the broker writes them to its files."""

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
from iotistica.storage.jsonb import jsonb
from iotistica.storage.postgres import Tx, fetch_row, fetch_rows

CHANNEL: Final = "broker_accounts"
"""A trigger notifies this channel at every change."""

USERS_LIMIT: Final = 100  # of a tenant: Mosquitto's time for their rules grows with the square of their number


class TopicRule(msgspec.Struct, frozen=True, kw_only=True):
    """What an MQTT user can do: `topic` is a filter below `i/{tenant}/`."""

    topic: str
    access: Access = "read"


class MqttUser(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    username: str
    rules: list[TopicRule]
    enabled: bool
    created_at: datetime


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """An account as the broker needs it; `line` is the line of its password file."""

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
    """Store an agent's account; its password is derived from the server's `key`."""
    line = _line(key, tenant, agent, 1)
    parameters = {"username": agent_user(tenant, agent), "tenant": tenant, "agent": agent}
    await tx.execute(ADD_AGENT, parameters | {"line": line, "enabled": enabled})


GENERATION: Final = """
SELECT generation, enabled FROM broker_accounts WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s
"""


async def generation(tx: Tx, tenant: TenantId, agent: AgentId) -> int:
    """Return the number of the derived password that an agent has now, from 1."""
    row = await fetch_row(tx, _Generation, GENERATION, {"tenant": tenant, "agent": agent})
    return row.generation if row else 1


ENABLE: Final = """
UPDATE broker_accounts SET enabled = %(enabled)s
WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s AND enabled <> %(enabled)s
"""


async def enable_agent(tx: Tx, tenant: TenantId, agent: AgentId, *, enabled: bool) -> None:
    """Enable or disable an agent's account; the broker disconnects the agent when it next loads the accounts."""
    await tx.execute(ENABLE, {"tenant": tenant, "agent": agent, "enabled": enabled})


RENEW_AGENT: Final = """
UPDATE broker_accounts SET generation = %(generation)s, line = %(line)s, enabled = false
WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s
"""


async def reset_agent_password(tx: Tx, tenant: TenantId, agent: AgentId, *, key: bytes) -> None:
    """Give an agent a new password and disable its account until it has proved its key again."""
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
    """Store an MQTT user; raises `Conflict` if the name exists, and `Invalid` at `USERS_LIMIT` users."""
    await tx.execute(LOCK, {"tenant": tenant})
    row = await (await tx.execute(COUNT_USERS, {"tenant": tenant})).fetchone()
    if row is not None and row[0] >= USERS_LIMIT:
        raise Invalid(f"exceeds the limit of {USERS_LIMIT} MQTT users per tenant; delete an unused one", "name")
    username = tenant_user(tenant, name)
    line = password_line(username, password, secrets.token_bytes(SALT_BYTES))
    parameters = {"username": username, "tenant": tenant, "name": name, "line": line, "rules": jsonb(rules)}
    user = await fetch_row(tx, MqttUser, ADD_USER, parameters)
    if user is None:
        raise Conflict(f"An MQTT user {name!r} already exists.")
    await audit.record(tx, tenant, by, "mqtt_user.added", ("mqtt_user", name), after=_facts(user))
    return user


USERS: Final = """
SELECT name, username, rules, enabled, created_at FROM broker_accounts
WHERE tenant_id = %(tenant)s AND name IS NOT NULL ORDER BY name
"""


async def users(tx: Tx, tenant: TenantId) -> list[MqttUser]:
    """Return a tenant's MQTT users, ordered by name."""
    return await fetch_rows(tx, MqttUser, USERS, {"tenant": tenant})


GET_USER: Final = """
SELECT name, username, rules, enabled, created_at FROM broker_accounts
WHERE tenant_id = %(tenant)s AND name = %(name)s FOR UPDATE
"""


async def user(tx: Tx, tenant: TenantId, name: str) -> MqttUser | None:
    """Return one MQTT user of a tenant, locked until the commit."""
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
    """Change the rules of an MQTT user, whether it can connect, and its password unless `password` is None."""
    line = password_line(old.username, password, secrets.token_bytes(SALT_BYTES)) if password else None
    parameters = {"tenant": tenant, "name": old.name, "rules": jsonb(rules), "enabled": enabled, "line": line}
    new = await fetch_row(tx, MqttUser, UPDATE_USER, parameters)
    assert new is not None  # noqa: S101 the row is locked
    after = _facts(new) | ({"password": "changed"} if password else {})
    await audit.record(
        tx, tenant, by, "mqtt_user.changed", ("mqtt_user", old.name), before=_facts(old), after=after
    )
    return new


DELETE_USER: Final = "DELETE FROM broker_accounts WHERE tenant_id = %(tenant)s AND name = %(name)s"


async def delete_user(tx: Tx, tenant: TenantId, old: MqttUser, *, by: Actor) -> None:
    """Delete an MQTT user."""
    await tx.execute(DELETE_USER, {"tenant": tenant, "name": old.name})
    await audit.record(tx, tenant, by, "mqtt_user.deleted", ("mqtt_user", old.name), before=_facts(old))


def _facts(user: MqttUser) -> dict[str, Any]:
    rules = [{"topic": rule.topic, "access": rule.access} for rule in user.rules]
    return {"name": user.name, "rules": rules, "enabled": user.enabled}


_ENABLED: Final = """
FROM broker_accounts b LEFT JOIN tenants t USING (tenant_id) WHERE b.enabled AND t.enabled IS NOT FALSE
"""
PASSWORD_LINES: Final = f"SELECT line {_ENABLED} ORDER BY username"
USERS_WITH_RULES: Final = (
    f"SELECT username, line, tenant_id, rules {_ENABLED} AND b.name IS NOT NULL ORDER BY username"
)
FIND: Final = f"SELECT username, line, tenant_id, rules {_ENABLED} AND username = %(username)s"


async def password_lines(tx: Tx) -> list[str]:
    """Return the password lines of all accounts that can connect."""
    return [line for (line,) in await (await tx.execute(PASSWORD_LINES)).fetchall()]


async def users_with_rules(tx: Tx) -> list[Account]:
    """Return all tenants' MQTT users that can connect; agents have no rules of their own."""
    return await fetch_rows(tx, Account, USERS_WITH_RULES)


async def find(tx: Tx, username: str) -> Account | None:
    """Return the account with this username, of any tenant, if it can connect."""
    return await fetch_row(tx, Account, FIND, {"username": username})


DATABASE_NOW: Final = "SELECT clock_timestamp()"


async def database_now(tx: Tx) -> datetime:
    """Return the time of the database's clock."""
    row = await (await tx.execute(DATABASE_NOW)).fetchone()
    assert row is not None  # noqa: S101 the query always returns a row
    now: datetime = row[0]
    return now


RECORD_RENDER: Final = """
INSERT INTO broker_renders (at, accounts, seconds) VALUES (%(at)s, %(accounts)s, %(seconds)s)
ON CONFLICT (one) DO UPDATE SET at = excluded.at, accounts = excluded.accounts, seconds = excluded.seconds
"""


async def record_render(tx: Tx, *, at: datetime, accounts: int, seconds: float) -> None:
    """Record that the broker has loaded the accounts as of `at`; `seconds` is how long that took."""
    await tx.execute(RECORD_RENDER, {"at": at, "accounts": accounts, "seconds": seconds})


class LastRender(msgspec.Struct, frozen=True):
    at: datetime
    seconds: float


LAST_RENDER: Final = "SELECT at, seconds FROM broker_renders"


async def last_render(tx: Tx) -> LastRender | None:
    """Return when the broker last loaded changed accounts; None if it never did."""
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
    """Return how many agents and MQTT users of a tenant can connect, and how many accounts are locked."""
    return await fetch_row(tx, AccountTotals, TOTALS, {"tenant": tenant}) or AccountTotals(
        agents=0, users=0, locked=0
    )
