"""Reads batches from the streams and copies their readings into the table."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import date
from typing import Final
from uuid import UUID

from loguru import logger

from iotistica.domain import envelopes, topics
from iotistica.domain.ids import TenantId
from iotistica.domain.readings import Reading, clean_label
from iotistica.domain.topics import Route
from iotistica.errors import Conflict, InvalidMessage
from iotistica.ingest.batch import NEW, Batch, Progress
from iotistica.ingest.catalogue import Catalogue
from iotistica.instruments import BATCH_SECONDS, DEAD, READINGS
from iotistica.storage import ledger, partitions, streams
from iotistica.storage import readings as table
from iotistica.storage.dead_letters import DeadLetter
from iotistica.storage.directory import Directory
from iotistica.storage.ledger import EntryCount
from iotistica.storage.limits import Limit, Limits
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis
from iotistica.storage.streams import Entry, EntryKey
from iotistica.storage.tenants import Tenant
from iotistica.supervise import sleep

MOST_ENTRIES: Final = 64  # in one batch; each holds at most 512 KiB
ROWS: Final = 40_000  # readings in one transaction, and those of one message more
IDLE: Final = (0.01, 0.1)  # seconds between looks at empty streams: at first, and after many
BREATH: Final = 0.01  # seconds of decoding after which others get their turn
TELL_EVERY: Final = 10.0  # seconds between log lines about bad input
TAKE_OVER_EVERY: Final = 15.0  # seconds between looks for entries a dead consumer left


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
        limits: Limits,
        messages: int,
        retention_days: int,
    ) -> None:
        self._name = name
        self._redis = redis
        self._database = database
        self._directory = directory
        self._catalogue = catalogue
        self._limits = limits
        self._messages = messages
        self._count = 1
        self._turn = 0
        self._bad: Counter[str] = Counter()
        self._told = -TELL_EVERY
        self._retention_us = retention_days * partitions.DAY_US
        self._days: set[date] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Store what comes, until `stop`; the batch in hand is finished first."""
        self._days.clear()  # what a crash was about may be a partition that went away
        await self._catch_up(streams.read_own)
        looked, idle = time.monotonic(), IDLE[0]
        while not stop.is_set():
            if time.monotonic() - looked > TAKE_OVER_EVERY:
                await self._catch_up(streams.take_over)
                looked = time.monotonic()
            if entries := await self._read():
                idle = IDLE[0]
                await self._store(entries)
            else:
                await sleep(idle, stop)
                idle = min(idle * 1.5, IDLE[1])

    async def _catch_up(self, left: Callable[..., Awaitable[list[Entry]]]) -> None:
        """Store all that was left: by this consumer when it last stopped, or by one that is gone."""
        tenants = sorted(await self._directory.tenants())
        for at in range(0, len(tenants), MOST_ENTRIES):
            some = tenants[at : at + MOST_ENTRIES]
            while entries := await left(self._redis, some, self._name, count=MOST_ENTRIES // len(some)):
                await self._store(entries, again=True)

    async def _read(self) -> list[Entry]:
        """The next entries: at most `MOST_ENTRIES`, of as many tenants; another time of others."""
        tenants = sorted(await self._directory.tenants())
        if len(tenants) > MOST_ENTRIES:
            self._turn = (self._turn + MOST_ENTRIES) % len(tenants)
            tenants = (tenants + tenants)[self._turn : self._turn + MOST_ENTRIES]
        count = max(1, self._count // max(len(tenants), 1))
        return await streams.read(self._redis, tenants, self._name, count=count)

    async def _store(self, entries: list[Entry], *, again: bool = False) -> None:
        """Store entries, in as many transactions as their readings call for; `again` if some may be stored."""
        messages = sum(len(entry.messages) for entry in entries)
        self._count = max(1, min(MOST_ENTRIES, self._messages * len(entries) // max(messages, 1)))
        progress = await self._committed(entries) if again else {}
        while entries:
            began = time.monotonic()
            batch = await self._decode(entries, progress)
            try:
                stored = await self._commit(batch)
            except Conflict:  # another consumer took an entry over and stored it meanwhile
                progress = await self._committed(entries)
                continue
            progress |= batch.progress
            done = [entry for entry in entries if progress.get(entry.key, NEW).seen == len(entry.messages)]
            entries = entries[len(done) :]
            if done:
                await streams.finish(self._redis, done, {entry.key: progress[entry.key].letters for entry in done})
            self._report(batch, stored, time.monotonic() - began)

    async def _committed(self, entries: list[Entry]) -> dict[EntryKey, Progress]:
        async with self._database.transaction() as tx:
            found = await ledger.committed(tx, [entry.key for entry in entries])
        return {key: Progress(messages, 0, []) for key, messages in found.items()}

    async def _commit(self, batch: Batch) -> table.Stored:
        """Everything a batch says, in one transaction."""
        days = batch.days() - self._days
        if days:
            await partitions.make(self._database, days)
            self._days |= days
        tenants = await self._directory.tenants()
        await self._keep_to_rates(batch, tenants)
        most_series = {t.tenant_id: t.quota_series for t in tenants.values() if t.quota_series is not None}
        rows = {agent: found.values() for agent, found in batch.rows.items()}
        async with self._database.transaction() as tx:
            await ledger.count_entries(tx, batch.entries)
            owners = {agent: count.tenant for agent, count in batch.counts.items()}
            learned, refused = await self._catalogue.write(tx, rows, owners, most_series)
            if refused:
                batch.reject("series_quota", lambda agent, reading: (agent, reading.metric_name) in refused)
            stored = await table.store(tx, rows, batch.counts)
            if batch.rejections:
                await ledger.count_rejections(tx, batch.rejections)
        self._catalogue.learn(learned)
        return stored

    async def _keep_to_rates(self, batch: Batch, tenants: Mapping[TenantId, Tenant]) -> None:
        """Reject what is beyond a tenant's readings a minute."""
        for tenant in {count.tenant for count in batch.counts.values()}:
            bounds = tenants.get(tenant)
            if bounds is None or bounds.quota_readings_minute is None:
                continue
            limit = Limit("readings", bounds.quota_readings_minute)
            left = await self._limits.take(limit, tenant, batch.of(tenant))
            places = iter(range(left))

            def is_beyond(
                agent: UUID, _: Reading, tenant: TenantId = tenant, places: Iterator[int] = places
            ) -> bool:
                return batch.counts[agent].tenant == tenant and next(places, None) is None

            batch.reject("rate_quota", is_beyond)

    async def _decode(self, entries: list[Entry], progress: Mapping[EntryKey, Progress]) -> Batch:
        """The next messages of these entries, in order, until they hold `ROWS` readings."""
        batch, breathed = Batch(), time.monotonic()
        asked = {route.agent for entry in entries for topic, _ in entry.messages if (route := _route(topic))}
        owners = await self._directory.owners(asked)
        for entry in entries:
            stored, seen, letters = progress.get(entry.key, NEW)
            letters, dead_before, first = list(letters), 0, max(stored, seen)
            while seen < len(entry.messages) and batch.found < ROWS:
                # Of what is stored already only the dead letters are wanted: they may not be put aside yet.
                letter = self._decode_one(batch if seen >= stored else Batch(), entry, seen, owners)
                if letter is not None:
                    letters.append(letter)
                    dead_before += seen < first
                seen += 1
                if time.monotonic() - breathed > BREATH:
                    await asyncio.sleep(0)
                    breathed = time.monotonic()
            if seen > first:
                dead = len(letters) - len(progress.get(entry.key, NEW).letters) - dead_before
                batch.entries.append(EntryCount(*entry.key, first, seen - first - dead, dead))
                batch.dead.update(letter.reason for letter in letters[len(letters) - dead :])
            batch.progress[entry.key] = Progress(stored, seen, letters)
            if batch.found >= ROWS:
                break
        return batch

    def _decode_one(
        self, batch: Batch, entry: Entry, number: int, owners: Mapping[UUID, TenantId]
    ) -> DeadLetter | None:
        """Add the readings of one message; returns it as a dead letter if it cannot be understood."""
        topic, payload = entry.messages[number]
        received = entry.received + number  # as the intake stamped them
        try:
            route = topics.route(topic)
            if owners.get(route.agent) != entry.tenant:
                return DeadLetter(topic, payload, received, "unknown_agent", "")
            if route.rest == b"metrics":
                found = envelopes.system_metrics(payload, received=received, retention_us=self._retention_us)
            else:
                protocol = clean_label(topics.protocol_of(route.rest)) or "unknown"
                found = envelopes.parse(
                    payload, protocol=protocol, received=received, retention_us=self._retention_us
                )
        except InvalidMessage as exc:
            return DeadLetter(topic, payload, received, exc.code, str(exc))
        except Exception:  # noqa: BLE001 a fault of ours must cost this message alone
            logger.opt(exception=True).error("a message could not be decoded")
            return DeadLetter(topic, payload, received, "internal_error", "")
        batch.add(entry.tenant, route.agent, found)
        return None

    def _report(self, batch: Batch, stored: table.Stored, seconds: float) -> None:
        READINGS.add(stored.stored, {"outcome": "stored"})
        READINGS.add(stored.duplicate, {"outcome": "duplicate"})
        READINGS.add(stored.conflict + batch.conflicts, {"outcome": "conflict"})
        READINGS.add(sum(batch.rejections.values()), {"outcome": "rejected"})
        BATCH_SECONDS.record(seconds)
        for reason, count in batch.dead.items():
            DEAD.add(count, {"reason": reason})
        self._bad.update(batch.dead)
        for (_, _, reason), count in batch.rejections.items():
            self._bad[reason] += count
        if self._bad and time.monotonic() - self._told > TELL_EVERY:
            logger.bind(**self._bad).warning("bad input set aside")
            self._told = time.monotonic()
            self._bad.clear()


def _route(topic: bytes) -> Route | None:
    try:
        return topics.route(topic)
    except InvalidMessage:
        return None
