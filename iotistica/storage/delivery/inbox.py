"""The inbox: makes received messages durable, in their streams or in the spool, before they are acknowledged."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from loguru import logger

from iotistica.domain.ids import TenantId
from iotistica.errors import Full, NotAccepted, Unavailable
from iotistica.instruments import REFUSED, SPOOL_BYTES, SPOOL_MESSAGES, SPOOLED, TAKEN, TAKEN_BYTES
from iotistica.platform_alarms import Alarms
from iotistica.storage.agents.directory import Directory
from iotistica.storage.delivery import dead_letters, streams
from iotistica.storage.delivery.routing import RoutedMessages, count_by_tenant
from iotistica.storage.delivery.spool import Spool
from iotistica.storage.delivery.spool_segment import Message
from iotistica.storage.delivery.stream_stats import SPOOLED_FIELD
from iotistica.storage.delivery.streams import CONTROL
from iotistica.storage.redis import Redis, guarded, ledger_key
from iotistica.supervise import sleep, wait_for_any

MEMORY_CHECK_SECONDS: Final = 0.5  # seconds between checks of the memory of Redis
QUEUE_BYTES: Final = 32 << 20  # bytes of payloads that can wait here to be stored
RETRY_SECONDS: Final = 0.5  # seconds between attempts to empty the spool
NEARLY_FULL: Final = 0.8  # share of the spool's capacity that raises an alarm


class PartlyAcceptedError(NotAccepted):
    """Some of the messages are durable; pass those in `left` again, with the same `received`."""

    def __init__(self, left: list[Message], received: int, cause: Unavailable) -> None:
        super().__init__(str(cause))
        self.left = left
        self.received = received


class _Waiting(NamedTuple):
    """The messages of one waiting caller; `received` is set if they were passed before."""

    messages: Sequence[Message]
    received: int | None
    done: "asyncio.Future[None]"


class Inbox:
    """The inbox for one protocol (HTTP or MQTT) of one process, with its own spool."""

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
        """A stream with `high_water_mark` entries is full; further messages for it go to the spool."""
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
        self._memory_checked = -MEMORY_CHECK_SECONDS
        self._recorded: Counter[TenantId] | None = None
        self._is_used = False
        self._left: list[Message] | None = None  # rest of the oldest spooled record, after a part was moved

    async def accept(self, messages: Sequence[Message], received: int | None = None) -> None:
        """Make messages durable; when this returns, they can be acknowledged.

        Callers that arrive while a batch is being stored are stored together in the next one.

        Raises `PartlyAcceptedError` with the messages that neither Redis nor the disk stored: the caller must not
        acknowledge them, and passes them again with the error's `received`, so that they keep their receive time.
        """
        size = sum(len(payload) for _, payload in messages)
        if self._queued and self._queued + size > QUEUE_BYTES:
            raise Full("Too many messages wait to be stored.")
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        mine.add_done_callback(_mark_retrieved)
        self._queue.append(_Waiting(messages, received, mine))
        self._queued += size
        async with self._turn:
            if not mine.done():
                await self._serve()
        await mine

    async def _serve(self) -> None:
        """Store the messages of all waiting callers, in the order of their calls."""
        waiting, self._queue, self._queued = self._queue, [], 0
        try:
            new = [caller for caller in waiting if caller.received is None]
            repeated = [[caller] for caller in waiting if caller.received is not None]
            for group in [*repeated, new] if new else repeated:
                await self._store_group(group)
        finally:
            for caller in waiting:
                if not caller.done.done():
                    caller.done.set_exception(Unavailable("The inbox stopped before it stored these messages."))

    async def _store_group(self, group: Sequence[_Waiting]) -> None:
        """Store the messages of some callers as one batch; give each caller the result of its own."""
        messages = [message for caller in group for message in caller.messages]
        received = group[0].received or self._stamp(len(messages))
        left, error = await self._store(messages, received)
        missing = set(map(id, left)) if error else set()
        for caller in group:
            unstored = [message for message in caller.messages if id(message) in missing]
            if caller.done.done():
                continue
            if unstored and error:
                caller.done.set_exception(PartlyAcceptedError(unstored, received, error))
            else:
                caller.done.set_result(None)
        TAKEN.add(len(messages) - len(missing))
        TAKEN_BYTES.add(sum(len(message[1]) for message in messages if id(message) not in missing))

    async def _store(self, messages: list[Message], received: int) -> tuple[list[Message], Unavailable | None]:
        """Append to the streams, else write to the spool; return the messages left by both, and the error."""
        left = messages
        if self._redis.breaker.is_closed:
            try:
                left = await self._append(messages, received, self.spool.ordered)
            except Unavailable as exc:
                logger.bind(inbox=self._name, error=str(exc)).debug("messages go to the spool")
        if not left:
            return [], None
        try:
            await self._write(left, received)
        except Unavailable as exc:
            return left, exc
        return [], None

    def _stamp(self, messages: int) -> int:
        """Return the receive time of a batch in us; its messages are 1 us apart, so that no two share a time.

        A reading without a time gets its message's receive time; two of one metric must not look like duplicates.
        """
        received = max(time.time_ns() // 1000, self._last + 1)
        self._last = received + messages
        return received

    async def _append(
        self, messages: list[Message], received: int, behind: Counter[TenantId] | None = None
    ) -> list[Message]:
        """Append messages to their streams; return those whose stream is full.

        Messages that must keep their order are also returned if the spool has some of the tenant (`behind`).
        """
        routed = RoutedMessages(messages, received)
        routed.move_unknown_tenants(routed.tenants - await self._directory.known(routed.tenants))
        left: list[Message] = []
        if behind:
            for tenant in list(behind):  # a copy, as the thread that empties the spool changes it
                left += routed.streams.pop((tenant, CONTROL), ())
        if routed.streams:
            if time.monotonic() - self._memory_checked > MEMORY_CHECK_SECONDS:
                await streams.check_memory(self._redis)
                self._memory_checked = time.monotonic()
            full = await streams.append(
                self._redis, routed.streams, received=received, high_water_mark=self._high_water_mark
            )
            for key in full:
                left += routed.streams[key]
        for tenant, letters in routed.too_large.items():
            await dead_letters.add(self._redis, tenant, letters)
            REFUSED.add(len(letters), {"reason": "too_large"})
        if routed.unknown:
            await dead_letters.add_for_unknown_tenant(self._redis, routed.unknown)
            for letter in routed.unknown:
                REFUSED.add(1, {"reason": letter.reason})
        return left

    async def _write(self, messages: list[Message], received: int) -> None:
        try:
            await asyncio.to_thread(self.spool.append, received, count_by_tenant(messages), messages)
        finally:
            self._report_spool()
        SPOOLED.add(len(messages))
        self._spooled.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Move the spooled messages to the streams, in order, whenever the streams accept them."""
        while not stop.is_set():
            await asyncio.to_thread(self.spool.check)
            await self._record_spooled_counts()
            if await self.move():
                continue
            self._spooled.clear()
            if not self.spool.is_empty:
                await sleep(RETRY_SECONDS, stop)
            else:
                is_settled = self._recorded == dict(self.spool.waiting) and self.spool.error is None
                await wait_for_any(self._spooled, stop, seconds=None if is_settled else RETRY_SECONDS)

    async def move(self) -> bool:
        """Move the oldest record to the streams; return whether it was removed from the spool."""
        record = await asyncio.to_thread(self.spool.first)
        self._report_spool()
        if record is None:
            return False
        messages = record.messages if self._left is None else self._left
        try:
            self._left = await self._append(messages, record.head.received)
        except Unavailable:
            return False
        if self._left:  # some streams are full
            return False
        self._left = None
        await asyncio.to_thread(self.spool.remove_first)
        return True

    async def _record_spooled_counts(self) -> None:
        """Record in each tenant's ledger how many of its messages are in this spool."""
        now = Counter(self.spool.waiting)
        if now == self._recorded or not self._redis.breaker.is_closed:
            return
        try:
            tenants = set(await self._directory.tenants()) if self._recorded is None else set(self._recorded)
            with guarded(self._redis):
                async with self._redis.pipeline(transaction=False) as pipe:
                    for tenant in tenants | set(now):
                        pipe.hset(ledger_key(tenant), self._field, now[tenant])
                    await pipe.execute()
        except Unavailable:
            return
        self._recorded = now

    def _report_spool(self) -> None:
        labels = {"spool": self._name}
        SPOOL_BYTES.set(self.spool.bytes, labels)
        SPOOL_MESSAGES.set(self.spool.messages, labels)
        error = self.spool.error
        advice = "; free disk space there, or set IOTISTICA_SPOOL_DIR to a folder on another disk"
        self._alarms.set(f"spool_{self._name}_broken", error + advice if error else None)
        damaged = f"{self.spool.damaged} records in the spool were damaged; the files are kept as *.damaged"
        self._alarms.set(f"spool_{self._name}_damaged", damaged if self.spool.damaged else None)
        if bool(self.spool.messages) != self._is_used:
            self._is_used = not self._is_used
            log = logger.bind(spool=self._name, messages=self.spool.messages)
            if self._is_used:
                log.warning("Redis is unavailable or a stream is full; messages wait in the spool, none is lost")
            else:
                log.info("the spool is empty again; all its messages were moved to their streams")
        share = self.spool.bytes / max(self.spool.room(), 1)
        self._alarms.set(
            f"spool_{self._name}_full",
            f"the spool is at {share:.0%} of its capacity or its disk; a full spool accepts no messages:"
            " restore Redis and the database, free disk space, or raise IOTISTICA_SPOOL_MB"
            if share > NEARLY_FULL
            else None,
        )


def _mark_retrieved(future: "asyncio.Future[None]") -> None:
    """Mark the exception of a future as retrieved, in case the caller was canceled."""
    if not future.cancelled():
        future.exception()
