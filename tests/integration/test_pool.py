"""The pool of connections to PostgreSQL, shared by tenants that know nothing of each other, and its transactions."""

import asyncio
from contextlib import AsyncExitStack

import psycopg
import pytest

from iotistica.domain.ids import TenantId
from iotistica.errors import Unavailable
from iotistica.storage.postgres import RESERVED_CONNECTIONS, Database
from tests.conftest import Stack


async def test_one_tenant_leaves_connections_to_the_others(stack: Stack) -> None:
    """However many questions it asks at once; they wait for each other, and for as long as they have patience."""
    pool = Database(
        stack.database_url, size=RESERVED_CONNECTIONS + 2, name="pool", role="iotistica_api", statement_seconds=30
    )
    await pool.open()
    busy, other = TenantId("busy"), TenantId("other")
    async with AsyncExitStack() as held:
        for _ in range(2):
            await held.enter_async_context(pool.transaction(busy))
        with pytest.raises(Unavailable, match="one tenant"):
            async with pool.transaction(busy, patience=0.2):
                pass
        for tenant in (other, None):
            async with pool.transaction(tenant, patience=2.0) as tx:
                await tx.execute("SELECT 1")
        waiting = asyncio.create_task(_ask(pool, busy))
        await asyncio.sleep(0.1)
        assert not waiting.done()
    await waiting
    assert not pool._shares
    await pool.close()


async def _ask(pool: Database, tenant: TenantId) -> None:
    async with pool.transaction(tenant) as tx:
        await tx.execute("SELECT 1")


async def test_the_statements_of_a_snapshot_read_one_moment(stack: Stack) -> None:
    """What is committed between two of them is in neither, unlike in other transactions; and none of them writes."""
    pool = Database(stack.database_url, size=4, name="pool", role=None, statement_seconds=30)
    await pool.open()
    count = "SELECT count(*) FROM snapshot_test"
    async with pool.transaction() as tx:
        await tx.execute("CREATE TABLE snapshot_test (n int)")
    for snapshot, expected in ((True, 0), (False, 1)):
        async with pool.transaction(TenantId("t"), snapshot=snapshot) as tx:
            before = await (await tx.execute(count)).fetchone()
            async with pool.transaction() as other:
                await other.execute("INSERT INTO snapshot_test VALUES (1)")
            after = await (await tx.execute(count)).fetchone()
        assert before and after and after[0] - before[0] == expected
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        async with pool.transaction(snapshot=True) as tx:
            await tx.execute("INSERT INTO snapshot_test VALUES (2)")
    async with pool.transaction() as tx:
        await tx.execute("DROP TABLE snapshot_test")
    await pool.close()


async def test_connections_that_died_while_idle_are_replaced_for_the_first_who_asks(stack: Stack) -> None:
    """After a restart of the server all of them are dead; a pool that was busy before holds many."""
    size = 12
    pool = Database(stack.database_url, size=size, name="dying", role=None, statement_seconds=30)
    await pool.open()
    async with AsyncExitStack() as held:
        for _ in range(size):
            await held.enter_async_context(pool.transaction())
    with psycopg.connect(stack.database_url, autocommit=True) as owner:
        ended = owner.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'iotistica dying'"
        ).fetchall()
    assert ended == [(True,)] * size
    async with pool.transaction() as tx:
        await tx.execute("SELECT 1")
    async with AsyncExitStack() as held:
        for _ in range(size):
            await held.enter_async_context(pool.transaction())
    await pool.close()
