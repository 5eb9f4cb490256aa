"""Readings are stored once each and counted in the ledger, whatever happens at the same time."""

import asyncio
import os
import random
import secrets
import signal
from datetime import UTC, date, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iotistica.domain.delivery.envelopes import ParsedPayload
from iotistica.domain.ids import AgentId, TenantId
from iotistica.domain.telemetry.readings import Reading
from iotistica.errors import Conflict, IotisticaError, Unavailable
from iotistica.ingest import batch_transaction
from iotistica.ingest.batch import ReadingsBatch
from iotistica.ingest.series_cache import SeriesCache
from iotistica.storage import connections, postgres
from iotistica.storage.agents import agents
from iotistica.storage.agents.directory import Directory
from iotistica.storage.delivery import ledger
from iotistica.storage.delivery.ledger import CommittedEntry, EntryOutcome
from iotistica.storage.history.audit import PLATFORM
from iotistica.storage.postgres import Database
from iotistica.storage.telemetry import partitions, readings
from iotistica.storage.telemetry.readings import AgentCounts, StoreResult
from tests.conftest import Stack

NOW = int(datetime.now(UTC).timestamp() * 1e6)
DAY = partitions.DAY_US


def reading(metric: str = "m", time: int = NOW, value: float | None = 1.0, **changed: object) -> Reading:
    fields = {"quality": "good", "unit": "A", "protocol": "modbus", "extra": None, "anomaly_score": None}
    fields |= {"anomaly_threshold": None, "device_name": None, "device_uuid": None, "endpoint_uuid": None}
    return Reading(**{"time": time, "metric_name": metric, "value": value, "metric": metric, **fields, **changed})  # type: ignore[arg-type]


async def store(database: Database, tenant: TenantId, rows: dict[UUID, list[Reading]]) -> StoreResult:
    days = {partitions.day_of(r.time) for found in rows.values() for r in found}
    await partitions.create(database, days)
    counts = {agent: AgentCounts(tenant, len(found)) for agent, found in rows.items()}
    async with database.transaction() as tx:
        return await readings.store(tx, rows, counts)


async def test_every_column_arrives_exactly(database: Database, tenant: TenantId, agent: AgentId) -> None:
    """PostgreSQL reads exactly the values that the binary COPY packs."""
    rows = [
        reading("a", NOW, 0.1),
        reading("b", NOW + 1, None, quality="bad", unit=None, extra={"text": 'ü"\\', "n": [1, None, 1.5]}),
        reading("c", NOW - 400 * DAY, -1e308, protocol="opcua", anomaly_score=0.5, anomaly_threshold=2.0),
    ]
    assert await store(database, tenant, {agent: rows}) == StoreResult(3, 0, 0)
    async with database.transaction() as tx:
        cursor = await tx.execute(
            "SELECT metric_name, time, value, quality, unit, protocol, extra, anomaly_score, anomaly_threshold"
            " FROM readings WHERE agent_uuid = %(agent)s ORDER BY metric_name",
            {"agent": agent},
        )
        got = await cursor.fetchall()
    at = datetime(1970, 1, 1, tzinfo=UTC)
    assert got == [
        (
            *(r.metric_name, at + timedelta(microseconds=r.time), r.value, r.quality, r.unit, r.protocol),
            *(r.extra or {}, r.anomaly_score, r.anomaly_threshold),
        )
        for r in rows
    ]


async def test_a_replay_adds_no_row_and_a_conflict_is_counted(
    database: Database, tenant: TenantId, agent: AgentId
) -> None:
    """The first stored value wins, and the ledger balances each time."""
    rows: dict[UUID, list[Reading]] = {agent: [reading(time=NOW + n) for n in range(10)]}
    assert await store(database, tenant, rows) == StoreResult(10, 0, 0)
    assert await store(database, tenant, rows) == StoreResult(0, 10, 0)
    changed = [reading(time=NOW + n, value=2.0 if n < 3 else 1.0) for n in range(12)]
    assert await store(database, tenant, {agent: changed}) == StoreResult(2, 10, 3)
    async with database.transaction() as tx:
        balance = await ledger.readings_balance(tx, tenant, agent)
    assert (balance.found, balance.stored, balance.duplicate, balance.conflict) == (32, 12, 20, 3)


async def test_workers_with_the_same_rows_never_deadlock(
    database: Database, tenant: TenantId, stack: Stack
) -> None:
    """All workers lock series and readings in the same order, so that all of them finish."""
    owners = [AgentId(uuid4()) for _ in range(10)]
    async with database.transaction() as tx:
        for owner in owners:
            await agents.add(tx, tenant, owner, "an agent", key=stack.key, by=PLATFORM)
    await partitions.create(database, {partitions.day_of(NOW)})
    rows = [(owner, reading(f"m{n}", NOW + n)) for owner in owners for n in range(100)]

    async def work(seed: int) -> int:
        shuffled = random.Random(seed).sample(rows, len(rows))
        batch: dict[UUID, list[Reading]] = {}
        for owner, row in shuffled:
            batch.setdefault(owner, []).append(row)
        counts = {owner: AgentCounts(tenant, len(found)) for owner, found in batch.items()}
        catalogue = SeriesCache()
        async with database.transaction() as tx:
            await catalogue.write_new(tx, batch, dict.fromkeys(batch, tenant), {})
            return (await readings.store(tx, batch, counts)).stored

    assert sum(await asyncio.gather(*(work(seed) for seed in range(6)))) == len(rows)


@pytest.mark.plain_postgres
async def test_partitions_are_made_once_and_dropped_by_age(database: Database) -> None:
    """Two workers can create the same late day at once; old partitions are dropped whole."""
    days = {date(2019, 3, 1), date(2019, 3, 2)}
    await asyncio.gather(*(partitions.create(database, days) for _ in range(4)))
    async with database.transaction() as tx:
        assert days <= await partitions.existing(tx)
    assert await partitions.drop_before(database, date(2019, 3, 2)) == [date(2019, 3, 1)]
    assert await partitions.drop_before(database, date(2019, 3, 3)) == [date(2019, 3, 2)]


async def test_folding_changes_no_sum(database: Database, tenant: TenantId, agent: AgentId) -> None:
    """Folding turns the ledger's rows into totals without changing any sum, and an entry counts once."""
    entry = [EntryOutcome(tenant, "1-1", 0, 4, [3])]
    async with database.transaction() as tx:
        await ledger.record_entries(tx, entry)
    for _ in range(3):
        await store(database, tenant, {agent: [reading(time=NOW)]})
        async with database.transaction() as tx:
            await ledger.record_rejections(tx, {(tenant, agent, "too_old"): 2})
    async with database.transaction() as tx:
        before = await ledger.readings_balance(tx, tenant, agent), await ledger.payload_totals(tx, tenant)
    later = datetime.now(UTC) + timedelta(minutes=1)
    for _ in range(2):
        async with database.transaction() as tx:
            await ledger.fold_readings(tx, before=later)
            await ledger.fold_payloads(tx, tenant, before=later, still_open=["1-1"])
    async with database.transaction() as tx:
        assert (await ledger.readings_balance(tx, tenant, agent), await ledger.payload_totals(tx, tenant)) == before
        assert await ledger.committed_entries(tx, [(tenant, "1-1"), (tenant, "1-2")]) == {
            (tenant, "1-1"): CommittedEntry(4, frozenset({3}), frozenset())
        }
    with pytest.raises(Conflict):
        async with database.transaction() as tx:
            await ledger.record_entries(tx, entry)  # the entry was still open, and is delivered again
    async with database.transaction() as tx:
        await ledger.fold_payloads(tx, tenant, before=later, still_open=[])
        assert (await ledger.payload_totals(tx, tenant)) == before[1]
        assert await ledger.rejections_by_reason(tx, tenant, agent) == {"too_old": 6}
    assert (before[1].processed, before[1].dead) == (3, 1)


async def test_the_catalogue_writes_a_series_once(database: Database, tenant: TenantId, agent: AgentId) -> None:
    """A known series causes no statement; a new unit is stored, a second device UUID is ignored."""
    catalogue = SeriesCache()
    device, other = str(uuid4()), str(uuid4())

    async def write(row: Reading) -> int:
        async with database.transaction() as tx:
            learned, _ = await catalogue.write_new(tx, {agent: [row]}, {agent: tenant})
        catalogue.remember(learned)
        return len(learned)

    assert await write(reading(device_uuid=device)) == 1
    assert await write(reading(device_uuid=device)) == 0
    assert await write(reading(device_uuid=device, unit="V")) == 1
    assert await write(reading(device_uuid=other, unit="V")) == 1
    async with database.transaction() as tx:
        cursor = await tx.execute("SELECT unit, device_uuid FROM series WHERE agent_uuid = %(a)s", {"a": agent})
        assert await cursor.fetchall() == [("V", UUID(device))]


@given(
    messages=st.lists(
        st.lists(
            st.tuples(st.sampled_from("ab"), st.sampled_from([1.0, 2.0, None]), st.sampled_from(["", "x", "y"]))
        ),
        max_size=4,
    )
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_ledger_does_not_depend_on_how_messages_are_batched(
    database: Database, tenant: TenantId, agent: AgentId, messages: list[list[tuple[str, float | None, str]]]
) -> None:
    """The same messages count as many stored, duplicates and conflicts in one batch as in one batch each."""

    def sent(time: int) -> list[ParsedPayload]:
        return [
            ParsedPayload(
                [
                    reading(name, time, value, extra={"text": text} if text else None)
                    for name, value, text in message
                ],
                {},
            )
            for message in messages
        ]

    async def stored(payloads: list[ParsedPayload]) -> StoreResult:
        batch = ReadingsBatch()
        for payload in payloads:
            batch.add(tenant, agent, payload, NOW)
        await partitions.create(database, batch.days())
        return await batch_transaction.store(database, SeriesCache(), batch, {})

    first, second = (NOW - secrets.randbelow(DAY) for _ in range(2))
    together = await stored(sent(first))
    apart = [await stored([payload]) for payload in sent(second)]
    for field in ("stored", "duplicate", "conflict"):
        assert getattr(together, field) == sum(getattr(result, field) for result in apart)


async def test_the_same_time_twice_in_one_message_is_a_conflict(
    database: Database, tenant: TenantId, agent: AgentId
) -> None:
    """The first value is kept; each other value is a conflict, also where only the text differs."""
    values = [reading(value=1.0), reading(value=2.0), reading(value=1.0), reading(value=1.0, extra={"text": "01"})]
    batch = ReadingsBatch()
    batch.add(tenant, agent, ParsedPayload(values, {"too_old": 1}), NOW)
    await partitions.create(database, batch.days())
    assert await batch_transaction.store(database, SeriesCache(), batch, {}) == StoreResult(1, 3, 2)
    async with database.transaction() as tx:
        balance = await ledger.readings_balance(tx, tenant, agent)
    assert (balance.found, balance.stored, balance.duplicate, balance.conflict, balance.rejected) == (5, 1, 3, 2, 1)


async def test_repeats_of_a_refused_reading_are_refused(tenant: TenantId, agent: AgentId) -> None:
    """A quota counts the readings of one batch as it counts those of several."""
    batch = ReadingsBatch()
    batch.add(tenant, agent, ParsedPayload([reading("a"), reading("b"), reading("a", value=2.0)], {}), NOW)
    batch.reject("series_quota", lambda _, found: found.metric_name == "a")
    assert batch.rejections == {(tenant, agent, "series_quota"): 2}
    assert (batch.counts[agent].found, batch.counts[agent].rejected, batch.repeats) == (3, 2, {agent: []})


async def test_lost_connections_are_unavailable(database: Database, stack: Stack) -> None:
    """A terminated backend raises an error of the platform and does not crash the process."""
    with pytest.raises(IotisticaError):
        async with database.transaction() as tx:
            (pid,) = await (await tx.execute("SELECT pg_backend_pid()")).fetchone() or (0,)
            with psycopg.connect(stack.database_url) as owner:
                owner.execute("SELECT pg_terminate_backend(%s)", (pid,))
            await tx.execute("SELECT 1")


async def test_the_intake_knows_its_tenants_while_the_database_is_away(
    database: Database, tenant: TenantId, agent: AgentId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cached tenants stay known; a lookup of an unknown tenant raises `Unavailable` instead of rejecting it."""
    directory = Directory(database)
    assert await directory.known([tenant]) == {tenant}
    assert await directory.owners([agent, uuid4()]) == {agent: tenant}
    away = Database("postgresql://127.0.0.1:1/none", size=1, name="away", role=None, statement_seconds=1)
    await away.open()
    monkeypatch.setattr(directory, "_database", away)
    monkeypatch.setattr("iotistica.storage.agents.directory.CACHE_SECONDS", 0)
    assert await directory.known([tenant]) == {tenant}
    with pytest.raises(Unavailable):
        await directory.known([TenantId("0123456789ab")])
    await away.close()


async def test_a_server_that_stands_still_holds_nobody(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stalled server blocks neither the waiting caller nor the next one; when it continues, all works as before."""
    monkeypatch.setattr(postgres, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(connections, "CHECK_SECONDS", 0.5)
    frozen = Database(stack.database_url, size=1, name="frozen", role="iotistica_worker", statement_seconds=1)
    await frozen.open()

    async def backend() -> int:
        async with frozen.transaction() as tx:
            row = await (await tx.execute("SELECT pg_backend_pid()")).fetchone()
            assert row is not None
            return int(row[0])

    pid = await backend()
    try:
        with pytest.raises(Unavailable):
            async with asyncio.timeout(10), frozen.transaction() as tx:
                os.kill(pid, signal.SIGSTOP)
                await tx.execute("SELECT 1")
    finally:
        os.kill(pid, signal.SIGCONT)
    pid = await backend()
    os.kill(pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(10):
            assert await backend() != pid
    finally:
        os.kill(pid, signal.SIGCONT)
    await frozen.close()
