"""Reads streams whose messages must be applied in order: one consumer for all control streams, one for all logs."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from uuid import UUID

from loguru import logger

from iotistica.domain import codec
from iotistica.domain.access.document_secrets import SecretBox
from iotistica.domain.delivery import key_compaction, topics
from iotistica.domain.delivery.topics import Stream
from iotistica.domain.ids import TenantId
from iotistica.errors import INVALID_DATA_ERRORS, Conflict, Full, InvalidMessage, Superseded, Unavailable
from iotistica.ingest import live_updates
from iotistica.ingest.entry_part import DICTIONARY, EntryPart
from iotistica.ingest.state_reports import StateReports
from iotistica.ingest.tenant_rotation import TenantRotation
from iotistica.instruments import DEAD
from iotistica.storage import lease
from iotistica.storage.agents.directory import Directory
from iotistica.storage.delivery import (
    acknowledgement,
    dead_letters,
    ledger,
    live,
    outbound,
    parked_messages,
    streams,
)
from iotistica.storage.delivery import dictionaries as table
from iotistica.storage.delivery.acknowledgement import NotStored
from iotistica.storage.delivery.dead_letters import NewDeadLetter
from iotistica.storage.delivery.dictionaries import KnownDictionary
from iotistica.storage.delivery.live import LiveUpdate, WatchedAgents
from iotistica.storage.delivery.outbound import OutboundMessage
from iotistica.storage.delivery.streams import READINGS, Entry, Message
from iotistica.storage.postgres import Database, is_database_error
from iotistica.storage.redis import Redis
from iotistica.supervise import sleep

NO_LIMIT: Final = 1 << 30
"""High-water mark for appending measured values: effectively none, since a message being applied cannot wait."""
TENANTS_PER_READ: Final = 64  # tenants whose streams one read covers
RELEASE_SECONDS: Final = 1.0  # seconds between releases of one tenant's parked messages
IDLE_SECONDS: Final = (0.01, 0.1)  # seconds between reads of empty streams: the first wait, and the longest

Revisions = dict[tuple[UUID, int], int]
"""Revisions of dictionaries, by agent and version."""


class OrderedConsumer:
    """Applies messages one by one, entry after entry."""

    def __init__(
        self, name: Stream, *, redis: Redis, database: Database, directory: Directory, box: SecretBox
    ) -> None:
        """`name` names the streams and the lease; `box` seals the secrets that agents repeat in their reports."""
        self._name = name
        self._kind = streams.KIND_BY_NAME[name]
        self._box = box
        self._redis = redis
        self._database = database
        self._directory = directory
        self._fenced = database  # until the lease is held; then each transaction checks the fencing number
        self._resumed: set[TenantId] = set()
        self._rotation = TenantRotation(TENANTS_PER_READ)
        self._watched = WatchedAgents(redis)
        self._new_dictionaries: dict[TenantId, Revisions] = {}
        self._released: dict[TenantId, float] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Apply entries while this process holds the lease, first those that a predecessor left unfinished."""
        async with lease.hold(self._redis, self._name, stop) as fence:
            if fence is None:
                return
            self._fenced = await lease.fenced(self._database, self._name)
            self._resumed.clear()
            idle = IDLE_SECONDS[0]
            while not stop.is_set():
                if await self._round():
                    idle = IDLE_SECONDS[0]
                else:
                    await sleep(idle, stop)
                    idle = min(idle * 1.5, IDLE_SECONDS[1])

    async def _round(self) -> bool:
        """Read and apply one entry of each of some tenants, in turn; return whether there was any entry."""
        tenants = self._rotation.next(await self._directory.tenants())
        await self._resume([tenant for tenant in tenants if tenant not in self._resumed])
        entries = await streams.read(self._redis, tenants, self._name, count=1, kind=self._kind)
        for entry in entries:
            await self._apply(entry)
        await self._release()
        return bool(entries)

    async def _resume(self, tenants: Sequence[TenantId]) -> None:
        """Apply entries that were read but not finished; all holders of the lease use one consumer name."""
        for tenant in tenants:
            while entries := await streams.read_pending(
                self._redis, [tenant], self._name, count=1, kind=self._kind
            ):
                await self._apply(entries[0])
            self._resumed.add(tenant)

    async def _apply(self, entry: Entry) -> None:
        """Apply an entry, in as many transactions as the time its messages take requires.

        A message that the database refuses becomes a dead letter, and the others of its transaction are applied
        again. A message that was committed before a process was killed keeps its outcome.
        """
        owners = await self._directory.owners({topics.route(topic).agent for topic, _ in entry.messages})
        letters: dict[int, NewDeadLetter] = {}
        dictionaries: dict[tuple[UUID, int], KnownDictionary] = {}
        updates: list[LiveUpdate] = []
        replies: list[OutboundMessage] = []
        done, most = 0, len(entry.messages)
        while done < len(entry.messages):
            part = EntryPart(entry, done, letters, StateReports(entry.tenant, self._box), most=most)
            try:
                async with self._fenced.transaction() as tx:
                    await part.apply(tx, self._fenced, owners)
                    await self._append_metrics(entry, part.reports.metrics())
            except Conflict:
                done = await self._resume_after(entry, letters, dictionaries)
                continue
            except (Unavailable, Superseded):
                raise
            except Exception as exc:  # any error must cost only the message that causes it
                if is_database_error(exc):
                    raise  # it would hit every message: they wait until the database is repaired
                if part.at is None:
                    if most == 1:
                        raise
                    most = 1  # apply the messages one by one to find the one at fault
                    continue
                letters[part.at] = _refused(entry, part.at, exc)
                continue
            letters |= part.letters
            dictionaries |= part.dictionaries
            updates += part.reports.news() + part.events.news()
            replies += part.answers.replies
            updates += live_updates.log_updates(
                await self._watched.of_tenant(entry.tenant), entry.tenant, part.lines.batches
            )
            done = part.end
        await live.publish(self._redis, updates)
        try:
            await outbound.enqueue(self._redis, entry.tenant, replies)
        except Full:  # the agent requests again, and a job whose reply is lost is tried again
            logger.bind(tenant=entry.tenant, answers=len(replies)).warning("the queue of answers to agents is full")
        await self._finish(entry, dictionaries, [letters[number] for number in sorted(letters)])

    async def _append_metrics(self, entry: Entry, measured: Sequence[Message]) -> None:
        """Append the measured values of reports to the readings stream.

        This happens before the commit: after a crash they are appended again, and stored only once.
        """
        if measured:
            batch = {(entry.tenant, READINGS): measured}
            await streams.append(self._redis, batch, received=entry.received, high_water_mark=NO_LIMIT)

    async def _resume_after(
        self, entry: Entry, letters: dict[int, NewDeadLetter], dictionaries: dict[tuple[UUID, int], KnownDictionary]
    ) -> int:
        """Return how many messages of an entry were committed before.

        Adds their dead letters to `letters` and their dictionaries to `dictionaries`.
        """
        async with self._fenced.transaction() as tx:
            before = (await ledger.committed_entries(tx, [entry.key]))[entry.key]
            for number, (topic, payload) in enumerate(entry.messages[: before.messages]):
                version = _version(topic, payload)
                if number in before.dead:
                    letters.setdefault(
                        number, dead_letters.of_message(entry, number, "refused", "it could not be applied")
                    )
                elif version is not None:
                    agent = topics.route(topic).agent
                    dictionaries[agent, version] = await table.get(tx, entry.tenant, agent, version)
        for number in [n for n in letters if n < before.messages and n not in before.dead]:
            del letters[number]
        return before.messages

    async def _finish(
        self,
        entry: Entry,
        dictionaries: Mapping[tuple[UUID, int], KnownDictionary],
        letters: Sequence[NewDeadLetter],
    ) -> None:
        """Cache the new dictionaries, acknowledge the entry, and mark parked messages for release."""
        for (agent, version), known in dictionaries.items():
            await table.cache(self._redis, entry.tenant, agent, version, known)
        await acknowledgement.acknowledge(self._redis, [entry], {entry.key: NotStored(letters)})
        for letter in letters:
            DEAD.add(1, {"reason": letter.reason})
        for key, known in dictionaries.items():
            self._new_dictionaries.setdefault(entry.tenant, {})[key] = known.revision

    async def _release(self) -> None:
        """Release parked messages whose dictionary has grown.

        At most every `RELEASE_SECONDS` for each tenant, since a release scans all of its parked messages.
        """
        now = time.monotonic()
        for tenant in [
            tenant
            for tenant in self._new_dictionaries
            if now - self._released.get(tenant, -RELEASE_SECONDS) >= RELEASE_SECONDS
        ]:
            revisions = self._new_dictionaries.pop(tenant)
            self._released[tenant] = now
            await parked_messages.release(self._redis, tenant, _is_due(revisions))


def _version(topic: bytes, payload: bytes) -> int | None:
    if topics.route(topic).subtopic not in DICTIONARY:
        return None
    try:
        document, is_msgpack = codec.unwrap(payload, cap=codec.PAYLOAD_CAP)
        return key_compaction.parse_update(codec.decode(document, is_msgpack, object)).version
    except InvalidMessage:
        return None


def _is_due(revisions: Revisions) -> Callable[[UUID, int, int], bool]:
    return lambda agent, version, known: revisions.get((agent, version), -1) > known


def _refused(entry: Entry, number: int, exc: Exception) -> NewDeadLetter:
    """Return the dead letter of a message that cannot be applied."""
    if isinstance(exc, INVALID_DATA_ERRORS):
        return dead_letters.of_message(entry, number, "refused", str(exc))
    logger.bind(tenant=entry.tenant).opt(exception=exc).error("a message could not be applied")
    return dead_letters.of_message(entry, number, "internal_error", "")
