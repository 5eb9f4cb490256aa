"""Readings dropped by age, to save disk space and on demand, and the rollups that must remain."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from iotistica.background import erasures as eraser
from iotistica.background import retention
from iotistica.background import rollups as background
from iotistica.background.retention import RetentionLimits
from iotistica.domain.ids import AgentId, TenantId
from iotistica.domain.telemetry.rollup_sources import floor
from iotistica.storage import schema
from iotistica.storage.access import tenants
from iotistica.storage.agents import agents
from iotistica.storage.history.audit import PLATFORM
from iotistica.storage.postgres import Database, Tx
from iotistica.storage.telemetry import coverage, erasures, rollups
from tests import databases
from tests.conftest import Stack
from tests.rollup_oracle import check_tables, reading, store

NOW = datetime.now(UTC).replace(microsecond=0)
TODAY = floor(NOW, rollups.DAY)
Rows = dict[tuple[str, datetime], tuple[float | None, str]]
Owner = tuple[TenantId, AgentId]


@pytest.fixture
async def own(stack: Stack) -> AsyncIterator[Database]:
    """A separate database, because the retention applies to a whole database."""
    with databases.fresh(stack.database_url) as url:
        schema.migrate(url)
        database = databases.worker_pool(url, size=2)
        await database.open()
        yield database
        await database.close()


async def owner(database: Database) -> Owner:
    agent = AgentId(uuid4())
    async with database.transaction() as tx:
        tenant = (await tenants.add(tx, f"g {uuid4()}", by=PLATFORM)).tenant_id
        await agents.add(tx, tenant, agent, "an agent", key=bytes(32), by=PLATFORM)
    return tenant, agent


async def fill(database: Database, owner_: Owner, day: datetime, minutes: range) -> Rows:
    """Store a reading of two metrics at each of these minutes of a day."""
    rows = [reading(name, day + timedelta(minutes=at), float(at)) for at in minutes for name in "ab"]
    await store(database, *owner_, rows)
    return {(name, day + timedelta(minutes=at)): (float(at), "good") for at in minutes for name in "ab"}


async def settle(database: Database) -> None:
    step = rollups.DAY
    for _ in range(3):
        step = await background.catch_up(database, datetime.now(UTC), step)


async def counts(database: Database, agent: AgentId, table: str) -> dict[datetime, int]:
    """Return the number of readings of metric a by bucket."""
    statement = f"SELECT bucket, count FROM {table} WHERE agent_uuid = %(a)s AND metric_name = 'a'"
    async with database.transaction() as tx:
        return dict(await (await tx.execute(statement, {"a": agent})).fetchall())


async def run(database: Database, statement: str, **parameters: Any) -> None:
    async with database.transaction() as tx:
        await tx.execute(statement.encode(), parameters)


@pytest.mark.plain_postgres
async def test_a_budget_never_drops_what_is_not_rolled_up(own: Database) -> None:
    """Late old days and days not yet rolled up are kept, or their hourly and daily rollups would be lost."""
    owner_ = await owner(own)
    await settle(own)
    old = TODAY - timedelta(days=9)
    rows = await fill(own, owner_, old, range(0, 1440, 10))
    await retention.keep_within(own, 1, NOW)
    await settle(own)
    await retention.keep_within(own, 1, NOW)
    assert await counts(own, owner_[1], "readings_daily") == {old: 144}
    async with own.transaction() as tx:
        left = await (await tx.execute("SELECT count(*) FROM readings")).fetchone()
    assert left == (0,)
    assert len(rows) == 288


@pytest.mark.plain_postgres
async def test_history_whose_minutes_are_gone_has_whole_hours(own: Database) -> None:
    """Hours are complete even if rolled up in small steps, with the minute rollups dropped in between."""
    owner_ = await owner(own)
    ages = RetentionLimits(raw=730, minutes=400, hours=3650)
    await retention.keep(own, ages, NOW)
    old = TODAY - timedelta(days=500)
    await run(own, "UPDATE rollup_progress SET rolled_until = %(at)s", at=old)
    await fill(own, owner_, old, range(1440))
    await run(own, "DELETE FROM rollup_marks")
    await rollups.close_until(own, old + timedelta(days=2))
    for _ in range(60):
        at = await background._progress(own)
        await background._partitions(own, at, timedelta(minutes=40))
        await rollups.advance(own, timedelta(minutes=40))
        await retention.keep(own, ages, NOW)
    assert await counts(own, owner_[1], "readings_1h") == {old + timedelta(hours=n): 60 for n in range(24)}
    assert await counts(own, owner_[1], "readings_daily") == {old: 1440}
    assert await counts(own, owner_[1], "readings_1m") == {}


@pytest.mark.plain_postgres
@pytest.mark.parametrize("minutes_gone", [False, True])
async def test_an_erasure_among_rollups_leaves_the_rest_of_its_day(own: Database, minutes_gone: bool) -> None:
    """Where the readings are gone, the day is recomputed from its remaining hours, and the hour from its minutes."""
    owner_ = await owner(own)
    old = TODAY - timedelta(days=90)
    await fill(own, owner_, old, range(1440))
    await settle(own)
    async with own.transaction() as tx:
        await coverage.set_dropped_before(tx, "readings", TODAY - timedelta(days=2))
        if minutes_gone:
            await coverage.set_dropped_before(tx, "readings_1m", TODAY - timedelta(days=2))
    await run(own, "DELETE FROM readings")
    async with own.transaction() as tx:
        half = old + timedelta(hours=6, minutes=30)
        await erasures.request_erasure(tx, *owner_, device=None, metric="a", before=half, by=PLATFORM)
    await eraser.erase(own)
    await settle(own)
    hours = {old + timedelta(hours=n): 60 for n in range(7, 24)}
    hours |= {} if minutes_gone else {old + timedelta(hours=6): 30}
    assert await counts(own, owner_[1], "readings_1h") == hours
    assert await counts(own, owner_[1], "readings_daily") == {old: sum(hours.values())}


async def test_an_erasure_takes_what_came_while_it_was_under_way(own: Database) -> None:
    """Readings that arrive for days already erased are erased too, before the erasure is finished."""
    owner_ = await owner(own)
    for back in (6, 5, 4):
        await fill(own, owner_, TODAY - timedelta(days=back), range(0, 100, 10))
    before = TODAY - timedelta(days=3)
    async with own.transaction() as tx:
        await erasures.request_erasure(tx, *owner_, device=None, metric=None, before=before, by=PLATFORM)
    for number in range(9):
        async with own.transaction() as tx:
            one = await erasures.next_open(tx)
            if one is None:
                break
            await erasures.erase_next_day(tx, one)
        if number == 1:
            await fill(own, owner_, TODAY - timedelta(days=8), range(3))
    await settle(own)
    async with own.transaction() as tx:
        await check_tables(tx, owner_[1], {})
        (done,) = await erasures.page(tx, owner_[0], limit=5)
        assert (done.readings, done.done_at is None) == (66, False)
        left = await (await tx.execute("SELECT count(*) FROM readings")).fetchone()
    assert left == (0,)


async def test_an_erasure_that_fails_does_not_hold_up_the_next(
    own: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest one keeps failing: the one behind it is done all the same, and the failure is raised."""
    first, second = await owner(own), await owner(own)
    for whose in (first, second):
        await fill(own, whose, TODAY - timedelta(days=4), range(3))
        async with own.transaction() as tx:
            await erasures.request_erasure(tx, *whose, device=None, metric=None, before=TODAY, by=PLATFORM)
    erase_next_day = erasures.erase_next_day

    async def failing(tx: Tx, erasure: erasures.Erasure) -> bool:
        if erasure.tenant_id == first[0]:
            raise ValueError("broken")
        return await erase_next_day(tx, erasure)

    monkeypatch.setattr(erasures, "erase_next_day", failing)
    with pytest.raises(ExceptionGroup):
        await eraser.erase(own)
    async with own.transaction() as tx:
        assert [one.done_at for one in await erasures.page(tx, first[0], limit=5)] == [None]
        assert all(one.done_at for one in await erasures.page(tx, second[0], limit=5))


async def test_what_is_no_longer_shown_is_deleted_in_turns(own: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each turn continues where the previous one ended, however short the turns are."""
    owner_ = await owner(own)
    for back in (6, 4, 2):
        await fill(own, owner_, TODAY - timedelta(days=back), range(0, 100, 10))
    async with own.transaction() as tx:
        await tenants.set_retention(tx, owner_[0], 3, by=PLATFORM)
        found = await tenants.find(tx, owner_[0])
    assert found is not None
    monkeypatch.setattr(eraser, "TURN", 0.0)  # seconds; each turn deletes one day
    retention_ = eraser.TenantRetention(9)
    for back in range(8, 3, -1):
        await retention_.run(own, [found], NOW)
        assert retention_.next_day == {owner_[0]: TODAY - timedelta(days=back)}
    await retention_.run(own, [found], NOW)
    async with own.transaction() as tx:
        after = await tenants.find(tx, owner_[0])
        left = await (await tx.execute("SELECT count(*) FROM readings")).fetchone()
    assert (after and after.erased_until, left, retention_.next_day) == (TODAY - timedelta(days=3), (20,), {})


async def test_closing_does_not_hold_up_who_stores(own: Database) -> None:
    """While a transaction locks the rollups for long, late and new readings are still stored."""
    owner_ = await owner(own)
    async with own.transaction() as tx:
        await rollups.lock_progress(tx)
        closing = asyncio.create_task(rollups.close_until(own, TODAY))
        await asyncio.sleep(0.3)
        assert isinstance(own._pool.conninfo, str)
        with psycopg.connect(own._pool.conninfo) as other:
            assert other.execute("SELECT pg_try_advisory_xact_lock_shared(67351)").fetchone() == (True,)
        assert await closing is False
    assert await rollups.close_until(own, TODAY)
    assert await counts(own, owner_[1], "readings_daily") == {}
