"""Reads batches from the streams and copies their readings into the table."""

import asyncio
import time
from collections.abc import Mapping
from datetime import date
from typing import Final
from uuid import UUID

from loguru import logger

from iotistica.domain import envelopes, topics
from iotistica.domain.envelopes import Found
from iotistica.domain.ids import TenantId
from iotistica.domain.readings import Reading
from iotistica.domain.topics import Route
from iotistica.errors import InvalidMessage
from iotistica.ingest.catalogue import Catalogue
from iotistica.instruments import BATCH_SECONDS, DEAD, READINGS
from iotistica.storage import ledger, partitions, streams
from iotistica.storage import readings as table
from iotistica.storage.directory import Directory
from iotistica.storage.ledger import EntryCount
from iotistica.storage.postgres import Database
from iotistica.storage.readings import Count
from iotistica.storage.redis import Redis
from iotistica.storage.streams import DeadLetter, Entry
from iotistica.supervise import sleep

MOST_ENTRIES: Final = 64  # in one batch; each holds at most 512 KiB
IDLE: Final = (0.01, 0.1)  # seconds between looks at empty streams: at first, and after many
IDLE_A_TENANT: Final = 0.0002  # seconds more for each tenant
TAKE_OVER_EVERY: Final = 15.0  # seconds between looks for entries a dead consumer left
DAY_US: Final = 86_400_000_000


class Batch:
    """What a batch of entries says, ready to be stored."""

    def __init__(self) -> None:
        self.rows: dict[UUID, dict[tuple[str, int], Reading]] = {}
        self.counts: dict[UUID, Count] = {}
        self.rejections: dict[tuple[TenantId, UUID, str], int] = {}
        self.dead: dict[TenantId, list[DeadLetter]] = {}
        self.entries: list[EntryCount] = []
        self.conflicts = 0  # the same key with another value, inside the batch

    def add(self, tenant: TenantId, agent: UUID, found: Found) -> None:
        """Add the readings of one payload; the first of a key wins."""
        count = self.counts.get(agent)
        if count is None:
            count = self.counts[agent] = Count(tenant)
            self.rows[agent] = {}
        count.found += len(found.readings)
        rows = self.rows[agent]
        for reading in found.readings:
            first = rows.setdefault((reading.metric_name, reading.time), reading)
            if first is not reading and first.value != reading.value:
                self.conflicts += 1
        for reason, times in found.rejected.items():
            count.found += times
            count.rejected += times
            key = tenant, agent, reason
            self.rejections[key] = self.rejections.get(key, 0) + times

    def days(self) -> set[date]:
        """The days that need a partition."""
        times = {reading.time // DAY_US for rows in self.rows.values() for reading in rows.values()}
        return {partitions.day_of(day * DAY_US) for day in times}


class Worker:
    """One consumer; several may run side by side, in one process or many."""

    def __init__(
        self,
        name: str,
        *,
        redis: Redis,
        database: Database,
        directory: Directory,
        catalogue: Catalogue,
        messages: int,
        retention_days: int,
    ) -> None:
        self._name = name
        self._redis = redis
        self._database = database
        self._directory = directory
        self._catalogue = catalogue
        self._messages = messages
        self._count = 1
        self._retention_us = retention_days * DAY_US
        self._days: set[date] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Store what comes, until `stop`; the batch in hand is finished first."""
        self._days.clear()  # what a crash was about may be a partition that went away
        while entries := await self._left_open():
            await self._store(entries)
        looked, idle = time.monotonic(), IDLE[0]
        while True:
            if entries:
                await self._store(entries)
            if stop.is_set():
                return
            tenants = sorted(await self._directory.tenants())
            if time.monotonic() - looked > TAKE_OVER_EVERY:
                looked = time.monotonic()
                entries = await streams.take_over(self._redis, tenants, self._name, count=self._count)
                if entries:
                    continue
            count = max(1, self._count // max(len(tenants), 1))
            entries = await streams.read(self._redis, tenants, self._name, count=count)
            if entries:
                idle = IDLE[0]
            else:
                await sleep(idle + IDLE_A_TENANT * len(tenants), stop)
                idle = min(idle * 1.5, IDLE[1])

    async def _left_open(self) -> list[Entry]:
        """What this consumer had read and not finished when it last stopped."""
        tenants = sorted(await self._directory.tenants())
        return await streams.read(self._redis, tenants, self._name, count=self._count, own=True)

    async def _store(self, entries: list[Entry]) -> None:
        """Decode, store in one transaction, then acknowledge."""
        began = time.monotonic()
        batch = await self._decode(entries)
        days = batch.days() - self._days
        if days:
            await partitions.make(self._database, days)
            self._days |= days
        rows = {agent: found.values() for agent, found in batch.rows.items()}
        async with self._database.transaction() as tx:
            tenants = {agent: count.tenant for agent, count in batch.counts.items()}
            learned = await self._catalogue.write(tx, rows, tenants)
            stored = await table.store(tx, rows, batch.counts)
            if batch.rejections:
                await ledger.count_rejections(tx, batch.rejections)
            await ledger.count_entries(tx, batch.entries)
        self._catalogue.learn(learned)
        await streams.finish(self._redis, entries, batch.dead)
        messages = sum(len(entry.messages) for entry in entries)
        self._count = max(1, min(MOST_ENTRIES, self._messages * len(entries) // max(messages, 1)))
        _report(batch, stored, time.monotonic() - began)

    async def _decode(self, entries: list[Entry]) -> Batch:
        batch = Batch()
        asked = {route.agent for entry in entries for topic, _ in entry.messages if (route := _route(topic))}
        owners = await self._directory.owners(asked)
        for entry in entries:
            letters = []
            for number, (topic, payload) in enumerate(entry.messages):
                try:
                    self._decode_one(batch, entry, number, owners)
                except InvalidMessage as exc:
                    letters.append(DeadLetter(topic, payload, entry.received, exc.code, str(exc)))
            if letters:
                batch.dead.setdefault(entry.tenant, []).extend(letters)
            total = len(entry.messages)
            batch.entries.append(EntryCount(entry.tenant, entry.id.decode(), total - len(letters), len(letters)))
            await asyncio.sleep(0)  # a large batch must not hold up the loop
        return batch

    def _decode_one(self, batch: Batch, entry: Entry, number: int, owners: Mapping[UUID, TenantId]) -> None:
        topic, payload = entry.messages[number]
        received = entry.received + number  # as the intake stamped them
        route = topics.route(topic)
        if owners.get(route.agent) != entry.tenant:
            raise InvalidMessage("unknown_agent")
        if route.rest == b"metrics":
            found = envelopes.system_metrics(payload, received=received, retention_us=self._retention_us)
        else:
            protocol = topics.protocol_of(route.rest)
            found = envelopes.parse(payload, protocol=protocol, received=received, retention_us=self._retention_us)
        batch.add(entry.tenant, route.agent, found)


def _route(topic: bytes) -> Route | None:
    try:
        return topics.route(topic)
    except InvalidMessage:
        return None


def _report(batch: Batch, stored: table.Stored, seconds: float) -> None:
    READINGS.add(stored.stored, {"outcome": "stored"})
    READINGS.add(stored.duplicate, {"outcome": "duplicate"})
    READINGS.add(stored.conflict + batch.conflicts, {"outcome": "conflict"})
    READINGS.add(sum(batch.rejections.values()), {"outcome": "rejected"})
    BATCH_SECONDS.record(seconds)
    dead: dict[str, int] = {}
    for letter in (letter for letters in batch.dead.values() for letter in letters):
        dead[letter.reason] = dead.get(letter.reason, 0) + 1
    for reason, count in dead.items():
        DEAD.add(count, {"reason": reason})
    if dead or batch.rejections:
        rejected = {reason: 0 for _, _, reason in batch.rejections}
        for (_, _, reason), count in batch.rejections.items():
            rejected[reason] += count
        logger.bind(dead=dead, rejected=rejected).warning("bad input set aside")
