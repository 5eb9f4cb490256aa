"""Who listens in this process: one subscription a tenant, and a bounded queue for each listener."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

from loguru import logger

from iotistica.domain.ids import TenantId
from iotistica.errors import TooMany, Unavailable
from iotistica.storage.delivery import live
from iotistica.storage.delivery.live import ON_DEMAND_KINDS, LiveKind
from iotistica.storage.redis import Redis, guarded, live_pattern
from iotistica.supervise import sleep

PROCESS_LIMIT: Final = 1000  # in this process
TENANT_LIMIT: Final = 200
PRINCIPAL_LIMIT: Final = 20  # of one user or key
QUEUE_BYTES: Final = 2 << 20  # bytes that wait for a listener; one that is further behind is dropped
POLL_SECONDS: Final = 0.1  # seconds between looks for other listeners
RENEW_SECONDS: Final = 10.0  # seconds between words that agents are still watched
SUBSCRIBE_SECONDS: Final = 5.0  # seconds for the subscription to begin
TOO_SLOW: Final = "too slow: more than 2 MiB waited"


class LiveMessage(NamedTuple):
    """One message: of what kind, and its JSON."""

    kind: LiveKind
    content: bytes


class Listener:
    """One client: what it wants, and what waits for it."""

    def __init__(self, tenant: TenantId, principal: UUID) -> None:
        self.tenant = tenant
        self.principal = principal
        self.agents: frozenset[UUID] | None = frozenset()
        """None is all of the tenant's."""
        self.kinds: frozenset[LiveKind] = frozenset()
        self.ended: str | None = None
        """Why nothing comes any more."""
        self._waiting: deque[LiveMessage] = deque()
        self._bytes = 0
        self._woken = asyncio.Event()

    @property
    def watched(self) -> frozenset[UUID]:
        """The agents of which it wants what is published only for watched ones."""
        return (self.agents or frozenset()) if self.kinds & {*ON_DEMAND_KINDS} else frozenset()

    def offer(self, agent: UUID, told: LiveMessage) -> None:
        """Put a message into its queue, if it wants it; one that is too far behind is ended."""
        if self.ended or told.kind not in self.kinds or (self.agents is not None and agent not in self.agents):
            return
        self._bytes += len(told.content)
        if self._bytes > QUEUE_BYTES:
            self._waiting.clear()
            self.end(TOO_SLOW)
            return
        self._waiting.append(told)
        self._woken.set()

    def end(self, reason: str) -> None:
        self.ended = self.ended or reason
        self._woken.set()

    async def take(self, seconds: float) -> list[LiveMessage]:
        """All that waits, as soon as something does; nothing after so many seconds, or at the end."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return []
        taken, self._bytes = list(self._waiting), 0
        self._waiting.clear()
        if not self.ended:
            self._woken.clear()
        return taken


class LiveHub:
    """One a process."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._listeners: dict[TenantId, set[Listener]] = {}
        self._subscribed: dict[TenantId, asyncio.Event] = {}

    def check_limits(self, tenant: TenantId, principal: UUID) -> None:
        """Raise `TooMany` if somebody may not listen once more."""
        mine = self._listeners.get(tenant, ())
        if sum(one.principal == principal for one in mine) >= PRINCIPAL_LIMIT:
            raise TooMany(f"{PRINCIPAL_LIMIT} listeners of one user or key at most", seconds=5)
        if len(mine) >= TENANT_LIMIT:
            raise TooMany(f"{TENANT_LIMIT} listeners of one tenant at most", seconds=5)
        if sum(len(some) for some in self._listeners.values()) >= PROCESS_LIMIT:
            raise TooMany("too many listen to this process", seconds=5)

    @contextmanager
    def listen(self, tenant: TenantId, principal: UUID) -> Iterator[Listener]:
        """A listener that wants nothing yet; raises `TooMany`."""
        self.check_limits(tenant, principal)
        listener = Listener(tenant, principal)
        self._listeners.setdefault(tenant, set()).add(listener)
        self._subscribed.setdefault(tenant, asyncio.Event())
        try:
            yield listener
        finally:
            self._listeners[tenant].discard(listener)
            if not self._listeners[tenant]:
                del self._listeners[tenant]

    async def wait_until_subscribed(self, listener: Listener) -> None:
        """Wait until what happens from now on comes; raises `Unavailable`."""
        if await live.watch(self._redis, listener.tenant, listener.watched):
            await asyncio.sleep(live.WATCH_CACHE_SECONDS)
        try:
            async with asyncio.timeout(SUBSCRIBE_SECONDS):
                await self._subscribed[listener.tenant].wait()
        except TimeoutError:
            raise Unavailable("Redis: no subscription") from None

    async def run(self, stop: asyncio.Event) -> None:
        """Pass on what is published until `stop`; when Redis goes away, everybody has to begin anew."""
        while not stop.is_set():
            try:
                with guarded(self._redis):
                    await self._follow(stop)
            except Unavailable as exc:
                logger.bind(reason=str(exc)).debug("nobody hears what happens")
            self._end_all("begin anew: " + ("the platform stops" if stop.is_set() else "Redis was away"))
            await sleep(1.0, stop)

    async def _follow(self, stop: asyncio.Event) -> None:
        renewed = 0.0
        async with self._subscription() as pubsub:
            patterns: set[TenantId] = set()
            while not stop.is_set():
                wanted = set(self._listeners)
                if new := wanted - patterns:
                    await pubsub.psubscribe(*(live_pattern(tenant) for tenant in new))
                if old := patterns - wanted:
                    await pubsub.punsubscribe(*(live_pattern(tenant) for tenant in old))
                    for tenant in old:
                        if tenant in self._listeners:  # somebody has come meanwhile, and waits for the next one
                            self._subscribed[tenant].clear()
                        else:
                            self._subscribed.pop(tenant, None)
                patterns = wanted
                now = asyncio.get_running_loop().time()
                if now - renewed > RENEW_SECONDS:
                    renewed = now
                    for tenant, listeners in list(self._listeners.items()):
                        watched = {agent for one in listeners for agent in one.watched}
                        await live.watch(self._redis, tenant, watched)
                if not patterns:
                    await sleep(POLL_SECONDS, stop)
                    continue
                await self._pass_on(pubsub)

    async def _pass_on(self, pubsub: Any) -> None:
        """What has come, all of it; then the others have their turn."""
        message = await pubsub.get_message(timeout=POLL_SECONDS)
        while message is not None:
            if message["type"] == "psubscribe":
                if event := self._subscribed.get(_tenant(message["channel"])):
                    event.set()
            elif message["type"] == "pmessage":
                _, _, _, agent, kind = message["channel"].decode().split(":")
                told = LiveMessage(cast(LiveKind, kind), message["data"])
                for listener in self._listeners.get(_tenant(message["channel"]), ()):
                    listener.offer(UUID(agent), told)
            message = await pubsub.get_message(timeout=0)

    @asynccontextmanager
    async def _subscription(self) -> AsyncIterator[Any]:
        pubsub = self._redis.pubsub()
        try:
            yield pubsub
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    def _end_all(self, reason: str) -> None:
        for event in self._subscribed.values():
            event.clear()
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.end(reason)


def _tenant(channel: bytes) -> TenantId:
    return TenantId(channel.decode().split(":")[1].strip("{}"))
