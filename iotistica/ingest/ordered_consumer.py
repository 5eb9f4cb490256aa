"""Reads what is applied message by message: one consumer of all tenants' control streams, or of their logs."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from uuid import UUID

from loguru import logger

from iotistica.domain import codec
from iotistica.domain.access.document_secrets import Box
from iotistica.domain.delivery import key_compaction, topics
from iotistica.domain.delivery.topics import Route, Stream
from iotistica.domain.ids import TenantId
from iotistica.errors import REFUSALS, Conflict, Full, InvalidMessage, Superseded, Unavailable
from iotistica.ingest import job_messages, lifecycle_messages, live_updates, log_messages
from iotistica.ingest.job_messages import Answers
from iotistica.ingest.lifecycle_messages import Signs
from iotistica.ingest.log_messages import Lines
from iotistica.ingest.state_reports import Reports
from iotistica.instruments import DEAD
from iotistica.storage import fences, lease
from iotistica.storage.agents import presence
from iotistica.storage.agents.directory import Directory
from iotistica.storage.delivery import acknowledgement, ledger, live, outbound, parked_messages, streams
from iotistica.storage.delivery import dictionaries as table
from iotistica.storage.delivery.acknowledgement import Aside
from iotistica.storage.delivery.dead_letters import DeadLetter
from iotistica.storage.delivery.dictionaries import Known
from iotistica.storage.delivery.ledger import EntryCount
from iotistica.storage.delivery.live import News, Watched
from iotistica.storage.delivery.outbound import Outgoing
from iotistica.storage.delivery.streams import READINGS, Entry, Message
from iotistica.storage.postgres import Database, Tx, is_about_us
from iotistica.storage.redis import Redis
from iotistica.supervise import sleep

DICTIONARY: Final = (b"meta/dictionary", b"meta/dictionary/delta")
STATE: Final = b"state"
NO_MARK: Final = 1 << 30
"""Entries of a stream beyond which measured values are not appended: what is in hand must find room."""
TENANTS: Final = 64  # asked at a time
PORTION: Final = 3.0  # seconds of messages in one transaction, and those of one message more
SPACING: Final = 1.0  # seconds between releases of one tenant's parked messages
IDLE: Final = (0.01, 0.1)  # seconds between looks at empty streams: at first, and after many

Revisions = dict[tuple[UUID, int], int]
"""Of agents' dictionaries, by version."""


class Control:
    """Applies messages one by one, an entry after the other."""

    def __init__(self, name: Stream, *, redis: Redis, database: Database, directory: Directory, box: Box) -> None:
        """`name` is that of the streams, and of the lease; `box` seals the secrets that reports repeat."""
        self._name = name
        self._kind = streams.OF[name]
        self._box = box
        self._redis = redis
        self._database = database
        self._directory = directory
        self._fence = 0
        self._mine: set[TenantId] = set()
        self._turn = 0
        self._watched = Watched(redis)
        self._news: dict[TenantId, Revisions] = {}
        self._released: dict[TenantId, float] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Apply what comes for as long as the lease is ours; what a predecessor left comes first."""
        async with lease.held(self._redis, self._name, stop) as fence:
            if fence is None:
                return
            async with self._database.transaction() as tx:
                self._fence = await fences.claim(tx, self._name)
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
        entries = await streams.read(self._redis, tenants, self._name, count=1, kind=self._kind)
        for entry in entries:
            await self._apply(entry)
        await self._release()
        return bool(entries)

    async def _resume(self, tenants: Sequence[TenantId]) -> None:
        """Apply first what was read and not finished; the consumer's name is the lease's, so it is all ours."""
        for tenant in tenants:
            while entries := await streams.read_own(self._redis, [tenant], self._name, count=1, kind=self._kind):
                await self._apply(entries[0])
            self._mine.add(tenant)

    async def _apply(self, entry: Entry) -> None:
        """Apply an entry, in as many transactions as its messages take time.

        A message that the database refuses is put aside, and the others of its transaction are applied again. One
        that was applied before, by whoever was killed then, ends as it ended.
        """
        owners = await self._directory.owners({topics.route(topic).agent for topic, _ in entry.messages})
        letters: dict[int, DeadLetter] = {}
        learned: dict[tuple[UUID, int], Known] = {}
        news: list[News] = []
        replies: list[Outgoing] = []
        done, most = 0, len(entry.messages)
        while done < len(entry.messages):
            portion = _Portion(entry, done, letters, Reports(entry.tenant, self._box), most=most)
            try:
                async with self._database.transaction() as tx:
                    await fences.check(tx, self._name, self._fence)
                    await portion.apply(tx, self._database, owners)
                    await self._pass_on(entry, portion.reports.metrics())
            except Conflict:
                done = await self._resume_after(entry, letters, learned)
                continue
            except (Unavailable, Superseded):
                raise
            except Exception as exc:  # whatever it is, it must cost one message, and not everybody's
                if is_about_us(exc):
                    raise  # it would be every message's: they wait until we are mended
                if portion.at is None:
                    if most == 1:
                        raise
                    most = 1  # one of them is at fault: it is found alone
                    continue
                letters[portion.at] = _refused(entry, portion.at, exc)
                continue
            letters |= portion.letters
            learned |= portion.learned
            news += portion.reports.news()
            replies += portion.answers.replies
            news += live_updates.logs(await self._watched.of(entry.tenant), entry.tenant, portion.lines.batches)
            done = portion.end
        await live.publish(self._redis, news)
        try:
            await outbound.send(self._redis, entry.tenant, replies)
        except Full:  # who asked asks again, and a job whose answer is lost is tried again
            logger.bind(tenant=entry.tenant, answers=len(replies)).warning("no room for answers to agents")
        await self._tell(entry, learned, [letters[number] for number in sorted(letters)])

    async def _pass_on(self, entry: Entry, measured: Sequence[Message]) -> None:
        """Give measured values of reports to those who store readings.

        Before the commit: what is applied again after a crash is passed on again, and stored once.
        """
        if measured:
            batch = {(entry.tenant, READINGS): measured}
            await streams.append(self._redis, batch, received=entry.received, mark=NO_MARK)

    async def _resume_after(
        self, entry: Entry, letters: dict[int, DeadLetter], learned: dict[tuple[UUID, int], Known]
    ) -> int:
        """How much of an entry was applied before; what was put aside and learnt then is read back."""
        async with self._database.transaction() as tx:
            before = (await ledger.committed(tx, [entry.key]))[entry.key]
            for number, (topic, payload) in enumerate(entry.messages[: before.messages]):
                version = _version(topic, payload)
                if number in before.dead:
                    letters.setdefault(number, _letter(entry, number, "refused", "it could not be applied"))
                elif version is not None:
                    agent = topics.route(topic).agent
                    learned[agent, version] = await table.get(tx, entry.tenant, agent, version)
        for number in [n for n in letters if n < before.messages and n not in before.dead]:
            del letters[number]
        return before.messages

    async def _tell(
        self, entry: Entry, learned: Mapping[tuple[UUID, int], Known], letters: Sequence[DeadLetter]
    ) -> None:
        """Let others know what is committed, and release what waited for it."""
        for (agent, version), known in learned.items():
            await table.copy(self._redis, entry.tenant, agent, version, known)
        await acknowledgement.finish(self._redis, [entry], {entry.key: Aside(letters)})
        for letter in letters:
            DEAD.add(1, {"reason": letter.reason})
        for key, known in learned.items():
            self._news.setdefault(entry.tenant, {})[key] = known.revision

    async def _release(self) -> None:
        """Give back what waited for news; seldom for each tenant, since all that is parked is looked through."""
        now = time.monotonic()
        for tenant in [tenant for tenant in self._news if now - self._released.get(tenant, -SPACING) >= SPACING]:
            news = self._news.pop(tenant)
            self._released[tenant] = now
            await parked_messages.release(self._redis, tenant, _is_due(news))


class _Portion:
    """The messages of an entry from one on that one transaction applies."""

    def __init__(
        self, entry: Entry, start: int, condemned: Mapping[int, DeadLetter], reports: Reports, *, most: int
    ) -> None:
        self._entry = entry
        self._last = min(start + most, len(entry.messages))
        self.reports = reports
        self.lines, self._signs, self.answers = Lines(entry.tenant), Signs(entry.tenant), Answers(entry.tenant)
        self._start = start
        self._condemned = condemned
        self.end = start
        self.at: int | None = None
        """The message in hand, while there is one."""
        self.letters: dict[int, DeadLetter] = {}
        self.learned: dict[tuple[UUID, int], Known] = {}

    async def apply(self, tx: Tx, database: Database, owners: Mapping[UUID, TenantId]) -> None:
        """Apply messages until they have taken `PORTION`, and write once what they taught."""
        entry, began = self._entry, time.monotonic()
        while self.end < self._last and time.monotonic() - began < PORTION:
            self.at = number = self.end
            if number not in self._condemned:
                try:
                    await self._take(tx, number, owners)
                except InvalidMessage as exc:
                    self.letters[number] = _letter(entry, number, exc.code, exc.detail)
            self.end += 1
            await asyncio.sleep(0)
        if self._last - self._start > 1:
            self.at = None
        refused = await self.reports.write(tx) | await self.answers.write(tx)
        for number, refusal in refused.items():
            self.letters[number] = _letter(entry, number, refusal.code, refusal.detail)
        await self.lines.write(tx, database)
        await self._signs.write(tx)
        await presence.note(tx, entry.tenant, self.answers.agents | self._signs.agents, data=True)
        await presence.note(tx, entry.tenant, {agent for agent, _ in self.lines.batches}, data=False)
        self.at = None
        for (agent, version), known in self.learned.items():
            await table.put(tx, entry.tenant, agent, version, known)
        dead = [n for n in range(self._start, self.end) if n in self._condemned or n in self.letters]
        await ledger.count_entries(tx, [EntryCount(*entry.key, self._start, self.end - self._start, dead)])

    async def _take(self, tx: Tx, number: int, owners: Mapping[UUID, TenantId]) -> None:
        topic, payload = self._entry.messages[number]
        route = topics.route(topic)
        if owners.get(route.agent) != self._entry.tenant:
            raise InvalidMessage("unknown_agent")
        if route.rest == STATE:
            self.reports.add(number, route.agent, payload, self._entry.received + number)
        elif route.rest.startswith(lifecycle_messages.TOPIC):
            self._signs.add(route.agent, route.rest, payload, self._entry.received + number)
        elif route.rest.startswith(job_messages.TOPIC):
            self.answers.add(number, route.agent, route.rest, payload, self._entry.received + number)
        elif route.rest.startswith(log_messages.TOPIC):
            self.lines.add(route.agent, route.rest, payload, self._entry.received + number)
        elif route.rest in DICTIONARY:
            await self._learn(tx, route, payload)
        else:
            raise InvalidMessage("bad_topic", "nothing consumes this topic")

    async def _learn(self, tx: Tx, route: Route, payload: bytes) -> None:
        document, is_msgpack = codec.unwrap(payload, cap=codec.PAYLOAD_CAP)
        update = key_compaction.read(codec.decode(document, is_msgpack, object))
        key = route.agent, update.version
        old = self.learned.get(key) or await table.get(tx, self._entry.tenant, *key)
        self.learned[key] = table.taught(old, update)


def _version(topic: bytes, payload: bytes) -> int | None:
    if topics.route(topic).rest not in DICTIONARY:
        return None
    try:
        document, is_msgpack = codec.unwrap(payload, cap=codec.PAYLOAD_CAP)
        return key_compaction.read(codec.decode(document, is_msgpack, object)).version
    except InvalidMessage:
        return None


def _is_due(news: Revisions) -> Callable[[UUID, int, int], bool]:
    return lambda agent, version, known: news.get((agent, version), -1) > known


def _refused(entry: Entry, number: int, exc: Exception) -> DeadLetter:
    """The letter of a message that cannot be applied."""
    if isinstance(exc, REFUSALS):
        return _letter(entry, number, "refused", str(exc))
    logger.bind(tenant=entry.tenant).opt(exception=exc).error("a message could not be applied")
    return _letter(entry, number, "internal_error", "")


def _letter(entry: Entry, number: int, reason: str, detail: str) -> DeadLetter:
    topic, payload = entry.messages[number]
    return DeadLetter(topic, payload, entry.received + number, reason, detail, entry.attempts + 1)
