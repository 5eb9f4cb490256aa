"""Reads batches from the readings streams and stores their readings in the database."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import date
from typing import Final
from uuid import UUID

from loguru import logger

from iotistica.disk_space import DiskSpace
from iotistica.domain.delivery.fault_attribution import FaultHistory
from iotistica.domain.ids import TenantId
from iotistica.domain.telemetry.readings import Reading
from iotistica.errors import INVALID_DATA_ERRORS, Conflict, TooSlow, Unavailable
from iotistica.ingest import batch_transaction, live_updates
from iotistica.ingest.batch import EntryProgress, MessageKey, ReadingsBatch
from iotistica.ingest.decoding import NO_LIMIT, Decoder
from iotistica.ingest.series_cache import SeriesCache
from iotistica.ingest.tenant_rotation import TenantRotation
from iotistica.instruments import BATCH_SECONDS, DEAD, READINGS
from iotistica.platform_alarms import Alarms
from iotistica.storage.access.rate_limits import RateLimit, RateLimiter
from iotistica.storage.access.tenants import Tenant
from iotistica.storage.agents.directory import Directory
from iotistica.storage.delivery import acknowledgement, ledger, streams
from iotistica.storage.delivery.live import WatchedAgents
from iotistica.storage.delivery.streams import Entry, EntryKey
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis
from iotistica.storage.telemetry import partitions
from iotistica.storage.telemetry import readings as table
from iotistica.supervise import sleep

MOST_ENTRIES: Final = 64  # entries in one batch; each holds up to 512 KiB
IDLE: Final = 0.01  # seconds to wait after the first read of empty streams
LOG_INTERVAL_SECONDS: Final = 10.0  # seconds between log lines about bad input
TAKE_OVER_EVERY: Final = 5.0  # seconds between searches for entries that a dead consumer left
YOUNG: Final = 30.0  # seconds after a start in which `YOUNG_STALE` applies: probably this process had died
YOUNG_STALE: Final = 3000  # ms
RATE: Final = "readings"
"""Name of the rate limit for a tenant's readings per minute."""
STOPPED: Final = "ingest_stopped"
"""Alarm: most messages cannot be stored, and the platform is probably the cause."""


class Worker:
    """One consumer of the readings streams; several can run side by side, in one process or many."""

    def __init__(
        self,
        name: str,
        *,
        redis: Redis,
        database: Database,
        directory: Directory,
        decoder: Decoder,
        series_cache: SeriesCache,
        rate_limiter: RateLimiter,
        fault_history: FaultHistory,
        alarms: Alarms,
        disk_space: DiskSpace,
        messages: int,
        longest_idle: float,
    ) -> None:
        """Read about `messages` messages at a time; wait up to `longest_idle` seconds when streams are empty."""
        self._name = name
        self._redis = redis
        self._watched = WatchedAgents(redis)
        self._database = database
        self._directory = directory
        self._decoder = decoder
        self._series_cache = series_cache
        self._rate_limiter = rate_limiter
        self._fault_history = fault_history
        self._alarms = alarms
        self._disk_space = disk_space
        self._messages = messages
        self._longest_idle = longest_idle
        self._count = 1
        self._rotation = TenantRotation(MOST_ENTRIES)
        self._bad: Counter[str] = Counter()
        self._reported = -LOG_INTERVAL_SECONDS
        self._days: set[date] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Store readings until `stop`; finishes the current batch first."""
        self._days.clear()  # a missing partition may have caused the last crash
        await self._catch_up(streams.read_pending)
        started = checked_at = time.monotonic()
        idle = IDLE
        while not stop.is_set():
            if self._disk_space.level() == "short":  # readings wait in the streams, where they are durable
                await sleep(self._longest_idle, stop)
                continue
            if time.monotonic() - checked_at > TAKE_OVER_EVERY:
                checked_at = time.monotonic()
                stale = YOUNG_STALE if checked_at - started < YOUNG else streams.STALE_MS
                await self._catch_up(streams.claim_stale, idle=stale)
            if entries := await self._read():
                idle = IDLE
                await self._store(entries)
            else:
                await sleep(idle, stop)
                idle = min(idle * 1.5, self._longest_idle)

    async def _catch_up(self, read_entries: Callable[..., Awaitable[list[Entry]]], **how: int) -> None:
        """Store the entries that `read_entries` returns: unfinished ones of this consumer or of a gone one."""
        tenants = sorted(await self._directory.tenants())
        for at in range(0, len(tenants), MOST_ENTRIES):
            group = tenants[at : at + MOST_ENTRIES]
            while entries := await read_entries(
                self._redis, group, self._name, count=MOST_ENTRIES // len(group), **how
            ):
                await self._store(entries, again=True)

    async def _read(self) -> list[Entry]:
        """Read up to `MOST_ENTRIES` entries of up to as many tenants; more tenants take turns."""
        tenants = self._rotation.next(await self._directory.tenants())
        count = max(1, self._count // max(len(tenants), 1))
        return await streams.read(self._redis, tenants, self._name, count=count)

    async def _store(self, entries: list[Entry], *, again: bool = False) -> None:
        """Store entries, in as many transactions as their readings require; `again`: some may already be stored.

        A message that cannot be stored is found by halving: a refused batch is tried again with half as many
        messages, until only one is left, which becomes a dead letter.
        """
        messages = sum(len(entry.messages) for entry in entries)
        self._count = max(1, min(MOST_ENTRIES, self._messages * len(entries) // max(messages, 1)))
        progress = await self._committed(entries) if again else {}
        unstorable: dict[MessageKey, str] = {}
        most = NO_LIMIT
        while entries:
            began = time.monotonic()
            batch = await self._decoder.decode(entries, progress, unstorable, most)
            self._check_platform_fault(batch)
            try:
                stored = await self._commit(batch)
            except Conflict:  # another consumer has taken over an entry and stored it
                progress = await self._committed(entries)
                continue
            except TooSlow:
                if batch.messages <= 1:
                    raise
                most = batch.messages // 2
                continue
            except INVALID_DATA_ERRORS as exc:
                self._days.clear()  # a partition may have been dropped meanwhile
                if batch.messages <= 1:
                    if batch.last is None:
                        raise
                    unstorable[batch.last] = str(exc) or type(exc).__name__
                    logger.opt(exception=exc).warning("a message cannot be stored")
                most = max(batch.messages // 2, 1)
                continue
            most = most * 2 if most < NO_LIMIT else NO_LIMIT
            self._fault_history.record(
                batch.messages, {c.tenant for c in batch.counts.values()}, batch.unstorable, batch.faults
            )
            if batch.messages:
                self._alarms.set(STOPPED, None)
            progress |= batch.progress
            done = [e for e in entries if e.key in progress and progress[e.key].seen == len(e.messages)]
            entries = entries[len(done) :]
            if done:
                await acknowledgement.acknowledge(
                    self._redis, done, {entry.key: progress[entry.key].not_stored for entry in done}
                )
            await live_updates.publish_readings(self._redis, self._watched, batch)
            self._report(batch, stored, time.monotonic() - began)

    def _check_platform_fault(self, batch: ReadingsBatch) -> None:
        """Raise `Unavailable` if the platform, not the messages, is at fault; the messages stay in the stream."""
        if not batch.unstorable and not batch.faults:
            return
        if self._fault_history.is_platform_fault(batch.messages, batch.unstorable, batch.faults):
            text = (
                "most messages cannot be stored: no dead letters are created until a batch is stored again;"
                " the log has the cause"
            )
            self._alarms.set(STOPPED, text)
            raise Unavailable(text)

    async def _committed(self, entries: list[Entry]) -> dict[EntryKey, EntryProgress]:
        async with self._database.transaction() as tx:
            committed = await ledger.committed_entries(tx, [entry.key for entry in entries])
        return {key: EntryProgress(before) for key, before in committed.items()}

    async def _commit(self, batch: ReadingsBatch) -> table.StoreResult:
        """Apply rate limits to a batch and store it in one transaction, after creating missing partitions."""
        days = batch.days() - self._days
        if days:
            await partitions.create(self._database, days)
            self._days |= days
        tenants = await self._directory.tenants()
        taken = await self._apply_rate_limits(batch, tenants)
        try:
            return await batch_transaction.store(self._database, self._series_cache, batch, tenants)
        except BaseException:
            for limit, tenant, minute, readings in taken:
                await self._rate_limiter.take(limit, tenant, minute, -readings)
            raise

    async def _apply_rate_limits(
        self, batch: ReadingsBatch, tenants: Mapping[TenantId, Tenant]
    ) -> list[tuple[RateLimit, TenantId, int, int]]:
        """Reject readings above a tenant's quota per minute; returns the counts, so that a failure can revert them.

        Readings count in the minute of their reception, so that a backlog does not exceed the quota.
        """
        taken: list[tuple[RateLimit, TenantId, int, int]] = []
        for tenant in {count.tenant for count in batch.counts.values()}:
            bounds = tenants.get(tenant)
            if bounds is None or bounds.quota_readings_minute is None:
                continue
            limit = RateLimit(RATE, bounds.quota_readings_minute)
            left = 0
            for (owner, minute), readings in batch.minutes.items():
                if owner == tenant:
                    left += await self._rate_limiter.take(limit, tenant, minute, readings)
                    taken.append((limit, tenant, minute, readings))
            places = iter(range(left))

            def exceeds_quota(
                agent: UUID, _: Reading, tenant: TenantId = tenant, places: Iterator[int] = places
            ) -> bool:
                return batch.counts[agent].tenant == tenant and next(places, None) is None

            batch.reject("rate_quota", exceeds_quota)
        return taken

    def _report(self, batch: ReadingsBatch, stored: table.StoreResult, seconds: float) -> None:
        READINGS.add(stored.stored, {"outcome": "stored"})
        READINGS.add(stored.duplicate, {"outcome": "duplicate"})
        READINGS.add(stored.conflict, {"outcome": "conflict"})
        READINGS.add(sum(batch.rejections.values()), {"outcome": "rejected"})
        BATCH_SECONDS.record(seconds)
        for reason, count in batch.dead.items():
            DEAD.add(count, {"reason": reason})
        self._bad.update(batch.dead)
        for (_, _, reason), count in batch.rejections.items():
            self._bad[reason] += count
        if self._bad and time.monotonic() - self._reported > LOG_INTERVAL_SECONDS:
            logger.bind(**self._bad).warning("readings were rejected, or messages became dead letters")
            self._reported = time.monotonic()
            self._bad.clear()
