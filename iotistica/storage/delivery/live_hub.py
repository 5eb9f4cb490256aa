"""Live updates to the clients of this process: one subscription per tenant, one bounded queue per listener."""

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

PROCESS_LIMIT: Final = 1000  # listeners in this process
TENANT_LIMIT: Final = 200  # listeners of one tenant
PRINCIPAL_LIMIT: Final = 20  # listeners of one user or key
QUEUE_BYTES: Final = 2 << 20  # bytes queued for a listener; a listener with more is ended
POLL_SECONDS: Final = 0.1  # seconds between checks for new listeners
RENEW_SECONDS: Final = 10.0  # seconds between renewals of the watched agents
SUBSCRIBE_SECONDS: Final = 5.0  # seconds to wait for the subscription to start
TOO_SLOW: Final = "too slow: more than 2 MiB were waiting"


class LiveMessage(NamedTuple):
    """One live update: its kind and its JSON."""

    kind: LiveKind
    content: bytes


class Selection(NamedTuple):
    """Kinds of updates of some agents; `agents` None means all agents of the tenant."""

    agents: frozenset[UUID] | None
    kinds: frozenset[LiveKind]

    def has(self, agent: UUID, kind: LiveKind) -> bool:
        """Whether an update belongs to the selection."""
        return kind in self.kinds and (self.agents is None or agent in self.agents)


NOTHING: Final = Selection(frozenset(), frozenset())


class Listener:
    """One client: the agents and kinds it listens to, and its queue."""

    def __init__(self, tenant: TenantId, principal: UUID) -> None:
        self.tenant = tenant
        self.principal = principal
        self.agents: frozenset[UUID] | None = frozenset()
        """None means all agents of the tenant."""
        self.kinds: frozenset[LiveKind] = frozenset()
        self.details = NOTHING
        """More kinds, of some of the agents."""
        self.ended: str | None = None
        """Why the listener was ended; None while it is not."""
        self._waiting: deque[LiveMessage] = deque()
        self._bytes = 0
        self._woken = asyncio.Event()

    @property
    def watched(self) -> frozenset[UUID]:
        """The agents for which the listener wants kinds that are published only for watched agents."""
        selections = (Selection(self.agents, self.kinds), self.details)
        return frozenset(
            agent
            for selection in selections
            if selection.kinds & {*ON_DEMAND_KINDS}
            for agent in selection.agents or ()
        )

    def offer(self, agent: UUID, message: LiveMessage) -> None:
        """Queue a message if the listener wants it; end the listener if more than `QUEUE_BYTES` wait."""
        is_wanted = Selection(self.agents, self.kinds).has(agent, message.kind) or self.details.has(
            agent, message.kind
        )
        if self.ended or not is_wanted:
            return
        self._bytes += len(message.content)
        if self._bytes > QUEUE_BYTES:
            self._waiting.clear()
            self.end(TOO_SLOW)
            return
        self._waiting.append(message)
        self._woken.set()

    def end(self, reason: str) -> None:
        self.ended = self.ended or reason
        self._woken.set()

    async def take(self, seconds: float) -> list[LiveMessage]:
        """Wait up to `seconds` for messages and return all that are queued; none after that time or at the end."""
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
    """Distributes live updates to the listeners; there is one hub per process."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._listeners: dict[TenantId, set[Listener]] = {}
        self._subscribed: dict[TenantId, asyncio.Event] = {}

    def check_limits(self, tenant: TenantId, principal: UUID) -> None:
        """Raise `TooMany` if the principal, the tenant or this process has as many listeners as allowed."""
        listeners = self._listeners.get(tenant, ())
        if sum(listener.principal == principal for listener in listeners) >= PRINCIPAL_LIMIT:
            raise TooMany(f"At most {PRINCIPAL_LIMIT} listeners of one user or key are allowed.", seconds=5)
        if len(listeners) >= TENANT_LIMIT:
            raise TooMany(f"At most {TENANT_LIMIT} listeners of one tenant are allowed.", seconds=5)
        if sum(map(len, self._listeners.values())) >= PROCESS_LIMIT:
            raise TooMany("Too many clients listen to this process.", seconds=5)

    @contextmanager
    def listen(self, tenant: TenantId, principal: UUID) -> Iterator[Listener]:
        """Add a listener without any agents or kinds for the block; raises `TooMany`."""
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
        """Wait until every update from now on reaches the listener; raises `Unavailable`."""
        if await live.watch(self._redis, listener.tenant, listener.watched):
            await asyncio.sleep(live.WATCH_CACHE_SECONDS)
        try:
            async with asyncio.timeout(SUBSCRIBE_SECONDS):
                await self._subscribed[listener.tenant].wait()
        except TimeoutError:
            raise Unavailable("Redis: the subscription did not start in time") from None

    async def run(self, stop: asyncio.Event) -> None:
        """Distribute published updates until `stop`; when Redis is unavailable, all listeners are ended."""
        while not stop.is_set():
            try:
                with guarded(self._redis):
                    await self._follow(stop)
            except Unavailable as exc:
                logger.bind(reason=str(exc)).debug("live updates are interrupted")
            self._end_all("reconnect: " + ("the platform stops" if stop.is_set() else "Redis was unavailable"))
            await sleep(1.0, stop)

    async def _follow(self, stop: asyncio.Event) -> None:
        renewed = 0.0
        async with self._subscription() as pubsub:
            patterns: set[TenantId] = set()
            while not stop.is_set():
                wanted = set(self._listeners)
                if added := wanted - patterns:
                    await pubsub.psubscribe(*(live_pattern(tenant) for tenant in added))
                if removed := patterns - wanted:
                    await pubsub.punsubscribe(*(live_pattern(tenant) for tenant in removed))
                    for tenant in removed:
                        if tenant in self._listeners:  # a listener came meanwhile; subscribe next time
                            self._subscribed[tenant].clear()
                        else:
                            self._subscribed.pop(tenant, None)
                patterns = wanted
                now = asyncio.get_running_loop().time()
                if now - renewed > RENEW_SECONDS:
                    renewed = now
                    for tenant, listeners in list(self._listeners.items()):
                        watched = {agent for listener in listeners for agent in listener.watched}
                        await live.watch(self._redis, tenant, watched)
                if not patterns:
                    await sleep(POLL_SECONDS, stop)
                    continue
                await self._pass_on(pubsub)

    async def _pass_on(self, pubsub: Any) -> None:
        """Queue all updates that have arrived for their listeners."""
        message = await pubsub.get_message(timeout=POLL_SECONDS)
        while message is not None:
            if message["type"] == "psubscribe":
                if event := self._subscribed.get(_tenant(message["channel"])):
                    event.set()
            elif message["type"] == "pmessage":
                _, _, _, agent, kind = message["channel"].decode().split(":")
                update = LiveMessage(cast(LiveKind, kind), message["data"])
                for listener in self._listeners.get(_tenant(message["channel"]), ()):
                    listener.offer(UUID(agent), update)
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
