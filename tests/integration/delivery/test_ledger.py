"""Both ledgers account for every message and reading at any moment, and a loss raises an alarm."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from iotistica.background import delivery_checks
from iotistica.domain.ids import AgentId, TenantId
from iotistica.errors import Unavailable
from iotistica.ingest import file_import
from iotistica.ingest.file_import import ImportOptions
from iotistica.platform_alarms import Alarms
from iotistica.storage import redis as redis_
from iotistica.storage.delivery import acknowledgement, ledger, ledger_balance, streams
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis
from tests.integration.delivery.test_worker import fill, make

__all__ = ["make"]


async def test_the_balance_is_exact_while_work_is_in_hand(
    redis: Redis,
    database: Database,
    tenant: TenantId,
    agent: AgentId,
    make: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is 0 when entries are appended, read, committed but not acknowledged, acknowledged, and folded."""
    await streams.create_groups(redis, [tenant], streams.READINGS)

    async def is_off() -> int | None:
        return await ledger_balance.payload_imbalance(redis, database, tenant)

    assert await is_off() == 0
    await fill(redis, tenant, agent, 6)
    assert await is_off() == 0
    entries = await streams.read(redis, [tenant], "one", count=3)
    assert await is_off() == 0
    finish = acknowledgement.acknowledge

    async def cut(*_: Any) -> None:
        raise Unavailable("cut")

    monkeypatch.setattr(acknowledgement, "acknowledge", cut)
    with pytest.raises(Unavailable):
        await make("one")._store(entries)
    assert await is_off() == 0
    monkeypatch.setattr(acknowledgement, "acknowledge", finish)
    await make("one")._store(entries, again=True)
    assert await is_off() == 0
    async with database.transaction() as tx:
        later = datetime.now(UTC) + timedelta(minutes=1)
        await ledger.fold_payloads(tx, tenant, before=later, still_open=[])
    assert await is_off() == 0
    assert await ledger_balance.reading_imbalance(database, tenant) == 0


async def test_it_is_exact_under_load(
    redis: Redis, database: Database, tenant: TenantId, agent: AgentId, make: Any
) -> None:
    """The balance is 0 in a hundred checks while messages arrive and are stored."""
    stop = asyncio.Event()
    working = [asyncio.create_task(make(name).run(stop)) for name in ("one", "two")]
    try:
        for number in range(100):
            if number < 60:
                await fill(redis, tenant, agent, 1)
            assert await ledger_balance.payload_imbalance(redis, database, tenant) == 0
    finally:
        stop.set()
        await asyncio.gather(*working)


async def test_a_loss_is_an_alarm(redis: Redis, database: Database, tenant: TenantId, agent: AgentId) -> None:
    """An entry lost by Redis, and rejections that no reading accounts for."""
    alarms = Alarms()
    await streams.create_groups(redis, [tenant], streams.READINGS)
    await fill(redis, tenant, agent, 2)
    await delivery_checks.check_ledgers(redis, database, [tenant], alarms)
    assert not alarms.raised
    await redis.hincrby(redis_.ledger_key(tenant), "waiting", -2)
    await delivery_checks.check_ledgers(redis, database, [tenant], alarms)
    assert f"{tenant} (2 messages, 0 readings)" in alarms.raised["ledger_imbalance"]
    await redis.hincrby(redis_.ledger_key(tenant), "waiting", 2)
    async with database.transaction() as tx:
        await ledger.record_rejections(tx, {(tenant, agent, "too_old"): 3})
    await delivery_checks.check_ledgers(redis, database, [tenant], alarms)
    assert f"{tenant} (0 messages, 3 readings)" in alarms.raised["ledger_imbalance"]


async def test_an_import_is_not_an_alarm(
    redis: Redis, database: Database, tenant: TenantId, agent: AgentId, tmp_path: Path
) -> None:
    """Stored, duplicate and rejected rows of a file balance in the ledgers, before and after they are folded."""
    now, alarms, path = datetime.now(UTC), Alarms(), tmp_path / "history.csv"
    first, second = ((now - timedelta(minutes=n)).isoformat() for n in (1, 2))
    future = (now + timedelta(days=9)).isoformat()
    path.write_text(
        "time,metric,value\n"
        f"{first},level,1\n{second},level,2\n{second},level,2\nyesterday,level,3\n{future},level,4\n"
    )
    for stored, duplicate in ((2, 1), (0, 3)):
        outcome = await file_import.import_file(
            database, path, tenant, agent, ImportOptions("import", 30), on_progress=lambda *_: None
        )
        assert (outcome.rows, outcome.stored, outcome.duplicate) == (5, stored, duplicate)
        assert outcome.rejected == {"bad_time": 1, "future": 1}
        await delivery_checks.check_ledgers(redis, database, [tenant], alarms)
        assert not alarms.raised
    async with database.transaction() as tx:
        await ledger.fold_readings(tx, before=datetime.now(UTC) + timedelta(minutes=1))
        balance = await ledger.readings_balance(tx, tenant, None)
    assert (balance.found, balance.stored, balance.duplicate, balance.rejected) == (10, 2, 4, 4)
    await delivery_checks.check_ledgers(redis, database, [tenant], alarms)
    assert not alarms.raised
