"""From the broker into the streams: append, then acknowledge, in order."""

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Final

from loguru import logger
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from iotistica.domain import topics
from iotistica.domain.codec import PAYLOAD_CAP
from iotistica.domain.ids import TenantId
from iotistica.errors import InvalidMessage, Unavailable
from iotistica.instruments import PAUSES, REFUSED, TAKEN, TAKEN_BYTES
from iotistica.mqtt.client import Batch, Client, connect
from iotistica.mqtt.protocol import Raw
from iotistica.storage import dead_letters, lease, streams
from iotistica.storage.dead_letters import DeadLetter
from iotistica.storage.directory import Directory
from iotistica.storage.redis import Redis
from iotistica.storage.streams import Message

MEMORY_EVERY: Final = 0.5  # seconds between looks at the memory of Redis


class Sorted:
    """A batch by where it goes: tenants' streams, tenants' dead letters, the platform's dead letters."""

    def __init__(self) -> None:
        self.streams: dict[TenantId, list[Message]] = {}
        self.too_large: dict[TenantId, list[DeadLetter]] = {}
        self.unknown: list[DeadLetter] = []


class Intake:
    """Takes messages from the broker for as long as this process holds the lease."""

    def __init__(
        self, redis: Redis, directory: Directory, *, url: str, mark: int, opened: Callable[[], None]
    ) -> None:
        """`opened` is called when the session and its subscriptions are in place at the broker."""
        self._redis = redis
        self._directory = directory
        self._url = url
        self._mark = mark
        self._opened = opened
        self._last = 0
        self._looked = -MEMORY_EVERY

    async def run(self, stop: asyncio.Event) -> None:
        """One lease and one connection; whatever ends them is raised, and the supervisor comes back."""
        async with lease.held(self._redis, "intake", stop) as fence:
            if fence is None:
                return
            async with connect(self._url, keep_session=True) as client:
                await client.subscribe(topics.FILTERS)
                self._opened()
                logger.bind(fence=fence).info("intake is open")
                async for batch in client.batches(stop):
                    await self._take(batch, client, stop)

    async def _take(self, batch: Batch, client: Client, stop: asyncio.Event) -> None:
        """Append a batch and acknowledge it; raises `Unavailable` if we must go before it was appended."""
        received = self._stamp(len(batch.messages))
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(Unavailable),
            wait=wait_random_exponential(multiplier=0.1, max=2),
            stop=lambda _: stop.is_set() or client.is_lost,
            before_sleep=_paused,
            reraise=True,
        ):
            with attempt:
                sorted_ = await self._sort(batch.messages, received)
                await self._append(sorted_, received)
        batch.ack()
        _count(sorted_.streams)

    def _stamp(self, messages: int) -> int:
        """The receive time of a batch, in us; its messages follow a us apart, so that none shares its time.

        A reading that carries no time gets this one, and two of the same metric must not be taken for one.
        """
        received = max(time.time_ns() // 1000, self._last + 1)
        self._last = received + messages
        return received

    async def _sort(self, messages: list[Raw], received: int) -> Sorted:
        result = Sorted()
        for _, topic, payload in messages:
            try:
                tenant = topics.route(topic).tenant
            except InvalidMessage as exc:
                result.unknown.append(DeadLetter(topic[: dead_letters.HEAD], payload, received, exc.code, str(exc)))
                continue
            if len(payload) > PAYLOAD_CAP:
                digest = f"{len(payload)} bytes, sha256 {hashlib.sha256(payload).hexdigest()}"
                letter = DeadLetter(topic, payload[: dead_letters.HEAD], received, "too_large", digest)
                result.too_large.setdefault(tenant, []).append(letter)
            else:
                result.streams.setdefault(tenant, []).append((topic, payload))
        await self._set_strangers_aside(result, received)
        return result

    async def _set_strangers_aside(self, result: Sorted, received: int) -> None:
        asked = result.streams.keys() | result.too_large.keys()
        strangers = asked - await self._directory.known(asked)
        for tenant in strangers:
            result.unknown += result.too_large.pop(tenant, ())
            for topic, payload in result.streams.pop(tenant, ()):
                result.unknown.append(DeadLetter(topic, payload, received, "unknown_tenant", ""))

    async def _append(self, sorted_: Sorted, received: int) -> None:
        if sorted_.streams:
            if time.monotonic() - self._looked > MEMORY_EVERY:
                await streams.check_memory(self._redis)
                self._looked = time.monotonic()
            await streams.append(self._redis, sorted_.streams, received=received, mark=self._mark)
        for tenant, letters in sorted_.too_large.items():
            await dead_letters.keep(self._redis, tenant, letters)
            REFUSED.add(len(letters), {"reason": "too_large"})
        if sorted_.unknown:
            await dead_letters.keep_unknown(self._redis, sorted_.unknown)
            for letter in sorted_.unknown:
                REFUSED.add(1, {"reason": letter.reason})


def _paused(state: RetryCallState) -> None:
    if state.attempt_number == 1:
        error = state.outcome.exception() if state.outcome else None
        logger.bind(error=str(error)).warning("intake pauses")
        PAUSES.add(1, {"reason": type(error).__name__})


def _count(taken: Mapping[TenantId, list[Message]]) -> None:
    TAKEN.add(sum(map(len, taken.values())))
    TAKEN_BYTES.add(sum(len(payload) for messages in taken.values() for _, payload in messages))
