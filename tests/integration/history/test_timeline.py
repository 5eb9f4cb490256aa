"""Repeated events are one timeline row per hour, and background checks add their findings to the timeline."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from iotistica.background import clock_skew, dead_letter_timeline
from iotistica.domain.delivery.message_gaps import MessageNumber
from iotistica.domain.ids import AgentId, TenantId
from iotistica.storage.delivery import ledger, message_gaps, streams
from iotistica.storage.history import timeline
from iotistica.storage.history.timeline import TimelineRow
from iotistica.storage.history.timeline_counts import TimelineCounts
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis
from tests.integration.delivery.test_worker import fill, make

__all__ = ["make"]

HOUR = timedelta(hours=1)


async def rows(database: Database, tenant: TenantId, agent: AgentId, *kinds: str) -> list[TimelineRow]:
    """Return the events of an agent, the oldest first."""
    async with database.transaction() as tx:
        found = await timeline.page(tx, tenant, agent, before=None, kinds=kinds or None, limit=100)
    return found[::-1]


async def test_what_is_counted_is_one_row(database: Database, tenant: TenantId, agent: AgentId) -> None:
    """Events with the same word are one row, within one write and over many; other tenants' agents get no row."""
    counts = TimelineCounts(database)
    for address in ("one", "one", "two"):
        counts.add(tenant, agent, "broker.connected", {"address": address}, word=address)
    counts.add(tenant, AgentId(uuid4()), "broker.connected", {})
    await counts.write()
    counts.add(tenant, agent, "broker.connected", {"address": "one"}, word="one")
    await counts.write()
    await counts.write()
    found = await rows(database, tenant, agent, "broker.connected")
    assert sorted((row.details["address"], row.times, row.last_at is not None) for row in found) == [
        ("one", 3, True),
        ("two", 1, False),
    ]


async def test_what_could_not_be_read_is_told_once(
    redis: Redis, database: Database, tenant: TenantId, agent: AgentId, make: Any
) -> None:
    """Dead letters are counted by reason and hour, with the details of the last; a second run adds only new ones."""
    await streams.create_groups(redis, [tenant], streams.READINGS)
    for count, expected in ((3, 3), (0, 3), (2, 5)):
        if count:
            await fill(redis, tenant, agent, count)  # each message comes with a bad one
            entries = await streams.read(redis, [tenant], "one", count=10)
            await make("one")._store(entries)
        await dead_letter_timeline.record(redis, database, [tenant])
        found = await rows(database, tenant, agent, timeline.MESSAGE_REFUSED)
        assert sum(row.times for row in found) == expected
        assert {row.details["reason"] for row in found} == {"bad_json"}


async def test_rejected_readings_are_told_by_reason(database: Database, tenant: TenantId, agent: AgentId) -> None:
    """Rejected readings are added to the timeline when they are added to the totals."""
    for _ in range(2):
        async with database.transaction() as tx:
            await ledger.record_rejections(tx, {(tenant, agent, "future"): 5, (tenant, agent, "too_old"): 1})
            await ledger.fold_readings(tx, before=datetime.now(UTC) + HOUR)
    found = await rows(database, tenant, agent, "readings.rejected")
    assert sorted((row.details["reason"], row.times) for row in found) in (
        [("future", 10), ("too_old", 2)],
        [("future", 5), ("future", 5), ("too_old", 1), ("too_old", 1)],  # a new hour began between the two
    )


async def test_a_gap_is_told_and_so_is_its_end(database: Database, tenant: TenantId, agent: AgentId) -> None:
    """Missing message numbers are an event, and so is their late arrival."""
    now = datetime.now(UTC)
    ms = int(now.timestamp() * 1000)
    for numbers, kinds in (((1, 2, 6), ["messages.missing"]), ((3, 4, 5), ["messages.missing", "messages.found"])):
        async with database.transaction() as tx:
            await message_gaps.add_numbers(
                tx, [(tenant, agent, MessageNumber(ms + number, number)) for number in numbers]
            )
        async with database.transaction() as tx:
            await message_gaps.merge_runs(tx, before=now + HOUR, oldest=now - HOUR)
        found = await rows(database, tenant, agent, "messages.missing", "messages.found")
        assert [row.kind for row in found] == kinds
        assert [(row.details["first"], row.details["last"]) for row in found] == [(3, 5)] * len(kinds)


async def test_a_wrong_clock_is_noticed(database: Database, tenant: TenantId, agent: AgentId) -> None:
    """A clock ahead is noticed at once, one behind after twenty minutes without fresh readings; a replay is neither."""

    async def check(skew: timedelta, times: int = 1) -> list[str]:
        watch, now = clock_skew.ClockSkewWatch(), datetime.now(UTC)
        async with database.transaction() as tx:
            await tx.execute("DELETE FROM readings_ledger WHERE agent_uuid = %s", [agent])
            await tx.execute(
                "INSERT INTO readings_ledger (tenant_id, agent_uuid, found, stored, duplicate, rejected, first_time,"
                " last_time) VALUES (%s, %s, 1, 1, 0, 0, now() + %s, now() + %s)",
                [tenant, agent, skew, skew],
            )
        for _ in range(times):
            await watch.check(database, now)
        return [row.kind for row in await rows(database, tenant, agent, "clock.ahead", "clock.behind")]

    assert await check(timedelta(seconds=30), clock_skew.ROUNDS_BEHIND) == []
    assert await check(-HOUR, clock_skew.ROUNDS_BEHIND - 1) == []
    assert await check(-HOUR, clock_skew.ROUNDS_BEHIND) == ["clock.behind"]
    assert set(await check(timedelta(seconds=90))) == {"clock.behind", "clock.ahead"}
