"""The ordered consumer: key dictionaries and the messages that wait for them, reported states."""

import asyncio
import json
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from iotistica.background import delivery_checks
from iotistica.domain.access.document_secrets import SecretBox
from iotistica.domain.agents import reported_state
from iotistica.domain.delivery import key_compaction
from iotistica.domain.delivery.key_compaction import NAMES_LIMIT
from iotistica.domain.ids import AgentId, TenantId, agent_topic
from iotistica.errors import Full, Superseded, Unavailable
from iotistica.ingest.ordered_consumer import OrderedConsumer
from iotistica.storage import lease, redis
from iotistica.storage.agents import agents
from iotistica.storage.agents import reported_states as state_rows
from iotistica.storage.agents.directory import Directory
from iotistica.storage.delivery import (
    acknowledgement,
    dead_letter_replay,
    dead_letters,
    dictionaries,
    ledger,
    ledger_balance,
    parked_messages,
    stream_stats,
    streams,
)
from iotistica.storage.delivery.streams import CONTROL, READINGS, StreamKind
from iotistica.storage.history.audit import PLATFORM
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis
from tests.conftest import Stack
from tests.integration.delivery.test_worker import make

__all__ = ["make"]

FIELDS = [{"name": "metric", "domain": "key", "index": 0}, {"name": "value", "domain": "key", "index": 1}]


@asynccontextmanager
async def running(control: OrderedConsumer) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(control.run(stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def eventually(condition: Any) -> None:
    async with asyncio.timeout(15):
        while not await condition():
            await asyncio.sleep(0.02)


async def put(
    redis_: Redis, tenant: TenantId, agent: AgentId, rest: str, *documents: Any, kind: StreamKind = CONTROL
) -> None:
    topic = f"{agent_topic(tenant, agent)}/{rest}".encode()
    messages = [(topic, d if isinstance(d, bytes) else json.dumps(d).encode()) for d in documents]
    now = int(datetime.now(UTC).timestamp() * 1e6)
    await streams.append(redis_, {(tenant, kind): messages}, received=now, high_water_mark=10_000)


async def waiting(redis_: Redis, tenant: TenantId) -> int:
    (state,) = await stream_stats.stream_stats(redis_, [tenant], now=0.0)
    return state.waiting


@pytest.fixture
def control(redis: Redis, database: Database) -> OrderedConsumer:
    return OrderedConsumer(
        "control", redis=redis, database=database, directory=Directory(database), box=SecretBox(bytes(32))
    )


async def test_deltas_add_to_what_is_known_per_version(
    redis: Redis, database: Database, tenant: TenantId, agent: AgentId, control: OrderedConsumer
) -> None:
    """Updates are applied in order; a bad one becomes a dead letter and changes nothing; Redis has a copy."""
    delta = {"version": 4, "metrics": {"x": {"m": 1}}}
    await put(
        *(redis, tenant, agent, "meta/dictionary/delta"),
        {"version": 4, "newFieldsWithDomains": FIELDS[:1]},
        b"{bad",
        {"version": 4, "newFieldsWithDomains": FIELDS[1:]},
        {"version": 4, "metrics": {"x": {str(n): n for n in range(NAMES_LIMIT)}}},
        {"version": 4, "newFieldsWithDomains": FIELDS},
        delta,
    )
    await put(redis, tenant, agent, "meta/other", {"version": 1})
    await put(redis, tenant, AgentId(uuid4()), "meta/dictionary", {"version": 1})
    async with running(control):
        await eventually(lambda: _is(waiting(redis, tenant), 0))
    async with database.transaction() as tx:
        known = await dictionaries.get(tx, tenant, agent, 4)
        payloads = await ledger.payload_totals(tx, tenant)
    assert known.revision == 3
    assert known.dictionary.fields == {"key": {0: "metric", 1: "value"}}
    assert known.dictionary.metrics == {"x": {1: "m"}}
    assert await dictionaries.cached(redis, tenant, agent, 4) == known
    letters = (await dead_letters.page(redis, tenant, after=None, limit=10)).letters
    assert sorted(letter.reason for letter in letters) == [
        "bad_dictionary",
        "bad_json",
        "unknown_agent",
        "unknown_topic",
    ]
    assert (payloads.processed, payloads.dead) == (4, 4)
    assert await ledger_balance.payload_imbalance(redis, database, tenant) == 0


async def _is(actual: Any, wanted: Any) -> bool:
    return bool(await actual == wanted)


async def test_only_the_newest_versions_are_kept(
    redis: Redis, database: Database, tenant: TenantId, agent: AgentId, control: OrderedConsumer
) -> None:
    """Each restart of an agent starts a new version; the oldest versions are deleted."""
    for version in range(12):
        await put(redis, tenant, agent, "meta/dictionary", {"version": version, "newFieldsWithDomains": FIELDS})
    async with running(control):
        await eventually(lambda: _is(waiting(redis, tenant), 0))
    async with database.transaction() as tx:
        revisions = [(await dictionaries.get(tx, tenant, agent, version)).revision for version in range(12)]
    assert revisions == [0] * 4 + [1] * 8


async def test_what_came_too_early_waits_and_is_released_by_its_dictionary(
    redis: Redis, database: Database, tenant: TenantId, agent: AgentId, control: OrderedConsumer, make: Any
) -> None:
    """The message is parked durably, counted as waiting, and stored once when its dictionary is complete."""
    compacted = {"v": 9, "p": [[0, "m"], [1, 2.5]]}
    await put(redis, tenant, agent, "endpoints/x", compacted, {"metric": "plain", "value": 1}, kind=READINGS)
    stop = asyncio.Event()
    working = asyncio.create_task(make("one").run(stop))

    async def is_parked() -> bool:
        (state,) = await stream_stats.stream_stats(redis, [tenant], now=0.0)
        return (state.parked, state.waiting, state.entries) == (1, 1, 0)

    try:
        await eventually(is_parked)
        assert await ledger_balance.payload_imbalance(redis, database, tenant) == 0
        async with running(control):
            await put(redis, tenant, agent, "meta/dictionary", {"version": 9, "newFieldsWithDomains": FIELDS[:1]})
            await asyncio.sleep(0.3)
            await eventually(is_parked)  # half of the dictionary does not release the message
            await put(redis, tenant, agent, "meta/dictionary", {"version": 9, "newFieldsWithDomains": FIELDS})
            await eventually(lambda: _is(waiting(redis, tenant), 0))
    finally:
        stop.set()
        await working
    async with database.transaction() as tx:
        balance, payloads = (
            await ledger.readings_balance(tx, tenant, agent),
            await ledger.payload_totals(tx, tenant),
        )
    assert (balance.found, balance.stored, payloads.processed, payloads.dead) == (2, 2, 4, 0)
    assert await ledger_balance.payload_imbalance(redis, database, tenant) == 0


async def test_a_dictionary_that_comes_while_a_message_is_parked_is_not_missed(
    redis: Redis, database: Database, tenant: TenantId, agent: AgentId, make: Any
) -> None:
    """The worker read before the dictionary arrived and parked after; the periodic check releases the message."""
    await streams.create_groups(redis, [tenant], READINGS)
    await put(redis, tenant, agent, "endpoints/x", {"v": 9, "p": [[0, "m"], [1, 2.5]]}, kind=READINGS)
    worker = make("one")
    await worker._store(await streams.read(redis, [tenant], "one", count=10))
    assert await parked_messages.awaited_dictionaries(redis, tenant) == {(agent, 9)}
    async with database.transaction() as tx:
        update = key_compaction.parse_update({"version": 9, "newFieldsWithDomains": FIELDS})
        await dictionaries.put(tx, tenant, agent, 9, dictionaries.extended(dictionaries.NO_DICTIONARY, update))
    await delivery_checks.release_parked(redis, database, [tenant], datetime.now(UTC))
    assert await parked_messages.awaited_dictionaries(redis, tenant) == set()
    await worker._store(await streams.read(redis, [tenant], "one", count=10))
    async with database.transaction() as tx:
        assert (await ledger.readings_balance(tx, tenant, agent)).stored == 1
    assert await ledger_balance.payload_imbalance(redis, database, tenant) == 0


async def test_a_dictionary_that_never_comes_makes_dead_letters(
    redis: Redis, database: Database, tenant: TenantId, agent: AgentId, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages become dead letters, with their bytes, after an hour, or at once above the limit of parked messages."""
    monkeypatch.setattr(
        "iotistica.storage.delivery.acknowledgement.ACKNOWLEDGE",
        acknowledgement.ACKNOWLEDGE.replace(f"< {acknowledgement.PARKED_LIMIT} and", "< 1 and"),
    )
    await streams.create_groups(redis, [tenant], READINGS)
    compacted = {"v": 9, "p": [[0, "m"], [1, 2.5]]}
    await put(redis, tenant, agent, "endpoints/x", compacted, compacted, kind=READINGS)
    await make("one")._store(await streams.read(redis, [tenant], "one", count=10))

    async def reasons() -> list[tuple[str, str, bytes]]:
        page = await dead_letters.page(redis, tenant, after=None, limit=10)
        return [(letter.reason, letter.detail, letter.payload) for letter in page.letters]

    raw = json.dumps(compacted).encode()
    assert await reasons() == [("no_dictionary", "too many messages wait for a dictionary", raw)]
    assert await parked_messages.expire(redis, tenant, now=time.time() + parked_messages.PATIENCE_SECONDS - 60) == 0
    assert await parked_messages.expire(redis, tenant, now=time.time() + parked_messages.PATIENCE_SECONDS + 60) == 1
    assert (await reasons())[1] == ("no_dictionary", "its dictionary did not come in time", raw)
    assert await waiting(redis, tenant) == 0
    assert await ledger_balance.payload_imbalance(redis, database, tenant) == 0


async def test_an_interruption_applies_nothing_twice(
    redis: Redis,
    database: Database,
    tenant: TenantId,
    agent: AgentId,
    control: OrderedConsumer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Redis fails between the commit and the acknowledgement: the next start finds the entry applied."""
    await put(redis, tenant, agent, "meta/dictionary", {"version": 1, "newFieldsWithDomains": FIELDS}, b"bad")
    finish = acknowledgement.acknowledge

    async def cut(*_: Any) -> None:
        raise Unavailable("cut")

    monkeypatch.setattr(acknowledgement, "acknowledge", cut)
    with pytest.raises(Unavailable):
        async with asyncio.timeout(10):
            await control.run(asyncio.Event())
    monkeypatch.setattr(acknowledgement, "acknowledge", finish)
    async with running(control):
        await eventually(lambda: _is(waiting(redis, tenant), 0))
    async with database.transaction() as tx:
        assert (await dictionaries.get(tx, tenant, agent, 1)).revision == 1
    assert len((await dead_letters.page(redis, tenant, after=None, limit=10)).letters) == 1
    assert await ledger_balance.payload_imbalance(redis, database, tenant) == 0


def test_keys_lie_in_the_tenants_slot() -> None:
    """These keys have the tenant's hash tag, like all other keys of a tenant."""
    tenant, agent = TenantId("a" * 12), AgentId(uuid4())
    for key in (redis.control_stream(tenant), redis.parked_stream(tenant), redis.dictionary_key(tenant, agent)):
        assert key.startswith(f"tenant:{{{tenant}}}:")


@pytest.mark.parametrize(
    "bad",
    [
        b'{"version":1,"newFieldsWithDomains":[{"name":"a","domain":"key","index":' + b"9" * 30 + b"}]}",
        b'{"version":1,"x":NaN,"metrics":{"x":{"\\ud800":1}}}',
        b'{"version":1,"metrics":{"x\\u0000":{"\\u0000":1}}}',
        b'{"version":1,"enums":{"unit":{"a":-1}}}',
        b"\x81\xa7version\xcf" + b"\xff" * 8,
    ],
)
async def test_no_dictionary_stops_those_of_others(
    redis: Redis, database: Database, tenant: TenantId, agent: AgentId, control: OrderedConsumer, bad: bytes
) -> None:
    """Huge numbers, half surrogates, NUL: each becomes a dead letter or is cleaned; later messages are applied."""
    await put(redis, tenant, agent, "meta/dictionary", bad)
    await put(redis, tenant, agent, "meta/dictionary", {"version": 5, "newFieldsWithDomains": FIELDS})
    async with running(control):
        await eventually(lambda: _is(waiting(redis, tenant), 0))
    async with database.transaction() as tx:
        assert (await dictionaries.get(tx, tenant, agent, 5)).revision == 1
    assert await ledger_balance.payload_imbalance(redis, database, tenant) == 0


async def test_an_entry_ends_as_it_ended_whatever_has_changed_meanwhile(
    redis: Redis,
    database: Database,
    tenant: TenantId,
    stack: Stack,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A dead letter of a then unknown agent stays one when the agent exists; Redis gets no uncommitted dictionary."""
    newcomer = AgentId(uuid4())
    update = {"version": 1, "newFieldsWithDomains": FIELDS}
    await put(redis, tenant, newcomer, "meta/dictionary", update)
    finish = acknowledgement.acknowledge

    async def cut(*_: Any) -> None:
        raise Unavailable("cut")

    def fresh() -> OrderedConsumer:
        return OrderedConsumer(
            "control", redis=redis, database=database, directory=Directory(database), box=SecretBox(bytes(32))
        )

    monkeypatch.setattr(acknowledgement, "acknowledge", cut)
    with pytest.raises(Unavailable):
        async with asyncio.timeout(10):
            await fresh().run(asyncio.Event())
    async with database.transaction() as tx:
        await agents.add(tx, tenant, newcomer, "late", key=stack.key, by=PLATFORM)
    monkeypatch.setattr(acknowledgement, "acknowledge", finish)
    async with running(fresh()):
        await eventually(lambda: _is(waiting(redis, tenant), 0))
        letters = (await dead_letters.page(redis, tenant, after=None, limit=10)).letters
        assert len(letters) == 1
        assert (await dictionaries.cached(redis, tenant, newcomer, 1)).revision == 0
        with pytest.raises(Full, match="control"):  # the stream that it goes to, whatever the others hold
            await dead_letter_replay.replay(redis, tenant, letters, high_water_mark=0)
        assert await dead_letter_replay.replay(redis, tenant, letters, high_water_mark=100) == 1
        await eventually(lambda: _is(waiting(redis, tenant), 0))
    async with database.transaction() as tx:
        known = await dictionaries.get(tx, tenant, newcomer, 1)
    assert known.revision == 1
    assert await dictionaries.cached(redis, tenant, newcomer, 1) == known
    assert await ledger_balance.payload_imbalance(redis, database, tenant) == 0


async def test_whatever_one_message_breaks_costs_that_message_alone(
    redis: Redis,
    database: Database,
    tenant: TenantId,
    agent: AgentId,
    control: OrderedConsumer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Even on a fault in the platform's code, only that message becomes a dead letter; all others are applied."""
    real = reported_state.merge

    def broken(state: reported_state.ReportedState, report: reported_state.Report) -> reported_state.ReportedState:
        if report.values.get("os_version") == "broken":
            raise RecursionError
        return real(state, report)

    monkeypatch.setattr(reported_state, "merge", broken)
    reports = [{"version": 1, "os_version": word} for word in ("a", "broken", "b")]
    await put(redis, tenant, agent, "state", *({str(agent): report} for report in reports))
    async with running(control):
        await eventually(lambda: _is(waiting(redis, tenant), 0))
    (letter,) = (await dead_letters.page(redis, tenant, after=None, limit=10)).letters
    assert (letter.reason, b"broken" in letter.payload) == ("internal_error", True)
    async with database.transaction() as tx:
        row = await state_rows.get(tx, tenant, agent)
    assert row is not None
    assert row.merged.values["os_version"] == "b"


async def test_a_fault_of_ours_with_the_database_costs_no_message(
    redis: Redis,
    database: Database,
    tenant: TenantId,
    agent: AgentId,
    control: OrderedConsumer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A missing table or permission would affect every message: they wait in the stream until it is fixed."""
    await put(redis, tenant, agent, "state", {str(agent): {"version": 1, "os_version": "a"}})
    with monkeypatch.context() as broken:
        broken.setattr(state_rows, "ADD", "INSERT INTO no_such_table VALUES (1)")
        for _ in range(2):  # the supervisor would restart it like this
            with pytest.raises(psycopg.errors.UndefinedTable):
                await asyncio.wait_for(control.run(asyncio.Event()), 15)
    assert (await dead_letters.page(redis, tenant, after=None, limit=10)).letters == []
    async with running(control):
        await eventually(lambda: _is(waiting(redis, tenant), 0))
    async with database.transaction() as tx:
        assert await state_rows.get(tx, tenant, agent) is not None


async def test_who_lost_its_lease_without_knowing_writes_nothing(
    redis: Redis, database: Database, tenant: TenantId, agent: AgentId, control: OrderedConsumer
) -> None:
    """Another process took the lease over: the fencing number in the database has changed."""
    task = asyncio.create_task(control.run(asyncio.Event()))
    await put(redis, tenant, agent, "state", {str(agent): {"version": 1, "os_version": "a"}})
    await eventually(lambda: _is(waiting(redis, tenant), 0))
    await lease.fenced(database, "control")
    await put(redis, tenant, agent, "state", {str(agent): {"version": 1, "os_version": "b"}})
    with pytest.raises(Superseded):
        await asyncio.wait_for(task, 15)
    async with database.transaction() as tx:
        row = await state_rows.get(tx, tenant, agent)
    assert row is not None
    assert row.merged.values["os_version"] == "a"
    async with running(control):
        await eventually(lambda: _is(waiting(redis, tenant), 0))


async def test_payloads_that_cost_more_than_they_say_are_refused(
    redis: Redis, database: Database, tenant: TenantId, agent: AgentId, control: OrderedConsumer
) -> None:
    """Inflated size and number of values are limited; deeply nested connection strings are just encrypted."""
    bomb = zlib.compress(b'{"type":"x","a":[' + b"[]," * 5_000_000 + b"1]}")
    deep = '{"a":' + "[" * 500 + "]" * 500 + "}"
    await put(redis, tenant, agent, "agent/status", bomb)
    await put(redis, tenant, agent, f"jobs/{uuid4()}/update", bomb)
    await put(redis, tenant, agent, "state", {str(agent): {"version": 1, "apps": [[]] * 200_000}})
    endpoints = {"version": 1, "config": {"endpoints": [{"connectionString": deep}]}}
    await put(redis, tenant, agent, "state", {str(agent): endpoints})
    async with running(control):
        await eventually(lambda: _is(waiting(redis, tenant), 0))
    letters = (await dead_letters.page(redis, tenant, after=None, limit=10)).letters
    assert [letter.reason for letter in letters] == ["too_large"] * 3
    async with database.transaction() as tx:
        assert await state_rows.get(tx, tenant, agent) is not None
