"""Messages that the database refuses, among others that it stores."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from iotistica.domain.delivery.fault_attribution import FAILURES_LIMIT
from iotistica.domain.ids import AgentId, TenantId, agent_topic
from iotistica.errors import Invalid, Unavailable
from iotistica.ingest import worker as module
from iotistica.storage.agents import agents
from iotistica.storage.delivery import (
    acknowledgement,
    dead_letter_replay,
    dead_letters,
    ledger,
    ledger_balance,
    streams,
)
from iotistica.storage.history.audit import PLATFORM
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis
from iotistica.storage.telemetry import readings
from tests.conftest import Stack
from tests.integration.delivery.test_worker import make

__all__ = ["make"]

POISON = 666.0


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """A database that refuses one value, as it would refuse a value that the platform's checks miss."""
    store, calls = readings.store, Counter[str]()

    async def refuses(tx: Any, rows: Any, *more: Any) -> Any:
        calls["transactions"] += 1
        if any(reading.value == POISON for batch in rows.values() for reading in batch):
            raise Invalid("the database refuses this: numeric field overflow")
        return await store(tx, rows, *more)

    monkeypatch.setattr(readings, "store", refuses)
    return calls


async def send(redis: Redis, tenant: TenantId, agent: UUID, values: Iterable[float], together: int = 50) -> None:
    topic = f"{agent_topic(tenant, AgentId(agent))}/endpoints/x".encode()
    start = datetime.now(UTC) - timedelta(hours=1)
    messages = [
        (
            topic,
            json.dumps(
                {"metric": "m", "value": v, "timestamp": (start + timedelta(seconds=n)).isoformat()}
            ).encode(),
        )
        for n, v in enumerate(values)
    ]
    now = int(datetime.now(UTC).timestamp() * 1e6)
    for at in range(0, len(messages), together):
        batch = {(tenant, streams.READINGS): messages[at : at + together]}
        await streams.append(redis, batch, received=now + at, high_water_mark=10_000)


async def work(worker: Any, redis: Redis, tenant: TenantId) -> None:
    """Let a worker store all entries of the stream."""
    await streams.create_groups(redis, [tenant], streams.READINGS)
    while entries := await streams.read(redis, [tenant], worker._name, count=64):
        await worker._store(entries)


async def test_a_message_that_is_refused_is_found_by_halving(
    redis: Redis, database: Database, tenant: TenantId, agent: AgentId, make: Any, poisoned: Counter[str]
) -> None:
    """The rest of its batch is stored; the message becomes a dead letter with its bytes and the reason."""
    values = [float(n) for n in range(400)]
    values[123] = values[124] = values[399] = POISON
    await send(redis, tenant, agent, values)
    await work(make("one"), redis, tenant)
    async with database.transaction() as tx:
        balance, payloads = (
            await ledger.readings_balance(tx, tenant, agent),
            await ledger.payload_totals(tx, tenant),
        )
    assert (balance.found, balance.stored) == (397, 397)
    assert (payloads.processed, payloads.dead) == (397, 3)
    page = await dead_letters.page(redis, tenant, after=None, limit=10)
    assert [letter.reason for letter in page.letters] == ["refused"] * 3
    assert all("numeric field overflow" in letter.detail and letter.is_complete for letter in page.letters)
    assert all(json.loads(letter.payload)["value"] == POISON for letter in page.letters)
    assert poisoned["transactions"] < 80
    assert await ledger_balance.payload_imbalance(redis, database, tenant) == 0


async def test_a_crash_while_poison_is_sought_repeats_nothing(
    redis: Redis,
    database: Database,
    tenant: TenantId,
    agent: AgentId,
    make: Any,
    poisoned: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Messages committed before the crash, dead letters included, are not counted or stored again."""
    values = [float(n) for n in range(60)]
    values[7] = values[41] = POISON
    await send(redis, tenant, agent, values, together=20)
    await streams.create_groups(redis, [tenant], streams.READINGS)
    finish, left = acknowledgement.acknowledge, 3

    async def cut(*arguments: Any) -> None:
        nonlocal left
        left -= 1
        if left:
            raise Unavailable("cut")
        monkeypatch.setattr(acknowledgement, "acknowledge", finish)
        await finish(*arguments)

    monkeypatch.setattr(acknowledgement, "acknowledge", cut)
    for _ in range(2):
        with pytest.raises(Unavailable):
            async with asyncio.timeout(10):
                await make("one").run(asyncio.Event())
    stop = asyncio.Event()
    running = asyncio.create_task(make("one").run(stop))
    async with asyncio.timeout(10):
        while len((await dead_letters.page(redis, tenant, after=None, limit=10)).letters) < 2:
            await asyncio.sleep(0.05)
    stop.set()
    await running
    async with database.transaction() as tx:
        balance, payloads = (
            await ledger.readings_balance(tx, tenant, agent),
            await ledger.payload_totals(tx, tenant),
        )
    assert (balance.stored, balance.duplicate) == (58, 0)
    assert (payloads.processed, payloads.dead) == (58, 2)
    assert await ledger_balance.payload_imbalance(redis, database, tenant) == 0


async def test_when_everything_is_refused_it_stops_and_keeps_the_stream(
    redis: Redis,
    database: Database,
    tenant: TenantId,
    agent: AgentId,
    stack: Stack,
    make: Any,
    poisoned: Counter[str],
) -> None:
    """A fault of the platform raises an alarm and leaves the entries in the stream, not in the dead letters."""
    other = AgentId(uuid4())
    async with database.transaction() as tx:
        await agents.add(tx, tenant, other, "another", key=stack.key, by=PLATFORM)
    for one in (agent, other):
        await send(redis, tenant, one, [POISON] * FAILURES_LIMIT, together=10)
    worker = make("one")
    with pytest.raises(Unavailable, match="most messages cannot be stored"):
        await work(worker, redis, tenant)
    assert module.STOPPED in worker._alarms.raised
    assert (await dead_letters.page(redis, tenant, after=None, limit=10)).letters == []
    async with database.transaction() as tx:
        assert await ledger.payload_totals(tx, tenant) == ledger.PayloadTotals(0, 0)
    assert len(await streams.read_pending(redis, [tenant], "one", count=100)) == FAILURES_LIMIT * 2 // 10


async def test_a_letter_is_given_back_once_and_fails_with_its_count(
    redis: Redis, database: Database, tenant: TenantId, agent: AgentId, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the fault lasts, a replayed letter comes back with one more attempt; after that it is stored once."""
    with monkeypatch.context() as broken:
        store = readings.store

        async def refuses(tx: Any, rows: Any, *more: Any) -> Any:
            if any(reading.value == POISON for batch in rows.values() for reading in batch):
                raise Invalid("no")
            return await store(tx, rows, *more)

        broken.setattr(readings, "store", refuses)
        await send(redis, tenant, agent, [1.0, POISON])
        worker = make("one")
        await work(worker, redis, tenant)
        (letter,) = (await dead_letters.page(redis, tenant, after=None, limit=10)).letters
        assert letter.attempts == 1
        assert await dead_letter_replay.replay(redis, tenant, [letter], high_water_mark=1000) == 1
        assert await dead_letter_replay.replay(redis, tenant, [letter], high_water_mark=1000) == 0
        await work(worker, redis, tenant)
    (letter,) = (await dead_letters.page(redis, tenant, after=None, limit=10)).letters
    assert letter.attempts == 2
    assert await dead_letter_replay.replay(redis, tenant, [letter], high_water_mark=1000) == 1
    await work(worker, redis, tenant)
    async with database.transaction() as tx:
        balance = await ledger.readings_balance(tx, tenant, agent)
    assert (balance.stored, balance.duplicate) == (2, 0)
    assert (await dead_letters.page(redis, tenant, after=None, limit=10)).letters == []
    assert await ledger_balance.payload_imbalance(redis, database, tenant) == 0


async def test_what_is_discarded_is_gone(
    redis: Redis, database: Database, tenant: TenantId, agent: AgentId, make: Any, poisoned: Counter[str]
) -> None:
    """Its bytes no longer count against the tenant's limit."""
    await send(redis, tenant, agent, [1.0, POISON])
    await work(make("one"), redis, tenant)
    letters = (await dead_letters.page(redis, tenant, after=None, limit=10, reason="refused")).letters
    assert (await dead_letters.page(redis, tenant, after=None, limit=10, reason="other")).letters == []
    assert await dead_letter_replay.discard(redis, tenant, letters) == 1
    assert await dead_letter_replay.discard(redis, tenant, letters) == 0
    assert await dead_letters.get(redis, tenant, letters[0].id) is None
    assert int(await redis.hget(f"tenant:{{{tenant}}}:ledger", "dead_bytes") or 0) == 0
    assert await ledger_balance.payload_imbalance(redis, database, tenant) == 0
