"""What everybody who acknowledges goes through: messages become durable in their streams, or on the disk."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from loguru import logger

from iotistica.alarms import Alarms
from iotistica.domain.ids import TenantId
from iotistica.errors import Full, NotTaken, Unavailable
from iotistica.instruments import REFUSED, SPOOL_BYTES, SPOOL_MESSAGES, SPOOLED, TAKEN, TAKEN_BYTES
from iotistica.storage.agents.directory import Directory
from iotistica.storage.delivery import dead_letters, streams
from iotistica.storage.delivery.routing import RoutedMessages, count_by_tenant
from iotistica.storage.delivery.spool import Spool
from iotistica.storage.delivery.spool_segment import Message
from iotistica.storage.delivery.stream_stats import SPOOLED_FIELD
from iotistica.storage.delivery.streams import CONTROL
from iotistica.storage.redis import Redis, guarded, ledger_key
from iotistica.supervise import sleep, wait_for_any

MEMORY_CHECK_SECONDS: Final = 0.5  # seconds between looks at the memory of Redis
QUEUE_BYTES: Final = 32 << 20  # bytes that callers may have waiting here
RETRY_SECONDS: Final = 0.5  # seconds between tries to empty the spool
NEARLY_FULL: Final = 0.8  # share of the spool's cap that is an alarm


class PartlyAcceptedError(NotTaken):
    """A part of what was brought is durable; `left` is not, and is to be brought again as received then."""

    def __init__(self, left: list[Message], received: int, cause: Unavailable) -> None:
        super().__init__(str(cause))
        self.left = left
        self.received = received


class _Waiting(NamedTuple):
    """What one caller waits for; `received` if it was brought before."""

    messages: Sequence[Message]
    received: int | None
    done: "asyncio.Future[None]"


class Inbox:
    """Of one process and one edge of it, with a spool of its own."""

    def __init__(
        self,
        name: str,
        *,
        redis: Redis,
        directory: Directory,
        spool: Spool,
        high_water_mark: int,
        alarms: Alarms,
    ) -> None:
        """`high_water_mark` is the number of entries of a stream beyond which its messages go to the disk."""
        self._name = name
        self._field = f"{SPOOLED_FIELD}{spool.folder.identity}"
        self._redis = redis
        self._directory = directory
        self.spool = spool
        self._high_water_mark = high_water_mark
        self._alarms = alarms
        self._queue: list[_Waiting] = []
        self._queued = 0
        self._turn = asyncio.Lock()
        self._spooled = asyncio.Event()
        self._last = 0
        self._looked = -MEMORY_CHECK_SECONDS
        self._told: Counter[TenantId] | None = None
        self._is_used = False
        self._left: list[Message] | None = None  # of the oldest record on the disk, where a part of it was moved

    async def accept(self, messages: Sequence[Message], received: int | None = None) -> None:
        """Make messages durable; when this returns they may be acknowledged.

        Callers that arrive while a batch is being stored are stored together in the next one.

        Raises `PartlyAcceptedError` with the messages that neither Redis nor the disk took: the caller must not
        acknowledge them, and passes them again with the error's `received`, so that they keep their receive time.
        """
        size = sum(len(payload) for _, payload in messages)
        if self._queued and self._queued + size > QUEUE_BYTES:
            raise Full("too many messages wait to be stored")
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        mine.add_done_callback(_mark_retrieved)
        self._queue.append(_Waiting(messages, received, mine))
        self._queued += size
        async with self._turn:
            if not mine.done():
                await self._serve()
        await mine

    async def _serve(self) -> None:
        """Take what everybody brought, in the order in which they came."""
        waiting, self._queue, self._queued = self._queue, [], 0
        try:
            new = [brought for brought in waiting if brought.received is None]
            for group in [[brought] for brought in waiting if brought.received is not None] + (
                [new] if new else []
            ):
                await self._take(group)
        finally:
            for brought in waiting:
                if not brought.done.done():
                    brought.done.set_exception(Unavailable("stopped"))

    async def _take(self, group: Sequence[_Waiting]) -> None:
        """Take what some callers brought as one batch, and tell each what became of its own."""
        messages = [message for brought in group for message in brought.messages]
        received = group[0].received or self._stamp(len(messages))
        left, error = await self._store(messages, received)
        missing = set(map(id, left)) if error else set()
        for brought in group:
            mine = [message for message in brought.messages if id(message) in missing]
            if brought.done.done():
                continue
            if mine and error:
                brought.done.set_exception(PartlyAcceptedError(mine, received, error))
            else:
                brought.done.set_result(None)
        TAKEN.add(len(messages) - len(missing))
        TAKEN_BYTES.add(sum(len(message[1]) for message in messages if id(message) not in missing))

    async def _store(self, messages: list[Message], received: int) -> tuple[list[Message], Unavailable | None]:
        """Append to the streams, else write to the disk; what is left in the end, and why."""
        left = messages
        if self._redis.breaker.is_closed:
            try:
                left = await self._append(messages, received, self.spool.ordered)
            except Unavailable as exc:
                logger.bind(inbox=self._name, error=str(exc)).debug("goes to the disk")
        if not left:
            return [], None
        try:
            await self._write(left, received)
        except Unavailable as exc:
            return left, exc
        return [], None

    def _stamp(self, messages: int) -> int:
        """The receive time of a batch, in us; its messages follow a us apart, so that none shares its time.

        A reading that carries no time gets this one, and two of the same metric must not be taken for one.
        """
        received = max(time.time_ns() // 1000, self._last + 1)
        self._last = received + messages
        return received

    async def _append(
        self, messages: list[Message], received: int, behind: Counter[TenantId] | None = None
    ) -> list[Message]:
        """Append messages to their streams; returns those whose stream is at its mark.

        What must keep its order waits behind what is `behind` it on the disk.
        """
        found = RoutedMessages(messages, received)
        found.set_aside(found.tenants - await self._directory.known(found.tenants))
        left: list[Message] = []
        if behind:
            for tenant in list(behind):  # which the thread that empties the spool changes
                left += found.streams.pop((tenant, CONTROL), ())
        if found.streams:
            if time.monotonic() - self._looked > MEMORY_CHECK_SECONDS:
                await streams.check_memory(self._redis)
                self._looked = time.monotonic()
            full = await streams.append(
                self._redis, found.streams, received=received, high_water_mark=self._high_water_mark
            )
            for key in full:
                left += found.streams[key]
        for tenant, letters in found.too_large.items():
            await dead_letters.add(self._redis, tenant, letters)
            REFUSED.add(len(letters), {"reason": "too_large"})
        if found.unknown:
            await dead_letters.add_for_unknown_tenant(self._redis, found.unknown)
            for letter in found.unknown:
                REFUSED.add(1, {"reason": letter.reason})
        return left

    async def _write(self, messages: list[Message], received: int) -> None:
        try:
            await asyncio.to_thread(self.spool.append, received, count_by_tenant(messages), messages)
        finally:
            self._show()
        SPOOLED.add(len(messages))
        self._spooled.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Move what is on the disk to the streams, in its order, whenever they take it."""
        while not stop.is_set():
            await asyncio.to_thread(self.spool.check)
            await self._tell()
            if await self.move():
                continue
            self._spooled.clear()
            if not self.spool.is_empty:
                await sleep(RETRY_SECONDS, stop)
            else:
                is_calm = self._told == dict(self.spool.waiting) and self.spool.error is None
                await wait_for_any(self._spooled, stop, seconds=None if is_calm else RETRY_SECONDS)

    async def move(self) -> bool:
        """Move the oldest record to the streams; whether it is gone from the disk."""
        record = await asyncio.to_thread(self.spool.first)
        self._show()
        if record is None:
            return False
        messages = record.messages if self._left is None else self._left
        try:
            self._left = await self._append(messages, record.head.received)
        except Unavailable:
            return False
        if self._left:  # some streams are at their mark
            return False
        self._left = None
        await asyncio.to_thread(self.spool.remove_first)
        return True

    async def _tell(self) -> None:
        """Note in each tenant's ledger how many of its messages are on this disk."""
        now = Counter(self.spool.waiting)
        if now == self._told or not self._redis.breaker.is_closed:
            return
        try:
            tenants = set(await self._directory.tenants()) if self._told is None else set(self._told)
            with guarded(self._redis):
                async with self._redis.pipeline(transaction=False) as pipe:
                    for tenant in tenants | set(now):
                        pipe.hset(ledger_key(tenant), self._field, now[tenant])
                    await pipe.execute()
        except Unavailable:
            return
        self._told = now

    def _show(self) -> None:
        labels = {"spool": self._name}
        SPOOL_BYTES.set(self.spool.bytes, labels)
        SPOOL_MESSAGES.set(self.spool.messages, labels)
        error = self.spool.error
        advice = "; make room there, or point IOTISTICA_SPOOL_DIR to another disk"
        self._alarms.set(f"spool_{self._name}_broken", error + advice if error else None)
        damaged = f"{self.spool.damaged} records on the disk were damaged; the files are kept as *.damaged"
        self._alarms.set(f"spool_{self._name}_damaged", damaged if self.spool.damaged else None)
        if bool(self.spool.messages) != self._is_used:
            self._is_used = not self._is_used
            log = logger.bind(spool=self._name, messages=self.spool.messages)
            if self._is_used:
                log.warning("Redis is away, or a stream is full: messages wait on the disk, none is lost")
            else:
                log.info("the disk is empty again: all that waited there is in its stream")
        share = self.spool.bytes / max(self.spool.room(), 1)
        self._alarms.set(
            f"spool_{self._name}_full",
            f"the spool is at {share:.0%} of its cap, or of its disk; at the end nothing more is taken:"
            " bring Redis and the database back, make room, or raise IOTISTICA_SPOOL_MB"
            if share > NEARLY_FULL
            else None,
        )


def _mark_retrieved(future: "asyncio.Future[None]") -> None:
    """Let an error count as heard, should whoever brought the messages be gone."""
    if not future.cancelled():
        future.exception()
