"""Row security: what PostgreSQL itself denies to the role of the API and to that of the workers."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import LiteralString
from uuid import uuid4

import psycopg
import pytest

from iotistica.domain.ids import AgentId, TenantId
from iotistica.storage.access import tenants
from iotistica.storage.access import users as users_
from iotistica.storage.agents import agent_search, agents, fleets
from iotistica.storage.delivery import ledger
from iotistica.storage.history import audit
from iotistica.storage.history.audit import PLATFORM
from iotistica.storage.postgres import Database
from iotistica.storage.telemetry import aggregates, timeseries
from tests.conftest import Stack
from tests.integration.telemetry.test_readings import NOW, reading, store
from tests.statements import statements

ROLLUPS = {"readings_1m", "readings_1h", "readings_daily", "rollup_progress", "rollup_marks"}
WITHOUT_TENANT = {
    "sync_epoch",
    "presence_watch",
    "fences",
    "readings",
    *ROLLUPS,
    "alembic_version",
    "login_failures",
    "broker_renders",
}
"""Statements over readings join `agents`; the other tables belong to the platform and not to a tenant."""


@pytest.fixture
async def api(stack: Stack) -> AsyncIterator[Database]:
    """A pool with the role of the API."""
    database = Database(stack.database_url, size=2, name="api", role="iotistica_api", statement_seconds=30)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def other(database: Database, stack: Stack) -> tuple[TenantId, AgentId]:
    """A second tenant with an agent, a user, a fleet and a reading."""
    uuid = AgentId(uuid4())
    async with database.transaction() as tx:
        tenant = (await tenants.add(tx, f"other {uuid}", by=PLATFORM)).tenant_id
        await agents.add(tx, tenant, uuid, "foreign", key=stack.key, by=PLATFORM)
        await users_.add(tx, tenant, f"{uuid}@example.com", "x", "viewer", by=PLATFORM)
        await fleets.add(tx, tenant, "foreign", by=PLATFORM)
    await store(database, tenant, {uuid: [reading()]})
    return tenant, uuid


async def tables(database: Database) -> list[str]:
    async with database.transaction() as tx:
        cursor = await tx.execute(
            "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
            " WHERE nspname = 'public' AND relkind IN ('r', 'p') AND NOT relispartition"
        )
        return [name for (name,) in await cursor.fetchall()]


async def test_every_table_with_a_tenant_is_behind_the_wall(database: Database) -> None:
    """This test fails if a migration adds a table with a tenant but without row security."""
    found = await tables(database)
    assert len(found) > 20
    async with database.transaction() as tx:
        for table in set(found) - WITHOUT_TENANT:
            cursor = await tx.execute(
                "SELECT relrowsecurity, (SELECT count(*) FROM pg_policy WHERE polrelid = c.oid),"
                " EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = 'tenant_id')"
                " FROM pg_class c WHERE oid = %(table)s::regclass",
                {"table": table},
            )
            assert (table, await cursor.fetchone()) == (table, (True, 2, True))


async def test_without_its_own_check_the_api_reads_no_foreign_row(
    database: Database, api: Database, tenant: TenantId, agent: AgentId, other: tuple[TenantId, AgentId]
) -> None:
    """Statements without a condition, or with another tenant's id, return only rows of the transaction's tenant."""
    assert agent
    names = await tables(database)
    async with api.transaction(tenant) as tx:
        for table in set(names) - WITHOUT_TENANT:
            cursor = await tx.execute(f"SELECT DISTINCT tenant_id FROM {table}")
            assert {row[0] for row in await cursor.fetchall()} <= {tenant}, table
        assert await agents.get(tx, other[0], other[1]) is None
        assert await agent_search.page(tx, other[0], agent_search.AgentFilter(), limit=10) == []
        assert (await ledger.readings_balance(tx, other[0], None)).found == 0
        assert await users_.page(tx, other[0], after=None, limit=10) == []
        now = datetime.fromtimestamp(NOW / 1e6, UTC)
        start, end = now - timedelta(minutes=1), now + timedelta(minutes=1)
        assert (
            await timeseries.raw_readings(tx, other[0], other[1], "m", start=start, end=end, limit=10)
        ).values == []
        cursor = await tx.execute("SELECT count(*) FROM readings_with_series")
        assert await cursor.fetchone() == (0,)


async def test_late_hours_are_seen_by_their_own_tenant(
    database: Database, api: Database, tenant: TenantId, other: tuple[TenantId, AgentId]
) -> None:
    """Marks have no tenant column; those of another tenant's agents are hidden from every query."""
    async with database.transaction() as tx:
        await tx.execute("INSERT INTO rollup_marks VALUES (%(agent)s, '2001-01-01Z')", {"agent": other[1]})
    for name, seen in ((tenant, 0), (other[0], 1)):
        async with api.transaction(name) as tx:
            cursor = await tx.execute("SELECT count(*) FROM rollup_marks WHERE hour = '2001-01-01Z'")
            assert await cursor.fetchone() == (seen,)
    async with database.transaction() as tx:
        await tx.execute("DELETE FROM rollup_marks WHERE agent_uuid = %(agent)s", {"agent": other[1]})


async def test_without_a_tenant_the_api_sees_nothing(api: Database, other: tuple[TenantId, AgentId]) -> None:
    """A transaction that sets no tenant sees an empty database, and the setting ends with the transaction."""
    async with api.transaction(other[0]) as tx:
        assert await (await tx.execute("SELECT count(*) FROM agents")).fetchone() == (1,)
    for _ in range(4):  # enough to use each connection of the pool
        async with api.transaction() as tx:
            assert await (await tx.execute("SELECT count(*) FROM agents")).fetchone() == (0,)


WRITES = (
    "INSERT INTO agents (agent_uuid, tenant_id, name) VALUES (gen_random_uuid(), %(other)s, 'x')",
    "INSERT INTO users (tenant_id, email, password_hash, role) VALUES (%(other)s, 'x@y', 'x', 'owner')",
    "INSERT INTO audit_events (tenant_id, actor_kind, action, subject_kind, subject_id)"
    " VALUES (%(other)s, 'user', 'x', 'x', 'x')",
    "UPDATE agents SET tenant_id = %(other)s WHERE tenant_id = %(tenant)s",
    "INSERT INTO readings (time, agent_uuid, metric_name, protocol) VALUES (now(), %(agent)s, 'm', 'x')",
    "UPDATE tenants SET quota_agents = NULL",
    "DELETE FROM audit_events",
    "UPDATE audit_events SET action = 'nothing'",
    "TRUNCATE audit_events",
    "DELETE FROM login_failures",
    "SELECT make_partition('readings', '2001-01-01', '2001-01-02')",
    "CREATE TABLE mine (x int)",
)


@pytest.mark.parametrize("statement", WRITES)
async def test_the_api_writes_no_foreign_row(
    api: Database, tenant: TenantId, agent: AgentId, other: tuple[TenantId, AgentId], statement: LiteralString
) -> None:
    """The API cannot write other tenants' rows, nor any readings, quotas or existing audit events."""
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with api.transaction(tenant) as tx:
            await tx.execute(statement, {"tenant": tenant, "other": other[0], "agent": agent})


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE agents SET name = 'stolen' WHERE agent_uuid = %(foreign)s",
        "DELETE FROM agents WHERE agent_uuid = %(foreign)s",
        "DELETE FROM users WHERE tenant_id = %(other)s",
        "UPDATE broker_accounts SET enabled = false WHERE agent_uuid = %(foreign)s",
    ],
)
async def test_a_foreign_row_is_not_there_to_change(
    api: Database, tenant: TenantId, other: tuple[TenantId, AgentId], statement: LiteralString
) -> None:
    """An update or delete of another tenant's row changes nothing."""
    async with api.transaction(tenant) as tx:
        cursor = await tx.execute(statement, {"other": other[0], "foreign": other[1]})
        assert cursor.rowcount == 0


async def test_a_row_of_one_tenant_never_points_at_anothers(
    api: Database, database: Database, tenant: TenantId, agent: AgentId, other: tuple[TenantId, AgentId]
) -> None:
    """Row security does not apply to foreign key checks, so the foreign keys include the tenant."""
    async with database.transaction() as tx:
        (fleet,) = await fleets.page(tx, other[0], after=None, limit=1)
    with pytest.raises(Exception, match="foreign key"):
        async with api.transaction(tenant) as tx:
            await tx.execute(
                "UPDATE agents SET fleet_uuid = %(fleet)s WHERE agent_uuid = %(agent)s",
                {"fleet": fleet.fleet_uuid, "agent": agent},
            )


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM audit_events", "UPDATE audit_events SET action = 'x'", "DROP TABLE agents", "CREATE ROLE evil"],
)
async def test_a_worker_owns_nothing(database: Database, statement: LiteralString) -> None:
    """A worker reads and stores for all tenants, but cannot change tables, roles or existing audit events."""
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with database.transaction() as tx:
            await tx.execute(statement)


async def test_even_the_owner_does_not_change_the_audit_by_mistake(
    stack: Stack, database: Database, tenant: TenantId
) -> None:
    """Only the removal of a tenant, which sets a flag for it, can delete audit events."""
    async with database.transaction() as tx:
        await audit.record(tx, tenant, PLATFORM, "test.done", ("test", 1))
    with psycopg.connect(stack.database_url) as owner, pytest.raises(psycopg.errors.InsufficientPrivilege):
        owner.execute("DELETE FROM audit_events WHERE tenant_id = %s", (tenant,))


TOUCHES_READINGS = re.compile(
    r"\b(?:FROM|JOIN|UPDATE|INTO)\s+(?:readings|readings_1m|readings_1h|readings_daily)\b"
)


def test_whoever_reads_readings_joins_agents() -> None:
    """Readings and rollups have no tenant column: a statement without `agents` would read those of all tenants."""
    exempt = {
        "readings.STORE": "inserts readings decoded from an agent's own topic",
        "readings._INSERT": "is the part of STORE and STORE_OLD that inserts",
        "readings.CONFLICTS": "uses the keys of rows just staged",
        "readings.REPEAT_CONFLICTS": "uses the keys of rows of the same batch",
        "readings.MISSING": "uses the keys of rows just staged",
        "readings.STORE_OLD": "inserts readings decoded from an agent's own topic",
        "erasures.SET_ERASED_UNTIL": "stores progress in `tenants`",
        **dict.fromkeys(
            (f"rollups.{what}" for what in ("MINUTES", "HOURS", "HOURS_RAW", "DAYS")),
            "rolls up the readings of every tenant",
        ),
        **dict.fromkeys(
            (f"rollups.RECOMPUTE_{what}" for what in ("MINUTES", "HOURS", "HOURS_RAW", "DAYS")),
            "uses the marks of agents",
        ),
    }
    found = {name: text for name, text in statements().items() if TOUCHES_READINGS.search(text)}
    assert {
        "timeseries.RAW",
        "timeseries.POINTS",
        "latest.NEWEST",
        "latest.SILENT",
        "csv_export.SLICE",
        "tenant_export.EXPORTS[readings]",
        "tenant_export.DELETES[2]",
    } <= set(found)
    # Templates for any of the tables.
    found |= {"aggregates.ONE": aggregates.ONE, "aggregates.MANY": aggregates.MANY}
    for name, text in found.items():
        if name not in exempt:
            assert re.search(r"\bagents a\b", text), name
            assert re.search(r"a\.tenant_id = (%\(tenant\)s|\{tenant\}|ANY\(%\(tenants\)s\))", text), name
