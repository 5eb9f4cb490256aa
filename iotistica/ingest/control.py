"""Reads what must be applied in its order: one consumer of all tenants' control streams, under one lease."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple
from uuid import UUID

from loguru import logger

from iotistica.domain import codec, dictionaries, topics
from iotistica.domain.ids import TenantId
from iotistica.domain.topics import Route
from iotistica.errors import REFUSALS, Conflict, InvalidMessage
from iotistica.instruments import DEAD
from iotistica.storage import completion, lease, ledger, parked, streams
from iotistica.storage import dictionaries as table
from iotistica.storage.completion import Aside
from iotistica.storage.dead_letters import DeadLetter
from iotistica.storage.dictionaries import Known
from iotistica.storage.directory import Directory
from iotistica.storage.ledger import EntryCount
from iotistica.storage.postgres import Database, Tx
from iotistica.storage.redis import Redis
from iotistica.storage.streams import CONTROL, Entry
from iotistica.supervise import sleep

NAME: Final = "control"
DICTIONARY: Final = (b"meta/dictionary", b"meta/dictionary/delta")
TENANTS: Final = 64  # asked at a time
SPACING: Final = 1.0  # seconds between releases of one tenant's parked messages
IDLE: Final = (0.01, 0.1)  # seconds between looks at empty streams: at first, and after many


Revisions = dict[tuple[UUID, int], int]
"""Of agents' dictionaries, by version."""


class Learned(NamedTuple):
    """What a transaction changed and others must hear of once it is committed."""

    tenant: TenantId
    route: Route
    version: int
    known: Known


class Control:
    """Applies messages one by one; an entry is one transaction."""

    def __init__(self, *, redis: Redis, database: Database, directory: Directory) -> None:
        self._redis = redis
        self._database = database
        self._directory = directory
        self._mine: set[TenantId] = set()
        self._turn = 0
        self._news: dict[TenantId, Revisions] = {}
        self._released: dict[TenantId, float] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Apply what comes for as long as the lease is ours; what a predecessor left comes first."""
        async with lease.held(self._redis, "control", stop) as fence:
            if fence is None:
                return
            self._mine.clear()
            idle = IDLE[0]
            while not stop.is_set():
                if await self._round():
                    idle = IDLE[0]
                else:
                    await sleep(idle, stop)
                    idle = min(idle * 1.5, IDLE[1])

    async def _round(self) -> bool:
        """One look at the streams of some tenants, another time of others; whether anything was there."""
        tenants = sorted(await self._directory.tenants())
        if len(tenants) > TENANTS:
            self._turn = (self._turn + TENANTS) % len(tenants)
            tenants = (tenants + tenants)[self._turn : self._turn + TENANTS]
        await self._resume([tenant for tenant in tenants if tenant not in self._mine])
        entries = await streams.read(self._redis, tenants, NAME, count=1, kind=CONTROL)
        for entry in entries:
            await self._apply(entry)
        await self._release()
        return bool(entries)

    async def _resume(self, tenants: Sequence[TenantId]) -> None:
        """Apply first what was read and not finished; the consumer's name is the lease's, so it is all ours."""
        for tenant in tenants:
            while entries := await streams.read_own(self._redis, [tenant], NAME, count=1, kind=CONTROL):
                await self._apply(entries[0])
            self._mine.add(tenant)

    async def _apply(self, entry: Entry) -> None:
        """Apply an entry in one transaction; a message that the database refuses is put aside, and then again."""
        owners = await self._directory.owners({topics.route(topic).agent for topic, _ in entry.messages})
        letters: dict[int, DeadLetter] = {}
        learned: list[Learned] = []
        number = -1
        while True:
            try:
                learned = []
                async with self._database.transaction() as tx:
                    for number, (topic, payload) in enumerate(entry.messages):
                        if number in letters:
                            continue
                        try:
                            learned.append(await self._learn(tx, entry.tenant, topic, payload, owners))
                        except InvalidMessage as exc:
                            letters[number] = _letter(entry, number, exc.code, exc.detail)
                    number = -1
                    dead = sorted(letters)
                    await ledger.count_entries(tx, [EntryCount(*entry.key, 0, len(entry.messages), dead)])
            except Conflict:
                await self._again(entry, letters)
                return
            except REFUSALS as exc:
                if number < 0:
                    raise
                letters[number] = _letter(entry, number, "refused", str(exc))
                continue
            break
        await self._tell(entry, learned, list(letters.values()))

    async def _again(self, entry: Entry, letters: Mapping[int, DeadLetter]) -> None:
        """End an entry that was applied before as it ended then; what it taught is in the database."""
        logger.bind(entry=entry.key[1]).info("was applied before")
        learned: list[Learned] = []
        async with self._database.transaction() as tx:
            found = await ledger.committed(tx, [entry.key])
            dead = found[entry.key].dead
            for number, (topic, payload) in enumerate(entry.messages):
                if number in dead:
                    continue
                route, version = topics.route(topic), _version(payload)
                if version is not None:
                    known = await table.get(tx, entry.tenant, route.agent, version)
                    learned.append(Learned(entry.tenant, route, version, known))
        because = "it could not be applied"
        kept = [letters.get(number) or _letter(entry, number, "refused", because) for number in sorted(dead)]
        await self._tell(entry, learned, kept)

    async def _tell(self, entry: Entry, learned: Sequence[Learned], letters: Sequence[DeadLetter]) -> None:
        """Let others know what is committed, and release what waited for it."""
        for tenant, route, version, known in learned:
            await table.copy(self._redis, tenant, route.agent, version, known)
        await completion.finish(self._redis, [entry], {entry.key: Aside(letters)})
        for letter in letters:
            DEAD.add(1, {"reason": letter.reason})
        for tenant, route, version, known in learned:
            self._news.setdefault(tenant, {})[route.agent, version] = known.revision

    async def _release(self) -> None:
        """Give back what waited for news; seldom for each tenant, since all that is parked is looked through."""
        now = time.monotonic()
        for tenant in [tenant for tenant in self._news if now - self._released.get(tenant, -SPACING) >= SPACING]:
            news = self._news.pop(tenant)
            self._released[tenant] = now
            await parked.release(self._redis, tenant, _is_due(news))

    @staticmethod
    async def _learn(
        tx: Tx, tenant: TenantId, topic: bytes, payload: bytes, owners: Mapping[UUID, TenantId]
    ) -> Learned:
        route = topics.route(topic)
        if owners.get(route.agent) != tenant:
            raise InvalidMessage("unknown_agent")
        if route.rest not in DICTIONARY:
            raise InvalidMessage("bad_topic", "nothing consumes this topic")
        document, is_msgpack = codec.unwrap(payload)
        update = dictionaries.read(codec.decode(document, is_msgpack, object))
        known = await table.learn(tx, tenant, route.agent, update)
        return Learned(tenant, route, update.version, known)


def _version(payload: bytes) -> int | None:
    try:
        document, is_msgpack = codec.unwrap(payload)
        return dictionaries.read(codec.decode(document, is_msgpack, object)).version
    except InvalidMessage:
        return None


def _is_due(news: Revisions) -> Callable[[UUID, int, int], bool]:
    return lambda agent, version, known: news.get((agent, version), -1) > known


def _letter(entry: Entry, number: int, reason: str, detail: str) -> DeadLetter:
    topic, payload = entry.messages[number]
    return DeadLetter(topic, payload, entry.received + number, reason, detail, entry.attempts + 1)
