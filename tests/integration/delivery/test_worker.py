"""A worker with a real Valkey and a real PostgreSQL, interrupted at critical moments."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from iotistica.disk_space import DiskSpace
from iotistica.domain.delivery.fault_attribution import FaultHistory
from iotistica.domain.ids import AgentId, TenantId, agent_topic
from iotistica.errors import Full, Unavailable
from iotistica.ingest.decoding import Decoder
from iotistica.ingest.dictionary_cache import DictionaryCache
from iotistica.ingest.series_cache import SeriesCache
from iotistica.ingest.worker import Worker
from iotistica.platform_alarms import Alarms
from iotistica.storage import redis as redis_
from iotistica.storage.access import quotas
from iotistica.storage.access.quotas import Quotas
from iotistica.storage.access.rate_limits import RateLimiter
from iotistica.storage.agents.directory import Directory
from iotistica.storage.delivery import acknowledgement, dead_letters, ledger, stream_stats, streams
from iotistica.storage.delivery.acknowledgement import NotStored
from iotistica.storage.delivery.dead_letters import NewDeadLetter
from iotistica.storage.history.audit import PLATFORM
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis
from iotistica.storage.telemetry import readings

READINGS = 3


@pytest.fixture
def make(redis: Redis, database: Database) -> Any:
    def worker(name: str) -> Worker:
        directory = Directory(database)
        return Worker(
            name,
            redis=redis,
            database=database,
            directory=directory,
            decoder=Decoder(directory, DictionaryCache(redis, database), retention_days=30),
            series_cache=SeriesCache(),
            rate_limiter=RateLimiter(redis),
            fault_history=FaultHistory(),
            disk_space=DiskSpace(None, Alarms()),
            alarms=Alarms(),
            messages=100,
            longest_idle=0.05,
        )

    return worker


async def fill(redis: Redis, tenant: TenantId, agent: AgentId, entries: int, together: int = 1) -> None:
    """Append entries of `together` pairs of messages: one valid, one that cannot be decoded."""
    topic = f"{agent_topic(tenant, agent)}/endpoints/x".encode()
    now = int(datetime.now(UTC).timestamp() * 1e6)
    start = datetime.now(UTC) - timedelta(hours=1)
    for number in range(entries):
        messages = []
        for part in range(together):
            when = (start + timedelta(seconds=number * together + part)).isoformat()
            points = [{"metric": f"m{n}", "value": n, "timestamp": when} for n in range(READINGS)]
            messages += [(topic, json.dumps({"readings": [*points, 17]}).encode()), (topic, b"{bad")]
        await streams.append(redis, {(tenant, streams.READINGS): messages}, received=now, high_water_mark=10_000)


async def balanced(redis: Redis, database: Database, tenant: TenantId, agent: AgentId, pairs: int) -> bool:
    """Whether both ledgers count `pairs` valid and as many invalid messages, each once."""
    async with database.transaction() as tx:
        readings, payloads = (
            await ledger.readings_balance(tx, tenant, agent),
            await ledger.payload_totals(tx, tenant),
        )
    (stream,) = await stream_stats.stream_stats(redis, [tenant], now=0.0)
    counted = (readings.found, readings.stored, readings.duplicate, readings.rejected)
    wanted = ((READINGS + 1) * pairs, READINGS * pairs, 0, pairs)
    taken = (stream.taken, stream.waiting, stream.entries, stream.dead, payloads.processed, payloads.dead)
    return (counted, taken) == (wanted, (2 * pairs, 0, 0, pairs, pairs, pairs))


async def until_balanced(worker: Worker, *facts: Any) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    try:
        async with asyncio.timeout(20):
            while not await balanced(*facts):
                assert not running.done(), running
                await asyncio.sleep(0.05)
    finally:
        stop.set()
        await running


async def interrupted(make: Any, *, times: int) -> None:
    """Start a worker `times` times; each time a dependency that becomes unavailable ends it."""
    for _ in range(times):
        with pytest.raises(Unavailable):
            async with asyncio.timeout(20):
                await make("one").run(asyncio.Event())


@pytest.mark.parametrize("after", [False, True])
async def test_what_is_committed_but_not_finished_is_counted_once(
    redis: Redis,
    database: Database,
    tenant: TenantId,
    agent: AgentId,
    make: Any,
    monkeypatch: pytest.MonkeyPatch,
    after: bool,
) -> None:
    """Redis fails right after the commit: before it acknowledges the entries, or before its reply arrives."""
    await fill(redis, tenant, agent, 5)
    finish = acknowledgement.acknowledge

    async def cut(*arguments: Any) -> None:
        if after:
            await finish(*arguments)
        raise Unavailable("cut")

    monkeypatch.setattr(acknowledgement, "acknowledge", cut)
    await interrupted(make, times=3)
    monkeypatch.setattr(acknowledgement, "acknowledge", finish)
    await until_balanced(make("one"), redis, database, tenant, agent, 5)


async def test_an_entry_that_two_consumers_have_is_stored_once(
    redis: Redis, database: Database, tenant: TenantId, agent: AgentId, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow consumer's entries are taken over; when it continues, it finds them stored and changes nothing."""
    await streams.create_groups(redis, [tenant], streams.READINGS)
    await fill(redis, tenant, agent, 4)
    slow = make("slow")
    entries = await streams.read(redis, [tenant], "slow", count=10)
    assert len(entries) == 4
    monkeypatch.setattr(streams, "STALE_MS", 0)
    monkeypatch.setattr("iotistica.ingest.worker.TAKE_OVER_EVERY", 0)
    await until_balanced(make("quick"), redis, database, tenant, agent, 4)
    await slow._store(entries)
    assert await balanced(redis, database, tenant, agent, 4)


async def test_all_that_a_dead_consumer_left_is_taken_over_at_once(
    redis: Redis, database: Database, tenant: TenantId, agent: AgentId, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call takes over all its entries, however many there are."""
    await streams.create_groups(redis, [tenant], streams.READINGS)
    await fill(redis, tenant, agent, 150)
    assert len(await streams.read(redis, [tenant], "dead", count=200)) == 150
    monkeypatch.setattr(streams, "STALE_MS", 0)
    await make("alive")._catch_up(streams.claim_stale)
    assert await balanced(redis, database, tenant, agent, 150)


async def test_an_entry_larger_than_a_transaction_is_stored_in_parts(
    redis: Redis, database: Database, tenant: TenantId, agent: AgentId, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No message is rejected for the size of its entry, and an interruption between two parts repeats neither."""
    monkeypatch.setattr("iotistica.ingest.decoding.ROWS_PER_TRANSACTION", 4)
    await fill(redis, tenant, agent, 2, together=9)
    store, calls = readings.store, 0

    async def cut(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls % 4 == 0:
            raise Unavailable("cut")
        return await store(*arguments)

    monkeypatch.setattr(readings, "store", cut)
    await interrupted(make, times=3)
    monkeypatch.setattr(readings, "store", store)
    await until_balanced(make("one"), redis, database, tenant, agent, 18)


async def test_a_fault_of_ours_costs_one_message(
    redis: Redis, database: Database, tenant: TenantId, agent: AgentId, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that raises an unexpected error becomes a dead letter, and the worker continues."""
    await fill(redis, tenant, agent, 2)
    monkeypatch.setattr("iotistica.domain.codec._lenient", lambda *_: 1 / 0)
    await until_balanced(make("one"), redis, database, tenant, agent, 2)
    letters = (await dead_letters.page(redis, tenant, after=None, limit=10)).letters
    assert {letter.reason for letter in letters} == {"internal_error"}


async def test_garbage_does_not_fill_the_memory(redis: Redis, tenant: TenantId) -> None:
    """Above the limit of bytes, dead letters keep only heads; near the memory limit nothing is appended."""
    await streams.create_groups(redis, [tenant], streams.READINGS)
    payload = b"x" * 5000

    async def one_more() -> None:
        await streams.append(
            redis, {(tenant, streams.READINGS): [(b"t", payload)]}, received=1, high_water_mark=10_000
        )
        (entry,) = await streams.read(redis, [tenant], "c", count=1)
        await acknowledgement.acknowledge(
            redis, [entry], {entry.key: NotStored([NewDeadLetter(b"t", payload, 1, "bad_json", "why")])}
        )

    await one_more()
    await redis.hset(redis_.ledger_key(tenant), "dead_bytes", dead_letters.TENANT_BYTES_LIMIT)
    await one_more()
    letters = (await dead_letters.page(redis, tenant, after=None, limit=10)).letters
    assert [len(letter.payload) for letter in letters] == [5000, dead_letters.HEAD_BYTES]
    assert letters[1].detail.startswith("only the head of 5000 bytes is kept")

    used = (await redis.info("memory"))["used_memory"]
    await streams.check_memory(redis)
    limit = (await redis.config_get("maxmemory"))["maxmemory"]
    assert limit is not None
    await redis.config_set("maxmemory", int(used / streams.MEMORY_LIMIT) - 100_000)
    try:
        with pytest.raises(Full):
            await streams.check_memory(redis)
    finally:
        await redis.config_set("maxmemory", limit)


async def test_what_had_to_wait_for_us_is_within_its_quota(
    redis: Redis, database: Database, tenant: TenantId, agent: AgentId, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readings count once, in the minute of their receipt, however late or often their storing is tried."""
    async with database.transaction() as tx:
        await quotas.put(tx, tenant, Quotas(agents=None, series=None, readings_minute=10), by=PLATFORM)
    topic = f"{agent_topic(tenant, agent)}/endpoints/x".encode()
    start = datetime.now(UTC) - timedelta(minutes=20)
    for minute in range(5):
        when = start + timedelta(minutes=minute)
        points = [{"metric": f"m{n}", "value": n, "timestamp": when.isoformat()} for n in range(8)]
        message = (topic, json.dumps({"readings": points}).encode())
        received = int(when.timestamp() * 1e6)
        await streams.append(
            redis, {(tenant, streams.READINGS): [message]}, received=received, high_water_mark=1000
        )
    store, left = readings.store, 3

    async def cut(*arguments: Any) -> Any:
        nonlocal left
        left -= 1
        if left >= 0:
            raise Unavailable("cut")
        return await store(*arguments)

    monkeypatch.setattr(readings, "store", cut)
    await interrupted(make, times=3)
    stop = asyncio.Event()
    running = asyncio.create_task(make("one").run(stop))
    async with asyncio.timeout(10):
        while (await stream_stats.stream_stats(redis, [tenant], now=0.0))[0].waiting:
            await asyncio.sleep(0.05)
    stop.set()
    await running
    async with database.transaction() as tx:
        balance = await ledger.readings_balance(tx, tenant, agent)
    assert (balance.stored, balance.rejected) == (40, 0)
