"""The inbox with a real Valkey and a real disk, through faults and restarts."""

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from iotistica.domain.ids import AgentId, TenantId, agent_topic
from iotistica.errors import Unavailable
from iotistica.platform_alarms import Alarms
from iotistica.storage import redis as redis_
from iotistica.storage.access import tenants
from iotistica.storage.agents.directory import Directory
from iotistica.storage.delivery import dead_letters, stream_stats, streams
from iotistica.storage.delivery.inbox import Inbox, PartlyAcceptedError
from iotistica.storage.delivery.spool import Spool
from iotistica.storage.delivery.spool_segment import Message
from iotistica.storage.delivery.streams import CONTROL, KINDS, LOGS, READINGS, StreamKind
from iotistica.storage.history.audit import PLATFORM
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis
from tests.conftest import Stack
from tests.serving import until

T = TypeVar("T")
AGENT = AgentId(UUID(int=7))
CAP = 1 << 20


def message(tenant: TenantId, number: int, kind: StreamKind = READINGS, size: int = 5) -> Message:
    rest = {CONTROL: "meta/dictionary", LOGS: "logs/x"}.get(kind, "endpoints/x")
    return f"{agent_topic(tenant, AGENT)}/{rest}".encode(), b"%d " % number + b"x" * size


def number_of(payload: bytes) -> int:
    return int(payload.split()[0])


def inbox(
    redis: Redis, directory: Directory, folder: Path, *, high_water_mark: int = 1000, cap: int = CAP
) -> Inbox:
    spool = Spool(folder, cap=cap, segment=600)
    return Inbox(
        "test", redis=redis, directory=directory, spool=spool, high_water_mark=high_water_mark, alarms=Alarms()
    )


class InboxMachine(RuleBasedStateMachine):
    """Accepts, restarts, a Redis that fails before or after it stores, full streams and disk; compared with plain lists."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.patch = pytest.MonkeyPatch()
        self.folder = Path(tempfile.mkdtemp(prefix="iotistica-inbox-"))
        self.number = 0
        self.accepted: list[tuple[TenantId, StreamKind, int]] = []
        self.got: dict[tuple[TenantId, StreamKind], list[int]] = {}
        self.fault = "none"
        self.append = streams.append
        self.run(self.start(stack))
        self.patch.setattr(streams, "append", self.faulty)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    async def start(self, stack: Stack) -> None:
        self.redis = redis_.client(stack.redis_url)
        self.database = Database(
            stack.database_url, size=1, name="machine", role="iotistica_worker", statement_seconds=10
        )
        await self.database.open()
        async with self.database.transaction() as tx:
            self.tenants = [(await tenants.add(tx, f"m {uuid4()}", by=PLATFORM)).tenant_id for _ in range(2)]
        self.directory = Directory(self.database)
        self.inbox = inbox(self.redis, self.directory, self.folder, high_water_mark=3)

    async def faulty(self, *arguments: Any, **options: Any) -> Any:
        if self.fault == "away":
            raise Unavailable("away")
        done = await self.append(*arguments, **options)
        if self.fault == "no answer":
            raise Unavailable("stored, but the reply was lost")
        return done

    @rule(which=st.lists(st.tuples(st.integers(0, 1), st.sampled_from(KINDS)), min_size=1, max_size=4))
    def accept_some(self, which: list[tuple[int, StreamKind]]) -> None:
        self.accept(which)

    def accept(self, which: list[tuple[int, StreamKind]]) -> None:
        """Record accepted messages; refused messages may or may not be stored and are not checked."""
        batch = []
        for tenant, kind in which:
            self.number += 1
            batch.append((self.tenants[tenant], kind, self.number))
        try:
            self.run(self.inbox.accept([message(*item[::2], kind=item[1]) for item in batch]))
        except Unavailable:
            return
        self.accepted += batch

    @rule(tenant=st.integers(0, 1))
    def accept_what_keeps_its_order(self, tenant: int) -> None:
        self.accept([(tenant, CONTROL)])

    @rule(fault=st.sampled_from(["none", "away", "no answer"]))
    def redis_becomes(self, fault: str) -> None:
        self.fault = fault

    @precondition(lambda self: self.fault != "none")
    @rule(is_full=st.booleans())
    def disk_becomes(self, is_full: bool) -> None:
        self.inbox.spool.cap = max(self.inbox.spool.bytes, 1) if is_full else CAP

    @precondition(lambda self: self.inbox.spool.messages)
    @rule(times=st.integers(1, 3))
    def move(self, times: int) -> None:
        for _ in range(times):
            self.run(self.inbox.move())

    @rule(torn=st.binary(max_size=20))
    def restart(self, torn: bytes) -> None:
        """Restart after the process was killed while it wrote a record."""
        self.inbox.spool.close()
        segments = sorted(self.folder.glob("*.segment"))
        if segments:
            with segments[-1].open("ab") as file:
                file.write(torn)
        self.inbox = inbox(self.redis, self.directory, self.folder, high_water_mark=3)

    @precondition(lambda self: self.accepted)
    @rule(count=st.integers(1, 3))
    def consume(self, count: int) -> None:
        """Let a consumer read and remove entries, so that the streams accept messages again."""
        self.run(self.take(count))

    async def take(self, count: int) -> int:
        taken = 0
        for tenant in self.tenants:
            for kind in KINDS:
                await streams.create_groups(self.redis, [tenant], kind)
                entries = await streams.read(self.redis, [tenant], "c", count=count, kind=kind)
                for entry in entries:
                    numbers = [number_of(payload) for _, payload in entry.messages]
                    self.got.setdefault((tenant, kind), []).extend(numbers)
                    await self.redis.xack(kind.stream(tenant), kind.group(tenant), entry.id)
                    await self.redis.xdel(kind.stream(tenant), entry.id)
                taken += len(entries)
        return taken

    @invariant()
    def spool_is_bounded(self) -> None:
        assert self.inbox.spool.bytes <= CAP

    def teardown(self) -> None:
        """In the end no accepted message is missing, and control messages are in order."""
        self.fault = "none"
        self.inbox.spool.cap = CAP
        rounds = 0
        while self.run(self.inbox.move()) or self.run(self.take(100)) or self.inbox.spool.messages:
            rounds += 1
            assert rounds < 1000
        try:
            wanted: dict[tuple[TenantId, StreamKind], list[int]] = {}
            for tenant, kind, number in self.accepted:
                wanted.setdefault((tenant, kind), []).append(number)
            for key, numbers in wanted.items():
                assert set(numbers) <= set(self.got.get(key, ()))
                if key[1] is CONTROL:
                    first = list(dict.fromkeys(number for number in self.got[key] if number in set(numbers)))
                    assert first == numbers
            state = self.run(stream_stats.stream_stats(self.redis, self.tenants, now=0.0))
            assert sum(s.entries for s in state) == 0
            assert sum(s.taken for s in state) == sum(map(len, self.got.values()))
        finally:
            self.patch.undo()
            self.inbox.spool.close()
            self.run(self.database.close())
            self.run(self.redis.aclose())
            self.loop.close()
            shutil.rmtree(self.folder)


def test_nothing_accepted_is_lost_through_faults_and_restarts(stack: Stack) -> None:
    """Random operations, compared with plain lists: each accepted message reaches its stream, control in order."""
    run_state_machine_as_test(
        lambda: InboxMachine(stack),  # type: ignore[arg-type]  # hypothesis takes a function too
        settings=settings(
            max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


async def test_only_the_stream_at_its_mark_goes_to_the_disk(
    redis: Redis, database: Database, tenant: TenantId, tmp_path: Path
) -> None:
    """Other tenants do not wait, and the spooled messages follow once the stream accepts them."""
    async with database.transaction() as tx:
        other = (await tenants.add(tx, f"other {uuid4()}", by=PLATFORM)).tenant_id
    box = inbox(redis, Directory(database), tmp_path, high_water_mark=1)
    await box.accept([message(tenant, 1)])
    await box.accept([message(tenant, 2), message(other, 3)])
    assert box.spool.waiting == Counter({tenant: 1})
    one, two = await stream_stats.stream_stats(redis, [tenant, other], now=0.0)
    assert (one.entries, two.entries) == (1, 1)
    assert not await box.move()
    await redis.xtrim(redis_.readings_stream(tenant), maxlen=0)
    assert await box.move()
    assert not box.spool.messages
    box.spool.close()


async def test_what_is_on_the_disk_is_in_the_ledger(
    redis: Redis, database: Database, tenant: TenantId, tmp_path: Path
) -> None:
    """Spooled messages count as taken and waiting, before and after they are moved; a restart corrects the count."""
    directory = Directory(database)
    box = inbox(redis, directory, tmp_path, high_water_mark=1)
    await box.accept([message(tenant, 1)])
    await box.accept([message(tenant, 2), message(tenant, 3)])
    await box._record_spooled_counts()
    (state,) = await stream_stats.stream_stats(redis, [tenant], now=0.0)
    assert (state.taken, state.waiting, state.spooled) == (3, 3, 2)
    box.spool.close()
    again = inbox(redis, directory, tmp_path, high_water_mark=1)
    await redis.xtrim(redis_.readings_stream(tenant), maxlen=0)
    stop = asyncio.Event()
    running = asyncio.create_task(again.run(stop))

    async def moved() -> bool:
        (state,) = await stream_stats.stream_stats(redis, [tenant], now=0.0)
        return (state.taken, state.waiting, state.spooled) == (3, 3, 0)

    async with asyncio.timeout(10):
        while not await moved():
            await asyncio.sleep(0.05)
    stop.set()
    await running
    again.spool.close()


async def test_many_callers_share_one_write(
    redis: Redis, database: Database, tenant: TenantId, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers that arrive while a batch is stored are stored together in the next, and each gets its result."""
    calls = 0
    append = streams.append

    async def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        return await append(*arguments, **options)

    monkeypatch.setattr(streams, "append", counted)
    box = inbox(redis, Directory(database), tmp_path)
    await asyncio.gather(*(box.accept([message(tenant, n)]) for n in range(100)))
    assert calls <= 3
    (state,) = await stream_stats.stream_stats(redis, [tenant], now=0.0)
    assert state.taken == 100
    box.spool.close()


async def test_when_nothing_takes_them_everybody_is_told(
    redis: Redis, database: Database, tenant: TenantId, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis is unavailable and the spool full: each caller gets the reason, nothing is stored, an alarm is raised."""

    async def away(*_: Any, **__: Any) -> Any:
        raise Unavailable("away")

    monkeypatch.setattr(streams, "append", away)
    box = inbox(redis, Directory(database), tmp_path, cap=1000)
    await box.accept([message(tenant, 1, size=600)])
    told = await asyncio.gather(
        *(box.accept([message(tenant, n, size=300)]) for n in range(5)), return_exceptions=True
    )
    assert all(isinstance(answer, PartlyAcceptedError) and "at its cap" in str(answer) for answer in told)
    assert box.spool.messages == 1
    assert "spool_test_full" not in box._alarms.raised
    box.spool.cap = 700
    assert not await box.move()
    assert "IOTISTICA_SPOOL_MB" in box._alarms.raised["spool_test_full"]
    box.spool.close()


async def test_an_open_breaker_sends_straight_to_the_disk(
    redis: Redis, database: Database, tenant: TenantId, tmp_path: Path
) -> None:
    """Callers do not wait for a Redis that is known to be unavailable; only moving the spool tries it again."""
    away = redis_.client("redis://127.0.0.1:1/0")
    box = inbox(away, Directory(database), tmp_path)
    for number in range(6):
        await box.accept([message(tenant, number)])
    assert away.breaker.state == "open"
    assert box.spool.messages == 6
    box._redis = redis
    for _ in range(6):
        assert await box.move()
    (state,) = await stream_stats.stream_stats(redis, [tenant], now=0.0)
    assert state.taken == 6
    box.spool.close()
    await away.aclose()
    assert until(lambda: not box.spool.messages)


async def test_a_message_of_a_tenant_that_does_not_exist_is_kept_for_the_platform(
    redis: Redis, database: Database, tenant: TenantId, tmp_path: Path
) -> None:
    """It becomes a dead letter with its bytes, in one bounded stream without the oldest; the rest of its batch is stored."""
    box = inbox(redis, Directory(database), tmp_path)
    nobody = TenantId(uuid4().hex[:12])
    await redis.delete(redis_.PLATFORM_DLQ, f"{redis_.PLATFORM_DLQ}:bytes")
    await box.accept([message(nobody, 1), message(tenant, 2)])
    (letter,) = (await dead_letters.page(redis, None, after=None, limit=10)).letters
    assert (letter.reason, letter.payload, letter.is_complete) == ("unknown_tenant", message(nobody, 1)[1], True)
    (state,) = await stream_stats.stream_stats(redis, [tenant], now=0.0)
    assert state.taken == 1
    for number in range(3, 60):
        await box.accept([message(nobody, number, size=1_000_000)])
    letters = (await dead_letters.page(redis, None, after=None, limit=100)).letters
    assert sum(len(letter.payload) for letter in letters) <= dead_letters.UNKNOWN_BYTES_LIMIT
    assert number_of(letters[-1].payload) == 59
    await redis.delete(redis_.PLATFORM_DLQ, f"{redis_.PLATFORM_DLQ}:bytes")
    box.spool.close()


async def test_what_was_taken_is_not_taken_again_when_the_rest_is_tried_again(
    redis: Redis, database: Database, tenant: TenantId, tmp_path: Path
) -> None:
    """One stream and the spool are full: messages of the other stream are stored once, however often it is tried."""
    other = await _new_tenant(database)
    box = inbox(redis, Directory(database), tmp_path, high_water_mark=1)
    await box.accept([message(tenant, 1)])
    box.spool.cap = 1
    batch, received = [message(tenant, 2), message(other, 3)], None
    for _ in range(5):
        with pytest.raises(PartlyAcceptedError) as raised:
            await box.accept(batch, received)
        assert received in (None, raised.value.received)
        batch, received = raised.value.left, raised.value.received
        assert [number_of(payload) for _, payload in batch] == [2]
    (state,) = await stream_stats.stream_stats(redis, [other], now=0.0)
    assert state.taken == 1
    both = await asyncio.gather(
        box.accept([message(tenant, 4)]), box.accept([message(other, 5)]), return_exceptions=True
    )
    assert isinstance(both[0], PartlyAcceptedError)
    assert isinstance(both[1], PartlyAcceptedError)  # its stream is full now
    third = (await _new_tenant(database)), READINGS
    both = await asyncio.gather(
        box.accept([message(tenant, 6)]), box.accept([message(third[0], 7)]), return_exceptions=True
    )
    assert isinstance(both[0], PartlyAcceptedError)
    assert both[1] is None
    box.spool.cap = CAP
    await box.accept(batch, received)
    one, two = await stream_stats.stream_stats(redis, [tenant, other], now=0.0)
    assert (one.taken, two.taken) == (1, 1)
    assert box.spool.waiting == Counter({tenant: 1})
    box.spool.close()


async def _new_tenant(database: Database) -> TenantId:
    async with database.transaction() as tx:
        return (await tenants.add(tx, f"another {uuid4()}", by=PLATFORM)).tenant_id


async def test_what_belongs_to_nobody_does_not_stay_on_the_disk(
    redis: Redis, database: Database, tenant: TenantId, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message with a bad topic, spooled while Redis was unavailable, becomes a dead letter of the platform later."""
    append, is_away = streams.append, True

    async def away(*arguments: Any, **options: Any) -> Any:
        if is_away:
            raise Unavailable("away")
        return await append(*arguments, **options)

    monkeypatch.setattr(streams, "append", away)
    monkeypatch.setattr(dead_letters, "add_for_unknown_tenant", away)
    box = inbox(redis, Directory(database), tmp_path)
    await box.accept([(b"i/nonsense", b"x")])
    assert not box.spool.is_empty
    monkeypatch.undo()
    stop = asyncio.Event()
    running = asyncio.create_task(box.run(stop))
    async with asyncio.timeout(10):
        while not box.spool.is_empty:
            await asyncio.sleep(0.05)
    stop.set()
    await running
    box.spool.close()
