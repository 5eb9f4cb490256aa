"""Plain PostgreSQL and TimescaleDB give the same answers for the same readings."""

import contextlib
import random
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest

from iotistica.background import erasures as eraser
from iotistica.background import retention
from iotistica.background import rollups as background
from iotistica.background.retention import RetentionLimits as Kept
from iotistica.domain.ids import AgentId, TenantId
from iotistica.domain.telemetry import aggregates as rules
from iotistica.domain.telemetry.query_plans import plan_query
from iotistica.domain.telemetry.readings import Reading
from iotistica.domain.telemetry.rollup_sources import floor
from iotistica.domain.telemetry.time_grids import grid
from iotistica.domain.time_ranges import parse_interval, parse_zone
from iotistica.errors import CannotStart
from iotistica.storage import schema
from iotistica.storage.access import tenants
from iotistica.storage.agents import agents
from iotistica.storage.alerts import watched_readings
from iotistica.storage.history.audit import PLATFORM
from iotistica.storage.postgres import Database
from iotistica.storage.telemetry import (
    aggregates,
    catalog,
    continuous_aggregates,
    coverage,
    csv_export,
    disk_usage,
    erasures,
    late_readings,
    latest,
    refreshes,
    rollups,
    summaries,
    timeseries,
)
from iotistica.storage.telemetry import timescale as timescale_
from iotistica.storage.telemetry.continuous_aggregates import PolicyAges
from iotistica.storage.telemetry.csv_export import ExportQuery
from tests.conftest import Stack
from tests.databases import fresh, worker_pool
from tests.rollup_oracle import check_query, check_tables, reading, store
from tests.timescale import MISSING, databases

NOW = datetime.now(UTC).replace(microsecond=0)
DAYS = 20  # days of readings, half of them old enough to be compressed
AGES = PolicyAges(raw=730, minutes=730, hours=3650, compress=7)
UUIDS = [UUID(int=(7 << 100) + n) for n in range(2)]


class Engine:
    """A database with one engine, and how its rollups are brought up to date."""

    def __init__(self, url: str, name: str, database: Database) -> None:
        self.url = url
        self.name = name
        self.database = database

    def owner(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url, autocommit=True, prepare_threshold=None)

    async def settle(self) -> None:
        """Run the background work that would otherwise happen within a minute."""
        if self.name == "plain":
            await background.catch_up(self.database, datetime.now(UTC), rollups.DAY)
            return
        async with self.database.transaction() as tx:
            await late_readings.mark_seen(tx)
            (seen,) = await (await tx.execute("SELECT clock_timestamp()")).fetchone() or (NOW,)
        with self.owner() as connection:
            for name in continuous_aggregates.NAMES:
                jobs = "SELECT job_id FROM timescaledb_information.jobs j LEFT JOIN"
                jobs += " timescaledb_information.continuous_aggregates c ON c.view_name = j.hypertable_name OR"
                jobs += (
                    " c.materialization_hypertable_name = j.hypertable_name WHERE proc_name LIKE 'policy_refresh%%'"
                )
                row = connection.execute(f"{jobs} AND view_name = %s".encode(), (name,)).fetchone()
                assert row is not None
                connection.execute("CALL run_job(%s)", (row[0],))
        async with self.database.transaction() as tx:  # as `LateRefreshes` does when it sees these runs
            reached = await refreshes.reached(tx)
            assert reached is not None
            await late_readings.forget_seen(tx, seen + timedelta(milliseconds=1), reached)  # the clock of PGlite

    def compress(self) -> int:
        """Compress the chunks that are old enough, unless the policy already has; return how many are compressed."""
        with self.owner() as connection:
            for (chunk,) in connection.execute("SELECT show_chunks('readings', older_than => interval '7 days')"):
                with contextlib.suppress(psycopg.errors.DuplicateObject):
                    connection.execute("SELECT compress_chunk(%s, if_not_compressed => true)", (chunk,))
            row = connection.execute(
                "SELECT count(*) FROM timescaledb_information.chunks"
                " WHERE hypertable_name = 'readings' AND is_compressed"
            ).fetchone()
            return int(row[0]) if row else 0


@pytest.fixture(scope="module")
def timescale() -> Iterator[str]:
    with databases() as url:
        if url is None:
            pytest.skip(MISSING)
        yield url


ENGINES = [pytest.param("plain", marks=pytest.mark.plain_postgres), "timescaledb"]


@pytest.fixture(params=ENGINES)
async def engine(request: pytest.FixtureRequest, stack: Stack) -> AsyncIterator[Engine]:
    url = stack.database_url if request.param == "plain" else timescale_database(request)
    async with opened(url) as database:
        yield Engine(url, request.param, database)


@pytest.fixture(params=ENGINES)
async def separate_engine(request: pytest.FixtureRequest, stack: Stack) -> AsyncIterator[Engine]:
    """A database without the readings of other tests, because a budget applies to all days of a database."""
    with contextlib.ExitStack() as exits:
        if request.param == "plain":
            url = exits.enter_context(fresh(stack.database_url))
            schema.migrate(url)
        else:
            url = timescale_database(request)
        async with opened(url) as database:
            yield Engine(url, request.param, database)


def timescale_database(request: pytest.FixtureRequest) -> str:
    url = str(request.getfixturevalue("timescale"))
    schema.migrate(url)
    timescale_.apply_policies(url, AGES)
    return url


class opened:
    """A pool like that of the workers, but with one connection, since PGlite has one session."""

    def __init__(self, url: str) -> None:
        self.database = worker_pool(url, size=1, statement_seconds=60)

    async def __aenter__(self) -> Database:
        await self.database.open()
        return self.database

    async def __aexit__(self, *_: object) -> None:
        await self.database.close()


async def make(database: Database, key: bytes = bytes(32)) -> tuple[TenantId, AgentId]:
    agent = AgentId(uuid4())
    async with database.transaction() as tx:
        tenant = (await tenants.add(tx, f"e {uuid4()}", by=PLATFORM)).tenant_id
        await agents.add(tx, tenant, agent, "an agent", key=key, by=PLATFORM)
    return tenant, agent


def history(chance: random.Random, count: int) -> list[Reading]:
    """Return readings of two metrics over the days, some with unusual values."""
    rows = []
    for _ in range(count):
        when = NOW - timedelta(seconds=chance.randrange(60, DAYS * 86_400), milliseconds=chance.randrange(1000))
        value = chance.choice([None, chance.uniform(-1e6, 1e6), chance.gauss(20, 1), 1e300, 1e-300])
        rows.append(reading(chance.choice("ab"), when, value, chance.choice(rollups.LABELS)))
    return rows


async def test_rollups_and_queries_are_those_of_the_readings(engine: Engine) -> None:
    """Rollups and queries stay right through late rows, duplicates and compression, on either engine."""
    chance = random.Random(5)
    tenant, agent = await make(engine.database)
    every: dict[tuple[str, datetime], tuple[float | None, str]] = {}
    for _ in range(4):
        batch = history(chance, 300)
        batch += chance.sample(batch, 40)
        if every:
            batch += [reading(*key, 7.0) for key in chance.sample(sorted(every), 60)]
        stored = await store(engine.database, tenant, agent, batch)
        every = known(batch) | every
        assert stored.stored + stored.duplicate == len({(row.metric_name, row.time) for row in batch})
        await engine.settle()
        async with engine.database.transaction() as tx:
            cursor = await tx.execute("SELECT count(*) FROM readings WHERE agent_uuid = %(a)s", {"a": agent})
            assert await cursor.fetchone() == (len(every),)
            await check_tables(tx, agent, every)
            for width, days in (("7m", 1), ("1h", 9), ("1d", 30), ("1w", 60)):
                since = NOW - timedelta(days=days, seconds=chance.randrange(9000))
                await check_query(tx, tenant, agent, "a", every, width, since, NOW)
        if engine.name == "timescaledb":
            assert engine.compress() > 5


async def test_a_late_reading_is_in_every_answer_at_once(engine: Engine) -> None:
    """Before any refresh has seen it, in buckets of every width, and after it as well; also in compressed days."""
    tenant, agent = await make(engine.database)
    rows = [row for row in history(random.Random(21), 400) if row.metric_name == "a"]
    await store(engine.database, tenant, agent, rows)
    await engine.settle()
    if engine.name == "timescaledb":
        engine.compress()
    every = known(rows)
    for hours in (3, 30, 24 * 9):
        at = floor(NOW - timedelta(hours=hours), rollups.HOUR)
        late = [reading("a", at + timedelta(minutes=5 * n, seconds=7), float(n)) for n in range(10)]
        await store(engine.database, tenant, agent, late)
        every |= known(late)
    for _ in range(2):
        async with engine.database.transaction() as tx:
            for width in ("7m", "1h", "1d"):
                since = NOW - timedelta(days={"7m": 2, "1h": 10, "1d": 15}[width])
                await check_query(tx, tenant, agent, "a", every, width, since, NOW)
        await engine.settle()
    async with engine.database.transaction() as tx:
        covered = await coverage.of_agent(tx, tenant, agent, NOW - timedelta(days=30), NOW)
    assert covered is not None
    assert covered.late_hours == ()


async def test_a_late_reading_of_the_oldest_day_stays_in_every_answer() -> None:
    """No refresh of TimescaleDB includes the first day that is kept; its mark stays, and is read around."""
    with databases() as url:  # a database of its own: other tests measure the days of theirs
        if url is None:
            pytest.skip(MISSING)
        schema.migrate(url)
        timescale_.apply_policies(url, AGES)
        async with opened(url) as database:
            await _store_in_the_oldest_day(Engine(url, "timescaledb", database))


async def _store_in_the_oldest_day(engine: Engine) -> None:
    tenant, agent = await make(engine.database)
    at = floor(NOW - timedelta(days=AGES.raw - 1), rollups.DAY) + timedelta(hours=1)
    # The rollups reach up to newer readings; TimescaleDB computes what is newer than its rollups from the readings.
    await store(engine.database, tenant, agent, [reading("a", NOW - timedelta(days=n), 1.0) for n in (20, 2)])
    await engine.settle()
    every: dict[tuple[str, datetime], tuple[float | None, str]] = {}
    for value in (1.0, 2.0, 3.0):
        late = [reading("a", at + timedelta(minutes=5 * n, seconds=value), value) for n in range(3)]
        await store(engine.database, tenant, agent, late)
        every |= known(late)
        await engine.settle()
        async with engine.database.transaction() as tx:
            for width in ("7m", "1h", "1d"):
                until = at + timedelta(days={"7m": 1, "1h": 10, "1d": 15}[width])
                await check_query(tx, tenant, agent, "a", every, width, at - timedelta(hours=1), until)


async def answers(database: Database, tenant: TenantId, agent: AgentId) -> list[Any]:
    """Return the result of every kind of query."""
    start, end = NOW - timedelta(days=DAYS, hours=3), NOW
    found: list[Any] = []
    async with database.transaction() as tx:
        covered = await coverage.of_agent(tx, tenant, agent, start, end)
        assert covered is not None
        for text, tz in (
            ("1h", None),
            ("1d", "Europe/Zurich"),
            ("1d", "Asia/Kolkata"),
            ("1mo", None),
            ("90s", None),
        ):
            since = max(start, end - timedelta(seconds=parse_interval(text).seconds * 2000))
            for name in ("avg", "min", "max", "sum", "count", "first", "last", "median", "p99"):
                wanted = [rules.named(name)]
                plan = plan_query(parse_interval(text), since, end, wanted, covered, zone=parse_zone(tz))
                series = [(agent, "a"), (agent, "b")]
                rows = await aggregates.buckets(tx, tenant, series, plan.grid, plan.segments, wanted, limit=9999)
                found.append([(text, tz, name), *rows])
        raw = await timeseries.raw_readings(tx, tenant, agent, "a", start=start, end=end, limit=500)
        newest = await latest.latest(tx, tenant, agent, ["a", "b"], now=end, since=start, late_hours=())
        whole = plan_query(parse_interval("1d"), start, end, [rules.named("count")], covered).segments
        found += [raw, newest, await summaries.summarise(tx, tenant, agent, ["a", "b"], whole)]
        entries = await catalog.page(tx, tenant, {}, after=None, now=end, since=start, limit=9)
        found.append([(entry.metric_name, entry.first_time, entry.last_time) for entry in entries])
        found.append(
            await csv_export.read_slice(tx, ExportQuery(tenant, agent, None, None), start, end, most=1 << 24)
        )
    return found


@pytest.mark.plain_postgres
async def test_both_engines_give_the_same_answers(stack: Stack, timescale: str) -> None:
    """Every kind of query over the same readings returns the same on both engines."""
    schema.migrate(timescale)
    got = []
    for name, url in (("plain", stack.database_url), ("timescaledb", timescale)):
        async with opened(url) as database:
            tenant = (TenantId("0e0e0e0e0e0e"), AgentId(UUIDS[0]))
            async with database.transaction() as tx:
                await tenants.add(tx, "the same", tenant[0], by=PLATFORM)
                await agents.add(tx, *tenant, "an agent", key=bytes(32), by=PLATFORM)
            rows = [row for row in history(random.Random(8), 800) if row.value is None or abs(row.value) < 1e200]
            await store(database, *tenant, rows)
            await Engine(url, name, database).settle()
            got.append(await answers(database, *tenant))
    for plain, other in zip(*got, strict=True):
        if isinstance(plain, list) and plain and isinstance(plain[0], tuple) and len(plain[0]) == 3:
            assert len(plain) == len(other)
            for a, b in zip(plain[1:], other[1:], strict=True):
                if isinstance(a, aggregates.Bucket):
                    assert (a.series, a.time, a.readings) == (b.series, b.time, b.readings), plain[0]
                    assert a.values == b.values or a.values == pytest.approx(b.values, rel=1e-9, abs=1e-6), plain[0]
        else:
            assert rounded(plain) == rounded(other)


def rounded(found: Any) -> Any:
    """Round averages to the digits that do not depend on the order of summation."""
    if isinstance(found, list) and found and isinstance(found[0], summaries.Summary):
        return [msgspec.structs.replace(one, avg=one.avg and float(f"{one.avg:.9g}")) for one in found]
    return found


async def test_a_move_to_timescaledb_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A move keeps readings and the rollups of dropped readings; an interrupted move continues where it stopped."""
    with databases() as url:
        if url is None:
            pytest.skip(MISSING)
        with monkeypatch.context() as patch:
            patch.setattr(timescale_, "adopt_if_available", lambda _: None)
            schema.migrate(url)
        async with opened(url) as database:
            tenant, agent = await make(database)
            await store(database, tenant, agent, history(random.Random(3), 500))
            engine = Engine(url, "plain", database)
            await engine.settle()
            old = NOW.replace(hour=0, minute=0, second=0) - timedelta(days=900)
            async with database.transaction() as tx:
                await tx.execute(
                    "INSERT INTO readings_daily SELECT %(old)s, agent_uuid, metric_name, count, good_count,"
                    " uncertain_count, bad_count, stale_count, unknown_count, n, sum, sum_sq, min, max, first,"
                    " first_time, last, last_time FROM readings_daily WHERE agent_uuid = %(agent)s LIMIT 1",
                    {"old": old, "agent": agent},
                )
            await retention.keep(database, Kept(raw=730, minutes=730, hours=3650), NOW)
            before = await answers(database, tenant, agent)
            days = await tables(database, agent)
        copy = timescale_._copy
        with monkeypatch.context() as patch:
            patch.setattr(timescale_, "_copy", fails_at(copy, 5))
            with pytest.raises(ZeroDivisionError):
                timescale_.move(url, AGES, lambda _: None)
        with pytest.raises(CannotStart, match="iotistica timescale"):
            timescale_.apply_policies(url, AGES)
        progress: list[str] = []
        assert timescale_.move(url, AGES, progress.append)
        assert "day 1 of" in progress[0]
        assert not timescale_.move(url, AGES, progress.append)
        timescale_.apply_policies(url, AGES)
        async with opened(url) as database:
            assert await tables(database, agent) == days
            after = await answers(database, tenant, agent)
            assert [rounded(one) for one in before[-5:]] == [rounded(one) for one in after[-5:]]
            assert any(row[1] == old for row in days["readings_daily"])


async def test_a_schema_with_compressed_days_is_updated_and_takes_scores() -> None:
    """TimescaleDB as an earlier version left it: the update runs, and a score reaches also a compressed day."""
    with databases() as url:
        if url is None:
            pytest.skip(MISSING)
        schema._upgrade(url, "0020")
        assert timescale_.move(url, AGES, lambda _: None)
        tenant, agent, times = TenantId("0e0e0e0e0e0e"), UUIDS[0], [NOW - timedelta(days=15), NOW]
        async with opened(url) as database:
            engine = Engine(url, "timescaledb", database)
            with engine.owner() as connection:
                connection.execute("INSERT INTO tenants (tenant_id, name) VALUES (%s, 'old')", (tenant,))
                connection.execute(
                    "INSERT INTO agents (tenant_id, agent_uuid, name) VALUES (%s, %s, 'old')", (tenant, agent)
                )
                connection.cursor().executemany(
                    "INSERT INTO readings (agent_uuid, metric_name, time, value, protocol)"
                    " VALUES (%s, 'a', %s, 1, 'modbus')",
                    [(agent, time) for time in times],
                )
            assert engine.compress() == 1
            assert schema.migrate(url)
            async with database.transaction() as tx:
                for time in times:
                    await watched_readings.set_score(tx, tenant, agent, "a", time, score=0.95, threshold=0.93)
                rows = await tx.execute("SELECT value, anomaly_score, anomaly_threshold FROM readings")
                assert await rows.fetchall() == [(1.0, 0.95, 0.93)] * 2


async def tables(database: Database, agent: AgentId) -> dict[str, list[Any]]:
    """Return the rows of the readings, and the daily counts of the days that are complete."""
    found = {}
    async with database.transaction() as tx:
        for name, columns in (
            ("readings", "metric_name, time, value"),
            ("readings_daily", "metric_name, bucket, count"),
        ):
            statement = f"SELECT {columns} FROM {name} WHERE agent_uuid = %(a)s ORDER BY 1, 2"
            rows = await (await tx.execute(statement, {"a": agent})).fetchall()
            found[name] = [row for row in rows if name == "readings" or row[1] < NOW - timedelta(days=2)]
    return found


def fails_at(copy: Any, number: int) -> Any:
    calls = iter(range(number))

    def copied(*arguments: Any) -> None:
        if next(calls, None) is None:
            raise ZeroDivisionError
        copy(*arguments)

    return copied


async def test_what_is_erased_is_gone_everywhere_and_nothing_else_is(engine: Engine) -> None:
    """An erasure deletes a series to the microsecond, with its rollups, also in compressed and late days.

    The series can be stored again afterwards.
    """
    tenant, agent = await make(engine.database)
    rows = history(random.Random(11), 600)
    await store(engine.database, tenant, agent, rows)
    await engine.settle()
    if engine.name == "timescaledb":
        engine.compress()
    before = NOW - timedelta(hours=30, minutes=7)
    async with engine.database.transaction() as tx:
        await erasures.request_erasure(tx, tenant, agent, device=None, metric="a", before=before, by=PLATFORM)
    for _ in range(DAYS + 3):
        async with engine.database.transaction() as tx:
            one = await erasures.next_open(tx)
            if one is None:
                break
            await erasures.erase_next_day(tx, one)
    every = known(rows)
    left = {key: of for key, of in every.items() if key[0] == "b" or key[1] >= before}
    await engine.settle()
    async with engine.database.transaction() as tx:
        (done,) = await erasures.page(tx, tenant, limit=5)
        assert done.done_at is not None
        assert done.readings == len(every) - len(left)
        await check_tables(tx, agent, left)
        await check_query(tx, tenant, agent, "a", left, "1h", NOW - timedelta(days=9), NOW)
    again = reading("a", before - timedelta(days=3), 5.0)
    assert (await store(engine.database, tenant, agent, [again])).stored == 1
    await engine.settle()
    async with engine.database.transaction() as tx:
        await check_tables(tx, agent, left | known([again]))


async def test_what_a_tenant_is_no_longer_shown_is_deleted(engine: Engine) -> None:
    """A tenant's readings and rollups older than its retention are deleted, and those of no other tenant."""
    mine, other = await make(engine.database), await make(engine.database)
    rows = history(random.Random(12), 300)
    for tenant, agent in (mine, other):
        await store(engine.database, tenant, agent, rows)
    await engine.settle()
    async with engine.database.transaction() as tx:
        await tenants.set_retention(tx, mine[0], 6, by=PLATFORM)
        found = await tenants.find(tx, mine[0])
    assert found is not None
    await eraser.TenantRetention(DAYS + 2).run(engine.database, [found], NOW)
    since = floor(NOW - timedelta(days=6), rollups.DAY)
    async with engine.database.transaction() as tx:
        await check_tables(tx, other[1], known(rows))
        await check_tables(tx, mine[1], {key: of for key, of in known(rows).items() if key[1] >= since})
        found = await tenants.find(tx, mine[0])
        assert found is not None
        assert found.erased_until == since


def known(rows: list[Reading]) -> dict[tuple[str, datetime], tuple[float | None, str]]:
    """Return what is stored of these readings: the first of each key."""
    found: dict[tuple[str, datetime], tuple[float | None, str]] = {}
    for row in rows:
        when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=row.time)
        found.setdefault((row.metric_name, when), (row.value, row.quality))
    return found


async def test_a_budget_of_bytes_drops_the_oldest_days_and_no_rollup(separate_engine: Engine) -> None:
    """Sizes are measured by day; the rollups of readings dropped to save space survive later refreshes."""
    engine = separate_engine
    tenant, agent = await make(engine.database)
    rows = history(random.Random(13), 400)
    await store(engine.database, tenant, agent, rows)
    await engine.settle()
    async with engine.database.transaction() as tx:
        before = await disk_usage.measure(tx)
        days = await (await tx.execute(DAILY, {"a": agent})).fetchall()
    assert before.days == sorted(before.days)
    assert before.total > sum(day.bytes for day in before.days) > 0
    most = before.total - 3 * before.days[0].bytes
    after = await retention.keep_within(engine.database, most, NOW)
    assert after.total <= most
    assert after.days == [day for day in before.days if day.day >= after.days[0].day]
    late = reading("a", NOW - timedelta(hours=5), 1.0)
    await store(engine.database, tenant, agent, [late])
    await engine.settle()
    if engine.name == "timescaledb":
        timescale_.apply_policies(engine.url, AGES)
        await engine.settle()
    async with engine.database.transaction() as tx:
        assert len(await (await tx.execute(DAILY, {"a": agent})).fetchall()) >= len(days)
        covered = await coverage.of_agent(tx, tenant, agent, NOW, NOW)
        assert covered is not None
        assert covered.raw_since.date() == after.days[0].day


async def test_a_tiny_budget_keeps_what_is_shown(separate_engine: Engine) -> None:
    """The days that the rollups still need are kept, whatever the budget says, and nothing is hidden that is there."""
    engine = separate_engine
    tenant, agent = await make(engine.database)
    rows = history(random.Random(14), 400)
    await store(engine.database, tenant, agent, rows)
    await engine.settle()
    async with engine.database.transaction() as tx:
        days = await (await tx.execute(DAILY, {"a": agent})).fetchall()
    for _ in range(2):
        await retention.keep_within(engine.database, 1, NOW)
        await engine.settle()
    async with engine.database.transaction() as tx:
        covered = await coverage.of_agent(tx, tenant, agent, NOW, NOW)
        assert covered is not None
        cursor = await tx.execute(
            "SELECT count(*), count(*) FILTER (WHERE time < %(since)s) FROM readings WHERE agent_uuid = %(a)s",
            {"a": agent, "since": covered.raw_since},
        )
        assert await cursor.fetchone() == (
            len([key for key in known(rows) if key[1] >= covered.raw_since]),
            0,
        )
        assert NOW - timedelta(days=DAYS) < covered.raw_since <= NOW
        assert len(await (await tx.execute(DAILY, {"a": agent})).fetchall()) >= len(days)
    if engine.name == "timescaledb":
        assert covered.raw_since.date() <= NOW.date() - timedelta(days=continuous_aggregates.KEPT_DAYS - 1)
        timescale_.apply_policies(engine.url, AGES)


DAILY = "SELECT metric_name, bucket FROM readings_daily WHERE agent_uuid = %(a)s"


async def test_policies_that_would_erase_a_rollup_are_refused(timescale: str) -> None:
    """A refresh that reaches to where readings are dropped is refused; the platform's own policies never do."""
    schema.migrate(timescale)
    timescale_.apply_policies(timescale, PolicyAges(raw=100, minutes=10, hours=3650, compress=9))
    with psycopg.connect(timescale, autocommit=True, prepare_threshold=None) as connection:
        with pytest.raises(CannotStart, match="at least 5"):
            continuous_aggregates.apply_policies(connection, PolicyAges(raw=4, minutes=10, hours=10, compress=9))
        connection.execute("SELECT remove_retention_policy('readings')")
        connection.execute("SELECT add_retention_policy('readings', interval '3 days')")
        with pytest.raises(CannotStart, match="erase"):
            continuous_aggregates.check_policies(connection)
        continuous_aggregates.apply_policies(connection, AGES)
        continuous_aggregates.check_policies(connection)
    assert grid(parse_interval("1d"), NOW - timedelta(days=1), NOW).starts()
